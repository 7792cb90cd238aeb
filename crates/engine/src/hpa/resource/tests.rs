use super::super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_760_000_000 + seconds).unwrap()
}

/// A pod that has long been ready, with a request of 100m and a fresh sample.
fn pod(usage: i64) -> Pod {
    Pod {
        deleting: false,
        phase: Phase::Running,
        started: Some(at(-3600)),
        ready: Some(Ready { status: Status::True, since: at(-3590) }),
        request: Ok(100),
        usage: Some(Usage { milli: usage, time: at(-10), window: Duration::from_secs(30) }),
    }
}

fn missing() -> Pod {
    Pod { usage: None, ..pod(0) }
}

fn pending(usage: i64) -> Pod {
    Pod { phase: Phase::Pending, ready: None, ..pod(usage) }
}

fn target(resource: Resource, per_pod: PerPod) -> Target {
    Target::Resource(ResourceTarget { resource, container: false, per_pod })
}

fn utilization(per_cent: i32) -> Target {
    target(Resource::Cpu, PerPod::Utilization(per_cent))
}

fn average(milli: i64) -> Target {
    target(Resource::Cpu, PerPod::AverageValue(milli))
}

/// A spec whose answer is the proposal itself: no stabilization, no limits.
fn spec(targets: &[Target]) -> Spec {
    let everything = Policy::Percent { value: 100_000, period: Duration::from_secs(15) };
    let rules =
        Rules { stabilization: Some(Duration::ZERO), select: Select::Max, policies: vec![everything], tolerance: None };
    Spec {
        min_replicas: 1,
        max_replicas: 1000,
        metrics: targets.iter().map(|target| Metric { name: "cpu".into(), target: *target }).collect(),
        behavior: Some(Behavior { scale_up: rules.clone(), scale_down: rules }),
    }
}

fn pass(targets: &[Target], current: i32, measured: &[Measured]) -> Decision {
    let count = i32::try_from(measured.len()).unwrap();
    let observed = Observed { spec_replicas: current, status_replicas: current, ready_pods: count, pods: count };
    let timing = PodTiming::default();
    decide_all(&spec(targets), &Controls::default(), &timing, observed, measured, &Memory::default(), at(0))
}

fn with_pods(target: Target, current: i32, pods: Vec<Pod>) -> Decision {
    pass(&[target], current, &[Measured::Pods(Ok(pods))])
}

fn failure(decision: &Decision) -> (&'static str, String) {
    let failure = decision.failure.clone().unwrap();
    (failure.reason, failure.message.to_string())
}

fn proposal(decision: &Decision) -> (PodsOutcome, usize, usize) {
    decision
        .reasons
        .iter()
        .find_map(|reason| match reason {
            Reason::HpaPodsProposal { outcome, unready, missing, .. } => Some((*outcome, *unready, *missing)),
            _ => None,
        })
        .unwrap()
}

#[test]
fn utilization_is_usage_by_request() {
    let decision = with_pods(utilization(50), 3, vec![pod(80), pod(100), pod(120)]);
    assert_eq!(decision.desired, 6);
    assert_eq!(decision.utilization, [Some(100)]);
    assert_eq!(decision.metrics, [Some(Current::AverageValue(100))]);
    assert!(decision.scaling_active.unwrap().message.ends_with("cpu resource utilization (percentage of request)"));
}

#[test]
fn an_average_value_needs_no_requests() {
    let pods = (0..4).map(|_| Pod { request: Err("no request".into()), ..pod(300) }).collect();
    let decision = with_pods(average(200), 4, pods);
    assert_eq!((decision.desired, &decision.utilization[..]), (6, &[None][..]));
    assert_eq!(decision.metrics, [Some(Current::AverageValue(300))]);
}

#[test]
fn utilization_without_a_request_fails_and_tells_which_one_is_missing() {
    let pods = vec![pod(80), Pod { request: Err("missing request for cpu in container app".into()), ..pod(80) }];
    let decision = with_pods(utilization(50), 2, pods);
    assert_eq!(failure(&decision), ("FailedGetResourceMetric", "missing request for cpu in container app".to_owned()));
    assert_eq!(decision.desired, 2);
}

