//! Trigger types that ask the cluster itself.

pub mod cpu_memory;
mod quantity;
mod selector;
pub mod workload;
