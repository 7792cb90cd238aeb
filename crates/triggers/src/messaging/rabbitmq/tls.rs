//! Certificates and keys of a trigger, for both protocols.

use tidemark_trigger::{ErrorKind, HttpProfile, Secret, SourceError};

use super::address::Options;
use crate::private_key::decrypted;

/// What a trigger says about TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tls {
    /// Accept any certificate.
    pub unsafe_ssl: bool,
    /// With `tls: enable` only.
    pub material: Option<Material>,
}

/// PEM texts from the TriggerAuthentication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Material {
    pub ca: Option<Secret>,
    pub cert_and_key: Option<(Secret, Secret)>,
    /// Of an encrypted PKCS#8 key.
    pub key_password: Option<Secret>,
}

impl Material {
    /// Every text, in a fixed order.
    pub fn parts(&self) -> [Option<&Secret>; 4] {
        let pair = self.cert_and_key.as_ref();
        [self.ca.as_ref(), pair.map(|(cert, _)| cert), pair.map(|(_, key)| key), self.key_password.as_ref()]
    }
}

impl Tls {
    /// What the door needs to know. Without material of the trigger's own, files that the URI's options name are read.
    ///
    /// # Errors
    /// Of kind configuration: a key that cannot be decrypted, a file that cannot be read.
    pub async fn profile(&self, options: &Options) -> Result<HttpProfile, SourceError> {
        let unsafe_ssl = self.unsafe_ssl;
        if let Some(material) = &self.material {
            let client_cert = match &material.cert_and_key {
                None => None,
                Some((cert, key)) => Some((cert.clone(), decrypted(key, material.key_password.as_ref())?)),
            };
            return Ok(HttpProfile { unsafe_ssl, ca: material.ca.clone(), client_cert });
        }
        let ca = read(options.ca_file.as_deref(), "cacertfile").await?;
        let cert = read(options.cert_file.as_deref(), "certfile").await?;
        let key = read(options.key_file.as_deref(), "keyfile").await?;
        Ok(HttpProfile { unsafe_ssl, ca, client_cert: cert.zip(key) })
    }
}

async fn read(path: Option<&str>, option: &str) -> Result<Option<Secret>, SourceError> {
    let Some(path) = path else { return Ok(None) };
    match tokio::fs::read_to_string(path).await {
        Ok(text) => Ok(Some(text.into())),
        Err(error) => {
            Err(configuration(format!("cannot read the file of the URL's option {option}: {}", error.kind())))
        }
    }
}

fn configuration(message: impl Into<String>) -> SourceError {
    SourceError::new(ErrorKind::Configuration, message)
}

#[cfg(test)]
mod tests {
    use pkcs8::pkcs5::pbes2;
    use pkcs8::{LineEnding, PrivateKeyInfo, der::Decode as _};

    use super::*;

    fn material(key: &str, password: Option<&str>) -> Tls {
        let cert_and_key = Some((Secret::from("cert"), Secret::from(key)));
        let key_password = password.map(Secret::from);
        Tls { unsafe_ssl: false, material: Some(Material { ca: None, cert_and_key, key_password }) }
    }

    async fn key(tls: Tls) -> Result<String, SourceError> {
        let (_, key) = tls.profile(&Options::default()).await?.client_cert.unwrap();
        Ok(key.expose().to_owned())
    }

    #[tokio::test]
    async fn an_encrypted_key_is_decrypted_with_its_password_only() {
        let plain = rcgen::KeyPair::generate().unwrap();
        let der = plain.serialize_der();
        let parameters = pbes2::Parameters::pbkdf2_sha256_aes256cbc(1000, b"saltsalt", &[7; 16]).unwrap();
        let encrypted = PrivateKeyInfo::from_der(&der).unwrap().encrypt_with_params(parameters, "hunter2").unwrap();
        let encrypted = encrypted.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF).unwrap();
        let decrypted = key(material(&encrypted, Some("hunter2"))).await.unwrap();
        assert_eq!(rcgen::KeyPair::from_pem(&decrypted).unwrap().serialize_der(), der);

        let error = key(material(&encrypted, Some("hunter3"))).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Configuration);
        assert_eq!(error.message, "key cannot be decrypted with keyPassword");
        // A password too many does no harm; what is no key does.
        let pem = plain.serialize_pem();
        assert_eq!(key(material(&pem, Some("hunter2"))).await.unwrap(), pem);
        assert_eq!(key(material("kee", Some("hunter2"))).await.unwrap_err().kind, ErrorKind::Configuration);
    }

    #[tokio::test]
    async fn files_of_the_url_count_only_without_material_of_the_trigger() {
        let options = Options { ca_file: Some("/nowhere/ca.pem".to_owned()), ..Options::default() };
        let error = Tls::default().profile(&options).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Configuration);
        assert!(error.message.contains("cacertfile"), "{error}");
        let own = Tls { unsafe_ssl: true, material: Some(Material { ca: Some("ca".into()), ..Material::default() }) };
        let profile = own.profile(&options).await.unwrap();
        assert_eq!((profile.unsafe_ssl, profile.ca), (true, Some(Secret::from("ca"))));
    }
}
