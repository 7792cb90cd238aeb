//! One session: connecting, logging in, asking.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use futures::future::poll_fn;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tidemark_trigger::{Door, ErrorKind, SourceError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::types::Type;
use tokio_postgres::{CancelToken, Client, Config, NoTls, Row};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failure::Fault;
use super::settings::{Host, Role, Settings};
use super::stream::{Bounded, LastByte, Transport};
use super::tls::{Check, Encryption};
use super::value::Text;

/// Silence after which the system asks whether an idle connection still stands.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Time for the request to cancel a query.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for taking leave.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// Time without acknowledgement after which the system gives a connection up.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// The request for TLS: a message of 8 bytes with a number in place of a version. The driver's own would not tell a server
/// without TLS from one that is none.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// The first row that a query gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The values as text, `None` for NULL; no row at all when there was none.
    pub row: Option<Vec<Option<String>>>,
}

/// What cancels the query of a session, from another connection.
#[derive(Clone)]
pub(super) struct Cancel {
    host: Host,
    way: Encryption,
    token: CancelToken,
}

impl Cancel {
    /// Asks the server to give the query up, whatever may come of it: it does not tell.
    pub async fn send(&self, settings: &Settings, door: &Door) {
        let attempt = async {
            let mut stream = transport(&self.host, self.way, settings, door).await.ok()?;
            self.token.cancel_query_raw(&mut stream, NoTls).await.ok()?;
            // The server closes the connection when it has passed the request on.
            stream.read(&mut [0]).await.ok()
        };
        let _ = timeout(CANCEL_TIMEOUT, attempt).await;
    }
}

/// A session that is logged in. Dropped in the middle of a query, it ends.
pub(super) struct Session {
    client: Client,
    /// The one task that reads and writes. It ends with the connection, or with the session.
    connection: JoinSet<Result<(), tokio_postgres::Error>>,
    endpoint: Arc<str>,
    cancel: Cancel,
    last: LastByte,
    /// Nothing is under way, no transaction open.
    at_rest: bool,
}

impl Session {
    /// Opens a session with the first host that is what the settings want.
    ///
    /// # Errors
    /// Those of the last host that was tried.
    pub async fn open(settings: &Settings, door: &Door) -> Result<Self, SourceError> {
        let mut failure = SourceError::new(ErrorKind::Configuration, "the connection string names no host");
        for role in &settings.roles {
            for host in &settings.hosts {
                match Self::open_at(host, *role, settings, door).await {
                    Ok(session) => return Ok(session),
                    Err(fault) => {
                        let go_on = fault.next_host_may_help();
                        failure = fault.of_login(host, settings);
                        if !go_on {
                            return Err(failure);
                        }
                    }
                }
            }
        }
        Err(failure)
    }

    async fn open_at(host: &Host, role: Role, settings: &Settings, door: &Door) -> Result<Self, Fault> {
        let mut failure = None;
        for way in settings.tls.ways(host) {
            let limit = settings.connect_timeout;
            let attempt = timeout(limit, Self::attempt(host, *way, role, settings, door)).await;
            match attempt.unwrap_or(Err(Fault::TimedOut(limit))) {
                Ok(session) => return Ok(session),
                Err(fault) => {
                    let go_on = fault.next_encryption_may_help(*way != Encryption::Plain);
                    // That the server has no TLS says less than why it refused without.
                    if !matches!(fault, Fault::NoTls) || failure.is_none() {
                        failure = Some(fault);
                    }
                    if !go_on {
                        break;
                    }
                }
            }
        }
        Err(failure.unwrap_or(Fault::NoTls))
    }

    async fn attempt(
        host: &Host,
        way: Encryption,
        role: Role,
        settings: &Settings,
        door: &Door,
    ) -> Result<Self, Fault> {
        let stream = Bounded::new(transport(host, way, settings, door).await?);
        let last = stream.last();
        let login = config(settings).connect_raw(stream, NoTls).await;
        let (client, mut driven) = login.map_err(Fault::in_login)?;
        let mut connection = JoinSet::new();
        connection.spawn(async move {
            // Not its own future, which writes the server's notices to the log.
            while poll_fn(|context| driven.poll_message(context)).await.transpose()?.is_some() {}
            Ok(())
        });
        let cancel = Cancel { host: host.clone(), way, token: client.cancel_token() };
        let mut session = Self { client, connection, endpoint: host.endpoint().into(), cancel, last, at_rest: true };
        session.check(role).await?;
        Ok(session)
    }

    /// The server, as messages name it.
    pub fn endpoint(&self) -> &Arc<str> {
        &self.endpoint
    }

    /// What cancels a query of this session.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Whether another query can be sent, as far as one can tell without sending it: the server has neither closed the
    /// connection nor announced that it will.
    pub fn works(&self) -> bool {
        self.at_rest && !self.client.is_closed()
    }

    /// Whether the last query ended with nothing under way.
    pub fn at_rest(&self) -> bool {
        self.at_rest
    }

    /// Takes leave.
    pub async fn end(self) {
        let Self { client, mut connection, .. } = self;
        drop(client);
        // Whether it arrives is no matter: the server notices the end of the connection too.
        let _ = timeout(END_TIMEOUT, connection.join_next()).await;
    }

    /// Asks for the first row of a query.
    pub async fn query(&mut self, text: &str) -> Result<Answer, Fault> {
        self.at_rest = false;
        let mut first = None;
        let error = match self.run(text, &mut first).await {
            Ok(()) => {
                self.at_rest = self.last.is_idle();
                return answer(first);
            }
            Err(error) => error,
        };
        if error.as_db_error().is_some() {
            // The answer ends after the refusal, unless the connection does.
            self.at_rest = self.client.check_connection().await.is_ok() && self.last.is_idle();
            return Err(Fault::in_query(error));
        }
        match (self.cause(error).await, first) {
            // The rows after the first are too many to be read.
            (Fault::TooLarge, Some(row)) => answer(Some(row)),
            (fault, _) => Err(fault),
        }
    }

