//! The environment variables of the OpenTelemetry specification, for metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tidemark_trigger::Secret;

use super::encode::Temporality;

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    Http,
}

/// Where and how metrics are pushed.
#[derive(Clone, PartialEq)]
pub struct Settings {
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

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The endpoint may hold a password.
        f.debug_struct("Settings")
            .field("protocol", &self.protocol)
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// The settings that the variables say; what is not understood is told in `warnings` and has its default.
    ///
    /// `get` looks a variable up; `service` is the service's name where no variable says one.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>, service: &str) -> Self {
        let mut reader =
            Reader { get: |name: &str| get(name).filter(|value| !value.trim().is_empty()), warnings: Vec::new() };
        let protocol = reader.protocol();
        let endpoint = reader.endpoint(protocol);
        let client = match (reader.otlp("CLIENT_CERTIFICATE"), reader.otlp("CLIENT_KEY")) {
            (Some((_, certificate)), Some((_, key))) => Some((certificate.into(), key.into())),
            (None, None) => None,
            _ => {
                reader.warn(
                    "a client certificate needs both OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and _KEY: none is shown",
                );
                None
            }
        };
        Self {
            protocol,
            endpoint,
            headers: reader.headers(),
            timeout: reader
                .milliseconds_of(&["OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"], 10_000),
            gzip: reader.gzip(),
            certificate: reader.otlp("CERTIFICATE").map(|(_, file)| file.into()),
            client,
            interval: reader.milliseconds_of(&["OTEL_METRIC_EXPORT_INTERVAL"], 60_000),
            export_timeout: reader.milliseconds_of(&["OTEL_METRIC_EXPORT_TIMEOUT"], 30_000),
            temporality: reader.temporality(),
            resource: reader.resource(service),
            warnings: reader.warnings,
        }
    }
}

struct Reader<G> {
    get: G,
    warnings: Vec<String>,
}

