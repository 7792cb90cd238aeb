//! A whole installation on a control plane: two operators of which one leads, the metrics server, the webhooks, their
//! certificates as the operator makes them, and a kubelet that starts each again when it ends. Under load: objects whose
//! events swing, and somebody who reads their metrics as an HPA does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tidemark_api::ScaledObject;
use tidemark_clock::Clock;
use tidemark_serving::admission_review::WEBHOOKS;
use tidemark_serving::rotation::material::{Material, Names, renew};
use tidemark_testkit::{ControlPlane, Kubelet, Options, SecretVolume};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use xtask::network::free_ports;
use xtask::process_group::ProcessGroup;

use super::{install_crds, sources};
use crate::scenario::SourceChange;
use crate::world::Source;

pub const NAMESPACE: &str = "keda";
pub const OPERATORS: [&str; 2] = ["operator-a", "operator-b"];
pub const SERVERS: [&str; 2] = ["metrics-server", "webhooks"];
pub const SECRET: &str = "kedaorg-certs";
const SERVICES: [&str; 3] = ["keda-operator", "keda-metrics-apiserver", "keda-admission-webhooks"];
const OBJECTS: usize = 12;
/// What each replica is worth.
const TARGET: u32 = 10;
/// The swing of events brings between two and five replicas.
const NEEDED: std::ops::RangeInclusive<i32> = 2..=5;
const LOOK: Duration = Duration::from_millis(200);
/// Deadline of one request.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Processes that are started again when they end, by name.
struct Processes {
    group: ProcessGroup,
    arguments: BTreeMap<&'static str, Vec<String>>,
    /// Those that are not started again.
    held: BTreeSet<&'static str>,
    starts: BTreeMap<&'static str, u32>,
}

impl Processes {
    fn start(&mut self, name: &'static str) {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidemark"));
        command.args(&self.arguments[name]).env_clear();
        command.envs([
            ("POD_NAMESPACE", NAMESPACE),
            ("WATCH_NAMESPACE", ""),
            ("HOSTNAME", name),
            ("RUST_BACKTRACE", "1"),
        ]);
        self.group.spawn(name, command).unwrap();
        *self.starts.entry(name).or_default() += 1;
    }

    /// Starts again what has ended.
    fn look(&mut self) {
        let Some((name, _)) = self.group.ended().unwrap() else { return };
        self.group.kill(&name).unwrap();
        let name = *self.arguments.keys().find(|known| **known == name).unwrap();
        if !self.held.contains(name) {
            self.start(name);
        }
    }
}

/// What was seen of the load.
#[derive(Default)]
struct Seen {
    /// Numbers of replicas, and of whom, that no swing of events asks for.
    strange: Vec<String>,
    /// Reads of metrics that have failed, and when.
    failed: Vec<(Instant, String)>,
    reads: usize,
}

impl Seen {
    /// A read, and why it has failed if it has.
    fn note(&mut self, failed: Option<String>) {
        self.reads += 1;
        self.failed.extend(failed.map(|message| (Instant::now(), message)));
    }
}

pub struct Installation {
    pub plane: ControlPlane,
    pub client: Client,
    /// What the certificates are: of a CA that is about to be followed by another one, which everybody trusts already.
    pub certificates: Material,
    /// What they will be.
    pub next_certificates: Material,
    processes: Arc<Mutex<Processes>>,
    source: Arc<Source>,
    seen: Arc<Mutex<Seen>>,
    swinging: Arc<Mutex<bool>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    /// From when until when an API server has come up.
    coming_up: Option<(Timestamp, Timestamp)>,
    _volume: SecretVolume,
}

