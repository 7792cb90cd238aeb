//! How long an HPA waits for a metric: `tidemark operator` and `tidemark metrics-server` as two processes, 1,000
//! ScaledObjects with an HTTP source each, and requests as an API server sends them for the HPA controller.
//!
//! A request crosses HTTPS, the access review (unless its answer is remembered), gRPC over mutual TLS, the operator's task
//! and the read of the source. API server (a sandbox), source and requests are in the process that measures.
//! `cargo bench -p tidemark --bench metrics [-- OBJECTS]`

use std::convert::Infallible;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use kube::{Client, Config};
use serde_json::{Value, json};
use tidemark_api::ScaledObject;
use tidemark_clock::Clock;
use tidemark_sandbox::{Options, Sandbox};
use tidemark_serving::certificates::{Authority, Pair};
use tidemark_serving::rotation::material::{Names, renew};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tower::ServiceExt as _;
use xtask::network::free_ports;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The period of HPAs, and for how many periods they are played.
const PERIOD: Duration = Duration::from_secs(15);
const PERIODS: u32 = 4;
/// Requests that the HPA controller has under way at once.
const WORKERS: usize = 5;
/// Between bursts: longer than a value is fresh.
const PAUSE: Duration = Duration::from_secs(3);
const BURSTS: u32 = 3;
const OPERATOR: &str = "keda-operator.keda.svc";
const METRICS_SERVER: &str = "keda-metrics-apiserver.keda.svc";

fn main() {
    let objects = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(objects));
}

async fn measure(objects: usize) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = std::env::temp_dir().join(format!("tidemark-bench-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("certs")).unwrap();
    let reads = Arc::new(AtomicU64::new(0));
    let source = source(reads.clone()).await;
    let front_proxies = Authority::new("front-proxy", Clock::system().now()).unwrap();
    let (server, client) = api_server(&front_proxies).await;
    for number in 0..objects {
        create(&client, number, source).await;
    }
    let [link, port] = free_ports().unwrap();
    let _processes = start(&folder, server, link, port);
    let asker = asker(&folder, port, &front_proxies.client("front-proxy-client").unwrap());
    ready(&asker, objects).await;

    let mut times = Vec::new();
    let (start, before) = (Instant::now(), reads.load(Ordering::Relaxed));
    for _ in 0..PERIODS {
        times.extend(one_period(&asker, objects).await);
    }
    let seconds = start.elapsed().as_secs_f64();
    let read = reads.load(Ordering::Relaxed) - before;
    report(&format!("{objects} HPAs, each every {} s", PERIOD.as_secs()), times);
    println!("  the source was read {:.0} times a second", read as f64 / seconds);
    let (mut times, mut took) = (Vec::new(), Duration::ZERO);
    for _ in 0..BURSTS {
        tokio::time::sleep(PAUSE).await;
        let start = Instant::now();
        times.extend(burst(&asker, objects).await);
        took += start.elapsed();
    }
    report(&format!("{objects} metrics at once, {WORKERS} under way"), times);
    println!("  {:.0} answers a second", (objects * BURSTS as usize) as f64 / took.as_secs_f64());
    std::fs::remove_dir_all(folder).unwrap();
}

/// Requests spread over a period, as HPAs' are that were made at different times.
async fn one_period(asker: &Client, objects: usize) -> Vec<Duration> {
    let mut tasks = tokio::task::JoinSet::new();
    let mut ticks = tokio::time::interval(PERIOD / u32::try_from(objects).unwrap());
    for number in 0..objects {
        ticks.tick().await;
        let asker = asker.clone();
        tasks.spawn(async move { ask(&asker, number).await.unwrap() });
    }
    tasks.join_all().await
}

async fn burst(asker: &Client, objects: usize) -> Vec<Duration> {
    let asks = (0..objects).map(|number| async move { ask(asker, number).await.unwrap() });
    futures::stream::iter(asks).buffer_unordered(WORKERS).collect().await
}

async fn ask(asker: &Client, number: usize) -> Result<Duration, kube::Error> {
    let base = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/s0-metric-api-depth";
    let uri = format!("{base}?labelSelector=scaledobject.keda.sh%2Fname%3Dworker-{number}");
    let start = Instant::now();
    let list: Value = asker.request(Request::get(uri).body(Vec::new()).unwrap()).await?;
    assert_eq!(list["items"][0]["value"], "7");
    Ok(start.elapsed())
}

/// Waits until the first and the last object are answered for.
async fn ready(asker: &Client, objects: usize) {
    let start = Instant::now();
    for number in [0, objects - 1] {
        while let Err(error) = ask(asker, number).await {
            assert!(start.elapsed() < Duration::from_secs(120), "{error}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    // First polls are spread over half a minute.
    tokio::time::sleep(Duration::from_secs(35)).await;
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 1000).min(times.len() - 1)].as_secs_f64() * 1e3;
    let (count, p50, p99, longest) = (times.len(), at(500), at(990), at(1000));
    println!("{what}: {count} answers, p50 {p50:.1} ms, p99 {p99:.1} ms, longest {longest:.1} ms");
}

/// The two processes; they end when this is dropped.
fn start(folder: &Path, server: u16, link: u16, port: u16) -> [Child; 2] {
    let dns = [OPERATOR, METRICS_SERVER].map(str::to_owned).to_vec();
    let names = Names { common: "keda-operator".to_owned(), dns };
    let identity = renew(None, &names, Clock::system().now()).unwrap().unwrap().identity();
    let certs = folder.join("certs");
    for (name, text) in
        [("tls.crt", &identity.pair.certificate), ("tls.key", &identity.pair.key), ("ca.crt", &identity.ca)]
    {
        std::fs::write(certs.join(name), text).unwrap();
    }
    let kubeconfig = folder.join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "sandbox",
        "clusters": [{"name": "sandbox", "cluster": {"server": format!("http://127.0.0.1:{server}")}}],
        "users": [{"name": "sandbox", "user": {}}],
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "sandbox"}}],
    });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let common = [format!("--kubeconfig={}", kubeconfig.display()), format!("--cert-dir={}", certs.display())];
    let spawn = |arguments: &[String]| {
        let log = std::fs::File::create(folder.join(format!("{}.log", arguments[0]))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
        command.args(arguments).args(&common).stdin(Stdio::null()).stderr(log.try_clone().unwrap()).stdout(log);
        command.kill_on_drop(true).spawn().unwrap()
    };
    let of = |flag: &str| flag.to_owned();
    let operator = [
        of("operator"),
        of("--beside-keda"),
        of("--metrics-bind-address=0"),
        of("--health-probe-bind-address=0"),
        format!("--metrics-service-bind-address=127.0.0.1:{link}"),
    ];
    let metrics_server = [
        of("metrics-server"),
        of("--bind-address=127.0.0.1"),
        format!("--secure-port={port}"),
        of("--port=0"),
        format!("--metrics-service-address=127.0.0.1:{link}"),
        format!("--metrics-service-grpc-authority={OPERATOR}"),
    ];
    [spawn(&operator), spawn(&metrics_server)]
}

