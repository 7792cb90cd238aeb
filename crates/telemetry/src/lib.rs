//! What is told of the operator's work to others: metrics for Prometheus and over OTLP.
//!
//! * [`catalogue`] declares every metric, once.
//! * [`series`] holds the present values, in the shape in which they come and go: by object.
//! * [`recorder`] enters what the operator observes.
//! * [`prometheus`] and [`otlp`] tell them.

pub mod catalogue;
pub mod otlp;
pub mod prometheus;
pub mod recorder;
pub mod series;
