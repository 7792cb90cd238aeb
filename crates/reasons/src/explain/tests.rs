//! What is wrong in situations that a sandbox does not come into by itself.

use super::*;
use crate::report::{Author, Change, FallbackSeen, Hpa, Metadata, Target, Trouble, Unchanged};

const NOW: &str = "2026-01-05T08:10:00Z";

fn at(time: &str) -> Timestamp {
    format!("2026-01-05T{time}Z").parse().unwrap()
}

fn condition(kind: &str, status: &str, reason: &str) -> Condition {
    Condition { kind: kind.to_owned(), status: status.to_owned(), reason: reason.to_owned(), message: "m".to_owned() }
}

/// Two replicas by one trigger, all well.
fn well() -> Report {
    let trigger = Trigger {
        kind: "rabbitmq".to_owned(),
        metric: "s0-orders".to_owned(),
        value: Some(8.0),
        target_milli: 5000,
        per_replica: true,
        active: Some(true),
        wants: Some(2),
        time: Some(at("08:09:58")),
        unchanged: Some(Unchanged { since: at("08:09:58"), reads: 1 }),
        ..Trigger::default()
    };
    let hpa = Hpa {
        name: "keda-hpa-orders".to_owned(),
        min_replicas: 1,
        max_replicas: 10,
        current: Some(2),
        desired: Some(2),
        conditions: vec![
            condition("AbleToScale", "True", "ReadyForNewScale"),
            condition("ScalingActive", "True", "ValidMetricFound"),
        ],
        ..Hpa::default()
    };
    Report {
        metadata: Metadata { namespace: "shop".to_owned(), name: "orders".to_owned(), uid: "1".to_owned() },
        time: NOW.parse().unwrap(),
        target: Target { kind: "Deployment".to_owned(), name: "orders".to_owned() },
        replicas: Some(2),
        desired: Some(2),
        max_replicas: 10,
        ready: Some(condition("Ready", "True", "ScaledObjectReady")),
        active: Some(true),
        triggers: vec![trigger],
        reasons: vec![Step { rule: "LeftToHpa".to_owned(), ..Step::default() }],
        next_poll: Some(at("08:10:20")),
        detail: Some(Detail {
            observed_since: at("07:00:00"),
            polling_interval_seconds: 30,
            hpa_name: Some("keda-hpa-orders".to_owned()),
            hpa: Some(hpa),
            last_query: Some(at("08:09:50")),
            ..Detail::default()
        }),
        ..Report::default()
    }
}

/// The problems of a report, each with its remedy's first words.
fn problems(change: impl FnOnce(&mut Report, &mut Workload)) -> Vec<String> {
    let (mut report, mut workload) = (well(), Workload::default());
    change(&mut report, &mut workload);
    explain(&report, &workload).problems.into_iter().map(|problem| problem.text).collect()
}

fn detail(report: &mut Report) -> &mut Detail {
    report.detail.as_mut().unwrap()
}

#[test]
fn all_is_well() {
    assert_eq!(problems(|_, _| {}), [""; 0]);
}

#[test]
fn the_three_questions_are_answered() {
    let checks = |change: &dyn Fn(&mut Report)| {
        let mut report = well();
        change(&mut report);
        explain(&report, &Workload::default()).checks
    };
    let firing = "Is the scaler firing? Yes: 1 of 1 values read, the last 2 s ago, and the object is active";
    let arriving = "Are the metrics arriving? Yes, at the HPA keda-hpa-orders: it asked 10 s ago";
    let on_time =
        "Is the control loop on time? Yes: the last poll began 0.0 s after it was due, the next is due in 20 s";
    assert_eq!(checks(&|_| {}), [firing, arriving, on_time]);
    let ill = checks(&|report| {
        report.triggers[0].value = None;
        report.active = Some(false);
        report.next_poll = Some(at("08:09:30"));
        detail(report).hpa.as_mut().unwrap().conditions[1] =
            condition("ScalingActive", "False", "FailedGetExternalMetric");
    });
    let firing = "Is the scaler firing? No: 0 of 1 values read, the last 2 s ago, and nothing is active";
    let arriving = "Are the metrics arriving? No: the HPA keda-hpa-orders says FailedGetExternalMetric";
    assert_eq!(ill, [firing, arriving, "Is the control loop on time? No: a poll is due for 30 s"]);
    assert_eq!(checks(&|report| report.paused = true), [""; 0]);
    let at_zero = checks(&|report| report.replicas = Some(0));
    assert_eq!(
        at_zero[1],
        "Are the metrics arriving? The HPA keda-hpa-orders asks for nothing while there are 0 replicas"
    );
}

