//! What Tidemark serves: the external metrics API, HTTPS on a port, and the certificates that this takes.

pub mod admission_review;
pub mod certificates;
mod described;
pub mod external_metrics;
pub mod front_proxy;
pub mod guard;
pub mod https;
pub mod identity;
pub mod metrics_service;
pub mod plain;
pub mod reasons_api;
mod reply;
pub mod rotation;
mod service;
pub mod tls;

pub use external_metrics::{ExternalMetric, ExternalMetrics, MetricsSource, Values};
pub use reasons_api::{Asked, ReasonsApi, ReasonsSource};
