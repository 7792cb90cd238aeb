//! A kubelet whose containers exist only in their status: every pod runs and is ready a while after it was made, and
//! ends when its annotations say so.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::watcher::Event;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tidemark_clock::Clock;
use tokio::time::Instant;

use super::pods::is_finished;
use super::{Cache, Error, Key, Queue, ask, cache, watch};
use crate::simulated::{EXIT_CODE, RUN_SECONDS};

/// Addresses of simulated pods start after this one (10.244.0.0, the usual pod network).
const NETWORK: u32 = 0x0af4_0000;
/// The pause before the second restart of a container; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// The exit code of a container that was killed.
const KILLED: i32 = 137;

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
            } else if pod.annotations().contains_key(RUN_SECONDS) {
                self.queue.push(key);
            }
        }
    }

    async fn work(&mut self, key: Key) {
        let Some(pod) = self.pods.get(&key).cloned() else { return self.queue.remove(&key) };
        let due = self.due.get(cache::uid(&*pod)).copied().unwrap_or_else(Instant::now);
        let done = if pod.metadata.deletion_timestamp.is_some() {
            self.end(&pod).await
        } else if !is_pending(&pod) {
            self.go_on(&pod).await
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
        self.write(pod, status).await?;
        self.due.remove(cache::uid(pod));
        Ok(())
    }

    /// Ends and restarts the containers of a pod that has been started.
    async fn go_on(&mut self, pod: &Pod) -> Result<(), Error> {
        let now = self.clock.now();
        match turn(pod, now) {
            Turn::Rest => Ok(()),
            Turn::Wait(pause) => {
                self.queue.push_at(Key::of(pod), Instant::now() + pause);
                Ok(())
            }
            Turn::End { code } => self.write(pod, ended(pod, code, now)).await,
            Turn::Restart => self.write(pod, restarted(pod, now)).await,
        }
    }

    async fn write(&mut self, pod: &Pod, status: Value) -> Result<(), Error> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let patch = Patch::Merge(json!({ "metadata": { "uid": pod.uid() }, "status": status }));
        let written = ask(pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch)).await?;
        self.pods.written(written);
        Ok(())
    }

    /// A pod that is being deleted has no processes to wait for.
    async fn end(&mut self, pod: &Pod) -> Result<(), Error> {
        self.due.remove(cache::uid(pod));
        // Whoever holds it by a finalizer waits for this.
        if !is_pending(pod) && !is_finished(pod) && !pod.finalizers().is_empty() {
            let now = self.clock.now();
            self.write(pod, finished(pod, KILLED, now)).await?;
        }
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

/// What comes next for a pod that has been started.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Rest,
    Wait(Duration),
    End { code: i32 },
    Restart,
}

fn turn(pod: &Pod, now: Timestamp) -> Turn {
    let number = |name: &str| pod.annotations().get(name).and_then(|text| text.parse::<i32>().ok());
    let Some(seconds) = number(RUN_SECONDS).filter(|_| !is_finished(pod)) else { return Turn::Rest };
    let Some(container) = statuses(pod).first() else { return Turn::Rest };
    let state = container.state.as_ref();
    let after = |since: Timestamp, pause: Duration, turn: Turn| {
        let due = SignedDuration::try_from(pause).ok().and_then(|pause| since.checked_add(pause).ok()).unwrap_or(now);
        match Duration::try_from(due.duration_since(now)) {
            Ok(left) if !left.is_zero() => Turn::Wait(left),
            _ => turn,
        }
    };
    if let Some(running) = state.and_then(|state| state.running.as_ref()) {
        let run = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let code = number(EXIT_CODE).unwrap_or(0);
        return after(running.started_at.as_ref().map_or(now, |time| time.0), run, Turn::End { code });
    }
    let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref()?.finished_at.as_ref());
    after(last.map_or(now, |time| time.0), restart_pause(container.restart_count.unsigned_abs()), Turn::Restart)
}

/// The first restart comes at once, the further ones after 10 s, 20 s and so on up to 300 s.
pub(crate) fn restart_pause(restarts: u32) -> Duration {
    match restarts {
        0 => Duration::ZERO,
        n => FIRST_PAUSE.saturating_mul(1 << (n - 1).min(8)).min(LONGEST_PAUSE),
    }
}

