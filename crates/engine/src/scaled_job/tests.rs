use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_760_000_000 + seconds).unwrap()
}

fn policy(strategy: Strategy, min: i32, max: i32) -> Policy {
    Policy { bounds: Bounds::new(Some(min), Some(max)), strategy, calculation: Calculation::Max }
}

fn metric(name: &str, outcome: Outcome, target: i64) -> Metric {
    Metric { state: TriggerState { metric: name.into(), outcome }, target: Target::AverageValue(target * 1000) }
}

fn queue(length: f64, target: i64) -> Vec<Metric> {
    vec![metric("s0-queue", Outcome::Read { value: length, active: length > 0.0 }, target)]
}

fn failed() -> Vec<Metric> {
    vec![metric("s1-queue", Outcome::Failed { error: "the broker is down".into() }, 1)]
}

fn counts(running: i64, pending: i64) -> Option<Counts> {
    Some(Counts { running, pending })
}

fn started(policy: &Policy, length: f64, target: i64, running: i64, pending: i64) -> i64 {
    decide(policy, &[queue(length, target)], counts(running, pending), at(0)).start
}

#[test]
fn the_worked_examples_come_out() {
    let custom = Strategy::choose("custom", Some(1), Some("0.5"));
    for (length, target, max, running, pending, strategy, jobs) in [
        (10.0, 1, 3, 0, 0, Strategy::Default, 3),
        (10.0, 1, 3, 1, 0, Strategy::Default, 2),
        (10.0, 2, 3, 0, 0, Strategy::Default, 3),
        (4.0, 5, 3, 0, 0, Strategy::Default, 1),
        (10.0, 5, 100, 0, 0, Strategy::Default, 2),
        (20.0, 1, 100, 10, 0, custom, 14),
        (3.0, 1, 10, 5, 2, Strategy::Accurate, 1),
        (20.0, 1, 20, 15, 10, Strategy::Accurate, 5),
        (4.0, 1, 10, 3, 0, Strategy::Eager, 4),
        (4.0, 1, 10, 7, 0, Strategy::Eager, 3),
        (6.0, 1, 10, 3, 0, Strategy::Eager, 6),
        (6.0, 1, 10, 3, 0, Strategy::Default, 3),
    ] {
        let policy = policy(strategy, 0, max);
        assert_eq!(started(&policy, length, target, running, pending), jobs, "{strategy:?} {length} {running}");
    }
}

#[test]
fn jobs_to_the_minimum_come_first_and_the_queue_after_them() {
    let policy = policy(Strategy::Default, 2, 10);
    assert_eq!(started(&policy, 0.0, 1, 0, 0), 2);
    assert_eq!(started(&policy, 50.0, 1, 1, 0), 1);
    assert_eq!(started(&policy, 50.0, 1, 2, 0), 8);
    assert_eq!(started(&policy, 3.0, 1, 2, 0), 3, "the minimum is not taken away from the queue");
}

#[test]
fn more_jobs_than_allowed_start_none() {
    for strategy in [Strategy::Default, Strategy::Accurate, Strategy::Eager] {
        assert_eq!(started(&policy(strategy, 0, 5), 50.0, 1, 9, 0), 0, "{strategy:?}");
    }
}

#[test]
fn nothing_starts_while_nothing_is_active() {
    let quiet = vec![metric("s0-queue", Outcome::Read { value: 7.0, active: false }, 1)];
    let decision = decide(&policy(Strategy::Default, 0, 5), &[quiet], counts(0, 0), at(0));
    assert_eq!((decision.start, decision.active, decision.last_active), (0, false, None));
    assert_eq!(decision.active_condition.reason, "ScalerNotActive");
    assert_eq!(decision.reasons.last(), Some(&Reason::JobsNotWanted));
}

