//! The three patches: merge (RFC 7386), JSON (RFC 6902) and Kubernetes' strategic merge.

use http::StatusCode;
use serde_json::{Map, Value};

use super::failure::Failure;

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json";

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
            Self::Strategic(patch) => merge_object(&mut value, patch),
            Self::Json(patch) => json_patch::patch(&mut value, patch).map_err(|error| {
                let message = format!("the server rejected our request due to an error in our request: {error}");
                Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
            })?,
        }
        Ok(value)
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

fn merge_object(value: &mut Value, patch: &Value) {
    let Some(changes) = patch.as_object() else {
        *value = patch.clone();
        return;
    };
    if !value.is_object() || changes.get(DIRECTIVE).is_some_and(|directive| directive == "replace") {
        *value = Value::Object(Map::new());
    }
    if changes.get(DIRECTIVE).is_some_and(|directive| directive == "delete") {
        *value = Value::Object(Map::new());
        return;
    }
    let Some(fields) = value.as_object_mut() else { return };
    if let Some(retained) = changes.get(RETAIN).and_then(Value::as_array) {
        fields.retain(|name, _| retained.iter().any(|kept| kept == name));
    }
    for (name, change) in changes {
        if let Some(list) = name.strip_prefix(DELETE) {
            let gone = change.as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(items) = fields.get_mut(list).and_then(Value::as_array_mut) {
                items.retain(|item| !gone.contains(item));
            }
        } else if !name.starts_with('$') {
            merge_field(fields, name, change);
        }
    }
    for (name, order) in changes {
        let list = name.strip_prefix(ORDER).and_then(|list| Some((list, fields.get_mut(list)?.as_array_mut()?)));
        if let (Some((list, items)), Some(order)) = (list, order.as_array()) {
            reorder(list, items, order);
        }
    }
}

fn merge_field(fields: &mut Map<String, Value>, name: &str, change: &Value) {
    match change {
        Value::Null => {
            fields.shift_remove(name);
        }
        Value::Object(_) => merge_object(fields.entry(name).or_insert(Value::Null), change),
        Value::Array(changes) => {
            let present = fields.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            let mut items = present.as_array().cloned().unwrap_or_default();
            match merge_key(name, changes).or_else(|| merge_key(name, &items).filter(|_| changes.is_empty())) {
                Some(key) => merge_items(&mut items, changes, key),
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
}

fn merge_items(items: &mut Vec<Value>, changes: &[Value], key: &str) {
    if changes.iter().any(|change| change[DIRECTIVE] == "replace" && change[key].is_null()) {
        items.clear();
    }
    for change in changes.iter().filter(|change| !change[key].is_null()) {
        let place = items.iter().position(|item| item[key] == change[key]);
        match place {
            Some(place) if change[DIRECTIVE] == "delete" => {
                items.remove(place);
            }
            Some(place) => merge_object(&mut items[place], change),
            None if change[DIRECTIVE] == "delete" => {}
            None => {
                let mut item = Value::Null;
                merge_object(&mut item, change);
                items.push(item);
            }
        }
    }
}

/// Puts the named items first, in the given order; the others keep theirs.
fn reorder(list: &str, items: &mut [Value], order: &[Value]) {
    let key = merge_key(list, items);
    let same = |item: &Value, wanted: &Value| match key {
        Some(key) => item[key] == wanted[key],
        None => item == wanted,
    };
    items.sort_by_key(|item| order.iter().position(|wanted| same(item, wanted)).unwrap_or(order.len()));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn strategic(mut value: Value, patch: Value) -> Value {
        merge_object(&mut value, &patch);
        value
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
}
