//! What a real API server makes of our definitions.

use http::Request;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use serde_json::{Value, json};

use crate::rules::{self, path, send};
use crate::{control_plane, objects};

#[tokio::test]
async fn the_definitions_accept_and_refuse_what_the_table_says() {
    let Some(client) = control_plane::client("rules").await else { return };
    let (deviations, count) = rules::ask(&client).await;
    assert!(deviations.is_empty(), "{} of {count}: {deviations:#?}", deviations.len());
    assert!(count > 200, "{count}");
}

/// The object as a user would write it: the server writes the rest of the metadata.
fn written(object: &Value) -> Value {
    let mut written = object.clone();
    let metadata = &object["metadata"];
    written["metadata"] =
        json!({"name": metadata["name"], "labels": metadata["labels"], "annotations": metadata["annotations"]});
    written.as_object_mut().unwrap().shift_remove("status");
    written
}

/// Creates the full object of every kind with its status; gives back each with its path.
async fn create_full(client: &Client) -> Vec<(String, Value)> {
    let mut created = Vec::new();
    for object in objects::full() {
        let path = path(object["kind"].as_str().unwrap(), client.default_namespace());
        let stored = send(client, "POST", &format!("{path}?fieldValidation=Strict"), &written(&object)).await.unwrap();
        assert_eq!(stored["spec"], object["spec"], "nothing is lost or filled in");
        let one = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
        let status = json!({"status": object["status"]});
        let stored = send(client, "PATCH", &format!("{one}/status?fieldValidation=Strict"), &status).await.unwrap();
        assert_eq!(stored["status"], object["status"], "nothing is lost or filled in");
        created.push((one, object));
    }
    created
}

#[tokio::test]
async fn full_objects_are_stored_as_they_are_and_shown_as_users_know_them() {
    let Some(client) = control_plane::client("full").await else { return };
    let mut shown = Vec::new();
    for (path, object) in create_full(&client).await {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let request = Request::get(&path).header("Accept", accept).body(Vec::new()).unwrap();
        let table: Value = client.request(request).await.unwrap();
        let cells = table["rows"][0]["cells"].as_array().unwrap().iter();
        let columns = table["columnDefinitions"].as_array().unwrap().iter().zip(cells).map(|(column, cell)| {
            // An age grows.
            let cell = if column["type"] == "date" { json!("…") } else { cell.clone() };
            let text = |name: &str| column[name].as_str().unwrap_or_default().to_owned();
            let wide = if column["priority"] == 0 { "" } else { " (wide)" };
            format!("{}: {} {cell}{wide}", text("name"), text("type"))
        });
        shown.push(format!("{}\n  {}\n", object["kind"].as_str().unwrap(), columns.collect::<Vec<_>>().join("\n  ")));
    }
    assert_eq!(shown.concat(), include_str!("columns.txt"));
}

#[tokio::test]
async fn a_status_is_changed_apart_from_the_rest() {
    let Some(client) = control_plane::client("status").await else { return };
    for mut object in objects::full() {
        let path = path(object["kind"].as_str().unwrap(), client.default_namespace());
        // The objects of the whole cluster have those of another test as neighbours.
        object["metadata"]["name"] = json!("apart");
        let mut sent = written(&object);
        sent["status"] = object["status"].clone();
        let stored = send(&client, "POST", &path, &sent).await.unwrap();
        assert_eq!((&stored["status"], &stored["metadata"]["generation"]), (&Value::Null, &json!(1)));
        let both = json!({"status": object["status"], "spec": null});
        let stored = send(&client, "PATCH", &format!("{path}/apart/status"), &both).await.unwrap();
        assert_eq!((&stored["spec"], &stored["metadata"]["generation"]), (&object["spec"], &json!(1)));
        assert_eq!(stored["status"], object["status"]);
    }
}

