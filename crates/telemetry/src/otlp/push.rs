//! Pushing metrics at intervals.

use std::path::Path;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue, StatusCode};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use prost::Message;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use tidemark_clock::Clock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::encode::{Reached, Requests, Temporality};
use super::settings::{Protocol, Settings};
use crate::series::Series;

/// Pause before the first repeat of a request that may be repeated; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest answer that is read.
const ANSWER: usize = 64 << 10;

/// Metrics cannot be pushed with these settings.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("OTLP endpoint: {0}")]
    Endpoint(String),
    #[error("OTLP header {0} cannot be sent: its name or value has characters that headers have not")]
    Header(String),
    #[error("cannot read {file}: {error}")]
    File { file: String, error: std::io::Error },
    #[error("OTLP client: {0}")]
    Client(String),
}

/// Pushes the metrics of a [`Series`] at intervals.
pub struct Pusher {
    settings: Settings,
    transport: Transport,
}

enum Transport {
    Http { client: reqwest::Client },
    Grpc(Box<Grpc>),
}

struct Grpc {
    client: MetricsServiceClient<Channel>,
    /// Sent with each request.
    metadata: MetadataMap,
}

/// Why a request failed, and whether another attempt may help.
struct Failure {
    message: String,
    again: bool,
}

impl Pusher {
    /// Makes ready to push; nothing is sent yet.
    ///
    /// # Errors
    /// A file cannot be read, or endpoint, headers or certificates cannot be used. No value is named.
    pub fn new(settings: Settings) -> Result<Self, SetupError> {
        let transport = match settings.protocol {
            Protocol::Http => Transport::Http { client: http_client(&settings)? },
            Protocol::Grpc => grpc_transport(&settings)?,
        };
        Ok(Self { settings, transport })
    }

    /// Exports at every interval until `shutdown`, and then once more.
    ///
    /// A failed export is told in the log, once for each run of failures, and disturbs nothing else.
    pub fn run(self, series: Series, clock: Clock, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut reached = (self.settings.temporality == Temporality::Delta).then(Reached::default);
            let mut failing = false;
            let mut due = Instant::now();
            loop {
                due += self.settings.interval;
                let last = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => true,
                    () = tokio::time::sleep_until(due) => false,
                };
                let export = self.export(&series, clock, &mut reached);
                let outcome = tokio::time::timeout(self.settings.export_timeout, export).await;
                match outcome.unwrap_or_else(|_| Err("not done in time".to_owned())) {
                    Ok(()) if failing => {
                        failing = false;
                        tracing::info!("metrics are pushed again");
                    }
                    Ok(()) => {}
                    Err(message) if !failing => {
                        failing = true;
                        tracing::warn!("cannot push metrics, and goes on trying: {message}");
                    }
                    Err(message) => tracing::debug!("cannot push metrics: {message}"),
                }
                if last {
                    return;
                }
                // What could not be told in time is told with the next export.
                due = due.max(Instant::now());
            }
        })
    }

    async fn export(&self, series: &Series, clock: Clock, reached: &mut Option<Reached>) -> Result<(), String> {
        let snapshot = series.snapshot();
        let resource = self.settings.resource.clone();
        let mut requests = Requests::new(&snapshot, clock.now(), resource, reached.as_ref());
        for request in requests.by_ref() {
            self.send(request).await?;
            // Many series: others have work to do as well.
            tokio::task::yield_now().await;
        }
        if let Some(now) = requests.reached() {
            *reached = Some(now);
        }
        Ok(())
    }

    /// Sends a request, again where the specification says so; the deadline of the export ends that.
    async fn send(&self, request: ExportMetricsServiceRequest) -> Result<(), String> {
        let mut pause = FIRST_PAUSE;
        loop {
            let once = async {
                match &self.transport {
                    Transport::Http { client } => self.post(client, &request).await,
                    Transport::Grpc(grpc) => call(grpc.client.clone(), grpc.metadata.clone(), request.clone()).await,
                }
            };
            let late = || Failure { message: "no answer in time".to_owned(), again: true };
            let outcome = tokio::time::timeout(self.settings.timeout, once).await.unwrap_or_else(|_| Err(late()));
            match outcome {
                Ok(None) => return Ok(()),
                Ok(Some(partial)) => {
                    if partial.rejected_data_points > 0 || !partial.error_message.is_empty() {
                        let (rejected, message) = (partial.rejected_data_points, partial.error_message);
                        tracing::warn!(rejected, "the receiver of metrics did not take all: {message}");
                    }
                    return Ok(());
                }
                Err(failure) if failure.again => {
                    tracing::debug!("pushing metrics: {}", failure.message);
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(failure) => return Err(failure.message),
            }
        }
    }

    async fn post(
        &self,
        client: &reqwest::Client,
        request: &ExportMetricsServiceRequest,
    ) -> Result<Option<ExportMetricsPartialSuccess>, Failure> {
        let mut post = client.post(&self.settings.endpoint).header(CONTENT_TYPE, "application/x-protobuf");
        for (name, value) in &self.settings.headers {
            post = post.header(name, value.expose());
        }
        let body = request.encode_to_vec();
        post =
            if self.settings.gzip { post.header(CONTENT_ENCODING, "gzip").body(gzip(&body)?) } else { post.body(body) };
        let mut response =
            post.send().await.map_err(|error| Failure { message: causes(error.without_url()), again: true })?;
        let status = response.status();
        if !status.is_success() {
            let again = [
                StatusCode::TOO_MANY_REQUESTS,
                StatusCode::BAD_GATEWAY,
                StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::GATEWAY_TIMEOUT,
            ];
            return Err(Failure { message: format!("the receiver answered {status}"), again: again.contains(&status) });
        }
        let mut answer = Vec::new();
        while let Ok(Some(piece)) = response.chunk().await {
            answer.extend_from_slice(&piece);
            if answer.len() > ANSWER {
                return Ok(None);
            }
        }
        // An answer of another type has nothing to say.
        Ok(ExportMetricsServiceResponse::decode(&*answer).ok().and_then(|answer| answer.partial_success))
    }
}

