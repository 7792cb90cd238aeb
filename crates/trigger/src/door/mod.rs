//! The source door: the only way by which a trigger reaches the network.
//!
//! It holds what triggers with the same endpoint and credentials share: HTTP clients with their connection pools,
//! opened connections of other protocols, and requests in flight. In its place tests and simulations put an in-process
//! double, under which no socket is touched.

mod client;
mod cluster;
mod coalesce;
mod http;
mod requests;
mod share;
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use bytes::Bytes;
use futures::future::BoxFuture;
use rustls::SupportedCipherSuite;
use rustls::pki_types::CertificateDer;
use tidemark_clock::Clock;

use crate::{ErrorKind, Secret, SourceError};

pub use cluster::{Cluster, ServiceEndpoint};
pub use requests::{Hop, HttpRequests};

/// How the door behaves. The defaults are KEDA's where KEDA has the setting.
#[derive(Clone, Debug)]
pub struct DoorSettings {
    /// Deadline of an HTTP request, body included, unless the trigger has its own. 3 s.
    pub http_timeout: Duration,
    /// The most bytes of a reply's body, after decompression. 16 MiB.
    pub body_limit: usize,
    /// How long an unused HTTP client (its pool, its roots) is kept. 10 min.
    pub client_idle: Duration,
    /// How long an unused connection of a pool is kept. 90 s.
    pub connection_idle: Duration,
    /// Connections over HTTP serve more than one request. True.
    pub keep_alive: bool,
    /// Nothing older than TLS 1.3 is spoken. False: TLS 1.2 is, too.
    pub only_tls13: bool,
    /// The cipher suites that are spoken with TLS 1.2; empty for all. Those of TLS 1.3 are all good.
    pub tls12_suites: Vec<SupportedCipherSuite>,
    /// Certificates to trust besides those of the system.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

impl Default for DoorSettings {
    fn default() -> Self {
        Self {
            http_timeout: Duration::from_secs(3),
            body_limit: 16 * 1024 * 1024,
            client_idle: Duration::from_secs(600),
            connection_idle: Duration::from_secs(90),
            keep_alive: true,
            only_tls13: false,
            tls12_suites: Vec::new(),
            extra_roots: Vec::new(),
        }
    }
}

/// What makes one HTTP client differ from another. Triggers with equal profiles share a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpProfile {
    /// Accept any certificate, whoever signed it and whatever host it names.
    pub unsafe_ssl: bool,
    /// PEM text of certificates to trust besides the system's.
    pub ca: Option<Secret>,
    /// PEM texts of the client's certificate (with its chain) and its private key.
    pub client_cert: Option<(Secret, Secret)>,
}

/// Answers requests in place of the network.
type Handler =
    dyn Fn(Request<Bytes>) -> BoxFuture<'static, Result<Response<Bytes>, SourceError>> + Send + Sync + 'static;

/// Where requests go.
enum Network {
    Real(client::Clients),
    InProcess(Box<Handler>),
}

struct Inner {
    clock: Clock,
    settings: DoorSettings,
    network: Network,
    in_flight: coalesce::InFlight,
    shared: share::Table,
}

/// Shared clients, deadlines and coalescing for all triggers of a process. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    inner: Arc<Inner>,
    cluster: Option<Arc<dyn Cluster>>,
    requests: Option<HttpRequests>,
}

impl Door {
    /// A door to the real network.
    pub fn new(clock: Clock, settings: DoorSettings) -> Self {
        let clients = client::Clients::default();
        Self::with(clock, settings, Network::Real(clients))
    }

    /// A door behind which a function answers: no socket is touched, no name resolved. What is not HTTP is refused as
    /// unreachable. Deadlines, redirects, user info and coalescing are those of the real door.
    pub fn in_process(
        clock: Clock,
        handler: impl Fn(Request<Bytes>) -> BoxFuture<'static, Result<Response<Bytes>, SourceError>> + Send + Sync + 'static,
    ) -> Self {
        Self::with(clock, DoorSettings::default(), Network::InProcess(Box::new(handler)))
    }

