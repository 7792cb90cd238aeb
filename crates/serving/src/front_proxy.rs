//! Who may use an API behind the API server's aggregation layer.
//!
//! The API server speaks for the user: it shows a certificate that the cluster's front-proxy CA has signed and names
//! the user in headers. Whether the user may is asked back by a SubjectAccessReview.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use percent_encoding::percent_decode_str;
use tokio::time::Instant;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::external_metrics::metric_path;
use crate::https::PeerCertificate;
use crate::reply;

/// An answer of the API server on who may what is believed for this long.
const BELIEF: Duration = Duration::from_secs(10);
/// The answers kept at once; beyond it all are forgotten.
const ANSWERS: usize = 4096;
/// The API server has this long to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who may read.
#[derive(Clone)]
pub enum Access {
    /// Everybody: the service is reached only from within this process, or stands behind a guard.
    Open,
    /// Whom the API server vouches for, if it also says that they may.
    Delegated(Arc<Delegated>),
}

/// What the API server says about front proxies: the ConfigMap `kube-system/extension-apiserver-authentication`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontProxy {
    /// PEM bundle of the CA that signs front proxies' certificates.
    pub client_ca: String,
    allowed_names: Vec<String>,
    username_headers: Vec<String>,
    group_headers: Vec<String>,
    extra_prefixes: Vec<String>,
}

/// Delegated authentication and authorization.
pub struct Delegated {
    front_proxy: RwLock<FrontProxy>,
    client: Client,
    answers: Mutex<BTreeMap<String, (Instant, bool)>>,
}

/// The front proxy's settings cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read ConfigMap kube-system/extension-apiserver-authentication: {0}")]
    Read(#[from] Box<kube::Error>),
    #[error("the API server did not answer in time")]
    TimedOut,
    #[error(
        "ConfigMap kube-system/extension-apiserver-authentication has no {0}: the API server runs without an \
         aggregation layer (--requestheader-client-ca-file)"
    )]
    Missing(&'static str),
    #[error("ConfigMap kube-system/extension-apiserver-authentication: {key} is not a JSON list of strings")]
    Malformed { key: &'static str },
}

/// What a request asks for, as a SubjectAccessReview wants it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Attributes {
    Resource { verb: &'static str, namespace: String, resource: String },
    Path { verb: &'static str, path: String },
}

impl Attributes {
    /// A request without an object's name is a list, also where only `get` is served.
    pub(crate) fn of(method: &Method, path: &str) -> Self {
        let verb = match method.as_str() {
            "GET" | "HEAD" => "list",
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "deletecollection",
            _ => "unknown",
        };
        match metric_path(path) {
            Some((namespace, resource)) => Self::Resource { verb, namespace, resource },
            None => Self::Path { verb: if verb == "list" { "get" } else { verb }, path: path.to_owned() },
        }
    }
}

/// Why a request is turned away.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    Unauthorized,
    Forbidden(String),
    Unknown(String),
}

impl Denied {
    pub(crate) fn response(self) -> Response<Bytes> {
        match self {
            Self::Unauthorized => reply::failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized"),
            Self::Forbidden(message) => reply::failure(StatusCode::FORBIDDEN, "Forbidden", &message),
            Self::Unknown(message) => reply::failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &message),
        }
    }
}

impl Access {
    pub(crate) async fn check(
        &self,
        peer: Option<&PeerCertificate>,
        headers: &HeaderMap,
        attributes: &Attributes,
    ) -> Result<(), Denied> {
        match self {
            Self::Open => Ok(()),
            Self::Delegated(delegated) => delegated.check(peer, headers, attributes).await,
        }
    }
}

impl FrontProxy {
    /// Reads the settings from the cluster.
    ///
    /// # Errors
    /// The ConfigMap cannot be read or lacks what is needed.
    pub async fn read(client: &Client) -> Result<Self, Error> {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
        let map = tokio::time::timeout(PATIENCE, maps.get("extension-apiserver-authentication"))
            .await
            .map_err(|_| Error::TimedOut)?
            .map_err(Box::new)?;
        Self::parse(&map.data.unwrap_or_default())
    }

