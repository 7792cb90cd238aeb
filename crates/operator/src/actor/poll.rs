//! Polling the triggers, deciding, and scaling between zero, idle and the minimum.

use std::sync::Arc;

use tidemark_engine::activation::{self, Action, Decision, Memory};
use tokio::time::Instant;

use super::slot::Last;
use super::trigger::{BuildResult, Built, Fetch, Fetched, Parts, needs_resolution};
use super::{ANOTHER_TARGET, Actor, Done, Scaled};
use crate::observation::{Asker, Life, ScaleCause, Stage, What, Write};

/// A finished write of the replicas.
pub(super) struct ScaleDone {
    target: Arc<str>,
    to: i32,
    cause: ScaleCause,
    result: Scaled,
}

impl Actor {
    pub(super) fn parts(&self) -> Parts {
        Parts {
            ctx: self.ctx.clone(),
            key: self.key.clone(),
            spec: self.spec.clone(),
            template: self.workload.target.as_ref().and_then(|state| state.template.clone()),
            fresh: true,
        }
    }

    /// Starts all polls that are due. The timer is armed when the poll starts, so that a slow source does not slow the
    /// others' rhythm nor its own.
    pub(super) fn poll_due(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            if self.slots[index].is_pollable() && self.slots[index].due <= now {
                self.slots[index].due = now + self.spec.polling_interval();
                self.fetch(index, Asker::Poll);
            }
        }
    }

    /// Starts a fetch of a trigger that is built and not being fetched.
    pub(super) fn fetch(&mut self, index: usize, asked_by: Asker) {
        let parts = self.parts();
        let slot = &mut self.slots[index];
        let Ok(built) = &slot.built else { return };
        slot.fetching = true;
        let fetch = Fetch {
            parts,
            index,
            built: built.clone(),
            connection: slot.connection.clone(),
            epoch: self.epoch,
            asked_by,
        };
        self.start(async move { Done::Fetched(Box::new(fetch.run().await)) });
    }

    pub(super) fn on_fetched(&mut self, fetched: Fetched) {
        if fetched.epoch != self.epoch {
            return;
        }
        let (now, interval, index) = (Instant::now(), self.spec.polling_interval(), fetched.index);
        self.tell_fetch(&fetched, now);
        // Parameters may have been read anew meanwhile: then the connection is one with the old ones.
        let current = self.slots[index].built.as_ref().is_ok_and(|built| built.fingerprint == fetched.fingerprint);
        let renamed = match fetched.rebuilt {
            Some(rebuilt) if current => self.replace_trigger(index, rebuilt),
            _ => false,
        };
        let slot = &mut self.slots[index];
        slot.fetching = false;
        slot.connection = fetched.connection.filter(|_| current);
        slot.last = match fetched.outcome {
            Ok(readings) => {
                if fetched.asked_by == Asker::Hpa {
                    slot.due = fetched.started + interval;
                }
                Last::Read { readings: readings.into(), ended: now }
            }
            Err(error) => Last::Failed { error: Box::new(error), ended: now },
        };
        let overdue = fetched.asked_by == Asker::Poll && slot.due <= now;
        let trigger_type = slot.trigger_type.clone();
        self.answer_waiting(index);
        if overdue {
            let message = format!("the poll took longer than the polling interval of {} s", interval.as_secs());
            self.tell_error(Stage::PollOverdue { index, trigger_type }, message);
        }
        if renamed {
            self.reconcile(None);
        }
        if self.may_evaluate(index, now) {
            self.evaluate();
        }
    }

    /// An active trigger acts at once. A quiet or failing one waits for those that are being read, so that all the
    /// triggers of one poll count together; but not for longer than one polling interval.
    fn may_evaluate(&self, index: usize, now: Instant) -> bool {
        let waited = self.evaluated.is_some_and(|at| now.duration_since(at) > self.spec.polling_interval());
        self.slots[index].was_active() || waited || !self.slots.iter().any(|slot| slot.fetching)
    }

    fn tell_fetch(&self, fetched: &Fetched, now: Instant) {
        let slot = &self.slots[fetched.index];
        let outcome = fetched.outcome.as_ref().map_err(Clone::clone).map(|readings| {
            slot.metrics().iter().zip(readings).map(|(metric, reading)| (metric.name().clone(), *reading)).collect()
        });
        self.tell(What::Fetch {
            trigger: fetched.index,
            trigger_type: slot.trigger_type.clone(),
            asked_by: fetched.asked_by,
            took: now.duration_since(fetched.started),
            outcome,
        });
    }

    /// Decides on what is known now, and acts.
    pub(super) fn evaluate(&mut self) {
        if self.controls.paused || self.deleting || self.slots.is_empty() {
            return;
        }
        let Some(state) = &self.workload.target else { return };
        if !state.target.is_watched() && !self.workload.scaling {
            if !self.workload.reading_replicas {
                self.workload.reading_replicas = true;
                let (client, target) = (self.ctx.client.clone(), state.target.clone());
                self.start(async move { Done::Replicas(target.replicas(&client).await) });
            }
            return;
        }
        self.decide();
    }

    pub(super) fn on_replicas(&mut self, replicas: Result<i32, String>) {
        self.workload.reading_replicas = false;
        self.workload.replicas = replicas.as_ref().ok().copied();
        if !self.controls.paused && !self.deleting && !self.slots.is_empty() {
            self.decide();
        }
    }

    fn decide(&mut self) {
        let (now, interval) = (Instant::now(), self.spec.polling_interval());
        self.evaluated = Some(now);
        let states: Vec<_> = self.slots.iter().flat_map(|slot| slot.states(interval, now)).collect();
        let policy = self.spec.policy(self.created);
        let memory = Memory { last_active: self.last_active };
        let wall = self.ctx.clock.now();
        let decision = activation::decide(&policy, self.controls, &states, 0, self.workload.replicas, memory, wall);
        self.tell(What::Decision {
            active: decision.active,
            replicas: self.workload.replicas,
            action: decision.action,
            reasons: decision.reasons.as_slice().into(),
        });
        self.report_decision(&decision);
        self.desired = decision.action.target();
        self.act(&decision);
        self.reasons = decision.reasons;
        self.flush_status();
    }

    fn act(&mut self, decision: &Decision) {
        let (from, to, cause) = match decision.action {
            Action::Nothing => return,
            Action::Activate { from, to } => (from, to, self.activation_cause()),
            Action::Deactivate { from, to } => (from, to, ScaleCause::Deactivated),
            Action::RaiseToMinimum { from, to } => (from, to, ScaleCause::RaisedToMinimum),
            Action::Pause { from, to } => (from, to, ScaleCause::Paused),
        };
        let Some(state) = self.workload.target.as_ref().filter(|_| !self.workload.scaling) else { return };
        self.workload.scaling = true;
        let (client, target) = (self.ctx.client.clone(), state.target.clone());
        self.start(async move {
            let result = target.scale(&client, Some(from), to).await;
            Done::Scaled(Box::new(ScaleDone { target: target.describe(), to, cause, result }))
        });
    }

    fn activation_cause(&self) -> ScaleCause {
        let mut metrics = Vec::new();
        for slot in &self.slots {
            if let Last::Read { readings, .. } = &slot.last {
                let active = slot.metrics().iter().zip(readings.iter()).filter(|(_, reading)| reading.active);
                metrics.extend(active.map(|(metric, _)| metric.name().clone()));
            }
        }
        ScaleCause::Activated { forced: metrics.is_empty(), metrics }
    }

    pub(super) fn on_scaled(&mut self, done: ScaleDone) {
        self.workload.scaling = false;
        let ScaleDone { target, to, cause, result } = done;
        match result {
            Scaled::Done { from, written } => {
                self.workload.replicas = Some(to);
                if written {
                    self.tell(What::Write { write: Write::Scale { target, from, to, cause }, error: None });
                }
            }
            Scaled::Moved { replicas } => {
                self.workload.replicas = Some(replicas);
                self.evaluate();
            }
            Scaled::Failed { from, message } => {
                let write = Write::Scale { target, from, to, cause };
                self.tell(What::Write { write, error: Some(message.into()) });
                // The target may be gone, or have other replicas than it was thought to have.
                self.put_off_target_event(ANOTHER_TARGET);
            }
        }
        self.reconcile_waiting();
        self.catch_up_with_target();
    }

    /// Puts another build of a trigger in place; whether its metrics are others than before.
    fn replace_trigger(&mut self, index: usize, built: Built) -> bool {
        let slot = &mut self.slots[index];
        let renamed = slot.metrics() != built.trigger.metrics();
        slot.built = Ok(built);
        if renamed {
            slot.last = Last::Unread;
        }
        self.tell_built(index);
        renamed
    }

    /// Tells of a trigger that was built, with the notes that concern its user.
    pub(super) fn tell_built(&self, index: usize) {
        let slot = &self.slots[index];
        let Ok(built) = &slot.built else { return };
        let trigger_type = &slot.trigger_type;
        self.tell_life(Life::TriggerBuilt { index, trigger_type: trigger_type.clone() });
        for note in built.trigger.notes().iter().chain(built.missing.iter()) {
            self.tell_life(Life::TriggerNote { index, trigger_type: trigger_type.clone(), note: note.as_str().into() });
        }
    }

    /// Resolves the parameters again of all triggers that have some from elsewhere: because something has changed
    /// (`fresh`), or because it is time.
    pub(super) fn rebuild_triggers(&mut self, fresh: bool) {
        let indices: Vec<_> =
            (0..self.slots.len()).filter(|index| needs_resolution(&self.spec.triggers[*index])).collect();
        if self.refresh.running || (fresh && self.check.running) {
            self.refresh.again |= fresh;
            return;
        }
        if indices.is_empty() {
            return;
        }
        self.refresh.running = true;
        let (parts, epoch) = (Parts { fresh, ..self.parts() }, self.epoch);
        self.start(async move {
            let mut builds = Vec::new();
            for index in indices {
                builds.push((index, parts.build(index).await));
            }
            Done::Rebuilt { epoch, builds }
        });
    }

    pub(super) fn on_rebuilt(&mut self, epoch: u32, builds: Vec<(usize, BuildResult)>) {
        self.refresh.running = false;
        if std::mem::take(&mut self.refresh.again) {
            self.rebuild_triggers(true);
        }
        if epoch != self.epoch {
            return;
        }
        self.arm_auth_refresh();
        let mut check = false;
        for (index, build) in builds {
            match (build, &self.slots[index].built) {
                (Ok(new), Ok(old)) if new.fingerprint == old.fingerprint => {}
                (Ok(new), Ok(_)) => {
                    check |= self.replace_trigger(index, new);
                    self.slots[index].connection = None;
                    self.slots[index].due = Instant::now();
                }
                // It could not be built so far: the check puts it to work and completes the HPA.
                (Ok(_), Err(_)) => check = true,
                // What was built goes on with what it has, until a read fails.
                (Err(_), _) => {}
            }
        }
        if check {
            self.reconcile(None);
        }
    }

    pub(super) fn arm_auth_refresh(&mut self) {
        let needed = self.slots.len() == self.spec.triggers.len() && self.spec.triggers.iter().any(needs_resolution);
        let refresh = self.ctx.settings.auth_refresh;
        self.refresh.due = (needed && !refresh.is_zero()).then(|| Instant::now() + refresh);
    }

    /// Ends all polling: those who wait are told why, fetches under way come to nothing.
    pub(super) fn stop_polling(&mut self, reason: &str) {
        self.epoch += 1;
        self.refresh.due = None;
        self.evaluated = None;
        let was_running = !self.slots.is_empty();
        for request in self.slots.drain(..).flat_map(|slot| slot.waiting) {
            request.refuse(reason);
        }
        if was_running {
            self.tell_life(Life::Stopped);
        }
    }
}
