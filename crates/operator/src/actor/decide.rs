//! Deciding, and scaling between zero, idle and the minimum.

use std::sync::Arc;
use std::time::Duration;

use tidemark_engine::activation::{self, Action, Decision, Memory, Outcome, TriggerState};
use tidemark_engine::composite::{self, Composite, Input, Modifiers};
use tidemark_engine::fallback::{self, Need};
use tidemark_engine::metric::Target;
use tokio::time::Instant;

use super::slot::{Last, Metric, Slot};
use super::{ANOTHER_TARGET, Actor, Done, Scaled};
use crate::observation::{ScaleCause, Seen, What, Write};
use crate::texts::Text;

/// A finished write of the replicas.
pub(super) struct ScaleDone {
    target: Arc<str>,
    to: i32,
    cause: ScaleCause,
    evaluation: u64,
    took: Duration,
    result: Scaled,
}

/// What is told of a metric that a decision rests on.
fn seen(trigger: Option<usize>, metric: Text, target: Option<Target>, outcome: &Outcome) -> Seen {
    let known = !matches!(outcome, Outcome::Unknown | Outcome::Failed { .. } | Outcome::Nil { .. });
    Seen {
        trigger,
        metric,
        milli: outcome.served().ok(),
        target,
        active: known.then(|| outcome.is_active()),
        fallback: matches!(outcome, Outcome::Fallback { .. }),
    }
}

impl Actor {
    /// Decides on what is known now, and acts. What a decision needs of the target is read first, and a write of its
    /// replicas comes to its end before: nobody knows how many there are, and what is to be done could not be.
    pub(super) fn evaluate(&mut self) {
        if self.controls.paused || self.deleting || self.slots.is_empty() {
            return;
        }
        let Some(state) = &self.workload.target else { return };
        if self.workload.scaling {
            self.workload.decide_next = true;
            return;
        }
        let pods = self.modifiers.is_some() && self.needs_pods(&self.slots);
        if state.target.is_watched() && !pods {
            return self.decide(None);
        }
        self.workload.decide_next = true;
        self.read_workload(pods);
    }

    /// Decides on the triggers, on the replicas that are known, and on the pods that are ready if they were read.
    pub(super) fn decide(&mut self, ready_pods: Option<i32>) {
        if self.controls.paused || self.deleting || self.slots.is_empty() {
            return;
        }
        let now = Instant::now();
        self.evaluated = Some(now);
        self.evaluation.open = false;
        let resources = self.slots.iter().filter(|slot| slot.is_resource()).count();
        let (policy, controls, replicas) = (&self.plan.policy, self.controls, self.workload.replicas);
        let (memory, wall) = (Memory { last_active: self.last_active }, self.ctx.clock.now());
        let (decision, mut metrics) = match &self.modifiers {
            Some(modifiers) => {
                let composite = self.composite(modifiers, Some(self.plan.interval), ready_pods);
                let metric = self.ctx.texts.share(composite::METRIC);
                let metrics = vec![seen(None, metric, Some(modifiers.target()), &composite.outcome)];
                (composite::decide(policy, controls, &composite, resources, replicas, memory, wall), metrics)
            }
            None => {
                let (sources, states) = self.states(now);
                let metrics = sources
                    .into_iter()
                    .zip(&states)
                    .map(|((index, target), state)| seen(Some(index), state.metric.clone(), target, &state.outcome));
                (activation::decide(policy, controls, &states, resources, replicas, memory, wall), metrics.collect())
            }
        };
        metrics.extend(self.seen_by_hpa());
        self.tell(What::Decision {
            active: decision.active,
            replicas,
            action: decision.action,
            reasons: decision.reasons.as_slice().into(),
            metrics: metrics.into(),
        });
        self.report_decision(&decision);
        self.desired = decision.action.target();
        self.act(&decision);
        self.reasons = decision.reasons.into();
        for slot in &mut self.slots {
            slot.announced = false;
        }
        self.flush_status();
    }

    /// What the engine may know of the triggers: a reading counts for one polling interval.
    /// Beside each the position of its trigger, and its target.
    fn states(&self, now: Instant) -> (Vec<(usize, Option<Target>)>, Vec<TriggerState>) {
        let mut states = (Vec::new(), Vec::new());
        for (index, slot) in self.slots.iter().enumerate() {
            let metrics = slot.fetched(Some(self.plan.interval), now).into_iter();
            states.extend(metrics.map(|metric| ((index, metric.target), self.state_of(slot, metric, None))));
        }
        states
    }

    /// The metrics that the HPA reads by itself: they are always active.
    fn seen_by_hpa(&self) -> impl Iterator<Item = Seen> {
        let slots = self.slots.iter().enumerate().filter(|(_, slot)| slot.is_resource());
        slots.map(|(index, slot)| Seen {
            trigger: Some(index),
            metric: slot.trigger_type.clone(),
            milli: None,
            target: None,
            active: Some(true),
            fallback: false,
        })
    }

    /// What a metric's outcome means for a decision: what its source has told unasked comes before what was read.
    fn state_of(&self, slot: &Slot, metric: Metric, ready_pods: Option<i32>) -> TriggerState {
        if slot.announced {
            return TriggerState { metric: metric.name, outcome: Outcome::Announced };
        }
        self.applied(slot, metric, ready_pods)
    }

