//! A layer of the log that makes log records.

use std::fmt;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use prost::Message;
use tidemark_clock::Clock;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::otlp::attributes::{Told, any, attribute, nanoseconds};
use crate::otlp::{Item, Limits, Queue};

/// What logs while records are sent: telling it there would go on for ever. It is in the log itself all the same.
const OWN: [&str; 13] = [
    "tidemark_telemetry::otlp",
    "h2",
    "hyper",
    "hyper_rustls",
    "hyper_util",
    "mio",
    "reqwest",
    "rustls",
    "rustls_platform_verifier",
    "tokio_util",
    "tonic",
    "tower",
    "want",
];
/// The most bytes of a message.
const MESSAGE: usize = 64 << 10;
/// The target of what comes from crates that log by the `log` crate; the real one is a field.
const FOREIGN: &str = "log";

/// Makes a log record of each event. It never waits.
#[derive(Clone, Debug)]
pub struct LogLayer {
    queue: Queue,
    clock: Clock,
    limits: Limits,
}

impl LogLayer {
    /// A layer that puts its records into a queue.
    pub fn new(queue: Queue, clock: Clock, limits: Limits) -> Self {
        Self { queue, clock, limits }
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let target = event.metadata().target();
        if is_own(target) {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        if target == FOREIGN && fields.foreign_target.as_deref().is_some_and(is_own) {
            return;
        }
        let dropped = self.limits.cut_attributes(&mut fields.attributes, self.limits.attributes);
        let (severity, text) = severity(event.metadata().level());
        let time = nanoseconds(self.clock.now());
        let record = LogRecord {
            time_unix_nano: time,
            observed_time_unix_nano: time,
            severity_number: severity.into(),
            severity_text: text.to_owned(),
            body: Some(any(fields.message)),
            attributes: fields.attributes,
            dropped_attributes_count: dropped,
            trace_id: fields.trace_id,
            span_id: fields.span_id,
            ..LogRecord::default()
        };
        self.queue.push(Item { scope: target, message: record.encode_to_vec() });
    }
}

fn is_own(target: &str) -> bool {
    OWN.iter().any(|own| target.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")))
}

fn severity(level: &Level) -> (SeverityNumber, &'static str) {
    match *level {
        Level::ERROR => (SeverityNumber::Error, "ERROR"),
        Level::WARN => (SeverityNumber::Warn, "WARN"),
        Level::INFO => (SeverityNumber::Info, "INFO"),
        Level::DEBUG => (SeverityNumber::Debug, "DEBUG"),
        Level::TRACE => (SeverityNumber::Trace, "TRACE"),
    }
}

/// What an event says.
#[derive(Default)]
struct Fields {
    message: String,
    trace_id: Vec<u8>,
    span_id: Vec<u8>,
    attributes: Vec<KeyValue>,
    foreign_target: Option<String>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: impl Into<Told>) {
        self.attributes.push(attribute(field.name(), value));
    }

    fn text(&mut self, field: &Field, text: &str) {
        match field.name() {
            "message" => {
                let end = text.floor_char_boundary(MESSAGE);
                text[..end].clone_into(&mut self.message);
            }
            "trace_id" if let Some(id) = bytes(text, 16) => self.trace_id = id,
            "span_id" if let Some(id) = bytes(text, 8) => self.span_id = id,
            "log.target" => self.foreign_target = Some(text.to_owned()),
            "log.module_path" | "log.file" => {}
            _ => self.add(field, text),
        }
    }
}

/// The bytes of an id.
fn bytes(hexadecimal: &str, length: usize) -> Option<Vec<u8>> {
    if hexadecimal.len() != 2 * length || !hexadecimal.is_ascii() {
        return None;
    }
    (0..length).map(|at| u8::from_str_radix(&hexadecimal[2 * at..2 * at + 2], 16).ok()).collect()
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() != "log.line" {
            self.add(field, i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
}
