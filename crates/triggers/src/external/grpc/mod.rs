//! Calls of gRPC servers through the source door.
//!
//! Messages, statuses, HTTP/2 and reconnecting are `tonic`'s. What it lacks is here: channels shared by all triggers with
//! the same address and TLS and closed when nobody needs them, connected as the door and the environment say, used in turn
//! where a name stands for several servers.

mod address;
mod connect;
mod pool;
mod proxy;
#[cfg(test)]
mod tests;

use std::error::Error as _;
use std::iter::successors;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use futures::stream::{BoxStream, StreamExt as _};
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderValue, Response, StatusCode, Uri};
use http_body::Frame;
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};
use tidemark_trigger::{Door, ErrorKind, HttpProfile, Secret, SourceError};
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Status};
use tower::ServiceExt as _;
use tower::util::MapResponse;

pub use address::{Address, Place};
use connect::{Route, look_up};
use pool::{Pool, Seat};
use proxy::Proxy;

/// How often a request is sent that no server looks at.
const TRIES: usize = 3;
/// How much later than this side the server is told to give up: a server that is first resets the stream and does not say
/// why.
const GRACE: Duration = Duration::from_secs(1);
/// The largest message that is accepted, in bytes; the default of gRPC.
const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;
/// The most characters of a server's own words that are kept.
const TEXT_LIMIT: usize = 200;

/// A header that nobody reads here. `tonic` panics when its value is no base64.
const STATUS_DETAILS: &str = "grpc-status-details-bin";

/// A channel whose responses are readable.
type Transport = MapResponse<Channel, fn(Response<Body>) -> Response<Body>>;

/// A server to call. Cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<Pool>);

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
            Self::pool(Route { address: address.clone(), tls, proxy, look_up: Box::new(look_up) })
        };
        door.shared(&fingerprint(address, tls), open).await.map(Self)
    }

    fn pool(route: Route) -> Result<Pool, SourceError> {
        let scheme = if route.tls.is_some() { "https" } else { "http" };
        let origin = Uri::builder().scheme(scheme).authority(route.address.authority.clone()).path_and_query("/");
        let origin = origin.build().map_err(|error| {
            SourceError::new(ErrorKind::Configuration, format!("{} is no usable address: {error}", route.address))
        })?;
        Ok(Pool::new(route, origin))
    }

    /// Where the server is.
    pub fn address(&self) -> &Address {
        &self.0.route.address
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
        let late = || {
            let message = format!("{} did not answer {} within {deadline:?}", self.address(), method(path));
            SourceError::new(ErrorKind::TimedOut, message)
        };
        let end = Instant::now() + deadline;
        let mut tries = 0;
        loop {
            let seat = timeout_at(end, self.0.seat(false)).await.unwrap_or_else(|_| Err(late()))?;
            let mut request = tonic::Request::new(request.clone());
            request.set_timeout(end.duration_since(Instant::now()) + GRACE);
            let reply = async {
                let mut grpc = grpc(&seat).await?;
                grpc.unary(request, PathAndQuery::from_static(path), Messages(PhantomData)).await
            };
            let status = match timeout_at(end, reply).await {
                Ok(Ok(reply)) => {
                    self.0.worked(&seat);
                    return Ok(reply.into_inner());
                }
                Ok(Err(status)) => status,
                Err(_) => {
                    self.0.failed(&seat, true);
                    return Err(late().into());
                }
            };
            let (failure, again) = self.failure(&status, &seat);
            tries += 1;
            if !again || tries == TRIES {
                return Err(failure);
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
    ) -> Result<BoxStream<'static, Result<M, Failure>>, Failure> {
        let seat = self.0.seat(true).await?;
        let opened = async {
            let mut grpc = grpc(&seat).await?;
            let path = PathAndQuery::from_static(path);
            grpc.server_streaming(tonic::Request::new(request), path, Messages(PhantomData)).await
        };
        let messages = opened.await.map_err(|status| self.failure(&status, &seat).0)?.into_inner();
        self.0.worked(&seat);
        let client = self.clone();
        Ok(messages.map(move |message| message.map_err(|status| client.failure(&status, &seat).0)).boxed())
    }

    /// Notes what became of a request. Gives the failure, and whether the request may be sent again: nobody has looked at
    /// it, and there is hope that somebody will.
    fn failure(&self, status: &Status, seat: &Seat) -> (Failure, bool) {
        let Some(last) = causes(status).last() else {
            self.0.worked(seat);
            return (Failure::Status(status.code(), status.message().to_owned()), false);
        };
        if let Some(error) = cause::<SourceError>(status) {
            // A server that cannot be reached is not asked twice.
            let again = cause::<ConnectError>(status).is_some() && self.0.failed(seat, true);
            return (error.clone().into(), again);
        }
        let (h2, hyper) = (cause::<h2::Error>(status), cause::<hyper::Error>(status));
        let untouched = h2.is_some_and(is_turned_away) || hyper.is_some_and(hyper::Error::is_canceled);
        // A stream that is reset says nothing about the others on its connection.
        if untouched || !h2.is_some_and(h2::Error::is_reset) {
            self.0.failed(seat, !untouched);
        }
        // A client certificate is refused only after the handshake.
        let refused =
            h2.and_then(h2::Error::get_io).is_some_and(|error| error.kind() == std::io::ErrorKind::InvalidData);
        let (kind, hint) = match (self.0.answered.load(Ordering::Relaxed), &self.0.route.tls) {
            (true, _) => (ErrorKind::Unreachable, ""),
            (false, Some(_)) if refused => (ErrorKind::Authentication, "; it may want a client certificate"),
            (false, Some(_)) => (ErrorKind::Unreachable, "; it may not speak gRPC, or want a client certificate"),
            (false, None) => (ErrorKind::Unreachable, "; it may not speak gRPC, or want TLS"),
        };
        // The other side may add words of its own.
        let (shown, words) = (self.0.route.shown(seat.way()), shortened(&last.to_string()));
        (SourceError::new(kind, format!("the connection to {shown} broke: {words}{hint}")).into(), untouched)
    }
}