impl<G: Fn(&str) -> Option<String>> Reader<G> {
    /// A setting of metrics, or else that of all signals, with the variable's name.
    fn otlp(&self, setting: &str) -> Option<(String, String)> {
        ["OTEL_EXPORTER_OTLP_METRICS_", "OTEL_EXPORTER_OTLP_"].into_iter().find_map(|prefix| {
            let name = format!("{prefix}{setting}");
            let value = (self.get)(&name)?;
            Some((name, value.trim().to_owned()))
        })
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    fn protocol(&mut self) -> Protocol {
        match self.otlp("PROTOCOL") {
            Some((_, value)) if value == "grpc" => Protocol::Grpc,
            Some((name, value)) if value != "http/protobuf" => {
                self.warn(format!("{name}={value:?} is not served: http/protobuf is used; grpc is the other choice"));
                Protocol::Http
            }
            _ => Protocol::Http,
        }
    }

    fn endpoint(&mut self, protocol: Protocol) -> String {
        let own = (self.get)("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT");
        let base = (self.get)("OTEL_EXPORTER_OTLP_ENDPOINT");
        match (protocol, own, base) {
            (Protocol::Http, Some(own), _) => own.trim().to_owned(),
            (Protocol::Http, None, base) => {
                let base = base.unwrap_or_else(|| "http://localhost:4318".to_owned());
                format!("{}/v1/metrics", base.trim().trim_end_matches('/'))
            }
            (Protocol::Grpc, own, base) => {
                let endpoint = own.or(base).unwrap_or_else(|| "http://localhost:4317".to_owned()).trim().to_owned();
                if endpoint.contains("://") {
                    return endpoint;
                }
                let insecure = self.otlp("INSECURE").is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"));
                format!("{}://{endpoint}", if insecure { "http" } else { "https" })
            }
        }
    }

    fn headers(&mut self) -> Vec<(String, Secret)> {
        let Some((name, value)) = self.otlp("HEADERS") else { return Vec::new() };
        let mut headers = Vec::new();
        for pair in value.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    let value = percent_decode_str(value.trim()).decode_utf8_lossy().into_owned();
                    headers.push((key.trim().to_ascii_lowercase(), Secret::new(value)));
                }
                // Not what it is: it may be half a token.
                _ => self.warn(format!("{name}: entry {} is not key=value and was left out", headers.len() + 1)),
            }
        }
        headers
    }

    fn gzip(&mut self) -> bool {
        match self.otlp("COMPRESSION") {
            None => false,
            Some((_, value)) if value == "none" => false,
            Some((_, value)) if value == "gzip" => true,
            Some((name, value)) => {
                self.warn(format!("{name}={value:?} is not served: nothing is compressed; gzip is the other choice"));
                false
            }
        }
    }

    /// The first of the variables that is set, in milliseconds.
    fn milliseconds_of(&mut self, names: &[&str], default: u64) -> Duration {
        let set = names.iter().find_map(|name| Some((*name, (self.get)(name)?)));
        let Some((name, value)) = set else { return Duration::from_millis(default) };
        match value.trim().parse() {
            Ok(milliseconds) if milliseconds > 0 => Duration::from_millis(milliseconds),
            _ => {
                self.warn(format!("{name}={value:?} is not a number of milliseconds above 0: {default} is used"));
                Duration::from_millis(default)
            }
        }
    }

    fn temporality(&mut self) -> Temporality {
        const NAME: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        match (self.get)(NAME).map(|value| value.trim().to_ascii_lowercase()).as_deref() {
            None | Some("cumulative") => Temporality::Cumulative,
            Some("delta" | "lowmemory") => Temporality::Delta,
            Some(other) => {
                self.warn(format!("{NAME}={other:?} is none of cumulative, delta, lowmemory: cumulative is used"));
                Temporality::Cumulative
            }
        }
    }

    fn resource(&mut self, service: &str) -> BTreeMap<String, String> {
        let mut resource = BTreeMap::from([
            ("service.name".to_owned(), service.to_owned()),
            ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("telemetry.sdk.language".to_owned(), "rust".to_owned()),
            ("telemetry.sdk.name".to_owned(), "tidemark".to_owned()),
            ("telemetry.sdk.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ]);
        let attributes = (self.get)("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        for pair in attributes.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    let value = percent_decode_str(value.trim()).decode_utf8_lossy().into_owned();
                    resource.insert(key.trim().to_owned(), value);
                }
                _ => self.warn(format!("OTEL_RESOURCE_ATTRIBUTES: {pair:?} is not key=value and was left out")),
            }
        }
        if let Some(name) = (self.get)("OTEL_SERVICE_NAME") {
            resource.insert("service.name".to_owned(), name.trim().to_owned());
        }
        resource
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Settings::from_variables(find, "tidemark")
    }

    #[test]
    fn nothing_set_means_the_defaults_of_the_specification() {
        let settings = settings(&[]);
        assert_eq!((settings.protocol, &*settings.endpoint), (Protocol::Http, "http://localhost:4318/v1/metrics"));
        assert_eq!((settings.interval, settings.timeout), (Duration::from_secs(60), Duration::from_secs(10)));
        assert_eq!(settings.resource["service.name"], "tidemark");
        assert_eq!(settings.warnings, [""; 0]);
    }

    #[test]
    fn what_is_said_of_metrics_comes_before_what_is_said_of_all_signals() {
        let settings = settings(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://all/"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://metrics/here"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "5"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "7"),
        ]);
        assert_eq!(settings.endpoint, "https://metrics/here");
        assert_eq!(settings.timeout, Duration::from_millis(7));
    }

    #[test]
    fn a_base_gets_the_path_and_grpc_the_scheme() {
        let http = settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/base/")]);
        assert_eq!(http.endpoint, "http://collector:4318/base/v1/metrics");
        let grpc = |insecure: &str| {
            settings(&[
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
                ("OTEL_EXPORTER_OTLP_INSECURE", insecure),
            ])
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
        assert_eq!(settings.headers[0].0, "authorization");
        assert_eq!(settings.headers[0].1.expose(), "Bearer hunter2");
        assert_eq!(settings.resource["deployment.environment"], "a,b");
        assert_eq!(settings.warnings.len(), 4, "{:?}", settings.warnings);
        assert!(!format!("{settings:?}{:?}", settings.warnings).contains("hunter"));
    }
}
