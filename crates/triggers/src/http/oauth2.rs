//! OAuth2 client credentials: an access token from a token server.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tidemark_trigger::{Door, ErrorKind, HttpProfile, Secret, SourceError};
use tokio::sync::Mutex;

use super::escape::encode_form;

/// A token is renewed this long before it expires.
const EARLY: SignedDuration = SignedDuration::from_secs(10);

/// Who asks whom for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// URL of the token server.
    pub token_url: Secret,
    pub client_id: Secret,
    pub client_secret: Secret,
    pub scopes: Vec<String>,
    /// Further fields of the request.
    pub endpoint_params: Vec<(String, Secret)>,
}

/// How the client says who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Basic,
    Form,
}

struct Token {
    authorization: HeaderValue,
    expires: Option<Timestamp>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// The style that worked.
    style: Option<Style>,
}

/// Gets tokens and keeps the present one.
pub struct Tokens {
    credentials: Credentials,
    profile: HttpProfile,
    state: Mutex<State>,
}

impl Tokens {
    /// Asks for no token yet. The profile is that of the connection to the token server.
    pub fn new(credentials: Credentials, profile: HttpProfile) -> Self {
        Self { credentials, profile, state: Mutex::default() }
    }

    /// The value of an `Authorization` header with a valid token, asked for when there is none.
    ///
    /// # Errors
    /// The token server refused, could not be reached or sent something else; no message shows a credential.
    pub async fn authorization(&self, door: &Door) -> Result<HeaderValue, SourceError> {
        let mut state = self.state.lock().await;
        let fresh = |token: &Token| token.expires.is_none_or(|expires| expires > door.clock().now() + EARLY);
        if let Some(token) = state.token.as_ref().filter(|token| fresh(token)) {
            return Ok(token.authorization.clone());
        }
        state.token = None;
        let (token, style) = match state.style {
            Some(style) => (self.request(door, style).await?, style),
            None => match self.request(door, Style::Basic).await {
                Ok(token) => (token, Style::Basic),
                // Some servers want the credentials in the form, and say so in no common way.
                Err(_) => (self.request(door, Style::Form).await?, Style::Form),
            },
        };
        state.style = Some(style);
        Ok(state.token.insert(token).authorization.clone())
    }

    async fn request(&self, door: &Door, style: Style) -> Result<Token, SourceError> {
        let Credentials { token_url, client_id, client_secret, .. } = &self.credentials;
        let mut form = self.form()?;
        let mut request = Request::post(token_url.expose())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json");
        match style {
            Style::Basic => {
                let pair = format!("{}:{}", encode_form(client_id.expose()), encode_form(client_secret.expose()));
                request = request.header(AUTHORIZATION, sensitive(&format!("Basic {}", BASE64.encode(pair)))?);
            }
            Style::Form => {
                field(&mut form, "client_id", client_id.expose());
                field(&mut form, "client_secret", client_secret.expose());
            }
        }
        let request = request
            .body(Bytes::from(form))
            .map_err(|_| SourceError::new(ErrorKind::Configuration, "oauthTokenURI is not a valid URL"))?;
        let now = door.clock().now();
        token(&door.http(&self.profile, request, None).await?, now)
    }

    fn form(&self) -> Result<String, SourceError> {
        let Credentials { scopes, endpoint_params, .. } = &self.credentials;
        let mut form = String::new();
        if !endpoint_params.iter().any(|(name, _)| name == "grant_type") {
            field(&mut form, "grant_type", "client_credentials");
        }
        if !scopes.is_empty() {
            if endpoint_params.iter().any(|(name, _)| name == "scope") {
                let message = "endpointParams must not contain scope when scopes are given";
                return Err(SourceError::new(ErrorKind::Configuration, message));
            }
            field(&mut form, "scope", &scopes.join(" "));
        }
        for (name, value) in endpoint_params {
            field(&mut form, name, value.expose());
        }
        Ok(form)
    }
}

fn field(form: &mut String, name: &str, value: &str) {
    let separator = if form.is_empty() { "" } else { "&" };
    // Writing to a string does not fail.
    let _ = write!(form, "{separator}{}={}", encode_form(name), encode_form(value));
}

