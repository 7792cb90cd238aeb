//! What an object's past costs, counted by the allocator in a process of its own: other tests allocate too.

use std::alloc::System;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use cap::Cap;
use tidemark_engine::activation::Action;
use tidemark_engine::metric::Target;
use tidemark_engine::reason::Reason;
use tidemark_operator::{Asker, ObjectKey, Observation, ScaleCause, Seen, Stage, What, Write};
use tidemark_reasons::{Limits, Ring};
use tidemark_trigger::{ErrorKind, Reading, SourceError};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// An object at rest, with one trigger.
const AT_REST: usize = 2 * 1024;
/// One that keeps all that may be kept, with three triggers and messages of every kind.
const FULL: usize = 64 * 1024;

const OBJECTS: usize = 1000;

fn tell(ring: &Ring, object: usize, second: i64, what: What) {
    ring.record(&Observation {
        time: jiff::Timestamp::from_second(1_767_600_000 + second).unwrap(),
        object: Arc::new(ObjectKey::new("team-01", format!("order-workers-{object:05}"))),
        uid: format!("6b2d1f0e-0000-4000-8000-{object:012}").into(),
        evaluation: u64::try_from(second).unwrap(),
        what,
    });
}

fn decision(triggers: usize, round: i64, replicas: i32) -> What {
    let metric = |index: usize| Arc::<str>::from(format!("s{index}-rabbitmq-orders-of-team-01"));
    let quiet = |index| Reason::TriggerInactive { metric: metric(index), value: round as f64 };
    let seen = |index| Seen {
        trigger: Some(index),
        metric: metric(index),
        milli: Some(round),
        target: Some(Target::AverageValue(5000)),
        active: Some(false),
        fallback: false,
    };
    let reasons: Vec<Reason> = (0..triggers).map(quiet).chain([Reason::AtRest { replicas }]).collect();
    What::Decision {
        active: false,
        replicas: Some(replicas),
        action: Action::Nothing,
        reasons: reasons.into(),
        metrics: (0..triggers).map(seen).collect::<Vec<_>>().into(),
    }
}

fn fetch(trigger: usize, outcome: Result<Vec<Reading>, SourceError>) -> What {
    What::Fetch {
        trigger,
        trigger_type: "rabbitmq".into(),
        name: None,
        asked_by: Asker::Poll,
        for_formula: false,
        endpoint: Some("http://rabbitmq.shop.svc:15672".into()),
        took: Duration::from_millis(20),
        metrics: vec!["s0-rabbitmq-orders-of-team-01".into()],
        outcome,
        requests: Vec::new(),
        empties: Vec::new(),
    }
}

#[test]
#[ignore = "is run by the test below, alone in a process"]
fn measured() {
    let used = || ALLOCATOR.allocated();
    let rest = Ring::new(Limits::default(), Arc::new(|_, _| None));
    let before = used();
    for object in 0..OBJECTS {
        for second in 0..50 {
            tell(&rest, object, second, fetch(0, Ok(vec![Reading { value: 0.0, active: false }])));
            tell(&rest, object, second, decision(1, second, 0));
        }
    }
    let at_rest = (used() - before) / OBJECTS;

    let full = Ring::new(Limits { in_all: usize::MAX, ..Limits::default() }, Arc::new(|_, _| None));
    let before = used();
    for object in 0..OBJECTS {
        for second in 0..50 {
            for trigger in 0..3 {
                let kind = [ErrorKind::Unreachable, ErrorKind::TimedOut, ErrorKind::Refused]
                    [usize::try_from(second).unwrap() % 3];
                tell(&full, object, second, fetch(trigger, Err(SourceError::new(kind, "a message ".repeat(400)))));
            }
            let replicas = i32::try_from(second).unwrap();
            tell(&full, object, second, decision(3, second, replicas));
            let cause = ScaleCause::Activated { metrics: vec!["s0-rabbitmq-orders".into()], forced: false };
            let write = Write::Scale {
                target: "apps/v1.Deployment team-01/order-workers".into(),
                from: 0,
                to: replicas,
                cause,
            };
            tell(&full, object, second, What::Write { write, took: Duration::ZERO, dry_run: false, error: None });
            tell(&full, object, second, What::Error { stage: Stage::Check, message: "a message ".repeat(400).into() });
        }
    }
    let most = (used() - before) / OBJECTS;

    for object in 0..OBJECTS {
        tell(&rest, object, 100, What::Gone);
        tell(&full, object, 100, What::Gone);
    }
    println!("at rest {at_rest} bytes, full {most} bytes");
    assert!(at_rest < AT_REST, "{at_rest} bytes at rest");
    assert!(most < FULL, "{most} bytes when full");
    assert_eq!((rest.objects(), full.objects()), (0, 0));
}

#[test]
fn a_past_at_rest_takes_less_than_2_kib_and_at_most_64_kib() {
    let program = std::env::current_exe().unwrap();
    let alone = ["memory::measured", "--exact", "--ignored", "--nocapture", "--test-threads=1"];
    let output = Command::new(program).args(alone).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("1 passed"), "{told}");
}

#[test]
fn many_objects_share_the_room_and_each_keeps_a_few_decisions() {
    let limits = Limits { per_object: 32, least: 4, in_all: 64 };
    let ring = Ring::new(limits, Arc::new(|_, _| None));
    for second in 0..40 {
        for object in 0..16 {
            tell(&ring, object, second, decision(1, second, i32::try_from(second).unwrap()));
        }
    }
    assert_eq!(ring.decisions(), 4 * 16);
    // The first one had more room while it was alone; it gives that up with its next decision, also an equal one.
    let ring = Ring::new(limits, Arc::new(|_, _| None));
    for second in 0..40 {
        tell(&ring, 0, second, decision(1, second, i32::try_from(second).unwrap()));
    }
    (1..16).for_each(|object| tell(&ring, object, 40, decision(1, 0, 0)));
    assert_eq!(ring.decisions(), 32 + 15);
    tell(&ring, 0, 41, decision(1, 41, 39));
    assert_eq!(ring.decisions(), 4 + 15);
}
