//! `external.metrics.k8s.io/v1beta1`, the API through which an HPA asks for a trigger's value.
//!
//! One path answers values; others describe the API, for discovery and as OpenAPI. Errors of values are plain 500s without
//! a reason, as tools that match on them expect.

mod documents;
mod selector;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::described;
use crate::front_proxy::Access;
use crate::reasons_api::{ReasonsApi, reasons_path};
use crate::reply::{self, Form};
use crate::service::{path, service};
use selector::{BadSelector, object_of};

/// The API group.
pub const GROUP: &str = "external.metrics.k8s.io";
/// The only version.
pub const VERSION: &str = "v1beta1";
/// A request is cut off after this long, as the API server does with its own.
const LONGEST: Duration = Duration::from_secs(60);
/// What every group of the API has, whether or not it is asked for.
const HEALTH: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// One value of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalMetric {
    /// The metric's name.
    pub name: String,
    /// The value as a Kubernetes quantity.
    pub value: String,
    /// When it was read; the epoch where that is not known.
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
    reasons: Option<ReasonsApi>,
}

impl ExternalMetrics {
    /// The API over a source; `access` says who may read.
    pub fn new(source: Arc<dyn MetricsSource>, access: Access) -> Self {
        Self { source, access, reasons: None }
    }

    /// The same with the API of reasons beside it, for the same callers.
    #[must_use]
    pub fn with_reasons(self, reasons: ReasonsApi) -> Self {
        Self { reasons: Some(reasons), ..self }
    }

