//! The smallest external metrics server: one metric, one value.

use axum::Router;
use axum::response::Json;
use axum::routing::get;
use serde_json::json;
use tidemark_testkit::{EXTERNAL_METRICS_SERVER_NAME, TlsServer};

pub async fn serve(metric: &'static str, value: u32) -> TlsServer {
    TlsServer::start(EXTERNAL_METRICS_SERVER_NAME, routes(metric, value)).await.unwrap()
}

fn routes(metric: &'static str, value: u32) -> Router {
    let resources = json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": "external.metrics.k8s.io/v1beta1",
        "resources": [{"name": "externalmetrics", "singularName": "", "namespaced": true,
            "kind": "ExternalMetricValueList", "verbs": ["get"]}],
    });
    let values = json!({
        "kind": "ExternalMetricValueList",
        "apiVersion": "external.metrics.k8s.io/v1beta1",
        "metadata": {},
        "items": [{"metricName": metric, "metricLabels": {}, "timestamp": "2026-01-01T00:00:00Z",
            "value": value.to_string()}],
    });
    Router::new().route("/apis/external.metrics.k8s.io/v1beta1", get(async move || Json(resources))).route(
        &format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{{namespace}}/{metric}"),
        get(async move || Json(values)),
    )
}
