//! KEDA's own processes beside a control plane: each with the arguments that its image and its manifests give it, with its
//! registrations at the API server, and with certificates of its own making.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tidemark_cli::manifests::{self, Contents};
use tidemark_testkit::{ControlPlane, Options, SecretVolume};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use xtask::network::free_ports;
use xtask::process_group::ProcessGroup;
use xtask::services::keda;

use crate::desk::skip;
use crate::on_control_plane::release::{Ports, Rest};
use crate::on_control_plane::sources::get;

/// As whom KEDA's processes ask the API server, with an administrator's rights: its own roles are not what is tested.
pub const USER: &str = "keda";
/// Who KEDA's operator is for the managed fields: the name of its program.
pub const MANAGER: &str = "keda";
pub const NAMESPACE: &str = "keda";
pub const SECRET: &str = "kedaorg-certs";
pub const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/keda/leases/operator.keda.sh";
/// Services of [`Part::ALL`], by the names in KEDA's manifests.
pub const SERVICES: [&str; 3] = ["keda-operator", "keda-metrics-apiserver", "keda-admission-webhooks"];

const LOOK: Duration = Duration::from_millis(100);
/// A start takes some 3 s on an idle machine. With leader election and a Lease that somebody has left, 17 s more.
const READY_WITHIN: Duration = Duration::from_secs(90);
const END_WITHIN: Duration = Duration::from_secs(20);

/// One of KEDA's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Operator,
    MetricsServer,
    Webhooks,
}

impl Part {
    pub const ALL: [Self; 3] = [Self::Operator, Self::MetricsServer, Self::Webhooks];

    fn program(self) -> &'static str {
        keda::PROGRAMS[self as usize]
    }
}

/// KEDA's processes. They are killed when this is dropped.
pub struct Keda {
    group: Mutex<ProcessGroup>,
    programs: PathBuf,
    kubeconfig: PathBuf,
    rest: Rest,
    ports: Ports,
    metrics: [u16; 3],
    /// What each part is started with besides what is always there.
    changes: BTreeMap<Part, Changes>,
    volume: SecretVolume,
}

/// Further arguments, which count more than those before them, and variables.
#[derive(Default)]
struct Changes {
    arguments: Vec<OsString>,
    variables: BTreeMap<OsString, Option<OsString>>,
}

impl Keda {
    /// Installs what KEDA needs at the API server, starts these parts and waits until they work: certificates are made,
    /// metrics are served, admission is asked. Definitions that are there stay as they are. `configure` adds arguments
    /// and variables.
    ///
    /// None where the machine has no KEDA, which is said past the harness's capture; with `TIDEMARK_REQUIRE_KEDA=1`, as
    /// `cargo xtask test` sets it, that is a failure.
    pub async fn start(plane: &ControlPlane, parts: &[Part], configure: impl Fn(Part, &mut Command)) -> Option<Self> {
        let [link, api, hooks] = free_ports().unwrap();
        let this = Self::prepare(plane, Ports { link, api, hooks }, configure).await?;
        this.install(plane, parts).await;
        if parts.contains(&Part::Operator) {
            this.make_certificates().await;
        }
        parts.iter().for_each(|part| this.run(*part));
        for part in parts {
            this.until_ready(*part).await;
        }
        if parts.contains(&Part::Operator) {
            if parts.contains(&Part::MetricsServer) {
                plane.wait_for_external_metrics().await.unwrap();
            }
            if parts.contains(&Part::Webhooks) {
                this.until("KEDA's CA is in the webhooks", async || this.admission_trusts().await).await;
            }
        }
        Some(this)
    }