#[test]
fn requests_of_nothing_have_no_utilization() {
    let decision = with_pods(utilization(50), 1, vec![Pod { request: Ok(0), ..pod(80) }]);
    assert!(failure(&decision).1.contains("request nothing"));
}

#[test]
fn per_cents_are_whole_ones() {
    // 109.9 % are 109 %, within the tolerance of a target of 100 %.
    let pods = || vec![Pod { request: Ok(1000), ..pod(1099) }];
    assert_eq!(with_pods(utilization(100), 1, pods()).desired, 1);
    assert_eq!(with_pods(utilization(100), 1, vec![Pod { request: Ok(1000), ..pod(1110) }]).desired, 2);
}

#[test]
fn inside_the_tolerance_nothing_changes() {
    let decision = with_pods(utilization(50), 3, vec![pod(54), pod(54), pod(54)]);
    assert_eq!((decision.desired, proposal(&decision).0), (3, PodsOutcome::WithinTolerance));
}

#[test]
fn pods_that_are_going_or_have_failed_do_not_count() {
    let going = Pod { deleting: true, ..pod(1000) };
    let failed = Pod { phase: Phase::Failed, ..pod(1000) };
    let decision = with_pods(utilization(50), 2, vec![pod(50), pod(50), going, failed]);
    assert_eq!((decision.desired, proposal(&decision)), (2, (PodsOutcome::WithinTolerance, 0, 0)));
}

#[test]
fn pods_without_a_sample_count_as_idle_on_a_rise() {
    // 150 % of the target alone; 75 % together with the idle pod, which would turn the rise into a fall.
    let decision = with_pods(utilization(100), 2, vec![pod(150), missing()]);
    assert_eq!((decision.desired, proposal(&decision)), (2, (PodsOutcome::Undecided, 0, 1)));
    // 300 % alone, 150 % together: three replicas.
    assert_eq!(with_pods(utilization(100), 2, vec![pod(300), missing()]).desired, 3);
}

#[test]
fn pods_without_a_sample_count_as_busy_on_a_fall() {
    // A half and a full one: 75 % of the target, of two pods.
    let decision = with_pods(utilization(100), 4, vec![pod(10), pod(10), pod(10), missing()]);
    assert_eq!(decision.desired, 2);
    // Against a target of 50 % a full pod is twice as much as wanted.
    let decision = with_pods(utilization(50), 2, vec![pod(10), missing()]);
    assert_eq!((decision.desired, proposal(&decision).0), (2, PodsOutcome::WithinTolerance));
    // Against more than 100 % it counts as exactly that much.
    assert_eq!(with_pods(utilization(200), 4, vec![pod(20), pod(20), pod(20), missing()]).desired, 2);
    // A fixed amount counts as just that.
    assert_eq!(with_pods(average(100), 4, vec![pod(10), pod(10), pod(10), missing()]).desired, 2);
}

#[test]
fn at_the_very_target_pods_without_a_sample_change_nothing() {
    for target in [average(50), utilization(50)] {
        assert_eq!(with_pods(target, 10, vec![pod(50), pod(50), missing(), missing()]).desired, 10);
    }
}

#[test]
fn pending_pods_hold_a_rise_back_but_not_a_fall() {
    let decision = with_pods(utilization(100), 2, vec![pod(150), pending(500)]);
    assert_eq!((decision.desired, proposal(&decision)), (2, (PodsOutcome::Undecided, 1, 0)));
    assert_eq!(with_pods(utilization(100), 2, vec![pod(400), pending(0)]).desired, 4);
    assert_eq!(with_pods(utilization(100), 4, vec![pod(50), pod(50), pending(0), pending(0)]).desired, 1);
    assert_eq!(with_pods(utilization(100), 4, vec![pod(95), pod(95), pending(0), pending(0)]).desired, 4);
}

/// What becomes of a rise when one of two pods is this one: with a sample that counts there are more replicas.
fn counts(resource: Resource, other: Pod) -> bool {
    let target = target(resource, PerPod::Utilization(100));
    let decision = with_pods(target, 2, vec![pod(400), Pod { request: Ok(100), ..other }]);
    proposal(&decision).1 == 0
}

fn starting(started: i64, status: Status, since: i64, sample: i64) -> Pod {
    Pod {
        started: Some(at(started)),
        ready: Some(Ready { status, since: at(since) }),
        usage: Some(Usage { milli: 400, time: at(sample), window: Duration::from_secs(30) }),
        ..pod(0)
    }
}

