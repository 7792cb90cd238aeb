//! Receivers of OTLP that keep what they are told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Identity, Server, ServerTlsConfig};

/// What a receiver was told: messages, and what came with them.
#[derive(Clone, Default)]
pub struct Told {
    pub requests: Vec<ExportMetricsServiceRequest>,
    /// The header `authorization` of each request, empty where there was none.
    pub tokens: Vec<String>,
}

impl Told {
    /// The names of all metrics.
    pub fn names(&self) -> Vec<String> {
        let scopes = self.requests.iter().flat_map(|request| &request.resource_metrics).flat_map(|r| &r.scope_metrics);
        scopes.flat_map(|scope| &scope.metrics).map(|metric| metric.name.clone()).collect()
    }
}

#[derive(Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    told: watch::Sender<Told>,
    /// Status codes with which the next requests are refused.
    refusals: Arc<Mutex<Vec<u16>>>,
}

impl Receiver {
    fn new(address: SocketAddr) -> Self {
        Self { address, told: watch::Sender::new(Told::default()), refusals: Arc::default() }
    }

    pub fn refuse(&self, with: &[u16]) {
        *self.refusals.lock().unwrap() = with.to_vec();
    }

    /// What was told when a condition holds.
    pub async fn until(&self, enough: impl FnMut(&Told) -> bool) -> Told {
        self.told.subscribe().wait_for(enough).await.unwrap().clone()
    }

    fn hear(&self, request: ExportMetricsServiceRequest, token: Option<&str>) {
        self.told.send_modify(|told| {
            told.requests.push(request);
            told.tokens.push(token.unwrap_or_default().to_owned());
        });
    }

    /// A receiver over HTTP.
    pub async fn http() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self::new(listener.local_addr().unwrap());
        let app = axum::Router::new().route("/v1/metrics", post(Self::over_http)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        receiver
    }

    async fn over_http(State(this): State<Self>, headers: HeaderMap, body: Bytes) -> (StatusCode, Vec<u8>) {
        let mut refusals = this.refusals.lock().unwrap();
        if !refusals.is_empty() {
            return (StatusCode::from_u16(refusals.remove(0)).unwrap(), Vec::new());
        }
        drop(refusals);
        assert_eq!(headers["content-type"], "application/x-protobuf");
        let body = if headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*body), &mut plain).unwrap();
            plain
        } else {
            body.to_vec()
        };
        let token = headers.get("authorization").map(|value| value.to_str().unwrap());
        this.hear(ExportMetricsServiceRequest::decode(&*body).unwrap(), token);
        (StatusCode::OK, ExportMetricsServiceResponse::default().encode_to_vec())
    }

    /// A receiver over gRPC; with a certificate and key in PEM, behind TLS.
    pub async fn grpc(identity: Option<(String, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self::new(listener.local_addr().unwrap());
        let service = MetricsServiceServer::new(receiver.clone()).accept_compressed(CompressionEncoding::Gzip);
        let mut server = Server::builder();
        if let Some((certificate, key)) = identity {
            let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
            server = server.tls_config(tls).unwrap();
        }
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(server.add_service(service).serve_with_incoming(incoming));
        receiver
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        let token = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        self.hear(request.into_inner(), token.as_deref());
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}
