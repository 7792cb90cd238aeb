//! HTTP without TLS, for what is asked within a pod's network: health and metrics.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
pub use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

/// A client gets this long for the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once; further ones wait in the system's queue.
const CONNECTIONS: usize = 128;

/// A body.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A body that is there in one piece.
pub fn whole(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

/// A body that is made piece by piece while it is sent.
pub fn pieces(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(futures::stream::iter(pieces.map(|piece| Ok(Frame::data(piece))))).boxed_unsync()
}

/// Serves `service` until `shutdown`; connections are cut then.
// Boxed, so that it is compiled here.
pub fn serve<S>(listener: TcpListener, service: S, shutdown: CancellationToken) -> BoxFuture<'static, ()>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    Box::pin(accept(listener, BoxCloneSyncService::new(service), shutdown))
}

async fn accept(
    listener: TcpListener,
    service: BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>,
    shutdown: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let service = service.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| service.clone().oneshot(request));
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                let cause: &dyn StdError = &error;
                tracing::debug!(cause, "a connection ended early");
            }
        });
    }
}
