//! What an object is compared with: the ScaledObjects and HorizontalPodAutoscalers of all namespaces, found by index, and
//! the ScaledObjects that were admitted so lately that no watch has told of them.
//!
//! Of an object only what the rules look at is kept, as a short text.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound::{Included, Unbounded};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tidemark_api::DEFAULT_HPA_PREFIX;
use tidemark_api::annotations::HPA_OWNERSHIP;

use crate::scaled_object::{configured_hpa_name, hpa_name};
use crate::{Workload, name};

/// An admitted object is remembered for this long at most: by then it was stored and a watch has told, or it never was.
const CLAIM: Duration = Duration::from_secs(30);

type Text = Arc<str>;
/// Namespace and name.
type Key = (Text, Text);
/// Namespace, what is looked for, and the name of an object that has it.
type Entry = (Text, Text, Text);

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Neighbour {
    /// ScaledObjects.
    ScaledObject,
    /// HorizontalPodAutoscalers.
    Autoscaler,
}

/// An object that may be in the way of another one.
#[derive(Clone, Debug, PartialEq)]
pub struct Near {
    /// What it is.
    pub kind: Neighbour,
    /// As much of it as the rules look at.
    pub object: Value,
    /// When it was admitted, where nothing else is known of it: it may not be stored.
    pub claimed: Option<Duration>,
}

impl Near {
    /// Its name.
    pub fn name(&self) -> &str {
        name(&self.object)
    }
}

/// All objects that others are compared with. Times are counted from any moment that the caller chooses once.
#[derive(Debug, Default)]
pub struct Neighbours {
    scaled_objects: Table,
    autoscalers: Table,
    claims: Table,
    /// When claims were made, the oldest first.
    claimed: VecDeque<(Duration, Key)>,
}

impl Neighbours {
    /// Takes in an object as it is now. What was known of it before is replaced.
    pub fn apply(&mut self, kind: Neighbour, object: &Value) {
        let Some(key) = key(object) else { return };
        let object = reduced(kind, object);
        let text = object.to_string();
        if kind == Neighbour::ScaledObject && self.claims.objects.get(&key).is_some_and(|claim| *claim.text == *text) {
            self.claims.remove(&key);
        }
        let table = self.table(kind);
        let stamp = table.round;
        table.insert(key, &text, &object, stamp);
    }

    /// Forgets an object that is gone.
    pub fn remove(&mut self, kind: Neighbour, namespace: &str, name: &str) {
        self.table(kind).remove(&(namespace.into(), name.into()));
    }

    /// A complete list of the objects begins to come in.
    pub fn begin(&mut self, kind: Neighbour) {
        self.table(kind).round += 1;
    }

    /// A complete list has come in: what was not in it is gone.
    pub fn complete(&mut self, kind: Neighbour) {
        let table = self.table(kind);
        let round = table.round;
        let gone: Vec<Key> =
            table.objects.iter().filter(|(_, kept)| kept.stamp != round).map(|(key, _)| key.clone()).collect();
        for key in gone {
            table.remove(&key);
        }
    }

    /// Remembers a ScaledObject that was admitted and is about to be stored.
    pub fn claim(&mut self, object: &Value, now: Duration) {
        self.expire(now);
        let Some(key) = key(object) else { return };
        let object = reduced(Neighbour::ScaledObject, object);
        let text = object.to_string();
        if self.scaled_objects.objects.get(&key).is_some_and(|known| *known.text == *text) {
            self.claims.remove(&key);
            return;
        }
        self.claimed.push_back((now, key.clone()));
        self.claims.insert(key, &text, &object, millis(now));
    }

    /// What may be in the way of a ScaledObject, itself not among it.
    pub fn of(&mut self, object: &Value, now: Duration) -> Vec<Near> {
        self.expire(now);
        let Some((namespace, own)) = key(object) else { return Vec::new() };
        let target = Workload::scaled_by(object).map(|target| target.name);
        let mut near = Vec::new();
        let tables = [
            (Neighbour::ScaledObject, &self.scaled_objects, false),
            (Neighbour::ScaledObject, &self.claims, true),
            (Neighbour::Autoscaler, &self.autoscalers, false),
        ];
        for (kind, table, claims) in tables {
            let mut names: BTreeSet<Text> = BTreeSet::new();
            if let Some(target) = &target {
                names.extend(found(&table.by_target, &namespace, target));
            }
            if kind == Neighbour::ScaledObject {
                names.extend(table.with_hpa(&namespace, &hpa_name(object)));
                names.remove(&own);
            }
            for name in names {
                let Some(kept) = table.objects.get(&(namespace.clone(), name)) else { continue };
                let claimed = claims.then(|| Duration::from_millis(kept.stamp));
                near.push(Near { kind, object: kept.object(), claimed });
            }
        }
        near
    }

