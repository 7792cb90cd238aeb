//! Tests of the crate's parts together: what is declared against what is parsed.

mod conformance;
mod door;
mod network;
mod parameters;

use crate::TriggerInput;

/// A trigger's input with this metadata, authentication and environment.
fn input(metadata: &[(&str, &str)], auth: &[(&str, &str)], env: &[(&str, &str)]) -> TriggerInput {
    TriggerInput {
        index: 0,
        trigger_type: "test".to_owned(),
        name: None,
        metadata: metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        auth: auth.iter().map(|(key, value)| (key.to_string(), (*value).into())).collect(),
        env: env.iter().map(|(key, value)| (key.to_string(), (*value).into())).collect(),
        pod_identity: None,
        metric_type: None,
        as_metric_source: false,
        namespace: "default".to_owned(),
        object: "object".to_owned(),
    }
}
