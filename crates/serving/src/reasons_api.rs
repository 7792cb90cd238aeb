//! `reasons.tidemark.dev/v1alpha1`: why each ScaledObject's workload has the replicas it has. Read-only.
//!
//! What is answered comes from a source, the operator of this process or one behind a link; here are access, discovery
//! and OpenAPI, so that the API can stand behind the API server's aggregation layer.

mod table;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::described::{self, Described, Parameter, operation_v2, operation_v3};
use crate::front_proxy::Access;
use crate::guard;
use crate::plain;
use crate::reply::{self, Form};
use crate::service::{path, service};

/// The API group.
pub const GROUP: &str = "reasons.tidemark.dev";
/// The only version.
pub const VERSION: &str = "v1alpha1";
/// The only resource.
pub(crate) const PLURAL: &str = "scaledobjects";
const BASE: &str = "/apis/reasons.tidemark.dev/v1alpha1";
const KIND: &str = "ScaledObjectReasons";
/// What the names of the schemas begin with.
const SCHEMA: &str = "dev.tidemark.reasons.v1alpha1.ScaledObjectReasons";
/// A request is cut off after this long.
const LONGEST: Duration = Duration::from_secs(40);

/// What a source answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// A status of HTTP.
    pub status: u16,
    /// A JSON document.
    pub json: String,
}

/// Where answers come from.
pub trait ReasonsSource: Send + Sync + 'static {
    /// The answer to a GET of `path` with that query.
    fn ask<'a>(&'a self, path: &'a str, query: &'a str) -> BoxFuture<'a, Asked>;
}

/// The API as a tower service. Cheap to clone.
#[derive(Clone)]
pub struct ReasonsApi {
    source: Arc<dyn ReasonsSource>,
    access: Access,
    described: Arc<Described>,
    /// Only requests that name this machine as their host are answered.
    only_loopback: bool,
}

impl ReasonsApi {
    /// The API over a source; `access` says who may read, and `schemas` are those of OpenAPI v3, by name.
    pub fn new(source: Arc<dyn ReasonsSource>, access: Access, schemas: Map<String, Value>) -> Self {
        Self { source, access, described: Arc::new(described(schemas)), only_loopback: false }
    }

    /// Serves over plain HTTP on a port of the loopback until `shutdown`. A page in a browser of this machine, which
    /// reaches the port under a name that its owner's DNS points there, is turned away.
    pub fn serve_on_loopback(self, listener: TcpListener, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        let api = Self { only_loopback: true, ..self };
        let service = tower::service_fn(move |request: Request<plain::Incoming>| {
            let (api, (head, _)) = (api.clone(), request.into_parts());
            async move { Ok::<_, Infallible>(api.respond(head).await.map(plain::whole)) }
        });
        plain::serve(listener, service, shutdown)
    }

    pub(crate) fn described(&self) -> &Described {
        &self.described
    }

    async fn respond(self, head: http::request::Parts) -> Response<Bytes> {
        let authority = head.uri.authority().map(http::uri::Authority::as_str);
        if let Some(message) = guard::stranger(authority, &head.headers).filter(|_| self.only_loopback) {
            return reply::failure(StatusCode::FORBIDDEN, "Forbidden", message);
        }
        let path = path(&head.uri);
        if let Some(refusal) = self.access.refusal(&head, path).await {
            return refusal;
        }
        if head.method != Method::GET && head.method != Method::HEAD {
            return reply::failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "only GET is served here");
        }
        match described::find(path, &head.headers, "tidemark", &[&self.described]) {
            Some(document) => document,
            None => self.answer(path, &head).await,
        }
    }

    /// Answers a GET whose caller may read what it asks for.
    pub(crate) async fn answer(&self, path: &str, head: &http::request::Parts) -> Response<Bytes> {
        if reasons_path(path).is_none() {
            let message = "the server could not find the requested resource";
            return reply::failure(StatusCode::NOT_FOUND, "NotFound", message);
        }
        let query = head.uri.query().unwrap_or_default();
        if query.split('&').any(|parameter| matches!(parameter, "watch=true" | "watch=1")) {
            let message = "reasons cannot be watched: ask again, as `tidemark explain --watch` does";
            return reply::failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message);
        }
        let Ok(answer) = tokio::time::timeout(LONGEST, self.source.ask(path, query)).await else {
            return reply::failure(StatusCode::GATEWAY_TIMEOUT, "Timeout", "the operator did not answer in time");
        };
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if reply::accepts(&head.headers, table::is_table)
            && let Some(table) = serde_json::from_str(&answer.json).ok().as_ref().and_then(table::table)
        {
            return reply::json(status, &table);
        }
        let mut response = Response::new(Bytes::from(answer.json));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        reply::in_form(response, Form::asked(&head.headers))
    }
}

