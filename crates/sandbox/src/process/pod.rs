//! One pod: its containers and its status.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::{SemaphorePermit, mpsc, watch};

use super::Node;
use super::container::{Told, View};
use super::containers::Containers;
use super::ignored;
use super::status::{self, Views, whole};
use crate::controllers::{Note, Recorder, ask, remove};

/// A status that could not be written is written again after this long.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// How often it is tried to let a pod go. Not for ever: `up` waits for it when it stops.
const REMOVALS: usize = 3;

/// Runs the pod until it is done for good or stopped, and in the latter case lets it go.
pub(super) async fn run(node: &Node, pod: Pod, address: Ipv4Addr, mut stop: watch::Receiver<Option<Duration>>) {
    let address = address.to_string();
    let mut reporter = Reporter::new(node, &pod, &address);
    // Held as long as the containers run: a pod that is done leaves its place to others.
    let place = reporter.await_place(&mut stop).await;
    if let Some(_place) = place {
        reporter.place().await;
        reporter.note_ignored().await;
        reporter.write().await;
        let (teller, told) = mpsc::unbounded_channel();
        let containers = Containers { node, pod: &pod, address: &address, teller, stop: stop.clone() };
        tokio::join!(containers.run(), reporter.follow(told, &stop));
    }
    // A pod that is done stays until it is deleted.
    while stop.borrow_and_update().is_none() && stop.changed().await.is_ok() {}
    for _ in 0..REMOVALS {
        let Err(error) = remove(&node.client, &pod).await else { break };
        tracing::warn!(namespace = pod.namespace(), name = pod.name_any(), %error, "a pod could not be let go");
        tokio::time::sleep(WRITE_AGAIN).await;
    }
}

/// Turns what the containers tell into the pod's status and events.
struct Reporter<'a> {
    node: &'a Node,
    pod: &'a Pod,
    address: &'a str,
    started: Timestamp,
    /// Whether there is a place for the pod on the node.
    placed: bool,
    first: &'a [Container],
    main: &'a [Container],
    views: Vec<View>,
    /// Whether no container is started again.
    over: bool,
    /// Status and last change of each condition.
    conditions: BTreeMap<&'static str, (bool, Timestamp)>,
    written: Option<Value>,
    recorder: Recorder,
}

impl<'a> Reporter<'a> {
    fn new(node: &'a Node, pod: &'a Pod, address: &'a str) -> Self {
        let spec = pod.spec.as_ref();
        let first = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
        let main = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
        let reason = if first.is_empty() { "ContainerCreating" } else { "PodInitializing" };
        Self {
            node,
            pod,
            address,
            started: whole(node.clock.now()),
            placed: false,
            first,
            main,
            views: vec![View::waiting(reason); first.len() + main.len()],
            over: false,
            conditions: BTreeMap::new(),
            written: None,
            recorder: Recorder::new(node.client.clone(), node.clock, "kubelet"),
        }
    }

    /// Reports until the last container is done.
    async fn follow(
        &mut self,
        mut told: mpsc::UnboundedReceiver<(usize, Told)>,
        stop: &watch::Receiver<Option<Duration>>,
    ) {
        let mut behind = false;
        loop {
            let next = tokio::select! {
                biased;
                next = told.recv() => next,
                () = tokio::time::sleep(WRITE_AGAIN), if behind => {
                    behind = !self.write().await;
                    continue;
                }
            };
            let Some(next) = next else { break };
            let mut news = vec![next];
            // What has come in the meantime goes into the same write.
            while let Ok(next) = told.try_recv() {
                news.push(next);
            }
            for (number, told) in news {
                match told {
                    Told::View(view) => self.views[number] = view,
                    Told::Event { warning, reason, message } => self.record(warning, reason, message).await,
                }
            }
            behind = !self.write().await;
        }
        // A pod that is deleted ends for good, whatever its restart policy.
        self.over = stop.borrow().is_some();
        if behind || self.over {
            self.write().await;
        }
    }

    async fn record(&mut self, warning: bool, reason: &'static str, message: String) {
        self.recorder.record(Note { about: self.pod.object_ref(&()), warning, reason, message }).await;
    }

