//! One HTTP/2 connection to one server.

use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use socket2::{SockRef, TcpKeepalive};
use tidemark_trigger::{ErrorKind, SourceError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::proxy::Proxy;
use crate::connect_failure;

/// A connection without traffic is asked by TCP whether it is alive after this time, and then at these intervals.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_TRIES: u32 = 3;
/// How long sent bytes may stay without acknowledgement.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);
/// A call that was given up after this time, and during which the connection was silent, puts the connection in doubt.
const SILENCE: Duration = Duration::from_secs(1);
/// The most streams on one connection. Servers that limit them allow 100 at least, as a rule, and calls need room too.
const STREAMS: usize = 90;

/// The way to one of the servers behind an address.
#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    Direct(SocketAddr),
    Proxy(Proxy),
    Path(PathBuf),
    /// A Unix socket outside the file system.
    Abstract(String),
}

/// What is below HTTP/2.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// What is known about a connection while it is used.
#[derive(Default)]
struct Signs {
    /// What became of the socket.
    lost: OnceLock<SourceError>,
    /// How often something was received.
    received: AtomicU64,
    /// The other side has answered a request.
    answered: AtomicBool,
    encrypted: bool,
    in_doubt: AtomicBool,
    /// Streams that are open.
    streams: AtomicUsize,
}

/// An open connection; it closes when nobody holds it.
pub struct Link {
    shown: Arc<str>,
    sender: SendRequest<Message>,
    signs: Arc<Signs>,
    driver: JoinHandle<()>,
    ended: watch::Receiver<()>,
}

/// Why a request has no response.
pub struct Failure {
    pub error: SourceError,
    /// The other side has not looked at the request: it may be sent again elsewhere.
    pub untouched: bool,
}

/// The body of a request.
pub struct Message(Option<Bytes>);

impl Message {
    /// A body in one piece.
    pub fn new(message: Bytes) -> Self {
        Self(Some(message))
    }
}

impl HttpBody for Message {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|message| Ok(Frame::data(message))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

impl Link {
    /// Connects. The caller sets the deadline.
    ///
    /// # Errors
    /// What kept the connection from coming about.
    pub async fn open(
        way: &Way,
        address: &Address,
        tls: Option<&Arc<ClientConfig>>,
        shown: Arc<str>,
    ) -> Result<Self, SourceError> {
        let socket = socket(way, address, &shown).await?;
        let socket = match tls {
            None => socket,
            Some(tls) => encrypt(socket, address, tls, &shown).await?,
        };
        let signs = Arc::new(Signs { encrypted: tls.is_some(), ..Signs::default() });
        let socket = TokioIo::new(Observed { socket, signs: signs.clone(), shown: shown.clone() });
        let handshake = Builder::new(TokioExecutor::new()).handshake(socket).await;
        let (sender, connection) = handshake.map_err(|error| failure(&error, &signs, &shown))?;
        // How the connection ended is told to the requests on it.
        let (running, ended) = watch::channel(());
        let driver = tokio::spawn(async move {
            let _ = connection.await;
            drop(running);
        });
        Ok(Self { shown, sender, signs, driver, ended })
    }

    /// Whether the connection may be used for another request, as far as this side knows.
    pub fn works(&self) -> bool {
        let full = self.signs.streams.load(Ordering::Relaxed) >= STREAMS;
        let in_doubt = self.signs.in_doubt.load(Ordering::Relaxed);
        !full && !in_doubt && !self.sender.is_closed() && !self.driver.is_finished()
    }

    /// A place for a request; none when there are enough streams already. A stream is a request without a deadline.
    pub fn seat(self: Arc<Self>, stream: bool) -> Option<Seat> {
        let more = |streams| (streams < STREAMS).then_some(streams + 1);
        if stream {
            self.signs.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        }
        Some(Seat { link: self, stream })
    }

    async fn ended(&self) {
        // Nothing is ever sent: it fails when the other end is dropped.
        let _ = self.ended.clone().changed().await;
    }

