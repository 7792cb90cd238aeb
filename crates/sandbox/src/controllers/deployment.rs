//! Deployments make ReplicaSets, one per version of the pod template.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tidemark_clock::Clock;
use tokio::time::Instant;

use super::rollout::{Counts, Strategy};
use super::{Cache, Error, Key, Note, Queue, Recorder, ask, cache, controller_of, watch};

const TEMPLATE_HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";

/// Runs for ever; dropping the future stops the controller.
pub(super) async fn run(client: Client, clock: Clock) {
    let mut deployments_seen = watch::<Deployment>(&client);
    let mut sets_seen = watch::<ReplicaSet>(&client);
    let mut controller = Controller {
        recorder: Recorder::new(client.clone(), clock, "deployment-controller"),
        client,
        clock,
        deployments: Cache::default(),
        sets: Cache::default(),
        queue: Queue::default(),
    };
    loop {
        tokio::select! {
            biased;
            Some(event) = deployments_seen.next() => controller.saw_deployment(event),
            Some(event) = sets_seen.next() => controller.saw_set(event),
            key = controller.queue.next(), if controller.deployments.synced() && controller.sets.synced() => {
                controller.work(key).await;
            }
        }
    }
}

struct Controller {
    client: Client,
    clock: Clock,
    deployments: Cache<Deployment>,
    sets: Cache<ReplicaSet>,
    queue: Queue<Key>,
    recorder: Recorder,
}

impl Controller {
    fn saw_deployment(&mut self, event: Event<Deployment>) {
        for deployment in self.deployments.apply(event) {
            self.queue.push(Key::of(&*deployment));
        }
    }

    fn saw_set(&mut self, event: Event<ReplicaSet>) {
        for set in self.sets.apply(event) {
            if let Some(name) = controller_of(&*set, "Deployment") {
                self.queue.push(Key { namespace: set.namespace().unwrap_or_default(), name: name.to_owned() });
            }
        }
    }

    async fn work(&mut self, key: Key) {
        let Some(deployment) = self.deployments.get(&key).cloned() else {
            return self.queue.remove(&key);
        };
        match self.reconcile(&deployment).await {
            Ok(again) => {
                self.queue.succeeded(&key);
                if let Some(pause) = again {
                    self.queue.push_at(key, Instant::now() + pause);
                }
            }
            Err(error) => {
                tracing::debug!(namespace = key.namespace, name = key.name, %error, "a Deployment has to wait");
                self.queue.failed(key);
            }
        }
    }

    /// Returns after which time the rollout would miss its deadline.
    async fn reconcile(&mut self, deployment: &Deployment) -> Result<Option<Duration>, Error> {
        let spec = &deployment.spec;
        let mut collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
        if deployment.metadata.deletion_timestamp.is_none() {
            let desired = spec.replicas.unwrap_or(1).max(0);
            if spec.paused == Some(true) {
                self.scale_only(deployment, desired).await?;
            } else if let Err(error) = self.roll_out(deployment, spec, desired, collisions).await {
                if !error.is_already_exists() {
                    return Err(error);
                }
                // Another ReplicaSet bears the name: the count changes the hash, and with it the name, next time.
                collisions = Some(collisions.unwrap_or_default() + 1);
            }
        }
        self.report(deployment, spec, collisions).await
    }

    /// The Deployment's ReplicaSets from the oldest revision: the one of the present template, and the others.
    fn sets_of(&self, deployment: &Deployment) -> (Option<Arc<ReplicaSet>>, Vec<Arc<ReplicaSet>>) {
        let mut all: Vec<_> = self
            .sets
            .owned_by(cache::uid(deployment))
            .filter(|set| set.metadata.deletion_timestamp.is_none())
            .cloned()
            .collect();
        all.sort_by_key(|set| (revision(&**set), set.name_any()));
        let template = without_hash(&deployment.spec.template);
        let same = |set: &Arc<ReplicaSet>| set.spec.template.as_ref().map(without_hash).as_ref() == Some(&template);
        let new = all.iter().position(same).map(|position| all.remove(position));
        (new, all)
    }