    /// How many ScaledObjects, HorizontalPodAutoscalers and admitted objects that no watch has told of are kept.
    pub fn counts(&self) -> [usize; 3] {
        [&self.scaled_objects, &self.autoscalers, &self.claims].map(|table| table.objects.len())
    }

    fn table(&mut self, kind: Neighbour) -> &mut Table {
        match kind {
            Neighbour::ScaledObject => &mut self.scaled_objects,
            Neighbour::Autoscaler => &mut self.autoscalers,
        }
    }

    fn expire(&mut self, now: Duration) {
        while self.claimed.front().is_some_and(|(since, _)| now.saturating_sub(*since) >= CLAIM) {
            let Some((since, key)) = self.claimed.pop_front() else { return };
            // It may have been admitted again since.
            if self.claims.objects.get(&key).is_some_and(|claim| claim.stamp == millis(since)) {
                self.claims.remove(&key);
            }
        }
        if self.claimed.capacity() > 64 && self.claimed.len() < self.claimed.capacity() / 4 {
            self.claimed.shrink_to(self.claimed.len() * 2);
        }
    }
}

/// What is left of an object when all that no rule looks at is left out.
pub fn reduced(kind: Neighbour, object: &Value) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".into(), object["metadata"]["name"].clone());
    let mut spec = Map::new();
    if let Some(Workload { api_version, kind, name }) = Workload::scaled_by(object) {
        let mut target = Map::new();
        if api_version != "apps/v1" {
            target.insert("apiVersion".into(), api_version.into());
        }
        if kind != "Deployment" {
            target.insert("kind".into(), kind.into());
        }
        target.insert("name".into(), name.into());
        spec.insert("scaleTargetRef".into(), target.into());
    }
    match kind {
        Neighbour::ScaledObject => {
            if let Some(hpa) = configured_hpa_name(object) {
                spec.insert("advanced".into(), json!({"horizontalPodAutoscalerConfig": {"name": hpa}}));
            }
        }
        Neighbour::Autoscaler => {
            let ownership = &object["metadata"]["annotations"][HPA_OWNERSHIP];
            if !ownership.is_null() {
                metadata.insert("annotations".into(), json!({HPA_OWNERSHIP: ownership}));
            }
            let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
            let owners: Vec<_> = owners.map(|owner| json!({"kind": owner["kind"], "name": owner["name"]})).collect();
            if !owners.is_empty() {
                metadata.insert("ownerReferences".into(), owners.into());
            }
        }
    }
    json!({"metadata": metadata, "spec": spec})
}

/// An object, and since when: the round of the list, or the time of a claim in milliseconds.
#[derive(Debug)]
struct Kept {
    text: Box<str>,
    stamp: u64,
}

/// Objects of one kind by name, and by what is looked for.
#[derive(Debug, Default)]
struct Table {
    objects: BTreeMap<Key, Kept>,
    by_target: BTreeSet<Entry>,
    /// ScaledObjects only, and only those whose HPA has not the name it has by default.
    by_hpa: BTreeSet<Entry>,
    round: u64,
}

impl Table {
    fn insert(&mut self, key: Key, text: &str, object: &Value, stamp: u64) {
        match self.objects.get_mut(&key) {
            Some(known) if *known.text == *text => return known.stamp = stamp,
            Some(_) => self.remove(&key),
            None => {}
        }
        let (namespace, name) = key;
        let namespace = self.shared(namespace);
        let (target, hpa) = entries(object);
        if let Some(target) = target {
            self.by_target.insert((namespace.clone(), target, name.clone()));
        }
        if let Some(hpa) = hpa {
            self.by_hpa.insert((namespace.clone(), hpa, name.clone()));
        }
        self.objects.insert((namespace, name), Kept { text: text.into(), stamp });
    }