    /// Processes that do not run yet, with nothing installed: [`Keda::run`] starts each. None as in [`Keda::start`].
    pub async fn prepare(plane: &ControlPlane, ports: Ports, configure: impl Fn(Part, &mut Command)) -> Option<Self> {
        let programs = programs()?;
        let client = plane.client().await.unwrap();
        let group = ProcessGroup::start("keda").unwrap();
        let volume = SecretVolume::mount(client.clone(), NAMESPACE, SECRET, &group.directory().join("certs")).unwrap();
        let changes = Part::ALL.map(|part| {
            let mut command = Command::new("");
            configure(part, &mut command);
            let variables = command.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned)));
            let changes = Changes {
                arguments: command.get_args().map(ToOwned::to_owned).collect(),
                variables: variables.collect(),
            };
            (part, changes)
        });
        Some(Self {
            group: Mutex::new(group),
            programs,
            kubeconfig: plane.user(USER, &["system:masters"]).unwrap(),
            rest: Rest(client),
            ports,
            metrics: free_ports().unwrap(),
            changes: changes.into(),
            volume,
        })
    }

    /// Namespace, definitions, Services, APIService and webhooks, the latter two for the parts that serve them.
    async fn install(&self, plane: &ControlPlane, parts: &[Part]) {
        let Ports { link, api, hooks } = self.ports;
        for (service, port) in SERVICES.into_iter().zip([link, api, hooks]) {
            plane.register_service(NAMESPACE, service, port).await.unwrap();
        }
        install_definitions(&self.rest).await;
        if parts.contains(&Part::MetricsServer) {
            plane.register_external_metrics_service(NAMESPACE, SERVICES[1], api).await.unwrap();
        }
        if parts.contains(&Part::Webhooks) {
            let file = self.programs.join("config/webhooks/validation_webhooks.yaml");
            for mut configuration in objects(&file) {
                for hook in configuration["webhooks"].as_array_mut().unwrap() {
                    hook["clientConfig"]["service"]["port"] = hooks.into();
                }
                let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
                self.rest.create(path, "test", &configuration).await;
            }
        }
    }

    /// A first run of the operator, which ends once it has stored certificates, so that a kubelet mounts them. Does nothing
    /// where they are there.
    pub async fn make_certificates(&self) {
        let secret = format!("/api/v1/namespaces/{NAMESPACE}/secrets/{SECRET}");
        let stored = self.rest.try_get(&secret).await;
        if stored.is_ok_and(|stored| !stored["data"]["tls.crt"].is_null()) {
            return self.until("the certificates are mounted", async || self.mounted()).await;
        }
        let mut command = self.command(Part::Operator);
        // It never gives its Lease back, and the next run would wait for it.
        command.arg("--leader-elect=false");
        let name = Part::Operator.program();
        self.group().spawn(name, command).unwrap();
        let status = self.ended(Part::Operator, READY_WITHIN).await;
        assert!(status.success(), "{status}: {}", self.log(Part::Operator));
        self.until("the certificates are mounted", async || self.mounted()).await;
    }

    /// Starts a part, which must not run.
    pub fn run(&self, part: Part) {
        let command = self.command(part);
        self.group().spawn(part.program(), command).unwrap();
    }

    fn command(&self, part: Part) -> Command {
        let Ports { link, api, hooks } = self.ports;
        let certs = self.certs().display();
        let (kubeconfig, metrics) = (self.kubeconfig.display(), self.metrics[part as usize]);
        let own = match part {
            Part::Operator => vec![
                "--enable-cert-rotation=true".to_owned(),
                format!("--metrics-service-bind-address=127.0.0.1:{link}"),
                format!("--metrics-bind-address=127.0.0.1:{metrics}"),
                "--health-probe-bind-address=0".to_owned(),
            ],
            Part::MetricsServer => vec![
                format!("--secure-port={api}"),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--port={metrics}"),
                format!("--client-ca-file={certs}/ca.crt"),
                format!("--tls-cert-file={certs}/tls.crt"),
                format!("--tls-private-key-file={certs}/tls.key"),
                format!("--metrics-service-address=127.0.0.1:{link}"),
                format!("--metrics-service-grpc-authority={}.{NAMESPACE}.svc.cluster.local", SERVICES[0]),
                format!("--lister-kubeconfig={kubeconfig}"),
                format!("--authentication-kubeconfig={kubeconfig}"),
                format!("--authorization-kubeconfig={kubeconfig}"),
            ],
            Part::Webhooks => vec![
                format!("--port={hooks}"),
                format!("--metrics-bind-address=127.0.0.1:{metrics}"),
                "--health-probe-bind-address=0".to_owned(),
            ],
        };
        let mut command = Command::new(self.programs.join(part.program()));
        // The last one is what a pod has as a file.
        let variables =
            [("POD_NAMESPACE", NAMESPACE), ("WATCH_NAMESPACE", ""), ("KEDA_CLUSTER_OBJECT_NAMESPACE", NAMESPACE)];
        command.env_clear().envs(variables);
        command.args(["--zap-log-level=info", "--zap-encoder=console"]).args(own);
        command.args([format!("--cert-dir={certs}"), format!("--kubeconfig={kubeconfig}")]);
        let changes = &self.changes[&part];
        command.args(&changes.arguments);
        for (name, value) in &changes.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// Waits until a part serves. For the operator that means that it leads, and that the certificates are there.
    pub async fn until_ready(&self, part: Part) {
        let address = match part {
            Part::Operator => self.link(),
            Part::MetricsServer => self.api(),
            Part::Webhooks => self.hooks(),
        };
        let what = format!("KEDA's {part:?} serves on {address}");
        self.until(&what, async || TcpStream::connect(address).await.map(drop).map_err(|error| error.to_string()))
            .await;
    }

    async fn admission_trusts(&self) -> Result<(), String> {
        let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/keda-admission";
        let hooks = self.rest.get(path).await["webhooks"].take();
        let all = hooks.as_array().unwrap().iter().all(|hook| !hook["clientConfig"]["caBundle"].is_null());
        if all { Ok(()) } else { Err(hooks.to_string()) }
    }

    fn mounted(&self) -> Result<(), String> {
        let file = self.certs().join("tls.crt");
        if file.exists() { Ok(()) } else { Err(format!("there is no {}", file.display())) }
    }

    /// Waits, and panics with the logs when it does not come, or when a process has ended.
    pub async fn until(&self, what: &str, mut look: impl AsyncFnMut() -> Result<(), String>) {
        let began = Instant::now();
        while let Err(last) = look().await {
            let ended = self.group().ended().unwrap();
            assert!(ended.is_none(), "waiting for: {what}; ended: {ended:?}\n{}", self.logs());
            assert!(
                began.elapsed() < READY_WITHIN,
                "not within {READY_WITHIN:?}: {what}; last: {last}\n{}",
                self.logs()
            );
            sleep(LOOK).await;
        }
    }

    /// Sends a signal to a part.
    pub fn signal(&self, part: Part, signal: Signal) {
        let id = self.group().process_id(part.program()).unwrap();
        kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), signal).unwrap();
    }

    /// Tells a part to go, and waits until it has.
    pub async fn stop(&mut self, part: Part) -> ExitStatus {
        self.signal(part, Signal::TERM);
        self.ended(part, END_WITHIN).await
    }

    async fn ended(&self, part: Part, within: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            let ended = self.group().ended().unwrap();
            if let Some((_, status)) = ended.filter(|(name, _)| name == part.program()) {
                self.group().kill(part.program()).unwrap();
                return status;
            }
            assert!(began.elapsed() < within, "{part:?} does not end: {}", self.log(part));
            sleep(LOOK).await;
        }
    }

    /// All that a part has written, over all its runs.
    pub fn log(&self, part: Part) -> String {
        self.group().log_tail(part.program(), usize::MAX)
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        let group = self.group();
        Part::ALL.map(|part| format!("--- {}\n{}\n", part.program(), group.log_tail(part.program(), 40))).concat()
    }

    /// Where a part serves `/metrics`, over HTTP.
    pub fn metrics(&self, part: Part) -> SocketAddr {
        here(self.metrics[part as usize])
    }

    /// Where the operator serves the gRPC metrics service. Its certificate is for `keda-operator.keda.svc.cluster.local`
    /// and shorter forms of it.
    pub fn link(&self) -> SocketAddr {
        here(self.ports.link)
    }

    /// Where the metrics server serves `external.metrics.k8s.io`, over TLS.
    pub fn api(&self) -> SocketAddr {
        here(self.ports.api)
    }

    /// Where the webhooks serve admission reviews, over TLS.
    pub fn hooks(&self) -> SocketAddr {
        here(self.ports.hooks)
    }

    /// The folder with `ca.crt`, `ca.key`, `tls.crt` and `tls.key`, as the Secret has them.
    pub fn certs(&self) -> &Path {
        self.volume.folder()
    }

    fn group(&self) -> MutexGuard<'_, ProcessGroup> {
        self.group.lock().unwrap()
    }
}

