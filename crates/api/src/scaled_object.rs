//! ScaledObject: what to scale, on which events, between which bounds.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use tidemark_engine::activation::Policy;
use tidemark_engine::composite::{Invalid, Modifiers, Source};

use crate::behavior::HpaBehavior;
pub use crate::status::TriggerActivity;
use crate::status::date_time;
use crate::{Condition, DEFAULT_HPA_PREFIX, ScaleTriggers, UnknownFields};

/// `pollingInterval` when unset, in seconds.
pub const DEFAULT_POLLING_INTERVAL: i32 = 30;
/// `cooldownPeriod` when unset, in seconds.
pub const DEFAULT_COOLDOWN_PERIOD: i32 = 300;
/// `maxReplicaCount` when unset.
pub const DEFAULT_MAX_REPLICAS: i32 = 100;

/// Specification of a ScaledObject.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "keda.sh",
    version = "v1alpha1",
    kind = "ScaledObject",
    namespaced,
    status = "ScaledObjectStatus",
    shortname = "so",
    derive = "PartialEq",
    derive = "Default",
    doc = "A workload that is scaled on events.",
    printcolumn(name = "ScaleTargetKind", type_ = "string", json_path = ".status.scaleTargetKind"),
    printcolumn(name = "ScaleTargetName", type_ = "string", json_path = ".spec.scaleTargetRef.name"),
    printcolumn(name = "Min", type_ = "integer", json_path = ".spec.minReplicaCount"),
    printcolumn(name = "Max", type_ = "integer", json_path = ".spec.maxReplicaCount"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Active", type_ = "string", json_path = r#".status.conditions[?(@.type=="Active")].status"#),
    printcolumn(
        name = "Fallback",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Fallback")].status"#
    ),
    printcolumn(name = "Paused", type_ = "string", json_path = r#".status.conditions[?(@.type=="Paused")].status"#),
    printcolumn(name = "Triggers", type_ = "string", json_path = ".status.triggersTypes"),
    printcolumn(name = "Authentications", type_ = "string", json_path = ".status.authenticationsTypes"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new(
    "!has(self.minReplicaCount) || self.minReplicaCount <= (has(self.maxReplicaCount) ? self.maxReplicaCount : 100)"
).message("minReplicaCount must not be greater than maxReplicaCount (100 when unset)"))]
#[serde(rename_all = "camelCase")]
pub struct ScaledObjectSpec {
    /// The workload to scale, in the same namespace.
    pub scale_target_ref: ScaleTarget,
    /// Seconds between two polls of each trigger. 30 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub polling_interval: Option<i32>,
    /// Seconds after the object's creation in which a target that never was active is not scaled to zero or idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub initial_cooldown_period: Option<i32>,
    /// Seconds after the last activity before the target is scaled to zero or idle. 300 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cooldown_period: Option<i32>,
    /// Replicas while no trigger is active; less than `minReplicaCount`. Unset: no idle mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub idle_replica_count: Option<i32>,
    /// Lower bound. 0 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub min_replica_count: Option<i32>,
    /// Upper bound. 100 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_replica_count: Option<i32>,
    /// Everything that most objects do not need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advanced: Option<Advanced>,
    /// The event sources.
    #[schemars(length(min = 1))]
    pub triggers: Vec<ScaleTriggers>,
    /// What to report for a trigger that cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// Fields of other versions.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// Reference to the workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleTarget {
    /// Name of the workload.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Group and version. `apps/v1` when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Kind. `Deployment` when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The container whose environment feeds the parameters that end in `FromEnv`. The first one when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_source_container_name: Option<String>,
    /// Fields of other versions.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

impl ScaleTarget {
    /// The group and version, default applied; an empty text counts as unset.
    pub fn api_version(&self) -> &str {
        self.api_version.as_deref().filter(|text| !text.is_empty()).unwrap_or("apps/v1")
    }

    /// The kind, default applied; an empty text counts as unset.
    pub fn kind(&self) -> &str {
        self.kind.as_deref().filter(|text| !text.is_empty()).unwrap_or("Deployment")
    }
}

/// Settings beyond the usual ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Advanced {
    /// The HorizontalPodAutoscaler that is made for the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub horizontal_pod_autoscaler_config: Option<HpaConfig>,
    /// On deletion of the object the target gets back the replicas that it had at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_to_original_replica_count: Option<bool>,
    /// One metric out of several triggers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling_modifiers: Option<ScalingModifiers>,
    /// Fields of other versions.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// The HorizontalPodAutoscaler that is made for the object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HpaConfig {
    /// Passed to the HPA as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<HpaBehavior>,
    /// The HPA's name. `keda-hpa-<name of the object>` when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Fields of other versions.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// A formula over the triggers' values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingModifiers {
    /// Expression over the triggers' names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formula: Option<String>,
    /// Target of the composite metric, a number above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The object is active above this number. 0 when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_target: Option<String>,
    /// How the target is meant. `AverageValue` when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "modifiers_metric_type")]
    pub metric_type: Option<String>,
    /// Fields of other versions.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

fn modifiers_metric_type(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["AverageValue", "Value"]})
}

