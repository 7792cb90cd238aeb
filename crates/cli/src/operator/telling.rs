//! What the operator tells of itself: metrics for Prometheus and over OTLP, and the report of a dry run.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode};
use tidemark_clock::Clock;
use tidemark_operator::{Handle, ObjectKey, Observation, What, Write};
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
    let mut report = Report::default();
    loop {
        let observation = match shutdown.run_until_cancelled(observations.recv()).await {
            Some(Ok(observation)) => observation,
            Some(Err(RecvError::Lagged(lost))) => {
                tracing::warn!(lost, "not all of the dry run is reported: too much is going on");
                continue;
            }
            Some(Err(RecvError::Closed)) | None => return,
        };
        if let Some(would) = report.on(&observation) {
            tracing::info!(namespace = observation.object.namespace, name = observation.object.name, "{would}");
        }
    }
}

/// What a dry run has reported.
#[derive(Default)]
struct Report {
    /// The last line about each object's HPA: nothing comes of it, so the object finds the same again.
    hpas: BTreeMap<Arc<ObjectKey>, String>,
}

impl Report {
    fn on(&mut self, observation: &Observation) -> Option<String> {
        let write = match &observation.what {
            What::Write { write, error: None } => write,
            What::Gone => {
                self.hpas.remove(&observation.object);
                return None;
            }
            _ => return None,
        };
        let line = match write {
            Write::Scale { target, from, to, .. } => return Some(format!("would scale {target} from {from} to {to}")),
            Write::HpaCreated { name } => format!("would create HPA {name}"),
            Write::HpaUpdated { name } => format!("would change HPA {name}"),
            Write::HpaDeleted { name } => format!("would delete HPA {name}"),
            Write::Status => return None,
        };
        let before = self.hpas.insert(observation.object.clone(), line.clone());
        (before.as_ref() != Some(&line)).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use tidemark_operator::ScaleCause;

    use super::*;

    #[test]
    fn a_dry_run_reports_each_scaling_and_each_new_difference_of_an_hpa() {
        let mut report = Report::default();
        let object = Arc::new(ObjectKey::new("shop", "orders"));
        let mut said = |what: What| {
            let (time, object) = ("2026-01-01T00:00:00Z".parse().unwrap(), object.clone());
            report.on(&Observation { time, object, uid: "1".into(), what })
        };
        let done = |write: Write| What::Write { write, error: None };
        let scale = |from, to| {
            let target = "apps/v1.Deployment shop/orders".into();
            done(Write::Scale { target, from, to, cause: ScaleCause::Deactivated })
        };
        let changed = || done(Write::HpaUpdated { name: "keda-hpa-orders".into() });
        let text = "would scale apps/v1.Deployment shop/orders from 1 to 0";
        assert_eq!((said(scale(1, 0)).as_deref(), said(scale(1, 0)).as_deref()), (Some(text), Some(text)));
        assert_eq!(said(changed()).as_deref(), Some("would change HPA keda-hpa-orders"));
        assert_eq!((said(changed()), said(done(Write::Status))), (None, None));
        assert!(said(done(Write::HpaDeleted { name: "keda-hpa-orders".into() })).is_some());
        assert!(said(changed()).is_some());
        assert_eq!(said(What::Write { write: Write::Status, error: Some("forbidden".into()) }), None);
    }
}