    fn closed(&self) -> Failure {
        let message = format!("the connection to {} was closed", self.shown);
        Failure { error: SourceError::new(ErrorKind::Unreachable, message), untouched: true }
    }
}

/// Goes with a request until it is sent.
#[derive(Clone)]
struct Queued(#[expect(dead_code, reason = "it is there to be counted")] Arc<()>);

/// The place of a request on a connection, which stays open for it.
pub struct Seat {
    link: Arc<Link>,
    stream: bool,
}

impl Seat {
    /// Sends a request and waits for the head of the response. The caller sets the deadline.
    ///
    /// # Errors
    /// The connection or the other side failed.
    pub async fn send(self, mut request: Request<Message>) -> Result<Response<Reply>, Failure> {
        let link = &self.link;
        // The response of a stream may take for ever.
        let waiting = (!self.stream).then(|| Waiting::on(&link.signs));
        let queued = Arc::new(());
        request.extensions_mut().insert(Queued(queued.clone()));
        let mut sender = link.sender.clone();
        let mut sent = pin!(sender.try_send_request(request));
        let outcome = tokio::select! {
            biased;
            outcome = &mut sent => Some(outcome),
            () = link.ended() => None,
        };
        let outcome = match outcome {
            Some(outcome) => outcome,
            // Put into the queue at the moment when the connection ended: it would stay there.
            None if Arc::strong_count(&queued) > 1 => return Err(link.closed()),
            // Requests that were sent before are answered still.
            None => sent.await,
        };
        if let Some(mut waiting) = waiting {
            waiting.over = true;
        }
        match outcome {
            Ok(response) => {
                link.signs.answered.store(true, Ordering::Relaxed);
                Ok(response.map(|body| Reply { body, seat: self }))
            }
            Err(refused) => {
                let untouched = refused.message().is_some() || is_turned_away(refused.error());
                if untouched {
                    link.signs.in_doubt.store(true, Ordering::Relaxed);
                }
                Err(Failure { error: failure(refused.error(), &link.signs, &link.shown), untouched })
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.stream {
            self.link.signs.streams.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A request without a response. Dropped before it is over, it has been given up.
struct Waiting {
    signs: Arc<Signs>,
    since: Instant,
    received: u64,
    over: bool,
}

impl Waiting {
    fn on(signs: &Arc<Signs>) -> Self {
        let received = signs.received.load(Ordering::Relaxed);
        Self { signs: signs.clone(), since: Instant::now(), received, over: false }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let silent = self.signs.received.load(Ordering::Relaxed) == self.received;
        if !self.over && silent && self.since.elapsed() >= SILENCE {
            // It may lead nowhere since the other side went away without a word: the next request gets a new one.
            self.signs.in_doubt.store(true, Ordering::Relaxed);
        }
    }
}

/// The body of a response; it keeps its connection open.
pub struct Reply {
    body: Incoming,
    seat: Seat,
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = SourceError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, SourceError>>> {
        let Self { body, seat: Seat { link, .. } } = &mut *self;
        Pin::new(body)
            .poll_frame(cx)
            .map(|frame| frame.map(|frame| frame.map_err(|error| failure(&error, &link.signs, &link.shown))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn socket(way: &Way, address: &Address, shown: &str) -> Result<Box<dyn Socket>, SourceError> {
    let failed = |error| connect_failure::of_tcp(&error, shown);
    let stream = match way {
        Way::Path(path) => return Ok(Box::new(UnixStream::connect(path).await.map_err(failed)?)),
        Way::Abstract(name) => return Ok(Box::new(connect_abstract(name).await.map_err(failed)?)),
        Way::Direct(address) => TcpStream::connect(address).await.map_err(failed)?,
        Way::Proxy(proxy) => proxy.connect(address).await?,
    };
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_TRIES)).map_err(failed)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED)).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(Box::new(stream))
}

#[cfg(target_os = "linux")]
async fn connect_abstract(name: &str) -> io::Result<UnixStream> {
    use std::os::linux::net::SocketAddrExt as _;

    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    // A local socket accepts or refuses at once.
    let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

#[cfg(not(target_os = "linux"))]
async fn connect_abstract(_: &str) -> io::Result<UnixStream> {
    Err(io::Error::other("only Linux has Unix sockets outside the file system"))
}

async fn encrypt(
    socket: Box<dyn Socket>,
    address: &Address,
    tls: &Arc<ClientConfig>,
    shown: &str,
) -> Result<Box<dyn Socket>, SourceError> {
    let name = ServerName::try_from(address.server_name().to_owned()).map_err(|_| {
        let message = format!("{shown}: the host is no name that a certificate can have");
        SourceError::new(ErrorKind::Configuration, message)
    })?;
    let stream = TlsConnector::from(tls.clone()).connect(name, socket).await;
    Ok(Box::new(stream.map_err(|error| of_tls(&error, shown))?))
}

fn of_tls(error: &io::Error, shown: &str) -> SourceError {
    match connect_failure::tls_cause(error) {
        Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
            SourceError::new(ErrorKind::BadReply, format!("{shown} does not speak gRPC: it refuses HTTP/2"))
        }
        _ => connect_failure::of_tls(error, shown),
    }
}

/// Whether the other side said that it has not looked at the request: it is about to go away, or has enough to do.
fn is_turned_away(error: &hyper::Error) -> bool {
    let Some(error) = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>()) else { return false };
    match error.reason() {
        Some(h2::Reason::NO_ERROR) => error.is_go_away() && error.is_remote(),
        Some(h2::Reason::REFUSED_STREAM) => error.is_reset() && error.is_remote(),
        _ => false,
    }
}

/// What became of a request, in the user's terms.
fn failure(error: &hyper::Error, signs: &Signs, shown: &str) -> SourceError {
    if let Some(lost) = signs.lost.get() {
        return lost.clone();
    }
    let mut cause = error.source();
    while let Some(inner) = cause.and_then(std::error::Error::source) {
        cause = Some(inner);
    }
    let cause = cause.map_or_else(|| error.to_string(), ToString::to_string);
    // The other side may add words of its own.
    let cause = super::shortened(&cause);
    let hint = match signs.answered.load(Ordering::Relaxed) {
        true => "",
        false if signs.encrypted => "; it may not speak gRPC, or want a client certificate",
        false => "; it may not speak gRPC, or want TLS",
    };
    SourceError::new(ErrorKind::Unreachable, format!("the connection to {shown} broke: {cause}{hint}"))
}

/// A socket that leaves signs. HTTP/2 tells requests little about what became of the socket, such as that the client's
/// certificate was refused.
struct Observed {
    socket: Box<dyn Socket>,
    signs: Arc<Signs>,
    shown: Arc<str>,
}

impl Observed {
    fn note<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &outcome
            && connect_failure::tls_cause(error).is_some()
        {
            // The first cause counts: what follows is its consequence.
            let _ = self.signs.lost.set(of_tls(error, &self.shown));
        }
        outcome
    }
}

impl AsyncRead for Observed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.signs.received.fetch_add(1, Ordering::Relaxed);
        }
        self.note(outcome)
    }
}

impl AsyncWrite for Observed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.note(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.socket).poll_flush(cx);
        self.note(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write_vectored(cx, bytes);
        self.note(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
