//! Plays a script: a cluster, an operator whose API server fails by the seed, and somebody who meddles. All that
//! happens is written down.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tidemark_api::{ScaledObject, TriggerAuthentication};
use tidemark_clock::Clock;
use tidemark_operator::{Handle, Observation, Operator, Settings, Snapshot};
use tidemark_sandbox::{Fault, FaultLayer, FaultRule, Faults, Options, Sandbox};
use tidemark_serving::external_metrics::ExternalMetrics;
use tidemark_serving::front_proxy::Access;
use tidemark_trigger::{Door, ErrorKind, SourceError};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::{Layer, ServiceExt};

use super::script::{Deed, Says, Script};
use crate::world::Metrics;

/// When every script begins.
const EPOCH: &str = "2026-01-05T08:00:00Z";
/// Seconds without faults and meddling after which the state must be the one that the engine wants: the operator pauses
/// for up to 60 s between two attempts, and the HPA goes down in steps.
const QUIET: u64 = 220;

/// Made once and not for each world.
static CRDS: LazyLock<Vec<CustomResourceDefinition>> = LazyLock::new(tidemark_api::crds);

/// One object's life as its owner wants it.
#[derive(Default)]
pub struct Life {
    /// Whether it is to exist.
    pub wanted: bool,
    /// To be created once its predecessor has gone.
    pending: Option<Value>,
    /// All specs that it had, each with the second from which on.
    pub specs: Vec<(u64, Value)>,
}

/// A write that the operator has sent.
#[derive(Debug)]
pub struct Sent {
    pub second: u64,
    pub method: String,
    pub path: String,
    pub body: String,
}

/// What was left in the end, and what had happened till then.
pub struct Record {
    pub lives: Vec<Life>,
    pub observations: Vec<Observation>,
    pub writes: Vec<Sent>,
    /// What has gone wrong, one line each.
    pub faults: Vec<String>,
    pub objects: Vec<Option<ScaledObject>>,
    /// Replicas of the workloads that there are.
    pub replicas: Vec<Option<i32>>,
    pub hpas: Vec<HorizontalPodAutoscaler>,
    pub authentication: TriggerAuthentication,
    pub snapshots: Vec<Arc<Snapshot>>,
    pub end: Timestamp,
}

impl Record {
    /// The second of a time.
    pub fn second(&self, time: Timestamp) -> u64 {
        let start: Timestamp = EPOCH.parse().unwrap();
        u64::try_from(time.duration_since(start).as_secs()).unwrap()
    }

    /// Everything as one text.
    pub fn text(&self) -> String {
        let lines = [
            self.writes.iter().map(|write| format!("{write:?}")).collect::<Vec<_>>().join("\n"),
            self.observations.iter().map(|observation| format!("{observation:?}")).collect::<Vec<_>>().join("\n"),
            self.faults.join("\n"),
            format!("{:?}\n{:?}\n{:?}\n{:?}", self.objects, self.replicas, self.hpas, self.authentication),
            format!("{:?}\n{}", self.snapshots, self.end),
        ];
        lines.join("\n")
    }
}

/// What the source of all triggers goes by.
#[derive(Clone)]
struct Source {
    script: Arc<Script>,
    start: Instant,
    token: Arc<Mutex<String>>,
}

impl Source {
    fn answer(&self, request: &Request<Bytes>) -> BoxFuture<'static, Result<Response<Bytes>, SourceError>> {
        let path = request.uri().path().trim_start_matches('/').to_owned();
        let says = self.script.says(&path, self.start.elapsed().as_secs());
        let given = request.headers().get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let wanted = format!("Bearer {}", self.token.lock().unwrap());
        let reply = |status, text: String| Ok(Response::builder().status(status).body(Bytes::from(text)).unwrap());
        Box::pin(async move {
            if given.is_some_and(|given| given != wanted) {
                return reply(401, String::new());
            }
            match says {
                Says::Value(value) => reply(200, json!({"value": value}).to_string()),
                Says::Slow(seconds, value) => {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    reply(200, json!({"value": value}).to_string())
                }
                Says::Refused => {
                    Err(SourceError::new(ErrorKind::Unreachable, format!("GET http://source/{path}: refused")))
                }
                Says::Status(status) => reply(status, String::new()),
                Says::Garbage => reply(200, "{\"value\": [".to_owned()),
            }
        })
    }
}

