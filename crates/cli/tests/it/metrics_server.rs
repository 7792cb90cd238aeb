//! `tidemark metrics-server` and `tidemark operator` as two processes behind a real API server: what the HPA controller
//! gets through both, whom they turn away, and what happens when the operator or the certificates change.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::AuthInfo;
use kube::core::response::Status;
use kube::discovery::ApiResource;
use serde_json::{Value, json};
use tidemark_api::ScaledObject;
use tidemark_clock::Clock;
use tidemark_serving::certificates::{Authority, Pair};
use tidemark_serving::rotation::material::{Material, Names, renew};
use tidemark_testkit::{ControlPlane, EXTERNAL_METRICS_SERVER_NAME, Options};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use xtask::network::free_ports;

use crate::metrics_table::scrape::Scrape;

/// The longest time for anything that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Both processes look at their files every ten seconds.
const FILES_SEEN: Duration = Duration::from_secs(14);
const OPERATOR_NAME: &str = "keda-operator.keda.svc";
const BASE: &str = "/apis/external.metrics.k8s.io/v1beta1";

/// A running `tidemark`; it ends with the test.
pub struct Process {
    pub child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(folder: &Path, name: &str, arguments: &[String]) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
        command.args(arguments).stdin(Stdio::null()).stderr(file.try_clone().unwrap()).stdout(file).kill_on_drop(true);
        Self { child: command.spawn().unwrap(), log }
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// An installation on a control plane.
pub struct Installation {
    pub plane: ControlPlane,
    pub client: Client,
    pub folder: PathBuf,
    pub api: SocketAddr,
    pub link: SocketAddr,
    /// The metrics server's own metrics.
    metrics: SocketAddr,
    pub operator: Process,
    pub metrics_server: Process,
}

pub fn free_address() -> SocketAddr {
    let [port] = free_ports().unwrap();
    (Ipv4Addr::LOCALHOST, port).into()
}

pub fn material() -> Material {
    let dns = [EXTERNAL_METRICS_SERVER_NAME, OPERATOR_NAME].map(str::to_owned).to_vec();
    let names = Names { common: "keda-operator".to_owned(), dns };
    renew(None, &names, Clock::system().now()).unwrap().unwrap()
}

/// Puts certificates where both processes look for them.
fn mount(folder: &Path, pair: &Pair, ca: &str) {
    for (name, text) in [("tls.crt", pair.certificate.as_str()), ("tls.key", &pair.key), ("ca.crt", ca)] {
        std::fs::write(folder.join("certs").join(name), text).unwrap();
    }
}

pub fn operator_arguments(kubeconfig: &Path, certs: &Path, link: SocketAddr) -> Vec<String> {
    let of = |name: &str, value: &dyn std::fmt::Display| format!("--{name}={value}");
    vec![
        "operator".to_owned(),
        of("kubeconfig", &kubeconfig.display()),
        of("cert-dir", &certs.display()),
        of("metrics-service-bind-address", &link),
        of("metrics-bind-address", &0),
        of("health-probe-bind-address", &0),
        of("zap-log-level", &"info"),
        of("zap-encoder", &"console"),
    ]
}

impl Installation {
    pub async fn start(first: &Material, ca: &str) -> Option<Self> {
        let options = Options { hpa_sync_period: Duration::from_secs(2), ..Options::default() };
        let plane = ControlPlane::start_or_skip(options).await?;
        let client = plane.client().await.unwrap();
        crate::on_control_plane::install_crds(&client).await;
        let folder = plane.directory().join("tidemark");
        let certs = folder.join("certs");
        std::fs::create_dir_all(&certs).unwrap();
        mount(&folder, &first.pair, ca);
        let (api, link, metrics) = (free_address(), free_address(), free_address());
        let kubeconfig = plane.kubeconfig().to_owned();
        let operator = Process::start(&folder, "operator", &operator_arguments(&kubeconfig, &certs, link));
        // The flags that KEDA's manifests and chart pass, the kubeconfig and the addresses aside.
        let metrics_server = [
            "metrics-server".to_owned(),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--bind-address={}", api.ip()),
            format!("--secure-port={}", api.port()),
            format!("--port={}", metrics.port()),
            "--logtostderr=true".to_owned(),
            "--stderrthreshold=ERROR".to_owned(),
            "--disable-compression=true".to_owned(),
            format!("--metrics-service-address={link}"),
            format!("--metrics-service-grpc-authority={OPERATOR_NAME}"),
            format!("--tls-cert-file={}", certs.join("tls.crt").display()),
            format!("--tls-private-key-file={}", certs.join("tls.key").display()),
            format!("--cert-dir={}", certs.display()),
            "--v=0".to_owned(),
        ];
        let metrics_server = Process::start(&folder, "metrics-server", &metrics_server);
        let this = Self { plane, client, folder, api, link, metrics, operator, metrics_server };
        this.listening().await;
        this.plane.register_external_metrics(this.api.port(), ca).await.unwrap();
        Some(this)
    }