/// The way to call the server at a place, once its queue has room.
async fn grpc(seat: &Seat) -> Result<Grpc<Transport>, Status> {
    let channel = seat.channel().map_response(readable as fn(Response<Body>) -> Response<Body>);
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MESSAGE_LIMIT);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    Ok(grpc)
}

/// What is behind a status of this side.
fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    successors(status.source(), |&cause| cause.source())
}

fn cause<E: std::error::Error + 'static>(status: &Status) -> Option<&E> {
    causes(status).find_map(|cause| cause.downcast_ref())
}

/// Whether the other side said that it has not looked at the request: it is about to go away, or has enough to do.
fn is_turned_away(error: &h2::Error) -> bool {
    match error.reason() {
        Some(h2::Reason::NO_ERROR) => error.is_go_away() && error.is_remote(),
        Some(h2::Reason::REFUSED_STREAM) => error.is_reset() && error.is_remote(),
        _ => false,
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
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
    let pair =
        |tls: &HttpProfile| tls.client_cert.as_ref().map(|(cert, key)| [cert.expose(), key.expose()].map(String::from));
    let tls = tls.map(|tls| (tls.unsafe_ssl, tls.ca.as_ref().map(Secret::expose), pair(tls)));
    // Quoted as Debug does, no two differ in their parts and not in the whole.
    let whole = format!("{:?}", (address.to_string(), address.authority.as_str(), tls));
    format!("grpc:{:x}", Sha256::digest(whole))
}

/// A response as `tonic` can read it.
fn readable(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().remove(STATUS_DETAILS);
    with_status(response).map(|body| Body::new(body.map_frame(without_details)))
}

fn without_details(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            trailers.remove(STATUS_DETAILS);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// Gives a response that is no gRPC's, such as the page of a web server, the status that gRPC says it stands for.
fn with_status(mut response: Response<Body>) -> Response<Body> {
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
