//! An actor and its check: when it is made, and what follows from it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidemark_api::ScaledObject;
use tidemark_engine::composite;
use tidemark_trigger::{MetricSpec, Resource};
use tokio::time::Instant;

use super::check::{Checked, Prepared, Reconcile};
use super::metrics::MetricRequest;
use super::slot::Slot;
use super::workload::TargetState;
use super::{Actor, Done, HpaState, Retry};
use crate::claims::Rival;
use crate::hpa::HpaView;
use crate::observation::{Life, Stage, What};
use crate::status::{self, IS_READY, NewCondition};
use crate::target::{Found, Target};
use crate::texts::Text;

/// After so long without a change by others, an HPA is put right at once again.
const PEACE: Duration = Duration::from_secs(600);
/// From this many corrections in a row on, the user is told that somebody else writes the HPA.
const QUARREL: u32 = 6;

/// The check of the object: one at a time.
#[derive(Default)]
pub(super) struct Check {
    pub(super) running: bool,
    /// Another one is wanted after what is under way; with the object where the watch brought it.
    pub(super) next: Option<Option<Box<ScaledObject>>>,
    pub(super) retry: Retry,
    /// Why the last one failed.
    pub(super) failure: Option<Arc<str>>,
    /// What is under way began while another object stood in this one's place, or did not yet.
    outdated: bool,
    /// Requests that came before the first one had built the triggers.
    pub(super) early: Vec<MetricRequest>,
}

impl Actor {
    /// Checks the object, after the running check if there is one. Without the object, it is read first.
    pub(super) fn reconcile(&mut self, object: Option<Box<ScaledObject>>) {
        if self.deleting {
            return;
        }
        // A write of the replicas that is under way must not come to its end behind a pause.
        if self.check.running || self.status_write.running || self.workload.scaling {
            let newest = self.check.next.take().flatten();
            self.check.next = Some(object.or(newest));
            return;
        }
        self.check.running = true;
        self.check.retry.at = None;
        let reuse = |slot: &Slot| slot.built.as_ref().ok().cloned();
        let mut check = Reconcile {
            ctx: self.ctx.clone(),
            key: self.entry.key.clone(),
            uid: self.entry.uid.clone(),
            hpa_name: self.status.hpa_name.clone(),
            rival: self.rival.clone(),
            reuse: self.slots.iter().map(reuse).collect(),
            generation: self.slots_generation,
            turn: None,
            out: Checked::default(),
        };
        self.start(async move {
            // It is never closed; and a check that waits its turn is kept small.
            check.turn = check.ctx.checks.clone().acquire_owned().await.ok();
            let begun = Instant::now();
            let checked = Box::pin(check.run(object)).await;
            Done::Checked(Box::new(Checked { took: begun.elapsed(), ..checked }))
        });
    }

    /// Starts the check that had to wait.
    pub(super) fn reconcile_waiting(&mut self) {
        if let Some(object) = self.check.next.take() {
            self.reconcile(object);
        }
    }

    /// The HPA is gone or another one, and this object has not asked for that. It is put right at once; where others
    /// change it again and again, ever less often.
    pub(super) fn put_hpa_right(&mut self) {
        if self.check.running {
            // Its end would settle a repeat that was planned for later.
            return self.reconcile(None);
        }
        let now = Instant::now();
        let Some(at) = self.hpa_peace.at.filter(|at| now < *at + PEACE) else {
            self.hpa_peace.settled();
            self.hpa_peace.after_failure();
            return self.reconcile(None);
        };
        if now < at {
            self.check.retry.at = Some(self.check.retry.at.map_or(at, |planned| planned.min(at)));
            return;
        }
        self.hpa_peace.after_failure();
        if self.hpa_peace.failures == QUARREL {
            let name = self.status.hpa_name.as_deref().unwrap_or_default();
            let message = format!("somebody else keeps changing the HPA {name}; it is put right ever less often");
            self.tell_error(Stage::HpaContested, message);
        }
        self.reconcile(None);
    }

    /// Another object has the target or the HPA, or has it no longer.
    pub(super) fn on_rival(&mut self, rival: Option<Arc<Rival>>) {
        self.rival = rival;
        self.check.outdated = self.check.running;
        if self.deleting {
            return;
        }
        if let Some(rival) = &self.rival {
            let reason = format!("the ScaledObject {} is in its place", rival.other.name);
            self.stop_polling(&reason);
            (self.reasons, self.desired) = (Arc::default(), None);
        }
        self.reconcile(None);
    }

    pub(super) fn on_checked(&mut self, done: Checked) {
        self.check.running = false;
        let failed = done.failure.is_some() || done.interrupted.is_some();
        self.tell(What::Checked { took: done.took, failed });
        self.apply_check(done);
        for request in std::mem::take(&mut self.check.early) {
            self.on_metric_request(request);
        }
    }

