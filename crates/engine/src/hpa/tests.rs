use std::time::Duration;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_760_000_000 + seconds).unwrap()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn spec(target: Target, min: i32, max: i32) -> Spec {
    Spec {
        min_replicas: min,
        max_replicas: max,
        metrics: vec![Metric { name: "s0-queue".into(), target }],
        behavior: None,
    }
}

fn per_replica(target: i64) -> Spec {
    spec(Target::AverageValue(target * 1000), 1, 100)
}

fn running(replicas: i32) -> Observed {
    Observed { spec_replicas: replicas, status_replicas: replicas, ready_pods: replicas, pods: replicas }
}

fn units(value: i64) -> Vec<Reading> {
    vec![Ok(value * 1000)]
}

fn failed() -> Reading {
    Err(Failure { reason: "FailedGetExternalMetric", message: "the broker is down".into() })
}

fn once(spec: &Spec, observed: Observed, readings: &[Reading]) -> Decision {
    decide(spec, &Controls::default(), observed, readings, &Memory::default(), at(0))
}

/// The controller over a workload that follows at once: one pass each 15 s with these values, replicas after each.
fn passes(spec: &Spec, from: i32, values: impl IntoIterator<Item = i64>) -> Vec<i32> {
    let mut memory = Memory::default();
    let mut replicas = from;
    let run = values.into_iter().enumerate().map(|(i, value)| {
        let now = at(15 * i as i64);
        let decision = decide(spec, &Controls::default(), running(replicas), &units(value), &memory, now);
        memory = decision.memory;
        record_rescale(&mut memory, spec, replicas, decision.desired, now);
        replicas = decision.desired;
        replicas
    });
    run.collect()
}

fn verdict(verdict: &Option<Verdict>) -> (Status, &'static str) {
    verdict.as_ref().map(|verdict| (verdict.status, verdict.reason)).unwrap()
}

#[test]
fn a_queue_is_divided_by_the_target_per_replica() {
    for current in 1..=3 {
        assert_eq!(once(&per_replica(5), running(current), &units(20)).desired, 4);
    }
}

#[test]
fn inside_the_tolerance_nothing_changes() {
    let decision = once(&per_replica(5), running(4), &units(21));
    assert_eq!(decision.desired, 4);
    assert!(decision.reasons.contains(&Reason::HpaKeeps { replicas: 4 }));
    assert_eq!(once(&per_replica(5), running(4), &units(23)).desired, 5);
}

#[test]
fn a_value_target_multiplies_the_ready_pods() {
    let value = spec(Target::Value(5000), 1, 100);
    let observed = Observed { spec_replicas: 10, status_replicas: 10, ready_pods: 3, pods: 10 };
    assert_eq!(once(&value, observed, &units(20)).desired, 12);
    assert_eq!(once(&value, Observed { spec_replicas: 3, ..observed }, &units(10)).desired, 6);
    assert_eq!(once(&value, observed, &units(5)).desired, 10, "within the tolerance the replicas stay, ready or not");
}

#[test]
fn a_value_target_needs_pods() {
    let observed = Observed { spec_replicas: 3, status_replicas: 3, ready_pods: 0, pods: 0 };
    let decision = once(&spec(Target::Value(5000), 1, 100), observed, &units(20));
    assert_eq!(decision.desired, 3);
    assert_eq!(verdict(&decision.scaling_active), (Status::False, "FailedGetExternalMetric"));
    assert!(decision.failure.is_some());
}

#[test]
fn pods_that_are_not_counted_yet_do_not_matter_per_replica() {
    let observed = Observed { spec_replicas: 1, status_replicas: 0, ready_pods: 0, pods: 0 };
    let decision = once(&per_replica(5), observed, &units(20));
    assert_eq!(decision.desired, 4);
    assert_eq!(decision.metrics, [Some(Current::AverageValue(20_000))]);
    assert_eq!(once(&per_replica(5), observed, &units(0)).desired, 1);
}

#[test]
fn a_fallback_of_six_replicas_gives_six_replicas() {
    assert_eq!(passes(&per_replica(5), 3, [30]), [6]);
    assert_eq!(once(&spec(Target::Value(5000), 1, 100), running(3), &units(10)).desired, 6);
}

