//! Traces and the log over OTLP, as a receiver gets them from `tidemark up`.

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;

use crate::canary::{echo, planted};
use crate::desk::{Desk, Up, workload};
use crate::receiver::{Receiver, Told};

/// A source that says 3, and at another path refuses everybody.
async fn source() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new()
        .route("/value", get(async || r#"{"value": 3}"#))
        .route("/closed", get(async || StatusCode::UNAUTHORIZED));
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

/// A workload that is scaled by what a path of the source says.
fn object(name: &str, url: &str) -> String {
    let trigger = format!("{{type: metrics-api, metadata: {{url: '{url}', valueLocation: value, targetValue: '1'}}}}");
    workload(name, "maxReplicaCount: 3", &trigger)
}

fn said(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let value = |attribute: &KeyValue| text(attribute.value.as_ref().unwrap().value.as_ref().unwrap());
    attributes.iter().map(|attribute| (attribute.key.clone(), value(attribute))).collect()
}

/// The spans below a root that say something.
fn below<'a>(told: &'a Told, root: &Span, name: &str) -> Vec<&'a Span> {
    let spans = told.spans().into_iter();
    spans
        .filter(|span| span.name == name && span.trace_id == root.trace_id && span.parent_span_id == root.span_id)
        .collect()
}

fn roots<'a>(told: &'a Told, object: &str, result: &str) -> Vec<&'a Span> {
    let is_it = |span: &&Span| {
        let said = said(&span.attributes);
        span.name == "evaluate" && said["tidemark.object.name"] == object && said["tidemark.result"] == result
    };
    told.spans().into_iter().filter(is_it).collect()
}

async fn run(protocol: &str, receiver: Receiver) -> Told {
    let (desk, source) = (Desk::new(), source().await);
    desk.write("m/workers.yaml", &object("workers", &format!("{source}/value")));
    desk.write("m/closed.yaml", &object("closed", &format!("{source}/closed")));
    let endpoint = format!("http://{}", receiver.address);
    let up = Up::start(
        &desk,
        &["m", "--simulate-pods", "--enable-opentelemetry-logs"],
        &[
            ("OTEL_TRACES_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_BSP_SCHEDULE_DELAY", "200"),
            ("OTEL_SERVICE_NAME", "scaler"),
        ],
    )
    .await;
    let enough = |told: &Told| {
        let linked = told.spans().iter().any(|span| span.name == "query" && !span.links.is_empty());
        linked && !roots(told, "workers", "scaled").is_empty() && roots(told, "closed", "failed").len() > 2
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(60), receiver.until(enough)).await;
    assert!(waited.is_ok(), "{}", up.log());
    assert_eq!(up.interrupt().await.code(), Some(0), "{}", up.log());
    // Plain lines tell in their own words what the log is told.
    assert!(!up.log().contains("trace_id"), "{}", up.log());
    receiver.told()
}

fn check(told: &Told) {
    let root = roots(told, "workers", "scaled")[0];
    for name in ["fetch", "decide", "write"] {
        assert!(!below(told, root, name).is_empty(), "no {name} below the root");
        for span in below(told, root, name) {
            assert!(span.start_time_unix_nano >= root.start_time_unix_nano, "{name} begins before its evaluation");
            assert!(span.end_time_unix_nano <= root.end_time_unix_nano, "{name} ends after its evaluation");
        }
    }
    let scaled = below(told, root, "write").into_iter().map(|span| said(&span.attributes));
    let scaled: Vec<_> = scaled.filter(|said| said["tidemark.write.kind"] == "scale").collect();
    assert_eq!((scaled.len(), &*scaled[0]["tidemark.replicas.to"]), (1, "1"));
    let fetch = said(&below(told, root, "fetch")[0].attributes);
    assert_eq!((&*fetch["tidemark.trigger.type"], &*fetch["server.address"]), ("metrics-api", "127.0.0.1"));
    let decide = below(told, root, "decide")[0];
    let reasons: Vec<_> = decide.events.iter().map(|event| said(&event.attributes)).collect();
    let reasons: Vec<_> = reasons.iter().filter_map(|said| said.get("tidemark.reason")).collect();
    assert!(reasons.iter().any(|reason| reason.contains("is active at 3")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("activated: 0 to 1")), "{reasons:?}");

    let failed = roots(told, "closed", "failed")[0];
    let fetch = below(told, failed, "fetch")[0];
    assert_eq!(said(&fetch.attributes)["error.type"], "authentication");
    assert_eq!(said(&fetch.events[0].attributes)["http.response.status_code"], "401");

    let evaluations: BTreeSet<_> = told
        .spans()
        .into_iter()
        .filter(|span| span.name == "evaluate")
        .map(|span| (&span.trace_id, &span.span_id))
        .collect();
    let spans = told.spans();
    let queries: Vec<_> = spans.iter().filter(|span| span.name == "query" && !span.links.is_empty()).collect();
    for query in &queries {
        assert!(query.parent_span_id.is_empty());
        // Told at the end too: no link leads nowhere.
        assert!(evaluations.contains(&(&query.links[0].trace_id, &query.links[0].span_id)));
    }

    // The log belongs to the traces, and says each thing once.
    let records: Vec<_> = told.records().into_iter().map(|record| (format!("{:?}", record.body), record)).collect();
    let scaled: Vec<_> = records.iter().filter(|(text, _)| text.contains("from 0 to 1: active by")).collect();
    assert_eq!(scaled.len(), 1, "{records:?}");
    assert_eq!((&scaled[0].1.trace_id, &scaled[0].1.span_id), (&root.trace_id, &root.span_id));
    let failing = |(text, record): &&(String, &LogRecord)| {
        text.contains("cannot be read") && said(&record.attributes)["name"] == "closed"
    };
    assert_eq!(records.iter().filter(failing).count(), 1, "{records:?}");
}

#[tokio::test]
async fn a_run_is_told_over_http_as_whole_traces_with_the_log_that_belongs_to_them() {
    check(&run("http/protobuf", Receiver::http().await).await);
}

#[tokio::test]
async fn a_run_is_told_over_grpc_as_whole_traces_with_the_log_that_belongs_to_them() {
    check(&run("grpc", Receiver::grpc(None).await).await);
}

#[tokio::test]
async fn a_planted_secret_is_in_no_span_and_no_log_record() {
    let (desk, receiver) = (Desk::new(), Receiver::http().await);
    let servers = echo::start(planted::knows).await;
    for case in &planted::cases(&servers) {
        let mut documents = case.objects();
        documents[3]["spec"]["replicas"] = serde_json::json!(0);
        let documents: Vec<String> = documents.iter().map(ToString::to_string).collect();
        desk.write(&format!("m/{}.yaml", case.name), &documents.join("\n---\n"));
    }
    let endpoint = format!("http://{}", receiver.address);
    let variables = [
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_LOGS_EXPORTER", "otlp"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100000"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "100000"),
        ("RUST_LOG", "debug"),
    ];
    let up = Up::start(&desk, &["m", "--simulate-pods"], &variables).await;
    let failed = |told: &Told| told.spans().iter().filter(|span| span.name == "fetch" && span.status.is_some()).count();
    let waited =
        tokio::time::timeout(std::time::Duration::from_secs(60), receiver.until(|told| failed(told) > 10)).await;
    assert!(waited.is_ok(), "{}", up.log());
    up.interrupt().await;
    let told = receiver.told();
    assert!(told.records().len() > 10);
    let text = format!("{:?}\n{:?}", told.traces, told.logs);
    let leaks = planted::leaks(&text);
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
}
