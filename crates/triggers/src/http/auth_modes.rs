//! How a request to an HTTP endpoint is let in: the parameters around `authModes`, which several trigger types share.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use tidemark_trigger::parameters::Form;
use tidemark_trigger::{Choice, ErrorKind, HttpProfile, Parameters, ParseError, Secret, SourceError, TriggerInput};
use url::Url;
use url::form_urlencoded;

use super::oauth2::Credentials;

/// One way to be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub enum Mode {
    ApiKey,
    Basic,
    Tls,
    Bearer,
    Custom,
    #[choice("oauth")]
    OAuth,
}

/// Where an API key goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub enum KeyPlace {
    Header,
    Query,
}

/// The parameters around `authModes`.
#[derive(Clone, Debug, Parameters)]
#[parameters(check = AuthModes::check)]
pub struct AuthModes {
    /// How requests are let in, separated by commas. At most one of `basic`, `bearer` and `oauth`. Without effect:
    /// `custom` and `oauth` with metrics-api, `apiKey` with prometheus.
    #[param(alias = "authMode", from = "metadata auth", exclusive = ["bearer", "basic", "oauth"], optional, plain)]
    auth_modes: Vec<Mode>,
    /// Key of mode `apiKey`.
    #[param(from = "metadata auth")]
    api_key: Option<Secret>,
    /// Where the key of mode `apiKey` goes: `header` or `query`.
    #[param(from = "metadata auth", default = "header", plain)]
    method: KeyPlace,
    /// Name of the header or query parameter with the key of mode `apiKey`. Without it `X-API-KEY` or `api_key`.
    #[param(from = "metadata auth", plain)]
    key_param_name: Option<String>,
    /// User of mode `basic`.
    #[param(from = "auth")]
    username: Option<Secret>,
    /// Password of mode `basic`; may be empty.
    #[param(from = "auth")]
    password: Option<Secret>,
    /// Token of mode `bearer`.
    #[param(alias = "token", from = "auth")]
    bearer_token: Option<Secret>,
    /// PEM text of the client's certificate of mode `tls`.
    #[param(from = "auth")]
    cert: Option<Secret>,
    /// PEM text of the private key of `cert`.
    #[param(from = "auth")]
    key: Option<Secret>,
    /// PEM text of certificates to trust besides those of the system. With metrics-api in
    /// mode `tls` only.
    #[param(from = "auth")]
    ca: Option<Secret>,
    /// URL of the token server of mode `oauth`.
    #[param(name = "oauthTokenURI", from = "auth")]
    oauth_token_uri: Option<Secret>,
    /// Client id of mode `oauth`.
    #[param(name = "clientID", from = "auth")]
    client_id: Option<Secret>,
    /// Client secret of mode `oauth`.
    #[param(from = "auth")]
    client_secret: Option<Secret>,
    /// Scopes of mode `oauth`, separated by commas.
    #[param(alias = "scope", from = "auth", optional, plain)]
    scopes: Vec<String>,
    /// Further fields of the token request of mode `oauth`, as a query string.
    #[param(from = "auth", optional, secret)]
    endpoint_params: Form,
    /// Name of the header of mode `custom`.
    #[param(from = "auth")]
    custom_auth_header: Option<Secret>,
    /// Value of the header of mode `custom`.
    #[param(from = "auth")]
    custom_auth_value: Option<Secret>,
}

impl AuthModes {
    /// Whether a mode is on.
    pub fn has(&self, mode: Mode) -> bool {
        self.auth_modes.contains(&mode)
    }

    fn check(&self, _: &TriggerInput) -> Vec<ParseError> {
        let needed = [
            (Mode::ApiKey, "apiKey", &self.api_key),
            (Mode::Basic, "username", &self.username),
            (Mode::Bearer, "bearerToken", &self.bearer_token),
            (Mode::Tls, "cert", &self.cert),
            (Mode::Tls, "key", &self.key),
            (Mode::OAuth, "oauthTokenURI", &self.oauth_token_uri),
            (Mode::OAuth, "clientID", &self.client_id),
            (Mode::Custom, "customAuthHeader", &self.custom_auth_header),
            (Mode::Custom, "customAuthValue", &self.custom_auth_value),
        ];
        let missing = needed.into_iter().filter(|(mode, _, value)| self.has(*mode) && value.is_none());
        missing
            .map(|(mode, name, _)| ParseError::new(name, format!("authModes {} needs {name}", mode.text())))
            .collect()
    }

    /// What the door must know: certificates in mode `tls`.
    pub fn profile(&self, unsafe_ssl: bool) -> HttpProfile {
        if !self.has(Mode::Tls) {
            return HttpProfile { unsafe_ssl, ..HttpProfile::default() };
        }
        HttpProfile { unsafe_ssl, ca: self.ca.clone(), client_cert: self.client_cert() }
    }

