//! The connections to the servers behind one address: made when they are needed, used in turn, made anew when they break.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared, join_all};
use futures::stream::{FuturesUnordered, StreamExt as _};
use http::request::Parts;
use http::{Request, Response};
use rustls::ClientConfig;
use tidemark_trigger::{ErrorKind, SourceError};
use tokio::net::lookup_host;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::address::{Address, Place};
use super::link::{Link, Message, Reply, Seat, Way};
use super::proxy::Proxy;

/// Upper bound of a connection attempt: name resolution, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a request is sent that no server looks at.
const TRIES: usize = 3;
/// How long the servers before it are waited for until one more is tried.
const STAGGER: Duration = Duration::from_millis(250);
/// How often the servers behind a name that is in use are looked up.
const LOOK_UP_EVERY: Duration = Duration::from_secs(30);
/// How long one of several servers is left alone after it could not be reached: doubled with each failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// The addresses that a name stands for.
pub type LookUp = dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

/// Asks the system.
pub fn look_up(host: String, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
    async move { Ok(lookup_host((host, port)).await?.collect()) }.boxed()
}

/// How servers are reached.
pub struct Route {
    pub address: Address,
    pub tls: Option<Arc<ClientConfig>>,
    pub proxy: Option<Proxy>,
    pub look_up: Box<LookUp>,
}

impl Route {
    /// The ways to all servers behind the address. Behind a proxy there is one: it resolves the name.
    async fn ways(&self) -> Result<Vec<Way>, SourceError> {
        let (host, port) = match (&self.address.place, &self.proxy) {
            (Place::Path(path), _) => return Ok(vec![Way::Path(path.clone())]),
            (Place::Abstract(name), _) => return Ok(vec![Way::Abstract(name.clone())]),
            (Place::Host(..), Some(proxy)) => return Ok(vec![Way::Proxy(proxy.clone())]),
            (Place::Host(host, port), None) => (host.clone(), *port),
        };
        let unknown = |cause: &str| {
            let message = format!("the name of {} cannot be resolved: {cause}", self.address);
            SourceError::new(ErrorKind::Unreachable, message)
        };
        let found = (self.look_up)(host, port).await.map_err(|error| unknown(&error.to_string()))?;
        let mut ways: Vec<Way> = Vec::new();
        for address in found {
            let way = Way::Direct(address);
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
        if ways.is_empty() { Err(unknown("it has no address")) } else { Ok(ways) }
    }

    async fn open(&self, way: &Way) -> Result<Link, SourceError> {
        let shown = match way {
            // One of several: which one is worth telling.
            Way::Direct(address) if address.to_string() != self.address.to_string() => {
                format!("{} ({})", self.address, address.ip())
            }
            _ => self.address.to_string(),
        };
        let link = Link::open(way, &self.address, self.tls.as_ref(), shown.into());
        timeout(CONNECT_TIMEOUT, link).await.unwrap_or_else(|_| Err(self.slow()))
    }

    fn slow(&self) -> SourceError {
        // To a server without TLS the handshake is the beginning of a call, and it may wait for the rest.
        let hint = if self.tls.is_some() { "; it may not speak TLS" } else { "" };
        let message = format!("no connection to {} within {CONNECT_TIMEOUT:?}{hint}", self.address);
        SourceError::new(ErrorKind::TimedOut, message)
    }
}

/// One of the servers.
struct Node {
    way: Way,
    link: Option<Arc<Link>>,
    /// Failed attempts to connect, one after another.
    failures: u32,
    retry_at: Instant,
}

impl Node {
    fn new(way: Way) -> Self {
        Self { way, link: None, failures: 0, retry_at: Instant::now() }
    }

    fn works(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.works())
    }

    fn note(&mut self, outcome: Result<Arc<Link>, SourceError>) {
        match outcome {
            Ok(link) => (self.link, self.failures) = (Some(link), 0),
            Err(_) => {
                self.link = None;
                let pause = FIRST_PAUSE * 2u32.saturating_pow(self.failures.min(10));
                self.failures = self.failures.saturating_add(1);
                self.retry_at = Instant::now() + pause.min(LONGEST_PAUSE);
            }
        }
    }
}

/// The servers, and whose turn it is.
#[derive(Default)]
struct Ring {
    nodes: Vec<Node>,
    next: usize,
    looked_up: Option<Instant>,
}

impl Ring {
    fn next_working(&mut self) -> Option<Arc<Link>> {
        let length = self.nodes.len();
        let at = (0..length).map(|i| (self.next + i) % length).find(|at| self.nodes[*at].works())?;
        self.next = at + 1;
        self.nodes[at].link.clone()
    }

    /// Takes over what a look-up found. Connections to servers that are still there stay.
    fn update(&mut self, ways: Vec<Way>) {
        let mut known = std::mem::take(&mut self.nodes);
        let node = |way: Way| match known.iter().position(|node| node.way == way) {
            Some(at) => known.swap_remove(at),
            None => Node::new(way),
        };
        self.nodes = ways.into_iter().map(node).collect();
        self.looked_up = Some(Instant::now());
    }

    fn note(&mut self, way: &Way, outcome: Result<Arc<Link>, SourceError>) {
        if let Some(node) = self.nodes.iter_mut().find(|node| node.way == *way) {
            node.note(outcome);
        }
    }

    /// The ways to servers without a connection that may be tried again.
    fn to_connect(&self, now: Instant) -> Vec<Way> {
        let missing = self.nodes.iter().filter(|node| !node.works() && node.retry_at <= now);
        missing.map(|node| node.way.clone()).collect()
    }

