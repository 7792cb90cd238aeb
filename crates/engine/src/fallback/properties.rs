//! Facts that hold whatever the fallback, and whatever fails.

use proptest::prelude::*;

use super::*;
use crate::hpa;

fn fallbacks() -> impl Strategy<Value = Fallback> {
    let behavior = prop_oneof![
        Just(Behavior::Static),
        Just(Behavior::CurrentReplicas),
        Just(Behavior::CurrentReplicasIfHigher),
        Just(Behavior::CurrentReplicasIfLower),
        Just(Behavior::ScalingModifiers),
    ];
    (0..5u32, 0..200i32, behavior).prop_map(|(failure_threshold, replicas, behavior)| Fallback {
        failure_threshold,
        replicas,
        behavior,
    })
}

fn targets() -> impl Strategy<Value = Target> {
    (1..10_000_000i64, any::<bool>())
        .prop_map(|(milli, average)| if average { Target::AverageValue(milli) } else { Target::Value(milli) })
}

fn workloads() -> impl Strategy<Value = Workload> {
    (proptest::option::of(0..200i32), proptest::option::of(0..200i32))
        .prop_map(|(replicas, ready_pods)| Workload { replicas, ready_pods })
}

fn failed() -> Outcome {
    Outcome::Failed { error: "down".into() }
}

proptest! {
    #[test]
    fn what_was_tolerated_is_an_error_and_never_a_value(
        fallback in fallbacks(), target in targets(), workload in workloads(), failures in 0..9u32,
    ) {
        let outcome = apply(Some(&fallback), Health { failures }, target, failed(), workload);
        if failures <= fallback.failure_threshold {
            prop_assert_eq!(outcome, failed());
        } else {
            let as_if_read = matches!(outcome, Outcome::Read { .. } | Outcome::Unknown);
            prop_assert!(!as_if_read);
        }
    }

    #[test]
    fn a_dead_source_is_never_told_as_zero_unless_zero_replicas_are_asked_for(
        fallback in fallbacks(), target in targets(), workload in workloads(), failures in 0..9u32,
    ) {
        let outcome = apply(Some(&fallback), Health { failures }, target, failed(), workload);
        if let (Outcome::Fallback { replicas, .. }, Ok(milli)) = (&outcome, outcome.served()) {
            prop_assert_eq!(milli == 0, *replicas == 0);
        }
    }

    #[test]
    fn the_hpa_makes_of_the_value_the_replicas_that_it_stands_for(
        replicas in 1..200i32, target in targets(), current in 1..200i32, ready in 1..200i32,
    ) {
        let fallback = Fallback { failure_threshold: 0, replicas, behavior: Behavior::Static };
        let workload = Workload { replicas: Some(current), ready_pods: Some(ready) };
        let value = apply(Some(&fallback), Health { failures: 1 }, target, failed(), workload).served().unwrap();
        let everything = hpa::Policy::Percent { value: 1_000_000, period: std::time::Duration::from_secs(15) };
        let rules = hpa::Rules {
            stabilization: Some(std::time::Duration::ZERO),
            select: hpa::Select::Max,
            policies: vec![everything],
            tolerance: Some(0.0),
        };
        let spec = hpa::Spec {
            min_replicas: 1,
            max_replicas: 1000,
            metrics: vec![hpa::Metric { name: "s0-x".into(), target: target.into() }],
            behavior: Some(hpa::Behavior { scale_up: rules.clone(), scale_down: rules }),
        };
        let observed =
            hpa::Observed { spec_replicas: current, status_replicas: current, ready_pods: ready, pods: ready };
        let now = jiff::Timestamp::UNIX_EPOCH;
        let decision =
            hpa::decide(&spec, &hpa::Controls::default(), observed, &[Ok(value)], &hpa::Memory::default(), now);
        match target {
            Target::AverageValue(_) => prop_assert_eq!(decision.desired, replicas),
            // Below one thousandth for each ready pod the value cannot be told exactly enough, and at exactly the
            // target the HPA keeps what there is.
            Target::Value(milli) if milli > i64::from(ready) && value != milli => {
                prop_assert!((replicas..=replicas + 1).contains(&decision.desired), "{}", decision.desired);
            }
            Target::Value(_) => {}
        }
    }

    #[test]
    fn what_is_said_to_be_needed_is_enough(
        fallback in fallbacks(), target in targets(), current in 0..200i32, ready in 1..200i32, failures in 0..9u32,
    ) {
        let health = Health { failures };
        let all = Workload { replicas: Some(current), ready_pods: Some(ready) };
        let known = match need(Some(&fallback), health, target, &failed()) {
            Need::Nothing => Workload::default(),
            Need::Replicas => Workload { ready_pods: None, ..all },
            Need::ReadyPods => all,
        };
        let outcome = |workload| apply(Some(&fallback), health, target, failed(), workload);
        prop_assert_eq!(outcome(known), outcome(all));
    }

    #[test]
    fn only_failures_in_a_row_are_counted(fetches in proptest::collection::vec(any::<bool>(), 0..30)) {
        let health = fetches.iter().fold(Health::default(), |health, succeeded| health.after(*succeeded));
        let in_a_row = fetches.iter().rev().take_while(|succeeded| !**succeeded).count();
        prop_assert_eq!(health.failures as usize, in_a_row);
    }
}
