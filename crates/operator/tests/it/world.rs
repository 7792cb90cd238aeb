//! A cluster in this process with an operator in it, and an event source that the test writes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use http::{Request, Response};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tidemark_api::{Condition, ScaledObject, TriggerAuthentication};
use tidemark_clock::Clock;
use tidemark_engine::quantity;
use tidemark_operator::{Handle, ObjectKey, Observation, Operator, Settings, Snapshot};
use tidemark_sandbox::{Options, Sandbox};
use tidemark_serving::external_metrics::{ExternalMetric, ExternalMetrics, MetricsSource};
use tidemark_serving::front_proxy::Access;
use tidemark_trigger::{Door, ErrorKind, SourceError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, ServiceExt};

use crate::teller::Teller;

/// What the event source says to requests for a path.
#[derive(Clone, Debug)]
pub enum Says {
    Value(f64),
    /// The connection is refused.
    Down,
    /// Only this bearer token is let in; then the value.
    Guarded(&'static str, f64),
    /// It takes so long, then the value.
    Slow(Duration, f64),
}

#[derive(Clone, Default)]
pub struct Source {
    says: Arc<Mutex<BTreeMap<String, Says>>>,
    asked: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Source {
    pub fn says(&self, path: &str, what: Says) {
        self.says.lock().unwrap().insert(path.to_owned(), what);
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> u32 {
        self.asked.lock().unwrap().get(path).copied().unwrap_or_default()
    }

    fn answer(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<Bytes>, SourceError>> {
        let path = request.uri().path().trim_start_matches('/').to_owned();
        *self.asked.lock().unwrap().entry(path.clone()).or_default() += 1;
        let says = self.says.lock().unwrap().get(&path).cloned();
        let token = request.headers().get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
        Box::pin(async move {
            let (status, value) = match says {
                Some(Says::Value(value)) => (200, value),
                Some(Says::Slow(time, value)) => {
                    tokio::time::sleep(time).await;
                    (200, value)
                }
                Some(Says::Guarded(wanted, value)) => {
                    let matches = token.is_some_and(|token| token == format!("Bearer {wanted}"));
                    (if matches { 200 } else { 401 }, value)
                }
                Some(Says::Down) => {
                    return Err(SourceError::new(ErrorKind::Unreachable, format!("GET http://source/{path}: refused")));
                }
                None => (404, 0.0),
            };
            let body = Bytes::from(json!({"value": value}).to_string());
            Ok(Response::builder().status(status).body(body).unwrap())
        })
    }
}

pub struct Metrics(pub Handle);

impl MetricsSource for Metrics {
    fn values<'a>(
        &'a self,
        namespace: &'a str,
        object: &'a str,
        metric: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ExternalMetric>, String>> {
        Box::pin(async move {
            let values = self.0.metric(namespace, object, metric).await.map_err(|error| error.to_string())?;
            let item = |value: tidemark_operator::MetricValue| ExternalMetric {
                name: value.metric.to_string(),
                value: quantity::format_milli(value.value_milli),
                timestamp: value.timestamp,
            };
            Ok(values.into_iter().map(item).collect())
        })
    }
}

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It is answered with this status, and not passed on.
    Status(u16),
    /// It is never answered, nor passed on.
    Hang,
    /// It is passed on after this time.
    Late(Duration),
    /// It is passed on, and answered after this time.
    LateAnswer(Duration),
}

/// Faults between the operator and the API server. Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<FaultTable>>);

#[derive(Default)]
struct FaultTable {
    /// Method, part of the path, fault, and how often yet.
    rules: Vec<(String, String, Fault, u32)>,
    requests: Vec<String>,
    watches: CancellationToken,
}

impl Faults {
    /// The next `times` requests with that method and that part in their path (and query) fail.
    pub fn add(&self, method: &str, part: &str, fault: Fault, times: u32) {
        self.0.lock().unwrap().rules.push((method.to_owned(), part.to_owned(), fault, times));
    }

    pub fn clear(&self) {
        self.0.lock().unwrap().rules.clear();
    }

    /// Ends all running watches.
    pub fn cut_watches(&self) {
        std::mem::take(&mut self.0.lock().unwrap().watches).cancel();
    }

    /// Requests so far, as `METHOD path?query`.
    pub fn requests(&self) -> Vec<String> {
        self.0.lock().unwrap().requests.clone()
    }

    fn meet(&self, request: &Request<Body>) -> Option<Fault> {
        let mut table = self.0.lock().unwrap();
        let (method, target) = (request.method().to_string(), request.uri().to_string());
        table.requests.push(format!("{method} {target}"));
        let rule = table.rules.iter_mut().find(|rule| rule.0 == method && target.contains(&rule.1) && rule.3 > 0)?;
        rule.3 -= 1;
        Some(rule.2)
    }

    pub fn client(&self, sandbox: &Sandbox) -> Client {
        let (faults, service) = (self.clone(), sandbox.service());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (faults, service) = (faults.clone(), service.clone());
            async move {
                let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
                let cut = faults.0.lock().unwrap().watches.clone();
                let mut pause = None;
                match faults.meet(&request) {
                    Some(Fault::LateAnswer(time)) => pause = Some(time),
                    Some(Fault::Hang) => std::future::pending::<()>().await,
                    Some(Fault::Late(time)) => tokio::time::sleep(time).await,
                    Some(Fault::Status(status)) => {
                        let text = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                            "message": "a fault", "reason": if status == 409 { "Conflict" } else { "Fault" }, "code": status});
                        let body = Full::new(Bytes::from(text.to_string())).map_err(BoxError::from).boxed_unsync();
                        return Ok::<_, BoxError>(Response::builder().status(status).body(body)?);
                    }
                    None => {}
                }
                let (parts, body) = service.oneshot(request).await?.into_parts();
                if let Some(pause) = pause {
                    tokio::time::sleep(pause).await;
                }
                let frames = TryStreamExt::map_err(BodyStream::new(body), BoxError::from);
                let body = match watch {
                    true => StreamBody::new(frames.take_until(cut.cancelled_owned())).boxed_unsync(),
                    false => StreamBody::new(frames).boxed_unsync(),
                };
                Ok(Response::from_parts(parts, body))
            }
        });
        Client::new(service, "default")
    }
}

