//! A control plane of its own for each run, with all that an installation needs, and the processes on it.

use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Request};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, Config};
use serde_json::{Value, json};
use tidemark_testkit::{ControlPlane, Options, SecretVolume};
use xtask::network::free_ports;
use xtask::process_group::ProcessGroup;

use crate::objects::{self, Seen};
use crate::source::Source;
use crate::systems::{self, METRICS_SERVER, NAMESPACE, OPERATOR, Places, Programs, System};

/// The HPA controller's own default.
const HPA_PERIOD: Duration = Duration::from_secs(15);
const LEASE: &str = "operator.keda.sh";
/// How long anything may take: KEDA's throttled client needs minutes.
const PATIENCE: Duration = Duration::from_secs(900);
const PAUSE: Duration = Duration::from_millis(20);
/// Names of the ServiceAccounts, and of the processes.
pub const PROCESSES: [&str; 2] = [OPERATOR, METRICS_SERVER];

pub struct Stage<'a> {
    pub plane: ControlPlane,
    /// An administrator's.
    pub client: Client,
    pub source: Source,
    system: System,
    programs: &'a Programs,
    places: Places,
    group: ProcessGroup,
    _volume: SecretVolume,
}

impl<'a> Stage<'a> {
    /// A control plane with certificates, and nothing running on it yet; `None` where there are no programs for one.
    pub async fn set(system: System, programs: &'a Programs, audit: bool) -> Option<Self> {
        let options = Options { audit, hpa_sync_period: HPA_PERIOD, ..Options::default() };
        let plane = ControlPlane::start_or_skip(options).await?;
        let client = tidemark_operator::client::build(plane.config().await.unwrap()).unwrap();
        objects::define(&client).await;
        let [link, api, other @ ..]: [u16; 6] = free_ports().unwrap();
        plane.register_service(NAMESPACE, METRICS_SERVER, api).await.unwrap();
        plane.register_external_metrics_service(NAMESPACE, METRICS_SERVER, api).await.unwrap();
        let group = ProcessGroup::start("measured").unwrap();
        let certs = group.directory().join("certs");
        let volume = SecretVolume::mount(client.clone(), NAMESPACE, "kedaorg-certs", &certs).unwrap();
        let places = Places {
            operator_kubeconfig: account(&plane, &client, OPERATOR).await,
            metrics_server_kubeconfig: account(&plane, &client, METRICS_SERVER).await,
            certs,
            link,
            api,
            other,
        };
        let source = Source::start().await;
        let mut this = Self { plane, client, source, system, programs, places, group, _volume: volume };
        this.certify().await;
        Some(this)
    }

    /// Lets the operator make the certificates, which is not measured. KEDA's ends by itself then.
    async fn certify(&mut self) {
        self.start_operator();
        let start = Instant::now();
        while !self.places.certs.join("tls.crt").exists() {
            let failed = self.group.ended().unwrap().is_some_and(|(_, status)| !status.success());
            assert!(!failed, "no certificates: {}", self.group.log_tail(OPERATOR, 20));
            assert!(start.elapsed() < PATIENCE, "no certificates: {}", self.group.log_tail(OPERATOR, 20));
            tokio::time::sleep(PAUSE).await;
        }
        self.stop_one(OPERATOR).await;
    }

    /// Starts both processes, and waits until the API server gets answers from them.
    pub async fn start(&mut self) {
        self.start_operator();
        self.start_metrics_server();
        self.leading().await;
        let asker = self.asker();
        let start = Instant::now();
        while let Err(error) = get(&asker, "/apis/external.metrics.k8s.io/v1beta1").await {
            assert!(start.elapsed() < PATIENCE, "{error}: {}", self.group.log_tail(METRICS_SERVER, 20));
            tokio::time::sleep(PAUSE).await;
        }
        self.plane.wait_for_external_metrics().await.unwrap();
    }

    pub fn start_operator(&mut self) {
        let command = systems::operator(self.system, self.programs, &self.places);
        self.group.spawn(OPERATOR, command).unwrap();
    }

