//! The scale subresource: `autoscaling/v1` Scale over any resource that has one.

use serde_json::{Value, json};

use super::failure::{Cause, Failure};
use super::resource::{Resource, ScalePaths};
use super::selector::text_of;

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

/// The object with the replicas of a Scale. The Scale's resource version, if it has one, goes along and is checked
/// by the update.
pub(super) fn applied(
    resource: &Resource,
    paths: &ScalePaths,
    object: &Value,
    scale: &Value,
) -> Result<Value, Failure> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if !matches!(scale["kind"].as_str(), None | Some("Scale")) {
        return Err(Failure::bad_request(format!("expected a Scale, got {}", scale["kind"])));
    }
    if scale["metadata"]["name"].as_str().is_some_and(|given| given != name) {
        let message = "the name of the object does not match the name on the URL";
        return Err(Failure::bad_request(message));
    }
    let wanted = &scale["spec"]["replicas"];
    let replicas = match wanted {
        Value::Null => 0,
        other => match other.as_i64().and_then(|count| i32::try_from(count).ok()) {
            Some(count) => count,
            None => return Err(Failure::bad_request(format!("spec.replicas: {other} is no 32-bit integer"))),
        },
    };
    if replicas < 0 {
        let cause = Cause::invalid("spec.replicas", wanted, "must be greater than or equal to 0");
        return Err(Failure::invalid("autoscaling", "Scale", name, &[cause]));
    }
    let mut value = object.clone();
    if set(&mut value, &paths.replicas, replicas.into()).is_none() {
        return Err(Failure::bad_request(format!("{} has no place for {}", resource.kind, paths.replicas)));
    }
    match scale["metadata"]["resourceVersion"].as_str().filter(|version| !version.is_empty()) {
        Some(version) => value["metadata"]["resourceVersion"] = version.into(),
        // Unconditional, even for resources that do not allow it otherwise.
        None => value["metadata"]["resourceVersion"] = object["metadata"]["resourceVersion"].clone(),
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
    }
}