    async fn roll_out(
        &mut self,
        deployment: &Deployment,
        spec: &DeploymentSpec,
        desired: i32,
        collisions: Option<i32>,
    ) -> Result<(), Error> {
        let strategy = Strategy::of(spec, desired);
        let (new, old) = self.sets_of(deployment);
        let counts_of_old: Vec<_> = old.iter().map(|set| counts(set)).collect();
        let newest = old.iter().map(|set| revision(&**set)).max().unwrap_or(0);
        if strategy == Strategy::Recreate && old.iter().any(|set| pods_left(set)) {
            for set in old.iter().filter(|set| counts(set).wanted > 0) {
                self.scale(deployment, set, 0).await?;
            }
            return Ok(());
        }
        let new = match new {
            Some(set) if revision(&*set) > newest => set,
            Some(set) => self.set_revision(&set, newest + 1).await?,
            None => {
                let replicas = strategy.new_replicas(desired, Counts::default(), &counts_of_old);
                self.create(deployment, spec, replicas, newest + 1, collisions).await?
            }
        };
        self.mark_revision(deployment, revision(&*new)).await?;
        let replicas = strategy.new_replicas(desired, counts(&new), &counts_of_old);
        let new = self.scale(deployment, &new, replicas).await?;
        for (set, replicas) in old.iter().zip(strategy.old_replicas(desired, counts(&new), &counts_of_old)) {
            self.scale(deployment, set, replicas).await?;
        }
        self.forget_history(spec, &old).await
    }

    /// A paused Deployment starts no rollout, but follows its replica count: with its newest ReplicaSet that has pods.
    async fn scale_only(&mut self, deployment: &Deployment, desired: i32) -> Result<(), Error> {
        let (new, mut sets) = self.sets_of(deployment);
        sets.extend(new);
        let others: i32 = sets.iter().map(|set| counts(set).wanted).sum();
        let Some(set) = sets.iter().rev().find(|set| counts(set).wanted > 0).or(sets.last()) else { return Ok(()) };
        let replicas = (desired - (others - counts(set).wanted)).max(0);
        self.scale(deployment, set, replicas).await.map(drop)
    }

