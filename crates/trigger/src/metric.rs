//! Metric names, targets and values as the external metrics API shows them.

use std::sync::Arc;

use tidemark_engine::quantity;

use crate::{ParseError, TriggerInput};

/// How an external metric's target is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MetricType {
    /// Target per replica.
    #[default]
    AverageValue,
    /// Target in all.
    Value,
}

impl MetricType {
    /// The name in an HPA's metric target.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AverageValue => "AverageValue",
            Self::Value => "Value",
        }
    }
}

/// What a metric of a trigger looks like to the HorizontalPodAutoscaler.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricSpec {
    /// An external metric.
    External {
        /// The full name, `s<index>-<body>`.
        name: Arc<str>,
        metric_type: MetricType,
        /// The target in thousandths.
        target_milli: i64,
    },
    /// A resource of the scale target's pods. The HPA reads it by itself; nothing is fetched for it.
    Resource {
        resource: Resource,
        /// Only the containers of this name count; `None` for whole pods.
        container: Option<Arc<str>>,
        target: ResourceTarget,
    },
}

/// A resource that pods use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    Cpu,
    Memory,
}

impl Resource {
    /// The name in an HPA's metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }
}

/// The target of a resource metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceTarget {
    /// Per cent of what the pods request.
    Utilization(i32),
    /// Per pod, as a Kubernetes quantity such as `500m` or `128Mi`.
    AverageValue(Arc<str>),
}

impl MetricSpec {
    /// The name of an external metric; `None` for a resource metric, which has none of its own.
    pub fn external_name(&self) -> Option<&Arc<str>> {
        match self {
            Self::External { name, .. } => Some(name),
            Self::Resource { .. } => None,
        }
    }

    /// The kind of metric in the HPA's spec.
    pub fn source(&self) -> &'static str {
        match self {
            Self::External { .. } => "External",
            Self::Resource { container: None, .. } => "Resource",
            Self::Resource { container: Some(_), .. } => "ContainerResource",
        }
    }
}

/// The metric type of a trigger that yields an external metric: `AverageValue` when unset.
///
/// # Errors
/// `Utilization`, which only resource metrics have, or a text that is no metric type.
pub fn metric_type(input: &TriggerInput) -> Result<MetricType, ParseError> {
    const ALLOWED: &str = "allowed values are 'Value' or 'AverageValue'";
    let cause = match input.metric_type.as_deref() {
        None | Some("" | "AverageValue") => return Ok(MetricType::AverageValue),
        Some("Value") => return Ok(MetricType::Value),
        Some("Utilization") => {
            format!("'Utilization' metric type is unsupported for external metrics, {ALLOWED}")
        }
        Some(other) => format!("unknown metric type '{other}', {ALLOWED}"),
    };
    Err(ParseError::new("metricType", format!("error getting scaler metric type: {cause}")))
}

/// A target or value in thousandths: three decimals, correctly rounded; NaN, infinities and negative numbers give 0,
/// what is too large is capped.
pub fn target_milli(target: f64) -> i64 {
    quantity::from_f64(target)
}

/// Replaces each of `/ . : % ( )` by `-`, as KEDA does with metric names.
pub fn normalize(body: &str) -> String {
    body.chars().map(|c| if matches!(c, '/' | '.' | ':' | '%' | '(' | ')') { '-' } else { c }).collect()
}

/// The full name of a trigger's external metric: `s<index>-` and the normalised body.
pub fn external_name(index: usize, body: &str) -> Arc<str> {
    format!("s{index}-{}", normalize(body)).into()
}

/// A metric's name without the `s<index>-` of its trigger; `None` when it is not the name of that trigger's metric.
pub fn remove_index(name: &str, index: usize) -> Option<&str> {
    name.strip_prefix('s')?.strip_prefix(&index.to_string())?.strip_prefix('-')
}

/// Whether two metric names are the same, case apart, as the metrics API compares them.
pub fn same_name(a: &str, b: &str) -> bool {
    a.chars().flat_map(char::to_lowercase).eq(b.chars().flat_map(char::to_lowercase))
}
