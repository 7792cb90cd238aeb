//! Certificates of our own: a CA and what it signs.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// How long certificates are valid.
const YEARS: i32 = 10;

/// Certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("cannot read the PEM text of {what}: {message}")]
    Pem { what: &'static str, message: String },
    #[error("the private key is not that of the certificate")]
    Mismatch,
    #[error("cannot use the certificate: {0}")]
    Tls(rustls::Error),
    #[error("cannot verify clients: {0}")]
    Clients(#[from] rustls::server::VerifierBuilderError),
    #[error("the operating system gives no random numbers")]
    Random,
    #[error("{0} cannot be used")]
    Unusable(&'static str),
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InconsistentKeys(_) => Self::Mismatch,
            error => Self::Tls(error),
        }
    }
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

/// A random token of 256 bits, in hexadecimal.
///
/// # Errors
/// The operating system gives no random numbers.
pub fn random_token() -> Result<String, Error> {
    let mut bytes = [0_u8; 32];
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
