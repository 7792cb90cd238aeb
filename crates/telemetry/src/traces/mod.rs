//! Traces: each evaluation of an object is one, made from what is observed.
//!
//! A trace is `evaluate` with `fetch`, `decide` and `write` below it. What the HPA asks for is a trace of its own,
//! `query`, with a link to the object's latest evaluation. In a dry run nothing is written: there `would write` stands in
//! the place of `write`, an instant, and every span has `tidemark.dry_run`.

mod ids;
mod sampler;
mod spans;
mod tracer;

use crate::otlp::Limits;
use crate::otlp::settings::{Batching, Signal};
use crate::otlp::variables::Reader;

pub use ids::{SpanId, TraceId, trace_id};
pub use sampler::Sampler;
pub use tracer::{Tracer, run};

/// How traces are told.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub batching: Batching,
    pub sampler: Sampler,
    pub limits: Limits,
    /// The operator never writes; its spans say so. No variable says this.
    pub dry_run: bool,
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
            batching: reader.batching(Signal::Traces, 5000, service),
            sampler: Sampler::read(&mut reader),
            limits: Limits::read(&mut reader, Signal::Traces),
            dry_run: false,
            warnings: reader.into_warnings(),
        }
    }
}
