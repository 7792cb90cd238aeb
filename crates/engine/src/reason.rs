//! Why a decision is what it is. Everything that shows a user "why" prints these.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::quantity::Decimal;

/// One step of the argument that led to a decision. `Display` is the sentence a user reads.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// A trigger's value is above its activation threshold.
    TriggerActive { metric: Arc<str>, value: f64 },
    /// A trigger's value is not above its activation threshold.
    TriggerInactive { metric: Arc<str>, value: f64 },
    /// A trigger could not be read; the text carries the kind of the error and no secret.
    TriggerFailed { metric: Arc<str>, error: Arc<str> },
    /// A trigger has not been read yet.
    TriggerUnknown { metric: Arc<str> },
    /// All triggers are cpu or memory triggers, which leave the workload to the HPA.
    ResourceTriggersOnly,
    /// The annotation `force-activation` is set.
    Forced,
    /// The object is paused; `replicas` is the count of `paused-replicas` if given.
    Paused { replicas: Option<i32> },
    /// Scaling in (to zero or idle) is paused by annotation.
    ScaleInPaused,
    /// Scaling out (from zero or idle) is paused by annotation.
    ScaleOutPaused,
    /// All triggers are quiet, but the cooldown runs until then.
    Cooldown { until: Timestamp },
    /// All triggers are quiet and never were active; the initial cooldown runs until then.
    InitialCooldown { until: Timestamp },
    /// An unread or failing trigger forbids scaling to zero or idle.
    DeactivationNeedsEveryTrigger,
    /// Nothing is active and a trigger fails; the replicas stay until the fallback takes over.
    AwaitsFallback,
    /// Scale from zero or idle because something is active.
    Activate { from: i32, to: i32 },
    /// Scale to zero or idle because nothing is active and the cooldown is over.
    Deactivate { from: i32, to: i32 },
    /// The workload is below the minimum.
    RaiseToMinimum { from: i32, to: i32 },
    /// Between minimum and maximum the HorizontalPodAutoscaler decides.
    LeftToHpa { replicas: i32 },
    /// Nothing is active and the workload rests at its floor.
    AtRest { replicas: i32 },
    /// The replicas of the workload could not be read.
    ReplicasUnknown,

    /// The HPA leaves a workload at zero alone.
    HpaDisabledAtZero,
    /// The HPA lowers the workload to the maximum without asking for metrics.
    HpaAboveMaximum { from: i32, to: i32 },
    /// The HPA raises the workload to the minimum without asking for metrics.
    HpaBelowMinimum { from: i32, to: i32 },
    /// What one metric asks for. `usage` and `target` are in thousandths.
    HpaProposal { metric: Arc<str>, usage: i64, target: i64, per_replica: bool, within_tolerance: bool, replicas: i32 },
    /// The HPA could not use a metric.
    HpaMetricUnavailable { metric: Arc<str>, error: Arc<str> },
    /// No metric could be used, so the HPA changes nothing.
    HpaNoMetric,
    /// The metrics that work ask for fewer replicas, which a failing one forbids.
    HpaScaleInNeedsEveryMetric { wanted: i32 },
    /// A recent lower recommendation holds the replicas down.
    HpaScaleUpStabilized { wanted: i32, to: i32, window: Duration },
    /// A recent higher recommendation holds the replicas up.
    HpaScaleDownStabilized { wanted: i32, to: i32, window: Duration },
    /// More replicas than may be added at once.
    HpaScaleUpLimited { wanted: i32, to: i32 },
    /// More replicas than may be removed at once.
    HpaScaleDownLimited { wanted: i32, to: i32 },
    /// The maximum caps the wish.
    HpaAtMaximum { wanted: i32, to: i32 },
    /// The minimum lifts the wish.
    HpaAtMinimum { wanted: i32, to: i32 },
    /// The HPA changes the replicas.
    HpaScales { from: i32, to: i32 },
    /// The HPA leaves the replicas as they are.
    HpaKeeps { replicas: i32 },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TriggerActive { metric, value } => write!(f, "{metric} is active at {value}"),
            Self::TriggerInactive { metric, value } => write!(f, "{metric} is quiet at {value}"),
            Self::TriggerFailed { metric, error } => write!(f, "{metric} could not be read: {error}"),
            Self::TriggerUnknown { metric } => write!(f, "{metric} has not been read yet"),
            Self::ResourceTriggersOnly => f.write_str("cpu and memory triggers alone keep the object active"),
            Self::Forced => f.write_str("activation is forced by annotation"),
            Self::Paused { replicas: Some(n) } => write!(f, "paused at {} by annotation", Replicas(*n)),
            Self::Paused { replicas: None } => f.write_str("paused by annotation"),
            Self::ScaleInPaused => f.write_str("scaling in is paused by annotation"),
            Self::ScaleOutPaused => f.write_str("scaling out is paused by annotation"),
            Self::Cooldown { until } => write!(f, "cooling down until {until:.0}"),
            Self::InitialCooldown { until } => write!(f, "initial cooldown until {until:.0}"),
            Self::DeactivationNeedsEveryTrigger => {
                f.write_str("not scaled down: every trigger must be read and quiet first")
            }
            Self::AwaitsFallback => f.write_str("a trigger fails: the replicas stay until the fallback takes over"),
            Self::Activate { from, to } => write!(f, "activated: {from} to {}", Replicas(*to)),
            Self::Deactivate { from, to } => write!(f, "deactivated: {from} to {}", Replicas(*to)),
            Self::RaiseToMinimum { from, to } => write!(f, "raised to the minimum: {from} to {}", Replicas(*to)),
            Self::LeftToHpa { replicas } => write!(f, "at {} the HPA decides", Replicas(*replicas)),
            Self::AtRest { replicas } => write!(f, "at rest with {}", Replicas(*replicas)),
            Self::ReplicasUnknown => f.write_str("the replicas of the scale target could not be read"),
            _ => self.fmt_hpa(f),
        }
    }
}

