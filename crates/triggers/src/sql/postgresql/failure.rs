//! What can go wrong with a session, in the user's terms.

use std::io;
use std::time::Duration;

use tidemark_trigger::{ErrorKind, SourceError};
use tokio_postgres::error::DbError;

use super::settings::{Host, Settings};
use crate::connect_failure;

/// The most characters of a server's message that are shown.
const MAX_SHOWN: usize = 200;

/// What is wrong with a server that leaves steps of the login out. It may only pretend to know the password.
const UNPROVEN: &str = "it left steps out, so that it did not prove that it knows the password";
/// What is wrong with a server that does not prove its knowledge of the password, or asks for too much work.
const SCRAM: &str = "its side of SCRAM is wrong, or asks for more than 100,000 rounds";

/// What went wrong.
pub(super) enum Fault {
    /// No connection.
    Connect(io::Error),
    /// The connection was lost.
    Lost(io::Error),
    /// The server speaks no TLS.
    NoTls,
    /// No TLS session.
    Tls(io::Error),
    /// The server said no.
    Server(ServerError),
    /// It does not speak the protocol.
    Garbage,
    /// A row too large to be read.
    TooLarge,
    /// The query copies data from or to the client.
    Copy,
    /// It wants a way of logging in that there is not.
    Method,
    /// The server could not be trusted.
    Mistrust(&'static str),
    /// Not the kind of server that `target_session_attrs` asks for.
    Role,
    TimedOut(Duration),
    /// Found before anything was sent.
    Configuration(SourceError),
}

/// What a server says when it refuses.
pub(super) struct ServerError {
    /// The SQLSTATE: five letters and digits.
    code: String,
    message: String,
}

impl From<&DbError> for ServerError {
    fn from(error: &DbError) -> Self {
        // Nothing else can stand there that could be shown.
        let code = error.code().code().chars().filter(char::is_ascii_alphanumeric).take(5).collect();
        Self { code, message: error.message().to_owned() }
    }
}

/// What a server did that the driver does not understand as a refusal.
enum Odd {
    /// The connection was lost.
    Lost(io::Error),
    /// A message that says nothing sensible.
    Nonsense,
    /// A message that does not belong there.
    Misplaced,
    /// Something that the driver has no answer to.
    Unknown,
}

impl Fault {
    /// Logging in failed.
    pub fn in_login(error: tokio_postgres::Error) -> Self {
        Self::of_driver(error, |odd| match odd {
            Odd::Lost(error) => Self::Lost(error),
            Odd::Nonsense => Self::Mistrust(SCRAM),
            Odd::Misplaced => Self::Mistrust(UNPROVEN),
            Odd::Unknown => Self::Method,
        })
    }

    /// A query has no answer.
    pub fn in_query(error: tokio_postgres::Error) -> Self {
        Self::of_driver(error, |odd| match odd {
            Odd::Lost(error) => Self::Lost(error),
            // The one kind of statement of which the driver expects another kind of answer.
            Odd::Misplaced => Self::Copy,
            Odd::Nonsense | Odd::Unknown => Self::Garbage,
        })
    }

