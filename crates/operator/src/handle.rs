//! What the rest of the program may ask of a running operator.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::Instant;

use crate::actor::{Message, MetricRequest};
use crate::context::Context;
use crate::observation::{ObjectKey, Observation};
use crate::snapshot::{Detail, Snapshot};

/// Beyond the deadline of a fetch: for a request that joins one which is about to be replaced.
const GRACE: Duration = Duration::from_secs(5);

/// One value of an external metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricValue {
    pub metric: Arc<str>,
    /// Thousandths.
    pub value_milli: i64,
    /// When it was read.
    pub timestamp: Timestamp,
}

/// Why a metric has no value. The texts are those that tools around KEDA match on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// There is no such ScaledObject.
    #[error("error when getting metric values error getting scalers ScaledObject.keda.sh \"{0}\" not found")]
    ObjectNotFound(String),
    /// The object's triggers are not there: one could not be built, the object is paused.
    #[error("error when getting metric values error getting scalers {0}")]
    NoTriggers(Arc<str>),
    /// No trigger of the object has that metric.
    #[error("error when getting metric values no matching metrics found for {0}")]
    NoSuchMetric(String),
    /// The trigger could not be read.
    #[error("error when getting metric values metric:{metric} encountered error: {error}")]
    Failed { metric: String, error: Arc<str> },
}

/// Answers for an operator. Cheap to clone.
pub struct Handle {
    ctx: Arc<Context>,
    seen: Mutex<watch::Receiver<()>>,
}

impl Handle {
    pub(crate) fn new(ctx: Arc<Context>) -> Self {
        let seen = Mutex::new(ctx.registry.changes());
        Self { ctx, seen }
    }

    /// The present value of an external metric of a ScaledObject, read for the occasion unless it was read just now.
    ///
    /// Names of metrics are compared without regard to case. The answer comes within the deadline of a fetch and a few
    /// seconds.
    ///
    /// # Errors
    /// See [`MetricError`].
    pub async fn metric(&self, namespace: &str, object: &str, metric: &str) -> Result<Vec<MetricValue>, MetricError> {
        let absent = || MetricError::ObjectNotFound(object.to_owned());
        let entry = self.ctx.registry.get(&ObjectKey::new(namespace, object)).ok_or_else(absent)?;
        let (reply, answer) = oneshot::channel();
        let request = MetricRequest { metric: metric.to_owned(), asked: Instant::now(), reply };
        entry.mailbox.send(Message::Metric(Box::new(request))).map_err(|_| absent())?;
        match tokio::time::timeout(self.ctx.settings.fetch_timeout + GRACE, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(absent()),
            Err(_) => Err(MetricError::Failed { metric: metric.to_owned(), error: "not answered in time".into() }),
        }
    }

    /// Everything that is known of an object at this moment; none where there is no such object.
    pub async fn detail(&self, object: &ObjectKey) -> Option<Detail> {
        let entry = self.ctx.registry.get(object)?;
        let (reply, answer) = oneshot::channel();
        entry.mailbox.send(Message::Detail(Box::new(reply))).ok()?;
        let mut detail = tokio::time::timeout(GRACE, answer).await.ok()?.ok()?;
        detail.snapshot = entry.snapshot();
        Some(detail)
    }

    /// Resolves when every watch has shown all that there is: before that, an object that is not known may be there all
    /// the same.
    pub async fn synced(&self) {
        if self.ctx.synced.subscribe().wait_for(|synced| *synced).await.is_err() {
            // Cannot be: the sender lives in the context, which this handle holds.
            std::future::pending::<()>().await;
        }
    }

    /// Whether the operator never writes, and tells of what it would write.
    pub fn is_dry_run(&self) -> bool {
        !self.ctx.settings.writes.are_real()
    }

    /// The stream of everything that happens from now on. A receiver that falls behind loses the oldest.
    pub fn observe(&self) -> broadcast::Receiver<Arc<Observation>> {
        self.ctx.observer.subscribe()
    }

    /// The latest state of every object, by namespace and name.
    pub fn snapshots(&self) -> Vec<Arc<Snapshot>> {
        self.ctx.registry.snapshots()
    }

    /// At most `limit` of the latest states, by namespace and name: those after `after`, of a namespace or of all.
    pub fn page(&self, namespace: Option<&str>, after: Option<&ObjectKey>, limit: usize) -> Vec<Arc<Snapshot>> {
        self.ctx.registry.page(namespace, after, limit)
    }

    /// Resolves when any snapshot has changed since this handle's last call resolved.
    pub async fn changed(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if seen.changed().await.is_err() {
            // Cannot be: the sender lives in the context, which this handle holds.
            std::future::pending::<()>().await;
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self { ctx: self.ctx.clone(), seen: Mutex::new(seen) }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}
