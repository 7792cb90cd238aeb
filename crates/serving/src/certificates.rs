//! Certificates of our own: a CA and what it signs.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// How long certificates are valid.
const YEARS: i32 = 10;

/// Certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("cannot read the PEM text of {what}: {message}")]
    Pem { what: &'static str, message: String },
    #[error("cannot use the certificate: {0}")]
    Tls(#[from] rustls::Error),
    #[error("cannot verify clients: {0}")]
    Clients(#[from] rustls::server::VerifierBuilderError),
    #[error("the operating system gives no random numbers")]
    Random,
}

/// A certificate authority that lives in this process.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    now: Timestamp,
}

/// A certificate chain with its key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// A new authority, valid from the day before `now` for ten years. It and what it signs live no longer than this
    /// process, and are to outlast it.
    ///
    /// # Errors
    /// The key pair cannot be made.
    pub fn new(name: &str, now: Timestamp) -> Result<Self, Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        validity(&mut params, now);
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?, now })
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// A server certificate for these names and addresses.
    ///
    /// # Errors
    /// A name is not one, or the key pair cannot be made.
    pub fn server(&self, names: &[&str]) -> Result<Pair, Error> {
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, *names.first().unwrap_or(&"tidemark"));
        self.issue(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client certificate for a user.
    ///
    /// # Errors
    /// The key pair cannot be made.
    pub fn client(&self, user: &str) -> Result<Pair, Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, user);
        self.issue(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<Pair, Error> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        validity(&mut params, self.now);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn validity(params: &mut CertificateParams, now: Timestamp) {
    let today = now.to_zoned(TimeZone::UTC).date();
    let yesterday = today.yesterday().unwrap_or(today);
    let month = u8::try_from(yesterday.month()).unwrap_or(1);
    // Day 28 at most, so that the same day exists in every year.
    let day = u8::try_from(yesterday.day().min(28)).unwrap_or(1);
    params.not_before = date_time_ymd(i32::from(yesterday.year()), month, day);
    params.not_after = date_time_ymd(i32::from(yesterday.year()) + YEARS, month, day);
}

/// The settings of a TLS server. With `clients`, a PEM bundle, a client may show a certificate that these have signed;
/// whether it must is up to the service behind.
///
/// # Errors
/// A PEM text cannot be read, or key and certificate do not fit.
pub fn server_config(pair: &Pair, clients: Option<&str>) -> Result<ServerConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = certificates(&pair.certificate, "the server certificate")?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())
        .map_err(|error| Error::Pem { what: "the server key", message: error.to_string() })?;
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(bundle) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(bundle, "the clients' CA")? {
                roots.add(certificate)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let chain = chain.map_err(|error| Error::Pem { what, message: error.to_string() })?;
    if chain.is_empty() {
        return Err(Error::Pem { what, message: "it holds no certificate".to_owned() });
    }
    Ok(chain)
}

/// A random token of 256 bits, in hexadecimal.
///
/// # Errors
/// The operating system gives no random numbers.
pub fn random_token() -> Result<String, Error> {
    let mut bytes = [0_u8; 32];
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
