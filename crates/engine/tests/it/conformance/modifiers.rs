use std::sync::Arc;

use serde_json::{Value, json};
use tidemark_engine::activation::{Outcome, TriggerState};
use tidemark_engine::composite::{self, Input, Modifiers, Source};
use tidemark_engine::fallback::{self, Workload};

use super::fallback::{health, section};
use super::{check, compared, text};

#[test]
fn formulas_see_and_give_what_the_cases_say() {
    let elsewhere = [("pair", "formulas know triggers by their names; metric names need no map from one to the other")];
    check("modifiers.json", modifiers, &elsewhere);
}

fn modifiers(op: &str, given: &Value, expect: &Value) -> Option<Vec<(String, Value, Value)>> {
    let found = match op {
        "inUse" => json!({"inUse": source(&given["advanced"]["scalingModifiers"]).in_use()}),
        "formula" => formula(given),
        "triggerValue" => trigger_value(given),
        _ => return None,
    };
    Some(compared(expect, &found))
}

fn source(modifiers: &Value) -> Source<'_> {
    Source {
        formula: text(modifiers, "formula"),
        target: text(modifiers, "target"),
        activation_target: text(modifiers, "activationTarget"),
        metric_type: text(modifiers, "metricType"),
    }
}

fn formula(given: &Value) -> Value {
    let source = source(given);
    let target = if source.target.is_empty() { "1" } else { source.target };
    let triggers = given["triggers"].as_object().unwrap();
    let names: Vec<&str> = triggers.keys().map(String::as_str).collect();
    let modifiers = Modifiers::build(Source { target, ..source }, &names).unwrap();
    let inputs: Vec<Input> = triggers.iter().enumerate().map(|(i, (name, value))| input(i, name, value)).collect();
    let composite = modifiers.evaluate(&inputs, section(&given["fallback"]).as_ref());
    json!({"value": composite.outcome.served().unwrap() / 1000, "metricName": composite::METRIC})
}

fn input(index: usize, name: &str, value: &Value) -> Input {
    let outcome = match value.as_f64() {
        Some(value) => Outcome::Read { value, active: true },
        None => Outcome::Nil { failures: 4, error: "down".into() },
    };
    Input { name: Some(name.into()), state: TriggerState { metric: format!("s{index}-metric").into(), outcome } }
}

/// What the formula `trigger ?? -7` makes of the trigger tells what it sees: -7 is no value that a metric can have, so a
/// result of 0 is nil. A trigger that fails is polled without a value.
fn trigger_value(given: &Value) -> Value {
    let fallback = section(&given["fallback"]);
    let health = health(&given["health"]);
    let beyond = fallback.is_some_and(|fallback| fallback.takes_over(health));
    let fetched = match given["polled"].as_f64() {
        Some(value) if !beyond => Outcome::Read { value, active: true },
        _ => Outcome::Failed { error: "down".into() },
    };
    let modifiers =
        Modifiers::build(Source { formula: "trigger ?? -7", target: "1", ..Source::default() }, &["trigger"]).unwrap();
    let outcome = fallback::apply(fallback.as_ref(), health, modifiers.target(), fetched, Workload::default());
    let state = TriggerState { metric: "s0-metric".into(), outcome };
    let name: Option<Arc<str>> = Some("trigger".into());
    let composite = modifiers.evaluate(&[Input { name, state }], fallback.as_ref());
    match composite.outcome.served().unwrap() {
        0 => json!({"value": null}),
        milli => json!({"value": milli / 1000}),
    }
}
