//! Deletion: graceful for running pods, held up by finalizers, and with contents for namespaces and definitions.
//!
//! What an object owns is left to the garbage collector; a wish to wait for it becomes a finalizer, as on a real server.

use std::sync::Arc;

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::failure::Failure;
use super::query::{Deletion, Preconditions, Propagation};
use super::resource::Resource;
use super::seconds;
use super::world::{Call, World};
use crate::store::Object;

/// Where CustomResourceDefinitions are stored, under the name of the collection they define.
pub(super) const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
const NAMESPACES: &str = "namespaces";
const PROTECTED: &[&str] = &["default", "kube-public", "kube-system"];
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// How far a deletion got.
pub(crate) enum Deleted {
    /// The object is gone.
    Gone(Arc<Object>),
    /// It waits for its grace period, its finalizers or its contents.
    Pending(Arc<Object>),
}

impl Deleted {
    pub(crate) fn object(&self) -> &Arc<Object> {
        match self {
            Self::Gone(object) | Self::Pending(object) => object,
        }
    }
}

/// Deletes one object.
pub(crate) fn delete(
    world: &mut World,
    call: &Call<'_>,
    name: &str,
    options: &Deletion,
    rehearsal: bool,
) -> Result<Deleted, Failure> {
    let found = world.store.get(&call.resource.collection, call.namespace, name).cloned();
    let object = found.ok_or_else(|| call.resource.not_found(name))?;
    check(call.resource, &object, &options.preconditions)?;
    // Jobs leave their pods behind unless told otherwise: old, and kept by every Kubernetes.
    let orphans = &*call.resource.collection == "jobs.batch";
    let propagation = options.propagation()?.or(orphans.then_some(Propagation::Orphan));
    if rehearsal {
        return Ok(Deleted::Gone(object));
    }
    Ok(remove(world, call.resource, &object, propagation, options.grace_period_seconds, call.now))
}

fn check(resource: &Resource, object: &Object, wanted: &Preconditions) -> Result<(), Failure> {
    if &*resource.collection == NAMESPACES && PROTECTED.contains(&&*object.name) {
        let message = format!("namespaces \"{}\" is forbidden: this namespace may not be deleted", object.name);
        return Err(Failure::new(StatusCode::FORBIDDEN, "Forbidden", message));
    }
    let pairs = [
        ("UID", wanted.uid.as_deref(), object.uid().to_owned()),
        ("ResourceVersion", wanted.resource_version.as_deref(), object.revision.to_string()),
    ];
    for (what, wanted, found) in pairs {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). \
                 The object might have been deleted and then recreated"
            );
            return Err(Failure::conflict(&resource.group, &resource.plural, &object.name, &why));
        }
    }
    Ok(())
}

fn remove(
    world: &mut World,
    resource: &Resource,
    object: &Arc<Object>,
    propagation: Option<Propagation>,
    grace: Option<i64>,
    now: Timestamp,
) -> Deleted {
    let mut next = object.value.clone();
    let metadata = &mut next["metadata"];
    let finalizers = finalizers(metadata, propagation);
    let grace = if &*resource.collection == "pods" { pod_grace(&object.value, grace) } else { 0 };
    let holds = contains_others(resource);
    if finalizers.is_empty() && grace == 0 && !holds {
        return Deleted::Gone(finish(world, resource, object));
    }
    if finalizers.is_empty() {
        if let Some(fields) = metadata.as_object_mut() {
            fields.shift_remove("finalizers");
        }
    } else {
        metadata["finalizers"] = finalizers.into();
    }
    mark(metadata, grace, now);
    if &*resource.collection == NAMESPACES {
        next["status"]["phase"] = "Terminating".into();
    }
    if next == object.value {
        return Deleted::Pending(object.clone());
    }
    let marked = world.store.put(&resource.collection, next);
    if holds {
        empty(world, resource, &marked.name, now);
    }
    match world.store.get(&resource.collection, &object.namespace, &object.name) {
        Some(still) => Deleted::Pending(still.clone()),
        None => Deleted::Gone(marked),
    }
}

/// The finalizers after the wish for propagation.
fn finalizers(metadata: &Value, propagation: Option<Propagation>) -> Vec<Value> {
    let mut finalizers = metadata["finalizers"].as_array().cloned().unwrap_or_default();
    let Some(propagation) = propagation else { return finalizers };
    finalizers.retain(|one| one != FOREGROUND && one != ORPHAN);
    match propagation {
        Propagation::Foreground => finalizers.push(FOREGROUND.into()),
        Propagation::Orphan => finalizers.push(ORPHAN.into()),
        Propagation::Background => {}
    }
    finalizers
}

/// Seconds that a pod's processes get. Only a kubelet can wait for them: without a node, or with all containers ended,
/// there is nothing to wait for. A deletion under way can only be shortened.
fn pod_grace(pod: &Value, wanted: Option<i64>) -> i64 {
    let (spec, phase) = (&pod["spec"], &pod["status"]["phase"]);
    if spec["nodeName"].as_str().is_none_or(str::is_empty) || phase == "Succeeded" || phase == "Failed" {
        return 0;
    }
    let metadata = &pod["metadata"];
    let running = metadata["deletionGracePeriodSeconds"].as_i64().filter(|_| !metadata["deletionTimestamp"].is_null());
    let least = |seconds: i64| if seconds < 0 { 1 } else { seconds };
    let wanted = wanted.map(least);
    match (running, wanted) {
        (Some(running), Some(wanted)) => wanted.min(running),
        (Some(running), None) => running,
        (None, Some(wanted)) => wanted,
        (None, None) => spec["terminationGracePeriodSeconds"].as_i64().map_or(30, least),
    }
}

