//! Events: one store, seen through `v1` and through `events.k8s.io/v1`. The stored form is that of `v1`.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::cells::{age_of, duration_text, text_at};
use super::failure::Cause;
use super::resource::Columns;

pub(super) const SELECTABLE: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

pub(super) const COLUMNS: Columns = Columns {
    names: &[
        "Last Seen",
        "Type",
        "Reason",
        "Object",
        "+Subobject",
        "+Source",
        "Message",
        "+First Seen",
        "+Count",
        "+Name",
    ],
    cells,
};

/// Field of `v1`, field of `events.k8s.io/v1`.
const NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn renamed(value: Value, api_version: &str, rename: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(fields) = value else { return value };
    let mut out = Map::with_capacity(fields.len());
    for (key, value) in fields {
        match rename(&key) {
            Some(name) => out.insert(name.to_owned(), value),
            None => out.insert(key, value),
        };
    }
    out.insert("apiVersion".to_owned(), api_version.into());
    Value::Object(out)
}

/// The `events.k8s.io/v1` form of a stored event.
pub(super) fn shown(value: &Value) -> Value {
    let rename = |key: &str| NAMES.iter().find(|(stored, _)| *stored == key).map(|(_, shown)| *shown);
    renamed(value.clone(), "events.k8s.io/v1", rename)
}

/// The stored form of an `events.k8s.io/v1` event.
pub(super) fn stored(value: Value) -> Value {
    let rename = |key: &str| NAMES.iter().find(|(_, shown)| *shown == key).map(|(stored, _)| *stored);
    let mut event = renamed(value, "v1", rename);
    // The new group may leave out what the old one requires.
    if event["involvedObject"].is_null() {
        event["involvedObject"] = Value::Object(Map::new());
    }
    event
}

pub(super) fn validate(value: &Value, _: Option<&Value>, causes: &mut Vec<Cause>) {
    let about = value["involvedObject"]["namespace"].as_str().unwrap_or_default();
    let home = value["metadata"]["namespace"].as_str().unwrap_or_default();
    // Events about cluster-scoped objects live in `default`.
    if home != about && !(about.is_empty() && matches!(home, "default" | "kube-system")) {
        let detail = "does not match event.namespace";
        causes.push(Cause::invalid("involvedObject.namespace", &value["involvedObject"]["namespace"], detail));
    }
}

/// The stricter rules of `events.k8s.io/v1`, by the names of the stored form, as a real server gives them.
pub(super) fn validate_new(value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    validate(value, old, causes);
    for field in ["eventTime", "reportingComponent", "reportingInstance", "action", "reason"] {
        if value[field].as_str().is_none_or(str::is_empty) {
            causes.push(Cause::required(field, ""));
        }
    }
    let types = ["Normal", "Warning"].map(Value::from);
    if !types.contains(&value["type"]) {
        causes.push(Cause::unsupported("type", &value["type"], &types));
    }
    let Some(old) = old else { return };
    for field in FIXED.iter().filter(|field| value[**field] != old[**field]) {
        causes.push(Cause::invalid(*field, &value[*field], "field is immutable"));
    }
}

/// What an update through `events.k8s.io/v1` leaves as it is; the series is what changes.
const FIXED: &[&str] = &[
    "involvedObject",
    "reason",
    "message",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingComponent",
    "reportingInstance",
];

fn cells(value: &Value, now: Timestamp) -> Vec<Value> {
    let about = &value["involvedObject"];
    let kind = text_at(about, "kind").to_lowercase();
    let object = if kind.is_empty() { text_at(about, "name") } else { format!("{kind}/{}", text_at(about, "name")) };
    let component = &value["source"]["component"];
    let source = if component.is_string() { component.clone() } else { value["reportingComponent"].clone() };
    let first = first_known(&[&value["firstTimestamp"], &value["eventTime"]]);
    let series = &value["series"];
    let last = first_known(&[&series["lastObservedTime"], &value["lastTimestamp"], first]);
    let count = first_known(&[&series["count"], &value["count"]]).as_i64().unwrap_or(1);
    let since = |time: &Value| age_of(time, now).map_or("<unknown>".to_owned(), duration_text);
    let seen = if count > 1 { format!("{} (x{count} over {})", since(last), since(first)) } else { since(last) };
    vec![
        seen.into(),
        value["type"].clone(),
        value["reason"].clone(),
        object.into(),
        text_at(about, "fieldPath").into(),
        source,
        text_at(value, "message").trim().into(),
        since(first).into(),
        count.into(),
        value["metadata"]["name"].clone(),
    ]
}

fn first_known<'a>(values: &[&'a Value]) -> &'a Value {
    values.iter().find(|value| !value.is_null()).copied().unwrap_or(&Value::Null)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_groups_tell_the_same_event() {
        let new = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "shop"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "tidemark", "reason": "R", "note": "text",
            "regarding": {"kind": "ScaledObject", "name": "x", "namespace": "shop"}, "type": "Normal", "action": "A",
        });
        let old = stored(new.clone());
        assert_eq!(old["message"], "text");
        assert_eq!(old["involvedObject"]["name"], "x");
        assert_eq!(old["reportingComponent"], "tidemark");
        assert_eq!(shown(&old), new);
        let now = "2026-01-01T00:01:30Z".parse().unwrap();
        assert_eq!(cells(&old, now)[..4], [json!("90s"), json!("Normal"), json!("R"), json!("scaledobject/x")]);
    }
}
