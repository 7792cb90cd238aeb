//! The log over OTLP: what the program logs, in the shape in which receivers know it, with the trace that it belongs to.

mod layer;

use crate::otlp::Limits;
use crate::otlp::settings::{Batching, Signal};
use crate::otlp::variables::Reader;

pub use layer::LogLayer;

/// How the log is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub batching: Batching,
    pub limits: Limits,
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
            batching: reader.batching(Signal::Logs, 1000, service),
            limits: Limits::read(&mut reader, Signal::Logs),
            warnings: reader.into_warnings(),
        }
    }
}
