//! What the environment variables of the OpenTelemetry specification say of each signal.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tidemark_trigger::Secret;

use super::encode::Temporality;
use super::variables::{Reader, is_true};

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Metrics,
    Traces,
    Logs,
}

impl Signal {
    /// Its word in the names of variables.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Metrics => "METRICS",
            Self::Traces => "TRACES",
            Self::Logs => "LOGS",
        }
    }

    /// Where a receiver takes it over HTTP.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Metrics => "/v1/metrics",
            Self::Traces => "/v1/traces",
            Self::Logs => "/v1/logs",
        }
    }

    /// The method that takes it over gRPC.
    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }

    /// What is sent, in the plural.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Traces => "spans",
            Self::Logs => "log records",
        }
    }
}

/// Whether a signal is to be sent over OTLP: `OTEL_SDK_DISABLED=true` turns all off; else the flag decides where it is
/// given, else whether `OTEL_TRACES_EXPORTER` (and so on for the other signals) names `otlp`. Off where nothing is said.
pub fn wanted(signal: Signal, flag: Option<bool>, get: impl Fn(&str) -> Option<String>) -> bool {
    let mut reader = Reader::new(&get);
    let disabled = reader.get("OTEL_SDK_DISABLED").is_some_and(|value| is_true(&value));
    !disabled && flag.or_else(|| reader.exports(signal)).unwrap_or(false)
}

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    Http,
}

/// Where and how a signal is sent.
#[derive(Clone, PartialEq)]
pub struct Destination {
    pub signal: Signal,
    pub protocol: Protocol,
    /// The whole address; over HTTP with the path.
    pub endpoint: String,
    /// Sent with each request; they often hold tokens.
    pub headers: Vec<(String, Secret)>,
    /// Deadline of one request.
    pub timeout: Duration,
    pub gzip: bool,
    /// PEM file of the CAs to trust, in place of the system's.
    pub certificate: Option<PathBuf>,
    /// PEM files of the client's certificate and key.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The endpoint may hold a password.
        f.debug_struct("Destination")
            .field("signal", &self.signal)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

/// How spans or log records are put together and sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Batching {
    pub destination: Destination,
    /// Attributes of the resource, such as `service.name`.
    pub resource: BTreeMap<String, String>,
    /// The longest that anything waits before it is sent.
    pub delay: Duration,
    /// Deadline of one export, all repeats together.
    pub export_timeout: Duration,
    /// How many wait at most: what comes then is dropped.
    pub queue: usize,
    /// How many one request holds at most.
    pub batch: usize,
}

/// Where and how metrics are pushed.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub destination: Destination,
    /// Between two exports.
    pub interval: Duration,
    /// Deadline of one export, all requests and repeats together.
    pub export_timeout: Duration,
    pub temporality: Temporality,
    /// Attributes of the resource, such as `service.name`.
    pub resource: BTreeMap<String, String>,
    /// What could not be understood and was left out, in words for the log.
    pub warnings: Vec<String>,
}

impl Settings {
    /// The settings that the variables say; what is not understood is told in `warnings` and has its default.
    ///
    /// `get` looks a variable up; `service` is the service's name where no variable says one.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>, service: &str) -> Self {
        let mut reader = Reader::new(&get);
        Self {
            destination: reader.destination(Signal::Metrics),
            interval: reader.milliseconds(&["OTEL_METRIC_EXPORT_INTERVAL"], 60_000),
            export_timeout: reader.milliseconds(&["OTEL_METRIC_EXPORT_TIMEOUT"], 30_000),
            temporality: temporality(&mut reader),
            resource: reader.resource(service),
            warnings: reader.into_warnings(),
        }
    }
}

