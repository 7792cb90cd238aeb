//! Resource and ContainerResource metrics: what the pods use of a resource, against what they request or a fixed amount.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::metrics::{Proposal, Tolerance};
use super::{Current, Failure, PodsOutcome};
use crate::reason::Reason;
use crate::verdict::Status;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

/// The target of a Resource or ContainerResource metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceTarget {
    pub resource: Resource,
    /// Whether it is a ContainerResource metric. Which container is the reader's business; the decision looks at what
    /// was measured of it.
    pub container: bool,
    pub per_pod: PerPod,
}

/// The resources that are treated differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Samples from the start of a pod do not count.
    Cpu,
    Memory,
    Other,
}

/// What each pod is to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerPod {
    /// `averageUtilization`, above 0: per cent of what the pods request.
    Utilization(i32),
    /// `averageValue` in thousandths, above 0.
    AverageValue(i64),
}

/// A pod of the scale target's selector, as far as a resource metric goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Whether it has a deletion timestamp.
    pub deleting: bool,
    pub phase: Phase,
    /// `status.startTime`.
    pub started: Option<Timestamp>,
    /// Its Ready condition.
    pub ready: Option<Ready>,
    /// What it requests of the resource in thousandths: the pod's own request, or the sum over containers and sidecars,
    /// or for a ContainerResource metric that of the container. An error tells which request is missing; it is looked at
    /// for [`PerPod::Utilization`] only.
    pub request: Result<i64, Arc<str>>,
    /// `None` when the metrics API has no sample that covers all its containers, or the one that counts.
    pub usage: Option<Usage>,
}

/// The phase of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

impl Phase {
    /// The phase of that word.
    pub fn from_word(word: &str) -> Self {
        match word {
            "Pending" => Self::Pending,
            "Running" => Self::Running,
            "Succeeded" => Self::Succeeded,
            "Failed" => Self::Failed,
            _ => Self::Unknown,
        }
    }
}

/// A pod's Ready condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    pub status: Status,
    /// `lastTransitionTime`.
    pub since: Timestamp,
}

/// A sample of the metrics API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The use of the resource in thousandths.
    pub milli: i64,
    /// The end of the time over which it was measured.
    pub time: Timestamp,
    /// How long it was measured.
    pub window: Duration,
}

/// When a pod's cpu usage begins to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodTiming {
    /// `--horizontal-pod-autoscaler-cpu-initialization-period`, 5 minutes: so long after its start only the samples of
    /// a ready pod count, and only those taken since it is.
    pub cpu_initialization: Duration,
    /// `--horizontal-pod-autoscaler-initial-readiness-delay`, 30 s: a pod whose readiness last changed within that time
    /// of its start has never been ready.
    pub initial_readiness_delay: Duration,
}

impl Default for PodTiming {
    fn default() -> Self {
        Self { cpu_initialization: Duration::from_secs(300), initial_readiness_delay: Duration::from_secs(30) }
    }
}

/// The pods of a metric, by what their samples are worth.
struct Groups {
    /// Those whose samples count.
    counted: Vec<Share>,
    /// Those that are not ready: on a rise they may turn out to need nothing.
    unready: Vec<Share>,
    /// Those without a sample.
    missing: Vec<Share>,
}

/// One pod's part in the usage, in thousandths.
#[derive(Clone, Copy)]
struct Share {
    usage: i64,
    request: i64,
}

/// The usage of some pods: its ratio to the target, in the target's unit, and per pod in thousandths.
struct Level {
    ratio: f64,
    in_unit: i64,
    average: i64,
}

/// What one metric of pods asks for, and how to say it.
pub(super) fn propose(
    name: &Arc<str>,
    target: ResourceTarget,
    pods: &[Pod],
    tolerance: Tolerance,
    current: i32,
    timing: &PodTiming,
    now: Timestamp,
) -> Result<(Proposal, Reason), Failure> {
    let failed = |message: &str| Failure { reason: target.failed(), message: message.into() };
    if pods.is_empty() {
        return Err(failed("the selector of the target matches no pod to compute replicas from"));
    }
    let groups = group(target, pods, timing, now).map_err(|missing| failed(&missing))?;
    if groups.counted.is_empty() {
        return Err(failed("no pod has a metric that counts; they may not be ready yet"));
    }
    let measured = measure(target.per_pod, &groups.counted)
        .ok_or_else(|| failed("the pods with metrics request nothing, so there is no utilization"))?;
    let (outcome, replicas) = weigh(target.per_pod, &groups, &measured, tolerance, current);
    let utilization = match target.per_pod {
        PerPod::Utilization(_) => i32::try_from(measured.in_unit).ok(),
        PerPod::AverageValue(_) => None,
    };
    let reason = Reason::HpaPodsProposal {
        metric: Arc::clone(name),
        usage: measured.in_unit,
        target: target.per_pod,
        unready: groups.unready.len(),
        missing: groups.missing.len(),
        outcome,
        replicas,
    };
    Ok((Proposal { replicas, current: Current::AverageValue(measured.average), utilization }, reason))
}

