//! A stand-in for the scheduler and the kubelet: every pod is bound to one node that does not exist and is ready at
//! once. No container runs.

use std::net::Ipv4Addr;
use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Binding, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tidemark_clock::Clock;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::time::DelayQueue;

use crate::Error;

/// The node that every pod is bound to.
pub const NODE_NAME: &str = "tidemark-test";

/// Pod annotation: the pod finishes this many whole seconds after it started (`"0"`: at once). Without it a pod runs
/// until it is deleted. It may be added later, to finish a running pod.
pub const FINISH_AFTER_ANNOTATION: &str = "testkit.tidemark.dev/finish-after-seconds";

/// Pod annotation: the exit code a pod finishes with, 0 when it is absent. Any other makes it Failed.
pub const EXIT_CODE_ANNOTATION: &str = "testkit.tidemark.dev/exit-code";

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The stand-in for the kubelet.
///
/// It makes Pending pods Running and Ready, removes terminating ones at once, and finishes those with
/// [`FINISH_AFTER_ANNOTATION`] whatever their restart policy: nothing is ever restarted.
pub struct Kubelet {
    client: Client,
    clock: Clock,
    /// Pods to look at again, by namespace and name.
    later: DelayQueue<(String, String)>,
}

impl Kubelet {
    /// Creates the node [`NODE_NAME`] and looks after all pods until `shutdown` is cancelled. A lost watch or a failed
    /// request is tried again for as long as it runs.
    ///
    /// # Errors
    /// When the node cannot be created.
    pub async fn run(client: Client, shutdown: CancellationToken) -> Result<(), Error> {
        let mut kubelet = Self { client, clock: Clock::system(), later: DelayQueue::new() };
        kubelet.create_node().await?;
        let pods = watcher(Api::<Pod>::all(kubelet.client.clone()), watcher::Config::default());
        let mut pods = std::pin::pin!(pods.default_backoff().applied_objects());
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(due) = kubelet.later.next() => kubelet.look_again(due.into_inner()).await,
                Some(pod) = pods.next() => match pod {
                    Ok(pod) => kubelet.look_at(&pod).await,
                    Err(error) => tracing::debug!(%error, "the watch of pods failed and starts again"),
                },
            }
        }
    }

    async fn create_node(&self) -> Result<(), Error> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = node(self.clock.now());
        match timeout(ANSWER_WITHIN, nodes.create(&PostParams::default(), &node)).await {
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(()),
            Ok(outcome) => Ok(outcome.map(|_| ())?),
            Err(_) => Err(Error::TooLate { what: "the node is created", limit: ANSWER_WITHIN, last: String::new() }),
        }
    }

    async fn look_again(&mut self, (namespace, name): (String, String)) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        match timeout(ANSWER_WITHIN, pods.get_opt(&name)).await {
            Ok(Ok(Some(pod))) => self.look_at(&pod).await,
            Ok(Ok(None)) => {}
            Ok(Err(_)) | Err(_) => {
                self.later.insert((namespace, name), RETRY_AFTER);
            }
        }
    }

    /// Takes one step with a pod. The write's own watch event brings the next.
    async fn look_at(&mut self, pod: &Pod) {
        let again = match step(pod, self.clock.now()) {
            Step::Nothing => None,
            Step::Wait(delay) => Some(delay),
            step => match timeout(ANSWER_WITHIN, self.take(step, pod)).await {
                Ok(Ok(())) => None,
                // Gone, replaced or changed by somebody else: a watch event tells more.
                Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => None,
                Ok(Err(error)) => {
                    tracing::debug!(pod = pod.name_any(), %error, "a write on a pod failed and is repeated");
                    Some(RETRY_AFTER)
                }
                Err(_) => Some(RETRY_AFTER),
            },
        };
        if let Some(delay) = again {
            self.later.insert((pod.namespace().unwrap_or_default(), pod.name_any()), delay);
        }
    }

    async fn take(&self, step: Step, pod: &Pod) -> Result<(), kube::Error> {
        let name = pod.name_any();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let status = match step {
            Step::Nothing | Step::Wait(_) => return Ok(()),
            Step::Bind => {
                let binding = binding(pod);
                let _: Value = pods.create_subresource("binding", &name, &PostParams::default(), &binding).await?;
                return Ok(());
            }
            Step::Remove => {
                let preconditions = Preconditions { uid: pod.uid(), resource_version: None };
                let parameters = DeleteParams {
                    grace_period_seconds: Some(0),
                    preconditions: Some(preconditions),
                    ..DeleteParams::default()
                };
                return pods.delete(&name, &parameters).await.map(|_| ());
            }
            Step::Run => running(pod, self.clock.now()),
            Step::Finish { exit_code } => finished(pod, exit_code, self.clock.now()),
        };
        // With the uid, so that a namesake that came meanwhile is left alone.
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": status});
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ())
    }
}