    /// All objects of a namespace share the text of its name.
    fn shared(&self, namespace: Text) -> Text {
        let from = (namespace.clone(), Text::default());
        let first = self.objects.range((Included(from), Unbounded)).next();
        first.map(|((known, _), _)| known).filter(|known| **known == namespace).cloned().unwrap_or(namespace)
    }

    fn remove(&mut self, key: &Key) {
        let Some(kept) = self.objects.remove(key) else { return };
        let (namespace, name) = key;
        let (target, hpa) = entries(&kept.object());
        if let Some(target) = target {
            self.by_target.remove(&(namespace.clone(), target, name.clone()));
        }
        if let Some(hpa) = hpa {
            self.by_hpa.remove(&(namespace.clone(), hpa, name.clone()));
        }
    }

    /// The ScaledObjects that ask for an HPA of this name.
    fn with_hpa(&self, namespace: &Text, hpa: &str) -> BTreeSet<Text> {
        let mut names: BTreeSet<Text> = found(&self.by_hpa, namespace, hpa).collect();
        if let Some(default) = hpa.strip_prefix(DEFAULT_HPA_PREFIX) {
            let key = (namespace.clone(), Text::from(default));
            let unnamed = |kept: &&Kept| configured_hpa_name(&kept.object()).is_none();
            names.extend(self.objects.get(&key).filter(unnamed).map(|_| key.1.clone()));
        }
        names
    }
}

impl Kept {
    fn object(&self) -> Value {
        // It was written by us, from a value.
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

fn key(object: &Value) -> Option<Key> {
    let metadata = &object["metadata"];
    Some((metadata["namespace"].as_str()?.into(), metadata["name"].as_str()?.into()))
}

/// By what an object is found: its target's name, and the HPA's name that it asks for.
fn entries(object: &Value) -> (Option<Text>, Option<Text>) {
    let target = Workload::scaled_by(object).map(|target| target.name.into());
    (target, configured_hpa_name(object).map(Into::into))
}

/// The names of the objects with this entry.
fn found<'a>(index: &'a BTreeSet<Entry>, namespace: &Text, wanted: &'a str) -> impl Iterator<Item = Text> + use<'a> {
    let namespace = namespace.clone();
    let from = (namespace.clone(), Text::from(wanted), Text::default());
    let entries = index.range((Included(from), Unbounded));
    entries.take_while(move |(place, what, _)| *place == namespace && **what == *wanted).map(|(.., name)| name.clone())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: Duration = Duration::ZERO;

    fn scaled(name: &str, target: Value) -> Value {
        json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
            "metadata": {"namespace": "shop", "name": name, "labels": {"a": "b"}},
            "spec": {"scaleTargetRef": target, "triggers": [{"type": "cron"}]},
        })
    }

    fn named(name: &str, target: &str, hpa: &str) -> Value {
        let mut object = scaled(name, json!({"name": target}));
        object["spec"]["advanced"] = json!({"horizontalPodAutoscalerConfig": {"name": hpa}});
        object
    }

    fn names(near: &[Near]) -> Vec<&str> {
        near.iter().map(Near::name).collect()
    }

    fn of(neighbours: &mut Neighbours, object: &Value) -> Vec<Near> {
        neighbours.of(object, ZERO)
    }

    #[test]
    fn those_with_the_same_target_or_the_same_hpa_are_found_and_no_others() {
        let mut all = Neighbours::default();
        for object in [
            scaled("a", json!({"name": "web"})),
            scaled("b", json!({"name": "web", "kind": "StatefulSet"})),
            scaled("c", json!({"name": "web2"})),
            named("d", "other", "web-hpa"),
            named("e", "third", "keda-hpa-f"),
        ] {
            all.apply(Neighbour::ScaledObject, &object);
        }
        assert_eq!(names(&of(&mut all, &scaled("x", json!({"name": "web"})))), ["a", "b"]);
        assert_eq!(names(&of(&mut all, &scaled("a", json!({"name": "web"})))), ["b"], "but not itself");
        assert_eq!(names(&of(&mut all, &named("x", "new", "web-hpa"))), ["d"]);
        assert_eq!(names(&of(&mut all, &named("x", "new", "keda-hpa-c"))), ["c"], "the name it has by default");
        assert_eq!(names(&of(&mut all, &named("x", "new", "keda-hpa-d"))), [""; 0], "it has another");
        assert_eq!(names(&of(&mut all, &scaled("f", json!({"name": "new"})))), ["e"]);
        let mut elsewhere = scaled("x", json!({"name": "web"}));
        elsewhere["metadata"]["namespace"] = "bakery".into();
        assert_eq!(names(&of(&mut all, &elsewhere)), [""; 0]);
    }