    /// The driver does not name the kinds of its errors; their causes tell.
    fn of_driver(error: tokio_postgres::Error, other: impl FnOnce(Odd) -> Self) -> Self {
        if let Some(error) = error.as_db_error() {
            return Self::Server(error.into());
        }
        if error.is_closed() {
            return Self::Lost(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(cause) = error.into_source() else { return other(Odd::Misplaced) };
        let Ok(error) = cause.downcast::<io::Error>() else { return other(Odd::Unknown) };
        match error.kind() {
            _ if connect_failure::tls_cause(&error).is_some() => Self::Lost(*error),
            io::ErrorKind::FileTooLarge => Self::TooLarge,
            io::ErrorKind::InvalidData => Self::Garbage,
            io::ErrorKind::InvalidInput => other(Odd::Nonsense),
            _ => other(Odd::Lost(*error)),
        }
    }

    /// Whether the next of `sslmode`'s ways may still work, as the reference driver judges it.
    pub fn next_encryption_may_help(&self, with_tls: bool) -> bool {
        match self {
            Self::NoTls | Self::Tls(_) => true,
            Self::Server(error) => match error.code.as_str() {
                "28P01" | "3D000" | "42501" => false,
                "28000" => !with_tls,
                _ => true,
            },
            _ => false,
        }
    }

    /// Whether the next host may still work.
    pub fn next_host_may_help(&self) -> bool {
        match self {
            Self::Server(error) => !matches!(error.code.as_str(), "28P01" | "28000" | "3D000" | "42501"),
            Self::Configuration(_) => false,
            _ => true,
        }
    }

    /// Connecting failed.
    pub fn of_login(self, host: &Host, settings: &Settings) -> SourceError {
        let endpoint = host.endpoint();
        let (kind, message) = match self {
            Self::Server(error) => return of_login(&error, &endpoint, &settings.database),
            Self::Tls(error) => return connect_failure::of_tls(&error, &endpoint),
            Self::Configuration(error) => return error,
            Self::Connect(error) => return connect_failure::of_tcp(&error, &endpoint),
            // In TLS 1.3 a server refuses a client's certificate only after the handshake.
            Self::Lost(error) if connect_failure::tls_cause(&error).is_some() => {
                return connect_failure::of_tls(&error, &endpoint);
            }
            Self::Lost(error) => {
                (ErrorKind::Unreachable, format!("{endpoint} broke the connection during the login: {}", cause(&error)))
            }
            Self::NoTls => (ErrorKind::Refused, format!("{endpoint} does not offer TLS, which `sslmode` demands")),
            Self::Garbage | Self::TooLarge | Self::Copy => (ErrorKind::BadReply, not_postgresql(&endpoint)),
            Self::Method => (
                ErrorKind::Authentication,
                format!("{endpoint} wants a login by other means than a password, which is not supported"),
            ),
            Self::Mistrust(reason) => {
                (ErrorKind::Authentication, format!("the login to {endpoint} was broken off: {reason}"))
            }
            Self::Role => {
                (ErrorKind::Refused, format!("{endpoint} is not the kind of server that `target_session_attrs` wants"))
            }
            Self::TimedOut(limit) => {
                (ErrorKind::TimedOut, format!("no PostgreSQL connection to {endpoint} within {limit:?}"))
            }
        };
        SourceError::new(kind, message)
    }

    /// A query failed.
    pub fn of_query(self, endpoint: &str, database: &str) -> SourceError {
        let query = asked(endpoint, database);
        let (kind, message) = match self {
            Self::Server(error) => return of_query(&error, &query),
            Self::Configuration(error) => return error,
            Self::TimedOut(limit) => (ErrorKind::TimedOut, format!("{query} had no answer within {limit:?}")),
            Self::TooLarge => (ErrorKind::BadReply, format!("{query} gave a row larger than 1 MiB")),
            Self::Copy => (ErrorKind::BadReply, format!("{query} is a COPY, which gives no number")),
            Self::Connect(error) | Self::Lost(error) | Self::Tls(error) => {
                (ErrorKind::Unreachable, format!("{query} had no answer, the connection was lost: {}", cause(&error)))
            }
            Self::NoTls | Self::Garbage | Self::Method | Self::Mistrust(_) | Self::Role => {
                (ErrorKind::BadReply, format!("{query} had an answer that is none of PostgreSQL's"))
            }
        };
        SourceError::new(kind, message)
    }
}

/// How messages name what was asked.
pub(super) fn asked(endpoint: &str, database: &str) -> String {
    format!("the query on the database `{database}` of {endpoint}")
}

fn not_postgresql(endpoint: &str) -> String {
    format!("{endpoint} does not speak PostgreSQL's protocol")
}

fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => "no answer".to_owned(),
        io::ErrorKind::UnexpectedEof => "closed by the server".to_owned(),
        _ => error.to_string(),
    }
}

/// The server refused the session. Its texts name the user, so none is passed on.
fn of_login(error: &ServerError, endpoint: &str, database: &str) -> SourceError {
    let code = &error.code;
    let (kind, message) = match code.as_str() {
        "28P01" => (ErrorKind::Authentication, format!("{endpoint} refused the login: wrong user or password")),
        _ if code.starts_with("28") => (
            ErrorKind::Authentication,
            format!(
                "{endpoint} refused the login: the user is unknown or may not log in, or the server's access rules \
                 (pg_hba.conf) do not admit it to the database `{database}` from here or in this `sslmode`"
            ),
        ),
        "42501" => {
            (ErrorKind::Authentication, format!("the user may not connect to the database `{database}` of {endpoint}"))
        }
        "3D000" => (ErrorKind::MissingResource, format!("{endpoint} has no database `{database}`")),
        "42704" | "22023" => (
            ErrorKind::Configuration,
            format!("{endpoint} does not accept a parameter of the connection string ({code})"),
        ),
        _ if code.starts_with("53") => {
            (ErrorKind::Refused, format!("{endpoint} has no room for a connection ({code})"))
        }
        _ if code.starts_with("57P") => {
            (ErrorKind::Unreachable, format!("{endpoint} is starting up, shutting down or recovering ({code})"))
        }
        _ => (ErrorKind::Refused, format!("{endpoint} refused the connection with the SQLSTATE `{code}`")),
    };
    SourceError::new(kind, message)
}

/// The server refused the query. Texts about the query itself are shown; others may quote data.
fn of_query(error: &ServerError, query: &str) -> SourceError {
    let code = &error.code;
    let shown = shown(&error.message);
    let (kind, message) = match code.as_str() {
        "42P01" | "42703" | "42883" | "42704" | "42P02" | "3F000" | "3D000" => {
            (ErrorKind::MissingResource, format!("{query} names what is not there: {shown}"))
        }
        "42501" => (ErrorKind::Authentication, format!("the user may not run {query}: {shown}")),
        "08P01" => (ErrorKind::Configuration, format!("{query} was not understood; does it have parameters ($1)?")),
        "57014" => (ErrorKind::TimedOut, format!("the server cancelled {query}, as after its statement_timeout")),
        _ if code.starts_with("42") => (ErrorKind::Configuration, format!("{query} is wrong: {shown}")),
        _ if code.starts_with("57P") => {
            (ErrorKind::Unreachable, format!("{query} had no answer: the server ended the session ({code})"))
        }
        _ => (ErrorKind::Refused, format!("{query} failed with the SQLSTATE `{code}`")),
    };
    SourceError::new(kind, message)
}

fn shown(message: &str) -> String {
    message.chars().filter(|character| !character.is_control()).take(MAX_SHOWN).collect()
}
