//! What a scenario runs in: a cluster, an operator that can be stopped and started, an event source that can fail.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use kube::Client;
use tidemark_cli::metrics::OperatorMetrics;
use tidemark_operator::{Operator, Settings};
use tidemark_serving::{MetricsSource, Values};
use tidemark_trigger::{Door, ErrorKind, SourceError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::scenario::SourceChange;

pub struct World {
    pub client: Client,
    pub source: Arc<Source>,
    pub metrics: Arc<Metrics>,
    door: Door,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl World {
    pub fn new(client: Client, door: Door, source: Arc<Source>, metrics: Arc<Metrics>) -> Self {
        Self { client, source, metrics, door, running: None }
    }

    pub async fn start_operator(&mut self) {
        assert!(self.running.is_none(), "the operator runs already");
        let (operator, handle) = Operator::new(self.client.clone(), self.door.clone(), Settings::default());
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

/// An HTTP server with one number, behind a bearer token.
#[derive(Default)]
pub struct Source(watch::Sender<State>);

/// What the server does at present.
#[derive(Clone, Default)]
pub struct State {
    value: f64,
    token: String,
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
        });
    }

    pub fn states(&self) -> watch::Receiver<State> {
        self.0.subscribe()
    }

    /// What the server answers while it is up.
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Bytes> {
        let state = self.0.borrow().clone();
        let shown = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (status, body) = if shown != Some(&format!("Bearer {}", state.token)) {
            (StatusCode::UNAUTHORIZED, String::new())
        } else {
            (StatusCode::OK, format!(r#"{{"queue": {{"waiting": {}}}}}"#, state.value))
        };
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        response
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