    async fn listening(&self) {
        let start = Instant::now();
        while tokio::net::TcpStream::connect(self.api).await.is_err() {
            assert!(start.elapsed() < PATIENCE, "it does not listen: {}", self.metrics_server.said());
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn start_operator(&mut self) {
        let arguments = operator_arguments(self.plane.kubeconfig(), &self.folder.join("certs"), self.link);
        self.operator = Process::start(&self.folder, "operator", &arguments);
    }

    pub async fn apply(&self, manifest: Value) {
        let text = |key: &str| manifest[key].as_str().unwrap().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let resource = ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, version, &kind));
        let object: DynamicObject = serde_json::from_value(manifest).unwrap();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), "default", &resource);
        let cluster: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let api = if matches!(&*kind, "ClusterRole" | "ClusterRoleBinding" | "APIService") { cluster } else { api };
        let name = object.metadata.name.clone().unwrap();
        let parameters = PatchParams::apply("test").force();
        timeout(PATIENCE, api.patch(&name, &parameters, &Patch::Apply(object))).await.unwrap().unwrap();
    }

    /// A value through the API server.
    async fn value(&self, object: &str) -> Result<String, Box<Status>> {
        value(&self.client, object).await
    }

    /// Waits until the value is there.
    pub async fn settled(&self, object: &str) -> String {
        let start = Instant::now();
        loop {
            match self.value(object).await {
                Ok(value) => return value,
                Err(status) if start.elapsed() > PATIENCE => panic!(
                    "{}\noperator: {}\nmetrics server: {}",
                    status.message,
                    self.operator.said(),
                    self.metrics_server.said()
                ),
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// A client of the metrics server itself, without the API server between.
    fn direct(&self, auth_info: AuthInfo, headers: &[(&'static str, &str)]) -> Client {
        let mut config = kube::Config::new(format!("https://{}", self.api).parse().unwrap());
        config.root_cert_file = Some(self.folder.join("certs/ca.crt"));
        config.tls_server_name = Some(EXTERNAL_METRICS_SERVER_NAME.to_owned());
        config.auth_info = auth_info;
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        config.headers = headers.iter().map(header).collect();
        Client::try_from(config).unwrap()
    }

    /// The certificate of a file of the control plane.
    fn certificate(&self, name: &str) -> AuthInfo {
        let path = |extension: &str| self.plane.directory().join(format!("{name}.{extension}")).display().to_string();
        AuthInfo { client_certificate: Some(path("crt")), client_key: Some(path("key")), ..AuthInfo::default() }
    }
}

async fn value(client: &Client, object: &str) -> Result<String, Box<Status>> {
    let uri =
        format!("{BASE}/namespaces/default/s0-workload-default?labelSelector=scaledobject.keda.sh%2Fname%3D{object}");
    let request = Request::get(uri).body(Vec::new()).unwrap();
    match timeout(PATIENCE, client.request::<Value>(request)).await.expect("an answer in time") {
        Ok(list) => Ok(list["items"][0]["value"].as_str().unwrap().to_owned()),
        Err(kube::Error::Api(status)) => Err(status),
        Err(error) => panic!("{error}"),
    }
}

/// Three pods, and a workload that is scaled by their number.
pub async fn scale_by_pods(installation: &Installation) {
    let labels = json!({"app": "scaled"});
    for name in ["one", "two", "three"] {
        installation
            .apply(json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "counted"}},
                "spec": {"containers": [{"name": "main", "image": "none"}]},
            }))
            .await;
    }
    installation
        .apply(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "scaled"},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "none"}]},
            }},
        }))
        .await;
    installation
        .apply(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "scaled"},
            "spec": {"scaleTargetRef": {"name": "scaled"}, "pollingInterval": 5, "triggers": [{
                "type": "kubernetes-workload", "name": "pods", "metadata": {"podSelector": "app=counted", "value": "2"},
            }]},
        }))
        .await;
}