fn mark(metadata: &mut Value, grace: i64, now: Timestamp) {
    let first = metadata["deletionTimestamp"].is_null();
    let shortened = metadata["deletionGracePeriodSeconds"].as_i64().is_some_and(|running| grace < running);
    if first || shortened {
        let end = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
        metadata["deletionTimestamp"] = seconds(end).into();
        metadata["deletionGracePeriodSeconds"] = grace.into();
    }
    if let Some(generation) = metadata["generation"].as_i64().filter(|_| first) {
        metadata["generation"] = (generation + 1).into();
    }
}

/// Finishes a deletion if the object's last change took away what held it up.
pub(super) fn after_update(world: &mut World, resource: &Resource, object: &Arc<Object>) {
    let metadata = &object.value["metadata"];
    let free = metadata["finalizers"].as_array().is_none_or(Vec::is_empty);
    let grace = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if metadata["deletionTimestamp"].is_null() || !free || grace > 0 {
        return;
    }
    match &*resource.collection {
        NAMESPACES => settle_namespace(world, &object.name),
        DEFINITIONS => settle_definition(world, &object.name),
        _ => {
            finish(world, resource, object);
        }
    }
}

/// Removes an object for good, and with it the dying namespace or definition of which it was the last content.
pub(super) fn finish(world: &mut World, resource: &Resource, object: &Arc<Object>) -> Arc<Object> {
    let gone = world.store.remove(&resource.collection, &object.namespace, &object.name);
    if !object.namespace.is_empty() {
        settle_namespace(world, &object.namespace);
    }
    settle_definition(world, &resource.collection);
    gone.unwrap_or_else(|| object.clone())
}

fn contains_others(resource: &Resource) -> bool {
    matches!(&*resource.collection, NAMESPACES | DEFINITIONS)
}

/// Deletes what is in a namespace or defined by a definition.
fn empty(world: &mut World, resource: &Resource, name: &str, now: Timestamp) {
    let (collections, namespace): (Vec<_>, _) = if &*resource.collection == NAMESPACES {
        (world.store.collections().cloned().collect(), Some(name))
    } else {
        (vec![Arc::from(name)], None)
    };
    for collection in collections {
        let Some(resource) = world.catalogue.by_collection(&collection).cloned() else { continue };
        if namespace.is_some() && !resource.namespaced {
            continue;
        }
        let contents: Vec<_> = world.store.list(&collection, namespace).cloned().collect();
        for object in contents {
            remove(world, &resource, &object, Some(Propagation::Background), None, now);
        }
    }
    match namespace {
        Some(namespace) => settle_namespace(world, namespace),
        None => settle_definition(world, name),
    }
}

fn dying(world: &World, collection: &str, name: &str) -> Option<Arc<Object>> {
    let object = world.store.get(collection, "", name)?;
    let metadata = &object.value["metadata"];
    let held = metadata["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
    (!metadata["deletionTimestamp"].is_null() && !held).then(|| object.clone())
}

fn settle_namespace(world: &mut World, name: &str) {
    if dying(world, NAMESPACES, name).is_none() {
        return;
    }
    let occupied = world.store.collections().any(|collection| {
        let namespaced = world.catalogue.by_collection(collection).is_some_and(|resource| resource.namespaced);
        namespaced && world.store.list(collection, Some(name)).next().is_some()
    });
    if !occupied {
        world.store.remove(NAMESPACES, "", name);
    }
}

fn settle_definition(world: &mut World, collection: &str) {
    let Some(definition) = dying(world, DEFINITIONS, collection) else { return };
    if world.store.list(collection, None).next().is_some() {
        return;
    }
    let spec = &definition.value["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    world.catalogue.forget(&text(&spec["group"]), &text(&spec["names"]["plural"]));
    world.store.remove(DEFINITIONS, "", collection);
}

/// The answer to a deletion that is done.
pub(crate) fn success(resource: &Resource, object: &Object) -> Value {
    let mut details = json!({"name": &*object.name, "kind": resource.plural, "uid": object.uid()});
    if !resource.group.is_empty() {
        details["group"] = resource.group.as_str().into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_placed_and_running_pod_needs_grace() {
        let pod = |node: Value, phase: &str| json!({"metadata": {}, "spec": {"nodeName": node, "terminationGracePeriodSeconds": 7}, "status": {"phase": phase}});
        assert_eq!(pod_grace(&pod(Value::Null, "Running"), None), 0);
        assert_eq!(pod_grace(&pod(json!("n"), "Failed"), None), 0);
        assert_eq!(pod_grace(&pod(json!("n"), "Running"), None), 7);
        assert_eq!(pod_grace(&pod(json!("n"), "Running"), Some(0)), 0);
        let mut dying = pod(json!("n"), "Running");
        dying["metadata"] = json!({"deletionTimestamp": "t", "deletionGracePeriodSeconds": 5});
        assert_eq!(pod_grace(&dying, Some(9)), 5);
        assert_eq!(pod_grace(&dying, Some(2)), 2);
    }
}
