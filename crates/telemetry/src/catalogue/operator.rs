//! What the operator tells of its objects, and of itself.

use super::process::{
    CERTIFICATE_EXPIRY, CPU_SECONDS, LEADER, MAX_FDS, MAX_VIRTUAL_MEMORY, OPEN_FDS, RECEIVED, RESIDENT_MEMORY,
    REST_CLIENT_REQUESTS, SENT, START_TIME, VIRTUAL_MEMORY,
};
use super::services::SERVER;
use super::{DURATION_BOUNDS, Instrument, Label, Metric, Source, What, label, milliseconds, plain, seconds};
use crate::series::Kind;

/// The labels of a trigger's metric. Prometheus says `scaledObject` also of ScaledJobs, and tells them apart by `type`.
const SCALER: &[Label] = &[
    label(What::Namespace, "namespace"),
    label(What::Metric, "metric"),
    OBJECT,
    label(What::Scaler, "scaler"),
    Label {
        what: What::Index,
        prometheus: Some("triggerIndex"),
        otlp: Some("scalerIndex"),
        otlp_of_job: Some("triggerIndex"),
    },
    Label { what: What::Kind, prometheus: Some("type"), otlp: None, otlp_of_job: None },
];

const SCALER_ERROR: &[Label] =
    &[SCALER[0], SCALER[1], SCALER[2], SCALER[3], SCALER[4], SCALER[5], label(What::ErrorKind, "kind")];

const OBJECT: Label = Label {
    what: What::Object,
    prometheus: Some("scaledObject"),
    otlp: Some("scaledObject"),
    otlp_of_job: Some("scaledJob"),
};

const OF_OBJECT: &[Label] = &[label(What::Namespace, "namespace"), OBJECT];

const OF_JOB: &[Label] = &[
    label(What::Namespace, "namespace"),
    Label { what: What::Object, prometheus: Some("scaledJob"), otlp: None, otlp_of_job: Some("scaledJob") },
];

const OF_LOOP: &[Label] = &[
    label(What::Namespace, "namespace"),
    label(What::Kind, "type"),
    Label { what: What::Object, prometheus: Some("resource"), otlp: Some("name"), otlp_of_job: Some("name") },
];

/// The labels of a request over HTTP.
const OF_REQUEST: &[Label] = &[
    label(What::Namespace, "namespace"),
    label(What::Object, "scaled_resource"),
    label(What::TriggerType, "scaler"),
    label(What::TriggerName, "trigger_name"),
    label(What::Metric, "metric_name"),
    label(What::StatusCode, "status_code"),
];

/// The program that runs.
pub static BUILD: Metric = Metric {
    prometheus: Some("keda_build_info"),
    otlp: &[plain("keda.build.info")],
    instrument: Instrument::Gauge,
    integer: true,
    help: "Which build of the operator runs; always 1.",
    labels: &[
        label(What::Version, "version"),
        label(What::Commit, "git_commit"),
        label(What::Toolchain, "goversion"),
        label(What::OperatingSystem, "goos"),
        label(What::Architecture, "goarch"),
    ],
    bounds: &[],
    source: Source::Build,
};

/// Whether a trigger is active.
pub static ACTIVE: Metric = Metric {
    prometheus: Some("keda_scaler_active"),
    otlp: &[plain("keda.scaler.active")],
    instrument: Instrument::Gauge,
    integer: false,
    help: "Whether the metric of a trigger makes its object active: 1 if so, else 0.",
    labels: SCALER,
    bounds: &[],
    source: Source::Scaler(|scaler| scaler.active.map(|active| f64::from(u8::from(active)))),
};

/// A metric's value.
pub static VALUE: Metric = Metric {
    prometheus: Some("keda_scaler_metrics_value"),
    otlp: &[plain("keda.scaler.metrics.value")],
    instrument: Instrument::Gauge,
    integer: false,
    help: "The value of a trigger's metric as the HorizontalPodAutoscaler is told it.",
    labels: SCALER,
    bounds: &[],
    source: Source::Scaler(|scaler| scaler.value),
};

