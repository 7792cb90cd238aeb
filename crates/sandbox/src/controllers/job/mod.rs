//! Jobs run pods until enough of them have succeeded.
//!
//! Each pod carries a finalizer until its end is counted: first its uid goes into the status, then the finalizer goes,
//! then the count grows. Whatever fails in between, no end is lost and none counts twice.

mod failure_policy;
mod pass;
mod spec;
mod tally;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::watcher::Event;
use kube::{Client, ResourceExt};
use serde_json::json;
use tidemark_clock::Clock;
use tokio::time::Instant;

use super::pods::Pods;
use super::{Cache, Error, Key, LazyWatch, Note, Queue, Recorder, ask, cache, dynamic};
use spec::{Spec, Status};
use tally::Streak;

/// Holds a pod until its end is counted.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";

/// Runs for ever; dropping the future stops the controller.
pub(super) async fn run(client: Client, clock: Clock) {
    let kind = dynamic::kind("batch", "v1", "Job", "jobs");
    let mut jobs_seen = dynamic::watch_kind(&client, &kind);
    let mut pods_seen = LazyWatch::<Pod>::new();
    let mut controller = Controller {
        recorder: Recorder::new(client.clone(), clock, "job-controller"),
        pods: Pods::new(client.clone()),
        client,
        clock,
        kind,
        jobs: Cache::default(),
        queue: Queue::default(),
        orphans: Queue::default(),
        streaks: BTreeMap::new(),
    };
    loop {
        let synced = controller.jobs.synced() && controller.pods.synced();
        tokio::select! {
            biased;
            Some(event) = jobs_seen.next() => {
                controller.saw_job(event);
                if controller.is_needed() {
                    pods_seen.begin(&controller.client);
                }
            }
            Some(event) = pods_seen.next() => controller.saw_pod(event),
            key = controller.orphans.next(), if synced => controller.let_go(key).await,
            key = controller.queue.next(), if synced => controller.work(key).await,
        }
    }
}

struct Controller {
    client: Client,
    clock: Clock,
    kind: ApiResource,
    jobs: Cache<DynamicObject>,
    pods: Pods,
    queue: Queue<Key>,
    /// Pods that may have lost their Job before their end was counted.
    orphans: Queue<Key>,
    /// Failures in a row, by the uid of the Job.
    streaks: BTreeMap<String, Streak>,
    recorder: Recorder,
}

impl Controller {
    /// Whether there is any Job to run pods for.
    fn is_needed(&self) -> bool {
        !self.jobs.is_empty()
    }

    fn saw_job(&mut self, event: Event<DynamicObject>) {
        for job in self.jobs.apply(event) {
            let key = Key::of(&*job);
            let uid = cache::uid(&*job);
            if self.jobs.get(&key).is_none_or(|known| cache::uid(&**known) != uid) {
                self.streaks.remove(uid);
                for pod in self.pods.owned_by(uid) {
                    self.orphans.push(Key::of(&**pod));
                }
            }
            self.queue.push(key);
        }
    }

    fn saw_pod(&mut self, event: Event<Pod>) {
        for pod in self.pods.apply(event) {
            let Some((name, uid)) = job_of(&pod) else { continue };
            let key = Key { namespace: pod.namespace().unwrap_or_default(), name: name.to_owned() };
            if is_tracked(&pod) && self.jobs.get(&key).is_none_or(|job| cache::uid(&**job) != uid) {
                self.orphans.push(Key::of(&*pod));
            }
            self.queue.push(key);
        }
    }

    async fn work(&mut self, key: Key) {
        let Some(job) = self.jobs.get(&key).cloned() else { return self.queue.remove(&key) };
        match self.reconcile(&job).await {
            Ok(again) => {
                self.queue.succeeded(&key);
                if let Some(pause) = again {
                    self.queue.push_at(key, Instant::now() + pause);
                }
            }
            Err(error) => {
                tracing::debug!(namespace = key.namespace, name = key.name, %error, "a Job has to wait");
                self.queue.failed(key);
            }
        }
    }

    /// Takes the finalizer from a pod whose Job has gone.
    async fn let_go(&mut self, key: Key) {
        let released = self.release_orphan(&key).await;
        match released {
            Ok(()) => self.orphans.succeeded(&key),
            Err(error) => {
                tracing::debug!(namespace = key.namespace, name = key.name, %error, "a pod of a Job that has gone has to wait");
                self.orphans.failed(key);
            }
        }
    }

    async fn release_orphan(&mut self, key: &Key) -> Result<(), Error> {
        let Some(pod) = self.pods.get(key).filter(|pod| is_tracked(pod)).cloned() else { return Ok(()) };
        let Some((name, uid)) = job_of(&pod) else { return Ok(()) };
        // The watch of the Jobs may lag behind, so only the API server's word counts.
        let jobs = dynamic::api(&self.client, &self.kind, Some(&key.namespace));
        match ask(jobs.get_metadata(name)).await {
            Ok(job) if cache::uid(&job) == uid => Ok(()),
            Ok(_) => self.release(&pod).await,
            Err(error) if error.is_not_found() => self.release(&pod).await,
            Err(error) => Err(error),
        }
    }

    /// Takes the finalizer from a pod.
    async fn release(&mut self, pod: &Pod) -> Result<(), Error> {
        if !is_tracked(pod) {
            return Ok(());
        }
        let left: Vec<_> = pod.finalizers().iter().filter(|held| *held != TRACKING).collect();
        let finalizers = if left.is_empty() { serde_json::Value::Null } else { json!(left) };
        self.pods.patch(pod, json!({ "metadata": { "uid": pod.uid(), "finalizers": finalizers } })).await
    }

    /// Returns after which time there is something to do.
    async fn reconcile(&mut self, job: &DynamicObject) -> Result<Option<Duration>, Error> {
        let spec = Spec::of(&job.data["spec"]);
        if spec.foreign {
            return Ok(None);
        }
        let status = Status::of(&job.data["status"], spec.indexed);
        match status.finished() {
            Some(ended) => {
                let left: Vec<_> = self.pods.owned_by(cache::uid(job)).cloned().collect();
                for pod in left {
                    self.release(&pod).await?;
                }
                self.expire(job, &spec, ended).await
            }
            None => self.advance(job, &spec, status).await,
        }
    }

    /// Deletes a Job some time after its end.
    async fn expire(&mut self, job: &DynamicObject, spec: &Spec, ended: Timestamp) -> Result<Option<Duration>, Error> {
        let Some(ttl) = spec.ttl.filter(|_| job.metadata.deletion_timestamp.is_none()) else { return Ok(None) };
        let over_for = Duration::try_from(self.clock.now().duration_since(ended)).unwrap_or_default();
        if over_for < ttl {
            return Ok(Some(ttl - over_for));
        }
        let same = Preconditions { uid: job.uid(), resource_version: job.resource_version() };
        let jobs = dynamic::api(&self.client, &self.kind, job.namespace().as_deref());
        match ask(jobs.delete(&job.name_any(), &DeleteParams::foreground().preconditions(same))).await {
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn note(&mut self, job: &DynamicObject, warning: bool, reason: &'static str, message: impl Into<String>) {
        let about = kube::Resource::object_ref(job, &self.kind);
        self.recorder.record(Note { about, warning, reason, message: message.into() }).await;
    }
}

/// Name and uid of the Job that a pod belongs to.
fn job_of(pod: &Pod) -> Option<(&str, &str)> {
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true) && owner.kind == "Job")?;
    Some((&owner.name, &owner.uid))
}

fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|held| held == TRACKING)
}
