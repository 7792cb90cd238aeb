//! The check of an object: finalizer and label, scale target, triggers, HPA.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use tidemark_api::{FINALIZER, SCALED_OBJECT_LABEL, ScaledObject, ScaledObjectSpec};
use tidemark_engine::composite::Modifiers;
use tidemark_engine::controls;
use tidemark_trigger::{Connection, MetricSpec};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::plan::Definitions;
use super::trigger::{BuildResult, Built, Parts};
use crate::FIELD_MANAGER;
use crate::claims::{Contested, Rival};
use crate::client;
use crate::context::Context;
use crate::hpa::{self, HpaView};
use crate::observation::{ObjectKey, Stage, What, Write};
use crate::target::{Found, Target, TargetError};
use crate::texts::Text;

const STEP_LABEL: &str = "failed to update ScaledObject with scaledObjectName label";
const STEP_TARGET: &str = "ScaledObject doesn't have correct scaleTargetRef specification";
const STEP_BOUNDS: &str = "ScaledObject doesn't have correct Idle/Min/Max Replica Counts specification";
const STEP_TRIGGERS: &str = "ScaledObject doesn't have correct triggers specification";
const STEP_HPA: &str = "failed to ensure HPA is correctly created for ScaledObject";
/// Times that a write is made again after somebody else has written first.
const CONFLICTS: u32 = 5;

/// One check, on its way.
pub(super) struct Reconcile {
    pub(super) ctx: Arc<Context>,
    pub(super) key: Arc<ObjectKey>,
    pub(super) uid: Arc<str>,
    /// `status.hpaName`.
    pub(super) hpa_name: Option<Text>,
    pub(super) rival: Option<Arc<Rival>>,
    /// The triggers that are at work already for this generation of the object.
    pub(super) reuse: Vec<Option<Built>>,
    pub(super) generation: i64,
    /// Held while the API server is asked: so many checks run at a time.
    pub(super) turn: Option<OwnedSemaphorePermit>,
    pub(super) out: Checked,
}

/// What a check found and did.
#[derive(Default)]
pub(super) struct Checked {
    /// Without the wait for its turn.
    pub(super) took: Duration,
    /// The object as it is now; none where it is gone or could not be read.
    pub(super) object: Option<Box<ScaledObject>>,
    pub(super) target: Option<(Target, Found)>,
    pub(super) triggers: Option<Vec<Prepared>>,
    pub(super) modifiers: Option<Arc<Modifiers>>,
    pub(super) hpa: Option<HpaView>,
    pub(super) paused_replicas: Option<i32>,
    /// It ended before it could know anything, through no fault of the object.
    pub(super) interrupted: Option<String>,
    pub(super) failure: Option<CheckFailure>,
}

/// A trigger that a check has built.
pub(super) struct Prepared {
    pub(super) build: BuildResult,
    /// The connection over which the source has named the metrics.
    pub(super) connection: Option<Arc<dyn Connection>>,
    /// Why it has not.
    unnamed: Option<Text>,
}

impl Prepared {
    fn is_unnamed(&self) -> bool {
        self.build.as_ref().is_ok_and(Built::is_unnamed)
    }

    async fn name(&mut self, parts: &Parts, index: usize) {
        let Some(built) = self.build.as_mut().ok().filter(|built| built.is_unnamed()) else { return };
        match parts.name(index, built).await {
            Ok(connection) => self.connection = Some(connection),
            Err(error) => self.unnamed = Some(error),
        }
    }

    fn error(&self) -> Option<&str> {
        self.build.as_ref().err().or(self.unnamed.as_ref()).map(|error| &**error)
    }
}

/// Why an object is not ready.
#[derive(Clone, Debug)]
pub(super) struct CheckFailure {
    pub(super) stage: Option<Stage>,
    pub(super) message: String,
    /// It stays until something is told to have changed; asking again is of no use.
    pub(super) lasting: bool,
}

/// A failure of a step, in the words of KEDA's conditions: `<step>: <cause>`.
pub(super) fn refused(step: &str, cause: &dyn Display) -> CheckFailure {
    CheckFailure { stage: None, message: format!("{step}: {cause}"), lasting: false }
}

