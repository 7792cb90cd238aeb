//! Facts that hold whatever the pods use.

use proptest::prelude::*;

use super::super::{
    Behavior, Controls, Decision, Measured, Memory, Metric, Observed, Policy, Rules, Select, Spec, Target, decide_all,
};
use super::*;

fn start() -> Timestamp {
    Timestamp::from_second(1_760_000_000).unwrap()
}

/// A pod that counts.
fn steady(usage: i64, request: i64) -> Pod {
    let since = start() - Duration::from_secs(3000);
    Pod {
        deleting: false,
        phase: Phase::Running,
        started: Some(since),
        ready: Some(Ready { status: Status::True, since }),
        request: Ok(request),
        usage: Some(Usage { milli: usage, time: start(), window: Duration::from_secs(30) }),
    }
}

fn pods() -> impl Strategy<Value = Vec<Pod>> {
    let phase = prop_oneof![
        6 => Just(Phase::Running), 1 => Just(Phase::Pending), 1 => Just(Phase::Failed), 1 => Just(Phase::Succeeded)
    ];
    let usage = proptest::option::weighted(0.8, (0..4000i64, 0..600u64));
    let ready = proptest::option::weighted(0.9, (any::<bool>(), 0..600u64));
    let pod = (0..10u8, phase, 0..600u64, ready, 0..2000i64, usage).prop_map(
        |(deleting, phase, started, ready, request, usage)| {
            let ago = |seconds| start() - Duration::from_secs(seconds);
            Pod {
                deleting: deleting == 0,
                phase,
                started: Some(ago(started)),
                ready: ready.map(|(ready, since)| Ready {
                    status: if ready { Status::True } else { Status::False },
                    since: ago(since),
                }),
                request: Ok(request),
                usage: usage.map(|(milli, time)| Usage { milli, time: ago(time), window: Duration::from_secs(30) }),
            }
        },
    );
    proptest::collection::vec(pod, 0..12)
}

fn targets() -> impl Strategy<Value = ResourceTarget> {
    let resource = prop_oneof![Just(Resource::Cpu), Just(Resource::Memory), Just(Resource::Other)];
    let per_pod = prop_oneof![(1..300i32).prop_map(PerPod::Utilization), (1..3000i64).prop_map(PerPod::AverageValue)];
    (resource, any::<bool>(), per_pod).prop_map(|(resource, container, per_pod)| ResourceTarget {
        resource,
        container,
        per_pod,
    })
}

/// A spec that does at once what the metric proposes.
fn spec(target: ResourceTarget, min_replicas: i32, max_replicas: i32) -> Spec {
    let everything = Policy::Percent { value: 1_000_000, period: Duration::from_secs(15) };
    let rules =
        Rules { stabilization: Some(Duration::ZERO), select: Select::Max, policies: vec![everything], tolerance: None };
    Spec {
        min_replicas,
        max_replicas,
        metrics: vec![Metric { name: "cpu".into(), target: Target::Resource(target) }],
        behavior: Some(Behavior { scale_up: rules.clone(), scale_down: rules }),
    }
}

fn run(spec: &Spec, current: i32, pods: Vec<Pod>) -> Decision {
    let count = pods.len() as i32;
    let observed = Observed { spec_replicas: current, status_replicas: current, ready_pods: count, pods: count };
    let (controls, timing, measured) = (Controls::default(), PodTiming::default(), [Measured::Pods(Ok(pods))]);
    decide_all(spec, &controls, &timing, observed, &measured, &Memory::default(), start())
}

proptest! {
    #[test]
    fn replicas_stay_between_minimum_and_maximum(
        target in targets(), pods in pods(), min in 1..20i32, more in 0..50i32, current in 1..100i32,
    ) {
        let spec = spec(target, min, min + more);
        let decision = run(&spec, current, pods);
        prop_assert!((spec.min_replicas..=spec.max_replicas).contains(&decision.desired));
        prop_assert_eq!(decision.metrics.len(), decision.utilization.len());
    }

    #[test]
    fn pods_without_samples_never_turn_the_direction_around(
        target in targets(), usages in proptest::collection::vec(0..4000i64, 1..10), missing in 1..10usize,
        current in 1..30i32,
    ) {
        let counted: Vec<Pod> = usages.iter().map(|usage| steady(*usage, 1000)).collect();
        let shares: Vec<Share> = usages.iter().map(|usage| Share { usage: *usage, request: 1000 }).collect();
        let ratio = measure(target.per_pod, &shares).unwrap().ratio;
        let silent = std::iter::repeat_n(Pod { usage: None, ..steady(0, 1000) }, missing);
        let desired = run(&spec(target, 1, 1_000_000), current, counted.into_iter().chain(silent).collect()).desired;
        prop_assert!(ratio < 1.0 || desired >= current, "{ratio} {desired}");
        prop_assert!(ratio > 1.0 || desired <= current, "{ratio} {desired}");
    }

    #[test]
    fn nothing_changes_within_the_tolerance(
        target in targets(), current in 1..30usize, share in 0.91..1.09f64,
    ) {
        let full = match target.per_pod {
            PerPod::Utilization(per_cent) => f64::from(per_cent) * 1000.0,
            PerPod::AverageValue(milli) => milli as f64 * 1000.0,
        };
        // In units so small that rounding to whole ones does not matter.
        let target = match target.per_pod {
            PerPod::AverageValue(milli) => ResourceTarget { per_pod: PerPod::AverageValue(milli * 1000), ..target },
            PerPod::Utilization(per_cent) if per_cent >= 100 => target,
            PerPod::Utilization(_) => return Ok(()),
        };
        let pods = vec![steady((full * share) as i64, 100_000); current];
        let current = current as i32;
        prop_assert_eq!(run(&spec(target, 1, 1_000_000), current, pods).desired, current);
    }

    #[test]
    fn more_use_never_means_fewer_replicas(
        target in targets(), usages in proptest::collection::vec((0..4000i64, 0..4000i64), 1..20),
    ) {
        let current = usages.len() as i32;
        let desired = |more: bool| {
            let usage = |(usage, extra): &(i64, i64)| steady(usage + if more { *extra } else { 0 }, 1000);
            run(&spec(target, 1, 1_000_000), current, usages.iter().map(usage).collect()).desired
        };
        prop_assert!(desired(false) <= desired(true));
    }

    #[test]
    fn pods_of_which_nothing_is_known_change_nothing(target in targets(), current in 1..30i32, pods in pods()) {
        let pods: Vec<Pod> = pods.into_iter().map(|pod| Pod { usage: None, ..pod }).collect();
        prop_assert_eq!(run(&spec(target, 1, 100), current, pods).desired, current);
    }
}