impl Installation {
    /// Everything runs, reads and scales.
    pub async fn start() -> Option<Self> {
        let plane = ControlPlane::start_or_skip(Options { audit: true, ..Options::default() }).await?;
        let client = tidemark_operator::client::build(plane.config().await.unwrap()).unwrap();
        install_crds(&client).await;
        let ports: [u16; 5] = free_ports().unwrap();
        let [first, second, link, api, hooks] = ports;
        for (service, port) in SERVICES.into_iter().zip([link, api, hooks]) {
            plane.register_service(NAMESPACE, service, port).await.unwrap();
        }
        let now = Clock::system().now();
        let [certificates, next_certificates] = [(); 2].map(|()| renew(None, &names(), now).unwrap().unwrap());
        store(&client, &certificates, &next_certificates).await;
        plane.register_external_metrics_service(NAMESPACE, SERVICES[1], api).await.unwrap();
        register_webhooks(&client, hooks).await;
        let group = ProcessGroup::start("installation").unwrap();
        let certs = group.directory().join("certs");
        let volume = SecretVolume::mount(client.clone(), NAMESPACE, SECRET, &certs).unwrap();
        let certs = certs.display();
        let mut arguments = BTreeMap::new();
        for (name, port) in OPERATORS.into_iter().zip([first, second]) {
            let specific = [
                "--leader-elect".to_owned(),
                "--enable-cert-rotation=true".to_owned(),
                format!("--metrics-service-bind-address=127.0.0.1:{port}"),
            ];
            arguments.insert(name, common(&plane, &client, "operator", name, &specific).await);
        }
        let specific = [
            format!("--secure-port={api}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--cert-dir={certs}"),
            format!("--metrics-service-address=127.0.0.1:{link}"),
            "--metrics-service-grpc-authority=keda-operator.keda.svc.cluster.local".to_owned(),
        ];
        arguments.insert(SERVERS[0], common(&plane, &client, "metrics-server", SERVERS[0], &specific).await);
        let specific = [format!("--port={hooks}"), format!("--cert-dir={certs}")];
        arguments.insert(SERVERS[1], common(&plane, &client, "webhooks", SERVERS[1], &specific).await);

        let processes = Processes { group, arguments, held: BTreeSet::new(), starts: BTreeMap::new() };
        let mut this = Self {
            plane,
            client,
            certificates,
            next_certificates,
            processes: Arc::new(Mutex::new(processes)),
            source: Arc::default(),
            seen: Arc::default(),
            swinging: Arc::default(),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
            coming_up: None,
            _volume: volume,
        };
        this.run_everything([first, second], link).await;
        this.plane.wait_for_external_metrics().await.unwrap();
        this.follow(35, Duration::from_secs(90)).await;
        this.watch();
        this.until("every metric can be read", Duration::from_secs(30), async || this.is_read().await).await;
        this.until("admission refuses", Duration::from_secs(30), async || this.refuses().await).await;
        this.forget();
        Some(this)
    }

