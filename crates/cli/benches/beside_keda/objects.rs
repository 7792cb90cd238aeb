//! The objects that both are given, and how their appearance is watched.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, Resource};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tidemark_api::ScaledObject;
use tokio_util::task::AbortOnDropHandle;

/// Objects that are created at the same time.
const AT_ONCE: usize = 16;
/// For the API server to know a definition.
const PATIENCE: Duration = Duration::from_secs(60);

/// Both run with the same definitions.
pub async fn define(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in tidemark_api::crds() {
        api.create(&PostParams::default(), &definition).await.unwrap();
        let name = definition.name_any();
        let established = kube::runtime::conditions::is_crd_established();
        let waiting = kube::runtime::wait::await_condition(api.clone(), &name, established);
        tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    }
}

/// Creates the workload of each name, at zero.
pub async fn create_workloads(client: &Client, names: impl IntoIterator<Item = String>) {
    let api: &Api<Deployment> = &Api::default_namespaced(client.clone());
    let created = names.into_iter().map(|name| async move {
        let labels = json!({"app": name});
        let deployment = json!({
            "metadata": {"name": name},
            "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "none"}]},
            }},
        });
        api.create(&PostParams::default(), &serde_json::from_value(deployment).unwrap()).await.unwrap();
    });
    futures::stream::iter(created).buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// Creates ScaledObjects, and gives when each was.
pub async fn create(client: &Client, objects: impl IntoIterator<Item = (String, Value)>) -> BTreeMap<String, Instant> {
    let api: &Api<ScaledObject> = &Api::default_namespaced(client.clone());
    let created = objects.into_iter().map(|(name, spec)| async move {
        let object = json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name}, "spec": spec,
        });
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        (name, Instant::now())
    });
    futures::stream::iter(created).buffer_unordered(AT_ONCE).collect().await
}

pub fn polled_name(number: usize) -> String {
    format!("worker-{number}")
}

/// Reads a number over HTTP every 30 s, and the time of day. Those with an even number are active, with one replica.
pub fn polled(number: usize, source: u16) -> (String, Value) {
    let url = format!("http://127.0.0.1:{source}/values/{number}");
    let triggers = json!([
        {"type": "metrics-api", "metadata": {"url": url, "valueLocation": "depth", "targetValue": "10"}},
        {"type": "cron", "metadata": {
            "timezone": "Etc/UTC", "start": "0 0 29 2 *", "end": "0 1 29 2 *", "desiredReplicas": "2",
        }},
    ]);
    (polled_name(number), json!({"scaleTargetRef": {"name": polled_name(number)}, "triggers": triggers}))
}

pub fn pushed_name(number: usize) -> String {
    format!("pushed-{number}")
}

/// Is told of its events, and polled every 10 minutes.
pub fn pushed(number: usize, source: u16) -> (String, Value) {
    let triggers = json!([{"type": "external-push", "metadata": {"scalerAddress": format!("127.0.0.1:{source}")}}]);
    let name = pushed_name(number);
    let target = json!({"name": name});
    (name, json!({"scaleTargetRef": target, "pollingInterval": 600, "triggers": triggers}))
}

/// When the objects of a kind were first seen to be as wanted, by name; it looks until it is dropped.
pub struct Seen {
    at: Arc<Mutex<BTreeMap<String, Instant>>>,
    _task: AbortOnDropHandle<()>,
}

impl Seen {
    fn look<K: Resource<DynamicType = ()>>(client: &Client, wanted: fn(&DynamicObject) -> bool) -> Self {
        let api = Api::<DynamicObject>::default_namespaced_with(client.clone(), &ApiResource::erase::<K>(&()));
        let at = Arc::<Mutex<BTreeMap<String, Instant>>>::default();
        let noted = at.clone();
        let task = tokio::spawn(async move {
            let mut events =
                std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff().applied_objects());
            while let Some(event) = events.next().await {
                let Ok(object) = event else { continue };
                if wanted(&object) {
                    noted.lock().unwrap().entry(object.name_any()).or_insert_with(Instant::now);
                }
            }
        });
        Self { at, _task: AbortOnDropHandle::new(task) }
    }

    /// HPAs.
    pub fn autoscalers(client: &Client) -> Self {
        Self::look::<HorizontalPodAutoscaler>(client, |_| true)
    }

    /// Workloads with replicas.
    pub fn awake(client: &Client) -> Self {
        Self::look::<Deployment>(client, |object| object.data["spec"]["replicas"].as_u64() > Some(0))
    }

    pub fn at(&self, name: &str) -> Option<Instant> {
        self.at.lock().unwrap().get(name).copied()
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.at.lock().unwrap().len()
    }
}
