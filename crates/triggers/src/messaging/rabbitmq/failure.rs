//! Failures of the AMQP connection in the user's terms. The broker's own texts name users, so none is passed on.

use std::io;

use lapin::ErrorKind as Amqp;
use tidemark_trigger::{ErrorKind, SourceError};

use super::address::Address;
use crate::connect_failure;

/// AMQP reply codes.
const CONNECTION_FORCED: u16 = 320;
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const NOT_ALLOWED: u16 = 530;

/// No TCP connection.
pub(super) fn of_connect(error: &io::Error, address: &Address) -> SourceError {
    connect_failure::of_tcp(error, &address.endpoint())
}

/// No TLS session.
pub(super) fn of_tls(error: &io::Error, address: &Address) -> SourceError {
    connect_failure::of_tls(error, &address.endpoint())
}

/// No AMQP session: the login or the opening of the virtual host failed.
pub(super) fn of_login(error: &lapin::Error, address: &Address) -> SourceError {
    let (endpoint, vhost) = (address.endpoint(), &address.vhost);
    let (kind, message) = match error.kind() {
        Amqp::ProtocolError(close) => {
            let text = close.get_message().as_str();
            match close.get_id() {
                ACCESS_REFUSED => (ErrorKind::Authentication, format!("{endpoint} refused the login")),
                NOT_FOUND => (ErrorKind::MissingResource, format!("{endpoint} has no vhost `{vhost}`")),
                NOT_ALLOWED if text.contains("not found") => {
                    (ErrorKind::MissingResource, format!("{endpoint} has no vhost `{vhost}`"))
                }
                NOT_ALLOWED if text.contains("limit") => {
                    (ErrorKind::Refused, format!("{endpoint} allows no more connections to the vhost `{vhost}`"))
                }
                NOT_ALLOWED => {
                    (ErrorKind::Authentication, format!("{endpoint} refused the user access to the vhost `{vhost}`"))
                }
                CONNECTION_FORCED => (ErrorKind::Unreachable, format!("{endpoint} is closing connections")),
                code => (ErrorKind::Refused, format!("{endpoint} refused the connection with the AMQP code {code}")),
            }
        }
        Amqp::IOError(io) => match connect_failure::tls_cause(io) {
            Some(error) => return connect_failure::of_tls_cause(error, &endpoint),
            // What brokers do that do not tell a client why they refuse it.
            None => {
                let message = format!(
                    "{endpoint} closed the connection before the login was over: a wrong user or password, a login method \
                     that it does not accept, a port where something else listens, or a listener that wants amqps"
                );
                (ErrorKind::Authentication, message)
            }
        },
        Amqp::ParsingError(_) | Amqp::InvalidProtocolVersion(_) => {
            (ErrorKind::BadReply, format!("{endpoint} does not speak AMQP 0-9-1"))
        }
        _ => (ErrorKind::Unreachable, format!("no AMQP connection to {endpoint}: {error}")),
    };
    SourceError::new(kind, message)
}

/// A queue could not be read.
pub(super) fn of_read(error: &lapin::Error, address: &Address, queue: &str) -> SourceError {
    let (endpoint, vhost) = (address.endpoint(), &address.vhost);
    let queue = format!("queue `{queue}` in the vhost `{vhost}` of {endpoint}");
    let (kind, message) = match error.kind() {
        Amqp::ProtocolError(close) => match close.get_id() {
            ACCESS_REFUSED => (ErrorKind::Authentication, format!("the user has no access to the {queue}")),
            NOT_FOUND => (ErrorKind::MissingResource, format!("there is no {queue}")),
            RESOURCE_LOCKED => (ErrorKind::Refused, format!("the {queue} is exclusive to another connection")),
            CONNECTION_FORCED => (ErrorKind::Unreachable, format!("{endpoint} closed the connection")),
            code => (ErrorKind::Refused, format!("the AMQP code {code} came for the {queue}")),
        },
        Amqp::ParsingError(_) => (ErrorKind::BadReply, format!("{endpoint} sent something that is not AMQP")),
        _ => (ErrorKind::Unreachable, format!("the connection to {endpoint} was lost")),
    };
    SourceError::new(kind, message)
}
