//! The check of an object: finalizer and label, scale target, triggers, HPA; and what follows from it.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use tidemark_api::{FINALIZER, SCALED_OBJECT_LABEL, ScaledObject, ScaledObjectSpec};
use tidemark_engine::controls;
use tidemark_trigger::MetricSpec;
use tokio::time::Instant;

use super::slot::Slot;
use super::trigger::{BuildResult, Built, Parts};
use super::{Actor, Done, HpaState, TargetState};
use crate::FIELD_MANAGER;
use crate::client;
use crate::context::Context;
use crate::hpa::{self, HpaView};
use crate::observation::{Life, ObjectKey, Stage, What, Write};
use crate::status;
use crate::target::{Found, Target, TargetError};

const STEP_LABEL: &str = "failed to update ScaledObject with scaledObjectName label";
const STEP_TARGET: &str = "ScaledObject doesn't have correct scaleTargetRef specification";
const STEP_BOUNDS: &str = "ScaledObject doesn't have correct Idle/Min/Max Replica Counts specification";
const STEP_TRIGGERS: &str = "ScaledObject doesn't have correct triggers specification";
const STEP_HPA: &str = "failed to ensure HPA is correctly created for ScaledObject";
/// Times that the object's metadata is written again after somebody else has written first.
const CONFLICTS: u32 = 5;

/// One check, on its way.
pub(super) struct Reconcile {
    pub(super) ctx: Arc<Context>,
    pub(super) key: Arc<ObjectKey>,
    uid: Arc<str>,
    /// `status.hpaName`.
    pub(super) hpa_name: Option<String>,
    /// The triggers that are at work already for this generation of the object.
    reuse: Vec<Option<Built>>,
    generation: i64,
    pub(super) out: Reconciled,
}

/// What a check found and did.
#[derive(Default)]
pub(super) struct Reconciled {
    /// The object as it is now; none where it is gone or could not be read.
    object: Option<Box<ScaledObject>>,
    pub(super) target: Option<(Target, Found)>,
    triggers: Option<Vec<BuildResult>>,
    hpa: Option<HpaView>,
    pub(super) paused_replicas: Option<i32>,
    /// It ended before it could know anything, through no fault of the object.
    interrupted: Option<String>,
    failure: Option<CheckFailure>,
}

/// Why an object is not ready.
#[derive(Clone, Debug)]
pub(super) struct CheckFailure {
    stage: Option<Stage>,
    message: String,
}

