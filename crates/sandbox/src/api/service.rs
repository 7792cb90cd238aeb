//! The API as a tower service: from an HTTP request to the verb that it asks for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use kube::client::Body;
use serde_json::Value;
use tower::{BoxError, Service, ServiceExt};

use super::failure::Failure;
use super::negotiate::{self, View};
use super::query::Query;
use super::resource::{Form, Resource};
use super::route::{Route, Target};
use super::work::{Asked, Work};
use super::world::Shared;
use super::{discovery, openapi};

/// What answers are made of.
pub type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// Longest request body in bytes, as on a real server.
const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// A mounted API has this long to say what it serves.
const MOUNT_PATIENCE: Duration = Duration::from_secs(5);
/// Media type of aggregated discovery.
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// Groups of Kubernetes of which the sandbox serves nothing.
const UNSERVED_GROUPS: &[&str] = &[
    "admissionregistration.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "certificates.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// The Kubernetes API of a sandbox. Cheap to clone; takes requests with any body.
#[derive(Clone)]
pub struct ApiService {
    shared: Arc<Shared>,
}

impl ApiService {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl<B> Service<Request<B>> for ApiService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = match Limited::new(body, BODY_LIMIT).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) => return Ok(failed(&unreadable(&*error))),
            };
            Ok(Exchange { shared, head, body }.answer().await.unwrap_or_else(|failure| failed(&failure)))
        })
    }
}

