//! A ScaledObject's status: conditions, and the merge patch that carries what changed.

use std::ops::Deref;

use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Map, Value, json};
use tidemark_api::{Condition, ScaledObject, ScaledObjectStatus};
use tidemark_engine::verdict::Verdict;

use crate::FIELD_MANAGER;
use crate::client;
use crate::observation::ObjectKey;

pub(crate) const READY: &str = "Ready";
pub(crate) const ACTIVE: &str = "Active";
pub(crate) const FALLBACK: &str = "Fallback";
pub(crate) const PAUSED: &str = "Paused";
pub(crate) const HPA_ACTIVE: &str = "HPAActive";
/// The conditions that this operator writes; those of other types are other people's.
const OWN: [&str; 5] = [READY, ACTIVE, FALLBACK, PAUSED, HPA_ACTIVE];

/// A condition of a status.
pub(crate) fn condition<'a>(status: &'a ScaledObjectStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// Whether the condition is there and True.
pub(crate) fn is_true(status: &ScaledObjectStatus, kind: &str) -> bool {
    condition(status, kind).is_some_and(|condition| condition.status == "True")
}

/// A condition as it is written. Empty texts are left out.
pub(crate) fn new_condition(kind: &str, status: &str, reason: &str, message: &str) -> Condition {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Condition { type_: kind.to_owned(), status: status.to_owned(), reason: text(reason), message: text(message) }
}

/// The condition Ready of an object that is.
pub(crate) fn ready() -> Condition {
    new_condition(READY, "True", "ScaledObjectReady", "ScaledObject is ready for scaling")
}

/// The condition that a verdict of the engine asks for.
pub(crate) fn from_verdict(kind: &str, verdict: &Verdict) -> Condition {
    new_condition(kind, verdict.status.as_str(), verdict.reason, &verdict.message)
}

/// Puts a condition in place of the one of its type, the order of the others kept.
pub(crate) fn set(status: &mut ScaledObjectStatus, condition: Condition) {
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|old| old.type_ == condition.type_) {
        Some(old) => *old = condition,
        None => {
            conditions.reserve_exact(1);
            conditions.push(condition);
        }
    }
}

/// The conditions that every object has before its first check.
fn initial_conditions() -> [Condition; 4] {
    [
        new_condition(READY, "Unknown", "", ""),
        new_condition(ACTIVE, "Unknown", "", ""),
        new_condition(FALLBACK, "Unknown", "", ""),
        new_condition(PAUSED, "False", "", ""),
    ]
}

/// The status that goes on when somebody else has written too: ours, with the conditions of other people as they have
/// them.
fn rebase(ours: &mut ScaledObjectStatus, theirs: &ScaledObjectStatus) {
    let is_own = |condition: &Condition| OWN.contains(&condition.type_.as_str());
    if let Some(conditions) = &mut ours.conditions {
        conditions.retain(|ours| is_own(ours) || condition(theirs, &ours.type_).is_some());
    }
    for foreign in theirs.conditions.iter().flatten().filter(|condition| !is_own(condition)) {
        set(ours, foreign.clone());
    }
}

/// A status as it should be, beside what the API server has of it.
///
/// What is there and the object's version are always taken over together: a patch from the one is good for the other
/// only, and with any other version the API server refuses it.
pub(crate) struct Tracked {
    wanted: ScaledObjectStatus,
    /// What the API server has, where that is not what is wanted.
    there: Option<Box<ScaledObjectStatus>>,
    resource_version: Box<str>,
}

impl Tracked {
    /// A status as the API server has it; it should have all the conditions.
    pub(crate) fn new(there: ScaledObjectStatus) -> Self {
        let mut tracked = Self { wanted: there, there: None, resource_version: "".into() };
        for initial in initial_conditions() {
            if condition(&tracked.wanted, &initial.type_).is_none() {
                tracked.set(initial);
            }
        }
        tracked
    }

