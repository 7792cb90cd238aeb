//! Tidemark's decisions: pure functions from a spec, readings, the workload's state and a time to a decision
//! *together with its reasons*. No I/O, no clock, no Kubernetes type.
//!
//! * [`activation`]: between zero (or idle) and the minimum, where the operator scales by itself.
//! * [`hpa`]: between the minimum and the maximum, the HorizontalPodAutoscaler's algorithm.
//! * [`controls`]: what a user's annotations ask for.
//! * [`quantity`]: numbers as the Kubernetes API writes them.

pub mod activation;
pub mod controls;
pub mod hpa;
pub mod quantity;
pub mod reason;
pub mod verdict;
