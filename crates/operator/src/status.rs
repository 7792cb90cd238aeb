//! A ScaledObject's status: conditions, and the merge patch that carries what changed.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Map, Value, json};
use tidemark_api::scaled_object::{self as api, GroupVersionKindResource};
use tidemark_api::{Condition, ScaledObject, ScaledObjectStatus, TriggerActivity, UnknownFields};
use tidemark_engine::fallback::Health;
use tidemark_engine::verdict::Verdict;

use crate::FIELD_MANAGER;
use crate::client;
use crate::observation::ObjectKey;
use crate::texts::{Text, Texts};

pub(crate) const READY: &str = "Ready";
pub(crate) const ACTIVE: &str = "Active";
pub(crate) const FALLBACK: &str = "Fallback";
pub(crate) const PAUSED: &str = "Paused";
pub(crate) const HPA_ACTIVE: &str = "HPAActive";
/// The conditions that this operator writes; those of other types are other people's.
const OWN: [&str; 5] = [READY, ACTIVE, FALLBACK, PAUSED, HPA_ACTIVE];

/// A condition of a status; many objects have the same ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kept {
    pub(crate) kind: Text,
    pub(crate) status: Text,
    pub(crate) reason: Option<Text>,
    pub(crate) message: Option<Text>,
    /// Its fields of other versions, as JSON.
    unknown: Option<Box<str>>,
}

/// A ScaledObject's status in little room: every object at rest holds one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Status {
    pub(crate) target_kind: Option<Text>,
    pub(crate) target_gvkr: Option<Arc<GroupVersionKindResource>>,
    pub(crate) original_replicas: Option<i32>,
    pub(crate) last_active: Option<Timestamp>,
    pub(crate) external_names: Option<Box<[Text]>>,
    pub(crate) resource_names: Option<Box<[Text]>>,
    pub(crate) composite: Option<Text>,
    pub(crate) conditions: Box<[Arc<Kept>]>,
    pub(crate) health: Option<Box<[(Text, Health)]>>,
    pub(crate) activity: Option<Box<[(Text, bool)]>>,
    pub(crate) paused_replicas: Option<i32>,
    pub(crate) hpa_name: Option<Text>,
    pub(crate) trigger_types: Option<Text>,
    pub(crate) authentications: Option<Text>,
    unknown: UnknownFields,
    /// Fields of other versions in the entries of `health` and `activity`, by name.
    unknown_in: Option<Box<UnknownIn>>,
}

/// Fields of other versions in a status' entries: nearly no object has any.
#[derive(Clone, Debug, Default, PartialEq)]
struct UnknownIn {
    health: BTreeMap<String, UnknownFields>,
    activity: BTreeMap<String, UnknownFields>,
}

impl UnknownIn {
    fn read(there: &ScaledObjectStatus) -> Option<Box<Self>> {
        let none = UnknownFields::default();
        let health = there.health.iter().flatten().map(|(name, entry)| (name, &entry.unknown));
        let activity = there.triggers_activity.iter().flatten().map(|(name, entry)| (name, &entry.unknown));
        let known = |(name, fields): (&String, &UnknownFields)| (name.clone(), fields.clone());
        let this = Self {
            health: health.filter(|(_, fields)| **fields != none).map(known).collect(),
            activity: activity.filter(|(_, fields)| **fields != none).map(known).collect(),
        };
        (this != Self::default()).then(|| Box::new(this))
    }
}

impl Status {
    fn read(there: &ScaledObjectStatus, texts: &Texts) -> Self {
        let share = |text: &Option<String>| text.as_deref().map(|text| texts.share(text));
        let list = |names: &Option<Vec<String>>| {
            names.as_ref().map(|names| names.iter().map(|name| texts.share(name)).collect())
        };
        Self {
            target_kind: share(&there.scale_target_kind),
            target_gvkr: there.scale_target_gvkr.clone().map(Arc::new),
            original_replicas: there.original_replica_count,
            last_active: there.last_active_time.as_ref().map(|time| time.0),
            external_names: list(&there.external_metric_names),
            resource_names: list(&there.resource_metric_names),
            composite: share(&there.composite_scaler_name),
            conditions: there.conditions.iter().flatten().map(|condition| kept(condition, texts)).collect(),
            health: there.health.as_ref().map(|health| {
                let failures = |health: &api::Health| Health::from_status(health.number_of_failures.unwrap_or(0));
                health.iter().map(|(name, health)| (texts.share(name), failures(health))).collect()
            }),
            activity: there.triggers_activity.as_ref().map(|activities| {
                activities.iter().map(|(name, activity)| (texts.share(name), activity.is_active)).collect()
            }),
            paused_replicas: there.paused_replica_count,
            hpa_name: there.hpa_name.as_deref().map(Into::into),
            trigger_types: share(&there.triggers_types),
            authentications: share(&there.authentications_types),
            unknown: there.unknown.clone(),
            unknown_in: UnknownIn::read(there),
        }
    }