fn statuses(pod: &Pod) -> &[ContainerStatus] {
    pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default()
}

/// The status of a pod whose containers have just ended: for good, or to be started again.
fn ended(pod: &Pod, code: i32, now: Timestamp) -> Value {
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    if policy == "Never" || (policy == "OnFailure" && code == 0) {
        return finished(pod, code, now);
    }
    let restarts = statuses(pod).first().map_or(0, |container| container.restart_count);
    let pause = restart_pause(restarts.unsigned_abs()).as_secs();
    let containers = containers(pod, false, restarts, |container, since| {
        let message = format!("back-off {pause} s restarting failed container={container} pod={}", pod.name_any());
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": message } });
        (waiting, terminated(code, since, now))
    });
    json!({ "conditions": conditions(pod, false, now), "containerStatuses": containers })
}

/// The status of a pod whose containers have ended for good.
fn finished(pod: &Pod, code: i32, now: Timestamp) -> Value {
    let restarts = statuses(pod).first().map_or(0, |container| container.restart_count);
    let containers = containers(pod, false, restarts, |_, since| (terminated(code, since, now), json!({})));
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    json!({ "phase": phase, "conditions": conditions(pod, false, now), "containerStatuses": containers })
}

fn restarted(pod: &Pod, now: Timestamp) -> Value {
    let restarts = statuses(pod).first().map_or(0, |container| container.restart_count) + 1;
    let last = statuses(pod).first().and_then(|container| container.last_state.clone());
    let containers = containers(pod, true, restarts, |_, _| (json!({ "running": { "startedAt": now } }), json!(last)));
    json!({ "phase": "Running", "conditions": conditions(pod, true, now), "containerStatuses": containers })
}

fn terminated(code: i32, since: &Value, now: Timestamp) -> Value {
    let reason = if code == 0 { "Completed" } else { "Error" };
    json!({ "terminated": { "exitCode": code, "reason": reason, "startedAt": since, "finishedAt": now } })
}

/// The containers' statuses. `states` gives state and last state of one from its name and the start of its run.
fn containers(pod: &Pod, ready: bool, restarts: i32, states: impl Fn(&str, &Value) -> (Value, Value)) -> Vec<Value> {
    let started = |name: &str| {
        let known = statuses(pod).iter().find(|container| container.name == name)?;
        known.state.as_ref()?.running.as_ref()?.started_at.clone()
    };
    let specs = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let status = |container: &k8s_openapi::api::core::v1::Container| {
        let (state, last) = states(&container.name, &json!(started(&container.name)));
        json!({
            "name": container.name,
            "image": container.image.clone().unwrap_or_default(),
            "imageID": "",
            "ready": ready,
            "started": ready,
            "restartCount": restarts,
            "state": state,
            "lastState": last,
        })
    };
    specs.iter().map(status).collect()
}

/// A pod's conditions; the time of one that has not changed stays.
fn conditions(pod: &Pod, ready: bool, now: Timestamp) -> Vec<Value> {
    let known = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let condition = |(type_, status): (&str, bool)| {
        let word = if status { "True" } else { "False" };
        let same = known.iter().find(|condition| condition.type_ == type_ && condition.status == word);
        let since = same.and_then(|condition| condition.last_transition_time.as_ref()).map_or(now, |time| time.0);
        json!({ "type": type_, "status": word, "lastTransitionTime": since })
    };
    [("PodScheduled", true), ("Initialized", true), ("ContainersReady", ready), ("Ready", ready)].map(condition).into()
}

fn running(pod: &Pod, address: &str, now: &str) -> Value {
    let containers = containers(pod, true, 0, |_, _| (json!({ "running": { "startedAt": now } }), json!({})));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_comes_at_once_and_later_ones_ever_later() {
        let pauses: Vec<_> = (0..8).map(|restarts| restart_pause(restarts).as_secs()).collect();
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(restart_pause(u32::MAX), LONGEST_PAUSE);
    }
}
