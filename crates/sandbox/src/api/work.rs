//! The verbs on the objects of a resource.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, WARNING};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};

use super::admission::{HookOperation, Question};
use super::delete::{self, Deleted};
use super::failure::Failure;
use super::logs;
use super::negotiate::View;
use super::patch::Patch;
use super::protobuf;
use super::query::{Deletion, Query};
use super::read;
use super::resource::{Form, Resource};
use super::scale;
use super::service::{Answer, ResponseBody, json_of};
use super::watch;
use super::world::{Call, Shared, World};
use super::write::{self, Part, Prepared, Written};

/// Bytes of all warnings of an answer, as on a real server: clients limit the headers that they take.
const WARNINGS_LIMIT: usize = 4 * 1024;
/// How often a write is prepared anew because the object changed while a webhook was asked.
const ATTEMPTS: usize = 5;

/// A request whose resource is known.
pub(super) struct Work {
    pub shared: Arc<Shared>,
    pub head: Parts,
    pub body: Bytes,
    pub view: View,
    pub resource: Arc<Resource>,
    /// The form of the resource that the request speaks.
    pub api_version: String,
    /// The field manager.
    pub writer: String,
}

/// What a request names.
pub(super) struct Asked {
    /// Empty for cluster-scoped objects, and for those of all namespaces.
    pub namespace: String,
    pub name: Option<String>,
    pub subresource: Option<String>,
    pub query: Query,
}

