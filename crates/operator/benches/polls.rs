//! How many polls an operator makes in a second of processor time, against an HTTP source on this machine; and what it
//! costs to get from a ScaledObject's JSON to a parsed trigger.
//!
//! The operator runs on one thread of a process of its own; API server and source are in the process that measures.
//! `cargo bench -p tidemark-operator --bench polls [-- OBJECTS]`

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use tidemark_api::ScaledObject;
use tidemark_clock::Clock;
use tidemark_operator::{Operator, Settings, What};
use tidemark_sandbox::{Options, Sandbox};
use tidemark_trigger::{Door, DoorSettings, TriggerInput};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Set for the process that the operator runs in.
const SERVER: &str = "TIDEMARK_BENCH_SERVER";
/// Before anything is counted, and for how long it is counted then.
const WARM_UP: Duration = Duration::from_secs(15);
const COUNTED: Duration = Duration::from_secs(20);

fn main() {
    let one = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Ok(server) = std::env::var(SERVER) {
        return one.block_on(operate(&server));
    }
    parse();
    let several = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let objects = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(2_000);
    several.block_on(measure(objects));
}

/// From the API server's bytes to a trigger that can be connected.
fn parse() {
    let text = object(0, 8080).to_string();
    let (start, mut times) = (Instant::now(), 0_u32);
    while start.elapsed() < Duration::from_secs(2) {
        let object: ScaledObject = serde_json::from_str(&text).unwrap();
        let trigger = &object.spec.triggers[0];
        let input = TriggerInput {
            index: 0,
            trigger_type: trigger.type_.clone(),
            name: None,
            metadata: trigger.metadata.clone(),
            auth: Default::default(),
            env: Default::default(),
            pod_identity: None,
            metric_type: None,
            as_metric_source: false,
            namespace: "default".to_owned(),
            object: "worker".to_owned(),
        };
        black_box(tidemark_triggers::parse(&input).unwrap());
        times += 1;
    }
    let each = start.elapsed().as_secs_f64() * 1e6 / f64::from(times);
    println!("a ScaledObject of {} bytes to its parsed trigger: {each:.1} us", text.len());
}

async fn measure(objects: usize) {
    let source = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source_port = source.local_addr().unwrap().port();
    serve(
        source,
        service_fn(async |_: Request<Incoming>| {
            Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from_static(b"{\"depth\": 0}"))))
        }),
    );
    let sandbox = Sandbox::new(Clock::system(), Options { history: 100_000, ..Options::default() });
    sandbox.install_crds(&tidemark_api::crds()).unwrap();
    for number in 0..objects {
        create(&sandbox.client(), number, source_port).await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    serve(listener, service_fn(move |request: Request<Incoming>| sandbox.service().oneshot(request)));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(SERVER, format!("http://127.0.0.1:{port}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let line = tokio::task::spawn_blocking(move || lines.read_line(&mut line).map(|_| line)).await.unwrap().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    println!("{objects} objects polled every second: {}", line.trim());
}

fn serve<S, B>(listener: TcpListener, service: S)
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service.clone();
            tokio::spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(stream), service).await });
        }
    });
}

fn object(number: usize, port: u16) -> Value {
    json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": format!("worker-{number:05}")},
        "spec": {
            "scaleTargetRef": {"name": format!("worker-{number:05}")},
            "pollingInterval": 1,
            "triggers": [{"type": "metrics-api", "metadata": {
                // Each its own, or the door would let them share a request.
                "url": format!("http://127.0.0.1:{port}/queues/{number}"), "valueLocation": "depth", "targetValue": "5",
            }}],
        },
    })
}

async fn create(client: &Client, number: usize, port: u16) {
    let name = format!("worker-{number:05}");
    let deployment = json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "worker"}]},
            },
        },
    });
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    deployments.create(&PostParams::default(), &serde_json::from_value(deployment).unwrap()).await.unwrap();
    let objects: Api<ScaledObject> = Api::default_namespaced(client.clone());
    let object = serde_json::from_value(object(number, port)).unwrap();
    objects.create(&PostParams::default(), &object).await.unwrap();
}

/// Runs an operator and tells once what it has polled and what that has cost.
async fn operate(server: &str) {
    let client = tidemark_operator::client::build(kube::Config::new(server.parse().unwrap())).unwrap();
    let door = Door::new(Clock::system(), DoorSettings::default());
    let (operator, handle) = Operator::new(client, door, Settings::default());
    let mut observations = handle.observe();
    tokio::spawn(operator.run(CancellationToken::new()));
    let (mut polls, mut failed, mut before) = (0_u64, 0_u64, None);
    let start = tokio::time::Instant::now();
    loop {
        if let Ok(observation) = observations.recv().await
            && let What::Fetch { outcome, .. } = &observation.what
        {
            polls += 1;
            failed += u64::from(outcome.is_err());
        }
        if before.is_none() && start.elapsed() >= WARM_UP {
            before = Some((polls, processor_time()));
        }
        if start.elapsed() >= WARM_UP + COUNTED {
            break;
        }
    }
    let (polls_before, time_before) = before.unwrap();
    let (polls, time) = (polls - polls_before, processor_time() - time_before);
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{:.0} polls/s, {:.0} for each second of processor time ({failed} failed)",
        polls as f64 / COUNTED.as_secs_f64(),
        polls as f64 / time.as_secs_f64()
    )
    .unwrap();
    std::future::pending().await
}

/// What this process has used of the processors, user and system, as Linux counts it: in hundredths of a second.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
