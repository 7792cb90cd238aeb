//! Metrics over OTLP: the standard's environment variables, messages, and pushing them at intervals.

mod encode;
mod push;
pub mod settings;

pub use encode::{Reached, Requests, Temporality};
pub use push::{Pusher, SetupError};
pub use settings::{Protocol, Settings};
