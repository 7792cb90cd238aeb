//! A kubelet whose containers exist only in their status: every pod runs and is ready a while after it was made.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::watcher::Event;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tidemark_clock::Clock;
use tokio::time::Instant;

use super::{Cache, Error, Key, Queue, ask, cache, watch};

/// Addresses of simulated pods start after this one (10.244.0.0, the usual pod network).
const NETWORK: u32 = 0x0af4_0000;

/// Runs for ever; dropping the future stops the kubelet.
pub(super) async fn run(client: Client, clock: Clock, startup: Duration) {
    let mut seen = watch::<Pod>(&client);
    let mut kubelet = Kubelet {
        client,
        clock,
        startup,
        pods: Cache::default(),
        queue: Queue::default(),
        due: BTreeMap::new(),
        addresses: NETWORK,
    };
    loop {
        tokio::select! {
            biased;
            Some(event) = seen.next() => kubelet.saw(event),
            key = kubelet.queue.next(), if kubelet.pods.synced() => kubelet.work(key).await,
        }
    }
}

struct Kubelet {
    client: Client,
    clock: Clock,
    startup: Duration,
    pods: Cache<Pod>,
    queue: Queue<Key>,
    /// When each pod that is not running yet will be, by uid.
    due: BTreeMap<String, Instant>,
    addresses: u32,
}

impl Kubelet {
    fn saw(&mut self, event: Event<Pod>) {
        for pod in self.pods.apply(event) {
            let key = Key::of(&*pod);
            let known = self.pods.get(&key);
            if known.is_none_or(|known| cache::uid(&**known) != cache::uid(&*pod)) {
                self.due.remove(cache::uid(&*pod));
                if known.is_none() {
                    self.queue.remove(&key);
                }
            } else if pod.metadata.deletion_timestamp.is_some() {
                self.queue.push(key);
            } else if is_pending(&pod) {
                let startup = self.startup;
                let uid = cache::uid(&*pod).to_owned();
                let due = *self.due.entry(uid).or_insert_with(|| Instant::now() + startup);
                self.queue.push_at(key, due);
            }
        }
    }

    async fn work(&mut self, key: Key) {
        let Some(pod) = self.pods.get(&key).cloned() else { return self.queue.remove(&key) };
        let due = self.due.get(cache::uid(&*pod)).copied().unwrap_or_else(Instant::now);
        let done = if pod.metadata.deletion_timestamp.is_some() {
            self.end(&pod).await
        } else if !is_pending(&pod) {
            Ok(())
        } else if due > Instant::now() {
            // The entry was that of an earlier pod of the same name.
            self.queue.push_at(key.clone(), due);
            Ok(())
        } else {
            self.start(&pod).await
        };
        match done {
            Ok(()) => self.queue.succeeded(&key),
            Err(error) if error.is_not_found() || error.is_other_object() => self.queue.remove(&key),
            Err(error) => {
                tracing::debug!(namespace = key.namespace, name = key.name, %error, "a pod has to wait");
                self.queue.failed(key);
            }
        }
    }

    async fn start(&mut self, pod: &Pod) -> Result<(), Error> {
        self.addresses += 1;
        let address = Ipv4Addr::from(self.addresses).to_string();
        let status = running(pod, &address, &self.clock.now().to_string());
        let pods = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let patch = Patch::Merge(json!({ "metadata": { "uid": pod.uid() }, "status": status }));
        let started = ask(pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch)).await?;
        self.due.remove(cache::uid(pod));
        self.pods.written(started);
        Ok(())
    }

    /// A pod that is being deleted has no processes to wait for.
    async fn end(&mut self, pod: &Pod) -> Result<(), Error> {
        self.due.remove(cache::uid(pod));
        remove(&self.client, pod).await
    }
}

/// Lets a pod go whose containers have ended: what a kubelet does at last.
pub(crate) async fn remove(client: &Client, pod: &Pod) -> Result<(), Error> {
    let pods = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let same = Preconditions { uid: pod.uid(), resource_version: None };
    let now = DeleteParams::background().grace_period(0).preconditions(same);
    match ask(pods.delete(&pod.name_any(), &now)).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(error),
    }
}

fn is_pending(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, None | Some("Pending"))
}

fn running(pod: &Pod, address: &str, now: &str) -> Value {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let containers: Vec<_> = containers
        .iter()
        .map(|container| {
            json!({
                "name": container.name,
                "image": container.image.clone().unwrap_or_default(),
                "imageID": "",
                "ready": true,
                "started": true,
                "restartCount": 0,
                "state": { "running": { "startedAt": now } },
            })
        })
        .collect();
    let conditions: Vec<_> = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
        .map(|type_| json!({ "type": type_, "status": "True", "lastTransitionTime": now }))
        .into();
    json!({
        "phase": "Running",
        "podIP": address,
        "podIPs": [{ "ip": address }],
        "hostIP": "127.0.0.1",
        "startTime": now,
        "conditions": conditions,
        "containerStatuses": containers,
    })
}
