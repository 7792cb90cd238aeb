//! From the API's HorizontalPodAutoscaler to the engine's.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{
    ExternalMetricSource, HPAScalingRules, HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec, MetricSpec,
    MetricTarget,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use tidemark_engine::hpa::{
    Behavior, Failure, Metric, PerPod, Policy, Resource, ResourceTarget, Rules, Select, Spec, Target,
};
use tidemark_engine::quantity;

/// The engine's view of the spec. A metric that cannot be read here is kept with a target that is never looked at: it gets
/// a failed reading by [`source`].
pub(super) fn spec(spec: &HorizontalPodAutoscalerSpec) -> Spec {
    Spec {
        min_replicas: spec.min_replicas.unwrap_or(1),
        max_replicas: spec.max_replicas,
        metrics: spec.metrics.iter().flatten().map(metric).collect(),
        behavior: spec.behavior.as_ref().map(behavior),
    }
}

/// Where a metric comes from.
pub(super) enum Source<'a> {
    External(&'a ExternalMetricSource),
    Resource(ResourceMetric<'a>),
}

/// A Resource or ContainerResource metric.
pub(super) struct ResourceMetric<'a> {
    pub(super) name: &'a str,
    /// The one container that counts.
    pub(super) container: Option<&'a str>,
    pub(super) utilization: bool,
}

impl ResourceMetric<'_> {
    /// The reason of a condition when it cannot be read.
    pub(super) fn failure(&self) -> &'static str {
        if self.container.is_some() { "FailedGetContainerResourceMetric" } else { "FailedGetResourceMetric" }
    }
}

/// Where to read a metric, or why there is nothing to read.
pub(super) fn source(metric: &MetricSpec) -> Result<Source<'_>, Failure> {
    let failed = |reason, message: String| Err(Failure { reason, message: message.into() });
    if let Some(external) = metric.external.as_ref().filter(|external| external_target(external).is_some()) {
        return Ok(Source::External(external));
    }
    if let Some((name, container, target)) = resource_of(metric).filter(|(.., target)| per_pod(target).is_some()) {
        return Ok(Source::Resource(ResourceMetric {
            name,
            container,
            utilization: matches!(per_pod(target), Some(PerPod::Utilization(_))),
        }));
    }
    match metric.type_.as_str() {
        "External" => {
            failed("InvalidMetricSourceType", "an External metric needs a target value or averageValue above 0".into())
        }
        "Resource" | "ContainerResource" => failed(
            "InvalidMetricSourceType",
            format!("a {} metric needs a target averageUtilization or averageValue above 0", metric.type_),
        ),
        "Pods" => failed("FailedGetPodsMetric", not_served("metrics of pods")),
        "Object" => failed("FailedGetObjectMetric", not_served("metrics of objects")),
        other => failed("InvalidMetricSourceType", format!("unknown metric source type {other:?}")),
    }
}

fn not_served(what: &str) -> String {
    format!("the sandbox serves no {what}, only External, Resource and ContainerResource metrics")
}

fn metric(metric: &MetricSpec) -> Metric {
    if let Some((name, container, target)) = resource_of(metric) {
        let resource = match name {
            "cpu" => Resource::Cpu,
            "memory" => Resource::Memory,
            _ => Resource::Other,
        };
        let per_pod = per_pod(target).unwrap_or(PerPod::Utilization(1));
        let target = ResourceTarget { resource, container: container.is_some(), per_pod };
        return Metric { name: name.into(), target: Target::Resource(target) };
    }
    let name = metric.external.as_ref().map_or(&metric.type_, |external| &external.metric.name);
    let target = metric.external.as_ref().and_then(external_target).unwrap_or(Target::Value(1));
    Metric { name: name.as_str().into(), target }
}

/// Resource, container and target of a metric of pods' resources.
fn resource_of(metric: &MetricSpec) -> Option<(&str, Option<&str>, &MetricTarget)> {
    if let Some(resource) = &metric.resource {
        return Some((&resource.name, None, &resource.target));
    }
    let resource = metric.container_resource.as_ref()?;
    Some((&resource.name, Some(&resource.container), &resource.target))
}

fn per_pod(target: &MetricTarget) -> Option<PerPod> {
    if let Some(value) = &target.average_value {
        return positive(value).map(PerPod::AverageValue);
    }
    target.average_utilization.filter(|percent| *percent > 0).map(PerPod::Utilization)
}

fn external_target(external: &ExternalMetricSource) -> Option<Target> {
    match (&external.target.average_value, &external.target.value) {
        (Some(value), _) => positive(value).map(Target::AverageValue),
        (_, Some(value)) => positive(value).map(Target::Value),
        (None, None) => None,
    }
}

fn positive(value: &Quantity) -> Option<i64> {
    quantity::parse_milli(&value.0).filter(|milli| *milli > 0)
}

/// The API server fills every member; what is missing all the same gets the same defaults.
fn behavior(behavior: &HorizontalPodAutoscalerBehavior) -> Behavior {
    let quarter_minute = Duration::from_secs(15);
    let everything = Policy::Percent { value: 100, period: quarter_minute };
    let up = Rules {
        stabilization: Some(Duration::ZERO),
        select: Select::Max,
        policies: vec![Policy::Pods { value: 4, period: quarter_minute }, everything],
        tolerance: None,
    };
    let down = Rules { stabilization: None, select: Select::Max, policies: vec![everything], tolerance: None };
    Behavior { scale_up: rules(behavior.scale_up.as_ref(), up), scale_down: rules(behavior.scale_down.as_ref(), down) }
}

fn rules(rules: Option<&HPAScalingRules>, default: Rules) -> Rules {
    let Some(rules) = rules else { return default };
    let seconds = |seconds: i32| Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let policies = rules.policies.as_ref().filter(|policies| !policies.is_empty()).map(|policies| {
        let policy = |policy: &k8s_openapi::api::autoscaling::v2::HPAScalingPolicy| {
            let (value, period) = (policy.value, seconds(policy.period_seconds));
            if policy.type_ == "Percent" { Policy::Percent { value, period } } else { Policy::Pods { value, period } }
        };
        policies.iter().map(policy).collect()
    });
    Rules {
        stabilization: rules.stabilization_window_seconds.map(seconds).or(default.stabilization),
        select: match rules.select_policy.as_deref() {
            Some("Min") => Select::Min,
            Some("Disabled") => Select::Disabled,
            _ => Select::Max,
        },
        policies: policies.unwrap_or(default.policies),
        tolerance: rules.tolerance.as_ref().and_then(|tolerance| quantity::parse_f64(&tolerance.0)),
    }
}
