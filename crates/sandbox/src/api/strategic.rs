//! Kubernetes' strategic merge patch. The description of a kind says which lists merge, and by which field.

use serde_json::{Map, Value};

use super::failure::Failure;
use super::schema::Schema;

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

/// Merges a patch into an object whose schema says how its lists merge.
pub(super) fn merge_object(value: &mut Value, patch: &Value, schema: Option<&Schema>) -> Result<(), Failure> {
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
            merge_field(fields, name, change, field_of(schema, name))?;
        }
    }
    for (name, order) in changes {
        let list = name.strip_prefix(ORDER).and_then(|list| Some((list, fields.get_mut(list)?.as_array_mut()?)));
        if let (Some((list, items)), Some(order)) = (list, order.as_array()) {
            reorder(merge_key(field_of(schema, list)), items, order);
        }
    }
    Ok(())
}

fn merge_field(
    fields: &mut Map<String, Value>,
    name: &str,
    change: &Value,
    schema: Option<&Schema>,
) -> Result<(), Failure> {
    match change {
        Value::Null => {
            fields.shift_remove(name);
        }
        Value::Object(_) => merge_object(fields.entry(name).or_insert(Value::Null), change, schema)?,
        Value::Array(changes) => {
            let present = fields.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            let mut items = present.as_array().cloned().unwrap_or_default();
            match merge_key(schema) {
                Some(key) => merge_items(&mut items, changes, key, schema.and_then(|schema| schema.items.as_deref()))?,
                None if schema.is_some_and(|schema| schema.strategy.merge) => {
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

fn merge_items(items: &mut Vec<Value>, changes: &[Value], key: &str, schema: Option<&Schema>) -> Result<(), Failure> {
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
            (Some(place), _) => merge_object(&mut items[place], change, schema)?,
            (None, _) => {
                let mut item = Value::Null;
                merge_object(&mut item, change, schema)?;
                items.push(item);
            }
        }
    }
    Ok(())
}

/// Puts the named items first, in the given order; the others keep theirs.
fn reorder(key: Option<&str>, items: &mut [Value], order: &[Value]) {
    let same = |item: &Value, wanted: &Value| match key {
        Some(key) => item[key] == wanted[key],
        None => item == wanted,
    };
    items.sort_by_cached_key(|item| order.iter().position(|wanted| same(item, wanted)).unwrap_or(order.len()));
}

fn field_of<'a>(schema: Option<&'a Schema>, name: &str) -> Option<&'a Schema> {
    schema?.of(name).map(|schema| &**schema)
}

/// The field by which items of a list are the same; lists without one are replaced whole.
fn merge_key(schema: Option<&Schema>) -> Option<&str> {
    let strategy = &schema?.strategy;
    strategy.key.as_deref().filter(|_| strategy.merge)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::kinds;

    const POD: &str = "io.k8s.api.core.v1.PodSpec";
    const DEPLOYMENT: &str = "io.k8s.api.apps.v1.DeploymentSpec";
    const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

    fn strategic(of: &str, mut value: Value, patch: Value) -> Value {
        merge_object(&mut value, &patch, Some(&kinds::schema(of))).unwrap();
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
            let mut pod = json!({"containers": [{"name": "a"}]});
            let failure = merge_object(&mut pod, &patch, Some(&kinds::schema(POD))).unwrap_err();
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
            strategic(POD, pod, patch),
            json!({"containers": [{"name": "c", "image": "3"}, {"name": "a", "image": "2", "args": ["z"]}]})
        );
    }

    #[test]
    fn directives_replace_retain_and_delete() {
        let strategy = json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}});
        let patch = json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}});
        assert_eq!(strategic(DEPLOYMENT, strategy, patch), json!({"strategy": {"type": "Recreate"}}));
        let labels = json!({"labels": {"a": "1", "b": "2"}});
        assert_eq!(strategic(METADATA, labels.clone(), json!({"labels": {"a": null}})), json!({"labels": {"b": "2"}}));
        let replaced = strategic(METADATA, labels, json!({"labels": {"$patch": "replace", "c": "3"}}));
        assert_eq!(replaced, json!({"labels": {"c": "3"}}));
        let finalizers = json!({"finalizers": ["a/x", "b/y"]});
        let patch = json!({"$deleteFromPrimitiveList/finalizers": ["a/x"], "finalizers": ["c/z"]});
        assert_eq!(strategic(METADATA, finalizers, patch), json!({"finalizers": ["b/y", "c/z"]}));
    }
}