/// An operator that runs.
struct Running {
    handle: Handle,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Stage {
    clock: Clock,
    start: Instant,
    sandbox: Sandbox,
    /// One that meets no faults.
    client: Client,
    source: Source,
    layer: FaultLayer,
    writes: Arc<Mutex<Vec<Sent>>>,
    observations: Arc<Mutex<Vec<Observation>>>,
    operator: Option<Running>,
    lives: Vec<Life>,
}

/// Plays a script to its end.
pub async fn play(script: Arc<Script>) -> Record {
    let mut stage = Stage::new(&script).await;
    stage.start_operator();
    let mut deeds = script.deeds.iter().peekable();
    let mut back_at = None;
    for second in 0..script.trouble + QUIET {
        while let Some((_, deed)) = deeds.next_if(|(at, _)| *at <= second) {
            if let Deed::Restart { away, killed } = deed {
                stage.stop_operator(*killed).await;
                back_at = Some(second + away);
            } else {
                stage.perform(&script, deed, second).await;
            }
        }
        if back_at.is_some_and(|at| at <= second) {
            back_at = None;
            stage.start_operator();
        }
        stage.create_pending(&script, second).await;
        tokio::time::sleep_until(stage.start + Duration::from_secs(second + 1)).await;
    }
    stage.end(&script).await
}

impl Stage {
    async fn new(script: &Arc<Script>) -> Self {
        let clock = Clock::starting_at(EPOCH.parse().unwrap());
        let start = Instant::now();
        let mut options = Options::default();
        options.hpa.downscale_stabilization = Duration::from_secs(20);
        let sandbox = Sandbox::new(clock, options);
        sandbox.install_crds(&CRDS).unwrap();
        let client = sandbox.client();
        let source = Source { script: script.clone(), start, token: Arc::new(Mutex::new("first".to_owned())) };
        let mut faults = Faults::bad_time(script.seed, Duration::from_secs(script.trouble));
        // The operator's reads name no version: Kubernetes answers these with the newest state, or not at all.
        faults.rules.retain(|rule| rule.fault != Fault::Stale);
        let unanswered =
            FaultRule::new(Fault::Unanswered, 0.02).between(Duration::ZERO, Duration::from_secs(script.trouble));
        let layer = faults.with(unanswered).layer();
        let lives = script.names.iter().map(|_| Life::default()).collect();
        let (writes, observations) = Default::default();
        let stage = Self { clock, start, sandbox, client, source, layer, writes, observations, operator: None, lives };
        let running = stage.sandbox.clone();
        tokio::spawn(async move { running.run(CancellationToken::new()).await });
        stage.create::<Secret>(json!({"metadata": {"name": "token"}, "stringData": {"token": "first"}})).await;
        stage
            .create::<TriggerAuthentication>(json!({
                "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": "auth"},
                "spec": {"secretTargetRef": [{"parameter": "token", "name": "token", "key": "token"}]},
            }))
            .await;
        stage
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create<K>(&self, value: Value)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        self.api::<K>().create(&PostParams::default(), &serde_json::from_value(value).unwrap()).await.unwrap();
    }