/// What to report for a trigger that cannot be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// Failures in a row that are tolerated.
    #[schemars(range(min = 0))]
    pub failure_threshold: i32,
    /// The replicas to fall back to.
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// How `replicas` and the present replicas are combined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fallback_behavior")]
    pub behavior: Option<String>,
    /// Fields of other versions.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

fn fallback_behavior(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "default": "static",
        "enum": ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower", "scalingModifiers"]
    })
}

/// Observed state of a ScaledObject.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaledObjectStatus {
    /// `<group>/<version>.<Kind>` of the target, such as `apps/v1.Deployment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_target_kind: Option<String>,
    /// The resolved target.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "scaleTargetGVKR")]
    pub scale_target_gvkr: Option<GroupVersionKindResource>,
    /// Replicas of the target when it was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_replica_count: Option<i32>,
    /// When the object was last active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub last_active_time: Option<Time>,
    /// Names of the external metrics, in the order of the triggers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_metric_names: Option<Vec<String>>,
    /// Names of the resource metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_metric_names: Option<Vec<String>>,
    /// Name of the composite metric where a formula is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub composite_scaler_name: Option<String>,
    /// Ready, Active, Fallback, Paused, HPAActive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
    /// Failures by metric name, kept where a fallback is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<BTreeMap<String, Health>>,
    /// Activity by metric name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triggers_activity: Option<BTreeMap<String, TriggerActivity>>,
    /// Replicas of `paused-replicas` while paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_replica_count: Option<i32>,
    /// Name of the HPA in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hpa_name: Option<String>,
    /// The distinct trigger types, joined by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triggers_types: Option<String>,
    /// The distinct names of authentication references, joined by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentications_types: Option<String>,
    /// Fields of other versions.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// A resolved kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupVersionKindResource {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub resource: String,
    /// Fields of other versions.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

impl GroupVersionKindResource {
    /// Whether it is the same kind, whatever else is said of it.
    pub fn is(&self, other: &Self) -> bool {
        let same = self.group == other.group && self.version == other.version;
        same && self.kind == other.kind && self.resource == other.resource
    }
}

/// How reading a metric has gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Failures in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number_of_failures: Option<i32>,
    /// `Happy` or `Failing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Fields of other versions.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

impl ScaledObjectSpec {
    /// Time between two polls, default applied.
    pub fn polling_interval(&self) -> Duration {
        seconds(self.polling_interval.unwrap_or(DEFAULT_POLLING_INTERVAL).max(1))
    }

    /// `minReplicaCount`, default applied.
    pub fn min_replicas(&self) -> i32 {
        self.min_replica_count.unwrap_or(0)
    }

    /// `maxReplicaCount`, default applied.
    pub fn max_replicas(&self) -> i32 {
        self.max_replica_count.unwrap_or(DEFAULT_MAX_REPLICAS)
    }

    /// What the spec asks for, in the engine's terms.
    pub fn policy(&self, created: Timestamp) -> Policy {
        Policy {
            min_replicas: self.min_replicas(),
            max_replicas: self.max_replicas(),
            idle_replicas: self.idle_replica_count,
            cooldown: seconds(self.cooldown_period.unwrap_or(DEFAULT_COOLDOWN_PERIOD)),
            initial_cooldown: seconds(self.initial_cooldown_period.unwrap_or(0)),
            fallback_replicas: self.fallback().map(|fallback| fallback.replicas),
            created,
        }
    }

