//! `postgresql`: the number in the first row of a query.
//!
//! `tokio-postgres` speaks the protocol. What it leaves to others is here: connection strings with all that the reference
//! driver understands of them, TLS by `sslmode`, sessions that triggers share, and a bound on what is read of a server that
//! the user only names.

mod failure;
mod number;
mod pool;
mod session;
mod settings;
mod stream;
mod tls;
mod value;

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::{Map, Value};
use tidemark_trigger::parameters::Shown;
use tidemark_trigger::{
    Connection, Door, ErrorKind, MetricSpec, Parameters, ParseError, ParseErrors, Reading, Secret, ShowSecret,
    SourceError, Trigger, TriggerInput, TriggerType, metric,
};

use pool::Pool;
use settings::Settings;

/// The trigger type `postgresql`.
pub static TYPE: TriggerType = TriggerType {
    name: "postgresql",
    scaler_name: "postgreSQLScaler",
    parameters: Declared::TABLE,
    cached_metrics: true,
    parse,
    inspect,
};

/// The one pod identity that the type knows.
const AZURE: &str = "azure-workload";
const NO_AZURE: &str = "Azure workload identity is not supported yet by the postgresql trigger";

#[derive(Clone, Debug, Parameters)]
#[parameters(check = Declared::check)]
struct Declared {
    /// Connection string, as a URL (`postgresql://user:password@host:5432/database?sslmode=verify-full`) or as
    /// `key=value` pairs with the keys of libpq. Several hosts and `target_session_attrs` are understood. In its place
    /// `host`, `port`, `userName`, `dbName`, `sslmode` and `password` can be given. The operator's own `PG...` variables
    /// and password files are not read.
    #[param(from = "auth env")]
    connection: Option<Secret>,
    /// Host, without `connection`.
    #[param(from = "auth metadata", plain)]
    host: Option<String>,
    /// Port, without `connection`.
    #[param(from = "auth metadata", plain)]
    port: Option<String>,
    /// User, without `connection`.
    #[param(from = "auth metadata")]
    user_name: Option<Secret>,
    /// Database, without `connection`.
    #[param(from = "auth metadata", plain)]
    db_name: Option<String>,
    /// `disable`, `allow`, `prefer`, `require` (TLS with any certificate), `verify-ca` (with one that is signed by a
    /// trusted authority) or `verify-full` (and names the host), without `connection`.
    #[param(from = "auth metadata", plain)]
    sslmode: Option<String>,
    /// Password of `userName`.
    #[param(from = "auth env")]
    password: Option<Secret>,
    /// One SQL statement without parameters. Its first row must have one column, with a number.
    #[param(from = "metadata")]
    query: String,
    /// Target of the number.
    #[param(from = "metadata", default = 0)]
    target_query_value: f64,
    /// The trigger is active when the number is above this.
    #[param(from = "metadata", default = 0)]
    activation_target_query_value: f64,
}

impl Declared {
    fn check(&self, input: &TriggerInput) -> Vec<ParseError> {
        let mut errors = Vec::new();
        let identity = identity(input);
        if let Some(other) = identity.filter(|identity| *identity != AZURE) {
            errors
                .push(ParseError::general(format!("pod identity {other} is not supported by the postgresql trigger")));
        }
        if self.connection.is_none() && identity.is_none() {
            let parts = [
                ("host", self.host.is_none()),
                ("port", self.port.is_none()),
                ("userName", self.user_name.is_none()),
                ("dbName", self.db_name.is_none()),
                ("sslmode", self.sslmode.is_none()),
            ];
            let missing = parts.into_iter().filter(|(_, missing)| *missing);
            errors.extend(missing.map(|(name, _)| ParseError::new(name, format!("no {name} given"))));
        }
        if self.query.contains('\0') {
            errors.push(ParseError::new("query", "query holds a NUL"));
        }
        if !input.as_metric_source && metric::target_milli(self.target_query_value) == 0 {
            let message = if self.target_query_value == 0.0 {
                "no targetQueryValue given".to_owned()
            } else {
                format!("parameter \"targetQueryValue\" value \"{}\" must be at least 0.001", self.target_query_value)
            };
            errors.push(ParseError::new("targetQueryValue", message));
        }
        errors.extend(metric::metric_type(input).err());
        errors
    }

