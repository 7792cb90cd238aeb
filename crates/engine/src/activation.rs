//! The part of scaling that the HorizontalPodAutoscaler cannot do: between zero (or idle) and the minimum.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::reason::Reason;
use crate::verdict::{Status, Verdict};

pub use crate::outcome::{Outcome, TriggerState};

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

/// What a ScaledObject asks for, defaults applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// `minReplicaCount`, 0 when unset.
    pub min_replicas: i32,
    /// `maxReplicaCount`, 100 when unset.
    pub max_replicas: i32,
    /// `idleReplicaCount`; `None` switches idle mode off.
    pub idle_replicas: Option<i32>,
    /// `cooldownPeriod`, 300 s when unset.
    pub cooldown: Duration,
    /// `initialCooldownPeriod`, 0 when unset.
    pub initial_cooldown: Duration,
    /// `fallback.replicas` where a fallback section is present.
    pub fallback_replicas: Option<i32>,
    /// When the object was created.
    pub created: Timestamp,
}

impl Policy {
    /// The replicas of a workload on which no trigger is active: the idle count where there is one, else the minimum.
    pub fn rest_replicas(&self) -> i32 {
        self.idle_replicas.unwrap_or(self.min_replicas)
    }

    /// `minReplicas` and `maxReplicas` of the HPA, which never goes to zero.
    pub fn hpa_bounds(&self) -> (i32, i32) {
        (self.min_replicas.max(1), self.max_replicas)
    }
}

/// What the user's annotations ask for at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controls {
    /// `paused` is true, or `paused-replicas` is present.
    pub paused: bool,
    /// The count of `paused-replicas`.
    pub paused_replicas: Option<i32>,
    pub scale_in_paused: bool,
    pub scale_out_paused: bool,
    pub force_activation: bool,
}

/// What was found and done before: survives from one decision to the next (and, in the status, a restart).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// `status.lastActiveTime`.
    pub last_active: Option<Timestamp>,
}

/// What is to be done with the workload's replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// From zero or idle.
    Activate {
        from: i32,
        to: i32,
    },
    /// To zero or idle.
    Deactivate {
        from: i32,
        to: i32,
    },
    /// Below the minimum though nothing is active.
    RaiseToMinimum {
        from: i32,
        to: i32,
    },
    /// To the count of `paused-replicas`.
    Pause {
        from: i32,
        to: i32,
    },
}

impl Action {
    /// The replicas that the workload is to get; `None` leaves it as it is.
    pub fn target(self) -> Option<i32> {
        match self {
            Self::Nothing => None,
            Self::Activate { to, .. }
            | Self::Deactivate { to, .. }
            | Self::RaiseToMinimum { to, .. }
            | Self::Pause { to, .. } => Some(to),
        }
    }
}

/// The outcome of [`decide`].
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub action: Action,
    /// Whether the object counts as active. A paused object never does.
    pub active: bool,
    /// `None` leaves the condition as it is.
    pub ready_condition: Option<Verdict>,
    /// `None` leaves the condition as it is.
    pub active_condition: Option<Verdict>,
    /// New `lastActiveTime` when the object is active now; `None` leaves it.
    pub last_active: Option<Timestamp>,
    /// The argument, in order.
    pub reasons: Vec<Reason>,
}

/// Decides what to do with the workload at `now`.
///
/// `triggers` holds the external metrics; `resource_triggers` is the number of cpu and memory triggers, which never
/// make an object active by themselves, but keep it active when there is nothing else. `replicas` is `None` when the
/// scale target could not be read.
///
/// Only when every trigger was read and is quiet may the workload go to zero or idle: not while a fallback stands in for
/// one, and not while one fails, whatever the fallback asks for. A trigger that was not read yet
/// leaves the Active condition alone, unless another one is active; no trigger at all is as good as one not read.
///
/// To be called when a trigger was read, and not merely because a cooldown has ended: what was read before its end says
/// nothing about now.
pub fn decide(
    policy: &Policy,
    controls: Controls,
    triggers: &[TriggerState],
    resource_triggers: usize,
    replicas: Option<i32>,
    memory: Memory,
    now: Timestamp,
) -> Decision {
    let known = Known { triggers, reasons: triggers.iter().map(reason_of).collect() };
    decide_on(policy, controls, known, resource_triggers, replicas, memory, now)
}

/// What a decision rests on: the states that count, and what there is to say of them.
pub(crate) struct Known<'a> {
    pub(crate) triggers: &'a [TriggerState],
    pub(crate) reasons: Vec<Reason>,
}

