//! What pods use of CPU and memory, served as `metrics.k8s.io/v1beta1`.
//!
//! Of process pods the kubelet measures it. Of simulated pods it is what [`Load`]s and the annotations of
//! [`crate::simulated`] say; a pod of which nothing is said has no sample, for no reading may be invented.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use jiff::Timestamp;
use kube::client::Body;
use serde_json::{Value, json};
use tidemark_engine::quantity;
use tower::ServiceExt;

use crate::api;
use crate::simulated;

/// Group of the API.
pub(crate) const GROUP: &str = "metrics.k8s.io";
/// Version of the API.
pub(crate) const VERSION: &str = "v1beta1";
/// Time over which CPU is averaged, in seconds, as the metrics server has it.
const WINDOW: u64 = 15;

/// What is used of the resources that are measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory: u64,
}

/// What simulated pods use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Every pod uses so much.
    EachPod(Usage),
    /// All pods together use so much; those that are ready share it evenly, as behind a load balancer.
    Shared(Usage),
}

/// What is known of a container's use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) usage: Usage,
    pub(crate) time: Timestamp,
    /// Seconds over which CPU was averaged.
    pub(crate) window: u64,
}

/// Namespace, pod and container.
pub(crate) type Place = (String, String, String);

#[derive(Default)]
struct State {
    /// Loads of simulated pods by namespace and the labels that select them.
    loads: BTreeMap<(String, BTreeMap<String, String>), Load>,
    measured: BTreeMap<Place, Sample>,
    /// Why nothing can be measured.
    unavailable: Option<&'static str>,
}

/// Where what pods use is noted down. Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Gauge(Arc<Mutex<State>>);

impl Gauge {
    /// Every change is complete when the lock is given back, so a panic elsewhere leaves the state sound.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_load(&self, namespace: &str, labels: BTreeMap<String, String>, load: Option<Load>) {
        let key = (namespace.to_owned(), labels);
        match load {
            Some(load) => self.state().loads.insert(key, load),
            None => self.state().loads.remove(&key),
        };
    }

    /// Replaces all that was measured.
    pub(crate) fn measured(&self, samples: BTreeMap<Place, Sample>) {
        self.state().measured = samples;
    }

    pub(crate) fn unavailable(&self, why: &'static str) {
        self.state().unavailable = Some(why);
    }
}

/// The API over the pods of a cluster.
#[derive(Clone)]
pub(crate) struct PodMetrics {
    gauge: Gauge,
    /// The cluster holds this service: it must not hold the cluster.
    cluster: Weak<api::Shared>,
}

impl PodMetrics {
    pub(crate) fn new(gauge: Gauge, cluster: &Arc<api::Shared>) -> Self {
        Self { gauge, cluster: Arc::downgrade(cluster) }
    }