#[test]
fn without_behavior_replicas_at_most_double_in_one_pass() {
    assert_eq!(passes(&per_replica(1), 1, [50; 6]), [4, 8, 16, 32, 50, 50]);
    let decision = once(&per_replica(1), running(1), &units(50));
    assert_eq!(verdict(&decision.scaling_limited), (Status::True, "ScaleUpLimit"));
}

#[test]
fn without_behavior_a_lower_recommendation_waits_for_five_minutes() {
    // Ten replicas are wanted once, then one: recommendations up to and including 300 s old hold.
    let values = [10].into_iter().chain([1; 30]);
    let replicas = passes(&per_replica(1), 10, values);
    assert_eq!(replicas.iter().filter(|count| **count == 10).count(), 21);
    assert_eq!(replicas[21..], [1; 10]);
}

#[test]
fn stabilization_downwards_is_told() {
    let decision = once(&per_replica(5), running(10), &units(5));
    assert_eq!(decision.desired, 10);
    assert_eq!(verdict(&decision.able_to_scale), (Status::True, "ScaleDownStabilized"));
    assert!(decision.reasons.contains(&Reason::HpaScaleDownStabilized { wanted: 1, to: 10, window: seconds(300) }));
}

#[test]
fn the_bounds_cut_what_the_metrics_ask_for() {
    let bounded = spec(Target::AverageValue(5000), 2, 6);
    let decision = once(&bounded, running(4), &units(500));
    assert_eq!((decision.desired, verdict(&decision.scaling_limited)), (6, (Status::True, "TooManyReplicas")));
    let controls = Controls { downscale_stabilization: Duration::ZERO, ..Controls::default() };
    let memory = decide(&bounded, &controls, running(4), &units(20), &Memory::default(), at(0)).memory;
    let decision = decide(&bounded, &controls, running(4), &units(0), &memory, at(15));
    assert_eq!((decision.desired, verdict(&decision.scaling_limited)), (2, (Status::True, "TooFewReplicas")));
}

#[test]
fn at_zero_the_hpa_asks_for_nothing_and_does_nothing() {
    let decision = once(&per_replica(5), running(0), &[]);
    assert!(!needs_metrics(&per_replica(5), running(0)));
    assert_eq!((decision.desired, verdict(&decision.scaling_active)), (0, (Status::False, "ScalingDisabled")));
    assert!(decision.failure.is_none());
}

#[test]
fn outside_the_bounds_the_nearer_one_is_taken_without_metrics() {
    let bounded = spec(Target::AverageValue(5000), 3, 6);
    for (current, desired) in [(1, 3), (2, 3), (7, 6), (60, 6)] {
        assert!(!needs_metrics(&bounded, running(current)));
        assert_eq!(once(&bounded, running(current), &[failed()]).desired, desired);
    }
    assert!(needs_metrics(&bounded, running(3)) && needs_metrics(&bounded, running(6)));
}

fn two_metrics() -> Spec {
    let metric = |name: &str| Metric { name: name.into(), target: Target::AverageValue(1000) };
    Spec { min_replicas: 1, max_replicas: 100, metrics: vec![metric("s0-a"), metric("s1-b")], behavior: None }
}

#[test]
fn the_largest_proposal_wins() {
    let decision = once(&two_metrics(), running(4), &[Ok(3000), Ok(7000)]);
    assert_eq!(decision.desired, 7);
    assert!(decision.scaling_active.unwrap().message.contains("s1-b"));
}

#[test]
fn a_failing_metric_allows_more_replicas_but_not_fewer() {
    let up = once(&two_metrics(), running(4), &[failed(), Ok(7000)]);
    assert_eq!((up.desired, verdict(&up.scaling_active)), (7, (Status::True, "ValidMetricFound")));
    assert_eq!(up.metrics, [None, Some(Current::AverageValue(1750))]);
    let down = once(&two_metrics(), running(4), &[failed(), Ok(1000)]);
    assert_eq!((down.desired, verdict(&down.scaling_active)), (4, (Status::False, "FailedGetExternalMetric")));
    assert_eq!(down.failure.unwrap().message.as_ref(), "the broker is down");
    let none = once(&two_metrics(), running(4), &[failed(), failed()]);
    assert_eq!(none.desired, 4);
    assert!(none.reasons.contains(&Reason::HpaNoMetric));
}