    /// The connection string: the one given, or that of the parts.
    fn connection(&self) -> Secret {
        if let Some(connection) = &self.connection {
            return connection.clone();
        }
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        let secret = |part: &Option<Secret>| part.clone().unwrap_or_default();
        let (user, password) = (secret(&self.user_name), secret(&self.password));
        let (host, port, database, sslmode) =
            (text(&self.host), text(&self.port), text(&self.db_name), text(&self.sslmode));
        Secret::from(settings::keyword_value([
            ("host", &host),
            ("port", &port),
            ("user", user.expose()),
            ("dbname", &database),
            ("sslmode", &sslmode),
            ("password", password.expose()),
        ]))
    }

    fn settings(&self, input: &TriggerInput) -> Result<Arc<Settings>, String> {
        if identity(input).is_some() {
            return Err(NO_AZURE.to_owned());
        }
        let subject = if self.connection.is_some() { "connection: " } else { "" };
        Settings::parse(self.connection().expose()).map(Arc::new).map_err(|error| format!("{subject}{error}"))
    }
}

fn identity(input: &TriggerInput) -> Option<&str> {
    input.pod_identity.as_deref().filter(|identity| !matches!(*identity, "" | "none"))
}

/// A parsed trigger.
#[derive(Debug)]
struct PostgreSql {
    metrics: [MetricSpec; 1],
    notes: Box<[String]>,
    /// What is wrong with the connection string shows only when connecting, as in KEDA.
    settings: Result<Arc<Settings>, String>,
    query: Arc<str>,
    activation: f64,
}

fn parse(input: &TriggerInput) -> Result<Arc<dyn Trigger>, ParseErrors> {
    let declared = <Declared as Parameters>::parse(input)?;
    let metric = MetricSpec::External {
        name: metric::external_name(input.index, "postgresql"),
        metric_type: metric::metric_type(input)?,
        target_milli: metric::target_milli(declared.target_query_value),
    };
    let settings = declared.settings(input);
    let mut notes = <Declared as Parameters>::notes(input).into_vec();
    if let Err(cause) = &settings {
        notes.push(format!("{cause}; the trigger cannot connect"));
    }
    let (query, activation) = (declared.query.as_str().into(), declared.activation_target_query_value);
    Ok(Arc::new(PostgreSql { metrics: [metric], notes: notes.into(), settings, query, activation }))
}

fn inspect(input: &TriggerInput, secret: ShowSecret) -> Result<Map<String, Value>, ParseErrors> {
    let mut declared = <Declared as Parameters>::parse(input)?;
    declared.connection = Some(declared.connection());
    let mut shown = Shown::new(secret);
    declared.show(&mut shown);
    Ok(shown.into_map())
}

impl Trigger for PostgreSql {
    fn metrics(&self) -> &[MetricSpec] {
        &self.metrics
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn endpoint(&self) -> Option<String> {
        let host = self.settings.as_ref().ok()?.hosts.first()?;
        Some(format!("postgresql://{}", host.endpoint()))
    }

    fn connect<'a>(&'a self, door: &'a Door) -> BoxFuture<'a, Result<Arc<dyn Connection>, SourceError>> {
        async move {
            let settings = self.settings.clone().map_err(|cause| SourceError::new(ErrorKind::Configuration, cause))?;
            let pool = door.shared(&settings.fingerprint(), Pool::open(Arc::clone(&settings), door)).await?;
            let connected = Connected { pool, query: Arc::clone(&self.query), activation: self.activation };
            Ok(Arc::new(connected) as Arc<dyn Connection>)
        }
        .boxed()
    }
}

/// A connected trigger.
#[derive(Debug)]
struct Connected {
    pool: Arc<Pool>,
    query: Arc<str>,
    activation: f64,
}

impl Connection for Connected {
    fn read<'a>(&'a self, door: &'a Door) -> BoxFuture<'a, Result<Vec<Reading>, SourceError>> {
        async move {
            let value = self.pool.number(door, &self.query).await?;
            Ok(vec![Reading { value, active: value > self.activation }])
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
