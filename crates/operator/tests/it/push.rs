//! Sources that name their metrics themselves, and tell unasked.

use serde_json::{Value, json};
use tidemark_api::ScaledObject;
use tidemark_operator::{Life, What, Write};

use crate::world::{Fault, Says, World, queue};

fn told(value: &mut Value) {
    value["spec"]["triggers"] = json!([{"type": "teller", "metadata": {}}]);
    value["spec"]["pollingInterval"] = json!(30);
}

/// Names and targets of the external metrics in the HPA.
async fn metrics(world: &World, object: &str) -> Vec<(String, String)> {
    let hpa = world.hpa(&format!("keda-hpa-{object}")).await.unwrap();
    let metrics = hpa.spec.metrics.unwrap().into_iter().filter_map(|metric| metric.external);
    metrics.map(|metric| (metric.metric.name, metric.target.average_value.unwrap().0)).collect()
}

fn named(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, target)| ((*name).to_owned(), (*target).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_source_names_the_metrics_of_its_hpa() {
    let world = World::new().await;
    world.teller.has(&[("jobs", 5000), ("age", 60_000)]);
    world.teller.reads(12.0, true);
    world.deployment("workers", 0).await;
    world.object("workers", told).await;
    world.pass(2).await;
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    assert_eq!(metrics(&world, "workers").await, named(&[("s0-jobs", "5"), ("s0-age", "60")]));
    assert_eq!(world.get("workers").await.status.unwrap().external_metric_names.unwrap(), ["s0-jobs", "s0-age"]);
    world.pass(60).await;
    assert_eq!(world.replicas("workers").await, 3, "12 jobs at 5 for each worker");
    assert_eq!(world.teller.connects(), 1, "the connection that named them is the one that is read");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_was_never_reached_is_told_and_taken_up_when_it_is_there() {
    let world = World::new().await;
    world.teller.has(&[("jobs", 5000)]);
    world.teller.reads(1.0, true);
    world.teller.is_down(true);
    world.deployment("workers", 0).await;
    world.object("workers", told).await;
    world.pass(5).await;
    let ready = world.condition("workers", "Ready").await;
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("ScaledObjectCheckFailed")));
    let message = ready.message.unwrap();
    assert!(message.contains("trigger 0 (teller): its source could not be asked for its metrics: "), "{message}");
    assert!(message.contains("teller: refused (unreachable)"), "{message}");
    assert!(world.hpa("keda-hpa-workers").await.is_none());
    world.pass(200).await;
    world.teller.is_down(false);
    world.pass(31).await;
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    assert_eq!(metrics(&world, "workers").await, named(&[("s0-jobs", "5")]));
    assert_eq!(world.replicas("workers").await, 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn while_the_source_is_down_the_last_known_metrics_stay() {
    let mut world = World::new().await;
    world.teller.has(&[("jobs", 5000)]);
    world.teller.reads(15.0, true);
    world.deployment("workers", 0).await;
    world.object("workers", told).await;
    world.pass(90).await;
    assert_eq!(world.replicas("workers").await, 3);
    world.teller.is_down(true);
    world.pass(100).await;
    assert_eq!(metrics(&world, "workers").await, named(&[("s0-jobs", "5")]));
    // A restart forgets them, and a changed object has them asked for anew: the HPA keeps them all the same.
    world.restart_operator().await;
    world.pass(100).await;
    world.patch::<ScaledObject>("workers", json!({"spec": {"cooldownPeriod": 61}})).await;
    world.pass(100).await;
    assert_eq!(metrics(&world, "workers").await, named(&[("s0-jobs", "5")]));
    assert_eq!(world.replicas("workers").await, 3, "an unknown value is not zero");
    let error = world.operator.handle.metric("default", "workers", "s0-jobs").await.unwrap_err().to_string();
    assert!(error.contains("teller: refused"), "{error}");
    world.teller.is_down(false);
    let value = world.operator.handle.metric("default", "workers", "s0-jobs").await.unwrap();
    assert_eq!(value[0].value_milli, 15_000, "whoever asks by the old name is answered from the first read on");
    world.pass(5).await;
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pushed_activity_wakes_the_workload_at_once_and_starts_the_cooldown_anew() {
    let world = World::new().await;
    world.teller.has(&[("jobs", 5000)]);
    world.deployment("workers", 0).await;
    world.object("workers", told).await;
    world.pass(65).await;
    assert_eq!(world.replicas("workers").await, 0);
    world.teller.tells_activity();
    world.pass(1).await;
    assert_eq!(world.replicas("workers").await, 1, "long before the next poll");
    assert_eq!(world.condition("workers", "Active").await.status, "True");
    let events = world.events("workers").await;
    assert!(events.iter().any(|event| event.1.ends_with("from 0 to 1, triggered by s0-jobs")), "{events:?}");
    // The cooldown of 60 s counts from the last word.
    world.pass(40).await;
    world.teller.tells_activity();
    world.pass(50).await;
    assert_eq!(world.replicas("workers").await, 1);
    world.pass(50).await;
    assert_eq!(world.replicas("workers").await, 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_activity_pushed_while_the_workload_is_being_put_to_rest_wakes_it_again() {
    let world = World::new().await;
    world.teller.has(&[("jobs", 5000)]);
    world.teller.reads(0.0, false);
    world.deployment("workers", 1).await;
    // The write after the HPA's first question, at 15 s, is lost and repeated 10 s later.
    world.faults.add("PUT", "/scale", Fault::Hang, 1);
    world.object("workers", told).await;
    world.pass(18).await;
    world.teller.tells_activity();
    world.pass(1).await;
    let values = world.operator.handle.metric("default", "workers", "s0-jobs").await.unwrap();
    assert_eq!(values[0].value_milli, 0, "what was read is answered all the same");
    world.pass(9).await;
    let scaled: Vec<_> = world.log().into_iter().filter_map(|o| scaling(&o.what)).collect();
    assert_eq!(scaled, [(1, 0), (0, 1)], "long before the next poll");
    assert_eq!(world.replicas("workers").await, 1);
    world.end().await;
}

fn scaling(what: &What) -> Option<(i32, i32)> {
    match what {
        What::Write { write: Write::Scale { from, to, .. }, error: None, .. } => Some((*from, *to)),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn pushed_metrics_change_the_hpa_and_what_is_read() {
    let world = World::new().await;
    world.teller.has(&[("jobs", 5000)]);
    world.teller.reads(10.0, true);
    world.deployment("workers", 0).await;
    world.object("workers", told).await;
    world.pass(40).await;
    world.teller.has(&[("jobs", 2500), ("mails", 1000)]);
    world.teller.tells_metrics();
    world.pass(1).await;
    assert_eq!(metrics(&world, "workers").await, named(&[("s0-jobs", "2500m"), ("s0-mails", "1")]));
    let values = world.operator.handle.metric("default", "workers", "s0-mails").await.unwrap();
    assert_eq!(values[0].value_milli, 10_000);
    assert_eq!(world.get("workers").await.status.unwrap().external_metric_names.unwrap(), ["s0-jobs", "s0-mails"]);
    world.pass(60).await;
    assert_eq!(world.replicas("workers").await, 10, "10 mails at 1 for each worker");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn each_trigger_is_listened_to_once_as_long_as_it_is_at_work() {
    let world = World::new().await;
    world.teller.has(&[("jobs", 5000)]);
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world
        .object("workers", |o| {
            let teller = json!({"type": "teller", "metadata": {}});
            o["spec"]["triggers"] = json!([teller, queue("queue"), teller]);
        })
        .await;
    world.pass(5).await;
    assert_eq!(world.teller.listeners(), 2);
    world.patch::<ScaledObject>("workers", json!({"spec": {"cooldownPeriod": 61}})).await;
    world.pass(5).await;
    assert_eq!(world.teller.listeners(), 2, "another generation listens anew");
    let pause = json!({"metadata": {"annotations": {"autoscaling.keda.sh/paused": "true"}}});
    world.patch::<ScaledObject>("workers", pause).await;
    world.pass(5).await;
    assert_eq!(world.teller.listeners(), 0);
    let go_on = json!({"metadata": {"annotations": {"autoscaling.keda.sh/paused": null}}});
    world.patch::<ScaledObject>("workers", go_on).await;
    world.pass(5).await;
    assert_eq!(world.teller.listeners(), 2);
    world.delete::<ScaledObject>("workers").await;
    world.pass(5).await;
    assert_eq!(world.teller.listeners(), 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_paused_object_is_told_has_no_effect() {
    let world = World::new().await;
    world.teller.has(&[("jobs", 5000)]);
    world.deployment("workers", 0).await;
    world.object("workers", told).await;
    world.pass(5).await;
    let pause = json!({"metadata": {"annotations": {"autoscaling.keda.sh/paused": "true"}}});
    world.patch::<ScaledObject>("workers", pause).await;
    world.teller.tells_activity();
    world.pass(5).await;
    world.teller.tells_activity();
    world.pass(100).await;
    let stopped = world.log().iter().position(|o| o.what == What::Life(Life::Stopped)).unwrap();
    let after = world.log().split_off(stopped);
    assert!(!after.iter().any(|o| matches!(o.what, What::Decision { .. })));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_never_stops_telling_holds_nothing_up() {
    let world = World::new().await;
    world.teller.has(&[("jobs", 5000)]);
    world.deployment("workers", 0).await;
    world.object("workers", told).await;
    world.pass(5).await;
    for _ in 0..10_000 {
        world.teller.tells_activity();
    }
    world.pass(2).await;
    let decisions = world.log().iter().filter(|o| matches!(o.what, What::Decision { .. })).count();
    assert!(decisions <= 25, "{decisions} decisions in 7 s");
    assert!(world.operator.handle.metric("default", "workers", "s0-jobs").await.is_ok());
    world.delete::<ScaledObject>("workers").await;
    world.pass(1).await;
    assert_eq!(world.teller.listeners(), 0);
    world.end().await;
}