pub(crate) fn decide_on(
    policy: &Policy,
    controls: Controls,
    known: Known<'_>,
    resource_triggers: usize,
    replicas: Option<i32>,
    memory: Memory,
    now: Timestamp,
) -> Decision {
    if controls.paused {
        return paused(controls, replicas);
    }
    let Known { triggers, reasons } = known;
    let mut decision = Decision {
        action: Action::Nothing,
        active: false,
        ready_condition: Some(Verdict::new(Status::True, "ScaledObjectReady", "the triggers are read and scaled on")),
        active_condition: None,
        last_active: None,
        reasons,
    };
    let resource_only = triggers.is_empty() && resource_triggers > 0;
    if resource_only {
        decision.reasons.push(Reason::ResourceTriggersOnly);
    }
    if controls.force_activation {
        decision.reasons.push(Reason::Forced);
    }
    let by_trigger = triggers.iter().any(|trigger| trigger.outcome.is_active());
    decision.active = by_trigger || resource_only || controls.force_activation;
    decision.last_active = decision.active.then_some(now);
    let Some(replicas) = replicas else {
        decision.ready_condition = Some(replicas_unknown());
        decision.reasons.push(Reason::ReplicasUnknown);
        return decision;
    };
    if decision.active {
        decision.active_condition = Some(active_verdict(triggers, by_trigger || resource_only));
        while_active(policy, controls, triggers, replicas, &mut decision);
    } else {
        let known = |trigger: &TriggerState| trigger.outcome != Outcome::Unknown;
        if !triggers.is_empty() && triggers.iter().all(known) {
            let message = "no trigger is active";
            decision.active_condition = Some(Verdict::new(Status::False, "ScalerNotActive", message));
        }
        while_inactive(policy, controls, triggers, replicas, memory, now, &mut decision);
    }
    decision
}

/// Nothing is polled while an object is paused, so its Active condition keeps what it last was.
fn paused(controls: Controls, replicas: Option<i32>) -> Decision {
    let mut decision = Decision {
        action: Action::Nothing,
        active: false,
        ready_condition: Some(Verdict::new(Status::True, "ScaledObjectReady", "paused by annotation")),
        active_condition: None,
        last_active: None,
        reasons: vec![Reason::Paused { replicas: controls.paused_replicas }],
    };
    match (controls.paused_replicas, replicas) {
        (Some(to), Some(from)) if from != to => decision.action = Action::Pause { from, to },
        (Some(_), None) => {
            decision.ready_condition = Some(replicas_unknown());
            decision.reasons.push(Reason::ReplicasUnknown);
        }
        _ => {}
    }
    decision
}

fn while_active(
    policy: &Policy,
    controls: Controls,
    triggers: &[TriggerState],
    replicas: i32,
    decision: &mut Decision,
) {
    let below_minimum = policy.idle_replicas.is_some() && replicas < policy.min_replicas;
    if below_minimum || replicas == 0 {
        if controls.scale_out_paused {
            decision.reasons.push(Reason::ScaleOutPaused);
            return;
        }
        let to = policy.min_replicas.max(1);
        decision.action = Action::Activate { from: replicas, to };
        decision.reasons.push(Reason::Activate { from: replicas, to });
        return;
    }
    decision.reasons.push(Reason::LeftToHpa { replicas });
    if let Some(failures) = failures(triggers) {
        let message = format!("scaled on the other triggers, for these could not be read: {failures}");
        decision.ready_condition = Some(Verdict::new(Status::Unknown, "PartialTriggerError", message));
    }
}

fn while_inactive(
    policy: &Policy,
    controls: Controls,
    triggers: &[TriggerState],
    replicas: i32,
    memory: Memory,
    now: Timestamp,
    decision: &mut Decision,
) {
    let rest = policy.rest_replicas();
    let may_deactivate =
        if policy.idle_replicas.is_some() { replicas > rest } else { replicas > 0 && policy.min_replicas == 0 };
    if let Some(failures) = failures(triggers) {
        // A nil that no formula will ever see is a failure that nothing stands in for.
        let to_no_formula = triggers.iter().any(|trigger| matches!(trigger.outcome, Outcome::Nil { .. }));
        match policy.fallback_replicas.filter(|_| !to_no_formula) {
            None => {
                let message = format!("no trigger is active, and these could not be read: {failures}");
                decision.ready_condition = Some(Verdict::new(Status::False, "TriggerError", message));
                let unsure = Reason::DeactivationNeedsEveryTrigger;
                decision.reasons.push(if may_deactivate { unsure } else { at(replicas, rest) });
                return;
            }
            // With enough failures the fallback makes the object active.
            Some(1..) => {
                decision.reasons.push(Reason::AwaitsFallback);
                return;
            }
            Some(_) => {}
        }
    }
    if may_deactivate {
        deactivate(policy, controls, triggers, replicas, memory, now, decision);
    } else if policy.idle_replicas.is_none() && replicas < policy.min_replicas {
        let to = policy.min_replicas;
        decision.action = Action::RaiseToMinimum { from: replicas, to };
        decision.reasons.push(Reason::RaiseToMinimum { from: replicas, to });
    } else {
        decision.reasons.push(at(replicas, rest));
    }
}