    /// The status, about to be changed.
    pub(crate) fn change(&mut self) -> &mut ScaledObjectStatus {
        if self.there.is_none() {
            self.there = Some(Box::new(self.wanted.clone()));
        }
        &mut self.wanted
    }

    /// Changes the condition of that type, if it is another one.
    pub(crate) fn set(&mut self, wanted: Condition) {
        if condition(&self.wanted, &wanted.type_) != Some(&wanted) {
            set(self.change(), wanted);
        }
    }

    pub(crate) fn replace(&mut self, wanted: ScaledObjectStatus) {
        if wanted != self.wanted {
            *self.change() = wanted;
        }
    }

    /// Takes over what the API server has, as of that version of the object.
    pub(crate) fn seen(&mut self, resource_version: Option<&str>, there: ScaledObjectStatus) {
        rebase(&mut self.wanted, &there);
        self.written(resource_version, there);
    }

    /// The API server has `there` now.
    pub(crate) fn written(&mut self, resource_version: Option<&str>, there: ScaledObjectStatus) {
        self.resource_version = resource_version.unwrap_or_default().into();
        self.there = (there != self.wanted).then(|| Box::new(there));
    }

    /// What has to be written, and against which version.
    pub(crate) fn patch(&mut self) -> Option<(String, Value)> {
        let patch = difference(self.there.as_ref()?, &self.wanted);
        if patch.is_none() {
            self.there = None;
        }
        Some((self.resource_version.to_string(), patch?))
    }
}

impl Deref for Tracked {
    type Target = ScaledObjectStatus;

    fn deref(&self) -> &ScaledObjectStatus {
        &self.wanted
    }
}

/// The merge patch that turns `old` into `new`; nothing where they are equal.
fn difference(old: &ScaledObjectStatus, new: &ScaledObjectStatus) -> Option<Value> {
    // A status holds nothing that JSON cannot: texts, numbers, maps with text keys.
    let old = serde_json::to_value(old).unwrap_or_default();
    let new = serde_json::to_value(new).unwrap_or_default();
    match merge_patch(&old, &new) {
        Value::Object(patch) if patch.is_empty() => None,
        patch => Some(patch),
    }
}

/// The JSON merge patch (RFC 7396) from `old` to `new`.
fn merge_patch(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return new.clone();
    };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            Some(before) if before == value => {}
            Some(before) => drop(patch.insert(key.clone(), merge_patch(before, value))),
            None => drop(patch.insert(key.clone(), value.clone())),
        }
    }
    Value::Object(patch)
}

/// How a write of the status ended.
#[derive(Debug)]
pub(crate) enum Written {
    /// It is there; the object's new resourceVersion.
    Done {
        resource_version: String,
    },
    /// Somebody else has written since the last read: what is there now.
    Conflict(Box<ScaledObject>),
    /// The object is gone.
    Gone,
    Failed(String),
}

