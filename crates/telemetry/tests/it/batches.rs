//! Spans and log records on their way to a receiver.

use std::sync::Arc;
use std::time::Duration;

use tidemark_clock::Clock;
use tidemark_operator::{ObjectKey, Observation, What};
use tidemark_telemetry::logs::{self, LogLayer};
use tidemark_telemetry::otlp::{Batches, Counts, Queue};
use tidemark_telemetry::trace_id;
use tidemark_telemetry::traces;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tracing::Subscriber;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt;

use crate::receiver::{Receiver, Told};

const LONG: Duration = Duration::from_secs(30);

fn find(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
    |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
}

/// A log whose records go out, and what sends them.
fn log(variables: &[(&str, &str)]) -> (impl Subscriber + Send + Sync, Queue, Batches) {
    let settings = logs::Settings::from_variables(find(variables), "tidemark");
    assert_eq!(settings.warnings, [""; 0]);
    let (queue, batches) = Batches::new(settings.batching).unwrap();
    let layer = LogLayer::new(queue.clone(), Clock::system(), settings.limits);
    (Registry::default().with(layer), queue, batches)
}

fn messages(told: &Told) -> Vec<String> {
    let body = |record: &&opentelemetry_proto::tonic::logs::v1::LogRecord| match record.body.clone().unwrap().value {
        Some(opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue(text)) => text,
        other => panic!("{other:?}"),
    };
    told.records().iter().map(body).collect()
}

/// Polls of one object, as an operator would tell them; the last sender is dropped: the stream ends.
fn polls(count: u64) -> broadcast::Receiver<Arc<Observation>> {
    let (sender, receiver) = broadcast::channel(1024);
    let object = Arc::new(ObjectKey::new("shop", "workers"));
    for evaluation in 1..=count {
        let (time, object) = (Clock::system().now(), object.clone());
        let what = What::Poll { late: Duration::ZERO };
        sender.send(Arc::new(Observation { time, object, uid: "u".into(), evaluation, what })).unwrap();
    }
    receiver
}

async fn trace(variables: &[(&str, &str)], seed: u128, count: u64) {
    let settings = traces::Settings::from_variables(find(variables), "tidemark");
    assert_eq!(settings.warnings, [""; 0]);
    let batches = Batches::new(settings.batching.clone()).unwrap();
    let running = traces::run(&settings, seed, Clock::system(), polls(count), batches, CancellationToken::new());
    tokio::time::timeout(LONG, running).await.expect("the end of the stream ends it");
}

#[tokio::test]
async fn spans_go_out_over_http_and_what_is_left_at_the_end() {
    let receiver = Receiver::http().await;
    let endpoint = format!("http://{}", receiver.address);
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=Bearer%20abc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_SERVICE_NAME", "scaler"),
        ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4"),
    ];
    trace(&variables, 1, 10).await;
    let told = receiver.told();
    let ids: Vec<_> = told.spans().iter().map(|span| span.trace_id.clone()).collect();
    assert_eq!(ids, (1..=10).map(|evaluation| trace_id(1, "u", evaluation).to_vec()).collect::<Vec<_>>());
    let sizes: Vec<_> =
        told.traces.iter().map(|request| request.resource_spans[0].scope_spans[0].spans.len()).collect();
    assert!(sizes.iter().all(|size| *size <= 4), "{sizes:?}");
    assert_eq!(told.tokens[0], "Bearer abc");
    let resource = told.traces[0].resource_spans[0].resource.clone().unwrap();
    let named = resource.attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
    assert!(format!("{named:?}").contains("scaler"));
}

#[tokio::test]
async fn spans_go_out_over_grpc() {
    let receiver = Receiver::grpc(None).await;
    let endpoint = format!("http://{}", receiver.address);
    let variables = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*endpoint),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
    ];
    trace(&variables, 1, 3).await;
    let told = receiver.told();
    assert_eq!((told.spans().len(), &*told.tokens[0]), (3, "Bearer abc"));
}

