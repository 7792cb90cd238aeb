//! Everything that a request may look at or change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tidemark_clock::Clock;

use super::aggregate::AggregatedService;
use super::query::Query;
use super::resource::{Catalogue, Resource};
use super::write;
use crate::store::Store;

/// The namespaces of a fresh cluster.
const NAMESPACES: &[&str] = &["default", "kube-public", "kube-system"];

/// The state of the server.
pub(crate) struct World {
    pub store: Store,
    pub catalogue: Catalogue,
    /// Aggregated APIs by group and version.
    pub mounts: BTreeMap<(String, String), AggregatedService>,
}

/// The state behind its lock, and the clock.
pub(crate) struct Shared {
    pub clock: Clock,
    world: Mutex<World>,
}

/// What a request is about.
pub(crate) struct Call<'a> {
    pub resource: &'a Resource,
    /// Empty for cluster-scoped objects.
    pub namespace: &'a str,
    pub query: &'a Query,
    pub now: jiff::Timestamp,
}

impl Shared {
    /// A fresh cluster that remembers the last `history` changes of each resource.
    pub(crate) fn new(clock: Clock, history: usize) -> Arc<Self> {
        let mut world = World { store: Store::new(history), catalogue: Catalogue::new(), mounts: BTreeMap::new() };
        for name in NAMESPACES {
            let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            // Sound by construction, as the tests show.
            let _ = world.create_own("", "v1", "namespaces", body, clock.now());
        }
        Arc::new(Self { clock, world: Mutex::new(world) })
    }

    /// The state. Every change is complete when the lock is given back, so a panic elsewhere leaves it sound.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    /// Creates an object that the server itself needs, by the rules for everyone.
    pub(crate) fn create_own(
        &mut self,
        group: &str,
        version: &str,
        plural: &str,
        body: Value,
        now: jiff::Timestamp,
    ) -> Result<write::Written, super::failure::Failure> {
        let resource = self.catalogue.get(group, version, plural).cloned();
        let resource = resource.ok_or_else(super::failure::Failure::no_such_path)?;
        let query = Query::default();
        let call = Call { resource: &resource, namespace: "", query: &query, now };
        write::create(self, &call, body)
    }

    /// Replaces a CustomResourceDefinition whatever it is now.
    pub(crate) fn replace_definition(
        &mut self,
        name: &str,
        mut body: Value,
        revision: u64,
        now: jiff::Timestamp,
    ) -> Result<write::Written, super::failure::Failure> {
        let resource = self.catalogue.get("apiextensions.k8s.io", "v1", "customresourcedefinitions").cloned();
        let resource = resource.ok_or_else(super::failure::Failure::no_such_path)?;
        body["metadata"]["resourceVersion"] = revision.to_string().into();
        let query = Query::default();
        let call = Call { resource: &resource, namespace: "", query: &query, now };
        write::update(self, &call, name, body, write::Part::Whole)
    }
}
