//! The pasts of all objects, fed by the operator's observations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use tidemark_operator::{Handle, ObjectKey, Observation, What};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::past::Past;

/// The trace of an evaluation: of an object's uid and the evaluation's number.
pub type TraceId = Arc<dyn Fn(&str, u64) -> Option<String> + Send + Sync>;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Decisions of an object at most.
    pub per_object: usize,
    /// Decisions of an object that are kept in any case.
    pub least: usize,
    /// Decisions in all; what an object may keep becomes less, down to `least`, where there are many objects.
    pub in_all: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_object: 32, least: 4, in_all: 200_000 }
    }
}

impl Limits {
    fn room(self, objects: usize) -> usize {
        (self.in_all / objects.max(1)).clamp(self.least.min(self.per_object), self.per_object)
    }
}

/// The pasts of all objects. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Ring(Arc<Shared>);

struct Shared {
    limits: Limits,
    trace: TraceId,
    pasts: Mutex<BTreeMap<Arc<ObjectKey>, Box<Past>>>,
}

impl Ring {
    /// A ring of nothing yet. `trace` names the trace of an evaluation, where traces are made.
    pub fn new(limits: Limits, trace: TraceId) -> Self {
        Self(Arc::new(Shared { limits, trace, pasts: Mutex::default() }))
    }

    /// Takes in what an operator observes from now on, until `shutdown`.
    pub fn run(self, handle: &Handle, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        let (handle, mut observations) = (handle.clone(), handle.observe());
        Box::pin(async move {
            loop {
                match shutdown.run_until_cancelled(observations.recv()).await {
                    Some(Ok(observation)) => self.record(&observation),
                    Some(Err(RecvError::Lagged(lost))) => {
                        tracing::warn!(lost, "reasons have gaps: too much is going on");
                        let objects = handle.snapshots();
                        let there: BTreeSet<&ObjectKey> = objects.iter().map(|snapshot| &*snapshot.key).collect();
                        self.pasts().retain(|key, _| there.contains(&**key));
                    }
                    Some(Err(RecvError::Closed)) | None => return,
                }
            }
        })
    }

    /// Takes in one observation.
    pub fn record(&self, observation: &Observation) {
        let mut pasts = self.pasts();
        let known = pasts.get(&observation.object).is_some_and(|past| past.uid == observation.uid);
        match &observation.what {
            What::Gone if known => drop(pasts.remove(&observation.object)),
            // Of objects that are no ScaledObjects, or that have no life here yet.
            What::Gone | What::Resource { .. } => {}
            What::Error { .. } if !known => {}
            _ => {
                if !known {
                    let past = Past::new(observation.uid.clone(), observation.time);
                    pasts.insert(observation.object.clone(), Box::new(past));
                }
                let room = self.0.limits.room(pasts.len());
                if let Some(past) = pasts.get_mut(&observation.object) {
                    past.on(observation, room);
                }
            }
        }
    }

    /// How many objects there are pasts of.
    pub fn objects(&self) -> usize {
        self.pasts().len()
    }

    /// How many decisions of all objects are kept.
    pub fn decisions(&self) -> usize {
        self.pasts().values().map(|past| past.decisions.len()).sum()
    }

    /// A copy of an object's past.
    pub(crate) fn past(&self, object: &ObjectKey) -> Option<Past> {
        self.pasts().get(object).map(|past| Past::clone(past))
    }

    pub(crate) fn trace(&self, uid: &str, evaluation: u64) -> Option<String> {
        (self.0.trace)(uid, evaluation)
    }

    fn pasts(&self) -> MutexGuard<'_, BTreeMap<Arc<ObjectKey>, Box<Past>>> {
        self.0.pasts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("objects", &self.objects()).finish_non_exhaustive()
    }
}
