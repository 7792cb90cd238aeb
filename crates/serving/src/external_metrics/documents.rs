//! What the API says about itself: discovery, in its old form and in the aggregated one, and OpenAPI.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::{GROUP, VERSION};
use crate::reply::{self, Form};

/// The aggregated form of discovery.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const LIST: &str = "io.k8s.metrics.pkg.apis.external_metrics.v1beta1.ExternalMetricValueList";
const ITEM: &str = "io.k8s.metrics.pkg.apis.external_metrics.v1beta1.ExternalMetricValue";
const METRIC_PATH: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{name}";
const OPENAPI_V3: &str = "/openapi/v3/apis/external.metrics.k8s.io/v1beta1";
/// What the group and version are called in the index of OpenAPI v3.
const OPENAPI_V3_KEY: &str = "apis/external.metrics.k8s.io/v1beta1";

/// The document of a path, if it is one.
pub fn find(path: &str, headers: &HeaderMap) -> Option<Response<Bytes>> {
    let (body, kind) = match path {
        "/apis" if reply::accepts(headers, is_aggregated) => (aggregated(), AGGREGATED),
        "/apis" => {
            return Some(plain(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]}), headers));
        }
        "/apis/external.metrics.k8s.io" => return Some(plain(&group(), headers)),
        "/apis/external.metrics.k8s.io/v1beta1" => return Some(plain(&resources(), headers)),
        "/openapi/v2" => (openapi_v2(), "application/json"),
        "/openapi/v3" => (openapi_v3_index(), "application/json"),
        OPENAPI_V3 => (openapi_v3(), "application/json"),
        _ => return None,
    };
    Some(tagged(&body, kind, headers))
}

fn plain(body: &Value, headers: &HeaderMap) -> Response<Bytes> {
    reply::in_form(reply::json(StatusCode::OK, body), Form::asked(headers))
}

/// A document with a tag, so that whoever has it need not get it again.
fn tagged(body: &Value, kind: &'static str, headers: &HeaderMap) -> Response<Bytes> {
    let tag = format!("\"{}\"", hash(body));
    let mut response = reply::json(StatusCode::OK, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Bytes::new();
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

fn hash(body: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    body.to_string().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Whether a media type asks for aggregated discovery.
fn is_aggregated(media_type: &str) -> bool {
    let mut parts = media_type.split(';').map(str::trim);
    let parameters: Vec<&str> = match parts.next() {
        Some("application/json") => parts.collect(),
        _ => return false,
    };
    ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"].iter().all(|wanted| parameters.contains(wanted))
}

fn group() -> Value {
    let version = json!({"groupVersion": "external.metrics.k8s.io/v1beta1", "version": VERSION});
    json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": GROUP, "versions": [version], "preferredVersion": version,
    })
}

fn resources() -> Value {
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "external.metrics.k8s.io/v1beta1",
        "resources": [{
            "name": "externalmetrics", "singularName": "", "namespaced": true,
            "kind": "ExternalMetricValueList", "verbs": ["get"],
        }],
    })
}

fn aggregated() -> Value {
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": [{
            "metadata": {"name": GROUP, "creationTimestamp": null},
            "versions": [{
                "version": VERSION, "freshness": "Current",
                "resources": [{
                    "resource": "externalmetrics", "scope": "Namespaced", "singularResource": "", "verbs": ["get"],
                    "responseKind": {"group": GROUP, "version": VERSION, "kind": "ExternalMetricValueList"},
                }],
            }],
        }],
    })
}

/// Names of the path, as both versions of OpenAPI call them.
const PARAMETERS: [(&str, &str, &str); 3] = [
    ("namespace", "path", "Namespace of the ScaledObject"),
    ("name", "path", "Name of the metric"),
    ("labelSelector", "query", "scaledobject.keda.sh/name=NAME names the ScaledObject"),
];

fn schemas(reference: &str) -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let gvk = json!([{"group": GROUP, "version": VERSION, "kind": "ExternalMetricValueList"}]);
    json!({
        LIST: {
            "type": "object", "description": "The values of an external metric", "required": ["items"],
            "x-kubernetes-group-version-kind": gvk,
            "properties": {
                "apiVersion": text("Version of the schema"),
                "kind": text("ExternalMetricValueList"),
                "metadata": {"type": "object", "description": "Always empty"},
                "items": {
                    "type": "array", "description": "The values",
                    "items": {"$ref": format!("{reference}{ITEM}")},
                },
            },
        },
        ITEM: {
            "type": "object", "description": "A value of an external metric",
            "required": ["metricName", "timestamp", "value"],
            "properties": {
                "metricName": text("Name of the metric"),
                "metricLabels": {"type": "object", "additionalProperties": {"type": "string"}},
                "timestamp": {"type": "string", "format": "date-time", "description": "When the value was read"},
                "value": text("The value, a quantity"),
            },
        },
    })
}

fn info() -> Value {
    json!({"title": "keda-adapter", "version": "1.0.0"})
}

fn operation() -> Value {
    json!({
        "description": "Read the values of an external metric of a ScaledObject",
        "operationId": "listExternalMetricsV1beta1NamespacedExternalMetric",
        "tags": ["externalMetrics_v1beta1"],
    })
}

fn openapi_v2() -> Value {
    let parameter = |(name, place, description): &(&str, &str, &str)| {
        let required = *place == "path";
        json!({"name": name, "in": place, "type": "string", "required": required, "description": description})
    };
    let mut operation = operation();
    operation["produces"] = json!(["application/json", "application/yaml"]);
    operation["parameters"] = PARAMETERS.iter().map(parameter).collect();
    let schema = json!({"$ref": format!("#/definitions/{LIST}")});
    operation["responses"] = json!({"200": {"description": "OK", "schema": schema}});
    json!({
        "swagger": "2.0", "info": info(), "paths": {METRIC_PATH: {"get": operation}},
        "definitions": schemas("#/definitions/"),
    })
}

fn openapi_v3_index() -> Value {
    let address = format!("{OPENAPI_V3}?hash={}", hash(&openapi_v3()));
    json!({"paths": {OPENAPI_V3_KEY: {"serverRelativeURL": address}}})
}

fn openapi_v3() -> Value {
    let parameter = |(name, place, description): &(&str, &str, &str)| {
        let required = *place == "path";
        let schema = json!({"type": "string"});
        json!({"name": name, "in": place, "required": required, "description": description, "schema": schema})
    };
    let mut operation = operation();
    operation["parameters"] = PARAMETERS.iter().map(parameter).collect();
    let content = json!({"schema": {"$ref": format!("#/components/schemas/{LIST}")}});
    operation["responses"] = json!({"200": {"description": "OK", "content": {"application/json": content}}});
    json!({
        "openapi": "3.0.0", "info": info(), "paths": {METRIC_PATH: {"get": operation}},
        "components": {"schemas": schemas("#/components/schemas/")},
    })
}
