//! The algorithm of the HorizontalPodAutoscaler (autoscaling/v2 of Kubernetes 1.36) for External, Resource and
//! ContainerResource metrics.
//!
//! One call of [`decide_all`] is one pass of kube-controller-manager's HPA controller: same arithmetic, same order, same
//! conditions. What the controller does around it (reading `/scale`, pods and metrics, writing replicas, status and
//! events) is its own.

mod condition;
mod metrics;
mod normalise;
#[cfg(test)]
mod properties;
mod resource;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::metric;
use crate::reason::Reason;
use crate::verdict::{Status, Verdict};

use metrics::Situation;

pub use condition::{Health, hpa_health};
pub use resource::{PerPod, Phase, Pod, PodTiming, Ready, Resource, ResourceTarget, Usage};

/// What an HPA asks for, defaults applied as the API server does.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// `spec.minReplicas`, at least 1.
    pub min_replicas: i32,
    /// `spec.maxReplicas`, at least the minimum.
    pub max_replicas: i32,
    /// `spec.metrics`.
    pub metrics: Vec<Metric>,
    /// `spec.behavior`; without it other limits hold, see [`decide_all`].
    pub behavior: Option<Behavior>,
}

/// A metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name for the reasons.
    pub name: Arc<str>,
    pub target: Target,
}

/// A metric's target, above 0, which also tells its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Of an External metric, per replica, in thousandths.
    AverageValue(i64),
    /// Of an External metric, in all, in thousandths.
    Value(i64),
    /// Of a Resource or ContainerResource metric.
    Resource(ResourceTarget),
}

impl From<metric::Target> for Target {
    fn from(target: metric::Target) -> Self {
        match target {
            metric::Target::AverageValue(milli) => Self::AverageValue(milli),
            metric::Target::Value(milli) => Self::Value(milli),
        }
    }
}

/// `spec.behavior`, every member filled as the API server does.
#[derive(Clone, Debug, PartialEq)]
pub struct Behavior {
    pub scale_up: Rules,
    pub scale_down: Rules,
}

impl Default for Behavior {
    /// What the API server makes of an empty `behavior`.
    fn default() -> Self {
        let period = Duration::from_secs(15);
        let double = Policy::Percent { value: 100, period };
        Self {
            scale_up: Rules {
                stabilization: Some(Duration::ZERO),
                select: Select::Max,
                policies: vec![Policy::Pods { value: 4, period }, double],
                tolerance: None,
            },
            scale_down: Rules { stabilization: None, select: Select::Max, policies: vec![double], tolerance: None },
        }
    }
}

/// The rules of one direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// `stabilizationWindowSeconds`. Unset: none upwards, the controller's own window downwards.
    pub stabilization: Option<Duration>,
    /// `selectPolicy`.
    pub select: Select,
    /// `policies`, at least one.
    pub policies: Vec<Policy>,
    /// `tolerance`; the controller's own when unset.
    pub tolerance: Option<f64>,
}

/// Which policy counts when there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// The one that allows the largest change.
    Max,
    /// The one that allows the smallest change.
    Min,
    /// No change in this direction.
    Disabled,
}

/// How much may change within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// So many pods, above 0.
    Pods { value: i32, period: Duration },
    /// So many per cent of the replicas at the start of the period, above 0.
    Percent { value: i32, period: Duration },
}

/// The controller's own settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Controls {
    /// `--horizontal-pod-autoscaler-downscale-stabilization`, 5 minutes.
    pub downscale_stabilization: Duration,
    /// `--horizontal-pod-autoscaler-tolerance`, 0.1.
    pub tolerance: f64,
}

impl Default for Controls {
    fn default() -> Self {
        Self { downscale_stabilization: Duration::from_secs(300), tolerance: 0.1 }
    }
}

/// What was found of the scale target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// `spec.replicas` of `/scale`.
    pub spec_replicas: i32,
    /// `status.replicas` of `/scale`.
    pub status_replicas: i32,
    /// Pods of the selector that run and are ready.
    pub ready_pods: i32,
    /// All pods of the selector.
    pub pods: i32,
}

