//! One session: connecting, logging in, asking.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::poll_fn;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tidemark_trigger::{Door, ErrorKind, SourceError};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failure::Fault;
use super::scram::{self, Exchange};
use super::settings::{Host, Role, Settings};
use super::tls::{Check, Encryption};
use super::wire::{self, Message};

/// Silence after which the system asks whether an idle connection still stands.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Time for the request to cancel a query.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);
/// Time without acknowledgement after which the system gives a connection up.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

type Stream = BufStream<Box<dyn Transport>>;

/// The first row that a query gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The values as text, `None` for NULL; no row at all when there was none.
    pub row: Option<Vec<Option<String>>>,
}

/// What cancels the query of a session, from another connection.
#[derive(Clone, Debug)]
pub(super) struct Cancel {
    host: Host,
    way: Encryption,
    /// Process and secret, as the server gave them; none when it gave none.
    key: Vec<u8>,
}

impl Cancel {
    /// Asks the server to give the query up, whatever may come of it: it does not tell.
    pub async fn send(&self, settings: &Settings, door: &Door) {
        let attempt = async {
            let mut stream = transport(&self.host, self.way, settings, door).await.ok()?;
            stream.write_all(&wire::cancel(&self.key)).await.ok()?;
            stream.flush().await.ok()?;
            // The server closes the connection when it has passed the request on.
            stream.read(&mut [0]).await.ok()
        };
        if !self.key.is_empty() {
            let _ = timeout(CANCEL_TIMEOUT, attempt).await;
        }
    }
}

/// A session that is logged in. Dropped in the middle of a query, it ends.
pub(super) struct Session {
    stream: Stream,
    endpoint: Arc<str>,
    cancel: Cancel,
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
        let stream = BufStream::new(transport(host, way, settings, door).await?);
        let cancel = Cancel { host: host.clone(), way, key: Vec::new() };
        let mut session = Self { stream, endpoint: host.endpoint().into(), cancel, at_rest: false };
        session.log_in(settings).await?;
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
    pub async fn works(&mut self) -> bool {
        let mut byte = [0];
        let stream = &mut self.stream;
        let silent = poll_fn(|context| {
            let read = Pin::new(&mut *stream).poll_read(context, &mut ReadBuf::new(&mut byte));
            Poll::Ready(read.is_pending())
        });
        self.at_rest && silent.await
    }

    /// Whether the last query ended with nothing under way.
    pub fn at_rest(&self) -> bool {
        self.at_rest
    }

    /// Takes leave, if that is possible at once.
    pub async fn end(mut self) {
        let farewell = async {
            self.stream.write_all(&wire::TERMINATE).await?;
            self.stream.flush().await
        };
        // Whether it arrives is no matter: the server notices the end of the connection too.
        let _ = futures::poll!(std::pin::pin!(farewell));
    }

    /// Asks for the first row of a query.
    pub async fn query(&mut self, text: &str) -> Result<Answer, Fault> {
        self.at_rest = false;
        self.send(&wire::query(text)).await?;
        let (mut answer, mut refusal) = (Answer::default(), None);
        loop {
            let message = match self.receive().await {
                Ok(message) => message,
                // A server that ends the session says why before it closes the connection.
                Err(fault) => return Err(refusal.unwrap_or(fault)),
            };
            match message.tag {
                b'D' => answer.row = Some(wire::row(&message.body)?),
                b'E' => refusal = Some(Fault::Server(wire::server_error(&message.body))),
                b'G' | b'H' | b'W' => return Err(Fault::Copy),
                b'Z' => {
                    self.at_rest = message.body == b"I";
                    return refusal.map_or(Ok(answer), Err);
                }
                // The end of a step, the description of the row, notices.
                b'1' | b'2' | b'T' | b'n' | b'C' | b's' | b'I' | b'N' | b'S' | b'A' => {}
                _ => return Err(Fault::Garbage),
            }
        }
    }

    async fn check(&mut self, role: Role) -> Result<(), Fault> {
        let (query, wanted) = match role {
            Role::Any => return Ok(()),
            Role::ReadWrite => ("SHOW transaction_read_only", "off"),
            Role::ReadOnly => ("SHOW transaction_read_only", "on"),
            Role::Primary => ("SELECT pg_catalog.pg_is_in_recovery()", "f"),
            Role::Standby => ("SELECT pg_catalog.pg_is_in_recovery()", "t"),
        };
        let answer = self.query(query).await?;
        let value = answer.row.and_then(|row| row.into_iter().next().flatten());
        if value.as_deref() == Some(wanted) { Ok(()) } else { Err(Fault::Role) }
    }

