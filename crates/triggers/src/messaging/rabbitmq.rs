//! Queues of RabbitMQ: length by AMQP, length and rates by the management HTTP API.

mod address;
mod amqp;
mod failure;
mod figures;
mod management;
mod tls;
mod url;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::{Map, Value};
use tidemark_trigger::parameters::{Form, Shown};
use tidemark_trigger::{
    Choice as _, Connection, Door, MetricSpec, MetricType, Parameters, ParseError, ParseErrors, Reading, Secret,
    ShowSecret, SourceError, Trigger, TriggerInput, TriggerType, metric,
};

use crate::http::{escape, oauth2};
use address::{Address, Mechanism};
use figures::{Figures, Mode, Operation};
use tls::{Material, Tls};

/// The trigger type `rabbitmq`.
pub static TYPE: TriggerType = TriggerType {
    name: "rabbitmq",
    scaler_name: "rabbitMQScaler",
    parameters: Declared::TABLE,
    cached_metrics: true,
    parse,
    inspect,
};

/// Messages per replica when neither `queueLength` nor `mode` and `value` are given.
const DEFAULT_QUEUE_LENGTH: f64 = 20.0;
/// The most bytes of a name in AMQP.
const NAME_LIMIT: usize = 255;
const SUM_AVG_MAX: &str = "sum, avg or max";

#[derive(Clone, Debug, Parameters)]
struct Declared {
    /// Name of the queue; with `useRegex` a regular expression that the names of queues are matched with.
    #[param(from = "metadata")]
    queue_name: String,
    /// The older way to say `mode: QueueLength` with this `value`.
    #[param(from = "metadata", default = 0, unit = "messages per replica")]
    queue_length: f64,
    /// What is measured: `QueueLength`, `MessageRate`, `DeliverGetRate`, `PublishedToDeliveredRatio` or
    /// `ExpectedQueueConsumptionTime`. By AMQP only `QueueLength`.
    #[param(from = "metadata", default = "Unknown")]
    mode: String,
    /// The target of the mode's figure. Together with `mode`.
    #[param(from = "metadata", default = 0)]
    value: f64,
    /// The trigger is active when the figure is above this.
    #[param(from = "metadata", default = 0)]
    activation_value: f64,
    /// URL of the broker: `amqp://user:password@host:5672/vhost` (`amqps` for TLS), or `http://` or `https://` for the
    /// management API. An AMQP URL may have the options `heartbeat`, `connection_timeout`, `channel_max`,
    /// `auth_mechanism`, `cacertfile`, `certfile`, `keyfile` and `server_name_indication`.
    #[param(from = "metadata auth env")]
    host: Secret,
    /// `amqp`, `http`, or `auto`: the one that the URL's scheme says.
    #[param(from = "metadata auth", default = "auto", plain)]
    protocol: String,
    /// The virtual host, instead of the one in the URL.
    #[param(from = "metadata auth", plain)]
    vhost_name: Option<String>,
    /// `queueName` is a regular expression. HTTP only.
    #[param(from = "metadata", default = false)]
    use_regex: bool,
    /// The most queues that may match the regular expression.
    #[param(from = "metadata", default = 100)]
    page_size: i64,
    /// How the figures of several queues become one: `sum`, `avg` or `max`.
    #[param(from = "metadata", default = "sum")]
    operation: String,
    /// Count only messages that are ready for delivery. HTTP only; by AMQP it is always so.
    #[param(from = "metadata", default = false)]
    exclude_unacknowledged: bool,
    /// Deadline of an HTTP request. 0: that of the operator.
    #[param(from = "metadata", default = "0")]
    timeout: Duration,
    /// Accept any certificate of the broker.
    #[param(from = "metadata", default = false)]
    unsafe_ssl: bool,
    /// User, instead of the one in the URL. Together with `password`.
    #[param(from = "auth env")]
    username: Option<Secret>,
    /// Password of `username`.
    #[param(from = "auth env")]
    password: Option<Secret>,
    /// `enable`: use `ca`, `cert` and `key`. `disable`: do not.
    #[param(from = "auth", default = "disable", plain)]
    tls: String,
    /// PEM text of certificates to trust besides those of the system.
    #[param(from = "auth")]
    ca: Option<Secret>,
    /// PEM text of the client's certificate. Together with `key`.
    #[param(from = "auth")]
    cert: Option<Secret>,
    /// PEM text of the private key of `cert`.
    #[param(from = "auth")]
    key: Option<Secret>,
    /// Password of an encrypted PKCS#8 `key`.
    #[param(from = "auth")]
    key_password: Option<Secret>,
    /// Resource of Azure AD for which the workload identity gets a token. HTTP only.
    #[param(from = "auth", plain)]
    workload_identity_resource: Option<String>,
    /// URL of the OAuth2 token server (client credentials). HTTP only.
    #[param(name = "oauthTokenURI", from = "auth")]
    oauth_token_uri: Option<Secret>,
    /// Client id for the token server.
    #[param(name = "clientID", from = "auth")]
    client_id: Option<Secret>,
    /// Client secret for the token server.
    #[param(from = "auth")]
    client_secret: Option<Secret>,
    /// Scopes of the token.
    #[param(from = "auth", alias = "scope", optional, plain)]
    scopes: Vec<String>,
    /// Further fields of the token request, as a query string.
    #[param(from = "auth", optional, secret)]
    endpoint_params: Form,
}

