//! The same objects under KEDA's operator and under Tidemark's, each in a namespace of its own: what both make of them, in
//! every field of every object, while things happen to them and when they are gone.
//!
//! `objects/cases.yaml` has the objects. `objects/known.yaml` has what is not the same, each with its reason; what is not
//! there is a failure, and so is what stands there and is the same.

mod definitions;
mod known;
mod seen;
mod stage;

use std::time::Duration;

use futures::stream::{self, StreamExt};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use known::Known;
use seen::Seen;
use stage::{NAMESPACES, Stage, USER};

const CASES: &str = "tests/it/with_keda/objects/cases.yaml";
const KNOWN: &str = "tests/it/with_keda/objects/known.yaml";
const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json";
/// Seconds between polls: what 100 objects and more ask for at once is much for a small machine.
const POLL: u32 = 3;
const LOOK: Duration = Duration::from_secs(2);
/// So long at least it takes until what has been done has shown all its effects: some polls, and a cooldown of 1 s.
const AT_LEAST: Duration = Duration::from_secs(10);
/// KEDA looks again at an object that it could not use after 41 s at the latest, counted from its creation; the rest is for
/// a machine that has much else to do.
const AT_MOST: Duration = Duration::from_secs(150);
/// Objects that are created at the same time.
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_operators_make_the_same_of_the_same_objects() {
    let Some(stage) = Stage::set().await else { return };
    let text = std::fs::read_to_string(CASES).unwrap().replace("SOURCE", &stage.source.address.to_string());
    let cases: Vec<Value> = serde_saphyr::from_str(&text).unwrap();
    let mut known = Known::read(KNOWN);
    prepare(&stage).await;
    stream::iter(&cases).for_each_concurrent(AT_ONCE, |case| create(&stage, case)).await;
    until_same(&stage, "at first", &mut known).await;
    for round in 0..2 {
        for case in &cases {
            let step = &case["then"][round];
            for (what, how) in step.as_object().into_iter().flatten() {
                act(&stage, case, what, how).await;
            }
        }
        until_same(&stage, &format!("after change {}", round + 1), &mut known).await;
    }
    for plural in ["scaledobjects", "triggerauthentications"] {
        let path = |namespace: &str| format!("/apis/keda.sh/v1alpha1/namespaces/{namespace}/{plural}");
        stage.in_both(Method::DELETE, path, JSON, &Value::Null).await;
    }
    until_same(&stage, "when all are deleted", &mut known).await;
    known.assert_all_seen();
    stage.clear().await;
}

/// What the objects refer to.
async fn prepare(stage: &Stage) {
    let flocks = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "flocks.test.example"},
        "spec": {
            "group": "test.example", "scope": "Namespaced", "names": {"plural": "flocks", "kind": "Flock"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
                    "labelSelectorPath": ".status.selector",
                }},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    });
    stage.rest.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", USER, &flocks).await;
    let began = Instant::now();
    while stage.rest.try_get("/apis/test.example/v1/flocks").await.is_err() {
        assert!(began.elapsed() < AT_MOST, "flocks are not served");
        sleep(Duration::from_millis(100)).await;
    }
    let core = |plural: &'static str| move |namespace: &str| format!("/api/v1/namespaces/{namespace}/{plural}");
    let token = json!({"token": "t"});
    let object = json!({"metadata": {"name": "settings"}, "data": token});
    stage.in_both(Method::POST, core("configmaps"), JSON, &object).await;
    let object = json!({"metadata": {"name": "token"}, "stringData": token});
    stage.in_both(Method::POST, core("secrets"), JSON, &object).await;
    let entry = |name: &str| json!([{"parameter": "token", "name": name, "key": "token"}]);
    for (name, spec) in [
        ("from-secret", json!({"secretTargetRef": entry("token")})),
        ("from-config-map", json!({"configMapTargetRef": entry("settings")})),
        ("from-env", json!({"env": [{"parameter": "token", "name": "TOKEN"}]})),
        ("from-missing-secret", json!({"secretTargetRef": entry("nobody")})),
        ("unused", json!({"secretTargetRef": entry("token")})),
    ] {
        let object = json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": name}, "spec": spec,
        });
        let path = |namespace: &str| format!("/apis/keda.sh/v1alpha1/namespaces/{namespace}/triggerauthentications");
        stage.in_both(Method::POST, path, JSON, &object).await;
    }
    for (name, target) in [("there-before", "adopts"), ("there-too", "takes")] {
        let cpu = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}});
        let object = json!({
            "metadata": {"name": name, "labels": {"foreign": "yes"}, "annotations": {"foreign": "yes"}},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
                "minReplicas": 1, "maxReplicas": 3, "metrics": [{"type": "Resource", "resource": cpu}],
            },
        });
        let path = |namespace: &str| format!("/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers");
        stage.in_both(Method::POST, path, JSON, &object).await;
    }
    create_target(stage, &json!({"name": "spare"})).await;
}

