//! What all objects of one operator share.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tidemark_auth::Resolver;
use tidemark_clock::Clock;
use tidemark_trigger::Door;
use tokio::sync::{Semaphore, watch};

use crate::Catalogue;
use crate::cluster::KubeCluster;
use crate::observation::{Observer, What, Write};
use crate::settings::Settings;
use crate::shared_reads::share_reads;
use crate::snapshot::Registry;
use crate::target::Kinds;
use crate::texts::Texts;

/// Checks of objects, and writes on authentications, that may run at the same time.
const CHECKS: usize = 64;

pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) door: Door,
    pub(crate) catalogue: Catalogue,
    pub(crate) clock: Clock,
    /// Reads authentication and environment as they are now.
    pub(crate) resolver: Resolver,
    /// The same, but what other objects have read lately serves too.
    pub(crate) refresher: Resolver,
    pub(crate) settings: Settings,
    pub(crate) observer: Observer,
    pub(crate) registry: Arc<Registry>,
    pub(crate) kinds: Kinds,
    /// Turns for checks of objects and writes on authentications: thousands begin at once when the operator starts.
    pub(crate) checks: Arc<Semaphore>,
    /// Texts that objects have alike.
    pub(crate) texts: Texts,
    /// Whether every watch has shown all that there is.
    pub(crate) synced: watch::Sender<bool>,
}

impl Context {
    pub(crate) fn new(client: Client, door: Door, catalogue: Catalogue, mut settings: Settings) -> Self {
        settings.watch_namespaces.sort_unstable();
        settings.watch_namespaces.dedup();
        let clock = *door.clock();
        let resolver = |keep| {
            let settings = tidemark_auth::Settings {
                cluster_object_namespace: settings.cluster_object_namespace.clone(),
                restrict_secret_access: settings.restrict_secret_access,
                file_root: settings.filepath_auth_root.clone(),
                request_timeout: settings.request_timeout,
            };
            Resolver::new(share_reads(client.clone(), keep), settings)
        };
        Self {
            observer: Observer::new(clock),
            registry: Arc::new(Registry::new()),
            kinds: Kinds::default(),
            checks: Arc::new(Semaphore::new(CHECKS)),
            texts: Texts::default(),
            synced: watch::Sender::new(false),
            resolver: resolver(Duration::ZERO),
            // Half of the time: with what is read halfway, no parameter becomes much older than the whole.
            refresher: resolver(settings.auth_refresh / 2),
            // Triggers ask the cluster that their objects live in.
            door: door.with_cluster(Arc::new(KubeCluster::new(client.clone(), settings.request_timeout))),
            client,
            catalogue,
            clock,
            settings,
        }
    }

    /// What is told of a write that has ended, after so long.
    pub(crate) fn written(&self, write: Write, took: Duration, error: Option<Arc<str>>) -> What {
        let dry_run = !self.settings.writes.are_real();
        // What was read for it took its time, but nothing was written.
        let took = if dry_run { Duration::ZERO } else { took };
        What::Write { write, took, dry_run, error }
    }
}
