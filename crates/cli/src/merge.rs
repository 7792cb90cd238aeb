//! Three-way merges of manifests: what changed in a file is brought to the object as it is now, and nothing else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// The fields by which items of lists are told apart, in Kubernetes' own kinds.
const NAMES: [&str; 5] = ["name", "mountPath", "devicePath", "containerPort", "port"];

/// The merge patch that brings what has changed between two versions of a manifest to the object as it is now; empty where
/// nothing is to be done.
pub fn patch(before: &Value, after: &Value, present: &Value) -> Value {
    let (before, mut after) = (as_stored(before), as_stored(after));
    // Others write their own here, which stay when the file has none any more.
    for field in ["labels", "annotations"] {
        if before["metadata"][field].is_object() && after["metadata"].is_object() && after["metadata"][field].is_null()
        {
            after["metadata"][field] = json!({});
        }
    }
    difference(present, &merged(&before, &after, present))
}

/// A Secret's `stringData` is for writing only: the API server keeps it as `data`.
fn as_stored(object: &Value) -> Value {
    let mut object = object.clone();
    if object["kind"] != "Secret" {
        return object;
    }
    let Some(Value::Object(texts)) = object.as_object_mut().and_then(|fields| fields.shift_remove("stringData")) else {
        return object;
    };
    if !object["data"].is_object() {
        object["data"] = json!({});
    }
    for (key, value) in texts {
        object["data"][key] = match value {
            Value::String(text) => STANDARD.encode(text).into(),
            // Refused by the API server, in its words.
            other => other,
        };
    }
    object
}

/// `present` with what has changed between `before` and `after`.
fn merged(before: &Value, after: &Value, present: &Value) -> Value {
    if before == after {
        return present.clone();
    }
    match (before, after, present) {
        (Value::Object(before), Value::Object(after), Value::Object(present)) => fields(before, after, present).into(),
        (Value::Array(before), Value::Array(after), Value::Array(present)) => {
            let name = NAMES.into_iter().find(|name| [before, after, present].iter().all(|list| names(list, name)));
            match name {
                Some(name) => items(name, before, after, present).into(),
                None => after.clone().into(),
            }
        }
        _ => after.clone(),
    }
}

fn fields(before: &Map<String, Value>, after: &Map<String, Value>, present: &Map<String, Value>) -> Map<String, Value> {
    let mut result = present.clone();
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        result.shift_remove(name);
    }
    for (name, wanted) in after {
        let value = match (before.get(name), present.get(name)) {
            (Some(known), _) if known == wanted => continue,
            (Some(known), Some(found)) => merged(known, wanted, found),
            // Gone from the object, but for what is new.
            (Some(known @ Value::Object(_)), None) if wanted.is_object() => merged(known, wanted, &json!({})),
            (None, Some(found @ Value::Object(_))) if wanted.is_object() => merged(&json!({}), wanted, found),
            _ => wanted.clone(),
        };
        result.insert(name.clone(), value);
    }
    result
}

/// Whether each item of a list has a name of its own in a field.
fn names(list: &[Value], field: &str) -> bool {
    let mut seen = Vec::new();
    list.iter().all(|item| match item.get(field) {
        Some(name @ (Value::String(_) | Value::Number(_))) if !seen.contains(&name) => {
            seen.push(name);
            true
        }
        _ => false,
    })
}

/// The items in the order of the manifest, behind them those that only the object has.
fn items(name: &str, before: &[Value], after: &[Value], present: &[Value]) -> Vec<Value> {
    let find = |list: &[Value], item: &Value| list.iter().find(|other| other[name] == item[name]).cloned();
    let mut result = Vec::new();
    for wanted in after {
        result.extend(match (find(before, wanted), find(present, wanted)) {
            (Some(known), None) if known == *wanted => None,
            (Some(known), Some(found)) => Some(merged(&known, wanted, &found)),
            (None, Some(found)) => Some(merged(&json!({}), wanted, &found)),
            (_, None) => Some(wanted.clone()),
        });
    }
    let others = present.iter().filter(|item| find(before, item).is_none() && find(after, item).is_none());
    result.extend(others.cloned());
    result
}

