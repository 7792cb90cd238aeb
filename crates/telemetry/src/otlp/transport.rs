//! The way to a receiver: encoded requests over HTTP or gRPC, repeated where the specification says so.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, StatusCode};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsPartialSuccess, ExportMetricsServiceResponse};
use prost::Message;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use tidemark_trigger::causes;
use tonic::Status;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::settings::{Destination, Protocol};

/// Pause before the first repeat of a request that may be repeated; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Time for what is left when the process ends: a receiver that is down must not hold the end up.
const LAST_WORDS: Duration = Duration::from_secs(5);
const LAST_CHANCE: Duration = Duration::from_millis(500);
/// The longest answer that is read.
const ANSWER: usize = 64 << 10;

/// Nothing can be sent with these settings.
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

/// Sends requests to one receiver.
pub(super) struct Transport {
    destination: Destination,
    way: Way,
    /// The last attempt came to nothing.
    down: AtomicBool,
}

enum Way {
    Http { client: reqwest::Client },
    Grpc { client: Box<tonic::client::Grpc<Channel>>, metadata: MetadataMap },
}

/// Why a request failed, and whether another attempt may help.
struct Failure {
    message: String,
    again: bool,
    /// The receiver wants this much time before it is asked again.
    after: Duration,
}

impl Failure {
    fn new(message: impl Into<String>, again: bool) -> Self {
        Self { message: message.into(), again, after: Duration::ZERO }
    }
}

impl Transport {
    /// Makes ready to send; nothing is sent yet.
    ///
    /// # Errors
    /// A file cannot be read, or endpoint, headers or certificates cannot be used. No value is named.
    pub(super) fn new(destination: Destination) -> Result<Self, SetupError> {
        let way = match destination.protocol {
            Protocol::Http => Way::Http { client: http_client(&destination)? },
            Protocol::Grpc => grpc_client(&destination)?,
        };
        Ok(Self { destination, way, down: AtomicBool::new(false) })
    }

    /// Time for what is left when the process ends: a receiver that is known to be down gets one more chance, and little
    /// time for it.
    pub(super) fn last_words(&self) -> Duration {
        if self.down.load(Ordering::Relaxed) { LAST_CHANCE } else { LAST_WORDS }
    }

    /// Sends a request, again and again where that may help: the caller's deadline ends it.
    ///
    /// Returns how many of its items the receiver did not take, which the log is told.
    ///
    /// # Errors
    /// The receiver refuses it; the message carries no secret.
    pub(super) async fn send(&self, request: Bytes) -> Result<u64, String> {
        let what = self.destination.signal.noun();
        let mut pause = FIRST_PAUSE;
        loop {
            let once = async {
                match &self.way {
                    Way::Http { client } => self.post(client, request.clone()).await,
                    Way::Grpc { client, metadata } => {
                        self.call(client.clone(), metadata.clone(), request.clone()).await
                    }
                }
            };
            let late = |_| Err(Failure::new("no answer in time", true));
            let outcome = tokio::time::timeout(self.destination.timeout, once).await.unwrap_or_else(late);
            self.down.store(outcome.as_ref().is_err_and(|failure| failure.again), Ordering::Relaxed);
            match outcome {
                Ok(None) => return Ok(0),
                Ok(Some(partial)) => {
                    let (rejected, message) = (partial.rejected_data_points, partial.error_message);
                    if rejected > 0 || !message.is_empty() {
                        tracing::warn!(rejected, "the receiver of {what} did not take all: {message}");
                    }
                    return Ok(u64::try_from(rejected).unwrap_or(0));
                }
                Err(failure) if failure.again => {
                    tracing::debug!("sending {what}: {}", failure.message);
                    tokio::time::sleep(pause.max(failure.after)).await;
                    pause *= 2;
                }
                Err(failure) => return Err(failure.message),
            }
        }
    }

    async fn post(
        &self,
        client: &reqwest::Client,
        request: Bytes,
    ) -> Result<Option<ExportMetricsPartialSuccess>, Failure> {
        let mut post = client.post(&self.destination.endpoint).header(CONTENT_TYPE, "application/x-protobuf");
        for (name, value) in &self.destination.headers {
            post = post.header(name, value.expose());
        }
        post = match self.destination.gzip {
            true => post.header(CONTENT_ENCODING, "gzip").body(gzip(&request)?),
            false => post.body(request),
        };
        let mut response = post.send().await.map_err(|error| Failure::new(causes(&error.without_url()), true))?;
        let status = response.status();
        if !status.is_success() {
            let again = [
                StatusCode::TOO_MANY_REQUESTS,
                StatusCode::BAD_GATEWAY,
                StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::GATEWAY_TIMEOUT,
            ];
            let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
            return Err(Failure {
                message: format!("the receiver answered {status}"),
                again: again.contains(&status),
                after: Duration::from_secs(after.unwrap_or(0)),
            });
        }
        let mut answer = Vec::new();
        while let Ok(Some(piece)) = response.chunk().await {
            answer.extend_from_slice(&piece);
            if answer.len() > ANSWER {
                return Ok(None);
            }
        }
        Ok(partial(&*answer))
    }