    /// The status as the API server has it.
    pub(crate) fn whole(&self) -> ScaledObjectStatus {
        let text = |text: &Option<Text>| text.as_deref().map(str::to_owned);
        let list = |names: &Option<Box<[Text]>>| {
            names.as_ref().map(|names| names.iter().map(|name| name.to_string()).collect())
        };
        ScaledObjectStatus {
            scale_target_kind: text(&self.target_kind),
            scale_target_gvkr: self.target_gvkr.as_deref().cloned(),
            original_replica_count: self.original_replicas,
            last_active_time: self.last_active.map(Time),
            external_metric_names: list(&self.external_names),
            resource_metric_names: list(&self.resource_names),
            composite_scaler_name: text(&self.composite),
            conditions: (!self.conditions.is_empty())
                .then(|| self.conditions.iter().map(|condition| condition.whole()).collect()),
            health: self.health.as_ref().map(|health| {
                let unknown = |name: &str| self.unknown_in.as_ref()?.health.get(name).cloned();
                let entry = |(name, health): &(Text, Health)| {
                    (name.to_string(), told(*health, unknown(name).unwrap_or_default()))
                };
                health.iter().map(entry).collect()
            }),
            triggers_activity: self.activity.as_ref().map(|activities| {
                let unknown = |name: &str| self.unknown_in.as_ref()?.activity.get(name).cloned();
                let entry = |(name, active): &(Text, bool)| {
                    let unknown = unknown(name).unwrap_or_default();
                    (name.to_string(), TriggerActivity { is_active: *active, unknown })
                };
                activities.iter().map(entry).collect()
            }),
            paused_replica_count: self.paused_replicas,
            hpa_name: text(&self.hpa_name),
            triggers_types: text(&self.trigger_types),
            authentications_types: text(&self.authentications),
            unknown: self.unknown.clone(),
        }
    }

    /// The condition of a type.
    pub(crate) fn condition(&self, kind: &str) -> Option<&Arc<Kept>> {
        self.conditions.iter().find(|condition| *condition.kind == *kind)
    }

    /// Whether the condition is there and True.
    pub(crate) fn is_true(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|condition| &*condition.status == "True")
    }

    /// Failures in a row of a metric, as far as the status tells.
    pub(crate) fn health_of(&self, metric: &str) -> Health {
        let entry = self.health.iter().flatten().find(|(name, _)| **name == *metric);
        entry.map(|(_, health)| *health).unwrap_or_default()
    }

    /// Puts a condition in place of the one of its type, the order of the others kept.
    fn set(&mut self, condition: Arc<Kept>) {
        match self.conditions.iter_mut().find(|old| old.kind == condition.kind) {
            Some(old) => *old = condition,
            None => {
                let mut conditions = std::mem::take(&mut self.conditions).into_vec();
                conditions.reserve_exact(1);
                conditions.push(condition);
                self.conditions = conditions.into();
            }
        }
    }

    /// The status that goes on when somebody else has written too: ours, with the conditions of other people and
    /// fields of other versions as they are there.
    fn rebase(&mut self, theirs: &Status) {
        let is_own = |condition: &Arc<Kept>| OWN.contains(&&*condition.kind);
        if self.conditions.iter().any(|ours| !is_own(ours)) || theirs.conditions.iter().any(|theirs| !is_own(theirs)) {
            let mut conditions = std::mem::take(&mut self.conditions).into_vec();
            conditions.retain(|ours| is_own(ours) || theirs.condition(&ours.kind).is_some());
            self.conditions = conditions.into();
            for foreign in theirs.conditions.iter().filter(|condition| !is_own(condition)) {
                self.set(foreign.clone());
            }
        }
        self.unknown.clone_from(&theirs.unknown);
        self.unknown_in.clone_from(&theirs.unknown_in);
    }
}

