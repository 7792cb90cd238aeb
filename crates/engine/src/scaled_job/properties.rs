//! Facts that hold whatever the queues.

use proptest::prelude::*;
use proptest::strategy::Strategy;

use super::*;

fn strategies() -> impl Strategy<Value = super::Strategy> {
    prop_oneof![
        Just(super::Strategy::Default),
        Just(super::Strategy::Accurate),
        Just(super::Strategy::Eager),
        (-5..5i32, 0.0..2.0f64)
            .prop_map(|(deduction, running_share)| super::Strategy::Custom { deduction, running_share }),
    ]
}

fn policies() -> impl Strategy<Value = Policy> {
    let calculation =
        prop_oneof![Just(Calculation::Max), Just(Calculation::Min), Just(Calculation::Avg), Just(Calculation::Sum)];
    (strategies(), proptest::option::of(-3..20i32), proptest::option::of(-3..60i32), calculation)
        .prop_map(|(strategy, min, max, calculation)| Policy { bounds: Bounds::new(min, max), strategy, calculation })
}

fn trigger(value: f64, active: bool) -> Vec<Metric> {
    let state = TriggerState { metric: "s0-x".into(), outcome: Outcome::Read { value, active } };
    vec![Metric { state, target: Target::AverageValue(2000) }]
}

fn triggers() -> impl Strategy<Value = Vec<Vec<Metric>>> {
    proptest::collection::vec((0.0..300.0f64, any::<bool>()).prop_map(|(value, active)| trigger(value, active)), 0..4)
}

proptest! {
    #[test]
    fn jobs_never_exceed_the_bounds(
        policy in policies(), triggers in triggers(), running in 0..120i64, pending in 0..20i64,
    ) {
        let pending = pending.min(running);
        let decision = decide(&policy, &triggers, Some(Counts { running, pending }), Timestamp::UNIX_EPOCH);
        let allowed = policy.bounds.minimum + policy.bounds.room;
        prop_assert!(decision.start >= 0);
        // The custom strategy leaves it to the user what running jobs take away.
        if !matches!(policy.strategy, super::Strategy::Custom { .. }) {
            prop_assert!(running + decision.start <= allowed.max(running));
        }
        prop_assert!(decision.start <= policy.bounds.room.max(policy.bounds.minimum));
    }

    #[test]
    fn nothing_starts_that_no_trigger_and_no_minimum_asks_for(
        policy in policies(), triggers in triggers(), running in 0..120i64,
    ) {
        let counts = Counts { running, pending: 0 };
        let decision = decide(&policy, &triggers, Some(counts), Timestamp::UNIX_EPOCH);
        if decision.start > 0 && running >= policy.bounds.minimum {
            let mut all = triggers.iter().flatten();
            prop_assert!(all.any(|metric| metric.state.outcome.is_active()));
        }
    }

    #[test]
    fn a_longer_queue_never_starts_fewer_jobs(
        policy in policies(), queue in 0.0..300.0f64, more in 0.0..300.0f64, running in 0..120i64, pending in 0..20i64,
    ) {
        let counts = Some(Counts { running, pending: pending.min(running) });
        let start = |queue| decide(&policy, &[trigger(queue, true)], counts, Timestamp::UNIX_EPOCH).start;
        prop_assert!(start(queue) <= start(queue + more));
    }
}
