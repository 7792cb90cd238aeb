//! From the metrics' values to one proposal.

use std::sync::Arc;

use jiff::Timestamp;

use super::resource::{self, PerPod, Pod, PodTiming, ResourceTarget};
use super::{Controls, Current, Decision, Failure, Measured, Metric, Observed, Spec, Target};
use crate::reason::Reason;
use crate::verdict::{Status, Verdict};

/// How far a ratio of usage to target may be off without any change.
#[derive(Clone, Copy)]
pub(super) struct Tolerance {
    up: f64,
    down: f64,
}

impl Tolerance {
    fn of(spec: &Spec, controls: &Controls) -> Self {
        let behavior = spec.behavior.as_ref();
        Self {
            up: behavior.and_then(|b| b.scale_up.tolerance).unwrap_or(controls.tolerance),
            down: behavior.and_then(|b| b.scale_down.tolerance).unwrap_or(controls.tolerance),
        }
    }

    pub(super) fn holds(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// What one metric asks for.
pub(super) struct Proposal {
    pub(super) replicas: i32,
    pub(super) current: Current,
    /// Per cent, where that is what the target is in.
    pub(super) utilization: Option<i32>,
}

/// What is known for one pass.
#[derive(Clone, Copy)]
pub(super) struct Situation<'a> {
    pub(super) spec: &'a Spec,
    pub(super) controls: &'a Controls,
    pub(super) timing: &'a PodTiming,
    pub(super) observed: Observed,
    pub(super) measured: &'a [Measured],
    pub(super) now: Timestamp,
}

/// The largest proposal of the metrics that work. `None`, with the failure in the decision, when all failed, or when
/// some failed and the others ask for fewer replicas than there are: the failed ones might ask for more.
pub(super) fn combine(situation: Situation<'_>, decision: &mut Decision) -> Option<i32> {
    let tolerance = Tolerance::of(situation.spec, situation.controls);
    let mut largest: Option<(i32, &Metric)> = None;
    let mut failure: Option<Failure> = None;
    for (i, metric) in situation.spec.metrics.iter().enumerate() {
        match propose(metric, situation.measured.get(i), tolerance, situation) {
            Ok((proposal, reason)) => {
                decision.reasons.push(reason);
                decision.metrics.push(Some(proposal.current));
                decision.utilization.push(proposal.utilization);
                if largest.is_none_or(|(replicas, _)| proposal.replicas > replicas) {
                    largest = Some((proposal.replicas, metric));
                }
            }
            Err(error) => {
                let (metric, text) = (Arc::clone(&metric.name), Arc::clone(&error.message));
                decision.reasons.push(Reason::HpaMetricUnavailable { metric, error: text });
                decision.metrics.push(None);
                decision.utilization.push(None);
                failure.get_or_insert(error);
            }
        }
    }
    let refusal = match largest {
        None => Some(Reason::HpaNoMetric),
        Some((wanted, _)) if failure.is_some() && wanted < situation.observed.spec_replicas => {
            Some(Reason::HpaScaleInNeedsEveryMetric { wanted })
        }
        Some(_) => None,
    };
    if let Some(reason) = refusal {
        decision.reasons.push(reason);
        let failure = failure.unwrap_or_else(|| external_failure("the HPA has no metric"));
        let message = format!("no replicas could be computed: {}", failure.message);
        decision.scaling_active = Some(Verdict::new(Status::False, failure.reason, message));
        decision.failure = Some(failure);
        return None;
    }
    let (replicas, metric) = largest?;
    let message = format!("the replicas were computed from {}", description(metric));
    decision.scaling_active = Some(Verdict::new(Status::True, "ValidMetricFound", message));
    Some(replicas)
}

fn propose(
    metric: &Metric,
    measured: Option<&Measured>,
    tolerance: Tolerance,
    situation: Situation<'_>,
) -> Result<(Proposal, Reason), Failure> {
    let observed = situation.observed;
    match metric.target {
        Target::Resource(target) => {
            let pods = pods(target, measured)?;
            let (timing, now) = (situation.timing, situation.now);
            resource::propose(&metric.name, target, pods, tolerance, observed.spec_replicas, timing, now)
        }
        Target::AverageValue(target) => {
            let usage = sum(measured)?;
            let (proposal, near) = per_replica(usage, target, tolerance, observed.status_replicas);
            let reason = external_reason(&metric.name, usage, (target, true), near, proposal.replicas);
            Ok((proposal, reason))
        }
        Target::Value(target) => {
            let usage = sum(measured)?;
            let (proposal, near) = in_all(usage, target, tolerance, observed)?;
            let reason = external_reason(&metric.name, usage, (target, false), near, proposal.replicas);
            Ok((proposal, reason))
        }
    }
}

/// The sum of an External metric.
fn sum(measured: Option<&Measured>) -> Result<i64, Failure> {
    match measured {
        Some(Measured::External(reading)) => reading.clone(),
        Some(Measured::Pods(Err(failure))) => Err(failure.clone()),
        Some(Measured::Pods(Ok(_))) | None => Err(external_failure("the metric was not read")),
    }
}

/// The pods of a metric of pods.
fn pods(target: ResourceTarget, measured: Option<&Measured>) -> Result<&[Pod], Failure> {
    match measured {
        Some(Measured::Pods(Ok(pods))) => Ok(pods),
        Some(Measured::Pods(Err(failure)) | Measured::External(Err(failure))) => Err(failure.clone()),
        Some(Measured::External(Ok(_))) | None => {
            Err(Failure { reason: target.failed(), message: "the metric was not read".into() })
        }
    }
}

/// The pods do not matter here: the replicas depend on the usage only, but for the tolerance, which is told as well.
fn per_replica(usage: i64, target: i64, tolerance: Tolerance, status_replicas: i32) -> (Proposal, bool) {
    // The controller takes a negative sum for an overflow.
    let usage = if usage < 0 { i64::MAX as f64 } else { usage as f64 };
    let ratio = usage / (target as f64 * f64::from(status_replicas));
    let near = tolerance.holds(ratio);
    let replicas = if near { status_replicas } else { (usage / target as f64).ceil() as i32 };
    let average = (usage / f64::from(status_replicas.max(1))).ceil() as i64;
    (Proposal { replicas, current: Current::AverageValue(average), utilization: None }, near)
}

/// Relative to the pods that are ready; whether the usage is within the tolerance is told as well.
fn in_all(usage: i64, target: i64, tolerance: Tolerance, observed: Observed) -> Result<(Proposal, bool), Failure> {
    let ratio = usage as f64 / target as f64;
    let proposal = |replicas| Proposal { replicas, current: Current::Value(usage), utilization: None };
    if tolerance.holds(ratio) {
        return Ok((proposal(observed.spec_replicas), true));
    }
    if observed.pods == 0 {
        return Err(external_failure("the selector of the target matches no pod to compute replicas from"));
    }
    Ok((proposal((ratio * f64::from(observed.ready_pods)).ceil() as i32), false))
}

fn external_reason(
    metric: &Arc<str>,
    usage: i64,
    (target, per_replica): (i64, bool),
    within_tolerance: bool,
    replicas: i32,
) -> Reason {
    Reason::HpaProposal { metric: Arc::clone(metric), usage, target, per_replica, within_tolerance, replicas }
}

fn description(metric: &Metric) -> String {
    let name = &metric.name;
    match metric.target {
        Target::AverageValue(_) | Target::Value(_) => format!("external metric {name}"),
        Target::Resource(ResourceTarget { container, per_pod, .. }) => {
            let kind = if container { "container resource" } else { "resource" };
            let unit = match per_pod {
                PerPod::Utilization(_) => " utilization (percentage of request)",
                PerPod::AverageValue(_) => "",
            };
            format!("{name} {kind}{unit}")
        }
    }
}

fn external_failure(message: &str) -> Failure {
    Failure { reason: "FailedGetExternalMetric", message: message.into() }
}
