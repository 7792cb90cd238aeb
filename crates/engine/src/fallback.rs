//! The fallback: what stands in for a metric that could not be read too many times in a row.
//!
//! A fetch is counted once, by [`Health::after`]. What its outcome means is told by [`apply`] as often as somebody asks.

use std::sync::Arc;

use crate::metric::Target;
use crate::outcome::Outcome;
use crate::verdict::{Status, Verdict};

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

/// A usable `spec.fallback`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// Failures in a row that are tolerated; one more brings the fallback.
    pub failure_threshold: u32,
    /// The replicas to fall back to, at least 0.
    pub replicas: i32,
    pub behavior: Behavior,
}

/// How `replicas` and the present replicas are combined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behavior {
    /// `replicas`.
    #[default]
    Static,
    /// The present replicas.
    CurrentReplicas,
    /// The larger of both.
    CurrentReplicasIfHigher,
    /// The smaller of both.
    CurrentReplicasIfLower,
    /// No replicas: the formula of the scaling modifiers sees nil.
    ScalingModifiers,
}

impl Behavior {
    /// The behavior of that word; an empty or unknown one is `static`.
    pub fn from_word(word: &str) -> Self {
        match word {
            "currentReplicas" => Self::CurrentReplicas,
            "currentReplicasIfHigher" => Self::CurrentReplicasIfHigher,
            "currentReplicasIfLower" => Self::CurrentReplicasIfLower,
            "scalingModifiers" => Self::ScalingModifiers,
            _ => Self::Static,
        }
    }

    /// The word in the spec.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::CurrentReplicas => "currentReplicas",
            Self::CurrentReplicasIfHigher => "currentReplicasIfHigher",
            Self::CurrentReplicasIfLower => "currentReplicasIfLower",
            Self::ScalingModifiers => "scalingModifiers",
        }
    }
}

impl Fallback {
    /// The fallback of a spec; `None` when a number is negative: then it is as if there were none.
    pub fn new(failure_threshold: i32, replicas: i32, behavior: &str) -> Option<Self> {
        let failure_threshold = u32::try_from(failure_threshold).ok()?;
        (replicas >= 0).then(|| Self { failure_threshold, replicas, behavior: Behavior::from_word(behavior) })
    }

    /// Whether a metric of that health is beyond what is tolerated.
    pub fn takes_over(&self, health: Health) -> bool {
        health.failures > self.failure_threshold
    }

    /// The replicas to ask for; `None` when the present ones count and are not known.
    fn wanted(&self, current: Option<i32>) -> Option<i32> {
        match self.behavior {
            Behavior::Static => Some(self.replicas),
            Behavior::CurrentReplicas => current,
            Behavior::CurrentReplicasIfHigher => current.map(|current| current.max(self.replicas)),
            Behavior::CurrentReplicasIfLower => current.map(|current| current.min(self.replicas)),
            Behavior::ScalingModifiers => None,
        }
    }
}

/// How often a metric could not be read in a row: an entry of `status.health`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub failures: u32,
}

impl Health {
    /// The health that a status tells; a negative number counts as none.
    pub fn from_status(number_of_failures: i32) -> Self {
        Self { failures: u32::try_from(number_of_failures).unwrap_or(0) }
    }

    /// The number for the status.
    pub fn number_of_failures(self) -> i32 {
        i32::try_from(self.failures).unwrap_or(i32::MAX)
    }

    /// The word for the status: `Happy` or `Failing`.
    pub fn status(self) -> &'static str {
        if self.failures == 0 { "Happy" } else { "Failing" }
    }

    /// The health after one more fetch. To be called once for each fetch, whoever asked for it, and only where there is
    /// a fallback: elsewhere nothing is counted.
    #[must_use]
    pub fn after(self, succeeded: bool) -> Self {
        Self { failures: if succeeded { 0 } else { self.failures.saturating_add(1) } }
    }
}

/// What is known of the scale target. `None` is what nobody knows, or nobody has looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// The replicas that the target is to have.
    pub replicas: Option<i32>,
    /// Pods of the target that run and are ready.
    pub ready_pods: Option<i32>,
}

