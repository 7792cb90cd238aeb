//! The scaled workload: its replicas, its pod template, and what the watch tells of it.

use super::{Actor, Done};
use crate::target::{Found, Target, TargetError, Template};

/// The scaled workload, and what is under way with it.
#[derive(Default)]
pub(super) struct Workload {
    pub(super) target: Option<TargetState>,
    pub(super) replicas: Option<i32>,
    /// What the watch told of the target while it was being checked, read or scaled.
    pub(super) event: Option<i64>,
    pub(super) reading: bool,
    /// Its replicas, and perhaps its pods, are being read.
    reading_scale: bool,
    /// A decision waits for that, or for the write of the replicas.
    pub(super) decide_next: bool,
    pub(super) scaling: bool,
}

/// The scale target as the actor knows it.
pub(super) struct TargetState {
    pub(super) target: Target,
    pub(super) generation: Option<i64>,
    pub(super) template: Option<Template>,
}

/// No generation of any object.
pub(crate) const ANOTHER_TARGET: i64 = i64::MIN;

/// The replicas of the target, and where its ready pods were to be counted, how many there are. What could not be read
/// is none.
pub(super) struct ScaleRead {
    target: Target,
    replicas: Option<i32>,
    pods: Option<Option<i32>>,
}

impl Actor {
    pub(super) fn on_target_event(&mut self, generation: i64) {
        if self.deleting {
            return;
        }
        if self.check.running || self.workload.reading || self.workload.scaling {
            self.put_off_target_event(generation);
        } else if self.check.failure.is_some() {
            // What a failed check was waiting for may be there now.
            self.reconcile(None);
        } else if self.is_news(generation) {
            self.read_target();
        }
    }

    /// Whether a generation of the target is one that has not been read yet.
    fn is_news(&self, generation: i64) -> bool {
        self.workload.target.as_ref().is_some_and(|state| {
            generation == ANOTHER_TARGET || state.generation.is_none_or(|known| generation > known)
        })
    }

    pub(super) fn read_target(&mut self) {
        let Some(state) = &self.workload.target else { return };
        self.workload.reading = true;
        let (ctx, target) = (self.ctx.clone(), state.target.clone());
        self.start(async move {
            let found = target.read(&ctx.client, &ctx.kinds).await;
            Done::Target(Box::new((target, found)))
        });
    }

    pub(super) fn on_target_read(&mut self, (target, found): (Target, Result<Found, TargetError>)) {
        self.workload.reading = false;
        match found {
            // The object scales another one by now.
            _ if self.workload.target.as_ref().is_none_or(|state| state.target != target) => {}
            Ok(found) => self.take_target(found),
            // The check says what is wrong, and repeats.
            Err(_) => {
                self.workload.replicas = None;
                self.reconcile(None);
            }
        }
        self.catch_up_with_target();
    }

    fn take_target(&mut self, found: Found) {
        let before = self.workload.replicas;
        self.take_replicas(found.replicas);
        // Where nothing is read, nothing else would lead to a decision soon.
        if self.workload.replicas != before && self.reads_nothing() {
            self.evaluate();
        }
        let Some(state) = &mut self.workload.target else { return };
        state.generation = found.generation;
        if state.template != found.template {
            state.template = found.template;
            self.rebuild_triggers(true);
        }
    }

    /// Takes over replicas that were read, unless a write of ours is under way: then nobody knows which was earlier, and
    /// they are read again.
    pub(super) fn take_replicas(&mut self, replicas: i32) {
        if self.workload.scaling {
            self.put_off_target_event(ANOTHER_TARGET);
        } else {
            self.workload.replicas = Some(replicas);
        }
    }

    /// Keeps what the watch told of the target for later. That it is another object is not forgotten over a generation.
    pub(super) fn put_off_target_event(&mut self, generation: i64) {
        if self.workload.event != Some(ANOTHER_TARGET) {
            self.workload.event = Some(generation);
        }
    }

    /// Goes after what the watch told of the target while it was being read or scaled.
    pub(super) fn catch_up_with_target(&mut self) {
        if let Some(generation) = self.workload.event.take() {
            self.on_target_event(generation);
        }
    }

    /// Reads the replicas, and with `pods` counts the ready pods too; one reading at a time.
    pub(super) fn read_workload(&mut self, pods: bool) {
        let Some(state) = self.workload.target.as_ref().filter(|_| !self.workload.reading_scale) else { return };
        self.workload.reading_scale = true;
        let (client, target) = (self.ctx.client.clone(), state.target.clone());
        self.start(async move {
            let (replicas, selector) = match target.replicas_and_selector(&client).await {
                Ok((replicas, selector)) => (Ok(replicas), selector),
                Err(error) => (Err(error), None),
            };
            let pods = match selector {
                _ if !pods => None,
                Some(selector) => Some(target.ready_pods(&client, &selector).await.ok()),
                None => Some(None),
            };
            Done::Scale(Box::new(ScaleRead { target, replicas: replicas.ok(), pods }))
        });
    }

    pub(super) fn on_scale_read(&mut self, read: ScaleRead) {
        self.workload.reading_scale = false;
        if self.workload.target.as_ref().is_some_and(|state| state.target != read.target) {
            // The object scales another one by now.
            return self.read_workload(read.pods.is_some());
        }
        if self.workload.target.as_ref().is_some_and(|state| !state.target.is_watched()) {
            self.workload.replicas = read.replicas;
        }
        if read.pods.is_none() && self.needs_pods_now() {
            return self.read_workload(true);
        }
        let pods = read.pods.flatten();
        if !self.workload.scaling && std::mem::take(&mut self.workload.decide_next) {
            self.decide(pods);
        }
        self.answer_with_target(pods);
    }

    /// Whether those who wait for the target to be read need its pods to be counted.
    fn needs_pods_now(&self) -> bool {
        let to_decide = self.workload.decide_next && self.modifiers.is_some() && self.needs_pods(&self.slots);
        to_decide || self.pods_are_waited_for()
    }
}
