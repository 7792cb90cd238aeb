//! Every metric of the contract, by its name, type, unit and labels, as a scraper and receivers of OTLP get it from
//! running processes: an operator with triggers that work, fail, are paused and are deleted, a metrics server that asks
//! it, and webhooks.

pub mod pushed;
pub mod scrape;
mod table;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use kube::Client;
use serde_json::{Value, json};
use tidemark_cli::metrics;
use tidemark_cli::operator::telling::{Options, Telling};
use tidemark_cli::process::bind::Bind;
use tidemark_cli::process::metrics as process_metrics;
use tidemark_cli::process::run::Parts;
use tidemark_cli::webhooks::{self, Admission};
use tidemark_clock::Clock;
use tidemark_operator::{Operator, Settings};
use tidemark_sandbox::Sandbox;
use tidemark_serving::front_proxy::Access;
use tidemark_serving::metrics_service::{self, Address};
use tidemark_serving::rotation::material::{Names, renew};
use tidemark_serving::tls::Policy;
use tidemark_telemetry::catalogue;
use tidemark_telemetry::otlp::{self, Pusher};
use tidemark_trigger::{Door, ErrorKind, SourceError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use xtask::network::free_ports;

use crate::desk::{CRON, Desk, Up, workload};
use crate::receiver::{Receiver, Told};
use pushed::Pushed;
use scrape::Scrape;
use table::{Row, is_told};

/// For anything that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const NAMES: &str = "keda-operator.keda.svc";

/// A Prometheus, and an API that has a number, one that refuses, and one that is down.
fn sources(clock: Clock) -> Door {
    Door::in_process(clock, |request| {
        let answer = |status: u16, body: Value| {
            let body = Bytes::from(body.to_string());
            Ok(Response::builder().status(status).body(body).expect("a status makes a response"))
        };
        let vector = |result: Value| json!({"status": "success", "data": {"resultType": "vector", "result": result}});
        let query = request.uri().query().unwrap_or_default();
        let outcome = match (request.uri().host().unwrap_or_default(), request.uri().path()) {
            ("down.test", _) => Err(SourceError::new(ErrorKind::Unreachable, "it is down")),
            (_, "/refused") => answer(401, json!({})),
            (_, "/number") => answer(200, json!({"n": 7})),
            _ if query.contains("query=empty") => answer(200, vector(json!([]))),
            _ => answer(200, vector(json!([{"metric": {}, "value": [0, "3"]}]))),
        };
        Box::pin(std::future::ready(outcome))
    })
}

fn prometheus(name: &str, query: &str) -> Value {
    let metadata = json!({"serverAddress": "http://prometheus.test", "query": query, "threshold": "2"});
    json!({"type": "prometheus", "name": name, "metadata": metadata})
}

fn number(url: &str) -> Value {
    json!({"type": "metrics-api", "metadata": {"url": url, "valueLocation": "n", "targetValue": "5"}})
}

fn named(mut trigger: Value, name: &str) -> Value {
    trigger["name"] = json!(name);
    trigger
}

/// ScaledObjects by name, with what is special about each.
fn objects() -> Vec<(&'static str, Value)> {
    let cron = json!({"type": "cron", "metadata": {
        "timezone": "UTC", "start": "0 0 * * *", "end": "59 23 * * *", "desiredReplicas": "2",
    }});
    let both = [named(number("http://api.test/number"), "one"), named(number("http://api.test/number"), "two")];
    vec![
        (
            "orders",
            json!({"spec": {"triggers": [
                prometheus("rate", "up"), number("http://api.test/number"), cron, prometheus("nothing", "empty"),
            ]}}),
        ),
        ("gone", json!({"spec": {"triggers": [prometheus("rate", "up")]}})),
        (
            "broken",
            json!({"spec": {"triggers": [number("http://api.test/refused"), number("http://down.test/number")]}}),
        ),
        ("unbuilt", json!({"spec": {"triggers": [{"type": "nonsense", "metadata": {}}]}})),
        (
            "resting",
            json!({
                "metadata": {"annotations": {"autoscaling.keda.sh/paused": "true"}},
                "spec": {"triggers": [prometheus("rate", "up")]},
            }),
        ),
        (
            "formula",
            json!({"spec": {
                "triggers": both, "advanced": {"scalingModifiers": {"formula": "one + two", "target": "4"}},
            }}),
        ),
        (
            "processor",
            json!({"spec": {"minReplicaCount": 1, "triggers": [
                {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "50"}}, prometheus("rate", "up"),
            ]}}),
        ),
    ]
}