    fn with(clock: Clock, settings: DoorSettings, network: Network) -> Self {
        let inner = Inner { clock, settings, network, in_flight: Default::default(), shared: Default::default() };
        Self { inner: Arc::new(inner), cluster: None, requests: None }
    }

    /// The same door, leading to this cluster too.
    pub fn with_cluster(self, cluster: Arc<dyn Cluster>) -> Self {
        Self { cluster: Some(cluster), ..self }
    }

    /// The same door, and what goes through this one over HTTP is noted in `requests`. A request that is shared is noted
    /// where it was made.
    pub fn noting(&self, requests: HttpRequests) -> Self {
        Self { requests: Some(requests), ..self.clone() }
    }

    /// Notes that a reply had nothing in it where a value is wanted; `ignored` says whether that is taken for 0.
    pub fn note_empty(&self, ignored: bool) {
        if let Some(requests) = &self.requests {
            requests.add_empty(ignored);
        }
    }

    /// The cluster that the triggers' objects live in.
    ///
    /// # Errors
    /// Of kind configuration: the door leads to none.
    pub fn cluster(&self) -> Result<&dyn Cluster, SourceError> {
        let none =
            || SourceError::new(ErrorKind::Configuration, "the trigger asks the cluster, and there is none here");
        self.cluster.as_deref().ok_or_else(none)
    }

    /// The clock that triggers read.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// The settings of the door.
    pub fn settings(&self) -> &DoorSettings {
        &self.inner.settings
    }

    /// Sends one HTTP request and reads the whole reply, whatever its status.
    ///
    /// User info in the URL becomes Basic authentication unless the request has an `Authorization` header. Up to 10
    /// redirects are followed; `Authorization`, `Cookie` and headers that are marked sensitive
    /// ([`HeaderValue::set_sensitive`](::http::HeaderValue::set_sensitive)) go only to the same host or a subdomain of
    /// it, and never from https to http; a body goes nowhere else either. Equal GETs in flight (profile, URL, headers, timeout) share one reply.
    ///
    /// `timeout` covers everything, body and redirects included; without it [`DoorSettings::http_timeout`] holds.
    ///
    /// # Errors
    /// No reply was had; the message names method, host and path, and no query, user info or header.
    pub async fn http(
        &self,
        profile: &HttpProfile,
        request: Request<Bytes>,
        timeout: Option<Duration>,
    ) -> Result<Response<Bytes>, SourceError> {
        http::send(self, profile, request, timeout).await
    }

    /// Takes a share of what `open` opens: one value per key and type, opened once however many ask at a time, and kept
    /// as long as somebody holds it. Whoever waits for an opening that fails gets the same error; the next to ask tries
    /// anew. When the caller that opens is dropped, one of those that wait opens in its place.
    ///
    /// The key names endpoint and credentials; it is never shown.
    ///
    /// # Errors
    /// Those of `open`; behind an in-process door everything is unreachable.
    pub async fn shared<T: Send + Sync + 'static>(
        &self,
        key: &str,
        open: impl Future<Output = Result<T, SourceError>> + Send,
    ) -> Result<Arc<T>, SourceError> {
        if let Network::InProcess(_) = self.inner.network {
            return Err(SourceError::new(ErrorKind::Unreachable, "there is no network here, only in-process HTTP"));
        }
        self.inner.shared.get(key, open).await
    }

    /// Stops sharing a value that turned out to be broken: the next to ask opens anew. A value that was opened under
    /// the key since is left alone.
    pub fn forget<T: Send + Sync + 'static>(&self, key: &str, broken: &Arc<T>) {
        self.inner.shared.forget(key, broken);
    }

    /// TLS of a profile, for protocols other than HTTP: system roots, the door's extra ones and the profile's, versions
    /// and cipher suites as the door's settings say. Loading the roots costs milliseconds: ask once per connection, not per read.
    ///
    /// # Errors
    /// Of kind configuration: a certificate or key that cannot be used.
    pub fn tls(&self, profile: &HttpProfile) -> Result<rustls::ClientConfig, SourceError> {
        tls::client_config(profile, &self.inner.settings)
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}