/// Reads and checks what a write would do.
type Prepare<'a> = &'a (dyn Fn(&mut World, &Call<'_>) -> Result<Prepared, Failure> + Send + Sync);

impl Work {
    fn call<'a>(&'a self, namespace: &'a str, query: &'a Query) -> Call<'a> {
        Call {
            resource: &self.resource,
            namespace,
            query,
            now: self.shared.clock.now(),
            writer: &self.writer,
            api_version: &self.api_version,
        }
    }

    /// Answers the request.
    pub(super) fn answer(self, asked: Asked) -> BoxFuture<'static, Answer> {
        let Asked { namespace, name, subresource, query } = asked;
        Box::pin(async move {
            match (&name, subresource.as_deref()) {
                (None, _) => self.collection(&namespace, query).await,
                (Some(name), None) => self.object(&namespace, name, &query).await,
                (Some(name), Some("status")) if self.resource.status => self.status(&namespace, name, &query).await,
                (Some(name), Some("scale")) if self.resource.scale.is_some() => {
                    self.scale(&namespace, name, &query).await
                }
                (Some(name), Some("log")) if &*self.resource.collection == "pods" => self.log(&namespace, name).await,
                (Some(_), Some(part)) => Err(unserved_part(&self.resource, part)),
            }
        })
    }

    async fn collection(self, namespace: &str, query: Query) -> Answer {
        match self.head.method {
            Method::GET if query.watch => Ok(self.watch(namespace, query)),
            Method::GET => {
                let call = self.call(namespace, &query);
                let world = self.shared.world();
                read::list(&world, &call, self.view).map(|body| json_of(StatusCode::OK, body))
            }
            Method::POST => {
                let body = self.sent()?;
                let prepare = |world: &mut World, call: &Call<'_>| write::create(world, call, body.clone());
                self.write(namespace, &query, StatusCode::CREATED, &prepare).await
            }
            Method::DELETE => self.delete_all(namespace, &query).await,
            _ => Err(Failure::method_not_allowed()),
        }
    }

    async fn delete_all(&self, namespace: &str, query: &Query) -> Answer {
        let (options, rehearsal) = Deletion::of(query, &self.body)?;
        let names: Vec<_> = {
            let call = self.call(namespace, query);
            let world = self.shared.world();
            read::matching(&world, &call).iter().map(|object| (object.namespace.clone(), object.name.clone())).collect()
        };
        let (mut items, mut warnings) = (Vec::new(), Vec::new());
        for (namespace, name) in names {
            let deleted = self.delete_one(&namespace, &name, query, &options, rehearsal, &mut warnings).await;
            match deleted {
                Ok(deleted) => items.push(self.resource.shown(deleted.object()).into_owned()),
                // What went away with an earlier one need not be deleted.
                Err(failure) if failure.code() == StatusCode::NOT_FOUND => {}
                Err(failure) => return Err(failure),
            }
        }
        let version = self.shared.world().store.revision().to_string();
        let list = json!({
            "kind": self.resource.list_kind, "apiVersion": self.api_version, "metadata": {"resourceVersion": version},
            "items": items,
        });
        Ok(self.answered(list.to_string().into(), &warnings, StatusCode::OK))
    }

    async fn delete_one(
        &self,
        namespace: &str,
        name: &str,
        query: &Query,
        options: &Deletion,
        rehearsal: bool,
        warnings: &mut Vec<String>,
    ) -> Result<Deleted, Failure> {
        let hooks = self.shared.hooks(&self.resource, HookOperation::Delete);
        if !hooks.is_empty() {
            let found = self.shared.world().store.get(&self.resource.collection, namespace, name).cloned();
            let found = found.ok_or_else(|| self.resource.not_found(name))?;
            let old = self.resource.shown(&found).into_owned();
            let question = Question { operation: HookOperation::Delete, name, object: Value::Null, old };
            for hook in hooks {
                hook.ask(&self.call(namespace, query), &question, warnings).await?;
            }
        }
        let call = self.call(namespace, query);
        delete::delete(&mut self.shared.world(), &call, name, options, rehearsal)
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

    /// Prepares a write, asks the webhooks, and makes it.
    async fn write(&self, namespace: &str, query: &Query, status: StatusCode, prepare: Prepare<'_>) -> Answer {
        let written = self.made(namespace, query, prepare).await?;
        // An apply may have made what was not there.
        let new = status == StatusCode::OK && written.1;
        let status = if new { StatusCode::CREATED } else { status };
        let call = self.call(namespace, query);
        let body = read::rendered(&call, &written.0.object, self.view);
        Ok(self.answered(body, &written.0.warnings, status))
    }

    /// What has been written, and whether it is new.
    async fn made(&self, namespace: &str, query: &Query, prepare: Prepare<'_>) -> Result<(Written, bool), Failure> {
        for _ in 0..ATTEMPTS {
            let (mut prepared, hooks) = {
                let call = self.call(namespace, query);
                let mut world = self.shared.world();
                let prepared = prepare(&mut world, &call)?;
                let operation = if prepared.old.is_some() { HookOperation::Update } else { HookOperation::Create };
                let hooks = if prepared.asks() { self.shared.hooks(&self.resource, operation) } else { Vec::new() };
                if hooks.is_empty() {
                    let new = prepared.old.is_none();
                    // The world was not given back in between.
                    let written = write::commit(&mut world, &call, prepared)?;
                    return written.map(|written| (written, new)).ok_or_else(|| self.resource.stale(""));
                }
                (prepared, hooks)
            };
            let question = prepared.question(&self.resource);
            let mut warnings = Vec::new();
            for hook in &hooks {
                hook.ask(&self.call(namespace, query), &question, &mut warnings).await?;
            }
            drop(question);
            prepared.warnings.append(&mut warnings);
            let new = prepared.old.is_none();
            let call = self.call(namespace, query);
            if let Some(written) = write::commit(&mut self.shared.world(), &call, prepared)? {
                return Ok((written, new));
            }
        }
        Err(self.resource.stale(""))
    }

    async fn object(self, namespace: &str, name: &str, query: &Query) -> Answer {
        match self.head.method {
            Method::GET => self.get(namespace, name, query),
            Method::PUT | Method::PATCH => self.change(namespace, name, query, Part::Whole).await,
            Method::DELETE => {
                let (options, rehearsal) = Deletion::of(query, &self.body)?;
                let mut warnings = Vec::new();
                let deleted = self.delete_one(namespace, name, query, &options, rehearsal, &mut warnings).await?;
                let body = match deleted {
                    Deleted::Gone(object) => delete::success(&self.resource, &object).to_string().into(),
                    Deleted::Pending(object) => read::rendered(&self.call(namespace, query), &object, self.view),
                };
                Ok(self.answered(body, &warnings, StatusCode::OK))
            }
            _ => Err(Failure::method_not_allowed()),
        }
    }

    fn get(&self, namespace: &str, name: &str, query: &Query) -> Answer {
        let call = self.call(namespace, query);
        let world = self.shared.world();
        read::get(&world, &call, name, self.view).map(|body| json_of(StatusCode::OK, body))
    }

    async fn change(&self, namespace: &str, name: &str, query: &Query, part: Part) -> Answer {
        if self.head.method == Method::PUT {
            let body = self.sent()?;
            let prepare = |world: &mut World, call: &Call<'_>| write::update(world, call, name, body.clone(), part);
            return self.write(namespace, query, StatusCode::OK, &prepare).await;
        }
        let patch = self.patch(matches!(self.resource.form, Form::Builtin(_)))?;
        if matches!(patch, Patch::Apply(_)) && query.field_manager.is_empty() {
            return Err(super::query::nobody_applies());
        }
        let prepare = |world: &mut World, call: &Call<'_>| write::patch(world, call, name, &patch, part);
        self.write(namespace, query, StatusCode::OK, &prepare).await
    }

    async fn status(self, namespace: &str, name: &str, query: &Query) -> Answer {
        match self.head.method {
            Method::GET => self.get(namespace, name, query),
            Method::PUT | Method::PATCH => self.change(namespace, name, query, Part::Status).await,
            _ => Err(Failure::method_not_allowed()),
        }
    }

    async fn scale(self, namespace: &str, name: &str, query: &Query) -> Answer {
        let paths = self.resource.scale.clone().ok_or_else(Failure::no_such_path)?;
        let object = match self.head.method {
            Method::GET => {
                let found = self.shared.world().store.get(&self.resource.collection, namespace, name).cloned();
                let found = found.ok_or_else(|| self.resource.not_found(name))?;
                scale::read(&paths, &self.resource.shown(&found))?;
                found
            }
            Method::PUT => {
                let wanted = self.sent()?;
                let change = |_: Value| Ok(wanted.clone());
                let prepare = |world: &mut World, call: &Call<'_>| write::rescale(world, call, name, &change);
                self.made(namespace, query, &prepare).await?.0.object
            }
            Method::PATCH => {
                // A Scale has no lists, so that both merges are the same.
                let patch = self.patch(true)?;
                let change = |present: Value| patch.applied(&present, None);
                let prepare = |world: &mut World, call: &Call<'_>| write::rescale(world, call, name, &change);
                self.made(namespace, query, &prepare).await?.0.object
            }
            _ => return Err(Failure::method_not_allowed()),
        };
        let scale = scale::of(&paths, &self.resource.shown(&object));
        let body = match self.view {
            View::Metadata => read::metadata_only(&scale),
            View::Table => scale::table(&scale, query.include_object.as_deref(), self.shared.clock.now()),
            _ => scale,
        };
        Ok(json_of(StatusCode::OK, body.to_string()))
    }

    async fn log(self, namespace: &str, name: &str) -> Answer {
        if self.head.method != Method::GET {
            return Err(Failure::method_not_allowed());
        }
        let pod = self.shared.world().store.get(&self.resource.collection, namespace, name).cloned();
        let pod = pod.ok_or_else(|| self.resource.not_found(name))?;
        let Some(logs) = self.shared.logs() else {
            return Err(Failure::not_implemented("subresource pods/log of simulated pods, which run nothing"));
        };
        let query = self.head.uri.query().unwrap_or_default();
        let text = logs::read(&*logs, &pod.value, query, self.shared.clock.now()).await?;
        let body = StreamBody::new(text.map(|text| Ok::<_, Infallible>(Frame::data(text))));
        let mut response = Response::new(UnsyncBoxBody::new(body.map_err(|never| match never {})));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok(response)
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

    /// The patch in the body; `strategic`: the resource takes strategic merge patches.
    fn patch(&self, strategic: bool) -> Result<Patch, Failure> {
        Patch::parse(self.content_type(), &self.body, strategic)
    }

    fn answered(&self, body: Bytes, warnings: &[String], status: StatusCode) -> Response<ResponseBody> {
        let mut response = json_of(status, body);
        let mut length = 0;
        for warning in warnings {
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
