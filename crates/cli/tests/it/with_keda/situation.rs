//! A namespace with ScaledObjects of many kinds and an event source that they read: the same for KEDA and for Tidemark.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::on_control_plane::release::Rest;

pub const NAMESPACE: &str = "shop";
const OBJECTS: &str = "/apis/keda.sh/v1alpha1/namespaces/shop/scaledobjects";

/// An HTTP server that answers with numbers, as a Prometheus does, or not at all.
pub struct Source {
    address: SocketAddr,
    load: Arc<AtomicU64>,
    _task: AbortOnDropHandle<()>,
}

async fn prometheus(Query(asked): Query<BTreeMap<String, String>>) -> Json<Value> {
    let sample = json!([{"metric": {}, "value": [0, "3"]}]);
    let result = if asked["query"] == "empty" { json!([]) } else { sample };
    Json(json!({"status": "success", "data": {"resultType": "vector", "result": result}}))
}

impl Source {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, load) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(1)));
        let number = |number: f64| get(move || std::future::ready(Json(json!({"n": number}))));
        let told = |State(load): State<Arc<AtomicU64>>| async move { Json(json!({"n": load.load(Ordering::SeqCst)})) };
        let app = Router::new()
            .route("/api/v1/query", get(prometheus).post(prometheus))
            .route("/number", number(7.0))
            .route("/fraction", number(12.5))
            .route("/refused", get(|| std::future::ready(StatusCode::UNAUTHORIZED)))
            .route("/load", get(told))
            .with_state(load.clone());
        let serving = async move { axum::serve(listener, app).await.unwrap() };
        Self { address, load, _task: AbortOnDropHandle::new(tokio::spawn(serving)) }
    }

    /// What `/load` tells from now on.
    pub fn tell_load(&self, load: u64) {
        self.load.store(load, Ordering::SeqCst);
    }

    fn prometheus(&self, name: &str, query: &str) -> Value {
        let metadata = json!({"serverAddress": format!("http://{}", self.address), "query": query, "threshold": "2"});
        json!({"type": "prometheus", "name": name, "metadata": metadata})
    }

    fn number(&self, path: &str) -> Value {
        number(&format!("http://{}/{path}", self.address))
    }

    /// ScaledObjects by name, with what is special about each.
    fn objects(&self) -> Vec<(&'static str, Value)> {
        let cron = json!({"type": "cron", "metadata": {
            "timezone": "UTC", "start": "0 0 * * *", "end": "59 23 * * *", "desiredReplicas": "2",
        }});
        let down = number("http://127.0.0.1:1/number");
        let rate = || self.prometheus("rate", "up");
        let mut cached = rate();
        cached["useCachedMetrics"] = json!(true);
        let formula = json!({"scalingModifiers": {"formula": "one + two", "target": "4"}});
        vec![
            (
                "orders",
                json!({"spec": {"triggers": [
                    rate(), self.number("number"), self.number("fraction"), cron, self.prometheus("nothing", "empty"),
                ]}}),
            ),
            ("broken", json!({"spec": {"triggers": [self.number("refused"), down.clone()]}})),
            ("unbuilt", json!({"spec": {"triggers": [{"type": "nonsense", "metadata": {}}]}})),
            (
                "resting",
                json!({
                    "metadata": {"annotations": {"autoscaling.keda.sh/paused": "true"}},
                    "spec": {"triggers": [rate()]},
                }),
            ),
            (
                "formula",
                json!({"spec": {"advanced": formula, "triggers": [
                    named(self.number("number"), "one"), named(self.number("fraction"), "two"),
                ]}}),
            ),
            (
                "processor",
                json!({"spec": {"minReplicaCount": 1, "triggers": [
                    {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "50"}}, rate(),
                ]}}),
            ),
            (
                "fallen",
                json!({"spec": {
                    "fallback": {"failureThreshold": 1, "replicas": 3}, "triggers": [named(down, "fallen")],
                }}),
            ),
            ("cached", json!({"spec": {"triggers": [cached]}})),
            ("loaded", json!({"spec": {"triggers": [self.number("load")]}})),
        ]
    }

    /// Makes the namespace, and in it the objects, their workloads, two authentications and a ScaledJob.
    pub async fn populate(&self, rest: &Rest) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        rest.create("/api/v1/namespaces", "test", &namespace).await;
        for (kind, path) in [
            ("TriggerAuthentication", "namespaces/shop/triggerauthentications"),
            ("ClusterTriggerAuthentication", "clustertriggerauthentications"),
        ] {
            let object = json!({
                "apiVersion": "keda.sh/v1alpha1", "kind": kind, "metadata": {"name": "token"},
                "spec": {"secretTargetRef": [{"parameter": "token", "name": "token", "key": "token"}]},
            });
            rest.create(&format!("/apis/keda.sh/v1alpha1/{path}"), "test", &object).await;
        }
        let container = json!({"name": "main", "image": "none"});
        let job = json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledJob", "metadata": {"name": "job"},
            "spec": {
                "jobTargetRef": {"template": {"spec": {"containers": [container], "restartPolicy": "Never"}}},
                "pollingInterval": 2, "maxReplicaCount": 1, "triggers": [self.prometheus("quiet", "empty")],
            },
        });
        rest.create("/apis/keda.sh/v1alpha1/namespaces/shop/scaledjobs", "test", &job).await;
        for (name, special) in self.objects() {
            rest.create("/apis/apps/v1/namespaces/shop/deployments", "test", &workload(name)).await;
            let mut object = json!({
                "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name},
                "spec": {"scaleTargetRef": {"name": name}, "pollingInterval": 2, "maxReplicaCount": 20},
            });
            if let Some(annotations) = special["metadata"].get("annotations") {
                object["metadata"]["annotations"] = annotations.clone();
            }
            for (field, value) in special["spec"].as_object().unwrap() {
                object["spec"][field] = value.clone();
            }
            rest.create(OBJECTS, "test", &object).await;
        }
    }
}

fn workload(name: &str) -> Value {
    let container = json!({"name": "main", "image": "none", "resources": {"requests": {"cpu": "1"}}});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
        },
    })
}

fn number(url: &str) -> Value {
    json!({"type": "metrics-api", "metadata": {"url": url, "valueLocation": "n", "targetValue": "5"}})
}

fn named(mut trigger: Value, name: &str) -> Value {
    trigger["name"] = json!(name);
    trigger
}
