use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_760_000_000 + seconds).unwrap()
}

fn policy() -> Policy {
    Policy {
        min_replicas: 0,
        max_replicas: 10,
        idle_replicas: None,
        cooldown: Duration::from_secs(300),
        initial_cooldown: Duration::ZERO,
        fallback_replicas: None,
        created: at(0),
    }
}

fn trigger(outcome: Outcome) -> TriggerState {
    TriggerState { metric: "s0-queue".into(), outcome }
}

fn active() -> TriggerState {
    trigger(Outcome::Read { value: 7.0, active: true })
}

fn quiet() -> TriggerState {
    trigger(Outcome::Read { value: 0.0, active: false })
}

fn failed() -> TriggerState {
    trigger(Outcome::Failed { error: "refused the login (authentication)".into() })
}

fn unknown() -> TriggerState {
    trigger(Outcome::Unknown)
}

/// A decision long after the last activity.
fn run(policy: &Policy, controls: Controls, triggers: &[TriggerState], replicas: i32) -> Decision {
    decide(policy, controls, triggers, 0, Some(replicas), Memory { last_active: Some(at(0)) }, at(100_000))
}

/// A decision without annotations at a second, last active at 0 s.
fn run_at(policy: &Policy, triggers: &[TriggerState], replicas: i32, now: i64) -> Decision {
    let memory = Memory { last_active: Some(at(0)) };
    decide(policy, Controls::default(), triggers, 0, Some(replicas), memory, at(now))
}

fn word(verdict: &Option<Verdict>) -> (Status, &'static str) {
    verdict.as_ref().map(|verdict| (verdict.status, verdict.reason)).unwrap()
}

#[test]
fn one_active_trigger_scales_from_zero_to_one_or_the_minimum() {
    for (minimum, to) in [(0, 1), (1, 1), (5, 5)] {
        let policy = Policy { min_replicas: minimum, ..policy() };
        let decision = run(&policy, Controls::default(), &[quiet(), active()], 0);
        assert_eq!(decision.action, Action::Activate { from: 0, to });
        assert_eq!(word(&decision.active_condition), (Status::True, "ScalerActive"));
        assert_eq!(word(&decision.ready_condition), (Status::True, "ScaledObjectReady"));
        assert_eq!(decision.last_active, Some(at(100_000)));
    }
}

#[test]
fn an_active_workload_above_zero_is_left_to_the_hpa() {
    let decision = run(&policy(), Controls::default(), &[active()], 3);
    assert_eq!((decision.action, decision.last_active), (Action::Nothing, Some(at(100_000))));
    assert_eq!(decision.reasons.last(), Some(&Reason::LeftToHpa { replicas: 3 }));
}

#[test]
fn idle_replicas_are_left_for_the_minimum_and_taken_again() {
    let policy = Policy { min_replicas: 5, idle_replicas: Some(2), ..policy() };
    assert_eq!(run(&policy, Controls::default(), &[active()], 2).action, Action::Activate { from: 2, to: 5 });
    assert_eq!(run(&policy, Controls::default(), &[active()], 5).action, Action::Nothing);
    assert_eq!(run(&policy, Controls::default(), &[quiet()], 7).action, Action::Deactivate { from: 7, to: 2 });
    let rest = run(&policy, Controls::default(), &[quiet()], 2);
    assert_eq!((rest.action, rest.reasons.last()), (Action::Nothing, Some(&Reason::AtRest { replicas: 2 })));
    assert_eq!(run(&policy, Controls::default(), &[quiet()], 1).action, Action::Nothing, "idle is no lower bound");
}

#[test]
fn a_workload_with_a_minimum_never_goes_below_it() {
    let policy = Policy { min_replicas: 2, ..policy() };
    assert_eq!(run(&policy, Controls::default(), &[quiet()], 2).action, Action::Nothing);
    assert_eq!(
        run(&policy, Controls::default(), &[quiet()], 6).reasons.last(),
        Some(&Reason::LeftToHpa { replicas: 6 })
    );
    assert_eq!(run(&policy, Controls::default(), &[quiet()], 0).action, Action::RaiseToMinimum { from: 0, to: 2 });
    assert_eq!(run_at(&policy, &[quiet()], 1, 1).action, Action::RaiseToMinimum { from: 1, to: 2 }, "no cooldown");
}

