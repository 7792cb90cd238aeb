//! What KEDA's processes tell of themselves, and what ours tell in the same situation: each series by its name and labels,
//! for Prometheus and over OTLP.

mod series;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tidemark_testkit::{ControlPlane, Options};
use tokio::time::{Instant, sleep};

use super::processes::{Keda, LEASE, NAMESPACE as INSTALLED, Part, SERVICES, programs};
use super::situation::Source;
use crate::observability::{known, promql};
use crate::on_control_plane::release::{METRICS_SERVER, OPERATOR, Processes, Rest, WEBHOOKS};
use crate::receiver::Receiver;
use series::{NOT_TOLD, OTLP_DIFFERS, Otlp, SERIES_DIFFER, Series};

/// The longest time for anything that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL: (&str, &str) = ("OTEL_METRIC_EXPORT_INTERVAL", "500");

/// What all three processes tell, and what the operator pushes.
struct Told {
    scrapes: [Series; 3],
    otlp: Otlp,
}

/// Two admissions, of which one is refused: its target has another object. That one is paused and has no HPA: of several
/// faults KEDA counts any.
async fn admit(rest: &Rest) {
    let object = |name: &str, target: &str| {
        json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name},
            "spec": {"scaleTargetRef": {"name": target}, "triggers": [{"type": "cron", "metadata": {
                "timezone": "UTC", "start": "0 0 * * *", "end": "59 23 * * *", "desiredReplicas": "2",
            }}]},
        })
    };
    let path = "/apis/keda.sh/v1alpha1/namespaces/shop/scaledobjects?dryRun=All";
    for (name, target, taken) in [("refused", "resting", false), ("admitted", "nothing", true)] {
        let outcome = rest.request(Method::POST, path, "test", "application/json", &object(name, target)).await;
        assert_eq!(outcome.is_ok(), taken, "{name}: {outcome:?}");
    }
}

/// What the processes tell once they have told all that is waited for.
async fn told(ports: [u16; 3], receiver: &Receiver, mut missing: impl FnMut(&Told) -> Vec<String>) -> Told {
    let start = Instant::now();
    loop {
        let mut scrapes = Vec::new();
        for port in ports {
            scrapes.push(Series::of(port).await);
        }
        let told = Told { scrapes: scrapes.try_into().ok().unwrap(), otlp: Otlp::of(&receiver.told()) };
        let missing = missing(&told);
        if missing.is_empty() {
            return told;
        }
        assert!(start.elapsed() < PATIENCE, "{missing:#?}");
        sleep(Duration::from_millis(300)).await;
    }
}

/// What a scrape holds when all in the situation has happened at least once, whoever runs.
fn unfinished(told: &Told) -> Vec<String> {
    let of = |name: &str, labels: &[(&str, &str)]| told.scrapes[0].values(name, labels);
    let at_least = |values: Vec<f64>, least: f64| values.iter().any(|value| *value >= least);
    let object = |name: &'static str| [("scaledObject", name)];
    let facts = [
        ("the fallback's value", of("keda_scaler_metrics_value", &object("fallen")) == [15.0]),
        ("the formula's value", of("keda_scaler_metrics_value", &[("metric", "composite-metric")]) == [19.5]),
        ("a value of each trigger", of("keda_scaler_metrics_value", &object("orders")).len() == 5),
        ("errors", of("keda_scaler_detail_errors_total", &object("broken")).iter().filter(|n| **n > 1.0).count() == 2),
        ("activity of each", {
            let counts = [("orders", 5), ("processor", 2), ("cached", 1), ("loaded", 1), ("fallen", 1), ("formula", 1)];
            counts.iter().all(|(name, count)| of("keda_scaler_active", &object(name)).len() == *count)
        }),
        ("the times of each", {
            let counts = [("orders", 5), ("processor", 1), ("cached", 1), ("loaded", 1), ("formula", 2)];
            counts.iter().all(|(name, count)| of("keda_scaler_metrics_latency_seconds", &object(name)).len() == *count)
        }),
        ("no errors", of("keda_scaler_detail_errors_total", &object("loaded")) == [0.0]),
        (
            "activity over OTLP",
            ["loaded", "cached", "fallen"].iter().all(|name| told.otlp.has("keda.scaler.active", name)),
        ),
        ("a ScaledJob", of("keda_resource_registered_total", &[("type", "scaled_job")]) == [1.0]),
        ("what is paused", of("keda_scaled_object_paused", &object("resting")) == [1.0]),
        ("empty replies", at_least(of("keda_scaler_empty_upstream_responses_total", &[]), 2.0)),
        ("answers to the HPA", {
            let handled = "keda_internal_metricsservice_grpc_client_handled_total";
            let of = |code| at_least(told.scrapes[1].values(handled, &[("grpc_code", code)]), 5.0);
            of("OK") && of("Unknown")
        }),
        ("a refusal", at_least(told.scrapes[2].values("keda_webhook_scaled_object_validation_errors_total", &[]), 1.0)),
        ("errors over OTLP", told.otlp.has("keda.scaler.errors", "broken")),
        ("paused over OTLP", told.otlp.has("keda.scaled.object.paused", "resting")),
    ];
    facts.iter().filter(|(_, holds)| !holds).map(|(what, _)| (*what).to_owned()).collect()
}