#[tokio::test]
async fn a_status_has_rules_of_its_own() {
    let Some(client) = control_plane::client("status-rules").await else { return };
    let cases = [
        ("ScaledObject", json!({"conditions": [{"type": "Ready"}]}), "status.conditions[0].status"),
        ("ScaledObject", json!({"conditions": [{"status": "True"}]}), "status.conditions[0].type"),
        ("ScaledObject", json!({"lastActiveTime": "yesterday"}), "status.lastActiveTime"),
        (
            "ScaledObject",
            json!({"scaleTargetGVKR": {"group": "", "version": "v1", "kind": "A"}}),
            "status.scaleTargetGVKR.resource",
        ),
        ("ScaledObject", json!({"health": {"a": {"numberOfFailures": "1"}}}), "status.health.a.numberOfFailures"),
        ("ScaledObject", json!({"triggersActivity": {"a": {"isActive": 1}}}), "status.triggersActivity.a.isActive"),
        ("ScaledJob", json!({"Paused": true}), "status.Paused"),
        ("ScaledJob", json!({"externalMetricNames": "a"}), "status.externalMetricNames"),
        ("TriggerAuthentication", json!({"scaledobjects": ["a"]}), "status.scaledobjects"),
        ("CloudEventSource", json!({"conditions": [{}]}), "status.conditions[0].status"),
    ];
    for object in objects::full().iter().filter(|object| object["metadata"]["namespace"].is_string()) {
        let kind = object["kind"].as_str().unwrap();
        let path = path(kind, client.default_namespace());
        let stored = send(&client, "POST", &path, &written(object)).await.unwrap();
        let one = format!("{path}/{}/status", stored["metadata"]["name"].as_str().unwrap());
        for (_, status, field) in cases.iter().filter(|(of, ..)| *of == kind) {
            let answer = send(&client, "PATCH", &one, &json!({"status": status})).await.unwrap_err();
            let causes = answer["details"]["causes"].as_array().unwrap();
            assert!(causes.iter().any(|cause| cause["field"] == *field), "{field}: {answer}");
        }
    }
}

#[tokio::test]
async fn short_names_are_those_users_type() {
    let Some(client) = control_plane::client("names").await else { return };
    let mut found = Vec::new();
    for group in ["keda.sh", "eventing.keda.sh"] {
        let request = Request::get(format!("/apis/{group}/v1alpha1")).body(Vec::new()).unwrap();
        let resources: Value = client.request(request).await.unwrap();
        for resource in resources["resources"].as_array().unwrap() {
            let short = resource["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str);
            found.push(format!("{} {}", resource["name"].as_str().unwrap(), short.collect::<Vec<_>>().join(" ")));
        }
    }
    found.sort();
    let wanted = [
        "cloudeventsources ",
        "cloudeventsources/status ",
        "clustercloudeventsources ",
        "clustercloudeventsources/status ",
        "clustertriggerauthentications cta clustertriggerauth",
        "clustertriggerauthentications/status ",
        "scaledjobs sj",
        "scaledjobs/status ",
        "scaledobjects so",
        "scaledobjects/status ",
        "triggerauthentications ta triggerauth",
        "triggerauthentications/status ",
    ];
    assert_eq!(found, wanted);
}

#[tokio::test]
async fn kubectl_reads_and_applies_the_definitions_as_yaml() {
    let Some(plane) = control_plane::plane().await else { return };
    let yaml: String =
        tidemark_api::crds().iter().map(|crd| format!("---\n{}", serde_saphyr::to_string(crd).unwrap())).collect();
    let file = plane.directory().join("crds.yaml");
    std::fs::write(&file, yaml).unwrap();
    let mut kubectl = plane.kubectl();
    // Without `--server-side` the client keeps the whole definition in an annotation, which has a limit.
    kubectl.args(["apply", "--dry-run=server", "--output=json", "--filename"]).arg(&file);
    let output = tokio::task::spawn_blocking(move || kubectl.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let applied: Vec<CustomResourceDefinition> = serde_json::from_value(list["items"].clone()).unwrap();
    let applied = applied.into_iter().map(|crd| crd.spec.versions);
    let versions: Vec<_> = tidemark_api::crds().into_iter().map(|crd| crd.spec.versions).collect();
    assert_eq!(applied.collect::<Vec<_>>(), versions, "every text is read as a text");
}
