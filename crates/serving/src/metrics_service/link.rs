//! A connection that is always there or on its way: opened at once, opened again when it breaks, and replaced when the
//! certificates change.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tonic::body::Body;

/// An attempt to connect to one address, TLS included.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Waiting between attempts, as gRPC does it: one second at first, growing to two minutes, spread by a fifth.
const FIRST: Duration = Duration::from_secs(1);
const GROWTH: f64 = 1.6;
const SPREAD: f64 = 0.2;
const LONGEST: Duration = Duration::from_secs(120);
/// Somebody who waits for the connection brings the next attempt forward to this long after the last one: a new leader
/// is found within seconds, however long there was none.
const FORWARD: Duration = Duration::from_secs(2);
/// A connection that breaks sooner is as good as a failed attempt.
const STEADY: Duration = Duration::from_secs(1);
/// The other side is asked whether it is there after this long, also while nothing is under way, and has this long to
/// answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// It is said that the connection is still not there after so many attempts.
const SAY_EVERY: u32 = 20;

/// The connection, while there is one.
pub type State = Option<SendRequest<Body>>;

/// Where the server is.
#[derive(Clone, Debug)]
pub struct Place {
    pub host: String,
    pub port: u16,
    /// The name that its certificate must have.
    pub name: ServerName<'static>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Keeps the connection, and tells of it through `state`. It does not end.
pub async fn keep(
    place: Place,
    mut tls: watch::Receiver<Arc<ClientConfig>>,
    state: watch::Sender<State>,
    wanted: Arc<Notify>,
) {
    let mut backoff = Backoff::new(&place);
    let mut connections = JoinSet::new();
    // When the present connection was made; none while there is none.
    let mut since = None;
    let mut renew = false;
    loop {
        if since.is_none() || renew {
            let config = tls.borrow_and_update().clone();
            match open(&place, config).await {
                Ok((sender, connection)) => {
                    if backoff.failures > 0 {
                        tracing::info!(address = %place, "connected to the operator's metrics service");
                    }
                    // What stood before ends when its last request has been answered.
                    state.send_replace(Some(sender));
                    let id = connections.spawn(connection).id();
                    (since, renew) = (Some((id, Instant::now())), false);
                }
                Err(error) => {
                    if backoff.failures.is_multiple_of(SAY_EVERY) {
                        tracing::warn!(address = %place, "no connection to the operator's metrics service: {error}");
                    }
                    backoff.wait(&wanted, &mut tls).await;
                    continue;
                }
            }
        }
        tokio::select! {
            biased;
            Some(ended) = connections.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                let Some((_, made)) = since.filter(|(present, _)| *present == id) else { continue };
                state.send_replace(None);
                since = None;
                if made.elapsed() >= STEADY {
                    backoff.failures = 0;
                } else {
                    backoff.wait(&wanted, &mut tls).await;
                }
            }
            changed = tls.changed() => match changed {
                Ok(()) => renew = true,
                // Nobody renews the certificates any more.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// How long to wait for the next attempt.
struct Backoff {
    failures: u32,
    /// Spreads the attempts of several processes.
    seed: u64,
}

impl Backoff {
    fn new(place: &Place) -> Self {
        let mut hasher = DefaultHasher::new();
        // The name of a pod is its own.
        (std::env::var_os("HOSTNAME"), &place.host, place.port).hash(&mut hasher);
        Self { failures: 0, seed: hasher.finish() }
    }

    fn next(&mut self) -> Duration {
        let exponent = i32::try_from(self.failures.min(20)).unwrap_or(20);
        self.failures = self.failures.saturating_add(1);
        let pause = (FIRST.as_secs_f64() * GROWTH.powi(exponent)).min(LONGEST.as_secs_f64());
        // One step of a linear congruential generator; its upper bits are good enough to spread by.
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let part = f64::from(u32::try_from(self.seed >> 32).unwrap_or_default()) / f64::from(u32::MAX);
        Duration::from_secs_f64(pause * (1.0 + SPREAD * (2.0 * part - 1.0)))
    }

    async fn wait(&mut self, wanted: &Notify, tls: &mut watch::Receiver<Arc<ClientConfig>>) {
        let now = Instant::now();
        let pause = self.next();
        let forward = async {
            wanted.notified().await;
            sleep_until(now + FORWARD.min(pause)).await;
        };
        let renewed = async {
            if tls.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = sleep_until(now + pause) => {}
            () = forward => {}
            // With others it may work at once.
            () = renewed => {}
        }
    }
}

/// A connection to the first address that takes one, and what drives it.
async fn open(place: &Place, tls: Arc<ClientConfig>) -> Result<(SendRequest<Body>, BoxFuture<'static, ()>), io::Error> {
    let addresses = timeout(ATTEMPT, lookup_host((place.host.as_str(), place.port))).await;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses.map_err(|_| late("the name was not resolved"))?? {
        let attempt = async {
            let stream = TcpStream::connect(address).await?;
            // Small requests must not wait for the peer's acknowledgement.
            stream.set_nodelay(true)?;
            let stream = TlsConnector::from(tls.clone()).connect(place.name.clone(), stream).await?;
            let mut builder = Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new()).keep_alive_while_idle(true);
            builder.keep_alive_interval(PING_EVERY).keep_alive_timeout(PING_TIMEOUT);
            builder.handshake::<_, Body>(TokioIo::new(stream)).await.map_err(io::Error::other)
        };
        match timeout(ATTEMPT, attempt).await {
            Ok(Ok((sender, connection))) => {
                let driven = async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "the connection to the metrics service broke");
                    }
                };
                return Ok((sender, Box::pin(driven)));
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = late("no answer"),
        }
    }
    Err(last)
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} in {} s", ATTEMPT.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(seed: u64) -> Backoff {
        Backoff { failures: 0, seed }
    }

    #[test]
    fn attempts_become_rarer_up_to_two_minutes_and_are_spread() {
        let mut own = backoff(1);
        for expected in [1.0, 1.6, 2.56, 4.096] {
            let pause = own.next().as_secs_f64();
            assert!((expected * 0.8..=expected * 1.2).contains(&pause), "{pause} for {expected}");
        }
        for _ in 0..100 {
            own.next();
        }
        let pause = own.next().as_secs_f64();
        assert!((96.0..=144.0).contains(&pause), "{pause}");
        assert_ne!(backoff(1).next(), backoff(2).next());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_brings_the_next_attempt_forward_and_new_certificates_do_at_once() {
        let identity = crate::tls::client_config(
            None,
            &crate::certificates::Authority::new("test", "2026-01-01T00:00:00Z".parse().unwrap())
                .unwrap()
                .certificate(),
            &crate::tls::Policy::default(),
        );
        let config = Arc::new(identity.unwrap());
        let (sender, mut tls) = watch::channel(config.clone());
        let wanted = Notify::new();
        let mut own = Backoff { failures: 12, seed: 1 };
        let start = Instant::now();
        wanted.notify_one();
        own.wait(&wanted, &mut tls).await;
        assert_eq!(start.elapsed(), FORWARD);
        own.wait(&wanted, &mut tls).await;
        assert!(start.elapsed() > Duration::from_secs(90));
        let start = Instant::now();
        sender.send_replace(config);
        own.wait(&wanted, &mut tls).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
