//! Whether two processes would speak with each other at a time: rustls' own checks, at that time instead of the machine's.

use std::time::Duration;

use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;

use crate::identity::Identity;
use crate::tls;

/// A client with these files speaks with a server that has those, each showing its certificate.
pub fn speak(client: &Identity, server: &Identity, name: &str, now: Timestamp) -> Result<(), String> {
    trusts_server(&client.ca, server, name, now)?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(tls::roots(&server.ca).unwrap(), default_provider().into());
    let chain = tls::certificates(&client.pair.certificate, "test").unwrap();
    let verified = verifier.build().unwrap().verify_client_cert(&chain[0], &chain[1..], time(now));
    verified.map(drop).map_err(|error| format!("{now}: the server does not trust the client: {error}"))
}

/// Who trusts these CAs alone, such as the API server, trusts a server with those files.
pub fn trusts_server(bundle: &str, server: &Identity, name: &str, now: Timestamp) -> Result<(), String> {
    let roots = tls::roots(bundle).unwrap();
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, default_provider().into()).build().unwrap();
    let chain = tls::certificates(&server.pair.certificate, "test").unwrap();
    let name = ServerName::try_from(name).unwrap();
    let verified = verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], time(now));
    verified.map(drop).map_err(|error| format!("{now}: the client does not trust the server: {error}"))
}

fn time(now: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().try_into().unwrap()))
}
