//! From the API's HorizontalPodAutoscaler to the engine's.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{
    ExternalMetricSource, HPAScalingRules, HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec, MetricSpec,
};
use tidemark_engine::hpa::{Behavior, Failure, Metric, Policy, Rules, Select, Spec, Target};
use tidemark_engine::quantity;

/// The engine's view of the spec. Metrics that cannot be read here are kept with a target that is never looked at: each
/// gets a failed reading by [`readable`].
pub(super) fn spec(spec: &HorizontalPodAutoscalerSpec) -> Spec {
    Spec {
        min_replicas: spec.min_replicas.unwrap_or(1),
        max_replicas: spec.max_replicas,
        metrics: spec.metrics.iter().flatten().map(metric).collect(),
        behavior: spec.behavior.as_ref().map(behavior),
    }
}

/// The External metric to read, or why there is nothing to read.
pub(super) fn readable(metric: &MetricSpec) -> Result<&ExternalMetricSource, Failure> {
    let failed = |reason, message: String| Err(Failure { reason, message: message.into() });
    match (metric.type_.as_str(), &metric.external) {
        ("External", Some(external)) if target(external).is_some() => Ok(external),
        ("External", _) => failed(
            "InvalidMetricSourceType",
            "an External metric needs a target value or averageValue above 0".to_owned(),
        ),
        ("Resource", _) => failed("FailedGetResourceMetric", not_measured("resource metrics")),
        ("ContainerResource", _) => failed("FailedGetContainerResourceMetric", not_measured("resource metrics")),
        ("Pods", _) => failed("FailedGetPodsMetric", not_measured("metrics of pods")),
        ("Object", _) => failed("FailedGetObjectMetric", not_measured("metrics of objects")),
        (other, _) => failed("InvalidMetricSourceType", format!("unknown metric source type {other:?}")),
    }
}

fn not_measured(what: &str) -> String {
    format!("the sandbox measures no {what}, only External metrics are served")
}

fn metric(metric: &MetricSpec) -> Metric {
    let name = match (&metric.external, &metric.resource, &metric.container_resource) {
        (Some(external), ..) => external.metric.name.as_str(),
        (_, Some(resource), _) => resource.name.as_str(),
        (.., Some(resource)) => resource.name.as_str(),
        _ => metric.type_.as_str(),
    };
    let target = metric.external.as_ref().and_then(target).unwrap_or(Target::Value(1));
    Metric { name: name.into(), target }
}

fn target(external: &ExternalMetricSource) -> Option<Target> {
    let milli = |value: &k8s_openapi::apimachinery::pkg::api::resource::Quantity| {
        quantity::parse_milli(&value.0).filter(|milli| *milli > 0)
    };
    match (&external.target.average_value, &external.target.value) {
        (Some(value), _) => milli(value).map(Target::AverageValue),
        (_, Some(value)) => milli(value).map(Target::Value),
        (None, None) => None,
    }
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
