//! The three patches: merge (RFC 7386), JSON (RFC 6902) and Kubernetes' strategic merge.

use http::StatusCode;
use serde_json::{Map, Value};

use super::failure::Failure;

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json";
/// Most operations of a JSON patch, as on a real server.
const MOST_OPERATIONS: usize = 10_000;
/// Bytes that the copies and moves of one JSON patch may carry together, as a real server limits copies: each can double
/// the object.
const MOST_CARRIED: usize = 3 * 1024 * 1024;
/// Levels of nesting that a JSON patch may reach. Parsers of JSON take a few more, and none takes just any number.
const DEEPEST: usize = 120;

/// A change to an object.
#[derive(Debug)]
pub(crate) enum Patch {
    Merge(Value),
    Json(json_patch::Patch),
    Strategic(Value),
}

impl Patch {
    /// Reads a patch of the given content type; `builtin` kinds alone know how their lists merge.
    pub(crate) fn parse(content_type: &str, body: &[u8], builtin: bool) -> Result<Self, Failure> {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        let bad = |error: serde_json::Error| Failure::bad_request(format!("error decoding patch: {error}"));
        let object = || match serde_json::from_slice(body).map_err(bad)? {
            value @ Value::Object(_) => Ok(value),
            _ => Err(Failure::bad_request("error decoding patch: it must be an object")),
        };
        match media {
            "application/merge-patch+json" => object().map(Self::Merge),
            "application/json-patch+json" => serde_json::from_slice(body).map_err(bad).map(Self::Json),
            "application/strategic-merge-patch+json" if builtin => object().map(Self::Strategic),
            "application/apply-patch+yaml" | "application/apply-patch+cbor" => {
                Err(Failure::not_implemented("server-side apply"))
            }
            _ => Err(Failure::unsupported_media_type(ACCEPTED)),
        }
    }

    /// The object with the change made.
    pub(crate) fn applied(&self, value: &Value) -> Result<Value, Failure> {
        let mut value = value.clone();
        match self {
            Self::Merge(patch) => json_patch::merge(&mut value, patch),
            Self::Strategic(patch) => merge_object(&mut value, patch)?,
            Self::Json(patch) => change(&mut value, patch)?,
        }
        Ok(value)
    }
}

/// Makes the operations of a JSON patch one by one, within what an object may become.
fn change(value: &mut Value, patch: &json_patch::Patch) -> Result<(), Failure> {
    use json_patch::PatchOperation::{Add, Copy, Move, Remove, Replace, Test};
    let limited = |what: &str, limit: usize| {
        let message = format!("Request entity is too large: a JSON patch may have at most {limit} {what}");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    };
    if patch.0.len() > MOST_OPERATIONS {
        return Err(limited("operations", MOST_OPERATIONS));
    }
    let mut carried = 0;
    for (index, operation) in patch.0.iter().enumerate() {
        let (new, from) = match operation {
            Add(add) => (Some(&add.value), None),
            Replace(replace) => (Some(&replace.value), None),
            Copy(copy) => (None, value.pointer(copy.from.as_str())),
            Move(shift) => (None, value.pointer(shift.from.as_str())),
            Remove(_) | Test(_) => (None, None),
        };
        carried += from.map_or(0, size);
        if carried > MOST_CARRIED {
            return Err(limited("bytes copied and moved", MOST_CARRIED));
        }
        if operation.path().count() + new.or(from).map_or(0, depth) > DEEPEST {
            return Err(limited("levels", DEEPEST));
        }
        json_patch::patch(value, std::slice::from_ref(operation)).map_err(|error| {
            let message = format!(
                "the server rejected our request due to an error in our request: operation {index} at {:?}: {}",
                error.path.as_str(),
                error.kind
            );
            Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
        })?;
    }
    Ok(())
}

/// About as many bytes as the value has as JSON text.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 3,
        Value::Array(items) => 2 + items.iter().map(size).sum::<usize>(),
        Value::Object(fields) => 2 + fields.iter().map(|(name, value)| name.len() + 4 + size(value)).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 5,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The field by which items of a list are the same; lists without one are replaced whole.
fn merge_key(field: &str, items: &[Value]) -> Option<&'static str> {
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "env"
        | "volumes"
        | "imagePullSecrets"
        | "secrets"
        | "resourceClaims"
        | "schedulingGates" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "volumeDevices" => Some("devicePath"),
        "hostAliases" | "podIPs" | "hostIPs" => Some("ip"),
        "topologySpreadConstraints" => Some("topologyKey"),
        "conditions" => Some("type"),
        "ownerReferences" => Some("uid"),
        // Of containers and of services.
        "ports" if items.iter().any(|item| !item["containerPort"].is_null()) => Some("containerPort"),
        "ports" => Some("port"),
        _ => None,
    }
}

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

