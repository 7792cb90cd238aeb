//! Pauses, deletion, authentications' status, determinism.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use serde_json::json;
use tidemark_api::{ScaledObject, TriggerAuthentication};
use tidemark_operator::{Settings, What};

use crate::world::{Fault, Says, World, queue};

async fn annotate(world: &World, name: &str, annotations: serde_json::Value) {
    world.patch::<ScaledObject>(name, json!({"metadata": {"annotations": annotations}})).await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_object_keeps_its_replicas_and_has_no_hpa() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(15.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(60).await;
    annotate(&world, "workers", json!({"autoscaling.keda.sh/paused": "true"})).await;
    world.pass(2).await;
    assert!(world.hpa("keda-hpa-workers").await.is_none());
    assert_eq!(world.condition("workers", "Paused").await.reason.as_deref(), Some("ScaledObjectPaused"));
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    assert!(world.snapshot("workers").paused);
    let asked = world.source.asked("queue");
    world.source.says("queue", Says::Value(0.0));
    world.pass(600).await;
    assert_eq!(world.source.asked("queue"), asked, "nothing is polled");
    assert_eq!(world.replicas("workers").await, 3);

    annotate(&world, "workers", json!({"autoscaling.keda.sh/paused": null})).await;
    world.pass(2).await;
    assert!(world.hpa("keda-hpa-workers").await.is_some());
    assert_eq!(world.condition("workers", "Paused").await.reason.as_deref(), Some("ScaledObjectUnpaused"));
    world.pass(90).await;
    assert_eq!(world.replicas("workers").await, 0);
    for reason in ["ScaledObjectPaused", "ScaledObjectUnpaused", "KEDAScalersStopped", "ScaledObjectReady"] {
        assert!(world.has_event("workers", reason).await, "{reason}");
    }
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn paused_replicas_holds_the_target_at_its_count() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 1).await;
    world
        .object("workers", |o| o["metadata"]["annotations"] = json!({"autoscaling.keda.sh/paused-replicas": "4"}))
        .await;
    world.pass(2).await;
    assert_eq!(world.replicas("workers").await, 4);
    assert_eq!(world.get("workers").await.status.unwrap().paused_replica_count, Some(4));
    annotate(&world, "workers", json!({"autoscaling.keda.sh/paused-replicas": "many"})).await;
    world.pass(2).await;
    let ready = world.condition("workers", "Ready").await;
    assert_eq!(ready.status, "False");
    assert!(ready.message.unwrap().contains("many"));
    annotate(&world, "workers", json!({"autoscaling.keda.sh/paused-replicas": null})).await;
    world.pass(2).await;
    assert_eq!(world.get("workers").await.status.unwrap().paused_replica_count, None);
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_way_pauses_hold_one_direction_only() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(5.0));
    world.deployment("workers", 0).await;
    world
        .object("workers", |o| o["metadata"]["annotations"] = json!({"autoscaling.keda.sh/paused-scale-out": "true"}))
        .await;
    world.pass(30).await;
    assert_eq!(world.replicas("workers").await, 0);
    let behavior = world.hpa("keda-hpa-workers").await.unwrap().spec.behavior.unwrap();
    assert_eq!(behavior.scale_up.unwrap().select_policy.as_deref(), Some("Disabled"));
    let switch = json!({"autoscaling.keda.sh/paused-scale-out": null, "autoscaling.keda.sh/paused-scale-in": "true"});
    annotate(&world, "workers", switch).await;
    world.pass(15).await;
    assert_eq!(world.replicas("workers").await, 1);
    world.source.says("queue", Says::Value(0.0));
    world.pass(300).await;
    assert_eq!(world.replicas("workers").await, 1);
    annotate(&world, "workers", json!({"autoscaling.keda.sh/paused-scale-in": null})).await;
    world.pass(15).await;
    assert_eq!(world.replicas("workers").await, 0);
    assert!(world.hpa("keda-hpa-workers").await.unwrap().spec.behavior.is_none());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_object_goes_with_its_hpa_and_leaves_the_replicas() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(15.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(60).await;
    world.delete::<ScaledObject>("workers").await;
    world.pass(5).await;
    assert!(world.api::<ScaledObject>().get_opt("workers").await.unwrap().is_none());
    assert!(world.hpa("keda-hpa-workers").await.is_none());
    assert_eq!(world.replicas("workers").await, 3);
    assert!(world.operator.handle.snapshots().is_empty());
    let asked = world.source.asked("queue");
    world.pass(60).await;
    assert_eq!(world.source.asked("queue"), asked);
    assert!(world.has_event("workers", "ScaledObjectDeleted").await);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_told_though_the_watch_is_faster_than_the_answer() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(15.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(10).await;
    world.faults.add("PATCH", "/scaledobjects/workers?", Fault::LateAnswer(Duration::from_secs(2)), 1);
    world.delete::<ScaledObject>("workers").await;
    world.pass(5).await;
    assert!(world.api::<ScaledObject>().get_opt("workers").await.unwrap().is_none());
    assert!(world.has_event("workers", "ScaledObjectDeleted").await);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_object_gives_the_target_its_first_replicas_back_if_asked_to() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(15.0));
    world.deployment("workers", 6).await;
    world.object("workers", |o| o["spec"]["advanced"] = json!({"restoreToOriginalReplicaCount": true})).await;
    world.pass(600).await;
    assert_eq!(world.replicas("workers").await, 3);
    world.delete::<ScaledObject>("workers").await;
    world.pass(5).await;
    assert_eq!(world.replicas("workers").await, 6);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_made_anew_under_its_name_starts_from_the_beginning() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    for _ in 0..2 {
        world.object("workers", |_| {}).await;
        world.pass(5).await;
        assert_eq!(world.condition("workers", "Ready").await.status, "True");
        world.delete::<ScaledObject>("workers").await;
        world.pass(5).await;
    }
    assert_eq!(world.replicas("workers").await, 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_authentication_lists_the_objects_that_use_it() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.secret("token", "token", "one").await;
    world.authentication("auth", "token", "token", "token").await;
    for name in ["b", "a"] {
        world.deployment(name, 0).await;
        world.object(name, |o| o["spec"]["triggers"][0]["authenticationRef"] = json!({"name": "auth"})).await;
    }
    world.pass(3).await;
    let users = || async {
        let auth = world.api::<TriggerAuthentication>().get("auth").await.unwrap();
        auth.status.and_then(|status| status.scaledobjects).unwrap_or_default()
    };
    assert_eq!(users().await, "a,b");
    assert_eq!(world.get("a").await.status.unwrap().authentications_types.as_deref(), Some("auth"));
    world.patch::<ScaledObject>("b", json!({"spec": {"triggers": [queue("queue")]}})).await;
    world.pass(2).await;
    assert_eq!(users().await, "a");
    world.delete::<ScaledObject>("a").await;
    world.pass(2).await;
    assert_eq!(users().await, "");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_named_twice_is_watched_once() {
    let world =
        World::with(Settings { watch_namespaces: vec!["default".into(), "default".into()], ..Settings::default() })
            .await;
    world.source.says("queue", Says::Value(0.0));
    world.secret("token", "token", "one").await;
    world.authentication("auth", "token", "token", "token").await;
    world.deployment("a", 0).await;
    world.object("a", |o| o["spec"]["triggers"][0]["authenticationRef"] = json!({"name": "auth"})).await;
    world.pass(3).await;
    let auth = world.api::<TriggerAuthentication>().get("auth").await.unwrap();
    assert_eq!(auth.status.and_then(|status| status.scaledobjects).as_deref(), Some("a"));
    let watches =
        world.faults.requests().iter().filter(|r| r.contains("/deployments?") && r.contains("watch=true")).count();
    assert_eq!(watches, 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_authentication_that_keda_marked_can_be_deleted() {
    let world = World::new().await;
    world
        .create::<TriggerAuthentication>(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication",
            "metadata": {"name": "auth", "finalizers": ["finalizer.keda.sh", "example.com/other"]}, "spec": {},
        }))
        .await;
    world.delete::<TriggerAuthentication>("auth").await;
    world.pass(2).await;
    let left = world.api::<TriggerAuthentication>().get("auth").await.unwrap().metadata.finalizers.unwrap();
    assert_eq!(left, ["example.com/other"]);
    world.end().await;
}

/// An authentication that KEDA has put its finalizer on.
async fn marked(world: &World) {
    world
        .create::<TriggerAuthentication>(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication",
            "metadata": {"name": "auth", "finalizers": ["finalizer.keda.sh"]}, "spec": {},
        }))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_marked_authentication_goes_though_others_write_it_first() {
    let world = World::new().await;
    marked(&world).await;
    world.faults.add("PATCH", "/triggerauthentications/auth?", Fault::Status(409), 2);
    world.delete::<TriggerAuthentication>("auth").await;
    world.pass(2).await;
    assert!(world.api::<TriggerAuthentication>().get_opt("auth").await.unwrap().is_none());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_marked_authentication_that_is_deleted_while_its_users_are_written_goes_afterwards() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    marked(&world).await;
    world.deployment("a", 0).await;
    world.faults.add("PATCH", "/triggerauthentications/auth/status", Fault::Hang, 1);
    world.object("a", |o| o["spec"]["triggers"][0]["authenticationRef"] = json!({"name": "auth"})).await;
    world.pass(2).await;
    world.delete::<ScaledObject>("a").await;
    world.delete::<TriggerAuthentication>("auth").await;
    // The write is given up after 10 s, and made again after 60 s.
    world.pass(75).await;
    assert!(world.api::<TriggerAuthentication>().get_opt("auth").await.unwrap().is_none());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_only_a_check_has_seen_is_finished_too() {
    let world = World::new().await;
    // Not ready, so it is checked again and again.
    world.object("workers", |_| {}).await;
    world.pass(5).await;
    world.faults.add("GET", "watch=true", Fault::Status(500), 100_000);
    world.faults.cut_watches();
    world.pass(1).await;
    world.delete::<ScaledObject>("workers").await;
    world.pass(61).await;
    assert!(world.api::<ScaledObject>().get_opt("workers").await.unwrap().is_none());
    assert!(!world.has_event("workers", "ScaledObjectReady").await);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_the_api_server_refuses_is_tried_until_it_succeeds() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(5).await;
    world.faults.add("PATCH", "/scaledobjects/workers?", Fault::Status(500), 5);
    world.delete::<ScaledObject>("workers").await;
    world.pass(30).await;
    assert!(world.api::<ScaledObject>().get_opt("workers").await.unwrap().is_none());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_whose_deletion_began_while_no_operator_ran_is_finished_off() {
    let mut world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(5).await;
    world.stop_operator().await;
    world.delete::<ScaledObject>("workers").await;
    world.pass(5).await;
    assert!(world.api::<ScaledObject>().get_opt("workers").await.unwrap().is_some());
    world.start_operator();
    world.pass(5).await;
    assert!(world.api::<ScaledObject>().get_opt("workers").await.unwrap().is_none());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn only_the_namespaces_that_are_watched_are_served() {
    let world =
        World::with(Settings { watch_namespaces: vec!["default".into(), "other".into()], ..Settings::default() }).await;
    world.source.says("queue", Says::Value(5.0));
    for namespace in ["other", "third"] {
        let namespaced = json!({"metadata": {"name": namespace}});
        let namespaces = kube::Api::<Namespace>::all(world.client.clone());
        namespaces.create(&PostParams::default(), &serde_json::from_value(namespaced).unwrap()).await.unwrap();
        let object = json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "x", "namespace": namespace},
            "spec": {"scaleTargetRef": {"name": "x"}, "triggers": [queue("queue")]},
        });
        let objects = kube::Api::<ScaledObject>::namespaced(world.client.clone(), namespace);
        objects.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }
    world.pass(5).await;
    let keys: Vec<_> = world.operator.handle.snapshots().iter().map(|snapshot| snapshot.key.to_string()).collect();
    assert_eq!(keys, ["other/x"]);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_comes_again_becomes_a_series() {
    let world = World::new().await;
    world.source.says("queue", Says::Down);
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(100).await;
    let failures = |events: Vec<(String, String, i32)>| -> Vec<i32> {
        events.into_iter().filter(|event| event.0 == "KEDAScalerFailed").map(|event| event.2).collect()
    };
    assert_eq!(failures(world.events("workers").await), [2], "the first repeat is written at once");
    world.source.says("queue", Says::Value(0.0));
    world.pass(600).await;
    let failed = world.log().iter().filter(|o| matches!(o.what, What::Fetch { outcome: Err(_), .. })).count();
    assert!(failed > 9);
    let counts = failures(world.events("workers").await);
    assert_eq!(counts, [i32::try_from(failed).unwrap()], "the others when the series ends");
    let notes: Vec<_> = world.events("workers").await.into_iter().map(|event| event.1).collect();
    assert_eq!(notes.iter().filter(|note| *note == "Scaler metrics-api is built").count(), 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_was_refused_is_written_when_it_comes_again() {
    let world = World::new().await;
    world.source.says("queue", Says::Down);
    world.faults.add("POST", "/events", Fault::Status(403), 100_000);
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(60).await;
    assert!(world.events("workers").await.is_empty());
    world.faults.clear();
    world.pass(11).await;
    assert!(world.has_event("workers", "KEDAScalerFailed").await);
    world.end().await;
}

/// A day in the life of a few objects, and everything that was observed of it.
async fn day() -> String {
    let mut world = World::new().await;
    for n in 0..5 {
        let name = format!("w{n}");
        world.source.says(&name, Says::Value(f64::from(n) * 3.0));
        world.deployment(&name, 0).await;
        let path = name.clone();
        world.object(&name, move |o| o["spec"]["triggers"] = json!([queue(&path), queue("down")])).await;
    }
    world.source.says("down", Says::Down);
    for hour in 0..6 {
        world.pass(600).await;
        for n in 0..5 {
            world.source.says(&format!("w{n}"), Says::Value(f64::from((n * 7 + hour * 5) % 11)));
        }
        world.source.says("down", if hour % 2 == 0 { Says::Value(0.0) } else { Says::Down });
    }
    let before = format!("{:?}", world.log());
    world.restart_operator().await;
    world.pass(600).await;
    world.delete::<Deployment>("w1").await;
    world.pass(600).await;
    let log = format!("{before}\n{:?}\n{:?}", world.log(), world.operator.handle.snapshots());
    world.end().await;
    log
}

#[test]
fn the_same_day_twice_is_observed_alike_to_the_byte() {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(day())
    };
    let (first, second) = (run(), run());
    assert!(first.len() > 100_000, "{}", first.len());
    if first != second {
        let at = first.bytes().zip(second.bytes()).position(|(a, b)| a != b).unwrap_or(0);
        let part = |text: &str| text.chars().skip(at.saturating_sub(200)).take(400).collect::<String>();
        panic!("differ at {at}:\n{}\n{}", part(&first), part(&second));
    }
}
