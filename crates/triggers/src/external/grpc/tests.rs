//! Calls against small HTTP/2 servers on the loopback interface, and against what is none.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::join_all;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::*;
use crate::external::contract::{IS_ACTIVE, IsActiveResponse};

/// No test waits for it, but those that say so.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a server answers: HTTP status, headers, body, and the gRPC status that follows it.
#[derive(Clone)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    trailer: Option<Code>,
}

impl Answer {
    /// The gRPC status alone.
    fn status(code: Code, message: &str) -> Self {
        let status = ("grpc-status", (code as i32).to_string());
        // Details that are no base64.
        let headers = vec![status, ("grpc-message", message.to_owned()), (STATUS_DETAILS, "!".to_owned())];
        Self { status: 200, headers, body: Vec::new(), trailer: None }
    }

    /// Never.
    fn never() -> Self {
        Self { status: 0, headers: Vec::new(), body: Vec::new(), trailer: None }
    }

    /// A body of gRPC, and a status after it.
    fn body(body: Vec<u8>, trailer: Option<Code>) -> Self {
        Self { status: 200, headers: vec![("content-type", "application/grpc".to_owned())], body, trailer }
    }
}

/// A server that answers every call alike.
struct Server {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
    /// Connections that were ever accepted, and those that are open.
    accepted: Arc<AtomicUsize>,
    open: watch::Sender<usize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (calls, accepted, open) =
            (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default(), watch::Sender::new(0));
        let (counted, count, opened) = (calls.clone(), accepted.clone(), open.clone());
        let task = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                opened.send_modify(|open| *open += 1);
                let (answer, calls, opened) = (answer.clone(), counted.clone(), opened.clone());
                serving.spawn(async move {
                    serve(stream, answer, calls).await;
                    opened.send_modify(|open| *open -= 1);
                });
            }
        });
        Self { address, calls, accepted, open, task }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, answer: Answer, calls: Arc<AtomicUsize>) {
    let service = service_fn(move |request: Request<Incoming>| {
        assert!(request.uri().path().starts_with("/externalscaler."));
        calls.fetch_add(1, Ordering::Relaxed);
        if answer.status == 0 {
            return pending().boxed();
        }
        let mut response = Response::builder().status(answer.status);
        for (name, value) in &answer.headers {
            response = response.header(*name, value);
        }
        let trailers = answer.trailer.map(|code| {
            let trailers =
                [("grpc-status", HeaderValue::from(code as i32)), (STATUS_DETAILS, HeaderValue::from_static("!"))];
            trailers.into_iter().map(|(name, value)| (name.parse().unwrap(), value)).collect()
        });
        let body = Some(Bytes::from(answer.body.clone())).filter(|body| !body.is_empty());
        async move { Ok::<_, Infallible>(response.body(Whole { body, trailers }).unwrap()) }.boxed()
    });
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // A client may go away at any time.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

/// A body in one piece, and what follows it.
struct Whole {
    body: Option<Bytes>,
    trailers: Option<http::HeaderMap>,
}

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        let frame = self.body.take().map(http_body::Frame::data);
        let frame = frame.or_else(|| self.trailers.take().map(http_body::Frame::trailers));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none() && self.trailers.is_none()
    }
}

/// Where the name `scaler.test` leads to.
type Behind = Arc<Mutex<Vec<SocketAddr>>>;

fn over(route: Route) -> Client {
    Client(Arc::new(Client::pool(route).unwrap()))
}

fn client(behind: &Behind) -> Client {
    let behind = behind.clone();
    let look_up = move |_, _| {
        let found = behind.lock().unwrap().clone();
        async move { Ok(found) }.boxed()
    };
    let address = Address::parse("scaler.test:80").unwrap();
    over(Route { address, tls: None, proxy: None, look_up: Box::new(look_up) })
}

fn behind<const N: usize>(servers: [SocketAddr; N]) -> Behind {
    Arc::new(Mutex::new(servers.into()))
}

