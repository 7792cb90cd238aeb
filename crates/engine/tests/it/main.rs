//! The engine against the shared conformance cases.

mod conformance;
