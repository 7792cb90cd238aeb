//! Objects as KEDA leaves them in a cluster, every field set, read into our types and written again.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tidemark_api::{
    CloudEventSource, ClusterCloudEventSource, ClusterTriggerAuthentication, ScaledJob, ScaledObject,
    TriggerAuthentication,
};

/// Reads an object into its type and writes it again.
type RoundTrip = fn(Value) -> serde_json::Result<Value>;

fn round_trip<T: DeserializeOwned + Serialize>(value: Value) -> serde_json::Result<Value> {
    serde_json::to_value(serde_json::from_value::<T>(value)?)
}

/// Every kind's full object.
pub fn full() -> Vec<Value> {
    ALL.iter().map(|(text, _)| serde_saphyr::from_str(text).unwrap()).collect()
}

const ALL: [(&str, RoundTrip); 6] = [
    (include_str!("objects/scaled_object.yaml"), round_trip::<ScaledObject>),
    (include_str!("objects/scaled_job.yaml"), round_trip::<ScaledJob>),
    (include_str!("objects/trigger_authentication.yaml"), round_trip::<TriggerAuthentication>),
    (include_str!("objects/cluster_trigger_authentication.yaml"), round_trip::<ClusterTriggerAuthentication>),
    (include_str!("objects/cloud_event_source.yaml"), round_trip::<CloudEventSource>),
    (include_str!("objects/cluster_cloud_event_source.yaml"), round_trip::<ClusterCloudEventSource>),
];

#[test]
fn a_full_object_of_every_kind_is_written_as_it_was_read() {
    for ((_, round_trip), object) in ALL.iter().zip(full()) {
        assert_eq!(round_trip(object.clone()).unwrap(), object);
    }
}

/// The places of all objects, except maps with names of the user's own.
fn places(value: &Value, place: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let map = ["metadata", "health", "triggersActivity", "tokenUrlParams", "jobTargetRef"];
            if !map.iter().any(|name| place.ends_with(name)) {
                found.push(place.clone());
            }
            for (name, value) in fields.iter().filter(|(name, _)| *name != "jobTargetRef") {
                places(value, format!("{place}/{name}"), found);
            }
        }
        Value::Array(items) => {
            // What holds for one item holds for all.
            let items = items.iter().take(1).enumerate();
            items.for_each(|(index, item)| places(item, format!("{place}/{index}"), found));
        }
        _ => {}
    }
}

#[test]
fn a_field_of_another_version_is_kept_wherever_it_is() {
    for ((_, round_trip), object) in ALL.iter().zip(full()) {
        let mut found = Vec::new();
        places(&object["spec"], "/spec".to_owned(), &mut found);
        places(&object["status"], "/status".to_owned(), &mut found);
        for place in found {
            let mut newer = object.clone();
            newer.pointer_mut(&place).unwrap()["fieldOfTomorrow"] = json!({"a": [1]});
            assert_eq!(round_trip(newer.clone()).unwrap(), newer, "{place}");
        }
    }
}

#[test]
fn a_job_keeps_what_no_schema_knows() {
    let (text, round_trip) = ALL[1];
    let mut object: Value = serde_saphyr::from_str(text).unwrap();
    object["spec"]["jobTargetRef"]["template"]["spec"]["fieldOfTomorrow"] = json!([{"a": 1.5}]);
    assert_eq!(round_trip(object.clone()).unwrap(), object);
}

#[test]
fn what_must_be_there_is_asked_for() {
    for ((_, round_trip), object) in ALL.iter().zip(full()) {
        let mut specless = object.clone();
        specless.as_object_mut().unwrap().shift_remove("spec");
        let error = round_trip(specless).unwrap_err().to_string();
        assert!(error.contains("missing field `spec`"), "{error}");
    }
}
