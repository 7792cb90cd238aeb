//! Two objects that want the same, and others who write the HPA.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use serde_json::json;
use tidemark_api::ScaledObject;
use tidemark_operator::{Life, Stage, What, Write};

use crate::world::{Says, World};

fn over(target: &'static str) -> impl FnOnce(&mut serde_json::Value) {
    move |object| object["spec"]["scaleTargetRef"]["name"] = json!(target)
}

#[tokio::test(start_paused = true)]
async fn of_two_objects_on_one_target_the_first_scales_it_and_the_second_is_told() {
    let mut world = World::new().await;
    world.source.says("queue", Says::Value(15.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(3).await;
    world.object("again", over("workers")).await;
    world.pass(3).await;
    let ready = world.condition("again", "Ready").await;
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("ScaledObjectCheckFailed")));
    assert!(
        ready.message.as_deref().unwrap().ends_with(
            "the workload 'workers' of type 'apps/v1.Deployment' is already managed by the ScaledObject 'workers'"
        ),
        "{ready:?}"
    );
    assert!(world.hpa("keda-hpa-again").await.is_none());
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    let hold =
        |count: serde_json::Value| json!({"metadata": {"annotations": {"autoscaling.keda.sh/paused-replicas": count}}});
    world.patch::<ScaledObject>("again", hold(json!("9"))).await;
    world.pass(60).await;
    assert_eq!(world.replicas("workers").await, 3, "nor does its annotation count");
    world.patch::<ScaledObject>("again", hold(json!(null))).await;
    // Waiting costs the API server nothing.
    let of_it = |world: &World| {
        world.faults.requests().iter().filter(|r| r.contains("again") && !r.contains("/events/")).count()
    };
    world.pass(30).await;
    let before = of_it(&world);
    world.pass(600).await;
    assert_eq!(of_it(&world), before);
    // A restart finds the same one in place.
    world.restart_operator().await;
    world.pass(40).await;
    assert_eq!(world.condition("again", "Ready").await.status, "False");
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    let praised = world.log().into_iter().any(|o| o.object.name == "again" && o.what == What::Life(Life::Ready));
    assert!(!praised, "not for a moment");
    // When the first one goes, the second one follows, and its deletion no longer concerns the target of another.
    world.delete::<ScaledObject>("workers").await;
    world.pass(15).await;
    assert_eq!(world.condition("again", "Ready").await.status, "True");
    assert!(world.hpa("keda-hpa-again").await.is_some());
    assert_eq!(world.replicas("workers").await, 3);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_turns_to_the_target_of_another_gives_way_and_its_hpa_goes() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(15.0));
    for name in ["first", "second"] {
        world.deployment(name, 0).await;
        world.object(name, |_| {}).await;
    }
    world.pass(60).await;
    world
        .patch::<ScaledObject>(
            "second",
            json!({"spec": {"scaleTargetRef": {"name": "first"}, "advanced": {"restoreToOriginalReplicaCount": true}}}),
        )
        .await;
    world.pass(5).await;
    assert_eq!(world.condition("second", "Ready").await.status, "False");
    assert!(world.hpa("keda-hpa-second").await.is_none());
    assert!(world.hpa("keda-hpa-first").await.is_some());
    let error = world.operator.handle.metric("default", "second", "s0-metric-api-value").await.unwrap_err();
    assert!(error.to_string().contains("already managed by the ScaledObject 'first'"), "{error}");
    // Deleted, it gives the replicas of its first target to nobody.
    world.delete::<ScaledObject>("second").await;
    world.pass(5).await;
    assert_eq!(world.replicas("first").await, 3);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_objects_with_one_hpa_name_the_first_has_it() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    let named = |name: &'static str| {
        move |object: &mut serde_json::Value| {
            object["spec"]["advanced"] = json!({"horizontalPodAutoscalerConfig": {"name": name}});
        }
    };
    for name in ["one", "two", "other", "workers"] {
        world.deployment(name, 0).await;
    }
    world.object("one", named("mine")).await;
    world.pass(2).await;
    world.object("two", named("mine")).await;
    world.object("workers", |_| {}).await;
    world.pass(2).await;
    world.object("other", named("keda-hpa-workers")).await;
    world.pass(5).await;
    for (loser, winner, hpa) in [("two", "one", "mine"), ("other", "workers", "keda-hpa-workers")] {
        let message = world.condition(loser, "Ready").await.message.unwrap();
        let wanted = format!("the HPA '{hpa}' is already managed by the ScaledObject '{winner}'");
        assert!(message.ends_with(&wanted), "{message}");
        let found = world.hpa(hpa).await.unwrap();
        assert_eq!(found.spec.scale_target_ref.name, winner);
        assert_eq!(world.condition(winner, "Ready").await.status, "True");
    }
    world.delete::<ScaledObject>("workers").await;
    world.patch::<ScaledObject>("one", json!({"spec": {"advanced": null}})).await;
    world.pass(5).await;
    for (name, hpa) in [("two", "mine"), ("other", "keda-hpa-workers"), ("one", "keda-hpa-one")] {
        assert_eq!(world.condition(name, "Ready").await.status, "True", "{name}");
        assert_eq!(world.hpa(hpa).await.unwrap().spec.scale_target_ref.name, name);
    }
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn objects_on_one_custom_resource_are_noticed_too() {
    let world = World::new().await;
    world.sandbox.install_crds(&[crate::faults::thing_crd()]).unwrap();
    world.source.says("queue", Says::Value(0.0));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Thing"));
    let things: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), "default", &resource);
    let thing = DynamicObject::new("it", &resource).data(json!({"spec": {"replicas": 0}}));
    things.create(&kube::api::PostParams::default(), &thing).await.unwrap();
    let target = || json!({"apiVersion": "example.com/v1", "kind": "Thing", "name": "it"});
    world.object("one", |o| o["spec"]["scaleTargetRef"] = target()).await;
    world.pass(2).await;
    world.object("two", |o| o["spec"]["scaleTargetRef"] = target()).await;
    // The same name, but another kind.
    world.deployment("it", 0).await;
    world.object("three", over("it")).await;
    world.pass(5).await;
    let states = [world.condition("one", "Ready").await, world.condition("two", "Ready").await];
    assert_eq!([&states[0].status, &states[1].status], ["True", "False"]);
    assert!(states[1].message.as_ref().unwrap().contains("of type 'example.com/v1.Thing'"));
    assert_eq!(world.condition("three", "Ready").await.status, "True");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_hpa_that_others_keep_changing_is_put_right_ever_less_often() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(5).await;
    let updates = |world: &World| {
        let is_update = |what: &What| matches!(what, What::Write { write: Write::HpaUpdated { .. }, error: None, .. });
        world.log().iter().filter(|o| is_update(&o.what)).count()
    };
    // Somebody who looks ten times a second.
    for _ in 0..3000 {
        if world.hpa("keda-hpa-workers").await.unwrap().spec.max_replicas == 10 {
            let spec = json!({"spec": {"maxReplicas": 77}});
            world.patch::<HorizontalPodAutoscaler>("keda-hpa-workers", spec).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let fought = updates(&world);
    assert!((5..40).contains(&fought), "{fought} updates in 300 s");
    let told = world.log().into_iter().filter(|o| {
        matches!(&o.what, What::Error { stage: Stage::HpaContested, message } if message.contains("keda-hpa-workers"))
    });
    assert_eq!(told.count(), 1);
    assert!(world.has_event("workers", "HPAContested").await);
    world.pass(120).await;
    assert_eq!(world.hpa("keda-hpa-workers").await.unwrap().spec.max_replicas, 10, "it is put right in the end");
    world.pass(1200).await;
    world.patch::<HorizontalPodAutoscaler>("keda-hpa-workers", json!({"spec": {"maxReplicas": 77}})).await;
    world.pass(1).await;
    assert_eq!(
        world.hpa("keda-hpa-workers").await.unwrap().spec.max_replicas,
        10,
        "and at once after a while of peace"
    );
    world.end().await;
}