    /// Waits for a place on the node; `None` when the pod is stopped before there is one.
    async fn await_place(&mut self, stop: &mut watch::Receiver<Option<Duration>>) -> Option<SemaphorePermit<'a>> {
        if stop.borrow().is_some() {
            return None;
        }
        let node = self.node;
        if let Ok(place) = node.places.try_acquire() {
            return Some(place);
        }
        let complain = async {
            while !self.write().await {
                tokio::time::sleep(WRITE_AGAIN).await;
            }
            let mut recorder = Recorder::new(node.client.clone(), node.clock, "default-scheduler");
            let message = self.unschedulable();
            let note = Note { about: self.pod.object_ref(&()), warning: true, reason: "FailedScheduling", message };
            recorder.record(note).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(Option::is_some) => None,
            place = node.places.acquire() => place.ok(),
            () = complain => None,
        }
    }

    /// What the scheduler says of a pod for which there is no place.
    fn unschedulable(&self) -> String {
        let most = self.node.settings.max_pods;
        format!("0/1 nodes are available: 1 Too many pods. This machine runs at most {most} at a time.")
    }

    /// Puts the pod on the node, as the scheduler does: only a placed pod is given time to end when it is deleted.
    async fn place(&mut self) {
        (self.placed, self.started) = (true, whole(self.node.clock.now()));
        let pods = Api::<Pod>::namespaced(self.node.client.clone(), &self.pod.namespace().unwrap_or_default());
        let patch = Patch::Merge(json!({ "metadata": { "uid": self.pod.uid() }, "spec": { "nodeName": super::NODE } }));
        if let Err(error) = ask(pods.patch(&self.pod.name_any(), &PatchParams::default(), &patch)).await {
            let (namespace, name) = (self.pod.namespace(), self.pod.name_any());
            tracing::debug!(namespace, name, %error, "a pod could not be placed");
        }
    }

    /// Says which wishes of the manifest a process cannot have.
    async fn note_ignored(&mut self) {
        let ignored = self.pod.spec.as_ref().map(ignored::wishes).unwrap_or_default();
        if !ignored.is_empty() {
            self.record(true, "Ignored", format!("not done for process pods: {}", ignored.join(", "))).await;
        }
    }

    /// Writes the status if it changed; says whether the API server has it now, or the pod has gone.
    async fn write(&mut self) -> bool {
        let status = self.status();
        if self.written.as_ref() == Some(&status) {
            return true;
        }
        let pods = Api::<Pod>::namespaced(self.node.client.clone(), &self.pod.namespace().unwrap_or_default());
        let patch = Patch::Merge(json!({ "metadata": { "uid": self.pod.uid() }, "status": status }));
        match ask(pods.patch_status(&self.pod.name_any(), &PatchParams::default(), &patch)).await {
            Ok(_) => {
                self.written = Some(status);
                true
            }
            Err(error) if error.is_not_found() || error.is_other_object() => true,
            Err(error) => {
                let (namespace, name) = (self.pod.namespace(), self.pod.name_any());
                tracing::warn!(namespace, name, %error, "the status of a pod could not be written");
                false
            }
        }
    }

    fn status(&mut self) -> Value {
        if !self.placed {
            let (_, since) = *self.conditions.entry("PodScheduled").or_insert((false, self.started));
            let condition = json!({
                "type": "PodScheduled", "status": "False", "lastTransitionTime": since,
                "reason": "Unschedulable", "message": self.unschedulable(),
            });
            return json!({ "phase": "Pending", "conditions": [condition] });
        }
        let (first, main) = self.views.split_at(self.first.len());
        let views = Views { first: (self.first, first), main: (self.main, main) };
        let policy = self.pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        let phase = views.phase(policy.filter(|_| !self.over).or(self.over.then_some("Never")));
        let statuses = |containers: &[Container], views: &[View], first: bool| -> Vec<Value> {
            containers.iter().zip(views).map(|(container, view)| status::of_container(container, view, first)).collect()
        };
        let (init_statuses, main_statuses) = (statuses(self.first, first, true), statuses(self.main, main, false));
        let now = whole(self.node.clock.now());
        let conditions: Vec<_> = status::conditions(views, phase)
            .into_iter()
            .map(|(type_, status, reason, message)| {
                let known = self.conditions.entry(type_).or_insert((status, now));
                if known.0 != status {
                    *known = (status, now);
                }
                let word = if status { "True" } else { "False" };
                let mut condition = json!({ "type": type_, "status": word, "lastTransitionTime": known.1 });
                if !status {
                    condition["reason"] = reason.into();
                    if !message.is_empty() {
                        condition["message"] = message.into();
                    }
                }
                condition
            })
            .collect();
        let mut status = json!({
            "phase": phase,
            "hostIP": "127.0.0.1",
            "podIP": self.address,
            "podIPs": [{ "ip": self.address }],
            "startTime": self.started,
            "conditions": conditions,
            "containerStatuses": main_statuses,
        });
        if !init_statuses.is_empty() {
            status["initContainerStatuses"] = init_statuses.into();
        }
        status
    }
}