service!(ReasonsApi, [B: Send + 'static], Full<Bytes>, |this, request| {
    let (head, _) = request.into_parts();
    this.respond(head).await.map(Full::new)
});

/// Namespace and name of a path of the API; none of a namespace where all are asked for, none of a name for lists.
/// Access is asked for what this gives, and nothing else is answered.
pub(crate) fn reasons_path(path: &str) -> Option<(Option<String>, Option<String>)> {
    let rest = path.strip_prefix(BASE)?.strip_prefix('/')?;
    let decode = |piece: &str| {
        let piece = percent_decode_str(piece).decode_utf8().ok()?;
        // A slash would be a subresource to whoever judges access.
        (!piece.is_empty() && !piece.contains('/')).then(|| piece.into_owned())
    };
    let pieces: Vec<&str> = rest.split('/').collect();
    match &*pieces {
        [PLURAL] => Some((None, None)),
        ["namespaces", namespace, PLURAL] => Some((Some(decode(namespace)?), None)),
        ["namespaces", namespace, PLURAL, name] => Some((Some(decode(namespace)?), Some(decode(name)?))),
        _ => None,
    }
}

const NAMESPACE: Parameter = ("namespace", "path", "Namespace of the ScaledObjects");
const NAME: Parameter = ("name", "path", "Name of the ScaledObject");
const LIMIT: Parameter = ("limit", "query", "So many objects at most");
const CONTINUE: Parameter = ("continue", "query", "metadata.continue of the page before");

fn described(schemas: Map<String, Value>) -> Described {
    let list = format!("{SCHEMA}List");
    let paths: [(&str, &[Parameter], &str, Value); 3] = [
        (
            "/namespaces/{namespace}/scaledobjects/{name}",
            &[NAMESPACE, NAME],
            SCHEMA,
            operation("read", "Namespaced", "Why a ScaledObject's workload has the replicas it has"),
        ),
        (
            "/namespaces/{namespace}/scaledobjects",
            &[NAMESPACE, LIMIT, CONTINUE],
            &list,
            operation("list", "Namespaced", "The state of all ScaledObjects of a namespace"),
        ),
        ("/scaledobjects", &[LIMIT, CONTINUE], &list, operation("list", "", "The state of all ScaledObjects")),
    ];
    let all = |of: fn(Value, &[Parameter], &str) -> Value| {
        let path = |(path, parameters, schema, operation): &(&str, &[Parameter], &str, Value)| {
            (format!("{BASE}{path}"), of(operation.clone(), parameters, schema))
        };
        paths.iter().map(path).collect::<Map<String, Value>>()
    };
    // What OpenAPI v2 cannot say of the reports, v3 says.
    let coarse = |kind: &str| {
        json!({
            "type": "object", "description": "See OpenAPI v3",
            "x-kubernetes-group-version-kind": [{"group": GROUP, "version": VERSION, "kind": kind}],
        })
    };
    let definitions = [(SCHEMA.to_owned(), coarse(KIND)), (list.clone(), coarse("ScaledObjectReasonsList"))];
    Described {
        group: GROUP,
        version: VERSION,
        resources: vec![json!({
            "name": PLURAL, "singularName": "", "namespaced": true, "kind": KIND, "verbs": ["get", "list"],
        })],
        aggregated: vec![json!({
            "resource": PLURAL, "scope": "Namespaced", "singularResource": "", "verbs": ["get", "list"],
            "responseKind": {"group": GROUP, "version": VERSION, "kind": KIND},
        })],
        paths_v2: all(operation_v2),
        definitions: definitions.into_iter().collect(),
        paths_v3: all(operation_v3),
        schemas,
    }
}