    pub fn start_metrics_server(&mut self) {
        let command = systems::metrics_server(self.system, self.programs, &self.places);
        self.group.spawn(METRICS_SERVER, command).unwrap();
    }

    /// Waits until the operator leads.
    pub async fn leading(&mut self) {
        let leases = Api::<Lease>::namespaced(self.client.clone(), NAMESPACE);
        let start = Instant::now();
        let holds = |lease: Lease| lease.spec.and_then(|spec| spec.holder_identity).is_some_and(|who| !who.is_empty());
        while !leases.get_opt(LEASE).await.unwrap().is_some_and(holds) {
            self.check();
            assert!(start.elapsed() < PATIENCE, "nobody leads: {}", self.group.log_tail(OPERATOR, 20));
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until so many have been seen.
    pub async fn until(&mut self, seen: &Seen, count: usize) {
        let start = Instant::now();
        while seen.count() < count {
            self.check();
            assert!(start.elapsed() < PATIENCE, "{} of {count} were seen", seen.count());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Panics when a process has ended: KEDA's operator does when the API server is too slow for its Lease.
    pub fn check(&mut self) {
        if let Some((name, status)) = self.group.ended().unwrap() {
            panic!("{name} has ended, {status}: {}", self.group.log_tail(&name, 20));
        }
    }

    /// Stops both processes. Nobody leads afterwards.
    pub async fn stop(&mut self) {
        self.stop_one(METRICS_SERVER).await;
        self.stop_one(OPERATOR).await;
    }

    async fn stop_one(&mut self, name: &str) {
        systems::stop(&mut self.group, name).await;
        if name == OPERATOR {
            let leases = Api::<Lease>::namespaced(self.client.clone(), NAMESPACE);
            // It may not have led yet.
            let _ = leases.delete(LEASE, &DeleteParams::default()).await;
        }
    }

    /// Numbers of the processes, as of [`PROCESSES`].
    pub fn ids(&self) -> [u32; 2] {
        PROCESSES.map(|name| self.group.process_id(name).unwrap())
    }

    /// Processor time of both so far.
    pub fn processor_times(&self) -> [Duration; 2] {
        self.ids().map(systems::processor_time)
    }

    /// A client as the API server is one, at the metrics server, speaking for the HPA controller.
    pub fn asker(&self) -> Client {
        let path = |file: &str| Some(self.plane.directory().join(file).display().to_string());
        let mut config = Config::new(format!("https://127.0.0.1:{}", self.places.api).parse().unwrap());
        config.root_cert_file = Some(self.places.certs.join("ca.crt"));
        config.tls_server_name = Some(format!("{METRICS_SERVER}.{NAMESPACE}.svc"));
        config.auth_info.client_certificate = path("front-proxy-client.crt");
        config.auth_info.client_key = path("front-proxy-client.key");
        let user = HeaderValue::from_static("system:serviceaccount:kube-system:horizontal-pod-autoscaler");
        config.headers = vec![(HeaderName::from_static("x-remote-user"), user)];
        tidemark_operator::client::build(config).unwrap()
    }
}

/// The number that an object's trigger reads, as the HPA controller asks for it.
pub async fn read(asker: &Client, number: usize) -> Result<(), kube::Error> {
    let name = objects::polled_name(number);
    let base = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/s0-metric-api-depth";
    let list = get(asker, &format!("{base}?labelSelector=scaledobject.keda.sh%2Fname%3D{name}")).await?;
    assert!(list["items"][0]["value"].is_string(), "{list}");
    Ok(())
}

async fn get(asker: &Client, path: &str) -> Result<Value, kube::Error> {
    asker.request(Request::get(path).body(Vec::new()).unwrap()).await
}

/// The kubeconfig of a ServiceAccount that may do everything, so that the record of requests tells the processes apart.
async fn account(plane: &ControlPlane, client: &Client, name: &str) -> std::path::PathBuf {
    let kubeconfig = plane.service_account(NAMESPACE, name).await.unwrap();
    let binding = json!({
        "metadata": {"name": format!("measured-{name}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
    });
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
    kubeconfig
}
