//! What Tidemark serves: the external metrics API, HTTPS on a port, and the certificates that this takes.

pub mod admission_review;
pub mod certificates;
pub mod external_metrics;
pub mod front_proxy;
pub mod guard;
pub mod https;
pub mod identity;
pub mod metrics_service;
pub mod plain;
mod reply;
pub mod rotation;
pub mod tls;

pub use external_metrics::{ExternalMetric, ExternalMetrics, MetricsSource, Values};