/// How long a trigger's source took to answer.
pub static LATENCY: Metric = Metric {
    prometheus: Some("keda_scaler_metrics_latency_seconds"),
    otlp: &[seconds("keda.scaler.metrics.latency.seconds"), milliseconds("keda.scaler.metrics.latency")],
    instrument: Instrument::Gauge,
    integer: false,
    help: "Seconds that the last read of a trigger's source took.",
    labels: SCALER,
    bounds: &[],
    source: Source::Scaler(|scaler| scaler.latency),
};

/// Failed reads, by trigger.
pub static SCALER_ERRORS: Metric = Metric {
    prometheus: Some("keda_scaler_detail_errors_total"),
    otlp: &[plain("keda.scaler.errors"), plain("keda.scaler.errors.total")],
    instrument: Instrument::Counter,
    integer: true,
    help: "Failed reads of a trigger, its polls as well as those that a HorizontalPodAutoscaler asked for.",
    labels: SCALER,
    bounds: &[],
    // What is not read, such as cpu, has none.
    source: Source::Scaler(|scaler| scaler.read.then(|| scaler.errors() as f64)),
};

/// Failed reads, by trigger and kind of error.
pub static SCALER_ERRORS_BY_KIND: Metric = Metric {
    prometheus: Some("tidemark_scaler_errors_total"),
    otlp: &[plain("tidemark.scaler.errors")],
    instrument: Instrument::Counter,
    integer: true,
    help: "Failed reads of a trigger by kind of error, such as authentication or unreachable.",
    labels: SCALER_ERROR,
    bounds: &[],
    source: Source::ErrorKinds,
};

/// Errors of ScaledObjects.
pub static OBJECT_ERRORS: Metric = Metric {
    prometheus: Some("keda_scaled_object_errors_total"),
    otlp: &[plain("keda.scaledobject.errors"), plain("keda.scaled.object.errors")],
    instrument: Instrument::Counter,
    integer: true,
    help: "Errors of a ScaledObject: triggers that could not be built, and failed reads.",
    labels: OF_OBJECT,
    bounds: &[],
    source: Source::Object(Some(Kind::ScaledObject), |object| Some(object.errors as f64)),
};

/// Errors of ScaledJobs.
pub static JOB_ERRORS: Metric = Metric {
    prometheus: Some("keda_scaled_job_errors_total"),
    otlp: &[plain("keda.scaledjob.errors"), plain("keda.scaled.job.errors")],
    instrument: Instrument::Counter,
    integer: true,
    help: "Errors of a ScaledJob: triggers that could not be built, and failed reads.",
    labels: OF_JOB,
    bounds: &[],
    source: Source::Object(Some(Kind::ScaledJob), |object| Some(object.errors as f64)),
};

/// Whether a ScaledObject is paused.
pub static PAUSED: Metric = Metric {
    prometheus: Some("keda_scaled_object_paused"),
    otlp: &[plain("keda.scaled.object.paused")],
    instrument: Instrument::Gauge,
    integer: false,
    help: "Whether a ScaledObject is paused, in whole or in one direction: 1 if so, else 0.",
    labels: OF_OBJECT,
    bounds: &[],
    source: Source::Object(Some(Kind::ScaledObject), |object| Some(f64::from(u8::from(object.paused)))),
};

/// Whether the fallback stands in.
pub static FALLBACK: Metric = Metric {
    prometheus: Some("tidemark_scaled_object_fallback"),
    otlp: &[plain("tidemark.scaled.object.fallback")],
    instrument: Instrument::Gauge,
    integer: true,
    help: "Whether the fallback stands in for a trigger of a ScaledObject: 1 if so, else 0.",
    labels: OF_OBJECT,
    bounds: &[],
    source: Source::Object(Some(Kind::ScaledObject), |object| {
        object.fallback.map(|fallback| f64::from(u8::from(fallback)))
    }),
};

