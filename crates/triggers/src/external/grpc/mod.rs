//! Calls of gRPC servers through the source door.
//!
//! Framing and statuses are `tonic`'s. The connections are our own: shared by all triggers with the same address and TLS,
//! closed when nobody needs them, used in turn where a name stands for several servers, encrypted as the door says.

mod address;
mod channel;
mod link;
mod proxy;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use tidemark_trigger::{Door, ErrorKind, HttpProfile, Secret, SourceError};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status, Streaming};

pub use address::Address;
use channel::{Channel, Route, look_up};
use link::Reply;
use proxy::Proxy;

/// The largest message that is accepted, in bytes; the default of gRPC.
const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;
/// The most characters of a server's own words that are kept.
const TEXT_LIMIT: usize = 200;

/// A server to call. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    channel: Arc<Channel>,
    origin: Uri,
}

/// Why a call has no reply.
pub enum Failure {
    /// The server could not be asked, or its reply not be read.
    Source(SourceError),
    /// The server's own answer.
    Status(Code, String),
}

impl Client {
    /// Takes a share of the connections to an address. None is made before the first call.
    ///
    /// # Errors
    /// TLS that cannot be used, a proxy that cannot be used, a door that leads to no network.
    pub async fn shared(door: &Door, address: &Address, tls: Option<&HttpProfile>) -> Result<Self, SourceError> {
        let open = async {
            let tls = tls.map(|profile| encryption(door, profile)).transpose()?;
            let proxy = Proxy::from_environment(address)?;
            Ok(Channel::new(Route { address: address.clone(), tls, proxy, look_up: Box::new(look_up) }))
        };
        let channel = door.shared(&fingerprint(address, tls), open).await?;
        Self::over(channel)
    }

    fn over(channel: Arc<Channel>) -> Result<Self, SourceError> {
        let scheme = if channel.is_encrypted() { "https" } else { "http" };
        let origin = Uri::builder().scheme(scheme).authority(channel.address().authority.clone()).path_and_query("/");
        let origin = origin.build().map_err(|error| {
            SourceError::new(ErrorKind::Configuration, format!("{} is no usable address: {error}", channel.address()))
        })?;
        Ok(Self { channel, origin })
    }

    /// Where the server is.
    pub fn address(&self) -> &Address {
        self.channel.address()
    }

    /// Makes a call with one reply, within a deadline that the server is told too. The request is an encoded message.
    ///
    /// # Errors
    /// There is no reply in time, or it is no success.
    pub async fn call<M: prost::Message + Default + 'static>(
        &self,
        path: &'static str,
        request: Bytes,
        deadline: Duration,
    ) -> Result<M, Failure> {
        let mut request = tonic::Request::new(request);
        request.set_timeout(deadline);
        let mut grpc = self.grpc();
        let reply = grpc.unary(request, PathAndQuery::from_static(path), Messages(PhantomData));
        match tokio::time::timeout(deadline, reply).await {
            Ok(reply) => reply.map(tonic::Response::into_inner).map_err(Failure::from),
            Err(_) => {
                let message = format!("{} did not answer {} within {deadline:?}", self.address(), method(path));
                Err(SourceError::new(ErrorKind::TimedOut, message).into())
            }
        }
    }

    /// Opens a stream of messages. It has no deadline: a server may answer only when it has something to say.
    ///
    /// # Errors
    /// The server could not be asked, or refused.
    pub async fn stream<M: prost::Message + Default + 'static>(
        &self,
        path: &'static str,
        request: Bytes,
    ) -> Result<Streaming<M>, Failure> {
        let request = tonic::Request::new(request);
        let reply = self.grpc().server_streaming(request, PathAndQuery::from_static(path), Messages(PhantomData)).await;
        reply.map(tonic::Response::into_inner).map_err(Failure::from)
    }

    fn grpc(&self) -> Grpc<Transport> {
        let transport = Transport(self.channel.clone());
        Grpc::with_origin(transport, self.origin.clone()).max_decoding_message_size(MESSAGE_LIMIT)
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let mut cause = std::error::Error::source(&status);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<SourceError>() {
                return Self::Source(error.clone());
            }
            cause = error.source();
        }
        Self::Status(status.code(), status.message().to_owned())
    }
}