    async fn run_everything(&mut self, operators: [u16; 2], link: u16) {
        let names = || OPERATORS.into_iter().chain(SERVERS);
        names().for_each(|name| self.processes.lock().unwrap().start(name));
        let processes = self.processes.clone();
        self.spawn(async move {
            loop {
                sleep(Duration::from_secs(1)).await;
                processes.lock().unwrap().look();
            }
        });
        self.spawn(serve_link(link, operators));
        let (client, stop) = (self.client.clone(), self.stop.clone());
        self.spawn(async move { Kubelet::run(client, stop).await.unwrap() });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        self.spawn(sources::serve(listener, address, self.source.clone(), self.stop.clone()));
        for number in 0..OBJECTS {
            create_object(&self.client, number, address.port()).await;
        }
        let (source, swinging) = (self.source.clone(), self.swinging.clone());
        self.spawn(async move {
            for tick in 0.. {
                if *swinging.lock().unwrap() {
                    source.change(values(|number| 15 + 10 * u32::try_from((tick + number) % 4).unwrap()));
                }
                sleep(Duration::from_secs(3)).await;
            }
        });
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(task).await.unwrap_or_default() });
    }

    /// Begins to read metrics and to look at replicas.
    fn watch(&mut self) {
        let (client, seen) = (self.client.clone(), self.seen.clone());
        self.spawn(async move {
            for number in (0..OBJECTS).cycle() {
                let outcome = read(&client, number).await;
                seen.lock().unwrap().note(outcome.err());
                sleep(Duration::from_millis(50)).await;
            }
        });
        let (deployments, seen) = (Api::<Deployment>::default_namespaced(self.client.clone()), self.seen.clone());
        self.spawn(async move {
            loop {
                // An API server that is away shows nothing.
                if let Ok(Ok(found)) = timeout(ANSWER_WITHIN, deployments.list(&ListParams::default())).await {
                    let strange = found.iter().map(replicas).filter(|(_, replicas)| !NEEDED.contains(replicas));
                    let strange = strange.map(|(name, replicas)| format!("{name} has {replicas}"));
                    seen.lock().unwrap().strange.extend(strange);
                }
                sleep(LOOK).await;
            }
        });
    }

    /// From now on events swing, or stay as they are.
    pub fn swing(&self, swings: bool) {
        *self.swinging.lock().unwrap() = swings;
    }

    /// Waits until all workloads have what this many events need.
    pub async fn follow(&self, events: u32, within: Duration) {
        self.swing(false);
        self.source.change(values(|_| events));
        let needed = i32::try_from(events.div_ceil(TARGET)).unwrap();
        let deployments = Api::<Deployment>::default_namespaced(self.client.clone());
        let what = format!("all have {needed} replicas");
        self.until(&what, within, async || {
            let found = timeout(ANSWER_WITHIN, deployments.list(&ListParams::default())).await;
            let Ok(Ok(found)) = found else { return Err(format!("{found:?}")) };
            let other: Vec<_> = found.iter().map(replicas).filter(|(_, replicas)| *replicas != needed).collect();
            if other.is_empty() { Ok(()) } else { Err(format!("{other:?}")) }
        })
        .await;
    }

    /// Waits, and panics with the logs when it does not come.
    pub async fn until(&self, what: &str, within: Duration, mut look: impl AsyncFnMut() -> Result<(), String>) {
        let deadline = Instant::now() + within;
        while let Err(last) = look().await {
            assert!(Instant::now() < deadline, "not within {within:?}: {what}; last seen: {last}\n{}", self.logs());
            sleep(LOOK).await;
        }
    }

    pub fn log(&self, name: &str) -> String {
        self.processes.lock().unwrap().group.log_tail(name, 10_000)
    }

    fn logs(&self) -> String {
        let end = |name| self.processes.lock().unwrap().group.log_tail(name, 25);
        OPERATORS.into_iter().chain(SERVERS).map(|name| format!("--- {name}\n{}\n", end(name))).collect()
    }

    /// The operator that leads.
    pub async fn leader(&self) -> &'static str {
        let leases = Api::<Lease>::namespaced(self.client.clone(), NAMESPACE);
        let holder = leases.get("operator.keda.sh").await.unwrap().spec.unwrap().holder_identity.unwrap();
        OPERATORS.into_iter().find(|name| holder.starts_with(&format!("{name}_"))).unwrap()
    }

    /// Kills a process, which is not started again before [`Installation::release`].
    pub fn kill(&self, name: &'static str) {
        let mut processes = self.processes.lock().unwrap();
        processes.held.insert(name);
        processes.group.kill(name).unwrap();
    }

    pub fn release(&self, name: &'static str) {
        let mut processes = self.processes.lock().unwrap();
        processes.held.remove(name);
        processes.start(name);
    }

    pub fn starts(&self, name: &str) -> u32 {
        self.processes.lock().unwrap().starts[name]
    }

    /// Kills the API server, and starts it again after a while.
    pub async fn restart_apiserver(&mut self, after: Duration) {
        let begin = Clock::system().now();
        self.plane.kill_apiserver().unwrap();
        sleep(after).await;
        self.plane.restart_apiserver().await.unwrap();
        self.coming_up = Some((begin, Clock::system().now()));
    }

    /// Whether the metric of each object can be read by now.
    pub async fn is_read(&self) -> Result<(), String> {
        for number in 0..OBJECTS {
            read(&self.client, number).await?;
        }
        Ok(())
    }

    /// Whether a second object for a workload is refused by the webhook.
    pub async fn refuses(&self) -> Result<(), String> {
        let second = object("second", "worker-00", 1);
        let path = "/apis/keda.sh/v1alpha1/namespaces/default/scaledobjects?dryRun=All";
        let request = http::Request::post(path).header("content-type", "application/json");
        let request = request.body(second.to_string().into_bytes()).unwrap();
        match timeout(ANSWER_WITHIN, self.client.request::<Value>(request)).await {
            Ok(Err(kube::Error::Api(status))) if status.message.contains("is already managed by the ScaledObject") => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    }

    /// Forgets all failed reads so far.
    pub fn forget(&self) {
        let mut seen = self.seen.lock().unwrap();
        (seen.failed, seen.reads) = Default::default();
    }

    /// Failed reads, of all.
    pub fn failed_reads(&self) -> (Vec<String>, usize) {
        let seen = self.seen.lock().unwrap();
        (seen.failed.iter().map(|(_, message)| message.clone()).collect(), seen.reads)
    }

    /// How long after `since` the last read has failed.
    pub fn read_again_after(&self, since: Instant) -> Duration {
        let seen = self.seen.lock().unwrap();
        let last = seen.failed.last().map(|(at, _)| at.saturating_duration_since(since));
        last.unwrap_or_default()
    }

    /// What must hold at the end: no workload has ever had a number of replicas that nobody asked for, nobody has met a
    /// door that was closed to it, nothing has panicked, and the servers have run all the time.
    pub async fn end(mut self) {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        assert!(seen.strange.is_empty(), "{:?}\n{}", seen.strange, self.logs());
        let ours = |user: &str| user.starts_with(&format!("system:serviceaccount:{NAMESPACE}:"));
        // An API server that comes up answers before it has read who may do what.
        let knows = |at| self.coming_up.is_none_or(|(begin, end)| at < begin || at > end);
        let mut forbidden = self.plane.audit().unwrap();
        forbidden.retain(|entry| entry.is_forbidden() && ours(&entry.user) && knows(entry.received));
        assert!(forbidden.is_empty(), "{forbidden:?}");
        for name in OPERATORS.into_iter().chain(SERVERS) {
            let log = self.log(name);
            assert!(!log.contains("panicked"), "{name}: {log}");
        }
        for name in SERVERS {
            assert_eq!(self.starts(name), 1, "{name} has ended: {}", self.log(name));
        }
        self.stop.cancel();
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap();
        }
    }
}