async fn call(client: &Client, deadline: Duration) -> Result<IsActiveResponse, SourceError> {
    let reply = client.call(IS_ACTIVE, Bytes::new(), deadline).await;
    reply.map_err(|failure| failure.into_error("it answered", |text| text))
}

/// The error of a call.
async fn refusal(client: &Client) -> SourceError {
    call(client, PATIENCE).await.unwrap_err()
}

async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn all_who_call_at_once_share_one_connection() {
    let server = Server::start(Answer::status(Code::NotFound, "no such queue")).await;
    let client = client(&behind([server.address]));
    for error in join_all((0..50).map(|_| refusal(&client))).await {
        assert_eq!(error, SourceError::new(ErrorKind::MissingResource, "it answered with NotFound: no such queue"));
    }
    assert_eq!((server.calls(), server.accepted()), (50, 1));
}

#[tokio::test]
async fn the_connection_closes_when_nobody_needs_it() {
    let server = Server::start(Answer::status(Code::NotFound, "")).await;
    let client = client(&behind([server.address]));
    refusal(&client).await;
    let mut open = server.open.subscribe();
    assert_eq!(*open.borrow_and_update(), 1);
    drop(client);
    open.wait_for(|open| *open == 0).await.unwrap();
}

#[tokio::test]
async fn many_streams_are_spread_over_connections_that_leave_room_for_calls() {
    let server = Server::start(Answer::never()).await;
    let client = client(&behind([server.address]));
    let mut streams = JoinSet::new();
    for _ in 0..200 {
        let client = client.clone();
        streams.spawn(async move { client.stream::<IsActiveResponse>(IS_ACTIVE, Bytes::new()).await.map(drop) });
    }
    let arrived = async {
        while server.calls() < 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, arrived).await.unwrap();
    assert_eq!(server.accepted(), 3);
    // All places are free again, and connections that nobody needs close.
    streams.shutdown().await;
    let mut open = server.open.subscribe();
    open.wait_for(|open| *open == 1).await.unwrap();
}

#[tokio::test]
async fn servers_behind_one_name_are_asked_in_turn_and_new_ones_are_found() {
    let answer = Answer::status(Code::NotFound, "");
    let (a, b, c) =
        (Server::start(answer.clone()).await, Server::start(answer.clone()).await, Server::start(answer).await);
    let places = behind([a.address, b.address]);
    let client = client(&places);
    // The second connection is made while calls go on.
    for _ in 0..10_000 {
        refusal(&client).await;
        if b.calls() > 0 {
            break;
        }
    }
    let before = (a.calls(), b.calls());
    for _ in 0..10 {
        refusal(&client).await;
    }
    assert_eq!((a.calls() - before.0, b.calls() - before.1), (5, 5));
    assert_eq!((a.accepted(), b.accepted()), (1, 1));

    // One goes away: its place is looked up anew.
    *places.lock().unwrap() = vec![b.address, c.address];
    drop(a);
    for _ in 0..10_000 {
        // A call that is under way when the server goes away fails.
        let _ = call(&client, PATIENCE).await;
        if c.calls() > 0 {
            break;
        }
    }
    let before = (b.calls(), c.calls());
    for _ in 0..10 {
        refusal(&client).await;
    }
    assert_eq!((b.calls() - before.0, c.calls() - before.1), (5, 5));
}

#[tokio::test]
async fn a_server_that_is_down_leaves_the_others_to_be_asked() {
    let server = Server::start(Answer::status(Code::NotFound, "")).await;
    let client = client(&behind([closed_port().await, server.address]));
    for _ in 0..5 {
        assert_eq!(refusal(&client).await.kind, ErrorKind::MissingResource);
    }
}

