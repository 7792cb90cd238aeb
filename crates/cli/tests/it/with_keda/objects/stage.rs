//! KEDA's operator and Tidemark's beside one control plane, each in a namespace of its own, and the source that both read.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use http::Method;
use serde_json::{Value, json};
use tidemark_clock::Clock;
use tidemark_serving::certificates::Authority;
use tidemark_serving::front_proxy::{Access, Delegated, FrontProxy};
use tidemark_serving::metrics_service::{Address, GrpcMetrics, client};
use tidemark_serving::tls::{Clients, Policy, server_config};
use tidemark_serving::{ExternalMetrics, MetricsSource, Values, https, identity};
use tidemark_testkit::{ControlPlane, EXTERNAL_METRICS_SERVER_NAME, Kubelet, Options};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use xtask::network::free_ports;
use xtask::process_group::ProcessGroup;

use super::super::processes::{Keda, Part};
use crate::on_control_plane::release::Rest;

/// The namespaces: of KEDA's objects, and of Tidemark's.
pub const NAMESPACES: [&str; 2] = ["by-keda", "by-tidemark"];
const HPA_PERIOD: Duration = Duration::from_secs(4);
/// Who writes in the place of a user.
pub const USER: &str = "somebody";

pub struct Stage {
    _plane: ControlPlane,
    pub rest: Rest,
    pub source: Source,
    keda: Keda,
    tidemark: Mutex<ProcessGroup>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Stage {
    /// None where the machine has no control plane or no KEDA.
    pub async fn set() -> Option<Self> {
        let plane = ControlPlane::start_or_skip(Options { hpa_sync_period: HPA_PERIOD, ..Options::default() }).await?;
        let keda = Keda::start(&plane, &[Part::Operator], |_, command| {
            // The metrics API is the stage's own.
            command.args(["--kube-api-qps=500", "--kube-api-burst=1000", "--enable-apiservice-patching=false"]);
            let settings = [("WATCH_NAMESPACE", NAMESPACES[0]), ("KEDA_SCALEDOBJECT_CTRL_MAX_RECONCILES", "20")];
            command.envs(settings);
        })
        .await?;
        let rest = Rest(tidemark_operator::client::build(plane.config().await.unwrap()).unwrap());
        for namespace in NAMESPACES {
            rest.create("/api/v1/namespaces", USER, &json!({"metadata": {"name": namespace}})).await;
        }
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let (client, shutdown) = (plane.client().await.unwrap(), stop.clone());
        tasks.spawn(async move { Kubelet::run(client, shutdown).await.unwrap() });
        let source = Source::start(&mut tasks).await;
        let [link] = free_ports().unwrap();
        let tidemark = Mutex::new(start_tidemark(&plane, &keda, link));
        let links = [keda.link(), SocketAddr::from((Ipv4Addr::LOCALHOST, link))];
        serve_metrics(&plane, &keda, links, &mut tasks, stop.clone()).await;
        Some(Self { _plane: plane, rest, source, keda, tidemark, stop, tasks })
    }

    /// What the operators have written last.
    pub fn logs(&self) -> String {
        let tidemark = self.tidemark.lock().unwrap().log_tail("operator", 20);
        let keda = self.keda.log(Part::Operator);
        let keda: Vec<&str> = keda.lines().rev().take(20).collect();
        format!("KEDA, latest first:\n{}\nTidemark:\n{tidemark}", keda.join("\n"))
    }

    pub async fn clear(mut self) {
        self.stop.cancel();
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
    }

    /// Makes a request in both namespaces, which must succeed.
    pub async fn in_both(&self, method: Method, path: impl Fn(&str) -> String, kind: &str, body: &Value) {
        for namespace in NAMESPACES {
            let path = path(namespace);
            let outcome = self.rest.request(method.clone(), &path, USER, kind, body).await;
            outcome.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        }
    }
}

fn start_tidemark(plane: &ControlPlane, keda: &Keda, link: u16) -> ProcessGroup {
    let mut group = ProcessGroup::start("tidemark").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
    command.args(["operator", "--beside-keda", "--metrics-bind-address=0", "--health-probe-bind-address=0"]);
    command.args(["--reasons-bind-address=0".to_owned(), format!("--metrics-service-bind-address=127.0.0.1:{link}")]);
    command.arg(format!("--cert-dir={}", keda.certs().display()));
    command.arg(format!("--kubeconfig={}", plane.kubeconfig().display()));
    command.env_clear().envs([("POD_NAMESPACE", "keda"), ("WATCH_NAMESPACE", NAMESPACES[1])]);
    group.spawn("operator", command).unwrap();
    group
}

/// The metrics API of both: the operator of a namespace answers for it, over gRPC as a metrics server asks it.
async fn serve_metrics(
    plane: &ControlPlane,
    keda: &Keda,
    links: [SocketAddr; 2],
    tasks: &mut JoinSet<()>,
    stop: CancellationToken,
) {
    let (identity, following) = identity::follow(keda.certs().to_owned(), true).await;
    tasks.spawn(following);
    let links = links.map(|link| {
        let address = Address::parse(&link.to_string(), "keda-operator.keda.svc.cluster.local").unwrap();
        let (metrics, connected) = client(&address, identity.clone(), Policy::default()).unwrap();
        tasks.spawn(connected);
        metrics
    });
    let kube = plane.client().await.unwrap();
    let front_proxy = FrontProxy::read(&kube).await.unwrap();
    let authority = Authority::new("test", Clock::system().now()).unwrap();
    let pair = authority.server(&[EXTERNAL_METRICS_SERVER_NAME]).unwrap();
    let tls = server_config(&pair, Clients::Optional(&front_proxy.client_ca), &Policy::default()).unwrap();
    let api = ExternalMetrics::new(
        Arc::new(ByNamespace(links)),
        Access::Delegated(Arc::new(Delegated::new(kube, front_proxy))),
    );
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn(https::serve(listener, tokio::sync::watch::Sender::new(Arc::new(tls)).subscribe(), api, stop));
    plane.register_external_metrics(port, &authority.certificate()).await.unwrap();
}

/// The operators of [`NAMESPACES`].
struct ByNamespace([GrpcMetrics; 2]);

impl MetricsSource for ByNamespace {
    fn values<'a>(&'a self, namespace: &'a str, object: &'a str, metric: &'a str) -> Values<'a> {
        let index = NAMESPACES.iter().position(|known| *known == namespace).unwrap();
        self.0[index].values(namespace, object, metric)
    }
}

/// What the triggers read.
#[derive(Clone)]
pub struct Source {
    pub address: SocketAddr,
    /// The names of what is down at present.
    down: Arc<Mutex<BTreeSet<String>>>,
}

#[derive(serde::Deserialize)]
struct Asked {
    query: String,
}

impl Source {
    async fn start(tasks: &mut JoinSet<()>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let source = Self { address: listener.local_addr().unwrap(), down: Arc::default() };
        let broken = || async { StatusCode::INTERNAL_SERVER_ERROR };
        let routes = Router::new()
            .route("/value/{value}", get(|Path(value): Path<f64>| async move { value_of(value) }))
            .route("/toggle/{name}", get(toggled))
            .route("/api/v1/query", get(|Query(asked): Query<Asked>| async move { queried(&asked.query) }))
            .fallback(broken)
            .with_state(source.clone());
        tasks.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        source
    }

    /// Whether what has this name answers from now on.
    pub fn set(&self, name: &str, is_up: bool) {
        let mut down = self.down.lock().unwrap();
        match is_up {
            true => drop(down.remove(name)),
            false => drop(down.insert(name.to_owned())),
        }
    }
}

fn value_of(value: f64) -> String {
    json!({"value": value}).to_string()
}

async fn toggled(State(source): State<Source>, Path(name): Path<String>) -> Result<String, StatusCode> {
    if source.down.lock().unwrap().contains(&name) { Err(StatusCode::INTERNAL_SERVER_ERROR) } else { Ok(value_of(7.0)) }
}

/// Prometheus' answer to a query that is a number, or anything else, which has no series.
fn queried(query: &str) -> String {
    let series = match query.parse::<f64>() {
        Ok(_) => json!([{"metric": {}, "value": [1_700_000_000, query]}]),
        Err(_) => json!([]),
    };
    json!({"status": "success", "data": {"resultType": "vector", "result": series}}).to_string()
}
