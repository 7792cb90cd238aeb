//! A cluster in this process, an operator with its reasons, and event sources that the test writes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tidemark_api::ScaledObject;
use tidemark_clock::Clock;
use tidemark_engine::quantity;
use tidemark_operator::{Handle, MetricValue, Operator, Settings};
use tidemark_reasons::{Limits, Page, Reasons, Report, Ring, Workload, explain, object_path, path_of_list, text};
use tidemark_sandbox::{Options, Sandbox};
use tidemark_serving::external_metrics::{ExternalMetric, ExternalMetrics, MetricsSource, Values};
use tidemark_serving::front_proxy::Access;
use tidemark_trigger::{Door, ErrorKind, SourceError};
use tokio_util::sync::CancellationToken;
use tower::{BoxError, ServiceExt};

/// The numbers of the event source, by path; a path without one is down.
#[derive(Clone, Default)]
pub struct Source(Arc<Mutex<BTreeMap<String, f64>>>);

impl Source {
    pub fn says(&self, path: &str, value: f64) {
        self.0.lock().unwrap().insert(path.to_owned(), value);
    }

    pub fn down(&self, path: &str) {
        self.0.lock().unwrap().remove(path);
    }

    fn answer(&self, request: &Request<Bytes>) -> Result<Response<Bytes>, SourceError> {
        let path = request.uri().path().trim_start_matches('/');
        let value = self.0.lock().unwrap().get(path).copied();
        let value = value.ok_or_else(|| SourceError::new(ErrorKind::Unreachable, "connection refused"))?;
        Ok(Response::new(Bytes::from(json!({"value": value}).to_string())))
    }
}

/// The way from the HPA to the operator, which may be broken.
struct Metrics {
    handle: Handle,
    broken: Arc<AtomicBool>,
}

impl MetricsSource for Metrics {
    fn values<'a>(&'a self, namespace: &'a str, object: &'a str, metric: &'a str) -> Values<'a> {
        Box::pin(async move {
            if self.broken.load(Ordering::Relaxed) {
                return Err(
                    "timeout while waiting to establish gRPC connection to KEDA Metrics Service server".to_owned()
                );
            }
            let values = self.handle.metric(namespace, object, metric).await.map_err(|error| error.to_string())?;
            let item = |value: MetricValue| ExternalMetric {
                name: value.metric.to_string(),
                value: quantity::format_milli(value.value_milli),
                timestamp: value.timestamp,
            };
            Ok(values.into_iter().map(item).collect())
        })
    }
}

pub struct World {
    pub client: Client,
    pub source: Source,
    pub reasons: Reasons,
    pub ring: Ring,
    /// The HPA gets no values.
    pub broken: Arc<AtomicBool>,
    /// The API server refuses to create HPAs.
    pub refused: Arc<AtomicBool>,
    pub shutdown: CancellationToken,
}

impl World {
    pub async fn new() -> Self {
        let clock = Clock::starting_at("2026-01-05T08:00:00Z".parse().unwrap());
        let sandbox = Sandbox::new(clock, Options::default());
        sandbox.install_crds(&tidemark_api::crds()).unwrap();
        let (source, broken, refused) = (Source::default(), Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let answers = source.clone();
        let door = Door::in_process(clock, move |request| {
            let answer = answers.answer(&request);
            Box::pin(async move { answer })
        });
        let (operator, handle) = Operator::new(refusing(&sandbox, refused.clone()), door, Settings::default());
        let metrics = Metrics { handle: handle.clone(), broken: broken.clone() };
        let metrics = ExternalMetrics::new(Arc::new(metrics), Access::Open);
        sandbox.mount("external.metrics.k8s.io", "v1beta1", metrics);
        let ring = Ring::new(Limits::default(), Arc::new(|_, _| None));
        let shutdown = CancellationToken::new();
        tokio::spawn(ring.clone().run(&handle, shutdown.clone()));
        let token = shutdown.clone();
        tokio::spawn(async move { operator.run(token).await.unwrap() });
        let (running, token) = (sandbox.clone(), shutdown.clone());
        tokio::spawn(async move { running.run(token).await });
        let reasons = Reasons::new(handle, ring.clone(), clock);
        let world = Self { client: sandbox.client(), source, reasons, ring, broken, refused, shutdown };
        world.pass(1).await;
        world
    }

    /// Lets virtual time pass.
    pub async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub async fn create<K>(&self, value: Value)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug,
    {
        self.api::<K>().create(&PostParams::default(), &serde_json::from_value(value).unwrap()).await.unwrap();
    }

    pub async fn patch<K>(&self, name: &str, manager: &str, value: Value)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug,
    {
        let parameters = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        self.api::<K>().patch(name, &parameters, &Patch::Merge(value)).await.unwrap();
    }

    pub async fn delete(&self, name: &str) {
        self.api::<ScaledObject>().delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub async fn deployment(&self, name: &str, replicas: i32) {
        let labels = json!({"app": name});
        self.create::<Deployment>(json!({
            "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "worker"}]},
            }},
        }))
        .await;
    }

