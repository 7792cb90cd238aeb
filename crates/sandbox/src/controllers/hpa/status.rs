//! The status of a HorizontalPodAutoscaler after a pass.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    ExternalMetricStatus, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus,
    MetricStatus, MetricValueStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use tidemark_engine::hpa::Current;
use tidemark_engine::quantity;
use tidemark_engine::verdict::Verdict;

/// Sets a condition; its transition time moves only with its status.
pub(super) fn set(status: &mut HorizontalPodAutoscalerStatus, type_: &str, verdict: &Verdict, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().position(|condition| condition.type_ == type_);
    let mut condition = HorizontalPodAutoscalerCondition {
        type_: type_.to_owned(),
        status: verdict.status.as_str().to_owned(),
        reason: Some(verdict.reason.to_owned()),
        message: Some(verdict.message.clone()),
        last_transition_time: Some(Time(now)),
        observed_generation: None,
    };
    match known.map(|position| &mut conditions[position]) {
        Some(known) => {
            if known.status == condition.status {
                condition.last_transition_time = known.last_transition_time.take();
            }
            *known = condition;
        }
        None => conditions.push(condition),
    }
}

/// The metrics' present values, in the order of the spec; those that failed are left out.
pub(super) fn metrics(spec: &HorizontalPodAutoscalerSpec, current: &[Option<Current>]) -> Option<Vec<MetricStatus>> {
    let metrics: Vec<_> = spec
        .metrics
        .iter()
        .flatten()
        .zip(current)
        .filter_map(|(metric, current)| {
            let quantity = |milli| Some(Quantity(quantity::format_milli(milli)));
            let current = match (*current)? {
                Current::AverageValue(milli) => {
                    MetricValueStatus { average_value: quantity(milli), ..Default::default() }
                }
                Current::Value(milli) => MetricValueStatus { value: quantity(milli), ..Default::default() },
            };
            let external = ExternalMetricStatus { current, metric: metric.external.as_ref()?.metric.clone() };
            Some(MetricStatus { type_: metric.type_.clone(), external: Some(external), ..Default::default() })
        })
        .collect();
    (!metrics.is_empty()).then_some(metrics)
}

/// The status as a merge patch that also takes away what is no longer there.
pub(super) fn patch(status: &HorizontalPodAutoscalerStatus, version: Option<&str>) -> Value {
    let mut value = json!(status);
    for key in ["currentMetrics", "conditions", "currentReplicas", "lastScaleTime", "observedGeneration"] {
        if value.get(key).is_none() {
            value[key] = Value::Null;
        }
    }
    json!({ "metadata": { "resourceVersion": version }, "status": value })
}