/// What a pod needs next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Bind,
    Run,
    Wait(Duration),
    Finish { exit_code: i32 },
    Remove,
}

fn step(pod: &Pod, now: Timestamp) -> Step {
    let spec = pod.spec.as_ref();
    let node = spec.and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty());
    if node.is_some_and(|node| node != NODE_NAME) {
        return Step::Nothing;
    }
    if pod.metadata.deletion_timestamp.is_some() {
        // With a grace period of 0 only finalizers still hold it.
        let held = pod.metadata.deletion_grace_period_seconds == Some(0);
        return if held { Step::Nothing } else { Step::Remove };
    }
    if node.is_none() {
        let gated = spec.and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty());
        return if gated { Step::Nothing } else { Step::Bind };
    }
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        None | Some("" | "Pending") => Step::Run,
        Some("Running") => when_running(pod, now),
        Some(_) => Step::Nothing,
    }
}

fn when_running(pod: &Pod, now: Timestamp) -> Step {
    let number = |name| pod.annotations().get(name).and_then(|value: &String| value.parse::<i32>().ok());
    let Some(seconds) = number(FINISH_AFTER_ANNOTATION) else { return Step::Nothing };
    let ends = started(pod).unwrap_or(now).saturating_add(SignedDuration::from_secs(seconds.into())).unwrap_or(now);
    match Duration::try_from(ends.duration_since(now)) {
        Ok(left) if !left.is_zero() => Step::Wait(left),
        _ => Step::Finish { exit_code: number(EXIT_CODE_ANNOTATION).unwrap_or(0) },
    }
}

fn started(pod: &Pod) -> Option<Timestamp> {
    pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0)
}

fn running(pod: &Pod, now: Timestamp) -> Value {
    let state = json!({"running": {"startedAt": Time(now)}});
    let address = address(pod);
    json!({
        "phase": "Running",
        "hostIP": "192.0.2.1",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": Time(now),
        "conditions": conditions(now, None),
        "containerStatuses": container_statuses(pod, &state, true),
    })
}

fn finished(pod: &Pod, exit_code: i32, now: Timestamp) -> Value {
    let (phase, reason) = if exit_code == 0 { ("Succeeded", "Completed") } else { ("Failed", "Error") };
    let state = json!({"terminated": {
        "exitCode": exit_code,
        "reason": reason,
        "startedAt": Time(started(pod).unwrap_or(now)),
        "finishedAt": Time(now),
    }});
    json!({
        "phase": phase,
        "conditions": conditions(now, Some(if exit_code == 0 { "PodCompleted" } else { "PodFailed" })),
        "containerStatuses": container_statuses(pod, &state, false),
    })
}

/// The four conditions of a pod; `over` is why it is no longer ready.
fn conditions(now: Timestamp, over: Option<&str>) -> Value {
    let condition = |kind: &str, status: &str, reason: Option<&str>| json!({"type": kind, "status": status, "reason": reason, "lastTransitionTime": Time(now)});
    let ready = if over.is_none() { "True" } else { "False" };
    json!([
        condition("PodScheduled", "True", None),
        condition("Initialized", "True", None),
        condition("ContainersReady", ready, over),
        condition("Ready", ready, over),
    ])
}

