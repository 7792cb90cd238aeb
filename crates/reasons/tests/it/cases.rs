//! What a person reads in each case; the whole text is in a file.

use std::sync::atomic::Ordering;

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;
use tidemark_api::ScaledObject;
use tidemark_reasons::{Author, Report};

use crate::world::{World, queue};

#[tokio::test(start_paused = true)]
async fn stuck_at_one_because_the_trigger_sees_nothing() {
    let world = World::new().await;
    world.source.says("orders", 0.0);
    world.deployment("orders", 1).await;
    world.object("orders", vec![queue("orders")], |object| object["spec"]["minReplicaCount"] = 1.into()).await;
    world.pass(204).await;
    world.expect("orders", "sees-nothing").await;
}

#[tokio::test(start_paused = true)]
async fn stuck_at_one_because_the_threshold_is_too_high() {
    let world = World::new().await;
    world.deployment("orders", 1).await;
    let mut trigger = queue("orders");
    trigger["metadata"]["targetValue"] = "1000".into();
    world.object("orders", vec![trigger], |_| {}).await;
    for value in [90.0, 120.0, 160.0, 210.0] {
        world.source.says("orders", value);
        world.pass(11).await;
    }
    world.expect("orders", "threshold-too-high").await;
}

#[tokio::test(start_paused = true)]
async fn scaled_from_zero_and_on_by_the_hpa() {
    let world = World::new().await;
    world.source.says("orders", 12.0);
    world.deployment("orders", 0).await;
    world.object("orders", vec![queue("orders")], |_| {}).await;
    world.pass(64).await;
    let report = world.report("orders").await;
    let changes: Vec<_> =
        report.detail.unwrap().changes.iter().map(|change| (change.from, change.to, change.by)).collect();
    assert_eq!(changes, [(Some(0), 1, Author::Operator), (Some(1), 3, Author::Hpa)]);
    world.expect("orders", "scaled-by-the-hpa").await;
}

#[tokio::test(start_paused = true)]
async fn the_maximum_is_reached() {
    let world = World::new().await;
    world.source.says("orders", 400.0);
    world.deployment("orders", 1).await;
    world.object("orders", vec![queue("orders")], |_| {}).await;
    world.pass(124).await;
    world.expect("orders", "maximum-reached").await;
}

#[tokio::test(start_paused = true)]
async fn the_hpa_gets_no_values() {
    let world = World::new().await;
    world.broken.store(true, Ordering::Relaxed);
    world.source.says("orders", 40.0);
    world.deployment("orders", 1).await;
    world.object("orders", vec![queue("orders")], |_| {}).await;
    world.pass(64).await;
    world.expect("orders", "hpa-cannot-read").await;
}

#[tokio::test(start_paused = true)]
async fn above_zero_because_of_the_cooldown_and_zero_after_it() {
    let world = World::new().await;
    world.source.says("orders", 3.0);
    world.deployment("orders", 0).await;
    world.object("orders", vec![queue("orders")], |_| {}).await;
    world.pass(24).await;
    world.source.says("orders", 0.0);
    world.pass(30).await;
    world.expect("orders", "cooldown").await;
    world.pass(60).await;
    world.expect("orders", "at-zero").await;
}

#[tokio::test(start_paused = true)]
async fn above_zero_because_a_trigger_fails() {
    let world = World::new().await;
    world.source.says("orders", 0.0);
    world.source.says("returns", 2.0);
    world.deployment("orders", 0).await;
    world.object("orders", vec![queue("orders"), queue("returns")], |_| {}).await;
    world.pass(24).await;
    world.source.down("returns");
    world.pass(300).await;
    world.expect("orders", "failing-trigger").await;
    assert_eq!(world.page("").await.items[0].errors.iter().filter(|error| error.open).count(), 1);
    world.source.says("returns", 0.0);
    world.pass(11).await;
    let report = world.report("orders").await;
    assert!(report.errors.iter().all(|error| !error.open), "{:?}", report.errors);
    assert_eq!(report.explanation.unwrap().problems, []);
}

#[tokio::test(start_paused = true)]
async fn above_zero_because_another_trigger_is_active() {
    let world = World::new().await;
    world.source.says("orders", 0.0);
    world.source.says("returns", 1.0);
    world.deployment("orders", 1).await;
    world.object("orders", vec![queue("orders"), queue("returns")], |_| {}).await;
    world.pass(124).await;
    world.expect("orders", "another-trigger").await;
}

#[tokio::test(start_paused = true)]
async fn paused_with_and_without_a_count() {
    let world = World::new().await;
    world.source.says("orders", 40.0);
    world.deployment("orders", 1).await;
    world.object("orders", vec![queue("orders")], |_| {}).await;
    world.pass(14).await;
    let pause = |value| json!({"metadata": {"annotations": value}});
    let annotation = pause(json!({"autoscaling.keda.sh/paused": "true"}));
    world.patch::<ScaledObject>("orders", "kubectl", annotation).await;
    world.pass(100).await;
    world.expect("orders", "paused").await;
    let annotation = pause(json!({"autoscaling.keda.sh/paused": null, "autoscaling.keda.sh/paused-replicas": "4"}));
    world.patch::<ScaledObject>("orders", "kubectl", annotation).await;
    world.pass(100).await;
    world.expect("orders", "paused-replicas").await;
}

