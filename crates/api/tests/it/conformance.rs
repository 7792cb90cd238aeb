//! The admission cases as far as the definitions decide: they must not refuse what KEDA accepts. (What KEDA refuses may
//! also be refused by its webhooks, which are not asked here.)

use std::collections::BTreeSet;

use kube::Client;
use serde_json::{Value, json};

use crate::control_plane;
use crate::rules::{path, send};

const FOLDER: &str = "../../../shared/conformance/admission";

/// Accepted cases whose object has no `spec.destination`, which the definition requires: the client that the cases come
/// from writes an empty one.
const NO_DESTINATION: [&str; 18] = [
    "cloudeventsource-086ab917",
    "cloudeventsource-12b55b9b",
    "cloudeventsource-19231b83",
    "cloudeventsource-34a16f1e",
    "cloudeventsource-34be1862",
    "cloudeventsource-368a9b49",
    "cloudeventsource-47e1a487",
    "cloudeventsource-52240e12",
    "cloudeventsource-527e9a07",
    "cloudeventsource-6c8fd42e",
    "cloudeventsource-7ee6458f",
    "cloudeventsource-8e5fd7b7",
    "cloudeventsource-a91c9182",
    "cloudeventsource-aebc9fe0",
    "cloudeventsource-bd7d81d5",
    "cloudeventsource-d62f0f75",
    "cloudeventsource-db501f0e",
    "cloudeventsource-dd4bb39c",
];

fn cases(file: &str) -> Option<Vec<Value>> {
    let path = format!("{FOLDER}/{file}.json");
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(serde_json::from_str(&text).unwrap()),
        Err(error) => {
            let required = std::env::var("TIDEMARK_REQUIRE_CONFORMANCE").as_deref() == Ok("1");
            assert!(!required, "{path} not found: {error}");
            println!("SKIPPED: {path} not found");
            None
        }
    }
}

/// The answer to what a case sends, as a rehearsal.
async fn answer(client: &Client, case: &Value) -> Result<Value, Value> {
    let here = |object: &Value| {
        let mut object = object.clone();
        let metadata = object["metadata"].as_object_mut().unwrap();
        if metadata.contains_key("namespace") {
            metadata.insert("namespace".to_owned(), json!(client.default_namespace()));
        }
        object
    };
    let mut object = here(&case["object"]);
    let path = path(object["kind"].as_str().unwrap(), client.default_namespace());
    if case["operation"] == "create" {
        return send(client, "POST", &format!("{path}?dryRun=All"), &object).await;
    }
    let old = send(client, "POST", &path, &here(&case["old"])).await?;
    let one = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
    object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
    let answer = send(client, "PUT", &format!("{one}?dryRun=All"), &object).await;
    // One that has finalizers would stay.
    let free = json!({"metadata": {"finalizers": null}});
    send(client, "PATCH", &one, &free).await.unwrap();
    send(client, "DELETE", &one, &json!({})).await.unwrap();
    answer
}

#[tokio::test]
async fn what_keda_accepts_is_accepted() {
    let Some(client) = control_plane::client("conformance").await else { return };
    let (mut refused, mut told) = (BTreeSet::new(), Vec::new());
    for file in ["scaledobject", "scaledjob", "triggerauthentication", "cloudeventsource"] {
        for case in cases(file).unwrap_or_default() {
            let answer = answer(&client, &case).await;
            if let (Err(status), true) = (answer, case["expect"]["accepted"] == true) {
                told.push(format!("{}: {}", case["id"], status["message"]));
                refused.insert(case["id"].as_str().unwrap().to_owned());
            }
        }
    }
    if !std::path::Path::new(FOLDER).is_dir() {
        return;
    }
    let known = NO_DESTINATION.map(str::to_owned).into();
    assert_eq!(refused, known, "{told:#?}");
}
