//! Failures of Redis in the user's terms. What a server says about a login is never passed on: it may name users.

use redis::{ErrorKind as Redis, RedisError};
use tidemark_trigger::{ErrorKind, SourceError};

use super::link::Node;
use crate::connect_failure;

/// The most characters of a server's own text that are kept.
const TEXT_LIMIT: usize = 200;

/// Why a command has no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or none any more.
    Source(SourceError),
    /// The server's answer is an error.
    Server {
        endpoint: String,
        /// The first word, such as `NOPERM`.
        code: String,
        detail: String,
    },
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl Failure {
    /// The failure of a command on a connection.
    pub fn of(error: &RedisError, endpoint: &str) -> Self {
        if let Some(code) = error.code() {
            let limited = |text: &str| text.chars().take(TEXT_LIMIT).collect();
            let detail = limited(error.detail().unwrap_or_default());
            return Self::Server { endpoint: endpoint.to_owned(), code: limited(code), detail };
        }
        if matches!(error.kind(), Redis::Parse | Redis::UnexpectedReturnType) {
            return no_redis(endpoint).into();
        }
        match io_cause(error).and_then(connect_failure::tls_cause) {
            Some(error) => connect_failure::of_tls_cause(error, endpoint).into(),
            None => {
                let message = format!("the connection to Redis at {endpoint} was lost");
                SourceError::new(ErrorKind::Unreachable, message).into()
            }
        }
    }

    /// The error for the user; `asked` says what was asked, such as "the size of the key `jobs`".
    pub fn into_error(self, asked: &str) -> SourceError {
        let (endpoint, code, detail) = match self {
            Self::Source(error) => return error,
            Self::Server { endpoint, code, detail } => (endpoint, code, detail),
        };
        let (kind, message) = match code.as_str() {
            "NOAUTH" | "WRONGPASS" => {
                (ErrorKind::Authentication, format!("{endpoint} wants another login for {asked}"))
            }
            "NOPERM" => (ErrorKind::Authentication, format!("{endpoint} does not let the user read {asked}: NOPERM")),
            // Older servers report a script that met a forbidden command as any other error.
            "ERR" if detail.contains("ACL failure in script") || detail.contains("can't run this command") => (
                ErrorKind::Authentication,
                format!("{endpoint} does not let the user read {asked}: the script meets a command that is forbidden"),
            ),
            "NOGROUP" => (ErrorKind::MissingResource, format!("{endpoint} has no such stream or group: {asked}")),
            "WRONGTYPE" => (ErrorKind::Refused, format!("{endpoint} cannot tell {asked}: the key is of another type")),
            "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" => {
                (ErrorKind::Refused, format!("{endpoint} cannot tell {asked} now: {code}"))
            }
            _ => (ErrorKind::Refused, format!("{endpoint} refused to tell {asked}: {code} {detail}")),
        };
        SourceError::new(kind, message.trim_end())
    }
}

fn io_cause(error: &RedisError) -> Option<&std::io::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

/// The other side answers, and not as a Redis server does.
pub fn no_redis(endpoint: &str) -> SourceError {
    SourceError::new(ErrorKind::BadReply, format!("{endpoint} does not speak the protocol of Redis"))
}

/// A connection ended before the login was over.
pub fn of_login(error: &RedisError, node: Node<'_>) -> SourceError {
    let endpoint = node.address.to_string();
    match Failure::of(error, &endpoint) {
        Failure::Source(error) if error.kind == ErrorKind::Unreachable => {
            let hint = if node.tls.is_some() { "" } else { ", or one that wants TLS" };
            let message =
                format!("{endpoint} closed the connection before the login was over: it is no Redis server{hint}");
            SourceError::new(ErrorKind::Unreachable, message)
        }
        Failure::Source(error) => error,
        Failure::Server { code, detail, .. } => {
            let (kind, message) = refusal(&code, &detail, node);
            SourceError::new(kind, message)
        }
    }
}

/// Whether a new connection is good although one of its first commands failed.
///
/// # Errors
/// It is not.
pub fn check_greeting(error: &RedisError, node: Node<'_>) -> Result<(), SourceError> {
    // A user who may not PING is nevertheless logged in. SELECT and AUTH never need to be allowed to fail.
    let harmless = error.code() == Some("NOPERM") && error.detail().is_some_and(|text| text.contains("'ping'"));
    if harmless { Ok(()) } else { Err(of_login(error, node)) }
}

