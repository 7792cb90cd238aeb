//! Logs of a process on standard output, as KEDA's flags ask for them.

use std::fmt;
use std::io::IsTerminal;

use anyhow::anyhow;
use clap::{ArgAction, Args};
use jiff::Timestamp;
use serde_json::{Map, Value};
use tidemark_clock::Clock;
use tidemark_telemetry::logs::LogLayer;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::idle::Klog;

/// How a log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Encoder {
    Json,
    Console,
}

/// How times are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TimeEncoding {
    Epoch,
    Millis,
    Nano,
    Iso8601,
    Rfc3339,
    Rfc3339nano,
}

/// Flags of the log.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// What is logged: debug, info, error, panic, or a number above 0, where a greater one logs more; RUST_LOG wins
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = level)]
    pub zap_log_level: &'static str,
    /// How it is written [default: console on a terminal, else json]
    #[arg(long, value_name = "ENCODER", value_enum)]
    pub zap_encoder: Option<Encoder>,
    /// How times are written
    #[arg(long, value_name = "ENCODING", value_enum, default_value = "rfc3339")]
    pub zap_time_encoding: TimeEncoding,
    /// Accepted for KEDA's sake: there are no stack traces
    #[arg(long, value_name = "LEVEL", hide = true)]
    pub zap_stacktrace_level: Option<String>,
    /// Log for people: console, debug
    #[arg(
        long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1,
        require_equals = true, value_parser = super::go_bool, action = ArgAction::Set, hide = true
    )]
    pub zap_devel: bool,
    #[command(flatten)]
    pub klog: Klog,
}

/// The level that a flag asks for.
fn level(text: &str) -> Result<&'static str, String> {
    match text {
        "debug" => Ok("debug"),
        "info" => Ok("info"),
        // Nothing is worse than an error here.
        "error" | "panic" => Ok("error"),
        number => match number.parse::<u32>() {
            Ok(1) => Ok("debug"),
            Ok(2..) => Ok("trace"),
            _ => Err("give debug, info, error, panic, or a number above 0".to_owned()),
        },
    }
}

impl LogArgs {
    /// Logs from now on.
    ///
    /// # Errors
    /// Something logs already.
    pub fn init(&self) -> anyhow::Result<()> {
        self.init_with(None)
    }

    /// Logs from now on, and to `export` besides.
    ///
    /// # Errors
    /// Something logs already.
    pub fn init_with(&self, export: Option<LogLayer>) -> anyhow::Result<()> {
        let json = match self.zap_encoder {
            Some(encoder) => encoder == Encoder::Json,
            None => !self.zap_devel && !std::io::stdout().is_terminal(),
        };
        let level = if self.zap_devel { "debug" } else { self.zap_log_level };
        let format = Lines { json, time: self.zap_time_encoding, clock: Clock::system() };
        // Where standard output is closed, saying so would be a panic.
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stdout).log_internal_errors(false);
        let log = tracing_subscriber::registry().with(filter(level)).with(lines.event_format(format)).with(export);
        log.try_init().map_err(|error| anyhow!("cannot log: {error}"))
    }
}

/// What an operator needs to see at a level: kube's client logs each failed attempt, of which our own lines tell the
/// outcome. The AMQP library is silent whatever is asked for: it logs what brokers say, and in its details what they are
/// sent, the login included.
pub fn filter(level: &str) -> EnvFilter {
    let default = match level {
        "trace" => "debug,tidemark=trace,tidemark_operator=trace".to_owned(),
        "debug" => "info,tidemark=debug,tidemark_cli=debug,tidemark_operator=debug,tidemark_serving=debug".to_owned(),
        level => format!("{level},kube_client::client::builder=off,kube_runtime=error"),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    match "lapin=off".parse() {
        Ok(silent) => filter.add_directive(silent),
        Err(_) => filter,
    }
}

/// Lines in the shape in which KEDA's are: as JSON with the keys `level`, `ts`, `logger`, `msg`, or with tabs between.
struct Lines {
    json: bool,
    time: TimeEncoding,
    clock: Clock,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let (level, logger) = (name(metadata.level()), metadata.target());
        let time = stamp(self.clock.now(), self.time);
        if !self.json {
            let time = time.as_str().map_or_else(|| time.to_string(), str::to_owned);
            write!(writer, "{time}\t{}\t{logger}\t{}", level.to_ascii_uppercase(), fields.message)?;
            if !fields.others.is_empty() {
                write!(writer, "\t{}", Value::Object(fields.others))?;
            }
            return writeln!(writer);
        }
        let mut line = Map::new();
        line.insert("level".to_owned(), level.into());
        line.insert("ts".to_owned(), time);
        line.insert("logger".to_owned(), logger.into());
        line.insert("msg".to_owned(), fields.message.into());
        for (name, value) in fields.others {
            line.entry(name).or_insert(value);
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// A level as KEDA's log names it, which has no traces.
fn name(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

fn stamp(now: Timestamp, encoding: TimeEncoding) -> Value {
    let text = |format: &str| Value::from(now.strftime(format).to_string());
    match encoding {
        TimeEncoding::Epoch => (now.as_nanosecond() as f64 / 1e9).into(),
        TimeEncoding::Millis => (now.as_nanosecond() as f64 / 1e6).into(),
        TimeEncoding::Nano => i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX).into(),
        TimeEncoding::Iso8601 => text("%Y-%m-%dT%H:%M:%S.%3fZ"),
        TimeEncoding::Rfc3339 => text("%Y-%m-%dT%H:%M:%SZ"),
        TimeEncoding::Rfc3339nano => text("%Y-%m-%dT%H:%M:%S.%9fZ"),
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", other) => self.message = other.to_string(),
            (name, value) => drop(self.others.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(json: bool) -> String {
        let log = Log::default();
        let writer = log.clone();
        let lines = Lines {
            json,
            time: TimeEncoding::Rfc3339,
            clock: Clock::starting_at("2026-01-02T03:04:05Z".parse().unwrap()),
        };
        let subscriber = tracing_subscriber::fmt().event_format(lines).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(
            subscriber,
            || tracing::warn!(target: "here", count = 3, name = "a\"b", "it is late"),
        );
        let bytes = log.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[tokio::test]
    async fn a_line_has_the_keys_that_log_pipelines_know() {
        let line: Value = serde_json::from_str(&logged(true)).unwrap();
        let wanted = serde_json::json!({
            "level": "warn", "ts": "2026-01-02T03:04:05Z", "logger": "here", "msg": "it is late", "count": 3, "name": "a\"b",
        });
        assert_eq!(line, wanted);
        assert_eq!(logged(false), "2026-01-02T03:04:05Z\tWARN\there\tit is late\t{\"count\":3,\"name\":\"a\\\"b\"}\n");
    }

    #[test]
    fn levels_are_words_or_numbers() {
        assert_eq!((level("error"), level("1"), level("5")), (Ok("error"), Ok("debug"), Ok("trace")));
        assert!(level("0").is_err() && level("loud").is_err());
    }
}
