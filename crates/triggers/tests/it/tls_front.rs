//! TLS in front of a test server, with certificates of its own.

use std::sync::Arc;

use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// A certificate authority.
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { certificate: params.self_signed(&key).unwrap(), issuer: Issuer::new(params, key) }
    }

    /// Its own certificate as PEM text.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate for a host name or address, with its key.
    pub fn issue(&self, name: &str) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ServerAuth, ClientAuth];
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// The server's side of TLS, with a certificate for a host name or address. It may want a certificate of this
    /// authority from clients.
    pub fn acceptor(&self, name: &str, wants_client_cert: bool) -> TlsAcceptor {
        let (certificate, key) = self.issue(name);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if wants_client_cert {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(self.certificate.der().clone()).unwrap();
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        Arc::new(builder.with_single_cert(vec![certificate.der().clone()], key).unwrap()).into()
    }
}

/// A listener that speaks TLS with clients and passes on what they say, until it is dropped.
pub struct TlsFront {
    /// PEM text of the authority's certificate.
    pub ca: String,
    /// PEM texts of a certificate for clients and its key.
    pub client_cert: String,
    pub client_key: String,
    pub port: u16,
    task: JoinHandle<()>,
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TlsFront {
    /// Its certificate is for `name`; `behind` is the server's address, or there is nothing behind it.
    pub async fn new(name: &str, behind: Option<&str>, wants_client_cert: bool) -> Self {
        let authority = Authority::new();
        let (client_cert, client_key) = authority.issue("client.test");
        let acceptor = authority.acceptor(name, wants_client_cert);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let behind = behind.map(str::to_owned);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                connections.spawn(async move {
                    let Ok(mut client) = acceptor.accept(socket).await else { return };
                    let Some(behind) = behind else { return };
                    let mut server = TcpStream::connect(behind).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { ca: authority.pem(), client_cert: client_cert.pem(), client_key: client_key.serialize_pem(), port, task }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}
