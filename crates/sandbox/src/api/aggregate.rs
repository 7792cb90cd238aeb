//! Aggregated APIs: other services that answer for one version of a group.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use kube::client::Body;
use serde_json::{Value, json};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt};

use super::seconds;
use super::service::ResponseBody;
use super::world::{Shared, World};

/// A mounted API. It gets requests with their whole path, as an API server behind the aggregation layer does.
pub type AggregatedService = BoxCloneSyncService<Request<Body>, Response<ResponseBody>, Infallible>;

/// Name of the Service that stands for APIs in the same process.
const IN_PROCESS: &str = "in-process";

/// Any service as an aggregated one.
pub(crate) fn erased<S, B>(service: S) -> AggregatedService
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    BoxCloneSyncService::new(
        service.map_response(|response: Response<B>| response.map(|body| UnsyncBoxBody::new(body.map_err(Into::into)))),
    )
}

/// Mounts an API and shows it as an APIService.
pub(crate) fn mount(shared: &Shared, group: &str, version: &str, service: AggregatedService) {
    let now = shared.clock.now();
    let mut world = shared.world();
    world.mounts.insert((group.to_owned(), version.to_owned()), service);
    let name = format!("{version}.{group}");
    let body = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name},
        "spec": {
            "group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": {"namespace": "kube-system", "name": IN_PROCESS, "port": 443},
        },
    });
    // One that is there already stays as it is, but for being available now.
    let _ = world.create_own("apiregistration.k8s.io", "v1", "apiservices", body, now);
    show(&mut world, &name, condition(true, &seconds(now)));
}

fn show(world: &mut World, name: &str, condition: Value) {
    const COLLECTION: &str = "apiservices.apiregistration.k8s.io";
    let Some(object) = world.store.get(COLLECTION, "", name) else { return };
    let mut value = object.value.clone();
    value["status"] = json!({"conditions": [condition]});
    world.store.put(COLLECTION, value);
}

fn condition(available: bool, since: &str) -> Value {
    let (status, reason, message) = match available {
        true => ("True", "Passed", "all checks passed"),
        false => ("False", "NotImplemented", "the sandbox serves aggregated APIs of its own process only"),
    };
    json!({
        "type": "Available", "status": status, "reason": reason, "message": message, "lastTransitionTime": since,
    })
}

/// The status of an APIService that a client made: nothing will answer for it.
pub(super) fn unserved(value: &mut Value, _: u64) {
    if !value["spec"]["service"].is_null() {
        let since = value["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
        value["status"] = json!({"conditions": [condition(false, &since)]});
    }
}