/// Our processes in the place of KEDA's: their addresses, their certificates, their Lease.
async fn start_ours(plane: &ControlPlane, keda: &Keda, ours: &Processes, receiver: &Receiver) {
    let (certs, kubeconfig) = (format!("--cert-dir={}", keda.certs().display()), plane.kubeconfig().to_owned());
    let pair = [
        format!("--tls-cert-file={}/tls.crt", keda.certs().display()),
        format!("--tls-private-key-file={}/tls.key", keda.certs().display()),
    ];
    let [operator, server, webhooks] = Part::ALL.map(|part| keda.metrics(part));
    let operator = [
        "operator".to_owned(),
        "--leader-elect=true".to_owned(),
        format!("--metrics-service-bind-address={}", keda.link()),
        format!("--metrics-bind-address={operator}"),
        "--health-probe-bind-address=0".to_owned(),
        "--reasons-bind-address=0".to_owned(),
        "--enable-opentelemetry-metrics=true".to_owned(),
        certs.clone(),
    ];
    let variables = [
        ("WATCH_NAMESPACE", String::new()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", receiver.address)),
        (INTERVAL.0, INTERVAL.1.to_owned()),
    ];
    let variables: BTreeMap<_, _> = variables.map(|(name, value)| (name.to_owned(), value)).into();
    ours.spawn(OPERATOR, &operator, &kubeconfig, variables);
    let mut arguments = vec![
        "metrics-server".to_owned(),
        format!("--secure-port={}", keda.api().port()),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--port={}", server.port()),
        format!("--metrics-service-address={}", keda.link()),
        format!("--metrics-service-grpc-authority={}.{INSTALLED}.svc.cluster.local", SERVICES[0]),
        certs.clone(),
    ];
    arguments.extend(pair);
    ours.spawn(METRICS_SERVER, &arguments, &kubeconfig, BTreeMap::new());
    let arguments = [
        "webhooks".to_owned(),
        format!("--port={}", keda.hooks().port()),
        format!("--metrics-bind-address={webhooks}"),
        "--health-probe-bind-address=0".to_owned(),
        certs,
    ];
    ours.spawn(WEBHOOKS, &arguments, &kubeconfig, BTreeMap::new());
    for address in [keda.link(), keda.api(), keda.hooks()] {
        let look = async || tokio::net::TcpStream::connect(address).await.map(drop).map_err(|error| error.to_string());
        ours.until(&format!("somebody listens at {address}"), PATIENCE, look).await;
    }
    plane.wait_for_external_metrics().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_our_processes_tells_the_series_that_kedas_tells() {
    let options = Options { hpa_sync_period: Duration::from_secs(1), ..Options::default() };
    let Some(plane) = ControlPlane::start_or_skip(options).await else { return };
    let receivers = [Receiver::http().await, Receiver::http().await];
    let keda = Keda::start(&plane, &Part::ALL, |part, command| {
        if part == Part::Operator {
            command.args(["--leader-elect=true", "--enable-opentelemetry-metrics=true"]);
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", receivers[0].address));
            command.envs([INTERVAL]);
        }
    });
    let Some(mut keda) = keda.await else { return };
    let rest = Rest(plane.client().await.unwrap());
    let source = Source::start().await;
    source.populate(&rest).await;
    admit(&rest).await;
    let ports = Part::ALL.map(|part| keda.metrics(part).port());
    let theirs = told(ports, &receivers[0], unfinished).await;
    // Its metrics server does not end while an HPA waits for the operator.
    for part in [Part::MetricsServer, Part::Webhooks, Part::Operator] {
        keda.stop(part).await;
    }
    // KEDA does not give it back.
    rest.request(Method::DELETE, LEASE, "", "application/json", &Value::Null).await.unwrap();

    let ours = Processes::without_certificates();
    start_ours(&plane, &keda, &ours, &receivers[1]).await;
    admit(&rest).await;
    let found = told(ports, &receivers[1], |ours| {
        let mut missing = unfinished(ours);
        missing.extend(differences(&theirs, ours));
        missing
    });
    found.await;
    others_are_told_or_listed(&theirs, &Series::of_all(ports).await);
}

/// Series that one of the two has alone, or with another type or value, but for those that are known.
fn differences(theirs: &Told, ours: &Told) -> Vec<String> {
    let (mut wrong, mut met) = (Vec::new(), BTreeSet::new());
    let mut judge = |what: &str, difference: String, known: &[(&'static str, &str)]| {
        let holds = |pattern: &str| pattern.split(" .. ").all(|piece| difference.contains(piece));
        match known.iter().find(|known| holds(known.0)) {
            Some((pattern, _)) => drop(met.insert(*pattern)),
            None => wrong.push(format!("{what}: {difference}")),
        }
    };
    for (part, (theirs, ours)) in Part::ALL.into_iter().zip(theirs.scrapes.iter().zip(&ours.scrapes)) {
        for difference in theirs.differences(ours) {
            judge(&format!("{part:?}"), difference, SERIES_DIFFER);
        }
    }
    for difference in theirs.otlp.differences(&ours.otlp) {
        judge("OTLP", difference, OTLP_DIFFERS);
    }
    let all = SERIES_DIFFER.iter().chain(OTLP_DIFFERS);
    wrong
        .extend(all.filter(|(pattern, _)| !met.contains(pattern)).map(|known| format!("no longer differs: {known:?}")));
    wrong
}

/// What is not KEDA's own, but of the libraries that it is made of.
fn others_are_told_or_listed(theirs: &Told, ours: &[Series; 3]) {
    let (mut wrong, mut met) = (Vec::new(), BTreeSet::new());
    for (part, (theirs, ours)) in Part::ALL.into_iter().zip(theirs.scrapes.iter().zip(ours)) {
        for (name, kind) in theirs.families().filter(|(name, _)| !name.starts_with("keda_")) {
            let listed = NOT_TOLD.iter().find(|(pattern, _)| name.starts_with(pattern));
            match (ours.family(name), listed) {
                (None, Some((pattern, _))) => drop(met.insert(*pattern)),
                (None, None) => wrong.push(format!("{part:?}: ours does not tell {name} ({kind})")),
                (Some(own), _) if own != kind => wrong.push(format!("{part:?}: {name} is a {kind}, and ours a {own}")),
                (Some(_), _) => {
                    let (theirs, ours) = (theirs.labels(name), ours.labels(name));
                    let less: BTreeSet<_> = theirs.difference(&ours).collect();
                    if !less.is_empty() && name != "apiserver_request_total" {
                        wrong.push(format!("{part:?}: {name} has with ours none of the labels {less:?}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let gone: Vec<_> = NOT_TOLD.iter().filter(|(pattern, _)| !met.contains(pattern)).collect();
    assert!(gone.is_empty(), "KEDA does not tell these any more, or ours does: {gone:?}");
}

#[test]
fn kedas_own_dashboard_asks_for_metrics_and_labels_that_there_are() {
    let Some(folder) = programs() else { return };
    let text = std::fs::read_to_string(folder.join("config/grafana/keda-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let (mut queries, mut definitions) = (0, 0);
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            known::check(&promql::read(query)).unwrap_or_else(|error| panic!("{}: {query}: {error}", panel["title"]));
            queries += 1;
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let Some(query) = variable["query"]["query"].as_str() else { continue };
        let inner = query.strip_prefix("label_values(").and_then(|query| query.strip_suffix(')')).unwrap();
        let (selector, label) = inner.rsplit_once(',').unwrap();
        let labels = known::check(&promql::read(selector)).unwrap();
        assert!(labels.contains(label.trim()), "{query}");
        definitions += 1;
    }
    assert!(queries > 5 && definitions > 3, "{queries} {definitions}");
}
