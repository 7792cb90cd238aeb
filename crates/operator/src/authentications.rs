//! What the operator writes on TriggerAuthentications and ClusterTriggerAuthentications: the list of the objects that
//! use them; and it takes KEDA's finalizer off those that are being deleted.

use std::collections::BTreeSet;
use std::fmt::Debug;

use kube::Resource;
use kube::api::{Api, Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::json;
use tidemark_api::{
    AuthenticationKind, AuthenticationStatus, ClusterTriggerAuthentication, FINALIZER, TriggerAuthentication,
};

use crate::FIELD_MANAGER;
use crate::client;
use crate::context::Context;

/// Times that a status is written again after somebody else has written first.
const CONFLICTS: u32 = 5;

/// An authentication object. The namespace of the cluster-wide kind is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AuthenticationKey {
    pub(crate) kind: AuthenticationKind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Writes the names of the ScaledObjects that use an authentication, if they are others than those written there.
///
/// With `keep`, names that are there stay: they may be those of another operator's objects.
pub(crate) async fn write_users(
    ctx: &Context,
    key: &AuthenticationKey,
    users: BTreeSet<String>,
    keep: bool,
) -> Result<(), String> {
    match key.kind {
        AuthenticationKind::TriggerAuthentication => {
            let api = Api::<TriggerAuthentication>::namespaced(ctx.client.clone(), &key.namespace);
            write_users_to(api, &key.name, |object| object.status.as_ref(), users, keep).await
        }
        AuthenticationKind::ClusterTriggerAuthentication => {
            let api = Api::<ClusterTriggerAuthentication>::all(ctx.client.clone());
            write_users_to(api, &key.name, |object| object.status.as_ref(), users, keep).await
        }
    }
}

async fn write_users_to<K>(
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
        let present = status(&object).and_then(|status| status.scaledobjects.as_deref()).unwrap_or_default();
        let listed: BTreeSet<&str> = present.split(',').filter(|name| !name.is_empty()).collect();
        let mut wanted: BTreeSet<&str> = users.iter().map(String::as_str).collect();
        if keep {
            wanted.extend(&listed);
        }
        if wanted == listed {
            return Ok(());
        }
        let text = wanted.into_iter().collect::<Vec<_>>().join(",");
        let patch = json!({
            "metadata": {"resourceVersion": object.meta().resource_version},
            "status": {"scaledobjects": text},
        });
        match api.patch_status(name, &parameters(), &Patch::Merge(&patch)).await {
            Err(error) if client::is_conflict(&error) && conflicts < CONFLICTS => conflicts += 1,
            Err(error) if !client::is_absent(&error) => return Err(client::describe(&error)),
            _ => return Ok(()),
        }
    }
}

/// Takes KEDA's finalizer off an authentication object that is being deleted: it guards nothing.
pub(crate) async fn release(ctx: &Context, key: &AuthenticationKey) -> Result<(), String> {
    match key.kind {
        AuthenticationKind::TriggerAuthentication => {
            release_from(Api::<TriggerAuthentication>::namespaced(ctx.client.clone(), &key.namespace), &key.name).await
        }
        AuthenticationKind::ClusterTriggerAuthentication => {
            release_from(Api::<ClusterTriggerAuthentication>::all(ctx.client.clone()), &key.name).await
        }
    }
}

async fn release_from<K>(api: Api<K>, name: &str) -> Result<(), String>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let Some(object) = api.get_opt(name).await.map_err(|error| client::describe(&error))? else { return Ok(()) };
    let meta = object.meta();
    let finalizers = meta.finalizers.as_deref().unwrap_or_default();
    if meta.deletion_timestamp.is_none() || !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(());
    }
    let others: Vec<_> = finalizers.iter().filter(|finalizer| *finalizer != FINALIZER).collect();
    let patch = json!({"metadata": {"resourceVersion": meta.resource_version, "finalizers": others}});
    match api.patch(name, &parameters(), &Patch::Merge(&patch)).await {
        Err(error) if !client::is_absent(&error) => Err(client::describe(&error)),
        _ => Ok(()),
    }
}

fn parameters() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}
