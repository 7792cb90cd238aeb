//! Pushes the measured durations to an OpenTelemetry Collector, as protobuf over HTTP.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Histogram, HistogramDataPoint, Metric, ResourceMetrics, ScopeMetrics,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use reqwest::header::CONTENT_TYPE;
use tidemark_clock::Clock;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::duration::{BOUNDS, Durations, Histogram as Measured, Request};
use crate::output::{Troubles, say};

/// Deadline of an export.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The name before the conventions were declared stable: durations in milliseconds.
const NAME: &str = "http.server.duration";

/// Where and as whom to push; the variables are OpenTelemetry's own.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// Base URL of an OTLP receiver
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT", default_value = "http://127.0.0.1:4318")]
    otlp_endpoint: String,
    /// Name of the service in what is told
    #[arg(long, value_name = "NAME", env = "OTEL_SERVICE_NAME", default_value = "http-app")]
    service_name: String,
    /// Time between two exports, in milliseconds
    #[arg(
        long,
        value_name = "MS",
        env = "OTEL_METRIC_EXPORT_INTERVAL",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(100..=3_600_000)
    )]
    export_interval: u64,
}

impl Export {
    pub(super) fn service(&self) -> &str {
        &self.service_name
    }

    #[cfg(test)]
    pub(super) fn to(endpoint: &str) -> Self {
        let (otlp_endpoint, service_name) = (endpoint.to_owned(), "http-app".to_owned());
        Self { otlp_endpoint, service_name, export_interval: 1000 }
    }
}

/// Tells all that has been measured since its own beginning, again and again.
pub(super) struct Push {
    http: reqwest::Client,
    url: String,
    interval: Duration,
    resource: Resource,
    durations: Arc<Durations>,
    clock: Clock,
    since: Timestamp,
}

impl Push {
    pub(super) fn new(args: Export, durations: Arc<Durations>, clock: Clock) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().context("no HTTP client")?;
        let url = format!("{}/v1/metrics", args.otlp_endpoint.trim_end_matches('/'));
        // A pod's host name is its own; beside others on a machine it is the process that differs.
        let instance = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
        let instance = format!("{}/{}", instance.as_deref().unwrap_or("localhost"), std::process::id());
        let attributes = vec![
            text("service.name", &args.service_name),
            text("service.instance.id", &instance),
            text("service.version", env!("CARGO_PKG_VERSION")),
        ];
        let resource = Resource { attributes, ..Resource::default() };
        let interval = Duration::from_millis(args.export_interval);
        let since = clock.now();
        Ok(Self { http, url, interval, resource, durations, clock, since })
    }

    /// Exports until it is told to stop, and once more then.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut troubles = Troubles::default();
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                _ = ticks.tick() => {}
            }
            match self.export().await {
                Ok(()) => troubles.over(),
                Err(error) => troubles.say(&error),
            }
        }
        say("all requests have been told");
    }

    async fn export(&self) -> anyhow::Result<()> {
        let body = self.request().encode_to_vec();
        let request = self.http.post(&self.url).header(CONTENT_TYPE, "application/x-protobuf").body(body);
        let response = request.send().await.with_context(|| format!("{} does not answer", self.url))?;
        ensure!(response.status().is_success(), "{} answers {}", self.url, response.status());
        Ok(())
    }

    fn request(&self) -> ExportMetricsServiceRequest {
        let times = (nanoseconds(self.since), nanoseconds(self.clock.now()));
        let data_points =
            self.durations.all().iter().map(|(request, measured)| point(request, measured, times)).collect();
        let data = Histogram { data_points, aggregation_temporality: AggregationTemporality::Cumulative.into() };
        let metric = Metric {
            name: NAME.to_owned(),
            description: "Measures the duration of inbound HTTP requests.".to_owned(),
            unit: "ms".to_owned(),
            metadata: Vec::new(),
            data: Some(Data::Histogram(data)),
        };
        let scope = InstrumentationScope { name: "tidemark-demo".to_owned(), ..InstrumentationScope::default() };
        let scope = ScopeMetrics { scope: Some(scope), metrics: vec![metric], ..ScopeMetrics::default() };
        let resource = Some(self.resource.clone());
        let resource = ResourceMetrics { resource, scope_metrics: vec![scope], ..ResourceMetrics::default() };
        ExportMetricsServiceRequest { resource_metrics: vec![resource] }
    }
}

fn point(request: &Request, measured: &Measured, (since, now): (u64, u64)) -> HistogramDataPoint {
    let status = Value::IntValue(i64::from(request.status));
    HistogramDataPoint {
        attributes: vec![
            text("http.method", request.method),
            text("http.scheme", "http"),
            attribute("http.status_code", status),
        ],
        start_time_unix_nano: since,
        time_unix_nano: now,
        count: measured.count,
        sum: Some(measured.sum),
        bucket_counts: measured.buckets.to_vec(),
        explicit_bounds: BOUNDS.to_vec(),
        ..HistogramDataPoint::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}