    /// Merges something into an object if there is one.
    async fn patch<K>(&self, name: &str, value: Value)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        absent_is_fine(self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(value)).await.map(drop));
    }

    async fn delete<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        absent_is_fine(self.api::<K>().delete(name, &DeleteParams::default()).await.map(drop));
    }

    async fn perform(&mut self, script: &Script, deed: &Deed, second: u64) {
        match deed {
            Deed::Put(object, spec) => {
                let life = &mut self.lives[*object];
                life.wanted = true;
                life.pending = Some(spec.clone());
                self.create_pending(script, second).await;
            }
            Deed::Annotate(object, annotations) => {
                let patch = json!({"metadata": {"annotations": annotations}});
                self.patch::<ScaledObject>(&script.names[*object], patch).await;
            }
            Deed::Delete(object) => {
                (self.lives[*object].wanted, self.lives[*object].pending) = (false, None);
                self.delete::<ScaledObject>(&script.names[*object]).await;
            }
            Deed::MakeWorkload(object, replicas) => self.make_workload(&script.names[*object], *replicas).await,
            Deed::DeleteWorkload(object) => self.delete::<Deployment>(&script.names[*object]).await,
            Deed::ScaleByHand(object, replicas) => {
                self.patch::<Deployment>(&script.names[*object], json!({"spec": {"replicas": replicas}})).await;
            }
            Deed::DeleteHpa(object) => {
                self.delete::<HorizontalPodAutoscaler>(&hpa_name(&script.names[*object])).await;
            }
            Deed::SpoilHpa(object) => {
                let spoilt =
                    json!({"metadata": {"labels": {"scaledobject.keda.sh/name": null}}, "spec": {"maxReplicas": 50}});
                self.patch::<HorizontalPodAutoscaler>(&hpa_name(&script.names[*object]), spoilt).await;
            }
            Deed::RotateToken(number) => {
                let token = format!("token-{number}");
                self.source.token.lock().unwrap().clone_from(&token);
                self.patch::<Secret>("token", json!({"stringData": {"token": token}})).await;
            }
            Deed::Restart { .. } => {}
        }
    }

    async fn make_workload(&self, name: &str, replicas: u64) {
        if self.api::<Deployment>().get_opt(name).await.unwrap().is_some() {
            return;
        }
        self.create::<Deployment>(json!({
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{"name": "main", "image": "worker"}]},
                },
            },
        }))
        .await;
    }

    /// Creates what is wanted and not there, and gives what is there its new spec.
    async fn create_pending(&mut self, script: &Script, second: u64) {
        for (index, name) in script.names.iter().enumerate() {
            let Some(spec) = self.lives[index].pending.clone() else { continue };
            match self.api::<ScaledObject>().get_opt(name).await.unwrap() {
                None => {
                    let object = json!({
                        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
                        "metadata": {"name": name}, "spec": spec,
                    });
                    self.create::<ScaledObject>(object).await;
                }
                Some(there) if there.metadata.deletion_timestamp.is_some() => continue,
                Some(mut there) => {
                    there.spec = serde_json::from_value(spec.clone()).unwrap();
                    if let Err(error) = self.api::<ScaledObject>().replace(name, &PostParams::default(), &there).await {
                        assert!(matches!(&error, kube::Error::Api(status) if status.code == 409), "{error}");
                        continue;
                    }
                }
            }
            self.lives[index].pending = None;
            self.lives[index].specs.push((second, spec));
        }
    }

    fn start_operator(&mut self) {
        if self.operator.is_some() {
            return;
        }
        let source = self.source.clone();
        let door = Door::in_process(self.clock, move |request| source.answer(&request));
        let (operator, handle) = Operator::new(self.recorded_client(), door, Settings::default());
        let metrics = ExternalMetrics::new(Arc::new(Metrics(handle.clone())), Access::Open);
        self.sandbox.mount("external.metrics.k8s.io", "v1beta1", metrics);
        let (stop, seen) = (CancellationToken::new(), self.observations.clone());
        let (token, mut observations) = (stop.clone(), handle.observe());
        let task = tokio::spawn(async move {
            let recording = async {
                loop {
                    match observations.recv().await {
                        Ok(observation) => seen.lock().unwrap().push((*observation).clone()),
                        Err(RecvError::Lagged(lost)) => panic!("{lost} observations were lost"),
                        Err(RecvError::Closed) => return,
                    }
                }
            };
            tokio::select! {
                biased;
                () = recording => {}
                result = operator.run(token) => result.unwrap(),
            }
        });
        self.operator = Some(Running { handle, stop, task });
    }

    async fn stop_operator(&mut self, killed: bool) {
        let Some(running) = self.operator.take() else { return };
        if killed {
            running.task.abort();
            let _ = running.task.await;
        } else {
            running.stop.cancel();
            running.task.await.unwrap();
        }
    }

    /// The operator's client: its writes are written down, and then meet the faults.
    fn recorded_client(&self) -> Client {
        let (service, writes, start) = (self.layer.layer(self.sandbox.service()), self.writes.clone(), self.start);
        let service = tower::service_fn(move |request: Request<Body>| {
            let (service, writes) = (service.clone(), writes.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                if parts.method != Method::GET {
                    writes.lock().unwrap().push(Sent {
                        second: start.elapsed().as_secs(),
                        method: parts.method.to_string(),
                        path: parts.uri.to_string(),
                        body: String::from_utf8_lossy(&body).into_owned(),
                    });
                }
                service.oneshot(Request::from_parts(parts, Body::from(body))).await
            }
        });
        Client::new(service, "default")
    }

    async fn end(mut self, script: &Script) -> Record {
        let snapshots = self.operator.as_ref().unwrap().handle.snapshots();
        let (mut objects, mut replicas) = (Vec::new(), Vec::new());
        for name in &script.names {
            objects.push(self.api::<ScaledObject>().get_opt(name).await.unwrap());
            let workload = self.api::<Deployment>().get_opt(name).await.unwrap();
            replicas.push(workload.map(|workload| workload.spec.replicas.unwrap_or(1)));
        }
        let hpas = self.api::<HorizontalPodAutoscaler>().list(&ListParams::default()).await.unwrap().items;
        let authentication = self.api::<TriggerAuthentication>().get("auth").await.unwrap();
        let end = self.clock.now();
        self.stop_operator(false).await;
        let take = |writes: &Mutex<Vec<_>>| std::mem::take(&mut *writes.lock().unwrap());
        Record {
            writes: take(&self.writes),
            observations: std::mem::take(&mut *self.observations.lock().unwrap()),
            lives: self.lives,
            faults: self.layer.log(),
            objects,
            replicas,
            hpas,
            authentication,
            snapshots,
            end,
        }
    }
}

/// The name of an object's HPA.
pub fn hpa_name(object: &str) -> String {
    format!("keda-hpa-{object}")
}

fn absent_is_fine(outcome: kube::Result<()>) {
    match outcome {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => other.unwrap(),
    }
}
