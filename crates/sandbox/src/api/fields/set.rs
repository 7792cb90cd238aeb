//! Sets of paths, as trees.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::path::Step;

/// A set of paths below one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::api) struct FieldSet(BTreeMap<Step, Node>);

/// What a set has at and below a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// The path to here is in the set.
    pub member: bool,
    pub below: FieldSet,
}

impl FieldSet {
    pub(in crate::api) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn at(&self, step: &Step) -> Option<&Node> {
        self.0.get(step)
    }

    /// Adds a path; the empty one is in no set.
    pub(super) fn insert(&mut self, path: &[Step]) {
        let [first, rest @ ..] = path else { return };
        let node = self.0.entry(first.clone()).or_default();
        match rest {
            [] => node.member = true,
            _ => node.below.insert(rest),
        }
    }

    pub(in crate::api) fn union(mut self, other: Self) -> Self {
        for (step, node) in other.0 {
            let mine = self.0.entry(step).or_default();
            mine.member |= node.member;
            mine.below = std::mem::take(&mut mine.below).union(node.below);
        }
        self
    }

    /// The paths that are not in the other.
    pub(in crate::api) fn without(mut self, other: &Self) -> Self {
        self.0.retain(|step, node| {
            if let Some(theirs) = other.0.get(step) {
                node.member &= !theirs.member;
                node.below = std::mem::take(&mut node.below).without(&theirs.below);
            }
            node.member || !node.below.is_empty()
        });
        self
    }

    /// The paths that are in both.
    pub(super) fn common(&self, other: &Self) -> Self {
        let both = self.0.iter().filter_map(|(step, mine)| {
            let theirs = other.0.get(step)?;
            let node = Node { member: mine.member && theirs.member, below: mine.below.common(&theirs.below) };
            (node.member || !node.below.is_empty()).then(|| (step.clone(), node))
        });
        Self(both.collect())
    }

    /// The paths whose first step is the field.
    pub(super) fn keep_field(&mut self, name: &str) {
        self.0.retain(|step, _| matches!(step, Step::Field(field) if field == name));
    }

    /// Takes out a field and all that is below it.
    pub(super) fn drop_field(&mut self, name: &str) {
        self.0.retain(|step, _| !matches!(step, Step::Field(field) if field == name));
    }

    /// Takes out what belongs to the server: identity, version and bookkeeping.
    pub(super) fn drop_bookkeeping(&mut self) {
        for name in ["apiVersion", "kind"] {
            self.drop_field(name);
        }
        let metadata = Step::Field("metadata".to_owned());
        let Some(node) = self.0.get_mut(&metadata) else { return };
        node.member = false;
        for name in [
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "generation",
            "managedFields",
            "resourceVersion",
        ] {
            node.below.drop_field(name);
        }
        if node.below.is_empty() {
            self.0.remove(&metadata);
        }
    }

    /// All paths, each as text.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, place: &str, paths: &mut Vec<String>) {
        for (step, node) in &self.0 {
            let here = format!("{place}{step}");
            node.below.collect(&here, paths);
            if node.member {
                paths.push(here);
            }
        }
    }

    /// Reads `fieldsV1`; what is no path is left out.
    pub(super) fn read(value: &Value) -> Self {
        let fields = value.as_object().into_iter().flatten();
        let nodes = fields.filter_map(|(key, below)| {
            let step = Step::read(key)?;
            let set = Self::read(below);
            let member = set.is_empty() || below.get(".").is_some();
            Some((step, Node { member, below: set }))
        });
        Self(nodes.collect())
    }

    /// The set as `fieldsV1`.
    pub(super) fn written(&self) -> Value {
        let node = |node: &Node| {
            let mut below = Map::new();
            if node.member && !node.below.is_empty() {
                below.insert(".".to_owned(), Value::Object(Map::new()));
            }
            if let Value::Object(fields) = node.below.written() {
                below.extend(fields);
            }
            Value::Object(below)
        };
        Value::Object(self.0.iter().map(|(step, below)| (step.written(), node(below))).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_set_is_read_as_it_was_written() {
        let written = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}}, "f:set": {"v:\"a\"": {}}},
        });
        let set = FieldSet::read(&written);
        assert_eq!(set.written(), written);
        assert_eq!(
            set.paths(),
            [
                ".metadata.labels.app",
                ".metadata.labels",
                ".spec.ports[containerPort=80,protocol=\"TCP\"].name",
                ".spec.ports[containerPort=80,protocol=\"TCP\"]",
                ".spec.set[=\"a\"]",
            ]
        );
    }

    #[test]
    fn sets_are_added_and_taken_away_path_by_path() {
        let set = |value: Value| FieldSet::read(&value);
        let (a, b) = (set(json!({"f:a": {".": {}, "f:x": {}}})), set(json!({"f:a": {"f:x": {}, "f:y": {}}})));
        assert_eq!(a.clone().union(b.clone()).written(), json!({"f:a": {".": {}, "f:x": {}, "f:y": {}}}));
        assert_eq!(a.clone().without(&b).written(), json!({"f:a": {}}));
        assert_eq!(a.common(&b).written(), json!({"f:a": {"f:x": {}}}));
        assert!(a.clone().without(&a).is_empty());
    }
}
