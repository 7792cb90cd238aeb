//! What Tidemark serves: the external metrics API, HTTPS on a port, and the certificates that this takes.

pub mod certificates;
pub mod external_metrics;
pub mod front_proxy;
pub mod guard;
pub mod https;
mod reply;

pub use external_metrics::{ExternalMetric, ExternalMetrics, MetricsSource, Values};
