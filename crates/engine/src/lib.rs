//! Tidemark's decisions: pure functions from a spec, readings, the workload's state and a time to a decision
//! *together with its reasons*. No I/O, no clock, no Kubernetes type.
//!
//! * [`activation`]: between zero (or idle) and the minimum, where the operator scales by itself.
//! * [`fallback`]: what stands in for a metric that cannot be read.
//! * [`composite`]: scaling modifiers, one metric made of all by a formula.
//! * [`hpa`]: between the minimum and the maximum, the HorizontalPodAutoscaler's algorithm.
//! * [`formula`]: the language of scaling modifiers.
//! * [`scaled_job`]: how many Jobs a ScaledJob starts, and which it clears away.
//! * [`controls`]: what a user's annotations ask for.
//! * [`quantity`]: numbers as the Kubernetes API writes them.
//! * [`nearest`]: the name that a user probably meant.

pub mod activation;
pub mod composite;
pub mod controls;
pub mod fallback;
pub mod formula;
pub mod hpa;
pub mod metric;
pub mod nearest;
mod outcome;
pub mod quantity;
pub mod reason;
pub mod scaled_job;
pub mod verdict;