    async fn call(
        &self,
        mut client: Box<tonic::client::Grpc<Channel>>,
        metadata: MetadataMap,
        request: Bytes,
    ) -> Result<Option<ExportMetricsPartialSuccess>, Failure> {
        client.ready().await.map_err(|error| Failure::new(causes(&error), true))?;
        let request = tonic::Request::from_parts(metadata, tonic::Extensions::default(), request);
        let method = PathAndQuery::from_static(self.destination.signal.method());
        match client.unary(request, method, Encoded).await {
            Ok(answer) => Ok(partial(answer.into_inner())),
            Err(status) => {
                use tonic::Code::{
                    Aborted, Cancelled, DataLoss, DeadlineExceeded, OutOfRange, ResourceExhausted, Unavailable,
                };
                let again =
                    [Cancelled, DeadlineExceeded, ResourceExhausted, Aborted, OutOfRange, Unavailable, DataLoss];
                let message = format!("the receiver answered {:?}: {}", status.code(), status.message());
                Err(Failure::new(message, again.contains(&status.code())))
            }
        }
    }
}

/// What a receiver says that it did not take. The answers for all signals have the same shape; one of another type has
/// nothing to say.
fn partial(answer: impl Buf) -> Option<ExportMetricsPartialSuccess> {
    ExportMetricsServiceResponse::decode(answer).ok()?.partial_success
}

/// Messages that are encoded already, over gRPC.
#[derive(Clone, Copy)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

fn gzip(body: &[u8]) -> Result<Vec<u8>, Failure> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let done = encoder.write_all(body).and_then(|()| encoder.finish());
    done.map_err(|error| Failure::new(format!("cannot compress: {error}"), false))
}

fn read(file: &Path) -> Result<Vec<u8>, SetupError> {
    std::fs::read(file).map_err(|error| SetupError::File { file: file.display().to_string(), error })
}

fn http_client(destination: &Destination) -> Result<reqwest::Client, SetupError> {
    let failed = |error: reqwest::Error| SetupError::Client(causes(&error.without_url()));
    let url = reqwest::Url::parse(&destination.endpoint).map_err(|error| SetupError::Endpoint(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(SetupError::Endpoint(format!("{:?} is neither http nor https", url.scheme())));
    }
    for (name, value) in &destination.headers {
        let fits = name.parse::<HeaderName>().is_ok() && HeaderValue::from_str(value.expose()).is_ok();
        fits.then_some(()).ok_or_else(|| SetupError::Header(name.clone()))?;
    }
    let mut builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    if let Some(file) = &destination.certificate {
        let roots = reqwest::Certificate::from_pem_bundle(&read(file)?).map_err(failed)?;
        builder = builder.tls_certs_only(roots);
    }
    if let Some((certificate, key)) = &destination.client {
        let pem = [read(certificate)?, b"\n".to_vec(), read(key)?].concat();
        builder = builder.identity(reqwest::Identity::from_pem(&pem).map_err(failed)?);
    }
    builder.build().map_err(failed)
}

fn grpc_client(destination: &Destination) -> Result<Way, SetupError> {
    let failed = |error: tonic::transport::Error| SetupError::Client(causes(&error));
    let mut endpoint =
        Endpoint::from_shared(destination.endpoint.clone()).map_err(|error| SetupError::Endpoint(causes(&error)))?;
    if destination.endpoint.starts_with("https://") {
        let mut tls = ClientTlsConfig::new();
        tls = match &destination.certificate {
            Some(file) => tls.ca_certificate(Certificate::from_pem(read(file)?)),
            None => tls.with_native_roots(),
        };
        if let Some((certificate, key)) = &destination.client {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        endpoint = endpoint.tls_config(tls).map_err(failed)?;
    }
    let mut metadata = MetadataMap::new();
    for (name, value) in &destination.headers {
        let unfit = || SetupError::Header(name.clone());
        let key = MetadataKey::from_bytes(name.as_bytes()).map_err(|_| unfit())?;
        metadata.insert(key, MetadataValue::try_from(value.expose()).map_err(|_| unfit())?);
    }
    let mut client = tonic::client::Grpc::new(endpoint.connect_lazy());
    if destination.gzip {
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    Ok(Way::Grpc { client: Box::new(client), metadata })
}
