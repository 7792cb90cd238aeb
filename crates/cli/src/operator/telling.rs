//! What the operator tells of itself: metrics for Prometheus and over OTLP, and the report of a dry run.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::{ArgAction, Args};
use tidemark_clock::Clock;
use tidemark_operator::{Handle, ObjectKey, Observation, What, Write};
use tidemark_serving::metrics_service::Counter;
use tidemark_telemetry::catalogue::OPERATOR;
use tidemark_telemetry::catalogue::process::LEADER;
use tidemark_telemetry::catalogue::services::SERVER;
use tidemark_telemetry::otlp::{Pusher, Settings, Signal, wanted};
use tidemark_telemetry::recorder::Recorder;
use tidemark_telemetry::series::Series;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::process::bind::Bind;
use crate::process::run::Parts;
use crate::process::{environment, go_bool, metrics};

/// The name of the service in what is pushed, where no variable says one.
pub const SERVICE: &str = "tidemark-operator";

/// Flags of metrics that the operator and `up` have alike.
#[derive(Clone, Debug, Default, Args)]
pub struct MetricsArgs {
    /// Push metrics over OTLP, as the OTEL_... variables say
    #[arg(
        long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1,
        require_equals = true, value_parser = go_bool, action = ArgAction::Set
    )]
    pub enable_opentelemetry_metrics: bool,
    /// Tell how long requests to event sources take by trigger, not by trigger type
    #[arg(
        long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1,
        require_equals = true, value_parser = go_bool, action = ArgAction::Set
    )]
    pub enable_high_cardinality_metrics_labels: bool,
}

/// Where metrics are told.
#[derive(Debug, Default)]
pub struct Options {
    /// Where Prometheus gets them; none where it does not.
    pub prometheus: Option<Bind>,
    /// Where they are pushed; none where they are not.
    pub otlp: Option<Settings>,
    /// Durations of requests to event sources are told by trigger instead of by trigger type.
    pub durations_by_trigger: bool,
}

impl Options {
    /// As the flags say. The OTLP variables are looked at where they are wanted, and what is wrong with them is logged.
    pub fn of(prometheus: Option<Bind>, args: &MetricsArgs) -> Self {
        Self {
            prometheus,
            otlp: otlp(args.enable_opentelemetry_metrics),
            durations_by_trigger: args.enable_high_cardinality_metrics_labels,
        }
    }
}

/// Where the environment says that metrics are pushed, if the flag wants it and no variable turns all off.
fn otlp(flag: bool) -> Option<Settings> {
    if !wanted(Signal::Metrics, Some(flag), environment::variable) {
        return None;
    }
    let settings = Settings::from_variables(environment::variable, SERVICE);
    for warning in &settings.warnings {
        tracing::warn!("OTLP: {warning}");
    }
    Some(settings)
}

/// The metrics.
pub struct Telling {
    series: Series,
    prometheus: Option<Bind>,
    pusher: Option<Pusher>,
}

impl Telling {
    /// Metrics of nothing yet. OTLP settings that cannot be used are told in the log, and nothing is pushed.
    pub fn new(options: Options, clock: Clock) -> Self {
        let series = match options.durations_by_trigger {
            true => metrics::series(clock).with_durations_by_trigger(),
            false => metrics::series(clock),
        };
        let pusher = options.otlp.map(Pusher::new).transpose().unwrap_or_else(|error| {
            tracing::error!("metrics are not pushed: {error}");
            None
        });
        Self { series, prometheus: options.prometheus, pusher }
    }

    /// Where values are recorded.
    pub fn series(&self) -> &Series {
        &self.series
    }

    /// Counts the calls of the metrics service.
    pub fn calls(&self) -> Counter {
        metrics::calls(self.series.clone(), &SERVER)
    }

    /// Tells whether this process holds the Lease.
    pub fn leads(&self, lease: &str, leads: bool) {
        self.series.set(&LEADER, &[lease], f64::from(u8::from(leads)));
    }

    /// Serves the metrics from now on, and pushes them.
    pub fn start(&mut self, parts: &mut Parts, clock: Clock, shutdown: &CancellationToken) {
        if let Some(bind) = self.prometheus {
            let serving = metrics::serve(bind, OPERATOR, self.series.clone(), shutdown.clone());
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
        let (observations, handle) = (handle.observe(), handle.clone());
        let present = move || handle.snapshots();
        parts.start("the record of metrics", recorder.run(observations, present, shutdown.clone()));
    }
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
            What::Write { write, dry_run: true, error: None, .. } => write,
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
            Write::Status | Write::FinalizerAdded | Write::FinalizerRemoved => return None,
        };
        let before = self.hpas.insert(observation.object.clone(), line.clone());
        (before.as_ref() != Some(&line)).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidemark_operator::ScaleCause;
    use tidemark_telemetry::prometheus;

    use super::*;

    #[test]
    fn who_waits_for_the_lease_tells_so_and_who_holds_it_too() {
        let telling = Telling::new(Options::default(), Clock::system());
        for (leads, value) in [(false, 0), (true, 1)] {
            telling.leads("operator.keda.sh", leads);
            let pieces = prometheus::pieces(OPERATOR, telling.series().snapshot());
            let text = String::from_utf8(pieces.flatten().collect()).unwrap();
            let line = format!("leader_election_master_status{{name=\"operator.keda.sh\"}} {value}\n");
            assert!(text.contains(&line), "{text}");
        }
    }

    #[test]
    fn a_dry_run_reports_each_scaling_and_each_new_difference_of_an_hpa() {
        let mut report = Report::default();
        let object = Arc::new(ObjectKey::new("shop", "orders"));
        let mut said = |what: What| {
            let (time, object) = ("2026-01-01T00:00:00Z".parse().unwrap(), object.clone());
            report.on(&Observation { time, object, uid: "1".into(), evaluation: 0, what })
        };
        let told = |write, error: Option<&str>| What::Write {
            write,
            took: Duration::ZERO,
            dry_run: true,
            error: error.map(Into::into),
        };
        let done = |write| told(write, None);
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
        assert_eq!(said(told(Write::Status, Some("forbidden"))), None);
    }
}