    fn apply_check(&mut self, mut done: Checked) {
        let outdated = std::mem::take(&mut self.check.outdated);
        // Whatever becomes of the rest: an HPA whose name is forgotten would never be deleted.
        if let Some(view) = done.hpa.as_ref().filter(|view| self.status.hpa_name.as_ref() != Some(&view.name)) {
            self.status.change().hpa_name = Some(view.name.clone());
        }
        if let Some(message) = done.interrupted {
            self.check.retry.after_failure();
            self.tell_error(Stage::Check, message);
            return self.reconcile_waiting();
        }
        // The watch tells of an object that is gone; until then it is asked for again.
        let Some(object) = done.object.take() else { return self.check.retry.after_failure() };
        if object.metadata.deletion_timestamp.is_some() {
            return self.begin_deletion(object);
        }
        let newer = self.check.next.as_ref().and_then(Option::as_ref);
        if outdated || newer.is_some_and(|newer| newer.metadata.generation != object.metadata.generation) {
            return self.reconcile_waiting();
        }
        if newer.is_none() {
            self.adopt(&object);
            self.apply_controls(&object);
        }
        let template_changed = self.apply_target(&object, done.target.take());
        self.apply_triggers(&object, &mut done);
        // Parameters that changed while the check ran were read before or after that: nobody knows.
        if template_changed || self.refresh.take_missed() {
            self.rebuild_triggers(true);
        }
        match done.hpa.take() {
            Some(view) => self.apply_hpa(&view),
            None if self.controls.paused || self.rival.is_some() => self.hpa = None,
            None => {}
        }
        self.report_check(&done);
        match &done.failure {
            Some(failure) if !failure.lasting => self.check.retry.after_failure(),
            _ => self.check.retry.settled(),
        }
        self.reconcile_waiting();
        self.flush_status();
        if let Some(view) = self.hpa_event.take() {
            self.on_hpa(view);
        }
        self.catch_up_with_target();
    }

    /// Takes the target over; whether the pod template is another one than the triggers were built with.
    fn apply_target(&mut self, object: &ScaledObject, target: Option<(Target, Found)>) -> bool {
        let Some((target, found)) = target else { return false };
        let texts = &self.ctx.texts;
        let mut status = (*self.status).clone();
        status.target_kind = Some(target.resource.kind_text.clone());
        if !status.target_gvkr.as_ref().is_some_and(|there| there.is(&target.resource.gvkr)) {
            status.target_gvkr = Some(target.resource.gvkr.clone());
        }
        status.original_replicas.get_or_insert(found.replicas);
        let types = distinct(object.spec.triggers.iter().map(|trigger| trigger.type_.as_str()));
        status.trigger_types = Some(texts.share(&types));
        let references = object.spec.triggers.iter().filter_map(|trigger| trigger.authentication_ref.as_ref());
        let authentications = distinct(references.map(|reference| reference.name.as_str()));
        status.authentications = Some(texts.share(&authentications));
        self.status.replace(status);
        self.take_replicas(found.replicas);
        let template_changed = self.workload.target.as_ref().is_some_and(|state| state.template != found.template);
        self.workload.target = Some(TargetState { target, generation: found.generation, template: found.template });
        template_changed
    }

    fn apply_triggers(&mut self, object: &ScaledObject, done: &mut Checked) {
        let builds = done.triggers.take().filter(|_| !self.controls.paused && self.rival.is_none());
        let Some(builds) = builds else {
            // The triggers of an older specification must not go on; those of this one may.
            if done.failure.is_some() && self.slots_generation != self.generation {
                self.stop_polling("the ScaledObject has changed and is not ready");
            }
            return;
        };
        let unchanged = self.slots_generation == self.generation && self.slots.len() == builds.len();
        let first = self.slots.is_empty();
        if !unchanged {
            // Answers that are under way belong to triggers that are no more.
            self.epoch += 1;
            self.evaluated = None;
        }
        self.modifiers = done.modifiers.take();
        let due = Instant::now() + std::mem::take(&mut self.first_poll);
        let mut old = std::mem::take(&mut self.slots).into_iter().map(Some).collect::<Vec<_>>();
        self.slots.reserve_exact(builds.len());
        for (index, (trigger, prepared)) in object.spec.triggers.iter().zip(builds).enumerate() {
            // What is at work may have been built anew since the check began: then it is the newer one.
            let kept = old
                .get_mut(index)
                .and_then(|slot| slot.take_if(|slot| unchanged && prepared.build.is_ok() && slot.built.is_ok()));
            match kept {
                Some(kept) => self.keep_slot(kept, prepared),
                None => {
                    let failed_before =
                        old.get(index).and_then(Option::as_ref).and_then(|slot| slot.built.as_ref().err());
                    let news = prepared.build.as_ref().err().filter(|error| failed_before != Some(*error)).cloned();
                    let mut slot = Slot::new(trigger, prepared.build, due, &self.ctx);
                    slot.connection = prepared.connection;
                    self.slots.push(slot);
                    self.begin_slot(index, news);
                }
            }
        }
        drop(old);
        self.slots_generation = self.generation;
        self.arm_auth_refresh();
        self.ask_again();
        self.report_metrics();
        self.report_health();
        if first && !self.slots.is_empty() {
            self.tell_life(Life::Started);
        }
    }

