//! `spec.advanced.horizontalPodAutoscalerConfig.behavior`: the fields of autoscaling/v2's behavior.
//!
//! Own types, because the core types lose fields that they do not know and have no descriptions for the schema. The schema
//! itself is the API server's own ([`crate::crds`]).

use k8s_openapi::api::autoscaling::v2 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::UnknownFields;

/// How fast and by how much the HPA may scale in each direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HpaBehavior {
    /// Rules for scaling in. Without them: a window of 300 s, and down to the minimum at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_down: Option<ScalingRules>,
    /// Rules for scaling out. Without them: no window, the larger of 4 pods and 100 % per 15 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_up: Option<ScalingRules>,
    /// Fields of other versions.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// Rules for one direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingRules {
    /// Bounds on the change within a period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<Vec<ScalingPolicy>>,
    /// Which policy counts: `Max`, `Min` or `Disabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select_policy: Option<String>,
    /// Seconds over which past recommendations are considered, 0 to 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stabilization_window_seconds: Option<i32>,
    /// Deviation of the metric from its target within which nothing changes, such as `0.05`. Without it, 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub tolerance: Option<IntOrString>,
    /// Fields of other versions.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// One bound on the change within a period.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingPolicy {
    /// Seconds, 1 to 1800.
    pub period_seconds: i32,
    /// `Pods` or `Percent`.
    #[serde(rename = "type")]
    pub type_: String,
    /// The change allowed within the period, above 0.
    pub value: i32,
    /// Fields of other versions.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

impl From<HpaBehavior> for core::HorizontalPodAutoscalerBehavior {
    fn from(behavior: HpaBehavior) -> Self {
        Self { scale_down: behavior.scale_down.map(Into::into), scale_up: behavior.scale_up.map(Into::into) }
    }
}

impl From<ScalingRules> for core::HPAScalingRules {
    fn from(rules: ScalingRules) -> Self {
        Self {
            policies: rules.policies.map(|policies| policies.into_iter().map(Into::into).collect()),
            select_policy: rules.select_policy,
            stabilization_window_seconds: rules.stabilization_window_seconds,
            tolerance: rules.tolerance.map(|tolerance| match tolerance {
                IntOrString::Int(number) => Quantity(number.to_string()),
                IntOrString::String(text) => Quantity(text),
            }),
        }
    }
}

impl From<ScalingPolicy> for core::HPAScalingPolicy {
    fn from(policy: ScalingPolicy) -> Self {
        Self { period_seconds: policy.period_seconds, type_: policy.type_, value: policy.value }
    }
}
