use super::*;

const TARGET: Target = Target::AverageValue(5000);

fn fallback(behavior: Behavior) -> Fallback {
    Fallback { failure_threshold: 3, replicas: 6, behavior }
}

fn failed() -> Outcome {
    Outcome::Failed { error: "the broker is down".into() }
}

fn failing(failures: u32) -> Health {
    Health { failures }
}

fn at(replicas: i32) -> Workload {
    Workload { replicas: Some(replicas), ready_pods: None }
}

fn with_ready(replicas: i32, ready: i32) -> Workload {
    Workload { replicas: Some(replicas), ready_pods: Some(ready) }
}

/// What a trigger that has failed too often is worth: replicas and value.
fn stand_in(behavior: Behavior, target: Target, workload: Workload) -> Option<(i32, Option<i64>)> {
    match apply(Some(&fallback(behavior)), failing(4), target, failed(), workload) {
        Outcome::Fallback { replicas, milli, active: true, failures: 4, .. } => Some((replicas, milli)),
        _ => None,
    }
}

#[test]
fn the_failure_after_the_tolerated_ones_brings_the_fallback() {
    let fallback = fallback(Behavior::Static);
    let mut health = Health::default();
    for failure in 1..=3 {
        health = health.after(false);
        let outcome = apply(Some(&fallback), health, TARGET, failed(), at(2));
        assert_eq!(outcome, failed(), "failure {failure}");
    }
    health = health.after(false);
    let outcome = apply(Some(&fallback), health, TARGET, failed(), at(2));
    assert_eq!(outcome.served(), Ok(30_000));
    assert!(outcome.is_active());
}

#[test]
fn one_success_forgets_all_failures() {
    let health = failing(17).after(true);
    assert_eq!((health, health.status(), health.number_of_failures()), (Health::default(), "Happy", 0));
    assert_eq!(health.after(false).status(), "Failing");
}

#[test]
fn a_threshold_of_none_tolerates_no_failure() {
    let fallback = Fallback { failure_threshold: 0, ..fallback(Behavior::Static) };
    let outcome = apply(Some(&fallback), failing(1), TARGET, failed(), at(2));
    assert_eq!(outcome.served(), Ok(30_000));
}

#[test]
fn without_a_fallback_an_error_stays_an_error() {
    assert_eq!(apply(None, failing(100), TARGET, failed(), at(2)), failed());
}

#[test]
fn a_value_that_was_read_is_never_replaced() {
    let read = Outcome::Read { value: 1.0, active: false };
    for outcome in [read, Outcome::Unknown] {
        let fallback = fallback(Behavior::Static);
        assert_eq!(apply(Some(&fallback), failing(9), TARGET, outcome.clone(), at(2)), outcome);
    }
}

#[test]
fn each_behavior_has_its_replicas() {
    for (behavior, at_2, at_9) in [
        (Behavior::Static, 6, 6),
        (Behavior::CurrentReplicas, 2, 9),
        (Behavior::CurrentReplicasIfHigher, 6, 9),
        (Behavior::CurrentReplicasIfLower, 2, 6),
    ] {
        assert_eq!(stand_in(behavior, TARGET, at(2)), Some((at_2, Some(5000 * i64::from(at_2)))), "{behavior:?}");
        assert_eq!(stand_in(behavior, TARGET, at(9)), Some((at_9, Some(5000 * i64::from(at_9)))), "{behavior:?}");
    }
}

#[test]
fn the_present_replicas_must_be_known_where_they_count() {
    let unknown = Workload::default();
    assert_eq!(stand_in(Behavior::Static, TARGET, unknown), Some((6, Some(30_000))));
    for behavior in [Behavior::CurrentReplicas, Behavior::CurrentReplicasIfHigher, Behavior::CurrentReplicasIfLower] {
        assert_eq!(apply(Some(&fallback(behavior)), failing(4), TARGET, failed(), unknown), failed());
    }
}

#[test]
fn a_target_in_all_is_shared_out_among_the_ready_pods() {
    let target = Target::Value(5000);
    assert_eq!(stand_in(Behavior::Static, target, with_ready(3, 3)), Some((6, Some(10_000))));
    assert_eq!(stand_in(Behavior::Static, target, with_ready(3, 4)), Some((6, Some(7500))));
    let tiny = stand_in(Behavior::Static, Target::Value(1), with_ready(10, 10));
    assert_eq!(tiny, Some((6, Some(1))), "what is left of a tiny target still asks for a replica");
}

