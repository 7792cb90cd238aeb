use std::time::Duration;

use super::*;
use crate::activation::Action;
use crate::fallback::Behavior;
use crate::formula::limits::MAX_TEXT;
use crate::verdict::Status;

const SOURCE: Source<'static> = Source { formula: "a + b", target: "2", activation_target: "", metric_type: "" };

fn build(formula: &str) -> Result<Modifiers, Invalid> {
    Modifiers::build(Source { formula, ..SOURCE }, &["a", "b", "my-queue"])
}

fn modifiers(formula: &str) -> Modifiers {
    build(formula).unwrap()
}

fn input(name: &str, outcome: Outcome) -> Input {
    Input { name: Some(name.into()), state: TriggerState { metric: format!("s0-{name}").into(), outcome } }
}

fn read(value: f64) -> Outcome {
    Outcome::Read { value, active: false }
}

fn failed() -> Outcome {
    Outcome::Failed { error: "the broker is down".into() }
}

fn nil() -> Outcome {
    Outcome::Nil { failures: 4, error: "the broker is down".into() }
}

fn stand_in(milli: Option<i64>) -> Outcome {
    Outcome::Fallback { replicas: 6, milli, active: true, failures: 4, error: "the broker is down".into() }
}

fn fallback() -> Fallback {
    Fallback { failure_threshold: 3, replicas: 7, behavior: Behavior::ScalingModifiers }
}

fn run(formula: &str, a: Outcome, b: Outcome) -> Outcome {
    modifiers(formula).evaluate(&[input("a", a), input("b", b)], None).outcome
}

#[test]
fn the_formula_makes_one_value_of_all() {
    assert_eq!(run("a + b", read(2.0), read(5.0)), Outcome::Read { value: 7.0, active: true });
    assert_eq!(run("a > 3 ? 10 : 20", read(2.0), read(5.0)).served(), Ok(20_000), "an integer is a number");
    assert_eq!(run("let x = a * 2; x + b", read(2.0), read(5.0)).served(), Ok(9000));
    assert_eq!(run("let x = a ?? 1; x * 2", read(2.0), read(5.0)).served(), Ok(4000));
    assert_eq!(run("float(a)", read(2.0), read(5.0)).served(), Ok(2000));
    assert_eq!(run("a + b // the sum", read(2.0), read(5.0)).served(), Ok(7000), "a comment ends with its line");
    assert_eq!(run("(a ?? b) // either", read(2.0), read(5.0)).served(), Ok(2000));
    assert_eq!(run("1 / 8000 + a", read(2.0), read(5.0)).served(), Ok(2000), "thousandths, the rest is cut off");
}

#[test]
fn the_longest_formula_is_as_long_for_the_user_as_the_limit_says() {
    for formula in ["a + b", "a ?? b"] {
        let longest = format!("{formula:<width$}", width = MAX_TEXT);
        assert!(build(&longest).is_ok(), "{formula}");
        let error = build(&format!("{longest} ")).unwrap_err();
        assert_eq!(error.offset(), Some(MAX_TEXT), "{formula}");
        assert!(error.to_string().contains("the formula has 4097 bytes"), "{error}");
    }
}

#[test]
fn a_name_that_is_no_identifier_is_reached_through_the_environment() {
    let modifiers = modifiers("$env[\"my-queue\"] * 2");
    assert_eq!(modifiers.evaluate(&[input("my-queue", read(3.0))], None).outcome.served(), Ok(6000));
}

#[test]
fn values_are_those_that_the_metrics_api_would_show() {
    assert_eq!(run("a", read(-5.0), read(0.0)).served(), Ok(0));
    assert_eq!(run("a * 1000", read(0.0004), read(0.0)).served(), Ok(0));
}

#[test]
fn of_several_metrics_of_one_trigger_the_last_one_counts() {
    let inputs = [input("a", read(1.0)), input("a", read(2.0)), input("b", read(0.0))];
    assert_eq!(modifiers("a + b").evaluate(&inputs, None).outcome.served(), Ok(2000));
}

#[test]
fn activity_is_what_exceeds_the_activation_target() {
    let source = Source { activation_target: "7", ..SOURCE };
    let modifiers = Modifiers::build(source, &["a", "b"]).unwrap();
    let active = |a, b| modifiers.evaluate(&[input("a", read(a)), input("b", read(b))], None).outcome.is_active();
    assert!(!active(2.0, 5.0) && active(2.0, 5.001));
    assert!(!run("a + b", read(0.0), read(0.0)).is_active(), "the activation target is 0 when unset");
}