    /// What a metric's outcome means under the fallback.
    pub(super) fn applied(&self, slot: &Slot, metric: Metric, ready_pods: Option<i32>) -> TriggerState {
        let outcome = match self.target_of(&metric) {
            Some(target) => {
                let workload = fallback::Workload { replicas: self.workload.replicas, ready_pods };
                fallback::apply(self.plan.fallback.as_ref(), slot.health, target, metric.fetched, workload)
            }
            None => metric.fetched,
        };
        TriggerState { metric: metric.name, outcome }
    }

    /// The target that a fallback would stand in for; none while nobody knows the metric.
    fn target_of(&self, metric: &Metric) -> Option<Target> {
        let own = metric.target?;
        Some(self.modifiers.as_ref().map_or(own, |modifiers| modifiers.target()))
    }

    /// The composite metric. With `age` it is one for a decision: a reading older than that counts as none, and what a
    /// source has told unasked counts.
    pub(super) fn composite(&self, modifiers: &Modifiers, age: Option<Duration>, pods: Option<i32>) -> Composite {
        let now = Instant::now();
        let mut inputs = Vec::new();
        for slot in &self.slots {
            for metric in slot.fetched(age, now) {
                let state = match age {
                    Some(_) => self.state_of(slot, metric, pods),
                    None => self.applied(slot, metric, pods),
                };
                inputs.push(Input { name: slot.name().cloned(), state });
            }
        }
        modifiers.evaluate(&inputs, self.plan.fallback.as_ref())
    }

    /// What must be known of the target for these triggers' metrics.
    pub(super) fn need<'a>(&self, slots: impl IntoIterator<Item = &'a Slot>) -> Need {
        let Some(fallback) = &self.plan.fallback else { return Need::Nothing };
        let now = Instant::now();
        let mut need = Need::Nothing;
        for slot in slots {
            for metric in slot.fetched(None, now) {
                if let Some(target) = self.target_of(&metric) {
                    need = need.max(fallback::need(Some(fallback), slot.health, target, &metric.fetched));
                }
            }
        }
        need
    }

    /// Whether pods must be counted; at zero there are none.
    pub(super) fn needs_pods<'a>(&self, slots: impl IntoIterator<Item = &'a Slot>) -> bool {
        self.need(slots) == Need::ReadyPods && self.workload.replicas != Some(0)
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
        let (client, target, evaluation) = (self.ctx.client.clone(), state.target.clone(), self.evaluation.number);
        self.start(async move {
            let begun = Instant::now();
            let result = target.scale(&client, Some(from), to).await;
            let took = begun.elapsed();
            Done::Scaled(Box::new(ScaleDone { target: target.describe(), to, cause, evaluation, took, result }))
        });
    }

    fn activation_cause(&self) -> ScaleCause {
        let mut metrics: Vec<Text> = self.slots.iter().flat_map(|slot| self.active_names(slot)).collect();
        let forced = metrics.is_empty() && self.controls.force_activation;
        if metrics.is_empty() && !forced {
            metrics.extend(self.slots.iter().filter(|slot| slot.is_resource()).map(|slot| slot.trigger_type.clone()));
        }
        ScaleCause::Activated { forced, metrics }
    }

    /// The metrics of a trigger that make it active.
    fn active_names(&self, slot: &Slot) -> Vec<Text> {
        let states = slot.fetched(None, Instant::now()).into_iter().map(|metric| self.state_of(slot, metric, None));
        states.filter(|state| state.outcome.is_active()).map(|state| state.metric).collect()
    }

    /// Whether each metric of a trigger is active, once anything is known of it.
    pub(super) fn activities(&self, slot: &Slot) -> Vec<(Text, bool)> {
        if matches!(slot.last, Last::Unread) && !slot.announced {
            return Vec::new();
        }
        let active = self.active_names(slot);
        slot.external_names().map(|name| (name.clone(), active.contains(name))).collect()
    }

    pub(super) fn on_scaled(&mut self, done: ScaleDone) {
        self.workload.scaling = false;
        let ScaleDone { target, to, cause, evaluation, took, result } = done;
        match result {
            Scaled::Done { from, written } => {
                self.workload.replicas = Some(to);
                if written {
                    let write = Write::Scale { target, from, to, cause };
                    self.tell_of(evaluation, self.ctx.written(write, took, None));
                }
            }
            Scaled::Moved { replicas } => {
                self.workload.replicas = Some(replicas);
                self.workload.decide_next = true;
            }
            Scaled::Failed { from, message } => {
                let write = Write::Scale { target, from, to, cause };
                self.tell_of(evaluation, self.ctx.written(write, took, Some(message.into())));
                // The target may be gone, or have other replicas than it was thought to have. The next poll tries again.
                self.workload.decide_next = false;
                self.put_off_target_event(ANOTHER_TARGET);
            }
        }
        self.reconcile_waiting();
        if std::mem::take(&mut self.workload.decide_next) {
            self.evaluate();
        }
        self.catch_up_with_target();
    }
}