/// Custom resources that there are.
pub static RESOURCES: Metric = Metric {
    prometheus: Some("keda_resource_registered_total"),
    otlp: &[plain("keda.resource.registered.count"), plain("keda.resource.totals")],
    instrument: Instrument::UpDownCounter,
    integer: true,
    help: "Custom resources of a kind in a namespace; those without a namespace count for `default`.",
    labels: &[label(What::Resource, "type"), label(What::Namespace, "namespace")],
    bounds: &[],
    source: Source::Resources,
};

/// Triggers that there are.
pub static TRIGGERS: Metric = Metric {
    prometheus: Some("keda_trigger_registered_total"),
    otlp: &[plain("keda.trigger.registered.count"), plain("keda.trigger.totals")],
    instrument: Instrument::UpDownCounter,
    integer: true,
    help: "Triggers of a type, of all objects.",
    labels: &[label(What::TriggerType, "type")],
    bounds: &[],
    source: Source::Triggers,
};

/// How late an object's poll began.
pub static LOOP_LATENCY: Metric = Metric {
    prometheus: Some("keda_internal_scale_loop_latency_seconds"),
    otlp: &[seconds("keda.internal.scale.loop.latency.seconds"), milliseconds("keda.internal.scale.loop.latency")],
    instrument: Instrument::Gauge,
    integer: false,
    help: "Seconds between the time when an object's last poll was due and its begin.",
    labels: OF_LOOP,
    bounds: &[],
    source: Source::Object(None, |object| object.lateness),
};

/// How often an object was looked at.
pub static EVALUATIONS: Metric = Metric {
    prometheus: Some("tidemark_evaluations_total"),
    otlp: &[plain("tidemark.evaluations")],
    instrument: Instrument::Counter,
    integer: true,
    help: "Polls of an object that have begun, and times when a source told unasked: a loop that stands still adds none.",
    labels: OF_LOOP,
    bounds: &[],
    source: Source::Object(None, |object| Some(object.evaluations as f64)),
};

/// Requests over HTTP to event sources.
pub static HTTP_REQUESTS: Metric = Metric {
    prometheus: Some("keda_scaler_http_requests_total"),
    otlp: &[plain("keda.scaler.http.requests.count")],
    instrument: Instrument::Counter,
    integer: true,
    help: "HTTP requests that triggers made to their sources, by status code; `error` where no reply came.",
    labels: OF_REQUEST,
    bounds: &[],
    source: Source::HttpRequests,
};

/// Durations of requests over HTTP to event sources.
pub static HTTP_DURATION: Metric = Metric {
    prometheus: Some("keda_scaler_http_request_duration_seconds"),
    otlp: &[seconds("keda.scaler.http.request.duration.seconds")],
    instrument: Instrument::Histogram,
    integer: false,
    help: "Seconds until the head of a reply to an HTTP request that a trigger made.",
    labels: &[label(What::TriggerType, "scaler"), label(What::StatusCode, "status_code")],
    bounds: DURATION_BOUNDS,
    source: Source::HttpDurations,
};

/// Durations of requests over HTTP to event sources, trigger by trigger: in place of the other one, where that is wanted.
pub static HTTP_DURATION_BY_TRIGGER: Metric = Metric {
    labels: OF_REQUEST,
    source: Source::HttpDurationsByTrigger,
    prometheus: HTTP_DURATION.prometheus,
    otlp: HTTP_DURATION.otlp,
    instrument: HTTP_DURATION.instrument,
    integer: HTTP_DURATION.integer,
    help: HTTP_DURATION.help,
    bounds: HTTP_DURATION.bounds,
};