/// Which way the broker is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Amqp,
    Http,
}

impl Declared {
    /// The protocol, and all that must be known before it.
    fn protocol(&self) -> Result<Protocol, ParseError> {
        let protocol = self.protocol.as_str();
        if !matches!(protocol, "amqp" | "http" | "auto") {
            let message = format!("the protocol has to be either `amqp`, `http`, or `auto` but is `{protocol}`");
            return Err(ParseError::new("protocol", message));
        }
        if !matches!(self.tls.as_str(), "enable" | "disable") {
            return Err(ParseError::new("tls", format!("incorrect value for TLS given: {}", self.tls)));
        }
        if self.cert.is_some() != self.key.is_some() {
            return Err(ParseError::new("cert", "both key and certificate must be provided"));
        }
        if self.page_size < 1 {
            return Err(ParseError::new("pageSize", "pageSize should be 1 or greater"));
        }
        if self.username.is_some() != self.password.is_some() {
            return Err(ParseError::new("username", "username and password must be given together"));
        }
        match protocol {
            "amqp" => Ok(Protocol::Amqp),
            "http" => Ok(Protocol::Http),
            _ => match url::scheme(self.host.expose()) {
                Ok(scheme) if matches!(scheme.as_str(), "amqp" | "amqps") => Ok(Protocol::Amqp),
                Ok(scheme) if matches!(scheme.as_str(), "http" | "https") => Ok(Protocol::Http),
                Ok(scheme) => Err(ParseError::new("host", format!("unknown host URL scheme: `{scheme}`"))),
                Err(error) => Err(ParseError::new("host", format!("can't parse host to find protocol: {error}"))),
            },
        }
    }

    /// What one protocol cannot do, and what excludes what.
    fn check_protocol(&self, protocol: Protocol) -> Result<(), ParseError> {
        let amqp = protocol == Protocol::Amqp;
        let workload_identity = self.workload_identity_resource.is_some();
        if amqp && workload_identity {
            let message = "workload identity is not supported for the AMQP protocol at the moment";
            return Err(ParseError::new("workloadIdentityResource", message));
        }
        let oauth2 = [&self.oauth_token_uri, &self.client_id, &self.client_secret].map(Option::is_some);
        if oauth2.contains(&true) {
            let error = |message| Err(ParseError::new("oauthTokenURI", message));
            if oauth2.contains(&false) {
                return error(
                    "OAuth2 requires tokenUrl clientId and clientSecret to be configured in TriggerAuthentication",
                );
            }
            if amqp {
                return error("OAuth2 authentication is only supported with HTTP protocol, not AMQP");
            }
            if self.username.is_some() || workload_identity {
                return error(
                    "OAuth2 authentication cannot be combined with username/password authentication or Azure Workload \
                     Identity",
                );
            }
        }
        if amqp && self.use_regex {
            return Err(ParseError::new("useRegex", "configure useRegex=true only with HTTP protocol"));
        }
        if amqp && self.exclude_unacknowledged {
            let message = "configure excludeUnacknowledged=true only with HTTP protocol";
            return Err(ParseError::new("excludeUnacknowledged", message));
        }
        Ok(())
    }

