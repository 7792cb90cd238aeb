//! The door against real sockets on the loopback interface.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tidemark_clock::Clock;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{Door, DoorSettings, ErrorKind, HttpProfile, Secret, SourceError};

/// "hello" after gzip.
const HELLO_GZIP: &[u8] = &[
    0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 0xff, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0, 0x86, 0xa6, 0x10, 0x36, 0x05, 0,
    0, 0,
];

/// A server that answers every request with the same bytes, and counts its connections.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(reply: Vec<u8>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, reply) = (connections.clone(), Arc::new(reply));
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                serving.spawn(accept(stream, tls.clone(), reply.clone()));
            }
        });
        Self { address, connections, task }
    }

    async fn plain(body: &str) -> Self {
        let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        Self::start(reply.into_bytes(), None).await
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}/p?token=hunter2", self.address.port())
    }
}

async fn accept(stream: TcpStream, tls: Option<TlsAcceptor>, reply: Arc<Vec<u8>>) {
    match tls {
        None => serve(stream, &reply).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                serve(stream, &reply).await;
            }
        }
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, reply: &[u8]) {
    let (mut seen, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        seen.extend_from_slice(&chunk[..read]);
        // A request, or the greeting of a client that wants TLS.
        if seen.ends_with(b"\r\n\r\n") || seen.first() == Some(&0x16) {
            seen.clear();
            if stream.write_all(reply).await.is_err() {
                return;
            }
        }
    }
}

/// A certificate authority, and what it signed for `localhost` (also good for a client): certificate and key as PEM.
struct Authority {
    ca: String,
    cert: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        Self { ca: issuer.pem(), cert: cert.pem(), key: key.serialize_pem() }
    }

    /// A TLS server with this certificate, that asks for a client's when told to.
    fn acceptor(&self, mutual: bool) -> TlsAcceptor {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let builder = if mutual {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let cert = CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![cert], key).unwrap()))
    }
}

fn door() -> Door {
    // Generous, for a busy machine: no test here waits for it.
    Door::new(Clock::system(), DoorSettings { http_timeout: Duration::from_secs(30), ..DoorSettings::default() })
}

async fn get(door: &Door, profile: &HttpProfile, url: &str) -> Result<Bytes, SourceError> {
    let request = Request::get(url).body(Bytes::new()).unwrap();
    door.http(profile, request, None).await.map(http::Response::into_body)
}

fn hides_the_query(error: &SourceError) {
    assert!(!error.message.contains("hunter2"), "{error}");
    assert!(error.message.contains("/p"), "{error}");
}

