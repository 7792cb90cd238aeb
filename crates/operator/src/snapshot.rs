//! What is known of each object, published as an immutable value. Readers never hold the writer up.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use tidemark_api::Condition;
use tidemark_engine::activation::{Controls, Policy};
use tidemark_engine::fallback::Fallback;
use tidemark_engine::metric::Target;
use tidemark_engine::reason::Reason;
use tidemark_trigger::{ErrorKind, MetricType};
use tokio::sync::watch;

use crate::actor::Message;
use crate::mailbox::Mailbox;
use crate::observation::ObjectKey;
use crate::status::Kept;
use crate::texts::Text;

/// An object's state at the time of its last change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub key: Arc<ObjectKey>,
    pub uid: String,
    /// Kind and name of the scale target, such as `Deployment/workers`.
    pub target: String,
    /// One entry for each metric, in the order of the triggers.
    pub triggers: Vec<TriggerView>,
    /// Whether the last decision found the object active; none before the first one.
    pub active: Option<bool>,
    pub paused: bool,
    /// The target's replicas by the last read or write.
    pub replicas: Option<i32>,
    /// What the HPA wants, or what the last decision asked for.
    pub desired: Option<i32>,
    pub min: i32,
    pub max: i32,
    /// The condition `Ready`; none before the first check has ended.
    pub ready: Option<Condition>,
    /// The argument of the last decision.
    pub reasons: Vec<Reason>,
    /// When the next trigger is polled; none while paused or not started.
    pub next_poll: Option<Timestamp>,
    /// The end of the running cooldown.
    pub cooldown_until: Option<Timestamp>,
}

/// An object's state with what its specification asks for, gathered for somebody who asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Detail {
    pub snapshot: Snapshot,
    pub policy: Policy,
    /// Time between two polls.
    pub interval: Duration,
    /// A fallback that can be used.
    pub fallback: Option<Fallback>,
    /// The target of the composite metric, where a formula makes one of all external ones.
    pub composite: Option<Target>,
    /// What the annotations ask for.
    pub controls: Controls,
    /// The object's HPA; none before it was made.
    pub hpa: Option<String>,
    /// The status' conditions, in their order.
    pub conditions: Vec<Condition>,
    /// When a trigger was last active.
    pub last_active: Option<Timestamp>,
    /// Failures in a row of each trigger, by index; counted where there is a fallback.
    pub failures: Vec<u32>,
    /// Why the last check of the object failed.
    pub check_failure: Option<String>,
    /// The object that has the target or the HPA in this object's place.
    pub rival: Option<Arc<ObjectKey>>,
    pub deleting: bool,
    /// The number of the latest evaluation.
    pub evaluation: u64,
}

/// One metric of one trigger.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerView {
    pub index: usize,
    pub trigger_type: Arc<str>,
    /// `triggers[].name`.
    pub name: Option<Arc<str>>,
    /// The external metric's name; empty where the trigger could not be built.
    pub metric: Arc<str>,
    /// The last value read, before rounding; none before the first read and after a failed one.
    pub value: Option<f64>,
    /// The target in thousandths.
    pub target_milli: i64,
    pub metric_type: MetricType,
    pub active: Option<bool>,
    /// Why the last read, or building the trigger, failed.
    pub error: Option<(ErrorKind, Arc<str>)>,
    /// When the last read ended.
    pub time: Option<Timestamp>,
}

/// All objects, each with its mailbox and its latest snapshot.
#[derive(Debug)]
pub(crate) struct Registry {
    entries: RwLock<BTreeMap<Arc<ObjectKey>, Arc<Entry>>>,
    changed: watch::Sender<()>,
}

/// One object's mailbox and latest snapshot.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Arc<ObjectKey>,
    pub(crate) uid: Arc<str>,
    pub(crate) mailbox: Mailbox<Message>,
    view: Mutex<View>,
}

/// A [`Snapshot`] in little room: every object has one.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct View {
    pub(crate) target: Option<Text>,
    pub(crate) triggers: Box<[TriggerView]>,
    pub(crate) active: Option<bool>,
    pub(crate) paused: bool,
    pub(crate) replicas: Option<i32>,
    pub(crate) desired: Option<i32>,
    pub(crate) min: i32,
    pub(crate) max: i32,
    pub(crate) ready: Option<Arc<Kept>>,
    pub(crate) reasons: Arc<[Reason]>,
    pub(crate) next_poll: Option<Timestamp>,
    pub(crate) cooldown_until: Option<Timestamp>,
}

impl Entry {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let view = self.view();
        Snapshot {
            key: self.key.clone(),
            uid: self.uid.to_string(),
            target: view.target.as_deref().unwrap_or_default().to_owned(),
            triggers: view.triggers.to_vec(),
            active: view.active,
            paused: view.paused,
            replicas: view.replicas,
            desired: view.desired,
            min: view.min,
            max: view.max,
            ready: view.ready.as_ref().map(|ready| ready.whole()),
            reasons: view.reasons.to_vec(),
            next_poll: view.next_poll,
            cooldown_until: view.cooldown_until,
        }
    }
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self { entries: RwLock::default(), changed: watch::Sender::new(()) }
    }

    /// A receiver that sees every change of any snapshot.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Enters an object; one of the same name that was there is forgotten.
    pub(crate) fn enter(&self, key: Arc<ObjectKey>, uid: &str) -> Arc<Entry> {
        let (mailbox, view) = (Mailbox::new(), Mutex::default());
        let entry = Arc::new(Entry { key: key.clone(), uid: uid.into(), mailbox, view });
        self.entries.write().unwrap_or_else(PoisonError::into_inner).insert(key, entry.clone());
        entry
    }

    /// Forgets an object.
    pub(crate) fn remove(&self, key: &ObjectKey) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).remove(key);
        self.changed.send_replace(());
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// All snapshots by namespace and name.
    pub(crate) fn snapshots(&self) -> Vec<Arc<Snapshot>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.values().map(|entry| Arc::new(entry.snapshot())).collect()
    }

    /// At most `limit` snapshots, by namespace and name: those after `after`, of a namespace or of all.
    pub(crate) fn page(&self, namespace: Option<&str>, after: Option<&ObjectKey>, limit: usize) -> Vec<Arc<Snapshot>> {
        let first = ObjectKey::new(namespace.unwrap_or_default(), "");
        let begin = match after {
            Some(after) if *after >= first => Bound::Excluded(after),
            _ => Bound::Included(&first),
        };
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let page = entries.range::<ObjectKey, _>((begin, Bound::Unbounded)).map(|(_, entry)| entry);
        let page = page.take_while(|entry| namespace.is_none_or(|namespace| entry.key.namespace == namespace));
        page.take(limit).map(|entry| Arc::new(entry.snapshot())).collect()
    }

    /// Publishes an object's state, unless it is what was published last.
    pub(crate) fn publish(&self, entry: &Entry, view: View) {
        let mut last = entry.view();
        if *last != view {
            *last = view;
            drop(last);
            self.changed.send_replace(());
        }
    }
}
