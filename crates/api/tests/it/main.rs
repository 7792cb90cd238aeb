//! The custom resources against a real API server, and the types against objects as KEDA leaves them.

mod conformance;
mod control_plane;
mod core_schemas;
mod objects;
mod rules;
mod served;