#[test]
fn a_loop_that_is_late_is_said_first() {
    let told = problems(|report, _| report.next_poll = Some(at("08:08:30")));
    assert_eq!(told, ["The control loop is late: a poll was due 1 min 30 s ago and has not begun"]);
    let told = problems(|report, _| detail(report).late_seconds = Some(12.4));
    assert_eq!(told, ["The control loop was late: the last poll began 12 s after it was due"]);
    assert_eq!(problems(|report, _| report.next_poll = Some(at("08:09:58"))), [""; 0], "it may wait its turn");
}

#[test]
fn an_hpa_that_is_not_there_or_cannot_scale_is_said() {
    let told = problems(|report, _| detail(report).hpa = None);
    assert_eq!(told, ["The object has no HPA, so nothing scales it beyond its minimum"]);
    let new = |report: &mut Report| {
        detail(report).hpa = None;
        detail(report).observed_since = at("08:09:50");
    };
    assert_eq!(problems(|report, _| new(report)), [""; 0], "it is about to be made");
    let told = problems(|report, _| {
        detail(report).hpa.as_mut().unwrap().conditions[0] = condition("AbleToScale", "False", "FailedUpdateScale");
    });
    assert_eq!(told, ["The HPA keda-hpa-orders cannot scale (FailedUpdateScale): m"]);
    let told = problems(|report, _| {
        detail(report).hpa.as_mut().unwrap().conditions[1] = condition("ScalingActive", "False", "AmbiguousSelector");
    });
    assert_eq!(told, ["The HPA keda-hpa-orders cannot tell which pods are the workload's (AmbiguousSelector): m"]);
}

#[test]
fn values_that_nobody_asks_for_are_said_once_there_was_time_enough() {
    let told = problems(|report, _| detail(report).last_query = Some(at("08:00:00")));
    assert_eq!(told, ["Nobody has asked the operator for a value of the HPA keda-hpa-orders for 10 min"]);
    let told = problems(|report, _| detail(report).last_query = None);
    let expected = "Nobody has asked the operator for a value of the HPA keda-hpa-orders since the operator began to watch, \
                    1 h 10 min";
    assert_eq!(told, [expected]);
    let at_zero = |report: &mut Report| {
        report.replicas = Some(0);
        detail(report).last_query = None;
    };
    assert_eq!(problems(|report, _| at_zero(report)), [""; 0], "at zero nobody should");
}

#[test]
fn a_limit_of_an_hpa_that_computes_nothing_any_more_is_not_told() {
    let at_maximum = |state: &'static str| {
        problems(move |report, _| {
            report.replicas = Some(10);
            let conditions = &mut detail(report).hpa.as_mut().unwrap().conditions;
            conditions[1] = condition("ScalingActive", state, "AmbiguousSelector");
            conditions.push(condition("ScalingLimited", "True", "TooManyReplicas"));
        })
    };
    assert!(at_maximum("True").contains(&"The maximum is reached: more wanted, 10 allowed".to_owned()));
    let told = at_maximum("False");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("The HPA keda-hpa-orders cannot tell"), "{told:?}");
}

#[test]
fn pods_that_are_missing_or_not_ready_are_counted() {
    let pods = |pods, ready| problems(|_, seen| (seen.pods, seen.ready) = (Some(pods), Some(ready)));
    assert_eq!(pods(2, 2), [""; 0]);
    assert_eq!(pods(2, 1), ["Only 1 of 2 pods are ready"]);
    assert_eq!(pods(1, 1), ["Only 1 of 2 pods exist"]);
}

#[test]
fn what_keeps_failing_is_said_with_its_count() {
    let trouble = |stage: &str| Trouble {
        stage: stage.to_owned(),
        message: "forbidden".to_owned(),
        count: 7,
        first: at("08:00:00"),
        last: at("08:09:30"),
        open: true,
        ..Trouble::default()
    };
    let told = problems(|report, _| report.errors = vec![trouble("Scale"), trouble("StatusUpdate")]);
    assert_eq!(
        told,
        [
            "Writing the workload's replicas fails (7 times, the last time 30 s ago): forbidden",
            "Writing the object's status fails (7 times, the last time 30 s ago): forbidden"
        ]
    );
    let over = problems(|report, _| report.errors = vec![Trouble { open: false, ..trouble("Scale") }]);
    assert_eq!(over, [""; 0]);
}

