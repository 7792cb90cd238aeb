//! Reading the environment variables of the OpenTelemetry specification, with their defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tidemark_trigger::Secret;

use super::settings::{Batching, Destination, Protocol, Signal};

/// Looks variables up; what is not understood is noted, and has its default.
pub(crate) struct Reader<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(get: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { get, warnings: Vec::new() }
    }

    /// What was not understood, in words for the log.
    pub(crate) fn into_warnings(self) -> Vec<String> {
        self.warnings
    }

    /// A variable without the space around it; one that is empty is not set.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let value = (self.get)(name)?;
        Some(value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// The first of the variables that is set, with its name.
    fn first<'n>(&self, names: &[&'n str]) -> Option<(&'n str, String)> {
        names.iter().find_map(|name| Some((*name, self.get(name)?)))
    }

    /// A setting of the exporter: the signal's own, or else that of all signals. With the variable's name.
    fn otlp(&self, signal: Signal, setting: &str) -> Option<(String, String)> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{setting}", signal.variable());
        [own, format!("OTEL_EXPORTER_OTLP_{setting}")].into_iter().find_map(|name| {
            let value = self.get(&name)?;
            Some((name, value))
        })
    }

    pub(crate) fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    /// Whether `OTEL_..._EXPORTER` names OTLP; none where it is not set.
    pub(crate) fn exports(&mut self, signal: Signal) -> Option<bool> {
        let name = format!("OTEL_{}_EXPORTER", signal.variable());
        let value = self.get(&name)?;
        let mut otlp = false;
        for exporter in value.split(',').map(str::trim).filter(|exporter| !exporter.is_empty()) {
            match exporter {
                "otlp" => otlp = true,
                // The log is on standard output in any case.
                "none" => {}
                "console" if signal == Signal::Logs => {}
                other => self.warn(format!("{name}: {other:?} is not served; otlp and none are")),
            }
        }
        Some(otlp)
    }

    /// Where the signal goes.
    pub(crate) fn destination(&mut self, signal: Signal) -> Destination {
        let protocol = self.protocol(signal);
        Destination {
            signal,
            protocol,
            endpoint: self.endpoint(signal, protocol),
            headers: self.headers(signal),
            timeout: self.timeout(signal),
            gzip: self.gzip(signal),
            certificate: self.otlp(signal, "CERTIFICATE").map(|(_, file)| file.into()),
            client: self.client(signal),
        }
    }

    fn protocol(&mut self, signal: Signal) -> Protocol {
        match self.otlp(signal, "PROTOCOL") {
            Some((_, value)) if value == "grpc" => Protocol::Grpc,
            Some((name, value)) if value != "http/protobuf" => {
                self.warn(format!("{name}={value:?} is not served: http/protobuf is used; grpc is the other choice"));
                Protocol::Http
            }
            _ => Protocol::Http,
        }
    }

    fn endpoint(&self, signal: Signal, protocol: Protocol) -> String {
        let own = self.get(&format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.variable()));
        let base = self.get("OTEL_EXPORTER_OTLP_ENDPOINT");
        match (protocol, own, base) {
            (Protocol::Http, Some(own), _) => own,
            (Protocol::Http, None, base) => {
                let base = base.unwrap_or_else(|| "http://localhost:4318".to_owned());
                format!("{}{}", base.trim_end_matches('/'), signal.path())
            }
            (Protocol::Grpc, own, base) => {
                let endpoint = own.or(base).unwrap_or_else(|| "http://localhost:4317".to_owned());
                if endpoint.contains("://") {
                    return endpoint;
                }
                let insecure = self.otlp(signal, "INSECURE").is_some_and(|(_, value)| is_true(&value));
                format!("{}://{endpoint}", if insecure { "http" } else { "https" })
            }
        }
    }

    fn headers(&mut self, signal: Signal) -> Vec<(String, Secret)> {
        let Some((name, value)) = self.otlp(signal, "HEADERS") else { return Vec::new() };
        let mut headers = Vec::new();
        for (number, pair) in value.split(',').map(str::trim).enumerate().filter(|(_, pair)| !pair.is_empty()) {
            match pair.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    let value = percent_decode_str(value.trim()).decode_utf8_lossy().into_owned();
                    headers.push((key.trim().to_ascii_lowercase(), Secret::new(value)));
                }
                // Not what it is: it may be half a token.
                _ => self.warn(format!("{name}: entry {} is not key=value and was left out", number + 1)),
            }
        }
        headers
    }

    fn timeout(&mut self, signal: Signal) -> Duration {
        let own = format!("OTEL_EXPORTER_OTLP_{}_TIMEOUT", signal.variable());
        self.milliseconds(&[&own, "OTEL_EXPORTER_OTLP_TIMEOUT"], 10_000)
    }

    fn gzip(&mut self, signal: Signal) -> bool {
        match self.otlp(signal, "COMPRESSION") {
            None => false,
            Some((_, value)) if value == "none" => false,
            Some((_, value)) if value == "gzip" => true,
            Some((name, value)) => {
                self.warn(format!("{name}={value:?} is not served: nothing is compressed; gzip is the other choice"));
                false
            }
        }
    }

    fn client(&mut self, signal: Signal) -> Option<(PathBuf, PathBuf)> {
        match (self.otlp(signal, "CLIENT_CERTIFICATE"), self.otlp(signal, "CLIENT_KEY")) {
            (Some((_, certificate)), Some((_, key))) => Some((certificate.into(), key.into())),
            (None, None) => None,
            (Some((given, _)), None) | (None, Some((given, _))) => {
                self.warn(format!(
                    "{given} alone is no client certificate, which needs _CERTIFICATE and _KEY: none is shown"
                ));
                None
            }
        }
    }

    /// The first of the variables that is set, in milliseconds above 0.
    pub(crate) fn milliseconds(&mut self, names: &[&str], default: u64) -> Duration {
        let valid = |milliseconds: &u64| *milliseconds > 0;
        Duration::from_millis(self.number(names, default, "a number of milliseconds above 0", valid))
    }

    /// A count above 0.
    pub(crate) fn count(&mut self, names: &[&str], default: usize) -> usize {
        self.number(names, default, "a number above 0", |count| *count > 0)
    }

    /// The first of the variables that is set, where `valid` takes it; `what` says what would be right.
    pub(crate) fn number<T>(&mut self, names: &[&str], default: T, what: &str, valid: impl Fn(&T) -> bool) -> T
    where
        T: FromStr + std::fmt::Display,
    {
        let Some((name, value)) = self.first(names) else { return default };
        match value.parse().ok().filter(valid) {
            Some(number) => number,
            None => {
                self.warn(format!("{name}={value:?} is not {what}: {default} is used"));
                default
            }
        }
    }

    /// The first of the variables that is set, as a limit; none where nothing limits.
    pub(crate) fn limit(&mut self, names: &[&str], default: Option<usize>) -> Option<usize> {
        let Some((name, value)) = self.first(names) else { return default };
        match value.parse() {
            Ok(limit) => Some(limit),
            Err(_) => {
                let kept =
                    default.map_or_else(|| "there is no limit".to_owned(), |default| format!("{default} is used"));
                self.warn(format!("{name}={value:?} is not a number from 0: {kept}"));
                default
            }
        }
    }

    /// How items are put together, by `OTEL_BSP_...` or `OTEL_BLRP_...`.
    pub(crate) fn batching(&mut self, signal: Signal, delay: u64, service: &str) -> Batching {
        let prefix = if signal == Signal::Logs { "OTEL_BLRP" } else { "OTEL_BSP" };
        let name = |setting: &str| format!("{prefix}_{setting}");
        let queue = self.count(&[&name("MAX_QUEUE_SIZE")], 2048);
        let batch = self.count(&[&name("MAX_EXPORT_BATCH_SIZE")], 512.min(queue));
        if batch > queue {
            self.warn(format!("{prefix}_MAX_EXPORT_BATCH_SIZE is above the queue's size of {queue}, which is used"));
        }
        Batching {
            destination: self.destination(signal),
            resource: self.resource(service),
            delay: self.milliseconds(&[&name("SCHEDULE_DELAY")], delay),
            export_timeout: self.milliseconds(&[&name("EXPORT_TIMEOUT")], 30_000),
            queue,
            batch: batch.min(queue),
        }
    }

    /// The attributes of the resource.
    pub(crate) fn resource(&mut self, service: &str) -> BTreeMap<String, String> {
        let mut resource = BTreeMap::from([
            ("service.name".to_owned(), service.to_owned()),
            ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("telemetry.sdk.language".to_owned(), "rust".to_owned()),
            ("telemetry.sdk.name".to_owned(), "tidemark".to_owned()),
            ("telemetry.sdk.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ]);
        let attributes = self.get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        for pair in attributes.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    let value = percent_decode_str(value.trim()).decode_utf8_lossy().into_owned();
                    resource.insert(key.trim().to_owned(), value);
                }
                _ => self.warn(format!("OTEL_RESOURCE_ATTRIBUTES: {pair:?} is not key=value and was left out")),
            }
        }
        if let Some(name) = self.get("OTEL_SERVICE_NAME") {
            resource.insert("service.name".to_owned(), name);
        }
        resource
    }
}

/// A boolean of the specification: what is not true is false.
pub(crate) fn is_true(value: &str) -> bool {
    value.trim().eq_ignore_ascii_case("true")
}