/// A failure of a step, in the words of KEDA's conditions: `<step>: <cause>`.
pub(super) fn refused(step: &str, cause: &dyn Display) -> CheckFailure {
    CheckFailure { stage: None, message: format!("{step}: {cause}") }
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
        let check = Reconcile {
            ctx: self.ctx.clone(),
            key: self.key.clone(),
            uid: self.uid.clone(),
            hpa_name: self.status.hpa_name.clone(),
            reuse: self.slots.iter().map(reuse).collect(),
            generation: self.slots_generation,
            out: Reconciled::default(),
        };
        let ctx = self.ctx.clone();
        self.start(async move {
            // It is never closed; and a check that waits its turn is kept small.
            let _turn = ctx.checks.acquire().await.ok();
            Done::Reconciled(Box::new(Box::pin(check.run(object)).await))
        });
    }

    /// Starts the check that had to wait.
    pub(super) fn reconcile_waiting(&mut self) {
        if let Some(object) = self.check.next.take() {
            self.reconcile(object);
        }
    }

    pub(super) fn on_reconciled(&mut self, done: Reconciled) {
        self.check.running = false;
        self.apply_check(done);
        for request in std::mem::take(&mut self.check.early) {
            self.on_metric_request(request);
        }
    }

    fn apply_check(&mut self, mut done: Reconciled) {
        if let Some(message) = done.interrupted {
            self.check.retry.after_failure();
            self.tell_error(Stage::Check, message);
            return self.reconcile_waiting();
        }
        // The watch tells of an object that is gone; until then it is asked for again.
        let Some(object) = done.object.take() else { return self.check.retry.after_failure() };
        let newer = self.check.next.as_ref().and_then(Option::as_ref);
        if newer.is_some_and(|newer| newer.metadata.generation != object.metadata.generation) {
            return self.reconcile_waiting();
        }
        if newer.is_none() {
            self.adopt(&object);
            self.apply_controls(&object);
        }
        let template_changed = self.apply_target(&object, done.target.take());
        self.apply_triggers(done.triggers.take(), done.failure.is_some());
        // Parameters that changed while the check ran were read before or after that: nobody knows.
        if template_changed || (!self.refresh.running && std::mem::take(&mut self.refresh.again)) {
            self.rebuild_triggers(true);
        }
        match done.hpa.take() {
            Some(view) => self.apply_hpa(&view),
            None if self.controls.paused => self.hpa = None,
            None => {}
        }
        self.report_check(&object, &done);
        match done.failure {
            Some(_) => self.check.retry.after_failure(),
            None => self.check.retry.settled(),
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
        let mut status = (*self.status).clone();
        status.scale_target_kind = Some(target.gvk());
        status.scale_target_gvkr = Some(target.gvkr());
        status.original_replica_count.get_or_insert(found.replicas);
        status.triggers_types = Some(distinct(object.spec.triggers.iter().map(|trigger| trigger.type_.as_str())));
        let references = object.spec.triggers.iter().filter_map(|trigger| trigger.authentication_ref.as_ref());
        let authentications = distinct(references.map(|reference| reference.name.as_str()));
        status.authentications_types = (!authentications.is_empty()).then_some(authentications);
        self.status.replace(status);
        self.take_replicas(found.replicas);
        let template_changed = self.workload.target.as_ref().is_some_and(|state| state.template != found.template);
        self.workload.target = Some(TargetState { target, generation: found.generation, template: found.template });
        template_changed
    }

    fn apply_triggers(&mut self, builds: Option<Vec<BuildResult>>, failed: bool) {
        let Some(builds) = builds.filter(|_| !self.controls.paused) else {
            // The triggers of an older specification must not go on; those of this one may.
            if failed && self.slots_generation != self.generation {
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
        let due = Instant::now() + std::mem::take(&mut self.first_poll);
        let mut old = std::mem::take(&mut self.slots).into_iter().map(Some).collect::<Vec<_>>();
        let spec = self.spec.clone();
        for (index, (trigger, build)) in spec.triggers.iter().zip(builds).enumerate() {
            // What is at work may have been built anew since the check began: then it is the newer one.
            let kept = old
                .get_mut(index)
                .and_then(|slot| slot.take_if(|slot| unchanged && build.is_ok() && slot.built.is_ok()));
            let Some(kept) = kept else {
                let failed_before = old.get(index).and_then(Option::as_ref).and_then(|slot| slot.built.as_ref().err());
                let news = build.as_ref().err().filter(|error| failed_before != Some(*error)).cloned();
                self.slots.push(Slot::new(trigger, build, due));
                self.tell_built(index);
                if let Some(error) = news {
                    self.tell_error(Stage::Trigger { index, trigger_type: trigger.type_.as_str().into() }, error);
                }
                continue;
            };
            self.slots.push(kept);
        }
        self.slots.shrink_to_fit();
        for request in old.into_iter().flatten().flat_map(|slot| slot.waiting) {
            self.on_metric_request(request);
        }
        self.slots_generation = self.generation;
        self.arm_auth_refresh();
        if first && !self.slots.is_empty() {
            self.tell_life(Life::Started);
        }
    }

    fn apply_hpa(&mut self, view: &HpaView) {
        self.hpa = Some(HpaState { uid: view.uid.clone(), fingerprint: view.fingerprint, desired: view.desired });
        let names = self.slots.iter().flat_map(Slot::metrics).map(|metric| metric.name().to_string()).collect();
        let mut status = (*self.status).clone();
        status.hpa_name = Some(view.name.to_string());
        status.external_metric_names = Some(names);
        status.composite_scaler_name = None;
        self.status.replace(status);
        self.report_hpa(view);
    }

    /// Conditions and events of a check that has ended.
    fn report_check(&mut self, object: &ScaledObject, done: &Reconciled) {
        let was_ready = status::is_true(&self.status, status::READY);
        if let Some(failure) = &done.failure {
            if let Some(stage) = failure.stage.clone() {
                self.tell_error(stage, failure.message.as_str());
            }
            self.tell_error(Stage::Check, failure.message.as_str());
            self.check.failure = Some(failure.message.as_str().into());
            let text = failure.message.as_str();
            self.status.set(status::new_condition(status::READY, "False", "ScaledObjectCheckFailed", text));
            if self.slots.is_empty() {
                let text = "the ScaledObject is not ready";
                self.status.set(status::new_condition(status::ACTIVE, "Unknown", "UnknownState", text));
            }
        } else {
            let had_failed = self.check.failure.take().is_some();
            let ready = match self.controls.paused {
                true => status::new_condition(status::READY, "True", "ScaledObjectReady", "ScaledObject is paused"),
                false => status::ready(),
            };
            // What the triggers that are at work say of themselves stays until they say otherwise.
            if self.evaluated.is_none() || status::is_true(&self.status, status::READY) || had_failed {
                self.status.set(ready);
                if !was_ready {
                    self.tell_life(Life::Ready);
                }
            }
        }
        if let Some(replicas) = done.paused_replicas.filter(|_| self.controls.paused) {
            self.workload.replicas = Some(replicas);
            if self.status.paused_replica_count != Some(replicas) {
                self.status.change().paused_replica_count = Some(replicas);
            }
        }
        if object.spec.fallback.is_none() {
            let text = "no fallback is configured";
            self.status.set(status::new_condition(status::FALLBACK, "False", "NoFallbackFound", text));
        }
    }
}

/// Distinct texts in the order of their first appearance, joined by commas.
fn distinct<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut seen = BTreeSet::new();
    texts.filter(|text| seen.insert(*text)).collect::<Vec<_>>().join(",")
}

impl Reconcile {
    async fn run(mut self, object: Option<Box<ScaledObject>>) -> Reconciled {
        let mut object = match object {
            Some(object) => object,
            None => match self.read().await {
                Ok(Some(object)) => object,
                Ok(None) => return self.out,
                Err(message) => {
                    self.out.interrupted = Some(message);
                    return self.out;
                }
            },
        };
        if object.metadata.deletion_timestamp.is_none() {
            let checked = match self.mark(&mut object).await {
                Ok(true) if controls::needs_pause(object.annotations()) => self.pause(&object).await,
                Ok(true) => self.check(&object).await,
                Ok(false) => return self.out,
                Err(message) => Err(refused(STEP_LABEL, &message)),
            };
            self.out.failure = checked.err();
        }
        self.out.object = Some(object);
        self.out
    }

    async fn read(&self) -> Result<Option<Box<ScaledObject>>, String> {
        let api: Api<ScaledObject> = Api::namespaced(self.ctx.client.clone(), &self.key.namespace);
        let object = api.get_opt(&self.key.name).await.map_err(|error| client::describe(&error))?;
        Ok(object.filter(|object| object.metadata.uid.as_deref() == Some(&*self.uid)).map(Box::new))
    }

    /// Puts finalizer and label on the object where they are missing; false where the object is gone.
    async fn mark(&self, object: &mut Box<ScaledObject>) -> Result<bool, String> {
        let api: Api<ScaledObject> = Api::namespaced(self.ctx.client.clone(), &self.key.namespace);
        let mut conflicts = 0;
        loop {
            let mut finalizers = object.finalizers().to_vec();
            let finalized = finalizers.iter().any(|finalizer| finalizer == FINALIZER);
            let labelled = object.labels().get(SCALED_OBJECT_LABEL).is_some_and(|name| *name == self.key.name);
            if finalized && labelled {
                return Ok(true);
            }
            let mut metadata = json!({"resourceVersion": object.resource_version()});
            if !finalized {
                finalizers.push(FINALIZER.to_owned());
                metadata["finalizers"] = json!(finalizers);
            }
            if !labelled {
                metadata["labels"] = json!({SCALED_OBJECT_LABEL: self.key.name});
            }
            let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            match api.patch(&self.key.name, &params, &Patch::Merge(json!({"metadata": metadata}))).await {
                Ok(marked) => {
                    **object = marked;
                    return Ok(true);
                }
                Err(error) if client::is_absent(&error) => return Ok(false),
                Err(error) if client::is_conflict(&error) && conflicts < CONFLICTS => conflicts += 1,
                Err(error) => return Err(client::describe(&error)),
            }
            match self.read().await? {
                Some(fresh) if fresh.metadata.deletion_timestamp.is_none() => *object = fresh,
                _ => return Ok(false),
            }
        }
    }

    async fn check(&mut self, object: &ScaledObject) -> Result<(), CheckFailure> {
        let spec = Arc::new(object.spec.clone());
        if spec.scale_target_ref.name.is_empty() {
            return Err(refused(STEP_TARGET, &"scaleTargetRef.name is empty"));
        }
        let resolved = self.ctx.kinds.resolve(&self.ctx.client, &self.key.namespace, &spec.scale_target_ref).await;
        let target = resolved.map_err(|error| target_failure(&error))?;
        let found = target.read(&self.ctx.client, &self.ctx.kinds).await.map_err(|error| target_failure(&error))?;
        self.out.target = Some((target.clone(), found.clone()));
        check_bounds(&spec).map_err(|error| refused(STEP_BOUNDS, &error))?;
        check_triggers(&spec).map_err(|error| refused(STEP_TRIGGERS, &error))?;
        check_supported(&spec).map_err(|error| refused(STEP_HPA, &error))?;
        let builds = self.build(object, spec, &found).await;
        let errors: Vec<_> = builds.iter().filter_map(|build| build.as_ref().err()).map(|error| &**error).collect();
        let failure = (!errors.is_empty()).then(|| refused(STEP_HPA, &errors.join("; ")));
        let metrics: Vec<MetricSpec> =
            builds.iter().flatten().flat_map(|built| built.trigger.metrics().to_vec()).collect();
        self.out.triggers = Some(builds);
        match failure {
            Some(failure) => Err(failure),
            None => self.ensure_hpa(object, &target, &metrics).await.map_err(|error| refused(STEP_HPA, &error)),
        }
    }

    /// Builds all triggers; each by itself, so that one that fails leaves the others alone.
    async fn build(&mut self, object: &ScaledObject, spec: Arc<ScaledObjectSpec>, found: &Found) -> Vec<BuildResult> {
        let reusable = object.metadata.generation == Some(self.generation);
        let template = found.template.clone();
        let parts = Parts { ctx: self.ctx.clone(), key: self.key.clone(), spec, template, fresh: true };
        let mut builds = Vec::new();
        for index in 0..parts.spec.triggers.len() {
            let kept = self.reuse.get_mut(index).filter(|_| reusable).and_then(Option::take);
            builds.push(match kept {
                Some(built) => Ok(built),
                None => parts.build(index).await,
            });
        }
        builds
    }

    /// Sees to it that the HPA is there and looks as it must.
    async fn ensure_hpa(
        &mut self,
        object: &ScaledObject,
        target: &Target,
        metrics: &[MetricSpec],
    ) -> Result<(), String> {
        let mut names = BTreeSet::new();
        if let Some(twice) = metrics.iter().find(|metric| !names.insert(metric.name().to_lowercase())) {
            return Err(format!("metric name {} is used by more than one trigger", twice.name()));
        }
        if metrics.is_empty() {
            return Err("no trigger yields a metric".to_owned());
        }
        // What a reader cannot decode has no place here: the annotations were read to decide on the pause.
        let controls = controls::read(object.annotations()).unwrap_or_default();
        let wanted = hpa::wanted(object, controls, target, metrics, &self.ctx.settings.hpa_version_label);
        let wanted_name = wanted.name_any();
        if let Some(other) = self.hpa_name.clone().filter(|name| *name != wanted_name) {
            self.delete_hpa(&other, object).await?;
        }
        let hpa = self.write_hpa(&wanted_name, &wanted).await?;
        self.out.hpa = Some(HpaView::new(&hpa, false));
        Ok(())
    }

    /// Creates or updates an HPA, or leaves it where it looks as it must; how it is then. The HPA controller writes to
    /// the same object, so a conflict is nothing special.
    async fn write_hpa(&self, name: &str, wanted: &HorizontalPodAutoscaler) -> Result<HorizontalPodAutoscaler, String> {
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.ctx.client.clone(), &self.key.namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let mut conflicts = 0;
        loop {
            let found = api.get_opt(name).await.map_err(|error| client::describe(&error))?;
            let (write, result) = match found {
                None => (Write::HpaCreated { name: name.into() }, api.create(&params, wanted).await),
                Some(found) => match hpa::update(&found, wanted) {
                    None => return Ok(found),
                    Some(update) => {
                        (Write::HpaUpdated { name: name.into() }, api.replace(name, &params, &update).await)
                    }
                },
            };
            match result {
                Err(error) if client::is_conflict(&error) && conflicts < CONFLICTS => conflicts += 1,
                result => return self.told(write, result),
            }
        }
    }

    /// Deletes an HPA, if it is this object's.
    pub(super) async fn delete_hpa(&self, name: &str, object: &ScaledObject) -> Result<(), String> {
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.ctx.client.clone(), &self.key.namespace);
        let Some(found) = api.get_opt(name).await.map_err(|error| client::describe(&error))? else { return Ok(()) };
        let owned = found.owner_references().iter().any(|owner| Some(&owner.uid) == object.metadata.uid.as_ref());
        if !owned || found.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let uid = found.metadata.uid.clone();
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid, resource_version: None }),
            ..DeleteParams::default()
        };
        match api.delete(name, &params).await {
            Err(error) if client::is_absent(&error) => Ok(()),
            result => self.told(Write::HpaDeleted { name: name.into() }, result.map(drop)),
        }
    }

    /// Tells of a write and how it ended.
    fn told<T>(&self, write: Write, result: kube::Result<T>) -> Result<T, String> {
        let result = result.map_err(|error| client::describe(&error));
        self.tell(What::Write { write, error: result.as_ref().err().map(|error| error.as_str().into()) });
        result
    }

    pub(super) fn tell(&self, what: What) {
        self.ctx.observer.tell(&self.key, &self.uid, what);
    }
}

