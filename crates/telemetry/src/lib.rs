//! What is told of the operator's work to others: metrics for Prometheus, and metrics, traces and the log over OTLP.
//!
//! * [`catalogue`] declares every metric, once.
//! * [`series`] holds the present values, in the shape in which they come and go: by object.
//! * [`recorder`] enters what the operator observes.
//! * [`usage`] looks at what the process itself uses.
//! * [`prometheus`] and [`otlp`] tell them.
//! * [`traces`] makes spans of what the operator observes, and [`logs`] records of what is logged.

pub mod catalogue;
pub mod logs;
pub mod otlp;
pub mod prometheus;
pub mod recorder;
pub mod series;
pub mod traces;
pub mod usage;

pub use traces::trace_id;