fn operation(verb: &str, scope: &str, description: &str) -> Value {
    let all = if scope.is_empty() { "ForAllNamespaces" } else { "" };
    json!({
        "description": description, "operationId": format!("{verb}ReasonsV1alpha1{scope}ScaledObject{all}"),
        "tags": ["reasons_v1alpha1"],
        "x-kubernetes-group-version-kind": {"group": GROUP, "version": VERSION, "kind": KIND},
    })
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    struct Echo;

    impl ReasonsSource for Echo {
        fn ask<'a>(&'a self, path: &'a str, query: &'a str) -> BoxFuture<'a, Asked> {
            Box::pin(async move { Asked { status: 200, json: json!({"path": path, "query": query}).to_string() } })
        }
    }

    async fn get(api: ReasonsApi, uri: &str, host: &str) -> (u16, Value) {
        let request = Request::get(uri).header("host", host).body(()).unwrap();
        let response = api.oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    fn api() -> ReasonsApi {
        let schemas = [(SCHEMA.to_owned(), json!({"type": "object"}))].into_iter().collect();
        ReasonsApi::new(Arc::new(Echo), Access::Open, schemas)
    }

    #[tokio::test]
    async fn reports_are_asked_for_by_their_paths_and_nothing_else_is() {
        let one = format!("{BASE}/namespaces/shop/scaledobjects/orders");
        assert_eq!(get(api(), &format!("{one}?a=b"), "x").await, (200, json!({"path": one, "query": "a=b"})));
        assert_eq!(get(api(), &format!("{BASE}/scaledobjects"), "x").await.0, 200);
        for path in [
            "/namespaces/shop/pods",
            "/scaledobjects/orders",
            "/namespaces/a%2Fb/scaledobjects",
            "/namespaces/a/scaledobjects/b/status",
        ] {
            assert_eq!(get(api(), &format!("{BASE}{path}"), "x").await.0, 404, "{path}");
        }
        assert_eq!(get(api(), &format!("{BASE}/scaledobjects?limit=1&watch=true"), "x").await.0, 405);
        let response = api().oneshot(Request::delete(&one).body(()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 405);
    }

    #[tokio::test]
    async fn the_api_describes_itself() {
        assert_eq!(get(api(), BASE, "x").await.1["resources"][0]["name"], "scaledobjects");
        let index = get(api(), "/openapi/v3", "x").await.1;
        let address =
            index["paths"]["apis/reasons.tidemark.dev/v1alpha1"]["serverRelativeURL"].as_str().unwrap().to_owned();
        let document = get(api(), &address, "x").await.1;
        assert!(document["components"]["schemas"][SCHEMA].is_object());
        let path = format!("{BASE}/namespaces/{{namespace}}/scaledobjects/{{name}}");
        assert!(document["paths"][&path]["get"].is_object(), "{document}");
        assert!(get(api(), "/openapi/v2", "x").await.1["definitions"][SCHEMA].is_object());
    }

    #[tokio::test]
    async fn on_loopback_a_name_that_points_there_is_turned_away() {
        let of = |host: &'static str| async move {
            let api = ReasonsApi { only_loopback: true, ..api() };
            get(api, &format!("{BASE}/scaledobjects"), host).await.0
        };
        for host in ["127.0.0.1:8083", "localhost:8083", "[::1]:8083"] {
            assert_eq!(of(host).await, 200, "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:8083", "10.0.0.1:8083", ""] {
            assert_eq!(of(host).await, 403, "{host}");
        }
    }
}
