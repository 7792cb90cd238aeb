//! What the HPA is answered.

use std::time::Duration;

use serde_json::json;
use tidemark_api::ScaledObject;
use tidemark_operator::What;

use crate::world::{Fault, Says, World, queue};

const METRIC: &str = "s0-metric-api-value";

#[tokio::test(start_paused = true)]
async fn a_metric_is_read_for_the_occasion_and_its_name_matched_without_case() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(2.5));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(5).await;
    world.source.says("queue", Says::Value(7.25));
    let values = world.operator.handle.metric("default", "workers", &METRIC.to_uppercase()).await.unwrap();
    assert_eq!(values.len(), 1);
    assert_eq!((&*values[0].metric, values[0].value_milli), (METRIC, 7250));
    assert_eq!(values[0].timestamp, world.clock.now());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn questions_at_the_same_time_share_one_read() {
    let world = World::new().await;
    world.source.says("queue", Says::Slow(Duration::from_secs(1), 4.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(5).await;
    let asked = world.source.asked("queue");
    let metric = || world.operator.handle.metric("default", "workers", METRIC);
    let (a, b, c) = tokio::join!(metric(), metric(), metric());
    assert!(a.is_ok() && a == b && b == c);
    assert_eq!(world.source.asked("queue"), asked + 1);
    metric().await.unwrap();
    assert_eq!(world.source.asked("queue"), asked + 1, "what was read just now serves");
    world.pass(2).await;
    metric().await.unwrap();
    assert_eq!(world.source.asked("queue"), asked + 2);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_read_for_the_hpa_counts_as_a_poll() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(4.0));
    world.deployment("workers", 0).await;
    world.object("workers", |o| o["spec"]["pollingInterval"] = json!(30)).await;
    world.pass(120).await;
    let fetches = |world: &World| world.log().iter().filter(|o| matches!(o.what, What::Fetch { .. })).count();
    let before = fetches(&world);
    world.pass(300).await;
    assert_eq!(fetches(&world) - before, 20, "the HPA asks every 15 s, and nobody else");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn errors_are_told_in_the_words_that_tools_know() {
    let world = World::new().await;
    world.source.says("queue", Says::Down);
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.object("broken", |o| o["spec"]["triggers"] = json!([{"type": "no-such", "metadata": {}}])).await;
    world.pass(5).await;
    let error = |object: &'static str, metric: &'static str| {
        let handle = world.operator.handle.clone();
        async move { handle.metric("default", object, metric).await.unwrap_err().to_string() }
    };
    let prefix = "error when getting metric values ";
    assert_eq!(
        error("none", "x").await,
        format!("{prefix}error getting scalers ScaledObject.keda.sh \"none\" not found")
    );
    assert_eq!(error("workers", "s9-x").await, format!("{prefix}no matching metrics found for s9-x"));
    assert!(error("workers", METRIC).await.starts_with(&format!("{prefix}metric:{METRIC} encountered error")));
    assert!(error("broken", "s0-x").await.starts_with(&format!("{prefix}error getting scalers ")));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_error_is_never_answered_twice() {
    let world = World::new().await;
    world.source.says("queue", Says::Down);
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(5).await;
    let metric = || world.operator.handle.metric("default", "workers", METRIC);
    assert!(metric().await.is_err());
    world.source.says("queue", Says::Value(1.0));
    assert_eq!(metric().await.unwrap()[0].value_milli, 1000);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_asks_before_the_first_check_has_ended_is_answered_at_once_when_the_object_is_deleted() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(1.0));
    world.faults.add("GET", "/deployments/", Fault::Hang, 100);
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(1).await;
    let handle = world.operator.handle.clone();
    let asked = tokio::spawn(async move { handle.metric("default", "workers", METRIC).await });
    world.pass(1).await;
    assert!(!asked.is_finished(), "it waits for the check");
    // The object stays for a while.
    world.faults.add("PATCH", "/scaledobjects/workers?", Fault::Status(500), 100);
    world.delete::<ScaledObject>("workers").await;
    world.pass(1).await;
    assert!(asked.is_finished());
    let error = asked.await.unwrap().unwrap_err().to_string();
    assert!(error.ends_with("the ScaledObject is being deleted"), "{error}");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_is_given_up_on_and_the_object_stays_responsive() {
    let world = World::new().await;
    world.source.says("a", Says::Slow(Duration::from_secs(3600), 0.0));
    world.source.says("b", Says::Value(5.0));
    world.deployment("workers", 0).await;
    world.object("workers", |o| o["spec"]["triggers"] = json!([queue("a"), queue("b")])).await;
    world.pass(1).await;
    assert_eq!(world.replicas("workers").await, 1, "the sibling acts at once");
    let started = world.clock.now();
    let error = world.operator.handle.metric("default", "workers", METRIC).await.unwrap_err();
    assert!(error.to_string().contains("timed out"), "{error}");
    assert!(world.clock.now().duration_since(started).as_secs() <= 10);
    world.end().await;
}