/// A client as the API server is one, speaking for the HPA controller.
fn asker(folder: &Path, port: u16, pair: &Pair) -> Client {
    std::fs::write(folder.join("proxy.crt"), &pair.certificate).unwrap();
    std::fs::write(folder.join("proxy.key"), &pair.key).unwrap();
    let path = |name: &str| Some(folder.join(name).display().to_string());
    let mut config = Config::new(format!("https://127.0.0.1:{port}").parse().unwrap());
    config.root_cert_file = Some(folder.join("certs/ca.crt"));
    config.tls_server_name = Some(METRICS_SERVER.to_owned());
    config.auth_info.client_certificate = path("proxy.crt");
    config.auth_info.client_key = path("proxy.key");
    let user = HeaderValue::from_static("system:serviceaccount:kube-system:horizontal-pod-autoscaler");
    config.headers = vec![(HeaderName::from_static("x-remote-user"), user)];
    Client::try_from(config).unwrap()
}

/// A sandbox that also answers access reviews.
async fn api_server(front_proxies: &Authority) -> (u16, Client) {
    let sandbox = Sandbox::new(Clock::system(), Options { history: 100_000, ..Options::default() });
    sandbox.install_crds(&tidemark_api::crds()).unwrap();
    let client = sandbox.client();
    let settings = json!({"metadata": {"name": "extension-apiserver-authentication"}, "data": {
        "requestheader-client-ca-file": front_proxies.certificate(),
        "requestheader-username-headers": r#"["X-Remote-User"]"#,
        "requestheader-group-headers": r#"["X-Remote-Group"]"#,
    }});
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    maps.create(&PostParams::default(), &serde_json::from_value(settings).unwrap()).await.unwrap();
    let port = serve(move |request| {
        let sandbox = sandbox.service();
        async move {
            if !request.uri().path().ends_with("/subjectaccessreviews") {
                let answer = sandbox.oneshot(request).await.unwrap();
                return answer.map(|body| body.map_err(std::io::Error::other).boxed_unsync());
            }
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut review: Value = serde_json::from_slice(&body).unwrap();
            review["status"] = json!({"allowed": true});
            let body = Full::new(Bytes::from(review.to_string()));
            let mut answer = Response::new(body.map_err(|never| match never {}).boxed_unsync());
            answer.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
            answer
        }
        .boxed()
    })
    .await;
    (port, client)
}

/// An HTTP server of one number; gives its port.
async fn source(reads: Arc<AtomicU64>) -> u16 {
    serve(move |_| {
        reads.fetch_add(1, Ordering::Relaxed);
        let body = Full::new(Bytes::from_static(b"{\"depth\": 7}"));
        std::future::ready(Response::new(body.map_err(|never| match never {}).boxed_unsync())).boxed()
    })
    .await
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

async fn serve(
    answer: impl Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Clone + Send + Sync + 'static,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = stream.set_nodelay(true);
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| answer(request).map(Ok::<_, Infallible>));
                // Clients come and go.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    port
}

async fn create(client: &Client, number: usize, source: u16) {
    let name = format!("worker-{number}");
    let labels = json!({"app": name});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "none"}]},
        }},
    });
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    deployments.create(&PostParams::default(), &serde_json::from_value(deployment).unwrap()).await.unwrap();
    let url = format!("http://127.0.0.1:{source}/{number}");
    let object = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name},
        "spec": {"scaleTargetRef": {"name": name}, "maxReplicaCount": 1, "triggers": [{
            "type": "metrics-api", "metadata": {"url": url, "valueLocation": "depth", "targetValue": "10"},
        }]},
    });
    let objects: Api<ScaledObject> = Api::namespaced(client.clone(), "default");
    objects.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}
