//! Metrics pushed to a receiver.

use std::sync::Arc;
use std::time::Duration;

use tidemark_clock::Clock;
use tidemark_operator::ObjectKey;
use tidemark_telemetry::otlp::{Pusher, Settings};
use tidemark_telemetry::series::{Build, Kind, Place, Series};
use tokio_util::sync::CancellationToken;

use crate::receiver::{Receiver, Told};

fn settings(variables: &[(&str, &str)]) -> Settings {
    let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let settings = Settings::from_variables(find, "tidemark");
    assert_eq!(settings.warnings, [""; 0]);
    settings
}

fn series() -> Series {
    let now = Clock::system().now();
    let series = Series::new(Build { version: "1", commit: "c", toolchain: "t" }, now);
    let place = Place { kind: Kind::ScaledObject, key: Arc::new(ObjectKey::new("shop", "workers")) };
    series.object(&place, now, |object| {
        object.scaler(0, &Arc::from("cronScaler"), &Arc::from("s0-cron")).value = Some(4.0);
    });
    series
}

/// Pushes until the receiver has been told enough.
async fn push(settings: Settings, receiver: &Receiver, enough: impl FnMut(&Told) -> bool) -> Told {
    let (shutdown, pusher) = (CancellationToken::new(), Pusher::new(settings).unwrap());
    let running = tokio::spawn(pusher.run(series(), Clock::system(), shutdown.clone()));
    let told = tokio::time::timeout(Duration::from_secs(30), receiver.until(enough)).await.expect("nothing was told");
    shutdown.cancel();
    running.await.unwrap();
    told
}

fn has_values(told: &Told) -> bool {
    told.names().iter().any(|name| name == "keda.scaler.metrics.value")
}

#[tokio::test]
async fn over_http_with_headers_and_compression() {
    let receiver = Receiver::http().await;
    let endpoint = format!("http://{}", receiver.address);
    let settings = settings(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "50"),
    ]);
    let told = push(settings, &receiver, |told| told.requests.len() >= 3).await;
    assert!(has_values(&told));
    assert_eq!(told.tokens[0], "Bearer abc");
    // A gauge is in every export for as long as it is true.
    let builds = told.names().iter().filter(|name| *name == "keda.build.info").count();
    assert!(builds >= 3, "{builds}");
}

#[tokio::test]
async fn over_grpc_with_tls_and_headers() {
    let names = vec!["localhost".to_owned()];
    let certified = rcgen::generate_simple_self_signed(names).unwrap();
    let identity = (certified.cert.pem(), certified.signing_key.serialize_pem());
    let receiver = Receiver::grpc(Some(identity)).await;
    let folder = std::env::temp_dir().join(format!("tidemark-telemetry-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("ca.crt");
    std::fs::write(&file, certified.cert.pem()).unwrap();
    let endpoint = format!("https://localhost:{}", receiver.address.port());
    let settings = settings(&[
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", file.to_str().unwrap()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer abc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "50"),
    ]);
    let told = push(settings, &receiver, has_values).await;
    assert_eq!(told.tokens[0], "Bearer abc");
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_busy_receiver_is_asked_again_and_a_refusal_loses_nothing_later() {
    let receiver = Receiver::http().await;
    receiver.refuse(&[503, 400]);
    let endpoint = format!("http://{}", receiver.address);
    let settings = settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), ("OTEL_METRIC_EXPORT_INTERVAL", "50")]);
    assert!(has_values(&push(settings, &receiver, has_values).await));
}

#[tokio::test]
async fn the_last_values_are_told_at_the_end() {
    let receiver = Receiver::http().await;
    let endpoint = format!("http://{}", receiver.address);
    let settings = settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    Pusher::new(settings).unwrap().run(series(), Clock::system(), shutdown).await;
    assert!(has_values(&receiver.until(|told| !told.requests.is_empty()).await));
}