#[test]
fn a_target_in_all_activates_from_zero_without_any_pod() {
    for workload in [at(0), with_ready(0, 0)] {
        assert_eq!(stand_in(Behavior::Static, Target::Value(5000), workload), Some((6, Some(30_000))));
    }
}

#[test]
fn while_no_pod_is_ready_the_trigger_is_active_and_the_hpa_gets_no_value() {
    for workload in [with_ready(3, 0), at(3)] {
        let outcome = apply(Some(&fallback(Behavior::Static)), failing(4), Target::Value(5000), failed(), workload);
        assert!(outcome.is_active() && outcome.served().is_err(), "{workload:?}");
    }
}

#[test]
fn the_formula_sees_nil_and_nothing_else_sees_a_value() {
    let outcome = apply(Some(&fallback(Behavior::ScalingModifiers)), failing(4), TARGET, failed(), at(2));
    assert_eq!(outcome, Outcome::Nil { failures: 4, error: "the broker is down".into() });
    assert!(outcome.served().is_err() && !outcome.is_active());
}

#[test]
fn pods_and_replicas_are_asked_for_only_where_they_count() {
    let need =
        |behavior, failures, target, outcome| need(Some(&fallback(behavior)), failing(failures), target, &outcome);
    let value = Target::Value(5000);
    assert_eq!(need(Behavior::Static, 4, TARGET, failed()), Need::Nothing);
    assert_eq!(need(Behavior::CurrentReplicas, 4, TARGET, failed()), Need::Replicas);
    assert_eq!(need(Behavior::Static, 4, value, failed()), Need::ReadyPods);
    assert_eq!(need(Behavior::Static, 3, value, failed()), Need::Nothing, "tolerated");
    assert_eq!(need(Behavior::ScalingModifiers, 4, value, failed()), Need::Nothing);
    assert_eq!(need(Behavior::Static, 4, value, Outcome::Read { value: 1.0, active: true }), Need::Nothing);
    assert_eq!(super::need(None, failing(4), value, &failed()), Need::Nothing);
}

#[test]
fn a_negative_number_makes_the_section_void() {
    assert_eq!(Fallback::new(-1, 6, "static"), None);
    assert_eq!(Fallback::new(3, -1, "static"), None);
    let empty = Fallback::new(0, 0, "").unwrap();
    assert_eq!((empty.failure_threshold, empty.replicas, empty.behavior), (0, 0, Behavior::Static));
}

#[test]
fn behaviors_are_known_by_their_words() {
    for behavior in [
        Behavior::Static,
        Behavior::CurrentReplicas,
        Behavior::CurrentReplicasIfHigher,
        Behavior::CurrentReplicasIfLower,
        Behavior::ScalingModifiers,
    ] {
        assert_eq!(Behavior::from_word(behavior.as_str()), behavior);
    }
    assert_eq!(Behavior::from_word("else"), Behavior::Static);
}

#[test]
fn the_condition_names_the_metrics_that_the_fallback_stands_in_for() {
    let health = [("s0-queue", failing(4)), ("s1-lag", failing(3))];
    let verdict = condition(Some(&fallback(Behavior::Static)), health);
    assert_eq!((verdict.status, verdict.reason), (Status::True, "FallbackExists"));
    assert!(verdict.message.contains("s0-queue (4 failures in a row)") && !verdict.message.contains("s1-lag"));
    for (fallback, health) in [(Some(fallback(Behavior::Static)), failing(3)), (None, failing(9))] {
        let verdict = condition(fallback.as_ref(), [("s0-queue", health)]);
        assert_eq!((verdict.status, verdict.reason), (Status::False, "NoFallbackFound"));
    }
}

#[test]
fn only_a_change_is_worth_an_event() {
    assert_eq!(transition(Status::False, Status::True), Some(Transition::Activated));
    assert_eq!(transition(Status::Unknown, Status::True), Some(Transition::Activated));
    assert_eq!(transition(Status::True, Status::False), Some(Transition::Deactivated));
    assert_eq!(transition(Status::True, Status::True), None);
    assert_eq!(transition(Status::Unknown, Status::False), None);
}

#[test]
fn a_status_written_by_someone_else_is_understood() {
    assert_eq!(Health::from_status(5), failing(5));
    assert_eq!(Health::from_status(-5), Health::default());
    assert_eq!(failing(u32::MAX).after(false).number_of_failures(), i32::MAX);
}
