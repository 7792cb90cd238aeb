//! Everything that a request may look at or change.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use serde_json::{Value, json};
use tidemark_clock::Clock;

use super::admission::{AdmissionHook, HookOperation};
use super::aggregate::AggregatedService;
use super::logs::ContainerLogs;
use super::query::Query;
use super::resource::{Catalogue, Resource};
use super::write;
use crate::store::Store;

/// The namespaces of a fresh cluster.
const NAMESPACES: &[&str] = &["default", "kube-public", "kube-system"];
/// Out of which network services get their addresses, as of a fresh cluster.
const SERVICE_NETWORK: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 0);
/// Who writes what the server needs itself.
const SELF: &str = "kube-apiserver";

/// The state of the server.
pub(crate) struct World {
    pub store: Store,
    pub catalogue: Catalogue,
    /// Aggregated APIs by group and version.
    pub mounts: BTreeMap<(String, String), AggregatedService>,
    service_network: Ipv4Addr,
}

/// The state behind its lock, and the clock.
pub(crate) struct Shared {
    pub clock: Clock,
    world: Mutex<World>,
    logs: OnceLock<Arc<dyn ContainerLogs>>,
    hooks: RwLock<Vec<Arc<AdmissionHook>>>,
}

/// What a request is about.
pub(crate) struct Call<'a> {
    pub resource: &'a Resource,
    /// Empty for cluster-scoped objects.
    pub namespace: &'a str,
    pub query: &'a Query,
    pub now: jiff::Timestamp,
    /// The field manager.
    pub writer: &'a str,
    /// The form in which the object is written.
    pub api_version: &'a str,
}

impl Shared {
    /// A fresh cluster that remembers the last `history` changes of each resource.
    pub(crate) fn new(clock: Clock, history: usize) -> Arc<Self> {
        let mut world = World {
            store: Store::new(history),
            catalogue: Catalogue::new(),
            mounts: BTreeMap::new(),
            service_network: SERVICE_NETWORK,
        };
        for name in NAMESPACES {
            let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            // Sound by construction, as the tests show.
            let _ = world.create_own("", "v1", "namespaces", body, clock.now());
        }
        Arc::new(Self { clock, world: Mutex::new(world), logs: OnceLock::new(), hooks: RwLock::default() })
    }

    /// The state. Every change is complete when the lock is given back, so a panic elsewhere leaves it sound.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives new services addresses out of the /16 network of an address.
    pub(crate) fn use_service_network(&self, network: Ipv4Addr) {
        self.world().service_network = network;
    }

    /// Serves the logs of containers from now on. Only the first keeper counts.
    pub(crate) fn keep_logs(&self, logs: Arc<dyn ContainerLogs>) {
        let _ = self.logs.set(logs);
    }

    pub(super) fn logs(&self) -> Option<Arc<dyn ContainerLogs>> {
        self.logs.get().cloned()
    }

    /// Asks a webhook from now on. One of the same name is replaced.
    pub(crate) fn ask(&self, hook: AdmissionHook) {
        let mut hooks = self.hooks.write().unwrap_or_else(PoisonError::into_inner);
        hooks.retain(|other| other.name != hook.name);
        hooks.push(Arc::new(hook));
    }

    /// The webhooks that are asked about an operation on a resource.
    pub(super) fn hooks(&self, resource: &Resource, operation: HookOperation) -> Vec<Arc<AdmissionHook>> {
        let hooks = self.hooks.read().unwrap_or_else(PoisonError::into_inner);
        hooks.iter().filter(|hook| hook.is_asked(resource, operation)).cloned().collect()
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
        let api_version = resource.api_version();
        let call =
            Call { resource: &resource, namespace: "", query: &query, now, writer: SELF, api_version: &api_version };
        let prepared = write::create(self, &call, body)?;
        self.made(&call, prepared)
    }

    fn made(&mut self, call: &Call<'_>, prepared: write::Prepared) -> Result<write::Written, super::failure::Failure> {
        // The world was not given back in between.
        write::commit(self, call, prepared)?.ok_or_else(|| call.resource.stale(""))
    }

    /// Gives a new service its address, unless it wants none or has one.
    pub(super) fn give_address(&self, resource: &Resource, value: &mut Value, identity: u64) {
        if &*resource.collection != "services" || value["spec"]["type"] == "ExternalName" {
            return;
        }
        let spec = &mut value["spec"];
        if spec["clusterIP"].as_str().is_none_or(str::is_empty) {
            let [.., high, low] = (identity + 1).to_be_bytes();
            let [first, second, ..] = self.service_network.octets();
            spec["clusterIP"] = format!("{first}.{second}.{high}.{low}").into();
        }
        if spec["clusterIPs"].as_array().is_none_or(Vec::is_empty) {
            spec["clusterIPs"] = json!([spec["clusterIP"]]);
        }
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
        let api_version = resource.api_version();
        let call =
            Call { resource: &resource, namespace: "", query: &query, now, writer: SELF, api_version: &api_version };
        let prepared = write::update(self, &call, name, body, write::Part::Whole)?;
        self.made(&call, prepared)
    }
}
