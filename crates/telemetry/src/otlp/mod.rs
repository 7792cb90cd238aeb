//! OTLP: the standard's environment variables, messages, and sending them: metrics at intervals, spans and log records
//! in batches.

pub(crate) mod attributes;
mod batch;
mod encode;
mod push;
pub mod settings;
mod transport;
pub(crate) mod variables;

pub use attributes::Limits;
pub use batch::{Batches, Counts, Item, Queue};
pub use encode::{Reached, Requests, Temporality};
pub use push::Pusher;
pub use settings::{Protocol, Settings, Signal, wanted};
pub use transport::SetupError;
