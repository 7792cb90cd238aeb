//! `external.metrics.k8s.io/v1beta1`, the API through which an HPA asks for a trigger's value.
//!
//! One path answers values; errors are plain 500s without a reason, as tools that match on them expect.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::json;
use tower::Service;

use crate::front_proxy::{Access, Attributes};
use crate::https::PeerCertificate;
use crate::reply;

/// The API group.
pub const GROUP: &str = "external.metrics.k8s.io";
/// The only version.
pub const VERSION: &str = "v1beta1";
/// The label whose value names the ScaledObject.
const OBJECT_LABEL: &str = "scaledobject.keda.sh/name";

/// One value of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalMetric {
    /// The metric's name.
    pub name: String,
    /// The value as a Kubernetes quantity.
    pub value: String,
    /// When it was read.
    pub timestamp: Timestamp,
}

/// What a source answers in time; the error's text goes to the caller.
pub type Values<'a> = BoxFuture<'a, Result<Vec<ExternalMetric>, String>>;

/// Where values come from.
pub trait MetricsSource: Send + Sync + 'static {
    /// The values of a metric of a ScaledObject.
    fn values<'a>(&'a self, namespace: &'a str, object: &'a str, metric: &'a str) -> Values<'a>;
}

/// The API as a tower service. Cheap to clone.
#[derive(Clone)]
pub struct ExternalMetrics {
    source: Arc<dyn MetricsSource>,
    access: Access,
}

impl ExternalMetrics {
    /// The API over a source; `access` says who may read.
    pub fn new(source: Arc<dyn MetricsSource>, access: Access) -> Self {
        Self { source, access }
    }

    async fn answer(self, head: http::request::Parts) -> Response<Bytes> {
        let path = head.uri.path().trim_end_matches('/');
        if matches!(path, "/healthz" | "/livez" | "/readyz") {
            return Response::new(Bytes::from_static(b"ok"));
        }
        let attributes = Attributes::of(&head.method, path);
        let peer = head.extensions.get::<PeerCertificate>();
        if let Err(denied) = self.access.check(peer, &head.headers, &attributes).await {
            return denied.response();
        }
        if head.method != Method::GET {
            return reply::failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "only GET is served here");
        }
        match path {
            "/apis" => {
                return reply::json(
                    StatusCode::OK,
                    &json!({
                        "kind": "APIGroupList", "apiVersion": "v1", "groups": [group()],
                    }),
                );
            }
            "/apis/external.metrics.k8s.io" => return reply::json(StatusCode::OK, &group()),
            "/apis/external.metrics.k8s.io/v1beta1" => return reply::json(StatusCode::OK, &resources()),
            _ => {}
        }
        match metric_path(path) {
            Some((namespace, metric)) => self.value(&namespace, &metric, head.uri.query().unwrap_or_default()).await,
            None => {
                reply::failure(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
            }
        }
    }

    async fn value(&self, namespace: &str, metric: &str, query: &str) -> Response<Bytes> {
        let object = match object_of(query) {
            Ok(object) => object,
            Err(BadSelector::Syntax(message)) => {
                return reply::failure(StatusCode::BAD_REQUEST, "BadRequest", &message);
            }
            Err(BadSelector::Unserved(message)) => {
                return reply::failure(StatusCode::INTERNAL_SERVER_ERROR, "", &message);
            }
        };
        match self.source.values(namespace, &object, metric).await {
            Ok(values) => reply::json(StatusCode::OK, &list(&values)),
            Err(message) => reply::failure(StatusCode::INTERNAL_SERVER_ERROR, "", &message),
        }
    }
}

impl<B: Send + 'static> Service<Request<B>> for ExternalMetrics {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let this = self.clone();
        let (head, _) = request.into_parts();
        Box::pin(async move { Ok(this.answer(head).await.map(Full::new)) })
    }
}

fn group() -> serde_json::Value {
    let version = json!({"groupVersion": "external.metrics.k8s.io/v1beta1", "version": VERSION});
    json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": GROUP, "versions": [version], "preferredVersion": version,
    })
}

fn resources() -> serde_json::Value {
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "external.metrics.k8s.io/v1beta1",
        "resources": [{
            "name": "externalmetrics", "singularName": "", "namespaced": true,
            "kind": "ExternalMetricValueList", "verbs": ["get"],
        }],
    })
}

fn list(values: &[ExternalMetric]) -> serde_json::Value {
    let items: Vec<_> = values
        .iter()
        .map(|value| {
            json!({
                "metricName": value.name, "metricLabels": null,
                "timestamp": value.timestamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), "value": value.value,
            })
        })
        .collect();
    json!({
        "kind": "ExternalMetricValueList", "apiVersion": "external.metrics.k8s.io/v1beta1", "metadata": {},
        "items": items,
    })
}

/// Namespace and metric of `/apis/GROUP/VERSION/namespaces/NAMESPACE/METRIC`, percent-decoded. Access is asked for what
/// this gives, and nothing else is answered.
pub(crate) fn metric_path(path: &str) -> Option<(String, String)> {
    let rest = path.strip_prefix("/apis/external.metrics.k8s.io/v1beta1/namespaces/")?;
    let (namespace, metric) = rest.split_once('/')?;
    let decode = |piece: &str| {
        let piece = percent_decode_str(piece).decode_utf8().ok()?;
        // A slash would be a subresource to whoever judges access.
        (!piece.is_empty() && !piece.contains('/')).then(|| piece.into_owned())
    };
    Some((decode(namespace)?, decode(metric)?))
}

