//! TLS of what Tidemark serves, and of the links between its processes.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion, version};

use crate::certificates::{Error, Pair};

const NEWEST: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// Which versions and cipher suites are spoken. The default is TLS 1.2 and newer, all suites.
#[derive(Clone, Debug)]
pub struct Policy {
    versions: &'static [&'static SupportedProtocolVersion],
    provider: Arc<CryptoProvider>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { versions: rustls::ALL_VERSIONS, provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()) }
    }
}

impl Policy {
    /// The policy that KEDA's variables ask for: a version such as `TLS12`, and names of cipher suites separated by
    /// commas or colons; beside it what was not understood, in words for the log.
    ///
    /// A version that is none, the empty one included, means TLS 1.3. Suites limit TLS 1.2 only: those of TLS 1.3 are
    /// all good.
    pub fn parse(minimum: Option<&str>, ciphers: Option<&str>) -> (Self, Vec<String>) {
        let (mut policy, mut warnings) = (Self::default(), Vec::new());
        match minimum.map(str::trim) {
            None | Some("TLS12") => {}
            Some(old @ ("TLS10" | "TLS11")) => {
                warnings.push(format!("{old} is not spoken here: TLS 1.2 is the oldest version"));
            }
            Some(newest) => {
                if newest != "TLS13" {
                    warnings.push(format!("{newest:?} is none of TLS10, TLS11, TLS12, TLS13: TLS 1.3 is used"));
                }
                policy.versions = NEWEST;
            }
        }
        let named: Vec<&str> =
            ciphers.unwrap_or_default().split([',', ':']).map(str::trim).filter(|name| !name.is_empty()).collect();
        let mut suites = Vec::new();
        for name in &named {
            let found = policy.provider.cipher_suites.iter().find(|suite| format!("{:?}", suite.suite()) == *name);
            match found {
                Some(suite) => suites.push(*suite),
                // Those are spoken in any case.
                None if name.starts_with("TLS_AES_") || name.starts_with("TLS_CHACHA20_") => {}
                None => warnings.push(format!("the cipher suite {name} is not known and left out")),
            }
        }
        if suites.is_empty() && !named.is_empty() {
            warnings.push("no cipher suite of TLS 1.2 is known: all are used".to_owned());
        }
        if !suites.is_empty() {
            let mut provider = (*policy.provider).clone();
            provider.cipher_suites.retain(|suite| suite.tls13().is_some() || suites.contains(suite));
            policy.provider = Arc::new(provider);
        }
        (policy, warnings)
    }
}

/// Whether clients show certificates; the text is a PEM bundle of the CAs that sign them.
#[derive(Clone, Copy, Debug)]
pub enum Clients<'a> {
    /// They are not asked to.
    None,
    /// They may; whether they must is up to the service behind.
    Optional(&'a str),
    /// They must.
    Required(&'a str),
}

/// The settings of a TLS server over HTTP/2 and HTTP/1.1.
///
/// # Errors
/// A PEM text cannot be read, or key and certificate do not fit.
pub fn server_config(pair: &Pair, clients: Clients<'_>, policy: &Policy) -> Result<ServerConfig, Error> {
    let (chain, key) = read_pair(pair)?;
    let builder =
        ServerConfig::builder_with_provider(policy.provider.clone()).with_protocol_versions(policy.versions)?;
    let verifier =
        |bundle| Ok::<_, Error>(WebPkiClientVerifier::builder_with_provider(roots(bundle)?, policy.provider.clone()));
    let builder = match clients {
        Clients::None => builder.with_no_client_auth(),
        Clients::Optional(bundle) => {
            builder.with_client_cert_verifier(verifier(bundle)?.allow_unauthenticated().build()?)
        }
        Clients::Required(bundle) => builder.with_client_cert_verifier(verifier(bundle)?.build()?),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The settings of a TLS client that trusts the CAs of a PEM bundle and nobody else, and shows `pair` where it is asked.
///
/// # Errors
/// A PEM text cannot be read, or key and certificate do not fit.
pub fn client_config(pair: Option<&Pair>, trusted: &str, policy: &Policy) -> Result<ClientConfig, Error> {
    let builder =
        ClientConfig::builder_with_provider(policy.provider.clone()).with_protocol_versions(policy.versions)?;
    let builder = builder.with_root_certificates(roots(trusted)?);
    let mut config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let (chain, key) = read_pair(pair)?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn read_pair(pair: &Pair) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let chain = certificates(&pair.certificate, "the certificate")?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())
        .map_err(|error| Error::Pem { what: "the private key", message: error.to_string() })?;
    Ok((chain, key))
}

pub(crate) fn roots(bundle: &str) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(bundle, "the CA certificates")? {
        roots.add(certificate)?;
    }
    Ok(Arc::new(roots))
}

/// The certificates of a PEM text; at least one.
pub(crate) fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let chain = chain.map_err(|error| Error::Pem { what, message: error.to_string() })?;
    if chain.is_empty() {
        return Err(Error::Pem { what, message: "it holds no certificate".to_owned() });
    }
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suites(policy: &Policy) -> Vec<String> {
        let old = policy.provider.cipher_suites.iter().filter(|suite| suite.tls13().is_none());
        old.map(|suite| format!("{:?}", suite.suite())).collect()
    }

    #[test]
    fn the_variables_of_keda_choose_version_and_suites() {
        let (policy, warnings) = Policy::parse(Some("TLS12"), Some("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:TLS_RC4"));
        assert_eq!(policy.versions.len(), 2);
        assert_eq!(suites(&policy), ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
        assert_eq!(warnings, ["the cipher suite TLS_RC4 is not known and left out"]);
        for newest in ["TLS13", "", "newest"] {
            assert_eq!(Policy::parse(Some(newest), None).0.versions.len(), 1, "{newest:?}");
        }
        assert_eq!(Policy::parse(None, None).0.versions.len(), 2);
        assert_eq!(Policy::parse(None, Some("TLS_RC4")).1.len(), 2);
    }
}