    /// `fallback` in the engine's terms; `None` where there is none that can be used.
    pub fn fallback(&self) -> Option<tidemark_engine::fallback::Fallback> {
        let fallback = self.fallback.as_ref()?;
        let behavior = fallback.behavior.as_deref().unwrap_or_default();
        tidemark_engine::fallback::Fallback::new(fallback.failure_threshold, fallback.replicas, behavior)
    }

    /// `advanced.scalingModifiers` in the engine's terms; `None` where no member is set.
    pub fn modifiers(&self) -> Option<Source<'_>> {
        let modifiers = self.advanced.as_ref()?.scaling_modifiers.as_ref()?;
        let source = Source {
            formula: modifiers.formula.as_deref().unwrap_or_default(),
            target: modifiers.target.as_deref().unwrap_or_default(),
            activation_target: modifiers.activation_target.as_deref().unwrap_or_default(),
            metric_type: modifiers.metric_type.as_deref().unwrap_or_default(),
        };
        source.in_use().then_some(source)
    }

    /// The scaling modifiers, compiled for the names of all triggers but those that the HPA reads by itself; `None` where
    /// no member is set.
    ///
    /// # Errors
    /// As [`Modifiers::build`].
    pub fn compile_modifiers(&self) -> Option<Result<Modifiers, Invalid>> {
        let externals = self.triggers.iter().filter(|trigger| !matches!(trigger.type_.as_str(), "cpu" | "memory"));
        let names = externals.filter_map(|trigger| trigger.name.as_deref()).filter(|name| !name.is_empty());
        Some(Modifiers::build(self.modifiers()?, &names.collect::<Vec<_>>()))
    }
}

impl ScaledObject {
    /// Name of the HPA that the object asks for.
    pub fn wanted_hpa_name(&self) -> String {
        let configured = self.spec.advanced.as_ref().and_then(|a| a.horizontal_pod_autoscaler_config.as_ref());
        match configured.and_then(|config| config.name.as_deref()).filter(|name| !name.is_empty()) {
            Some(name) => name.to_owned(),
            None => format!("{DEFAULT_HPA_PREFIX}{}", self.name_any()),
        }
    }
}

fn seconds(count: i32) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tidemark_engine::fallback::Behavior;

    use super::*;

    fn spec(more: Value) -> ScaledObjectSpec {
        let mut spec = json!({"scaleTargetRef": {"name": "web"}, "triggers": []});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn a_fallback_without_a_behavior_is_static() {
        let fallback = spec(json!({"fallback": {"failureThreshold": 3, "replicas": 6}})).fallback().unwrap();
        assert_eq!((fallback.failure_threshold, fallback.replicas, fallback.behavior), (3, 6, Behavior::Static));
        let lower = json!({"fallback": {"failureThreshold": 0, "replicas": 0, "behavior": "currentReplicasIfLower"}});
        assert_eq!(spec(lower).fallback().unwrap().behavior, Behavior::CurrentReplicasIfLower);
    }

    #[test]
    fn a_fallback_that_cannot_be_used_is_none() {
        for (threshold, replicas) in [(-1, 1), (1, -1)] {
            let spec = spec(json!({"fallback": {"failureThreshold": threshold, "replicas": replicas}}));
            assert_eq!(spec.fallback(), None);
            assert_eq!(spec.policy(Timestamp::UNIX_EPOCH).fallback_replicas, None);
        }
        assert_eq!(spec(json!({})).fallback(), None);
    }

    #[test]
    fn modifiers_are_used_when_a_member_is_set() {
        for unused in [json!({}), json!({"advanced": {}}), json!({"advanced": {"scalingModifiers": {"formula": ""}}})] {
            assert_eq!(spec(unused).modifiers(), None);
        }
        let used = spec(json!({"advanced": {"scalingModifiers": {"formula": "a", "target": "2"}}}));
        assert_eq!(used.modifiers(), Some(Source { formula: "a", target: "2", ..Source::default() }));
    }
}
