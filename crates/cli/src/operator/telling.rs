//! What the operator tells of itself: metrics for Prometheus and over OTLP, and the report of a dry run.

use std::convert::Infallible;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode};
use tidemark_clock::Clock;
use tidemark_operator::{Handle, Observation, What, Write};
use tidemark_serving::plain;
use tidemark_telemetry::otlp::{Pusher, Settings};
use tidemark_telemetry::prometheus;
use tidemark_telemetry::recorder::Recorder;
use tidemark_telemetry::series::{Build, Series};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::OperatorArgs;
use crate::process::bind::Bind;
use crate::process::environment;
use crate::process::run::Parts;
use crate::version;

/// The metrics.
pub struct Telling {
    series: Series,
    pusher: Option<Pusher>,
}

impl Telling {
    /// Metrics of nothing yet.
    ///
    /// # Errors
    /// None today: OTLP settings that cannot be used are told in the log, and nothing is pushed.
    pub fn new(args: &OperatorArgs, clock: Clock) -> anyhow::Result<Self> {
        let build = Build { version: version::VERSION, commit: version::COMMIT, toolchain: version::TOOLCHAIN };
        let pusher = args.enable_opentelemetry_metrics.then(pusher).flatten();
        Ok(Self { series: Series::new(build, clock.now()), pusher })
    }

    /// Serves the metrics from now on, and pushes them.
    pub fn start(&mut self, args: &OperatorArgs, parts: &mut Parts, clock: Clock, shutdown: &CancellationToken) {
        if args.enable_prometheus_metrics {
            let serving = serve(args.metrics_bind_address, self.series.clone(), shutdown.clone());
            parts.start_fallible("the metrics for Prometheus", serving);
        }
        if let Some(pusher) = self.pusher.take() {
            parts.start("the push of metrics", pusher.run(self.series.clone(), clock, shutdown.clone()));
        }
    }

    /// Enters what the operator observes from now on.
    pub fn record(&self, parts: &mut Parts, handle: &Handle, shutdown: &CancellationToken) {
        let scaler_name = |kind: &str| tidemark_triggers::find(kind).ok().map(|known| known.scaler_name);
        let recorder = Recorder::new(self.series.clone(), scaler_name);
        parts.start("the record of metrics", recorder.run(handle.observe(), shutdown.clone()));
    }
}

/// The way to the receiver of OTLP that the environment names; none where there cannot be one.
fn pusher() -> Option<Pusher> {
    let settings = Settings::from_variables(environment::variable, "tidemark-operator");
    for warning in &settings.warnings {
        tracing::warn!("OTLP: {warning}");
    }
    match Pusher::new(settings) {
        Ok(pusher) => Some(pusher),
        Err(error) => {
            tracing::error!("metrics are not pushed: {error}");
            None
        }
    }
}

/// Serves `/metrics` over HTTP until `shutdown`.
///
/// # Errors
/// The address is taken.
fn serve(bind: Bind, series: Series, shutdown: CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> {
    Box::pin(async move {
        let Some(listener) = bind.listen().await? else {
            shutdown.cancelled().await;
            return Ok(());
        };
        let service = tower::service_fn(move |request: Request<plain::Incoming>| {
            std::future::ready(Ok::<_, Infallible>(answer(request.uri().path(), &series)))
        });
        plain::serve(listener, service, shutdown).await;
        Ok(())
    })
}

fn answer(path: &str, series: &Series) -> Response<plain::Body> {
    if path.trim_end_matches('/') != "/metrics" {
        let mut response = Response::new(plain::whole("not found: /metrics is served here\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    let mut response = Response::new(plain::pieces(prometheus::pieces(series.snapshot())));
    response.headers_mut().insert("content-type", HeaderValue::from_static(prometheus::CONTENT_TYPE));
    response
}

/// Logs what a dry run would have written, until `shutdown`.
pub async fn report(mut observations: broadcast::Receiver<Arc<Observation>>, shutdown: CancellationToken) {
    loop {
        let observation = match shutdown.run_until_cancelled(observations.recv()).await {
            Some(Ok(observation)) => observation,
            Some(Err(RecvError::Lagged(lost))) => {
                tracing::warn!(lost, "not all of the dry run is reported: too much is going on");
                continue;
            }
            Some(Err(RecvError::Closed)) | None => return,
        };
        let What::Write { write, error: None } = &observation.what else { continue };
        let would = match write {
            Write::Scale { target, from, to, .. } => format!("would scale {target} from {from} to {to}"),
            Write::HpaCreated { name } => format!("would create HPA {name}"),
            Write::HpaUpdated { name } => format!("would change HPA {name}"),
            Write::HpaDeleted { name } => format!("would delete HPA {name}"),
            Write::Status => continue,
        };
        tracing::info!(namespace = observation.object.namespace, name = observation.object.name, "{would}");
    }
}
