//! An API server that fails, and watches that break.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tidemark_api::{ScaledObject, TriggerAuthentication};
use tidemark_operator::{Life, Settings, What, Write};

use crate::world::{Fault, Says, World};

#[tokio::test(start_paused = true)]
async fn a_status_that_cannot_be_written_holds_nothing_up_and_is_written_later() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(5.0));
    world.faults.add("PATCH", "/status", Fault::Hang, 1000);
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(5).await;
    assert_eq!(world.replicas("workers").await, 1);
    assert!(world.operator.handle.metric("default", "workers", "s0-metric-api-value").await.is_ok());
    assert!(world.get("workers").await.status.is_none());
    world.faults.clear();
    world.pass(90).await;
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    assert!(world.has_event("workers", "ScaledObjectUpdateFailed").await);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn conflicts_are_met_by_reading_anew() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(5.0));
    for part in ["/status", "/scaledobjects/workers?"] {
        world.faults.add("PATCH", part, Fault::Status(409), 2);
    }
    world.faults.add("PUT", "/scale?", Fault::Status(409), 2);
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(5).await;
    assert_eq!(world.replicas("workers").await, 1);
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    assert_eq!(world.get("workers").await.metadata.finalizers.unwrap(), ["finalizer.keda.sh"]);
    let errors: Vec<_> = world.log().into_iter().filter(|o| matches!(o.what, What::Error { .. })).collect();
    assert!(errors.is_empty(), "{errors:?}");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn conditions_written_by_others_survive() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(5).await;
    let mut conditions = world.get("workers").await.status.unwrap().conditions.unwrap();
    conditions.push(serde_json::from_value(json!({"type": "Theirs", "status": "True"})).unwrap());
    let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
    world.api::<ScaledObject>().patch_status("workers", &PatchParams::default(), &patch).await.unwrap();
    world.source.says("queue", Says::Value(5.0));
    world.pass(15).await;
    assert_eq!(world.condition("workers", "Active").await.status, "True");
    assert_eq!(world.condition("workers", "Theirs").await.status, "True");

    // The same, where the operator learns of it through a change of the object and not through a conflict.
    let mut conditions = world.get("workers").await.status.unwrap().conditions.unwrap();
    conditions.retain(|condition| condition.type_ != "Theirs");
    conditions.push(serde_json::from_value(json!({"type": "Theirs", "status": "False"})).unwrap());
    conditions.push(serde_json::from_value(json!({"type": "More", "status": "True"})).unwrap());
    let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
    world.api::<ScaledObject>().patch_status("workers", &PatchParams::default(), &patch).await.unwrap();
    let pause = json!({"metadata": {"annotations": {"autoscaling.keda.sh/paused": "true"}}});
    world.patch::<ScaledObject>("workers", pause).await;
    world.pass(5).await;
    assert_eq!(world.condition("workers", "Paused").await.status, "True");
    assert_eq!(world.condition("workers", "Theirs").await.status, "False");
    assert_eq!(world.condition("workers", "More").await.status, "True");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_status_that_meets_nothing_but_conflicts_is_not_written_in_a_hot_loop() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.faults.add("PATCH", "/status", Fault::Status(409), 100_000);
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(120).await;
    let tries = world.faults.requests().iter().filter(|r| r.starts_with("PATCH") && r.contains("/status")).count();
    assert!((5..=20).contains(&tries), "{tries} in 120 s");
    world.faults.clear();
    world.pass(61).await;
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_waits_for_the_crds() {
    let world = World::without_crds().await;
    world.pass(300).await;
    world.sandbox.install_crds(&tidemark_api::crds()).unwrap();
    world.source.says("queue", Says::Value(5.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(60).await;
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    assert_eq!(world.replicas("workers").await, 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_waits_for_the_api_server_and_for_its_permissions_without_storming_it() {
    let mut world = World::new().await;
    world.source.says("queue", Says::Value(5.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.stop_operator().await;
    for status in [503, 403] {
        world.faults.add("GET", "/", Fault::Status(status), 100_000);
        let before = world.faults.requests().len();
        world.start_operator();
        world.pass(600).await;
        let requests = world.faults.requests().len() - before;
        assert!(requests < 6 * 30 * 4, "{requests} requests by 6 watches in 600 s with {status}");
        world.faults.clear();
        world.pass(45).await;
        assert_eq!(world.snapshot("workers").replicas, Some(1), "{status}");
        world.stop_operator().await;
    }
    world.start_operator();
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_scaling_that_is_refused_is_told_with_its_cause_and_tried_at_the_next_poll() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(5.0));
    world.faults.add("PUT", "/scale", Fault::Status(403), 2);
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(5).await;
    let events = world.events("workers").await;
    let failed = events.iter().find(|event| event.0 == "KEDAScaleTargetActivationFailed").unwrap();
    assert_eq!(failed.1, "Failed to scale apps/v1.Deployment default/workers from 0 to 1: a fault");
    world.pass(20).await;
    assert_eq!(world.replicas("workers").await, 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_target_that_vanished_unwatched_is_missed_when_it_is_to_be_scaled() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(30).await;
    world.faults.add("GET", "watch=true", Fault::Status(500), 100_000);
    world.faults.cut_watches();
    world.delete::<Deployment>("workers").await;
    world.source.says("queue", Says::Value(5.0));
    world.pass(15).await;
    let ready = world.condition("workers", "Ready").await;
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("ScaledObjectCheckFailed")));
    world.end().await;
}

/// Lets a check of the object stand still for 10 s, its target read and its triggers built; it will change nothing.
async fn hold_the_check(world: &World) {
    let exclude = json!({"metadata": {"annotations": {"scaledobject.keda.sh/hpa-excluded-labels": "touched"}}});
    world.patch::<ScaledObject>("workers", exclude).await;
    world.pass(1).await;
    world.faults.add("GET", "/horizontalpodautoscalers/", Fault::Hang, 1);
    world.patch::<ScaledObject>("workers", json!({"metadata": {"labels": {"touched": "yes"}}})).await;
    world.pass(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_target_made_anew_during_a_check_is_read_though_its_generations_begin_anew() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(5).await;
    for replicas in [2, 0, 2, 0] {
        world.scale_by_hand("workers", replicas).await;
        world.pass(1).await;
    }
    hold_the_check(&world).await;
    world.delete::<Deployment>("workers").await;
    world.deployment("workers", 4).await;
    world.pass(30).await;
    assert_eq!(world.replicas("workers").await, 0, "quiet: the new target is scaled to zero too");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_rotated_during_a_check_is_not_lost_when_the_check_ends() {
    let world = World::new().await;
    world.source.says("queue", Says::Guarded("one", 0.0));
    world.secret("token", "token", "one").await;
    world.authentication("auth", "token", "token", "token").await;
    world.deployment("workers", 0).await;
    world
        .object("workers", |o| {
            o["spec"]["triggers"][0]["metadata"]["authMode"] = json!("bearer");
            o["spec"]["triggers"][0]["authenticationRef"] = json!({"name": "auth"});
        })
        .await;
    world.pass(6).await;
    hold_the_check(&world).await;
    world.source.says("queue", Says::Guarded("two", 0.0));
    world.secret("token", "token", "two").await;
    world.pass(40).await;
    let builds = world.log().iter().filter(|o| matches!(o.what, What::Life(Life::TriggerBuilt { .. }))).count();
    assert_eq!(builds, 2, "at first, and with the second secret");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_authentication_changed_during_a_check_is_read_after_it() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.secret("token", "token", "one").await;
    world.authentication("auth", "token", "token", "token").await;
    world.deployment("workers", 0).await;
    world.faults.add("GET", "/horizontalpodautoscalers/", Fault::Hang, 1);
    world.object("workers", |o| o["spec"]["triggers"][0]["authenticationRef"] = json!({"name": "auth"})).await;
    world.pass(3).await;
    world.secret("other", "token", "two").await;
    let other = json!({"spec": {"secretTargetRef": [{"parameter": "token", "name": "other", "key": "token"}]}});
    world.patch::<TriggerAuthentication>("auth", other).await;
    world.pass(30).await;
    let builds = world.log().iter().filter(|o| matches!(o.what, What::Life(Life::TriggerBuilt { .. }))).count();
    assert_eq!(builds, 2, "as it was, and as it is");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_scaling_under_way_does_not_undo_a_pause() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(5).await;
    // The write is lost and repeated after 10 s.
    world.faults.add("PUT", "/scale", Fault::Hang, 1);
    world.source.says("queue", Says::Value(5.0));
    world.pass(7).await;
    let hold = json!({"metadata": {"annotations": {"autoscaling.keda.sh/paused-replicas": "0"}}});
    world.patch::<ScaledObject>("workers", hold).await;
    world.pass(30).await;
    assert_eq!(world.replicas("workers").await, 0);
    assert_eq!(world.get("workers").await.status.unwrap().paused_replica_count, Some(0));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_hpa_renamed_twice_in_a_row_leaves_none_behind() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(5).await;
    let rename = |name: &str| json!({"spec": {"advanced": {"horizontalPodAutoscalerConfig": {"name": name}}}});
    // The check stands still for 10 s between the new HPA's creation and the old one's deletion.
    world.faults.add("GET", "/horizontalpodautoscalers/keda-hpa-workers", Fault::Hang, 1);
    world.patch::<ScaledObject>("workers", rename("mine")).await;
    world.pass(1).await;
    assert!(world.hpa("mine").await.is_some());
    world.patch::<ScaledObject>("workers", rename("yours")).await;
    world.pass(20).await;
    let hpas = world.api::<HorizontalPodAutoscaler>().list(&ListParams::default()).await.unwrap().items;
    let names: Vec<_> = hpas.iter().filter_map(|hpa| hpa.metadata.name.as_deref()).collect();
    assert_eq!(names, ["yours"]);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_hpa_that_is_refused_makes_the_object_not_ready_and_is_made_later() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(5.0));
    world.faults.add("POST", "/horizontalpodautoscalers", Fault::Status(403), 3);
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(0).await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let ready = world.condition("workers", "Ready").await;
    assert_eq!(ready.message.as_deref(), Some("failed to ensure HPA is correctly created for ScaledObject: a fault"));
    world.pass(5).await;
    assert!(world.hpa("keda-hpa-workers").await.is_some());
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_create_is_not_repeated_when_its_answer_is_lost() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.faults.add("POST", "/horizontalpodautoscalers", Fault::Status(504), 1);
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(5).await;
    let requests = world.faults.requests();
    let first = requests.iter().position(|request| request.starts_with("POST") && request.contains("/horizontalpod"));
    let next = &requests[first.unwrap() + 1..];
    let again = next.iter().position(|r| r.starts_with("POST") && r.contains("/horizontalpod")).unwrap();
    assert!(next[..again].iter().any(|r| r.starts_with("GET") && r.contains("/horizontalpodautoscalers/")));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_happens_while_no_watch_runs_is_found_out_afterwards() {
    let world = World::with(Settings::default()).await;
    world.source.says("queue", Says::Value(0.0));
    for name in ["a", "b", "c"] {
        world.deployment(name, 0).await;
        world.object(name, |_| {}).await;
    }
    world.pass(90).await;
    // Every watch fails from now on; then it is told that its version is too old, so that it lists anew.
    world.faults.add("GET", "watch=true", Fault::Status(500), 100_000);
    world.faults.cut_watches();
    world.pass(1).await;
    world.delete::<HorizontalPodAutoscaler>("keda-hpa-a").await;
    world.scale_by_hand("b", 3).await;
    world.deployment("d", 0).await;
    world.object("d", |_| {}).await;
    world.patch::<ScaledObject>("c", json!({"metadata": {"finalizers": []}})).await;
    world.delete::<ScaledObject>("c").await;
    world.pass(60).await;
    assert_eq!(world.operator.handle.snapshots().len(), 3, "nothing is known of it yet");
    world.faults.clear();
    world.faults.add("GET", "watch=true", Fault::Status(410), 6);
    world.pass(70).await;
    assert!(world.hpa("keda-hpa-a").await.is_some());
    assert_eq!(world.replicas("b").await, 0);
    assert_eq!(world.condition("d", "Ready").await.status, "True");
    let names: Vec<_> = world.operator.handle.snapshots().iter().map(|s| s.key.name.clone()).collect();
    assert_eq!(names, ["a", "b", "d"]);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_gone_for_a_while_leaves_no_trace() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(30).await;
    for method in ["GET", "PUT", "POST", "PATCH", "DELETE"] {
        world.faults.add(method, "/", Fault::Hang, 100_000);
    }
    world.faults.cut_watches();
    world.source.says("queue", Says::Value(12.0));
    world.pass(120).await;
    assert_eq!(world.replicas("workers").await, 0);
    world.faults.clear();
    world.pass(120).await;
    assert_eq!(world.replicas("workers").await, 3);
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    assert!(world.has_event("workers", "KEDAScaleTargetActivationFailed").await);
    world.end().await;
}

pub fn thing_crd() -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                "subresources": {"scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
                    "labelSelectorPath": ".status.selector",
                }},
            }],
        },
    }))
    .unwrap()
}

