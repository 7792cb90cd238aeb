use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use xtask::network::free_ports;
use xtask::process_group::ProcessGroup;

use crate::certificates::{Certificates, write_private};
use crate::{Error, audit};

/// Starting takes 5 to 10 seconds on an idle machine; a build beside it may take most of the cores.
const START_WITHIN: Duration = Duration::from_secs(120);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);
/// The free ports are not reserved: somebody else may take one before its server binds it.
const START_ATTEMPTS: usize = 3;

/// What autoscaling workloads need, and the clean-up of deleted objects. Left out is above all what judges nodes and
/// pods by a kubelet's reports: it would evict what the stand-in runs.
const CONTROLLERS: &str = "clusterrole-aggregation-controller,cronjob-controller,deployment-controller,\
    disruption-controller,endpoints-controller,endpointslice-controller,garbage-collector-controller,\
    horizontal-pod-autoscaler-controller,job-controller,namespace-controller,replicaset-controller,\
    replicationcontroller-controller,resourcequota-controller,serviceaccount-controller,statefulset-controller,\
    ttl-after-finished-controller";

/// How the controllers behave.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often the HPA controller looks at each HPA. Default 1 s; Kubernetes' own default is 15 s.
    pub hpa_sync_period: Duration,
    /// For how long the HPA controller remembers recommendations before it scales down, where an HPA's behaviour does
    /// not say otherwise. Default 300 s, as in Kubernetes.
    pub hpa_downscale_stabilization: Duration,
    /// Keep a record of the requests that the API server answers, for [`ControlPlane::audit`]. Default no.
    pub audit: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hpa_sync_period: Duration::from_secs(1),
            hpa_downscale_stabilization: Duration::from_secs(300),
            audit: false,
        }
    }
}

/// A running control plane of its own: etcd, kube-apiserver (RBAC, CRDs, aggregation) and kube-controller-manager.
///
/// The servers and all their data are gone when this is dropped, and also when the test's process is killed.
#[derive(Debug)]
pub struct ControlPlane {
    group: ProcessGroup,
    programs: PathBuf,
    kubeconfig: PathBuf,
    apiserver_arguments: Vec<String>,
}

impl ControlPlane {
    /// Starts a control plane with [`Options::default`] and waits until its controllers work.
    ///
    /// # Errors
    /// When there are no programs to start (`cargo xtask control-plane` provides them), or they do not come up.
    pub async fn start() -> Result<Self, Error> {
        Self::start_with(Options::default()).await
    }

