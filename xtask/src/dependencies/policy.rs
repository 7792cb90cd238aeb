//! The dependency policy, as data.

use semver::Version;

/// Licences a dependency may be used under. No copyleft.
pub(super) const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// Crates of which two versions must not meet.
pub(super) const SINGLE: &[&str] = &["http", "hyper", "kube", "prost", "rustls", "tokio"];

/// The most crates the `tidemark` binary may be built from, itself included (normal dependencies, Linux on x86-64).
///
/// Each crate is one more thing to audit, to update and to wait for in a build. The ceiling does not say that a library is
/// too heavy; it makes growth a decision: whoever needs more raises it in the same change, where it is seen.
pub(super) const SHIPPED_CRATES: usize = 365;

/// A crate that must not be used, in some or all versions.
pub(super) struct Ban {
    pub(super) name: &'static str,
    /// Versions from this one on are fine; `None` bans all.
    pub(super) fixed_in: Option<Version>,
    pub(super) reason: &'static str,
}

impl Ban {
    pub(super) fn covers(&self, version: &Version) -> bool {
        self.fixed_in.as_ref().is_none_or(|fixed| version < fixed)
    }
}

const fn all(name: &'static str, reason: &'static str) -> Ban {
    Ban { name, fixed_in: None, reason }
}

const fn before(name: &'static str, major: u64, minor: u64, patch: u64, reason: &'static str) -> Ban {
    Ban { name, fixed_in: Some(Version::new(major, minor, patch)), reason }
}

const ONE_TLS: &str = "TLS is rustls with aws-lc-rs, and two providers in one binary panic at the first handshake";
const NO_OPENSSL: &str = "TLS is rustls with aws-lc-rs; OpenSSL ties the binary to a system library";
const UNMAINTAINED: &str = "it is no longer maintained";
const ADVISORIES: &str = "earlier versions have security advisories";

/// Banned wherever they come from.
pub(super) const BANNED: &[Ban] = &[
    all("openssl", NO_OPENSSL),
    all("openssl-sys", NO_OPENSSL),
    all("openssl-src", NO_OPENSSL),
    all("native-tls", NO_OPENSSL),
    all("ring", ONE_TLS),
    all("async-std", UNMAINTAINED),
    all("bincode", UNMAINTAINED),
    all("serde_yaml", UNMAINTAINED),
    all("serde_yml", UNMAINTAINED),
    all("protobuf", "protobuf code is prost's"),
    before("h2", 0, 4, 0, ADVISORIES),
    before("hyper", 1, 0, 0, "0.14 is a second HTTP stack"),
    before("rand", 0, 8, 0, ADVISORIES),
    before("rsa", 0, 10, 0, ADVISORIES),
    before("rustls", 0, 23, 46, ADVISORIES),
    before("rustls-webpki", 0, 103, 0, ADVISORIES),
    before("tokio", 1, 54, 1, ADVISORIES),
    before("webpki-roots", 1, 0, 10, ADVISORIES),
    before("zstd", 0, 14, 3, ADVISORIES),
];

/// Banned as dependencies of our own crates; others may use them.
pub(super) const BANNED_DIRECTLY: &[Ban] = &[all("chrono", "time is jiff, as in kube and k8s-openapi")];