#[tokio::test(start_paused = true)]
async fn a_fallback_stands_in() {
    let world = World::new().await;
    world.source.says("orders", 1.0);
    world.deployment("orders", 1).await;
    world
        .object("orders", vec![queue("orders")], |object| {
            object["spec"]["fallback"] = json!({"failureThreshold": 3, "replicas": 6});
        })
        .await;
    world.pass(24).await;
    world.source.down("orders");
    world.pass(120).await;
    world.expect("orders", "fallback").await;
}

#[tokio::test(start_paused = true)]
async fn the_workload_is_missing() {
    let world = World::new().await;
    world.source.says("orders", 1.0);
    world.object("orders", vec![queue("orders")], |_| {}).await;
    world.pass(60).await;
    world.expect("orders", "target-missing").await;
    world.deployment("orders", 1).await;
    world.pass(5).await;
    assert_eq!(world.report("orders").await.explanation.unwrap().problems, []);
}

#[tokio::test(start_paused = true)]
async fn a_trigger_is_wrong() {
    let world = World::new().await;
    world.deployment("orders", 1).await;
    let mut trigger = queue("orders");
    trigger["metadata"]["targetValue"] = "many".into();
    world.object("orders", vec![trigger], |_| {}).await;
    world.pass(60).await;
    world.expect("orders", "wrong-trigger").await;
}

#[tokio::test(start_paused = true)]
async fn the_hpa_cannot_be_made() {
    let world = World::new().await;
    world.refused.store(true, Ordering::Relaxed);
    world.source.says("orders", 40.0);
    world.deployment("orders", 1).await;
    world.object("orders", vec![queue("orders")], |_| {}).await;
    world.pass(60).await;
    world.expect("orders", "no-hpa").await;
}

#[tokio::test(start_paused = true)]
async fn another_object_has_the_workload() {
    let world = World::new().await;
    world.source.says("orders", 1.0);
    world.deployment("orders", 1).await;
    world.object("orders", vec![queue("orders")], |_| {}).await;
    world.pass(5).await;
    world
        .object("orders-too", vec![queue("orders")], |object| {
            object["spec"]["scaleTargetRef"]["name"] = "orders".into()
        })
        .await;
    world.pass(60).await;
    world.expect("orders-too", "rival").await;
}

#[tokio::test(start_paused = true)]
async fn somebody_changed_the_replicas_by_hand() {
    let world = World::new().await;
    world.source.says("orders", 8.0);
    world.deployment("orders", 1).await;
    world.object("orders", vec![queue("orders")], |_| {}).await;
    world.pass(64).await;
    world.patch::<Deployment>("orders", "kubectl-scale", json!({"spec": {"replicas": 5}})).await;
    world.pass(2).await;
    world.expect("orders", "by-hand").await;
}

#[tokio::test(start_paused = true)]
async fn a_formula_decides() {
    let world = World::new().await;
    world.source.says("orders", 8.0);
    world.source.says("returns", 1.0);
    world.deployment("orders", 1).await;
    let named = |path: &str| {
        let mut trigger = queue(path);
        trigger["name"] = path.into();
        trigger
    };
    world
        .object("orders", vec![named("orders"), named("returns")], |object| {
            object["spec"]["advanced"] =
                json!({"scalingModifiers": {"formula": "orders + 3 * returns", "target": "4", "activationTarget": "2"}});
        })
        .await;
    world.pass(64).await;
    world.expect("orders", "formula").await;
}

#[tokio::test(start_paused = true)]
async fn equal_decisions_are_one_entry_and_what_is_gone_is_forgotten() {
    let world = World::new().await;
    world.source.says("orders", 0.0);
    world.deployment("orders", 0).await;
    world.object("orders", vec![queue("orders")], |_| {}).await;
    world.pass(3600).await;
    let detail = world.report("orders").await.detail.unwrap();
    let [only] = &*detail.decisions else { panic!("{:?}", detail.decisions) };
    assert!(only.count >= 359 && only.first < only.last, "{only:?}");
    assert_eq!(only.reasons.last().unwrap().rule, "AtRest");
    assert_eq!(world.ring.objects(), 1);
    world.delete("orders").await;
    world.pass(5).await;
    assert_eq!(world.ring.objects(), 0);
    let answer = world.reasons.answer(&tidemark_reasons::object_path("default", "orders"), "").await;
    assert_eq!(answer.status, 404);
    assert!(answer.json.contains(r#""details":{"group":"reasons.tidemark.dev""#), "{}", answer.json);
    world.shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        world.source.says(name, 0.0);
        world.deployment(name, 0).await;
        world.object(name, vec![queue(name)], |_| {}).await;
    }
    world.pass(5).await;
    let names = |items: &[Report]| items.iter().map(|item| item.metadata.name.clone()).collect::<Vec<_>>();
    let first = world.page("limit=2").await;
    assert_eq!((names(&first.items), &*first.metadata.next), (vec!["a".into(), "b".into()], "default/b"));
    let second = world.page("limit=2&continue=default%2Fb").await;
    assert_eq!((names(&second.items), &*second.metadata.next), (vec!["c".to_owned()], ""));
    let of = async |namespace: &str| {
        let answer = world.reasons.answer(&tidemark_reasons::path_of_list(Some(namespace)), "limit=2").await;
        serde_json::from_str::<tidemark_reasons::Page>(&answer.json).unwrap()
    };
    assert_eq!((names(&of("default").await.items).len(), names(&of("other").await.items).len()), (2, 0));
    assert!(first.items[0].detail.is_none() && first.items[0].explanation.is_none());
}
