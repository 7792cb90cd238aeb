//! cpu and memory triggers: the HPA reads them by itself, and they neither wake a workload nor keep it awake.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::{Value, json};

use crate::world::{Says, World, queue};

fn resource(kind: &str, metric_type: &str, value: &str) -> Value {
    json!({"type": kind, "metricType": metric_type, "metadata": {"value": value}})
}

/// The metrics of an object's HPA.
async fn metrics(world: &World, object: &str) -> Value {
    let hpa = world.hpa(&format!("keda-hpa-{object}")).await.unwrap();
    serde_json::to_value(hpa.spec.metrics).unwrap()
}

/// How often the operator has written an HPA.
fn hpa_writes(world: &World) -> usize {
    let of_hpa = |line: &&String| line.contains("/horizontalpodautoscalers") && !line.starts_with("GET");
    world.faults.requests().iter().filter(of_hpa).count()
}

#[tokio::test(start_paused = true)]
async fn an_object_with_cpu_and_memory_only_is_active_and_has_their_metrics_in_its_hpa() {
    let world = World::new().await;
    world.deployment("workers", 2).await;
    let mut web = resource("cpu", "AverageValue", "0.5");
    web["metadata"]["containerName"] = json!("main");
    world
        .object("workers", |o| {
            o["spec"]["minReplicaCount"] = json!(1);
            o["spec"]["triggers"] =
                json!([resource("cpu", "Utilization", "60"), web, resource("memory", "AverageValue", "1024Mi")]);
        })
        .await;
    world.pass(15).await;
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    assert_eq!(world.condition("workers", "Active").await.status, "True");
    assert_eq!(
        metrics(&world, "workers").await,
        json!([
            {"type": "ContainerResource", "containerResource":
                {"name": "cpu", "container": "main", "target": {"type": "AverageValue", "averageValue": "500m"}}},
            {"type": "Resource",
             "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}},
            {"type": "Resource",
             "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
        ])
    );
    let status = world.get("workers").await.status.unwrap();
    assert_eq!(status.resource_metric_names.unwrap(), ["cpu", "memory"]);
    assert!(status.external_metric_names.unwrap_or_default().is_empty());
    let before = hpa_writes(&world);
    world.pass(600).await;
    assert_eq!(world.replicas("workers").await, 2, "an active object is left to its HPA");
    assert_eq!(hpa_writes(&world), before, "an HPA that is as it should be is not written again");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_amount_that_is_written_otherwise_is_left_alone_and_another_amount_put_back() {
    let world = World::new().await;
    world.deployment("workers", 1).await;
    world
        .object("workers", |o| {
            o["spec"]["minReplicaCount"] = json!(1);
            o["spec"]["triggers"] = json!([resource("memory", "AverageValue", "1Gi")]);
        })
        .await;
    world.pass(5).await;
    for (amount, writes) in [("1024Mi", 0), ("2Gi", 1)] {
        let before = hpa_writes(&world);
        let mut edited = metrics(&world, "workers").await;
        edited[0]["resource"]["target"]["averageValue"] = json!(amount);
        let edited = json!({"spec": {"metrics": edited}});
        world.patch::<HorizontalPodAutoscaler>("keda-hpa-workers", edited).await;
        world.pass(15).await;
        assert_eq!(hpa_writes(&world) - before, writes, "{amount}");
    }
    let found = metrics(&world, "workers").await;
    assert_eq!(found[0]["resource"]["target"]["averageValue"], "1Gi");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn beside_a_queue_cpu_does_not_keep_the_workload_awake() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(3.0));
    world.deployment("workers", 0).await;
    world
        .object("workers", |o| o["spec"]["triggers"] = json!([resource("cpu", "Utilization", "60"), queue("queue")]))
        .await;
    world.pass(20).await;
    assert_eq!(world.replicas("workers").await, 1);
    let types: Vec<_> =
        metrics(&world, "workers").await.as_array().unwrap().iter().map(|metric| metric["type"].clone()).collect();
    assert_eq!(types, ["External", "Resource"]);
    let status = world.get("workers").await.status.unwrap();
    assert_eq!(status.external_metric_names.unwrap(), ["s1-metric-api-value"]);

    world.source.says("queue", Says::Value(0.0));
    world.pass(100).await;
    assert_eq!(world.replicas("workers").await, 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_cpu_trigger_that_cannot_be_is_named() {
    let world = World::new().await;
    world.deployment("workers", 1).await;
    world.object("workers", |o| o["spec"]["triggers"] = json!([resource("cpu", "Utilization", "60%")])).await;
    world.pass(5).await;
    let ready = world.condition("workers", "Ready").await;
    assert_eq!(ready.status, "False");
    assert!(ready.message.unwrap().contains("must be a whole number of per cent above 0, such as 60"));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_workload_with_cpu_only_is_not_left_at_zero() {
    let world = World::new().await;
    world.deployment("workers", 0).await;
    world.object("workers", |o| o["spec"]["triggers"] = json!([resource("cpu", "Utilization", "60")])).await;
    world.pass(5).await;
    assert_eq!(world.replicas("workers").await, 1);
    let events = world.events("workers").await;
    assert!(events.iter().any(|event| event.1.ends_with("from 0 to 1, triggered by cpu")), "{events:?}");
    world.scale_by_hand("workers", 0).await;
    world.pass(2).await;
    assert_eq!(world.replicas("workers").await, 1);
    world.end().await;
}