#[test]
fn a_starting_pod_counts_once_it_has_been_ready_for_a_whole_sample() {
    assert!(counts(Resource::Cpu, starting(-200, Status::True, -100, -70)));
    assert!(!counts(Resource::Cpu, starting(-200, Status::True, -100, -71)));
    assert!(!counts(Resource::Cpu, starting(-200, Status::False, -190, -5)));
    // The first five minutes end with their last instant.
    assert!(!counts(Resource::Cpu, starting(-299, Status::True, -20, -5)));
    assert!(counts(Resource::Cpu, starting(-300, Status::True, -20, -5)));
}

#[test]
fn an_older_pod_counts_unless_it_was_never_ready() {
    assert!(counts(Resource::Cpu, starting(-3600, Status::False, -100, -5)), "it was ready before");
    assert!(!counts(Resource::Cpu, starting(-3600, Status::False, -3571, -5)), "it never was");
    assert!(counts(Resource::Cpu, starting(-3600, Status::False, -3570, -5)));
    assert!(counts(Resource::Cpu, starting(-3600, Status::Unknown, -3590, -5)));
}

#[test]
fn a_pod_that_does_not_tell_its_readiness_or_start_is_not_ready() {
    assert!(!counts(Resource::Cpu, Pod { ready: None, ..pod(400) }));
    assert!(!counts(Resource::Cpu, Pod { started: None, ..pod(400) }));
}

#[test]
fn memory_counts_from_the_start() {
    assert!(counts(Resource::Memory, starting(-10, Status::False, -10, -5)));
    assert!(counts(Resource::Memory, Pod { ready: None, started: None, ..pod(400) }));
}

#[test]
fn no_pods_and_no_samples_are_failures() {
    assert!(failure(&with_pods(utilization(50), 2, Vec::new())).1.contains("matches no pod"));
    for pods in [vec![pending(10)], vec![missing()], vec![Pod { deleting: true, ..pod(10) }]] {
        let decision = with_pods(utilization(50), 2, pods);
        assert!(failure(&decision).1.contains("no pod has a metric that counts"));
        assert_eq!(decision.desired, 2);
    }
}

#[test]
fn failures_are_told_by_the_kind_of_metric() {
    let container =
        Target::Resource(ResourceTarget { resource: Resource::Cpu, container: true, per_pod: PerPod::Utilization(50) });
    assert_eq!(failure(&with_pods(container, 2, Vec::new())).0, "FailedGetContainerResourceMetric");
    assert_eq!(failure(&pass(&[container], 2, &[])).0, "FailedGetContainerResourceMetric");
    let unread = Failure { reason: "FailedGetResourceMetric", message: "no metrics API".into() };
    let decision = pass(&[utilization(50)], 2, &[Measured::Pods(Err(unread.clone()))]);
    assert_eq!(decision.failure, Some(unread));
}

/// Pods that each request a whole core, by what is the matter with them and what they use.
fn cores(pods: &[(&str, i64)]) -> Vec<Pod> {
    let one = |(state, usage): &(&str, i64)| {
        let pod = Pod { request: Ok(1000), ..pod(*usage) };
        match *state {
            "ready" => pod,
            "unready" => Pod { ready: Some(Ready { status: Status::False, since: at(-3600) }), ..pod },
            "hot" => Pod { started: Some(at(-60)), ready: Some(Ready { status: Status::True, since: at(-5) }), ..pod },
            "pending" => Pod { phase: Phase::Pending, ..pod },
            "failed" => Pod { phase: Phase::Failed, ..pod },
            "deleting" => Pod { deleting: true, ..pod },
            "silent" => Pod { usage: None, ..pod },
            _ => panic!("{state}"),
        }
    };
    pods.iter().map(one).collect()
}

/// Present replicas, target and pods; the replicas wanted, and the utilization found.
type Case<'a> = (i32, i32, Vec<(&'a str, i64)>, i32, i32);

