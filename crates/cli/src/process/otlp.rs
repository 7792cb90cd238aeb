//! Traces and the log over OTLP: their flags, and what must run for them.

use std::sync::Arc;

use clap::{ArgAction, Args};
use tidemark_clock::Clock;
use tidemark_operator::Handle;
use tidemark_serving::certificates::random_token;
use tidemark_telemetry::logs::{self, LogLayer};
use tidemark_telemetry::otlp::{Batches, Signal, wanted};
use tidemark_telemetry::traces::{self, TraceId};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::environment::variable;
use super::go_bool;
use super::run::Parts;

/// Flags of traces and of the log over OTLP. Metrics have a flag of their own, which is KEDA's.
#[derive(Clone, Debug, Default, Args)]
pub struct OtlpArgs {
    /// Send a trace of each evaluation over OTLP, as the OTEL_... variables say [default: if OTEL_TRACES_EXPORTER=otlp]
    #[arg(
        long, value_name = "BOOL", default_missing_value = "true", num_args = 0..=1, require_equals = true,
        value_parser = go_bool, action = ArgAction::Set
    )]
    pub enable_opentelemetry_traces: Option<bool>,
    /// Send the log over OTLP, as the OTEL_... variables say, and write it as before [default: if OTEL_LOGS_EXPORTER=otlp]
    #[arg(
        long, value_name = "BOOL", default_missing_value = "true", num_args = 0..=1, require_equals = true,
        value_parser = go_bool, action = ArgAction::Set
    )]
    pub enable_opentelemetry_logs: Option<bool>,
}

/// The log on its way over OTLP.
#[derive(Default)]
pub struct LogExport {
    /// What could not be understood or done, for the log that does not exist yet.
    problems: Vec<String>,
    running: Option<(JoinHandle<()>, CancellationToken)>,
}

impl LogExport {
    /// Sends from now on what the layer gets; no layer where that is not wanted, or cannot be. The problems are told by
    /// [`Self::tell_problems`], once there is a log. `service` is the service's name where no variable says one.
    pub fn start(args: &OtlpArgs, service: &str, clock: Clock) -> (Option<LogLayer>, Self) {
        let mut export = Self::default();
        if !wanted(Signal::Logs, args.enable_opentelemetry_logs, variable) {
            return (None, export);
        }
        let settings = logs::Settings::from_variables(variable, service);
        export.problems = settings.warnings.iter().map(|warning| format!("OTLP: {warning}")).collect();
        let (queue, batches) = match Batches::new(settings.batching) {
            Ok(ready) => ready,
            Err(error) => {
                export.problems.push(format!("the log is not sent over OTLP: {error}"));
                return (None, export);
            }
        };
        let stop = CancellationToken::new();
        export.running = Some((tokio::spawn(batches.run(stop.clone())), stop));
        (Some(LogLayer::new(queue, clock, settings.limits)), export)
    }

    /// Tells the log what is wrong with the settings.
    pub fn tell_problems(&self) {
        self.problems.iter().for_each(|problem| tracing::warn!("{problem}"));
    }

    /// Whether anything is sent.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Sends what is left, for which there is little time: the last thing that a process does.
    pub async fn end(self) {
        if let Some((running, stop)) = self.running {
            stop.cancel();
            // It ends by itself in any case.
            let _ = running.await;
        }
    }
}

/// The seed of this process' trace ids.
///
/// # Errors
/// The machine has no randomness to give.
pub fn seed() -> anyhow::Result<u128> {
    let token = random_token()?;
    let digits: String = token.chars().filter(char::is_ascii_hexdigit).take(32).collect();
    Ok(u128::from_str_radix(&digits, 16)?)
}

/// The traces' ids in hexadecimal, by an object's uid and the number of its evaluation, where traces are sent and that
/// one is.
pub fn trace_ids(args: &OtlpArgs, seed: u128) -> tidemark_reasons::TraceId {
    if !wanted(Signal::Traces, args.enable_opentelemetry_traces, variable) {
        return Arc::new(|_, _| None);
    }
    let sampler = traces::Settings::from_variables(variable, "").sampler;
    Arc::new(move |uid, evaluation| {
        let trace = TraceId::of_evaluation(seed, uid, evaluation);
        (evaluation > 0 && sampler.takes(trace)).then(|| trace.to_string())
    })
}

/// Sends a trace of each evaluation from now on, where that is wanted. To be called before the operator runs.
pub fn start_traces(
    args: &OtlpArgs,
    (service, seed): (&str, u128),
    parts: &mut Parts,
    handle: &Handle,
    clock: Clock,
    shutdown: &CancellationToken,
) {
    if !wanted(Signal::Traces, args.enable_opentelemetry_traces, variable) {
        return;
    }
    let mut settings = traces::Settings::from_variables(variable, service);
    settings.dry_run = handle.is_dry_run();
    for warning in &settings.warnings {
        tracing::warn!("OTLP: {warning}");
    }
    match Batches::new(settings.batching.clone()) {
        Ok(batches) => {
            let running = traces::run(&settings, seed, clock, handle.observe(), batches, shutdown.clone());
            let shutdown = shutdown.clone();
            // One that has nothing more to tell stays until all are told to stop.
            parts.start("the traces", async move {
                running.await;
                shutdown.cancelled().await;
            });
        }
        Err(error) => tracing::error!("traces are not sent: {error}"),
    }
}