fn scaled_object(case: &Value) -> Value {
    let name = target_name(case);
    let mut object = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
        "metadata": {"name": case["name"], "labels": case["labels"], "annotations": case["annotations"]},
        "spec": {"pollingInterval": POLL, "scaleTargetRef": {"name": name}},
    });
    for (field, value) in case["spec"].as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

async fn create(stage: &Stage, case: &Value) {
    let absent = case.get("target").is_some_and(Value::is_null) || case["target"]["exists"] == false;
    if !absent {
        create_target(stage, case).await;
    }
    let path = |namespace: &str| format!("/apis/keda.sh/v1alpha1/namespaces/{namespace}/scaledobjects");
    stage.in_both(Method::POST, path, JSON, &scaled_object(case)).await;
}

fn target_name(case: &Value) -> &str {
    case["target"]["name"].as_str().unwrap_or_else(|| case["name"].as_str().unwrap())
}

async fn create_target(stage: &Stage, case: &Value) {
    let (name, target) = (target_name(case), &case["target"]);
    let replicas = target["replicas"].as_i64().unwrap_or(1);
    let kind = target["kind"].as_str().unwrap_or("Deployment");
    let container = |name: &str, variable: &str, value: &str| {
        json!({
            "name": name, "image": "i", "env": [{"name": variable, "value": value}],
            "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}},
        })
    };
    let side = format!("http://{}/value/7", stage.source.address);
    let labels = json!({"app": name});
    let mut spec = json!({
        "replicas": replicas, "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [container("main", "TOKEN", "t"), container("side", "SIDE_URL", &side)]},
        },
    });
    let plural = match kind {
        "Deployment" => "apps/v1 deployments",
        "StatefulSet" => {
            spec["serviceName"] = name.into();
            "apps/v1 statefulsets"
        }
        "ReplicaSet" => "apps/v1 replicasets",
        _ => {
            spec = json!({"replicas": replicas, "size": 3});
            "test.example/v1 flocks"
        }
    };
    let (group, plural) = plural.split_once(' ').unwrap();
    let object = json!({"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": spec});
    let path = |namespace: &str| format!("/apis/{group}/namespaces/{namespace}/{plural}");
    stage.in_both(Method::POST, path, JSON, &object).await;
}

/// Does something to a case's objects.
async fn act(stage: &Stage, case: &Value, what: &str, how: &Value) {
    let name = case["name"].as_str().unwrap();
    let hpa = |namespace: &str| {
        format!("/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers/keda-hpa-{name}")
    };
    match (what, how) {
        ("object", patch) => {
            let path = |namespace: &str| format!("/apis/keda.sh/v1alpha1/namespaces/{namespace}/scaledobjects/{name}");
            stage.in_both(Method::PATCH, path, MERGE, patch).await;
        }
        ("hpa", Value::Null) => stage.in_both(Method::DELETE, hpa, JSON, &Value::Null).await,
        ("hpa", patch) => stage.in_both(Method::PATCH, hpa, MERGE, patch).await,
        ("target", how) if how == "created" => create_target(stage, case).await,
        ("target", _) => {
            let path = |namespace: &str| format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
            stage.in_both(Method::DELETE, path, JSON, &Value::Null).await;
        }
        ("source", how) => stage.source.set(name, how == "up"),
        (what, _) => panic!("{name}: {what} is nothing that can be done"),
    }
}

/// Waits until both namespaces look the same, but for what is known, and stay so.
async fn until_same(stage: &Stage, round: &str, known: &mut Known) {
    let began = Instant::now();
    let mut calm = false;
    loop {
        sleep(LOOK).await;
        let [keda, tidemark] = [seen::look(stage, NAMESPACES[0]).await, seen::look(stage, NAMESPACES[1]).await];
        let differences = seen::differences(&keda, &tidemark);
        let news = known.news(&differences);
        let same = news.is_empty() && is_settled(&keda) && is_settled(&tidemark) && began.elapsed() >= AT_LEAST;
        if same && calm {
            known.note(&differences);
            eprintln!("{round}: the same after {:?}, {} known differences", began.elapsed(), differences.len());
            return;
        }
        calm = same;
        if began.elapsed() > AT_MOST {
            let list: Vec<String> = news.iter().map(|difference| known::shown(difference)).collect();
            panic!("{round}: {} unknown differences\n{}\n{}", list.len(), list.join("\n"), stage.logs());
        }
    }
}

/// Whether every object has been looked at, and none is on its way out.
fn is_settled(seen: &Seen) -> bool {
    let objects = seen.iter().filter(|(name, _)| name.starts_with("ScaledObject/"));
    let mut living = objects.filter(|(_, fields)| fields.keys().any(|path| path.starts_with("/spec")));
    living.all(|(_, fields)| {
        fields.contains_key("/status/conditions/Ready/reason") && !fields.contains_key("/metadata/deletionTimestamp")
    })
}