    /// [`ControlPlane::start`] with other options.
    ///
    /// # Errors
    /// Those of [`ControlPlane::start`].
    pub async fn start_with(options: Options) -> Result<Self, Error> {
        let programs = xtask::control_plane::find()
            .map_err(|error| Error::Programs(format!("{error:#}")))?
            .ok_or(Error::NoPrograms)?;
        let mut attempts = 1;
        loop {
            match Self::attempt(programs.clone(), &options).await {
                Err(Error::Ended { log, .. })
                    if attempts < START_ATTEMPTS && log.contains("address already in use") =>
                {
                    attempts += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// A control plane for a test, or `None` where the machine has no programs for one. Says so on standard error, past
    /// the test harness's capture, so that a skipped test never looks like one that passed.
    ///
    /// # Panics
    /// When the control plane does not come up, and when there are no programs although the environment variable
    /// `TIDEMARK_REQUIRE_CONTROL_PLANE` is 1 (as `cargo xtask test` sets it).
    pub async fn start_or_skip(options: Options) -> Option<Self> {
        let required = std::env::var("TIDEMARK_REQUIRE_CONTROL_PLANE").is_ok_and(|value| value == "1");
        match Self::start_with(options).await {
            Ok(plane) => Some(plane),
            Err(reason @ Error::NoPrograms) if !required => {
                let test = std::thread::current().name().unwrap_or("a test").to_owned();
                // A closed standard error is no reason to fail.
                let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
                None
            }
            Err(error) => panic!("the control plane did not start: {error}"),
        }
    }

    /// A kubeconfig of a cluster administrator (JSON, mode 0600), for kubectl and anything else that takes a file.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The administrator's client configuration, to be altered or given to a client.
    ///
    /// # Errors
    /// Never in practice: the kubeconfig is our own.
    pub async fn config(&self) -> Result<Config, Error> {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        Ok(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
    }

    /// A new client of the administrator. It belongs to the runtime it was made in.
    ///
    /// # Errors
    /// Never in practice: the kubeconfig is our own.
    pub async fn client(&self) -> Result<Client, Error> {
        Ok(Client::try_from(self.config().await?)?)
    }

    /// `kubectl` for this control plane: the one built beside the servers, else the one on the path.
    pub fn kubectl(&self) -> Command {
        let built = self.programs.join("kubectl");
        let mut command = Command::new(if built.is_file() { built } else { "kubectl".into() });
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// The process group of the servers, as `ps -o pgid` shows it.
    pub fn process_group(&self) -> u32 {
        self.group.id()
    }

    /// The folder of the servers' data and of their logs (`NAME.log`).
    pub fn directory(&self) -> &Path {
        self.group.directory()
    }

    /// Kills the API server; nothing answers until [`ControlPlane::restart_apiserver`].
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill_apiserver(&mut self) -> Result<(), Error> {
        self.group.kill("kube-apiserver").map_err(Error::from)
    }

    /// Kills the API server, if it runs, and starts it again on the same port, its data kept. Returns once it is ready.
    ///
    /// # Errors
    /// When it does not come up again.
    pub async fn restart_apiserver(&mut self) -> Result<(), Error> {
        self.kill_apiserver()?;
        self.spawn_apiserver()?;
        self.wait_for_apiserver().await
    }

    /// Stops etcd as a disk that hangs does: the process is there and answers nothing, until
    /// [`ControlPlane::continue_etcd`].
    ///
    /// # Errors
    /// When etcd has gone.
    pub fn pause_etcd(&self) -> Result<(), Error> {
        self.signal("etcd", Signal::STOP)
    }

    /// Lets etcd go on.
    ///
    /// # Errors
    /// When etcd has gone.
    pub fn continue_etcd(&self) -> Result<(), Error> {
        self.signal("etcd", Signal::CONT)
    }

    fn signal(&self, name: &str, signal: Signal) -> Result<(), Error> {
        let gone = || io::Error::other(format!("{name} does not run"));
        let id = self.group.process_id(name).and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).ok_or_else(gone)?;
        Ok(kill_process(id, signal).map_err(io::Error::from)?)
    }

    async fn attempt(programs: PathBuf, options: &Options) -> Result<Self, Error> {
        let group = ProcessGroup::start("control-plane")?;
        let certificates = Certificates::create(group.directory())?;
        let audit = match options.audit {
            true => audit::arguments(group.directory())?.to_vec(),
            false => Vec::new(),
        };
        let [etcd_port, port] = free_ports()?;
        let mut plane = Self {
            kubeconfig: group.directory().join("kubeconfig"),
            apiserver_arguments: apiserver_arguments(&certificates, etcd_port, port, audit),
            programs,
            group,
        };
        write_private(&plane.kubeconfig, &kubeconfig(&certificates, "admin", port)?)?;
        let manager_kubeconfig = plane.directory().join("controller-manager.kubeconfig");
        write_private(&manager_kubeconfig, &kubeconfig(&certificates, "controller-manager", port)?)?;

        let etcd = etcd_arguments(plane.directory(), etcd_port);
        plane.spawn("etcd", &etcd)?;
        plane.spawn_apiserver()?;
        plane.wait_for_apiserver().await?;
        let manager = manager_arguments(&certificates, &manager_kubeconfig, options);
        plane.spawn("kube-controller-manager", &manager)?;
        plane.wait_for_controllers().await?;
        Ok(plane)
    }

    fn spawn(&mut self, name: &str, arguments: &[String]) -> Result<(), Error> {
        let mut command = Command::new(self.programs.join(name));
        command.args(arguments).current_dir(self.group.directory());
        // A proxy is for the outside world; the servers talk on the loopback.
        for variable in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            command.env_remove(variable);
        }
        Ok(self.group.spawn(name, command)?)
    }

    fn spawn_apiserver(&mut self) -> Result<(), Error> {
        let arguments = self.apiserver_arguments.clone();
        self.spawn("kube-apiserver", &arguments)
    }

    async fn wait_for_apiserver(&mut self) -> Result<(), Error> {
        let mut config = self.config().await?;
        config.default_retry = false;
        let client = Client::try_from(config)?;
        self.poll("the API server is ready", async || {
            get_text(&client, "/readyz").await.map(|_| ()).map_err(|error| error.to_string())
        })
        .await
    }

    /// Every namespace gets its default service account from a controller: when it is there, controllers work.
    async fn wait_for_controllers(&mut self) -> Result<(), Error> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, "default");
        self.poll("the controllers work", async || match timeout(ANSWER_WITHIN, accounts.get_opt("default")).await {
            Ok(Ok(Some(_))) => Ok(()),
            Ok(Ok(None)) => Err("the default service account is not there yet".into()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer".into()),
        })
        .await
    }

    async fn poll(&mut self, what: &'static str, check: impl AsyncFn() -> Result<(), String>) -> Result<(), Error> {
        let deadline = Instant::now() + START_WITHIN;
        loop {
            let last = match check().await {
                Ok(()) => return Ok(()),
                Err(last) => last,
            };
            if let Some((name, status)) = self.group.ended()? {
                return Err(Error::Ended { log: self.group.log_tail(&name, 20), name, status });
            }
            if Instant::now() >= deadline {
                return Err(Error::TooLate { what, limit: START_WITHIN, last });
            }
            sleep(PAUSE).await;
        }
    }
}

/// GET on a path that is no resource, with a deadline.
pub(crate) async fn get_text(client: &Client, path: &str) -> Result<String, kube::Error> {
    let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
    match timeout(ANSWER_WITHIN, client.request_text(request)).await {
        Ok(outcome) => outcome,
        Err(elapsed) => Err(kube::Error::Service(elapsed.into())),
    }
}

fn etcd_arguments(directory: &Path, port: u16) -> Vec<String> {
    let url = format!("http://127.0.0.1:{port}");
    vec![
        format!("--data-dir={}", directory.join("etcd").display()),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        "--listen-peer-urls=http://127.0.0.1:0".into(),
        // The data dies with the test: nothing is gained by waiting for the disk.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

fn apiserver_arguments(certificates: &Certificates, etcd_port: u16, port: u16, audit: Vec<String>) -> Vec<String> {
    let files = [
        ("tls-cert-file", "apiserver.crt"),
        ("tls-private-key-file", "apiserver.key"),
        ("client-ca-file", "ca.crt"),
        ("requestheader-client-ca-file", "front-proxy-ca.crt"),
        ("proxy-client-cert-file", "front-proxy-client.crt"),
        ("proxy-client-key-file", "front-proxy-client.key"),
        ("service-account-key-file", "service-account.pub"),
        ("service-account-signing-key-file", "service-account.key"),
    ];
    let mut arguments: Vec<String> =
        files.iter().map(|(flag, file)| format!("--{flag}={}", certificates.path(file).display())).collect();
    arguments.push(format!("--etcd-servers=http://127.0.0.1:{etcd_port}"));
    arguments.push(format!("--secure-port={port}"));
    arguments.extend(audit);
    arguments.extend(
        [
            "--bind-address=127.0.0.1",
            // A loopback address is no valid endpoint of the service `kubernetes`.
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=RBAC",
            // No controller issues tokens here, so pods must not have to mount one.
            "--disable-admission-plugins=ServiceAccount",
            // Who makes an object that blocks the deletion of its owner must be allowed to, as on OpenShift.
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--profiling=false",
        ]
        .map(str::to_owned),
    );
    arguments
}

fn manager_arguments(certificates: &Certificates, kubeconfig: &Path, options: &Options) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--root-ca-file={}", certificates.path("ca.crt").display()),
        format!("--controllers={CONTROLLERS}"),
        format!("--horizontal-pod-autoscaler-sync-period={}ms", options.hpa_sync_period.as_millis()),
        format!(
            "--horizontal-pod-autoscaler-downscale-stabilization={}ms",
            options.hpa_downscale_stabilization.as_millis()
        ),
        "--leader-elect=false".into(),
        // Nothing asks for its metrics or health, and no port can then be taken by somebody else.
        "--secure-port=0".into(),
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
    ]
}

fn kubeconfig(certificates: &Certificates, user: &str, port: u16) -> Result<Vec<u8>, Error> {
    let data = |file: &str| certificates.read(file).map(|pem| BASE64_STANDARD.encode(pem));
    // JSON is YAML.
    let document = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tidemark-test",
        "contexts": [{"name": "tidemark-test", "context": {"cluster": "tidemark-test", "user": user}}],
        "clusters": [{"name": "tidemark-test", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority-data": data("ca.crt")?,
        }}],
        "users": [{"name": user, "user": {
            "client-certificate-data": data(&format!("{user}.crt"))?,
            "client-key-data": data(&format!("{user}.key"))?,
        }}],
    });
    Ok(document.to_string().into_bytes())
}
