//! The objects that carry the finalizer.

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tidemark_api::{
    CloudEventSource, ClusterCloudEventSource, ClusterTriggerAuthentication, FINALIZER, ScaledJob, ScaledObject,
    TriggerAuthentication,
};

use super::{ReleaseArgs, say};

/// Objects of one page of a list.
const PAGE: u32 = 500;
/// Objects that are changed at once.
const AT_ONCE: usize = 16;
/// Times that a change is tried again after somebody else has written first.
const CONFLICTS: usize = 5;

/// Whose objects are freed: those that the installation watched.
pub struct Which {
    namespaces: Vec<String>,
    scaling: String,
    authentications: String,
}

impl Which {
    pub fn new(args: &ReleaseArgs) -> Self {
        // As the operator reads them.
        let names = args.watch_namespaces.iter().map(|name| name.trim().trim_matches('"').trim().to_owned());
        Self {
            namespaces: names.filter(|name| !name.is_empty()).collect(),
            scaling: args.watch_label_selector.trim().to_owned(),
            authentications: args.watch_label_selector_for_triggerauth.trim().to_owned(),
        }
    }

    /// Where and how each kind is listed that KEDA and Tidemark put the finalizer on.
    fn lists(&self, client: &Client) -> Vec<List> {
        let (none, scaling, authentications) = ("", self.scaling.as_str(), self.authentications.as_str());
        let namespaced = [
            (ApiResource::erase::<ScaledObject>(&()), scaling),
            (ApiResource::erase::<ScaledJob>(&()), scaling),
            (ApiResource::erase::<TriggerAuthentication>(&()), authentications),
            (ApiResource::erase::<CloudEventSource>(&()), none),
        ];
        let cluster = [
            (ApiResource::erase::<ClusterTriggerAuthentication>(&()), authentications),
            (ApiResource::erase::<ClusterCloudEventSource>(&()), none),
        ];
        let mut lists = Vec::new();
        let mut add = |kind: &ApiResource, selector: &str, namespace: Option<&String>| {
            let api = match namespace {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, kind),
                None => Api::all_with(client.clone(), kind),
            };
            lists.push(List { kind: kind.clone(), selector: selector.to_owned(), api });
        };
        for (kind, selector) in &namespaced {
            match self.namespaces.as_slice() {
                [] => add(kind, selector, None),
                namespaces => namespaces.iter().for_each(|namespace| add(kind, selector, Some(namespace))),
            }
        }
        cluster.iter().for_each(|(kind, selector)| add(kind, selector, None));
        lists
    }
}

struct List {
    kind: ApiResource,
    selector: String,
    api: Api<DynamicObject>,
}

/// What came of looking at all objects, once or several times.
#[derive(Default)]
pub struct Pass {
    /// Objects that had the finalizer.
    pub held: usize,
    /// Objects that have lost it, or were gone.
    pub freed: usize,
    /// Of those, the ones that were being deleted.
    pub going: usize,
    /// What could not be done, and why.
    pub failed: Vec<String>,
}

impl Pass {
    /// Adds a later one, whose failures are the ones that are left.
    pub fn add(&mut self, later: Self) {
        self.held = later.held;
        self.freed += later.freed;
        self.going += later.going;
        self.failed = later.failed;
    }
}

/// Looks at all objects once, and takes the finalizer away if `free`. One that cannot be changed holds no other up.
pub async fn look(client: &Client, which: &Which, free: bool) -> Pass {
    let mut pass = Pass::default();
    for list in which.lists(client) {
        if let Err(error) = look_at(client, &list, free, &mut pass).await {
            pass.failed.push(format!("{} cannot be listed: {error}", list.kind.plural));
        }
    }
    pass
}

async fn look_at(client: &Client, list: &List, free: bool, pass: &mut Pass) -> kube::Result<()> {
    let mut params = ListParams::default().limit(PAGE);
    if !list.selector.is_empty() {
        params = params.labels(&list.selector);
    }
    loop {
        let page = match list.api.list_metadata(&params).await {
            // The kind is not installed.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            page => page?,
        };
        let held = page.items.into_iter().map(|item| item.metadata).filter(carries);
        let outcomes = futures::stream::iter(held.map(|metadata| deal_with(client, list, metadata, free)));
        let mut outcomes = outcomes.buffered(AT_ONCE);
        while let Some(outcome) = outcomes.next().await {
            pass.held += 1;
            match outcome {
                Dealt::Seen => {}
                Dealt::Freed { going } => {
                    pass.freed += 1;
                    pass.going += usize::from(going);
                }
                Dealt::Failed(why) => pass.failed.push(why),
            }
        }
        match page.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => params = params.continue_token(&more),
            None => return Ok(()),
        }
    }
}

fn carries(metadata: &ObjectMeta) -> bool {
    metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// What has been done with one object.
enum Dealt {
    Seen,
    Freed { going: bool },
    Failed(String),
}

async fn deal_with(client: &Client, list: &List, metadata: ObjectMeta, free: bool) -> Dealt {
    let (kind, name) = (&list.kind.kind, metadata.name.clone().unwrap_or_default());
    let place = match &metadata.namespace {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    };
    let going = metadata.deletion_timestamp.is_some();
    let what = if going { "it was being deleted, and goes now" } else { "it can be deleted" };
    if !free {
        // A closed standard output is found out at the end.
        let _ = say(&format!("{place} has the finalizer"));
        return Dealt::Seen;
    }
    match take_finalizer(client, &list.kind, metadata).await {
        Ok(()) => {
            let _ = say(&format!("{place} is free: {what}"));
            Dealt::Freed { going }
        }
        Err(error) => Dealt::Failed(format!("{place} keeps its finalizer: {error}")),
    }
}

async fn take_finalizer(client: &Client, kind: &ApiResource, mut metadata: ObjectMeta) -> kube::Result<()> {
    let api: Api<DynamicObject> = match &metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, kind),
        None => Api::all_with(client.clone(), kind),
    };
    let params = PatchParams { field_manager: Some("tidemark".to_owned()), ..PatchParams::default() };
    let (name, uid) = (metadata.name.clone().unwrap_or_default(), metadata.uid.clone());
    let mut conflicts = 0;
    loop {
        match api.patch_metadata(&name, &params, &Patch::Merge(&without(&metadata))).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 && conflicts < CONFLICTS => conflicts += 1,
            Err(error) => return Err(error),
        }
        match api.get_metadata_opt(&name).await? {
            // Another object of that name is a matter of the next look.
            Some(fresh) if fresh.uid() == uid && carries(&fresh.metadata) => metadata = fresh.metadata,
            _ => return Ok(()),
        }
    }
}

/// The change that leaves only the other finalizers.
fn without(metadata: &ObjectMeta) -> serde_json::Value {
    let finalizers = metadata.finalizers.iter().flatten();
    let others: Vec<&String> = finalizers.filter(|finalizer| *finalizer != FINALIZER).collect();
    json!({"metadata": {"resourceVersion": metadata.resource_version, "finalizers": others}})
}