/// What [`apply`] has to know of the scale target; each includes those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    Nothing,
    Replicas,
    /// For the value alone: whether the metric is active does not depend on them.
    ReadyPods,
}

/// What must be known of the scale target to serve a metric's outcome.
///
/// For a decision on activity ready pods are not needed, unless there are scaling modifiers: so a poll need not read
/// pods. At 0 replicas there are none to read.
pub fn need(fallback: Option<&Fallback>, health: Health, target: Target, fetched: &Outcome) -> Need {
    let failed = matches!(fetched, Outcome::Failed { .. });
    match fallback.filter(|fallback| failed && fallback.takes_over(health)) {
        None | Some(Fallback { behavior: Behavior::ScalingModifiers, .. }) => Need::Nothing,
        Some(_) if matches!(target, Target::Value(_)) => Need::ReadyPods,
        Some(Fallback { behavior: Behavior::Static, .. }) => Need::Nothing,
        Some(_) => Need::Replicas,
    }
}

/// What the outcome of the last fetch means under a fallback. `health` is that after this fetch, `target` that of the
/// metric, or with scaling modifiers theirs.
///
/// A failure that is tolerated, and one for which the replicas are not known that the fallback needs, stays a failure.
pub fn apply(
    fallback: Option<&Fallback>,
    health: Health,
    target: Target,
    fetched: Outcome,
    workload: Workload,
) -> Outcome {
    let Outcome::Failed { error } = &fetched else { return fetched };
    let Some(fallback) = fallback.filter(|fallback| fallback.takes_over(health)) else { return fetched };
    let (failures, error) = (health.failures, Arc::clone(error));
    if fallback.behavior == Behavior::ScalingModifiers {
        return Outcome::Nil { failures, error };
    }
    let Some(replicas) = fallback.wanted(workload.replicas) else { return fetched };
    Outcome::Fallback { replicas, milli: value(target, replicas, workload), active: true, failures, error }
}

/// The value that makes the HPA ask for so many replicas, in thousandths.
fn value(target: Target, replicas: i32, workload: Workload) -> Option<i64> {
    let all = target.milli().saturating_mul(i64::from(replicas));
    match (target, workload) {
        (Target::AverageValue(_), _) => Some(all),
        // The HPA multiplies by the ready pods. A value that came to nothing would ask for no replica.
        (Target::Value(_), Workload { ready_pods: Some(ready @ 1..), .. }) => {
            Some((all / i64::from(ready)).max(i64::from(replicas > 0)))
        }
        // Nobody multiplies it, for at zero the HPA does not ask.
        (Target::Value(_), Workload { replicas: Some(0), .. }) => Some(all),
        (Target::Value(_), _) => None,
    }
}

/// The Fallback condition of an object, from the health of all its metrics.
pub fn condition<'a>(fallback: Option<&Fallback>, health: impl IntoIterator<Item = (&'a str, Health)>) -> Verdict {
    let Some(fallback) = fallback else {
        return Verdict::new(Status::False, "NoFallbackFound", "there is no fallback");
    };
    let failing: Vec<String> = health
        .into_iter()
        .filter(|(_, health)| fallback.takes_over(*health))
        .map(|(metric, health)| format!("{metric} ({} failures in a row)", health.failures))
        .collect();
    if failing.is_empty() {
        return Verdict::new(Status::False, "NoFallbackFound", "no trigger needs the fallback");
    }
    let tolerated = fallback.failure_threshold;
    let message = format!("the fallback stands in where more than {tolerated} failed: {}", failing.join(", "));
    Verdict::new(Status::True, "FallbackExists", message)
}

/// A change that is worth an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    Activated,
    Deactivated,
}

/// What a change of the Fallback condition's status means. From unknown to false nothing has happened.
pub fn transition(before: Status, now: Status) -> Option<Transition> {
    match (before == Status::True, now == Status::True) {
        (false, true) => Some(Transition::Activated),
        (true, false) => Some(Transition::Deactivated),
        _ => None,
    }
}
