//! How triggers reach their sources, by KEDA's flags and variables.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rustls::SupportedCipherSuite;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tidemark_trigger::DoorSettings;

use super::OperatorArgs;
use crate::process::{environment, go_bool};

/// The settings of the door.
///
/// # Errors
/// A duration or a number is none.
pub fn settings(args: &OperatorArgs) -> anyhow::Result<DoorSettings> {
    let mut settings = DoorSettings::default();
    if let Some(timeout) = timeout(environment::variable("KEDA_HTTP_DEFAULT_TIMEOUT").as_deref())? {
        settings.http_timeout = timeout;
    }
    settings.connection_idle =
        environment::go_duration(&args.http_idle_conn_timeout).context("--http-idle-conn-timeout")?;
    let disabled = environment::variable("KEDA_HTTP_DISABLE_KEEP_ALIVE").and_then(|text| go_bool(&text).ok());
    settings.keep_alive = disabled != Some(true);
    settings.only_tls13 = only_tls13(environment::variable("KEDA_HTTP_MIN_TLS_VERSION").as_deref());
    settings.tls12_suites = suites(&environment::variable("KEDA_HTTP_TLS_CIPHER_LIST").unwrap_or_default());
    for folder in &args.ca_dir {
        settings.extra_roots.extend(authorities(folder));
    }
    Ok(settings)
}

/// Milliseconds; nothing where the variable is not set, and 300 where it is not above zero.
fn timeout(text: Option<&str>) -> anyhow::Result<Option<Duration>> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    let milliseconds: i64 = text.parse().with_context(|| {
        format!("environment variable KEDA_HTTP_DEFAULT_TIMEOUT: {text:?} is not a number of milliseconds")
    })?;
    let milliseconds = u64::try_from(milliseconds).ok().filter(|number| *number > 0).unwrap_or(300);
    Ok(Some(Duration::from_millis(milliseconds)))
}

/// Whether TLS 1.2 is too old. What is no version is told in the log, and means the default.
fn only_tls13(version: Option<&str>) -> bool {
    match version.map(str::trim) {
        None | Some("" | "TLS12") => false,
        Some("TLS13") => true,
        Some(old @ ("TLS10" | "TLS11")) => {
            tracing::warn!("KEDA_HTTP_MIN_TLS_VERSION: {old} is not spoken here: TLS 1.2 is the oldest version");
            false
        }
        Some(other) => {
            tracing::warn!(
                "KEDA_HTTP_MIN_TLS_VERSION: {other:?} is none of TLS10, TLS11, TLS12, TLS13: TLS 1.2 is used"
            );
            false
        }
    }
}

/// The cipher suites of TLS 1.2 that a list names; none where all are good. Unknown ones are told in the log.
fn suites(list: &str) -> Vec<SupportedCipherSuite> {
    let all = rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
    let mut found = Vec::new();
    for name in list.split([',', ':']).map(str::trim).filter(|name| !name.is_empty()) {
        match all.iter().find(|suite| format!("{:?}", suite.suite()) == name) {
            Some(suite) => found.push(*suite),
            // Those of TLS 1.3 are named differently in rustls, and spoken in any case.
            None if name.starts_with("TLS_AES_") || name.starts_with("TLS_CHACHA20_") => {}
            None => {
                tracing::warn!("KEDA_HTTP_TLS_CIPHER_LIST: the cipher suite {name} is not known and left out");
            }
        }
    }
    found
}

/// The certificates in the files of a folder. What is none is told in the log and left out.
fn authorities(folder: &Path) -> Vec<CertificateDer<'static>> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        tracing::debug!(folder = %folder.display(), "no CAs there");
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        // Mounted Secrets and ConfigMaps have their versions in folders of such names.
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".."));
        if hidden || path.is_dir() {
            continue;
        }
        let found: Result<Vec<_>, _> = match CertificateDer::pem_file_iter(&path) {
            Ok(certificates) => certificates.collect(),
            Err(error) => Err(error),
        };
        match found {
            Ok(found) if found.is_empty() => tracing::warn!(file = %path.display(), "no certificate in it"),
            Ok(found) => all.extend(found),
            Err(error) => tracing::warn!(file = %path.display(), "its certificates cannot be read: {error}"),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_is_milliseconds_and_never_none() {
        let of = |text| timeout(Some(text)).unwrap();
        assert_eq!(
            (of("1500"), of(""), of("0")),
            (Some(Duration::from_millis(1500)), None, Some(Duration::from_millis(300)))
        );
        assert!(timeout(Some("3s")).is_err());
    }

    #[test]
    fn versions_and_suites_are_those_of_go() {
        assert!(only_tls13(Some("TLS13")));
        for other in [None, Some(""), Some("TLS12"), Some("TLS10"), Some("1.3")] {
            assert!(!only_tls13(other), "{other:?}");
        }
        let found = suites("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256, TLS_RSA_WITH_RC4_128_SHA");
        assert_eq!(found.len(), 1);
        assert!(suites("").is_empty());
    }

    #[test]
    fn a_folder_gives_its_certificates_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("tidemark-ca-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("..data")).unwrap();
        let authority =
            tidemark_serving::certificates::Authority::new("t", "2026-01-01T00:00:00Z".parse().unwrap()).unwrap();
        std::fs::write(folder.join("ca.crt"), authority.certificate()).unwrap();
        std::fs::write(folder.join("notes.txt"), "no certificate").unwrap();
        let found = authorities(&folder).len();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!((found, authorities(&folder).len()), (1, 0));
    }
}