#[test]
fn jobs_that_cannot_be_counted_are_not_started_anew() {
    let decision = decide(&policy(Strategy::Default, 0, 5), &[queue(5.0, 1)], None, at(0));
    assert_eq!((decision.start, decision.active, decision.last_active), (0, true, Some(at(0))));
    assert_eq!(decision.reasons.last(), Some(&Reason::JobsNotCounted));
}

#[test]
fn a_failing_trigger_does_not_stop_the_others_and_is_told() {
    let policy = policy(Strategy::Default, 0, 5);
    let partial = decide(&policy, &[queue(2.0, 1), failed()], counts(0, 0), at(0));
    assert_eq!((partial.start, partial.ready_condition.reason), (2, "PartialTriggerError"));
    assert_eq!(partial.ready_condition.status, Status::Unknown);
    let none = decide(&policy, &[queue(0.0, 1), failed()], counts(0, 0), at(0));
    assert_eq!((none.start, none.ready_condition.reason), (0, "TriggerError"));
    assert!(none.ready_condition.message.contains("s1-queue: the broker is down"));
    let fine = decide(&policy, &[queue(0.0, 1)], counts(0, 0), at(0));
    assert_eq!((fine.ready_condition.status, fine.ready_condition.reason), (Status::True, "ScaledJobReady"));
}

#[test]
fn triggers_are_put_together_as_asked() {
    let bounds = Bounds::new(None, None);
    let records = [
        Record::new(20.0, 1.0, true, bounds),
        Record::new(10.0, 2.0, true, bounds),
        Record::new(0.0, 2.0, true, bounds),
        Record::new(7.0, 4.0, false, bounds),
    ];
    let demand = |word| {
        let demand = combine(&records, Calculation::from_word(word), bounds);
        (demand.queue, demand.jobs, demand.active)
    };
    assert_eq!(demand("max"), (20, 20, true));
    assert_eq!(demand("anything"), (20, 20, true));
    assert_eq!(demand("sum"), (30, 25, true));
    assert_eq!(demand("avg"), (10, 9, true));
    assert_eq!(demand("min"), (0, 0, true));
    let zero_first = [records[2], records[0], records[1]];
    let demand = combine(&zero_first, Calculation::Min, bounds);
    assert_eq!((demand.queue, demand.jobs), (10, 5), "an empty queue gives way to the next one");
}

#[test]
fn an_active_trigger_with_an_empty_queue_counts_only_where_the_queue_does_not() {
    let bounds = Bounds::new(None, None);
    let records = [Record::new(0.0, 1.0, true, bounds)];
    assert!(!combine(&records, Calculation::Max, bounds).active);
    for calculation in [Calculation::Min, Calculation::Avg, Calculation::Sum] {
        assert!(combine(&records, calculation, bounds).active, "{calculation:?}");
    }
    assert!(combine(&[], Calculation::Max, Bounds::new(Some(1), None)).active, "a minimum keeps it active");
}

#[test]
fn a_trigger_with_several_metrics_counts_its_first_one_each_time() {
    let read = |value, active| Outcome::Read { value, active };
    let metrics = vec![metric("s0-a", read(6.0, true), 1), metric("s0-b", read(50.0, false), 3)];
    let policy = Policy { calculation: Calculation::Sum, ..policy(Strategy::Default, 0, 100) };
    // 6 / mean(1, 3), twice.
    assert_eq!(decide(&policy, &[metrics], counts(0, 0), at(0)).start, 6);
}

#[test]
fn a_target_in_all_asks_for_no_job() {
    let mut metrics = queue(5.0, 1);
    metrics[0].target = Target::Value(1000);
    assert_eq!(decide(&policy(Strategy::Default, 0, 5), &[metrics], counts(0, 0), at(0)).start, 0);
}

