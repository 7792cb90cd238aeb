//! Sources that fail, and what they may and may not do.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use serde_json::json;
use tidemark_api::{ScaledObject, TriggerAuthentication};
use tidemark_operator::{Life, Settings, What};

use crate::world::{Says, World, queue};

#[tokio::test(start_paused = true)]
async fn a_source_that_is_down_never_scales_to_zero_and_is_taken_up_again() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(15.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(60).await;
    assert_eq!(world.replicas("workers").await, 3);
    world.source.says("queue", Says::Down);
    world.pass(600).await;
    assert_eq!(world.replicas("workers").await, 3, "an unknown value is not zero");
    let ready = world.condition("workers", "Ready").await;
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("TriggerError")));
    assert!(ready.message.unwrap().contains("refused"));
    assert!(world.has_event("workers", "KEDAScalerFailed").await);
    let shown = world.snapshot("workers").triggers[0].error.clone().unwrap();
    assert_eq!(shown.0.as_str(), "unreachable");

    world.source.says("queue", Says::Value(0.0));
    world.pass(30).await;
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    assert_eq!(world.replicas("workers").await, 0, "quiet, and the cooldown has long ended");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_trigger_does_not_stop_its_sibling() {
    let world = World::new().await;
    world.source.says("a", Says::Down);
    world.source.says("b", Says::Value(3.0));
    world.deployment("workers", 0).await;
    world.object("workers", |o| o["spec"]["triggers"] = json!([queue("a"), queue("b")])).await;
    world.pass(5).await;
    assert_eq!(world.replicas("workers").await, 1);
    world.pass(20).await;
    let ready = world.condition("workers", "Ready").await;
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("Unknown", Some("PartialTriggerError")));
    world.source.says("b", Says::Value(0.0));
    world.pass(600).await;
    assert_eq!(world.replicas("workers").await, 1, "a trigger that is not read forbids zero");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_trigger_is_named_and_disturbs_no_other_object() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(5.0));
    world.deployment("good", 0).await;
    world.deployment("bad", 0).await;
    world
        .object("bad", |o| {
            o["spec"]["triggers"][0]["metadata"].as_object_mut().unwrap().remove("url");
        })
        .await;
    world.object("good", |_| {}).await;
    world.pass(30).await;
    let ready = world.condition("bad", "Ready").await;
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("ScaledObjectCheckFailed")));
    let message = ready.message.unwrap();
    assert!(message.starts_with("failed to ensure HPA is correctly created for ScaledObject: "), "{message}");
    assert!(message.contains("trigger 0 (metrics-api): ") && message.contains("url"), "{message}");
    assert!(world.hpa("keda-hpa-bad").await.is_none());
    assert!(world.has_event("bad", "ScaledObjectCheckFailed").await);
    assert_eq!(world.replicas("good").await, 1);

    let mended = json!({"spec": {"triggers": [queue("queue")]}});
    world.patch::<ScaledObject>("bad", mended).await;
    world.pass(3).await;
    assert_eq!(world.condition("bad", "Ready").await.status, "True");
    assert_eq!(world.replicas("bad").await, 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_target_is_named_and_found_when_it_appears() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(5.0));
    world.object("workers", |_| {}).await;
    world.pass(300).await;
    let ready = world.condition("workers", "Ready").await;
    assert!(ready.message.unwrap().contains("workers"));
    assert!(world.events("workers").await.iter().any(|event| event.1 == "Target resource doesn't exist"));
    world.deployment("workers", 0).await;
    world.pass(2).await;
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    assert_eq!(world.replicas("workers").await, 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_deleted_is_missed_at_once() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.pass(60).await;
    world.object("workers", |_| {}).await;
    world.pass(30).await;
    world.delete::<Deployment>("workers").await;
    world.pass(1).await;
    assert_eq!(world.condition("workers", "Ready").await.reason.as_deref(), Some("ScaledObjectCheckFailed"));
    assert!(world.events("workers").await.iter().any(|event| event.1 == "Target resource doesn't exist"));
    world.end().await;
}