impl Failure {
    /// Whether the server has no such method.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Status(Code::Unimplemented, _))
    }

    /// The error for the user. `answered` says who answered what; of the server's words only what `hide` leaves is shown.
    pub fn into_error(self, answered: &str, hide: impl Fn(String) -> String) -> SourceError {
        let (code, text) = match self {
            Self::Source(error) => return SourceError::new(error.kind, hide(error.message)),
            Self::Status(code, text) => (code, text),
        };
        let kind = match code {
            Code::Unauthenticated | Code::PermissionDenied => ErrorKind::Authentication,
            Code::DeadlineExceeded => ErrorKind::TimedOut,
            Code::Unavailable => ErrorKind::Unreachable,
            Code::NotFound => ErrorKind::MissingResource,
            // Also what a message beyond the limit gets on this side.
            Code::OutOfRange => ErrorKind::BadReply,
            _ => ErrorKind::Refused,
        };
        let text = shortened(&hide(text));
        let text = if text.is_empty() { code.description() } else { text.as_str() };
        SourceError::new(kind, format!("{answered} with {code:?}: {text}"))
    }
}

/// The name of the method that a path leads to.
pub fn method(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Somebody else's words, for one line.
fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_LIMIT).collect()
}

/// TLS as the door says, for HTTP/2.
fn encryption(door: &Door, profile: &HttpProfile) -> Result<Arc<rustls::ClientConfig>, SourceError> {
    let mut config = door.tls(profile)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// The same for triggers that can share connections, and for no others: a digest, so that the key under which they are
/// shared holds no secret.
fn fingerprint(address: &Address, tls: Option<&HttpProfile>) -> String {
    use sha2::{Digest, Sha256};
    use std::fmt::Write as _;

    let mut digest = Sha256::new();
    let mut part = |text: Option<&str>| {
        // A text that is not there differs from an empty one.
        digest.update([u8::from(text.is_some())]);
        digest.update(text.map_or(0, str::len).to_le_bytes());
        digest.update(text.unwrap_or_default());
    };
    part(Some(&address.to_string()));
    part(Some(address.authority.as_str()));
    part(tls.map(|tls| if tls.unsafe_ssl { "unchecked" } else { "checked" }));
    part(tls.and_then(|tls| tls.ca.as_ref()).map(Secret::expose));
    let pair = tls.and_then(|tls| tls.client_cert.as_ref());
    part(pair.map(|(cert, _)| cert.expose()));
    part(pair.map(|(_, key)| key.expose()));
    digest.finalize().iter().fold("grpc:".to_owned(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A channel as `tonic` takes it.
struct Transport(Arc<Channel>);

impl tower::Service<Request<Body>> for Transport {
    type Response = Response<Reply>;
    type Error = SourceError;
    type Future = BoxFuture<'static, Result<Response<Reply>, SourceError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SourceError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let channel = self.0.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|status| SourceError::new(ErrorKind::Refused, status.message()))?;
            channel.send(head, body.to_bytes()).await.map(with_status)
        }
        .boxed()
    }
}

/// Gives a response that is no gRPC's, such as the page of a web server, the status that gRPC says it stands for.
fn with_status(mut response: Response<Reply>) -> Response<Reply> {
    let (http, headers) = (response.status(), response.headers());
    let is_grpc = |content: &HeaderValue| content.as_bytes().starts_with(b"application/grpc");
    if headers.contains_key("grpc-status") || http == StatusCode::OK && headers.get(CONTENT_TYPE).is_some_and(is_grpc) {
        return response;
    }
    let code = match http.as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    let message = format!("the answer is no gRPC: HTTP status {}", http.as_u16());
    let headers = response.headers_mut();
    headers.insert("grpc-status", HeaderValue::from(code as i32));
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert("grpc-message", message);
    }
    response
}

/// Requests as encoded messages, replies as messages of one type.
struct Messages<M>(PhantomData<fn() -> M>);

impl<M: prost::Message + Default + 'static> Codec for Messages<M> {
    type Encode = Bytes;
    type Decode = M;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self(PhantomData)
    }

    fn decoder(&mut self) -> Self {
        Self(PhantomData)
    }
}

impl<M: 'static> Encoder for Messages<M> {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl<M: prost::Message + Default + 'static> Decoder for Messages<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        M::decode(buffer).map(Some).map_err(|error| {
            let message = format!("the reply is no message of the contract: {error}");
            let mut status = Status::internal("");
            status.set_source(Arc::new(SourceError::new(ErrorKind::BadReply, message)));
            status
        })
    }
}
