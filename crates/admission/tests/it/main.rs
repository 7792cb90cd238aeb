//! Integration tests of the admission rules.

mod cases;
mod conformance;
mod memory;