pub struct World {
    pub clock: Clock,
    pub sandbox: Sandbox,
    pub client: Client,
    pub source: Source,
    /// What triggers of type `teller` read.
    pub teller: Teller,
    /// What goes wrong between the operator and the API server.
    pub faults: Faults,
    pub operator: Running,
    pub settings: Settings,
    shutdown: CancellationToken,
    controllers: JoinHandle<()>,
}

/// An operator that runs.
pub struct Running {
    pub handle: Handle,
    pub log: Arc<Mutex<Vec<Observation>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub async fn with(settings: Settings) -> Self {
        Self::build(settings, true).await
    }

    /// A cluster that does not know of ScaledObjects yet.
    pub async fn without_crds() -> Self {
        Self::build(Settings::default(), false).await
    }

    async fn build(settings: Settings, crds: bool) -> Self {
        let clock = Clock::starting_at("2026-01-05T08:00:00Z".parse().unwrap());
        let sandbox = Sandbox::new(clock, Options::default());
        if crds {
            sandbox.install_crds(&tidemark_api::crds()).unwrap();
        }
        let client = sandbox.client();
        let (source, teller, faults) = (Source::default(), Teller::default(), Faults::default());
        let operator = start(&sandbox, clock, (&source, &teller), &faults, settings.clone());
        let shutdown = CancellationToken::new();
        let (running, token) = (sandbox.clone(), shutdown.clone());
        let controllers = tokio::spawn(async move { running.run(token).await });
        let world = Self { clock, sandbox, client, source, teller, faults, operator, settings, shutdown, controllers };
        world.pass(1).await;
        world
    }

    /// Lets virtual time pass.
    pub async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    pub async fn stop_operator(&mut self) {
        self.operator.stop.cancel();
        (&mut self.operator.task).await.unwrap();
    }

    pub async fn restart_operator(&mut self) {
        self.stop_operator().await;
        self.start_operator();
    }

    pub fn start_operator(&mut self) {
        let sources = (&self.source, &self.teller);
        self.operator = start(&self.sandbox, self.clock, sources, &self.faults, self.settings.clone());
    }

    /// Starts another operator beside the one that runs. The HPAs' values go on to come from the first.
    pub fn start_beside(&self, faults: &Faults, settings: Settings) -> Running {
        let other = start(&self.sandbox, self.clock, (&self.source, &self.teller), faults, settings);
        let metrics = ExternalMetrics::new(Arc::new(Metrics(self.operator.handle.clone())), Access::Open);
        self.sandbox.mount("external.metrics.k8s.io", "v1beta1", metrics);
        other
    }