async fn create(client: &Client, path: &str, object: &Value) -> kube::Result<Value> {
    let request = Request::post(path).header(CONTENT_TYPE, "application/json");
    client.request(request.body(object.to_string().into_bytes()).unwrap()).await
}

async fn populate(client: &Client) {
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    for name in ["shop", "keda"] {
        create(client, "/api/v1/namespaces", &namespace(name)).await.unwrap();
    }
    let group = "/apis/keda.sh/v1alpha1";
    for (kind, path) in [
        ("TriggerAuthentication", format!("{group}/namespaces/shop/triggerauthentications")),
        ("ClusterTriggerAuthentication", format!("{group}/clustertriggerauthentications")),
    ] {
        let object = json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": kind, "metadata": {"name": "token"},
            "spec": {"secretTargetRef": [{"parameter": "token", "name": "token", "key": "token"}]},
        });
        create(client, &path, &object).await.unwrap();
    }
    for (name, special) in objects() {
        let container = json!({"name": "main", "image": "main", "resources": {"requests": {"cpu": "1"}}});
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {
                "replicas": 1, "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
            },
        });
        create(client, "/apis/apps/v1/namespaces/shop/deployments", &deployment).await.unwrap();
        let mut object = json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name},
            "spec": {"scaleTargetRef": {"name": name}, "pollingInterval": 1, "maxReplicaCount": 5},
        });
        object["metadata"]["annotations"] = special["metadata"]["annotations"].clone();
        for (field, value) in special["spec"].as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        create(client, &format!("{group}/namespaces/shop/scaledobjects"), &object).await.unwrap();
    }
    // Its target has another object already.
    let refused = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "refused"},
        "spec": {"scaleTargetRef": {"name": "orders"}, "triggers": [prometheus("rate", "up")]},
    });
    create(client, &format!("{group}/namespaces/shop/scaledobjects"), &refused).await.unwrap_err();
}

/// The processes of an installation, in this one.
struct Installation {
    client: Client,
    parts: Parts,
    stop: CancellationToken,
    /// Where each tells its metrics.
    operator: u16,
    metrics_server: u16,
    webhooks: u16,
    /// What is pushed over HTTP, and what over gRPC.
    receivers: [Receiver; 2],
}

fn bind(port: u16) -> Bind {
    format!("127.0.0.1:{port}").parse().unwrap()
}

fn settings(receiver: &Receiver, protocol: &str) -> otlp::Settings {
    let variable = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(format!("http://{}", receiver.address)),
        "OTEL_EXPORTER_OTLP_PROTOCOL" => Some(protocol.to_owned()),
        "OTEL_METRIC_EXPORT_INTERVAL" => Some("200".to_owned()),
        _ => None,
    };
    otlp::Settings::from_variables(variable, "test")
}

