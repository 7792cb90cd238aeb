//! What a trigger is: the steps parse, connect and read; readings and metric specs; declared parameters; the source
//! door, the only way by which a trigger reaches the network.

pub mod door;
pub mod error;
pub mod metric;
pub mod parameters;
pub mod secret;

// The derived code names this crate by its full name, in here too.
extern crate self as tidemark_trigger;

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;

pub use door::{Door, DoorSettings, HttpProfile};
pub use error::{ErrorKind, ParseError, ParseErrors, SourceError, causes};
pub use metric::{MetricSpec, MetricType, Resource, ResourceTarget};
pub use parameters::{Choice, Parameters, ShowSecret};
pub use secret::Secret;
pub use tidemark_engine::nearest;
pub use tidemark_trigger_derive::{Choice, Parameters};

/// Everything from which a trigger's configuration is parsed. Pure data: no lookup happens while parsing.
///
/// `Debug` shows the keys of the metadata and not the values: a URL there may hold a password.
#[derive(Clone)]
pub struct TriggerInput {
    /// 0-based position in `spec.triggers`.
    pub index: usize,
    /// `spec.triggers[i].type`.
    pub trigger_type: String,
    /// `spec.triggers[i].name`.
    pub name: Option<String>,
    /// `spec.triggers[i].metadata`.
    pub metadata: BTreeMap<String, String>,
    /// Parameters of the referenced TriggerAuthentication, resolved. An unreadable one is present and empty.
    pub auth: BTreeMap<String, Secret>,
    /// Environment of the scale target's container, resolved.
    pub env: BTreeMap<String, Secret>,
    /// Provider of the pod identity, `None` for none.
    pub pod_identity: Option<String>,
    /// `spec.triggers[i].metricType`, as written.
    pub metric_type: Option<String>,
    /// The trigger only feeds a scaling-modifiers formula, so its target may be missing.
    pub as_metric_source: bool,
    /// Namespace and name of the ScaledObject or ScaledJob.
    pub namespace: String,
    pub object: String,
}

impl Debug for TriggerInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TriggerInput")
            .field("index", &self.index)
            .field("trigger_type", &self.trigger_type)
            .field("namespace", &self.namespace)
            .field("object", &self.object)
            .field("metadata", &self.metadata.keys())
            .field("auth", &self.auth.keys())
            .finish_non_exhaustive()
    }
}

/// One metric's value at one time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// The raw number, before rounding and clamping.
    pub value: f64,
    /// What the trigger type says: usually whether the value is above the activation threshold.
    pub active: bool,
}

/// The text of [`Trigger::endpoint`].
pub fn endpoint(scheme: &str, host: &str, port: u16) -> String {
    if host.contains(':') { format!("{scheme}://[{host}]:{port}") } else { format!("{scheme}://{host}:{port}") }
}

/// A parsed, valid trigger. Nothing has been contacted yet.
pub trait Trigger: Debug + Send + Sync + 'static {
    /// The metrics that it yields, fixed at parse time. Empty where only the source knows them: then each connection has
    /// its own ([`Connection::metrics`]).
    fn metrics(&self) -> &[MetricSpec];

    /// Notes for the user that are no errors: deprecated parameters, parameters without effect.
    fn notes(&self) -> &[String] {
        &[]
    }

    /// Where the source is, for people: scheme, host and port, without user info, path or query. None where there is no
    /// one place, or where the requests over HTTP say it.
    fn endpoint(&self) -> Option<String> {
        None
    }

    /// Opens what reading needs, or takes a share of it from the door. A trigger that needs no connection returns at
    /// once.
    fn connect<'a>(&'a self, door: &'a Door) -> BoxFuture<'a, Result<Arc<dyn Connection>, SourceError>>;

    /// What the source tells unasked, for as long as the stream is held; `None` for a source that only answers. The
    /// stream connects, and after a break connects again, by itself; its end means that nothing more will come.
    fn pushes(&self, door: &Door) -> Option<BoxStream<'static, Push>> {
        let _ = door;
        None
    }
}

/// What a source tells unasked.
#[derive(Clone, Debug, PartialEq)]
pub enum Push {
    /// The trigger is active now.
    Active,
    /// The trigger yields these metrics from now on. Connections made from now on have them.
    Metrics(Arc<[MetricSpec]>),
}

/// A connected trigger.
pub trait Connection: Send + Sync + 'static {
    /// The metrics that the source named when the connection was made; `None` where the trigger's own hold.
    fn metrics(&self) -> Option<Arc<[MetricSpec]>> {
        None
    }

    /// Reads the source once: one reading for each of the metrics, in their order.
    ///
    /// The caller sets the deadline and repeats a failed read once with a new connection.
    fn read<'a>(&'a self, door: &'a Door) -> BoxFuture<'a, Result<Vec<Reading>, SourceError>>;
}

/// A trigger type of the catalogue.
pub struct TriggerType {
    /// `spec.triggers[].type`.
    pub name: &'static str,
    /// KEDA's name of the scaler in telemetry, for triggers without a name, such as `cronScaler`.
    pub scaler_name: &'static str,
    /// The declared parameters.
    pub parameters: &'static [parameters::Parameter],
    /// Whether `useCachedMetrics` may be set on it.
    pub cached_metrics: bool,
    /// Parses a trigger of this type.
    pub parse: fn(&TriggerInput) -> Result<Arc<dyn Trigger>, ParseErrors>,
    /// Shows the parameters after defaults, authentication, environment and the type's own rules were applied, by name;
    /// secrets as the given function writes them. [`parameters::inspect`] serves a type whose fields say all.
    pub inspect: Inspect,
}

/// Shows a trigger's parsed parameters.
pub type Inspect = fn(&TriggerInput, ShowSecret) -> Result<serde_json::Map<String, serde_json::Value>, ParseErrors>;

#[cfg(test)]
mod tests;
