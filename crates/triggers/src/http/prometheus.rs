//! `prometheus`: the number that a PromQL query yields, from any server with Prometheus' HTTP API.

mod cloud;
mod reply;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use jiff::Timestamp;
use tidemark_trigger::metric::{external_name, metric_type, target_milli};
use tidemark_trigger::parameters::Pairs;
use tidemark_trigger::{
    Choice as _, Connection, Door, ErrorKind, HttpProfile, MetricSpec, Parameters, ParseError, ParseErrors, Reading,
    Secret, SourceError, Trigger, TriggerInput, TriggerType, parameters,
};
use url::Url;

use super::auth_modes::{AuthModes, Mode};
use super::connected;
use super::escape::encode_form;
use super::oauth2::Tokens;
use cloud::Cloud;
use reply::Sample;

/// The trigger type `prometheus`.
pub static TYPE: TriggerType = TriggerType {
    name: "prometheus",
    scaler_name: "prometheusScaler",
    parameters: Declared::TABLE,
    cached_metrics: true,
    parse: |input| Prometheus::parse(input).map(|trigger| Arc::new(trigger) as Arc<dyn Trigger>),
    inspect: parameters::inspect::<Declared>,
};

/// The most characters of a query, or of a server's text, that a message shows.
const SHOWN: usize = 200;

#[derive(Parameters)]
#[parameters(check = Declared::check)]
struct Declared {
    /// URL of the server, up to what stands before `/api/v1/query`.
    #[param(from = "metadata")]
    server_address: Secret,
    /// The query in PromQL. It must yield one element, or a scalar.
    #[param(from = "metadata")]
    query: String,
    /// Target of the number.
    #[param(from = "metadata")]
    threshold: f64,
    /// The trigger is active when the number is above this.
    #[param(from = "metadata", default = 0)]
    activation_threshold: f64,
    /// Sent as the query parameter `namespace`, as it is: servers with many tenants take it.
    #[param(from = "metadata")]
    namespace: Option<String>,
    /// Further query parameters, as `name=value,name=value`.
    #[param(from = "metadata", optional)]
    query_parameters: Pairs,
    /// Further headers, as `name=value,name=value`.
    #[param(from = "metadata", optional, secret)]
    custom_headers: Pairs,
    /// An empty result, NaN and infinity count as 0. If false they are errors.
    #[param(from = "metadata", default = true)]
    ignore_null_values: bool,
    /// Accept any certificate of the server. Without effect in mode `tls`, and in other modes with `ca`.
    #[param(from = "metadata", default = false)]
    unsafe_ssl: bool,
    /// Deadline of a request. 0: that of the operator.
    #[param(from = "metadata", default = "0")]
    timeout: Duration,
    /// Name of the metric, of old.
    #[param(from = "metadata", deprecated = "metricName has no effect; the metric's name is made by the operator")]
    metric_name: Option<String>,
    /// Tenant of Cortex, of old.
    #[param(
        name = "cortexOrgID",
        from = "metadata",
        deprecated = "cortexOrgID has no effect; give customHeaders: X-Scope-OrgID=TENANT"
    )]
    cortex_org_id: Option<String>,
    #[param(group)]
    auth: AuthModes,
    #[param(group)]
    cloud: Cloud,
}

impl Declared {
    fn check(&self, input: &TriggerInput) -> Vec<ParseError> {
        let identity = cloud::pod_identity(input);
        let mut errors = Vec::new();
        if self.auth.any() && identity.is_some() {
            errors.push(ParseError::new("authModes", "pod identity cannot be enabled with other auth types"));
        } else if identity == Some(cloud::AZURE_WORKLOAD) {
            errors.extend(self.cloud.check_azure().err());
        }
        errors.extend(metric_type(input).err());
        errors
    }

