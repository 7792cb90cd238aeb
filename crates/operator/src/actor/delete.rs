//! The end of an object: the loop stops, the target gets its first replicas back where that is asked for, and the
//! finalizer goes. The HPA goes by garbage collection.

use std::sync::Arc;

use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tidemark_api::{FINALIZER, ScaledObject};
use tokio::time::Instant;

use super::under_way::UnderWay;
use super::{Actor, Done, Retry};
use crate::FIELD_MANAGER;
use crate::client;
use crate::context::Context;
use crate::observation::{Life, ObjectKey, ScaleCause, Stage, What, Write};
use crate::target::Scaled;

/// Times that the finalizer's removal is tried again after somebody else has written first.
const CONFLICTS: u32 = 5;

impl Actor {
    /// Ends everything under way and begins the end.
    pub(super) fn begin_deletion(&mut self, object: Box<ScaledObject>) {
        self.deleting = true;
        self.stop_polling("the ScaledObject is being deleted");
        self.work = UnderWay::default();
        for request in std::mem::take(&mut self.check.early) {
            self.on_metric_request(request);
        }
        (self.check.retry, self.status_write.retry) = (Retry::default(), Retry::default());
        if object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
            self.finalize(Some(object));
        }
    }

    /// Finishes the deletion; without the object, it is read first.
    pub(super) fn finalize(&mut self, object: Option<Box<ScaledObject>>) {
        let (ctx, key, uid) = (self.ctx.clone(), self.entry.key.clone(), self.entry.uid.clone());
        // The target of another object is none of its business.
        let restores = self.rival.is_none();
        self.finalizing = true;
        self.start(async move { Done::Finalized(finalize(&ctx, &key, &uid, object, restores).await) });
    }

    pub(super) fn on_finalized(&mut self, result: Result<(), String>) {
        self.finalizing = false;
        match result {
            Ok(()) => {
                self.delete_retry.settled();
                self.tell_life(Life::Deleted);
            }
            Err(message) => {
                self.delete_retry.after_failure();
                self.tell_error(Stage::Deletion, message);
            }
        }
    }
}

async fn finalize(
    ctx: &Context,
    key: &Arc<ObjectKey>,
    uid: &Arc<str>,
    object: Option<Box<ScaledObject>>,
    restores: bool,
) -> Result<(), String> {
    let api: Api<ScaledObject> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let mut object = match object {
        Some(object) => object,
        None => match api.get_opt(&key.name).await.map_err(|error| client::describe(&error))? {
            Some(object) if object.metadata.uid.as_deref() == Some(uid) => Box::new(object),
            _ => return Ok(()),
        },
    };
    if restores {
        restore(ctx, key, uid, &object).await;
    }
    let (begun, mut conflicts) = (Instant::now(), 0);
    let told = |error: Option<&str>| {
        let what = ctx.written(Write::FinalizerRemoved, begun.elapsed(), error.map(Into::into));
        ctx.observer.tell(key, uid, 0, what);
    };
    loop {
        let others: Vec<&String> = object.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
        let patch = json!({"metadata": {"resourceVersion": object.resource_version(), "finalizers": others}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch(&key.name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => {
                told(None);
                return Ok(());
            }
            Err(error) if client::is_absent(&error) => return Ok(()),
            Err(error) if client::is_conflict(&error) && conflicts < CONFLICTS => conflicts += 1,
            Err(error) => {
                let message = client::describe(&error);
                told(Some(&message));
                return Err(message);
            }
        }
        match api.get_opt(&key.name).await.map_err(|error| client::describe(&error))? {
            Some(fresh) if fresh.metadata.uid.as_deref() == Some(uid) => *object = fresh,
            _ => return Ok(()),
        }
    }
}

/// Gives the target the replicas that it had at first, where the object asks for it. A failure never holds the
/// deletion up.
async fn restore(ctx: &Context, key: &Arc<ObjectKey>, uid: &Arc<str>, object: &ScaledObject) {
    let asked = object.spec.advanced.as_ref().and_then(|advanced| advanced.restore_to_original_replica_count);
    let status = object.status.as_ref().filter(|status| status.scale_target_gvkr.is_some());
    let (Some(true), Some(to)) = (asked, status.and_then(|status| status.original_replica_count)) else { return };
    let target = match ctx.kinds.resolve(&ctx.client, &key.namespace, &object.spec.scale_target_ref).await {
        Ok(target) => target,
        Err(error) => {
            let what = What::Error { stage: Stage::Deletion, message: error.to_string().into() };
            return ctx.observer.tell(key, uid, 0, what);
        }
    };
    let begun = Instant::now();
    let (from, error) = match target.scale(&ctx.client, None, to).await {
        Scaled::Done { written: false, .. } | Scaled::Moved { .. } => return,
        Scaled::Done { from, .. } => (from, None),
        Scaled::Failed { from, message } => (from, Some(message.into())),
    };
    let write = Write::Scale { target: target.describe(), from, to, cause: ScaleCause::Restored };
    ctx.observer.tell(key, uid, 0, ctx.written(write, begun.elapsed(), error));
}