    fn is_due(&self, now: Instant) -> bool {
        let old = self.looked_up.is_none_or(|at| now.duration_since(at) >= LOOK_UP_EVERY);
        old || !self.to_connect(now).is_empty()
    }
}

type Attempt = BoxFuture<'static, Result<Arc<Link>, SourceError>>;

/// The connections to the servers behind one address. All close when it is dropped.
pub struct Channel {
    route: Arc<Route>,
    ring: Arc<Mutex<Ring>>,
    /// The attempt to get a first connection, which all who wait for one share.
    opening: Mutex<Option<WeakShared<Attempt>>>,
    /// Connects to the other servers, and looks for new ones, while calls go on.
    upkeep: Mutex<Option<JoinHandle<()>>>,
}

impl Channel {
    /// No connection is made yet.
    pub fn new(route: Route) -> Self {
        Self { route: Arc::new(route), ring: Arc::default(), opening: Mutex::default(), upkeep: Mutex::default() }
    }

    /// Where it leads.
    pub fn address(&self) -> &Address {
        &self.route.address
    }

    /// Whether requests are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.route.tls.is_some()
    }

    /// Sends a request over the next connection, and over another one when the server turns out to be about to go away.
    ///
    /// # Errors
    /// No server can be reached, or the connection broke.
    pub async fn send(&self, head: Parts, message: Bytes) -> Result<Response<Reply>, SourceError> {
        let request = || Request::from_parts(head.clone(), Message::new(message.clone()));
        let stream = !head.headers.contains_key("grpc-timeout");
        for _ in 1..TRIES {
            match self.seat(stream).await?.send(request()).await {
                Ok(response) => return Ok(response),
                Err(failure) if failure.untouched => {}
                Err(failure) => return Err(failure.error),
            }
        }
        self.seat(stream).await?.send(request()).await.map_err(|failure| failure.error)
    }

    /// A place on the next connection that has one.
    async fn seat(&self, stream: bool) -> Result<Seat, SourceError> {
        loop {
            let working = self.ring().next_working();
            let link = match working {
                Some(link) => {
                    self.keep_up();
                    link
                }
                None => self.opening().await?,
            };
            // Others who waited for the same connection may have taken all places.
            if let Some(seat) = link.seat(stream) {
                return Ok(seat);
            }
        }
    }

    fn ring(&self) -> std::sync::MutexGuard<'_, Ring> {
        lock(&self.ring)
    }

    fn opening(&self) -> Shared<Attempt> {
        let mut opening = lock(&self.opening);
        let running = opening.as_ref().and_then(WeakShared::upgrade);
        if let Some(running) = running.filter(|running| running.peek().is_none()) {
            return running;
        }
        let started = open_first(self.route.clone(), self.ring.clone()).boxed().shared();
        *opening = started.downgrade();
        started
    }

    fn keep_up(&self) {
        let mut upkeep = lock(&self.upkeep);
        if upkeep.as_ref().is_some_and(|task| !task.is_finished()) || !self.ring().is_due(Instant::now()) {
            return;
        }
        *upkeep = Some(tokio::spawn(connect_missing(self.route.clone(), self.ring.clone())));
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.upkeep).take() {
            task.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connects to the first server that can be had. Each is tried a little after the one before it, so that one that says
/// nothing does not keep the others from being tried.
async fn open_first(route: Arc<Route>, ring: Arc<Mutex<Ring>>) -> Result<Arc<Link>, SourceError> {
    let ways = timeout(CONNECT_TIMEOUT, route.ways()).await.unwrap_or_else(|_| Err(route.slow()))?;
    let number = ways.len();
    lock(&ring).update(ways.clone());
    let attempts = ways.into_iter().enumerate().map(|(i, way)| {
        let route = &route;
        async move {
            sleep(STAGGER * u32::try_from(i).unwrap_or(u32::MAX)).await;
            let outcome = route.open(&way).await.map(Arc::new);
            (way, outcome)
        }
    });
    let mut attempts: FuturesUnordered<_> = attempts.collect();
    let mut worst: Option<SourceError> = None;
    while let Some((way, outcome)) = attempts.next().await {
        lock(&ring).note(&way, outcome.clone());
        match outcome {
            Ok(link) => return Ok(link),
            Err(error) => {
                let telling = |error: &SourceError| !matches!(error.kind, ErrorKind::Unreachable | ErrorKind::TimedOut);
                if worst.as_ref().is_none_or(|worst| telling(&error) && !telling(worst)) {
                    worst = Some(error);
                }
            }
        }
    }
    let error = worst.unwrap_or_else(|| SourceError::new(ErrorKind::Unreachable, "there is no server"));
    Err(match number {
        0 | 1 => error,
        _ => SourceError::new(error.kind, format!("{}; none of {number} servers can be used", error.message)),
    })
}

/// Looks up the servers and connects to those that have no connection.
async fn connect_missing(route: Arc<Route>, ring: Arc<Mutex<Ring>>) {
    let ways = timeout(CONNECT_TIMEOUT, route.ways()).await;
    match ways {
        Ok(Ok(ways)) => lock(&ring).update(ways),
        // As long as a connection works, a name server that does not is no reason to give it up.
        _ => lock(&ring).looked_up = Some(Instant::now()),
    }
    let ways = lock(&ring).to_connect(Instant::now());
    let attempts = ways.iter().map(|way| async {
        let outcome = route.open(way).await.map(Arc::new);
        lock(&ring).note(way, outcome);
    });
    join_all(attempts).await;
}
