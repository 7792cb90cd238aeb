//! Deletes what has lost its owners, and sees foreground and orphaning deletions through.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{AbortHandle, BoxStream, SelectAll, StreamExt, abortable};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use super::{Error, Queue, ask, cache, unbroken, watch};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// Pause before what could not be done yet is tried again.
const AGAIN: Duration = Duration::from_secs(1);

type Metadata = PartialObjectMeta<DynamicObject>;
/// Group and plural of a kind.
type KindName = (String, String);

/// Runs for ever; dropping the future stops the collector.
pub(super) async fn run(client: Client) {
    let mut definitions = watch::<CustomResourceDefinition>(&client);
    let mut events = SelectAll::new();
    let mut collector = Collector {
        client,
        kinds: BTreeMap::new(),
        nodes: BTreeMap::new(),
        dependents: BTreeMap::new(),
        listings: BTreeMap::new(),
        queue: Queue::default(),
    };
    let mut discover_at = Some(Instant::now());
    loop {
        tokio::select! {
            biased;
            // New kinds come with definitions, and go with them.
            Some(_) = definitions.next() => discover_at = Some(Instant::now()),
            () = tokio::time::sleep_until(discover_at.unwrap_or_else(Instant::now)), if discover_at.is_some() => {
                discover_at = match collector.discover(&mut events).await {
                    Ok(()) => None,
                    Err(error) => {
                        tracing::debug!(%error, "the garbage collector cannot see which kinds there are");
                        Some(Instant::now() + AGAIN)
                    }
                };
            }
            Some((kind, event)) = events.next() => collector.saw(&kind, event),
            uid = collector.queue.next() => collector.work(uid).await,
        }
    }
}

struct Kind {
    resource: ApiResource,
    namespaced: bool,
    watch: AbortHandle,
}

/// What is known of one object.
struct Node {
    kind: KindName,
    namespace: Option<String>,
    name: String,
    version: Option<String>,
    owners: Vec<OwnerReference>,
    finalizers: Vec<String>,
    deleting: bool,
}

impl Node {
    fn ends_by(&self, finalizer: &str) -> bool {
        self.deleting && self.finalizers.iter().any(|held| held == finalizer)
    }
}

/// How an object stands to one of its owners.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tie {
    /// The owner is there.
    Solid,
    /// The owner has gone.
    Dangling,
    /// The owner goes as soon as this object has.
    Awaited,
}

struct Collector {
    client: Client,
    kinds: BTreeMap<KindName, Kind>,
    /// Objects by uid.
    nodes: BTreeMap<String, Node>,
    /// Uids of objects by the uid of each of their owners.
    dependents: BTreeMap<String, BTreeSet<String>>,
    /// The uids seen so far in listings under way.
    listings: BTreeMap<KindName, BTreeSet<String>>,
    queue: Queue<String>,
}

impl Collector {
    async fn discover(
        &mut self,
        events: &mut SelectAll<BoxStream<'static, (KindName, Event<Metadata>)>>,
    ) -> Result<(), Error> {
        let served = collectable(&self.client).await?;
        let lost: Vec<_> = self.kinds.keys().filter(|kind| !served.contains_key(*kind)).cloned().collect();
        for name in lost {
            if let Some(kind) = self.kinds.remove(&name) {
                kind.watch.abort();
            }
            self.listings.remove(&name);
            let gone: Vec<_> = self.nodes.iter().filter(|(_, n)| n.kind == name).map(|(uid, _)| uid.clone()).collect();
            gone.iter().for_each(|uid| self.forget(uid));
        }
        for (name, (resource, namespaced)) in served {
            if self.kinds.contains_key(&name) {
                continue;
            }
            let api = Api::<Metadata>::all_with(self.client.clone(), &resource);
            let watch = unbroken(resource.kind.clone(), watcher::watcher(api, watcher::Config::default()));
            let tag = name.clone();
            let (watch, handle) = abortable(watch.map(move |event| (tag.clone(), event)));
            events.push(watch.boxed());
            self.listings.insert(name.clone(), BTreeSet::new());
            self.kinds.insert(name, Kind { resource, namespaced, watch: handle });
        }
        Ok(())
    }

