//! What happens, told through one typed stream. The screen, Kubernetes Events, metrics, traces and recordings consume
//! it; nothing else tells them anything.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidemark_api::AuthenticationKind;
use tidemark_clock::Clock;
use tidemark_engine::activation::Action;
use tidemark_engine::metric::Target;
use tidemark_engine::reason::Reason;
use tidemark_trigger::door::Hop;
use tidemark_trigger::{Reading, SourceError};
use tokio::sync::broadcast;

use crate::handle::{MetricError, MetricValue};

/// Observations that a slow consumer may fall behind by before it loses the oldest.
const CAPACITY: usize = 4096;

/// Namespace and name of a ScaledObject.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One thing that happened to one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    pub time: Timestamp,
    pub object: Arc<ObjectKey>,
    /// The object's uid.
    pub uid: Arc<str>,
    /// The number of the object's evaluation to which this belongs; 0 before the first. An evaluation begins with
    /// [`What::Poll`], [`What::Pushed`] or a [`What::Fetch`] for the HPA; what is asked beside it has its number, too.
    pub evaluation: u64,
    pub what: What,
}

/// A trigger as its object defines it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    pub trigger_type: Arc<str>,
    /// `triggers[].name`.
    pub name: Option<Arc<str>>,
}

/// A metric as a decision found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// 0-based position of its trigger; none for the composite metric of scaling modifiers.
    pub trigger: Option<usize>,
    /// The external metric's name; `cpu` or `memory` where the HPA reads it by itself.
    pub metric: Arc<str>,
    /// What the HPA is told of it, in thousandths; none where nothing can be said.
    pub milli: Option<i64>,
    /// What the HPA compares it with; none where nobody knows the metric yet, or the HPA reads it by itself.
    pub target: Option<Target>,
    /// None where nothing is known.
    pub active: Option<bool>,
    /// The value is the fallback's.
    pub fallback: bool,
}

/// An object's HPA as it was last seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HpaSeen {
    pub name: Arc<str>,
    pub min: i32,
    pub max: i32,
    /// The replicas that it counted, and those that it wants; none before it has looked.
    pub current: Option<i32>,
    pub desired: Option<i32>,
    /// When it last changed the replicas.
    pub last_scale: Option<Timestamp>,
    pub conditions: Vec<HpaCondition>,
    pub metrics: Vec<HpaMetric>,
}

/// A condition of an HPA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HpaCondition {
    /// `AbleToScale`, `ScalingActive` or `ScalingLimited`.
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    pub reason: String,
    pub message: String,
}

/// A metric's value as the HPA last read it; quantities in Kubernetes' notation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HpaMetric {
    /// The external metric's name, or `cpu`, `memory`.
    pub name: String,
    pub value: Option<String>,
    /// Per replica.
    pub average_value: Option<String>,
    /// Per cent of what the pods request.
    pub average_utilization: Option<i32>,
}

/// Custom resources that are told of because they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceKind {
    Authentication(AuthenticationKind),
    ScaledJob,
    CloudEventSource,
    ClusterCloudEventSource,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The object is new or has other triggers than before; they need not have been built.
    Defined { triggers: Arc<[Definition]> },
    /// Whether the object is paused, in whole or in one direction: told of a new object and when it changes.
    Paused(bool),
    /// The object is no longer there.
    Gone,
    /// A poll of the object began, so long after it was due.
    Poll { late: Duration },
    /// A source told, unasked, that its trigger is active.
    Pushed { trigger: usize },
    /// The object's HPA is new, or its state has changed.
    Hpa(Arc<HpaSeen>),
    /// A custom resource on which nothing is scaled here has come or gone. Of a ScaledJob it is also told when its
    /// triggers change; `triggers` are their types.
    Resource { kind: ResourceKind, here: bool, triggers: Arc<[Arc<str>]> },
    /// A trigger was read, or could not be.
    Fetch {
        trigger: usize,
        trigger_type: Arc<str>,
        /// `triggers[].name`.
        name: Option<Arc<str>>,
        asked_by: Asker,
        /// Its values go into the formula of scaling modifiers.
        for_formula: bool,
        /// Where the source is, as far as the trigger says so: scheme, host and port, and no secret.
        endpoint: Option<Arc<str>>,
        /// From the start of the fetch to its end.
        took: Duration,
        /// The external metrics of the trigger; none where only the source knows them and has not told.
        metrics: Vec<Arc<str>>,
        /// A reading of each.
        outcome: Result<Vec<Reading>, SourceError>,
        /// What was asked over HTTP, but for requests that were shared with another trigger's read.
        requests: Vec<Hop>,
        /// Replies with nothing in them where a value is wanted; each says whether that was taken for 0.
        empties: Vec<bool>,
    },
    /// Somebody asked for an external metric, as HPAs do, and was answered after so long.
    Query { metric: Arc<str>, took: Duration, outcome: Result<Vec<MetricValue>, MetricError> },
    /// The engine decided between zero, idle and the minimum.
    Decision {
        active: bool,
        replicas: Option<i32>,
        action: Action,
        reasons: Arc<[Reason]>,
        /// What the decision rests on.
        metrics: Arc<[Seen]>,
    },
    /// A check of the object has ended: of its finalizer, its target, its triggers and its HPA.
    Checked {
        /// Without the wait for its turn.
        took: Duration,
        /// The object is not ready, or nothing could be known.
        failed: bool,
    },
    /// Something was written to the API server, or the write failed; in a dry run it would have been.
    Write {
        write: Write,
        /// From the first request for it to the last answer: what is read for it, and what is repeated after conflicts,
        /// included. Zero in a dry run.
        took: Duration,
        /// Nothing was sent: the operator never writes.
        dry_run: bool,
        error: Option<Arc<str>>,
    },
    /// Something went wrong.
    Error { stage: Stage, message: Arc<str> },
    /// The object's life.
    Life(Life),
}

