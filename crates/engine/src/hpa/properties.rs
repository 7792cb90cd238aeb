//! Facts that hold whatever the numbers.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn start() -> Timestamp {
    Timestamp::from_second(1_760_000_000).unwrap()
}

fn rules() -> impl Strategy<Value = Rules> {
    let select = prop_oneof![Just(Select::Max), Just(Select::Min), Just(Select::Disabled)];
    let policy = (any::<bool>(), 1..200i32, 1..1800u64).prop_map(|(pods, value, seconds)| {
        let period = Duration::from_secs(seconds);
        if pods { Policy::Pods { value, period } } else { Policy::Percent { value, period } }
    });
    let stabilization = proptest::option::of((0..3600u64).prop_map(Duration::from_secs));
    let tolerance = proptest::option::of(0.0..0.5f64);
    (stabilization, select, proptest::collection::vec(policy, 1..4), tolerance)
        .prop_map(|(stabilization, select, policies, tolerance)| Rules { stabilization, select, policies, tolerance })
}

fn specs(metrics: usize) -> impl Strategy<Value = Spec> {
    let target = (1..10_000_000i64, any::<bool>())
        .prop_map(|(target, average)| if average { Target::AverageValue(target) } else { Target::Value(target) });
    let behavior = proptest::option::of((rules(), rules()))
        .prop_map(|rules| rules.map(|(scale_up, scale_down)| Behavior { scale_up, scale_down }));
    (1..50i32, 0..200i32, proptest::collection::vec(target, metrics), behavior).prop_map(
        |(min_replicas, more, targets, behavior)| Spec {
            min_replicas,
            max_replicas: min_replicas + more,
            metrics: targets.into_iter().map(|target| Metric { name: "s0-x".into(), target }).collect(),
            behavior,
        },
    )
}

fn observations() -> impl Strategy<Value = Observed> {
    (0..300i32, 0..300i32, 0..300i32).prop_map(|(spec_replicas, status_replicas, ready_pods)| Observed {
        spec_replicas,
        status_replicas,
        ready_pods,
        pods: ready_pods.max(status_replicas),
    })
}

fn readings() -> impl Strategy<Value = Reading> {
    let failure = Failure { reason: "FailedGetExternalMetric", message: "down".into() };
    prop_oneof![3 => (0..i64::MAX).prop_map(Ok), 3 => (0..100_000_000i64).prop_map(Ok), 1 => Just(Err(failure))]
}

/// What some earlier passes of the same HPA left.
fn memory(spec: &Spec, history: &[(i32, i64)]) -> Memory {
    let mut memory = Memory::default();
    for (i, (replicas, value)) in history.iter().enumerate() {
        let now = start() - Duration::from_secs(20 * (history.len() - i) as u64);
        let observed =
            Observed { spec_replicas: *replicas, status_replicas: *replicas, ready_pods: *replicas, pods: *replicas };
        let readings = vec![Ok(*value); spec.metrics.len()];
        let decision = decide(spec, &Controls::default(), observed, &readings, &memory, now);
        memory = decision.memory;
        record_rescale(&mut memory, spec, *replicas, decision.desired, now);
    }
    memory
}

fn histories() -> impl Strategy<Value = Vec<(i32, i64)>> {
    proptest::collection::vec((1..250i32, 0..100_000_000i64), 0..20)
}

proptest! {
    #[test]
    fn replicas_stay_between_minimum_and_maximum_when_metrics_decide(
        spec in specs(2), observed in observations(), readings in proptest::collection::vec(readings(), 2), history in histories(),
    ) {
        let memory = memory(&spec, &history);
        let decision = decide(&spec, &Controls::default(), observed, &readings, &memory, start());
        if observed.spec_replicas == 0 {
            prop_assert_eq!(decision.desired, 0);
        } else {
            prop_assert!((spec.min_replicas..=spec.max_replicas).contains(&decision.desired));
        }
    }

    #[test]
    fn nothing_changes_within_the_tolerance(spec in specs(1), replicas in 1..250i32, share in -0.099..0.099f64) {
        let mut spec = spec;
        spec.min_replicas = 1;
        spec.max_replicas = 250;
        if let Some(behavior) = &mut spec.behavior {
            behavior.scale_up.tolerance = None;
            behavior.scale_down.tolerance = None;
        }
        let observed =
            Observed { spec_replicas: replicas, status_replicas: replicas, ready_pods: replicas, pods: replicas };
        let base = match &mut spec.metrics[0].target {
            Target::AverageValue(target) => {
                *target += 10_000;
                *target * i64::from(replicas)
            }
            Target::Value(target) => {
                *target += 10_000;
                *target
            }
            Target::Resource(_) => unreachable!("the specs here have External metrics"),
        };
        let usage = (base as f64 * (1.0 + share)) as i64;
        let decision = decide(&spec, &Controls::default(), observed, &[Ok(usage)], &Memory::default(), start());
        prop_assert_eq!(decision.desired, replicas);
    }

    #[test]
    fn more_load_never_means_fewer_replicas(
        spec in specs(1), replicas in 1..250i32, a in 0..100_000_000i64, b in 0..100_000_000i64, history in histories(),
    ) {
        let observed =
            Observed { spec_replicas: replicas, status_replicas: replicas, ready_pods: replicas, pods: replicas };
        let memory = memory(&spec, &history);
        let desired = |usage| decide(&spec, &Controls::default(), observed, &[Ok(usage)], &memory, start()).desired;
        prop_assert!(desired(a.min(b)) <= desired(a.max(b)));
    }

    #[test]
    fn a_failed_metric_never_lowers_the_replicas(
        spec in specs(2), observed in observations(), reading in readings(), history in histories(),
    ) {
        let failure = Failure { reason: "FailedGetExternalMetric", message: "down".into() };
        let memory = memory(&spec, &history);
        let readings = [Err(failure), reading];
        let decision = decide(&spec, &Controls::default(), observed, &readings, &memory, start());
        if needs_metrics(&spec, observed) {
            prop_assert!(decision.desired >= observed.spec_replicas);
        }
    }

    #[test]
    fn the_same_input_gives_the_same_decision(
        spec in specs(2), observed in observations(), readings in proptest::collection::vec(readings(), 2), history in histories(),
    ) {
        let run = || decide(&spec, &Controls::default(), observed, &readings, &memory(&spec, &history), start());
        prop_assert_eq!(run(), run());
    }
}