    /// Whether any mode is on.
    pub fn any(&self) -> bool {
        !self.auth_modes.is_empty()
    }

    /// PEM text of certificates to trust besides those of the system, whatever the mode.
    pub fn ca(&self) -> Option<&Secret> {
        self.ca.as_ref()
    }

    /// PEM texts of the client's certificate and its key, whatever the mode.
    pub fn client_cert(&self) -> Option<(Secret, Secret)> {
        self.cert.clone().zip(self.key.clone())
    }

    /// Adds what modes `apiKey`, `basic` and `bearer` send along.
    ///
    /// # Errors
    /// Of kind configuration: a text that cannot stand in a header.
    pub fn authorize(&self, url: &mut Url, headers: &mut HeaderMap) -> Result<(), SourceError> {
        if let Some(key) = self.api_key.as_ref().filter(|_| self.has(Mode::ApiKey)) {
            let name = self.key_param_name.as_deref();
            match self.method {
                KeyPlace::Query => set_query(url, name.unwrap_or("api_key"), key),
                KeyPlace::Header => {
                    let name = HeaderName::from_bytes(name.unwrap_or("X-API-KEY").as_bytes())
                        .map_err(|_| configuration("keyParamName is not the name of a header"))?;
                    headers.append(name, header("apiKey", key.expose())?);
                }
            }
        }
        if let Some(basic) = self.basic()? {
            headers.insert(AUTHORIZATION, basic);
        }
        if let Some(bearer) = self.bearer()? {
            headers.append(AUTHORIZATION, bearer);
        }
        Ok(())
    }

    /// The `Authorization` of mode `basic`, if it is on.
    ///
    /// # Errors
    /// Of kind configuration: user and password are too long for a header.
    pub fn basic(&self) -> Result<Option<HeaderValue>, SourceError> {
        let Some(user) = self.username.as_ref().filter(|_| self.has(Mode::Basic)) else { return Ok(None) };
        let password = self.password.as_ref().map_or("", Secret::expose);
        let pair = BASE64.encode(format!("{}:{password}", user.expose()));
        header("username", &format!("Basic {pair}")).map(Some)
    }

    /// The `Authorization` of mode `bearer`, if it is on.
    ///
    /// # Errors
    /// Of kind configuration: the token cannot stand in a header.
    pub fn bearer(&self) -> Result<Option<HeaderValue>, SourceError> {
        let Some(token) = self.bearer_token.as_ref().filter(|_| self.has(Mode::Bearer)) else { return Ok(None) };
        header("bearerToken", &format!("Bearer {}", token.expose())).map(Some)
    }

    /// The header of mode `custom`, if it is on.
    ///
    /// # Errors
    /// Of kind configuration: name or value cannot stand in a header.
    pub fn custom(&self) -> Result<Option<(HeaderName, HeaderValue)>, SourceError> {
        let pair = self.custom_auth_header.as_ref().zip(self.custom_auth_value.as_ref());
        let Some((name, value)) = pair.filter(|_| self.has(Mode::Custom)) else { return Ok(None) };
        let name = HeaderName::from_bytes(name.expose().as_bytes())
            .map_err(|_| configuration("customAuthHeader is not the name of a header"))?;
        Ok(Some((name, header("customAuthValue", value.expose())?)))
    }

    /// How a token is asked for in mode `oauth`, if it is on.
    pub fn oauth(&self) -> Option<Credentials> {
        let pair = self.oauth_token_uri.as_ref().zip(self.client_id.as_ref());
        let (token_url, client_id) = pair.filter(|_| self.has(Mode::OAuth))?;
        let fields = self.endpoint_params.0.iter();
        Some(Credentials {
            token_url: token_url.clone(),
            client_id: client_id.clone(),
            client_secret: self.client_secret.clone().unwrap_or_default(),
            scopes: self.scopes.iter().filter(|scope| !scope.is_empty()).cloned().collect(),
            endpoint_params: fields.map(|(name, value)| (name.clone(), Secret::from(value.as_str()))).collect(),
        })
    }
}

/// A header's value that is sent to nobody but the host it is meant for; the parameter is named when it cannot be sent.
fn header(parameter: &str, value: &str) -> Result<HeaderValue, SourceError> {
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| configuration(&format!("{parameter} has a character that no header may have")))?;
    value.set_sensitive(true);
    Ok(value)
}

fn configuration(message: &str) -> SourceError {
    SourceError::new(ErrorKind::Configuration, message)
}

/// Puts a key into a URL's query in place of any that is there; the keys are sorted, as KEDA sends them.
fn set_query(url: &mut Url, name: &str, key: &Secret) {
    let mut pairs: Vec<(String, String)> =
        url.query_pairs().into_owned().filter(|(existing, _)| existing != name).collect();
    pairs.push((name.to_owned(), key.expose().to_owned()));
    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    url.set_query(Some(&query));
}
