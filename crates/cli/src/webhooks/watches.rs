//! The watches that keep the index of neighbours.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::{Value, json};
use tidemark_admission::Neighbour;
use tidemark_api::ScaledObject;
use tidemark_operator::client;
use tidemark_trigger::causes;
use tokio::sync::watch;

use super::judge::Index;

/// A page of a list may take this long.
const PAGE: Duration = Duration::from_secs(30);
/// Objects of a page: what is in memory at once.
const PAGE_SIZE: u32 = 200;
/// Pause after the first failure of a watch; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Which lists have come in whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    scaled_objects: bool,
    autoscalers: bool,
}

impl Synced {
    /// Whether the index holds what there is.
    pub fn all(self) -> bool {
        self.scaled_objects && self.autoscalers
    }
}

/// Keeps the index; does not end.
pub fn follow(client: Client, index: Arc<Index>, synced: watch::Sender<Synced>) -> BoxFuture<'static, ()> {
    let client = client::guard(client, PAGE);
    let synced = Arc::new(synced);
    let one = |kind| {
        let resource = match kind {
            Neighbour::ScaledObject => ApiResource::erase::<ScaledObject>(&()),
            Neighbour::Autoscaler => ApiResource::erase::<HorizontalPodAutoscaler>(&()),
        };
        keep(Api::all_with(client.clone(), &resource), kind, index.clone(), synced.clone())
    };
    futures::future::join(one(Neighbour::ScaledObject), one(Neighbour::Autoscaler)).map(drop).boxed()
}

async fn keep(api: Api<DynamicObject>, kind: Neighbour, index: Arc<Index>, synced: Arc<watch::Sender<Synced>>) {
    let config = watcher::Config { page_size: Some(PAGE_SIZE), ..watcher::Config::default() };
    let mut events = watcher(api, config).boxed();
    let mut failures = 0_u32;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // The beginning of a list says nothing of its end.
                if !matches!(event, Event::Init) {
                    failures = 0;
                }
                let complete = matches!(event, Event::InitDone);
                take(event, kind, &index);
                if complete {
                    synced.send_if_modified(|synced| {
                        let done = match kind {
                            Neighbour::ScaledObject => &mut synced.scaled_objects,
                            Neighbour::Autoscaler => &mut synced.autoscalers,
                        };
                        !std::mem::replace(done, true)
                    });
                }
            }
            Err(error) => {
                let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_PAUSE);
                failures += 1;
                let error = causes(&error);
                tracing::warn!(?kind, error, "a watch failed; reviews look at what was known before");
                tokio::time::sleep(pause).await;
            }
        }
    }
}

fn take(event: Event<DynamicObject>, kind: Neighbour, index: &Index) {
    let mut index = index.lock();
    match event {
        Event::Apply(object) | Event::InitApply(object) => index.apply(kind, &looked_at(object)),
        Event::Delete(object) => {
            let metadata = object.metadata;
            if let (Some(namespace), Some(name)) = (metadata.namespace, metadata.name) {
                index.remove(kind, &namespace, &name);
            }
        }
        Event::Init => index.begin(kind),
        Event::InitDone => index.complete(kind),
    }
}

/// The parts of an object that are looked at, as the API server sends them.
fn looked_at(mut object: DynamicObject) -> Value {
    let metadata = object.metadata;
    let owners = metadata.owner_references.unwrap_or_default();
    let owners: Vec<_> = owners.iter().map(|owner| json!({"kind": owner.kind, "name": owner.name})).collect();
    json!({
        "metadata": {
            "namespace": metadata.namespace, "name": metadata.name, "annotations": metadata.annotations,
            "ownerReferences": owners,
        },
        "spec": object.data.get_mut("spec").map(Value::take),
    })
}