    async fn create(
        &mut self,
        deployment: &Deployment,
        spec: &DeploymentSpec,
        replicas: i32,
        revision: i64,
        collisions: Option<i32>,
    ) -> Result<Arc<ReplicaSet>, Error> {
        let hash = template_hash(&spec.template, collisions);
        let mut template = spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(TEMPLATE_HASH.to_owned(), hash.clone());
        let labels = labels.clone();
        let mut selector = spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.to_owned(), hash.clone());
        let owner = deployment.controller_owner_ref(&()).map(|mut owner| {
            owner.block_owner_deletion = Some(true);
            owner
        });
        let set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", deployment.name_any())),
                labels: Some(labels),
                annotations: Some([(REVISION.to_owned(), revision.to_string())].into()),
                owner_references: owner.map(|owner| vec![owner]),
                ..Default::default()
            },
            spec: ReplicaSetSpec {
                replicas: Some(replicas),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            },
            status: None,
        };
        let created = ask(self.sets_api(deployment).create(&PostParams::default(), &set)).await?;
        self.note_scaling(deployment, &created, 0, replicas).await;
        self.sets.written(created.clone());
        Ok(Arc::new(created))
    }

    async fn scale(
        &mut self,
        deployment: &Deployment,
        set: &Arc<ReplicaSet>,
        replicas: i32,
    ) -> Result<Arc<ReplicaSet>, Error> {
        let from = counts(set).wanted;
        if from == replicas {
            return Ok(set.clone());
        }
        let scaled = self.patch(set, json!({ "spec": { "replicas": replicas } })).await?;
        self.note_scaling(deployment, set, from, replicas).await;
        Ok(scaled)
    }

    async fn set_revision(&mut self, set: &Arc<ReplicaSet>, revision: i64) -> Result<Arc<ReplicaSet>, Error> {
        self.patch(set, json!({ "metadata": { "annotations": { REVISION: revision.to_string() } } })).await
    }

    async fn patch(&mut self, set: &ReplicaSet, patch: serde_json::Value) -> Result<Arc<ReplicaSet>, Error> {
        let sets = Api::<ReplicaSet>::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
        let patched = ask(sets.patch(&set.name_any(), &PatchParams::default(), &Patch::Merge(patch))).await?;
        self.sets.written(patched.clone());
        Ok(Arc::new(patched))
    }

    /// Over the status, as Kubernetes does it: the generation stays, which counts what users wish.
    async fn mark_revision(&mut self, deployment: &Deployment, wanted: i64) -> Result<(), Error> {
        if revision(deployment) == wanted {
            return Ok(());
        }
        let patch = json!({ "metadata": { "annotations": { REVISION: wanted.to_string() } } });
        let deployments = self.deployments_api(deployment);
        let patch = Patch::Merge(patch);
        let patched = ask(deployments.patch_status(&deployment.name_any(), &PatchParams::default(), &patch)).await?;
        self.deployments.written(patched);
        Ok(())
    }

    /// Removes the oldest ReplicaSets without pods beyond `revisionHistoryLimit`.
    async fn forget_history(&mut self, spec: &DeploymentSpec, old: &[Arc<ReplicaSet>]) -> Result<(), Error> {
        let kept = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or_default();
        let empty: Vec<_> = old.iter().filter(|set| counts(set).wanted == 0 && !pods_left(set)).collect();
        for set in empty.iter().take(empty.len().saturating_sub(kept)) {
            let sets = Api::<ReplicaSet>::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
            let same = Preconditions { uid: set.uid(), resource_version: None };
            match ask(sets.delete(&set.name_any(), &DeleteParams::background().preconditions(same))).await {
                Ok(_) => self.sets.removed(set),
                Err(error) if error.is_not_found() || error.is_conflict() => self.sets.removed(set),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn report(
        &mut self,
        deployment: &Deployment,
        spec: &DeploymentSpec,
        collisions: Option<i32>,
    ) -> Result<Option<Duration>, Error> {
        let (new, old) = self.sets_of(deployment);
        let now = Time(self.clock.now());
        let status = status(deployment, spec, new.as_deref(), &old, collisions, &now);
        let progressing = condition(&status, "Progressing").cloned();
        if deployment.status.as_ref() != Some(&status) {
            let patch = Patch::Merge(json!({ "status": status }));
            let deployments = self.deployments_api(deployment);
            match ask(deployments.patch_status(&deployment.name_any(), &PatchParams::default(), &patch)).await {
                Ok(written) => self.deployments.written(written),
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let waiting = progressing.filter(|c| c.status.as_deref() == Some("True") && !was_complete(c));
        Ok(waiting.map(|condition| time_left(&condition, spec, &now) + Duration::from_secs(1)))
    }

    async fn note_scaling(&mut self, deployment: &Deployment, set: &ReplicaSet, from: i32, to: i32) {
        if from == to {
            return;
        }
        let direction = if to > from { "up" } else { "down" };
        let note = Note {
            about: deployment.object_ref(&()),
            warning: false,
            reason: "ScalingReplicaSet",
            message: format!("Scaled {direction} replica set {} from {from} to {to}", set.name_any()),
        };
        self.recorder.record(note).await;
    }

    fn sets_api(&self, deployment: &Deployment) -> Api<ReplicaSet> {
        Api::namespaced(self.client.clone(), &deployment.namespace().unwrap_or_default())
    }

    fn deployments_api(&self, deployment: &Deployment) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &deployment.namespace().unwrap_or_default())
    }
}

/// Reason of the condition Progressing once a rollout is done.
const COMPLETE: &str = "NewReplicaSetAvailable";

fn counts(set: &ReplicaSet) -> Counts {
    Counts {
        wanted: set.spec.replicas.unwrap_or(1),
        available: set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0),
    }
}

fn pods_left(set: &ReplicaSet) -> bool {
    let unseen = set.status.as_ref().and_then(|status| status.observed_generation) != set.metadata.generation;
    counts(set).wanted > 0
        || unseen
        || set.status.as_ref().is_some_and(|status| status.replicas > 0 || status.terminating_replicas > Some(0))
}

fn revision<K: Resource>(object: &K) -> i64 {
    object.annotations().get(REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut()) {
        labels.remove(TEMPLATE_HASH);
    }
    template
}

/// A short name for a template.
fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    short_hash(&serde_json::to_string(&(without_hash(template), collisions)).unwrap_or_default())
}