#[test]
fn bounds_leave_room_above_the_minimum() {
    let bounds = |min, max| {
        let bounds = Bounds::new(min, max);
        (bounds.minimum, bounds.room)
    };
    assert_eq!(bounds(Some(5), Some(3)), (3, 3), "a minimum above the maximum");
    assert_eq!(bounds(Some(3), Some(3)), (3, 0));
    assert_eq!(bounds(Some(-1), Some(-5)), (0, 0));
    assert_eq!(bounds(Some(i32::MIN), Some(i32::MAX)), (0, i64::from(i32::MAX)));
}

#[test]
fn nothing_overflows() {
    let huge = Demand { active: true, queue: i64::MAX, jobs: i64::MAX };
    for strategy in [
        Strategy::Default,
        Strategy::Accurate,
        Strategy::Eager,
        Strategy::Custom { deduction: i32::MIN, running_share: f64::NEG_INFINITY },
    ] {
        let wish = policy(strategy, 0, 5).wish(huge, Counts { running: i64::MAX, pending: i64::MIN });
        assert!(wish.limit >= 0);
    }
    assert_eq!(started(&policy(Strategy::Default, 0, 5), f64::MAX, 1, 0, 0), 5);
    assert_eq!(started(&policy(Strategy::Default, 0, 5), f64::NAN, 1, 0, 0), 0);
}

fn finished(name: &str, end: End, time: Option<i64>) -> Finished {
    Finished { name: name.to_owned(), end, time: time.map(at) }
}

#[test]
fn the_oldest_finished_jobs_go_first_failed_ones_too() {
    let jobs = [
        finished("a", End::Failed, Some(3)),
        finished("b", End::Failed, Some(1)),
        finished("c", End::Complete, Some(2)),
        finished("d", End::Failed, Some(2)),
        finished("e", End::Failed, None),
    ];
    assert_eq!(clean_up(&jobs, History::new(Some(1), Some(2))), ["e", "b"]);
    assert_eq!(clean_up(&jobs, History::new(Some(0), Some(0))), ["c", "e", "b", "d", "a"]);
    assert!(clean_up(&jobs, History::new(None, None)).is_empty());
}

#[test]
fn a_suspended_job_has_not_finished() {
    assert_eq!(end([("Suspended", "True"), ("Complete", "False")]), None);
    assert_eq!(end([("FailureTarget", "True"), ("Failed", "True")]), Some(End::Failed));
}

#[test]
fn labels_can_be_left_out_and_neither_name_nor_generation_can_be_overwritten() {
    let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let labels = map(&[
        ("team", "a"),
        ("argocd", "x"),
        ("app.kubernetes.io/part-of", "shop"),
        ("scaledjob.keda.sh/name", "another"),
    ]);
    let excluded = "argocd,scaledjob.keda.sh/name";
    let annotations =
        map(&[("scaledjob.keda.sh/job-excluded-labels", excluded), ("scaledjob.keda.sh/generation", "9")]);
    let metadata = metadata("worker", &labels, &annotations, 3, "1.0");
    assert_eq!(metadata.labels["team"], "a");
    assert_eq!(metadata.labels["app.kubernetes.io/part-of"], "shop");
    assert!(!metadata.labels.contains_key("argocd"));
    assert_eq!(metadata.labels["scaledjob.keda.sh/name"], "worker");
    assert_eq!(metadata.annotations["scaledjob.keda.sh/generation"], "3");
    assert_eq!((restart_policy(""), restart_policy("Never")), ("OnFailure", "Never"));
}

#[test]
fn the_reasons_tell_the_whole_argument() {
    let text = |policy: &Policy, length, running, pending| {
        let decision = decide(policy, &[queue(length, 2)], counts(running, pending), at(0));
        decision.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(
        text(&policy(Strategy::Default, 0, 5), 7.0, 1, 1),
        "s0-queue is active at 7; a queue of 7 asks for 4 jobs; 1 unfinished, 1 of them pending: 3 jobs started"
    );
    assert_eq!(
        text(&policy(Strategy::Default, 2, 5), 0.0, 1, 0),
        "s0-queue is quiet at 0; 1 job of at least 2: 1 job started"
    );
}
