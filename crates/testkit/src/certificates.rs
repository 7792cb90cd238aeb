//! The control plane's certificates and keys, made anew for every start.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use crate::Error;

/// The files, by their use.
pub(crate) struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Writes all files into `directory`.
    pub(crate) fn create(directory: &Path) -> Result<Self, Error> {
        let certificates = Self { directory: directory.to_owned() };
        let ca = authority("tidemark-test-ca")?;
        let front_proxy_ca = authority("tidemark-test-front-proxy-ca")?;
        certificates.write("ca.crt", &ca.pem())?;
        certificates.write("front-proxy-ca.crt", &front_proxy_ca.pem())?;

        let names =
            ["localhost", "127.0.0.1", "10.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let mut server = CertificateParams::new(names.map(str::to_owned))?;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        certificates.issue("apiserver", server, &ca)?;
        certificates.issue("admin", client("tidemark-test-admin", Some("system:masters")), &ca)?;
        // All controllers share one identity here, so it needs what each of them would have by itself.
        let manager = client("system:kube-controller-manager", Some("system:masters"));
        certificates.issue("controller-manager", manager, &ca)?;
        certificates.issue("front-proxy-client", client("front-proxy-client", None), &front_proxy_ca)?;
        let service_accounts = KeyPair::generate()?;
        certificates.write("service-account.key", &service_accounts.serialize_pem())?;
        certificates.write("service-account.pub", &service_accounts.public_key_pem())?;
        Ok(certificates)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    pub(crate) fn read(&self, file: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(file))
    }

    fn issue(
        &self,
        name: &str,
        params: CertificateParams,
        issuer: &CertifiedIssuer<'static, KeyPair>,
    ) -> Result<(), Error> {
        let key = KeyPair::generate()?;
        self.write(&format!("{name}.crt"), &params.signed_by(&key, issuer)?.pem())?;
        self.write(&format!("{name}.key"), &key.serialize_pem())
    }

    fn write(&self, file: &str, pem: &str) -> Result<(), Error> {
        Ok(write_private(&self.path(file), pem.as_bytes())?)
    }
}

/// Writes a new file that only its owner can read.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(content)
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn client(user: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}
