//! One connection to one Redis server, for all triggers with the same server and login.

use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ProtocolVersion, RedisConnectionInfo, RedisResult, Value};
use rustls::pki_types::ServerName;
use tidemark_trigger::{Door, ErrorKind, Secret, SourceError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::client::Login;
use super::failure::{self, Failure};
use super::parameters::Tls;
use crate::connect_failure;

/// Upper bound of a connection attempt: name resolution, TCP, TLS and login together. As in KEDA.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Upper bound of one command. As in KEDA.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// What makes one connection differ from another.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    pub address: &'a Address,
    pub login: &'a Login,
    pub database: i64,
    pub tls: Option<&'a Tls>,
}

/// An open connection. Commands of all who share it are sent as they come; replies come in the same order.
pub struct Link {
    endpoint: String,
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
}

impl Link {
    /// Connects and logs in, within a deadline.
    ///
    /// # Errors
    /// What kept the connection from coming about.
    pub async fn open(node: Node<'_>, door: &Door) -> Result<Self, SourceError> {
        timeout(CONNECT_TIMEOUT, Self::open_unbounded(node, door)).await.unwrap_or_else(|_| {
            // To a Redis without TLS the handshake is the beginning of a command, and it waits for the rest.
            let hint = if node.tls.is_some() { "; it may not speak TLS" } else { "" };
            let message = format!("no connection to Redis at {} within {CONNECT_TIMEOUT:?}{hint}", node.address);
            Err(SourceError::new(ErrorKind::TimedOut, message))
        })
    }

    async fn open_unbounded(node: Node<'_>, door: &Door) -> Result<Self, SourceError> {
        let endpoint = node.address.to_string();
        let connector = match node.tls {
            Some(tls) => Some(TlsConnector::from(std::sync::Arc::new(door.tls(&tls.profile()?)?))),
            None => None,
        };
        let stream = TcpStream::connect((node.address.host.as_str(), node.address.port)).await;
        let stream = stream.map_err(|error| connect_failure::of_tcp(&error, &endpoint))?;
        stream.set_nodelay(true).map_err(|error| connect_failure::of_tcp(&error, &endpoint))?;
        let Some(connector) = connector else {
            return Self::log_in(node, endpoint, stream).await;
        };
        let name = ServerName::try_from(node.address.host.clone()).map_err(|_| {
            let message = format!("{endpoint}: the host is no name that a certificate can have");
            SourceError::new(ErrorKind::Configuration, message)
        })?;
        let stream = connector.connect(name, stream).await;
        let stream = stream.map_err(|error| connect_failure::of_tls(&error, &endpoint))?;
        Self::log_in(node, endpoint, stream).await
    }

    async fn log_in<S>(node: Node<'_>, endpoint: String, stream: S) -> Result<Self, SourceError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Every version speaks RESP2, and no reply that is read here differs in RESP3. Login and database are sent below
        // rather than by the library, which would not tell one refusal from another.
        let info = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connected = MultiplexedConnection::new_with_config(&info, stream, config).await;
        let (connection, driver) = connected.map_err(|error| failure::of_login(&error, node))?;
        let link = Self { endpoint, connection, driver: tokio::spawn(driver) };
        for command in node.greeting() {
            let reply: RedisResult<Value> = command.query_async(&mut link.connection.clone()).await;
            match reply {
                Ok(Value::Okay) => {}
                Ok(Value::SimpleString(text)) if text == "PONG" => {}
                Ok(_) => return Err(failure::no_redis(&link.endpoint)),
                Err(error) => failure::check_greeting(&error, node)?,
            }
        }
        Ok(link)
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Whether the connection is still there, as far as this side knows.
    pub fn works(&self) -> bool {
        !self.driver.is_finished()
    }

    /// Sends one command, after `ASKING` when a cluster said so, and waits for the reply. After a failure that is not the
    /// server's answer the link must not be used again.
    ///
    /// # Errors
    /// The server's refusal, or what became of the connection.
    pub async fn ask(&self, command: &Cmd, asking: bool) -> Result<Value, Failure> {
        let mut connection = self.connection.clone();
        let reply = async {
            if !asking {
                return command.query_async::<Value>(&mut connection).await;
            }
            let mut both = redis::pipe();
            both.cmd("ASKING").ignore().add_command(command.clone());
            let replies = connection.send_packed_commands(&both, 1, 1).await?;
            replies.into_iter().next().unwrap_or_default().extract_error()
        };
        match timeout(COMMAND_TIMEOUT, reply).await {
            Ok(reply) => reply.map_err(|error| Failure::of(&error, &self.endpoint)),
            Err(_) => {
                let message = format!("Redis at {} did not answer within {COMMAND_TIMEOUT:?}", self.endpoint);
                Err(SourceError::new(ErrorKind::TimedOut, message).into())
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("endpoint", &self.endpoint).field("works", &self.works()).finish_non_exhaustive()
    }
}

impl Node<'_> {
    /// The commands that a new connection begins with. `PING` shows a server that wants a login and got none.
    fn greeting(self) -> Vec<Cmd> {
        let mut commands = Vec::new();
        if let Some(password) = &self.login.password {
            let mut command = redis::cmd("AUTH");
            if let Some(user) = &self.login.user {
                command.arg(user.expose());
            }
            command.arg(password.expose());
            commands.push(command);
        }
        if self.database != 0 {
            let mut command = redis::cmd("SELECT");
            command.arg(self.database);
            commands.push(command);
        }
        commands.push(redis::cmd("PING"));
        commands
    }

    /// The same for nodes that can share a connection, and for no others.
    pub fn fingerprint(self) -> String {
        let Address { host, port } = self.address;
        let plain = format!("{host} {port} {} {:?}", self.database, self.tls.map(|tls| tls.unsafe_ssl));
        let login = [self.login.user.as_ref(), self.login.password.as_ref()];
        let texts = login.into_iter().chain(self.tls.iter().flat_map(|tls| tls.parts()));
        fingerprint(&plain, texts)
    }
}

/// A digest, so that the key under which a connection is shared holds no secret.
fn fingerprint<'a>(plain: &str, secrets: impl Iterator<Item = Option<&'a Secret>>) -> String {
    use sha2::{Digest, Sha256};
    use std::fmt::Write as _;

    let mut digest = Sha256::new();
    let mut part = |text: &str| {
        digest.update(text.len().to_le_bytes());
        digest.update(text);
    };
    part(plain);
    for secret in secrets {
        // A secret that is not there differs from an empty one.
        part(if secret.is_some() { "1" } else { "0" });
        part(secret.map_or("", Secret::expose));
    }
    digest.finalize().iter().fold("redis:".to_owned(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
