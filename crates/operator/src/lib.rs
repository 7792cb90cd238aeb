//! The operator: watches, one task for each ScaledObject, its scale target, its HorizontalPodAutoscaler, its status
//! and its events.
//!
//! * [`Operator`] runs; its [`Handle`] answers: metrics for the HPA, snapshots, and the stream of [`Observation`]s.
//! * `index` turns watch events into messages, and is the only one that knows all objects.
//! * `actor` is one object's life. It never waits for anything outside itself: its reads and writes are futures whose
//!   results come back to it as messages. Nothing else changes its state.
//!
//! Absent on purpose: a cache of Pods, Secrets or whole workloads; a lock held across an await; a write of anything
//! that has not changed.

mod actor;
mod authentications;
mod claims;
pub mod client;
mod cluster;
mod context;
mod events;
mod handle;
mod hpa;
mod index;
pub mod leader;
mod mailbox;
mod observation;
mod settings;
mod shared_reads;
mod snapshot;
mod status;
mod target;
mod texts;
mod watches;

use std::sync::Arc;

use futures::future::BoxFuture;
use kube::Client;
use tidemark_trigger::{Door, ParseErrors, Trigger, TriggerInput};
use tokio_util::sync::CancellationToken;

pub use crate::cluster::KubeCluster;
use crate::context::Context;
pub use crate::handle::{Handle, MetricError, MetricValue};
pub use crate::observation::{
    Asker, Definition, HpaCondition, HpaMetric, HpaSeen, Life, ObjectKey, Observation, ResourceKind, ScaleCause, Seen,
    Stage, What, Write,
};
pub use crate::settings::{Settings, Writes};
pub use crate::snapshot::{Detail, Snapshot, TriggerView};

/// Who writes, in the managed fields of Kubernetes objects.
pub(crate) const FIELD_MANAGER: &str = "tidemark";

/// Parses a trigger of any type: [`tidemark_triggers::parse`], or another function in its place.
pub type Catalogue = Arc<dyn Fn(&TriggerInput) -> Result<Arc<dyn Trigger>, ParseErrors> + Send + Sync>;

/// The scale loops of all ScaledObjects.
pub struct Operator {
    ctx: Arc<Context>,
}

/// What ends an operator before it is told to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The watches of the API server ended, which they do not do by themselves.
    #[error("the watches of the API server have ended")]
    WatchesEnded,
}

impl Operator {
    /// An operator over a cluster or the sandbox, and the handle that answers for it.
    ///
    /// The client is guarded here ([`client::guard`]): it should have no retry of its own ([`client::build`]). The
    /// clock is the door's.
    pub fn new(client: Client, door: Door, settings: Settings) -> (Self, Handle) {
        Self::with_catalogue(client, door, settings, Arc::new(tidemark_triggers::parse))
    }

    /// As [`Operator::new`], with other trigger types than those of the catalogue.
    pub fn with_catalogue(client: Client, door: Door, settings: Settings, catalogue: Catalogue) -> (Self, Handle) {
        let client = client::guarded(client, settings.request_timeout, settings.writes.clone());
        let ctx = Arc::new(Context::new(client, door, catalogue, settings));
        let handle = Handle::new(ctx.clone());
        (Self { ctx }, handle)
    }

    /// Runs until `shutdown` is cancelled, and ends all that it started.
    ///
    /// # Errors
    /// See [`Error`].
    // Boxed here, so that what it consists of is compiled with this crate and not again with those that use it.
    pub fn run(self, shutdown: CancellationToken) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            // Subscribed before the first observation can be made.
            let observations = self.ctx.observer.subscribe();
            let quiet = CancellationToken::new();
            let events = async {
                // A dry run leaves no trace.
                if self.ctx.settings.writes.are_real() {
                    events::run(self.ctx.clone(), observations, quiet.clone()).await;
                }
            };
            let index = async {
                let result = index::run(self.ctx.clone(), shutdown).await;
                quiet.cancel();
                result
            };
            let (result, ()) = tokio::join!(index, events);
            result
        })
    }
}
