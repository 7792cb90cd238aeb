//! Triggers that read in-memory stores.

pub mod redis;
pub mod redis_streams;
