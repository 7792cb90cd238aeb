//! The scale subresource: `autoscaling/v1` Scale over any resource that has one.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::admit::check_kind;
use super::cells::age;
use super::failure::{Cause, Failure};
use super::kinds;
use super::read::metadata_only;
use super::resource::{Resource, ScalePaths};
use super::selector::text_of;
use super::write::{check_name, check_namespace};

/// Name of a Scale's description.
pub(super) const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";

/// The Scale of an object in its shown form, to be read: as on a real server there is none without replicas in the spec,
/// though it can be written.
pub(super) fn read(paths: &ScalePaths, object: &Value) -> Result<Value, Failure> {
    if object.pointer(&paths.replicas).is_none_or(Value::is_null) {
        let path = paths.replicas.replace('/', ".");
        return Err(Failure::internal(format!(
            "Internal error occurred: the spec replicas field {path:?} does not exist"
        )));
    }
    Ok(of(paths, object))
}

/// The Scale of an object in its shown form.
pub(super) fn of(paths: &ScalePaths, object: &Value) -> Value {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let selector = match &paths.selector_text {
        None => text_of(&object["spec"]["selector"]),
        Some(pointer) => object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned(),
    };
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if !object["metadata"][field].is_null() {
            metadata[field] = object["metadata"][field].clone();
        }
    }
    // As on a real server, a zero of the spec is not written.
    let mut spec = json!({});
    if number(&paths.replicas) != 0 {
        spec["replicas"] = number(&paths.replicas).into();
    }
    let mut status = json!({"replicas": number(&paths.status_replicas)});
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// A Scale as a table.
pub(super) fn table(scale: &Value, include: Option<&str>, now: Timestamp) -> Value {
    let column = |name: &str, kind: &str| {
        let format = if name == "Name" { "name" } else { "" };
        json!({"name": name, "type": kind, "format": format, "description": "", "priority": 0})
    };
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let cells = json!([
        scale["metadata"]["name"],
        number(&scale["spec"]["replicas"]),
        number(&scale["status"]["replicas"]),
        age(scale, now),
    ]);
    let object = match include {
        Some("None") => Value::Null,
        Some("Object") => scale.clone(),
        _ => metadata_only(scale),
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": scale["metadata"]["resourceVersion"]},
        "columnDefinitions": [
            column("Name", "string"), column("Desired", "integer"), column("Available", "integer"), column("Age", "string"),
        ],
        "rows": [{"cells": cells, "object": object}],
    })
}

/// The object with the replicas of a Scale. The Scale's resource version and uid, if it has them, go along and are
/// checked by the update.
pub(super) fn applied(
    resource: &Resource,
    paths: &ScalePaths,
    object: &Value,
    scale: &Value,
) -> Result<Value, Failure> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let mut scale = scale.clone();
    check_kind(&mut scale, "autoscaling/v1", "Scale")?;
    check_name(&scale, name)?;
    check_namespace(&scale, object["metadata"]["namespace"].as_str().unwrap_or_default())?;
    if let Some(error) = kinds::schema(SCALE).mismatch(&scale, "Scale", "") {
        let message = format!("Scale in version \"v1\" cannot be handled as a Scale: {error}");
        return Err(Failure::bad_request(message));
    }
    // Without replicas, zero is meant: Go leaves out a zero.
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let cause = Cause::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
        return Err(Failure::invalid("autoscaling", "Scale", name, &[cause]));
    }
    let mut value = object.clone();
    if set(&mut value, &paths.replicas, replicas.into()).is_none() {
        return Err(Failure::bad_request(format!("{} has no place for {}", resource.kind, paths.replicas)));
    }
    // Without a version it is unconditional, even for resources that do not allow that otherwise.
    for field in ["resourceVersion", "uid"] {
        if let Some(given) = scale["metadata"][field].as_str().filter(|given| !given.is_empty()) {
            value["metadata"][field] = given.into();
        }
    }
    Ok(value)
}

/// Sets the value at a pointer of fields; makes objects on the way.
fn set(value: &mut Value, pointer: &str, new: Value) -> Option<()> {
    let mut place = value;
    for key in pointer.split('/').skip(1) {
        if place.is_null() {
            *place = json!({});
        }
        place = place.as_object_mut()?.entry(key).or_insert(Value::Null);
    }
    *place = new;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_replicas_and_selector() {
        let paths = ScalePaths {
            replicas: "/spec/replicas".into(),
            status_replicas: "/status/replicas".into(),
            selector_text: None,
        };
        let object = json!({
            "metadata": {"name": "x", "namespace": "n", "resourceVersion": "7", "labels": {"a": "b"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "x"}}}, "status": {"replicas": 2},
        });
        let scale = of(&paths, &object);
        assert_eq!(scale["spec"], json!({"replicas": 3}));
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=x"}));
        assert!(scale["metadata"].get("labels").is_none());
        assert_eq!(read(&paths, &json!({"spec": {}})).unwrap_err().code(), 500);
    }
}