    /// Mode and target.
    fn measure(&self, protocol: Protocol) -> Result<(Mode, f64), ParseError> {
        let (mode, value, length) = (self.mode.as_str(), self.value, self.queue_length);
        let (has_mode, has_value) = (mode != "Unknown", value != 0.0);
        if length != 0.0 && (has_mode || has_value) {
            return Err(ParseError::new("queueLength", "queueLength is deprecated; use mode and value"));
        }
        // An HPA refuses a target of 0, and does not see what is below a thousandth.
        let positive = |name: &str, target: f64| match metric::target_milli(target) > 0 {
            true => Ok(target),
            false => Err(ParseError::new(name, format!("{name} must be at least 0.001"))),
        };
        match (has_mode, has_value) {
            (false, false) if length == 0.0 => return Ok((Mode::QueueLength, DEFAULT_QUEUE_LENGTH)),
            (false, false) => return Ok((Mode::QueueLength, positive("queueLength", length)?)),
            (false, true) => return Err(ParseError::new("mode", "mode must be specified")),
            (true, false) => return Err(ParseError::new("value", "value must be specified")),
            (true, true) => {}
        }
        let parsed = Mode::from_text(mode).ok_or_else(|| {
            let message = format!(
                "trigger mode {mode} must be one of QueueLength, MessageRate, DeliverGetRate, \
                 PublishedToDeliveredRatio or ExpectedQueueConsumptionTime"
            );
            ParseError::new("mode", message)
        })?;
        if protocol == Protocol::Amqp && parsed != Mode::QueueLength {
            let message = format!("protocol amqp not supported; must be HTTP to use trigger mode {mode}");
            return Err(ParseError::new("mode", message));
        }
        if protocol == Protocol::Amqp && !self.timeout.is_zero() {
            let message = format!("AMQP protocol doesn't support custom timeouts: {}", self.timeout.as_nanos());
            return Err(ParseError::new("timeout", message));
        }
        Ok((parsed, positive("value", value)?))
    }

    fn tls(&self) -> Tls {
        let material = (self.tls == "enable").then(|| Material {
            ca: self.ca.clone(),
            cert_and_key: self.cert.clone().zip(self.key.clone()),
            key_password: self.key_password.clone(),
        });
        Tls { unsafe_ssl: self.unsafe_ssl, material }
    }

    fn login(&self) -> Option<(Secret, Secret)> {
        self.username.clone().zip(self.password.clone())
    }

    fn amqp(&self, input: &TriggerInput) -> Result<amqp::Target, ParseError> {
        let address = Address::parse(self.host.expose())
            .map_err(|error| ParseError::new("host", format!("error parsing the AMQP URL: {error}")))?;
        let (tls, login) = (self.tls(), self.login());
        let has_certificate = tls.material.as_ref().is_some_and(|material| material.cert_and_key.is_some());
        let password_in_uri = address.password_in_uri;
        let mut address =
            address.with(self.vhost_name.as_deref(), login.as_ref().map(|(user, password)| (user, password)));
        if has_certificate && login.is_none() && !password_in_uri {
            address.options.mechanism = Some(Mechanism::External);
        }
        for (parameter, name) in [("queueName", &self.queue_name), ("vhostName", &address.vhost)] {
            if name.len() > NAME_LIMIT {
                let message = format!("the name is longer than the {NAME_LIMIT} bytes that AMQP allows");
                return Err(ParseError::new(parameter, message));
            }
        }
        let connection_name = format!("keda-{}-{}", input.namespace, input.object);
        Ok(amqp::Target { address, tls, connection_name })
    }

    fn management(&self) -> management::Target {
        let oauth2 = match (&self.oauth_token_uri, &self.client_id, &self.client_secret) {
            (Some(token_url), Some(client_id), Some(client_secret)) => Some(oauth2::Credentials {
                token_url: token_url.clone(),
                client_id: client_id.clone(),
                client_secret: client_secret.clone(),
                scopes: self.scopes.iter().filter(|scope| !scope.is_empty()).cloned().collect(),
                endpoint_params: self
                    .endpoint_params
                    .0
                    .iter()
                    .map(|(name, value)| (name.clone(), Secret::from(value.as_str())))
                    .collect(),
            }),
            _ => None,
        };
        management::Target {
            host: self.host.clone(),
            vhost: self.vhost_name.clone(),
            queue: self.queue_name.clone(),
            page_size: self.use_regex.then_some(self.page_size),
            operation: self.operation.clone(),
            exclude_unacknowledged: self.exclude_unacknowledged,
            timeout: (!self.timeout.is_zero()).then_some(self.timeout),
            login: self.login(),
            oauth2,
            workload_identity: self.workload_identity_resource.is_some(),
            tls: self.tls(),
        }
    }

    /// Notes on what is no error here but will not do what its author expects.
    fn notes(&self, source: &Source) -> Vec<String> {
        let mut notes = Vec::new();
        match source {
            Source::Amqp(target) => {
                if !self.timeout.is_zero() {
                    notes.push("timeout has no effect with AMQP".to_owned());
                }
                if !target.address.tls && (self.tls == "enable" || self.unsafe_ssl) {
                    notes.push("tls and unsafeSsl have no effect with an amqp:// host; use amqps://".to_owned());
                }
            }
            Source::Management(target) => {
                if let Err(error) = target.check() {
                    notes.push(format!("host: {error}; the trigger cannot connect"));
                }
                if self.use_regex && Operation::from_text(&self.operation).is_none() {
                    notes.push(format!("operation `{}` is not {SUM_AVG_MAX}; reading fails", self.operation));
                }
            }
        }
        notes
    }
}