/// Who wanted a fetch first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The object's own poll.
    Poll,
    /// The external metrics API.
    Hpa,
}

/// A write to the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// The target's replicas. `target` is its kind and name, such as `apps/v1.Deployment shop/workers`; `from` is -1
    /// where the replicas could not be read.
    Scale {
        target: Arc<str>,
        from: i32,
        to: i32,
        cause: ScaleCause,
    },
    HpaCreated {
        name: Arc<str>,
    },
    HpaUpdated {
        name: Arc<str>,
    },
    HpaDeleted {
        name: Arc<str>,
    },
    /// The object's own status.
    Status,
    /// The finalizer and the label of the object, whichever it lacked.
    FinalizerAdded,
    /// The finalizer, taken off an object that is being deleted.
    FinalizerRemoved,
}

impl Write {
    /// What kind of thing is written, in a word that does not change.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Scale { .. } => "scale",
            Self::HpaCreated { .. } | Self::HpaUpdated { .. } | Self::HpaDeleted { .. } => "hpa",
            Self::Status => "status",
            Self::FinalizerAdded | Self::FinalizerRemoved => "finalizer",
        }
    }

    /// What is done with it: `create`, `update` or `delete`.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::HpaCreated { .. } | Self::FinalizerAdded => "create",
            Self::Scale { .. } | Self::HpaUpdated { .. } | Self::Status => "update",
            Self::HpaDeleted { .. } | Self::FinalizerRemoved => "delete",
        }
    }
}

/// Why the target's replicas were written.
#[derive(Clone, Debug, PartialEq)]
pub enum ScaleCause {
    /// From zero or idle; the active metrics, none where the annotation forces it.
    Activated { metrics: Vec<Arc<str>>, forced: bool },
    /// To zero or idle.
    Deactivated,
    /// Below the minimum though nothing is active.
    RaisedToMinimum,
    /// To the count of the annotation `paused-replicas`.
    Paused,
    /// To the count that the target had at first, on deletion of the object.
    Restored,
}

/// What was being done when something went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Checking and preparing the object; the message names the step.
    Check,
    /// Finding the scale target.
    TargetMissing,
    /// The scale target has no `/scale`.
    TargetUnscalable,
    /// Writing the object's status.
    StatusUpdate,
    /// Building or reading a trigger.
    Trigger { index: usize, trigger_type: Arc<str> },
    /// A poll was due before the one before it had ended.
    PollOverdue { index: usize, trigger_type: Arc<str> },
    /// Somebody else keeps changing the object's HPA.
    HpaContested,
    /// Finishing a deletion.
    Deletion,
}

/// A turn in an object's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// Polling has begun.
    Started,
    /// Polling has ended: paused, deleted.
    Stopped,
    /// A trigger was built for the first time, or anew after a change.
    TriggerBuilt {
        index: usize,
        trigger_type: Arc<str>,
    },
    /// A note about a trigger for the user: deprecated, unknown or ineffective parameters, missing Secrets.
    TriggerNote {
        index: usize,
        trigger_type: Arc<str>,
        note: Arc<str>,
    },
    /// All checks passed after they had not, or for the first time.
    Ready,
    Paused,
    Unpaused,
    /// Triggers fail more often than tolerated, and the fallback stands in.
    FallbackActivated,
    /// No trigger needs the fallback any more.
    FallbackDeactivated,
    /// The finalizer is off: the object is about to go.
    Deleted,
}

/// The sending end of the stream. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Observer {
    clock: Clock,
    sender: broadcast::Sender<Arc<Observation>>,
}

impl Observer {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, sender: broadcast::channel(CAPACITY).0 }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<Observation>> {
        self.sender.subscribe()
    }

    /// Tells all consumers; it never waits, and nobody need listen.
    pub(crate) fn tell(&self, object: &Arc<ObjectKey>, uid: &Arc<str>, evaluation: u64, what: What) {
        let (object, uid) = (object.clone(), uid.clone());
        let observation = Observation { time: self.clock.now(), object, uid, evaluation, what };
        let _ = self.sender.send(Arc::new(observation));
    }
}