/// The ServiceAccount's token.
async fn token(client: &Client, account: &str) -> AuthInfo {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    if accounts.get_opt(account).await.unwrap().is_none() {
        let made = serde_json::from_value(json!({"metadata": {"name": account}})).unwrap();
        accounts.create(&PostParams::default(), &made).await.unwrap();
    }
    let request = TokenRequest { spec: Some(TokenRequestSpec::default()), ..Default::default() };
    let made = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
    AuthInfo { token: made.status.unwrap().token.map(Into::into), ..AuthInfo::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hpa_is_answered_through_both_processes_and_strangers_are_not() {
    let own = material();
    let Some(mut installation) = Installation::start(&own, &own.bundle()).await else { return };
    scale_by_pods(&installation).await;
    assert_eq!(installation.settled("scaled").await, "3");
    the_hpa_controller_reads_it(&installation.client).await;
    the_api_describes_itself(&installation).await;
    callers_are_judged(&installation).await;
    what_was_asked_is_counted(&installation).await;
    an_operator_that_is_down_is_told_of_and_found_again(&mut installation).await;
}

async fn what_was_asked_is_counted(installation: &Installation) {
    let scrape = Scrape::of(installation.metrics.port()).await;
    let call = [("grpc_service", "api.MetricsService"), ("grpc_method", "GetMetrics"), ("grpc_code", "OK")];
    let handled = scrape.values("keda_internal_metricsservice_grpc_client_handled_total", &call);
    let answered = scrape.values("apiserver_request_total", &[("code", "200"), ("resource", "externalmetrics")]);
    let reviews = scrape.values("rest_client_requests_total", &[("method", "POST"), ("code", "201")]);
    for counted in [handled, answered, reviews] {
        assert!(matches!(counted[..], [count] if count >= 1.0), "{counted:?}");
    }
    assert!(!scrape.0.keys().any(|name| name.starts_with("keda_build")), "that is the operator's");
    let now = Clock::system().now().as_second() as f64;
    assert!(scrape.values("tidemark_certificate_expiry_timestamp_seconds", &[])[0] > now);
}

async fn the_hpa_controller_reads_it(client: &Client) {
    let objects: Api<ScaledObject> = Api::namespaced(client.clone(), "default");
    let hpas: Api<HorizontalPodAutoscaler> = Api::namespaced(client.clone(), "default");
    let start = Instant::now();
    loop {
        let object = objects.get("scaled").await.unwrap();
        let hpa = match object.status.and_then(|status| status.hpa_name) {
            Some(name) => hpas.get_opt(&name).await.unwrap(),
            None => None,
        };
        let status = hpa.and_then(|hpa| hpa.status).unwrap_or_default();
        let metrics = status.current_metrics.unwrap_or_default();
        let external = metrics.iter().find_map(|metric| metric.external.as_ref());
        let average = external.and_then(|external| external.current.average_value.clone());
        if average.is_some() && status.desired_replicas == 2 {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{:?} {:?}", status.conditions, metrics);
        sleep(Duration::from_millis(200)).await;
    }
}

async fn the_api_describes_itself(installation: &Installation) {
    let get = async |uri: &str| {
        let request = Request::get(uri).body(Vec::new()).unwrap();
        timeout(PATIENCE, installation.client.request::<Value>(request)).await.unwrap()
    };
    let resources = get(BASE).await.unwrap();
    assert_eq!(resources["resources"][0]["name"], "externalmetrics");
    // What the API server has merged of it into its own documents.
    let start = Instant::now();
    loop {
        let index = get("/openapi/v3").await.unwrap();
        if index["paths"]["apis/external.metrics.k8s.io/v1beta1"].is_object() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{index}");
        sleep(Duration::from_millis(500)).await;
    }
    let document = get("/openapi/v3/apis/external.metrics.k8s.io/v1beta1").await.unwrap();
    assert_eq!(document["info"]["title"], "keda-adapter");
    let kinds = installation.plane.kubectl().args(["api-resources", "--api-group=external.metrics.k8s.io"]).output();
    let kinds = String::from_utf8(kinds.unwrap().stdout).unwrap();
    assert!(kinds.contains("ExternalMetricValueList"), "{kinds}");
    let mut aggregated = Request::get("/apis").body(Vec::new()).unwrap();
    let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    aggregated.headers_mut().insert("accept", HeaderValue::from_static(kind));
    let groups: Value = installation.client.request(aggregated).await.unwrap();
    let group = groups["items"].as_array().unwrap().iter().find(|g| g["metadata"]["name"] == "external.metrics.k8s.io");
    assert_eq!(group.unwrap()["versions"][0]["freshness"], "Current");
}

async fn callers_are_judged(installation: &Installation) {
    let code = async |client: Client| value(&client, "scaled").await.map_err(|status| (status.code, status.message));
    let unauthorized = Err((401, "Unauthorized".to_owned()));
    let proxied = |user: &str| {
        let headers = [("x-remote-user", user)];
        installation.direct(installation.certificate("front-proxy-client"), &headers)
    };
    let forbidden = |user: &str| {
        let of = "s0-workload-default";
        let what = format!("cannot list resource \"{of}\" in API group \"external.metrics.k8s.io\"");
        let message =
            format!("{of}.external.metrics.k8s.io is forbidden: User \"{user}\" {what} in the namespace \"default\"");
        Err((403, message))
    };
    // Headers alone, and a token of nobody.
    let header = [("x-remote-user", "system:kube-controller-manager"), ("x-remote-group", "system:masters")];
    assert_eq!(code(installation.direct(AuthInfo::default(), &header)).await, unauthorized);
    let made_up = AuthInfo { token: Some("made.up.token".to_owned().into()), ..AuthInfo::default() };
    assert_eq!(code(installation.direct(made_up, &[])).await, unauthorized);
    // The API server speaks for somebody who may not, and for one who may.
    assert_eq!(code(proxied("somebody")).await, forbidden("somebody"));
    let hpa = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";
    assert_eq!(code(proxied(hpa)).await, Ok("3".to_owned()));
    // A certificate of the cluster's own CA is a user's, and makes no front proxy.
    let admin = installation.direct(installation.certificate("admin"), &[("x-remote-user", "somebody")]);
    assert_eq!(code(admin).await, Ok("3".to_owned()));
    // Tokens: of one who may not, and of the same one when it may.
    let reader = token(&installation.client, "reader").await;
    let account = "system:serviceaccount:default:reader";
    assert_eq!(code(installation.direct(reader.clone(), &[])).await, forbidden(account));
    let rule = json!({"apiGroups": ["external.metrics.k8s.io"], "resources": ["*"], "verbs": ["list"]});
    let group = "rbac.authorization.k8s.io";
    installation
        .apply(json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": "r"}, "rules": [rule]}))
        .await;
    installation
        .apply(json!({
            "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": "r"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "r"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}],
        }))
        .await;
    // The answer of before is believed for ten seconds.
    let start = Instant::now();
    while code(installation.direct(reader.clone(), &[])).await != Ok("3".to_owned()) {
        assert!(start.elapsed() < Duration::from_secs(20), "the reader may read");
        sleep(Duration::from_millis(500)).await;
    }
    // A certificate of some other CA is turned away before anything is asked.
    let pair = Authority::new("other", Clock::system().now()).unwrap().client("front-proxy-client").unwrap();
    std::fs::write(installation.folder.join("other.crt"), pair.certificate).unwrap();
    std::fs::write(installation.folder.join("other.key"), pair.key).unwrap();
    let file = |name: &str| Some(installation.folder.join(name).display().to_string());
    let other =
        AuthInfo { client_certificate: file("other.crt"), client_key: file("other.key"), ..AuthInfo::default() };
    let stranger = installation.direct(other, &[("x-remote-user", hpa)]);
    let request = Request::get(BASE).body(Vec::new()).unwrap();
    let refused = timeout(PATIENCE, stranger.request::<Value>(request)).await.unwrap();
    assert!(matches!(&refused, Err(error) if !matches!(error, kube::Error::Api(_))), "{refused:?}");
}

async fn an_operator_that_is_down_is_told_of_and_found_again(installation: &mut Installation) {
    let status = installation.value("nothing").await.unwrap_err();
    let expected = "rpc error: code = Unknown desc = error when getting metric values error getting scalers \
                    ScaledObject.keda.sh \"nothing\" not found";
    assert_eq!((status.code, &*status.reason, &*status.message), (500, "", expected));
    installation.operator.child.kill().await.unwrap();
    let status = installation.value("scaled").await.unwrap_err();
    let expected = "timeout while waiting to establish gRPC connection to KEDA Metrics Service server";
    assert_eq!((status.code, &*status.message), (500, expected));
    installation.start_operator();
    assert_eq!(installation.settled("scaled").await, "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_change_while_values_are_read_and_no_read_fails() {
    let (old, new) = (material(), material());
    let both = format!("{}{}", old.bundle(), new.bundle());
    let Some(installation) = Installation::start(&old, &both).await else { return };
    scale_by_pods(&installation).await;
    installation.settled("scaled").await;
    let change = async {
        for (pair, ca) in [(&old.pair, &both), (&new.pair, &both), (&new.pair, &new.bundle())] {
            mount(&installation.folder, pair, ca);
            sleep(FILES_SEEN).await;
        }
    };
    let read = async {
        loop {
            let answer = installation.value("scaled").await;
            assert!(answer.is_ok(), "{answer:?}: {}", installation.metrics_server.said());
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        biased;
        () = change => {}
        () = read => unreachable!(),
    }
    // What the API server now trusts is only the new one, and it still gets answers.
    installation.plane.register_external_metrics(installation.api.port(), &new.bundle()).await.unwrap();
    assert_eq!(installation.settled("scaled").await, "3");
}