/// What reading an External metric gave: the sum of its items in thousandths.
pub type Reading = Result<i64, Failure>;

/// What was measured for a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Measured {
    /// For an External metric.
    External(Reading),
    /// For a Resource or ContainerResource metric: all pods of the selector, with their samples.
    Pods(Result<Vec<Pod>, Failure>),
}

impl From<Reading> for Measured {
    fn from(reading: Reading) -> Self {
        Self::External(reading)
    }
}

/// How the proposal of a metric of pods came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodsOutcome {
    /// The usage asks for it.
    Wanted,
    /// The usage is near enough to the target for no change.
    WithinTolerance,
    /// Pods that do not count might turn the direction around, so nothing changes.
    Undecided,
}

/// Why a metric cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Reason of the condition, such as `FailedGetExternalMetric`.
    pub reason: &'static str,
    /// The cause.
    pub message: Arc<str>,
}

/// What the controller remembers of one HPA between passes. It starts empty with the controller.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// What earlier passes wanted before stabilization.
    recommendations: Vec<Sample>,
    /// Replicas that were added.
    scale_up_events: Vec<Sample>,
    /// Replicas that were removed.
    scale_down_events: Vec<Sample>,
}

/// A number of replicas at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    replicas: i32,
    time: Timestamp,
}

/// A metric's present value as the HPA's status shows it, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Current {
    /// Per replica.
    AverageValue(i64),
    /// In all.
    Value(i64),
}

/// The outcome of a pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The replicas that the target is to have. Equal to those that it has when nothing is to be done.
    pub desired: i32,
    /// `None` leaves the condition as it is.
    pub scaling_active: Option<Verdict>,
    /// Whether scaling is possible. The caller replaces it by the outcome of a rescale. Never `None`.
    pub able_to_scale: Option<Verdict>,
    /// `None` leaves the condition as it is.
    pub scaling_limited: Option<Verdict>,
    /// The metrics' present values in the order of the spec, `None` for one that failed; empty when none was needed.
    pub metrics: Vec<Option<Current>>,
    /// Beside `metrics`: the present utilization in per cent of a metric whose target is [`PerPod::Utilization`].
    pub utilization: Vec<Option<i32>>,
    /// Why the metrics led to no decision: cause of an event `FailedComputeMetricsReplicas`.
    pub failure: Option<Failure>,
    /// To be handed to the next pass.
    pub memory: Memory,
    /// The argument, in order.
    pub reasons: Vec<Reason>,
}

/// Whether a pass asks for metrics at all: not at zero replicas, nor outside the bounds.
pub fn needs_metrics(spec: &Spec, observed: Observed) -> bool {
    matches!(branch(spec, observed), Branch::Metrics)
}

/// [`decide_all`] for a spec with External metrics only; `readings` holds one for each, in its order.
pub fn decide(
    spec: &Spec,
    controls: &Controls,
    observed: Observed,
    readings: &[Reading],
    memory: &Memory,
    now: Timestamp,
) -> Decision {
    let measured: Vec<Measured> = readings.iter().cloned().map(Measured::External).collect();
    decide_all(spec, controls, &PodTiming::default(), observed, &measured, memory, now)
}

