//! What is known of an object, as it is served: `reasons.tidemark.dev/v1alpha1`.
//!
//! Fields that are not known are left out. Times are RFC 3339 in UTC, lengths of time in seconds. A reader ignores what
//! it does not know: fields are added within a version, and never given another meaning.

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The API group.
pub const GROUP: &str = "reasons.tidemark.dev";
/// Its only version.
pub const VERSION: &str = "v1alpha1";
/// The name of the resource in paths.
pub const PLURAL: &str = "scaledobjects";
/// The kind of a [`Report`].
pub const KIND: &str = "ScaledObjectReasons";
/// The kind of a [`Page`].
pub const LIST_KIND: &str = "ScaledObjectReasonsList";

/// Why a ScaledObject's workload has the replicas it has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    pub api_version: String,
    pub kind: String,
    pub metadata: Metadata,
    /// When this was told; ages are counted from here.
    #[schemars(schema_with = "time")]
    pub time: Timestamp,
    /// The scaled workload.
    pub target: Target,
    /// The workload's replicas by the last read or write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// What the last decision asked for, or what the HPA wants where that is left to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<i32>,
    /// `minReplicaCount`, 0 when unset.
    pub min_replicas: i32,
    /// `maxReplicaCount`, 100 when unset.
    pub max_replicas: i32,
    /// The condition `Ready`; absent before the first check of the object has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<Condition>,
    /// Whether the last decision found the object active; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    pub paused: bool,
    /// One entry for each metric, in the order of the triggers.
    pub triggers: Vec<Trigger>,
    /// The argument of the last decision.
    pub reasons: Vec<Step>,
    /// When the next trigger is polled; absent while the object is paused or not checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub next_poll: Option<Timestamp>,
    /// The end of the running cooldown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub cooldown_until: Option<Timestamp>,
    /// What has gone wrong, by what was being done and the kind of the error; the latest last. What is over stays here
    /// for a while, with `open` false.
    pub errors: Vec<Trouble>,
    /// More; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Detail>,
    /// All of this in sentences; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
}

/// Reports of several objects, by namespace and name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Page {
    pub api_version: String,
    pub kind: String,
    pub metadata: PageMetadata,
    pub items: Vec<Report>,
}

/// Where the next page begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PageMetadata {
    /// The `continue` of the next request; empty at the end.
    #[serde(rename = "continue", skip_serializing_if = "String::is_empty")]
    pub next: String,
}

/// Which object this is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    pub namespace: String,
    pub name: String,
    /// The ScaledObject's uid.
    pub uid: String,
}

/// A workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Target {
    pub kind: String,
    pub name: String,
}

/// A condition of the object's status or of its HPA.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word for machines.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A condition of an HPA.
pub type HpaCondition = Condition;

/// One metric of one trigger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Trigger {
    /// The trigger's position in `spec.triggers`, from 0.
    pub index: usize,
    #[serde(rename = "type")]
    pub kind: String,
    /// `triggers[].name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The external metric's name, `cpu` or `memory`; empty where the trigger could not be built.
    pub metric: String,
    /// The HPA reads it by itself: nothing but its name is known here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_by_hpa: bool,
    /// The last value read, before rounding; absent before the first read and after a failed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// What the HPA compares the value with, in thousandths.
    pub target_milli: i64,
    /// The target is for each replica, and not for all of them together.
    pub per_replica: bool,
    /// Whether the last value was above the activation threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// The replicas that the value alone asks for, before minimum, maximum, tolerance and stabilization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wants: Option<i64>,
    /// Why the last read, or building the trigger, failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// When the last read ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub time: Option<Timestamp>,
    /// Since when every read has given the same value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unchanged: Option<Unchanged>,
    /// How long the last read took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_seconds: Option<f64>,
    /// Where the source is: scheme, host and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// A run of equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Unchanged {
    /// When the first of them was read.
    #[schemars(schema_with = "time")]
    pub since: Timestamp,
    pub reads: u64,
}

/// Why something failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Failure {
    /// `configuration`, `authentication`, `unreachable`, `refused`, `bad reply`, `missing resource` or `timed out`.
    pub kind: String,
    pub message: String,
}

/// One step of an argument.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Step {
    /// The rule's name, such as `TriggerInactive`, `Cooldown` or `LeftToHpa`.
    pub rule: String,
    /// The step in words.
    pub text: String,
    /// The metric that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub until: Option<Timestamp>,
}

/// Something that went wrong, perhaps again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Trouble {
    /// What was being done: `Trigger`, `PollOverdue`, `Check`, `TargetMissing`, `TargetUnscalable`, `StatusUpdate`,
    /// `HpaContested`, `Deletion`, `Scale`, `Hpa`.
    pub stage: String,
    /// The trigger's position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<usize>,
    /// The kind of a trigger's error.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The latest message.
    pub message: String,
    /// How often, since `first`.
    pub count: u64,
    /// When this run of failures began.
    #[schemars(schema_with = "time")]
    pub first: Timestamp,
    #[schemars(schema_with = "time")]
    pub last: Timestamp,
    /// It has not worked since.
    pub open: bool,
}

