//! What the actor says of itself: its status on the API server, and its snapshot.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use tidemark_api::ScaledObjectStatus;
use tidemark_engine::activation::Decision;
use tidemark_engine::hpa::hpa_health;
use tidemark_engine::reason::Reason;
use tidemark_engine::verdict::Status;
use tokio::time::Instant;

use super::{Actor, Done};
use crate::hpa::HpaView;
use crate::observation::{Stage, Write};
use crate::snapshot::{Detail, Snapshot, View};
use crate::status::{self, IS_READY, NewCondition, Written};
use crate::texts::Text;

/// A finished write of the status.
pub(super) struct StatusDone {
    sent: ScaledObjectStatus,
    evaluation: u64,
    took: Duration,
    result: Written,
}

impl Actor {
    /// Takes a decision's conditions, times and activities over into the status.
    pub(super) fn report_decision(&mut self, decision: &Decision) {
        // A failed check stays visible until a check passes.
        match &decision.ready_condition {
            Some(_) if self.check.failure.is_some() => {}
            Some(verdict) if verdict.status == Status::True => self.set_condition(IS_READY),
            Some(verdict) => self.set_condition(NewCondition::of(status::READY, verdict)),
            None => {}
        }
        if let Some(verdict) = &decision.active_condition {
            self.set_condition(NewCondition::of(status::ACTIVE, verdict));
        }
        if decision.last_active.is_some() {
            self.last_active = decision.last_active;
        }
        // A decision on triggers that are not all read leaves the object what it was, unless one is active.
        let known = decision.active || decision.active_condition.is_some();
        let turned = known && self.active != Some(decision.active);
        if let Some(last_active) = self.last_active.filter(|_| turned) {
            let last_active = Some(whole_seconds(last_active));
            if self.status.last_active != last_active {
                self.status.change().last_active = last_active;
            }
        }
        if known {
            self.active = Some(decision.active);
        }
        self.report_activities();
    }

    fn report_activities(&mut self) {
        let names = self.status.external_names.as_deref().unwrap_or_default();
        let known = self.status.activity.as_deref().unwrap_or_default();
        let mut activities: BTreeMap<Text, bool> = known.iter().cloned().collect();
        activities.retain(|name, _| names.contains(name));
        for (name, active) in self.slots.iter().flat_map(|slot| self.activities(slot)) {
            if names.contains(&name) {
                activities.insert(name, active);
            }
        }
        let activities: Box<[(Text, bool)]> = activities.into_iter().collect();
        if known != &*activities {
            self.status.change().activity = Some(activities);
        }
    }

    /// Takes the HPA's own health over into the status.
    pub(super) fn report_hpa(&mut self, view: &HpaView) {
        let found = view.seen.conditions.iter().find(|condition| condition.kind == "ScalingActive");
        let Some(active) = found else { return };
        let health = hpa_health(Status::from_word(&active.status), &active.reason, &active.message);
        let (status, reason) = (health.status.as_str(), health.reason.as_str());
        self.set_condition(NewCondition::new(status::HPA_ACTIVE, status, reason, &health.message));
        self.flush_status();
    }

    /// Writes the status if it is another one than the API server's. One write at a time, and none while a reconcile
    /// runs, which changes the object's version.
    pub(super) fn flush_status(&mut self) {
        if self.status_write.running || self.check.running || self.deleting || self.status_write.retry.at.is_some() {
            return;
        }
        let Some((version, patch)) = self.status.patch() else { return };
        self.status_write.running = true;
        let (client, key, uid) = (self.ctx.client.clone(), self.entry.key.clone(), self.entry.uid.clone());
        let (sent, evaluation) = (self.status.whole(), self.evaluation.number);
        self.start(async move {
            let begun = Instant::now();
            let result = status::write(client, &key, &uid, &version, patch).await;
            Done::Status(Box::new(StatusDone { sent, evaluation, took: begun.elapsed(), result }))
        });
    }

    pub(super) fn on_status_written(&mut self, done: StatusDone) {
        self.status_write.running = false;
        let StatusDone { sent, evaluation, took, result } = done;
        match result {
            Written::Done { resource_version } => {
                self.status_write.retry.settled();
                self.status.written(Some(&resource_version), sent);
                self.tell_of(evaluation, self.ctx.written(Write::Status, took, None));
            }
            Written::Conflict(object) => {
                self.status_write.retry.after_failure();
                let there = object.status.unwrap_or_default();
                self.status.seen(&self.ctx.texts, object.metadata.resource_version.as_deref(), there);
            }
            // The watch will say so too.
            Written::Gone => self.status_write.retry.after_failure(),
            Written::Failed(message) => {
                self.status_write.retry.after_failure();
                let error = Some(message.as_str().into());
                self.tell_of(evaluation, self.ctx.written(Write::Status, took, error));
                self.tell_error(Stage::StatusUpdate, message);
            }
        }
        self.reconcile_waiting();
        self.flush_status();
    }

    pub(super) fn publish(&self) {
        let slots = self.slots.iter().enumerate();
        let cooldown_until = self.reasons.iter().find_map(|reason| match reason {
            Reason::Cooldown { until } | Reason::InitialCooldown { until } => Some(*until),
            _ => None,
        });
        let view = View {
            target: Some(self.plan.target.clone()),
            triggers: slots.flat_map(|(index, slot)| slot.views(index, &self.ctx)).collect(),
            active: self.active,
            paused: self.controls.paused,
            replicas: self.workload.replicas,
            desired: self.desired(),
            min: self.plan.policy.min_replicas,
            max: self.plan.policy.max_replicas,
            ready: self.status.condition(status::READY).filter(|ready| ready.reason.is_some()).cloned(),
            reasons: self.reasons.clone(),
            next_poll: self.next_poll().map(|at| self.ctx.clock.at(at)),
            cooldown_until,
        };
        self.ctx.registry.publish(&self.entry, view);
    }

    /// Everything, but for what is published.
    pub(super) fn detail(&self) -> Detail {
        Detail {
            snapshot: Snapshot::default(),
            policy: self.plan.policy.clone(),
            interval: self.plan.interval,
            fallback: self.plan.fallback,
            composite: self.modifiers.as_ref().map(|modifiers| modifiers.target()),
            controls: self.controls,
            hpa: self.status.hpa_name.as_deref().map(str::to_owned),
            conditions: self.status.whole().conditions.unwrap_or_default(),
            last_active: self.last_active,
            failures: self.slots.iter().map(|slot| slot.health.failures).collect(),
            check_failure: self.check.failure.as_deref().map(str::to_owned),
            rival: self.rival.as_ref().map(|rival| rival.other.clone()),
            deleting: self.deleting,
            evaluation: self.evaluation.number,
        }
    }

    /// What the last decision asked for; where it left the replicas to the HPA, what that wants.
    fn desired(&self) -> Option<i32> {
        let in_charge = self.workload.replicas.is_some_and(|replicas| replicas > 0);
        let hpa = self.hpa.as_ref().and_then(|hpa| hpa.desired).filter(|desired| in_charge && *desired > 0);
        self.desired.or(hpa).or(self.workload.replicas)
    }
}

/// Status times have whole seconds. The later one: a cooldown may grow by a restart, never shrink.
fn whole_seconds(time: Timestamp) -> Timestamp {
    time.round(TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil)).unwrap_or(time)
}