fn unreadable(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Failure {
    if error.is::<LengthLimitError>() {
        return Failure::too_large_body(BODY_LIMIT);
    }
    Failure::bad_request(format!("the body of the request could not be read: {error}"))
}

pub(super) fn full(status: StatusCode, media: &'static str, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let body = Full::new(body.into()).map_err(|never| match never {});
    let mut response = Response::new(UnsyncBoxBody::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

pub(super) fn json_of(status: StatusCode, body: impl Into<Bytes>) -> Response<ResponseBody> {
    full(status, "application/json", body)
}

fn failed(failure: &Failure) -> Response<ResponseBody> {
    json_of(failure.code(), failure.status().to_string())
}

pub(super) type Answer = Result<Response<ResponseBody>, Failure>;

/// One request on its way to an answer.
struct Exchange {
    shared: Arc<Shared>,
    head: Parts,
    body: Bytes,
}

impl Exchange {
    async fn answer(self) -> Answer {
        let uri = self.head.uri.clone();
        let route = Route::of(uri.path());
        if let Some((group, version)) = mountable(&route) {
            let mounted = self.shared.world().mounts.get(&(group.to_owned(), version.to_owned())).cloned();
            if let Some(service) = mounted {
                return self.forward(service).await;
            }
        }
        if let Route::Objects(target) = &route {
            let (work, asked) = self.objects(target)?;
            return work.answer(asked).await;
        }
        if self.head.method != Method::GET {
            return Err(if matches!(route, Route::Unknown) {
                Failure::no_such_path()
            } else {
                Failure::method_not_allowed()
            });
        }
        match &route {
            Route::Health => Ok(full(StatusCode::OK, "text/plain", "ok")),
            Route::OpenApiTwo if openapi::wants_protobuf(&self.head.headers) => {
                Ok(full(StatusCode::OK, openapi::PROTOBUF, openapi::SECOND_IN_PROTOBUF))
            }
            Route::CoreVersions | Route::Groups if negotiate::view(&self.head.headers)? == View::Discovery => {
                let core = route == Route::CoreVersions;
                let mounted = if core { BTreeMap::new() } else { self.mounted().await };
                let list = discovery::aggregated(&self.shared.world(), core, &mounted);
                Ok(full(StatusCode::OK, DISCOVERY, list.to_string()))
            }
            other => self.document(other).map(|value| json_of(StatusCode::OK, value.to_string())),
        }
    }

    fn document(&self, route: &Route<'_>) -> Result<Value, Failure> {
        let world = self.shared.world();
        match route {
            Route::Version => Ok(discovery::version()),
            Route::CoreVersions => Ok(discovery::core_versions()),
            Route::Groups => Ok(discovery::all_groups(&world)),
            Route::Group(group) => discovery::one_group(&world, group),
            Route::Resources { group, version } => discovery::resources(&world, group, version),
            Route::OpenApi => Ok(openapi::root(&world)),
            Route::OpenApiOf { group, version } => openapi::document(&world, group, version),
            Route::OpenApiTwo => Ok(openapi::second()),
            Route::Health | Route::Objects(_) | Route::Unknown => Err(Failure::no_such_path()),
        }
    }

    async fn forward(self, service: super::AggregatedService) -> Answer {
        let request = Request::from_parts(self.head, Body::from(self.body));
        match service.oneshot(request).await {
            Ok(response) => Ok(response),
            Err(never) => match never {},
        }
    }

    /// The resource lists of the mounted APIs; one that does not answer properly is left out.
    async fn mounted(&self) -> BTreeMap<(String, String), Value> {
        let mounts: Vec<_> =
            self.shared.world().mounts.iter().map(|(key, service)| (key.clone(), service.clone())).collect();
        let mut lists = BTreeMap::new();
        for ((group, version), service) in mounts {
            let Ok(request) = Request::get(format!("/apis/{group}/{version}")).body(Body::empty()) else { continue };
            let answered = async {
                let Ok(response) = service.oneshot(request).await;
                let body = response.into_body().collect().await.ok()?;
                serde_json::from_slice(&body.to_bytes()).ok()
            };
            if let Ok(Some(list)) = tokio::time::timeout(MOUNT_PATIENCE, answered).await {
                lists.insert((group, version), list);
            }
        }
        lists
    }

    /// What is asked for, and what is needed to answer.
    fn objects(self, target: &Target<'_>) -> Result<(Work, Asked), Failure> {
        let query = Query::parse(self.head.uri.query().unwrap_or_default())?;
        let view = match negotiate::view(&self.head.headers)? {
            View::Discovery => return Err(Failure::not_acceptable()),
            view => view,
        };
        let resource = self.resource(target)?;
        let namespace = target.namespace.as_deref().unwrap_or_default();
        let nowhere = resource.namespaced && namespace.is_empty();
        if !resource.namespaced && !namespace.is_empty() || nowhere && target.name.is_some() {
            return Err(Failure::no_such_path());
        }
        if nowhere && !matches!(self.head.method, Method::GET | Method::DELETE) {
            return Err(Failure::method_not_allowed());
        }
        query.fields.check(resource.selectable(), |field| resource.unselectable(field))?;
        let asked = Asked {
            namespace: namespace.to_owned(),
            name: target.name.as_deref().map(str::to_owned),
            subresource: target.subresource.as_deref().map(str::to_owned),
            query,
        };
        let api_version = resource.api_version();
        let writer = writer(&asked.query, &self.head.headers);
        let work = Work { shared: self.shared, head: self.head, body: self.body, view, resource, api_version, writer };
        Ok((work, asked))
    }

    fn resource(&self, target: &Target<'_>) -> Result<Arc<Resource>, Failure> {
        let world = self.shared.world();
        if let Some(resource) = world.catalogue.get(&target.group, &target.version, &target.plural) {
            return Ok(resource.clone());
        }
        let known = UNSERVED_GROUPS.contains(&&*target.group)
            || world.catalogue.all().any(|one| matches!(one.form, Form::Builtin(_)) && one.group == target.group);
        if known {
            let version = super::resource::api_version(&target.group, &target.version);
            return Err(Failure::not_implemented(&format!("resource {} of {version}", target.plural)));
        }
        Err(Failure::no_such_path())
    }
}

/// The group and version whose mounted API would answer.
fn mountable<'a>(route: &'a Route<'_>) -> Option<(&'a str, &'a str)> {
    match route {
        Route::Resources { group, version } | Route::OpenApiOf { group, version } => Some((&**group, &**version)),
        Route::Objects(target) => Some((&*target.group, &*target.version)),
        _ => None,
    }
}

/// Who writes: the field manager, or the client by its name.
fn writer(query: &Query, headers: &HeaderMap) -> String {
    if !query.field_manager.is_empty() {
        return query.field_manager.clone();
    }
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    match agent.split('/').next().unwrap_or_default() {
        "" => "unknown".to_owned(),
        name => name.chars().take(128).collect(),
    }
}
