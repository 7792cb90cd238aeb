//! Who may use an API behind the API server's aggregation layer.
//!
//! The API server speaks for most users: it shows a certificate that the cluster's front-proxy CA has signed and names
//! the user in headers. Others come by themselves, with a certificate of the clients' CA or with a token that the API
//! server is asked about. Whether the user may is asked back by a SubjectAccessReview.

mod attributes;
mod belief;
mod callers;
mod settings;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::Value;
use sha2::{Digest, Sha256};

use attributes::Attributes;
use belief::Beliefs;
use callers::{Trust, User};
pub use settings::{Error, FrontProxy};

use crate::https::PeerCertificates;
use crate::reply;

/// The API server has this long to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Who is in this group may do anything.
const MASTERS: &str = "system:masters";

/// What need not be asked of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leniency {
    /// How long it is believed whose a token is. 10 s.
    pub tokens: Duration,
    /// How long it is believed that a user may do something. 10 s.
    pub allowed: Duration,
    /// How long it is believed that a user may not do something. 10 s.
    pub refused: Duration,
    /// Paths that anybody may ask for; with `*` at the end, all that begin so. Values of metrics are never among them.
    pub open_paths: Vec<String>,
}

impl Default for Leniency {
    fn default() -> Self {
        let belief = Duration::from_secs(10);
        Self { tokens: belief, allowed: belief, refused: belief, open_paths: Vec::new() }
    }
}

impl Leniency {
    fn opens(&self, attributes: &Attributes) -> bool {
        let Attributes::Path { path, .. } = attributes else { return false };
        self.open_paths.iter().any(|open| match open.strip_suffix('*') {
            Some(begin) => path.starts_with(begin),
            None => path.trim_end_matches('/') == open.trim_end_matches('/'),
        })
    }
}

/// Who may read.
#[derive(Clone)]
pub enum Access {
    /// Everybody: the service is reached only from within this process, or stands behind a guard.
    Open,
    /// Whom the API server vouches for, if it also says that they may.
    Delegated(Arc<Delegated>),
}

/// Delegated authentication and authorization.
pub struct Delegated {
    trust: RwLock<Arc<Trust>>,
    authentication: Client,
    authorization: Client,
    /// Whose a token is, by its hash; none for one that is nobody's.
    tokens: Beliefs<Option<Arc<User>>>,
    answers: Beliefs<bool>,
    leniency: Leniency,
}

/// Why a request is turned away.
#[derive(Debug, PartialEq, Eq)]
enum Denied {
    Unauthorized,
    /// The message, and what was asked for.
    Forbidden(String, Value),
    Unknown(String),
}

impl Denied {
    fn response(self) -> Response<Bytes> {
        match self {
            Self::Unauthorized => reply::failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized"),
            Self::Forbidden(message, details) => {
                reply::failure_with(StatusCode::FORBIDDEN, "Forbidden", &message, details)
            }
            Self::Unknown(message) => reply::failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &message),
        }
    }
}

impl Access {
    /// The answer to a request for `path` whose caller may not make it; none where it passes.
    pub(crate) async fn refusal(&self, head: &Parts, path: &str) -> Option<Response<Bytes>> {
        let Self::Delegated(delegated) = self else { return None };
        let (peer, attributes) = (head.extensions.get::<PeerCertificates>(), Attributes::of(&head.method, path));
        delegated.check(peer, &head.headers, &attributes).await.err().map(Denied::response)
    }
}

impl Delegated {
    /// Asks the cluster behind `client`.
    pub fn new(client: Client, front_proxy: FrontProxy) -> Self {
        Self::over(client.clone(), client, front_proxy)
    }

    /// Asks one cluster whose tokens are, and one what users may.
    pub fn over(authentication: Client, authorization: Client, front_proxy: FrontProxy) -> Self {
        let trust = RwLock::new(Arc::new(Trust::new(front_proxy)));
        let (tokens, answers) = (Beliefs::default(), Beliefs::default());
        Self { trust, authentication, authorization, tokens, answers, leniency: Leniency::default() }
    }

    /// The same with other times and paths.
    #[must_use]
    pub fn with(self, leniency: Leniency) -> Self {
        Self { leniency, ..self }
    }

    /// Takes over settings that have changed in the cluster.
    pub fn set_front_proxy(&self, front_proxy: FrontProxy) {
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Trust::new(front_proxy));
    }

    fn trust(&self) -> Arc<Trust> {
        self.trust.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn check(
        &self,
        peer: Option<&PeerCertificates>,
        headers: &HeaderMap,
        attributes: &Attributes,
    ) -> Result<(), Denied> {
        if self.leniency.opens(attributes) {
            return Ok(());
        }
        let user = match self.trust().user(peer, headers) {
            Some(user) => Arc::new(user),
            None => self.token_user(headers).await.ok_or(Denied::Unauthorized)?,
        };
        if user.groups.iter().any(|group| group == MASTERS) {
            return Ok(());
        }
        let question = format!("{user:?} {attributes:?}");
        let allowed = match self.answers.get(&question) {
            Some(allowed) => allowed,
            None => {
                let allowed = self.may(&user, attributes).await?;
                let belief = if allowed { self.leniency.allowed } else { self.leniency.refused };
                self.answers.put(question, allowed, belief);
                allowed
            }
        };
        match allowed {
            true => Ok(()),
            false => Err(Denied::Forbidden(attributes.refusal(&user.name), attributes.details())),
        }
    }

    /// The user whose bearer token comes with a request.
    async fn token_user(&self, headers: &HeaderMap) -> Option<Arc<User>> {
        let token = callers::bearer_token(headers)?;
        let hash = Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        if let Some(user) = self.tokens.get(&hash) {
            return user;
        }
        match self.whose(token).await {
            Ok(user) => {
                self.tokens.put(hash, user.clone(), self.leniency.tokens);
                user
            }
            Err(error) => {
                tracing::warn!("a token could not be judged: {error}");
                None
            }
        }
    }

    async fn whose(&self, token: &str) -> Result<Option<Arc<User>>, String> {
        let spec = TokenReviewSpec { token: token.to_owned(), ..Default::default() };
        let reviews: Api<TokenReview> = Api::all(self.authentication.clone());
        let review = TokenReview { spec, ..Default::default() };
        let answer = create(reviews, &review).await?;
        let status = answer.status.unwrap_or_default();
        if status.authenticated != Some(true) {
            return Ok(None);
        }
        Ok(status.user.and_then(callers::of_review).map(Arc::new))
    }

    async fn may(&self, user: &User, attributes: &Attributes) -> Result<bool, Denied> {
        let mut spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: user.uid.clone(),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()),
            ..Default::default()
        };
        attributes.enter(&mut spec);
        let reviews: Api<SubjectAccessReview> = Api::all(self.authorization.clone());
        let review = SubjectAccessReview { spec, ..Default::default() };
        let answer = create(reviews, &review).await;
        let answer = answer.map_err(|error| Denied::Unknown(format!("the access review failed: {error}")))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

async fn create<K>(api: Api<K>, review: &K) -> Result<K, String>
where
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let parameters = PostParams::default();
    match tokio::time::timeout(PATIENCE, api.create(&parameters, review)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("the API server did not answer in time".to_owned()),
    }
}

#[cfg(test)]
mod tests;