#[test]
fn a_failed_pass_is_no_recommendation() {
    let controls = Controls::default();
    let memory = decide(&per_replica(1), &controls, running(2), &units(2), &Memory::default(), at(0)).memory;
    assert_eq!(decide(&per_replica(1), &controls, running(2), &[failed()], &memory, at(15)).memory, memory);
}

#[test]
fn a_negative_sum_counts_as_an_overflow() {
    assert_eq!(once(&spec(Target::AverageValue(1000), 1, 4), running(2), &[Ok(-1)]).desired, 4);
}

#[test]
fn a_sum_beyond_all_replicas_is_capped() {
    assert_eq!(once(&spec(Target::AverageValue(1), 1, 4), running(2), &[Ok(i64::MAX)]).desired, 4);
}

fn with_behavior(spec: Spec, change: impl FnOnce(&mut Behavior)) -> Spec {
    let mut behavior = Behavior::default();
    change(&mut behavior);
    Spec { behavior: Some(behavior), ..spec }
}

#[test]
fn the_default_behavior_adds_four_or_doubles_each_period() {
    // Events count while they are younger than the period, so the next pass after 15 s has its whole allowance again.
    let spec = with_behavior(per_replica(1), |_| {});
    assert_eq!(passes(&spec, 1, [50; 5]), [5, 10, 20, 40, 50]);
}

#[test]
fn the_default_behavior_goes_down_at_once_after_five_minutes() {
    let spec = with_behavior(per_replica(1), |_| {});
    let replicas = passes(&spec, 10, [10].into_iter().chain([1; 30]));
    // A recommendation exactly as old as the window does not count any more.
    assert_eq!(replicas.iter().filter(|count| **count == 10).count(), 20);
    assert_eq!(replicas[20..], [1; 11]);
}

#[test]
fn a_pods_policy_limits_the_change_within_its_period() {
    let spec = with_behavior(per_replica(1), |behavior| {
        behavior.scale_up.policies = vec![Policy::Pods { value: 2, period: seconds(60) }];
    });
    assert_eq!(passes(&spec, 1, [50; 9]), [3, 3, 3, 3, 5, 5, 5, 5, 7]);
}

#[test]
fn a_percent_policy_limits_the_fall() {
    let spec = with_behavior(per_replica(1), |behavior| {
        behavior.scale_down.stabilization = Some(Duration::ZERO);
        behavior.scale_down.policies = vec![Policy::Percent { value: 10, period: seconds(15) }];
    });
    assert_eq!(passes(&spec, 80, [1; 4]), [72, 64, 57, 51]);
    let decision = once(&spec, running(80), &units(1));
    assert_eq!(verdict(&decision.scaling_limited), (Status::True, "ScaleDownLimit"));
}

#[test]
fn the_select_policy_takes_the_larger_or_the_smaller_change() {
    let policies =
        vec![Policy::Pods { value: 4, period: seconds(15) }, Policy::Percent { value: 10, period: seconds(15) }];
    for (select, up, down) in [(Select::Max, 14, 6), (Select::Min, 11, 9), (Select::Disabled, 10, 10)] {
        let spec = with_behavior(per_replica(1), |behavior| {
            let rules =
                Rules { stabilization: Some(Duration::ZERO), select, policies: policies.clone(), tolerance: None };
            *behavior = Behavior { scale_up: rules.clone(), scale_down: rules };
        });
        assert_eq!(once(&spec, running(10), &units(90)).desired, up, "{select:?}");
        assert_eq!(once(&spec, running(10), &units(1)).desired, down, "{select:?}");
    }
}

#[test]
fn disabled_scaling_does_not_bend_the_bounds() {
    let spec = with_behavior(spec(Target::AverageValue(1000), 3, 6), |behavior| {
        behavior.scale_up.select = Select::Disabled;
        behavior.scale_down.select = Select::Disabled;
    });
    assert_eq!(once(&spec, running(1), &[]).desired, 3);
    assert_eq!(once(&spec, running(9), &[]).desired, 6);
}

