//! Who a caller is: by the headers of a front proxy, by a certificate of its own, or by a token.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use k8s_openapi::api::authentication::v1::UserInfo;
use percent_encoding::percent_decode_str;
use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tidemark_clock::Clock;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use super::FrontProxy;
use crate::https::PeerCertificates;
use crate::tls;

/// Every user but an anonymous one is in this group.
const AUTHENTICATED: &str = "system:authenticated";
const ANONYMOUS: &str = "system:anonymous";

/// The user on whose behalf a request comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: Option<String>,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// With the group that stands for having been recognized.
    fn authenticated(mut self) -> Self {
        let told = self.groups.iter().any(|group| group == AUTHENTICATED || group == "system:unauthenticated");
        if self.name != ANONYMOUS && !told {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }
}

/// By what callers are recognized.
pub struct Trust {
    settings: FrontProxy,
    proxies: Option<Authority>,
    users: Option<Authority>,
}

/// Those who sign certificates.
struct Authority(Arc<dyn ClientCertVerifier>);

impl Authority {
    /// None where the bundle names nobody.
    fn new(bundle: &str, whose: &str) -> Option<Self> {
        if bundle.trim().is_empty() {
            return None;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = tls::roots(bundle)
            .map(|roots| WebPkiClientVerifier::builder_with_provider(roots, provider).build())
            .map_err(|error| error.to_string())
            .and_then(|verifier| verifier.map_err(|error| error.to_string()));
        verifier.map_err(|error| tracing::warn!("the CA of {whose} is not used: {error}")).ok().map(Self)
    }

    /// The TLS layer has verified that somebody has signed the certificate; this is about who.
    fn has_signed(&self, peer: &PeerCertificates) -> bool {
        let Some((own, others)) = peer.0.split_first() else { return false };
        let now = u64::try_from(Clock::system().now().as_second()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
        self.0.verify_client_cert(own, others, now).is_ok()
    }
}

impl Trust {
    pub fn new(settings: FrontProxy) -> Self {
        Self {
            proxies: Authority::new(&settings.client_ca, "front proxies"),
            users: Authority::new(&settings.users_ca, "users"),
            settings,
        }
    }

    /// The user whom a front proxy or a certificate names.
    pub fn user(&self, peer: Option<&PeerCertificates>, headers: &HeaderMap) -> Option<User> {
        let peer = peer?;
        let (_, certificate) = X509Certificate::from_der(peer.0.first()?).ok()?;
        let subject = certificate.subject();
        let signed = |authority: &Option<Authority>| authority.as_ref().is_some_and(|a| a.has_signed(peer));
        let proxied = if signed(&self.proxies) { self.proxied(subject, headers) } else { None };
        let user = proxied.or_else(|| if signed(&self.users) { of_subject(subject) } else { None })?;
        Some(user.authenticated())
    }

    fn proxied(&self, proxy: &X509Name<'_>, headers: &HeaderMap) -> Option<User> {
        let settings = &self.settings;
        let allowed = |name: &str| settings.allowed_names.iter().any(|allowed| allowed == name);
        let mut names = proxy.iter_common_name().filter_map(|name| name.as_str().ok());
        if !settings.allowed_names.is_empty() && !names.any(allowed) {
            return None;
        }
        let texts = |name: &str| -> Vec<String> {
            headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
        };
        let first = |names: &[String]| names.iter().flat_map(|name| texts(name)).find(|text| !text.is_empty());
        let name = first(&settings.username_headers)?;
        let uid = first(&settings.uid_headers);
        let groups = settings.group_headers.iter().flat_map(|name| texts(name)).collect();
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for prefix in settings.extra_prefixes.iter().map(|prefix| prefix.to_ascii_lowercase()) {
            for key in headers.keys().filter_map(|key| key.as_str().strip_prefix(&prefix)) {
                // A key may hold what a header's name must not, such as a slash.
                let name = percent_decode_str(key).decode_utf8_lossy().into_owned();
                extra.entry(name).or_default().extend(texts(&format!("{prefix}{key}")));
            }
        }
        Some(User { name, uid, groups, extra })
    }
}

/// The user whom a certificate names: the common name, and the organizations as groups.
fn of_subject(subject: &X509Name<'_>) -> Option<User> {
    let name = subject.iter_common_name().find_map(|name| name.as_str().ok()).filter(|name| !name.is_empty())?;
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect();
    Some(User { name: name.to_owned(), uid: None, groups, extra: BTreeMap::new() })
}

/// The user whom the API server names for a token.
pub fn of_review(user: UserInfo) -> Option<User> {
    let name = user.username.filter(|name| !name.is_empty())?;
    let (groups, extra) = (user.groups.unwrap_or_default(), user.extra.unwrap_or_default());
    Some(User { name, uid: user.uid, groups, extra }.authenticated())
}

/// The bearer token of a request.
pub fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}