#[test]
fn the_cooldown_must_be_over_and_not_just_end() {
    for now in [1, 299, 300] {
        let decision = run_at(&policy(), &[quiet()], 4, now);
        assert_eq!(decision.action, Action::Nothing, "{now}");
        assert_eq!(word(&decision.active_condition), (Status::False, "ScalerCooldown"));
        assert_eq!(decision.reasons.last(), Some(&Reason::Cooldown { until: at(300) }));
    }
    let (memory, now) = (Memory { last_active: Some(at(0)) }, at(300) + Duration::from_nanos(1));
    let over = decide(&policy(), Controls::default(), &[quiet()], 0, Some(4), memory, now);
    assert_eq!(over.action, Action::Deactivate { from: 4, to: 0 });
    assert_eq!(word(&over.active_condition), (Status::False, "ScalerNotActive"));
}

#[test]
fn without_any_activity_the_initial_cooldown_counts_from_the_creation() {
    let policy = Policy { initial_cooldown: Duration::from_secs(60), ..policy() };
    let run = |now, last_active| {
        decide(&policy, Controls::default(), &[quiet()], 0, Some(1), Memory { last_active }, at(now))
    };
    assert_eq!(run(60, None).reasons.last(), Some(&Reason::InitialCooldown { until: at(60) }));
    assert_eq!(run(61, None).action, Action::Deactivate { from: 1, to: 0 });
    assert_eq!(run(61, Some(at(0))).action, Action::Nothing, "any activity puts the cooldown in its place");
}

#[test]
fn a_cooldown_beyond_all_times_never_ends() {
    let policy = Policy { cooldown: Duration::MAX, ..policy() };
    assert_eq!(run_at(&policy, &[quiet()], 1, 1_000_000).action, Action::Nothing);
}

#[test]
fn a_failing_trigger_forbids_zero_and_shows_in_ready() {
    let decision = run(&policy(), Controls::default(), &[quiet(), failed()], 3);
    assert_eq!(decision.action, Action::Nothing);
    assert_eq!(word(&decision.ready_condition), (Status::False, "TriggerError"));
    assert!(decision.ready_condition.unwrap().message.contains("s0-queue: refused the login"));
    assert_eq!(decision.reasons.last(), Some(&Reason::DeactivationNeedsEveryTrigger));
}

#[test]
fn a_fallback_of_zero_replicas_does_not_make_a_failing_trigger_quiet() {
    let policy = Policy { fallback_replicas: Some(0), ..policy() };
    let decision = run(&policy, Controls::default(), &[failed()], 3);
    assert_eq!(decision.action, Action::Nothing);
    assert_eq!(word(&decision.ready_condition), (Status::True, "ScaledObjectReady"));
}

#[test]
fn with_a_fallback_the_replicas_wait_for_it() {
    let policy = Policy { fallback_replicas: Some(4), ..policy() };
    let decision = run(&policy, Controls::default(), &[failed()], 3);
    assert_eq!((decision.action, decision.reasons.last()), (Action::Nothing, Some(&Reason::AwaitsFallback)));
    assert_eq!(word(&decision.ready_condition), (Status::True, "ScaledObjectReady"));
}

#[test]
fn activity_beside_a_failure_is_partial_and_still_counts() {
    let decision = run(&policy(), Controls::default(), &[failed(), active()], 3);
    assert_eq!(word(&decision.ready_condition), (Status::Unknown, "PartialTriggerError"));
    assert_eq!(decision.last_active, Some(at(100_000)), "the cooldown starts after the last activity, failures or not");
    let from_zero = run(&policy(), Controls::default(), &[failed(), active()], 0);
    assert_eq!(from_zero.action, Action::Activate { from: 0, to: 1 });
    assert_eq!(word(&from_zero.ready_condition), (Status::True, "ScaledObjectReady"));
}

