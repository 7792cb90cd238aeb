//! ScaledJob: which Job to run, on which events, and how many of them.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemark_engine::scaled_job::{Bounds, Calculation, History, Policy, Strategy};

use crate::scaled_object::DEFAULT_POLLING_INTERVAL;
use crate::status::date_time;
use crate::{Condition, ScaleTriggers, TriggerActivity, UnknownFields};

/// Specification of a ScaledJob.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "keda.sh",
    version = "v1alpha1",
    kind = "ScaledJob",
    namespaced,
    status = "ScaledJobStatus",
    shortname = "sj",
    derive = "PartialEq",
    derive = "Default",
    doc = "Jobs that are started on events.",
    printcolumn(name = "Min", type_ = "integer", json_path = ".spec.minReplicaCount"),
    printcolumn(name = "Max", type_ = "integer", json_path = ".spec.maxReplicaCount"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Active", type_ = "string", json_path = r#".status.conditions[?(@.type=="Active")].status"#),
    printcolumn(name = "Paused", type_ = "string", json_path = r#".status.conditions[?(@.type=="Paused")].status"#),
    printcolumn(name = "Triggers", type_ = "string", json_path = ".status.triggersTypes"),
    printcolumn(name = "Authentications", type_ = "string", json_path = ".status.authenticationsTypes"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ScaledJobSpec {
    /// The Job to start: a `spec` of batch/v1. It is kept as it is, fields of every Kubernetes version included.
    #[schemars(schema_with = "job_spec")]
    pub job_target_ref: Value,
    /// Seconds between two polls of each trigger. 30 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub polling_interval: Option<i32>,
    /// Completed Jobs that are kept. 100 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub successful_jobs_history_limit: Option<i32>,
    /// Failed Jobs that are kept. 100 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub failed_jobs_history_limit: Option<i32>,
    /// Deprecated: `rollout.strategy`, over which it prevails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rollout_strategy")]
    pub rollout_strategy: Option<String>,
    /// What becomes of running Jobs when the specification changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// The container whose environment feeds the parameters that end in `FromEnv`. The first one when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_source_container_name: Option<String>,
    /// Jobs that always run. 0 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub min_replica_count: Option<i32>,
    /// Upper bound of the running Jobs. 100 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_replica_count: Option<i32>,
    /// How many Jobs to start for a queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling_strategy: Option<ScalingStrategy>,
    /// The event sources.
    #[schemars(length(min = 1))]
    pub triggers: Vec<ScaleTriggers>,
    /// Fields of other versions.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// A place for the schema of batch/v1, which [`crate::crds`] puts here.
fn job_spec(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object"})
}

/// What becomes of running Jobs when the specification changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// `gradual`: they run on. `immediate` (unset): they are deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rollout_strategy")]
    pub strategy: Option<String>,
    /// How they are deleted: `background` (unset) or `foreground`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "propagation_policy")]
    pub propagation_policy: Option<String>,
    /// Fields of other versions.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

fn rollout_strategy(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["gradual", "immediate"]})
}

fn propagation_policy(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["foreground", "background"]})
}

/// How many Jobs to start for a queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingStrategy {
    /// `default` (unset), `custom`, `accurate` or `eager`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "strategy")]
    pub strategy: Option<String>,
    /// With `custom`: subtracted from the queue's Jobs. 0 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_scaling_queue_length_deduction: Option<i32>,
    /// With `custom`: the share of the running Jobs that is subtracted, a number such as `0.5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_scaling_running_job_percentage: Option<String>,
    /// A Job counts as pending until one of its pods has all these conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_pod_conditions: Option<Vec<String>>,
    /// How several triggers are combined: `max` (unset), `min`, `avg` or `sum`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "calculation")]
    pub multiple_scalers_calculation: Option<String>,
    /// Fields of other versions.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

fn strategy(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["default", "custom", "accurate", "eager"]})
}

fn calculation(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["min", "avg", "sum", "max"]})
}

/// Observed state of a ScaledJob.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaledJobStatus {
    /// When the object was last active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub last_active_time: Option<Time>,
    /// Ready, Active, Fallback, Paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
    /// Of old versions; nobody writes it any more.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "Paused")]
    pub paused: Option<String>,
    /// The distinct trigger types, joined by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triggers_types: Option<String>,
    /// The distinct names of authentication references, joined by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentications_types: Option<String>,
    /// Names of the external metrics, in the order of the triggers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_metric_names: Option<Vec<String>>,
    /// Activity by metric name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triggers_activity: Option<BTreeMap<String, TriggerActivity>>,
    /// Fields of other versions.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

impl ScaledJobSpec {
    /// Time between two polls, default applied.
    pub fn polling_interval(&self) -> Duration {
        let seconds = self.polling_interval.unwrap_or(DEFAULT_POLLING_INTERVAL).max(1);
        Duration::from_secs(u64::from(seconds.unsigned_abs()))
    }

    /// What the spec asks for, in the engine's terms, defaults applied.
    pub fn policy(&self) -> Policy {
        let strategy = self.scaling_strategy.as_ref();
        let word =
            |word: fn(&ScalingStrategy) -> &Option<String>| strategy.and_then(|strategy| word(strategy).as_deref());
        Policy {
            bounds: Bounds::new(self.min_replica_count, self.max_replica_count),
            strategy: Strategy::choose(
                word(|strategy| &strategy.strategy).unwrap_or_default(),
                strategy.and_then(|strategy| strategy.custom_scaling_queue_length_deduction),
                word(|strategy| &strategy.custom_scaling_running_job_percentage),
            ),
            calculation: Calculation::from_word(
                word(|strategy| &strategy.multiple_scalers_calculation).unwrap_or_default(),
            ),
        }
    }

    /// How many finished Jobs are kept, defaults applied.
    pub fn history(&self) -> History {
        History::new(self.successful_jobs_history_limit, self.failed_jobs_history_limit)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(more: Value) -> ScaledJobSpec {
        let mut spec = json!({"jobTargetRef": {"template": {}}, "triggers": []});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn what_is_unset_has_a_default() {
        let spec = spec(json!({}));
        let wanted = Policy {
            bounds: Bounds { minimum: 0, room: 100 },
            strategy: Strategy::Default,
            calculation: Calculation::Max,
        };
        assert_eq!(spec.policy(), wanted);
        assert_eq!(spec.history(), History { successful: 100, failed: 100 });
        assert_eq!(spec.polling_interval(), Duration::from_secs(30));
    }

    #[test]
    fn what_is_set_reaches_the_engine() {
        let spec = spec(json!({
            "pollingInterval": 5, "minReplicaCount": 2, "maxReplicaCount": 10, "successfulJobsHistoryLimit": 0,
            "scalingStrategy": {
                "strategy": "custom", "customScalingQueueLengthDeduction": 1,
                "customScalingRunningJobPercentage": "0.5", "multipleScalersCalculation": "sum",
            },
        }));
        let wanted = Policy {
            bounds: Bounds { minimum: 2, room: 8 },
            strategy: Strategy::Custom { deduction: 1, running_share: 0.5 },
            calculation: Calculation::Sum,
        };
        assert_eq!(spec.policy(), wanted);
        assert_eq!(spec.history(), History { successful: 0, failed: 100 });
        assert_eq!(spec.polling_interval(), Duration::from_secs(5));
    }
}