fn deactivate(
    policy: &Policy,
    controls: Controls,
    triggers: &[TriggerState],
    from: i32,
    memory: Memory,
    now: Timestamp,
    decision: &mut Decision,
) {
    if controls.scale_in_paused {
        decision.reasons.push(Reason::ScaleInPaused);
        return;
    }
    let read = |trigger: &TriggerState| matches!(trigger.outcome, Outcome::Read { .. });
    if triggers.is_empty() || !triggers.iter().all(read) {
        decision.reasons.push(Reason::DeactivationNeedsEveryTrigger);
        return;
    }
    let (until, reason) = match memory.last_active {
        Some(last) => {
            let until = later(last, policy.cooldown);
            (until, Reason::Cooldown { until })
        }
        None => {
            let until = later(policy.created, policy.initial_cooldown);
            (until, Reason::InitialCooldown { until })
        }
    };
    // The end itself still belongs to the cooldown.
    if until < now {
        let to = policy.rest_replicas();
        decision.action = Action::Deactivate { from, to };
        decision.reasons.push(Reason::Deactivate { from, to });
        return;
    }
    let message = format!("no trigger is active; {reason}");
    decision.active_condition = Some(Verdict::new(Status::False, "ScalerCooldown", message));
    decision.reasons.push(reason);
}

/// What there is to say of a trigger's metric by itself.
pub(crate) fn reason_of(trigger: &TriggerState) -> Reason {
    let metric = Arc::clone(&trigger.metric);
    match &trigger.outcome {
        Outcome::Unknown => Reason::TriggerUnknown { metric },
        Outcome::Announced => Reason::TriggerAnnounced { metric },
        Outcome::Read { value, active: true } | Outcome::Partial { value, active: true, .. } => {
            Reason::TriggerActive { metric, value: *value }
        }
        Outcome::Read { value, active: false } | Outcome::Partial { value, active: false, .. } => {
            Reason::TriggerInactive { metric, value: *value }
        }
        Outcome::Failed { error } | Outcome::Nil { error, .. } => {
            Reason::TriggerFailed { metric, error: Arc::clone(error) }
        }
        Outcome::Fallback { replicas, milli, failures, error, .. } => Reason::TriggerFallback {
            metric,
            replicas: *replicas,
            milli: *milli,
            failures: *failures,
            error: Arc::clone(error),
        },
    }
}

fn at(replicas: i32, rest: i32) -> Reason {
    if replicas == rest { Reason::AtRest { replicas } } else { Reason::LeftToHpa { replicas } }
}

fn active_verdict(triggers: &[TriggerState], by_trigger: bool) -> Verdict {
    let mut active = triggers.iter().map(|trigger| &trigger.outcome).filter(|outcome| outcome.is_active()).peekable();
    let message = if !by_trigger {
        "activation is forced by annotation"
    } else if active.peek().is_some() && active.all(|outcome| matches!(outcome, Outcome::Fallback { .. })) {
        "the fallback stands in for a trigger that could not be read"
    } else {
        "a trigger is active"
    };
    Verdict::new(Status::True, "ScalerActive", message)
}

fn replicas_unknown() -> Verdict {
    let message = "the replicas of the scale target could not be read";
    Verdict::new(Status::False, "ErrorGettingCurrentReplicas", message)
}

/// The failing triggers with their errors; `None` when there is none.
fn failures(triggers: &[TriggerState]) -> Option<String> {
    let failures: Vec<String> = triggers
        .iter()
        .filter_map(|trigger| trigger.outcome.failure().map(|error| format!("{}: {error}", trigger.metric)))
        .collect();
    (!failures.is_empty()).then(|| failures.join("; "))
}

fn later(time: Timestamp, duration: Duration) -> Timestamp {
    let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}