    fn notes(&self, input: &TriggerInput, unsupported: Option<&str>) -> Vec<String> {
        let mut notes = <Self as Parameters>::notes(input).into_vec();
        if target_milli(self.threshold) == 0 && !input.as_metric_source {
            notes.push("threshold is below 0.001: a HorizontalPodAutoscaler refuses such a target".to_owned());
        }
        notes.extend(
            self.url(Timestamp::UNIX_EPOCH).err().map(|cause| format!("{}; nothing can be read", cause.message)),
        );
        notes.extend(self.headers().err().map(|cause| format!("{}; nothing can be read", cause.message)));
        notes.extend(unsupported.map(|what| format!("{}; nothing can be read", cloud::refusal(what))));
        if self.auth.has(Mode::ApiKey) {
            notes.push("authModes apiKey has no effect with prometheus".to_owned());
        }
        let login = [Mode::Basic, Mode::Bearer].into_iter().find(|mode| self.auth.has(*mode));
        if let Some(mode) = login.filter(|_| self.auth.has(Mode::Custom)) {
            notes.push(format!("authModes custom has no effect beside {}", mode.text()));
        }
        if self.unsafe_ssl && self.own_tls() {
            notes.push("unsafeSsl has no effect in mode tls, or in another mode with ca".to_owned());
        }
        notes
    }

    /// Whether the authentication brings certificates of its own, which are then always checked against.
    fn own_tls(&self) -> bool {
        self.auth.has(Mode::Tls) || (self.auth.any() && self.auth.ca().is_some())
    }

    fn profile(&self) -> HttpProfile {
        let ca = self.auth.ca().cloned();
        if self.own_tls() {
            return HttpProfile { unsafe_ssl: false, ca, client_cert: self.auth.client_cert() };
        }
        HttpProfile { unsafe_ssl: self.unsafe_ssl, ca, client_cert: None }
    }

    /// The URL of the query at a time, in whole seconds.
    fn url(&self, time: Timestamp) -> Result<Url, SourceError> {
        let server = self.server_address.expose().trim_end_matches('/');
        let time = time.strftime("%Y-%m-%dT%H:%M:%SZ");
        let mut url = format!("{server}/api/v1/query?query={}&time={time}", encode_form(&self.query));
        if let Some(namespace) = &self.namespace {
            url.push_str("&namespace=");
            url.push_str(namespace);
        }
        for (name, value) in &self.query_parameters.0 {
            url.push_str(&format!("&{}={}", encode_form(name), encode_form(value)));
        }
        let url =
            Url::parse(&url).map_err(|cause| configuration(format!("serverAddress is not a full URL: {cause}")))?;
        match url.scheme() {
            "http" | "https" => Ok(url),
            scheme => Err(configuration(format!("serverAddress has the scheme {scheme}, not http or https"))),
        }
    }

    /// The headers of every request; of mode `oauth` the one with the token comes on top.
    fn headers(&self) -> Result<HeaderMap, SourceError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.custom_headers.0 {
            let parsed = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::try_from(value).ok());
            let (name, mut value) =
                parsed.ok_or_else(|| configuration(format!("customHeaders: {name} cannot be sent as a header")))?;
            // Often a tenant's key: it goes to no other host.
            value.set_sensitive(true);
            headers.append(name, value);
        }
        if let Some(login) = self.auth.bearer()?.or(self.auth.basic()?) {
            headers.insert(AUTHORIZATION, login);
        } else if let Some((name, value)) = self.auth.custom()? {
            headers.insert(name, value);
        }
        Ok(headers)
    }
}

/// A parsed trigger.
struct Prometheus {
    metrics: [MetricSpec; 1],
    notes: Box<[String]>,
    declared: Arc<Declared>,
    /// What it would need and cannot have: a cloud's identity.
    unsupported: Option<Box<str>>,
}

impl Prometheus {
    fn parse(input: &TriggerInput) -> Result<Self, ParseErrors> {
        let declared = Arc::new(<Declared as Parameters>::parse(input)?);
        let name = external_name(input.index, "prometheus");
        let (metric_type, target_milli) = (metric_type(input)?, target_milli(declared.threshold));
        let unsupported = if declared.auth.any() { None } else { declared.cloud.wanted(cloud::pod_identity(input)) };
        Ok(Self {
            metrics: [MetricSpec::External { name, metric_type, target_milli }],
            notes: declared.notes(input, unsupported.as_deref()).into(),
            declared,
            unsupported: unsupported.map(Into::into),
        })
    }