    fn saw(&mut self, kind: &KindName, event: Event<Metadata>) {
        match event {
            Event::Apply(object) => self.enter(kind, &object),
            Event::Delete(object) => self.forget(cache::uid(&object)),
            Event::Init => {
                self.listings.insert(kind.clone(), BTreeSet::new());
            }
            Event::InitApply(object) => {
                self.listings.entry(kind.clone()).or_default().insert(cache::uid(&object).to_owned());
                self.enter(kind, &object);
            }
            Event::InitDone => {
                let listed = self.listings.remove(kind).unwrap_or_default();
                let of_kind = self.nodes.iter().filter(|(uid, node)| node.kind == *kind && !listed.contains(*uid));
                let gone: Vec<_> = of_kind.map(|(uid, _)| uid.clone()).collect();
                gone.iter().for_each(|uid| self.forget(uid));
            }
        }
    }

    fn enter(&mut self, kind: &KindName, object: &Metadata) {
        let uid = cache::uid(object).to_owned();
        self.unlink(&uid);
        let owners = object.owner_references().to_vec();
        for owner in &owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        let node = Node {
            kind: kind.clone(),
            namespace: object.namespace(),
            name: object.name_any(),
            version: object.resource_version(),
            finalizers: object.finalizers().to_vec(),
            deleting: object.metadata.deletion_timestamp.is_some(),
            owners,
        };
        if node.ends_by(FOREGROUND) || node.ends_by(ORPHAN) || !node.owners.is_empty() {
            self.queue.push(uid.clone());
        }
        self.nodes.insert(uid, node);
    }

    /// An object has gone: its dependents, and owners that waited for it, are to be looked at.
    fn forget(&mut self, uid: &str) {
        let Some(node) = self.nodes.get(uid) else { return };
        for owner in &node.owners {
            if self.nodes.get(&owner.uid).is_some_and(|owner| owner.ends_by(FOREGROUND)) {
                self.queue.push(owner.uid.clone());
            }
        }
        self.unlink(uid);
        self.nodes.remove(uid);
        self.queue.remove(&uid.to_owned());
        for dependent in self.dependents.get(uid).into_iter().flatten() {
            self.queue.push(dependent.clone());
        }
    }