fn guarded(value: &mut serde_json::Value) {
    let trigger = &mut value["spec"]["triggers"][0];
    trigger["metadata"]["authMode"] = json!("bearer");
    trigger["authenticationRef"] = json!({"name": "auth"});
}

#[tokio::test(start_paused = true)]
async fn a_rotated_secret_works_from_the_next_read_on() {
    let world = World::new().await;
    world.source.says("queue", Says::Guarded("one", 5.0));
    world.secret("token", "token", "one").await;
    world.authentication("auth", "token", "token", "token").await;
    world.deployment("workers", 0).await;
    world.object("workers", guarded).await;
    world.pass(15).await;
    assert_eq!(world.replicas("workers").await, 1);
    world.source.says("queue", Says::Guarded("two", 5.0));
    world.secret("token", "token", "two").await;
    world.pass(20).await;
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    let failures = world.log().into_iter().filter(|o| matches!(&o.what, What::Fetch { outcome: Err(_), .. })).count();
    assert_eq!(failures, 0, "the rebuild within the fetch heals it");
    let text = format!("{:?}", world.log());
    assert!(!text.contains("one\"") && !text.contains("Bearer"), "no secret reaches the stream");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_secret_is_named_and_taken_up_when_it_appears() {
    let world = World::new().await;
    world.source.says("queue", Says::Guarded("one", 5.0));
    world.authentication("auth", "token", "token", "token").await;
    world.deployment("workers", 0).await;
    world.object("workers", guarded).await;
    world.pass(15).await;
    let message = world.condition("workers", "Ready").await.message.unwrap();
    assert!(message.contains("token") && message.contains("ecret"), "{message}");
    world.secret("token", "token", "one").await;
    world.pass(61).await;
    assert_eq!(world.replicas("workers").await, 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_parameter_may_come_from_the_environment_of_the_target_and_follows_its_changes() {
    let world = World::new().await;
    world.source.says("queue", Says::Guarded("one", 0.0));
    world
        .create::<TriggerAuthentication>(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": "auth"},
            "spec": {"env": [{"parameter": "token", "name": "TOKEN"}]},
        }))
        .await;
    world.deployment("workers", 0).await;
    world.object("workers", guarded).await;
    world.pass(5).await;
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    assert_eq!(world.condition("workers", "Active").await.status, "False");
    world.source.says("queue", Says::Guarded("two", 5.0));
    let container = json!({"name": "main", "image": "worker", "env": [{"name": "TOKEN", "value": "two"}]});
    world.patch::<Deployment>("workers", json!({"spec": {"template": {"spec": {"containers": [container]}}}})).await;
    world.pass(2).await;
    assert_eq!(world.replicas("workers").await, 1, "the changed environment is read at once");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_rotated_secret_is_taken_up_within_the_refresh_time_though_no_read_fails() {
    let world = World::new().await;
    world.source.says("queue", Says::Guarded("one", 5.0));
    world.secret("token", "token", "one").await;
    world.authentication("auth", "token", "token", "token").await;
    world.deployment("workers", 0).await;
    world.object("workers", guarded).await;
    world.pass(15).await;
    world.secret("token", "token", "two").await;
    let builds =
        |world: &World| world.log().iter().filter(|o| matches!(o.what, What::Life(Life::TriggerBuilt { .. }))).count();
    world.pass(280).await;
    assert_eq!(builds(&world), 1);
    world.pass(10).await;
    assert_eq!(builds(&world), 2);
    world.pass(600).await;
    assert_eq!(builds(&world), 2, "what has not changed is not built again");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn first_polls_after_a_start_are_spread() {
    let mut world = World::with(Settings::default()).await;
    world.source.says("queue", Says::Value(0.0));
    for n in 0..20 {
        world.deployment(&format!("w{n}"), 0).await;
        world.object(&format!("w{n}"), |_| {}).await;
    }
    world.pass(60).await;
    world.restart_operator().await;
    world.pass(2).await;
    let polled = |world: &World| world.log().iter().filter(|o| matches!(o.what, What::Fetch { .. })).count();
    let early = polled(&world);
    assert!((1..=10).contains(&early), "{early} of 20 were polled in the first 2 of 10 s");
    world.pass(9).await;
    assert!(polled(&world) >= 20);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_environment_of_a_target_that_nobody_watches_is_read_again_within_the_refresh_time() {
    let world = World::new().await;
    world.sandbox.install_crds(&[crate::faults::thing_crd()]).unwrap();
    world.source.says("queue", Says::Guarded("one", 0.0));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Thing"));
    let things: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), "default", &resource);
    let template = |token: &str| {
        let container = json!({"name": "main", "env": [{"name": "TOKEN", "value": token}]});
        json!({"spec": {"replicas": 0, "template": {"spec": {"containers": [container]}}}})
    };
    let thing = DynamicObject::new("it", &resource).data(template("one"));
    things.create(&PostParams::default(), &thing).await.unwrap();
    world
        .create::<TriggerAuthentication>(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": "auth"},
            "spec": {"env": [{"parameter": "token", "name": "TOKEN"}]},
        }))
        .await;
    world
        .object("workers", |o| {
            guarded(o);
            o["spec"]["scaleTargetRef"] = json!({"apiVersion": "example.com/v1", "kind": "Thing", "name": "it"});
        })
        .await;
    world.pass(30).await;
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    world.source.says("queue", Says::Guarded("two", 5.0));
    things.patch("it", &PatchParams::default(), &Patch::Merge(template("two"))).await.unwrap();
    world.pass(320).await;
    assert_eq!(things.get("it").await.unwrap().data["spec"]["replicas"], 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_active_trigger_beside_a_failing_one_starts_the_cooldown_anew() {
    let world = World::new().await;
    world.source.says("a", Says::Value(5.0));
    world.source.says("b", Says::Value(0.0));
    world.deployment("workers", 1).await;
    world.object("workers", |o| o["spec"]["triggers"] = json!([queue("a"), queue("b")])).await;
    world.pass(30).await;
    world.source.says("b", Says::Down);
    world.pass(300).await;
    world.source.says("a", Says::Value(0.0));
    world.source.says("b", Says::Value(0.0));
    world.pass(50).await;
    assert_eq!(world.replicas("workers").await, 1, "it was active 60 s ago at most");
    world.pass(40).await;
    assert_eq!(world.replicas("workers").await, 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_shows_up_nowhere_whatever_goes_wrong() {
    const CANARY: &str = "canary-4711";
    let world = World::new().await;
    world.secret("token", "token", CANARY).await;
    world.secret("token", "url", &format!("http://user:{CANARY}@source/queue?key={CANARY}")).await;
    world
        .create::<TriggerAuthentication>(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": "auth"},
            "spec": {"secretTargetRef": [
                {"parameter": "token", "name": "token", "key": "token"},
                {"parameter": "apiKey", "name": "token", "key": "token"},
                {"parameter": "password", "name": "token", "key": "token"},
                {"parameter": "ca", "name": "token", "key": "token"},
            ]},
        }))
        .await;
    for (name, mode) in [("bearer", "bearer"), ("key", "apiKey"), ("basic", "basic"), ("tls", "tls")] {
        world.deployment(name, 0).await;
        world
            .object(name, |o| {
                guarded(o);
                o["spec"]["triggers"][0]["metadata"]["authMode"] = json!(mode);
                let url = format!("http://user:{CANARY}@source/queue?key={CANARY}");
                o["spec"]["triggers"][0]["metadata"]["url"] = json!(url);
            })
            .await;
    }
    let mut shown = String::new();
    for says in [Says::Guarded("other", 1.0), Says::Down, Says::Value(5.0), Says::Guarded("other", 0.0)] {
        world.source.says("queue", says);
        world.pass(60).await;
        for name in ["bearer", "key", "basic", "tls"] {
            let error = world.operator.handle.metric("default", name, "s0-metric-api-value").await;
            shown += &format!("{error:?}{:?}{:?}", world.get(name).await.status, world.events(name).await);
        }
    }
    shown += &format!("{:?}{:?}", world.log(), world.operator.handle.snapshots());
    assert!(shown.contains("401") && shown.contains("refused"), "the failures are told");
    assert!(!shown.contains(CANARY), "{}", &shown[shown.find(CANARY).unwrap().saturating_sub(300)..][..400]);
    world.end().await;
}
