//! The contract: names, types, units and labels, as dashboards and alerts ask for them.

/// What a metric is over OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instrument {
    Gauge,
    IntGauge,
    IntCounter,
    IntUpDownCounter,
    Histogram,
}

use Instrument::{Gauge, Histogram, IntCounter, IntGauge, IntUpDownCounter};

/// A row of the table.
pub struct Row {
    /// Name and type for Prometheus; none where only OTLP has it.
    pub prometheus: Option<(&'static str, &'static str)>,
    pub labels: &'static [&'static str],
    /// Names over OTLP, with their instrument and unit.
    pub otlp: &'static [(&'static str, Instrument, &'static str)],
    pub attributes: &'static [&'static str],
}

const fn row(
    name: &'static str,
    kind: &'static str,
    labels: &'static [&'static str],
    otlp: &'static [(&'static str, Instrument, &'static str)],
    attributes: &'static [&'static str],
) -> Row {
    Row { prometheus: Some((name, kind)), labels, otlp, attributes }
}

const fn deprecated(name: &'static [(&'static str, Instrument, &'static str)], of: &'static [&'static str]) -> Row {
    Row { prometheus: None, labels: &[], otlp: name, attributes: of }
}

const fn counter(name: &'static str, labels: &'static [&'static str]) -> Row {
    row(name, "counter", labels, &[], &[])
}

const SIX: &[&str] = &["namespace", "metric", "scaledObject", "scaler", "triggerIndex", "type"];
/// Attribute set A, of ScaledObjects.
const A: &[&str] = &["namespace", "scaledObject", "scaler", "scalerIndex", "metric"];
const REQUEST: &[&str] = &["namespace", "scaled_resource", "scaler", "trigger_name", "metric_name", "status_code"];
const CALL: &[&str] = &["grpc_type", "grpc_service", "grpc_method"];
const ENDED: &[&str] = &["grpc_type", "grpc_service", "grpc_method", "grpc_code"];
const BUILD: &[&str] = &["version", "git_commit", "goversion", "goos", "goarch"];
const OBJECT: &[&str] = &["namespace", "scaledObject"];
const JOB: &[&str] = &["namespace", "scaledJob"];

pub const OPERATOR: &[Row] = &[
    row("keda_build_info", "gauge", BUILD, &[("keda.build.info", IntGauge, "")], BUILD),
    row("keda_scaler_active", "gauge", SIX, &[("keda.scaler.active", Gauge, "")], A),
    row("keda_scaler_metrics_value", "gauge", SIX, &[("keda.scaler.metrics.value", Gauge, "")], A),
    row("keda_scaler_metrics_latency_seconds", "gauge", SIX, &[("keda.scaler.metrics.latency.seconds", Gauge, "s")], A),
    deprecated(&[("keda.scaler.metrics.latency", Gauge, "")], A),
    row(
        "keda_scaler_detail_errors_total",
        "counter",
        SIX,
        // The second name is that of KEDA's documentation; so are those of the errors of objects and jobs.
        &[("keda.scaler.errors", IntCounter, ""), ("keda.scaler.errors.total", IntCounter, "")],
        A,
    ),
    row(
        "keda_scaled_object_errors_total",
        "counter",
        OBJECT,
        &[("keda.scaledobject.errors", IntCounter, ""), ("keda.scaled.object.errors", IntCounter, "")],
        OBJECT,
    ),
    row(
        "keda_scaled_job_errors_total",
        "counter",
        JOB,
        &[("keda.scaledjob.errors", IntCounter, ""), ("keda.scaled.job.errors", IntCounter, "")],
        JOB,
    ),
    row("keda_scaled_object_paused", "gauge", OBJECT, &[("keda.scaled.object.paused", Gauge, "")], OBJECT),
    row(
        "keda_resource_registered_total",
        "gauge",
        &["type", "namespace"],
        &[("keda.resource.registered.count", IntUpDownCounter, "")],
        &["namespace", "type"],
    ),
    deprecated(&[("keda.resource.totals", IntUpDownCounter, "")], &["namespace", "type"]),
    row(
        "keda_trigger_registered_total",
        "gauge",
        &["type"],
        &[("keda.trigger.registered.count", IntUpDownCounter, "")],
        &["type"],
    ),
    deprecated(&[("keda.trigger.totals", IntUpDownCounter, "")], &["type"]),
    row(
        "keda_internal_scale_loop_latency_seconds",
        "gauge",
        &["namespace", "type", "resource"],
        &[("keda.internal.scale.loop.latency.seconds", Gauge, "s")],
        &["namespace", "type", "name"],
    ),
    deprecated(&[("keda.internal.scale.loop.latency", Gauge, "")], &["namespace", "type", "name"]),
    row(
        "keda_cloudeventsource_events_emitted_total",
        "counter",
        &["namespace", "cloudeventsource", "eventsink", "state"],
        &[("keda.cloudeventsource.events.emitted.count", IntCounter, "")],
        &["namespace", "cloudEventSource", "eventsink", "state"],
    ),
    row(
        "keda_cloudeventsource_events_queued",
        "gauge",
        &["namespace"],
        &[("keda.cloudeventsource.events.queued", Gauge, "")],
        &["namespace"],
    ),
    row(
        "keda_scaler_empty_upstream_responses_total",
        "counter",
        &["namespace", "scaledResource", "triggerName", "metricName", "resourceType", "ignoreNullValues"],
        &[("keda.scaler.empty.upstream.responses", IntCounter, "")],
        &["namespace", "scaledResource", "triggerName", "metricName", "isScaledObject", "ignoreNullValues"],
    ),
    row(
        "keda_scaler_http_requests_total",
        "counter",
        REQUEST,
        &[("keda.scaler.http.requests.count", IntCounter, "")],
        REQUEST,
    ),
    row(
        "keda_scaler_http_request_duration_seconds",
        "histogram",
        &["scaler", "status_code"],
        &[("keda.scaler.http.request.duration.seconds", Histogram, "s")],
        &["scaler", "status_code"],
    ),
    counter("keda_internal_metricsservice_grpc_server_started_total", CALL),
    counter("keda_internal_metricsservice_grpc_server_handled_total", ENDED),
    counter("keda_internal_metricsservice_grpc_server_msg_received_total", CALL),
    counter("keda_internal_metricsservice_grpc_server_msg_sent_total", CALL),
    row("keda_internal_metricsservice_grpc_server_handling_seconds", "histogram", CALL, &[], &[]),
];

pub const METRICS_SERVER: &[Row] = &[
    counter("keda_internal_metricsservice_grpc_client_started_total", CALL),
    counter("keda_internal_metricsservice_grpc_client_handled_total", ENDED),
    counter("keda_internal_metricsservice_grpc_client_msg_received_total", CALL),
    counter("keda_internal_metricsservice_grpc_client_msg_sent_total", CALL),
    row("keda_internal_metricsservice_grpc_client_handling_seconds", "histogram", CALL, &[], &[]),
];

pub const WEBHOOKS: &[Row] = &[
    counter("keda_webhook_scaled_object_validations_total", &["namespace", "action"]),
    counter("keda_webhook_scaled_object_validation_errors_total", &["namespace", "action", "reason"]),
];

/// Rows that are not told, each with its reason. One that is told after all must not stand here.
pub const NOT_TOLD: &[(&str, &str)] = &[
    ("keda_scaled_job_errors_total", "the operator does not run ScaledJobs"),
    ("keda_cloudeventsource_events_emitted_total", "no CloudEvents are emitted"),
    ("keda_cloudeventsource_events_queued", "no CloudEvents are emitted"),
];

/// Upper bounds of distributions.
pub const DURATION: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
pub const HANDLING: [f64; 14] = [0.001, 0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0, 120.0];

/// Whether a row is among those that are not told.
pub fn is_told(row: &Row) -> bool {
    row.prometheus.is_none_or(|(name, _)| NOT_TOLD.iter().all(|(absent, _)| *absent != name))
}