fn refusal(code: &str, detail: &str, node: Node<'_>) -> (ErrorKind, String) {
    let endpoint = node.address;
    let lower = detail.to_ascii_lowercase();
    match code {
        "NOAUTH" => (ErrorKind::Authentication, format!("{endpoint} wants a password, and there is none")),
        "WRONGPASS" => (ErrorKind::Authentication, format!("{endpoint} refused the login")),
        "ERR" if lower.contains("without any password") || lower.contains("no password is set") => {
            (ErrorKind::Authentication, format!("{endpoint} wants no password, and one is given"))
        }
        // What servers before version 6 say to AUTH.
        "ERR" if lower.contains("invalid password") || lower.contains("auth") => {
            (ErrorKind::Authentication, format!("{endpoint} refused the login"))
        }
        "NOPERM" => (ErrorKind::Authentication, format!("{endpoint} does not let the user in: NOPERM")),
        "ERR" if lower.contains("db index") || lower.contains("invalid db") => {
            (ErrorKind::MissingResource, format!("{endpoint} has no database {}", node.database))
        }
        "ERR" if lower.contains("select is not allowed") => {
            let message = format!("{endpoint} is a node of a cluster, which has no database {}", node.database);
            (ErrorKind::MissingResource, message)
        }
        "DENIED" => (ErrorKind::Refused, format!("{endpoint} is in protected mode and accepts no remote connection")),
        _ if lower.contains("max number of clients") => {
            (ErrorKind::Refused, format!("{endpoint} accepts no more connections"))
        }
        "" => (ErrorKind::Refused, format!("{endpoint} refused the connection")),
        code => (ErrorKind::Refused, format!("{endpoint} refused the connection: {code}")),
    }
}

/// The failure that says most about why none of several servers could be used.
pub fn most_telling(mut failures: Vec<(usize, SourceError)>) -> Option<SourceError> {
    failures.sort_by_key(|(place, error)| {
        let silent = matches!(error.kind, ErrorKind::Unreachable | ErrorKind::TimedOut);
        (silent, error.kind != ErrorKind::Authentication, *place)
    });
    let number = failures.len();
    let first = failures.into_iter().next()?.1;
    Some(match number {
        1 => first,
        _ => SourceError::new(first.kind, format!("{}; none of {number} addresses can be used", first.message)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: &str, detail: &str) -> ErrorKind {
        let (code, detail) = (code.to_owned(), detail.to_owned());
        let failure = Failure::Server { endpoint: "redis:6379".to_owned(), code, detail };
        let error = failure.into_error("the size of the key `k`");
        assert!(error.message.contains("redis:6379") && error.message.contains("`k`"), "{error}");
        error.kind
    }

    #[test]
    fn the_servers_words_become_kinds() {
        for (code, detail, expected) in [
            ("NOPERM", "User mallory has no permissions to run the 'eval' command", ErrorKind::Authentication),
            ("NOAUTH", "Authentication required.", ErrorKind::Authentication),
            ("ERR", "The user executing the script can't run this command or subcommand", ErrorKind::Authentication),
            ("NOGROUP", "No such key 'k' or consumer group 'g'", ErrorKind::MissingResource),
            ("WRONGTYPE", "Operation against a key holding the wrong kind of value", ErrorKind::Refused),
            ("LOADING", "Redis is loading the dataset in memory", ErrorKind::Refused),
            ("CLUSTERDOWN", "The cluster is down", ErrorKind::Refused),
            ("ERR", "unknown command 'EVAL'", ErrorKind::Refused),
        ] {
            assert_eq!(kind(code, detail), expected, "{code} {detail}");
        }
    }

    #[test]
    fn the_name_of_a_user_stays_with_the_server() {
        let detail = "User mallory has no permissions to run the 'eval' command".to_owned();
        let failure = Failure::Server { endpoint: "redis:6379".to_owned(), code: "NOPERM".to_owned(), detail };
        let error = failure.into_error("the size of the key `k`");
        assert_eq!(error.message, "redis:6379 does not let the user read the size of the key `k`: NOPERM");
    }
}
