//! The engine against the shared conformance cases.

mod conformance;
mod formula;
mod formula_random;
