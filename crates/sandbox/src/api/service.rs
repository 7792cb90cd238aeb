//! The API as a tower service: from an HTTP request to the verb that it asks for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, WARNING};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use tower::{BoxError, Service, ServiceExt};

use super::delete::{self, Deleted};
use super::failure::Failure;
use super::negotiate::{self, View};
use super::patch::Patch;
use super::query::{Deletion, Query};
use super::read;
use super::resource::{Form, Resource};
use super::route::{Route, Target};
use super::scale;
use super::watch;
use super::world::{Call, Shared};
use super::write::{self, Part, Written};
use super::{discovery, openapi, protobuf};

/// What answers are made of.
pub type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// Longest request body in bytes, as on a real server.
const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// Bytes of all warnings of an answer, as on a real server: clients limit the headers that they take.
const WARNINGS_LIMIT: usize = 4 * 1024;
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

fn full(status: StatusCode, media: &'static str, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let body = Full::new(body.into()).map_err(|never| match never {});
    let mut response = Response::new(UnsyncBoxBody::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

fn json_of(status: StatusCode, body: impl Into<Bytes>) -> Response<ResponseBody> {
    full(status, "application/json", body)
}

fn failed(failure: &Failure) -> Response<ResponseBody> {
    json_of(failure.code(), failure.status().to_string())
}

type Answer = Result<Response<ResponseBody>, Failure>;

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
            return self.objects(target);
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

    fn objects(self, target: &Target<'_>) -> Answer {
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
        query.fields.check(resource.selectable())?;
        let work = Work { shared: self.shared, head: self.head, body: self.body, view, resource };
        match (&target.name, target.subresource.as_deref()) {
            (None, _) => work.collection(namespace, query),
            (Some(name), None) => work.object(namespace, name, &query),
            (Some(name), Some("status")) if work.resource.status => work.status(namespace, name, &query),
            (Some(name), Some("scale")) if work.resource.scale.is_some() => work.scale(namespace, name, &query),
            (Some(_), Some(part)) => Err(unserved_part(&work.resource, part)),
        }
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

/// Subresources that a real server has are named; others do not exist.
fn unserved_part(resource: &Resource, part: &str) -> Failure {
    match part {
        "attach"
        | "binding"
        | "ephemeralcontainers"
        | "eviction"
        | "exec"
        | "finalize"
        | "log"
        | "portforward"
        | "proxy"
        | "resize"
        | "token" => Failure::not_implemented(&format!("subresource {}/{part}", resource.plural)),
        _ => Failure::no_such_path(),
    }
}

/// A request whose resource is known.
struct Work {
    shared: Arc<Shared>,
    head: Parts,
    body: Bytes,
    view: View,
    resource: Arc<Resource>,
}

impl Work {
    fn call<'a>(&'a self, namespace: &'a str, query: &'a Query) -> Call<'a> {
        Call { resource: &self.resource, namespace, query, now: self.shared.clock.now() }
    }

    fn collection(self, namespace: &str, query: Query) -> Answer {
        match self.head.method {
            Method::GET if query.watch => return Ok(self.watch(namespace, query)),
            _ => {}
        }
        let call = self.call(namespace, &query);
        let mut world = self.shared.world();
        match self.head.method {
            Method::GET => read::list(&world, &call, self.view).map(|body| json_of(StatusCode::OK, body)),
            Method::POST => {
                let written = write::create(&mut world, &call, self.sent()?)?;
                Ok(self.written(&call, &written, StatusCode::CREATED))
            }
            Method::DELETE => {
                let (options, rehearsal) = Deletion::of(&query, &self.body)?;
                let names: Vec<_> = read::matching(&world, &call)
                    .iter()
                    .map(|object| (object.namespace.clone(), object.name.clone()))
                    .collect();
                let mut items = Vec::new();
                for (namespace, name) in names {
                    let call = self.call(&namespace, &query);
                    // What went away with an earlier one need not be deleted.
                    if let Ok(deleted) = delete::delete(&mut world, &call, &name, &options, rehearsal) {
                        items.push(self.resource.shown(deleted.object()).into_owned());
                    }
                }
                let version = world.store.revision().to_string();
                let list = json!({
                    "kind": self.resource.list_kind, "apiVersion": self.resource.api_version(),
                    "metadata": {"resourceVersion": version}, "items": items,
                });
                Ok(json_of(StatusCode::OK, list.to_string()))
            }
            _ => Err(Failure::method_not_allowed()),
        }
    }

    fn watch(self, namespace: &str, query: Query) -> Response<ResponseBody> {
        let Self { shared, view, resource, .. } = self;
        let stream = {
            let mut world = shared.world();
            watch::start(shared.clone(), &mut world, resource, namespace, query, view)
        };
        let body = StreamBody::new(stream).map_err(|never: Infallible| match never {});
        let mut response = Response::new(UnsyncBoxBody::new(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    fn object(self, namespace: &str, name: &str, query: &Query) -> Answer {
        let call = self.call(namespace, query);
        let mut world = self.shared.world();
        match self.head.method {
            Method::GET => read::get(&world, &call, name, self.view).map(|body| json_of(StatusCode::OK, body)),
            Method::PUT => {
                let written = write::update(&mut world, &call, name, self.sent()?, Part::Whole)?;
                Ok(self.written(&call, &written, StatusCode::OK))
            }
            Method::PATCH => {
                let written = write::patch(&mut world, &call, name, &self.patch()?, Part::Whole)?;
                Ok(self.written(&call, &written, StatusCode::OK))
            }
            Method::DELETE => {
                let (options, rehearsal) = Deletion::of(query, &self.body)?;
                let body = match delete::delete(&mut world, &call, name, &options, rehearsal)? {
                    Deleted::Gone(object) => delete::success(&self.resource, &object).to_string().into(),
                    Deleted::Pending(object) => read::rendered(&call, &object, self.view),
                };
                Ok(json_of(StatusCode::OK, body))
            }
            _ => Err(Failure::method_not_allowed()),
        }
    }

    fn status(self, namespace: &str, name: &str, query: &Query) -> Answer {
        let call = self.call(namespace, query);
        let mut world = self.shared.world();
        let written = match self.head.method {
            Method::GET => return read::get(&world, &call, name, self.view).map(|body| json_of(StatusCode::OK, body)),
            Method::PUT => write::update(&mut world, &call, name, self.sent()?, Part::Status)?,
            Method::PATCH => write::patch(&mut world, &call, name, &self.patch()?, Part::Status)?,
            _ => return Err(Failure::method_not_allowed()),
        };
        Ok(self.written(&call, &written, StatusCode::OK))
    }

    fn scale(self, namespace: &str, name: &str, query: &Query) -> Answer {
        let paths = self.resource.scale.as_ref().ok_or_else(Failure::no_such_path)?;
        let call = self.call(namespace, query);
        let mut world = self.shared.world();
        let object = match self.head.method {
            Method::GET => {
                let found = world.store.get(&self.resource.collection, namespace, name);
                let found = found.cloned().ok_or_else(|| self.resource.not_found(name))?;
                scale::read(paths, &self.resource.shown(&found))?;
                found
            }
            Method::PUT => {
                let wanted = self.sent()?;
                write::rescale(&mut world, &call, name, |_| Ok(wanted))?.object
            }
            Method::PATCH => {
                // A Scale has no lists, so that both merges are the same.
                let patch = self.patch_of(true)?;
                write::rescale(&mut world, &call, name, |present| patch.applied(&present))?.object
            }
            _ => return Err(Failure::method_not_allowed()),
        };
        let scale = scale::of(paths, &self.resource.shown(&object));
        let body = match self.view {
            View::Metadata => read::metadata_only(&scale),
            _ => scale,
        };
        Ok(json_of(StatusCode::OK, body.to_string()))
    }

    fn content_type(&self) -> &str {
        self.head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json")
    }

    /// The object in the body.
    fn sent(&self) -> Result<Value, Failure> {
        let media = self.content_type().split(';').next().unwrap_or_default().trim();
        if media == protobuf::MEDIA {
            return protobuf::read(&self.body);
        }
        if media != "application/json" {
            return Err(Failure::unsupported_media_type("application/json"));
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::bad_request(format!("the body of the request is no JSON: {error}")))
    }

    fn patch(&self) -> Result<Patch, Failure> {
        self.patch_of(matches!(self.resource.form, Form::Builtin(_)))
    }

    fn patch_of(&self, strategic: bool) -> Result<Patch, Failure> {
        Patch::parse(self.content_type(), &self.body, strategic)
    }

    fn written(&self, call: &Call<'_>, written: &Written, status: StatusCode) -> Response<ResponseBody> {
        let mut response = json_of(status, read::rendered(call, &written.object, self.view));
        let mut length = 0;
        for warning in &written.warnings {
            let text = format!("299 - \"{}\"", warning.replace('\\', "\\\\").replace('"', "\\\""));
            length += text.len();
            if length > WARNINGS_LIMIT {
                break;
            }
            if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                response.headers_mut().append(WARNING, value);
            }
        }
        response
    }
}