fn container_statuses(pod: &Pod, state: &Value, ready: bool) -> Value {
    let uid = pod.uid().unwrap_or_default();
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .map(|container| {
            json!({
                "name": container.name,
                "image": container.image.as_deref().unwrap_or_default(),
                "imageID": "",
                "containerID": format!("tidemark-test://{uid}/{}", container.name),
                "ready": ready,
                "started": ready,
                "restartCount": 0,
                "state": state,
            })
        })
        .collect()
}

/// An address out of the pod's uid: the same in each attempt, and hardly ever that of another pod.
fn address(pod: &Pod) -> String {
    let uid = pod.uid().unwrap_or_default();
    let number = uid.get(..6).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(1);
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() | number).to_string()
}

fn binding(pod: &Pod) -> Binding {
    let mut binding = Binding::default();
    binding.metadata.name = pod.metadata.name.clone();
    binding.metadata.uid = pod.uid();
    binding.target.kind = Some("Node".into());
    binding.target.name = Some(NODE_NAME.into());
    binding
}

fn node(now: Timestamp) -> Node {
    let resources = json!({"cpu": "1000", "memory": "1000Gi", "pods": "10000"});
    let node = json!({
        "metadata": {"name": NODE_NAME, "labels": {"kubernetes.io/hostname": NODE_NAME, "kubernetes.io/os": "linux"}},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": NODE_NAME}],
            "conditions": [{
                "type": "Ready",
                "status": "True",
                "reason": "StandIn",
                "lastHeartbeatTime": Time(now),
                "lastTransitionTime": Time(now),
            }],
        },
    });
    serde_json::from_value(node).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:01:00Z";

    fn step_of(pod: Value) -> Step {
        step(&serde_json::from_value(pod).unwrap(), NOW.parse().unwrap())
    }

    #[test]
    fn a_pod_is_bound_then_run_then_left_alone() {
        assert_eq!(step_of(json!({"spec": {"containers": []}})), Step::Bind);
        let spec = json!({"containers": [], "nodeName": NODE_NAME});
        assert_eq!(step_of(json!({"spec": spec, "status": {"phase": "Pending"}})), Step::Run);
        assert_eq!(step_of(json!({"spec": spec, "status": {"phase": "Running"}})), Step::Nothing);
        assert_eq!(step_of(json!({"spec": {"containers": [], "nodeName": "another"}})), Step::Nothing);
        let gated = json!({"containers": [], "schedulingGates": [{"name": "quota"}]});
        assert_eq!(step_of(json!({"spec": gated})), Step::Nothing);
    }

    #[test]
    fn an_annotated_pod_finishes_when_its_time_is_over() {
        let pod = |seconds: &str, started: &str| {
            json!({
                "metadata": {"annotations": {FINISH_AFTER_ANNOTATION: seconds, EXIT_CODE_ANNOTATION: "3"}},
                "spec": {"containers": [], "nodeName": NODE_NAME},
                "status": {"phase": "Running", "startTime": started},
            })
        };
        assert_eq!(step_of(pod("30", "2026-01-01T00:00:50Z")), Step::Wait(Duration::from_secs(20)));
        assert_eq!(step_of(pod("10", "2026-01-01T00:00:50Z")), Step::Finish { exit_code: 3 });
    }

    #[test]
    fn a_terminating_pod_is_removed_unless_a_finalizer_holds_it() {
        let pod = |grace: i64| json!({"metadata": {"deletionTimestamp": NOW, "deletionGracePeriodSeconds": grace}, "spec": {"containers": [], "nodeName": NODE_NAME}});
        assert_eq!(step_of(pod(30)), Step::Remove);
        assert_eq!(step_of(pod(0)), Step::Nothing);
    }
}
