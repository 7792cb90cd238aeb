//! What must hold for any input, one module per target.

#![forbid(unsafe_code)]

pub mod broker;
pub mod formula;
pub mod manifests;
pub mod mutation;
pub mod replies;