/// What only the report of a single object has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Detail {
    /// Since when the operator has watched the object.
    #[schemars(schema_with = "time")]
    pub observed_since: Timestamp,
    pub polling_interval_seconds: u64,
    pub cooldown_seconds: u64,
    /// `idleReplicaCount`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_replicas: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackSeen>,
    /// A formula makes one metric of all external ones.
    pub formula: bool,
    pub paused_scale_in: bool,
    pub paused_scale_out: bool,
    pub forced_active: bool,
    /// The count of the annotation `paused-replicas`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_replicas: Option<i32>,
    pub deleting: bool,
    /// Another ScaledObject has the workload or the HPA: `NAMESPACE/NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rival: Option<String>,
    /// The status' conditions.
    pub conditions: Vec<Condition>,
    /// When a trigger was last active.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub last_active: Option<Timestamp>,
    /// By how much the last poll began later than it was due, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late_seconds: Option<f64>,
    /// When the HPA last asked for a value, over the external metrics API.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub last_query: Option<Timestamp>,
    /// The name of the HPA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hpa_name: Option<String>,
    /// The HPA's own view; absent before it was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hpa: Option<Hpa>,
    /// Changes of the workload's replicas, the latest last.
    pub changes: Vec<Change>,
    /// The last decisions, the latest last. Successive ones by the same rules are one entry.
    pub decisions: Vec<Decision>,
    /// The last writes to the API server, but for those of the status; the latest last.
    pub writes: Vec<WriteSeen>,
}

/// A fallback.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FallbackSeen {
    /// It stands in after more failures in a row than this.
    pub failure_threshold: u32,
    pub replicas: i32,
    pub behavior: String,
}

/// The HPA as the watch told it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Hpa {
    pub name: String,
    pub min_replicas: i32,
    pub max_replicas: i32,
    /// The replicas that it counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<i32>,
    /// The replicas that it wants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<i32>,
    /// When it last changed the replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub last_scale: Option<Timestamp>,
    pub conditions: Vec<HpaCondition>,
    pub metrics: Vec<HpaMetric>,
}

/// A metric as the HPA last read it; quantities in Kubernetes' notation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HpaMetric {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Per replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average_value: Option<String>,
    /// Per cent of what the pods request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average_utilization: Option<i32>,
}

/// A change of the workload's replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Change {
    /// When it was made; for one by somebody else, when it was seen.
    #[schemars(schema_with = "time")]
    pub time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<i32>,
    pub to: i32,
    pub by: Author,
    /// Why, in words; empty where that is not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// Who changed the replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Author {
    /// Tidemark's operator: between zero, idle and the minimum, by a pause, by deletion.
    Operator,
    /// Nobody: a dry run of the operator would have.
    DryRun,
    /// The HPA controller, for the object's HPA.
    Hpa,
    /// None of these.
    #[default]
    Other,
}

/// A decision, or several by the same rules.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Decision {
    /// When the first of them was made.
    #[schemars(schema_with = "time")]
    pub first: Timestamp,
    /// When the last of them was made; what follows is of that one.
    #[schemars(schema_with = "time")]
    pub last: Timestamp,
    pub count: u64,
    /// The number of the evaluation.
    pub evaluation: u64,
    /// The trace of the evaluation, where traces are made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    pub active: bool,
    /// The replicas that there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// The replicas that were to be written; absent where nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<i32>,
    pub reasons: Vec<Step>,
    /// What it rests on.
    pub metrics: Vec<MetricSeen>,
}

/// A metric as a decision found it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricSeen {
    /// The trigger's position; absent for the metric of a formula.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<usize>,
    pub metric: String,
    /// What the HPA is told of it, in thousandths; absent where nothing can be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milli: Option<i64>,
    /// In thousandths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_milli: Option<i64>,
    pub per_replica: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// The value is the fallback's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub fallback: bool,
}

/// A write to the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WriteSeen {
    #[schemars(schema_with = "time")]
    pub time: Timestamp,
    /// What was written, in words.
    pub what: String,
    /// Nothing was: a dry run would have written it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A report in sentences, for people. Programs read the report itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Explanation {
    /// The present state in one line.
    pub headline: String,
    /// What is wrong, the worst first.
    pub problems: Vec<Problem>,
    /// Whether the triggers are read, the HPA gets their values, and the control loop is on time.
    pub checks: Vec<String>,
    /// Why there are as many replicas as there are.
    pub because: Vec<String>,
    /// The last change of the replicas: what, when, by whom, why.
    pub last_change: Vec<String>,
    /// What would change them next, and when.
    pub next: Vec<String>,
}

/// Something that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Problem {
    pub text: String,
    /// What to do about it; empty where nothing can be said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}
