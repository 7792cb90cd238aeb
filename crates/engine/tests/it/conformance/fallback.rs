use serde_json::{Value, json};
use tidemark_engine::activation::Outcome;
use tidemark_engine::fallback::{self, Fallback, Health, Workload};
use tidemark_engine::metric::Target;
use tidemark_engine::verdict::Status;

use super::{check, compared, count, text};

#[test]
fn a_poll_under_a_fallback_gives_what_the_cases_say() {
    check("fallback.json", poll, &[]);
}

/// The section of a spec.
pub(super) fn section(spec: &Value) -> Option<Fallback> {
    let threshold = count(&spec["failureThreshold"])?;
    Fallback::new(threshold, count(&spec["replicas"]).unwrap(), text(spec, "behavior"))
}

pub(super) fn health(given: &Value) -> Health {
    Health::from_status(count(&given["numberOfFailures"]).unwrap_or(0))
}

/// One fetch: counted where there is a fallback, then put to use.
fn poll(_: &str, given: &Value, expect: &Value) -> Option<Vec<(String, Value, Value)>> {
    let fallback = section(&given["fallback"]);
    let milli = given["target"]["value"].as_i64().unwrap() * 1000;
    let target = match text(&given["target"], "type") {
        "Value" => Target::Value(milli),
        _ => Target::AverageValue(milli),
    };
    let fetched = match given["poll"]["value"].as_f64() {
        Some(value) => Outcome::Read { value, active: true },
        None => Outcome::Failed { error: "down".into() },
    };
    let before = health(&given["health"]);
    let after = if fallback.is_some() { before.after(given["poll"]["value"].is_number()) } else { before };
    let workload = Workload { replicas: count(&given["currentReplicas"]), ready_pods: None };
    let served = fallback::apply(fallback.as_ref(), after, target, fetched, workload).served();
    let other = health(&given["otherHealth"]);
    let condition = fallback::condition(fallback.as_ref(), [("s0-metric", after), ("s1-other", other)]);
    let found = json!({
        "error": served.is_err(),
        "value": served.ok().map(|milli| milli / 1000),
        "health": {"numberOfFailures": after.number_of_failures(), "status": after.status()},
        "fallbackCondition": condition.status == Status::True,
    });
    Some(compared(expect, &found))
}