/// The merge patch that turns one value into another.
fn difference(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return to.clone() };
    let mut patch = Map::new();
    for name in from.keys().filter(|name| !to.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in to {
        match from.get(name) {
            Some(old) if old == value => {}
            Some(old @ Value::Object(_)) if value.is_object() => {
                patch.insert(name.clone(), difference(old, value));
            }
            _ => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_changed_in_the_file_is_not_written_whatever_the_object_holds() {
        let file = json!({"spec": {"replicas": 0, "list": [1, 2]}, "data": {"x": "y"}});
        let present = json!({"spec": {"replicas": 5, "list": [3]}, "metadata": {"uid": "u"}});
        assert_eq!(patch(&file, &file, &present), json!({}));
        let mut edited = file.clone();
        edited["spec"]["paused"] = true.into();
        assert_eq!(patch(&file, &edited, &present), json!({"spec": {"paused": true}}));
    }

    #[test]
    fn fields_that_are_gone_from_the_file_go_from_the_object_and_defaults_stay() {
        let before = json!({"spec": {"a": 1, "b": {"c": 2, "d": 3}, "e": null}});
        let after = json!({"spec": {"a": 1, "b": {"c": 4}}});
        let present = json!({"spec": {"a": 7, "b": {"c": 2, "d": 3, "made": "default"}, "e": "set"}});
        assert_eq!(patch(&before, &after, &present), json!({"spec": {"b": {"c": 4, "d": null}, "e": null}}));
    }

    #[test]
    fn named_items_of_lists_are_merged_one_by_one_and_others_as_a_whole() {
        let container = |name: &str, image: &str| json!({"name": name, "image": image});
        let before = json!({"c": [container("main", "a:1"), container("old", "b:1")], "args": ["x"]});
        let after = json!({"c": [container("new", "n:1"), json!({"name": "main", "image": "a:1", "tty": true})],
            "args": ["y", "z"]});
        let present = json!({"c": [
            json!({"name": "main", "image": "a:kubectl", "policy": "default"}), container("old", "b:1"),
            container("sidecar", "s:1"),
        ], "args": ["kubectl"]});
        let expected = json!({"c": [
            container("new", "n:1"), json!({"name": "main", "image": "a:kubectl", "policy": "default", "tty": true}),
            container("sidecar", "s:1"),
        ], "args": ["y", "z"]});
        assert_eq!(patch(&before, &after, &present), expected);
        let twice = json!([container("main", "1"), container("main", "2")]);
        assert_eq!(merged(&twice, &json!([container("x", "1")]), &twice), json!([container("x", "1")]));
    }

    #[test]
    fn annotations_of_others_stay_when_the_file_has_none_any_more() {
        let before = json!({"metadata": {"name": "a", "annotations": {"mine": "1"}}});
        let after = json!({"metadata": {"name": "a"}});
        let present = json!({"metadata": {"name": "a", "annotations": {"mine": "1", "theirs": "2"}}});
        assert_eq!(patch(&before, &after, &present), json!({"metadata": {"annotations": {"mine": null}}}));
    }

    #[test]
    fn of_a_secrets_texts_only_those_that_changed_are_written() {
        let secret = |texts: Value| json!({"kind": "Secret", "stringData": texts, "data": {"z": "eg=="}});
        let present = json!({"kind": "Secret", "data": {"a": "bWluZQ==", "b": "Mg==", "z": "eg=="}});
        let change = patch(&secret(json!({"a": "1", "b": "2"})), &secret(json!({"a": "1", "c": "3"})), &present);
        assert_eq!(change, json!({"data": {"b": null, "c": "Mw=="}}));
    }
}
