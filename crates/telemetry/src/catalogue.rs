//! Every metric, declared once: its names on both sides, its type, its unit, its labels, and what it says.
//!
//! The names are KEDA's, those of its documentation as well as those of its source where they differ, because users'
//! dashboards and alerts ask for them. Tidemark's own begin with `tidemark`.

use crate::series::{Kind, Object, Scaler};

/// How a metric's value moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instrument {
    /// A value that goes up and down.
    Gauge,
    /// A number of things that are there: a sum over OTLP, a gauge for Prometheus.
    UpDownCounter,
    /// A number that only grows.
    Counter,
    /// A distribution over [`DURATION_BOUNDS`].
    Histogram,
}

/// What a label tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Namespace,
    /// The ScaledObject's or ScaledJob's name.
    Object,
    /// `scaledobject` or `scaledjob`.
    Kind,
    /// `triggers[].name`, or KEDA's name of the trigger type's scaler.
    Scaler,
    /// `triggers[].name`, empty where it has none.
    TriggerName,
    TriggerType,
    /// 0-based position in `spec.triggers`.
    Index,
    /// The external metric's name.
    Metric,
    /// The kind of a custom resource, such as `scaled_object`.
    Resource,
    /// The kind of an error, such as `authentication`.
    ErrorKind,
    /// The status code of an HTTP reply, or `error`.
    StatusCode,
    Version,
    Commit,
    /// The toolchain that built the program.
    Toolchain,
    OperatingSystem,
    Architecture,
}

/// A label under its names; none where that side does not have it.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    pub what: What,
    pub prometheus: Option<&'static str>,
    /// Over OTLP, for a ScaledObject's series and for those of nothing in particular.
    pub otlp: Option<&'static str>,
    /// Over OTLP, for a ScaledJob's series.
    pub otlp_of_job: Option<&'static str>,
}

const fn label(what: What, name: &'static str) -> Label {
    Label { what, prometheus: Some(name), otlp: Some(name), otlp_of_job: Some(name) }
}

/// A metric's name over OTLP, its unit, and what the value is multiplied by to be in that unit.
#[derive(Clone, Copy, Debug)]
pub struct OtlpName {
    pub name: &'static str,
    pub unit: &'static str,
    pub factor: f64,
}

const fn plain(name: &'static str) -> OtlpName {
    OtlpName { name, unit: "", factor: 1.0 }
}

const fn seconds(name: &'static str) -> OtlpName {
    OtlpName { name, unit: "s", factor: 1.0 }
}

/// Seconds told in milliseconds, under a name that KEDA calls deprecated and still sends.
const fn milliseconds(name: &'static str) -> OtlpName {
    OtlpName { name, unit: "", factor: 1000.0 }
}

/// A metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name for Prometheus; none where only OTLP has it.
    pub prometheus: Option<&'static str>,
    /// Its names over OTLP.
    pub otlp: &'static [OtlpName],
    pub instrument: Instrument,
    /// Over OTLP its values are whole numbers.
    pub integer: bool,
    /// What it says, in a sentence.
    pub help: &'static str,
    pub labels: &'static [Label],
    /// Where its values are.
    pub source: Source,
}

/// Where a metric's values are.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    Build,
    /// One for each metric of each trigger that has one.
    Scaler(fn(&Scaler) -> Option<f64>),
    /// One for each metric of each trigger and each kind of error that it has had.
    ErrorKinds,
    /// One for each object of the kind, or of any.
    Object(Option<Kind>, fn(&Object) -> Option<f64>),
    Resources,
    Triggers,
    HttpRequests,
    HttpDurations,
    Lost,
}

/// Upper bounds of a distribution of seconds.
pub const DURATION_BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

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
    source: Source::Scaler(|scaler| Some(scaler.errors() as f64)),
};

/// Failed reads, by trigger and kind of error.
pub static SCALER_ERRORS_BY_KIND: Metric = Metric {
    prometheus: Some("tidemark_scaler_errors_total"),
    otlp: &[plain("tidemark.scaler.errors")],
    instrument: Instrument::Counter,
    integer: true,
    help: "Failed reads of a trigger by kind of error, such as authentication or unreachable.",
    labels: SCALER_ERROR,
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
    source: Source::Object(Some(Kind::ScaledObject), |object| Some(f64::from(u8::from(object.paused)))),
};

/// Custom resources that there are.
pub static RESOURCES: Metric = Metric {
    prometheus: Some("keda_resource_registered_total"),
    otlp: &[plain("keda.resource.registered.count"), plain("keda.resource.totals")],
    instrument: Instrument::UpDownCounter,
    integer: true,
    help: "Custom resources of a kind in a namespace; those without a namespace count for `default`.",
    labels: &[label(What::Resource, "type"), label(What::Namespace, "namespace")],
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
    source: Source::Object(None, |object| object.lateness),
};

/// Requests over HTTP to event sources.
pub static HTTP_REQUESTS: Metric = Metric {
    prometheus: Some("keda_scaler_http_requests_total"),
    otlp: &[plain("keda.scaler.http.requests.count")],
    instrument: Instrument::Counter,
    integer: true,
    help: "HTTP requests that triggers made to their sources, by status code; `error` where no reply came.",
    labels: &[
        label(What::Namespace, "namespace"),
        label(What::Object, "scaled_resource"),
        label(What::TriggerType, "scaler"),
        label(What::TriggerName, "trigger_name"),
        label(What::Metric, "metric_name"),
        label(What::StatusCode, "status_code"),
    ],
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
    source: Source::HttpDurations,
};

/// Observations that this consumer has missed.
pub static LOST: Metric = Metric {
    prometheus: Some("tidemark_telemetry_lost_observations_total"),
    otlp: &[plain("tidemark.telemetry.lost.observations")],
    instrument: Instrument::Counter,
    integer: true,
    help: "Observations that came faster than they could be counted; the counters miss them.",
    labels: &[],
    source: Source::Lost,
};

/// All of them, in the order in which they are told.
pub static ALL: &[&Metric] = &[
    &BUILD,
    &ACTIVE,
    &VALUE,
    &LATENCY,
    &SCALER_ERRORS,
    &SCALER_ERRORS_BY_KIND,
    &OBJECT_ERRORS,
    &JOB_ERRORS,
    &PAUSED,
    &RESOURCES,
    &TRIGGERS,
    &LOOP_LATENCY,
    &HTTP_REQUESTS,
    &HTTP_DURATION,
    &LOST,
];
