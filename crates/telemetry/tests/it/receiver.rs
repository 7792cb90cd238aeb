//! Receivers of OTLP that keep what they are told.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Identity, Server, ServerTlsConfig};

/// What a receiver was told: messages, and what came with them.
#[derive(Clone, Default)]
pub struct Told {
    pub requests: Vec<ExportMetricsServiceRequest>,
    pub traces: Vec<ExportTraceServiceRequest>,
    pub logs: Vec<ExportLogsServiceRequest>,
    /// The header `authorization` of each request, empty where there was none.
    pub tokens: Vec<String>,
}

impl Told {
    /// The names of all metrics.
    pub fn names(&self) -> Vec<String> {
        let scopes = self.requests.iter().flat_map(|request| &request.resource_metrics).flat_map(|r| &r.scope_metrics);
        scopes.flat_map(|scope| &scope.metrics).map(|metric| metric.name.clone()).collect()
    }

    pub fn spans(&self) -> Vec<&Span> {
        let resources = self.traces.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans).collect()
    }

    pub fn records(&self) -> Vec<&LogRecord> {
        let resources = self.logs.iter().flat_map(|request| &request.resource_logs);
        resources.flat_map(|resource| &resource.scope_logs).flat_map(|scope| &scope.log_records).collect()
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

    /// What was told so far.
    pub fn told(&self) -> Told {
        self.told.borrow().clone()
    }

    /// What was told when a condition holds.
    pub async fn until(&self, enough: impl FnMut(&Told) -> bool) -> Told {
        self.told.subscribe().wait_for(enough).await.unwrap().clone()
    }

    fn hear(&self, token: Option<&str>, add: impl FnOnce(&mut Told)) {
        self.told.send_modify(|told| {
            add(told);
            told.tokens.push(token.unwrap_or_default().to_owned());
        });
    }

    /// A receiver over HTTP.
    pub async fn http() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self::new(listener.local_addr().unwrap());
        let app = axum::Router::new()
            .route("/v1/metrics", post(Self::metrics_over_http))
            .route("/v1/traces", post(Self::traces_over_http))
            .route("/v1/logs", post(Self::logs_over_http))
            .with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        receiver
    }

    async fn metrics_over_http(State(this): State<Self>, headers: HeaderMap, body: Bytes) -> (StatusCode, Vec<u8>) {
        this.over_http(&headers, &body, |told, body| told.requests.push(Message::decode(body).unwrap()))
    }

    async fn traces_over_http(State(this): State<Self>, headers: HeaderMap, body: Bytes) -> (StatusCode, Vec<u8>) {
        this.over_http(&headers, &body, |told, body| told.traces.push(Message::decode(body).unwrap()))
    }

    async fn logs_over_http(State(this): State<Self>, headers: HeaderMap, body: Bytes) -> (StatusCode, Vec<u8>) {
        this.over_http(&headers, &body, |told, body| told.logs.push(Message::decode(body).unwrap()))
    }

    fn over_http(&self, headers: &HeaderMap, body: &[u8], add: fn(&mut Told, &[u8])) -> (StatusCode, Vec<u8>) {
        let mut refusals = self.refusals.lock().unwrap();
        if !refusals.is_empty() {
            return (StatusCode::from_u16(refusals.remove(0)).unwrap(), Vec::new());
        }
        drop(refusals);
        assert_eq!(headers["content-type"], "application/x-protobuf");
        let body = if headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(body).read_to_end(&mut plain).unwrap();
            plain
        } else {
            body.to_vec()
        };
        let token = headers.get("authorization").map(|value| value.to_str().unwrap());
        self.hear(token, |told| add(told, &body));
        (StatusCode::OK, ExportMetricsServiceResponse::default().encode_to_vec())
    }

    /// A receiver over gRPC; with a certificate and key in PEM, behind TLS.
    pub async fn grpc(identity: Option<(String, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self::new(listener.local_addr().unwrap());
        let mut server = Server::builder();
        if let Some((certificate, key)) = identity {
            let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
            server = server.tls_config(tls).unwrap();
        }
        let server = server
            .add_service(MetricsServiceServer::new(receiver.clone()).accept_compressed(CompressionEncoding::Gzip))
            .add_service(TraceServiceServer::new(receiver.clone()).accept_compressed(CompressionEncoding::Gzip))
            .add_service(LogsServiceServer::new(receiver.clone()).accept_compressed(CompressionEncoding::Gzip));
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(server.serve_with_incoming(incoming));
        receiver
    }
}

fn token(metadata: &MetadataMap) -> Option<String> {
    metadata.get("authorization").map(|value| value.to_str().unwrap().to_owned())
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        let token = token(request.metadata());
        self.hear(token.as_deref(), |told| told.requests.push(request.into_inner()));
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let token = token(request.metadata());
        self.hear(token.as_deref(), |told| told.traces.push(request.into_inner()));
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        let token = token(request.metadata());
        self.hear(token.as_deref(), |told| told.logs.push(request.into_inner()));
        Ok(tonic::Response::new(ExportLogsServiceResponse::default()))
    }
}