/// What kube-controller-manager makes of these.
#[test]
fn the_controllers_own_cases_come_out() {
    let r = |usage| ("ready", usage);
    let (silent, pending, failed, deleting) = (("silent", 0), ("pending", 0), ("failed", 0), ("deleting", 0));
    let cases: [Case<'_>; 19] = [
        (3, 30, vec![r(300), r(500), r(700)], 5, 50),
        (3, 30, vec![("unready", 300), r(500), r(700)], 4, 60),
        (3, 30, vec![("hot", 300), r(500), r(700)], 4, 60),
        (3, 30, vec![r(400), ("unready", 500), ("unready", 700)], 3, 40),
        (3, 30, vec![r(400), ("hot", 500), ("hot", 700)], 3, 40),
        (2, 30, vec![r(500), r(700), failed, failed], 4, 60),
        (2, 30, vec![r(500), r(700), deleting, deleting], 4, 60),
        (5, 50, vec![r(100), r(300), r(500), r(250), r(250)], 3, 28),
        (5, 50, vec![r(100), r(300), r(500), ("unready", 250), ("unready", 250)], 2, 30),
        (5, 50, vec![r(100), pending, pending, pending, pending], 1, 10),
        (5, 50, vec![r(100), r(300), r(500), r(250), r(250), failed, failed], 3, 28),
        (4, 100, vec![r(400), r(95), silent, silent], 3, 24),
        (2, 100, vec![r(1000), silent], 2, 100),
        (2, 100, vec![r(1900), silent], 2, 190),
        (2, 100, vec![r(600), silent], 2, 60),
        (3, 50, vec![("unready", 100), r(450), silent], 3, 45),
        (3, 50, vec![("unready", 100), r(2000), silent], 4, 200),
        (3, 50, vec![("hot", 100), r(2000), silent], 4, 200),
        (4, 50, vec![("unready", 100), r(100), r(100), silent], 3, 10),
    ];
    for (current, target, pods, desired, found) in cases {
        let decision = with_pods(utilization(target), current, cores(&pods));
        assert_eq!((decision.desired, decision.utilization[0]), (desired, Some(found)), "{pods:?}");
    }
}

#[test]
fn external_and_resource_metrics_work_side_by_side() {
    let targets = [Target::AverageValue(5000), utilization(50)];
    let external = |usage: i64| Measured::External(Ok(usage));
    let pods = |usage| Measured::Pods(Ok(vec![pod(usage), pod(usage), pod(usage)]));
    let decision = pass(&targets, 3, &[external(40_000), pods(75)]);
    assert_eq!(decision.desired, 8, "the larger proposal wins");
    assert_eq!(decision.utilization, [None, Some(75)]);
    assert_eq!(pass(&targets, 3, &[external(5000), pods(100)]).desired, 6);
    let no_pods = || Measured::Pods(Ok(Vec::new()));
    assert_eq!(pass(&targets, 3, &[external(5000), no_pods()]).desired, 3, "a failing metric forbids the fall");
    assert_eq!(pass(&targets, 3, &[external(30_000), no_pods()]).desired, 6);
}

#[test]
fn the_reasons_tell_the_pods_that_do_not_count() {
    let decision = with_pods(utilization(100), 3, vec![pod(400), pending(0), missing()]);
    let text = decision.reasons[0].to_string();
    assert_eq!(
        text,
        "cpu is 400 % of the requests for a target of 100 %, which asks for 4 replicas \
         (1 pod not ready, 1 without metrics)"
    );
    let text = with_pods(average(250), 2, vec![pod(100), pod(100)]).reasons[0].to_string();
    assert_eq!(text, "cpu is 0.1 per pod for a target of 0.25, which asks for 1 replica");
    let text = with_pods(utilization(100), 2, vec![pod(150), missing()]).reasons[0].to_string();
    assert_eq!(
        text,
        "cpu is 150 % of the requests for a target of 100 %, which the pods that do not count might reverse: \
         stays at 2 replicas (1 pod without metrics)"
    );
}

#[test]
fn huge_amounts_are_capped_and_do_not_overflow() {
    let huge = || Pod { request: Ok(i64::MAX), ..pod(i64::MAX) };
    assert_eq!(with_pods(utilization(100), 2, vec![huge(), huge()]).desired, 2);
    let decision = with_pods(average(1), 2, vec![huge(), huge()]);
    assert_eq!(decision.desired, 1000);
    assert_eq!(with_pods(utilization(100), 2, vec![Pod { request: Ok(1), ..huge() }]).utilization, [Some(i32::MAX)]);
}
