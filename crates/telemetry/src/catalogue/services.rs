//! What the webhooks and the metrics server tell, and both ends of the link between operator and metrics server.

use super::process::{
    CERTIFICATE_EXPIRY, CPU_SECONDS, MAX_FDS, MAX_VIRTUAL_MEMORY, OPEN_FDS, RECEIVED, RESIDENT_MEMORY,
    REST_CLIENT_REQUESTS, SENT, START_TIME, VIRTUAL_MEMORY,
};
use super::{CALL_BOUNDS, Instrument, Label, Metric, What, label};

/// What is counted of calls over gRPC at one end.
#[derive(Debug)]
pub struct Calls {
    pub started: Metric,
    pub received: Metric,
    pub sent: Metric,
    pub handled: Metric,
    pub handling: Metric,
}

/// The labels of a call.
const CALL: &[Label] =
    &[label(What::At(0), "grpc_type"), label(What::At(1), "grpc_service"), label(What::At(2), "grpc_method")];

/// Those of one that has ended.
const ENDED: &[Label] = &[CALL[0], CALL[1], CALL[2], label(What::At(3), "grpc_code")];

/// The operator's end of the link.
pub static SERVER: Calls = Calls {
    started: Metric::counted(
        "keda_internal_metricsservice_grpc_server_started_total",
        Instrument::Counter,
        CALL,
        &[],
        "Calls that the operator has begun to answer.",
    ),
    received: Metric::counted(
        "keda_internal_metricsservice_grpc_server_msg_received_total",
        Instrument::Counter,
        CALL,
        &[],
        "Messages that the operator has received in calls.",
    ),
    sent: Metric::counted(
        "keda_internal_metricsservice_grpc_server_msg_sent_total",
        Instrument::Counter,
        CALL,
        &[],
        "Messages that the operator has sent in calls.",
    ),
    handled: Metric::counted(
        "keda_internal_metricsservice_grpc_server_handled_total",
        Instrument::Counter,
        ENDED,
        &[],
        "Calls that the operator has answered, well or with an error, by its code.",
    ),
    handling: Metric::counted(
        "keda_internal_metricsservice_grpc_server_handling_seconds",
        Instrument::Histogram,
        CALL,
        CALL_BOUNDS,
        "Seconds from the begin of a call to the operator to its end.",
    ),
};

/// The metrics server's end of the link.
pub static CLIENT: Calls = Calls {
    started: Metric::counted(
        "keda_internal_metricsservice_grpc_client_started_total",
        Instrument::Counter,
        CALL,
        &[],
        "Calls to the operator that the metrics server has begun.",
    ),
    received: Metric::counted(
        "keda_internal_metricsservice_grpc_client_msg_received_total",
        Instrument::Counter,
        CALL,
        &[],
        "Messages that the metrics server has received from the operator.",
    ),
    sent: Metric::counted(
        "keda_internal_metricsservice_grpc_client_msg_sent_total",
        Instrument::Counter,
        CALL,
        &[],
        "Messages that the metrics server has sent to the operator.",
    ),
    handled: Metric::counted(
        "keda_internal_metricsservice_grpc_client_handled_total",
        Instrument::Counter,
        ENDED,
        &[],
        "Calls to the operator that have ended, well or with an error, by its code.",
    ),
    handling: Metric::counted(
        "keda_internal_metricsservice_grpc_client_handling_seconds",
        Instrument::Histogram,
        CALL,
        CALL_BOUNDS,
        "Seconds from the begin of a call to the operator to its answer.",
    ),
};

/// Reviews of ScaledObjects.
pub static VALIDATIONS: Metric = Metric::counted(
    "keda_webhook_scaled_object_validations_total",
    Instrument::Counter,
    &[label(What::At(0), "namespace"), label(What::At(1), "action")],
    &[],
    "ScaledObjects that were reviewed before they were stored.",
);

/// Refusals.
pub static VALIDATION_ERRORS: Metric = Metric::counted(
    "keda_webhook_scaled_object_validation_errors_total",
    Instrument::Counter,
    &[label(What::At(0), "namespace"), label(What::At(1), "action"), label(What::At(2), "reason")],
    &[],
    "ScaledObjects, and ScaledJobs for their triggers, that were refused, by the rule that refused them.",
);

/// Answers of the external metrics API.
pub static API_REQUESTS: Metric = Metric::counted(
    "apiserver_request_total",
    Instrument::Counter,
    &[
        label(What::At(0), "verb"),
        label(What::At(1), "group"),
        label(What::At(2), "version"),
        label(What::At(3), "resource"),
        label(What::At(4), "code"),
    ],
    &[],
    "Requests to the external metrics API for values, by status code.",
);

/// Ages of the values that the external metrics API has answered.
pub static FRESHNESS: Metric = Metric::counted(
    "metrics_apiserver_metric_freshness_seconds",
    Instrument::Histogram,
    &[label(What::At(0), "group")],
    FRESHNESS_BOUNDS,
    "Seconds between the time when a value was read and its answer.",
);

/// Those of the servers of Kubernetes' metrics.
const FRESHNESS_BOUNDS: &[f64] = &[
    1.0, 1.364, 1.861, 2.54, 3.465, 4.728, 6.451, 8.802, 12.01, 16.386, 22.358, 30.505, 41.622, 56.79, 77.485, 105.723,
    144.25, 196.818, 268.543, 366.409,
];

/// All that the webhooks tell.
pub static WEBHOOKS: &[&Metric] = &[
    &VALIDATIONS,
    &VALIDATION_ERRORS,
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

/// All that the metrics server tells.
pub static METRICS_SERVER: &[&Metric] = &[
    &CLIENT.started,
    &CLIENT.received,
    &CLIENT.sent,
    &CLIENT.handled,
    &CLIENT.handling,
    &API_REQUESTS,
    &FRESHNESS,
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
