//! Events are kept for an hour after they last changed, as a real API server keeps them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Event;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use tokio::time::Instant;

use super::{Cache, Key, Queue, ask, watch};

/// How long an event is kept.
const KEPT: Duration = Duration::from_secs(3600);

/// Runs for ever; dropping the future stops the controller.
pub(super) async fn run(client: Client) {
    let mut seen = watch::<Event>(&client);
    let mut expiry = Expiry { client, events: Cache::default(), queue: Queue::default(), changed: BTreeMap::new() };
    loop {
        tokio::select! {
            biased;
            Some(event) = seen.next() => expiry.saw(event),
            key = expiry.queue.next() => expiry.work(key).await,
        }
    }
}

struct Expiry {
    client: Client,
    events: Cache<Event>,
    queue: Queue<Key>,
    changed: BTreeMap<Key, Instant>,
}

impl Expiry {
    fn saw(&mut self, event: watcher::Event<Event>) {
        for event in self.events.apply(event) {
            let key = Key::of(&*event);
            if self.events.get(&key).is_none() {
                self.changed.remove(&key);
                self.queue.remove(&key);
            } else {
                self.changed.insert(key.clone(), Instant::now());
                self.queue.push_at(key, Instant::now() + KEPT);
            }
        }
    }

    async fn work(&mut self, key: Key) {
        let (Some(event), Some(changed)) = (self.events.get(&key).cloned(), self.changed.get(&key)) else { return };
        if changed.elapsed() < KEPT {
            return self.queue.push_at(key, *changed + KEPT);
        }
        // An event that changed in this moment stays.
        let same = Preconditions { uid: event.uid(), resource_version: event.resource_version() };
        let events = Api::<Event>::namespaced(self.client.clone(), &key.namespace);
        match ask(events.delete(&key.name, &DeleteParams::background().preconditions(same))).await {
            Ok(_) => self.queue.succeeded(&key),
            Err(error) if error.is_not_found() => self.queue.succeeded(&key),
            Err(_) => self.queue.failed(key),
        }
    }
}
