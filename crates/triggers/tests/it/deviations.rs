//! Conformance cases that are deliberately not met, each with its reason. A case that begins to pass must go from here.

/// The id of a case, and why it is not met.
pub const DEVIATIONS: &[(&str, &str)] = &[];