    /// Goes on with a trigger that is at work, with what the check has learnt from its source.
    fn keep_slot(&mut self, mut slot: Slot, prepared: Prepared) {
        if let (Ok(mine), Ok(built)) = (&slot.built, prepared.build)
            && mine.is_unnamed()
            && !built.is_unnamed()
            && mine.fingerprint == built.fingerprint
        {
            let mut named = mine.clone();
            named.named = built.named;
            slot.replace(named);
            slot.connection = prepared.connection;
        }
        self.slots.push(slot);
    }

    /// Puts a trigger to work that was not before.
    fn begin_slot(&mut self, index: usize, error: Option<Text>) {
        self.tell_built(index);
        if let Some(error) = error {
            let trigger_type = self.slots[index].trigger_type.clone();
            self.tell_error(Stage::Trigger { index, trigger_type }, error);
        }
        self.recall_health(index);
        self.listen(index);
    }

    /// The names of the metrics, once all triggers have told theirs. The HPA may be refused all the same.
    fn report_metrics(&mut self) {
        if !self.slots.iter().all(|slot| slot.built.as_ref().is_ok_and(|built| !built.is_unnamed())) {
            return;
        }
        let some = |names: Box<[Text]>| (!names.is_empty()).then_some(names);
        let external = self.slots.iter().flat_map(Slot::external_names).cloned().collect();
        let resources = self.slots.iter().flat_map(Slot::metrics).filter_map(whole_pods);
        let resources = resources.map(|resource| self.ctx.texts.share(resource.as_str())).collect();
        let mut status = (*self.status).clone();
        status.external_names = some(external);
        status.resource_names = some(resources);
        status.composite = self.modifiers.as_ref().map(|_| self.ctx.texts.share(composite::METRIC));
        self.status.replace(status);
    }

    fn apply_hpa(&mut self, view: &HpaView) {
        self.hpa = Some(HpaState { uid: view.uid.clone(), fingerprint: view.fingerprint, desired: view.desired });
        let mut status = (*self.status).clone();
        status.hpa_name = Some(view.name.clone());
        self.status.replace(status);
        self.tell(What::Hpa(view.seen.clone()));
        self.report_hpa(view);
    }

    /// Conditions and events of a check that has ended.
    fn report_check(&mut self, done: &Checked) {
        let was_ready = self.status.is_true(status::READY);
        if let Some(failure) = &done.failure {
            if let Some(stage) = failure.stage.clone() {
                self.tell_error(stage, failure.message.as_str());
            }
            self.tell_error(Stage::Check, failure.message.as_str());
            self.check.failure = Some(failure.message.as_str().into());
            let text = failure.message.as_str();
            self.set_condition(NewCondition::new(status::READY, "False", "ScaledObjectCheckFailed", text));
            if !self.slots.iter().any(|slot| slot.built.is_ok()) {
                let text = "the ScaledObject is not ready";
                self.set_condition(NewCondition::new(status::ACTIVE, "Unknown", "UnknownState", text));
            }
        } else {
            let had_failed = self.check.failure.take().is_some();
            let ready = match self.controls.paused {
                true => NewCondition { message: "ScaledObject is paused", ..IS_READY },
                false => IS_READY,
            };
            // What the triggers that are at work say of themselves stays until they say otherwise.
            if self.evaluated.is_none() || was_ready || had_failed {
                self.set_condition(ready);
                if !was_ready {
                    self.tell_life(Life::Ready);
                }
            }
        }
        if let Some(replicas) = done.paused_replicas.filter(|_| self.controls.paused) {
            self.workload.replicas = Some(replicas);
            if self.status.paused_replicas != Some(replicas) {
                self.status.change().paused_replicas = Some(replicas);
            }
        }
        // While nothing is read, the condition keeps what it last was.
        if self.plan.fallback.is_none() || !self.slots.is_empty() {
            self.report_fallback();
        }
    }
}

/// The resource of a metric that counts whole pods.
fn whole_pods(metric: &MetricSpec) -> Option<Resource> {
    match metric {
        MetricSpec::Resource { resource, container: None, .. } => Some(*resource),
        _ => None,
    }
}

/// Distinct texts in the order of their first appearance, joined by commas.
fn distinct<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut seen = BTreeSet::new();
    texts.filter(|text| seen.insert(*text)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_listed_once_in_the_order_of_their_first_use() {
        assert_eq!(distinct(["cron", "rabbitmq", "cron"].into_iter()), "cron,rabbitmq");
    }
}