#[test]
fn a_trigger_that_was_not_read_yet_changes_nothing() {
    let decision = run(&policy(), Controls::default(), &[quiet(), unknown()], 3);
    assert_eq!((decision.action, &decision.active_condition), (Action::Nothing, &None));
    assert_eq!(decision.reasons.last(), Some(&Reason::DeactivationNeedsEveryTrigger));
    let active = run(&policy(), Controls::default(), &[active(), unknown()], 0);
    assert_eq!(active.action, Action::Activate { from: 0, to: 1 });
}

#[test]
fn no_triggers_at_all_say_nothing() {
    for replicas in [0, 3] {
        let decision = run(&policy(), Controls::default(), &[], replicas);
        assert_eq!((decision.action, decision.active_condition), (Action::Nothing, None));
    }
}

#[test]
fn resource_triggers_alone_keep_the_object_active_and_beside_others_do_not() {
    let memory = Memory::default();
    let alone = decide(&policy(), Controls::default(), &[], 2, Some(1), memory, at(5));
    assert!(alone.active && alone.reasons.contains(&Reason::ResourceTriggersOnly));
    let beside = decide(&policy(), Controls::default(), &[quiet()], 2, Some(1), memory, at(5));
    assert_eq!((beside.active, beside.action), (false, Action::Deactivate { from: 1, to: 0 }));
}

#[test]
fn a_paused_object_does_nothing_whatever_its_triggers_say() {
    let controls = Controls { paused: true, force_activation: true, ..Controls::default() };
    for (trigger, replicas) in [(active(), 0), (quiet(), 5), (failed(), 5)] {
        let decision = run(&policy(), controls, &[trigger], replicas);
        assert_eq!((decision.action, decision.active), (Action::Nothing, false));
        assert_eq!((&decision.active_condition, decision.last_active), (&None, None));
        assert_eq!(decision.reasons, [Reason::Paused { replicas: None }]);
    }
}

#[test]
fn paused_replicas_are_reached_once() {
    let controls = Controls { paused: true, paused_replicas: Some(2), ..Controls::default() };
    assert_eq!(run(&policy(), controls, &[active()], 5).action, Action::Pause { from: 5, to: 2 });
    assert_eq!(run(&policy(), controls, &[active()], 2).action, Action::Nothing);
    assert_eq!(run(&policy(), controls, &[], 5).action.target(), Some(2));
}

#[test]
fn paused_scale_in_holds_the_replicas_and_paused_scale_out_the_zero() {
    let scale_in = Controls { scale_in_paused: true, ..Controls::default() };
    let held = run(&policy(), scale_in, &[quiet()], 5);
    assert_eq!((held.action, held.reasons.last()), (Action::Nothing, Some(&Reason::ScaleInPaused)));
    assert_eq!(word(&held.active_condition), (Status::False, "ScalerNotActive"));
    assert_eq!(run(&policy(), scale_in, &[active()], 0).action, Action::Activate { from: 0, to: 1 });

    let scale_out = Controls { scale_out_paused: true, ..Controls::default() };
    let held = run(&policy(), scale_out, &[active()], 0);
    assert_eq!((held.action, held.reasons.last()), (Action::Nothing, Some(&Reason::ScaleOutPaused)));
    assert_eq!(word(&held.active_condition), (Status::True, "ScalerActive"));
    assert_eq!(run(&policy(), scale_out, &[quiet()], 5).action, Action::Deactivate { from: 5, to: 0 });
    let policy = Policy { min_replicas: 2, ..policy() };
    assert_eq!(run(&policy, scale_out, &[quiet()], 1).action, Action::RaiseToMinimum { from: 1, to: 2 });
}

#[test]
fn force_activation_counts_as_an_active_trigger_and_says_so() {
    let controls = Controls { force_activation: true, ..Controls::default() };
    let decision = run(&policy(), controls, &[quiet()], 0);
    assert_eq!(decision.action, Action::Activate { from: 0, to: 1 });
    assert!(decision.reasons.contains(&Reason::Forced));
    assert!(decision.active_condition.unwrap().message.contains("forced"));
}