fn here(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The folder of KEDA's programs and of its `config`; none as in [`Keda::start`].
pub fn programs() -> Option<PathBuf> {
    let found = keda::find().unwrap();
    if found.is_none() {
        skip("TIDEMARK_REQUIRE_KEDA", "there is no KEDA; `cargo xtask keda` builds it");
    }
    found
}

/// KEDA's own definitions of its resources; none where the machine has no KEDA.
pub fn definitions() -> Vec<Value> {
    let Some(folder) = programs() else { return Vec::new() };
    let files = std::fs::read_dir(folder.join("config/crd/bases")).unwrap();
    let files: BTreeSet<_> = files.map(|entry| entry.unwrap().path()).collect();
    files.iter().flat_map(|file| objects(file)).collect()
}

/// The objects of a manifest.
pub fn objects(file: &Path) -> Vec<Value> {
    let mut contents = Contents::default();
    manifests::parse(file, &std::fs::read_to_string(file).unwrap(), &mut contents);
    assert!(contents.errors.is_empty(), "{:?}", contents.errors);
    contents.manifests.into_iter().map(|manifest| manifest.object).collect()
}

/// KEDA's definitions, unless there are some, and waits until they are served.
pub async fn install_definitions(rest: &Rest) {
    for definition in definitions() {
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        match rest.request(http::Method::POST, path, "test", "application/json", &definition).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            outcome => drop(outcome.unwrap()),
        }
    }
    established(rest).await;
}

/// Waits until the definitions are served.
pub async fn established(rest: &Rest) {
    let began = Instant::now();
    for (group, plural) in [
        ("keda.sh", "scaledobjects"),
        ("keda.sh", "scaledjobs"),
        ("keda.sh", "triggerauthentications"),
        ("keda.sh", "clustertriggerauthentications"),
        ("eventing.keda.sh", "cloudeventsources"),
        ("eventing.keda.sh", "clustercloudeventsources"),
    ] {
        while rest.try_get(&format!("/apis/{group}/v1alpha1/{plural}")).await.is_err() {
            assert!(began.elapsed() < READY_WITHIN, "{plural} are not served");
            sleep(LOOK).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kedas_processes_work_and_end_when_they_are_told() {
    let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let Some(mut keda) = Keda::start(&plane, &Part::ALL, |_, _| {}).await else { return };
    for part in Part::ALL {
        assert!(keda.log(part).contains(keda::VERSION), "{}", keda.log(part));
        let answer = get(&keda.metrics(part).to_string(), "/metrics").await;
        assert!(answer.contains("go_goroutines"), "{answer}");
    }
    for part in Part::ALL {
        assert!(keda.stop(part).await.success(), "{}", keda.log(part));
    }
}