/// A short name for a text, in the alphabet Kubernetes uses so that no words come out (FNV-1a, 32 bits).
pub(super) fn short_hash(text: &str) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

fn condition<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_.as_deref() == Some(type_))
}

fn time_left(progressing: &DeploymentCondition, spec: &DeploymentSpec, now: &Time) -> Duration {
    let limit = Duration::from_secs(u64::from(spec.progress_deadline_seconds.unwrap_or(600).unsigned_abs()));
    let Some(since) = &progressing.last_update_time else { return limit };
    limit.saturating_sub(Duration::try_from(now.0.duration_since(since.0)).unwrap_or_default())
}

fn status(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    new: Option<&ReplicaSet>,
    old: &[Arc<ReplicaSet>],
    collisions: Option<i32>,
    now: &Time,
) -> DeploymentStatus {
    let all = || old.iter().map(|set| &**set).chain(new);
    let sum = |count: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32| -> i32 {
        all().filter_map(|set| set.status.as_ref()).map(count).sum()
    };
    let replicas = sum(|status| status.replicas);
    let available = sum(|status| status.available_replicas.unwrap_or(0));
    let before = deployment.status.clone().unwrap_or_default();
    let mut status = DeploymentStatus {
        replicas: Some(replicas),
        updated_replicas: Some(new.and_then(|set| set.status.as_ref()).map_or(0, |status| status.replicas)),
        ready_replicas: Some(sum(|status| status.ready_replicas.unwrap_or(0))),
        available_replicas: Some(available),
        unavailable_replicas: Some((all().map(|set| counts(set).wanted).sum::<i32>() - available).max(0)),
        terminating_replicas: Some(sum(|status| status.terminating_replicas.unwrap_or(0))),
        observed_generation: deployment.metadata.generation,
        collision_count: collisions,
        conditions: None,
    };
    let conditions = [available_condition(spec, available), progressing_condition(spec, &before, &status, new, now)];
    let dated = conditions.into_iter().map(|condition| dated(condition, &before, now)).collect();
    status.conditions = Some(dated);
    status
}