#[test]
fn what_comes_next_depends_on_bounds_pauses_and_fallbacks() {
    let next = |change: &dyn Fn(&mut Report)| {
        let mut report = well();
        change(&mut report);
        explain(&report, &Workload::default()).next
    };
    let poll = "08:10:20 (in 20 s): the triggers are read again, as every 30 s";
    let fewer = "s0-orders at 5 or less: the HPA asks for fewer, after its stabilization window (5 min unless the object \
                 sets another)";
    let more = "s0-orders above 11: the HPA, which looks about every 15 s, asks for more than 2 replicas";
    assert_eq!(next(&|_| {}), [poll, more, fewer]);
    assert_eq!(next(&|report| report.max_replicas = 2), [poll, fewer]);
    assert_eq!(next(&|report| report.min_replicas = 2), [poll, more]);
    assert_eq!(next(&|report| detail(report).paused_scale_out = true), [poll, fewer]);
    assert_eq!(
        next(&|report| report.triggers[0].value = Some(40.0))[1],
        "s0-orders is above 11 already: at its next look (about every 15 s) the HPA asks for more than 2 replicas"
    );
    // For all replicas together: the HPA asks for as many times more as the value is above the target.
    let in_all = next(&|report| report.triggers[0].per_replica = false);
    assert!(in_all[1].starts_with("s0-orders is above 5.5 already"), "{in_all:?}");
    assert!(in_all[2].starts_with("s0-orders at 2.5 or less"), "{in_all:?}");
    let waits = next(&|report| {
        report.triggers[0].error = Some(crate::report::Failure::default());
        report.reasons[0].rule = "AwaitsFallback".to_owned();
        detail(report).fallback =
            Some(FallbackSeen { failure_threshold: 3, replicas: 6, behavior: "static".to_owned() });
    });
    assert_eq!(waits[1], "More than 3 failures in a row: the fallback of 6 replicas stands in");
}

#[test]
fn a_change_by_others_is_told_with_the_name_in_the_managed_fields() {
    let mut report = well();
    let change = Change { time: at("08:05:00"), from: Some(2), to: 6, by: Author::Other, reasons: Vec::new() };
    detail(&mut report).changes = vec![change];
    let writer = |manager: &str, time: &str| {
        let writer = Writer { manager: manager.to_owned(), time: Some(at(time)), at_creation: false };
        explain(&report, &Workload { writer: Some(writer), ..Workload::default() }).last_change
    };
    let seen = "08:05:00 (5 min ago): from 2 to 6 replicas, seen then; neither the operator nor the HPA wrote it";
    let by = "By the workload's managed fields, it was argocd-controller (its name as a field manager), 08:04:50 (5 min 10 s ago)";
    assert_eq!(writer("argocd-controller", "08:04:50"), [seen, by]);
    let first = "08:09:00 (1 min ago): to 2 replicas, written by the HPA controller (kube-controller-manager)";
    assert_eq!(writer("kube-controller-manager", "08:09:00"), [first, &format!("Before that, {seen}")]);
}

#[test]
fn a_change_that_a_dry_run_would_have_made_is_told_as_such_and_who_wrote_last_too() {
    let mut report = well();
    let reasons = vec!["s0-q is active at 3".to_owned()];
    detail(&mut report).changes =
        vec![Change { time: at("08:05:00"), from: Some(0), to: 1, by: Author::DryRun, reasons }];
    let writer = Writer { manager: "keda".to_owned(), time: Some(at("08:04:50")), at_creation: false };
    let told = explain(&report, &Workload { writer: Some(writer), ..Workload::default() }).last_change;
    let lines = [
        "08:05:00 (5 min ago): from 0 to 1 replica, as a dry run of Tidemark's operator would have written; it writes nothing",
        "Because s0-q is active at 3",
        "By the workload's managed fields, the last to write them was keda (its name as a field manager), 08:04:50 (5 min 10 s ago)",
    ];
    assert_eq!(told, lines);
}

#[test]
fn nothing_from_elsewhere_breaks_the_lines() {
    let mut report = well();
    report.triggers[0].error =
        Some(crate::report::Failure { kind: "refused".to_owned(), message: "a\n\x1b[2Jb".to_owned() });
    let told = explain(&report, &Workload::default());
    assert!(told.problems[0].text.contains("a [2Jb"), "{told:?}");
}
