//! Reading a queue's length by AMQP, over one connection for all triggers with the same broker and login.

use std::fmt::{self, Write as _};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_compat::Compat;
use lapin::options::QueueDeclareOptions;
use lapin::tcp::AsyncTcpStream;
use lapin::types::{FieldTable, LongString, ShortString};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism};
use lapin::{Channel, Connection, ConnectionProperties};
use rustls_connector::RustlsConnector;
use sha2::{Digest, Sha256};
use socket2::{SockRef, Socket};
use tidemark_trigger::{Door, ErrorKind, Secret, SourceError};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::address::{Address, Mechanism};
use super::failure;
use super::tls::{Material, Tls};

/// Upper bound of one read, its wait for a channel included. The caller's deadline is usually shorter.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Channels open at a time on one connection. Each read holds one for a round trip.
const CHANNELS: u16 = 16;
/// Reads after which a channel is closed: the client library remembers each queue that a channel has named.
const READS_PER_CHANNEL: u32 = 1000;
/// Largest frame. All frames of a passive declare are tiny, and the client library reserves 64 of the largest.
const FRAME_MAX: u32 = 8192;
/// Time without acknowledgement after which the system gives up a connection, also one that is being closed.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Where and how to connect. The address has all overrides applied.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub address: Address,
    pub tls: Tls,
    /// The name that the broker shows for the connection. Triggers that share one have the name of the first.
    pub connection_name: String,
}

impl Target {
    /// The same for targets that can share a connection, and for no others.
    pub fn fingerprint(&self) -> String {
        let Address { tls, host, port, vhost, user, password, options, .. } = &self.address;
        let mut digest = Sha256::new();
        let mut part = |text: &str| {
            digest.update(text.len().to_le_bytes());
            digest.update(text);
        };
        part(&format!("{tls} {port} {options:?} {}", self.tls.unsafe_ssl));
        for text in [host, vhost, user.expose(), password.expose()] {
            part(text);
        }
        for secret in self.tls.material.iter().flat_map(Material::parts) {
            part(secret.map_or("", Secret::expose));
        }
        digest.finalize().iter().fold("amqp:".to_owned(), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    fn uri(&self) -> AMQPUri {
        let address = &self.address;
        AMQPUri {
            scheme: if address.tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: address.user.expose().to_owned(),
                    password: address.password.expose().to_owned(),
                },
                host: address.host.clone(),
                port: address.port,
            },
            vhost: address.vhost.clone(),
            query: AMQPQueryString {
                frame_max: Some(FRAME_MAX),
                channel_max: Some(address.options.channel_max),
                heartbeat: Some(address.options.heartbeat),
                connection_timeout: None,
                auth_mechanism: Some(match address.options.mechanism {
                    None | Some(Mechanism::Plain) => SASLMechanism::Plain,
                    Some(Mechanism::AmqPlain) => SASLMechanism::AMQPlain,
                    Some(Mechanism::External) => SASLMechanism::External,
                }),
            },
        }
    }
}

/// One trigger's hold on the connection that it shares.
#[derive(Debug)]
pub(super) struct Client {
    target: Arc<Target>,
    key: String,
    link: std::sync::Mutex<Option<Arc<Link>>>,
}

impl Client {
    /// Connects, or takes a share of the connection that others have opened.
    pub async fn connect(target: Arc<Target>, door: &Door) -> Result<Self, SourceError> {
        let client = Self { key: target.fingerprint(), target, link: std::sync::Mutex::default() };
        client.link(door).await?;
        Ok(client)
    }

    /// The number of ready messages of a queue. A connection that broke since the last read is replaced first.
    pub async fn ready_messages(&self, door: &Door, queue: &str) -> Result<u32, SourceError> {
        let name = ShortString::try_new(queue)
            .map_err(|_| SourceError::new(ErrorKind::Configuration, "queueName is longer than AMQP allows"))?;
        let link = self.link(door).await?;
        match timeout(READ_TIMEOUT, link.ready_messages(name)).await {
            Ok(result) => result.map_err(|error| failure::of_read(&error, &self.target.address, queue)),
            Err(_) => {
                let endpoint = self.target.address.endpoint();
                let message = format!("{endpoint} did not answer for the queue `{queue}` within {READ_TIMEOUT:?}");
                Err(SourceError::new(ErrorKind::TimedOut, message))
            }
        }
    }