impl Kept {
    /// The condition as the API has it.
    pub(crate) fn whole(&self) -> Condition {
        Condition {
            type_: self.kind.to_string(),
            status: self.status.to_string(),
            reason: self.reason.as_deref().map(str::to_owned),
            message: self.message.as_deref().map(str::to_owned),
            unknown: self.unknown.as_deref().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default(),
        }
    }
}

fn kept(condition: &Condition, texts: &Texts) -> Arc<Kept> {
    texts.share_condition(Kept {
        kind: texts.share(&condition.type_),
        status: texts.share(&condition.status),
        reason: condition.reason.as_deref().map(|reason| texts.share(reason)),
        message: condition.message.as_deref().map(|message| texts.share(message)),
        unknown: (condition.unknown != UnknownFields::default())
            .then(|| serde_json::to_string(&condition.unknown).ok())
            .flatten()
            .map(Into::into),
    })
}

fn told(health: Health, unknown: UnknownFields) -> api::Health {
    let (failures, status) = (health.number_of_failures(), health.status().to_owned());
    api::Health { number_of_failures: Some(failures), status: Some(status), unknown }
}

/// A condition about to be written. Empty texts are left out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewCondition<'a> {
    pub(crate) kind: &'static str,
    pub(crate) status: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) message: &'a str,
}

impl<'a> NewCondition<'a> {
    pub(crate) fn new(kind: &'static str, status: &'a str, reason: &'a str, message: &'a str) -> Self {
        Self { kind, status, reason, message }
    }

    /// The condition that a verdict of the engine asks for.
    pub(crate) fn of(kind: &'static str, verdict: &'a Verdict) -> Self {
        Self::new(kind, verdict.status.as_str(), verdict.reason, &verdict.message)
    }

    fn says(&self, old: &Kept) -> bool {
        (&*old.status, old.reason.as_deref().unwrap_or_default(), old.message.as_deref().unwrap_or_default())
            == (self.status, self.reason, self.message)
    }
}

/// The condition Ready of an object that is.
pub(crate) const IS_READY: NewCondition<'static> = NewCondition {
    kind: READY,
    status: "True",
    reason: "ScaledObjectReady",
    message: "ScaledObject is ready for scaling",
};

/// The conditions that every object has before its first check.
const INITIAL: [(&str, &str); 4] = [(READY, "Unknown"), (ACTIVE, "Unknown"), (FALLBACK, "Unknown"), (PAUSED, "False")];

/// A status as it should be, beside what the API server has of it.
///
/// What is there and the object's version are always taken over together: a patch from the one is good for the other
/// only, and with any other version the API server refuses it.
pub(crate) struct Tracked {
    wanted: Status,
    /// What the API server has, where that is not what is wanted.
    there: Option<Box<ScaledObjectStatus>>,
    resource_version: Box<str>,
}

impl Tracked {
    /// A status as the API server has it; it should have all the conditions.
    pub(crate) fn new(texts: &Texts, there: &ScaledObjectStatus) -> Self {
        let mut tracked = Self { wanted: Status::read(there, texts), there: None, resource_version: "".into() };
        for (kind, status) in INITIAL {
            if tracked.condition(kind).is_none() {
                tracked.set(texts, NewCondition::new(kind, status, "", ""));
            }
        }
        tracked
    }

    /// The status, about to be changed.
    pub(crate) fn change(&mut self) -> &mut Status {
        if self.there.is_none() {
            self.there = Some(Box::new(self.wanted.whole()));
        }
        &mut self.wanted
    }

    /// Changes the condition of that type, if it is another one.
    pub(crate) fn set(&mut self, texts: &Texts, wanted: NewCondition<'_>) {
        if self.wanted.condition(wanted.kind).is_some_and(|old| wanted.says(old)) {
            return;
        }
        let condition = Kept {
            kind: texts.share(wanted.kind),
            status: texts.share(wanted.status),
            reason: texts.share_some(wanted.reason),
            message: texts.share_some(wanted.message),
            unknown: None,
        };
        self.change().set(texts.share_condition(condition));
    }

    pub(crate) fn replace(&mut self, wanted: Status) {
        if wanted != self.wanted {
            *self.change() = wanted;
        } else {
            // What is equal may be shared with more.
            self.wanted = wanted;
        }
    }

    /// Takes over what the API server has, as of that version of the object.
    pub(crate) fn seen(&mut self, texts: &Texts, resource_version: Option<&str>, there: ScaledObjectStatus) {
        self.wanted.rebase(&Status::read(&there, texts));
        self.written(resource_version, there);
    }

