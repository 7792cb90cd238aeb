//! What belongs to one evaluation is told with its number.

use std::time::Duration;

use serde_json::json;
use tidemark_engine::metric::Target;
use tidemark_operator::{Asker, ObjectKey, Observation, What, Write};

use crate::world::{Says, World};

/// Number and kind of what was told, in order.
fn told(world: &World) -> Vec<(u64, &'static str)> {
    let kind = |observation: &Observation| match &observation.what {
        What::Poll { .. } => Some("poll"),
        What::Pushed { .. } => Some("pushed"),
        What::Fetch { asked_by: Asker::Poll, .. } => Some("fetch"),
        What::Fetch { asked_by: Asker::Hpa, .. } => Some("fetch for the HPA"),
        What::Query { .. } => Some("query"),
        What::Decision { .. } => Some("decision"),
        What::Write { write: Write::Scale { .. }, .. } => Some("scale"),
        _ => None,
    };
    world.log().iter().filter_map(|observation| Some((observation.evaluation, kind(observation)?))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_poll_its_fetches_the_decision_and_the_write_have_one_number() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world
        .object("workers", |o| {
            let trigger = o["spec"]["triggers"][0].clone();
            o["spec"]["triggers"] = json!([trigger, trigger]);
            o["spec"]["pollingInterval"] = json!(10);
        })
        .await;
    world.pass(5).await;
    world.source.says("queue", Says::Value(3.0));
    world.pass(6).await;
    let first = [(1, "poll"), (1, "fetch"), (1, "fetch"), (1, "decision")];
    assert_eq!(told(&world)[..4], first);
    let second: Vec<_> = told(&world).into_iter().filter(|(number, _)| *number == 2).map(|(_, kind)| kind).collect();
    assert_eq!(second[..2], ["poll", "fetch"], "{second:?}");
    assert!(second.contains(&"decision") && second.contains(&"scale"), "{second:?}");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_read_for_the_hpa_is_an_evaluation_and_what_it_is_answered_is_told() {
    let world = World::new().await;
    world.source.says("queue", Says::Slow(Duration::from_millis(500), 3.0));
    world.deployment("workers", 1).await;
    world.object("workers", |o| o["spec"]["pollingInterval"] = json!(600)).await;
    world.pass(20).await;
    world.operator.handle.metric("default", "workers", "s0-metric-api-value").await.unwrap();
    let last: Vec<_> = told(&world).into_iter().rev().take(3).collect();
    let number = last[0].0;
    assert!(number > 1);
    assert!(last.contains(&(number, "fetch for the HPA")), "{last:?}");
    assert!(last.contains(&(number, "query")) && last.contains(&(number, "decision")), "{last:?}");
    let log = world.log();
    let query = log.iter().rev().find_map(|observation| match &observation.what {
        What::Query { metric, took, outcome: Ok(values) } => Some((metric.clone(), *took, values[0].value_milli)),
        _ => None,
    });
    assert_eq!(query.unwrap(), ("s0-metric-api-value".into(), Duration::from_millis(500), 3000));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_is_due_while_another_trigger_is_still_read_joins_its_evaluation() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(1.0));
    world.source.says("slow", Says::Slow(Duration::from_secs(7), 0.0));
    world.deployment("workers", 0).await;
    world
        .object("workers", |o| {
            let mut slow = o["spec"]["triggers"][0].clone();
            slow["metadata"]["url"] = json!("http://source/slow");
            o["spec"]["triggers"] = json!([slow]);
            o["spec"]["pollingInterval"] = json!(5);
        })
        .await;
    world.pass(6).await;
    let numbers: Vec<u64> = told(&world).iter().map(|(number, _)| *number).collect();
    assert!(numbers.iter().all(|number| *number == 1), "{:?}", told(&world));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_fetch_tells_where_it_went_and_a_decision_what_values_are_compared_with() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(3.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(3).await;
    let log = world.log();
    let hop = log.iter().find_map(|observation| match &observation.what {
        What::Fetch { requests, .. } => requests.first().cloned(),
        _ => None,
    });
    let hop = hop.unwrap();
    assert_eq!((hop.method.as_str(), &*hop.origin, hop.status.unwrap().as_u16()), ("GET", "http://source", 200));
    let seen = log.iter().find_map(|observation| match &observation.what {
        What::Decision { metrics, .. } => metrics.first().cloned(),
        _ => None,
    });
    assert!(matches!(seen.unwrap().target, Some(Target::AverageValue(milli)) if milli > 0));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_hpas_own_view_and_all_that_is_known_of_an_object_can_be_asked_for() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(12.0));
    world.deployment("workers", 1).await;
    world
        .object("workers", |o| {
            o["spec"]["maxReplicaCount"] = json!(2);
            o["spec"]["fallback"] = json!({"failureThreshold": 3, "replicas": 4});
        })
        .await;
    world.pass(60).await;
    let log = world.log();
    let hpa = log.iter().rev().find_map(|observation| match &observation.what {
        What::Hpa(hpa) => Some(hpa.clone()),
        _ => None,
    });
    let hpa = hpa.unwrap();
    assert_eq!((&*hpa.name, hpa.max, hpa.desired), ("keda-hpa-workers", 2, Some(2)));
    let limited = hpa.conditions.iter().find(|condition| condition.kind == "ScalingLimited").unwrap();
    assert_eq!((limited.status.as_str(), limited.reason.as_str()), ("True", "TooManyReplicas"));
    assert_eq!(hpa.metrics[0].name, "s0-metric-api-value");
    let detail = world.operator.handle.detail(&ObjectKey::new("default", "workers")).await.unwrap();
    assert_eq!((detail.policy.max_replicas, detail.fallback.unwrap().replicas), (2, 4));
    assert_eq!(detail.hpa.as_deref(), Some("keda-hpa-workers"));
    assert_eq!(detail.snapshot.replicas, Some(2));
    assert!(detail.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"));
    assert!(world.operator.handle.detail(&ObjectKey::new("default", "none")).await.is_none());
    world.end().await;
}
