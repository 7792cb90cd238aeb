//! Triggers that ask the cluster itself: for other workloads' pods, and for the endpoints of services.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tidemark_trigger::ErrorKind;

use crate::world::{Fault, Says, World};

fn workload(selector: &str, more: Value) -> Value {
    let mut metadata = json!({"podSelector": selector, "value": "2"});
    metadata.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    json!([{"type": "kubernetes-workload", "metadata": metadata}])
}

async fn pod(world: &World, name: &str, node: &str) {
    world
        .create::<Pod>(json!({
            "metadata": {"name": name, "labels": {"app": "loose"}},
            "spec": {"nodeName": node, "containers": [{"name": "main", "image": "x"}]},
        }))
        .await;
}

async fn succeed(world: &World, name: &str) {
    let ended = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    world.api::<Pod>().patch_status(name, &PatchParams::default(), &ended).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_workload_follows_the_pods_of_another_from_zero_and_back() {
    let world = World::new().await;
    world.deployment("backend", 0).await;
    world.deployment("workers", 0).await;
    world.object("workers", |o| o["spec"]["triggers"] = workload("app in (backend, other)", json!({}))).await;
    world.pass(20).await;
    assert_eq!(world.replicas("workers").await, 0);

    world.scale_by_hand("backend", 7).await;
    world.pass(60).await;
    assert_eq!(world.replicas("workers").await, 4, "7 pods at 2 for each worker");
    let view = &world.snapshot("workers").triggers[0];
    assert_eq!((&*view.metric, view.value, view.active), ("s0-workload-default", Some(7.0), Some(true)));

    world.scale_by_hand("backend", 0).await;
    world.pass(100).await;
    assert_eq!(world.replicas("workers").await, 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn pods_that_have_ended_do_not_count_and_nodes_count_once() {
    let world = World::new().await;
    for (name, node) in [("a", "n1"), ("b", "n1"), ("c", "n2"), ("d", "n3")] {
        pod(&world, name, node).await;
    }
    world.pass(5).await;
    succeed(&world, "d").await;
    world.deployment("workers", 0).await;
    world.deployment("nodes", 0).await;
    world.object("workers", |o| o["spec"]["triggers"] = workload("app=loose", json!({}))).await;
    world.object("nodes", |o| o["spec"]["triggers"] = workload("app=loose", json!({"groupByNode": "true"}))).await;
    world.pass(5).await;
    assert_eq!(world.snapshot("workers").triggers[0].value, Some(3.0));
    assert_eq!(world.snapshot("nodes").triggers[0].value, Some(2.0));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn pods_that_may_not_be_listed_are_an_error_with_what_to_grant_and_never_zero() {
    let world = World::new().await;
    world.deployment("backend", 6).await;
    world.deployment("workers", 0).await;
    world.object("workers", |o| o["spec"]["triggers"] = workload("app=backend", json!({}))).await;
    world.pass(60).await;
    assert_eq!(world.replicas("workers").await, 3);

    world.faults.add("GET", "/default/pods?", Fault::Status(403), 1000);
    world.pass(300).await;
    let snapshot = world.snapshot("workers");
    let (kind, message) = snapshot.triggers[0].error.clone().unwrap();
    assert_eq!(kind, ErrorKind::Authentication);
    assert!(message.ends_with("grant the operator's ServiceAccount the verb list on pods in namespace default"));
    assert_eq!(world.replicas("workers").await, 3);
    world.faults.clear();
    world.pass(60).await;
    assert_eq!(world.snapshot("workers").triggers[0].value, Some(6.0));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn every_ready_endpoint_of_a_service_is_read() {
    let world = World::new().await;
    let endpoint = |address: &str, ready| json!({"addresses": [address], "conditions": {"ready": ready}});
    world
        .create::<EndpointSlice>(json!({
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [endpoint("10.0.0.1", true), endpoint("10.0.0.2", true), endpoint("10.0.0.3", false)],
        }))
        .await;
    world.source.says("stats", Says::Value(8.0));
    world.deployment("workers", 0).await;
    world
        .object("workers", |o| {
            o["spec"]["triggers"] = json!([{"type": "metrics-api", "metadata": {
                "url": "http://web.default:8080/stats", "valueLocation": "value", "targetValue": "5",
                "aggregateFromKubeServiceEndpoints": "true", "aggregationType": "sum",
            }}]);
        })
        .await;
    world.pass(4).await;
    assert_eq!(world.snapshot("workers").triggers[0].value, Some(16.0));
    assert_eq!(world.source.asked("stats"), 2);
    world.pass(60).await;
    assert_eq!(world.replicas("workers").await, 4);
    world.end().await;
}