/// What is wrong with a label selector.
#[derive(Debug, PartialEq, Eq)]
enum BadSelector {
    /// It is none: 400.
    Syntax(String),
    /// It is one, but not of the kind that is served: 500.
    Unserved(String),
}

/// The ScaledObject that the query's label selector names. Only plain `key=value` terms are accepted.
fn object_of(query: &str) -> Result<String, BadSelector> {
    let selector = url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "labelSelector")
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default();
    if let Some(bad) = selector.chars().find(|c| !c.is_ascii_alphanumeric() && !"-_./=!,()<> \t".contains(*c)) {
        return Err(BadSelector::Syntax(format!(
            "unable to parse the label selector {selector:?}: unexpected {bad:?}"
        )));
    }
    let unserved = || BadSelector::Unserved(format!("invalid selector: {selector}"));
    let mut object = None;
    for term in selector.split(',').map(str::trim).filter(|term| !term.is_empty()) {
        let (key, value) = term.split_once('=').ok_or_else(unserved)?;
        if key.ends_with('!') || value.starts_with('=') {
            return Err(unserved());
        }
        if key.trim().is_empty() || value.contains('=') {
            return Err(BadSelector::Syntax(format!("unable to parse the label selector {selector:?}: {term:?}")));
        }
        if key.trim() == OBJECT_LABEL {
            object = Some(value.trim().to_owned());
        }
    }
    let unnamed = || BadSelector::Unserved("scaledObject name is not specified".to_owned());
    object.filter(|name| !name.is_empty()).ok_or_else(unnamed)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    struct Fixed;

    impl MetricsSource for Fixed {
        fn values<'a>(&'a self, namespace: &'a str, object: &'a str, metric: &'a str) -> Values<'a> {
            Box::pin(async move {
                if object != "orders" {
                    return Err(format!("ScaledObject.keda.sh \"{object}\" not found"));
                }
                assert_eq!(namespace, "shop");
                let timestamp = "2026-01-01T00:00:00.7Z".parse().unwrap();
                Ok(vec![ExternalMetric { name: metric.to_owned(), value: "12500m".to_owned(), timestamp }])
            })
        }
    }

    async fn get(uri: &str) -> (u16, serde_json::Value) {
        let service = ExternalMetrics::new(Arc::new(Fixed), Access::Open);
        let response = service.oneshot(Request::get(uri).body(()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    const BASE: &str = "/apis/external.metrics.k8s.io/v1beta1";

    #[tokio::test]
    async fn an_hpa_gets_the_value_of_its_metric() {
        let uri = format!("{BASE}/namespaces/shop/s0-queue%20x?labelSelector=scaledobject.keda.sh%2Fname%3Dorders");
        let (status, body) = get(&uri).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(body["items"][0]["metricName"], "s0-queue x");
        assert_eq!(body["items"][0]["value"], "12500m");
        assert_eq!(body["items"][0]["timestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(body["kind"], "ExternalMetricValueList");
    }

    #[tokio::test]
    async fn a_failure_is_a_plain_500_with_the_reason_in_words() {
        let (status, body) = get(&format!("{BASE}/namespaces/shop/m?labelSelector=scaledobject.keda.sh/name=x")).await;
        assert_eq!((status, &body["message"]), (500, &json!("ScaledObject.keda.sh \"x\" not found")));
        assert_eq!(body.get("reason"), None);
        let (status, body) = get(&format!("{BASE}/namespaces/shop/m")).await;
        assert_eq!((status, &body["message"]), (500, &json!("scaledObject name is not specified")));
        let (status, body) =
            get(&format!("{BASE}/namespaces/shop/m?labelSelector=scaledobject.keda.sh/name%21%3Dx")).await;
        assert_eq!(status, 500, "{body}");
        assert!(body["message"].as_str().unwrap().starts_with("invalid selector"));
    }

    #[tokio::test]
    async fn a_selector_that_is_none_is_a_bad_request() {
        for selector in ["scaledobject.keda.sh/name%3Da;b", "%3Dorders", "a%3Db%3Dc"] {
            let (status, body) = get(&format!("{BASE}/namespaces/shop/m?labelSelector={selector}")).await;
            assert_eq!((status, &body["reason"]), (400, &json!("BadRequest")), "{selector}: {body}");
        }
    }

    #[tokio::test]
    async fn discovery_names_one_resource_and_other_paths_are_not_found() {
        let (status, body) = get(BASE).await;
        assert_eq!(status, 200);
        assert_eq!(body["resources"].as_array().unwrap().len(), 1);
        assert_eq!(get("/apis").await.1["groups"][0]["name"], GROUP);
        assert_eq!(get(&format!("{BASE}/namespaces/shop")).await.0, 404);
        for path in ["shop/m/more", "shop/m%2Fmore", "sh%2Fop/m", "shop/%ff", "/m"] {
            assert_eq!(get(&format!("{BASE}/namespaces/{path}")).await.0, 404, "{path}");
        }
    }
}