    /// The settings in the ConfigMap's data.
    ///
    /// # Errors
    /// An entry that is needed is missing, or is not what it should be.
    pub fn parse(data: &BTreeMap<String, String>) -> Result<Self, Error> {
        let list = |key: &'static str| match data.get(key) {
            None => Ok(Vec::new()),
            Some(text) => serde_json::from_str(text).map_err(|_| Error::Malformed { key }),
        };
        let required = |key: &'static str| match list(key)? {
            found if found.is_empty() => Err(Error::Missing(key)),
            found => Ok(found),
        };
        Ok(Self {
            client_ca: data
                .get("requestheader-client-ca-file")
                .filter(|pem| !pem.trim().is_empty())
                .cloned()
                .ok_or(Error::Missing("requestheader-client-ca-file"))?,
            allowed_names: list("requestheader-allowed-names")?,
            username_headers: required("requestheader-username-headers")?,
            group_headers: list("requestheader-group-headers")?,
            extra_prefixes: list("requestheader-extra-headers-prefix")?,
        })
    }

    /// The user that a front proxy speaks for. The TLS layer has verified that the CA signed the certificate.
    fn user(&self, peer: Option<&PeerCertificate>, headers: &HeaderMap) -> Option<User> {
        let (_, certificate) = X509Certificate::from_der(&peer?.0).ok()?;
        let names: Vec<_> = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).collect();
        if !self.allowed_names.is_empty() && !names.iter().any(|name| self.allowed_names.iter().any(|a| a == name)) {
            return None;
        }
        let texts = |name: &str| -> Vec<String> {
            headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
        };
        let name = self.username_headers.iter().flat_map(|name| texts(name)).find(|name| !name.is_empty())?;
        let groups = self.group_headers.iter().flat_map(|name| texts(name)).collect();
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for prefix in self.extra_prefixes.iter().map(|prefix| prefix.to_ascii_lowercase()) {
            for key in headers.keys().filter_map(|key| key.as_str().strip_prefix(&prefix)) {
                // A key may hold what a header's name must not, such as a slash.
                let name = percent_decode_str(key).decode_utf8_lossy().into_owned();
                extra.entry(name).or_default().extend(texts(&format!("{prefix}{key}")));
            }
        }
        Some(User { name, groups, extra })
    }
}

/// The user on whose behalf a request comes.
#[derive(Debug)]
struct User {
    name: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Delegated {
    /// Asks the cluster behind `client`.
    pub fn new(client: Client, front_proxy: FrontProxy) -> Self {
        Self { front_proxy: RwLock::new(front_proxy), client, answers: Mutex::default() }
    }

    /// Takes over settings that have changed in the cluster.
    pub fn set_front_proxy(&self, front_proxy: FrontProxy) {
        *self.front_proxy.write().unwrap_or_else(PoisonError::into_inner) = front_proxy;
    }

    fn user(&self, peer: Option<&PeerCertificate>, headers: &HeaderMap) -> Option<User> {
        self.front_proxy.read().unwrap_or_else(PoisonError::into_inner).user(peer, headers)
    }

    async fn check(
        &self,
        peer: Option<&PeerCertificate>,
        headers: &HeaderMap,
        attributes: &Attributes,
    ) -> Result<(), Denied> {
        let user = self.user(peer, headers).ok_or(Denied::Unauthorized)?;
        if user.groups.iter().any(|group| group == "system:masters") {
            return Ok(());
        }
        let question = format!("{user:?} {attributes:?}");
        let allowed = match self.remembered(&question) {
            Some(allowed) => allowed,
            None => {
                let allowed = self.ask(&user, attributes).await?;
                self.remember(question, allowed);
                allowed
            }
        };
        if allowed { Ok(()) } else { Err(Denied::Forbidden(refusal(&user.name, attributes))) }
    }

    fn remembered(&self, question: &str) -> Option<bool> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(question).filter(|(asked, _)| asked.elapsed() < BELIEF).map(|(_, allowed)| *allowed)
    }

