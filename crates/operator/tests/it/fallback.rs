//! What stands in for a trigger that cannot be read.

use serde_json::{Value, json};
use tidemark_api::{ScaledObject, ScaledObjectStatus};
use tidemark_operator::{Life, What};

use crate::world::{Fault, Says, World, queue};

const METRIC: &str = "s0-metric-api-value";

fn with(behavior: &'static str) -> impl FnOnce(&mut Value) {
    move |object| {
        object["spec"]["fallback"] = json!({"failureThreshold": 2, "replicas": 6, "behavior": behavior});
    }
}

fn failures(status: &ScaledObjectStatus, metric: &str) -> (Option<i32>, Option<String>) {
    let health = &status.health.as_ref().unwrap()[metric];
    (health.number_of_failures, health.status.clone())
}

#[tokio::test(start_paused = true)]
async fn more_failures_than_tolerated_bring_the_replicas_of_the_fallback_also_from_zero() {
    let world = World::new().await;
    world.source.says("queue", Says::Down);
    world.deployment("workers", 0).await;
    world.object("workers", with("static")).await;
    // Polls at 0, 10 and 20 s; nobody else asks while there are no replicas.
    world.pass(15).await;
    assert_eq!(world.replicas("workers").await, 0, "two failures are tolerated");
    assert_eq!(world.condition("workers", "Fallback").await.status, "False");
    assert_eq!(failures(&world.get("workers").await.status.unwrap(), METRIC), (Some(2), Some("Failing".to_owned())));
    assert_eq!(world.condition("workers", "Ready").await.status, "True", "the fallback is awaited");
    world.pass(10).await;
    assert!(world.replicas("workers").await >= 1, "the third one brings the fallback");
    let fallback = world.condition("workers", "Fallback").await;
    assert_eq!((fallback.status.as_str(), fallback.reason.as_deref()), ("True", Some("FallbackExists")));
    assert!(world.has_event("workers", "ScaledObjectFallbackActivated").await);
    assert!(world.get("workers").await.status.unwrap().triggers_activity.unwrap()[METRIC].is_active);
    world.pass(60).await;
    assert_eq!(world.replicas("workers").await, 6);

    world.source.says("queue", Says::Value(0.0));
    world.pass(15).await;
    assert_eq!(world.condition("workers", "Fallback").await.status, "False");
    assert!(world.has_event("workers", "ScaledObjectFallbackDeactivated").await);
    assert_eq!(failures(&world.get("workers").await.status.unwrap(), METRIC), (Some(0), Some("Happy".to_owned())));
    world.pass(90).await;
    assert_eq!(world.replicas("workers").await, 0);
    let turns = world
        .log()
        .into_iter()
        .filter(|o| matches!(o.what, What::Life(Life::FallbackActivated | Life::FallbackDeactivated)));
    assert_eq!(turns.count(), 2, "each turn is told once");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn each_behavior_asks_for_its_replicas() {
    for (behavior, present, wanted) in [
        ("static", 8, 6),
        ("currentReplicas", 8, 8),
        ("currentReplicasIfHigher", 8, 8),
        ("currentReplicasIfHigher", 3, 6),
        ("currentReplicasIfLower", 8, 6),
        ("currentReplicasIfLower", 3, 3),
    ] {
        let world = World::new().await;
        world.source.says("queue", Says::Value(f64::from(present) * 5.0));
        world.deployment("workers", present).await;
        world.object("workers", with(behavior)).await;
        world.pass(60).await;
        assert_eq!(world.replicas("workers").await, present);
        world.source.says("queue", Says::Down);
        world.pass(40).await;
        let values = world.operator.handle.metric("default", "workers", METRIC).await.unwrap();
        let replicas = values[0].value_milli / 5000;
        assert_eq!(replicas, i64::from(wanted), "{behavior} at {present}");
        world.pass(400).await;
        assert_eq!(world.replicas("workers").await, wanted, "{behavior} at {present}");
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn for_a_target_of_the_whole_the_ready_pods_are_counted_and_only_then() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(15.0));
    world.deployment("workers", 3).await;
    world
        .object("workers", |o| {
            with("static")(o);
            o["spec"]["triggers"][0]["metricType"] = json!("Value");
            o["spec"]["triggers"][0]["metadata"]["targetValue"] = json!("15");
        })
        .await;
    world.pass(60).await;
    assert_eq!(world.replicas("workers").await, 3);
    let pods = |world: &World| world.faults.requests().iter().filter(|r| r.contains("/pods?")).count();
    assert_eq!(pods(&world), 0, "nobody needs to know");
    world.source.says("queue", Says::Down);
    world.pass(35).await;
    let values = world.operator.handle.metric("default", "workers", METRIC).await.unwrap();
    let ready = i64::from(world.replicas("workers").await);
    assert!(values[0].value_milli == 15_000 * 6 / ready || ready == 6, "{values:?} for {ready} ready pods");
    assert!(pods(&world) > 0);
    world.pass(100).await;
    assert_eq!(world.replicas("workers").await, 6);
    // Pods that cannot be read leave the metric without a value, and the replicas as they are.
    world.faults.add("GET", "/pods?", Fault::Status(403), 100_000);
    world.pass(10).await;
    assert!(world.operator.handle.metric("default", "workers", METRIC).await.is_err());
    world.pass(100).await;
    assert_eq!(world.replicas("workers").await, 6);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn questions_of_the_hpa_count_as_failures_too_and_each_once() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(5.0));
    world.deployment("workers", 1).await;
    world
        .object("workers", |o| {
            o["spec"]["fallback"] = json!({"failureThreshold": 1000, "replicas": 6});
            o["spec"]["pollingInterval"] = json!(3600);
        })
        .await;
    world.pass(20).await;
    world.source.says("queue", Says::Down);
    let fetches = |world: &World| world.log().iter().filter(|o| matches!(o.what, What::Fetch { .. })).count();
    let before = fetches(&world);
    world.pass(150).await;
    let failed = i32::try_from(fetches(&world) - before).unwrap();
    assert!(failed >= 9, "the HPA asks every 15 s");
    assert_eq!(failures(&world.get("workers").await.status.unwrap(), METRIC).0, Some(failed));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_count_of_failures_survives_a_restart_and_goes_with_the_metric() {
    let mut world = World::new().await;
    world.source.says("queue", Says::Down);
    world.source.says("other", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world
        .object("workers", |o| {
            with("static")(o);
            o["spec"]["triggers"] = json!([queue("queue"), queue("other")]);
            o["spec"]["triggers"][1]["metadata"]["valueLocation"] = json!("value");
        })
        .await;
    world.pass(15).await;
    world.restart_operator().await;
    world.pass(11).await;
    assert_eq!(world.condition("workers", "Fallback").await.status, "True", "two before, one after");
    let one = json!({"spec": {"triggers": [queue("other")]}});
    world.patch::<ScaledObject>("workers", one).await;
    world.pass(11).await;
    let health = world.get("workers").await.status.unwrap().health.unwrap();
    assert_eq!(health.keys().collect::<Vec<_>>(), [METRIC]);
    assert_eq!(world.condition("workers", "Fallback").await.status, "False");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_fallback_to_zero_replicas_never_takes_a_workload_to_zero() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(10.0));
    world.deployment("workers", 2).await;
    world.object("workers", |o| o["spec"]["fallback"] = json!({"failureThreshold": 2, "replicas": 0})).await;
    world.pass(60).await;
    world.source.says("queue", Says::Down);
    world.pass(900).await;
    assert!(world.replicas("workers").await >= 1, "a dead source never means zero");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_fallback_with_the_formulas_behavior_and_no_formula_is_a_failure() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(10.0));
    world.deployment("workers", 2).await;
    world.object("workers", with("scalingModifiers")).await;
    world.pass(60).await;
    world.source.says("queue", Says::Down);
    world.pass(300).await;
    assert!(world.operator.handle.metric("default", "workers", METRIC).await.is_err());
    assert_eq!(world.replicas("workers").await, 2);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_fallback_nothing_is_counted() {
    let world = World::new().await;
    world.source.says("queue", Says::Down);
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(100).await;
    assert!(world.get("workers").await.status.unwrap().health.is_none());
    let fallback = world.condition("workers", "Fallback").await;
    assert_eq!((fallback.status.as_str(), fallback.reason.as_deref()), ("False", Some("NoFallbackFound")));
    world.end().await;
}
