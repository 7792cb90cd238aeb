//! ReplicaSets make Pods.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tidemark_clock::Clock;
use tokio::time::Instant;

use super::pods::{Pods, count, from_template, is_active, is_ending, phase, ready, until_available};
use super::{Cache, Error, Key, Note, Queue, Recorder, ask, cache, controller_of, watch};

/// Most pods that one look at a ReplicaSet makes or deletes. It is looked at again at once, so that a changed count is seen
/// and other ReplicaSets have their turn in between.
const BURST: usize = 50;
const POD_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Runs for ever; dropping the future stops the controller.
pub(super) async fn run(client: Client, clock: Clock) {
    let mut sets_seen = watch::<ReplicaSet>(&client);
    let mut pods_seen = watch::<Pod>(&client);
    let mut controller = Controller {
        recorder: Recorder::new(client.clone(), clock, "replicaset-controller"),
        pods: Pods::new(client.clone()),
        client,
        clock,
        sets: Cache::default(),
        queue: Queue::default(),
        batches: BTreeMap::new(),
    };
    loop {
        tokio::select! {
            biased;
            Some(event) = sets_seen.next() => controller.saw_set(event),
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
    sets: Cache<ReplicaSet>,
    pods: Pods,
    queue: Queue<Key>,
    /// How many pods the next look at a ReplicaSet that is short of pods makes. One at first and twice as many after each
    /// success, as in kube-controller-manager: a template that is refused is refused once.
    batches: BTreeMap<Key, usize>,
    recorder: Recorder,
}

impl Controller {
    fn saw_set(&mut self, event: Event<ReplicaSet>) {
        for set in self.sets.apply(event) {
            self.queue.push(Key::of(&*set));
        }
    }

    fn saw_pod(&mut self, event: Event<Pod>) {
        for pod in self.pods.apply(event) {
            if let Some(name) = controller_of(&*pod, "ReplicaSet") {
                self.queue.push(Key { namespace: pod.namespace().unwrap_or_default(), name: name.to_owned() });
            }
        }
    }

    async fn work(&mut self, key: Key) {
        let Some(set) = self.sets.get(&key).cloned() else {
            self.batches.remove(&key);
            return self.queue.remove(&key);
        };
        match self.reconcile(&set).await {
            Ok(again) => {
                self.queue.succeeded(&key);
                if let Some(pause) = again {
                    self.queue.push_at(key, Instant::now() + pause);
                }
            }
            Err(error) => {
                tracing::debug!(namespace = key.namespace, name = key.name, %error, "a ReplicaSet has to wait");
                self.batches.remove(&key);
                self.queue.failed(key);
            }
        }
    }

    /// Returns after which time there is something to do: the rest of the pods, or a pod that turns available by itself.
    async fn reconcile(&mut self, set: &ReplicaSet) -> Result<Option<Duration>, Error> {
        let counted = if set.metadata.deletion_timestamp.is_none() { self.adjust(set).await } else { Ok(true) };
        // What was done so far is reported also when the rest failed.
        let again = self.report(set).await?;
        Ok(if counted? { again } else { Some(Duration::ZERO) })
    }

    fn active(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        self.pods.owned_by(cache::uid(set)).filter(|pod| is_active(pod)).cloned().collect()
    }

    /// Brings the pods nearer to the wanted count and says whether it is reached.
    async fn adjust(&mut self, set: &ReplicaSet) -> Result<bool, Error> {
        let active = self.active(set);
        let wanted = usize::try_from(wanted(set)).unwrap_or_default();
        let (missing, excess) = (wanted.saturating_sub(active.len()), active.len().saturating_sub(wanted));
        let batch = self.batches.remove(&Key::of(set)).unwrap_or(1);
        for _ in 0..missing.min(batch) {
            self.create(set).await?;
        }
        if missing > batch {
            self.batches.insert(Key::of(set), (batch * 2).min(BURST));
        }
        if excess > 0 {
            for pod in dispensable(active).into_iter().take(excess.min(BURST)) {
                self.pods.delete(&pod).await?;
                self.note(set, false, "SuccessfulDelete", format!("Deleted pod: {}", pod.name_any())).await;
            }
        }
        Ok(missing <= batch && excess <= BURST)
    }

    async fn create(&mut self, set: &ReplicaSet) -> Result<(), Error> {
        let template = set.spec.template.clone().unwrap_or_default();
        let mut pod = from_template(template, set.namespace(), set.controller_owner_ref(&()));
        pod.metadata.generate_name = Some(format!("{}-", set.name_any()));
        match self.pods.create(&pod).await {
            Ok(created) => {
                self.note(set, false, "SuccessfulCreate", format!("Created pod: {}", created.name_any())).await;
                Ok(())
            }
            Err(error) => {
                self.note(set, true, "FailedCreate", format!("Error creating: {}", error.sentence())).await;
                Err(error)
            }
        }
    }

    async fn note(&mut self, set: &ReplicaSet, warning: bool, reason: &'static str, message: String) {
        self.recorder.record(Note { about: set.object_ref(&()), warning, reason, message }).await;
    }

    async fn report(&mut self, set: &ReplicaSet) -> Result<Option<Duration>, Error> {
        let active = self.active(set);
        let ending = self.pods.owned_by(cache::uid(set)).filter(|pod| is_ending(pod)).count();
        let delay = set.spec.min_ready_seconds.unwrap_or_default();
        let now = self.clock.now();
        let waits: Vec<_> = active.iter().filter_map(|pod| until_available(pod, delay, now)).collect();
        let template = set.spec.template.as_ref();
        let labels = template.and_then(|t| t.metadata.as_ref()?.labels.as_ref());
        let labelled =
            |pod: &Pod| labels.is_none_or(|labels| labels.iter().all(|(k, v)| pod.labels().get(k) == Some(v)));
        let status = ReplicaSetStatus {
            replicas: count(active.len()),
            fully_labeled_replicas: Some(count(active.iter().filter(|pod| labelled(pod)).count())),
            ready_replicas: Some(count(waits.len())),
            available_replicas: Some(count(waits.iter().filter(|wait| wait.is_zero()).count())),
            terminating_replicas: Some(count(ending)),
            observed_generation: set.metadata.generation,
            conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
        };
        if set.status.as_ref() != Some(&status) {
            let sets = Api::<ReplicaSet>::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
            let patch = Patch::Merge(json!({ "status": status }));
            match ask(sets.patch_status(&set.name_any(), &PatchParams::default(), &patch)).await {
                Ok(written) => self.sets.written(written),
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(waits.into_iter().filter(|wait| !wait.is_zero()).min())
    }
}

fn wanted(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

/// The pods, those first that can be missed best: not yet running, not ready, of low deletion cost, ready for the
/// shortest time, often restarted, young.
pub(super) fn dispensable(mut pods: Vec<Arc<Pod>>) -> Vec<Arc<Pod>> {
    pods.sort_by_cached_key(|pod| {
        let since = ready(pod).and_then(|condition| condition.last_transition_time.as_ref()).map(|time| time.0);
        let cost = pod.annotations().get(POD_DELETION_COST).and_then(|cost| cost.parse::<i32>().ok()).unwrap_or(0);
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref());
        let restarts = statuses.unwrap_or_default().iter().map(|container| container.restart_count).max().unwrap_or(0);
        (
            phase(pod) == "Running",
            ready(pod).is_some(),
            cost,
            Reverse(since),
            Reverse(restarts),
            Reverse(pod.metadata.creation_timestamp.as_ref().map(|time| time.0)),
            // Of pods that are equal in all this the last one made goes: names come from a counter.
            Reverse(pod.name_any()),
        )
    });
    pods
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, created: &str, phase: &str, ready_since: Option<&str>) -> Arc<Pod> {
        let conditions: Vec<_> = ready_since
            .map(|since| json!({ "type": "Ready", "status": "True", "lastTransitionTime": since }))
            .into_iter()
            .collect();
        let pod = json!({
            "metadata": { "name": name, "creationTimestamp": created },
            "status": { "phase": phase, "conditions": conditions },
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn pods_not_ready_go_before_young_ones_and_young_before_old() {
        let (t0, t1, t2) = ("2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z");
        let pods = vec![
            pod("old", t0, "Running", Some(t0)),
            pod("pending", t0, "Pending", None),
            pod("young", t1, "Running", Some(t2)),
            pod("unready", t0, "Running", None),
        ];
        let order: Vec<_> = dispensable(pods).iter().map(|pod| pod.name_any()).collect();
        assert_eq!(order, ["pending", "unready", "young", "old"]);
    }
}