#[test]
fn the_activity_of_the_triggers_themselves_does_not_count() {
    let active = Outcome::Read { value: 0.0, active: true };
    assert!(!run("a + b", active.clone(), active).is_active());
}

#[test]
fn results_that_are_no_metric_count_as_zero_and_it_is_told() {
    for formula in ["a - 5", "a / 0", "0 / a - 1 / 0", "0 / 0"] {
        let modifiers = modifiers(formula);
        let composite = modifiers.evaluate(&[input("a", read(2.0)), input("b", read(0.0))], None);
        assert_eq!(composite.outcome, Outcome::Read { value: 0.0, active: false }, "{formula}");
        assert!(composite.reasons.iter().any(|reason| matches!(reason, Reason::CompositeClamped { .. })));
    }
}

#[test]
fn any_failure_is_a_failure_of_the_whole_and_names_the_trigger() {
    let outcome = run("a", read(2.0), failed());
    assert_eq!(outcome, Outcome::Failed { error: "s0-b: the broker is down".into() });
}

#[test]
fn nothing_is_computed_before_every_trigger_was_read() {
    assert_eq!(run("a", read(2.0), Outcome::Unknown), Outcome::Unknown);
}

#[test]
fn a_formula_that_fails_is_a_failure_and_not_zero() {
    let composite = modifiers("a + b").evaluate(&[input("a", read(2.0)), input("b", nil())], None);
    let Outcome::Failed { error } = &composite.outcome else { panic!("{:?}", composite.outcome) };
    assert!(error.contains("the formula fails"), "{error}");
}

#[test]
fn a_source_that_is_nil_may_be_replaced_by_the_formula() {
    let outcome = run("a ?? b", nil(), read(5.0));
    assert_eq!(outcome, Outcome::Partial { value: 5.0, active: true, error: "the broker is down".into() });
    let outcome = run("(a ?? 0) + (b ?? 1)", nil(), nil());
    assert_eq!(outcome.served(), Ok(1000));
}

#[test]
fn a_formula_that_gives_nil_asks_for_the_fallback_replicas() {
    let inputs = [input("a", nil()), input("b", nil())];
    let outcome = modifiers("a ?? b").evaluate(&inputs, Some(&fallback())).outcome;
    assert_eq!(outcome.served(), Ok(14_000));
    assert!(outcome.is_active());
    assert!(modifiers("a ?? b").evaluate(&inputs, None).outcome.served().is_err());
}

#[test]
fn a_fallback_of_any_trigger_stands_for_the_whole() {
    assert_eq!(run("a + b", stand_in(Some(12_000)), failed()).served(), Ok(12_000));
    let modifiers = Modifiers::build(Source { activation_target: "12", ..SOURCE }, &["a", "b"]).unwrap();
    let outcome = modifiers.evaluate(&[input("a", stand_in(Some(12_000)))], None).outcome;
    assert!(!outcome.is_active(), "above the activation target, and not merely there");
    let outcome = modifiers.evaluate(&[input("a", stand_in(None))], None).outcome;
    assert!(!outcome.is_active() && outcome.served().is_err());
    assert!(run("a + b", stand_in(None), read(0.0)).is_active(), "activity needs no pods");
}

#[test]
fn an_announced_activity_activates_whatever_the_activation_target() {
    let modifiers = Modifiers::build(Source { activation_target: "1000", ..SOURCE }, &["a", "b"]).unwrap();
    let outcome = modifiers.evaluate(&[input("a", Outcome::Announced), input("b", failed())], None).outcome;
    assert!(outcome.is_active());
}

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

fn decide_at(replicas: i32, formula: &str, a: Outcome, b: Outcome) -> Decision {
    let composite = modifiers(formula).evaluate(&[input("a", a), input("b", b)], None);
    let memory = Memory { last_active: Some(at(0)) };
    decide(&policy(), Controls::default(), &composite, 0, Some(replicas), memory, at(10_000))
}

#[test]
fn the_composite_activates_and_deactivates() {
    assert_eq!(decide_at(0, "a + b", read(1.0), read(0.0)).action, Action::Activate { from: 0, to: 1 });
    assert_eq!(decide_at(3, "a + b", read(0.0), read(0.0)).action, Action::Deactivate { from: 3, to: 0 });
    assert_eq!(decide_at(3, "a - b", read(1.0), read(2.0)).action, Action::Deactivate { from: 3, to: 0 });
}