/// What `$patch` asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

impl Directive {
    fn of(change: &Value) -> Result<Self, Failure> {
        match change.get(DIRECTIVE).map(Value::as_str) {
            None | Some(Some("merge")) => Ok(Self::Merge),
            Some(Some("replace")) => Ok(Self::Replace),
            Some(Some("delete")) => Ok(Self::Delete),
            Some(_) => Err(Failure::internal(format!("unknown patch type: {} in map: {change}", change[DIRECTIVE]))),
        }
    }
}

fn merge_object(value: &mut Value, patch: &Value) -> Result<(), Failure> {
    let Some(changes) = patch.as_object() else {
        *value = patch.clone();
        return Ok(());
    };
    let directive = Directive::of(patch)?;
    if !value.is_object() || directive != Directive::Merge {
        *value = Value::Object(Map::new());
    }
    let Some(fields) = value.as_object_mut().filter(|_| directive != Directive::Delete) else { return Ok(()) };
    if let Some(retained) = changes.get(RETAIN).and_then(Value::as_array) {
        fields.retain(|name, _| retained.iter().any(|kept| kept == name));
    }
    for (name, change) in changes {
        if let Some(list) = name.strip_prefix(DELETE) {
            let gone = change.as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(items) = fields.get_mut(list).and_then(Value::as_array_mut) {
                items.retain(|item| !gone.contains(item));
            }
        } else if name != DIRECTIVE && name != RETAIN && !name.starts_with(ORDER) {
            merge_field(fields, name, change)?;
        }
    }
    for (name, order) in changes {
        let list = name.strip_prefix(ORDER).and_then(|list| Some((list, fields.get_mut(list)?.as_array_mut()?)));
        if let (Some((list, items)), Some(order)) = (list, order.as_array()) {
            reorder(list, items, order);
        }
    }
    Ok(())
}

fn merge_field(fields: &mut Map<String, Value>, name: &str, change: &Value) -> Result<(), Failure> {
    match change {
        Value::Null => {
            fields.shift_remove(name);
        }
        Value::Object(_) => merge_object(fields.entry(name).or_insert(Value::Null), change)?,
        Value::Array(changes) => {
            let present = fields.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            let mut items = present.as_array().cloned().unwrap_or_default();
            match merge_key(name, changes).or_else(|| merge_key(name, &items).filter(|_| changes.is_empty())) {
                Some(key) => merge_items(&mut items, changes, key)?,
                None if name == "finalizers" => {
                    let new: Vec<_> = changes.iter().filter(|item| !items.contains(item)).cloned().collect();
                    items.extend(new);
                }
                None => items = changes.clone(),
            }
            *present = Value::Array(items);
        }
        other => {
            fields.insert(name.to_owned(), other.clone());
        }
    }
    Ok(())
}

fn merge_items(items: &mut Vec<Value>, changes: &[Value], key: &str) -> Result<(), Failure> {
    for change in changes.iter().filter(|change| change[key].is_null()) {
        if !change.is_object() {
            return Err(Failure::internal(format!("list element types are not identical: {change} is no map")));
        }
        if Directive::of(change)? != Directive::Replace {
            return Err(Failure::internal(format!("map: {change} does not contain declared merge key: {key}")));
        }
        items.clear();
    }
    for change in changes.iter().filter(|change| !change[key].is_null()) {
        let place = items.iter().position(|item| item[key] == change[key]);
        match (place, Directive::of(change)?) {
            (Some(place), Directive::Delete) => {
                items.remove(place);
            }
            (None, Directive::Delete) => {}
            (Some(place), _) => merge_object(&mut items[place], change)?,
            (None, _) => {
                let mut item = Value::Null;
                merge_object(&mut item, change)?;
                items.push(item);
            }
        }
    }
    Ok(())
}

