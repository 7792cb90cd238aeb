//! StatefulSets run pods with numbers, each of which keeps its name.

mod plan;
mod revisions;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::watcher::Event;
use kube::{Client, Resource, ResourceExt};
use serde_json::{Map, Value, json};
use tidemark_clock::Clock;
use tokio::time::Instant;

use super::dynamic::{self, number, put};
use super::pods::{Pods, count, from_template, is_finished, ready, until_available};
use super::{Cache, Error, Key, LazyWatch, Note, Queue, Recorder, cache, controller_of};
use plan::{Ordinals, REVISION, Spec, Step, Update};
use revisions::{Hand, Revision, Revisions};

/// Most pods that one look at a StatefulSet makes or deletes. It is looked at again at once.
const BURST: usize = 50;

/// Runs for ever; dropping the future stops the controller.
pub(super) async fn run(client: Client, clock: Clock) {
    let kind = dynamic::kind("apps", "v1", "StatefulSet", "statefulsets");
    let mut sets_seen = dynamic::watch_kind(&client, &kind);
    let mut pods_seen = LazyWatch::<Pod>::new();
    let mut controller = Controller {
        recorder: Recorder::new(client.clone(), clock, "statefulset-controller"),
        pods: Pods::new(client.clone()),
        client,
        clock,
        kind,
        sets: Cache::default(),
        queue: Queue::default(),
        revisions: BTreeMap::new(),
    };
    loop {
        tokio::select! {
            biased;
            Some(event) = sets_seen.next() => {
                controller.saw_set(event);
                if controller.is_needed() {
                    pods_seen.begin(&controller.client);
                }
            }
            Some(event) = pods_seen.next() => controller.saw_pod(event),
            key = controller.queue.next(), if controller.sets.synced() && controller.pods.synced() => {
                controller.work(key).await;
            }
        }
    }
}

struct Controller {
    client: Client,
    clock: Clock,
    kind: ApiResource,
    sets: Cache<DynamicObject>,
    pods: Pods,
    queue: Queue<Key>,
    /// By the uid of the set.
    revisions: BTreeMap<String, Revisions>,
    recorder: Recorder,
}

impl Controller {
    /// Whether there is any StatefulSet to run pods for.
    fn is_needed(&self) -> bool {
        !self.sets.is_empty()
    }

    fn saw_set(&mut self, event: Event<DynamicObject>) {
        for set in self.sets.apply(event) {
            let key = Key::of(&*set);
            if self.sets.get(&key).is_none_or(|known| cache::uid(&**known) != cache::uid(&*set)) {
                self.revisions.remove(cache::uid(&*set));
            }
            self.queue.push(key);
        }
    }

    fn saw_pod(&mut self, event: Event<Pod>) {
        for pod in self.pods.apply(event) {
            if let Some(name) = controller_of(&*pod, "StatefulSet") {
                self.queue.push(Key { namespace: pod.namespace().unwrap_or_default(), name: name.to_owned() });
            }
        }
    }

    async fn work(&mut self, key: Key) {
        let Some(set) = self.sets.get(&key).cloned() else { return self.queue.remove(&key) };
        match self.reconcile(&set).await {
            Ok(again) => {
                self.queue.succeeded(&key);
                if let Some(pause) = again {
                    self.queue.push_at(key, Instant::now() + pause);
                }
            }
            Err(error) => {
                tracing::debug!(namespace = key.namespace, name = key.name, %error, "a StatefulSet has to wait");
                self.queue.failed(key);
            }
        }
    }

    /// Returns after which time there is something to do.
    async fn reconcile(&mut self, set: &DynamicObject) -> Result<Option<Duration>, Error> {
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let spec = Spec::of(&set.data["spec"]);
        let template: PodTemplateSpec =
            serde_json::from_value(set.data["spec"]["template"].clone()).unwrap_or_default();
        let revisions = self.revisions.entry(cache::uid(set).to_owned()).or_default();
        let hand = Hand { client: &self.client, set_kind: &self.kind, set };
        let update = revisions.latest(&hand, &template).await?;
        let known = set.data["status"]["currentRevision"].as_str().and_then(|name| revisions.get(name));
        let current = known.cloned().unwrap_or_else(|| update.clone());
        revisions.forget(&hand, spec.history, &[&update.name, &current.name]).await?;

        let plan = plan::plan(&spec, &self.pods_of(set), &update.name, self.clock.now());
        let more = plan.steps.len() > BURST;
        let mut outcome = Ok(());
        for step in plan.steps.into_iter().take(BURST) {
            outcome = self.take(set, &spec, step, &current, &update).await;
            if outcome.is_err() {
                break;
            }
        }
        // What was done so far is reported also when the rest failed.
        self.report(set, &spec, &current.name, &update.name).await?;
        outcome?;
        Ok(if more { Some(Duration::ZERO) } else { plan.again })
    }

    fn pods_of(&self, set: &DynamicObject) -> Ordinals {
        let prefix = format!("{}-", set.name_any());
        let ordinal = |pod: &Pod| pod.metadata.name.as_deref()?.strip_prefix(&prefix)?.parse::<i32>().ok();
        self.pods.owned_by(cache::uid(set)).filter_map(|pod| Some((ordinal(pod)?, pod.clone()))).collect()
    }

