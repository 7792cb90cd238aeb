//! A dry run beside an operator that works.

use serde_json::json;
use tidemark_operator::{Settings, What, Write, Writes};

use crate::world::{Faults, Running, Says, World};

fn would(operator: &Running) -> Vec<Write> {
    let log = operator.log.lock().unwrap();
    let writes = log.iter().filter_map(|observation| match &observation.what {
        What::Write { write, error: None, .. } if *write != Write::Status => Some(write.clone()),
        _ => None,
    });
    writes.collect()
}

#[tokio::test(start_paused = true)]
async fn beside_an_operator_that_does_the_same_a_dry_run_reports_its_decisions_and_nothing_else() {
    let world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    for name in ["one", "two"] {
        world.deployment(name, 0).await;
        world.object(name, |_| {}).await;
    }
    world.pass(60).await;
    let faults = Faults::default();
    let dry = world.start_beside(&faults, Settings { writes: Writes::Never, ..Settings::default() });
    world.pass(60).await;
    assert!(would(&dry).is_empty(), "{:?}", would(&dry));
    world.source.says("queue", Says::Value(50.0));
    world.pass(300).await;
    world.source.says("queue", Says::Value(0.0));
    // Beyond the cooldown.
    world.pass(600).await;
    assert_eq!((world.replicas("one").await, world.replicas("two").await), (0, 0));
    // Whichever of the two reads first decides first; the other one finds it done.
    for write in would(&dry) {
        assert!(matches!(write, Write::Scale { from: 0, to: 1, .. } | Write::Scale { to: 0, .. }), "{write:?}");
    }
    assert!(would(&dry).len() <= 4, "{:?}", would(&dry));
    let written: Vec<_> = faults.requests().into_iter().filter(|request| !request.starts_with("GET ")).collect();
    assert!(written.is_empty(), "{written:?}");
    dry.end().await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_does_not_tell_a_difference_again_and_again_and_sees_what_others_do() {
    let mut world = World::new().await;
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |_| {}).await;
    world.pass(60).await;
    // Nobody works any more, and somebody has changed the HPA.
    world.stop_operator().await;
    let limit = json!({"spec": {"maxReplicas": 3}});
    world.patch::<k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler>("keda-hpa-workers", limit).await;
    let faults = Faults::default();
    let dry = world.start_beside(&faults, Settings { writes: Writes::Never, ..Settings::default() });
    world.source.says("queue", Says::Value(50.0));
    world.pass(300).await;
    let updates = would(&dry).iter().filter(|write| matches!(write, Write::HpaUpdated { .. })).count();
    let activations = would(&dry).iter().filter(|write| matches!(write, Write::Scale { from: 0, to: 1, .. })).count();
    // Once when it checks the object, and at most once more when the watch of HPAs shows what there is.
    assert!((1..=2).contains(&updates) && activations == 1, "{:?}", would(&dry));
    assert_eq!(world.replicas("workers").await, 0);
    // Somebody scales by hand, and back: the dry run sees both.
    world.scale_by_hand("workers", 4).await;
    world.pass(60).await;
    world.scale_by_hand("workers", 0).await;
    world.pass(60).await;
    let activations = would(&dry).iter().filter(|write| matches!(write, Write::Scale { from: 0, to: 1, .. })).count();
    // It tells the same again when it reads the target again, and finds that nobody has done it.
    assert!((2..=3).contains(&activations), "{:?}", would(&dry));
    dry.end().await;
    world.start_operator();
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_is_in_sync_when_every_watch_has_shown_what_there_is() {
    let world = World::without_crds().await;
    let handle = world.operator.handle.clone();
    let synced = tokio::spawn(async move { handle.synced().await });
    world.pass(120).await;
    assert!(!synced.is_finished(), "there are no definitions yet");
    world.sandbox.install_crds(&tidemark_api::crds()).unwrap();
    world.pass(60).await;
    assert!(synced.is_finished());
    world.end().await;
}
