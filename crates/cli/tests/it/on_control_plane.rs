//! A real API server with its own controllers and HPA controller, in real time: the scenarios of the sandbox, and what
//! an installation lives through.

mod definitions;
mod faults;
mod installation;
mod kedas_chart;
mod left;
mod migration;
mod reasons_port;
pub mod release;
mod roles;
pub mod sources;
mod tour;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use tidemark_clock::Clock;
use tidemark_serving::certificates::Authority;
use tidemark_serving::front_proxy::{Access, Delegated, FrontProxy};
use tidemark_serving::tls::{Clients, Policy, server_config};
use tidemark_serving::{ExternalMetrics, MetricsSource, Values, https};
use tidemark_testkit::{ControlPlane, EXTERNAL_METRICS_SERVER_NAME, Kubelet, Options, ResourceMetrics};
use tidemark_trigger::{Door, DoorSettings};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::desk::skip;
use crate::scenario::{self, Places};
use crate::world::{Metrics, Source, World};
use sources::Servers;

/// All at once, each in a namespace and with an operator of its own: they mostly wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_scenarios_of_the_sandbox_hold() {
    let Some(control_plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let stage = Stage::set(&control_plane).await;
    let mut left: BTreeSet<_> = scenario::ALL.iter().map(|(name, _)| *name).collect();
    let mut plays = JoinSet::new();
    for (name, text) in scenario::ALL {
        plays.spawn(play(name, text, stage.clone(), control_plane.config().await.unwrap()));
    }
    let mut failed = false;
    while let Some(outcome) = plays.join_next().await {
        match outcome {
            Ok(name) => drop(left.remove(name)),
            Err(_) => failed = true,
        }
    }
    assert!(!failed, "see above what failed of: {left:?}");
    stage.clear().await;
}

/// What the scenarios share.
struct Stage {
    metrics: Arc<ByNamespace>,
    usage: Arc<ResourceMetrics>,
    shutdown: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
}

/// The metrics of the operator of each namespace.
#[derive(Default)]
struct ByNamespace(Mutex<BTreeMap<String, Arc<Metrics>>>);

impl MetricsSource for ByNamespace {
    fn values<'a>(&'a self, namespace: &'a str, object: &'a str, metric: &'a str) -> Values<'a> {
        let metrics = self.0.lock().unwrap().get(namespace).cloned();
        Box::pin(async move {
            match metrics {
                Some(metrics) => metrics.values(namespace, object, metric).await,
                None => Err(format!("no scenario plays in {namespace}")),
            }
        })
    }
}

impl Stage {
    async fn set(control_plane: &ControlPlane) -> Arc<Self> {
        let client = tidemark_operator::client::build(control_plane.config().await.unwrap()).unwrap();
        install_crds(&client).await;
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let (client, shutdown) = (client.clone(), shutdown.clone());
            async move { Kubelet::run(client, shutdown).await.unwrap() }
        });
        let metrics = Arc::new(ByNamespace::default());
        let (port, ca) = serve_metrics(&mut tasks, &client, metrics.clone(), shutdown.clone()).await;
        control_plane.register_external_metrics(port, &ca).await.unwrap();
        let usage = Arc::new(control_plane.serve_resource_metrics().await.unwrap());
        Arc::new(Self { metrics, usage, shutdown, tasks: Mutex::new(tasks) })
    }

    async fn clear(&self) {
        self.shutdown.cancel();
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
    }
}

/// Plays a scenario in a namespace of its name, and gives the name.
async fn play(name: &'static str, text: &'static str, stage: Arc<Stage>, mut config: kube::Config) -> &'static str {
    let server = |word: &str, variable: &str| match std::env::var(variable).ok().filter(|url| !url.is_empty()) {
        None if text.contains(word) => {
            skip("TIDEMARK_REQUIRE_SERVICES", &format!("{name}: {variable} is not set (`cargo xtask services` helps)"));
            None
        }
        url => Some(url.unwrap_or_default()),
    };
    let Some(rabbitmq) = server("RABBITMQ", "TIDEMARK_TEST_RABBITMQ_AMQP") else { return name };
    let Some(prometheus) = server("PROMETHEUS", "TIDEMARK_TEST_PROMETHEUS") else { return name };
    config.default_namespace = name.to_owned();
    let client = tidemark_operator::client::build(config).unwrap();
    tidemark_cli::apply::namespace(&client, name).await.unwrap();

    let source = Arc::new(Source::default());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let over = CancellationToken::new();
    let serving = tokio::spawn(sources::serve(listener, address, source.clone(), over.clone()));
    let metrics = Arc::new(Metrics::default());
    stage.metrics.0.lock().unwrap().insert(name.to_owned(), metrics.clone());
    let servers = Servers { rabbitmq: rabbitmq.clone(), prometheus: prometheus.clone(), usage: stage.usage.clone() };
    let door = Door::new(Clock::system(), DoorSettings::default());
    let mut world = World::new(client, door, source, Box::new(servers), metrics);
    let places = Places { source: &format!("http://{address}"), rabbitmq: &rabbitmq, prometheus: &prometheus };
    scenario::run(scenario::parse(text, &places), &mut world).await;
    world.stop_operator().await;
    over.cancel();
    serving.await.unwrap();
    name
}

pub async fn install_crds(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in tidemark_api::crds() {
        api.create(&PostParams::default(), &crd).await.unwrap();
        let established = kube::runtime::conditions::is_crd_established();
        let name = crd.name_any();
        let wait = kube::runtime::wait::await_condition(api.clone(), &name, established);
        tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap().unwrap();
    }
}

async fn serve_metrics(
    tasks: &mut JoinSet<()>,
    client: &Client,
    metrics: Arc<ByNamespace>,
    shutdown: CancellationToken,
) -> (u16, String) {
    let front_proxy = FrontProxy::read(client).await.unwrap();
    let authority = Authority::new("test", Clock::system().now()).unwrap();
    let pair = authority.server(&[EXTERNAL_METRICS_SERVER_NAME]).unwrap();
    let tls = server_config(&pair, Clients::Optional(&front_proxy.client_ca), &Policy::default()).unwrap();
    let access = Access::Delegated(Arc::new(Delegated::new(client.clone(), front_proxy)));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn(https::serve(
        listener,
        tokio::sync::watch::Sender::new(Arc::new(tls)).subscribe(),
        ExternalMetrics::new(metrics, access),
        shutdown,
    ));
    (port, authority.certificate())
}