impl Reconcile {
    pub(super) async fn run(mut self, object: Option<Box<ScaledObject>>) -> Checked {
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
                // The target of another object is not held at a count either.
                Ok(true) if controls::needs_pause(object.annotations()) && self.rival.is_none() => {
                    self.pause(&object).await
                }
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
        let (begun, mut conflicts) = (Instant::now(), 0);
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
                Err(error) if client::is_absent(&error) => return Ok(false),
                Err(error) if client::is_conflict(&error) && conflicts < CONFLICTS => conflicts += 1,
                result => {
                    **object = self.told(Write::FinalizerAdded, begun, result)?;
                    return Ok(true);
                }
            }
            match self.read().await? {
                Some(fresh) if fresh.metadata.deletion_timestamp.is_none() => *object = fresh,
                _ => return Ok(false),
            }
        }
    }

    async fn check(&mut self, object: &ScaledObject) -> Result<(), CheckFailure> {
        let spec = &object.spec;
        if spec.scale_target_ref.name.is_empty() {
            return Err(refused(STEP_TARGET, &"scaleTargetRef.name is empty"));
        }
        let resolved = self.ctx.kinds.resolve(&self.ctx.client, &self.key.namespace, &spec.scale_target_ref).await;
        let target = resolved.map_err(|error| target_failure(&error))?;
        if let Some(rival) = self.rival.clone() {
            return self.give_way(object, &target, &rival).await;
        }
        let found = target.read(&self.ctx.client, &self.ctx.kinds).await.map_err(|error| target_failure(&error))?;
        self.out.target = Some((target.clone(), found.clone()));
        check_bounds(spec).map_err(|error| refused(STEP_BOUNDS, &error))?;
        check_triggers(spec).map_err(|error| refused(STEP_TRIGGERS, &error))?;
        let modifiers = compile_modifiers(spec).map_err(|error| refused(STEP_HPA, &error))?;
        let builds = self.build(object, &found).await;
        let errors: Vec<_> = builds.iter().filter_map(Prepared::error).collect();
        let failure = (!errors.is_empty()).then(|| refused(STEP_HPA, &errors.join("; ")));
        let metrics = builds.iter().filter_map(|prepared| prepared.build.as_ref().ok());
        let metrics: Vec<MetricSpec> = metrics.flat_map(|built| built.metrics().to_vec()).collect();
        self.out.modifiers = modifiers.clone();
        self.out.triggers = Some(builds);
        match failure {
            Some(failure) => Err(failure),
            None => {
                let ensured = self.ensure_hpa(object, &target, metrics, modifiers.as_deref()).await;
                ensured.map_err(|error| refused(STEP_HPA, &error))
            }
        }
    }

    /// Another object scales the target or has the HPA: this one touches neither, and its own HPA goes.
    async fn give_way(&self, object: &ScaledObject, target: &Target, rival: &Rival) -> Result<(), CheckFailure> {
        let name = self.hpa_name.as_deref().map_or_else(|| object.wanted_hpa_name(), str::to_owned);
        self.delete_hpa(&name, object).await.map_err(|error| refused(STEP_HPA, &error))?;
        let other = &rival.other.name;
        let message = match rival.over {
            Contested::Target => {
                let kind = &target.resource.kind_text;
                format!(
                    "the workload '{}' of type '{kind}' is already managed by the ScaledObject '{other}'",
                    target.name
                )
            }
            Contested::Hpa => {
                let hpa = object.wanted_hpa_name();
                format!("the HPA '{hpa}' is already managed by the ScaledObject '{other}'")
            }
        };
        Err(CheckFailure { lasting: true, ..refused(STEP_TARGET, &message) })
    }

    /// Builds all triggers; each by itself, so that one that fails leaves the others alone.
    async fn build(&mut self, object: &ScaledObject, found: &Found) -> Vec<Prepared> {
        let reusable = object.metadata.generation == Some(self.generation);
        let parts = Parts {
            ctx: self.ctx.clone(),
            key: self.key.clone(),
            definitions: Arc::new(Definitions::all(&object.spec)),
            template: found.template.clone(),
            fresh: true,
        };
        let mut prepared = Vec::new();
        for index in 0..object.spec.triggers.len() {
            let kept = self.reuse.get_mut(index).filter(|_| reusable).and_then(Option::take);
            let build = match kept {
                Some(built) => Ok(built),
                None => parts.build(index).await,
            };
            prepared.push(Prepared { build, connection: None, unnamed: None });
        }
        if prepared.iter().any(Prepared::is_unnamed) {
            // Sources may be slow, and other objects want their turn.
            self.turn = None;
            let named = prepared.iter_mut().enumerate().map(|(index, prepared)| prepared.name(&parts, index));
            join_all(named).await;
            self.turn = self.ctx.checks.clone().acquire_owned().await.ok();
        }
        prepared
    }

    /// Sees to it that the HPA is there and looks as it must.
    async fn ensure_hpa(
        &mut self,
        object: &ScaledObject,
        target: &Target,
        metrics: Vec<MetricSpec>,
        modifiers: Option<&Modifiers>,
    ) -> Result<(), String> {
        let mut names = BTreeSet::new();
        let external = metrics.iter().filter_map(MetricSpec::external_name);
        if let Some(twice) = external.into_iter().find(|name| !names.insert(name.to_lowercase())) {
            return Err(format!("metric name {twice} is used by more than one trigger"));
        }
        if metrics.is_empty() {
            return Err("no trigger yields a metric".to_owned());
        }
        // What a reader cannot decode has no place here: the annotations were read to decide on the pause.
        let controls = controls::read(object.annotations()).unwrap_or_default();
        let metrics = hpa::metrics(metrics, modifiers);
        let wanted = hpa::wanted(object, controls, target, &metrics, &self.ctx.settings.hpa_version_label);
        let wanted_name = wanted.name_any();
        let hpa = self.write_hpa(&wanted_name, &wanted).await?;
        // One of another name goes once there is this one: were it refused, there would be none at all.
        if let Some(other) = self.hpa_name.clone().filter(|name| **name != *wanted_name) {
            self.delete_hpa(&other, object).await?;
        }
        self.out.hpa = Some(HpaView::new(&hpa, false));
        Ok(())
    }

    /// Creates or updates an HPA, or leaves it where it looks as it must; how it is then. The HPA controller writes to
    /// the same object, so a conflict is nothing special.
    async fn write_hpa(&self, name: &str, wanted: &HorizontalPodAutoscaler) -> Result<HorizontalPodAutoscaler, String> {
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.ctx.client.clone(), &self.key.namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let (begun, mut conflicts) = (Instant::now(), 0);
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
                result => return self.told(write, begun, result),
            }
        }
    }

    /// Deletes an HPA, if it is this object's and nobody takes it over meanwhile.
    pub(super) async fn delete_hpa(&self, name: &str, object: &ScaledObject) -> Result<(), String> {
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.ctx.client.clone(), &self.key.namespace);
        let (begun, mut conflicts) = (Instant::now(), 0);
        loop {
            let Some(found) = api.get_opt(name).await.map_err(|error| client::describe(&error))? else { return Ok(()) };
            let owned = found.owner_references().iter().any(|owner| Some(&owner.uid) == object.metadata.uid.as_ref());
            if !owned || found.metadata.deletion_timestamp.is_some() {
                return Ok(());
            }
            let (uid, resource_version) = (found.metadata.uid.clone(), found.metadata.resource_version.clone());
            let params = DeleteParams {
                preconditions: Some(Preconditions { uid, resource_version }),
                ..DeleteParams::default()
            };
            match api.delete(name, &params).await {
                Err(error) if client::is_absent(&error) => return Ok(()),
                Err(error) if client::is_conflict(&error) && conflicts < CONFLICTS => conflicts += 1,
                result => return self.told(Write::HpaDeleted { name: name.into() }, begun, result.map(drop)),
            }
        }
    }

    /// Tells of a write that has ended now, and how.
    fn told<T>(&self, write: Write, begun: Instant, result: kube::Result<T>) -> Result<T, String> {
        let result = result.map_err(|error| client::describe(&error));
        let error = result.as_ref().err().map(|error| error.as_str().into());
        self.tell(self.ctx.written(write, begun.elapsed(), error));
        result
    }

    pub(super) fn tell(&self, what: What) {
        self.ctx.observer.tell(&self.key, &self.uid, 0, what);
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

/// The scaling modifiers, ready for use; none where they are not used.
fn compile_modifiers(spec: &ScaledObjectSpec) -> Result<Option<Arc<Modifiers>>, String> {
    let modifiers = spec.compile_modifiers().transpose();
    let modifiers = modifiers.map_err(|error| format!("advanced.scalingModifiers.{}: {error}", error.field()))?;
    Ok(modifiers.map(Arc::new))
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
}