impl Installation {
    async fn start() -> Self {
        let (clock, stop, mut parts) = (Clock::system(), CancellationToken::new(), Parts::default());
        let [operator, metrics_server, webhooks] = free_ports().unwrap();
        let receivers = [Receiver::http().await, Receiver::grpc(None).await];
        let sandbox = Sandbox::new(
            clock,
            tidemark_sandbox::Options { hpa_sync_period: Duration::from_secs(1), ..Default::default() },
        );
        sandbox.install_crds(&tidemark_api::crds()).unwrap();
        let options = Options {
            prometheus: Some(bind(operator)),
            otlp: Some(settings(&receivers[0], "http/protobuf")),
            durations_by_trigger: false,
        };
        let mut telling = Telling::new(options, clock);
        telling.start(&mut parts, clock, &stop);
        let other = Pusher::new(settings(&receivers[1], "grpc")).unwrap();
        parts.start("the push over gRPC", other.run(telling.series().clone(), clock, stop.clone()));

        let client = process_metrics::counted(sandbox.client(), "sandbox", telling.series().clone());
        let settings = Settings { cluster_object_namespace: Some("keda".to_owned()), ..Settings::default() };
        let (program, handle) = Operator::new(client, sources(clock), settings);
        telling.record(&mut parts, &handle, &stop);

        let dns = vec![NAMES.to_owned()];
        let certificates = renew(None, &Names { common: "keda-operator".to_owned(), dns }, clock.now());
        let (kept, identity) = watch::channel(Arc::new(certificates.unwrap().unwrap().identity()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::parse(&listener.local_addr().unwrap().to_string(), NAMES).unwrap();
        let (service, feeding) = metrics::service(&handle, None, stop.clone());
        let service = service.counting(telling.calls());
        let serving = metrics_service::serve(listener, identity.clone(), Policy::default(), service, stop.clone());
        let (source, link) = metrics_service::client(&address, identity, Policy::default()).unwrap();
        let of_server = process_metrics::series(clock);
        let source = source.counting(process_metrics::calls(of_server.clone(), &catalogue::services::CLIENT));
        metrics::mount(&sandbox, Arc::new(source), Access::Open);

        let of_webhooks = process_metrics::series(clock);
        let counter = webhooks::counter(of_webhooks.clone());
        let admission = Admission::new(sandbox.client(), clock, "test", vec![counter]);
        webhooks::register(&sandbox, &admission.service());

        for (port, catalogue, series) in
            [(metrics_server, catalogue::METRICS_SERVER, of_server), (webhooks, catalogue::WEBHOOKS, of_webhooks)]
        {
            parts.start_fallible("metrics", process_metrics::serve(bind(port), catalogue, series, stop.clone()));
        }
        parts.start("admission", admission.run(stop.clone()));
        parts.start("the raw metrics", feeding);
        parts.start("the metrics service", serving.unwrap());
        let ended = stop.clone();
        parts.start("the link", async move {
            let _kept = kept;
            ended.run_until_cancelled(link).await;
        });
        parts.start_fallible("the operator", program.run(stop.clone()));
        let (controllers, ended) = (sandbox.clone(), stop.clone());
        parts.start("the controllers", async move { controllers.run(ended).await });
        Self { client: sandbox.client(), parts, stop, operator, metrics_server, webhooks, receivers }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while self.parts.join_one().await {}
    }
}

/// What differs between a scrape and the rows; what is missing may come yet.
fn differences(scrape: &Scrape, rows: &[Row]) -> (Vec<String>, Vec<String>) {
    let (mut missing, mut wrong) = (Vec::new(), Vec::new());
    for row in rows {
        let Some((name, kind)) = row.prometheus else { continue };
        let Some(family) = scrape.0.get(name) else {
            if is_told(row) {
                missing.push(name.to_owned());
            }
            continue;
        };
        if !is_told(row) {
            wrong.push(format!("{name} is told after all: take it from the list"));
        }
        let wanted = BTreeSet::from([row.labels.iter().copied().collect::<BTreeSet<_>>()]);
        if family.kind != kind || scrape.label_sets(name) != wanted {
            wrong.push(format!("{name}: {} {:?}", family.kind, scrape.label_sets(name)));
        }
    }
    let known = |name: &str| rows.iter().any(|row| row.prometheus.is_some_and(|(known, _)| known == name));
    wrong.extend(
        scrape
            .0
            .keys()
            .filter(|name| name.starts_with("keda_") && !known(name))
            .map(|name| format!("{name} is surplus")),
    );
    (missing, wrong)
}

/// The same of what was pushed.
fn differences_of_push(pushed: &Pushed, rows: &[Row]) -> (Vec<String>, Vec<String>) {
    let (mut missing, mut wrong) = (Vec::new(), Vec::new());
    for row in rows {
        // Booleans are marked.
        let attributes = row.attributes.iter().map(|name| match *name {
            "isScaledObject" | "ignoreNullValues" => format!("{name}?"),
            name => name.to_owned(),
        });
        let attributes = BTreeSet::from([attributes.collect::<BTreeSet<_>>()]);
        for (name, instrument, unit) in row.otlp {
            let Some(metric) = pushed.metrics.get(*name) else {
                if is_told(row) {
                    missing.push((*name).to_owned());
                }
                continue;
            };
            let instruments = BTreeSet::from([format!("{instrument:?}")]);
            let units = BTreeSet::from([(*unit).to_owned()]);
            if (&metric.instruments, &metric.units, &metric.attributes) != (&instruments, &units, &attributes) {
                wrong.push(format!("{name}: {:?} {:?} {:?}", metric.instruments, metric.units, metric.attributes));
            }
        }
    }
    let known = |name: &str| rows.iter().flat_map(|row| row.otlp).any(|(known, ..)| *known == name);
    let surplus = pushed.metrics.keys().filter(|name| name.starts_with("keda.") && !known(name));
    wrong.extend(surplus.map(|name| format!("{name} is surplus")));
    (missing, wrong)
}

/// Looks again until nothing is missing, and gives what was seen then. Whatever is wrong at any time fails.
async fn complete<T>(what: &str, mut look: impl AsyncFnMut() -> (T, (Vec<String>, Vec<String>))) -> T {
    let start = Instant::now();
    loop {
        let (seen, (missing, wrong)) = look().await;
        assert!(wrong.is_empty(), "{what}: {wrong:#?}");
        if missing.is_empty() {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: these are missing: {missing:#?}");
        sleep(Duration::from_millis(200)).await;
    }
}

async fn scraped(what: &str, port: u16, rows: &[Row]) -> Scrape {
    let scrape = complete(what, async || {
        let scrape = Scrape::of(port).await;
        let differences = differences(&scrape, rows);
        (scrape, differences)
    })
    .await;
    for name in
        ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds", "process_open_fds"]
    {
        assert!(!cfg!(target_os = "linux") || scrape.values(name, &[])[0] > 0.0, "{what}: {name}");
    }
    scrape
}

#[tokio::test]
async fn every_metric_is_told_by_its_name_with_its_labels_and_no_other() {
    let installation = Installation::start().await;
    populate(&installation.client).await;
    scraped("the webhooks", installation.webhooks, table::WEBHOOKS).await;
    let server = scraped("the metrics server", installation.metrics_server, table::METRICS_SERVER).await;
    assert_eq!(server.bounds("keda_internal_metricsservice_grpc_client_handling_seconds"), table::HANDLING);
    let scrape = scraped("the operator", installation.operator, table::OPERATOR).await;
    assert_eq!(scrape.bounds("keda_internal_metricsservice_grpc_server_handling_seconds"), table::HANDLING);
    assert_eq!(scrape.bounds("keda_scaler_http_request_duration_seconds"), table::DURATION);
    assert!(!scrape.values("rest_client_requests_total", &[("code", "200"), ("host", "sandbox")]).is_empty());
    what_they_say(&installation).await;
    for receiver in &installation.receivers {
        let pushed = complete("over OTLP", async || {
            let pushed = Pushed::of(&receiver.told());
            let differences = differences_of_push(&pushed, table::OPERATOR);
            (pushed, differences)
        })
        .await;
        assert_eq!(pushed.metrics["keda.scaler.http.request.duration.seconds"].bounds, table::DURATION);
    }
    series_end_with_their_object(&installation).await;
    for receiver in &installation.receivers {
        let (missing, wrong) = differences_of_push(&Pushed::of(&receiver.told()), table::OPERATOR);
        assert!(missing.is_empty() && wrong.is_empty(), "{missing:?} {wrong:?}");
    }
    installation.stop().await;
}

/// What the metrics say once everything has been read twice.
async fn what_they_say(installation: &Installation) {
    complete("values", async || {
        let scrape = Scrape::of(installation.operator).await;
        let of = |name: &str, object: &str, labels: &[(&str, &str)]| {
            scrape.values(name, &[&[("namespace", "shop"), ("scaledObject", object)], labels].concat())
        };
        let resources = |kind: &str, namespace: &str| {
            scrape.values("keda_resource_registered_total", &[("type", kind), ("namespace", namespace)])
        };
        let triggers = |kind: &str| scrape.values("keda_trigger_registered_total", &[("type", kind)]);
        let errors = |object: &str| of("keda_scaled_object_errors_total", object, &[]);
        let facts = [
            (
                "value",
                of("keda_scaler_metrics_value", "orders", &[("metric", "s0-prometheus"), ("scaler", "rate")]) == [3.0],
            ),
            (
                "unnamed",
                of("keda_scaler_metrics_value", "orders", &[("scaler", "metricsAPIScaler"), ("triggerIndex", "1")])
                    == [7.0],
            ),
            ("active", of("keda_scaler_active", "orders", &[("scaler", "cronScaler")]) == [1.0]),
            ("empty is zero", of("keda_scaler_active", "orders", &[("scaler", "nothing")]) == [0.0]),
            ("no errors", of("keda_scaler_detail_errors_total", "orders", &[]) == [0.0; 4]),
            ("errors", of("keda_scaler_detail_errors_total", "broken", &[]).iter().all(|errors| *errors > 1.0)),
            ("errors of the object", errors("broken")[..] > [3.0][..] && errors("orders") == [0.0]),
            ("a trigger that cannot be built", errors("unbuilt")[..] > [0.0][..]),
            ("composite", of("keda_scaler_active", "formula", &[]) == [1.0]),
            (
                "composite value",
                of("keda_scaler_metrics_value", "formula", &[("scaler", "composite-metric"), ("triggerIndex", "0")])
                    == [14.0],
            ),
            (
                "cpu",
                of("keda_scaler_active", "processor", &[("metric", "cpu"), ("scaler", "cpuMemoryScaler")]) == [1.0],
            ),
            ("paused", of("keda_scaled_object_paused", "resting", &[]) == [1.0]),
            ("not paused", of("keda_scaled_object_paused", "orders", &[]) == [0.0]),
            ("objects", resources("scaled_object", "shop") == [7.0]),
            ("authentications", resources("trigger_authentication", "shop") == [1.0]),
            ("those of the cluster", resources("cluster_trigger_authentication", "default") == [1.0]),
            ("triggers", triggers("metrics-api") == [5.0] && triggers("nonsense") == [1.0] && triggers("cpu") == [1.0]),
            (
                "requests refused",
                !scrape
                    .values(
                        "keda_scaler_http_requests_total",
                        &[("scaled_resource", "broken"), ("scaler", "metrics-api"), ("status_code", "401")],
                    )
                    .is_empty(),
            ),
            (
                "requests failed",
                !scrape
                    .values(
                        "keda_scaler_http_requests_total",
                        &[("scaled_resource", "broken"), ("status_code", "error")],
                    )
                    .is_empty(),
            ),
            (
                "empty",
                scrape.values(
                    "keda_scaler_empty_upstream_responses_total",
                    &[
                        ("scaledResource", "orders"),
                        ("triggerName", "nothing"),
                        ("resourceType", "ScaledObject"),
                        ("ignoreNullValues", "true"),
                    ],
                )[..]
                    > [1.0][..],
            ),
            (
                "errors by kind",
                scrape
                    .values("tidemark_scaler_errors_total", &[("scaledObject", "broken"), ("kind", "authentication")])
                    [..]
                    > [0.0][..],
            ),
            (
                "calls",
                scrape.values(
                    "keda_internal_metricsservice_grpc_server_handled_total",
                    &[
                        ("grpc_code", "OK"),
                        ("grpc_method", "GetMetrics"),
                        ("grpc_type", "unary"),
                        ("grpc_service", "api.MetricsService"),
                    ],
                )[..]
                    > [1.0][..],
            ),
            ("nothing lost", scrape.values("tidemark_telemetry_lost_observations_total", &[]) == [0.0]),
        ];
        let missing = facts.iter().filter(|(_, holds)| !holds).map(|(what, _)| (*what).to_owned()).collect();
        ((), (missing, Vec::new()))
    })
    .await;
}

/// While an object is there its gauges are in every export; afterwards nothing of it is told.
async fn series_end_with_their_object(installation: &Installation) {
    let path = "/apis/keda.sh/v1alpha1/namespaces/shop/scaledobjects/gone";
    installation.client.request::<Value>(Request::delete(path).body(Vec::new()).unwrap()).await.unwrap();
    let start = Instant::now();
    while Scrape::of(installation.operator).await.mentions("gone") {
        assert!(start.elapsed() < PATIENCE, "it is still told of");
        sleep(Duration::from_millis(100)).await;
    }
    for receiver in &installation.receivers {
        let exports = Pushed::of(&receiver.told()).times().len();
        let enough = |told: &Told| Pushed::of(told).times().len() > exports + 3;
        let told = tokio::time::timeout(PATIENCE, receiver.until(enough)).await.expect("there are no further exports");
        let pushed = Pushed::of(&told);
        let times = pushed.times();
        for metric in ["keda.scaler.active", "keda.scaler.metrics.value", "keda.internal.scale.loop.latency"] {
            let metric_of = |object: &str| match metric {
                "keda.internal.scale.loop.latency" => {
                    let of = |point: &&pushed::Point| point.name == metric && point.attributes["name"] == object;
                    pushed.points.iter().filter(of).map(|point| point.time).collect()
                }
                _ => pushed.told(metric, object),
            };
            let kept: BTreeSet<u64> = metric_of("orders");
            let wanted: BTreeSet<u64> = times.range(kept.first().unwrap()..).copied().collect();
            assert_eq!(kept, wanted, "{metric} is missing in an export");
            let gone: BTreeSet<u64> = metric_of("gone");
            let last_ones: Vec<_> = times.iter().rev().take(2).collect();
            assert!(!gone.is_empty() && last_ones.iter().all(|time| !gone.contains(time)), "{metric}");
        }
        let builds: BTreeSet<u64> =
            pushed.points.iter().filter(|point| point.name == "keda.build.info").map(|point| point.time).collect();
        assert_eq!(builds, times, "the build is told in every export");
    }
}

#[tokio::test]
async fn up_tells_its_metrics_where_it_is_told_to() {
    let desk = Desk::new();
    let ([port], receiver) = (free_ports().unwrap(), Receiver::http().await);
    desk.write("m/a.yaml", &workload("orders", "maxReplicaCount: 3", CRON));
    let (address, endpoint) =
        (format!("--metrics-bind-address=127.0.0.1:{port}"), format!("http://{}", receiver.address));
    let arguments =
        ["m", "--simulate-pods", "--enable-prometheus-metrics", &address, "--enable-opentelemetry-metrics=true"];
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=desk"),
    ];
    let up = Up::start(&desk, &arguments, &environment).await;
    desk.until(30, "the trigger is active", async || match Scrape::of(port).await {
        scrape
            if scrape.values("keda_scaler_active", &[("scaledObject", "orders"), ("type", "scaledobject")])
                == [1.0] =>
        {
            Ok(())
        }
        scrape => Err(format!("{:?}", scrape.0.keys())),
    })
    .await;
    let pushed = receiver.until(|told| told.names().iter().any(|name| name == "keda.scaler.active"));
    let told = tokio::time::timeout(PATIENCE, pushed).await.expect("nothing is pushed");
    let resource = told.requests[0].resource_metrics[0].resource.as_ref().unwrap();
    assert!(resource.attributes.iter().any(|pair| pair.key == "service.name" && format!("{pair:?}").contains("desk")));
    assert!(up.interrupt().await.success());
}
