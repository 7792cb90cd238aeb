//! Scenarios on a real API server with its own controllers and HPA controller, in real time.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use tidemark_clock::Clock;
use tidemark_serving::ExternalMetrics;
use tidemark_serving::certificates::Authority;
use tidemark_serving::front_proxy::{Access, Delegated, FrontProxy};
use tidemark_serving::https;
use tidemark_serving::tls::{Clients, Policy, server_config};
use tidemark_testkit::{ControlPlane, EXTERNAL_METRICS_SERVER_NAME, Kubelet, Options};
use tidemark_trigger::{Door, DoorSettings};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::scenario;
use crate::world::{Metrics, Source, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_light() {
    let options = Options { hpa_sync_period: Duration::from_secs(2), ..Options::default() };
    let Some(control_plane) = ControlPlane::start_or_skip(options).await else { return };
    let clock = Clock::system();
    let client = tidemark_operator::client::build(control_plane.config().await.unwrap()).unwrap();
    install_crds(&client).await;
    let shutdown = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn({
        let (client, shutdown) = (client.clone(), shutdown.clone());
        async move { Kubelet::run(client, shutdown).await.unwrap() }
    });
    let metrics = Arc::new(Metrics::default());
    let (port, ca) = serve_metrics(&mut tasks, &client, metrics.clone(), clock, shutdown.clone()).await;
    control_plane.register_external_metrics(port, &ca).await.unwrap();

    let source = Arc::new(Source::default());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(serve_source(listener, address, source.clone(), shutdown.clone()));
    let door = Door::new(clock, DoorSettings::default());
    let mut world = World::new(client, door, source, metrics);
    let scenario = scenario::parse(include_str!("scenarios/first-light.yaml"), &format!("http://{address}"));
    scenario::run(scenario, &mut world).await;

    world.stop_operator().await;
    shutdown.cancel();
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
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
    metrics: Arc<Metrics>,
    clock: Clock,
    shutdown: CancellationToken,
) -> (u16, String) {
    let front_proxy = FrontProxy::read(client).await.unwrap();
    let authority = Authority::new("test", clock.now()).unwrap();
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

/// Serves the source while it is up; while it is down, nothing listens at its address.
async fn serve_source(
    mut listener: TcpListener,
    address: SocketAddr,
    source: Arc<Source>,
    shutdown: CancellationToken,
) {
    let mut states = source.states();
    loop {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                down = states.wait_for(|state| state.down) => {
                    drop(down);
                    break;
                }
                accepted = listener.accept() => {
                    let source = source.clone();
                    let service = service_fn(move |request: http::Request<Incoming>| {
                        let response = source.answer(&request).map(Full::new);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let stream = TokioIo::new(accepted.unwrap().0);
                    connections.spawn(hyper::server::conn::http1::Builder::new().serve_connection(stream, service));
                }
            }
        }
        drop(listener);
        connections.shutdown().await;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            up = states.wait_for(|state| !state.down) => drop(up),
        }
        listener = TcpListener::bind(address).await.unwrap();
    }
}
