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

use std::sync::Arc;

use futures::FutureExt;
use futures::future::{self, BoxFuture};
use tidemark_trigger::{Connection, SourceError};

/// What a trigger's `connect` returns that has nothing to wait for: each read is a request of its own.
pub fn connected<'a>(
    endpoint: Result<impl Connection, SourceError>,
) -> BoxFuture<'a, Result<Arc<dyn Connection>, SourceError>> {
    future::ready(endpoint.map(|endpoint| Arc::new(endpoint) as Arc<dyn Connection>)).boxed()
}
