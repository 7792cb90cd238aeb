//! Pods as the controllers see them, and what they do with them.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher::Event;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use super::{Cache, Error, ask};

/// The pods that a controller knows, with its requests for more or fewer of them. Its own writes are known at once.
pub(super) struct Pods {
    client: Client,
    known: Cache<Pod>,
}

impl Pods {
    pub(super) fn new(client: Client) -> Self {
        Self { client, known: Cache::default() }
    }

    /// Whether the first listing is complete.
    pub(super) fn synced(&self) -> bool {
        self.known.synced()
    }

    /// Enters a watch event and returns the pods it touched, in order.
    pub(super) fn apply(&mut self, event: Event<Pod>) -> Vec<Arc<Pod>> {
        self.known.apply(event)
    }

    pub(super) fn get(&self, key: &super::Key) -> Option<&Arc<Pod>> {
        self.known.get(key)
    }

    /// The pods that name the uid among their owners, by namespace and name.
    pub(super) fn owned_by(&self, uid: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.known.owned_by(uid)
    }

    pub(super) async fn create(&mut self, pod: &Pod) -> Result<Pod, Error> {
        let pods = self.api(pod);
        let created = ask(pods.create(&PostParams::default(), pod)).await?;
        self.known.written(created.clone());
        Ok(created)
    }

    /// Deletes the pod and no later one of its name.
    pub(super) async fn delete(&mut self, pod: &Pod) -> Result<(), Error> {
        let same = Preconditions { uid: pod.uid(), resource_version: None };
        let pods = self.api(pod);
        match ask(pods.delete(&pod.name_any(), &DeleteParams::background().preconditions(same))).await {
            Ok(answer) => match answer.left() {
                // A pod that ends slowly comes back marked; the watch tells when it has gone.
                Some(ending) if ending.metadata.deletion_timestamp.is_some() => self.known.written(ending),
                _ => self.known.removed(pod),
            },
            Err(error) if error.is_not_found() || error.is_conflict() => self.known.removed(pod),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Merges into the pod, or says nothing if it has gone.
    pub(super) async fn patch(&mut self, pod: &Pod, patch: Value) -> Result<(), Error> {
        let pods = self.api(pod);
        match ask(pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(patch))).await {
            // The last finalizer of a pod that is being deleted takes the pod with it.
            Ok(patched) if patched.metadata.deletion_timestamp.is_some() && patched.finalizers().is_empty() => {
                let waits = patched.metadata.deletion_grace_period_seconds.is_some_and(|grace| grace > 0);
                if waits { self.known.written(patched) } else { self.known.removed(&patched) }
            }
            Ok(patched) => self.known.written(patched),
            Err(error) if error.is_not_found() || error.is_other_object() => self.known.removed(pod),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn api(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }
}

/// A pod of a template, to be made in a namespace for an owner. It has no name yet.
pub(super) fn from_template(
    template: PodTemplateSpec,
    namespace: Option<String>,
    owner: Option<OwnerReference>,
) -> Pod {
    let metadata = template.metadata.unwrap_or_default();
    let owner = owner.map(|mut owner| {
        owner.block_owner_deletion = Some(true);
        owner
    });
    Pod {
        metadata: ObjectMeta {
            namespace,
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: owner.map(|owner| vec![owner]),
            ..Default::default()
        },
        spec: template.spec,
        status: None,
    }
}

pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether all its containers have ended for good.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Failed" | "Succeeded")
}

/// Neither finished nor being deleted.
pub(super) fn is_active(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && !is_finished(pod)
}

/// Being deleted and not finished.
pub(super) fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && !is_finished(pod)
}

/// The condition Ready of a pod that is ready.
pub(super) fn ready(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_deref().unwrap_or_default();
    conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// How long until a ready pod counts as available: zero when it does; `None` when it is not even ready.
pub(super) fn until_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    let condition = ready(pod)?;
    let Some(since) = condition.last_transition_time.as_ref().filter(|_| min_ready_seconds > 0) else {
        return Some(Duration::ZERO);
    };
    let ready_for = Duration::try_from(now.duration_since(since.0)).unwrap_or_default();
    Some(Duration::from_secs(u64::from(min_ready_seconds.unsigned_abs())).saturating_sub(ready_for))
}

pub(super) fn count(things: usize) -> i32 {
    i32::try_from(things).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_ready_pod_is_available_after_min_ready_seconds() {
        let pod = json!({ "status": { "phase": "Running", "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z" },
        ] } });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let now: Timestamp = "2026-01-01T00:00:15Z".parse().unwrap();
        assert_eq!(until_available(&pod, 0, now), Some(Duration::ZERO));
        assert_eq!(until_available(&pod, 30, now), Some(Duration::from_secs(25)));
        assert_eq!(until_available(&pod, 5, now), Some(Duration::ZERO));
    }
}
