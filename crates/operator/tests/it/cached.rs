//! `useCachedMetrics`: the HPA is answered from the last poll.

use serde_json::json;

use crate::world::{Says, World, queue};

const METRIC: &str = "s0-metric-api-value";

fn cached(value: &mut serde_json::Value) {
    value["spec"]["triggers"][0]["useCachedMetrics"] = json!(true);
    value["spec"]["pollingInterval"] = json!(60);
}

#[tokio::test(start_paused = true)]
async fn with_cached_metrics_only_polls_read_the_source() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(10.0));
    world.deployment("workers", 0).await;
    world.object("workers", cached).await;
    world.pass(610).await;
    assert_eq!(world.replicas("workers").await, 2);
    let asked = world.source.asked("queue");
    assert!((10..=11).contains(&asked), "{asked} reads in 10 polls, though the HPA asked every 15 s");
    world.source.says("queue", Says::Value(20.0));
    let values = world.operator.handle.metric("default", "workers", METRIC).await.unwrap();
    assert_eq!(values[0].value_milli, 10_000);
    assert!(values[0].timestamp < world.clock.now(), "its time is that of the poll");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_cached_failure_is_answered_as_one_and_counted_once() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(10.0));
    world.deployment("workers", 0).await;
    world
        .object("workers", |o| {
            cached(o);
            o["spec"]["fallback"] = json!({"failureThreshold": 2, "replicas": 4});
        })
        .await;
    world.pass(50).await;
    assert_eq!(world.replicas("workers").await, 2);
    world.source.says("queue", Says::Down);
    world.pass(60).await;
    assert!(world.operator.handle.metric("default", "workers", METRIC).await.is_err());
    let failures = |status: tidemark_api::ScaledObjectStatus| status.health.unwrap()[METRIC].number_of_failures;
    assert_eq!(failures(world.get("workers").await.status.unwrap()), Some(1), "the HPA's questions count nothing");
    world.pass(120).await;
    assert_eq!(failures(world.get("workers").await.status.unwrap()), Some(3));
    assert_eq!(world.condition("workers", "Fallback").await.status, "True");
    let values = world.operator.handle.metric("default", "workers", METRIC).await.unwrap();
    assert_eq!(values[0].value_milli, 20_000, "the fallback: 4 replicas at 5");
    world.pass(30).await;
    assert_eq!(world.condition("workers", "Fallback").await.status, "True", "an HPA's question does not heal it");
    assert_eq!(world.replicas("workers").await, 4);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn cached_metrics_are_refused_where_there_is_nothing_to_cache() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world
        .object("workers", |o| {
            let cron = json!({"type": "cron", "useCachedMetrics": true, "metadata": {
                "timezone": "UTC", "start": "0 6 * * *", "end": "0 8 * * *", "desiredReplicas": "2"}});
            o["spec"]["triggers"] = json!([queue("queue"), cron]);
        })
        .await;
    world.pass(5).await;
    let message = world.condition("workers", "Ready").await.message.unwrap();
    assert!(message.ends_with("property \"useCachedMetrics\" is not supported for \"cron\" trigger"), "{message}");
    world.end().await;
}