impl Reason {
    fn fmt_hpa(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HpaDisabledAtZero => f.write_str("the HPA does nothing at 0 replicas"),
            Self::HpaAboveMaximum { from, to } => write!(f, "above the maximum: {from} to {}", Replicas(*to)),
            Self::HpaBelowMinimum { from, to } => write!(f, "below the minimum: {from} to {}", Replicas(*to)),
            Self::HpaProposal { metric, usage, target, per_replica, within_tolerance, replicas } => {
                let (usage, target, replicas) = (Decimal(*usage), Decimal(*target), Replicas(*replicas));
                let each = if *per_replica { " per replica" } else { "" };
                let near = if *within_tolerance { ", near enough to stay at" } else { ", which asks for" };
                write!(f, "{metric} is {usage} for a target of {target}{each}{near} {replicas}")
            }
            Self::HpaMetricUnavailable { metric, error } => write!(f, "the HPA got no {metric}: {error}"),
            Self::HpaNoMetric => f.write_str("without a usable metric the HPA changes nothing"),
            Self::HpaScaleInNeedsEveryMetric { wanted } => {
                write!(f, "not lowered to {}: a metric that failed might ask for more", Replicas(*wanted))
            }
            Self::HpaScaleUpStabilized { wanted, to, window } => {
                write!(f, "{to} instead of {}: fewer were wanted in the last {} s", Replicas(*wanted), window.as_secs())
            }
            Self::HpaScaleDownStabilized { wanted, to, window } => {
                write!(f, "{to} instead of {}: more were wanted in the last {} s", Replicas(*wanted), window.as_secs())
            }
            Self::HpaScaleUpLimited { wanted, to } => {
                write!(f, "{to} instead of {}: no faster scale-up is allowed", Replicas(*wanted))
            }
            Self::HpaScaleDownLimited { wanted, to } => {
                write!(f, "{to} instead of {}: no faster scale-down is allowed", Replicas(*wanted))
            }
            Self::HpaAtMaximum { wanted, to } => write!(f, "{to} instead of {}: the maximum", Replicas(*wanted)),
            Self::HpaAtMinimum { wanted, to } => write!(f, "{to} instead of {}: the minimum", Replicas(*wanted)),
            Self::HpaScales { from, to } => write!(f, "scaled by the HPA: {from} to {}", Replicas(*to)),
            Self::HpaKeeps { replicas } => write!(f, "the HPA keeps {}", Replicas(*replicas)),
            // Every other variant is written by `Display` itself.
            _ => Ok(()),
        }
    }
}

/// A count of replicas in words.
struct Replicas(i32);

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} replica{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}
