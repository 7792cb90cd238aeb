//! An HTTPS server for what a test serves to the API server.

use std::io;
use std::sync::Arc;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::Error;

/// A running server on a loopback port, with a certificate of its own. It ends when this is dropped.
#[derive(Debug)]
pub struct TlsServer {
    /// Where it listens.
    pub port: u16,
    /// The certificate, which vouches for itself (PEM).
    pub ca_pem: String,
    _task: AbortOnDropHandle<()>,
}

impl TlsServer {
    /// Serves `routes` under the name `host`.
    ///
    /// # Errors
    /// When no certificate can be made, or no port is to be had.
    pub async fn start(host: &str, routes: Router) -> Result<Self, Error> {
        let certified = rcgen::generate_simple_self_signed([host.to_owned()])?;
        let ca_pem = certified.cert.pem();
        let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
        let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|tls| tls.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key))
            .map_err(io::Error::other)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let task = tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), routes));
        Ok(Self { port, ca_pem, _task: AbortOnDropHandle::new(task) })
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, routes: Router) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        // A connection that went before it was accepted is no reason to end.
        let Ok((stream, _)) = accepted else { continue };
        let (tls, routes) = (tls.clone(), routes.clone());
        connections.spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let connection = auto::Builder::new(TokioExecutor::new());
            // The API server closes connections as it likes.
            let _ = connection.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)).await;
        });
    }
}