    /// Unnamed all through, so that a pooler in between has nothing to remember.
    async fn run(&self, text: &str, first: &mut Option<Row>) -> Result<(), tokio_postgres::Error> {
        let mut rows = pin!(self.client.query_typed_raw(text, std::iter::empty::<(i32, Type)>()).await?);
        while let Some(row) = rows.try_next().await? {
            first.get_or_insert(row);
        }
        Ok(())
    }

    /// Why a query has no answer: when the connection has ended, its task knows.
    async fn cause(&mut self, error: tokio_postgres::Error) -> Fault {
        if !error.is_closed() {
            return Fault::in_query(error);
        }
        match self.connection.join_next().await {
            Some(Ok(Err(error))) => Fault::in_query(error),
            _ => Fault::in_query(error),
        }
    }

    async fn check(&mut self, role: Role) -> Result<(), Fault> {
        let (query, wanted) = match role {
            Role::Any => return Ok(()),
            Role::ReadWrite => ("SHOW transaction_read_only", "off"),
            Role::ReadOnly => ("SHOW transaction_read_only", "on"),
            Role::Primary => ("SELECT pg_catalog.pg_is_in_recovery()::text", "false"),
            Role::Standby => ("SELECT pg_catalog.pg_is_in_recovery()::text", "true"),
        };
        let answer = self.query(query).await?;
        let value = answer.row.and_then(|row| row.into_iter().next().flatten());
        if value.as_deref() == Some(wanted) { Ok(()) } else { Err(Fault::Role) }
    }
}

fn answer(row: Option<Row>) -> Result<Answer, Fault> {
    let text = |row: &Row, column| row.try_get::<_, Option<Text>>(column).map(|value| value.map(|Text(text)| text));
    let row = row.map(|row| (0..row.len()).map(|column| text(&row, column)).collect::<Result<_, _>>());
    Ok(Answer { row: row.transpose().map_err(|_| Fault::Garbage)? })
}

/// What the driver needs to log in. TLS is made before it has the connection.
fn config(settings: &Settings) -> Config {
    let mut config = Config::new();
    config.ssl_mode(SslMode::Disable).user(settings.user.expose()).password(settings.password.expose());
    config.dbname(&settings.database);
    let mut options = String::new();
    for (name, value) in &settings.parameters {
        match name.as_str() {
            "application_name" => {
                config.application_name(value);
            }
            "options" => options.insert_str(0, value),
            _ => options += &format!(" -c {}={}", escaped(name), escaped(value)),
        }
    }
    config.options(options);
    config
}

/// One word of the server's command line.
fn escaped(text: &str) -> String {
    let character = |character: char| {
        let special = character == '\\' || character.is_ascii_whitespace() || character == '\u{b}';
        special.then_some('\\').into_iter().chain([character])
    };
    text.chars().flat_map(character).collect()
}

async fn transport(
    host: &Host,
    way: Encryption,
    settings: &Settings,
    door: &Door,
) -> Result<Box<dyn Transport>, Fault> {
    Ok(match (host.folder(), way) {
        (Some(folder), _) => {
            let socket = format!("{folder}/.s.PGSQL.{}", host.port);
            Box::new(UnixStream::connect(socket).await.map_err(Fault::Connect)?)
        }
        (None, Encryption::Plain) => Box::new(tcp(host).await.map_err(Fault::Connect)?),
        (None, Encryption::Tls(check)) => Box::new(tls(host, check, settings, door).await?),
    })
}

async fn tcp(host: &Host) -> io::Result<TcpStream> {
    let stream = match host.address {
        Some(address) => TcpStream::connect((address, host.port)).await?,
        None => TcpStream::connect((host.name.as_str(), host.port)).await?,
    };
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(stream)
}

async fn tls(host: &Host, check: Check, settings: &Settings, door: &Door) -> Result<TlsStream<TcpStream>, Fault> {
    let config = settings.tls.config(check, door).await.map_err(Fault::Configuration)?;
    let name = match (host.name.as_str(), host.address) {
        ("", Some(address)) => Ok(ServerName::from(address)),
        (name, _) => ServerName::try_from(name.to_owned()),
    };
    let name = name.map_err(|_| {
        let message = format!("{} is no name that a certificate could have", host.endpoint());
        Fault::Configuration(SourceError::new(ErrorKind::Configuration, message))
    })?;
    let mut stream = tcp(host).await.map_err(Fault::Connect)?;
    if !settings.tls.direct {
        stream.write_all(&SSL_REQUEST).await.map_err(Fault::Lost)?;
        // Nothing may be read beyond this byte: what follows is TLS, or else somebody in between slipped it in.
        match stream.read_u8().await.map_err(Fault::Lost)? {
            b'S' => {}
            b'N' | b'E' => return Err(Fault::NoTls),
            _ => return Err(Fault::Garbage),
        }
    }
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(Fault::Tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_the_session_become_words_of_the_command_line() {
        let text = "user=u options='-c geqo=off' search_path='a, b\\\\c' statement_timeout=100 application_name='x y'";
        let config = config(&Settings::parse(text).unwrap());
        let expected = "-c geqo=off -c search_path=a,\\ b\\\\c -c statement_timeout=100";
        assert_eq!(config.get_options(), Some(expected));
        assert_eq!(config.get_application_name(), Some("x y"));
        assert_eq!((config.get_user(), config.get_dbname()), (Some("u"), Some("u")));
    }
}