/// A parsed trigger.
#[derive(Debug)]
struct RabbitMq {
    metrics: [MetricSpec; 1],
    notes: Box<[String]>,
    mode: Mode,
    activation: f64,
    queue: Arc<str>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Amqp(Arc<amqp::Target>),
    Management(Box<management::Target>),
}

/// What the type's own rules make of the declared parameters.
struct Resolved {
    protocol: Protocol,
    metric_type: MetricType,
    mode: Mode,
    target: f64,
    source: Source,
}

fn resolve(declared: &Declared, input: &TriggerInput) -> Result<Resolved, ParseError> {
    let protocol = declared.protocol()?;
    declared.check_protocol(protocol)?;
    let (mode, target) = declared.measure(protocol)?;
    let metric_type = metric::metric_type(input)?;
    let source = match protocol {
        Protocol::Amqp => Source::Amqp(Arc::new(declared.amqp(input)?)),
        Protocol::Http => Source::Management(Box::new(declared.management())),
    };
    Ok(Resolved { protocol, metric_type, mode, target, source })
}

fn parse(input: &TriggerInput) -> Result<Arc<dyn Trigger>, ParseErrors> {
    let declared = <Declared as Parameters>::parse(input)?;
    let Resolved { metric_type, mode, target, source, .. } = resolve(&declared, input)?;
    let body = format!("rabbitmq-{}", escape::encode_form(&declared.queue_name));
    let metric = MetricSpec::External {
        name: metric::external_name(input.index, &body),
        metric_type,
        target_milli: metric::target_milli(target),
    };
    let mut notes = <Declared as Parameters>::notes(input).into_vec();
    notes.extend(declared.notes(&source));
    Ok(Arc::new(RabbitMq {
        metrics: [metric],
        notes: notes.into(),
        mode,
        activation: declared.activation_value,
        queue: declared.queue_name.as_str().into(),
        source,
    }))
}

fn inspect(input: &TriggerInput, secret: ShowSecret) -> Result<Map<String, Value>, ParseErrors> {
    let mut declared = <Declared as Parameters>::parse(input)?;
    let Resolved { protocol, mode, target, .. } = resolve(&declared, input)?;
    declared.mode = mode.text().to_owned();
    declared.value = target;
    declared.protocol = match protocol {
        Protocol::Amqp => "amqp".to_owned(),
        Protocol::Http => "http".to_owned(),
    };
    let mut shown = Shown::new(secret);
    declared.show(&mut shown);
    Ok(shown.into_map())
}

impl Trigger for RabbitMq {
    fn metrics(&self) -> &[MetricSpec] {
        &self.metrics
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn endpoint(&self) -> Option<String> {
        let Source::Amqp(target) = &self.source else { return None };
        let scheme = if target.address.tls { "amqps" } else { "amqp" };
        Some(tidemark_trigger::endpoint(scheme, &target.address.host, target.address.port))
    }

    fn connect<'a>(&'a self, door: &'a Door) -> BoxFuture<'a, Result<Arc<dyn Connection>, SourceError>> {
        async move {
            let client = match &self.source {
                Source::Amqp(target) => Client::Amqp(amqp::Client::connect(Arc::clone(target), door).await?),
                Source::Management(target) => {
                    Client::Management(Box::new(management::Client::new((**target).clone()).await?))
                }
            };
            let connection =
                Connected { mode: self.mode, activation: self.activation, queue: Arc::clone(&self.queue), client };
            Ok(Arc::new(connection) as Arc<dyn Connection>)
        }
        .boxed()
    }
}

/// A connected trigger.
struct Connected {
    mode: Mode,
    activation: f64,
    queue: Arc<str>,
    client: Client,
}

enum Client {
    Amqp(amqp::Client),
    Management(Box<management::Client>),
}

impl Connection for Connected {
    fn read<'a>(&'a self, door: &'a Door) -> BoxFuture<'a, Result<Vec<Reading>, SourceError>> {
        async move {
            let figures = match &self.client {
                Client::Amqp(client) => {
                    Figures { messages: client.ready_messages(door, &self.queue).await?.into(), ..Figures::default() }
                }
                Client::Management(client) => client.figures(door).await?,
            };
            Ok(vec![figures.reading(self.mode, self.activation)])
        }
        .boxed()
    }
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected").field("mode", &self.mode).field("queue", &self.queue).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