/// The names that the certificate of all services is for.
fn names() -> Names {
    let of = |service: &str| {
        let full = format!("{service}.{NAMESPACE}.svc");
        [service.to_owned(), format!("{service}.{NAMESPACE}"), full.clone(), format!("{full}.cluster.local")]
    };
    Names { common: SERVICES[0].to_owned(), dns: SERVICES.into_iter().flat_map(of).collect() }
}

/// Puts certificates into the Secret; the other's CA is trusted too.
pub async fn store(client: &Client, certificates: &Material, other: &Material) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET},
        "stringData": {
            "ca.crt": format!("{}{}", certificates.bundle(), other.bundle()),
            "ca.key": certificates.authority.key,
            "tls.crt": certificates.pair.certificate,
            "tls.key": certificates.pair.key,
        },
    });
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    secrets.patch(SECRET, &PatchParams::apply("test").force(), &Patch::Apply(secret)).await.unwrap();
}

/// The arguments of a process with an account of its own, which may do everything: what it needs is tested elsewhere.
async fn common(plane: &ControlPlane, client: &Client, command: &str, name: &str, specific: &[String]) -> Vec<String> {
    let kubeconfig = plane.service_account(NAMESPACE, name).await.unwrap();
    let group = "rbac.authorization.k8s.io";
    let binding = json!({
        "metadata": {"name": format!("test-{name}")},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
    });
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
    let mut arguments = vec![
        command.to_owned(),
        format!("--kubeconfig={}", kubeconfig.display()),
        "--zap-log-level=info".to_owned(),
        "--zap-encoder=console".to_owned(),
    ];
    match command {
        "metrics-server" => arguments.push("--port=0".to_owned()),
        _ => arguments.extend(["--metrics-bind-address=0", "--health-probe-bind-address=0"].map(str::to_owned)),
    }
    arguments.extend_from_slice(specific);
    arguments
}