    fn endpoint(&self) -> Result<Endpoint, SourceError> {
        if let Some(what) = &self.unsupported {
            return Err(configuration(cloud::refusal(what)));
        }
        let declared = &self.declared;
        let url = declared.url(Timestamp::UNIX_EPOCH)?;
        let profile = declared.profile();
        let tokens = declared.auth.oauth().map(|credentials| Tokens::new(credentials, profile.clone()));
        Ok(Endpoint {
            asked: asked(&declared.query, &url).into(),
            headers: declared.headers()?,
            tokens,
            profile,
            declared: Arc::clone(declared),
        })
    }
}

impl fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers and query parameters may hold keys.
        f.debug_struct("Prometheus").field("metrics", &self.metrics).finish_non_exhaustive()
    }
}

impl Trigger for Prometheus {
    fn metrics(&self) -> &[MetricSpec] {
        &self.metrics
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn connect<'a>(&'a self, _: &'a Door) -> BoxFuture<'a, Result<Arc<dyn Connection>, SourceError>> {
        connected(self.endpoint())
    }
}

/// Whom to ask what, and how to be let in.
struct Endpoint {
    declared: Arc<Declared>,
    /// The query and the server, as messages show them.
    asked: Box<str>,
    headers: HeaderMap,
    tokens: Option<Tokens>,
    profile: HttpProfile,
}

impl Endpoint {
    async fn value(&self, door: &Door) -> Result<f64, SourceError> {
        let reply = self.ask(door).await?;
        if !reply.status().is_success() {
            return Err(refusal(&reply));
        }
        let sample = reply::sample(reply.body())?;
        if sample == Sample::Nothing {
            door.note_empty(self.declared.ignore_null_values);
        }
        match sample {
            Sample::Number(number) if number.is_finite() => Ok(number),
            _ if self.declared.ignore_null_values => Ok(0.0),
            Sample::Number(number) => {
                Err(SourceError::new(ErrorKind::BadReply, format!("it yields {number}, and ignoreNullValues is false")))
            }
            Sample::Nothing => {
                let message = "it yields nothing, and ignoreNullValues is false";
                Err(SourceError::new(ErrorKind::MissingResource, message))
            }
        }
    }

    async fn ask(&self, door: &Door) -> Result<Response<Bytes>, SourceError> {
        let declared = &*self.declared;
        let mut request = Request::new(Bytes::new());
        let url = declared.url(door.clock().now())?;
        *request.uri_mut() =
            url.as_str().parse().map_err(|_| configuration("serverAddress is not a usable URL".to_owned()))?;
        *request.headers_mut() = self.headers.clone();
        if let Some(tokens) = &self.tokens {
            let authorization = tokens.authorization(door).await?;
            request.headers_mut().insert(AUTHORIZATION, authorization);
        }
        door.http(&self.profile, request, (!declared.timeout.is_zero()).then_some(declared.timeout)).await
    }
}

impl Connection for Endpoint {
    fn read<'a>(&'a self, door: &'a Door) -> BoxFuture<'a, Result<Vec<Reading>, SourceError>> {
        async move {
            let value = self.value(door).await;
            let value = value.map_err(|e| SourceError::new(e.kind, format!("{}: {}", self.asked, e.message)))?;
            Ok(vec![Reading { value, active: value > self.declared.activation_threshold }])
        }
        .boxed()
    }
}

/// The query and the URL without user info, query string and fragment.
fn asked(query: &str, url: &Url) -> String {
    format!("query `{}` to {}{}", excerpt(query), url.origin().ascii_serialization(), url.path())
}

/// What a status other than 2xx says, and the server's own words on it.
fn refusal(reply: &Response<Bytes>) -> SourceError {
    let status = reply.status();
    let told = reply::failure(reply.body());
    let kind = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Authentication,
        StatusCode::NOT_FOUND => ErrorKind::MissingResource,
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => ErrorKind::TimedOut,
        _ if told.as_ref().is_some_and(reply::Failure::timed_out) => ErrorKind::TimedOut,
        _ => ErrorKind::Refused,
    };
    // A refused login may be told with the login.
    let told = told.filter(|_| kind != ErrorKind::Authentication).map(|told| format!(" ({told})")).unwrap_or_default();
    SourceError::new(kind, format!("prometheus query api returned error. status: {}{told}", status.as_u16()))
}

/// The beginning of a text on one line.
fn excerpt(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

fn configuration(message: String) -> SourceError {
    SourceError::new(ErrorKind::Configuration, message)
}
