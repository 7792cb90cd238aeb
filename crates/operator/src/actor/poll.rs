//! Fetching the triggers: by timer, and because somebody asks.

use std::time::Duration;

use tidemark_trigger::door::HttpRequests;
use tokio::time::Instant;

use super::slot::{Last, Slot};
use super::trigger::{Built, Fetch, Fetched, Parts};
use super::{Actor, Done};
use crate::observation::{Asker, Life, Stage, What};

impl Actor {
    pub(super) fn parts(&self) -> Parts {
        Parts {
            ctx: self.ctx.clone(),
            key: self.entry.key.clone(),
            definitions: self.plan.triggers.clone(),
            template: self.workload.target.as_ref().and_then(|state| state.template.clone()),
            fresh: true,
        }
    }

    /// Whether there are triggers, and the HPA reads all of them by itself. Then the first one's timer is the pulse of
    /// the object.
    pub(super) fn reads_nothing(&self) -> bool {
        !self.slots.is_empty() && self.slots.iter().all(Slot::is_resource)
    }

    /// When the next trigger is due.
    pub(super) fn next_poll(&self) -> Option<Instant> {
        if self.reads_nothing() {
            return self.slots.first().map(|slot| slot.due);
        }
        self.slots.iter().filter(|slot| slot.is_pollable()).map(|slot| slot.due).min()
    }

    /// Starts all polls that are due. The timer is armed when the poll starts, so that a slow source does not slow the
    /// others' rhythm nor its own.
    pub(super) fn poll_due(&mut self, now: Instant) {
        let next = now + self.plan.interval;
        if let Some(due) = self.next_poll().filter(|due| *due <= now) {
            self.begin_evaluation();
            self.tell(What::Poll { late: now.duration_since(due) });
        }
        if self.reads_nothing() {
            if let Some(pulse) = self.slots.first_mut().filter(|slot| slot.due <= now) {
                pulse.due = next;
                self.evaluate();
            }
            return;
        }
        for index in 0..self.slots.len() {
            if self.slots[index].is_pollable() && self.slots[index].due <= now {
                self.slots[index].due = next;
                self.fetch(index, Asker::Poll);
            }
        }
    }

    /// Begins an evaluation, unless one is under way that this belongs to.
    pub(super) fn begin_evaluation(&mut self) {
        let under_way = self.evaluation.open && self.slots.iter().any(|slot| slot.fetching);
        if !under_way {
            self.evaluation.number += 1;
            self.evaluation.open = true;
        }
    }

    /// Starts a fetch of a trigger that is built and not being fetched.
    pub(super) fn fetch(&mut self, index: usize, asked_by: Asker) {
        if asked_by == Asker::Hpa {
            self.begin_evaluation();
        }
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
            revision: slot.revision,
            evaluation: self.evaluation.number,
            asked_by,
            requests: HttpRequests::default(),
        };
        self.start(async move { Done::Fetched(Box::new(fetch.run().await)) });
    }

    pub(super) fn on_fetched(&mut self, fetched: Fetched) {
        if fetched.epoch != self.epoch {
            return;
        }
        let (now, index, asked_by) = (Instant::now(), fetched.index, fetched.asked_by);
        self.slots[index].fetching = false;
        if self.slots[index].revision != fetched.revision {
            // What was read with other parameters or for other metrics says nothing about those of now.
            if self.is_waited_for(index) {
                self.fetch(index, Asker::Hpa);
            } else {
                self.slots[index].due = now;
            }
            return;
        }
        let renamed = self.take_fetched(fetched, now);
        self.count_fetch(index);
        self.answer_questions(index);
        if asked_by == Asker::Poll && self.slots[index].due <= now {
            self.tell_overdue(index, self.plan.interval);
        }
        if renamed {
            self.reconcile(None);
        }
        if self.may_evaluate(index, now) {
            self.evaluate();
        }
    }

    /// Takes over what a fetch has found; whether the trigger's metrics are others than before.
    fn take_fetched(&mut self, fetched: Fetched, now: Instant) -> bool {
        let index = fetched.index;
        let other = |built: &Built| built.fingerprint != fetched.built.fingerprint;
        let parameters = self.slots[index].built.as_ref().is_ok_and(other);
        let renamed = self.slots[index].metrics() != fetched.built.metrics();
        if parameters || renamed {
            self.slots[index].replace(fetched.built);
        }
        let slot = &mut self.slots[index];
        slot.connection = fetched.connection;
        let outcome = fetched.outcome.as_ref().map(|readings| readings.to_vec()).map_err(Clone::clone);
        if fetched.outcome.is_ok() && fetched.asked_by == Asker::Hpa {
            slot.due = fetched.started + self.plan.interval;
        }
        slot.last = match fetched.outcome {
            Ok(readings) => Last::Read { readings: readings.into(), ended: now },
            Err(error) => Last::Failed { error: Box::new(error), ended: now },
        };
        let what = What::Fetch {
            trigger: index,
            trigger_type: slot.trigger_type.clone(),
            name: slot.name().cloned(),
            asked_by: fetched.asked_by,
            for_formula: self.modifiers.is_some(),
            endpoint: fetched.endpoint,
            took: now.duration_since(fetched.started),
            metrics: slot.external_names().cloned().collect(),
            outcome,
            requests: fetched.requests,
            empties: fetched.empties,
        };
        self.tell_of(fetched.evaluation, what);
        if parameters {
            self.tell_built(index);
            self.listen(index);
        }
        renamed
    }

    fn tell_overdue(&self, index: usize, interval: Duration) {
        let trigger_type = self.slots[index].trigger_type.clone();
        let message = format!("the poll took longer than the polling interval of {} s", interval.as_secs());
        self.tell_error(Stage::PollOverdue { index, trigger_type }, message);
    }

    /// An active trigger acts at once, unless a formula is to weigh it against the others. Any other outcome waits for
    /// those that are being read, so that all the triggers of one poll count together; but not for longer than one
    /// polling interval, and the first decision only until each has been read once: a source that takes as long as the
    /// interval to fail is being read all the time.
    fn may_evaluate(&self, index: usize, now: Instant) -> bool {
        let acts_alone = self.modifiers.is_none() && self.slots[index].was_active();
        let waited = match self.evaluated {
            Some(at) => now.duration_since(at) > self.plan.interval,
            None => !self.slots.iter().any(|slot| slot.fetching && matches!(slot.last, Last::Unread)),
        };
        acts_alone || waited || !self.slots.iter().any(|slot| slot.fetching)
    }

    /// Tells of a trigger that was built, with the notes that concern its user.
    pub(super) fn tell_built(&self, index: usize) {
        let slot = &self.slots[index];
        let Ok(built) = &slot.built else { return };
        let trigger_type = &slot.trigger_type;
        self.tell_life(Life::TriggerBuilt { index, trigger_type: trigger_type.clone() });
        for note in built.notes() {
            self.tell_life(Life::TriggerNote { index, trigger_type: trigger_type.clone(), note: note.as_str().into() });
        }
    }

    /// Ends all polling: those who wait are told why, fetches under way come to nothing.
    pub(super) fn stop_polling(&mut self, reason: &str) {
        self.epoch += 1;
        self.refresh.due = None;
        self.evaluated = None;
        self.evaluation.open = false;
        let was_running = !self.slots.is_empty();
        self.slots = Vec::new();
        self.modifiers = None;
        self.refuse_questions(reason);
        if was_running {
            self.tell_life(Life::Stopped);
        }
    }
}
