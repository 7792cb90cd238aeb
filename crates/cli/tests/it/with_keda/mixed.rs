//! KEDA's metrics server with Tidemark's operator, and Tidemark's with KEDA's: during a swap either may still be the
//! other's. All four pairs answer alike, request by request, and the HPA controller scales over each of them.

mod raw;
mod requests;
mod table;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tidemark_testkit::{ControlPlane, Options};
use tokio::net::TcpStream;
use xtask::network::free_ports;

use super::processes::{Keda, NAMESPACE as INSTALLED, Part, SERVICES};
use super::situation::{NAMESPACE, Source};
use crate::on_control_plane::release::{METRICS_SERVER, OPERATOR, Processes, Rest};
use raw::Subscriber;
use requests::{Answer, Asked, Server, Who, judge};

/// The longest time for anything that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The processes of both, on one control plane.
struct Both {
    plane: ControlPlane,
    rest: Rest,
    keda: Keda,
    ours: Processes,
    source: Source,
    /// Where our metrics server serves.
    api: SocketAddr,
    /// KEDA's metrics server, and ours.
    servers: [Server; 2],
}

fn operator_name() -> String {
    format!("{}.{INSTALLED}.svc.cluster.local", SERVICES[0])
}

impl Both {
    /// KEDA's operator with both metrics servers.
    async fn start() -> Option<Self> {
        let options = Options { hpa_sync_period: Duration::from_secs(1), ..Options::default() };
        let plane = ControlPlane::start_or_skip(options).await?;
        let keda = Keda::start(&plane, &[Part::Operator, Part::MetricsServer], |part, command| {
            if part == Part::Operator {
                command.env("RAW_METRICS_GRPC_PROTOCOL", "enabled");
            }
        })
        .await?;
        let rest = Rest(plane.client().await.unwrap());
        let source = Source::start().await;
        source.populate(&rest).await;
        let accounts = [
            (Who::Reader, plane.service_account(NAMESPACE, "reader").await.unwrap()),
            (Who::Stranger, plane.service_account(NAMESPACE, "stranger").await.unwrap()),
        ];
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": NAMESPACE}],
        });
        rest.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "test", &binding).await;
        let [port] = free_ports().unwrap();
        let api = SocketAddr::from(([127, 0, 0, 1], port));
        let (ca, host) = (keda.certs().join("ca.crt"), format!("{}.{INSTALLED}.svc", SERVICES[1]));
        let server = |name, address| {
            let accounts = accounts.each_ref().map(|(who, kubeconfig)| (*who, kubeconfig.as_path()));
            Server::at(name, address, &host, &ca, accounts)
        };
        let servers = [server("KEDA's metrics server", keda.api()), server("our metrics server", api)];
        let ours = Processes::without_certificates();
        let this = Self { plane, rest, keda, ours, source, api, servers };
        this.start_our_metrics_server().await;
        Some(this)
    }

    /// With the arguments of KEDA's.
    async fn start_our_metrics_server(&self) {
        let (certs, kubeconfig) = (self.keda.certs().display(), self.plane.kubeconfig().display());
        let arguments = [
            "metrics-server".to_owned(),
            format!("--secure-port={}", self.api.port()),
            "--bind-address=127.0.0.1".to_owned(),
            "--port=0".to_owned(),
            format!("--cert-dir={certs}"),
            format!("--client-ca-file={certs}/ca.crt"),
            format!("--tls-cert-file={certs}/tls.crt"),
            format!("--tls-private-key-file={certs}/tls.key"),
            format!("--metrics-service-address={}", self.keda.link()),
            format!("--metrics-service-grpc-authority={}", operator_name()),
            format!("--lister-kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--logtostderr=true".to_owned(),
            "--v=0".to_owned(),
            "--zap-encoder=console".to_owned(),
        ];
        self.ours.spawn(METRICS_SERVER, &arguments, self.plane.kubeconfig(), BTreeMap::new());
        self.until_listens("our metrics server", self.api).await;
    }

    /// In the place of KEDA's, with its certificates, at its address.
    async fn swap_operators(&mut self) {
        let status = self.keda.stop(Part::Operator).await;
        assert!(status.success(), "{status}: {}", self.keda.log(Part::Operator));
        let arguments = [
            "operator".to_owned(),
            format!("--cert-dir={}", self.keda.certs().display()),
            format!("--metrics-service-bind-address={}", self.keda.link()),
            "--metrics-bind-address=0".to_owned(),
            "--health-probe-bind-address=0".to_owned(),
            "--reasons-bind-address=0".to_owned(),
            "--zap-encoder=console".to_owned(),
        ];
        let variables = [("WATCH_NAMESPACE", ""), ("RAW_METRICS_GRPC_PROTOCOL", "enabled")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.ours.spawn(OPERATOR, &arguments, self.plane.kubeconfig(), variables.into());
        self.until_listens("our operator", self.keda.link()).await;
    }

    async fn until_listens(&self, what: &str, address: SocketAddr) {
        let look = async || TcpStream::connect(address).await.map(drop).map_err(|error| error.to_string());
        self.until(&format!("{what} listens at {address}"), look).await;
    }

    async fn until(&self, what: &str, look: impl AsyncFnMut() -> Result<(), String>) {
        self.ours.until(what, PATIENCE, look).await;
    }

    /// Waits until both metrics servers have the operator's values of all that can be read, whatever was in between.
    async fn until_settled(&self) {
        for server in &self.servers {
            for asked in table::readable() {
                let look = async || {
                    let answer = server.ask(&asked).await;
                    let read = answer.status == 200 && !answer.body["items"][0]["value"].is_null();
                    if read { Ok(()) } else { Err(format!("{answer:?}")) }
                };
                self.until(&format!("{} answers {}", server.name, asked.name()), look).await;
            }
        }
    }

    /// Makes one of the metrics servers that of the cluster, and waits until the HPA controller has scaled over it.
    async fn scale_over(&self, server: usize, load: u64) {
        let address = [self.keda.api(), self.api][server];
        let path = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.external.metrics.k8s.io";
        // KEDA's CA is in there already: both show the same certificate.
        self.plane.register_service(INSTALLED, SERVICES[1], address.port()).await.unwrap();
        self.rest.merge(path, "test", &json!({"spec": {"service": {"port": address.port()}}})).await;
        self.plane.wait_for_external_metrics().await.unwrap();
        let (asked, through) = (table::telling(), Server::behind("the API server", self.rest.0.clone()));
        let own = self.servers[server].ask(&asked).await;
        self.until("the API server asks the other one", async || match through.ask(&asked).await {
            answer if answer == own => Ok(()),
            answer => Err(format!("{answer:?}")),
        })
        .await;
        // Each time by more than a tenth of the present count, which an HPA tolerates.
        self.source.tell_load(load);
        let hpa = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/keda-hpa-loaded";
        let wanted = load.div_ceil(5);
        self.until(&format!("{wanted} replicas over {address}"), async || {
            let status = self.rest.try_get(hpa).await.map_err(|error| error.to_string())?["status"].take();
            let average = &status["currentMetrics"][0]["external"]["current"]["averageValue"];
            if status["desiredReplicas"] == wanted && average.is_string() { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    }

    async fn answers(&self, asked: &[Asked]) -> [Vec<Answer>; 2] {
        let of = async |server: &Server| {
            let mut answers = Vec::new();
            for asked in asked {
                answers.push(server.ask(asked).await);
            }
            answers
        };
        let [first, second] = &self.servers;
        let (first, second) = futures::future::join(of(first), of(second)).await;
        [first, second]
    }

    /// What the API server passes on, in the words of whoever is registered.
    async fn through_the_api_server(&self) -> Vec<Answer> {
        let server = Server::behind("the API server", self.rest.0.clone());
        let mut answers = Vec::new();
        for asked in table::values() {
            answers.push(server.ask(&asked).await);
        }
        answers
    }

    async fn subscriber(&self) -> Subscriber {
        Subscriber::connect(self.keda.link(), self.keda.certs(), &operator_name()).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_metrics_server_answers_for_either_operator() {
    let Some(mut both) = Both::start().await else { return };
    let requests = table::requests();
    let names: Vec<String> = requests.iter().map(Asked::name).collect();
    let mut wrong = Vec::new();

    both.until_settled().await;
    let with_keda = both.answers(&requests).await;
    both.scale_over(0, 7).await;
    let keda_alone = both.through_the_api_server().await;
    both.scale_over(1, 13).await;
    let our_server = both.through_the_api_server().await;
    let raw_of_keda = both.subscriber().await.hear(table::TOLD, table::SILENT).await;

    both.swap_operators().await;
    both.until_settled().await;
    let with_ours = both.answers(&requests).await;
    both.scale_over(1, 19).await;
    let ours_alone = both.through_the_api_server().await;
    both.scale_over(0, 24).await;
    let our_operator = both.through_the_api_server().await;
    let raw_of_ours = both.subscriber().await.hear(table::TOLD, table::SILENT).await;

    let mut compare = |what: &str, first: &[Answer], second: &[Answer], known| {
        let pairs = first.iter().zip(second).zip(&names);
        wrong.extend(judge(what, pairs.map(|((first, second), name)| (&**name, first, second)), known));
    };
    compare("KEDA's operator behind both servers", &with_keda[0], &with_keda[1], table::SERVERS_DIFFER);
    compare("our operator behind both servers", &with_ours[0], &with_ours[1], table::SERVERS_DIFFER);
    compare("KEDA's operator behind both, through the API server", &keda_alone, &our_server, &[]);
    compare("our operator behind both, through the API server", &ours_alone, &our_operator, &[]);
    compare("KEDA and Tidemark", &keda_alone, &ours_alone, table::OPERATORS_DIFFER);
    // Asked directly a server says what it says through the API server: values are the first that is asked for.
    compare("KEDA, directly and not", &with_keda[0], &keda_alone, &[]);
    compare("Tidemark, directly and not", &with_ours[1], &ours_alone, &[]);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(raw_of_keda, raw_of_ours);
    documents_name_the_same(&both).await;
}

/// The documents in which both metrics servers describe themselves need not be the same, but whoever looks for something
/// of KEDA's finds it with ours.
async fn documents_name_the_same(both: &Both) {
    let mut documents = Vec::new();
    for server in &both.servers {
        let of = async |path: &str| {
            let answer = server.ask(&Asked::get(path)).await;
            assert_eq!(answer.status, 200, "{path}");
            answer.body
        };
        let (groups, second) = (of("/apis").await, of("/openapi/v2").await);
        let (index, third) = (of("/openapi/v3").await, of(&format!("/openapi/v3{}", requests::BASE)).await);
        documents.push([groups, second, index, third]);
    }
    let [keda, ours] = documents.try_into().unwrap();
    let group = |document: &Value| {
        let mut group = document["groups"].as_array().unwrap().iter();
        let group = group.find(|group| group["name"] == "external.metrics.k8s.io").unwrap();
        (group["versions"].clone(), group["preferredVersion"].clone())
    };
    assert_eq!(group(&keda[0]), group(&ours[0]));
    assert!(keda[2]["paths"]["apis/external.metrics.k8s.io/v1beta1"].is_object());
    assert!(ours[2]["paths"]["apis/external.metrics.k8s.io/v1beta1"].is_object());
    for (place, schemas) in [(1, "/definitions"), (3, "/components/schemas")] {
        assert_eq!(keda[place]["info"], ours[place]["info"]);
        let kind = |document: &Value, name: &str| {
            let schemas = document[place].pointer(schemas).unwrap();
            schemas[format!("io.k8s.metrics.pkg.apis.external_metrics.v1beta1.{name}")].clone()
        };
        for name in ["ExternalMetricValue", "ExternalMetricValueList"] {
            let (keda, ours) = (kind(&json!(keda), name), kind(&json!(ours), name));
            assert_eq!(keda["x-kubernetes-group-version-kind"], ours["x-kubernetes-group-version-kind"], "{name}");
            let fields = |schema: &Value| schema["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            let (mut keda, mut ours) = (fields(&keda), fields(&ours));
            keda.sort();
            ours.sort();
            assert_eq!(keda, ours, "{name}");
        }
    }
}