fn target_failure(error: &TargetError) -> CheckFailure {
    let stage = match error {
        TargetError::Missing(_) => Some(Stage::TargetMissing),
        TargetError::NotScalable(_) => Some(Stage::TargetUnscalable),
        TargetError::UnknownKind { .. } | TargetError::Unreadable(_) => None,
    };
    CheckFailure { stage, ..refused(STEP_TARGET, error) }
}

fn check_bounds(spec: &ScaledObjectSpec) -> Result<(), String> {
    let min = spec.min_replica_count.map_or(0, |min| min.max(1));
    let max = spec.max_replicas();
    if min > max {
        return Err(format!("minReplicaCount={min} must not be greater than maxReplicaCount={max}"));
    }
    match spec.idle_replica_count {
        Some(idle) if idle >= min => Err(format!("idleReplicaCount={idle} must be less than minReplicaCount={min}")),
        _ => Ok(()),
    }
}

fn check_triggers(spec: &ScaledObjectSpec) -> Result<(), String> {
    if spec.triggers.is_empty() {
        return Err("no triggers defined in the ScaledObject".to_owned());
    }
    let mut names = BTreeSet::new();
    for trigger in &spec.triggers {
        if trigger.use_cached_metrics == Some(true) && matches!(trigger.type_.as_str(), "cpu" | "memory" | "cron") {
            return Err(format!("property \"useCachedMetrics\" is not supported for \"{}\" trigger", trigger.type_));
        }
        let name = trigger.name.as_deref().filter(|name| !name.is_empty());
        if let Some(name) = name.filter(|name| !names.insert(*name)) {
            return Err(format!("triggerName \"{name}\" is defined multiple times, but it must be unique"));
        }
    }
    Ok(())
}

