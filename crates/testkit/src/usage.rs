//! The stand-in for the metrics server: what pods use of CPU is what a test says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::get;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tidemark_clock::Clock;
use tokio::time::timeout;

use crate::aggregation::Aggregated;
use crate::{ControlPlane, Error, TlsServer};

const SERVICE: &str = "tidemark-resource-metrics";
const NAMESPACE: &str = "kube-system";
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Over which time usage is said to have been measured. The HPA controller does not count a pod before it has been ready
/// for so long.
const WINDOW: &str = "1s";

/// Labels of pods, by namespace.
type Selected = (String, BTreeMap<String, String>);

/// `metrics.k8s.io/v1beta1` of a control plane, as the metrics server serves it, until this is dropped.
///
/// A pod of which nothing is said has no sample.
#[derive(Debug)]
pub struct ResourceMetrics {
    loads: Arc<Mutex<BTreeMap<Selected, u64>>>,
    _server: TlsServer,
}

impl ResourceMetrics {
    /// Says how many thousandths of a core the pods with these labels use together. Those that are ready share it
    /// evenly, as behind a load balancer.
    pub fn set_cpu<'a>(&self, namespace: &str, labels: impl IntoIterator<Item = (&'a str, &'a str)>, milli: u64) {
        let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        loads.insert((namespace.to_owned(), labels), milli);
    }
}

#[derive(Clone)]
struct Usage {
    client: Client,
    clock: Clock,
    loads: Arc<Mutex<BTreeMap<Selected, u64>>>,
}

impl ControlPlane {
    /// Serves `metrics.k8s.io` on this control plane, so that HPAs can scale on CPU. Returns once the API server gets
    /// answers.
    ///
    /// # Errors
    /// When the server cannot be started, or the API server does not get through to it.
    pub async fn serve_resource_metrics(&self) -> Result<ResourceMetrics, Error> {
        let loads = Arc::new(Mutex::new(BTreeMap::new()));
        let usage = Usage { client: self.client().await?, clock: Clock::system(), loads: loads.clone() };
        let base = "/apis/metrics.k8s.io/v1beta1";
        let routes = Router::new()
            .route(base, get(async || Json(resources())))
            .route(&format!("{base}/namespaces/{{namespace}}/pods"), get(list))
            .with_state(usage);
        let server = TlsServer::start(&format!("{SERVICE}.{NAMESPACE}.svc"), routes).await?;
        self.register_service(NAMESPACE, SERVICE, server.port).await?;
        let api = Aggregated { group: "metrics.k8s.io", namespace: NAMESPACE, service: SERVICE, port: server.port };
        self.register_aggregated(&api, Some(&server.ca_pem)).await?;
        self.wait_for_aggregated(&api).await?;
        Ok(ResourceMetrics { loads, _server: server })
    }
}

fn resources() -> Value {
    let pods = json!({"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": ["list"]});
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "metrics.k8s.io/v1beta1", "resources": [pods]})
}

async fn list(
    State(usage): State<Usage>,
    Path(namespace): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Json<Value>, (StatusCode, String)> {
    let pods: Api<Pod> = Api::namespaced(usage.client.clone(), &namespace);
    let selector = query.get("labelSelector").map(String::as_str).unwrap_or_default();
    let params = ListParams::default().labels(selector);
    let failed = |message: String| (StatusCode::INTERNAL_SERVER_ERROR, message);
    let listed = timeout(ANSWER_WITHIN, pods.list(&params)).await.map_err(|_| failed("no answer".to_owned()))?;
    let pods = listed.map_err(|error| failed(error.to_string()))?.items;
    let items: Vec<Value> = pods.iter().filter_map(|pod| usage.of(pod, &pods)).collect();
    Ok(Json(json!({"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": items})))
}

impl Usage {
    /// The sample of a pod that is one of `pods`.
    fn of(&self, pod: &Pod, pods: &[Pod]) -> Option<Value> {
        let namespace = pod.namespace().unwrap_or_default();
        let loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let ((_, labels), load) = loads.iter().find(|((place, labels), _)| *place == namespace && fits(pod, labels))?;
        if !is_ready(pod) {
            return None;
        }
        let sharing = pods.iter().filter(|pod| fits(pod, labels) && is_ready(pod)).count();
        let share = load / u64::try_from(sharing).unwrap_or(1).max(1);
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let count = u64::try_from(containers.clone().count()).unwrap_or(1).max(1);
        let usage = json!({"cpu": format!("{}m", share / count), "memory": "1Mi"});
        Some(json!({
            "metadata": {"name": pod.name_any(), "namespace": namespace, "labels": pod.labels()},
            "timestamp": Time(self.clock.now()),
            "window": WINDOW,
            "containers": containers.map(|container| json!({"name": container.name, "usage": usage})).collect::<Vec<_>>(),
        }))
    }
}

fn fits(pod: &Pod, labels: &BTreeMap<String, String>) -> bool {
    labels.iter().all(|(name, value)| pod.labels().get(name) == Some(value))
}

fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