#[test]
fn a_source_that_is_down_never_means_zero_whatever_the_formula_makes_of_it() {
    for (a, b) in [(failed(), read(0.0)), (nil(), read(0.0)), (stand_in(Some(0)), read(0.0)), (Outcome::Unknown, nil())]
    {
        let decision = decide_at(3, "(a ?? 0) + (b ?? 0)", a.clone(), b);
        assert_eq!(decision.action, Action::Nothing, "{a:?}");
    }
}

#[test]
fn a_failing_formula_is_no_reason_to_scale_down_and_makes_the_object_unready() {
    let decision = decide_at(3, "a + b", nil(), read(0.0));
    assert_eq!(decision.action, Action::Nothing);
    let ready = decision.ready_condition.unwrap();
    assert_eq!((ready.status, ready.reason), (Status::False, "TriggerError"));
}

#[test]
fn the_reasons_tell_values_result_and_decision() {
    let text: Vec<String> =
        decide_at(0, "a + b", read(2.0), read(5.0)).reasons.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "s0-a is 2 (a in the formula)",
            "s0-b is 5 (b in the formula)",
            "the formula gives 7, above the activation target of 0",
            "activated: 0 to 1 replica",
        ]
    );
    let text: Vec<String> =
        decide_at(3, "(a ?? 0) + b", nil(), read(0.0)).reasons.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "s0-a failed 4 times in a row (the broker is down): nil in the formula",
            "s0-b is 0 (b in the formula)",
            "the formula gives 0, not above the activation target of 0",
            "not scaled down: every trigger must be read and quiet first",
        ]
    );
}

#[test]
fn an_object_without_external_metrics_is_left_to_the_hpa() {
    let composite = modifiers("5").evaluate(&[], None);
    let memory = Memory { last_active: None };
    let decision = decide(&policy(), Controls::default(), &composite, 1, Some(3), memory, at(10_000));
    assert!(decision.active);
    assert_eq!(decision.action, Action::Nothing);
}

#[test]
fn modifiers_are_in_use_when_any_member_is_there() {
    assert!(!Source::default().in_use());
    assert!(Source { metric_type: "Value", ..Source::default() }.in_use());
    assert!(SOURCE.in_use());
}

#[test]
fn what_is_wrong_is_named() {
    let build = |source| Modifiers::build(source, &["a", "b"]).unwrap_err();
    for (source, field) in [
        (Source { formula: " ", ..SOURCE }, "formula"),
        (Source { formula: "a +", ..SOURCE }, "formula"),
        (Source { target: "", ..SOURCE }, "target"),
        (Source { target: "0", ..SOURCE }, "target"),
        (Source { target: "-1", ..SOURCE }, "target"),
        (Source { target: "0.0001", ..SOURCE }, "target"),
        (Source { target: "two", ..SOURCE }, "target"),
        (Source { target: "NaN", ..SOURCE }, "target"),
        (Source { target: "inf", ..SOURCE }, "target"),
        (Source { activation_target: "many", ..SOURCE }, "activationTarget"),
        (Source { metric_type: "Utilization", ..SOURCE }, "metricType"),
    ] {
        let error = build(source);
        assert_eq!(error.field(), field, "{source:?}: {error}");
        let text = error.to_string();
        assert!(!text.is_empty() && !text.contains("_kedaCompositeResult"), "{text}");
    }
}

#[test]
fn a_target_may_have_decimals() {
    let source = Source { target: "2.5", metric_type: "Value", activation_target: "-0.5", ..SOURCE };
    let modifiers = Modifiers::build(source, &["a", "b"]).unwrap();
    assert_eq!(modifiers.target(), Target::Value(2500));
    let zero = modifiers.evaluate(&[input("a", read(0.0)), input("b", read(0.0))], None);
    assert!(zero.outcome.is_active(), "0 is above -0.5");
}

#[test]
fn an_unknown_name_is_refused_in_every_branch_and_its_place_is_told() {
    for (formula, offset) in
        [("a + wrong", 4), ("a > 0 ? a : wrong", 12), ("a ?? wrong", 5), ("float(wrong)", 6), ("wrong + b", 0)]
    {
        let error = build(formula).unwrap_err();
        assert_eq!(error.offset(), Some(offset), "{formula}: {error}");
        assert!(error.to_string().contains("wrong"), "{error}");
    }
}

#[test]
fn a_formula_that_gives_no_number_is_refused() {
    for formula in ["a > b", "[a]", "{x: a}", "float(a) > 1", "a ?? \"none\" + \"\"", "nil"] {
        assert!(build(formula).is_err(), "{formula}");
    }
}