/// One pass of the HPA controller at `now`. `measured` holds what was measured for each metric of the spec, in its
/// order; it is not looked at (and may be empty) where [`needs_metrics`] says no.
///
/// Outside the bounds the nearer bound is the answer, past stabilization and limits. Inside, the largest proposal of
/// the metrics counts; it is stabilized and limited by `behavior`, or without one by the maximum of recent
/// recommendations and to max(2 * replicas, 4) at once.
pub fn decide_all(
    spec: &Spec,
    controls: &Controls,
    timing: &PodTiming,
    observed: Observed,
    measured: &[Measured],
    memory: &Memory,
    now: Timestamp,
) -> Decision {
    let current = observed.spec_replicas;
    let mut decision = Decision {
        desired: current,
        scaling_active: None,
        able_to_scale: Some(Verdict::new(Status::True, "SucceededGetScale", "the scale of the target was read")),
        scaling_limited: None,
        metrics: Vec::new(),
        utilization: Vec::new(),
        failure: None,
        memory: memory.clone(),
        reasons: Vec::new(),
    };
    if decision.memory.recommendations.is_empty() {
        decision.memory.recommendations.push(Sample { replicas: current, time: now });
    }
    match branch(spec, observed) {
        Branch::Disabled => {
            let message = "the target has 0 replicas, where an HPA does not scale";
            decision.scaling_active = Some(Verdict::new(Status::False, "ScalingDisabled", message));
            decision.reasons.push(Reason::HpaDisabledAtZero);
        }
        Branch::AboveMaximum => {
            decision.desired = spec.max_replicas;
            decision.reasons.push(Reason::HpaAboveMaximum { from: current, to: decision.desired });
        }
        Branch::BelowMinimum => {
            decision.desired = spec.min_replicas;
            decision.reasons.push(Reason::HpaBelowMinimum { from: current, to: decision.desired });
        }
        Branch::Metrics => {
            by_metrics(Situation { spec, controls, timing, observed, measured, now }, &mut decision);
        }
    }
    decision
}

/// Remembers that the target was rescaled, for the limits of `behavior`. To be called after each successful rescale.
pub fn record_rescale(memory: &mut Memory, spec: &Spec, from: i32, to: i32, now: Timestamp) {
    let Some(behavior) = &spec.behavior else { return };
    let (events, rules, change) = if to > from {
        (&mut memory.scale_up_events, &behavior.scale_up, to.saturating_sub(from))
    } else if to < from {
        (&mut memory.scale_down_events, &behavior.scale_down, from.saturating_sub(to))
    } else {
        return;
    };
    let longest = rules.policies.iter().map(|policy| policy.period()).max().unwrap_or_default();
    let start = before(now, longest);
    remember(events, Sample { replicas: change, time: now }, |event| event.time < start);
}

/// Keeps a sample, in place of the last expired one where there is one. The others stay and may still count, as in the
/// controller: those of one direction are looked at over the periods of the other.
fn remember(samples: &mut Vec<Sample>, sample: Sample, expired: impl Fn(&Sample) -> bool) {
    match samples.iter().rposition(expired) {
        Some(slot) => samples[slot] = sample,
        None => samples.push(sample),
    }
}

impl Policy {
    fn period(self) -> Duration {
        match self {
            Self::Pods { period, .. } | Self::Percent { period, .. } => period,
        }
    }
}

/// The ways that a pass can go.
enum Branch {
    Disabled,
    AboveMaximum,
    BelowMinimum,
    Metrics,
}

fn branch(spec: &Spec, observed: Observed) -> Branch {
    match observed.spec_replicas {
        0 => Branch::Disabled,
        current if current > spec.max_replicas => Branch::AboveMaximum,
        current if current < spec.min_replicas => Branch::BelowMinimum,
        _ => Branch::Metrics,
    }
}

fn by_metrics(situation: Situation<'_>, decision: &mut Decision) {
    let Situation { spec, controls, now, .. } = situation;
    let current = situation.observed.spec_replicas;
    if let Some(proposed) = metrics::combine(situation, decision) {
        match &spec.behavior {
            None => normalise::by_default(spec, controls, current, proposed, now, decision),
            Some(behavior) => normalise::by_behavior(spec, behavior, controls, current, proposed, now, decision),
        }
    }
    decision.reasons.push(if decision.desired == current {
        Reason::HpaKeeps { replicas: current }
    } else {
        Reason::HpaScales { from: current, to: decision.desired }
    });
}

fn before(time: Timestamp, duration: Duration) -> Timestamp {
    let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    time.checked_sub(duration).unwrap_or(Timestamp::MIN)
}