/// What this version does not do yet is said, rather than done wrongly.
fn check_supported(spec: &ScaledObjectSpec) -> Result<(), String> {
    if spec.fallback.is_some() {
        return Err("spec.fallback is not supported yet".to_owned());
    }
    let modifiers = spec.advanced.as_ref().and_then(|advanced| advanced.scaling_modifiers.as_ref());
    if modifiers.is_some_and(|modifiers| *modifiers != Default::default()) {
        return Err("spec.advanced.scalingModifiers is not supported yet".to_owned());
    }
    if let Some(index) = spec.triggers.iter().position(|trigger| trigger.use_cached_metrics == Some(true)) {
        return Err(format!("spec.triggers[{index}].useCachedMetrics is not supported yet"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(idle: Option<i32>, min: Option<i32>, max: Option<i32>) -> Result<(), String> {
        check_bounds(&ScaledObjectSpec {
            idle_replica_count: idle,
            min_replica_count: min,
            max_replica_count: max,
            ..ScaledObjectSpec::default()
        })
    }

    #[test]
    fn idle_zero_needs_an_explicit_minimum() {
        assert!(bounds(Some(0), None, None).is_err());
        assert!(bounds(Some(0), Some(0), None).is_ok());
        assert!(bounds(Some(1), Some(1), None).is_err());
        assert!(bounds(Some(1), Some(2), None).is_ok());
    }

    #[test]
    fn the_minimum_must_not_be_above_the_maximum() {
        assert!(bounds(None, Some(5), Some(4)).is_err());
        assert!(bounds(None, Some(101), None).is_err());
        assert!(bounds(None, Some(4), Some(4)).is_ok());
    }

    #[test]
    fn types_are_listed_once_in_the_order_of_their_first_use() {
        assert_eq!(distinct(["cron", "rabbitmq", "cron"].into_iter()), "cron,rabbitmq");
    }
}
