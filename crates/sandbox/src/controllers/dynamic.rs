//! Kinds that are worked on as JSON: a type for each would be compiled for each.

use futures::stream::BoxStream;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use serde_json::{Map, Value, json};

use super::{Error, ask, unbroken};

/// A kind of Kubernetes.
pub(super) fn kind(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// Watches all objects of a kind. Broken watches are opened again; the stream never ends.
pub(crate) fn watch_kind(client: &Client, kind: &ApiResource) -> BoxStream<'static, Event<DynamicObject>> {
    let all = Api::<DynamicObject>::all_with(client.clone(), kind);
    unbroken(kind.kind.clone(), watcher::watcher(all, watcher::Config::default()))
}

/// The objects of a kind in a namespace.
pub(super) fn api(client: &Client, kind: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, kind),
        None => Api::all_with(client.clone(), kind),
    }
}

/// Writes a status if it is not the one that the object has, and gives what is written, `None` when the object has gone.
pub(super) async fn write_status(
    client: &Client,
    kind: &ApiResource,
    object: &DynamicObject,
    status: Value,
) -> Result<Option<DynamicObject>, Error> {
    let known = &object.data["status"];
    if *known == status {
        return Ok(Some(object.clone()));
    }
    let patch = json!({ "metadata": { "uid": object.uid() }, "status": replacing(known, status) });
    let objects = api(client, kind, object.namespace().as_deref());
    match ask(objects.patch_status(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch))).await {
        Ok(written) => Ok(Some(written)),
        Err(error) if error.is_not_found() || error.is_other_object() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The merge patch that makes `known` equal to `wanted`, as far down as its objects go.
pub(super) fn replacing(known: &Value, wanted: Value) -> Value {
    let (Some(before), Value::Object(mut after)) = (known.as_object(), wanted.clone()) else { return wanted };
    for (field, value) in &mut after {
        if let Some(old) = before.get(field) {
            *value = replacing(old, value.take());
        }
    }
    for field in before.keys() {
        after.entry(field).or_insert(Value::Null);
    }
    Value::Object(after)
}

/// Sets a field, or leaves it out.
pub(super) fn put(fields: &mut Map<String, Value>, field: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        fields.insert(field.to_owned(), value.into());
    }
}

/// A whole number that fits, or the default.
pub(super) fn number(value: &Value, default: i32) -> i32 {
    value.as_i64().map_or(default, |number| i32::try_from(number).unwrap_or(if number < 0 { 0 } else { i32::MAX }))
}

/// A time of the API, to the second.
pub(super) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(super) fn time(value: &Value) -> Option<Timestamp> {
    value.as_str().and_then(|text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_replaced_whole() {
        let known = json!({ "a": 1, "gone": 2, "inner": { "b": 1, "c": [1] } });
        let wanted = json!({ "a": 1, "inner": { "c": [2] } });
        let mut merged = known.clone();
        json_patch::merge(&mut merged, &replacing(&known, wanted.clone()));
        assert_eq!(merged, wanted);
    }
}