    /// A ScaledObject over a Deployment of the same name: polled every 10 s, 60 s of cooldown, 0 to 10 replicas.
    pub async fn object(&self, name: &str, triggers: Vec<Value>, edit: impl FnOnce(&mut Value)) {
        let mut value = json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name},
            "spec": {
                "scaleTargetRef": {"name": name}, "pollingInterval": 10, "cooldownPeriod": 60,
                "minReplicaCount": 0, "maxReplicaCount": 10, "triggers": triggers,
            },
        });
        edit(&mut value);
        self.create::<ScaledObject>(value).await;
    }

    pub async fn report(&self, name: &str) -> Report {
        let answer = self.reasons.answer(&object_path("default", name), "").await;
        assert_eq!(answer.status, 200, "{}", answer.json);
        serde_json::from_str(&answer.json).unwrap()
    }

    pub async fn page(&self, query: &str) -> Page {
        let answer = self.reasons.answer(&path_of_list(None), query).await;
        assert_eq!(answer.status, 200, "{}", answer.json);
        serde_json::from_str(&answer.json).unwrap()
    }

    /// What `tidemark explain` says of an object.
    pub async fn explained(&self, name: &str) -> String {
        let report = self.report(name).await;
        let of = |object: Option<Value>| object.unwrap_or_default();
        let target = self.api::<Deployment>().get_opt(&report.target.name).await.unwrap();
        let mut target = target.map(|target| serde_json::to_value(target).unwrap());
        if let Some(target) = &mut target {
            target["apiVersion"] = "apps/v1".into();
        }
        let object = self.api::<ScaledObject>().get_opt(name).await.unwrap();
        let object = object.map(|object| serde_json::to_value(object).unwrap());
        text::text(&explain(&report, &Workload::seen(&of(target), &of(object))), report.time)
    }

    /// Compares what is explained with a file of `tests/it/golden`, which is written anew where `UPDATE_GOLDEN` is set.
    pub async fn expect(&self, name: &str, file: &str) {
        let told = self.explained(name).await;
        let path = format!("tests/it/golden/{file}.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &told).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(told == expected, "{path}, expected:\n{expected}\nfound:\n{told}");
    }
}

/// A client for which the API server refuses new HPAs while `refused` is set.
fn refusing(sandbox: &Sandbox, refused: Arc<AtomicBool>) -> Client {
    let service = sandbox.service();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (service, refused) = (service.clone(), refused.load(Ordering::Relaxed));
        async move {
            let is_new =
                request.method() == http::Method::POST && request.uri().path().ends_with("/horizontalpodautoscalers");
            if !(is_new && refused) {
                let response = service.oneshot(request).await.map_err(BoxError::from)?;
                return Ok::<_, BoxError>(response.map(|body| body.map_err(BoxError::from).boxed_unsync()));
            }
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Forbidden",
                "message": "exceeded quota: hpas", "code": 403,
            });
            let body = Full::new(Bytes::from(status.to_string())).map_err(BoxError::from).boxed_unsync();
            Ok(Response::builder().status(403).body(body)?)
        }
    });
    Client::new(service, "default")
}

/// A trigger that reads a path of the source, for a target of 5 per replica.
pub fn queue(path: &str) -> Value {
    json!({"type": "metrics-api", "metadata": {
        "url": format!("http://source/{path}"), "valueLocation": "value", "targetValue": "5",
    }})
}
