//! Private keys in PEM form that a password may protect.

use pkcs8::{EncryptedPrivateKeyInfo, LineEnding, SecretDocument};
use tidemark_trigger::{ErrorKind, Secret, SourceError};

/// The PEM text of a private key, decrypted where it is an encrypted PKCS#8 one. Any other key is returned as it is: not
/// encrypted, or in a form older than PKCS#8, which the TLS library then refuses by name.
///
/// # Errors
/// Of kind configuration: what is no PEM text, or does not open with the password.
pub fn decrypted(key: &Secret, password: Option<&Secret>) -> Result<Secret, SourceError> {
    let Some(password) = password else { return Ok(key.clone()) };
    let (label, document) =
        SecretDocument::from_pem(key.expose().trim()).map_err(|_| configuration("key is no valid PEM text"))?;
    if label != "ENCRYPTED PRIVATE KEY" {
        return Ok(key.clone());
    }
    let plain = EncryptedPrivateKeyInfo::try_from(document.as_bytes())
        .and_then(|encrypted| encrypted.decrypt(password.expose()))
        .map_err(|_| configuration("key cannot be decrypted with keyPassword"))?;
    let pem =
        plain.to_pem("PRIVATE KEY", LineEnding::LF).map_err(|_| configuration("the decrypted key cannot be used"))?;
    Ok(Secret::from(pem.as_str()))
}

fn configuration(message: &str) -> SourceError {
    SourceError::new(ErrorKind::Configuration, message)
}
