//! What is told of writes.

use std::time::Duration;

use kube::api::{Api, DeleteParams};
use tidemark_api::ScaledObject;
use tidemark_operator::{What, Write, Writes};

use crate::world::{Fault, Says, World};

/// Of each write: what it was, how long it took in milliseconds, whether it was that of a dry run, and its evaluation.
fn told(world: &World) -> Vec<(String, u128, bool, u64)> {
    let write = |observation: &tidemark_operator::Observation| match &observation.what {
        What::Write { write, took, dry_run, error: None } => {
            let what = format!("{} {}", write.verb(), write.kind());
            Some((what, took.as_millis(), *dry_run, observation.evaluation))
        }
        _ => None,
    };
    world.log().iter().filter_map(write).collect()
}

#[tokio::test(start_paused = true)]
async fn every_write_is_told_with_the_time_that_it_took() {
    let world = World::new().await;
    let late = |method: &str, part: &str, milliseconds| {
        world.faults.add(method, part, Fault::Late(Duration::from_millis(milliseconds)), 1000);
    };
    late("PATCH", "scaledobjects/workers/status", 200);
    late("PATCH", "scaledobjects/workers?", 100);
    late("POST", "horizontalpodautoscalers", 300);
    late("PUT", "horizontalpodautoscalers", 400);
    late("DELETE", "horizontalpodautoscalers", 500);
    late("GET", "deployments/workers/scale", 50);
    late("PUT", "deployments/workers/scale", 700);
    world.source.says("queue", Says::Value(50.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(60).await;
    let limit = serde_json::json!({"spec": {"maxReplicaCount": 3}});
    world.patch::<ScaledObject>("workers", limit).await;
    world.pass(10).await;
    let pause = serde_json::json!({"metadata": {"annotations": {"autoscaling.keda.sh/paused": "true"}}});
    world.patch::<ScaledObject>("workers", pause).await;
    world.pass(10).await;
    let objects: Api<ScaledObject> = world.api();
    objects.delete("workers", &DeleteParams::default()).await.unwrap();
    world.pass(10).await;
    let told = told(&world);
    for (what, milliseconds) in [
        ("create finalizer", 100),
        ("create hpa", 300),
        ("update status", 200),
        // What is read for it, too.
        ("update scale", 750),
        ("update hpa", 400),
        ("delete hpa", 500),
        ("delete finalizer", 100),
    ] {
        let of: Vec<_> = told.iter().filter(|one| one.0 == what).collect();
        assert!(!of.is_empty(), "no {what}: {told:?}");
        assert!(of.iter().all(|one| (one.1, one.2) == (milliseconds, false)), "{what}: {of:?}");
    }
    // A status belongs to the evaluation that changed it, however late it is written.
    let scale = told.iter().find(|one| one.0 == "update scale").unwrap();
    assert!(told.iter().any(|one| one.0 == "update status" && one.3 == scale.3), "{told:?}");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_refused_is_told_with_its_time_too() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(60).await;
    world.faults.add("PUT", "deployments/workers/scale", Fault::Status(403), 1000);
    world.faults.add("GET", "deployments/workers/scale", Fault::Late(Duration::from_millis(50)), 1000);
    world.source.says("queue", Says::Value(50.0));
    world.pass(40).await;
    let log = world.log();
    let failed = log.iter().find_map(|observation| match &observation.what {
        What::Write { write: Write::Scale { .. }, took, error: Some(error), .. } => Some((*took, error.to_string())),
        _ => None,
    });
    assert_eq!(failed, Some((Duration::from_millis(50), "a fault".to_owned())));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_writes_of_a_dry_run_are_told_as_such_and_take_no_time() {
    let mut world = World::new().await;
    world.stop_operator().await;
    world.settings.writes = Writes::Never;
    world.faults.add("GET", "workers", Fault::Late(Duration::from_millis(50)), 1000);
    world.start_operator();
    world.source.says("queue", Says::Value(50.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(60).await;
    assert!(world.operator.handle.is_dry_run());
    let told = told(&world);
    for what in ["create finalizer", "create hpa", "update scale", "update status"] {
        assert!(told.iter().any(|one| one.0 == what), "no {what}: {told:?}");
    }
    assert!(told.iter().all(|one| one.1 == 0 && one.2), "{told:?}");
    world.end().await;
}