    /// Answers a request.
    pub(crate) async fn answer(self, request: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        let rest = path.strip_prefix("/apis/metrics.k8s.io/v1beta1").unwrap_or(&path);
        let parts: Vec<_> = rest.split('/').filter(|part| !part.is_empty()).collect();
        let query = request.uri().query().unwrap_or_default();
        if request.method() != Method::GET {
            return Ok(refused(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "pod metrics can only be read"));
        }
        if let Some(why) = self.gauge.state().unavailable {
            return Ok(refused(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", why));
        }
        let answer = match parts[..] {
            [] => Ok(resources()),
            ["pods"] => self.list("/api/v1/pods", query).await,
            ["namespaces", namespace, "pods"] => {
                self.list(&format!("/api/v1/namespaces/{namespace}/pods"), query).await
            }
            ["namespaces", namespace, "pods", name] => self.one(namespace, name).await,
            _ => Err(None),
        };
        Ok(match answer {
            Ok(value) => json_of(StatusCode::OK, &value),
            Err(Some((status, failure))) => json_of(status, &failure),
            Err(None) => refused(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource"),
        })
    }

    async fn list(&self, path: &str, query: &str) -> Result<Value, Option<(StatusCode, Value)>> {
        // Only what narrows the list counts here.
        let narrowing = url::form_urlencoded::parse(query.as_bytes());
        let narrowing = narrowing.filter(|(key, _)| matches!(&**key, "labelSelector" | "fieldSelector"));
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(narrowing).finish();
        let pods = self.ask(&format!("{path}?{query}")).await?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let mut items = Vec::new();
        for pod in &pods {
            items.extend(self.metrics(pod).await?);
        }
        Ok(json!({ "kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": items }))
    }

    async fn one(&self, namespace: &str, name: &str) -> Result<Value, Option<(StatusCode, Value)>> {
        let pod = self.ask(&format!("/api/v1/namespaces/{namespace}/pods/{name}")).await?;
        let message = format!("podmetrics.metrics.k8s.io \"{namespace}/{name}\" not found");
        let failure = || Some((StatusCode::NOT_FOUND, status(StatusCode::NOT_FOUND, "NotFound", &message)));
        self.metrics(&pod).await?.ok_or_else(failure)
    }

    /// A read of the cluster's own API; what it refuses is handed on.
    async fn ask(&self, path: &str) -> Result<Value, Option<(StatusCode, Value)>> {
        let cluster = self.cluster.upgrade().ok_or(None)?;
        let request = Request::get(path).body(Body::empty()).map_err(|_| None)?;
        let Ok(response) = api::ApiService::new(cluster).oneshot(request).await;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|_| None)?.to_bytes();
        let value = serde_json::from_slice(&body).map_err(|_| None)?;
        if status.is_success() { Ok(value) } else { Err(Some((status, value))) }
    }

    /// The metrics of a pod; `None` when it has no sample.
    async fn metrics(&self, pod: &Value) -> Result<Option<Value>, Option<(StatusCode, Value)>> {
        if pod["status"]["phase"] != "Running" || !pod["metadata"]["deletionTimestamp"].is_null() {
            return Ok(None);
        }
        let containers = match self.measured(pod) {
            Some(measured) => measured,
            None => self.simulated(pod).await?,
        };
        let Some((time, window)) = containers.iter().map(|(.., time, window)| (*time, *window)).min() else {
            return Ok(None);
        };
        let shown = |(name, usage, ..): &(String, Value, Timestamp, u64)| json!({ "name": name, "usage": usage });
        let metadata = &pod["metadata"];
        Ok(Some(json!({
            "kind": "PodMetrics",
            "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {
                "name": metadata["name"], "namespace": metadata["namespace"], "labels": metadata["labels"],
                "creationTimestamp": time,
            },
            "timestamp": time,
            "window": format!("{window}s"),
            "containers": containers.iter().map(shown).collect::<Vec<_>>(),
        })))
    }

    /// The samples of a process pod; `None` when nothing is ever measured of it.
    fn measured(&self, pod: &Value) -> Option<Vec<(String, Value, Timestamp, u64)>> {
        let state = self.gauge.state();
        if state.measured.is_empty() {
            return None;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
        let first = (namespace.clone(), name.clone(), String::new());
        let own = state.measured.range(first..).take_while(|((n, p, _), _)| *n == namespace && *p == name);
        let samples = own.map(|((.., container), sample)| {
            let usage = json!({ "cpu": cpu(sample.usage.cpu_milli), "memory": sample.usage.memory.to_string() });
            (container.clone(), usage, sample.time, sample.window)
        });
        Some(samples.collect())
    }

    async fn simulated(
        &self,
        pod: &Value,
    ) -> Result<Vec<(String, Value, Timestamp, u64)>, Option<(StatusCode, Value)>> {
        let Some(cluster) = self.cluster.upgrade() else { return Ok(Vec::new()) };
        let now = cluster.clock.now();
        let load = self.load_of(pod).await?;
        let annotations = &pod["metadata"]["annotations"];
        let containers = pod["spec"]["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let share = u64::try_from(containers.len()).unwrap_or(1).max(1);
        let sample = |container: &Value| {
            let name = container["name"].as_str().unwrap_or_default();
            let mut usage = json!({});
            if let Some(load) = load {
                usage = json!({ "cpu": cpu(load.cpu_milli / share), "memory": (load.memory / share).to_string() });
            }
            for (resource, annotation) in [("cpu", simulated::CPU), ("memory", simulated::MEMORY)] {
                if let Some(said) = annotations[annotation].as_str().and_then(|text| of_container(text, name)) {
                    usage[resource] = said.into();
                }
            }
            let said = usage.as_object().is_some_and(|usage| !usage.is_empty());
            said.then(|| (name.to_owned(), usage, now, WINDOW))
        };
        Ok(containers.iter().filter_map(sample).collect())
    }

    /// What the loads say of a pod.
    async fn load_of(&self, pod: &Value) -> Result<Option<Usage>, Option<(StatusCode, Value)>> {
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
        let selects = |labels: &BTreeMap<String, String>| {
            labels.iter().all(|(name, value)| pod["metadata"]["labels"][name] == **value)
        };
        let found = {
            let state = self.gauge.state();
            let fitting = state.loads.iter().find(|((place, labels), _)| place == namespace && selects(labels));
            fitting.map(|((_, labels), load)| (labels.clone(), *load))
        };
        match found {
            None => Ok(None),
            Some((_, Load::EachPod(usage))) => Ok(Some(usage)),
            Some((labels, Load::Shared(usage))) => {
                if !is_ready(pod) {
                    return Ok(Some(Usage::default()));
                }
                let selector: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let selector = url::form_urlencoded::byte_serialize(selector.join(",").as_bytes()).collect::<String>();
                let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={selector}");
                let pods = self.ask(&path).await?;
                let ready = pods["items"].as_array().into_iter().flatten().filter(|pod| is_ready(pod)).count();
                let ready = u64::try_from(ready).unwrap_or(1).max(1);
                Ok(Some(Usage { cpu_milli: usage.cpu_milli / ready, memory: usage.memory / ready }))
            }
        }
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
    ready.any(|condition| condition["status"] == "True") && pod["metadata"]["deletionTimestamp"].is_null()
}

/// The quantity that an annotation gives a container; one that is no quantity is none.
fn of_container(text: &str, container: &str) -> Option<String> {
    let named = text.split(',').filter_map(|part| part.split_once('='));
    let of_name = named.clone().find(|(name, _)| name.trim() == container).map(|(_, quantity)| quantity);
    let quantity = if text.contains('=') { of_name? } else { text }.trim();
    quantity::parse_milli(quantity).map(|_| quantity.to_owned())
}

fn cpu(milli: u64) -> String {
    format!("{milli}m")
}

fn resources() -> Value {
    let pods = json!({ "name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": ["get", "list"] });
    json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "metrics.k8s.io/v1beta1", "resources": [pods] })
}

fn status(code: StatusCode, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    })
}

fn refused(code: StatusCode, reason: &str, message: &str) -> Response<Full<Bytes>> {
    json_of(code, &status(code, reason, message))
}

fn json_of(code: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = code;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_speaks_of_each_container_or_of_named_ones() {
        assert_eq!(of_container("250m", "main").as_deref(), Some("250m"));
        assert_eq!(of_container("main=250m, proxy=1", "proxy").as_deref(), Some("1"));
        assert_eq!(of_container("main=250m", "proxy"), None);
        assert_eq!(of_container("much", "main"), None);
    }
}