#[tokio::test]
async fn log_records_say_what_was_logged_with_the_trace_that_it_belongs_to() {
    for over_grpc in [false, true] {
        let receiver = if over_grpc { Receiver::grpc(None).await } else { Receiver::http().await };
        let endpoint = format!("http://{}", receiver.address);
        let protocol = if over_grpc { "grpc" } else { "http/protobuf" };
        let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", protocol)];
        let (log, _, batches) = log(&variables);
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        tracing::subscriber::with_default(log, || {
            tracing::warn!(target: "here", namespace = "shop", count = 3, trace_id = trace, span_id = span, "scaled");
        });
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        batches.run(shutdown).await;
        let told = receiver.told();
        let record = told.records()[0].clone();
        assert_eq!((record.severity_number, &*record.severity_text), (13, "WARN"));
        assert_eq!(messages(&told), ["scaled"]);
        let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!((&*hexadecimal(&record.trace_id), &*hexadecimal(&record.span_id)), (trace, span));
        let keys: Vec<_> = record.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
        assert_eq!(keys, ["namespace", "count"]);
        let scope = &told.logs[0].resource_logs[0].scope_logs[0];
        assert_eq!(scope.scope.as_ref().unwrap().name, "here");
        assert!(record.time_unix_nano > 0);
    }
}

#[tokio::test]
async fn sending_the_log_makes_no_log_records() {
    let receiver = Receiver::http().await;
    let endpoint = format!("http://{}", receiver.address);
    let (log, queue, batches) = log(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_BLRP_SCHEDULE_DELAY", "10")]);
    let _guard = tracing::subscriber::set_default(log);
    tracing::info!(target: "here", "once");
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(batches.run(shutdown.clone()));
    // What the sending itself logs, on this thread and at every level, would be sent next.
    for number in 0..5 {
        tracing::info!(target: "here", number, "again");
        receiver.until(|told| told.records().len() >= number + 2).await;
    }
    shutdown.cancel();
    running.await.unwrap();
    let told = receiver.told();
    assert!(messages(&told).iter().all(|message| message == "once" || message == "again"), "{:?}", messages(&told));
    assert_eq!(queue.counts(), Counts { sent: 6, ..Counts::default() });
}

#[tokio::test]
async fn a_receiver_that_is_down_costs_nothing_but_what_it_is_not_told() {
    // It takes connections and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (log, queue, batches) = log(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "1"),
    ]);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(batches.run(shutdown.clone()));
    tracing::subscriber::with_default(log, || {
        for number in 0..1000 {
            tracing::info!(number, "said");
        }
    });
    assert!(queue.counts().dropped >= 800, "{:?}", queue.counts());
    shutdown.cancel();
    let clock = Clock::system();
    let began = clock.now();
    tokio::time::timeout(LONG, running).await.expect("the end is not held up").unwrap();
    assert!(clock.now().duration_since(began).as_secs() < 12);
    let counts = queue.counts();
    assert_eq!((counts.sent, counts.dropped + counts.failed), (0, 1000));
}

#[tokio::test]
async fn what_a_receiver_refuses_is_counted_and_what_it_is_too_busy_for_is_sent_again() {
    let receiver = Receiver::http().await;
    receiver.refuse(&[400, 503]);
    let endpoint = format!("http://{}", receiver.address);
    let (log, queue, batches) =
        log(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "1")]);
    tracing::subscriber::with_default(log, || {
        tracing::info!("refused");
        tracing::info!("put off");
    });
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(batches.run(shutdown.clone()));
    let told = tokio::time::timeout(LONG, receiver.until(|told| !told.logs.is_empty())).await.unwrap();
    assert_eq!(messages(&told), ["put off"]);
    shutdown.cancel();
    running.await.unwrap();
    assert_eq!(queue.counts(), Counts { sent: 1, dropped: 0, failed: 1 });
}