    async fn take(
        &mut self,
        set: &DynamicObject,
        spec: &Spec,
        step: Step,
        current: &Revision,
        update: &Revision,
    ) -> Result<(), Error> {
        match step {
            Step::Create(ordinal) => {
                let revision = if spec.keeps_old_version(ordinal) { current } else { update };
                if set.data["spec"]["volumeClaimTemplates"].as_array().is_some_and(|claims| !claims.is_empty()) {
                    let message = "the sandbox makes no PersistentVolumeClaims: volumeClaimTemplates are not obeyed";
                    self.note(set, true, "NotImplemented", message.to_owned()).await;
                }
                let pod = self.pod(set, ordinal, revision);
                let name = pod.name_any();
                let created = self.pods.create(&pod).await;
                self.tell(set, true, &name, created.as_ref().err()).await;
                created.map(drop)
            }
            Step::Delete(pod) => self.delete(set, &pod).await,
            Step::Replace(pod) => {
                let message = format!("StatefulSet {} is recreating failed Pod {}", set.name_any(), pod.name_any());
                self.note(set, true, "RecreatingFailedPod", message).await;
                self.delete(set, &pod).await
            }
        }
    }

    async fn delete(&mut self, set: &DynamicObject, pod: &Pod) -> Result<(), Error> {
        let deleted = self.pods.delete(pod).await;
        self.tell(set, false, &pod.name_any(), deleted.as_ref().err()).await;
        deleted
    }

    fn pod(&self, set: &DynamicObject, ordinal: i32, revision: &Revision) -> Pod {
        let name = format!("{}-{ordinal}", set.name_any());
        let owner = set.controller_owner_ref(&self.kind);
        let mut pod = from_template(revision.template.clone(), set.namespace(), owner);
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(REVISION.to_owned(), revision.name.clone());
        labels.insert("apps.kubernetes.io/pod-index".to_owned(), ordinal.to_string());
        labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), name.clone());
        if let Some(pod) = &mut pod.spec {
            pod.hostname = Some(name.clone());
            pod.subdomain = set.data["spec"]["serviceName"].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
            let claims = set.data["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
            for claim in claims.filter_map(|claim| claim["metadata"]["name"].as_str()) {
                let source =
                    json!({ "name": claim, "persistentVolumeClaim": { "claimName": format!("{claim}-{name}") } });
                let volumes = pod.volumes.get_or_insert_default();
                volumes.retain(|volume| volume.name != claim);
                volumes.extend(serde_json::from_value::<k8s_openapi::api::core::v1::Volume>(source));
            }
        }
        pod.metadata.name = Some(name);
        pod
    }

    async fn report(&mut self, set: &DynamicObject, spec: &Spec, current: &str, update: &str) -> Result<(), Error> {
        let known = self.sets.get(&Key::of(set)).filter(|known| known.uid() == set.uid()).cloned();
        let Some(known) = known else { return Ok(()) };
        let status = self.status(&known, set, spec, current, update);
        if let Some(written) = dynamic::write_status(&self.client, &self.kind, &known, status).await? {
            self.sets.written(written);
        }
        Ok(())
    }

    /// The status after a look at `set`, which `known` may be newer than.
    fn status(&self, known: &DynamicObject, set: &DynamicObject, spec: &Spec, current: &str, update: &str) -> Value {
        let (pods, now) = (self.pods_of(set), self.clock.now());
        let all = || pods.values().filter(|pod| !is_finished(pod));
        let of = |revision: &str| {
            let bears = |pod: &&std::sync::Arc<Pod>| pod.labels().get(REVISION).is_some_and(|known| known == revision);
            count(all().filter(bears).filter(|pod| pod.metadata.deletion_timestamp.is_none()).count())
        };
        let replicas = count(all().count());
        let is_ready = |pod: &&std::sync::Arc<Pod>| ready(pod).is_some();
        let is_available =
            |pod: &&std::sync::Arc<Pod>| until_available(pod, spec.min_ready_seconds, now).is_some_and(|w| w.is_zero());
        let readies = count(all().filter(is_ready).count());
        let (mut current, mut currents, updated) = (current, of(current), of(update));
        let rolls = matches!(spec.update, Update::Rolling { .. });
        if rolls && updated == replicas && readies == replicas && replicas == spec.replicas {
            (current, currents) = (update, updated);
        }
        let some = |count: i32| (count != 0).then_some(count);
        let mut fields = Map::new();
        put(&mut fields, "availableReplicas", Some(count(all().filter(is_available).count())));
        put(&mut fields, "collisionCount", Some(number(&known.data["status"]["collisionCount"], 0)));
        put(&mut fields, "currentReplicas", some(currents));
        put(&mut fields, "currentRevision", Some(current));
        put(&mut fields, "observedGeneration", set.metadata.generation);
        put(&mut fields, "readyReplicas", some(readies));
        put(&mut fields, "replicas", Some(replicas));
        put(&mut fields, "updateRevision", Some(update));
        put(&mut fields, "updatedReplicas", some(updated));
        fields.into()
    }

    async fn tell(&mut self, set: &DynamicObject, create: bool, pod: &str, error: Option<&Error>) {
        let (verb, done, failed) = match create {
            true => ("Create", "SuccessfulCreate", "FailedCreate"),
            false => ("Delete", "SuccessfulDelete", "FailedDelete"),
        };
        let place = format!("{verb} Pod {pod} in StatefulSet {}", set.name_any());
        match error {
            None => self.note(set, false, done, format!("{place} successful")).await,
            Some(error) => self.note(set, true, failed, format!("{place} failed error: {}", error.sentence())).await,
        }
    }

    async fn note(&mut self, set: &DynamicObject, warning: bool, reason: &'static str, message: String) {
        self.recorder.record(Note { about: set.object_ref(&self.kind), warning, reason, message }).await;
    }
}