#[test]
fn a_target_that_cannot_be_read_is_left_alone() {
    for triggers in [[active()], [quiet()]] {
        let decision = decide(&policy(), Controls::default(), &triggers, 0, None, Memory::default(), at(9));
        assert_eq!(decision.action, Action::Nothing);
        assert_eq!(word(&decision.ready_condition), (Status::False, "ErrorGettingCurrentReplicas"));
        assert_eq!(decision.reasons.last(), Some(&Reason::ReplicasUnknown));
    }
    let paused = Controls { paused: true, paused_replicas: Some(2), ..Controls::default() };
    let decision = decide(&policy(), paused, &[], 0, None, Memory::default(), at(9));
    assert_eq!(word(&decision.ready_condition), (Status::False, "ErrorGettingCurrentReplicas"));
}

#[test]
fn the_hpa_never_gets_a_minimum_of_zero() {
    assert_eq!(policy().hpa_bounds(), (1, 10));
    assert_eq!(Policy { min_replicas: 5, ..policy() }.hpa_bounds(), (5, 10));
}

#[test]
fn the_reasons_read_as_sentences() {
    let decision = run_at(&policy(), &[quiet(), active()], 0, 10);
    let text: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["s0-queue is quiet at 0", "s0-queue is active at 7", "activated: 0 to 1 replica"]);
    let decision = run_at(&policy(), &[quiet()], 2, 10);
    assert_eq!(decision.reasons[1].to_string(), "cooling down until 2025-10-09T08:58:20Z");
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn outcomes() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Outcome::Unknown),
            (0.0..100.0f64, any::<bool>()).prop_map(|(value, active)| Outcome::Read { value, active }),
            Just(Outcome::Failed { error: "down".into() }),
        ]
    }

    fn policies() -> impl Strategy<Value = Policy> {
        let counts = (0..5i32, proptest::option::of(0..3i32), proptest::option::of(0..3i32));
        (counts, 0..600u64, 0..600u64).prop_map(|((min, idle, fallback), cooldown, initial)| Policy {
            min_replicas: min,
            idle_replicas: idle.filter(|idle| *idle < min.max(1)),
            cooldown: Duration::from_secs(cooldown),
            initial_cooldown: Duration::from_secs(initial),
            fallback_replicas: fallback,
            ..policy()
        })
    }

    fn annotations() -> impl Strategy<Value = Controls> {
        (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(scale_in_paused, scale_out_paused, force)| Controls {
            scale_in_paused,
            scale_out_paused,
            force_activation: force,
            ..Controls::default()
        })
    }

    proptest! {
        #[test]
        fn a_dead_source_never_means_fewer_replicas(
            policy in policies(), controls in annotations(), outcomes in proptest::collection::vec(outcomes(), 0..4),
            dead in any::<bool>(), replicas in 0..20i32, now in 0..2000i64,
        ) {
            let error = if dead { Outcome::Failed { error: "down".into() } } else { Outcome::Unknown };
            let triggers: Vec<_> = outcomes.into_iter().chain([error]).map(trigger).collect();
            let memory = Memory { last_active: Some(at(0)) };
            let decision = decide(&policy, controls, &triggers, 0, Some(replicas), memory, at(now));
            prop_assert!(decision.action.target().is_none_or(|to| to > replicas));
        }

        #[test]
        fn zero_and_idle_are_reached_only_when_quiet_and_cooled_down(
            policy in policies(), controls in annotations(), outcomes in proptest::collection::vec(outcomes(), 1..4),
            replicas in 0..20i32, last in proptest::option::of(0..1000i64), now in 0..2000i64,
        ) {
            let triggers: Vec<_> = outcomes.into_iter().map(trigger).collect();
            let memory = Memory { last_active: last.map(at) };
            let decision = decide(&policy, controls, &triggers, 0, Some(replicas), memory, at(now));
            if let Action::Deactivate { to, .. } = decision.action {
                let quiet = |t: &TriggerState| matches!(t.outcome, Outcome::Read { active: false, .. });
                prop_assert!(triggers.iter().all(quiet));
                prop_assert!(!controls.force_activation && !controls.scale_in_paused);
                prop_assert_eq!(to, policy.idle_replicas.unwrap_or(0));
                let until = match last {
                    Some(last) => at(last) + policy.cooldown,
                    None => policy.created + policy.initial_cooldown,
                };
                prop_assert!(until < at(now));
            }
        }

        #[test]
        fn activity_always_moves_the_time_of_the_last_activity(
            policy in policies(), controls in annotations(), outcomes in proptest::collection::vec(outcomes(), 0..4),
            replicas in 0..20i32,
        ) {
            let active = Outcome::Read { value: 1.0, active: true };
            let triggers: Vec<_> = outcomes.into_iter().chain([active]).map(trigger).collect();
            let decision = decide(&policy, controls, &triggers, 0, Some(replicas), Memory::default(), at(7));
            prop_assert_eq!(decision.last_active, Some(at(7)));
            prop_assert!(replicas == 0 || decision.action.target().is_none_or(|to| to > 0));
        }
    }
}

