//! The chart's release on a control plane, as helm makes it, and its processes on this machine: each with the arguments
//! of its Deployment, and as its own account, which may do what the chart's roles say and nothing else.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use http::{Method, Request};
use kube::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tidemark_cli::manifests::{self, Contents};
use tidemark_testkit::{ControlPlane, SecretVolume};
use tokio::time::{Instant, sleep, timeout};
use xtask::process_group::ProcessGroup;

pub const CHART: &str = "../../charts/tidemark";
pub const NAMESPACE: &str = "keda";
pub const SECRET: &str = "kedaorg-certs";
pub const OPERATOR: &str = "keda-operator";
pub const METRICS_SERVER: &str = "keda-operator-metrics-apiserver";
pub const WEBHOOKS: &str = "keda-admission-webhooks";
/// Deployments, and the accounts of their processes.
pub const ACCOUNTS: [(&str, &str); 3] =
    [(OPERATOR, "keda-operator"), (METRICS_SERVER, "keda-metrics-server"), (WEBHOOKS, "keda-webhook")];
const LOOK: Duration = Duration::from_millis(100);
/// Deadline of one request.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Requests to the API server, of objects as they come.
#[derive(Clone)]
pub struct Rest(pub Client);

impl Rest {
    /// The object or list there.
    pub async fn try_get(&self, path: &str) -> kube::Result<Value> {
        self.request(Method::GET, path, "", "application/json", &Value::Null).await
    }

    pub async fn get(&self, path: &str) -> Value {
        self.try_get(path).await.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Whether there is nothing.
    pub async fn is_absent(&self, path: &str) -> bool {
        matches!(self.try_get(path).await, Err(kube::Error::Api(status)) if status.code == 404)
    }

    /// Makes an object; `manager` is who the managed fields say has done it, as in all that follows.
    pub async fn create(&self, path: &str, manager: &str, object: &Value) -> Value {
        self.write(Method::POST, path, manager, "application/json", object).await
    }

    pub async fn merge(&self, path: &str, manager: &str, patch: &Value) -> Value {
        self.write(Method::PATCH, path, manager, "application/merge-patch+json", patch).await
    }

    async fn write(&self, method: Method, path: &str, manager: &str, kind: &str, object: &Value) -> Value {
        let outcome = self.request(method.clone(), path, manager, kind, object).await;
        outcome.unwrap_or_else(|error| panic!("{method} {path}: {error}\n{object}"))
    }

    pub async fn request(
        &self,
        method: Method,
        path: &str,
        manager: &str,
        kind: &str,
        body: &Value,
    ) -> kube::Result<Value> {
        let query = if path.contains('?') { '&' } else { '?' };
        let uri = match manager {
            "" => path.to_owned(),
            manager => format!("{path}{query}fieldManager={manager}"),
        };
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(uri).header("content-type", kind).body(body).unwrap();
        match timeout(ANSWER_WITHIN, self.0.request(request)).await {
            Ok(outcome) => outcome,
            Err(elapsed) => Err(kube::Error::Service(elapsed.into())),
        }
    }
}

/// Helm for a control plane.
pub struct Helm {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Helm {
    /// None where the machine has none, which is said past the harness's capture.
    pub fn find(plane: &ControlPlane) -> Option<Self> {
        let Some(program) = xtask::helm::find().unwrap() else {
            let required = std::env::var("TIDEMARK_REQUIRE_HELM").is_ok_and(|value| value == "1");
            assert!(!required, "there is no helm");
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            // A closed standard error is no reason to fail.
            let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: there is no helm; `cargo xtask test` provides it");
            return None;
        };
        let home = plane.directory().join("helm");
        Some(Self { program, kubeconfig: plane.kubeconfig().to_owned(), home })
    }

    /// Runs helm in the installation's namespace; gives what it says.
    pub fn try_run(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command.args(arguments).args(["--namespace", NAMESPACE]).env("KUBECONFIG", &self.kubeconfig);
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, &self.home);
        }
        let output = command.output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    pub fn run(&self, arguments: &[&str]) -> String {
        self.try_run(arguments).unwrap_or_else(|error| panic!("helm {}: {error}", arguments.join(" ")))
    }

    /// The objects of a release under KEDA's names.
    pub fn rendered(&self, settings: &[String]) -> Vec<Value> {
        let mut arguments = vec!["template", "keda", CHART, "--kube-version", "1.36.0"];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        let mut contents = Contents::default();
        manifests::parse(Path::new("chart.yaml"), &self.run(&arguments), &mut contents);
        assert!(contents.errors.is_empty(), "{:?}", contents.errors);
        contents.manifests.into_iter().map(|manifest| manifest.object).collect()
    }
}

pub fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// The ports of this machine to which the Services lead.
#[derive(Clone, Copy)]
pub struct Ports {
    pub link: u16,
    pub api: u16,
    pub hooks: u16,
}

impl Ports {
    /// Under KEDA's names, with the metrics server where it listens.
    pub fn settings(self) -> Vec<String> {
        vec!["kedaNames=true".to_owned(), format!("service.portHttps={}", self.api)]
    }

