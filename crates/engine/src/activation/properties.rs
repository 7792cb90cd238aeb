//! Facts that hold whatever is configured and found.

use proptest::prelude::*;

use super::*;

fn start() -> Timestamp {
    Timestamp::from_second(1_760_000_000).unwrap()
}

fn policies() -> impl Strategy<Value = Policy> {
    (0..20i32, 0..50i32, proptest::option::of(0..5i32), 0..900u64, 0..900u64, proptest::option::of(0..9i32)).prop_map(
        |(min_replicas, more, idle, cooldown, initial, fallback_replicas)| Policy {
            min_replicas,
            max_replicas: min_replicas.max(1) + more,
            idle_replicas: idle.filter(|idle| *idle < min_replicas),
            cooldown: Duration::from_secs(cooldown),
            initial_cooldown: Duration::from_secs(initial),
            fallback_replicas,
            created: start() - Duration::from_secs(500),
        },
    )
}

fn controls() -> impl Strategy<Value = Controls> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(scale_in_paused, scale_out_paused, force_activation)| {
        Controls { scale_in_paused, scale_out_paused, force_activation, ..Controls::default() }
    })
}

fn dead() -> impl Strategy<Value = Outcome> {
    let error = || Arc::<str>::from("down");
    prop_oneof![
        Just(Outcome::Unknown),
        Just(Outcome::Announced),
        Just(Outcome::Failed { error: error() }),
        Just(Outcome::Nil { failures: 4, error: error() }),
        (0..20i32, any::<bool>()).prop_map(move |(replicas, active)| Outcome::Fallback {
            replicas,
            milli: Some(0),
            active,
            failures: 4,
            error: error(),
        }),
        any::<bool>().prop_map(move |active| Outcome::Partial { value: 0.0, active, error: error() }),
    ]
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    let read = (0.0..100.0f64, any::<bool>()).prop_map(|(value, active)| Outcome::Read { value, active });
    prop_oneof![2 => read, 1 => dead()]
}

fn state(outcome: Outcome) -> TriggerState {
    TriggerState { metric: "s0-x".into(), outcome }
}

fn triggers() -> impl Strategy<Value = Vec<TriggerState>> {
    proptest::collection::vec(outcomes().prop_map(state), 0..4)
}

fn memories() -> impl Strategy<Value = Memory> {
    proptest::option::of(0..2000u64)
        .prop_map(|ago| Memory { last_active: ago.map(|ago| start() - Duration::from_secs(ago)) })
}

fn deactivates(decision: &Decision) -> bool {
    matches!(decision.action, Action::Deactivate { .. })
}

proptest! {
    #[test]
    fn a_source_that_is_not_read_never_means_zero(
        policy in policies(), controls in controls(), triggers in triggers(), at in 0..4usize, dead in dead(),
        replicas in 0..60i32, memory in memories(),
    ) {
        let mut triggers = triggers;
        triggers.insert(at.min(triggers.len()), state(dead));
        let decision = decide(&policy, controls, &triggers, 0, Some(replicas), memory, start());
        prop_assert!(!deactivates(&decision), "{:?}", decision);
        prop_assert!(decision.action.target().is_none_or(|to| to >= replicas), "{:?}", decision);
    }

    #[test]
    fn replicas_are_set_to_the_minimum_or_to_rest_and_to_nothing_else(
        policy in policies(), controls in controls(), triggers in triggers(), resources in 0..2usize,
        replicas in 0..60i32, memory in memories(),
    ) {
        match decide(&policy, controls, &triggers, resources, Some(replicas), memory, start()).action {
            Action::Nothing => {}
            Action::Deactivate { from, to } => prop_assert!(from == replicas && to == policy.rest_replicas() && to < from),
            Action::Activate { from, to } | Action::RaiseToMinimum { from, to } => {
                prop_assert!(from == replicas && to > from);
                prop_assert!((policy.min_replicas..=policy.max_replicas).contains(&to));
            }
            Action::Pause { .. } => prop_assert!(false, "not paused"),
        }
    }

    #[test]
    fn an_active_trigger_never_gives_fewer_replicas_than_a_quiet_one(
        policy in policies(), controls in controls(), triggers in triggers(), at in 0..4usize, replicas in 0..60i32,
        memory in memories(),
    ) {
        let mut triggers = triggers;
        let at = at.min(triggers.len());
        let mut after = |active| {
            triggers.insert(at, state(Outcome::Read { value: 1.0, active }));
            let decision = decide(&policy, controls, &triggers, 0, Some(replicas), memory, start());
            triggers.remove(at);
            decision.action.target().unwrap_or(replicas)
        };
        let (quiet, active) = (after(false), after(true));
        // Replicas below a minimum without idle replicas are the HPA's to raise once something is active.
        let left_to_hpa = replicas > 0 && replicas < policy.min_replicas && policy.idle_replicas.is_none();
        if !left_to_hpa && !controls.scale_out_paused {
            prop_assert!(active >= quiet);
        }
    }

    #[test]
    fn what_is_paused_does_not_happen(
        policy in policies(), controls in controls(), triggers in triggers(), replicas in 0..60i32, memory in memories(),
    ) {
        let decision = decide(&policy, controls, &triggers, 0, Some(replicas), memory, start());
        prop_assert!(!(controls.scale_in_paused && deactivates(&decision)));
        let activates = matches!(decision.action, Action::Activate { .. });
        prop_assert!(!(controls.scale_out_paused && activates));
    }

    #[test]
    fn a_cooldown_is_always_waited_for(
        policy in policies(), triggers in triggers(), replicas in 0..60i32, memory in memories(),
    ) {
        let decision = decide(&policy, Controls::default(), &triggers, 0, Some(replicas), memory, start());
        let until = match memory.last_active {
            Some(last) => last + policy.cooldown,
            None => policy.created + policy.initial_cooldown,
        };
        prop_assert!(!deactivates(&decision) || until < start());
    }

    #[test]
    fn the_same_input_gives_the_same_decision_and_a_reason(
        policy in policies(), controls in controls(), triggers in triggers(), replicas in proptest::option::of(0..60i32),
        memory in memories(),
    ) {
        let run = || decide(&policy, controls, &triggers, 1, replicas, memory, start());
        prop_assert_eq!(run(), run());
        prop_assert!(run().reasons.iter().all(|reason| !reason.to_string().is_empty()));
        prop_assert!(run().reasons.len() > triggers.len());
    }
}