fn temporality(reader: &mut Reader<'_>) -> Temporality {
    const NAME: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    match reader.get(NAME).map(|value| value.to_ascii_lowercase()).as_deref() {
        None | Some("cumulative") => Temporality::Cumulative,
        Some("delta" | "lowmemory") => Temporality::Delta,
        Some(other) => {
            reader.warn(format!("{NAME}={other:?} is none of cumulative, delta, lowmemory: cumulative is used"));
            Temporality::Cumulative
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    fn settings(variables: &[(&str, &str)]) -> Settings {
        Settings::from_variables(find(variables), "tidemark")
    }

    #[test]
    fn nothing_set_means_the_defaults_of_the_specification() {
        let settings = settings(&[]);
        let destination = &settings.destination;
        assert_eq!(
            (destination.protocol, &*destination.endpoint),
            (Protocol::Http, "http://localhost:4318/v1/metrics")
        );
        assert_eq!((settings.interval, destination.timeout), (Duration::from_secs(60), Duration::from_secs(10)));
        assert_eq!(settings.resource["service.name"], "tidemark");
        assert_eq!(settings.warnings, [""; 0]);
    }

    #[test]
    fn what_is_said_of_one_signal_comes_before_what_is_said_of_all() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://all/"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://metrics/here"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "5"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "7"),
            ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "logs:4317"),
        ];
        let get = find(&variables);
        let of = |signal| Reader::new(&get).destination(signal);
        let (metrics, traces, logs) = (of(Signal::Metrics), of(Signal::Traces), of(Signal::Logs));
        assert_eq!((&*metrics.endpoint, metrics.timeout), ("https://metrics/here", Duration::from_millis(5)));
        assert_eq!((&*traces.endpoint, traces.timeout), ("https://all/v1/traces", Duration::from_millis(7)));
        assert_eq!((logs.protocol, &*logs.endpoint), (Protocol::Grpc, "https://logs:4317"));
    }

    #[test]
    fn a_base_gets_the_path_and_grpc_the_scheme() {
        let http = settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/base/")]);
        assert_eq!(http.destination.endpoint, "http://collector:4318/base/v1/metrics");
        let grpc = |insecure: &str| {
            settings(&[
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
                ("OTEL_EXPORTER_OTLP_INSECURE", insecure),
            ])
            .destination
            .endpoint
        };
        assert_eq!((grpc("true"), grpc("")), ("http://collector:4317".to_owned(), "https://collector:4317".to_owned()));
    }

    #[test]
    fn what_is_not_understood_is_named_and_no_header_is_shown() {
        let settings = settings(&[
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20hunter2,hunter3"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "soon"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=a%2Cb,nothing"),
        ]);
        assert_eq!(settings.destination.headers[0].0, "authorization");
        assert_eq!(settings.destination.headers[0].1.expose(), "Bearer hunter2");
        assert_eq!(settings.resource["deployment.environment"], "a,b");
        assert_eq!(settings.warnings.len(), 4, "{:?}", settings.warnings);
        assert!(!format!("{settings:?}{:?}", settings.warnings).contains("hunter"));
    }

    #[test]
    fn a_signal_is_sent_by_its_flag_or_else_by_its_variable() {
        let sent = |flag, variables: &[(&str, &str)]| wanted(Signal::Traces, flag, find(variables));
        assert!(!sent(None, &[]) && sent(Some(true), &[]));
        assert!(sent(None, &[("OTEL_TRACES_EXPORTER", "otlp")]));
        assert!(!sent(None, &[("OTEL_TRACES_EXPORTER", "none")]) && !sent(None, &[("OTEL_LOGS_EXPORTER", "otlp")]));
        assert!(!sent(Some(false), &[("OTEL_TRACES_EXPORTER", "otlp")]));
        assert!(sent(Some(true), &[("OTEL_TRACES_EXPORTER", "none")]));
        assert!(!sent(Some(true), &[("OTEL_SDK_DISABLED", "true")]));
    }

    #[test]
    fn a_batch_is_never_larger_than_the_queue() {
        let variables = [("OTEL_BSP_MAX_QUEUE_SIZE", "100"), ("OTEL_BLRP_SCHEDULE_DELAY", "250")];
        let get = find(&variables);
        let mut reader = Reader::new(&get);
        let traces = reader.batching(Signal::Traces, 5000, "tidemark");
        assert_eq!((traces.queue, traces.batch, traces.delay), (100, 100, Duration::from_secs(5)));
        let logs = reader.batching(Signal::Logs, 1000, "tidemark");
        assert_eq!((logs.queue, logs.batch, logs.delay), (2048, 512, Duration::from_millis(250)));
        assert_eq!(reader.into_warnings(), [""; 0]);
    }
}
