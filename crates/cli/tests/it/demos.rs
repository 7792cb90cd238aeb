//! The examples that tell OpenTelemetry and Prometheus what they do, on real ones: with `up` as a user runs it, and the
//! same manifests on a real control plane.
//!
//! The Collector is the one that `cargo xtask test` builds, the broker that of `cargo xtask services`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tidemark_cli::{apply, manifests};
use tidemark_testkit::Kubelet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use xtask::promql::Prometheus;
use xtask::services::collector::{self, Pipeline};

use crate::desk::{Desk, Up, skip};
use crate::metrics_server::{Installation, free_address, material};

/// The longest time for one answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// The query of the example, to the letter.
const QUERY: &str = r#"sum(rate({otel_metric_name="http.server.duration", service_name="http-app"}[1m]))"#;
const TOKEN: &str = "the-token-of-this-example";
/// What opens once the first token does no more.
const NEXT_TOKEN: &str = "the-token-after-that";
const SERVICES: &str = "TIDEMARK_REQUIRE_SERVICES";

/// A Collector and its Prometheus, as the example configures them; or a visible skip.
async fn pipeline(example: &str, changes: &[(&'static str, String)]) -> Option<Pipeline> {
    if collector::find().unwrap().is_none() {
        skip(SERVICES, "there is no Collector yet (`cargo xtask test` or `cargo xtask services collector` builds it)");
        return None;
    }
    let folder = Path::new("../../examples").join(example).join("telemetry");
    let changes = changes.to_vec();
    let start = move || {
        let changes: Vec<_> = changes.iter().map(|(from, to)| (*from, to.as_str())).collect();
        Pipeline::start(&folder, &changes)
    };
    Some(tokio::task::spawn_blocking(start).await.unwrap().unwrap())
}

/// A variable that names a server, or a visible skip.
fn server(variable: &str) -> Option<String> {
    let address = std::env::var(variable).ok().filter(|address| !address.is_empty());
    if address.is_none() {
        skip(SERVICES, &format!("{variable} is not set (`cargo xtask services` starts a broker)"));
    }
    address
}

async fn instant(prometheus: &Prometheus, query: &str) -> Vec<(BTreeMap<String, String>, f64)> {
    let (prometheus, query) = (prometheus.clone(), query.to_owned());
    tokio::task::spawn_blocking(move || prometheus.instant(&query)).await.unwrap().unwrap()
}

/// Waits until the query gives one value that is as wanted.
async fn until_value(desk: &Desk, seconds: u64, prometheus: &Prometheus, query: &str, wanted: fn(f64) -> bool) {
    desk.until(seconds, query, async || match &instant(prometheus, query).await[..] {
        [(_, value)] if wanted(*value) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// The arguments and the environment with which `up` tells the Collector.
fn telling(pipeline: &Pipeline) -> [(&'static str, String); 2] {
    [("OTEL_EXPORTER_OTLP_ENDPOINT", pipeline.otlp()), ("OTEL_METRIC_EXPORT_INTERVAL", "1000".to_owned())]
}

async fn start_up<'a>(desk: &'a Desk, example: &str, pipeline: &Pipeline) -> Up<'a> {
    let environment = telling(pipeline);
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    Up::start(desk, &[example, "--enable-opentelemetry-metrics"], &environment).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_depth_stands_beside_what_tidemark_made_of_it_while_consumers_come_and_go() {
    let (Some(url), Some(metrics)) = (server("TIDEMARK_TEST_RABBITMQ_AMQP"), server("TIDEMARK_TEST_RABBITMQ_METRICS"))
    else {
        return;
    };
    let Some(pipeline) = pipeline("rabbitmq", &[("127.0.0.1:15692", metrics)]).await else { return };
    let prometheus = Prometheus::new(&pipeline.prometheus()).unwrap();
    let desk = Desk::new();
    let address = url.rsplit('@').next().unwrap().trim_end_matches('/');
    let queue = "tidemark-demo";
    desk.copy_example("rabbitmq", &[("localhost:5672", address), ("work_queue", queue)]);
    let produce = async |count: &str| {
        let arguments = ["demo", "rabbitmq-producer", "--queue", queue, "--count", count];
        let output = desk.tidemark(&arguments, &[("AMQP_URL", &url)]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    produce("0").await;
    let up = start_up(&desk, "rabbitmq", &pipeline).await;
    up.until_ready_is("rabbitmq-consumer", "True", &[]).await;
    up.until_replicas(10, "rabbitmq-consumer", 0..=0).await;
    let depth = r#"rabbitmq_queue_messages_ready{queue="tidemark-demo"}"#;
    let value = r#"keda_scaler_metrics_value{scaledObject="rabbitmq-consumer", metric="s0-rabbitmq-tidemark-demo"}"#;
    for query in [depth, value] {
        until_value(&desk, 30, &prometheus, query, |value| value == 0.0).await;
    }

    produce("100").await;
    up.until_replicas(60, "rabbitmq-consumer", 2..=10).await;
    let consumers = r#"rabbitmq_queue_consumers{queue="tidemark-demo"}"#;
    until_value(&desk, 30, &prometheus, consumers, |consumers| consumers >= 2.0).await;
    // Both at the same moment, and both have seen what came.
    until_value(&desk, 5, &prometheus, &format!("({value} > 0) and on() ({depth} > 0)"), |_| true).await;
    for query in [depth, value] {
        until_value(&desk, 5, &prometheus, &format!("max_over_time({query}[2m])"), |most| most > 50.0).await;
    }

    up.until_replicas(120, "rabbitmq-consumer", 0..=0).await;
    for query in [depth, value, consumers] {
        until_value(&desk, 15, &prometheus, query, |value| value == 0.0).await;
    }
    up.interrupt().await;
}

/// The parts of the HTTP example that are not in its manifests: what stands for a hosted Prometheus.
struct Http {
    pipeline: Pipeline,
    prometheus: Prometheus,
    /// Where the app is.
    app: String,
}

impl Http {
    /// Starts them, and copies the manifests with their addresses. The load does not end by itself.
    async fn start(desk: &Desk) -> Option<Self> {
        let pipeline = pipeline("http", &[]).await?;
        let prometheus = Prometheus::new(&pipeline.prometheus()).unwrap();
        let (gateway, app) = (free_address().to_string(), free_address().to_string());
        desk.write("token", TOKEN);
        let to = pipeline.prometheus();
        let arguments = ["demo", "bearer-proxy", "--listen", &gateway, "--to", &to, "--token-file", "token"];
        desk.spawn("gateway", &arguments, &[]);
        let otlp = pipeline.otlp();
        let changes = [
            ("127.0.0.1:9091", &*gateway),
            ("127.0.0.1:8080", &*app),
            ("http://127.0.0.1:4318", &*otlp),
            ("--quiet, 150s", "--quiet, 0s"),
        ];
        desk.copy_example("http", &changes);
        let manifest = std::fs::read_to_string(desk.folder().join("http/scaledobject.yaml")).unwrap();
        assert!(manifest.contains(QUERY), "{manifest}");
        Some(Self { pipeline, prometheus, app })
    }

    async fn rate(&self, desk: &Desk, seconds: u64, wanted: fn(f64) -> bool) {
        until_value(desk, seconds, &self.prometheus, QUERY, wanted).await;
    }
}

fn secret(token: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: dash0-api-secret}}\nstringData: {{apiToken: {token}}}\n")
}

/// Applies the documents of a text.
async fn apply_all(client: &Client, text: &str) {
    let mut contents = manifests::Contents::default();
    manifests::parse(Path::new("test.yaml"), text, &mut contents);
    assert!(contents.errors.is_empty(), "{:?}", contents.errors);
    manifests::sort_by_need(&mut contents.manifests);
    for manifest in &contents.manifests {
        timeout(PATIENCE, apply::apply(client, manifest)).await.expect("the API answers").unwrap();
    }
}

async fn scale(client: &Client, deployment: &str, replicas: u32) {
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    timeout(PATIENCE, api.patch(deployment, &PatchParams::default(), &patch)).await.expect("the API answers").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_bring_replicas_silence_takes_them_and_a_wrong_token_is_told_and_changes_none() {
    let desk = Desk::new();
    let Some(http) = Http::start(&desk).await else { return };
    let up = start_up(&desk, "http", &http.pipeline).await;
    up.until_ready_is("http-scaler", "True", &[]).await;
    // 4.5 requests a second, one replica for each.
    up.until_replicas(120, "http-app", 5..=5).await;
    http.rate(&desk, 20, |rate| (4.0..5.0).contains(&rate)).await;
    assert_eq!(desk.processes("demo http-app").len(), 5, "{:?}", desk.processes(""));
    // One series for each process: its buckets and its sum have no such label.
    let labelled = r#"count({otel_metric_name="http.server.duration"})"#;
    until_value(&desk, 15, &http.prometheus, labelled, |series| series == 5.0).await;
    let value = r#"keda_scaler_metrics_value{scaledObject="http-scaler"}"#;
    until_value(&desk, 10, &http.prometheus, value, |value| (4.0..5.0).contains(&value)).await;

    // From now on there is nothing to do. Who reads no Prometheus does not know that.
    scale(&up.client, "http-load", 0).await;
    desk.write("token", NEXT_TOKEN);
    up.until_ready_is("http-scaler", "False", &["401"]).await;
    up.until_event("http-scaler", "KEDAScalerFailed", "401").await;
    let failed = r#"sum(tidemark_scaler_errors_total{scaledObject="http-scaler", kind="authentication"})"#;
    until_value(&desk, 20, &http.prometheus, failed, |errors| errors >= 1.0).await;
    let kubeconfig = up.kubeconfig.display().to_string();
    let explained = desk.tidemark(&["explain", "http-scaler", "--kubeconfig", &kubeconfig], &[]).await;
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.contains("authentication"), "{explained}");
    assert!(!(explained.clone() + &up.log()).contains(TOKEN), "{explained}");
    http.rate(&desk, 90, |rate| rate < 0.5).await;
    up.until_replicas(5, "http-app", 5..=5).await;

    apply_all(&up.client, &secret(NEXT_TOKEN)).await;
    up.until_ready_is("http-scaler", "True", &[]).await;
    up.until_replicas(90, "http-app", 1..=1).await;
    // Ctrl-C would also end the gateway, which is no part of `up`.
    up.kill();
}

async fn until_replicas(desk: &Desk, client: &Client, seconds: u64, name: &str, wanted: fn(i32) -> bool) {
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    desk.until(seconds, &format!("{name} gets other replicas"), async || {
        let found = api.get(name).await.map_err(|error| error.to_string())?;
        let replicas = found.spec.replicas.unwrap_or(1);
        if wanted(replicas) { Ok(()) } else { Err(format!("{replicas} replicas")) }
    })
    .await;
}

/// The manifests of an example, as they were copied.
fn copied(desk: &Desk, example: &str) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(desk.folder().join(example)).unwrap() {
        all += &format!("---\n{}", std::fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    all
}

/// There the pods are only played, so what would run in them runs beside: the app with its load, the consumers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_manifests_do_the_same_on_a_real_control_plane() {
    let Some(url) = server("TIDEMARK_TEST_RABBITMQ_AMQP") else { return };
    let desk = Desk::new();
    let Some(http) = Http::start(&desk).await else { return };
    let own = material();
    let Some(installation) = Installation::start(&own, &own.bundle()).await else { return };
    let client = &installation.client;
    let stop = CancellationToken::new();
    let kubelet = tokio::spawn(Kubelet::run(client.clone(), stop.clone()));
    let (queue, address) = ("tidemark-demo-cluster", url.rsplit('@').next().unwrap().trim_end_matches('/'));
    desk.copy_example("rabbitmq", &[("localhost:5672", address), ("work_queue", queue)]);
    let amqp = [("AMQP_URL", url.as_str())];
    let produce = async |count: &str| {
        let output = desk.tidemark(&["demo", "rabbitmq-producer", "--queue", queue, "--count", count], &amqp).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    produce("0").await;
    let otlp = http.pipeline.otlp();
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*otlp)];
    desk.spawn("app", &["demo", "http-app", "--listen", &http.app], &environment);
    apply_all(client, &copied(&desk, "http")).await;
    apply_all(client, &copied(&desk, "rabbitmq")).await;
    let load = format!("http://{}/", http.app);
    desk.spawn("load", &["demo", "http-load", "--url", &load, "--busy", "75s", "--quiet", "1h"], &[]);

    produce("100").await;
    until_replicas(&desk, client, 60, "rabbitmq-consumer", |replicas| replicas == 10).await;
    desk.spawn("consumer", &["demo", "rabbitmq-consumer", "--queue", queue, "--work", "1"], &amqp);
    until_replicas(&desk, client, 90, "http-app", |replicas| replicas == 5).await;
    until_replicas(&desk, client, 90, "rabbitmq-consumer", |replicas| replicas == 0).await;
    until_replicas(&desk, client, 180, "http-app", |replicas| replicas == 1).await;
    stop.cancel();
    timeout(PATIENCE, kubelet).await.expect("the kubelet ends").unwrap().unwrap();
}