    fn unlink(&mut self, uid: &str) {
        let Some(node) = self.nodes.get(uid) else { return };
        for owner in &node.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    async fn work(&mut self, uid: String) {
        match self.collect(&uid).await {
            Ok(()) => self.queue.succeeded(&uid),
            Err(error) if error.is_not_found() => self.queue.succeeded(&uid),
            Err(error) => {
                let name = self.nodes.get(&uid).map(|node| node.name.as_str());
                tracing::debug!(name, %error, "garbage has to wait");
                self.queue.failed(uid);
            }
        }
    }

    async fn collect(&mut self, uid: &str) -> Result<(), Error> {
        let Some(node) = self.nodes.get(uid) else { return Ok(()) };
        if node.ends_by(ORPHAN) || node.ends_by(FOREGROUND) {
            // With a listing under way there may be dependents that are not known yet.
            if !self.listings.is_empty() {
                self.queue.push_at(uid.to_owned(), Instant::now() + AGAIN);
                return Ok(());
            }
            return if node.ends_by(ORPHAN) { self.orphan(uid).await } else { self.end_in_foreground(uid).await };
        }
        if node.deleting {
            return Ok(());
        }
        let mut ties = Vec::with_capacity(node.owners.len());
        for owner in &node.owners {
            ties.push(self.tie(node, owner).await?);
        }
        if !ties.contains(&Tie::Solid) {
            return if ties.is_empty() { Ok(()) } else { self.delete(uid, ties.contains(&Tie::Awaited)).await };
        }
        if ties.iter().all(|tie| *tie == Tie::Solid) {
            return Ok(());
        }
        let solid = node.owners.iter().zip(&ties).filter(|(_, tie)| **tie == Tie::Solid);
        let owners: Vec<_> = solid.map(|(owner, _)| owner.clone()).collect();
        self.patch(node, json!({ "ownerReferences": owners })).await
    }

    async fn tie(&self, node: &Node, owner: &OwnerReference) -> Result<Tie, Error> {
        if let Some(known) = self.nodes.get(&owner.uid) {
            let blocks = owner.block_owner_deletion == Some(true);
            return Ok(if known.ends_by(FOREGROUND) && blocks { Tie::Awaited } else { Tie::Solid });
        }
        // The watch of the owner's kind may lag behind, so only the API server's word counts.
        let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let kind = self.kinds.iter().find(|((g, _), kind)| g == group && kind.resource.kind == owner.kind);
        let Some((_, kind)) = kind else {
            tracing::debug!(kind = owner.kind, "an owner of unknown kind is taken to be there");
            return Ok(Tie::Solid);
        };
        let api = self.api(kind, node.namespace.as_deref());
        match ask(api.get_metadata(&owner.name)).await {
            Ok(found) if cache::uid(&found) == owner.uid => Ok(Tie::Solid),
            Ok(_) => Ok(Tie::Dangling),
            Err(error) if error.is_not_found() => Ok(Tie::Dangling),
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, uid: &str, awaited: bool) -> Result<(), Error> {
        let Some(node) = self.nodes.get(uid) else { return Ok(()) };
        let Some(kind) = self.kinds.get(&node.kind) else { return Ok(()) };
        let with_dependents = self.dependents.contains_key(uid);
        let how = if awaited && with_dependents { DeleteParams::foreground() } else { DeleteParams::background() };
        let how = how.preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        match ask(self.api(kind, node.namespace.as_deref()).delete(&node.name, &how)).await {
            Ok(_) => Ok(()),
            // Another object has taken the name.
            Err(error) if error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn orphan(&self, uid: &str) -> Result<(), Error> {
        for dependent in self.dependents.get(uid).into_iter().flatten().filter_map(|uid| self.nodes.get(uid)) {
            let owners: Vec<_> = dependent.owners.iter().filter(|owner| owner.uid != uid).collect();
            self.patch(dependent, json!({ "ownerReferences": owners })).await?;
        }
        self.release(uid, ORPHAN).await
    }

    async fn end_in_foreground(&self, uid: &str) -> Result<(), Error> {
        let mut blocked = false;
        for (dependent, node) in
            self.dependents.get(uid).into_iter().flatten().filter_map(|uid| self.nodes.get_key_value(uid))
        {
            let blocks = |owner: &OwnerReference| owner.uid == uid && owner.block_owner_deletion == Some(true);
            if node.owners.iter().any(blocks) {
                blocked = true;
                if !node.deleting && node.owners.len() == 1 {
                    self.delete(dependent, true).await?;
                }
            }
        }
        // A dependent that has gone brings its owner back here.
        if blocked { Ok(()) } else { self.release(uid, FOREGROUND).await }
    }

    async fn release(&self, uid: &str, finalizer: &str) -> Result<(), Error> {
        let Some(node) = self.nodes.get(uid) else { return Ok(()) };
        let left: Vec<_> = node.finalizers.iter().filter(|held| *held != finalizer).collect();
        self.patch(node, json!({ "finalizers": left })).await
    }

    async fn patch(&self, node: &Node, mut metadata: serde_json::Value) -> Result<(), Error> {
        let Some(kind) = self.kinds.get(&node.kind) else { return Ok(()) };
        metadata["resourceVersion"] = json!(node.version);
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let api = self.api(kind, node.namespace.as_deref());
        ask(api.patch_metadata(&node.name, &PatchParams::default(), &patch)).await.map(drop)
    }

    fn api(&self, kind: &Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace.filter(|_| kind.namespaced) {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind.resource),
            None => Api::all_with(self.client.clone(), &kind.resource),
        }
    }
}

/// All kinds whose objects can be watched and deleted, events apart, and whether they are namespaced.
async fn collectable(client: &Client) -> Result<BTreeMap<KindName, (ApiResource, bool)>, Error> {
    let mut lists = vec![("v1".to_owned(), ask(client.list_core_api_resources("v1")).await?)];
    for group in ask(client.list_api_groups()).await?.groups {
        let preferred = group.preferred_version.or_else(|| group.versions.into_iter().next());
        let Some(version) = preferred.map(|version| version.group_version) else { continue };
        match ask(client.list_api_group_resources(&version)).await {
            Ok(list) => lists.push((version, list)),
            // An API served by somebody else may be away.
            Err(error) => tracing::debug!(version, %error, "a group of the API does not say what it serves"),
        }
    }
    let mut found = BTreeMap::new();
    for (api_version, list) in lists {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
        for resource in list.resources {
            let can = |verb: &str| resource.verbs.iter().any(|v| v == verb);
            if resource.name.contains('/')
                || resource.name == "events"
                || !["list", "watch", "delete"].map(can).iter().all(|v| *v)
            {
                continue;
            }
            let described = ApiResource {
                group: group.to_owned(),
                version: version.to_owned(),
                api_version: api_version.clone(),
                kind: resource.kind,
                plural: resource.name.clone(),
            };
            found.insert((group.to_owned(), resource.name), (described, resource.namespaced));
        }
    }
    Ok(found)
}