fn stand_in(replicas: i32, active: bool) -> TriggerState {
    let error = "the broker is down".into();
    trigger(Outcome::Fallback { replicas, milli: Some(5000 * i64::from(replicas)), active, failures: 4, error })
}

fn with_fallback(replicas: i32) -> Policy {
    Policy { fallback_replicas: Some(replicas), ..policy() }
}

#[test]
fn a_trigger_under_fallback_is_active_and_scales_from_zero() {
    for replicas in [0, 6] {
        let decision = run(&with_fallback(replicas), Controls::default(), &[quiet(), stand_in(replicas, true)], 0);
        assert_eq!(decision.action, Action::Activate { from: 0, to: 1 });
        assert_eq!(word(&decision.active_condition), (Status::True, "ScalerActive"));
        assert!(decision.active_condition.unwrap().message.contains("fallback"));
        assert_eq!(word(&decision.ready_condition), (Status::True, "ScaledObjectReady"));
    }
}

#[test]
fn below_the_threshold_a_failing_trigger_keeps_the_replicas_whatever_the_fallback() {
    for replicas in [0, 6] {
        let decision = run(&with_fallback(replicas), Controls::default(), &[quiet(), failed()], 4);
        assert_eq!(decision.action, Action::Nothing);
        assert_eq!(word(&decision.ready_condition), (Status::True, "ScaledObjectReady"));
    }
}

#[test]
fn a_fallback_is_never_a_reason_to_deactivate() {
    let decision = run(&with_fallback(0), Controls::default(), &[stand_in(0, false)], 4);
    assert_eq!(decision.action, Action::Nothing);
    assert_eq!(decision.reasons.last(), Some(&Reason::DeactivationNeedsEveryTrigger));
}

#[test]
fn a_nil_that_no_formula_sees_is_a_failure_that_nothing_stands_in_for() {
    let nil = trigger(Outcome::Nil { failures: 4, error: "the broker is down".into() });
    let decision = run(&with_fallback(6), Controls::default(), &[quiet(), nil], 4);
    assert_eq!(decision.action, Action::Nothing);
    assert_eq!(word(&decision.ready_condition), (Status::False, "TriggerError"));
}

#[test]
fn an_announced_activity_scales_from_zero_and_keeps_what_runs() {
    let announced = || trigger(Outcome::Announced);
    assert_eq!(
        run(&policy(), Controls::default(), &[quiet(), announced()], 0).action,
        Action::Activate { from: 0, to: 1 }
    );
    let kept = run(&policy(), Controls::default(), &[quiet(), announced()], 4);
    assert_eq!((kept.action, kept.last_active), (Action::Nothing, Some(at(100_000))));
    assert!(kept.reasons.iter().any(|reason| reason.to_string() == "s0-queue was announced active by its source"));
}

#[test]
fn a_fallback_tells_what_it_stands_in_for() {
    let text = reason_of(&stand_in(6, true)).to_string();
    assert_eq!(
        text,
        "s0-queue failed 4 times in a row (the broker is down): the fallback of 6 replicas stands in with 30"
    );
}
