//! Trigger types that read HTTP endpoints of any kind.

pub mod auth_modes;
pub mod escape;
pub mod exposition;
pub mod gjson;
pub mod metrics_api;
pub mod node;
pub mod oauth2;
pub mod prometheus;
pub mod xml;
pub mod yaml;
