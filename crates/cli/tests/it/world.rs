//! What a scenario runs in: a cluster, an operator that can be stopped and started, event sources that can fail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use kube::Client;
use serde_json::{Value, json};
use tidemark_cli::metrics::OperatorMetrics;
use tidemark_operator::{Operator, Settings};
use tidemark_serving::{MetricsSource, Values};
use tidemark_trigger::{Door, ErrorKind, SourceError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::scenario::SourceChange;

pub struct World {
    /// Its default namespace is the scenario's.
    pub client: Client,
    pub source: Arc<Source>,
    pub surroundings: Box<dyn Surroundings>,
    metrics: Arc<Metrics>,
    door: Door,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

/// What a scenario changes besides the cluster's objects and its HTTP source.
pub trait Surroundings: Send + Sync {
    /// From now on so many messages are in the queue.
    fn queue<'a>(&'a self, name: &'a str, messages: u32) -> BoxFuture<'a, ()>;
    /// From now on Prometheus' series that scenarios ask for has this value, below 100.
    fn series(&self, value: u32) -> BoxFuture<'_, ()>;
    /// From now on the pods with these labels use so many thousandths of a core together.
    fn cpu(&self, namespace: &str, labels: &BTreeMap<String, String>, milli: u64);
}

impl World {
    pub fn new(
        client: Client,
        door: Door,
        source: Arc<Source>,
        surroundings: Box<dyn Surroundings>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { client, source, surroundings, metrics, door, running: None }
    }

    pub async fn start_operator(&mut self) {
        assert!(self.running.is_none(), "the operator runs already");
        let watch_namespaces = vec![self.client.default_namespace().to_owned()];
        let settings = Settings { watch_namespaces, ..Settings::default() };
        let (operator, handle) = Operator::new(self.client.clone(), self.door.clone(), settings);
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { operator.run(stop).await.expect("the operator runs") });
        *self.metrics.0.lock().unwrap() = Some(Arc::new(OperatorMetrics::new(handle)));
        self.running = Some((shutdown, task));
    }

    pub async fn stop_operator(&mut self) {
        *self.metrics.0.lock().unwrap() = None;
        let (shutdown, task) = self.running.take().expect("the operator runs");
        shutdown.cancel();
        task.await.expect("the operator ends without a panic");
    }
}

/// The metrics of whichever operator runs.
#[derive(Default)]
pub struct Metrics(Mutex<Option<Arc<OperatorMetrics>>>);

impl MetricsSource for Metrics {
    fn values<'a>(&'a self, namespace: &'a str, object: &'a str, metric: &'a str) -> Values<'a> {
        let current = self.0.lock().unwrap().clone();
        Box::pin(async move {
            match current {
                Some(operator) => operator.values(namespace, object, metric).await,
                None => Err("the operator does not run".to_owned()),
            }
        })
    }
}

/// An HTTP server with some numbers, behind a bearer token if there is one. It also answers as a Prometheus and as the
/// management API of a RabbitMQ.
#[derive(Default)]
pub struct Source(watch::Sender<State>);

/// What the server does at present.
#[derive(Clone, Default)]
pub struct State {
    value: f64,
    values: BTreeMap<String, f64>,
    token: String,
    queues: BTreeMap<String, u32>,
    series: u32,
    pub down: bool,
}

impl Source {
    pub fn change(&self, change: SourceChange) {
        self.0.send_modify(|state| {
            state.value = change.value.unwrap_or(state.value);
            state.down = change.down.unwrap_or(state.down);
            if let Some(token) = change.token {
                state.token = token;
            }
            for (name, value) in change.values {
                match value {
                    Some(value) => state.values.insert(name, value),
                    None => state.values.remove(&name),
                };
            }
        });
    }

    pub fn set_queue(&self, name: &str, messages: u32) {
        self.0.send_modify(|state| {
            state.queues.insert(name.to_owned(), messages);
        });
    }

    pub fn set_series(&self, value: u32) {
        self.0.send_modify(|state| state.series = value);
    }

    pub fn states(&self) -> watch::Receiver<State> {
        self.0.subscribe()
    }

    /// What the server answers while it is up.
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Bytes> {
        let state = self.0.borrow().clone();
        let body = match request.uri().path() {
            "/stats" => state.stats(request),
            "/api/v1/query" => Ok(json!({"status": "success", "data": {"resultType": "vector", "result": [
                {"metric": {}, "value": [0, state.series.to_string()]},
            ]}})),
            path => state.queue(path).ok_or(StatusCode::NOT_FOUND),
        };
        let status = body.as_ref().err().copied().unwrap_or(StatusCode::OK);
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        response
    }
}

impl State {
    fn stats<B>(&self, request: &Request<B>) -> Result<Value, StatusCode> {
        let shown = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if !self.token.is_empty() && shown != Some(&format!("Bearer {}", self.token)) {
            return Err(StatusCode::UNAUTHORIZED);
        }
        Ok(json!({"queue": {"waiting": self.value}, "values": self.values}))
    }

    fn queue(&self, path: &str) -> Option<Value> {
        let messages = self.queues.get(path.strip_prefix("/api/queues/%2F/")?)?;
        Some(json!({"messages": messages, "messages_unacknowledged": 0}))
    }
}

/// A door behind which there is nothing but the source; no socket is opened.
pub fn door_to(source: Arc<Source>, clock: tidemark_clock::Clock) -> Door {
    Door::in_process(clock, move |request| {
        let source = source.clone();
        Box::pin(async move {
            if source.states().borrow().down {
                return Err(SourceError::new(ErrorKind::Unreachable, "the source is down"));
            }
            Ok(source.answer(&request))
        })
    })
}