    /// Leads the Services of the release to this machine: pods run nothing here.
    pub async fn lead(self, rest: &Rest) {
        for (service, port) in [(OPERATOR, self.link), (METRICS_SERVER, self.api), (WEBHOOKS, self.hooks)] {
            let spec = json!({
                "type": "ExternalName", "externalName": "localhost", "selector": null, "clusterIP": null,
                "clusterIPs": null, "ports": [{"name": "here", "port": port}],
            });
            let path = format!("/api/v1/namespaces/{NAMESPACE}/services/{service}");
            rest.merge(&path, "test", &json!({"spec": spec})).await;
        }
        let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/keda-admission";
        let mut hooks = rest.get(path).await["webhooks"].take();
        for hook in hooks.as_array_mut().unwrap() {
            hook["clientConfig"]["service"]["port"] = self.hooks.into();
        }
        rest.merge(path, "test", &json!({"webhooks": hooks})).await;
    }
}

/// The processes of a release.
pub struct Processes {
    group: Mutex<ProcessGroup>,
    _volume: Option<SecretVolume>,
}

impl Processes {
    /// None of them runs yet; the Secret of the certificates is mounted.
    pub fn new(client: Client) -> Self {
        let bare = Self::without_certificates();
        let volume = SecretVolume::mount(client, NAMESPACE, SECRET, &bare.certificates()).unwrap();
        Self { _volume: Some(volume), ..bare }
    }

    /// None of them runs yet.
    pub fn without_certificates() -> Self {
        Self { group: Mutex::new(ProcessGroup::start("release").unwrap()), _volume: None }
    }

    /// The folder of the certificates.
    pub fn certificates(&self) -> PathBuf {
        self.group().directory().join("certs")
    }

    fn group(&self) -> MutexGuard<'_, ProcessGroup> {
        self.group.lock().unwrap()
    }

    /// Starts the process of a Deployment, as its account.
    pub async fn start(&self, plane: &ControlPlane, objects: &[Value], deployment: &str, ports: Ports) {
        let account = ACCOUNTS.into_iter().find(|(name, _)| *name == deployment).unwrap().1;
        let kubeconfig = plane.service_account(NAMESPACE, account).await.unwrap();
        let certs = self.certificates().display().to_string();
        let Ports { link, api, hooks } = ports;
        let own = match deployment {
            OPERATOR => vec![
                format!("--metrics-service-bind-address=127.0.0.1:{link}"),
                "--metrics-bind-address=0".to_owned(),
                "--health-probe-bind-address=0".to_owned(),
            ],
            METRICS_SERVER => vec![
                format!("--secure-port={api}"),
                "--bind-address=127.0.0.1".to_owned(),
                "--port=0".to_owned(),
                format!("--tls-cert-file={certs}/tls.crt"),
                format!("--tls-private-key-file={certs}/tls.key"),
                format!("--metrics-service-address=127.0.0.1:{link}"),
                format!("--metrics-service-grpc-authority={OPERATOR}.{NAMESPACE}.svc.cluster.local"),
            ],
            _ => vec![
                format!("--port={hooks}"),
                "--metrics-bind-address=0".to_owned(),
                "--health-probe-bind-address=0".to_owned(),
            ],
        };
        let container = &named(objects, "Deployment", deployment)["spec"]["template"]["spec"]["containers"][0];
        let texts = |list: &Value| -> Vec<String> {
            list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let mut arguments = texts(&container["args"]);
        // The port of the default may be anybody's.
        let serves = arguments.iter().any(|argument| argument.starts_with("--reasons-bind-address="));
        if deployment == OPERATOR && !serves {
            arguments.push("--reasons-bind-address=0".to_owned());
        }
        arguments.extend(own);
        arguments.push(format!("--cert-dir={certs}"));
        let variables = container["env"].as_array().into_iter().flatten();
        let variables = variables.filter_map(|variable| {
            Some((variable["name"].as_str()?.to_owned(), variable["value"].as_str()?.to_owned()))
        });
        self.spawn(deployment, &arguments, &kubeconfig, variables.collect());
    }

    /// Starts a process of another name.
    pub fn spawn(&self, name: &str, arguments: &[String], kubeconfig: &Path, variables: BTreeMap<String, String>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
        command.args(arguments).arg(format!("--kubeconfig={}", kubeconfig.display())).env_clear();
        // What a pod has as a file.
        command.env("KEDA_CLUSTER_OBJECT_NAMESPACE", NAMESPACE);
        command.envs([("POD_NAMESPACE", NAMESPACE), ("HOSTNAME", name), ("RUST_BACKTRACE", "1")]).envs(variables);
        self.group().spawn(name, command).unwrap();
    }

    /// Tells a process to go, and waits until it has.
    pub async fn stop(&self, name: &str) -> ExitStatus {
        let id = self.group().process_id(name).unwrap();
        kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), Signal::TERM).unwrap();
        self.ended(name).await
    }

    /// Waits until a process has ended.
    pub async fn ended(&self, name: &str) -> ExitStatus {
        let began = Instant::now();
        loop {
            let ended = self.group().ended().unwrap();
            if let Some((_, status)) = ended.filter(|(ended, _)| ended == name) {
                self.group().kill(name).unwrap();
                return status;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{name} does not end: {}", self.log(name));
            sleep(LOOK).await;
        }
    }

    pub fn log(&self, name: &str) -> String {
        self.group().log_tail(name, 10_000)
    }

    /// Waits until a process has said something.
    pub async fn says(&self, name: &str, words: &str, within: Duration) {
        let look = async || if self.log(name).contains(words) { Ok(()) } else { Err(String::new()) };
        self.until(&format!("{name} says {words:?}"), within, look).await;
    }

    /// Waits, and panics with the logs when it does not come.
    pub async fn until(&self, what: &str, within: Duration, mut look: impl AsyncFnMut() -> Result<(), String>) {
        let began = Instant::now();
        while let Err(last) = look().await {
            assert!(began.elapsed() < within, "not within {within:?}: {what}; last: {last}\n{}", self.logs());
            sleep(LOOK).await;
        }
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        let group = self.group();
        let end = |(name, _): (&str, &str)| format!("--- {name}\n{}\n", group.log_tail(name, 40));
        ACCOUNTS.into_iter().map(end).collect()
    }
}
