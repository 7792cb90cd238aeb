//! Our definitions over those of a KEDA that has been there for years: every object stays as it is, and stays valid.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tidemark_testkit::{ControlPlane, Options};
use tokio::time::{Instant, sleep};

use super::{PATIENCE, api, apply, create_namespace, helm, of_kind, rendered};
use std::time::Duration;

/// Objects as KEDA leaves them, every field set.
const OBJECTS: [&str; 6] = [
    include_str!("../../../../api/tests/it/objects/scaled_object.yaml"),
    include_str!("../../../../api/tests/it/objects/scaled_job.yaml"),
    include_str!("../../../../api/tests/it/objects/trigger_authentication.yaml"),
    include_str!("../../../../api/tests/it/objects/cluster_trigger_authentication.yaml"),
    include_str!("../../../../api/tests/it/objects/cloud_event_source.yaml"),
    include_str!("../../../../api/tests/it/objects/cluster_cloud_event_source.yaml"),
];

/// A definition as an installation of KEDA has it: names, scope, version and status of KEDA's, and a schema that takes
/// whatever any of its versions has taken.
fn kedas(crd: &Value) -> Value {
    let spec = &crd["spec"];
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": crd["metadata"]["name"],
            "annotations": {"controller-gen.kubebuilder.io/version": "v0.19.0", "meta.helm.sh/release-name": "keda"},
            "labels": {"app.kubernetes.io/part-of": "keda-operator", "app.kubernetes.io/name": "keda-operator"},
        },
        "spec": {
            "group": spec["group"], "names": spec["names"], "scope": spec["scope"],
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}},
                "additionalPrinterColumns": [
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
            }],
        },
    })
}

async fn established(client: &Client, names: &[String]) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let start = Instant::now();
    for name in names {
        loop {
            let conditions = api.get(name).await.unwrap().status.and_then(|status| status.conditions);
            if conditions
                .iter()
                .flatten()
                .any(|condition| condition.type_ == "Established" && condition.status == "True")
            {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "{name} is not served");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// An object without what the server makes of it.
fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    let metadata = object["metadata"].as_object_mut().unwrap();
    for key in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"] {
        metadata.remove(key);
    }
    object
}

/// Creates an object with its status.
async fn create(client: &Client, object: &Value) {
    let name = object["metadata"]["name"].as_str().unwrap();
    let api = api(client, object);
    let new = serde_json::from_value(bare(object)).unwrap();
    let start = Instant::now();
    // A definition is served a little after it is established.
    while let Err(error) = api.create(&PostParams::default(), &new).await {
        assert!(start.elapsed() < PATIENCE, "{name}: {error}");
        sleep(Duration::from_millis(100)).await;
    }
    let status = Patch::Merge(json!({"status": object["status"]}));
    api.patch_status(name, &PatchParams::default(), &status).await.unwrap();
}

async fn read(client: &Client, object: &Value) -> Value {
    let name = object["metadata"]["name"].as_str().unwrap();
    let mut found = api(client, object).get(name).await.unwrap();
    found.managed_fields_mut().clear();
    serde_json::to_value(found).unwrap()
}

/// Writes an object as it is, and gives what the server would have stored.
async fn written_again(client: &Client, object: &Value) -> Value {
    let name = object["metadata"]["name"].as_str().unwrap();
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let replaced = api(client, object).replace(name, &params, &serde_json::from_value(object.clone()).unwrap()).await;
    let mut replaced =
        replaced.unwrap_or_else(|error| panic!("{} {name} is not valid any more: {error}", object["kind"]));
    replaced.managed_fields_mut().clear();
    serde_json::to_value(replaced).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_definitions_over_kedas_keep_every_object_as_it_is_and_valid() {
    let Some(helm) = helm() else { return };
    let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let client = plane.client().await.unwrap();
    let chart = rendered(&helm, "1.36.0", &["kedaNames=true"]);
    let ours: Vec<Value> = of_kind(&chart, "CustomResourceDefinition").into_iter().cloned().collect();
    let names: Vec<_> = ours.iter().map(|crd| crd["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names.len(), OBJECTS.len());
    let before: Vec<Value> = ours.iter().map(kedas).collect();
    apply(&client, &before).await;
    established(&client, &names).await;

    let objects: Vec<Value> = OBJECTS.iter().map(|text| serde_saphyr::from_str(text).unwrap()).collect();
    let namespaces = objects.iter().filter_map(|object| object["metadata"]["namespace"].as_str());
    for namespace in namespaces.collect::<std::collections::BTreeSet<_>>() {
        create_namespace(&client, namespace).await;
    }
    let mut there = Vec::new();
    for object in &objects {
        create(&client, object).await;
        there.push(read(&client, object).await);
    }
    let api_of_definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let uid = api_of_definitions.get(&names[0]).await.unwrap().uid();

    apply(&client, &ours).await;
    established(&client, &names).await;
    refuses(&client).await;
    assert_eq!(api_of_definitions.get(&names[0]).await.unwrap().uid(), uid, "it was not made anew");
    for object in &there {
        assert_eq!(read(&client, object).await, *object, "nothing of it is lost or changed");
        assert_eq!(written_again(&client, object).await, *object, "nothing of it is lost at the next write");
    }
}

/// Waits until our schema is the one that holds: KEDA's takes anything.
async fn refuses(client: &Client) {
    let wrong = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "wrong", "namespace": "default"},
        "spec": {"scaleTargetRef": {"name": "web"}, "pollingInterval": 0, "triggers": []},
    });
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let start = Instant::now();
    loop {
        let made = api(client, &wrong).create(&params, &serde_json::from_value(wrong.clone()).unwrap()).await;
        match made {
            Err(kube::Error::Api(status)) if status.code == 422 => return,
            other => assert!(start.elapsed() < PATIENCE, "it is not refused: {other:?}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}