    #[test]
    fn an_object_is_found_by_what_it_is_now() {
        let mut all = Neighbours::default();
        all.apply(Neighbour::ScaledObject, &named("a", "web", "one"));
        all.apply(Neighbour::ScaledObject, &named("a", "api", "two"));
        assert_eq!(names(&of(&mut all, &named("x", "web", "one"))), [""; 0]);
        assert_eq!(names(&of(&mut all, &named("x", "api", "two"))), ["a"]);
        all.remove(Neighbour::ScaledObject, "shop", "a");
        assert_eq!(names(&of(&mut all, &named("x", "api", "two"))), [""; 0]);
        assert_eq!(all.counts(), [0, 0, 0]);
    }

    #[test]
    fn what_a_complete_list_does_not_hold_is_gone() {
        let mut all = Neighbours::default();
        let hpa = |name: &str| json!({"metadata": {"namespace": "shop", "name": name}, "spec": {"scaleTargetRef": {"name": "web"}}});
        all.apply(Neighbour::Autoscaler, &hpa("a"));
        all.apply(Neighbour::Autoscaler, &hpa("b"));
        all.apply(Neighbour::ScaledObject, &scaled("c", json!({"name": "web"})));
        all.begin(Neighbour::Autoscaler);
        all.apply(Neighbour::Autoscaler, &hpa("b"));
        assert_eq!(all.counts(), [1, 2, 0], "while the list is not complete, nothing is gone");
        all.complete(Neighbour::Autoscaler);
        assert_eq!(names(&of(&mut all, &scaled("x", json!({"name": "web"})))), ["c", "b"]);
    }

    #[test]
    fn an_admitted_object_is_in_the_way_until_a_watch_has_told_or_time_has_passed() {
        let at = Duration::from_secs;
        let mut all = Neighbours::default();
        let (first, second) = (scaled("a", json!({"name": "web"})), scaled("b", json!({"name": "web"})));
        all.claim(&first, at(100));
        assert_eq!(all.of(&second, at(101))[0].claimed, Some(at(100)));
        assert!(all.of(&first, at(101)).is_empty(), "it may be sent again");
        all.apply(Neighbour::ScaledObject, &first);
        assert_eq!(all.of(&second, at(102)).iter().map(|near| near.claimed).collect::<Vec<_>>(), [None]);

        let moved = scaled("a", json!({"name": "api"}));
        all.claim(&moved, at(110));
        let third = scaled("c", json!({"name": "api"}));
        assert_eq!(names(&all.of(&third, at(111))), ["a"]);
        all.claim(&moved, at(120));
        assert_eq!(names(&all.of(&third, at(141))), ["a"], "admitted again");
        assert_eq!(names(&all.of(&third, at(151))), [""; 0], "it was never stored");
        assert_eq!(all.counts(), [1, 0, 0]);
    }

    #[test]
    fn of_an_hpa_the_owners_and_the_wish_to_be_left_alone_are_kept() {
        let mut hpa = json!({
            "metadata": {
                "namespace": "shop", "name": "h", "annotations": {HPA_OWNERSHIP: "false", "other": "x"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "ScaledObject", "name": "a", "uid": "u"}],
            },
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web"}, "maxReplicas": 3},
        });
        let expected = json!({
            "metadata": {
                "name": "h", "annotations": {HPA_OWNERSHIP: "false"},
                "ownerReferences": [{"kind": "ScaledObject", "name": "a"}],
            },
            "spec": {"scaleTargetRef": {"kind": "StatefulSet", "name": "web"}},
        });
        assert_eq!(reduced(Neighbour::Autoscaler, &hpa), expected);
        hpa["spec"] = Value::Null;
        let mut all = Neighbours::default();
        all.apply(Neighbour::Autoscaler, &hpa);
        all.apply(Neighbour::Autoscaler, &json!("no object"));
        assert_eq!(all.counts(), [0, 1, 0]);
    }
}