/// Queries that yielded nothing.
pub static EMPTY_RESPONSES: Metric = Metric {
    prometheus: Some("keda_scaler_empty_upstream_responses_total"),
    otlp: &[plain("keda.scaler.empty.upstream.responses")],
    instrument: Instrument::Counter,
    integer: true,
    help: "Queries of a prometheus trigger that yielded nothing.",
    labels: &[
        label(What::Namespace, "namespace"),
        label(What::Object, "scaledResource"),
        label(What::TriggerName, "triggerName"),
        label(What::Metric, "metricName"),
        Label { what: What::ResourceType, prometheus: Some("resourceType"), otlp: None, otlp_of_job: None },
        Label {
            what: What::IsScaledObject,
            prometheus: None,
            otlp: Some("isScaledObject"),
            otlp_of_job: Some("isScaledObject"),
        },
        label(What::IgnoresNull, "ignoreNullValues"),
    ],
    bounds: &[],
    source: Source::EmptyResponses,
};

/// Observations that this consumer has missed.
pub static LOST: Metric = Metric {
    prometheus: Some("tidemark_telemetry_lost_observations_total"),
    otlp: &[plain("tidemark.telemetry.lost.observations")],
    instrument: Instrument::Counter,
    integer: true,
    help: "Observations that came faster than they could be counted; the counters miss them.",
    labels: &[],
    bounds: &[],
    source: Source::Lost,
};

/// What checks the ScaledObjects, as KEDA calls it.
pub const CONTROLLER: &str = "scaledobject";

/// Checks of objects.
pub static RECONCILES: Metric = Metric::counted(
    "controller_runtime_reconcile_total",
    Instrument::Counter,
    &[label(What::At(0), "controller"), label(What::At(1), "result")],
    &[],
    "Checks of ScaledObjects, of their targets, triggers and HPAs, by `success` or `error`.",
);

/// Checks of objects that failed.
pub static RECONCILE_ERRORS: Metric = Metric::counted(
    "controller_runtime_reconcile_errors_total",
    Instrument::Counter,
    &[label(What::At(0), "controller")],
    &[],
    "Checks of ScaledObjects that have found something wrong, or could not be made.",
);

/// The durations of checks.
pub static RECONCILE_SECONDS: Metric = Metric::counted(
    "controller_runtime_reconcile_time_seconds",
    Instrument::Histogram,
    &[label(What::At(0), "controller")],
    CHECK_BOUNDS,
    "Seconds that a check of a ScaledObject took.",
);

/// Upper bounds of the duration of a check, in seconds: those of controllers for Kubernetes.
const CHECK_BOUNDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5,
    1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0,
];

/// All that the operator tells, in the order in which it does.
pub static OPERATOR: &[&Metric] = &[
    &BUILD,
    &ACTIVE,
    &VALUE,
    &LATENCY,
    &SCALER_ERRORS,
    &SCALER_ERRORS_BY_KIND,
    &OBJECT_ERRORS,
    &JOB_ERRORS,
    &PAUSED,
    &FALLBACK,
    &RESOURCES,
    &TRIGGERS,
    &LOOP_LATENCY,
    &EVALUATIONS,
    &EMPTY_RESPONSES,
    &HTTP_REQUESTS,
    &HTTP_DURATION,
    &HTTP_DURATION_BY_TRIGGER,
    &LOST,
    &RECONCILES,
    &RECONCILE_ERRORS,
    &RECONCILE_SECONDS,
    &SERVER.started,
    &SERVER.received,
    &SERVER.sent,
    &SERVER.handled,
    &SERVER.handling,
    &LEADER,
    &CERTIFICATE_EXPIRY,
    &REST_CLIENT_REQUESTS,
    &CPU_SECONDS,
    &START_TIME,
    &RESIDENT_MEMORY,
    &VIRTUAL_MEMORY,
    &OPEN_FDS,
    &MAX_FDS,
    &MAX_VIRTUAL_MEMORY,
    &RECEIVED,
    &SENT,
];
