//! TLS for a profile.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ALL_VERSIONS, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::Verifier;

use super::{DoorSettings, HttpProfile};
use crate::{ErrorKind, Secret, SourceError};

fn configuration(message: impl Into<String>) -> SourceError {
    SourceError::new(ErrorKind::Configuration, message)
}

/// The client side of TLS for a profile. The provider is given explicitly: no process default is relied on.
pub fn client_config(profile: &HttpProfile, settings: &DoorSettings) -> Result<ClientConfig, SourceError> {
    let mut provider = aws_lc_rs::default_provider();
    if !settings.tls12_suites.is_empty() {
        provider.cipher_suites.retain(|suite| suite.tls13().is_some() || settings.tls12_suites.contains(suite));
    }
    let provider = Arc::new(provider);
    let versions = if settings.only_tls13 { &[&TLS13][..] } else { ALL_VERSIONS };
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|e| configuration(format!("TLS: {e}")))?;
    let verifier: Arc<dyn ServerCertVerifier> = if profile.unsafe_ssl {
        Arc::new(Unchecked { outcome: Ok(()), provider })
    } else {
        let mut roots = settings.extra_roots.clone();
        if let Some(ca) = &profile.ca {
            roots.extend(certificates(ca, "ca")?);
        }
        let none = roots.is_empty();
        match Verifier::new_with_extra_roots(roots, provider.clone()) {
            Ok(verifier) => Arc::new(verifier),
            // A system without any root: that is no matter until a server shows a certificate.
            Err(error) if none => Arc::new(Unchecked { outcome: Err(error), provider }),
            Err(e) => return Err(configuration(format!("the certificates to trust cannot be used: {e}"))),
        }
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let Some((cert, key)) = &profile.client_cert else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(cert, "cert")?;
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
        .map_err(|_| configuration("key holds no private key in PEM form (an encrypted key cannot be used)"))?;
    builder.with_client_auth_cert(chain, key).map_err(|e| configuration(format!("cert and key cannot be used: {e}")))
}

/// The certificates of a PEM text; `name` is the parameter that holds it.
fn certificates(pem: &Secret, name: &str) -> Result<Vec<CertificateDer<'static>>, SourceError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.expose().as_bytes()).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(configuration(format!("{name} holds no certificate in PEM form"))),
        Err(_) => Err(configuration(format!("{name} is no valid PEM text"))),
    }
}

/// Accepts every certificate, or none. Signatures of the handshake are checked all the same: the peer holds the key of
/// the certificate that it shows.
#[derive(Debug)]
struct Unchecked {
    outcome: Result<(), rustls::Error>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.outcome.clone().map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
