//! The Kubernetes API over the store: routes, negotiation, verbs, and the rules of each kind.
//!
//! One lock guards the store, the catalogue of resources and the mounted APIs; each request does its whole
//! read-check-write under it, and nothing waits while holding it. Watches take it for a moment whenever they are woken.

mod admission;
mod admit;
mod aggregate;
mod cel;
mod cells;
mod crd;
mod defaults;
mod delete;
mod discovery;
mod event;
mod failure;
mod fields;
mod hpa;
mod hpa_one;
mod jsonpath;
mod kinds;
mod logs;
mod names;
mod negotiate;
mod openapi;
mod patch;
mod protobuf;
mod query;
mod read;
mod resource;
mod route;
mod rows;
mod scale;
mod schema;
mod selector;
mod service;
mod strategic;
mod table;
mod validation;
mod watch;
mod work;
mod world;
mod write;

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::client::Body;
use tower::{BoxError, Service};

pub use admission::{AdmissionHook, AdmissionRule, HookOperation};
pub use aggregate::AggregatedService;
pub use logs::{ContainerLogs, LogLine, LogRequest};
pub use service::{ApiService, ResponseBody};
pub(crate) use world::Shared;

/// A time as `metav1.Time` writes it, to the second.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Creates a CustomResourceDefinition; one that is there already is replaced.
pub(crate) fn install(shared: &Shared, crd: &CustomResourceDefinition) -> Result<(), String> {
    let body = serde_json::to_value(crd).map_err(|error| error.to_string())?;
    let (mut world, now) = (shared.world(), shared.clock.now());
    let name = crd.metadata.name.as_deref().unwrap_or_default();
    let installed = world.store.get(delete::DEFINITIONS, "", name).map(|object| object.revision);
    let outcome = match installed {
        None => world.create_own("apiextensions.k8s.io", "v1", "customresourcedefinitions", body, now),
        Some(revision) => world.replace_definition(name, body, revision, now),
    };
    outcome.map(|_| ()).map_err(|failure| failure.status()["message"].as_str().unwrap_or_default().to_owned())
}

/// A service as an admission webhook has it.
pub(crate) fn webhook<S, B>(service: S) -> AggregatedService
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    aggregate::erased(service)
}

/// Mounts a service for a version of a group.
pub(crate) fn mount<S, B>(shared: &Shared, group: &str, version: &str, service: S)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    aggregate::mount(shared, group, version, aggregate::erased(service));
}