    fn remember(&self, question: String, allowed: bool) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= ANSWERS {
            answers.clear();
        }
        answers.insert(question, (Instant::now(), allowed));
    }

    async fn ask(&self, user: &User, attributes: &Attributes) -> Result<bool, Denied> {
        let mut spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()),
            ..Default::default()
        };
        match attributes {
            Attributes::Resource { verb, namespace, resource } => {
                spec.resource_attributes = Some(ResourceAttributes {
                    verb: Some((*verb).to_owned()),
                    group: Some(crate::external_metrics::GROUP.to_owned()),
                    version: Some(crate::external_metrics::VERSION.to_owned()),
                    namespace: Some(namespace.clone()),
                    resource: Some(resource.clone()),
                    ..Default::default()
                });
            }
            Attributes::Path { verb, path } => {
                spec.non_resource_attributes =
                    Some(NonResourceAttributes { verb: Some((*verb).to_owned()), path: Some(path.clone()) });
            }
        }
        let review = SubjectAccessReview { spec, ..Default::default() };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let parameters = kube::api::PostParams::default();
        let answer = tokio::time::timeout(PATIENCE, reviews.create(&parameters, &review))
            .await
            .map_err(|_| Denied::Unknown("the API server did not answer the access review in time".to_owned()))?
            .map_err(|error| Denied::Unknown(format!("the access review failed: {error}")))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

fn refusal(user: &str, attributes: &Attributes) -> String {
    match attributes {
        Attributes::Resource { verb, namespace, resource } => format!(
            "{resource}.external.metrics.k8s.io is forbidden: User \"{user}\" cannot {verb} resource \"{resource}\" in \
             API group \"external.metrics.k8s.io\" in the namespace \"{namespace}\""
        ),
        Attributes::Path { verb, path } => format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\""),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::certificates::Authority;

    fn settings(allowed: &str) -> FrontProxy {
        let data = [
            ("requestheader-client-ca-file", "PEM"),
            ("requestheader-allowed-names", allowed),
            ("requestheader-username-headers", r#"["X-Remote-User"]"#),
            ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
            ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
        ];
        FrontProxy::parse(&data.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()).unwrap()
    }

    fn peer(name: &str) -> PeerCertificate {
        let authority = Authority::new("front-proxy", "2026-01-01T00:00:00Z".parse().unwrap()).unwrap();
        let pair = authority.client(name).unwrap();
        PeerCertificate(CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap())
    }

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("system:hpa"));
        headers.append("x-remote-group", HeaderValue::from_static("a"));
        headers.append("x-remote-group", HeaderValue::from_static("b"));
        headers.insert("x-remote-extra-scopes", HeaderValue::from_static("s"));
        headers.insert("x-remote-extra-authentication.kubernetes.io%2fpod-name", HeaderValue::from_static("p"));
        headers
    }

    #[test]
    fn an_allowed_front_proxy_names_the_user() {
        let user = settings(r#"["front-proxy-client"]"#).user(Some(&peer("front-proxy-client")), &headers()).unwrap();
        assert_eq!(user.name, "system:hpa");
        assert_eq!(user.groups, ["a", "b"]);
        assert_eq!(user.extra["scopes"], ["s"]);
        assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
        assert!(settings("[]").user(Some(&peer("anyone")), &headers()).is_some());
    }

    #[test]
    fn headers_without_an_allowed_certificate_name_nobody() {
        let settings = settings(r#"["front-proxy-client"]"#);
        assert!(settings.user(None, &headers()).is_none());
        assert!(settings.user(Some(&peer("somebody")), &headers()).is_none());
        assert!(settings.user(Some(&peer("front-proxy-client")), &HeaderMap::new()).is_none());
    }

    #[test]
    fn a_cluster_without_aggregation_is_named_as_such() {
        let error = FrontProxy::parse(&BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("aggregation layer"), "{error}");
    }

    #[test]
    fn a_metric_is_a_resource_of_its_name_that_is_listed_however_the_path_is_written() {
        for name in ["shop/s0-x", "sho%70/s0%2Dx"] {
            let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{name}");
            let metric =
                Attributes::Resource { verb: "list", namespace: "shop".to_owned(), resource: "s0-x".to_owned() };
            assert_eq!(Attributes::of(&Method::GET, &path), metric);
        }
        assert_eq!(Attributes::of(&Method::GET, "/apis"), Attributes::Path { verb: "get", path: "/apis".to_owned() });
    }
}
