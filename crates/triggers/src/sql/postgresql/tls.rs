//! TLS as `sslmode` means it.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;
use tidemark_trigger::{Door, ErrorKind, HttpProfile, Secret, SourceError};

use super::settings::{Host, SslMode, Tls};

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    Plain,
    Tls(Check),
}

/// What is checked of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    Nothing,
    /// Who signed it.
    Chain,
    /// Who signed it, and the host that it names.
    Full,
}

impl Tls {
    /// The ways to connect, in the order in which they are tried.
    pub fn ways(&self, host: &Host) -> &'static [Encryption] {
        use Encryption::{Plain, Tls};
        match self.mode {
            _ if host.folder().is_some() => &[Plain],
            SslMode::Disable => &[Plain],
            SslMode::Allow => &[Plain, Tls(Check::Nothing)],
            SslMode::Prefer => &[Tls(Check::Nothing), Plain],
            SslMode::Require if self.root.is_none() => &[Tls(Check::Nothing)],
            SslMode::Require | SslMode::VerifyCa => &[Tls(Check::Chain)],
            SslMode::VerifyFull => &[Tls(Check::Full)],
        }
    }

    /// The client side of TLS. Files are read anew for each connection, so that a rotated certificate counts.
    ///
    /// # Errors
    /// Of kind configuration: a file that cannot be read or used, or no certificates to trust.
    pub async fn config(&self, check: Check, door: &Door) -> Result<ClientConfig, SourceError> {
        let client_cert = match &self.client {
            None => None,
            Some((cert, key)) => Some((read(cert, "sslcert").await?, read(key, "sslkey").await?)),
        };
        let unsafe_ssl = check != Check::Full || self.root.is_some();
        let mut config = door.tls(&HttpProfile { unsafe_ssl, ca: None, client_cert })?;
        if self.direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        let verifier = match (check, &self.root) {
            (Check::Nothing, _) | (Check::Full, None) => return Ok(config),
            (_, Some(root)) => of_file(&read(root, "sslrootcert").await?)?,
            (Check::Chain, None) => of_system(door)?,
        };
        let verifier = match check {
            Check::Full => verifier,
            _ => Arc::new(ChainOnly(verifier)) as Arc<dyn ServerCertVerifier>,
        };
        config.dangerous().set_certificate_verifier(verifier);
        Ok(config)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Trusts the certificates of a file and no others.
fn of_file(pem: &Secret) -> Result<Arc<dyn ServerCertVerifier>, SourceError> {
    let unusable = || configuration("the file of `sslrootcert` holds no usable certificate in PEM form");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.expose().as_bytes()) {
        roots.add(certificate.map_err(|_| unusable())?).map_err(|_| unusable())?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    verifier.map(|verifier| verifier as Arc<dyn ServerCertVerifier>).map_err(|_| unusable())
}

/// Trusts what the system and the operator trust.
fn of_system(door: &Door) -> Result<Arc<dyn ServerCertVerifier>, SourceError> {
    let verifier = Verifier::new_with_extra_roots(door.settings().extra_roots.clone(), provider());
    verifier
        .map(|verifier| Arc::new(verifier) as Arc<dyn ServerCertVerifier>)
        .map_err(|error| configuration(&format!("the certificates to trust cannot be used: {error}")))
}

async fn read(path: &str, key: &str) -> Result<Secret, SourceError> {
    let text = tokio::fs::read_to_string(path).await;
    text.map(Secret::from).map_err(|error| configuration(&format!("cannot read the file of `{key}`: {}", error.kind())))
}

fn configuration(message: &str) -> SourceError {
    SourceError::new(ErrorKind::Configuration, message)
}

/// Forgives a certificate that only names another host. The verifiers look at the name last.
#[derive(Debug)]
struct ChainOnly(Arc<dyn ServerCertVerifier>);

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