fn plain(type_: &str, status: bool, reason: &str, message: String) -> DeploymentCondition {
    DeploymentCondition {
        type_: Some(type_.to_owned()),
        status: Some(if status { "True" } else { "False" }.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        ..Default::default()
    }
}

fn available_condition(spec: &DeploymentSpec, available: i32) -> DeploymentCondition {
    let desired = spec.replicas.unwrap_or(1);
    let least = match Strategy::of(spec, desired) {
        Strategy::Recreate => desired,
        Strategy::RollingUpdate { unavailable, .. } => desired - unavailable,
    };
    if available >= least {
        let message = "Deployment has minimum availability.".to_owned();
        plain("Available", true, "MinimumReplicasAvailable", message)
    } else {
        let message = "Deployment does not have minimum availability.".to_owned();
        plain("Available", false, "MinimumReplicasUnavailable", message)
    }
}

fn progressing_condition(
    spec: &DeploymentSpec,
    before: &DeploymentStatus,
    status: &DeploymentStatus,
    new: Option<&ReplicaSet>,
    now: &Time,
) -> DeploymentCondition {
    let desired = Some(spec.replicas.unwrap_or(1));
    let name = new.map(ResourceExt::name_any).unwrap_or_default();
    let complete = status.updated_replicas == desired
        && status.replicas == desired
        && status.available_replicas == desired
        && new.is_some();
    let known = condition(before, "Progressing");
    let moved = before.updated_replicas != status.updated_replicas
        || before.ready_replicas != status.ready_replicas
        || before.available_replicas != status.available_replicas
        || before.replicas != status.replicas
        || before.observed_generation != status.observed_generation;
    if spec.paused == Some(true) && known.is_none() {
        plain("Progressing", true, "DeploymentPaused", "Deployment is paused".to_owned())
    } else if complete {
        plain("Progressing", true, COMPLETE, format!("ReplicaSet \"{name}\" has successfully progressed."))
    } else if let Some(known) = known.filter(|known| was_complete(known) && status.replicas == status.updated_replicas)
    {
        // Scaling and restarted pods are no rollout and have no deadline.
        known.clone()
    } else if let Some(known) = known.filter(|_| !moved) {
        let waits = known.status.as_deref() == Some("True") && !was_complete(known);
        if waits && spec.paused != Some(true) && time_left(known, spec, now).is_zero() {
            let message = format!("ReplicaSet \"{name}\" has timed out progressing.");
            plain("Progressing", false, "ProgressDeadlineExceeded", message)
        } else {
            known.clone()
        }
    } else {
        plain("Progressing", true, "ReplicaSetUpdated", format!("ReplicaSet \"{name}\" is progressing."))
    }
}

fn was_complete(progressing: &DeploymentCondition) -> bool {
    progressing.reason.as_deref() == Some(COMPLETE)
}

/// Keeps the times of a condition that says what it said before; an update without a change of status moves only the
/// update time. A deployment that moves again and again while progressing keeps its deadline away that way.
fn dated(mut condition: DeploymentCondition, before: &DeploymentStatus, now: &Time) -> DeploymentCondition {
    let known = self::condition(before, condition.type_.as_deref().unwrap_or_default());
    let same_status = known.filter(|known| known.status == condition.status);
    let moving = condition.reason.as_deref() == Some("ReplicaSetUpdated") && condition.last_update_time.is_none();
    let unchanged = same_status.filter(|known| known.reason == condition.reason && !moving);
    condition.last_transition_time =
        same_status.and_then(|known| known.last_transition_time.clone()).or_else(|| Some(now.clone()));
    condition.last_update_time =
        unchanged.and_then(|known| known.last_update_time.clone()).or_else(|| Some(now.clone()));
    if let Some(known) = unchanged {
        condition.message = known.message.clone();
    }
    condition
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: &str, hash: Option<&str>) -> PodTemplateSpec {
        let mut labels = json!({ "app": "worker" });
        if let Some(hash) = hash {
            labels[TEMPLATE_HASH] = hash.into();
        }
        let containers = json!([{ "name": "worker", "image": image }]);
        serde_json::from_value(json!({ "metadata": { "labels": labels }, "spec": { "containers": containers } }))
            .unwrap()
    }

    #[test]
    fn the_hash_names_the_template_and_not_itself() {
        let hash = template_hash(&template("a", None), None);
        assert_eq!(template_hash(&template("a", Some("zzz")), None), hash);
        assert_ne!(template_hash(&template("b", None), None), hash);
        assert_ne!(template_hash(&template("a", None), Some(1)), hash);
    }

    #[test]
    fn a_rollout_without_progress_misses_its_deadline_once() {
        let spec = DeploymentSpec { progress_deadline_seconds: Some(60), ..Default::default() };
        let deployment = Deployment::default();
        let at = |text: &str| Time(text.parse().unwrap());
        let first = status(&deployment, &spec, None, &[], None, &at("2026-01-01T00:00:00Z"));
        let deployment = Deployment { status: Some(first.clone()), ..Default::default() };
        let early = status(&deployment, &spec, None, &[], None, &at("2026-01-01T00:00:59Z"));
        assert_eq!(early, first);
        let late = status(&deployment, &spec, None, &[], None, &at("2026-01-01T00:01:00Z"));
        assert_eq!(condition(&late, "Progressing").unwrap().reason.as_deref(), Some("ProgressDeadlineExceeded"));
    }
}