    async fn answer(self, head: http::request::Parts) -> Response<Bytes> {
        let path = path(&head.uri);
        if HEALTH.contains(&path) {
            return healthy();
        }
        if let Some(refusal) = self.access.refusal(&head, path).await {
            return refusal;
        }
        let reads = matches!(head.method, Method::GET | Method::HEAD);
        let groups: Vec<_> =
            [&*documents::DESCRIBED].into_iter().chain(self.reasons.as_ref().map(ReasonsApi::described)).collect();
        if let Some(document) = described::find(path, &head.headers, documents::TITLE, &groups) {
            return if reads { document } else { not_allowed() };
        }
        if let Some(reasons) = self.reasons.as_ref().filter(|_| reasons_path(path).is_some()) {
            return reasons.answer(path, &head).await;
        }
        match metric_path(path) {
            Some(_) if !reads => not_allowed(),
            Some(_) if is_watch(head.uri.query().unwrap_or_default()) => {
                let details = json!({"group": GROUP, "kind": "*"});
                let message = format!("watch is not supported on resources of kind \"*.{GROUP}\"");
                reply::failure_with(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", &message, details)
            }
            Some((namespace, metric)) => {
                let answer = self.value(&namespace, &metric, head.uri.query().unwrap_or_default());
                let answer = tokio::time::timeout(LONGEST, answer).await;
                let late = || reply::failure(StatusCode::GATEWAY_TIMEOUT, "Timeout", "the metric was not read in time");
                reply::in_form(answer.unwrap_or_else(|_| late()), Form::asked(&head.headers))
            }
            None => {
                let message = "the server could not find the requested resource";
                reply::failure_with(StatusCode::NOT_FOUND, "NotFound", message, json!({}))
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

service!(ExternalMetrics, [B: Send + 'static], Full<Bytes>, |this, request| {
    let (head, _) = request.into_parts();
    this.answer(head).await.map(Full::new)
});

fn healthy() -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(b"ok"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn not_allowed() -> Response<Bytes> {
    let message = "the server does not allow this method on the requested resource";
    reply::failure_with(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message, json!({}))
}

/// Whether a query wants to be told of changes, which values have none of.
fn is_watch(query: &str) -> bool {
    let wants = |value: &str| matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True");
    url::form_urlencoded::parse(query.as_bytes()).any(|(key, value)| key == "watch" && wants(&value))
}

fn list(values: &[ExternalMetric]) -> serde_json::Value {
    let time = |time: Timestamp| {
        let known = time != Timestamp::UNIX_EPOCH;
        known.then(|| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    };
    let item = |value: &ExternalMetric| {
        json!({
            "metricName": value.name, "metricLabels": null, "timestamp": time(value.timestamp), "value": value.value,
        })
    };
    let items: Vec<_> = values.iter().map(item).collect();
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

#[cfg(test)]
mod tests {
    use http::Request;
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

    async fn ask(uri: &str, headers: &[(&str, &str)]) -> (u16, http::HeaderMap, Bytes) {
        let service = ExternalMetrics::new(Arc::new(Fixed), Access::Open);
        let request = headers.iter().fold(Request::get(uri), |request, (name, value)| request.header(*name, *value));
        let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        (status, headers, response.into_body().collect().await.unwrap().to_bytes())
    }

    async fn get(uri: &str) -> (u16, serde_json::Value) {
        let (status, _, body) = ask(uri, &[]).await;
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
    #[tokio::test]
    async fn a_client_gets_the_form_that_it_asks_for_or_json() {
        let uri = format!("{BASE}/namespaces/shop/m?labelSelector=scaledobject.keda.sh/name=orders");
        for accept in ["application/vnd.kubernetes.protobuf, */*", "application/json", "text/html", "*/*"] {
            let (status, headers, body) = ask(&uri, &[("accept", accept)]).await;
            assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, "application/json"), "{accept}");
            assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
        }
        let (_, headers, body) = ask(&uri, &[("accept", "application/yaml")]).await;
        assert_eq!(headers["content-type"], "application/yaml");
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains("kind: ExternalMetricValueList\n") && text.contains("12500m"), "{text}");
        let (status, _, body) = ask(&uri.replace("orders", "x"), &[("accept", "application/yaml")]).await;
        assert_eq!(status, 500);
        assert!(body.starts_with(b"kind: Status\n"), "{body:?}");
    }

    #[tokio::test]
    async fn the_aggregated_discovery_is_given_to_whoever_asks_for_it_and_not_twice() {
        let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let accept = format!("{kind},{},application/json", kind.replace("v=v2", "v=v2beta1"));
        let (status, headers, body) = ask("/apis", &[("accept", &accept)]).await;
        assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, kind));
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["items"][0]["versions"][0]["resources"][0]["resource"], "externalmetrics");
        let tag = headers["etag"].to_str().unwrap();
        let (status, _, body) = ask("/apis", &[("accept", &accept), ("if-none-match", tag)]).await;
        assert_eq!((status, body.len()), (304, 0));
        assert_eq!(ask("/apis", &[("accept", "application/json"), ("if-none-match", tag)]).await.0, 200);
    }

    #[tokio::test]
    async fn openapi_describes_the_api_in_both_versions() {
        let (status, body) = get("/openapi/v2").await;
        assert_eq!((status, &body["info"]["title"]), (200, &json!("keda-adapter")));
        let path = format!("{BASE}/namespaces/{{namespace}}/{{name}}");
        assert!(body["paths"][&path]["get"].is_object(), "{body}");
        let (_, index) = get("/openapi/v3").await;
        let address = index["paths"]["apis/external.metrics.k8s.io/v1beta1"]["serverRelativeURL"].as_str().unwrap();
        let (status, body) = get(address).await;
        assert_eq!((status, &body["info"]["version"]), (200, &json!("1.0.0")));
        assert!(
            body["components"]["schemas"]["io.k8s.metrics.pkg.apis.external_metrics.v1beta1.ExternalMetricValueList"]
                .is_object()
        );
        assert!(body["paths"][&path]["get"].is_object(), "{body}");
    }

    struct Silent;

    impl MetricsSource for Silent {
        fn values<'a>(&'a self, _: &'a str, _: &'a str, _: &'a str) -> Values<'a> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_does_not_answer_is_not_waited_for_for_ever() {
        let service = ExternalMetrics::new(Arc::new(Silent), Access::Open);
        let uri = format!("{BASE}/namespaces/shop/m?labelSelector=scaledobject.keda.sh/name=orders");
        let response = service.oneshot(Request::get(uri).body(()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 504);
    }
}