#[test]
fn a_window_upwards_waits_for_the_lowest_recent_recommendation() {
    let spec = with_behavior(per_replica(1), |behavior| behavior.scale_up.stabilization = Some(seconds(60)));
    assert_eq!(passes(&spec, 1, [1, 4, 4, 4, 4, 4]), [1, 1, 1, 1, 4, 4]);
    let memory = once(&spec, running(1), &units(1)).memory;
    let decision = decide(&spec, &Controls::default(), running(1), &units(4), &memory, at(15));
    assert_eq!(verdict(&decision.able_to_scale), (Status::True, "ScaleUpStabilized"));
}

#[test]
fn each_direction_may_have_its_own_tolerance() {
    let spec = with_behavior(per_replica(10), |behavior| {
        behavior.scale_up.tolerance = Some(0.0);
        behavior.scale_down.tolerance = Some(0.5);
        behavior.scale_down.stabilization = Some(Duration::ZERO);
    });
    assert_eq!(once(&spec, running(10), &units(101)).desired, 11);
    assert_eq!(once(&spec, running(10), &units(50)).desired, 10);
    assert_eq!(once(&spec, running(10), &units(49)).desired, 5);
}

#[test]
fn rescales_without_behavior_are_not_remembered() {
    let mut memory = Memory::default();
    record_rescale(&mut memory, &per_replica(1), 1, 5, at(0));
    assert_eq!(memory, Memory::default());
}

#[test]
fn a_change_older_than_its_own_periods_still_counts_for_the_other_direction() {
    let spec = with_behavior(per_replica(1), |behavior| {
        behavior.scale_up.policies = vec![Policy::Pods { value: 2, period: seconds(60) }];
    });
    // Two falls within 15 s, and a third one that takes the place of only one of them.
    let mut memory = Memory::default();
    for (from, to, now) in [(20, 18, 0), (18, 17, 10), (17, 16, 30)] {
        record_rescale(&mut memory, &spec, from, to, at(now));
    }
    let desired = |now| decide(&spec, &Controls::default(), running(16), &units(90), &memory, at(now)).desired;
    assert_eq!(desired(31), 16 + 3 + 2);
    assert_eq!(desired(61), 16 + 1 + 2);
}

#[test]
fn the_memory_does_not_grow_without_end() {
    let spec = with_behavior(per_replica(1), |_| {});
    let mut memory = Memory::default();
    for i in 0..10_000 {
        let (now, value) = (at(15 * i), 1 + i % 7);
        let decision = decide(&spec, &Controls::default(), running(3), &units(value), &memory, now);
        memory = decision.memory;
        record_rescale(&mut memory, &spec, 3, decision.desired, now);
    }
    let size = memory.recommendations.len() + memory.scale_up_events.len() + memory.scale_down_events.len();
    assert!(size < 32, "{size}");
}

#[test]
fn the_reasons_tell_the_whole_argument() {
    let decision = once(&per_replica(5), running(2), &units(60));
    let text: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "s0-queue is 60 for a target of 5 per replica, which asks for 12 replicas",
            "4 instead of 12 replicas: no faster scale-up is allowed",
            "scaled by the HPA: 2 to 4 replicas",
        ]
    );
}

#[test]
fn an_hpa_at_zero_is_healthy_and_one_without_metrics_is_not() {
    let health = |status, reason, message| {
        let health = hpa_health(status, reason, message);
        (health.status, health.reason)
    };
    assert_eq!(health(Status::True, "ValidMetricFound", ""), (Status::True, "HPAActive".to_owned()));
    assert_eq!(health(Status::False, "ScalingDisabled", "at 0"), (Status::True, "ScalingDisabled".to_owned()));
    assert_eq!(health(Status::False, "", ""), (Status::False, "HPAMetricsUnavailable".to_owned()));
    assert_eq!(health(Status::Unknown, "Odd", ""), (Status::False, "Odd".to_owned()));
}