    /// A working connection.
    async fn link(&self, door: &Door) -> Result<Arc<Link>, SourceError> {
        if let Some(link) = self.held() {
            if link.works() {
                return Ok(link);
            }
            door.forget(&self.key, &link);
        }
        let mut link = door.shared(&self.key, Link::open(&self.target, door)).await?;
        if !link.works() {
            // Broken, and others who hold it have not read since.
            door.forget(&self.key, &link);
            link = door.shared(&self.key, Link::open(&self.target, door)).await?;
        }
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&link));
        Ok(link)
    }

    fn held(&self) -> Option<Arc<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An open connection and its idle channels.
struct Link {
    idle: std::sync::Mutex<Vec<(Channel, u32)>>,
    permits: Semaphore,
    connection: Connection,
}

impl Link {
    async fn open(target: &Target, door: &Door) -> Result<Self, SourceError> {
        let limit = target.address.options.connection_timeout;
        timeout(limit, Self::open_unbounded(target, door)).await.unwrap_or_else(|_| {
            let message = format!("no AMQP connection to {} within {limit:?}", target.address.endpoint());
            Err(SourceError::new(ErrorKind::TimedOut, message))
        })
    }

    async fn open_unbounded(target: &Target, door: &Door) -> Result<Self, SourceError> {
        let address = &target.address;
        let connector = match address.tls {
            true => Some(RustlsConnector::from(door.tls(&target.tls.profile(&address.options).await?)?)),
            false => None,
        };
        let stream = TcpStream::connect((address.host.as_str(), address.port))
            .await
            .map_err(|error| failure::of_connect(&error, address))?;
        let breaker = prepare(&stream).map_err(|error| failure::of_connect(&error, address))?;
        let stream = match connector {
            None => AsyncTcpStream::Plain(Compat::new(stream)),
            Some(connector) => {
                let name = address.options.server_name.as_deref().unwrap_or(&address.host);
                let stream = connector.connect_async(name, Compat::new(stream)).await;
                AsyncTcpStream::Rustls(stream.map_err(|error| failure::of_tls(&error, address))?)
            }
        };
        let connection = handshake(target, stream, breaker).await?;
        let allowed = match connection.configuration().channel_max() {
            0 => CHANNELS,
            max => max.min(CHANNELS),
        };
        Ok(Self { idle: std::sync::Mutex::default(), permits: Semaphore::new(allowed.into()), connection })
    }

    fn works(&self) -> bool {
        self.connection.status().connected()
    }

    async fn ready_messages(&self, queue: ShortString) -> lapin::Result<u32> {
        // The semaphore is never closed, so this is always a permit; held to the end either way.
        let _permit = self.permits.acquire().await;
        let (channel, reads) = match self.take_idle() {
            Some(idle) => idle,
            None => (self.connection.create_channel().await?, 0),
        };
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        // A refused declare closes the channel on both sides; dropping it here is all there is to do.
        let declared = channel.queue_declare(queue, options, FieldTable::default()).await?;
        if reads + 1 < READS_PER_CHANNEL {
            self.idle().push((channel, reads + 1));
        }
        Ok(declared.message_count())
    }

    fn take_idle(&self) -> Option<(Channel, u32)> {
        let mut idle = self.idle();
        idle.retain(|(channel, _)| channel.status().connected());
        idle.pop()
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(Channel, u32)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("works", &self.works()).finish_non_exhaustive()
    }
}

/// Sets the socket's options, and makes the breaker for the handshake that follows.
fn prepare(stream: &TcpStream) -> std::io::Result<Breaker> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(Breaker(Some(socket.try_clone()?)))
}

/// Shuts a socket down when it is dropped: the client library keeps a thread on the socket until the handshake is over,
/// whether anybody waits for it or not.
struct Breaker(Option<Socket>);

impl Drop for Breaker {
    fn drop(&mut self) {
        if let Some(socket) = self.0.take() {
            // Fails only if the other side was quicker.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

async fn handshake(
    target: &Target,
    stream: AsyncTcpStream<Compat<TcpStream>>,
    mut breaker: Breaker,
) -> Result<Connection, SourceError> {
    let stream = std::sync::Mutex::new(Some(stream));
    let take = async move |_, _| {
        let taken = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The library would connect anew here; reconnecting is done by `Client`.
        taken.ok_or_else(|| lapin::Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionAborted)))
    };
    let properties = ConnectionProperties::default()
        .with_connection_name(LongString::from(target.connection_name.as_str()))
        .with_client_property("product".into(), LongString::from("Tidemark"))
        .with_client_property("version".into(), LongString::from(env!("CARGO_PKG_VERSION")));
    let runtime = lapin::runtime::default_runtime().map_err(|error| failure::of_login(&error, &target.address))?;
    let connection = Connection::connector(target.uri(), runtime, take, properties)
        .await
        .map_err(|error| failure::of_login(&error, &target.address))?;
    breaker.0 = None;
    Ok(connection)
}
