//! The status of a HorizontalPodAutoscaler after a pass.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus, MetricValueStatus, ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use tidemark_engine::hpa::{Current, Decision};
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
pub(super) fn metrics(spec: &HorizontalPodAutoscalerSpec, decision: &Decision) -> Option<Vec<MetricStatus>> {
    let metrics: Vec<_> = spec
        .metrics
        .iter()
        .flatten()
        .enumerate()
        .filter_map(|(i, metric)| {
            let current = (*decision.metrics.get(i)?)?;
            metric_status(metric, value(current, decision.utilization.get(i).copied().flatten()))
        })
        .collect();
    (!metrics.is_empty()).then_some(metrics)
}

fn value(current: Current, utilization: Option<i32>) -> MetricValueStatus {
    let quantity = |milli| Some(Quantity(quantity::format_milli(milli)));
    match current {
        Current::AverageValue(milli) => {
            MetricValueStatus { average_value: quantity(milli), average_utilization: utilization, ..Default::default() }
        }
        Current::Value(milli) => MetricValueStatus { value: quantity(milli), ..Default::default() },
    }
}

fn metric_status(metric: &MetricSpec, current: MetricValueStatus) -> Option<MetricStatus> {
    let mut status = MetricStatus { type_: metric.type_.clone(), ..Default::default() };
    if let Some(external) = &metric.external {
        status.external = Some(ExternalMetricStatus { current, metric: external.metric.clone() });
    } else if let Some(resource) = &metric.resource {
        status.resource = Some(ResourceMetricStatus { current, name: resource.name.clone() });
    } else {
        let resource = metric.container_resource.as_ref()?;
        let (container, name) = (resource.container.clone(), resource.name.clone());
        status.container_resource = Some(ContainerResourceMetricStatus { container, current, name });
    }
    Some(status)
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