#[tokio::test]
async fn servers_that_are_all_down_are_unreachable_until_one_is_up() {
    let places = behind([closed_port().await, closed_port().await]);
    let client = client(&places);
    let error = refusal(&client).await;
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.message.starts_with("cannot connect to scaler.test:80 (127.0.0.1): connection refused"), "{error}");
    let server = Server::start(Answer::status(Code::NotFound, "")).await;
    places.lock().unwrap().push(server.address);
    assert_eq!(refusal(&client).await.kind, ErrorKind::MissingResource);
    places.lock().unwrap().clear();
    drop(server);
    let mut last = refusal(&client).await;
    if !last.message.contains("no address") {
        last = refusal(&client).await;
    }
    assert_eq!(last.message, "the name of scaler.test:80 cannot be resolved: it has no address");
}

/// Listens, and lets a function deal with each connection.
async fn raw<F>(deal: impl Fn(tokio::net::TcpStream) -> F + Send + 'static) -> (SocketAddr, JoinHandle<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut dealing = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            dealing.spawn(deal(stream));
        }
    });
    (address, task)
}

#[tokio::test]
async fn a_server_that_says_nothing_times_out_and_gets_a_new_connection() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    let (address, _task) = raw(move |stream| {
        count.fetch_add(1, Ordering::Relaxed);
        async move {
            let _open = stream;
            pending::<()>().await;
        }
    })
    .await;
    let client = client(&behind([address]));
    let error = call(&client, Duration::from_millis(1100)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut);
    let expected = "scaler.test:80 did not answer IsActive within 1.1s";
    assert_eq!(error.message, expected);
    assert_eq!(accepted.load(Ordering::Relaxed), 1);
    // It may have gone away without a word.
    assert!(call(&client, Duration::from_millis(200)).await.is_err());
    assert_eq!(accepted.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_left_alone_while_another_answers() {
    let (silent, _task) = raw(|stream| async move {
        let _open = stream;
        pending::<()>().await;
    })
    .await;
    let server = Server::start(Answer::status(Code::NotFound, "")).await;
    let client = client(&behind([silent, server.address]));
    assert_eq!(call(&client, Duration::from_millis(200)).await.unwrap_err().kind, ErrorKind::TimedOut);
    for _ in 0..5 {
        assert_eq!(refusal(&client).await.kind, ErrorKind::MissingResource);
    }
}

#[tokio::test]
async fn what_does_not_speak_grpc_is_an_error_with_a_hint() {
    for words in [&b"SSH-2.0-OpenSSH_9.9\r\n"[..], b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", b""] {
        let (address, _task) = raw(move |mut stream| async move {
            let _ = stream.write_all(words).await;
            // The client's greeting, so that closing is no reset.
            let _ = stream.read(&mut [0; 1024]).await;
        })
        .await;
        let error = refusal(&client(&behind([address]))).await;
        assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
        assert!(error.message.starts_with("the connection to scaler.test:80 (127.0.0.1) broke: "), "{error}");
        assert!(error.message.ends_with("; it may not speak gRPC, or want TLS"), "{error}");
    }
}

#[tokio::test]
async fn replies_of_all_kinds_are_errors_in_the_users_terms() {
    let web = |status| Answer {
        status,
        headers: vec![("content-type", "text/html".to_owned())],
        body: b"<p>".to_vec(),
        trailer: None,
    };
    let frame = |length: u32, message: &[u8]| {
        let mut body = vec![0];
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(message);
        Answer::body(body, Some(Code::Ok))
    };
    for (answer, kind) in [
        (Answer::status(Code::Unauthenticated, "who are you"), ErrorKind::Authentication),
        (Answer::status(Code::PermissionDenied, ""), ErrorKind::Authentication),
        (Answer::status(Code::DeadlineExceeded, ""), ErrorKind::TimedOut),
        (Answer::status(Code::Unavailable, ""), ErrorKind::Unreachable),
        (Answer::status(Code::Internal, "%0Aboom"), ErrorKind::Refused),
        (Answer::status(Code::Unimplemented, ""), ErrorKind::Refused),
        (web(404), ErrorKind::Refused),
        (web(401), ErrorKind::Authentication),
        (web(403), ErrorKind::Authentication),
        (web(200), ErrorKind::Refused),
        (web(500), ErrorKind::Refused),
        (web(503), ErrorKind::Unreachable),
        // Longer than allowed, no message, no valid text.
        (frame(MESSAGE_LIMIT as u32 + 1, b""), ErrorKind::BadReply),
        (frame(3, b"\xff\xff\xff"), ErrorKind::BadReply),
        (frame(9, b"\x08"), ErrorKind::Refused),
        (Answer::body(vec![7; 64], Some(Code::Ok)), ErrorKind::Refused),
        (Answer::body(Vec::new(), Some(Code::Ok)), ErrorKind::Refused),
        (Answer::body(vec![0, 0, 0, 0, 2, 8, 1], None), ErrorKind::Refused),
        (Answer::body(vec![0, 0, 0, 0, 2, 8, 1], Some(Code::NotFound)), ErrorKind::MissingResource),
    ] {
        let server = Server::start(answer).await;
        let error = refusal(&client(&behind([server.address]))).await;
        assert_eq!(error.kind, kind, "{error}");
        assert!(!error.message.contains('\n'), "{error}");
    }
}

#[tokio::test]
async fn a_reply_of_the_contract_is_read() {
    let server = Server::start(Answer::body(vec![0, 0, 0, 0, 2, 8, 1], Some(Code::Ok))).await;
    let reply = call(&client(&behind([server.address])), PATIENCE).await;
    assert_eq!(reply, Ok(IsActiveResponse { result: true }));
}

#[tokio::test]
async fn a_unix_socket_is_a_server_too() {
    let folder = std::env::temp_dir().join(format!("tidemark-grpc-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("scaler.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream, Answer::status(Code::NotFound, ""), Arc::default()).await;
    });
    let address = Address::parse(&format!("unix://{}", path.display())).unwrap();
    let route = Route { address, tls: None, proxy: None, look_up: Box::new(look_up) };
    let client = over(route);
    assert_eq!(refusal(&client).await.kind, ErrorKind::MissingResource);
    task.abort();
    std::fs::remove_dir_all(&folder).unwrap();
    // A call may still find the old connection.
    let _ = call(&client, PATIENCE).await;
    let error = refusal(&client).await;
    assert!(error.kind == ErrorKind::Unreachable, "{error}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_socket_outside_the_file_system_is_one_too() {
    use std::os::linux::net::SocketAddrExt as _;

    let name = format!("tidemark-grpc-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = UnixListener::from_std(listener).unwrap();
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream, Answer::status(Code::NotFound, ""), Arc::default()).await;
    };
    let address = Address::parse(&format!("unix-abstract:{name}")).unwrap();
    let route = Route { address, tls: None, proxy: None, look_up: Box::new(look_up) };
    let client = over(route);
    tokio::select! {
        biased;
        error = refusal(&client) => assert_eq!(error.kind, ErrorKind::MissingResource),
        () = serving => panic!("the connection ended"),
    }
}

#[test]
fn triggers_share_a_connection_only_with_the_same_address_and_tls() {
    let address = |text| Address::parse(text).unwrap();
    let tls = |unsafe_ssl, ca: Option<&str>, pair: Option<(&str, &str)>| HttpProfile {
        unsafe_ssl,
        ca: ca.map(Secret::from),
        client_cert: pair.map(|(cert, key)| (cert.into(), key.into())),
    };
    let plain = address("scaler:80");
    let keys = [
        fingerprint(&plain, None),
        fingerprint(&address("scaler:81"), None),
        fingerprint(&plain, Some(&tls(false, None, None))),
        fingerprint(&plain, Some(&tls(true, None, None))),
        fingerprint(&plain, Some(&tls(false, Some("ca"), None))),
        fingerprint(&plain, Some(&tls(false, Some("ca2"), None))),
        fingerprint(&plain, Some(&tls(false, None, Some(("c", "k"))))),
        fingerprint(&plain, Some(&tls(false, None, Some(("c", "k2"))))),
    ];
    let different: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(different.len(), keys.len());
    assert_eq!(fingerprint(&address("dns:///scaler:80"), None), keys[0]);
}
