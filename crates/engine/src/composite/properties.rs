//! Facts that hold whatever the formula, and whatever fails.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::activation::Action;
use crate::fallback::Behavior;

const FORMULAS: &[&str] = &[
    "a + b",
    "a - b",
    "(a ?? 0) + (b ?? 0)",
    "a ?? b",
    "a > b ? a : 0",
    "a / b",
    "max(a, b) ?? 1",
    "a > 3 ? nil : b ?? 0",
    "-a",
    "0",
];

fn modifiers() -> impl Strategy<Value = Modifiers> {
    (0..FORMULAS.len(), 1..5000i64, -5..50i32, any::<bool>()).prop_map(|(formula, target, activation, average)| {
        let (target, activation) = (format!("{}.{:03}", target / 1000, target % 1000), activation.to_string());
        let metric_type = if average { "AverageValue" } else { "Value" };
        let source =
            Source { formula: FORMULAS[formula], target: &target, activation_target: &activation, metric_type };
        Modifiers::build(source, &["a", "b"]).unwrap()
    })
}

fn dead() -> impl Strategy<Value = Outcome> {
    let error = || Arc::<str>::from("down");
    prop_oneof![
        Just(Outcome::Unknown),
        Just(Outcome::Failed { error: error() }),
        Just(Outcome::Nil { failures: 4, error: error() }),
        (0..20i32, proptest::option::of(0..100_000i64)).prop_map(move |(replicas, milli)| Outcome::Fallback {
            replicas,
            milli,
            active: true,
            failures: 4,
            error: error(),
        }),
    ]
}

fn read() -> impl Strategy<Value = Outcome> {
    let value = prop_oneof![4 => 0.0..1000.0f64, 1 => any::<f64>(), 1 => Just(0.0)];
    (value, any::<bool>()).prop_map(|(value, active)| Outcome::Read { value, active })
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    prop_oneof![2 => read(), 1 => dead()]
}

fn inputs(a: Outcome, b: Outcome) -> [Input; 2] {
    let input = |name: &str, outcome| Input {
        name: Some(name.into()),
        state: TriggerState { metric: format!("s0-{name}").into(), outcome },
    };
    [input("a", a), input("b", b)]
}

fn fallbacks() -> impl Strategy<Value = Option<Fallback>> {
    proptest::option::of((0..20i32).prop_map(|replicas| Fallback {
        failure_threshold: 3,
        replicas,
        behavior: Behavior::ScalingModifiers,
    }))
}

fn decide_on(composite: &Composite, replicas: i32) -> Decision {
    let now = Timestamp::from_second(1_760_000_000).unwrap();
    let policy = Policy {
        min_replicas: 0,
        max_replicas: 100,
        idle_replicas: None,
        cooldown: Duration::from_secs(300),
        initial_cooldown: Duration::ZERO,
        fallback_replicas: Some(0),
        created: now - Duration::from_secs(1000),
    };
    let memory = Memory { last_active: Some(now - Duration::from_secs(1000)) };
    decide(&policy, Controls::default(), composite, 0, Some(replicas), memory, now)
}

proptest! {
    #[test]
    fn the_composite_is_never_negative_nor_without_number(
        modifiers in modifiers(), a in outcomes(), b in outcomes(), fallback in fallbacks(),
    ) {
        let composite = modifiers.evaluate(&inputs(a, b), fallback.as_ref());
        prop_assert!(composite.outcome.served().is_ok_and(|milli| milli >= 0) || composite.outcome.served().is_err());
        if let Outcome::Read { value, .. } | Outcome::Partial { value, .. } = composite.outcome {
            prop_assert!(value >= 0.0 && value.is_finite());
        }
    }

    #[test]
    fn a_source_that_is_not_read_never_means_zero(
        modifiers in modifiers(), dead in dead(), other in outcomes(), first in any::<bool>(), fallback in fallbacks(),
        replicas in 1..50i32,
    ) {
        let inputs = if first { inputs(dead, other) } else { inputs(other, dead) };
        let decision = decide_on(&modifiers.evaluate(&inputs, fallback.as_ref()), replicas);
        prop_assert_eq!(decision.action, Action::Nothing);
    }

    #[test]
    fn a_failure_is_never_covered_by_the_other_values(modifiers in modifiers(), other in read()) {
        let failed = Outcome::Failed { error: "down".into() };
        let composite = modifiers.evaluate(&inputs(other, failed), None);
        prop_assert!(composite.outcome.served().is_err() && !composite.outcome.is_active());
    }

    #[test]
    fn more_load_never_means_less_where_the_formula_says_so(
        a in 0.0..1e9f64, more in 0.0..1e9f64, b in 0.0..1e9f64,
    ) {
        let source = Source { formula: "2 * a + max(a, b)", target: "5", ..Source::default() };
        let modifiers = Modifiers::build(source, &["a", "b"]).unwrap();
        let served = |a| {
            let (a, b) = (Outcome::Read { value: a, active: true }, Outcome::Read { value: b, active: true });
            modifiers.evaluate(&inputs(a, b), None).outcome.served().unwrap()
        };
        prop_assert!(served(a) <= served(a + more));
    }

    #[test]
    fn activity_is_a_matter_of_the_value_alone(modifiers in modifiers(), a in read(), b in read()) {
        let outcome = modifiers.evaluate(&inputs(a, b), None).outcome;
        if let Outcome::Read { value, active } = outcome {
            prop_assert_eq!(active, value > modifiers.activation);
        }
    }

    #[test]
    fn the_same_input_gives_the_same_composite(
        modifiers in modifiers(), a in outcomes(), b in outcomes(), fallback in fallbacks(),
    ) {
        let inputs = inputs(a, b);
        let text = || format!("{:?}", modifiers.evaluate(&inputs, fallback.as_ref()));
        prop_assert_eq!(text(), text());
    }
}