    async fn log_in(&mut self, settings: &Settings) -> Result<(), Fault> {
        let own = [("user", settings.user.expose()), ("database", &settings.database), ("client_encoding", "UTF8")];
        let others = settings.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        self.send(&wire::startup(own.into_iter().chain(others))).await?;
        self.authenticate(settings).await?;
        loop {
            let message = self.receive().await?;
            match message.tag {
                b'Z' => {
                    self.at_rest = true;
                    return Ok(());
                }
                b'E' => return Err(Fault::Server(wire::server_error(&message.body))),
                b'K' => self.cancel.key = message.body,
                b'S' | b'N' => {}
                _ => return Err(Fault::Garbage),
            }
        }
    }

    async fn authenticate(&mut self, settings: &Settings) -> Result<(), Fault> {
        let (kind, content) = self.authentication().await?;
        match kind {
            0 => return Ok(()),
            3 => self.send(&wire::password(settings.password.expose())).await?,
            5 => {
                let text = scram::md5(&settings.user, &settings.password, &content);
                self.send(&wire::password(&text)).await?;
            }
            10 if wire::texts(&content).iter().any(|name| name == scram::MECHANISM) => {
                self.prove(Exchange::new(&settings.password)?).await?;
            }
            _ => return Err(Fault::Method),
        }
        match self.authentication().await? {
            (0, _) => Ok(()),
            _ => Err(Fault::Garbage),
        }
    }

    async fn prove(&mut self, exchange: Exchange) -> Result<(), Fault> {
        self.send(&wire::sasl_first(scram::MECHANISM, &exchange.first())).await?;
        let challenge = self.proving(11).await?;
        let challenge = String::from_utf8(challenge).map_err(|_| Fault::Garbage)?;
        // The server says how much work this is; other tasks must not wait for it.
        let proof = tokio::task::spawn_blocking(move || exchange.prove(&challenge)).await;
        let proof = proof.map_err(|_| Fault::Mistrust("the password could not be prepared"))??;
        self.send(&wire::message(b'p', proof.message.as_bytes())).await?;
        let verdict = self.proving(12).await?;
        proof.verify(&String::from_utf8_lossy(&verdict))?;
        Ok(())
    }

    /// What comes with a step of the proof. A server that skips one may only pretend to know the password.
    async fn proving(&mut self, step: u32) -> Result<Vec<u8>, Fault> {
        match self.authentication().await? {
            (kind, content) if kind == step => Ok(content),
            (0, _) => Err(Fault::Mistrust(scram::UNPROVEN)),
            _ => Err(Fault::Garbage),
        }
    }

    /// The next step of the login that the server asks for.
    async fn authentication(&mut self) -> Result<(u32, Vec<u8>), Fault> {
        loop {
            let message = self.receive().await?;
            match message.tag {
                b'R' => {
                    let (kind, content) = wire::authentication(&message.body)?;
                    return Ok((kind, content.to_vec()));
                }
                b'E' => return Err(Fault::Server(wire::server_error(&message.body))),
                b'N' | b'v' => {}
                _ => return Err(Fault::Garbage),
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.stream.write_all(bytes).await.map_err(Fault::Lost)?;
        self.stream.flush().await.map_err(Fault::Lost)
    }

    async fn receive(&mut self) -> Result<Message, Fault> {
        match wire::read(&mut self.stream).await.map_err(Fault::Lost)? {
            Ok(message) => Ok(message),
            Err(oversize) if oversize.plausible => Err(Fault::TooLarge),
            Err(_) => Err(Fault::Garbage),
        }
    }
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
        stream.write_all(&wire::SSL_REQUEST).await.map_err(Fault::Lost)?;
        // Nothing may be read beyond this byte: what follows is TLS, or else somebody in between slipped it in.
        match stream.read_u8().await.map_err(Fault::Lost)? {
            b'S' => {}
            b'N' | b'E' => return Err(Fault::NoTls),
            _ => return Err(Fault::Garbage),
        }
    }
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(Fault::Tls)
}