fn sensitive(text: &str) -> Result<HeaderValue, SourceError> {
    let mut value = HeaderValue::try_from(text).map_err(|_| {
        SourceError::new(ErrorKind::BadReply, "the OAuth2 access token has characters no header may have")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn token(reply: &Response<Bytes>, now: Timestamp) -> Result<Token, SourceError> {
    let status = reply.status();
    if !status.is_success() {
        let kind = match status {
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Authentication,
            _ => ErrorKind::Refused,
        };
        return Err(SourceError::new(kind, format!("the OAuth2 token server answered with status {status}")));
    }
    let bad = |what: &str| SourceError::new(ErrorKind::BadReply, format!("the OAuth2 token server's reply {what}"));
    let content_type = reply.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let fields: serde_json::Map<String, Value> =
        if content_type.starts_with("application/x-www-form-urlencoded") || content_type.starts_with("text/plain") {
            let pairs = url::form_urlencoded::parse(reply.body()).into_owned();
            pairs.map(|(name, value)| (name, Value::String(value))).collect()
        } else {
            serde_json::from_slice(reply.body()).map_err(|_| bad("is no JSON object"))?
        };
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    let access_token = text("access_token");
    if access_token.is_empty() {
        return Err(bad("has no access_token"));
    }
    let scheme = match text("token_type") {
        "" => "Bearer",
        bearer if bearer.eq_ignore_ascii_case("bearer") => "Bearer",
        other => other,
    };
    let seconds = match fields.get("expires_in") {
        Some(Value::Number(number)) => number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds as i64)),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    let expires = seconds
        .filter(|seconds| *seconds > 0)
        .and_then(|seconds| now.checked_add(SignedDuration::from_secs(seconds)).ok());
    Ok(Token { authorization: sensitive(&format!("{scheme} {access_token}"))?, expires })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures::FutureExt as _;
    use tidemark_clock::Clock;

    use super::*;

    /// One that moves with tokio's paused clock.
    fn clock() -> Clock {
        Clock::starting_at("2026-01-02T03:04:05Z".parse().unwrap())
    }

    type Seen = Arc<std::sync::Mutex<Vec<(Option<String>, String)>>>;

    /// A token server that wants the credentials in the form when `form_only`.
    fn server(form_only: bool, content_type: &'static str, body: &'static str) -> (Door, Seen) {
        let seen = Seen::default();
        let log = Arc::clone(&seen);
        let door = Door::in_process(clock(), move |request| {
            let header = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
            let basic = header.is_some();
            log.lock().unwrap().push((header, String::from_utf8(request.body().to_vec()).unwrap()));
            let status = if form_only && basic { 401 } else { 200 };
            let reply = Response::builder().status(status).header(CONTENT_TYPE, content_type).body(Bytes::from(body));
            async move { Ok(reply.unwrap()) }.boxed()
        });
        (door, seen)
    }

    fn tokens(scopes: &[&str], params: &[(&str, &str)]) -> Tokens {
        let credentials = Credentials {
            token_url: "https://login.test/token".into(),
            client_id: "id:1".into(),
            client_secret: "s&cret".into(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            endpoint_params: params.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect(),
        };
        Tokens::new(credentials, HttpProfile::default())
    }

    const JSON: &str = r#"{"access_token":"abc","token_type":"bearer","expires_in":60}"#;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_used_until_10_seconds_before_it_expires() {
        let (door, seen) = server(false, "application/json", JSON);
        let tokens = tokens(&["read", "write"], &[("audience", "rabbit mq")]);
        assert_eq!(tokens.authorization(&door).await.unwrap(), "Bearer abc");
        tokio::time::advance(Duration::from_secs(49)).await;
        tokens.authorization(&door).await.unwrap();
        assert_eq!(seen.lock().unwrap().len(), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        tokens.authorization(&door).await.unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 2);
        let basic = format!("Basic {}", BASE64.encode("id%3A1:s%26cret"));
        let form = "grant_type=client_credentials&scope=read+write&audience=rabbit+mq";
        assert_eq!(seen[0], (Some(basic), form.to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_refuses_basic_gets_the_credentials_in_the_form_from_then_on() {
        let (door, seen) = server(true, "application/x-www-form-urlencoded", "access_token=abc&expires_in=20");
        let tokens = tokens(&[], &[("grant_type", "password")]);
        assert_eq!(tokens.authorization(&door).await.unwrap(), "Bearer abc");
        tokio::time::advance(Duration::from_secs(30)).await;
        tokens.authorization(&door).await.unwrap();
        let seen = seen.lock().unwrap();
        let form = "grant_type=password&client_id=id%3A1&client_secret=s%26cret".to_owned();
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[1], (None, form.clone()));
        assert_eq!(seen[2], (None, form));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_an_authentication_error_that_shows_no_secret() {
        let door = Door::in_process(clock(), |_| {
            async { Ok(Response::builder().status(401).body(Bytes::from("no s&cret")).unwrap()) }.boxed()
        });
        let error = tokens(&[], &[]).authorization(&door).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Authentication);
        assert!(!error.message.contains("cret"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_without_a_token_is_a_bad_reply() {
        for body in ["", "[]", "{}", r#"{"access_token":""}"#, r#"{"access_token":"a\nb"}"#] {
            let (door, _) = server(false, "application/json", body);
            let error = tokens(&[], &[]).authorization(&door).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::BadReply, "{body}");
        }
    }
}
