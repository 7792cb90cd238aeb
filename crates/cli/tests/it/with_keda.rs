//! Tidemark beside KEDA itself: what both do with the same objects, and how their processes work together.

mod admission;
mod flags;
mod metrics;
mod mixed;
mod objects;
pub mod processes;
mod situation;
