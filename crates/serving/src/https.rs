//! HTTPS on a port: accepts connections until told to stop, then lets requests in flight finish.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt};

/// A client gets this long for the TLS handshake, from then to its first request, and for the head of each request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once; further ones wait in the system's queue. The process needs its file descriptors for more than
/// these.
const CONNECTIONS: usize = 1024;
/// A client that is silent is asked after this long whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// After the stop, requests in flight get this long. Watches never end by themselves.
const FAREWELL: Duration = Duration::from_secs(2);

/// After a change of the settings, a connection whose client has shown a certificate may stay this long: its next one is
/// judged by the new settings.
const OVERLAP: Duration = Duration::from_secs(30);
/// Requests at once on a connection.
const STREAMS: u32 = 1024;

/// The verified certificate that a client has shown, its own one first; an extension of its requests.
#[derive(Clone, Debug)]
pub struct PeerCertificates(pub Arc<[CertificateDer<'static>]>);

/// Serves `service` on `listener` until `shutdown`, each new connection with the settings that `tls` then holds.
///
/// A connection that fails disturbs no other. A client that has shown a certificate may be silent, and is asked to come
/// again when the settings change. The future ends when all connections have ended, at most two seconds after the
/// shutdown.
// Boxed at once, so that the server is compiled here, and once.
pub fn serve<S, B>(
    listener: TcpListener,
    tls: watch::Receiver<Arc<ServerConfig>>,
    service: S,
    shutdown: CancellationToken,
) -> BoxFuture<'static, ()>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let service = service.map_response(|response| response.map(|body| body.map_err(Into::into).boxed_unsync()));
    Box::pin(accept(listener, tls, BoxCloneSyncService::new(service), shutdown))
}

type Boxed = BoxCloneSyncService<Request<Incoming>, Response<UnsyncBoxBody<Bytes, BoxError>>, Infallible>;

async fn accept(
    listener: TcpListener,
    tls: watch::Receiver<Arc<ServerConfig>>,
    service: Boxed,
    shutdown: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, tls.clone(), service.clone(), shutdown.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to come back instead of spinning.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(FAREWELL, async { while connections.join_next().await.is_some() {} }).await;
    connections.shutdown().await;
}

async fn connection(
    stream: TcpStream,
    mut tls: watch::Receiver<Arc<ServerConfig>>,
    service: Boxed,
    shutdown: CancellationToken,
) {
    // Small answers must not wait for the peer's acknowledgement.
    let _ = stream.set_nodelay(true);
    let acceptor = TlsAcceptor::from(tls.borrow_and_update().clone());
    let stream = match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake timed out"),
    };
    let peer = stream.get_ref().1.peer_certificates().map(|chain| PeerCertificates(chain.into()));
    let known = peer.is_some();
    let asked = Arc::new(Notify::new());
    let first = asked.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        // Kept until it is awaited, and of no effect afterwards.
        asked.notify_one();
        if let Some(peer) = &peer {
            request.extensions_mut().insert(peer.clone());
        }
        service.clone().oneshot(request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(KEEPALIVE).max_concurrent_streams(STREAMS);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let silent = async {
        if known || tokio::time::timeout(PATIENCE, first.notified()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let told = async {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = change(&mut tls), if known => {}
        }
    };
    tokio::select! {
        biased;
        ended = connection.as_mut() => return say(ended),
        () = silent => return tracing::debug!("a connection brought no request"),
        () = told => connection.as_mut().graceful_shutdown(),
    }
    if let Ok(ended) = tokio::time::timeout(OVERLAP, connection).await {
        say(ended);
    }
}

/// Resolves when the settings have changed.
async fn change(tls: &mut watch::Receiver<Arc<ServerConfig>>) {
    if tls.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn say(ended: Result<(), BoxError>) {
    if let Err(error) = ended {
        tracing::debug!(error, "connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http_body_util::Full;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;

    use super::*;
    use crate::certificates::Authority;
    use crate::tls::{Clients, Policy, server_config};

    type Tls = watch::Sender<Arc<ServerConfig>>;

    /// A server of empty answers, with an authority of its own.
    async fn server() -> (std::net::SocketAddr, Tls, Authority, CancellationToken, tokio::task::JoinHandle<()>) {
        let authority = authority();
        let tls = watch::Sender::new(settings(&authority));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = tower::service_fn(|_: Request<Incoming>| async {
            let mut response = Response::new(Full::new(Bytes::new()));
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok::<_, Infallible>(response)
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, tls.subscribe(), service, stop.clone()));
        (address, tls, authority, stop, task)
    }

    fn authority() -> Authority {
        Authority::new("test", "2026-01-01T00:00:00Z".parse().unwrap()).unwrap()
    }

    fn settings(authority: &Authority) -> Arc<ServerConfig> {
        Arc::new(server_config(&authority.server(&["localhost"]).unwrap(), Clients::None, &Policy::default()).unwrap())
    }

    async fn connect(address: std::net::SocketAddr, authority: &Authority) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    async fn get(stream: &mut TlsStream<TcpStream>) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = [0; 24];
        stream.read_exact(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_is_cut_off_and_one_that_asks_is_answered() {
        let (address, _tls, authority, _stop, _task) = server().await;
        let mut talker = connect(address, &authority).await.unwrap();
        assert_eq!(get(&mut talker).await, "HTTP/1.1 204 No Content\r");
        let mut silent = connect(address, &authority).await.unwrap();
        let mut drips = connect(address, &authority).await.unwrap();
        drips.write_all(b"PRI * HTTP/2.0").await.unwrap();
        let mut no_tls = TcpStream::connect(address).await.unwrap();
        // Whoever waits for the network now waits for nothing else: the clock jumps to the server's deadlines.
        tokio::time::pause();
        let all_ended = async {
            let mut rest = Vec::new();
            // A connection that is cut off in the middle may end in an error instead.
            let _ = silent.read_to_end(&mut rest).await;
            let _ = drips.read_to_end(&mut rest).await;
            let _ = no_tls.read_to_end(&mut rest).await;
        };
        tokio::time::timeout(PATIENCE * 3, all_ended).await.expect("all three are cut off");
    }

    #[tokio::test]
    async fn a_replaced_certificate_is_shown_to_the_next_client() {
        let (address, tls, old, _stop, _task) = server().await;
        let mut earlier = connect(address, &old).await.unwrap();
        let new = authority();
        tls.send_replace(settings(&new));
        assert!(connect(address, &old).await.is_err());
        assert!(get(&mut connect(address, &new).await.unwrap()).await.contains("204"));
        assert!(get(&mut earlier).await.contains("204"), "a connection that stands is not disturbed");
    }

    #[tokio::test]
    async fn a_stop_ends_connections_that_do_nothing() {
        let (address, _tls, authority, stop, task) = server().await;
        let mut stream = connect(address, &authority).await.unwrap();
        get(&mut stream).await;
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(20), task).await.expect("it ends").unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
