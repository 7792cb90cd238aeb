//! What the index of neighbours costs, counted by the allocator in a process of its own: other tests allocate too.

use std::alloc::System;
use std::process::Command;
use std::time::Duration;

use cap::Cap;
use serde_json::{Value, json};
use tidemark_admission::{Neighbour, Neighbours, Request, View, review};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const OBJECTS: usize = 10_000;

/// As users write them, and with what the API server adds.
fn scaled_object(number: usize) -> Value {
    json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
        "metadata": {
            "name": format!("order-workers-{number:05}"), "namespace": format!("team-{:02}", number % 50),
            "uid": format!("6b2d1f0e-0000-4000-8000-{number:012}"), "labels": {"app": "order-workers", "team": "shop"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}".repeat(500)},
            "finalizers": ["finalizer.keda.sh"],
        },
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": format!("order-workers-{number:05}")},
            "maxReplicaCount": 20,
            "triggers": [{"type": "rabbitmq", "metadata": {"queueName": format!("orders-{number}"), "value": "10"}}],
        },
    })
}

fn autoscaler(number: usize) -> Value {
    let object = scaled_object(number);
    let name = &object["metadata"]["name"];
    json!({
        "metadata": {
            "name": format!("keda-hpa-order-workers-{number:05}"), "namespace": object["metadata"]["namespace"],
            "ownerReferences": [{
                "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": name, "controller": true,
                "uid": object["metadata"]["uid"],
            }],
        },
        "spec": {"scaleTargetRef": object["spec"]["scaleTargetRef"], "minReplicas": 1, "maxReplicas": 20},
    })
}

/// A creation as a webhook judges it.
fn admit(index: &mut Neighbours, number: usize, now: Duration) {
    let object = scaled_object(number);
    let near: Vec<Value> = index.of(&object, now).into_iter().map(|near| near.object).collect();
    let view = View { scaled_objects: &near, ..View::default() };
    assert!(review(&Request { object: &object, old: None, dry_run: false }, &view).admitted());
    index.claim(&object, now);
}

#[test]
#[ignore = "is run by the test below, alone in a process"]
fn measured() {
    let used = || i64::try_from(ALLOCATOR.allocated()).unwrap();
    let most = || i64::try_from(ALLOCATOR.max_allocated()).unwrap();
    let count = i64::try_from(OBJECTS).unwrap();
    let mut index = Neighbours::default();
    let before = used();
    // A burst that is over before the first watch event.
    for number in 0..OBJECTS {
        admit(&mut index, number, Duration::from_millis(number as u64 / 10));
    }
    let claimed = used() - before;
    for number in 0..OBJECTS {
        index.apply(Neighbour::ScaledObject, &scaled_object(number));
    }
    let objects = used() - before;
    for number in 0..OBJECTS {
        index.apply(Neighbour::Autoscaler, &autoscaler(number));
    }
    let both = used() - before;
    let spike = most() - before;
    assert_eq!(index.counts(), [OBJECTS, OBJECTS, 0]);
    // Everything is written again and again, and listed again.
    for _ in 0..3 {
        index.begin(Neighbour::ScaledObject);
        for number in 0..OBJECTS {
            index.apply(Neighbour::ScaledObject, &scaled_object(number));
        }
        index.complete(Neighbour::ScaledObject);
    }
    let again = used() - before;
    for number in (0..OBJECTS).step_by(2).chain((1..OBJECTS).step_by(2)) {
        let object = scaled_object(number);
        let [namespace, name] = ["namespace", "name"].map(|field| object["metadata"][field].as_str().unwrap());
        index.remove(Neighbour::ScaledObject, namespace, name);
        index.remove(Neighbour::Autoscaler, namespace, &format!("keda-hpa-{name}"));
    }
    index.of(&scaled_object(0), Duration::from_secs(3600));
    let left = used() - before;
    println!(
        "bytes each: claimed {}, stored {}, with its HPA {}; the most at any time {}; after writes {}; left in all {left}",
        claimed / count,
        objects / count,
        both / count,
        spike / count,
        again / count,
    );
    assert_eq!(index.counts(), [0, 0, 0]);
    assert!(claimed / count < 1024, "{claimed}");
    assert!(objects / count < 640, "{objects}");
    assert!(both / count < 1024, "{both}");
    assert!(spike / count < 1536, "{spike}");
    assert!((again - both).abs() < both / 10, "{again} after {both}");
    assert!(left < 64 * 1024, "{left}");
}

#[test]
fn a_neighbour_costs_less_than_a_kibibyte_returned_on_its_deletion_and_a_burst_makes_no_spike() {
    let arguments = ["memory::measured", "--exact", "--ignored", "--nocapture", "--test-threads=1"];
    let output = Command::new(std::env::current_exe().unwrap()).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"));
}
