//! What an idle ScaledObject costs: memory of an operator in its own process against a sandbox's port, and requests to
//! the API server at rest.
//!
//! `cargo bench -p tidemark-operator --bench idle [-- OBJECTS]`

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::json;
use tidemark_api::ScaledObject;
use tidemark_clock::Clock;
use tidemark_operator::{Operator, Settings};
use tidemark_sandbox::{Options, Sandbox};
use tidemark_trigger::Door;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Set for the process that the operator runs in.
const SERVER: &str = "TIDEMARK_BENCH_SERVER";
/// Time at rest before anything is measured, and for which requests are counted.
const REST: Duration = Duration::from_secs(120);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match std::env::var(SERVER) {
        Ok(server) => runtime.block_on(operate(&server)),
        Err(_) => runtime.block_on(measure()),
    }
}

async fn measure() {
    let objects = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(10_000);
    let (empty, _) = run(0).await;
    let (full, requests) = run(objects).await;
    let each = full.saturating_sub(empty) as f64 / objects as f64;
    println!(
        "{objects} idle objects: {empty} kB without, {full} kB with: {each:.2} kB each; {requests} requests in {REST:?}"
    );
}

/// Memory in kB of an operator with so many idle objects, and its requests at rest.
async fn run(objects: usize) -> (u64, u64) {
    let sandbox = Sandbox::new(Clock::system(), Options { history: 100_000, ..Options::default() });
    sandbox.install_crds(&tidemark_api::crds()).unwrap();
    let client = sandbox.client();
    for number in 0..objects {
        create(&client, number).await;
    }
    let (port, requests) = serve(sandbox).await;
    let (mut child, mut lines) = start(port);
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let now = requests.load(Ordering::Relaxed);
        if now == before && now > 0 {
            break;
        }
        before = now;
    }
    tokio::time::sleep(REST).await;
    let requests = requests.load(Ordering::Relaxed) - before;
    writeln!(child.stdin.as_mut().unwrap()).unwrap();
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    (line.trim().parse().unwrap(), requests)
}

fn start(port: u16) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(SERVER, format!("http://127.0.0.1:{port}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines)
}

async fn create(client: &Client, number: usize) {
    let name = format!("worker-{number:05}");
    let deployment = json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "worker", "env": [{"name": "QUEUE", "value": "q"}]}]},
            },
        },
    });
    let object = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"name": name},
            "triggers": [{"type": "metrics-api", "metadata": {
                "url": format!("http://queues.shop.svc:8080/queues/{name}"), "valueLocation": "depth", "targetValue": "5",
            }}],
        },
    });
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    deployments.create(&PostParams::default(), &serde_json::from_value(deployment).unwrap()).await.unwrap();
    let objects: Api<ScaledObject> = Api::default_namespaced(client.clone());
    objects.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

/// Serves the sandbox on a port of this machine; watches are not counted.
async fn serve(sandbox: Sandbox) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(AtomicU64::new(0));
    let count = requests.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (service, count) = (sandbox.service(), count.clone());
            let answer = service_fn(move |request: Request<Incoming>| {
                if !request.uri().query().unwrap_or_default().contains("watch=true") {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                service.clone().oneshot(request)
            });
            tokio::spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await });
        }
    });
    (port, requests)
}

/// Runs an operator whose event sources are all empty, and tells the memory of this process for each line read.
async fn operate(server: &str) {
    let config = kube::Config::new(server.parse().unwrap());
    let client = tidemark_operator::client::build(config).unwrap();
    let door = Door::in_process(Clock::system(), |_: Request<Bytes>| {
        Box::pin(async { Ok(Response::new(Bytes::from_static(b"{\"depth\": 0}"))) })
    });
    let (operator, _handle) = Operator::new(client, door, Settings::default());
    tokio::spawn(operator.run(CancellationToken::new()));
    tokio::task::spawn_blocking(|| {
        for _ in std::io::stdin().lines() {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
            println!("{}", line.split_whitespace().nth(1).unwrap());
        }
    })
    .await
    .unwrap();
}