async fn call(
    mut client: MetricsServiceClient<Channel>,
    metadata: MetadataMap,
    request: ExportMetricsServiceRequest,
) -> Result<Option<ExportMetricsPartialSuccess>, Failure> {
    let request = tonic::Request::from_parts(metadata, tonic::Extensions::default(), request);
    match client.export(request).await {
        Ok(answer) => Ok(answer.into_inner().partial_success),
        Err(status) => {
            use tonic::Code::{
                Aborted, Cancelled, DataLoss, DeadlineExceeded, OutOfRange, ResourceExhausted, Unavailable,
            };
            let again = [Cancelled, DeadlineExceeded, ResourceExhausted, Aborted, OutOfRange, Unavailable, DataLoss];
            let message = format!("the receiver answered {:?}: {}", status.code(), status.message());
            Err(Failure { message, again: again.contains(&status.code()) })
        }
    }
}

fn gzip(body: &[u8]) -> Result<Vec<u8>, Failure> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let done = encoder.write_all(body).and_then(|()| encoder.finish());
    done.map_err(|error| Failure { message: format!("cannot compress: {error}"), again: false })
}

fn read(file: &Path) -> Result<Vec<u8>, SetupError> {
    std::fs::read(file).map_err(|error| SetupError::File { file: file.display().to_string(), error })
}

fn http_client(settings: &Settings) -> Result<reqwest::Client, SetupError> {
    let failed = |error: reqwest::Error| SetupError::Client(causes(error.without_url()));
    let url = reqwest::Url::parse(&settings.endpoint).map_err(|error| SetupError::Endpoint(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(SetupError::Endpoint(format!("{:?} is neither http nor https", url.scheme())));
    }
    for (name, value) in &settings.headers {
        let fits = name.parse::<HeaderName>().is_ok() && HeaderValue::from_str(value.expose()).is_ok();
        fits.then_some(()).ok_or_else(|| SetupError::Header(name.clone()))?;
    }
    let mut builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    if let Some(file) = &settings.certificate {
        let roots = reqwest::Certificate::from_pem_bundle(&read(file)?).map_err(failed)?;
        builder = builder.tls_certs_only(roots);
    }
    if let Some((certificate, key)) = &settings.client {
        let pem = [read(certificate)?, b"\n".to_vec(), read(key)?].concat();
        builder = builder.identity(reqwest::Identity::from_pem(&pem).map_err(failed)?);
    }
    builder.build().map_err(failed)
}

fn grpc_transport(settings: &Settings) -> Result<Transport, SetupError> {
    let failed = |error: tonic::transport::Error| SetupError::Client(causes(error));
    let mut endpoint =
        Endpoint::from_shared(settings.endpoint.clone()).map_err(|error| SetupError::Endpoint(causes(error)))?;
    if settings.endpoint.starts_with("https://") {
        let mut tls = ClientTlsConfig::new();
        tls = match &settings.certificate {
            Some(file) => tls.ca_certificate(Certificate::from_pem(read(file)?)),
            None => tls.with_native_roots(),
        };
        if let Some((certificate, key)) = &settings.client {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        endpoint = endpoint.tls_config(tls).map_err(failed)?;
    }
    let mut metadata = MetadataMap::new();
    for (name, value) in &settings.headers {
        let unfit = || SetupError::Header(name.clone());
        let key = MetadataKey::from_bytes(name.as_bytes()).map_err(|_| unfit())?;
        metadata.insert(key, MetadataValue::try_from(value.expose()).map_err(|_| unfit())?);
    }
    let mut client = MetricsServiceClient::new(endpoint.connect_lazy());
    if settings.gzip {
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    Ok(Transport::Grpc(Box::new(Grpc { client, metadata })))
}

/// An error and what it came from.
fn causes(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}