impl ResourceTarget {
    /// The reason of the condition when the metric cannot be used.
    pub(super) fn failed(self) -> &'static str {
        if self.container { "FailedGetContainerResourceMetric" } else { "FailedGetResourceMetric" }
    }
}

/// Sorts the pods; those that are going or have failed are in no group. An error is a request that is missing.
fn group(target: ResourceTarget, pods: &[Pod], timing: &PodTiming, now: Timestamp) -> Result<Groups, Arc<str>> {
    let mut groups = Groups { counted: Vec::new(), unready: Vec::new(), missing: Vec::new() };
    for pod in pods {
        // Requests of pods that are in no group are missed all the same, as in the controller.
        let request = match (&pod.request, target.per_pod) {
            (Ok(request), _) => *request,
            (Err(missing), PerPod::Utilization(_)) => return Err(Arc::clone(missing)),
            (Err(_), PerPod::AverageValue(_)) => 0,
        };
        let share = |usage| Share { usage, request };
        match &pod.usage {
            _ if pod.deleting || pod.phase == Phase::Failed => {}
            _ if pod.phase == Phase::Pending => groups.unready.push(share(0)),
            None => groups.missing.push(share(0)),
            Some(usage) if target.resource == Resource::Cpu && !usage.counts(pod, timing, now) => {
                groups.unready.push(share(0));
            }
            Some(usage) => groups.counted.push(share(usage.milli)),
        }
    }
    Ok(groups)
}

impl Usage {
    /// Whether a pod's cpu usage tells of its work and not of its start.
    fn counts(&self, pod: &Pod, timing: &PodTiming, now: Timestamp) -> bool {
        let (Some(ready), Some(started)) = (pod.ready, pod.started) else { return false };
        let unready = ready.status == Status::False;
        if later(started, timing.cpu_initialization) > now {
            !unready && self.time >= later(ready.since, self.window)
        } else {
            !(unready && later(started, timing.initial_readiness_delay) > ready.since)
        }
    }
}

/// `None` when the pods request nothing of which the usage could be a part.
fn measure(per_pod: PerPod, shares: &[Share]) -> Option<Level> {
    let sum = |part: fn(&Share) -> i64| shares.iter().map(|share| i128::from(part(share))).sum::<i128>();
    let total = sum(|share| share.usage);
    let average = capped(total / i128::try_from(shares.len().max(1)).ok()?);
    Some(match per_pod {
        PerPod::Utilization(target) => {
            // Whole per cents, as the controller counts.
            let per_cent = (total * 100).checked_div(sum(|share| share.request))?;
            let per_cent = i32::try_from(per_cent).unwrap_or(i32::MAX);
            Level { ratio: f64::from(per_cent) / f64::from(target), in_unit: per_cent.into(), average }
        }
        PerPod::AverageValue(target) => Level { ratio: average as f64 / target as f64, in_unit: average, average },
    })
}

/// From the ratio of the pods that count to replicas. Pods that do not count are taken for what speaks against a change,
/// and when that turns the direction around, nothing changes.
fn weigh(per_pod: PerPod, groups: &Groups, measured: &Level, tolerance: Tolerance, current: i32) -> (PodsOutcome, i32) {
    let up = measured.ratio > 1.0;
    let with_unready = up && !groups.unready.is_empty();
    if !with_unready && groups.missing.is_empty() {
        if tolerance.holds(measured.ratio) {
            return (PodsOutcome::WithinTolerance, current);
        }
        return (PodsOutcome::Wanted, times(measured.ratio, groups.counted.len()));
    }
    let mut shares = groups.counted.clone();
    if up {
        shares.extend(&groups.missing);
    } else if measured.ratio < 1.0 {
        let full = |share: &Share| match per_pod {
            PerPod::Utilization(target) => part(share.request, target.max(100)),
            PerPod::AverageValue(target) => target,
        };
        shares.extend(groups.missing.iter().map(|share| Share { usage: full(share), ..*share }));
    }
    if with_unready {
        shares.extend(&groups.unready);
    }
    // There are requests, for there were some before.
    let Some(Level { ratio, .. }) = measure(per_pod, &shares) else { return (PodsOutcome::Undecided, current) };
    if tolerance.holds(ratio) {
        return (PodsOutcome::WithinTolerance, current);
    }
    let replicas = times(ratio, shares.len());
    let turned = (up && ratio < 1.0) || (measured.ratio < 1.0 && ratio > 1.0);
    if turned || (ratio < 1.0 && replicas > current) || (ratio > 1.0 && replicas < current) {
        return (PodsOutcome::Undecided, current);
    }
    (PodsOutcome::Wanted, replicas)
}

/// So many per cent of an amount.
fn part(amount: i64, per_cent: i32) -> i64 {
    capped(i128::from(amount) * i128::from(per_cent) / 100)
}

/// Rounded up and capped.
fn times(ratio: f64, pods: usize) -> i32 {
    (ratio * pods as f64).ceil() as i32
}

fn capped(amount: i128) -> i64 {
    i64::try_from(amount).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX })
}

fn later(time: Timestamp, duration: Duration) -> Timestamp {
    let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}