/// Writes a status patch against the version of the object that it was made for.
pub(crate) async fn write(client: Client, key: &ObjectKey, uid: &str, resource_version: &str, patch: Value) -> Written {
    let api: Api<ScaledObject> = Api::namespaced(client, &key.namespace);
    let patch = json!({"metadata": {"resourceVersion": resource_version}, "status": patch});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let error = match api.patch_status(&key.name, &params, &Patch::Merge(&patch)).await {
        Ok(object) => {
            return Written::Done { resource_version: object.metadata.resource_version.unwrap_or_default() };
        }
        Err(error) => error,
    };
    if client::is_absent(&error) {
        return Written::Gone;
    }
    if !client::is_conflict(&error) {
        return Written::Failed(client::describe(&error));
    }
    match api.get(&key.name).await {
        // Another object has the name by now: it has its own status.
        Ok(object) if object.metadata.uid.as_deref() != Some(uid) => Written::Gone,
        Ok(object) => Written::Conflict(Box::new(object)),
        Err(error) if client::is_absent(&error) => Written::Gone,
        Err(error) => Written::Failed(client::describe(&error)),
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Request, Response};
    use kube::client::Body;
    use tidemark_api::scaled_object::TriggerActivity;

    use super::*;

    fn with(conditions: &[(&str, &str)]) -> ScaledObjectStatus {
        let mut status = ScaledObjectStatus::default();
        for (kind, value) in conditions {
            set(&mut status, new_condition(kind, value, "", ""));
        }
        status
    }

    #[test]
    fn a_condition_replaces_the_one_of_its_type_and_keeps_the_order() {
        let mut status = with(&[("Ready", "Unknown"), ("Active", "Unknown")]);
        set(&mut status, new_condition("Ready", "True", "ScaledObjectReady", "fine"));
        let got: Vec<_> = status.conditions.iter().flatten().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
        assert_eq!(got, [("Ready", "True"), ("Active", "Unknown")]);
    }

    #[test]
    fn equal_statuses_make_no_patch() {
        assert_eq!(difference(&with(&[("Ready", "True")]), &with(&[("Ready", "True")])), None);
    }

    #[test]
    fn a_patch_clears_what_is_gone_and_names_only_what_changed() {
        let activity = |names: &[&str]| {
            names.iter().map(|name| ((*name).to_owned(), TriggerActivity { is_active: true })).collect()
        };
        let mut old = with(&[("Ready", "True")]);
        old.paused_replica_count = Some(3);
        old.hpa_name = Some("a".to_owned());
        old.triggers_activity = Some(activity(&["s0-x", "s1-y"]));
        let mut new = old.clone();
        new.paused_replica_count = None;
        new.triggers_activity = Some(activity(&["s0-x"]));
        let patch = difference(&old, &new).unwrap();
        assert_eq!(patch, json!({"pausedReplicaCount": null, "triggersActivity": {"s1-y": null}}));
    }

    #[test]
    fn conditions_of_others_are_as_they_have_them_and_ours_as_we_have_them() {
        let mut ours = with(&[("Ready", "True"), ("Theirs", "False"), ("Removed", "True")]);
        rebase(&mut ours, &with(&[("Ready", "False"), ("Theirs", "True")]));
        assert_eq!(ours, with(&[("Ready", "True"), ("Theirs", "True")]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_status_is_never_written_on_another_object_of_the_same_name() {
        let service = tower::service_fn(|request: Request<Body>| async move {
            let (code, body) = match *request.method() {
                Method::PATCH => {
                    (409, json!({"kind": "Status", "status": "Failure", "reason": "Conflict", "code": 409}))
                }
                _ => (
                    200,
                    json!({
                        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
                        "metadata": {"name": "a", "namespace": "shop", "uid": "new", "resourceVersion": "9"},
                        "spec": {"scaleTargetRef": {"name": "a"}, "triggers": []},
                    }),
                ),
            };
            Response::builder().status(code).body(Body::from(body.to_string().into_bytes()))
        });
        let client = Client::new(service, "shop");
        let written = write(client.clone(), &ObjectKey::new("shop", "a"), "old", "1", json!({})).await;
        assert!(matches!(written, Written::Gone), "{written:?}");
        let written = write(client, &ObjectKey::new("shop", "a"), "new", "1", json!({})).await;
        assert!(matches!(written, Written::Conflict(_)), "{written:?}");
    }

    #[test]
    fn a_patch_is_made_from_what_was_seen_last_and_for_its_version() {
        let mut status = Tracked::new(ScaledObjectStatus::default());
        status.seen(Some("1"), ScaledObjectStatus::default());
        let (version, _) = status.patch().unwrap();
        assert_eq!(version, "1");
        status.written(Some("2"), (*status).clone());
        assert_eq!(status.patch(), None);
        let mut theirs = (*status).clone();
        set(&mut theirs, new_condition("Theirs", "True", "", ""));
        status.seen(Some("3"), theirs);
        assert_eq!(status.patch(), None, "what others write is not written again");
        status.set(ready());
        let (version, patch) = status.patch().unwrap();
        assert_eq!(version, "3");
        assert_eq!(patch["conditions"].as_array().unwrap().len(), 5);
    }
}