/// Puts the named items first, in the given order; the others keep theirs.
fn reorder(list: &str, items: &mut [Value], order: &[Value]) {
    let key = merge_key(list, items);
    let same = |item: &Value, wanted: &Value| match key {
        Some(key) => item[key] == wanted[key],
        None => item == wanted,
    };
    items.sort_by_cached_key(|item| order.iter().position(|wanted| same(item, wanted)).unwrap_or(order.len()));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn strategic(mut value: Value, patch: Value) -> Value {
        merge_object(&mut value, &patch).unwrap();
        value
    }

    #[test]
    fn a_strategic_patch_that_cannot_be_meant_is_refused() {
        for (patch, word) in [
            (json!({"containers": [{"image": "x"}]}), "merge key: name"),
            (json!({"containers": ["x"]}), "not identical"),
            (json!({"containers": [{"name": "a", "$patch": "zap"}]}), "unknown patch type"),
            (json!({"labels": {"$patch": 1}}), "unknown patch type"),
        ] {
            let failure = Patch::Strategic(patch).applied(&json!({"containers": [{"name": "a"}]})).unwrap_err();
            assert_eq!(failure.code(), 500);
            assert!(failure.status()["message"].as_str().unwrap().contains(word), "{failure:?}");
        }
    }

    #[test]
    fn lists_with_a_key_merge_and_others_are_replaced() {
        let pod = json!({"containers": [{"name": "a", "image": "1", "args": ["x", "y"]}, {"name": "b", "image": "1"}]});
        let patch = json!({
            "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
            "containers": [{"name": "a", "image": "2", "args": ["z"]}, {"name": "b", "$patch": "delete"}, {"name": "c", "image": "3"}],
        });
        assert_eq!(
            strategic(pod, patch),
            json!({"containers": [{"name": "c", "image": "3"}, {"name": "a", "image": "2", "args": ["z"]}]})
        );
    }

    #[test]
    fn directives_replace_retain_and_delete() {
        let strategy = json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}});
        let patch = json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}});
        assert_eq!(strategic(strategy, patch), json!({"strategy": {"type": "Recreate"}}));
        let labels = json!({"labels": {"a": "1", "b": "2"}});
        assert_eq!(strategic(labels.clone(), json!({"labels": {"a": null}})), json!({"labels": {"b": "2"}}));
        let replaced = strategic(labels, json!({"labels": {"$patch": "replace", "c": "3"}}));
        assert_eq!(replaced, json!({"labels": {"c": "3"}}));
        let finalizers = json!({"finalizers": ["a/x", "b/y"]});
        let patch = json!({"$deleteFromPrimitiveList/finalizers": ["a/x"], "finalizers": ["c/z"]});
        assert_eq!(strategic(finalizers, patch), json!({"finalizers": ["b/y", "c/z"]}));
    }

    #[test]
    fn media_types_decide() {
        let code = |media: &str, builtin| {
            Patch::parse(media, b"{}", builtin).map(|_| ()).map_err(|failure| failure.code().as_u16())
        };
        assert_eq!(code("application/merge-patch+json", false), Ok(()));
        assert_eq!(code("application/strategic-merge-patch+json", true), Ok(()));
        assert_eq!(code("application/strategic-merge-patch+json", false), Err(415));
        assert_eq!(code("application/apply-patch+yaml", true), Err(501));
        assert_eq!(code("application/json", true), Err(415));
    }

    #[test]
    fn a_json_patch_whose_test_fails_changes_nothing() {
        let body = br#"[{"op": "test", "path": "/a", "value": 2}, {"op": "replace", "path": "/a", "value": 3}]"#;
        let patch = Patch::parse("application/json-patch+json", body, true).unwrap();
        assert_eq!(patch.applied(&json!({"a": 1})).unwrap_err().code(), 422);
        assert_eq!(patch.applied(&json!({"a": 2})).unwrap(), json!({"a": 3}));
    }

    #[test]
    fn a_json_patch_cannot_make_a_small_request_a_huge_object() {
        let patch = |operations: Vec<Value>| {
            let body = Value::from(operations).to_string();
            Patch::parse("application/json-patch+json", body.as_bytes(), true).unwrap()
        };
        let doubled = (0..64).map(|n| json!({"op": "copy", "from": "/a", "path": format!("/a/{n}")})).collect();
        assert_eq!(patch(doubled).applied(&json!({"a": {"b": "c"}})).unwrap_err().code(), 413);
        // In turn each of the two is made anew and takes up the other.
        let nested = |op: &str| {
            let step = |number: usize| {
                let (outer, inner) = if number.is_multiple_of(2) { ("/a", "/b") } else { ("/b", "/a") };
                [
                    json!({"op": "add", "path": outer, "value": {"x": {}}}),
                    json!({"op": op, "from": inner, "path": format!("{outer}/x")}),
                ]
            };
            patch((0..200).flat_map(step).collect())
        };
        let start = json!({"a": {}, "b": {}});
        assert_eq!(nested("move").applied(&start).unwrap_err().code(), 413);
        assert_eq!(nested("copy").applied(&start).unwrap_err().code(), 413);
        let many = vec![json!({"op": "test", "path": "/a", "value": {}}); MOST_OPERATIONS + 1];
        assert_eq!(patch(many).applied(&start).unwrap_err().code(), 413);
    }
}
