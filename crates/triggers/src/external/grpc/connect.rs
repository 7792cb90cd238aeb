//! How a connection to a server comes about: name, socket, proxy, TLS.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use socket2::{SockRef, TcpKeepalive};
use tidemark_trigger::{ErrorKind, SourceError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::address::{Address, Place};
use super::proxy::Proxy;
use crate::connect_failure;

/// Upper bound of a connection attempt, and of a name resolution.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection without traffic is asked by TCP whether it is alive after this time, and then at these intervals. Pings
/// of HTTP/2 would do the same, but gRPC servers hang up on clients that send more than one in five minutes.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_TRIES: u32 = 3;
/// How long sent bytes may stay without acknowledgement.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// The addresses that a name stands for.
pub type LookUp = dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

/// Asks the system.
pub fn look_up(host: String, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
    async move { Ok(lookup_host((host, port)).await?.collect()) }.boxed()
}

/// The way to one of the servers behind an address.
#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    Direct(SocketAddr),
    Proxy(Proxy),
    Path(PathBuf),
}

/// What is below HTTP/2.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// How servers are reached.
pub struct Route {
    pub address: Address,
    pub tls: Option<Arc<ClientConfig>>,
    pub proxy: Option<Proxy>,
    pub look_up: Box<LookUp>,
}

impl Route {
    /// The ways to all servers behind the address. Behind a proxy there is one: it resolves the name.
    pub async fn ways(&self) -> Result<Vec<Way>, SourceError> {
        let (host, port) = match (&self.address.place, &self.proxy) {
            (Place::Path(path), _) => return Ok(vec![Way::Path(path.clone())]),
            (Place::Host(..), Some(proxy)) => return Ok(vec![Way::Proxy(proxy.clone())]),
            (Place::Host(host, port), None) => (host.clone(), *port),
        };
        let unknown = |cause: &str| {
            let message = format!("the name of {} cannot be resolved: {cause}", self.address);
            SourceError::new(ErrorKind::Unreachable, message)
        };
        let found = timeout(CONNECT_TIMEOUT, (self.look_up)(host, port)).await;
        let found = found.map_err(|_| unknown("no answer"))?.map_err(|error| unknown(&error.to_string()))?;
        let mut ways: Vec<Way> = Vec::new();
        for way in found.into_iter().map(Way::Direct) {
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
        if ways.is_empty() { Err(unknown("it has no address")) } else { Ok(ways) }
    }

    /// A channel over one of the ways. It connects when it is first used, and again after the connection has broken.
    pub fn channel(self: &Arc<Self>, way: &Way, origin: Uri) -> Channel {
        let (route, way) = (self.clone(), way.clone());
        let connector = tower::service_fn(move |_: Uri| {
            let (route, way) = (route.clone(), way.clone());
            async move { timeout(CONNECT_TIMEOUT, route.open(&way)).await.unwrap_or_else(|_| Err(route.slow())) }
        });
        // Where tonic can do TLS itself, it refuses an https endpoint whose TLS it has not been told of; this one's is the
        // connector's business, and requests name the origin all the same.
        Endpoint::from_static("http://scaler").origin(origin).connect_with_connector_lazy(connector)
    }

    async fn open(&self, way: &Way) -> Result<TokioIo<Box<dyn Socket>>, SourceError> {
        let socket = self.socket(way).await?;
        let Some(tls) = &self.tls else { return Ok(TokioIo::new(socket)) };
        let name = ServerName::try_from(self.address.server_name().to_owned()).map_err(|_| {
            let message = format!("{}: the host is no name that a certificate can have", self.address);
            SourceError::new(ErrorKind::Configuration, message)
        })?;
        match TlsConnector::from(tls.clone()).connect(name, socket).await {
            Ok(stream) => Ok(TokioIo::new(Box::new(stream))),
            Err(error) => Err(self.without_tls(&error)),
        }
    }

    async fn socket(&self, way: &Way) -> Result<Box<dyn Socket>, SourceError> {
        let shown = self.shown(way);
        let failed = |error| connect_failure::of_tcp(&error, &shown);
        let stream = match way {
            Way::Path(path) => return Ok(Box::new(UnixStream::connect(path).await.map_err(failed)?)),
            Way::Direct(address) => TcpStream::connect(address).await.map_err(failed)?,
            Way::Proxy(proxy) => proxy.connect(&self.address).await?,
        };
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
        let socket = SockRef::from(&stream);
        socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_TRIES)).map_err(failed)?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED)).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Box::new(stream))
    }

    /// The address, and which of several servers.
    pub fn shown(&self, way: &Way) -> String {
        match way {
            Way::Direct(address) if address.to_string() != self.address.to_string() => {
                format!("{} ({})", self.address, address.ip())
            }
            _ => self.address.to_string(),
        }
    }

    fn without_tls(&self, error: &io::Error) -> SourceError {
        let address = self.address.to_string();
        match connect_failure::tls_cause(error) {
            Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
                SourceError::new(ErrorKind::BadReply, format!("{address} does not speak gRPC: it refuses HTTP/2"))
            }
            _ => connect_failure::of_tls(error, &address),
        }
    }

    fn slow(&self) -> SourceError {
        // To a server without TLS the handshake is the beginning of a call, and it may wait for the rest.
        let hint = if self.tls.is_some() { "; it may not speak TLS" } else { "" };
        let message = format!("no connection to {} within {CONNECT_TIMEOUT:?}{hint}", self.address);
        SourceError::new(ErrorKind::TimedOut, message)
    }
}
