//! Who leads, who writes, and who writes nothing.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;
use tidemark_api::ScaledObject;
use tidemark_operator::leader::{Elector, Fence, LeaseSettings};
use tidemark_operator::{What, Write, Writes};
use tokio::time::Instant;

use crate::world::{Fault, Faults, Says, World};

/// The longest time until another one leads: the Lease's duration, and the retry period.
const TAKEN_OVER: Duration = Duration::from_secs(17);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);

fn elector(world: &World, client: Client, identity: &str) -> (Elector, Fence) {
    let settings =
        LeaseSettings { namespace: "default".to_owned(), identity: identity.to_owned(), ..LeaseSettings::default() };
    Elector::new(client, settings, world.clock)
}

async fn lease(world: &World) -> Lease {
    world.api::<Lease>().get("operator.keda.sh").await.unwrap()
}

async fn holder(world: &World) -> String {
    lease(world).await.spec.unwrap().holder_identity.unwrap()
}

#[tokio::test(start_paused = true)]
async fn when_a_leader_dies_another_one_leads_within_duration_and_retry_period() {
    let world = World::new().await;
    let (mut first, first_fence) = elector(&world, world.client.clone(), "first");
    let (mut second, second_fence) = elector(&world, world.client.clone(), "second");
    first.acquire().await;
    assert!(first_fence.is_open());
    let waiting = tokio::spawn(async move {
        second.acquire().await;
        second
    });
    // It renews for a minute, and all that time nobody takes the Lease.
    let _ = tokio::time::timeout(Duration::from_secs(60), first.keep()).await.unwrap_err();
    assert!(!waiting.is_finished() && !second_fence.is_open() && first_fence.is_open());
    let dead = Instant::now();
    let mut second = waiting.await.unwrap();
    assert!(dead.elapsed() <= TAKEN_OVER, "{:?}", dead.elapsed());
    assert!(second_fence.is_open() && !first_fence.is_open(), "never two");
    let spec = lease(&world).await.spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("second"), Some(1)));
    assert_eq!(spec.lease_duration_seconds, Some(15));
    // The first one comes back to life: it has lost the Lease.
    let lost = first.keep().await;
    assert!(lost.contains("second"), "{lost}");
    // One that goes in peace gives it back.
    second.release().await;
    assert_eq!((holder(&world).await, second_fence.is_open()), (String::new(), false));
    let released = Instant::now();
    first.acquire().await;
    assert!(released.elapsed() <= Duration::from_secs(2));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_kedas_is_waited_for_and_taken_when_nobody_renews_it() {
    let world = World::new().await;
    let keda = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "operator.keda.sh"},
        "spec": {
            "holderIdentity": "keda-operator-7d_6f1c", "leaseDurationSeconds": 15, "leaseTransitions": 4,
            "acquireTime": "2020-01-01T00:00:00.000000Z", "renewTime": "2020-01-01T00:00:00.000000Z",
        },
    });
    world.api::<Lease>().create(&PostParams::default(), &serde_json::from_value(keda).unwrap()).await.unwrap();
    let (mut elector, _) = elector(&world, world.client.clone(), "ours");
    let began = Instant::now();
    elector.acquire().await;
    // Its times are of another clock, and prove nothing.
    assert!((Duration::from_secs(15)..=TAKEN_OVER).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(lease(&world).await.spec.unwrap().lease_transitions, Some(5));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_writes_nothing_after_the_renew_deadline() {
    let mut world = World::new().await;
    world.stop_operator().await;
    let faults = Faults::default();
    let (mut elector, fence) = elector(&world, faults.client(&world.sandbox), "leader");
    elector.acquire().await;
    world.settings.writes = Writes::Behind(fence.clone());
    world.start_operator();
    world.source.says("queue", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", |object| object["spec"]["pollingInterval"] = json!(1)).await;
    let keeping = tokio::spawn(async move { elector.keep().await });
    world.pass(30).await;
    assert!(fence.is_open() && world.hpa("keda-hpa-workers").await.is_some());
    faults.add("GET", "/leases/", Fault::Hang, 100);
    let cut_off = Instant::now();
    // The last renewal may be a retry period old.
    let lost = keeping.await.unwrap();
    assert!(cut_off.elapsed() <= RENEW_DEADLINE, "{:?}", cut_off.elapsed());
    assert!(lost.contains("not renewed") || lost.contains("did not answer"), "{lost}");
    assert!(!fence.is_open());
    let version = world.get("workers").await.metadata.resource_version;
    world.source.says("queue", Says::Value(50.0));
    world.pass(30).await;
    assert_eq!(world.replicas("workers").await, 0, "another one may lead by now");
    assert_eq!(world.get("workers").await.metadata.resource_version, version);
    let refused = world.log().into_iter().any(|observation| {
        matches!(observation.what, What::Write { write: Write::Scale { to: 1, .. }, error: Some(error), .. } if error.contains("leads no longer"))
    });
    assert!(refused);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_decides_and_reports_and_writes_nothing() {
    let mut world = World::new().await;
    world.stop_operator().await;
    world.settings.writes = Writes::Never;
    world.start_operator();
    world.source.says("queue", Says::Value(50.0));
    world.deployment("workers", 0).await;
    let before = world.object("workers", |_| {}).await;
    let asked = world.faults.requests().len();
    world.pass(120).await;
    let scaled = |observation: tidemark_operator::Observation| match observation.what {
        What::Write { write: Write::Scale { from, to, .. }, error: None, .. } => Some((from, to)),
        _ => None,
    };
    assert_eq!(world.log().into_iter().find_map(scaled), Some((0, 1)), "it would have");
    assert_eq!(world.replicas("workers").await, 0);
    assert!(world.hpa("keda-hpa-workers").await.is_none());
    let after = world.api::<ScaledObject>().get("workers").await.unwrap();
    assert_eq!((after.metadata, after.status), (before.metadata, before.status));
    let events = world.api::<Event>().list(&ListParams::default()).await.unwrap();
    assert!(events.items.iter().all(|event| event.reporting_controller.as_deref() != Some("keda-operator")));
    let requests = world.faults.requests();
    let written: Vec<_> = requests[asked..].iter().filter(|request| !request.starts_with("GET ")).collect();
    assert!(written.is_empty(), "{written:?}");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn only_objects_that_a_selector_takes_are_scaled() {
    let mut world = World::new().await;
    world.stop_operator().await;
    world.settings.selector = Some("shard=a".to_owned());
    world.start_operator();
    world.source.says("queue", Says::Value(50.0));
    for (name, shard) in [("mine", "a"), ("theirs", "b")] {
        world.deployment(name, 0).await;
        world.object(name, |object| object["metadata"]["labels"] = json!({"shard": shard})).await;
    }
    world.pass(60).await;
    assert!(world.replicas("mine").await > 0);
    assert_eq!(world.replicas("theirs").await, 0);
    assert!(world.get("theirs").await.status.is_none());
    // Its HPA carries the label too: one that goes is made anew.
    let hpas: Api<k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler> = world.api();
    hpas.delete("keda-hpa-mine", &Default::default()).await.unwrap();
    world.pass(5).await;
    assert!(world.hpa("keda-hpa-mine").await.is_some());
    world.end().await;
}
