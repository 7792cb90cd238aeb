//! From the metrics' values to one proposal.

use std::sync::Arc;

use super::{Controls, Current, Decision, Failure, Metric, Observed, Reading, Spec, Target};
use crate::reason::Reason;
use crate::verdict::{Status, Verdict};

const FAILED: &str = "FailedGetExternalMetric";

/// How far a ratio of usage to target may be off without any change.
#[derive(Clone, Copy)]
struct Tolerance {
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

    fn holds(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// What one metric asks for.
struct Proposal {
    replicas: i32,
    within_tolerance: bool,
    current: Current,
}

/// The largest proposal of the metrics that work. `None`, with the failure in the decision, when all failed, or when
/// some failed and the others ask for fewer replicas than there are: the failed ones might ask for more.
pub(super) fn combine(
    spec: &Spec,
    controls: &Controls,
    observed: Observed,
    readings: &[Reading],
    decision: &mut Decision,
) -> Option<i32> {
    let tolerance = Tolerance::of(spec, controls);
    let mut largest: Option<(i32, &Metric)> = None;
    let mut failure: Option<Failure> = None;
    for (i, metric) in spec.metrics.iter().enumerate() {
        match propose(metric, readings.get(i), tolerance, observed) {
            Ok(proposal) => {
                decision.reasons.push(proposal_reason(metric, &proposal, readings.get(i)));
                decision.metrics.push(Some(proposal.current));
                if largest.is_none_or(|(replicas, _)| proposal.replicas > replicas) {
                    largest = Some((proposal.replicas, metric));
                }
            }
            Err(error) => {
                let (metric, text) = (Arc::clone(&metric.name), Arc::clone(&error.message));
                decision.reasons.push(Reason::HpaMetricUnavailable { metric, error: text });
                decision.metrics.push(None);
                failure.get_or_insert(error);
            }
        }
    }
    let refusal = match largest {
        None => Some(Reason::HpaNoMetric),
        Some((wanted, _)) if failure.is_some() && wanted < observed.spec_replicas => {
            Some(Reason::HpaScaleInNeedsEveryMetric { wanted })
        }
        Some(_) => None,
    };
    if let Some(reason) = refusal {
        decision.reasons.push(reason);
        let failure = failure.unwrap_or_else(|| unavailable("the HPA has no metric"));
        let message = format!("no replicas could be computed: {}", failure.message);
        decision.scaling_active = Some(Verdict::new(Status::False, failure.reason, message));
        decision.failure = Some(failure);
        return None;
    }
    let (replicas, metric) = largest?;
    let message = format!("the replicas were computed from external metric {}", metric.name);
    decision.scaling_active = Some(Verdict::new(Status::True, "ValidMetricFound", message));
    Some(replicas)
}

fn propose(
    metric: &Metric,
    reading: Option<&Reading>,
    tolerance: Tolerance,
    observed: Observed,
) -> Result<Proposal, Failure> {
    let usage = match reading {
        Some(Ok(usage)) => *usage,
        Some(Err(failure)) => return Err(failure.clone()),
        None => return Err(unavailable("the metric was not read")),
    };
    match metric.target {
        Target::AverageValue(target) => Ok(per_replica(usage, target, tolerance, observed.status_replicas)),
        Target::Value(target) => in_all(usage, target, tolerance, observed),
    }
}

/// The pods do not matter here: the replicas depend on the usage only, but for the tolerance.
fn per_replica(usage: i64, target: i64, tolerance: Tolerance, status_replicas: i32) -> Proposal {
    // The controller takes a negative sum for an overflow.
    let usage = if usage < 0 { i64::MAX as f64 } else { usage as f64 };
    let ratio = usage / (target as f64 * f64::from(status_replicas));
    let within_tolerance = tolerance.holds(ratio);
    let replicas = if within_tolerance { status_replicas } else { (usage / target as f64).ceil() as i32 };
    let average = (usage / f64::from(status_replicas.max(1))).ceil() as i64;
    Proposal { replicas, within_tolerance, current: Current::AverageValue(average) }
}

/// Relative to the pods that are ready.
fn in_all(usage: i64, target: i64, tolerance: Tolerance, observed: Observed) -> Result<Proposal, Failure> {
    let ratio = usage as f64 / target as f64;
    let current = Current::Value(usage);
    if tolerance.holds(ratio) {
        return Ok(Proposal { replicas: observed.spec_replicas, within_tolerance: true, current });
    }
    if observed.pods == 0 {
        return Err(unavailable("the selector of the target matches no pod to compute replicas from"));
    }
    let replicas = (ratio * f64::from(observed.ready_pods)).ceil() as i32;
    Ok(Proposal { replicas, within_tolerance: false, current })
}

fn proposal_reason(metric: &Metric, proposal: &Proposal, reading: Option<&Reading>) -> Reason {
    let (target, per_replica) = match metric.target {
        Target::AverageValue(target) => (target, true),
        Target::Value(target) => (target, false),
    };
    Reason::HpaProposal {
        metric: Arc::clone(&metric.name),
        usage: reading.and_then(|reading| reading.as_ref().ok()).copied().unwrap_or_default(),
        target,
        per_replica,
        within_tolerance: proposal.within_tolerance,
        replicas: proposal.replicas,
    }
}

fn unavailable(message: &str) -> Failure {
    Failure { reason: FAILED, message: message.into() }
}
