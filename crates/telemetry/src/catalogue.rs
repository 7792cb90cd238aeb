//! Every metric, declared once: its names on both sides, its type, its unit, its labels, and what it says.
//!
//! The names are KEDA's, those of its documentation as well as those of its source where they differ, because users'
//! dashboards and alerts ask for them. Tidemark's own begin with `tidemark`, and what every process tells of itself has
//! the names that all programs have for it.

pub mod operator;
pub mod process;
pub mod services;

use crate::series::{Kind, Object, Scaler};
use crate::usage::Usage;

/// How a metric's value moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instrument {
    /// A value that goes up and down.
    Gauge,
    /// A number of things that are there: a sum over OTLP, a gauge for Prometheus.
    UpDownCounter,
    /// A number that only grows.
    Counter,
    /// A distribution over [`Metric::bounds`].
    Histogram,
}

impl Instrument {
    /// The type as Prometheus calls it.
    pub fn prometheus(self) -> &'static str {
        match self {
            Self::Gauge | Self::UpDownCounter => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// What a label tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Namespace,
    /// The ScaledObject's or ScaledJob's name.
    Object,
    /// `scaledobject` or `scaledjob`.
    Kind,
    /// `ScaledObject` or `ScaledJob`.
    ResourceType,
    /// `true` or `false`.
    IsScaledObject,
    /// `triggers[].name`, or KEDA's name of the trigger type's scaler.
    Scaler,
    /// `triggers[].name`, empty where it has none.
    TriggerName,
    TriggerType,
    /// 0-based position in `spec.triggers`.
    Index,
    /// The external metric's name.
    Metric,
    /// The kind of a custom resource, such as `scaled_object`.
    Resource,
    /// The kind of an error, such as `authentication`.
    ErrorKind,
    /// The status code of an HTTP reply, or `error`.
    StatusCode,
    /// Whether the trigger takes nothing for 0: `true` or `false`.
    IgnoresNull,
    Version,
    Commit,
    /// The toolchain that built the program.
    Toolchain,
    OperatingSystem,
    Architecture,
    /// What stands at this place among the values that were given when it was counted.
    At(usize),
}

impl What {
    /// Over OTLP its values are booleans.
    pub fn is_boolean(self) -> bool {
        matches!(self, Self::IsScaledObject | Self::IgnoresNull)
    }
}

/// A label under its names; none where that side does not have it.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    pub what: What,
    pub prometheus: Option<&'static str>,
    /// Over OTLP, for a ScaledObject's series and for those of nothing in particular.
    pub otlp: Option<&'static str>,
    /// Over OTLP, for a ScaledJob's series.
    pub otlp_of_job: Option<&'static str>,
}

const fn label(what: What, name: &'static str) -> Label {
    Label { what, prometheus: Some(name), otlp: Some(name), otlp_of_job: Some(name) }
}

/// A metric's name over OTLP, its unit, and what the value is multiplied by to be in that unit.
#[derive(Clone, Copy, Debug)]
pub struct OtlpName {
    pub name: &'static str,
    pub unit: &'static str,
    pub factor: f64,
}

const fn plain(name: &'static str) -> OtlpName {
    OtlpName { name, unit: "", factor: 1.0 }
}

const fn seconds(name: &'static str) -> OtlpName {
    OtlpName { name, unit: "s", factor: 1.0 }
}

/// Seconds told in milliseconds, under a name that KEDA calls deprecated and still sends.
const fn milliseconds(name: &'static str) -> OtlpName {
    OtlpName { name, unit: "", factor: 1000.0 }
}

/// A metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name for Prometheus; none where only OTLP has it.
    pub prometheus: Option<&'static str>,
    /// Its names over OTLP; empty where only Prometheus has it.
    pub otlp: &'static [OtlpName],
    pub instrument: Instrument,
    /// Over OTLP its values are whole numbers.
    pub integer: bool,
    /// What it says, in a sentence.
    pub help: &'static str,
    pub labels: &'static [Label],
    /// Upper bounds of a distribution; empty for everything else.
    pub bounds: &'static [f64],
    /// Where its values are.
    pub source: Source,
}

impl Metric {
    /// A metric for Prometheus alone, whose labels have the values that are given when it is counted.
    const fn counted(
        name: &'static str,
        instrument: Instrument,
        labels: &'static [Label],
        bounds: &'static [f64],
        help: &'static str,
    ) -> Self {
        Self {
            prometheus: Some(name),
            otlp: &[],
            instrument,
            integer: false,
            help,
            labels,
            bounds,
            source: Source::Counted,
        }
    }
}

/// Where a metric's values are.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    Build,
    /// One for each metric of each trigger that has one.
    Scaler(fn(&Scaler) -> Option<f64>),
    /// One for each metric of each trigger and each kind of error that it has had.
    ErrorKinds,
    /// One for each object of the kind, or of any.
    Object(Option<Kind>, fn(&Object) -> Option<f64>),
    Resources,
    Triggers,
    HttpRequests,
    /// Of all triggers of a type together.
    HttpDurations,
    /// Of each trigger.
    HttpDurationsByTrigger,
    EmptyResponses,
    Lost,
    /// Where they are counted under the metric's own name.
    Counted,
    /// What the process uses of the machine.
    Usage(fn(&Usage) -> Option<f64>),
}

/// Upper bounds of the duration of a request to an event source, in seconds.
pub const DURATION_BOUNDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Upper bounds of the duration of a call between operator and metrics server, in seconds.
pub const CALL_BOUNDS: &[f64] = &[0.001, 0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0, 120.0];

pub use operator::OPERATOR;
pub use services::{METRICS_SERVER, WEBHOOKS};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LISTS: [&[&Metric]; 3] = [OPERATOR, WEBHOOKS, METRICS_SERVER];

    #[test]
    fn the_page_about_metrics_names_each_of_them_and_no_other() {
        let page = std::fs::read_to_string("../../docs/metrics.md").unwrap();
        let quoted: BTreeSet<&str> = page.split('`').skip(1).step_by(2).collect();
        let metrics = LISTS.iter().copied().flatten();
        let names =
            metrics.flat_map(|metric| metric.prometheus.into_iter().chain(metric.otlp.iter().map(|otlp| otlp.name)));
        let names: BTreeSet<&str> = names.collect();
        let unnamed: Vec<_> = names.difference(&quoted).collect();
        assert!(unnamed.is_empty(), "docs/metrics.md does not name {unnamed:?}");
        let ours = |name: &&&str| ["keda_", "keda.", "tidemark_", "tidemark."].iter().any(|own| name.starts_with(own));
        let unknown: Vec<_> =
            quoted.difference(&names).filter(ours).filter(|name| !name.contains("cloudevent")).collect();
        assert!(unknown.is_empty(), "docs/metrics.md names {unknown:?}, which there are not");
    }

    #[test]
    fn no_name_means_two_things_and_every_distribution_has_bounds() {
        for list in LISTS {
            let mut seen = BTreeSet::new();
            for metric in list {
                let name = metric.prometheus.unwrap_or_default();
                // Only one of the two is told at a time.
                let twin = matches!(metric.source, Source::HttpDurationsByTrigger);
                assert!(twin || seen.insert(name), "{name}");
                assert_eq!(metric.bounds.is_empty(), metric.instrument != Instrument::Histogram, "{name}");
                assert_eq!(
                    name.ends_with("_total"),
                    metric.instrument == Instrument::Counter
                        || matches!(metric.source, Source::Resources | Source::Triggers),
                    "{name}"
                );
            }
        }
    }
}