#[tokio::test]
async fn requests_to_one_server_reuse_its_connection() {
    let (door, server) = (door(), Server::plain("42").await);
    for _ in 0..3 {
        assert_eq!(get(&door, &HttpProfile::default(), &server.url("http")).await.unwrap(), "42");
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_closed_port_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = format!("http://127.0.0.1:{port}/p?token=hunter2");
    let error = get(&door(), &HttpProfile::default(), &url).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.message.contains(&format!("GET http://127.0.0.1:{port}/p")), "{error}");
    assert!(error.message.contains("refused"), "{error}");
    hides_the_query(&error);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_unreachable() {
    let error = get(&door(), &HttpProfile::default(), "http://no-such-host.invalid/p?token=hunter2").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    hides_the_query(&error);
}

#[tokio::test]
async fn what_is_no_http_is_an_error_and_no_panic() {
    let server = Server::start(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(), None).await;
    let error = get(&door(), &HttpProfile::default(), &server.url("http")).await.unwrap_err();
    hides_the_query(&error);
    // A port that speaks no TLS.
    let error = get(&door(), &HttpProfile::default(), &server.url("https")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    hides_the_query(&error);
}

#[tokio::test]
async fn a_reply_that_ends_too_early_is_a_bad_reply() {
    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nabc".to_vec();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/p?token=hunter2", listener.local_addr().unwrap());
    let answer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        stream.write_all(&cut).await.unwrap();
    };
    let (door, profile) = (door(), HttpProfile::default());
    let (error, ()) = tokio::join!(get(&door, &profile, &url), answer);
    let error = error.unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadReply, "{error}");
    hides_the_query(&error);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_announced_or_not() {
    let settings = DoorSettings { body_limit: 1024 * 1024, ..DoorSettings::default() };
    let door = Door::new(Clock::system(), settings);
    let announced = Server::start(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".to_vec(), None).await;
    let body = vec![b'x'; 3 * 1024 * 1024];
    let mut chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n300000\r\n".to_vec();
    chunked.extend(&body);
    chunked.extend(b"\r\n0\r\n\r\n");
    let chunked = Server::start(chunked, None).await;
    for server in [announced, chunked] {
        let error = get(&door, &HttpProfile::default(), &server.url("http")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadReply);
        assert!(error.message.ends_with("the reply is larger than 1 MiB"), "{error}");
    }
}

#[tokio::test]
async fn a_compressed_body_is_read() {
    let mut reply =
        format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", HELLO_GZIP.len())
            .into_bytes();
    reply.extend(HELLO_GZIP);
    let server = Server::start(reply, None).await;
    assert_eq!(get(&door(), &HttpProfile::default(), &server.url("http")).await.unwrap(), "hello");
}

#[tokio::test]
async fn a_server_is_trusted_for_its_authority_or_not_at_all() {
    let authority = Authority::new();
    let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n42".to_vec();
    let server = Server::start(reply, Some(authority.acceptor(false))).await;
    let door = door();
    let (url, other_name) = (server.url("https"), server.url("https").replace("localhost", "127.0.0.1"));
    let error = get(&door, &HttpProfile::default(), &url).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.message.contains("certificate"), "{error}");
    let with_ca = HttpProfile { ca: Some(authority.ca.as_str().into()), ..Default::default() };
    assert_eq!(get(&door, &with_ca, &url).await.unwrap(), "42");
    assert!(get(&door, &with_ca, &other_name).await.is_err(), "the host name is checked");
    let other_ca = HttpProfile { ca: Some(Authority::new().ca.as_str().into()), ..Default::default() };
    assert!(get(&door, &other_ca, &url).await.is_err());
    let unsafe_ssl = HttpProfile { unsafe_ssl: true, ..Default::default() };
    assert_eq!(get(&door, &unsafe_ssl, &other_name).await.unwrap(), "42");
    let root = CertificateDer::from_pem_slice(authority.ca.as_bytes()).unwrap();
    let settings = DoorSettings { extra_roots: vec![root], ..DoorSettings::default() };
    let with_root = Door::new(Clock::system(), settings);
    assert_eq!(get(&with_root, &HttpProfile::default(), &url).await.unwrap(), "42");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_server_that_asks() {
    let authority = Authority::new();
    let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n42".to_vec();
    let server = Server::start(reply, Some(authority.acceptor(true))).await;
    let without = HttpProfile { ca: Some(authority.ca.as_str().into()), ..Default::default() };
    let pair = (Secret::from(authority.cert.as_str()), Secret::from(authority.key.as_str()));
    let with = HttpProfile { client_cert: Some(pair), ..without.clone() };
    let door = door();
    assert!(get(&door, &without, &server.url("https")).await.is_err());
    assert_eq!(get(&door, &with, &server.url("https")).await.unwrap(), "42");
}

#[tokio::test]
async fn unusable_certificates_are_configuration_errors_that_show_nothing() {
    let authority = Authority::new();
    let (cert, key) = (authority.cert.as_str(), authority.key.as_str());
    let other_key = KeyPair::generate().unwrap().serialize_pem();
    let with_ca = |ca: &str| HttpProfile { ca: Some(ca.into()), ..Default::default() };
    let with_pair =
        |cert: &str, key: &str| HttpProfile { client_cert: Some((cert.into(), key.into())), ..Default::default() };
    let cases = [
        (with_ca("hunter2"), "ca "),
        (with_ca(key), "ca "),
        (with_pair("hunter2", key), "cert "),
        (with_pair(cert, "hunter2"), "key "),
        (with_pair(cert, cert), "key "),
        (with_pair(cert, &other_key), "cert and key "),
    ];
    for (profile, begins) in cases {
        let error = get(&door(), &profile, "https://localhost:1/p").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Configuration);
        assert!(error.message.starts_with(&format!("GET https://localhost:1/p: {begins}")), "{error}");
        assert!(!error.message.contains("hunter2"), "{error}");
    }
}

/// The system's roots are named by the environment, so the test runs itself once more in a process with another one.
#[tokio::test]
async fn on_a_system_without_roots_only_tls_fails() {
    const ROOTS: &str = "SSL_CERT_FILE";
    const NONE: &str = "/nonexistent/roots.pem";
    if std::env::var(ROOTS).as_deref() != Ok(NONE) {
        let itself = std::env::current_exe().unwrap();
        let name = "tests::network::on_a_system_without_roots_only_tls_fails";
        let mut again = std::process::Command::new(itself);
        again.args(["--exact", name]).env(ROOTS, NONE).env("SSL_CERT_DIR", "");
        let output = tokio::task::spawn_blocking(move || again.output()).await.unwrap().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && shown.contains("1 passed"), "{shown}");
        return;
    }
    let (door, server, profile) = (door(), Server::plain("42").await, HttpProfile::default());
    assert_eq!(get(&door, &profile, &server.url("http")).await.unwrap(), "42");
    let authority = Authority::new();
    let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n42".to_vec();
    let server = Server::start(reply, Some(authority.acceptor(false))).await;
    let with_ca = HttpProfile { ca: Some(authority.ca.as_str().into()), ..Default::default() };
    assert_eq!(get(&door, &with_ca, &server.url("https")).await.unwrap(), "42");
    let error = get(&door, &profile, &server.url("https")).await.unwrap_err();
    assert!(error.message.contains("No CA certificates were loaded"), "{error}");
}

#[tokio::test]
async fn a_hundred_equal_reads_at_once_cost_one_connection() {
    let (door, server) = (door(), Server::plain("42").await);
    let (profile, url) = (HttpProfile::default(), server.url("http"));
    let replies = join_all((0..100).map(|_| get(&door, &profile, &url))).await;
    assert!(replies.iter().all(|reply| reply.as_ref().unwrap() == "42"));
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
}
