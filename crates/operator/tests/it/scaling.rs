//! From zero, to zero, and between.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::json;
use tidemark_api::ScaledObject;

use crate::world::{Says, World, queue};

#[tokio::test(start_paused = true)]
async fn a_filled_queue_scales_from_zero_and_an_empty_one_back_after_the_cooldown() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(5).await;
    assert_eq!(world.replicas("workers").await, 0);
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    assert_eq!(world.condition("workers", "Active").await.status, "False");

    world.source.says("queue", Says::Value(32.0));
    world.pass(11).await;
    assert!(world.replicas("workers").await >= 1);
    assert_eq!(world.condition("workers", "Active").await.status, "True");
    world.pass(60).await;
    assert_eq!(world.replicas("workers").await, 7, "32 jobs at 5 for each worker");

    world.source.says("queue", Says::Value(0.0));
    world.pass(45).await;
    assert!(world.replicas("workers").await > 0, "the cooldown of 60 s is not over");
    assert_eq!(world.condition("workers", "Active").await.reason.as_deref(), Some("ScalerCooldown"));
    world.pass(30).await;
    assert_eq!(world.replicas("workers").await, 0);
    assert_eq!(world.condition("workers", "Active").await.reason.as_deref(), Some("ScalerNotActive"));

    let events = world.events("workers").await;
    let note = |reason: &str| events.iter().find(|event| event.0 == reason).unwrap().1.clone();
    assert_eq!(
        note("KEDAScaleTargetActivated"),
        "Scaled apps/v1.Deployment default/workers from 0 to 1, triggered by s0-metric-api-value"
    );
    assert_eq!(note("KEDAScaleTargetDeactivated"), "Deactivated apps/v1.Deployment default/workers from 7 to 0");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_what_was_resolved() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 3).await;
    world.object("workers", |_| {}).await;
    world.pass(3).await;
    let object = world.get("workers").await;
    assert_eq!(object.metadata.finalizers.unwrap(), ["finalizer.keda.sh"]);
    assert_eq!(object.metadata.labels.unwrap()["scaledobject.keda.sh/name"], "workers");
    let status = object.status.unwrap();
    assert_eq!(status.scale_target_kind.as_deref(), Some("apps/v1.Deployment"));
    assert_eq!(status.scale_target_gvkr.unwrap().resource, "deployments");
    assert_eq!(status.original_replica_count, Some(3));
    assert_eq!(status.hpa_name.as_deref(), Some("keda-hpa-workers"));
    assert_eq!(status.external_metric_names.unwrap(), ["s0-metric-api-value"]);
    assert_eq!(status.triggers_types.as_deref(), Some("metrics-api"));
    assert!(!status.triggers_activity.unwrap()["s0-metric-api-value"].is_active);
    assert_eq!(world.condition("workers", "Fallback").await.reason.as_deref(), Some("NoFallbackFound"));
    assert_eq!(world.condition("workers", "Paused").await.status, "False");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_object_writes_nothing() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(60).await;
    let before = world.get("workers").await.metadata.resource_version;
    world.pass(3600).await;
    assert_eq!(world.get("workers").await.metadata.resource_version, before);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_target_below_the_minimum_is_raised_though_nothing_is_active() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |o| o["spec"]["minReplicaCount"] = json!(2)).await;
    world.pass(5).await;
    assert_eq!(world.replicas("workers").await, 2);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn force_activation_wakes_an_idle_target() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(15).await;
    let force = json!({"metadata": {"annotations": {"autoscaling.keda.sh/force-activation": "true"}}});
    world.patch::<ScaledObject>("workers", force).await;
    world.pass(11).await;
    assert_eq!(world.replicas("workers").await, 1);
    let events = world.events("workers").await;
    assert!(events.iter().any(|event| event.1.ends_with("caused by forced activation annotation")), "{events:?}");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn replicas_changed_by_hand_are_noticed() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(90).await;
    world.scale_by_hand("workers", 4).await;
    world.pass(1).await;
    assert_eq!(world.snapshot("workers").replicas, Some(4));
    world.pass(20).await;
    assert_eq!(world.replicas("workers").await, 0, "quiet, and no cooldown runs");
    world.source.says("queue", Says::Value(9.0));
    world.pass(30).await;
    world.scale_by_hand("workers", 0).await;
    world.pass(11).await;
    assert!(world.replicas("workers").await >= 1, "active: woken again");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_hpa_comes_back_and_an_edited_one_is_put_back() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(5).await;
    let asked = world.source.asked("queue");
    world.delete::<HorizontalPodAutoscaler>("keda-hpa-workers").await;
    world.pass(1).await;
    assert!(world.hpa("keda-hpa-workers").await.is_some());
    assert_eq!(world.source.asked("queue"), asked, "the triggers go on undisturbed");
    world.patch::<HorizontalPodAutoscaler>("keda-hpa-workers", json!({"spec": {"maxReplicas": 77}})).await;
    world.pass(1).await;
    assert_eq!(world.hpa("keda-hpa-workers").await.unwrap().spec.max_replicas, 10);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_hpa_that_gets_another_name_replaces_the_old_one() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(5).await;
    let rename = json!({"spec": {"advanced": {"horizontalPodAutoscalerConfig": {"name": "mine"}}}});
    world.patch::<ScaledObject>("workers", rename).await;
    world.pass(2).await;
    assert!(world.hpa("mine").await.is_some());
    assert!(world.hpa("keda-hpa-workers").await.is_none());
    assert_eq!(world.get("workers").await.status.unwrap().hpa_name.as_deref(), Some("mine"));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_cooldown_survives_a_restart_and_never_ends_early() {
    let mut world = World::new().await;
    world.source.says("queue", Says::Value(5.0));
    world.deployment("workers", 0).await;
    world.object("workers", |o| o["spec"]["cooldownPeriod"] = json!(300)).await;
    world.pass(40).await;
    assert_eq!(world.replicas("workers").await, 1);
    world.source.says("queue", Says::Value(0.0));
    world.pass(100).await;
    world.restart_operator().await;
    world.pass(170).await;
    assert_eq!(world.replicas("workers").await, 1, "at most 270 s of 300 are over");
    world.pass(75).await;
    assert_eq!(world.replicas("workers").await, 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_starts_while_the_object_is_active_begins_the_cooldown_anew() {
    let mut world = World::new().await;
    world.source.says("queue", Says::Value(5.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(100).await;
    world.stop_operator().await;
    world.source.says("queue", Says::Value(0.0));
    world.pass(600).await;
    world.start_operator();
    world.pass(50).await;
    assert_eq!(world.replicas("workers").await, 1, "60 s from the start of the operator");
    world.pass(35).await;
    assert_eq!(world.replicas("workers").await, 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_while_the_object_is_not_ready_does_not_shorten_the_cooldown() {
    let mut world = World::new().await;
    world.source.says("queue", Says::Value(5.0));
    world.deployment("workers", 0).await;
    world.object("workers", |o| o["spec"]["cooldownPeriod"] = json!(300)).await;
    world.pass(900).await;
    world.patch::<ScaledObject>("workers", json!({"spec": {"scaleTargetRef": {"name": "none"}}})).await;
    world.pass(5).await;
    assert_eq!(world.condition("workers", "Active").await.status, "Unknown");
    world.source.says("queue", Says::Value(0.0));
    world.restart_operator().await;
    world.patch::<ScaledObject>("workers", json!({"spec": {"scaleTargetRef": {"name": "workers"}}})).await;
    world.pass(280).await;
    assert_eq!(world.replicas("workers").await, 1, "it was active less than 300 s ago");
    world.pass(60).await;
    assert_eq!(world.replicas("workers").await, 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn two_triggers_the_larger_demand_wins_and_both_must_be_quiet() {
    let world = World::new().await;
    world.source.says("a", Says::Value(0.0));
    world.source.says("b", Says::Slow(Duration::from_secs(2), 20.0));
    world.deployment("workers", 0).await;
    world.object("workers", |o| o["spec"]["triggers"] = json!([queue("a"), queue("b")])).await;
    world.pass(120).await;
    assert_eq!(world.replicas("workers").await, 4);
    world.source.says("b", Says::Slow(Duration::from_secs(2), 0.0));
    world.pass(100).await;
    assert_eq!(world.replicas("workers").await, 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_count_is_held_between_activities() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 1).await;
    world
        .object("workers", |o| {
            o["spec"]["idleReplicaCount"] = json!(0);
            o["spec"]["minReplicaCount"] = json!(3);
        })
        .await;
    world.pass(90).await;
    assert_eq!(world.replicas("workers").await, 0);
    world.source.says("queue", Says::Value(1.0));
    world.pass(11).await;
    assert_eq!(world.replicas("workers").await, 3);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_hpa_that_is_there_already_is_taken_over() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.create::<HorizontalPodAutoscaler>(json!({
        "metadata": {"name": "keda-hpa-workers", "labels": {"theirs": "yes"}},
        "spec": {"maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "workers"},
            "metrics": [{"type": "External", "external": {
                "metric": {"name": "x"}, "target": {"type": "Value", "value": "1"}}}]},
    }))
    .await;
    let object = world.object("workers", |_| {}).await;
    world.pass(3).await;
    let hpa = world.hpa("keda-hpa-workers").await.unwrap();
    assert_eq!(hpa.spec.max_replicas, 10);
    assert_eq!(hpa.metadata.owner_references.unwrap()[0].uid, object.metadata.uid.unwrap());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn labels_and_annotations_follow_to_the_hpa_and_back() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |o| o["metadata"]["labels"] = json!({"team": "a", "old": "x"})).await;
    world.pass(3).await;
    world.patch::<ScaledObject>("workers", json!({"metadata": {"labels": {"team": "b", "old": null}}})).await;
    world.pass(3).await;
    let labels = world.hpa("keda-hpa-workers").await.unwrap().metadata.labels.unwrap();
    assert_eq!(labels["team"], "b");
    assert!(!labels.contains_key("old"));
    world.end().await;
}

/// Its two attempts take 3 s each: whenever one fetch of it has ended, the next one has begun.
#[tokio::test(start_paused = true)]
async fn a_source_that_takes_as_long_as_the_polling_interval_to_fail_holds_no_decision_up() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(5.0));
    world.source.says("dead", Says::Slow(Duration::from_secs(60), 0.0));
    world.deployment("workers", 0).await;
    world
        .object("workers", |o| {
            o["spec"]["pollingInterval"] = json!(6);
            o["spec"]["triggers"] = json!([queue("queue"), queue("dead")]);
            o["spec"]["triggers"][0]["name"] = json!("a");
            o["spec"]["triggers"][1]["name"] = json!("b");
            let modifiers = json!({"formula": "a + (b ?? 0)", "target": "5"});
            o["spec"]["advanced"] = json!({"scalingModifiers": modifiers});
            o["spec"]["fallback"] = json!({"failureThreshold": 1, "replicas": 1, "behavior": "scalingModifiers"});
        })
        .await;
    world.pass(60).await;
    assert_eq!(world.replicas("workers").await, 1);
    assert_eq!(world.condition("workers", "Active").await.status, "True");
    world.end().await;
}
