//! `tidemark webhooks`: validating admission.

pub mod args;
mod cluster;
mod events;
mod judge;
mod metrics;
mod run;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::Client;
use tidemark_api::VERSION;
use tidemark_clock::Clock;
use tidemark_sandbox::{AdmissionHook, AdmissionRule, HookOperation, Sandbox};
use tidemark_serving::admission_review::{AdmissionReviews, WEBHOOKS};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use args::WebhooksArgs;
use cluster::Cluster;
use judge::{Index, Judge};
pub use judge::{Judged, Listener};
pub use metrics::counter;
pub use run::run;
pub use watches::Synced;

/// As the webhooks are registered with an API server.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Admission over a cluster: the webhooks, and the watches and events behind them.
pub struct Admission {
    service: AdmissionReviews,
    synced: watch::Receiver<Synced>,
    background: BoxFuture<'static, ()>,
}

impl Admission {
    /// Admission over the cluster of a client that repeats no request by itself. Every verdict is told to `listeners`.
    /// `hostname` says in events who reports.
    pub fn new(client: Client, clock: Clock, hostname: &str, mut listeners: Vec<Listener>) -> Self {
        let (sender, synced) = watch::channel(Synced::default());
        let index = Arc::new(Index::default());
        let (events, written) = events::recorder(client.clone(), clock, hostname);
        listeners.push(events);
        let cluster = Cluster::new(client.clone());
        let judge = Judge::new(cluster, index.clone(), synced.clone(), listeners);
        let watches = watches::follow(client, index, sender);
        let background = futures::future::join(watches, written).map(drop).boxed();
        Self { service: AdmissionReviews::new(Arc::new(judge)), synced, background }
    }

    /// The webhooks. They wait until the background has read the cluster.
    pub fn service(&self) -> AdmissionReviews {
        self.service.clone()
    }

    /// What has been read of the cluster.
    pub fn synced(&self) -> watch::Receiver<Synced> {
        self.synced.clone()
    }

    /// What must run: it follows the cluster and writes events, until the shutdown.
    pub fn run(self, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        let Self { background, .. } = self;
        shutdown.run_until_cancelled_owned(background).map(drop).boxed()
    }
}

/// Has the sandbox ask the webhooks, as an API server does where they are registered and must answer.
pub fn register(sandbox: &Sandbox, service: &AdmissionReviews) {
    for webhook in WEBHOOKS {
        sandbox.admit(AdmissionHook {
            name: webhook.name.to_owned(),
            path: webhook.path.to_owned(),
            rules: vec![AdmissionRule {
                group: webhook.group.to_owned(),
                version: VERSION.to_owned(),
                resource: webhook.resource.to_owned(),
                operations: vec![HookOperation::Create, HookOperation::Update],
            }],
            service: tidemark_sandbox::webhook(service.clone()),
            timeout: TIMEOUT,
            fail_open: false,
        });
    }
}