#[tokio::test(start_paused = true)]
async fn any_kind_with_a_scale_subresource_can_be_scaled() {
    let world = World::new().await;
    world.sandbox.install_crds(&[thing_crd()]).unwrap();
    world.source.says("queue", Says::Value(5.0));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Thing"));
    let things: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), "default", &resource);
    let thing = DynamicObject::new("it", &resource).data(json!({"spec": {"replicas": 0}}));
    things.create(&PostParams::default(), &thing).await.unwrap();
    let target = json!({"apiVersion": "example.com/v1", "kind": "Thing", "name": "it"});
    world.object("workers", |o| o["spec"]["scaleTargetRef"] = target).await;
    world.pass(15).await;
    let ready = world.condition("workers", "Ready").await;
    assert_eq!(ready.status, "True", "{ready:?}");
    let status = world.get("workers").await.status.unwrap();
    assert_eq!(status.scale_target_kind.as_deref(), Some("example.com/v1.Thing"));
    assert_eq!(things.get("it").await.unwrap().data["spec"]["replicas"], 1);
    world.source.says("queue", Says::Value(0.0));
    world.pass(90).await;
    assert_eq!(things.get("it").await.unwrap().data["spec"]["replicas"], 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_in_small_letters_is_the_kind() {
    let world = World::new().await;
    world.deployment("workers", 0).await;
    world.source.says("queue", Says::Value(5.0));
    world.object("workers", |o| o["spec"]["scaleTargetRef"]["kind"] = json!("deployment")).await;
    world.pass(15).await;
    let ready = world.condition("workers", "Ready").await;
    assert_eq!(ready.status, "True", "{ready:?}");
    assert_eq!(world.get("workers").await.status.unwrap().scale_target_kind.as_deref(), Some("apps/v1.Deployment"));
    assert_eq!(world.replicas("workers").await, 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_kind_is_named() {
    let world = World::new().await;
    let target = json!({"apiVersion": "example.com/v1", "kind": "Nothing", "name": "it"});
    world.object("workers", |o| o["spec"]["scaleTargetRef"] = target).await;
    world.pass(5).await;
    let message = world.condition("workers", "Ready").await.message.unwrap();
    assert!(message.contains("Nothing") && message.contains("example.com/v1"), "{message}");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_object_asks_the_api_server_for_nothing() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.secret("token", "token", "one").await;
    world.authentication("auth", "token", "token", "token").await;
    for n in 0..10 {
        let name = format!("w{n}");
        world.deployment(&name, 0).await;
        world.object(&name, |o| o["spec"]["triggers"][0]["authenticationRef"] = json!({"name": "auth"})).await;
    }
    world.pass(100).await;
    let before = world.faults.requests().len();
    world.pass(3600).await;
    let requests = world.faults.requests().split_off(before);
    let others: Vec<_> = requests
        .iter()
        .filter(|r| !r.contains("watch=true") && !r.contains("/secrets/") && !r.contains("/triggerauthentications/"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    let secrets = requests.iter().filter(|request| request.contains("/secrets/")).count();
    assert!((12..=24).contains(&secrets), "{secrets} reads of one Secret for ten objects in 3600 s");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_scaling_that_somebody_else_was_faster_with_is_decided_anew() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 2).await;
    world.object("workers", |o| o["spec"]["initialCooldownPeriod"] = json!(25)).await;
    world.pass(5).await;
    // The operator does not learn of this change through its watch.
    world.faults.cut_watches();
    world.faults.add("GET", "watch=true", Fault::Status(500), 100_000);
    world.patch::<Deployment>("workers", json!({"spec": {"replicas": 5}})).await;
    world.pass(40).await;
    assert_eq!(world.replicas("workers").await, 0);
    let scaled = world.log().into_iter().find_map(|o| match o.what {
        What::Write { write: Write::Scale { from, to, .. }, .. } => Some((from, to)),
        _ => None,
    });
    assert_eq!(scaled, Some((5, 0)));
    world.end().await;
}