/// What the Service of the operators does: it leads to whichever answers.
async fn serve_link(port: u16, operators: [u16; 2]) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let mut connections = JoinSet::new();
    loop {
        let Ok((mut from, _)) = listener.accept().await else { continue };
        connections.spawn(async move {
            for port in operators {
                if let Ok(mut to) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                    return;
                }
            }
        });
    }
}

/// As KEDA's manifests do, except that nothing passes unjudged.
async fn register_webhooks(client: &Client, port: u16) {
    let hooks = WEBHOOKS.iter().map(|webhook| {
        json!({
            "name": webhook.name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
            "clientConfig": {"service": {
                "name": SERVICES[2], "namespace": NAMESPACE, "path": webhook.path, "port": port,
            }},
            "rules": [{
                "apiGroups": [webhook.group], "apiVersions": ["v1alpha1"], "operations": ["CREATE", "UPDATE"],
                "resources": [webhook.resource],
            }],
        })
    });
    let object = json!({"metadata": {"name": "keda-admission"}, "webhooks": hooks.collect::<Vec<_>>()});
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

fn values(of: impl Fn(usize) -> u32) -> SourceChange {
    let values = (0..OBJECTS).map(|number| (format!("w{number}"), Some(f64::from(of(number)))));
    SourceChange { values: values.collect(), ..SourceChange::default() }
}

fn replicas(deployment: &Deployment) -> (String, i32) {
    let replicas = deployment.spec.replicas.unwrap_or(1);
    (deployment.metadata.name.clone().unwrap_or_default(), replicas)
}

/// A ScaledObject that reads nothing yet.
fn object(name: &str, target: &str, port: u16) -> Value {
    json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"name": target}, "pollingInterval": 2, "cooldownPeriod": 3, "maxReplicaCount": 8,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}},
            "triggers": [{"type": "metrics-api", "metadata": {
                "url": format!("http://127.0.0.1:{port}/stats"), "valueLocation": "values.none",
                "targetValue": TARGET.to_string(),
            }}],
        },
    })
}

async fn create_object(client: &Client, number: usize, port: u16) {
    let name = format!("worker-{number:02}");
    let deployment = json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "worker"}]},
            },
        },
    });
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    deployments.create(&PostParams::default(), &serde_json::from_value(deployment).unwrap()).await.unwrap();
    let mut object = object(&name, &name, port);
    object["spec"]["triggers"][0]["metadata"]["valueLocation"] = format!("values.w{number}").into();
    let object: ScaledObject = serde_json::from_value(object).unwrap();
    let objects: Api<ScaledObject> = Api::default_namespaced(client.clone());
    // Until the webhooks run, nothing is let in.
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = objects.create(&PostParams::default(), &object).await {
        assert!(Instant::now() < deadline, "{error}");
        sleep(LOOK).await;
    }
}

/// The metric of an object, as the HPA controller reads it.
async fn read(client: &Client, number: usize) -> Result<(), String> {
    let uri = format!(
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/s0-metric-api-values-w{number}?labelSelector=\
         scaledobject.keda.sh%2Fname%3Dworker-{number:02}"
    );
    let request = http::Request::get(uri).body(Vec::new()).unwrap();
    match timeout(ANSWER_WITHIN, client.request::<Value>(request)).await {
        Ok(Ok(list)) if list["items"][0]["value"].is_string() => Ok(()),
        Ok(other) => Err(format!("{other:?}")),
        Err(_) => Err("no answer in time".to_owned()),
    }
}
