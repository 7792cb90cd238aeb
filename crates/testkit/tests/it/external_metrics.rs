//! The smallest external metrics server: one metric, one value.

use std::sync::Arc;

use axum::Router;
use axum::response::Json;
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rcgen::generate_simple_self_signed;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tidemark_testkit::EXTERNAL_METRICS_SERVER_NAME;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

pub struct Server {
    pub port: u16,
    pub ca_pem: String,
    _task: AbortOnDropHandle<()>,
}

pub async fn serve(metric: &'static str, value: u32) -> Server {
    let certified = generate_simple_self_signed([EXTERNAL_METRICS_SERVER_NAME.to_owned()]).unwrap();
    let ca_pem = certified.cert.pem();
    let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), routes(metric, value)));
    Server { port, ca_pem, _task: AbortOnDropHandle::new(task) }
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

async fn accept(listener: TcpListener, tls: TlsAcceptor, routes: Router) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, routes) = (tls.clone(), routes.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let connection = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            // The API server closes connections as it likes.
            let _ = connection.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)).await;
        });
    }
}
