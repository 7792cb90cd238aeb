//! What kept a TCP or TLS connection from coming about, in the user's terms.

use std::io;

use tidemark_trigger::{ErrorKind, SourceError};

/// No TCP connection to an endpoint.
pub fn of_tcp(error: &io::Error, endpoint: &str) -> SourceError {
    let cause = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::TimedOut => "no answer".to_owned(),
        _ => error.to_string(),
    };
    SourceError::new(ErrorKind::Unreachable, format!("cannot connect to {endpoint}: {cause}"))
}

/// No TLS session with an endpoint.
pub fn of_tls(error: &io::Error, endpoint: &str) -> SourceError {
    match tls_cause(error) {
        Some(error) => of_tls_cause(error, endpoint),
        None => {
            let message = format!("{endpoint} broke off the TLS handshake: {error}");
            SourceError::new(ErrorKind::Unreachable, message)
        }
    }
}

/// The failure of TLS that an I/O error stands for.
pub fn tls_cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// A failure of TLS with an endpoint, during the handshake or later.
pub fn of_tls_cause(error: &rustls::Error, endpoint: &str) -> SourceError {
    match error {
        // The client's certificate is missing, unknown or not allowed in.
        rustls::Error::AlertReceived(alert) => {
            let message = format!("{endpoint} refused the TLS connection: {alert:?}");
            SourceError::new(ErrorKind::Authentication, message)
        }
        rustls::Error::InvalidCertificate(_) => {
            let message = format!("the certificate of {endpoint} is not accepted: {error}");
            SourceError::new(ErrorKind::Refused, message)
        }
        rustls::Error::InvalidMessage(_) => {
            SourceError::new(ErrorKind::BadReply, format!("{endpoint} does not speak TLS: {error}"))
        }
        _ => SourceError::new(ErrorKind::Refused, format!("no TLS connection to {endpoint}: {error}")),
    }
}
