//! The controllers an autoscaler needs around it: Deployments, ReplicaSets, a kubelet, garbage collection and the
//! HorizontalPodAutoscaler.
//!
//! They are ordinary controllers over a [`kube::Client`] and know nothing of the store behind it. Each is one task that
//! owns a cache fed by watches and a queue of objects to look at; nothing else writes its state. All iteration is
//! ordered, so that under the paused clock the same input gives the same writes.

mod cache;
mod deployment;
mod events;
mod expiry;
mod garbage;
mod hpa;
mod kubelet;
mod queue;
mod replica_set;
mod rollout;

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tidemark_clock::Clock;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use cache::{Cache, uid as cache_uid};
pub(crate) use events::{Note, Recorder};
pub(crate) use kubelet::remove;
pub(crate) use queue::Queue;

use crate::{Options, Pods, process};

/// The API server has this long to answer one request.
const PATIENCE: Duration = Duration::from_secs(10);
/// A watch that failed is opened again after this long.
const WATCH_AGAIN: Duration = Duration::from_secs(1);

/// A namespaced object's address within its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn of<K: Resource>(object: &K) -> Self {
        Self { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
    }
}

/// A request of a controller that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Api(#[from] Box<kube::Error>),
    #[error("the API server did not answer within {} s", PATIENCE.as_secs())]
    TimedOut,
}

impl Error {
    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api(error) => match error.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::TimedOut => None,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_not_found)
    }

    pub(crate) fn is_conflict(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_conflict)
    }

    /// Whether a patch meant an earlier object of the same name.
    pub(crate) fn is_other_object(&self) -> bool {
        let causes = self.status().and_then(|status| status.details.as_ref()).map(|details| details.causes.as_slice());
        causes.unwrap_or_default().iter().any(|cause| cause.field == "metadata.uid")
    }

    pub(crate) fn is_already_exists(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_already_exists)
    }

    /// The API server's own sentence where there is one.
    pub(crate) fn sentence(&self) -> String {
        self.status().map_or_else(|| self.to_string(), |status| status.message.clone())
    }
}

/// Awaits one request under the deadline every request has.
pub(crate) async fn ask<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(answer) => Ok(answer.map_err(Box::new)?),
        Err(_) => Err(Error::TimedOut),
    }
}

/// Runs all controllers until `shutdown`, then stops them, and the pods' processes with them, and returns when the last
/// of them has ended.
pub(crate) async fn run(client: Client, clock: Clock, options: Options, shutdown: CancellationToken) {
    let mut tasks = JoinSet::new();
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(deployment::run(client.clone(), clock)));
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(replica_set::run(client.clone(), clock)));
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(garbage::run(client.clone())));
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(expiry::run(client.clone())));
    let controls = hpa::Controls { decisions: options.hpa, sync_period: options.hpa_sync_period };
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(hpa::run(client.clone(), clock, controls)));
    match options.pods {
        Pods::Simulated => {
            let kubelet = kubelet::run(client, clock, options.pod_startup);
            tasks.spawn(shutdown.clone().run_until_cancelled_owned(kubelet));
        }
        Pods::Processes(settings) => {
            tasks.spawn(async move {
                process::run(client, clock, settings, shutdown).await;
                Some(())
            });
        }
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a controller of the sandbox has broken down");
        }
    }
}

/// Watches all objects of a kind. Broken watches are opened again; the stream never ends.
pub(crate) fn watch<K>(client: &Client) -> BoxStream<'static, watcher::Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let kind = K::kind(&()).into_owned();
    unbroken(kind, watcher(Api::<K>::all(client.clone()), watcher::Config::default()))
}

/// Reports and drops the errors of a watch, which opens itself again.
pub(crate) fn unbroken<K: Send + 'static>(
    kind: String,
    events: impl futures::Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
) -> BoxStream<'static, watcher::Event<K>> {
    events
        .backoff(Steady)
        .filter_map(move |event| {
            let event = event.inspect_err(|error| tracing::debug!(kind, %error, "a watch broke and is opened again"));
            std::future::ready(event.ok())
        })
        .boxed()
}

/// The same pause after every failure: the API server is in the same process.
struct Steady;

impl Iterator for Steady {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(WATCH_AGAIN)
    }
}

impl kube::runtime::utils::Backoff for Steady {
    fn reset(&mut self) {}
}

/// The reference to the object's controller, if it is of the given kind.
pub(crate) fn controller_of<'a, K: Resource>(object: &'a K, kind: &str) -> Option<&'a str> {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true) && owner.kind == kind).map(|owner| owner.name.as_str())
}
