//! Kubernetes Events of the sandbox's controllers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tidemark_clock::Clock;

use super::ask;

/// Repetitions are counted for at most this many different events.
const REMEMBERED: usize = 1024;

/// An event that may be worth telling: what happened to which object.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) about: ObjectReference,
    pub(crate) warning: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Writes events; the same event about the same object is counted, not written again.
pub(crate) struct Recorder {
    client: Client,
    clock: Clock,
    component: &'static str,
    /// Name and count of each event by object, reason and message.
    written: BTreeMap<(String, &'static str, String), (String, i32)>,
}

impl Recorder {
    pub(crate) fn new(client: Client, clock: Clock, component: &'static str) -> Self {
        Self { client, clock, component, written: BTreeMap::new() }
    }

    /// Writes the event. Events are a service to the reader: a failure is logged and never stops the controller.
    pub(crate) async fn record(&mut self, note: Note) {
        let Some(namespace) = note.about.namespace.clone() else { return };
        let events = Api::<Event>::namespaced(self.client.clone(), &namespace);
        let identity = (note.about.uid.clone().unwrap_or_default(), note.reason, note.message.clone());
        let now = Time(self.clock.now());
        if let Some((name, count)) = self.written.get_mut(&identity) {
            *count += 1;
            let patch = json!({ "count": *count, "lastTimestamp": now });
            match ask(events.patch(name, &PatchParams::default(), &Patch::Merge(&patch))).await {
                Ok(_) => return,
                Err(error) if error.is_not_found() => {}
                Err(error) => return self.lost(&note, &error),
            }
        }
        let event = Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}.", note.about.name.as_deref().unwrap_or_default())),
                namespace: Some(namespace),
                ..Default::default()
            },
            involved_object: note.about.clone(),
            type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(note.reason.to_owned()),
            message: Some(note.message.clone()),
            source: Some(EventSource { component: Some(self.component.to_owned()), host: None }),
            reporting_component: Some(self.component.to_owned()),
            reporting_instance: Some(self.component.to_owned()),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            count: Some(1),
            ..Default::default()
        };
        match ask(events.create(&PostParams::default(), &event)).await {
            Ok(created) => {
                if self.written.len() >= REMEMBERED {
                    self.written.clear();
                }
                self.written.insert(identity, (created.name_any(), 1));
            }
            Err(error) => self.lost(&note, &error),
        }
    }

    fn lost(&self, note: &Note, error: &super::Error) {
        tracing::debug!(component = self.component, reason = note.reason, %error, "an event could not be written");
    }
}