    /// Ends all; what ran must end by itself.
    pub async fn end(mut self) {
        self.stop_operator().await;
        self.shutdown.cancel();
        self.controllers.await.unwrap();
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub async fn create<K>(&self, value: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug,
    {
        self.api::<K>().create(&PostParams::default(), &serde_json::from_value(value).unwrap()).await.unwrap()
    }

    pub async fn patch<K>(&self, name: &str, value: Value)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug,
    {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(value)).await.unwrap();
    }

    pub async fn delete<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug,
    {
        self.api::<K>().delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub async fn deployment(&self, name: &str, replicas: i32) {
        self.create::<Deployment>(json!({
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{"name": "main", "image": "worker", "env": [
                        {"name": "TOKEN", "value": "one"},
                    ]}]},
                },
            },
        }))
        .await;
    }

    /// A ScaledObject over a Deployment of the same name: target 5, cooldown 60 s, poll every 10 s, 0 to 10 replicas.
    pub async fn object(&self, name: &str, edit: impl FnOnce(&mut Value)) -> ScaledObject {
        let mut value = json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
            "metadata": {"name": name},
            "spec": {
                "scaleTargetRef": {"name": name},
                "pollingInterval": 10, "cooldownPeriod": 60, "minReplicaCount": 0, "maxReplicaCount": 10,
                "triggers": [queue("queue")],
            },
        });
        edit(&mut value);
        self.create(value).await
    }

    pub async fn get(&self, name: &str) -> ScaledObject {
        self.api().get(name).await.unwrap()
    }

    pub async fn condition(&self, name: &str, kind: &str) -> Condition {
        let status = self.get(name).await.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        conditions.into_iter().find(|condition| condition.type_ == kind).unwrap_or_default()
    }

    /// `spec.replicas` of a Deployment.
    pub async fn replicas(&self, name: &str) -> i32 {
        self.api::<Deployment>().get(name).await.unwrap().spec.replicas.unwrap_or(1)
    }

    pub async fn scale_by_hand(&self, name: &str, replicas: i32) {
        self.patch::<Deployment>(name, json!({"spec": {"replicas": replicas}})).await;
    }

    pub async fn hpa(&self, name: &str) -> Option<HorizontalPodAutoscaler> {
        self.api::<HorizontalPodAutoscaler>().get_opt(name).await.unwrap()
    }

    pub async fn secret(&self, name: &str, key: &str, value: &str) {
        let api = self.api::<Secret>();
        let secret = json!({"metadata": {"name": name}, "stringData": {key: value}});
        if api.get_opt(name).await.unwrap().is_some() {
            self.patch::<Secret>(name, json!({"stringData": {key: value}})).await;
        } else {
            self.create::<Secret>(secret).await;
        }
    }

    pub async fn authentication(&self, name: &str, parameter: &str, secret: &str, key: &str) {
        self.create::<TriggerAuthentication>(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication",
            "metadata": {"name": name},
            "spec": {"secretTargetRef": [{"parameter": parameter, "name": secret, "key": key}]},
        }))
        .await;
    }

    /// Reasons, notes and counts of an object's events.
    pub async fn events(&self, name: &str) -> Vec<(String, String, i32)> {
        let events = self.api::<Event>().list(&ListParams::default()).await.unwrap();
        let mut events: Vec<_> = events
            .items
            .into_iter()
            .filter(|event| event.reporting_controller.as_deref() == Some("keda-operator"))
            .filter(|event| event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(name))
            .collect();
        events.sort_by_key(|event| event.metadata.name.clone());
        let count = |event: &Event| event.series.as_ref().map_or(1, |series| series.count);
        events.iter().map(|e| (e.reason.clone().unwrap(), e.note.clone().unwrap(), count(e))).collect()
    }

    pub async fn has_event(&self, name: &str, reason: &str) -> bool {
        self.events(name).await.iter().any(|event| event.0 == reason)
    }

    pub fn snapshot(&self, name: &str) -> Arc<Snapshot> {
        let key = ObjectKey::new("default", name);
        self.operator.handle.snapshots().into_iter().find(|snapshot| *snapshot.key == key).unwrap()
    }

    pub fn log(&self) -> Vec<Observation> {
        self.operator.log.lock().unwrap().clone()
    }
}

fn start(
    sandbox: &Sandbox,
    clock: Clock,
    (source, teller): (&Source, &Teller),
    faults: &Faults,
    settings: Settings,
) -> Running {
    let answers = source.clone();
    let door = Door::in_process(clock, move |request| answers.answer(request));
    let (operator, handle) =
        Operator::with_catalogue(faults.client(sandbox), door, settings, teller.beside_the_catalogue());
    let metrics = ExternalMetrics::new(Arc::new(Metrics(handle.clone())), Access::Open);
    sandbox.mount("external.metrics.k8s.io", "v1beta1", metrics);
    let (stop, log) = (CancellationToken::new(), Arc::new(Mutex::new(Vec::new())));
    let (token, written, mut observations) = (stop.clone(), log.clone(), handle.observe());
    let task = tokio::spawn(async move {
        let recording = async {
            while let Ok(observation) = observations.recv().await {
                written.lock().unwrap().push((*observation).clone());
            }
        };
        tokio::select! {
            biased;
            () = recording => {}
            result = operator.run(token) => result.unwrap(),
        }
    });
    Running { handle, log, stop, task }
}

/// A trigger that reads a path of the source.
pub fn queue(path: &str) -> Value {
    json!({"type": "metrics-api", "metadata": {
        "url": format!("http://source/{path}"), "valueLocation": "value", "targetValue": "5",
    }})
}