    /// The API server has `there` now.
    pub(crate) fn written(&mut self, resource_version: Option<&str>, there: ScaledObjectStatus) {
        self.resource_version = resource_version.unwrap_or_default().into();
        self.there = (there != self.wanted.whole()).then(|| Box::new(there));
    }

    /// What has to be written, and against which version.
    pub(crate) fn patch(&mut self) -> Option<(String, Value)> {
        let patch = difference(self.there.as_ref()?, &self.wanted.whole());
        if patch.is_none() {
            self.there = None;
        }
        Some((self.resource_version.to_string(), patch?))
    }
}

impl Deref for Tracked {
    type Target = Status;

    fn deref(&self) -> &Status {
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

    use super::*;

    fn with(conditions: &[(&str, &str)]) -> ScaledObjectStatus {
        let condition = |(kind, status): &(&str, &str)| Condition {
            type_: (*kind).to_owned(),
            status: (*status).to_owned(),
            ..Condition::default()
        };
        ScaledObjectStatus {
            conditions: Some(conditions.iter().map(condition).collect()),
            ..ScaledObjectStatus::default()
        }
    }

    fn read(there: &ScaledObjectStatus) -> Status {
        Status::read(there, &Texts::default())
    }

    #[test]
    fn a_condition_replaces_the_one_of_its_type_and_keeps_the_order() {
        let mut status = Tracked::new(&Texts::default(), &with(&[("Ready", "Unknown"), ("Active", "Unknown")]));
        status.set(&Texts::default(), IS_READY);
        let got: Vec<_> = status.conditions.iter().map(|c| (&*c.kind, &*c.status)).collect();
        assert_eq!(got, [("Ready", "True"), ("Active", "Unknown"), ("Fallback", "Unknown"), ("Paused", "False")]);
    }

    #[test]
    fn a_status_is_the_same_after_it_was_kept() {
        let there: ScaledObjectStatus = serde_json::from_value(json!({
            "scaleTargetKind": "apps/v1.Deployment",
            "scaleTargetGVKR": {"group": "apps", "version": "v1", "kind": "Deployment", "resource": "deployments", "b": 2},
            "originalReplicaCount": 2, "lastActiveTime": "2026-01-05T08:00:00Z",
            "externalMetricNames": ["s0-a"], "resourceMetricNames": ["cpu"], "compositeScalerName": "composite-metric",
            "conditions": [{"type": "Ready", "status": "True", "reason": "r", "message": "m", "since": "x"}],
            "health": {"s0-a": {"numberOfFailures": 3, "status": "Failing", "last": 1}},
            "triggersActivity": {"s0-a": {"isActive": true, "value": "7"}},
            "pausedReplicaCount": 1, "hpaName": "keda-hpa-a", "triggersTypes": "cron", "authenticationsTypes": "x",
            "laterField": {"a": 1},
        }))
        .unwrap();
        assert_eq!(read(&there).whole(), there);
    }

    #[test]
    fn equal_statuses_make_no_patch() {
        assert_eq!(difference(&with(&[("Ready", "True")]), &with(&[("Ready", "True")])), None);
    }

    #[test]
    fn a_patch_clears_what_is_gone_and_names_only_what_changed() {
        let activity = |names: &[&str]| {
            names
                .iter()
                .map(|name| ((*name).to_owned(), TriggerActivity { is_active: true, ..Default::default() }))
                .collect()
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
        let mut ours = read(&with(&[("Ready", "True"), ("Theirs", "False"), ("Removed", "True")]));
        ours.rebase(&read(&with(&[("Ready", "False"), ("Theirs", "True")])));
        assert_eq!(ours.whole(), with(&[("Ready", "True"), ("Theirs", "True")]));
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
        let texts = Texts::default();
        let mut status = Tracked::new(&texts, &ScaledObjectStatus::default());
        status.seen(&texts, Some("1"), ScaledObjectStatus::default());
        let (version, _) = status.patch().unwrap();
        assert_eq!(version, "1");
        status.written(Some("2"), status.whole());
        assert_eq!(status.patch(), None);
        let mut theirs = status.whole();
        theirs.conditions.as_mut().unwrap().extend(with(&[("Theirs", "True")]).conditions.unwrap());
        status.seen(&texts, Some("3"), theirs);
        assert_eq!(status.patch(), None, "what others write is not written again");
        status.set(&texts, IS_READY);
        let (version, patch) = status.patch().unwrap();
        assert_eq!(version, "3");
        assert_eq!(patch["conditions"].as_array().unwrap().len(), 5);
    }
}
