//! What the operator writes on TriggerAuthentications and ClusterTriggerAuthentications: the list of the objects that
//! use them; and it takes KEDA's finalizer off those that are being deleted.

use std::collections::BTreeSet;
use std::fmt::Debug;

use kube::Resource;
use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tidemark_api::{
    AuthenticationKind, AuthenticationStatus, ClusterTriggerAuthentication, FINALIZER, TriggerAuthentication,
};

use crate::FIELD_MANAGER;
use crate::client;
use crate::context::Context;

/// Times that a write is made again after somebody else has written first.
const CONFLICTS: u32 = 5;

/// An authentication object. The namespace of the cluster-wide kind is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AuthenticationKey {
    pub(crate) kind: AuthenticationKind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Writes the names of the ScaledObjects that use an authentication, if they are others than those written there; from
/// one that is being deleted it takes KEDA's finalizer, which guards nothing.
///
/// With `keep`, names that are there stay: they may be those of another operator's objects.
pub(crate) async fn settle(
    ctx: &Context,
    key: &AuthenticationKey,
    users: BTreeSet<String>,
    keep: bool,
) -> Result<(), String> {
    match key.kind {
        AuthenticationKind::TriggerAuthentication => {
            let api = Api::<TriggerAuthentication>::namespaced(ctx.client.clone(), &key.namespace);
            settle_one(api, &key.name, |object| object.status.as_ref(), users, keep).await
        }
        AuthenticationKind::ClusterTriggerAuthentication => {
            let api = Api::<ClusterTriggerAuthentication>::all(ctx.client.clone());
            settle_one(api, &key.name, |object| object.status.as_ref(), users, keep).await
        }
    }
}

async fn settle_one<K>(
    api: Api<K>,
    name: &str,
    status: fn(&K) -> Option<&AuthenticationStatus>,
    users: BTreeSet<String>,
    keep: bool,
) -> Result<(), String>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut conflicts = 0;
    loop {
        let Some(object) = api.get_opt(name).await.map_err(|error| client::describe(&error))? else { return Ok(()) };
        let written = if object.meta().deletion_timestamp.is_some() {
            let Some(patch) = release(object.meta()) else { return Ok(()) };
            api.patch(name, &parameters(), &Patch::Merge(&patch)).await
        } else {
            let Some(patch) = listing(object.meta(), status(&object), &users, keep) else { return Ok(()) };
            api.patch_status(name, &parameters(), &Patch::Merge(&patch)).await
        };
        match written {
            Err(error) if client::is_conflict(&error) && conflicts < CONFLICTS => conflicts += 1,
            Err(error) if !client::is_absent(&error) => return Err(client::describe(&error)),
            _ => return Ok(()),
        }
    }
}

/// The change of the status after which it lists these users; none where it does.
fn listing(
    meta: &ObjectMeta,
    status: Option<&AuthenticationStatus>,
    users: &BTreeSet<String>,
    keep: bool,
) -> Option<Value> {
    let present = status.and_then(|status| status.scaledobjects.as_deref()).unwrap_or_default();
    let listed: BTreeSet<&str> = present.split(',').filter(|name| !name.is_empty()).collect();
    let mut wanted: BTreeSet<&str> = users.iter().map(String::as_str).collect();
    if keep {
        wanted.extend(&listed);
    }
    let text = || wanted.iter().copied().collect::<Vec<_>>().join(",");
    (wanted != listed)
        .then(|| json!({"metadata": {"resourceVersion": meta.resource_version}, "status": {"scaledobjects": text()}}))
}

/// The change after which KEDA's finalizer is gone; none where there is none.
fn release(meta: &ObjectMeta) -> Option<Value> {
    let finalizers = meta.finalizers.as_deref().unwrap_or_default();
    let others: Vec<_> = finalizers.iter().filter(|finalizer| *finalizer != FINALIZER).collect();
    (others.len() < finalizers.len())
        .then(|| json!({"metadata": {"resourceVersion": meta.resource_version, "finalizers": others}}))
}

fn parameters() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}
