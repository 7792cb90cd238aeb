//! What must hold for any input, one module per target.

#![forbid(unsafe_code)]

pub mod formula;
