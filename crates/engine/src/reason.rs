//! Why a decision is what it is. Everything that shows a user "why" prints these.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::hpa::{PerPod, PodsOutcome};
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
    /// A trigger's source told, unasked, that it is active.
    TriggerAnnounced { metric: Arc<str> },
    /// A trigger could not be read too many times in a row, and the fallback stands in. `milli` is the value, in
    /// thousandths, by which the HPA is asked for the replicas.
    TriggerFallback { metric: Arc<str>, replicas: i32, milli: Option<i64>, failures: u32, error: Arc<str> },
    /// A trigger's value, for the formula, which knows it by its name.
    TriggerValue { metric: Arc<str>, name: Option<Arc<str>>, value: f64 },
    /// A trigger could not be read too many times in a row, and is nil to the formula.
    TriggerNil { metric: Arc<str>, failures: u32, error: Arc<str> },
    /// The result of the formula, and whether it is above the activation target.
    CompositeValue { value: f64, active: bool, activation: f64 },
    /// The composite metric's value by the fallback, and whether it is above the activation target.
    CompositeFallback { value: f64, replicas: i32, active: bool, activation: f64, error: Arc<str> },
    /// The formula's result is no value of a metric and counts as 0.
    CompositeClamped { result: f64 },
    /// The composite metric has no value.
    CompositeFailed { error: Arc<str> },
    /// The composite metric needs every trigger read.
    CompositeUnknown,
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

    /// Fewer Jobs run than the minimum.
    JobsBelowMinimum { running: i64, minimum: i64, start: i64 },
    /// What the queues ask for, beside the Jobs that there are.
    JobsWanted { queue: i64, jobs: i64, running: i64, pending: i64, start: i64 },
    /// No trigger asks for Jobs.
    JobsNotWanted,
    /// The Jobs could not be listed.
    JobsNotCounted,

    /// The HPA leaves a workload at zero alone.
    HpaDisabledAtZero,
    /// The HPA lowers the workload to the maximum without asking for metrics.
    HpaAboveMaximum { from: i32, to: i32 },
    /// The HPA raises the workload to the minimum without asking for metrics.
    HpaBelowMinimum { from: i32, to: i32 },
    /// What one metric asks for. `usage` and `target` are in thousandths.
    HpaProposal { metric: Arc<str>, usage: i64, target: i64, per_replica: bool, within_tolerance: bool, replicas: i32 },
    /// What one metric of the pods asks for. `usage` is in the unit of `target`: per cent of what the pods request, or
    /// thousandths per pod. `unready` and `missing` pods are there but not in the usage.
    HpaPodsProposal {
        metric: Arc<str>,
        usage: i64,
        target: PerPod,
        unready: usize,
        missing: usize,
        outcome: PodsOutcome,
        replicas: i32,
    },
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
            Self::TriggerAnnounced { metric } => write!(f, "{metric} was announced active by its source"),
            Self::TriggerFallback { metric, replicas, milli, failures, error } => {
                let replicas = Replicas(*replicas);
                write!(
                    f,
                    "{metric} failed {} in a row ({error}): the fallback of {replicas} stands in",
                    Times(*failures)
                )?;
                milli.map_or(Ok(()), |milli| write!(f, " with {}", Decimal(milli)))
            }
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
            _ => self.fmt_composite_or_jobs(f),
        }
    }
}

impl Reason {
    fn fmt_composite_or_jobs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TriggerValue { metric, name: None, value } => {
                write!(f, "{metric} is {value} (without a name for the formula)")
            }
            Self::TriggerValue { metric, name: Some(name), value } => {
                write!(f, "{metric} is {value} ({name} in the formula)")
            }
            Self::TriggerNil { metric, failures, error } => {
                write!(f, "{metric} failed {} in a row ({error}): nil in the formula", Times(*failures))
            }
            Self::CompositeValue { value, active, activation } => {
                write!(f, "the formula gives {value}, {}above the activation target of {activation}", not(!active))
            }
            Self::CompositeFallback { value, replicas, active, activation, error } => {
                let (replicas, not) = (Replicas(*replicas), not(!active));
                write!(
                    f,
                    "{error}: the fallback of {replicas} gives {value}, {not}above the activation target of {activation}"
                )
            }
            Self::CompositeClamped { result } => write!(f, "the formula's result of {result} counts as 0"),
            Self::CompositeFailed { error } => write!(f, "there is no composite value: {error}"),
            Self::CompositeUnknown => f.write_str("the formula waits until every trigger has been read"),
            Self::JobsBelowMinimum { running, minimum, start } => {
                write!(f, "{} of at least {minimum}: {} started", Jobs(*running), Jobs(*start))
            }
            Self::JobsWanted { queue, jobs, running, pending, start } => {
                let (jobs, start) = (Jobs(*jobs), Jobs(*start));
                write!(
                    f,
                    "a queue of {queue} asks for {jobs}; {running} unfinished, {pending} of them pending: {start} started"
                )
            }
            Self::JobsNotWanted => f.write_str("no trigger is active: no job is started"),
            Self::JobsNotCounted => f.write_str("the jobs could not be listed: none is started"),
            _ => self.fmt_hpa(f),
        }
    }

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
            _ => self.fmt_pods(f),
        }
    }

    fn fmt_pods(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every other variant has been written before.
        let Self::HpaPodsProposal { metric, usage, target, unready, missing, outcome, replicas } = self else {
            return Ok(());
        };
        let replicas = Replicas(*replicas);
        match target {
            PerPod::Utilization(target) => {
                write!(f, "{metric} is {usage} % of the requests for a target of {target} %")?;
            }
            PerPod::AverageValue(target) => {
                write!(f, "{metric} is {} per pod for a target of {}", Decimal(*usage), Decimal(*target))?;
            }
        }
        f.write_str(match outcome {
            PodsOutcome::Wanted => ", which asks for",
            PodsOutcome::WithinTolerance => ", near enough to stay at",
            PodsOutcome::Undecided => ", which the pods that do not count might reverse: stays at",
        })?;
        write!(f, " {replicas}")?;
        match (*unready, *missing) {
            (0, 0) => Ok(()),
            (unready, 0) => write!(f, " ({} not ready)", Pods(unready)),
            (0, missing) => write!(f, " ({} without metrics)", Pods(missing)),
            (unready, missing) => write!(f, " ({} not ready, {missing} without metrics)", Pods(unready)),
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

/// A count of pods in words.
struct Pods(usize);

impl fmt::Display for Pods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pod{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// A count of Jobs in words.
struct Jobs(i64);

impl fmt::Display for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} job{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// How often something happened, in words.
struct Times(u32);

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} time{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

fn not(negated: bool) -> &'static str {
    if negated { "not " } else { "" }
}
