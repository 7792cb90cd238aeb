mod fallback;
mod modifiers;
mod scaled_job;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tidemark_engine::activation::{self, Action, Memory, Outcome, Policy, TriggerState};
use tidemark_engine::hpa::hpa_health;
use tidemark_engine::verdict::{Status, Verdict};
use tidemark_engine::{controls, quantity};

const FOLDER: &str = "../../../shared/conformance/engine";

/// Cases that are deliberately not met, each with its reason.
const DEVIATIONS: &[(&str, &str)] = &[
    ("pendingjob-7efd1fcc", OTHER_CONDITION),
    ("pendingjob-954dcb29", OTHER_CONDITION),
    ("pendingjob-db5b72e2", OTHER_CONDITION),
];

const OTHER_CONDITION: &str = "its pods have a condition Scheduled, which is not the PodScheduled that is asked for: types are compared as written";

/// What a case expects and what the engine says; `None` when the operation is answered elsewhere.
type Answer = fn(op: &str, given: &Value, expect: &Value) -> Option<Vec<(String, Value, Value)>>;

fn cases(file: &str) -> Option<Vec<Value>> {
    let path = PathBuf::from(FOLDER).join(file);
    if !path.exists() {
        let required = std::env::var("TIDEMARK_REQUIRE_CONFORMANCE").is_ok_and(|value| value == "1");
        assert!(!required, "{} not found", path.display());
        println!("SKIPPED: {} not found", path.display());
        return None;
    }
    Some(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
}

fn check(file: &str, answer: Answer, elsewhere: &[(&str, &str)]) {
    let Some(cases) = cases(file) else { return };
    let mut wrong = Vec::new();
    let mut skipped: BTreeMap<&str, usize> = BTreeMap::new();
    for case in &cases {
        let (id, op) = (case["id"].as_str().unwrap(), case["op"].as_str().unwrap());
        let Some(facts) = answer(op, &case["given"], &case["expect"]) else {
            *skipped.entry(op).or_default() += 1;
            continue;
        };
        assert!(!facts.is_empty(), "{id} expects nothing that is compared");
        let differing: Vec<_> = facts.into_iter().filter(|(_, expected, found)| expected != found).collect();
        let deviates = DEVIATIONS.iter().any(|(deviation, _)| *deviation == id);
        match (differing.is_empty(), deviates) {
            (true, true) => wrong.push(format!("{id} is listed as a deviation but is met")),
            (false, false) => wrong.push(format!("{id}: (what, expected, found) {differing:?}")),
            _ => {}
        }
    }
    for (op, count) in skipped {
        let reason = elsewhere.iter().find(|(name, _)| *name == op).map(|(_, reason)| *reason);
        println!("SKIPPED: {count} of {op}: {}", reason.unwrap_or_else(|| panic!("nothing answers {op}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What `expect` names beside what was found of it.
fn compared(expect: &Value, found: &Value) -> Vec<(String, Value, Value)> {
    let expected = expect.as_object().unwrap();
    expected.iter().map(|(what, value)| (what.clone(), value.clone(), found[what].clone())).collect()
}

fn text<'a>(given: &'a Value, key: &str) -> &'a str {
    given[key].as_str().unwrap_or_default()
}

fn count(value: &Value) -> Option<i32> {
    value.as_i64().map(|count| i32::try_from(count).unwrap())
}

#[test]
fn scaled_objects_are_scaled_as_the_cases_say() {
    check("scaledobject.json", scaled_object, &[("identifier", "names of objects are the operator's")]);
}

#[test]
fn numbers_become_the_quantities_of_the_cases() {
    let elsewhere = [
        ("containsName", "metric names are the trigger crate's"),
        ("metricTargetType", "metric types are the trigger crate's"),
        ("normalize", "metric names are the trigger crate's"),
        ("parseIntList", "parameters are the trigger crate's"),
        ("parsePairs", "parameters are the trigger crate's"),
        ("parseRange", "parameters are the trigger crate's"),
        ("removeIndex", "metric names are the trigger crate's"),
        ("resolveEnv", "container environments are the auth crate's"),
        ("valueByPath", "parameters are the trigger crate's"),
    ];
    check("util.json", numbers, &elsewhere);
}

#[test]
fn every_file_of_cases_is_checked_or_named() {
    let Ok(files) = std::fs::read_dir(FOLDER) else {
        println!("SKIPPED: {FOLDER} not found");
        return;
    };
    for file in files {
        let name = file.unwrap().file_name().into_string().unwrap();
        match name.as_str() {
            "fallback.json" | "modifiers.json" | "scaledjob.json" | "scaledobject.json" | "util.json" => {}
            "cron.json" => println!("SKIPPED: {name}: windows of cron are the triggers crate's"),
            _ => panic!("nothing checks {name}"),
        }
    }
}

fn numbers(op: &str, given: &Value, expect: &Value) -> Option<Vec<(String, Value, Value)>> {
    let number = match &given["value"] {
        Value::String(text) => text.trim_start_matches('+').parse().unwrap(),
        value => value.as_f64().unwrap_or_default(),
    };
    let milli = quantity::from_f64(number);
    let (what, found) = match op {
        "metricTargetMilli" | "metricInMilli" if milli == 0 => ("quantity", json!("zero")),
        "metricTargetMilli" | "metricInMilli" => ("quantity", json!("positive")),
        "metricTarget" => ("quantity", json!(quantity::format_milli(milli))),
        _ => return None,
    };
    Some(vec![(what.to_owned(), expect[what].clone(), found)])
}

fn scaled_object(op: &str, given: &Value, expect: &Value) -> Option<Vec<(String, Value, Value)>> {
    let found = match op {
        "scale" => scale(given),
        "restReplicas" => {
            let policy = policy(&given["spec"]);
            json!({"replicas": policy.rest_replicas(), "idle": policy.idle_replicas.is_some()})
        }
        "hpaBounds" => {
            let (minimum, maximum) = policy(&given["spec"]).hpa_bounds();
            json!({"minReplicas": minimum, "maxReplicas": maximum})
        }
        "hasPauseAnnotation" => json!({"result": controls::has_pause_annotation(&annotations(given))}),
        "needsPause" => json!({"result": controls::needs_pause(&annotations(given))}),
        "pausedReplicas" => match controls::paused_replicas(&annotations(given)) {
            Ok(replicas) => json!({"error": false, "replicas": replicas}),
            Err(_) => json!({"error": true}),
        },
        "hpaHealth" => match scaling_active(given["conditions"].as_array().map_or(&[], Vec::as_slice)) {
            Some(health) => json!({"status": health.0, "reason": health.1}),
            None => json!({"status": "", "reason": ""}),
        },
        _ => return None,
    };
    Some(compared(expect, &found))
}

/// One pass of the scale loop over fresh conditions.
fn scale(given: &Value) -> Value {
    let spec = &given["spec"];
    let replicas = i32::try_from(given["currentReplicas"].as_i64().unwrap()).unwrap();
    let mut triggers = vec![read(given["active"] == json!(true))];
    if given["error"] == json!(true) {
        triggers.push(TriggerState { metric: "s1-x".into(), outcome: Outcome::Failed { error: "down".into() } });
    }
    let asked = controls::read(&annotations(given)).unwrap();
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let memory = Memory { last_active: Some(now - Duration::from_secs(86_400)) };
    let decision = activation::decide(&policy(spec), asked, &triggers, 0, Some(replicas), memory, now);
    let is_true = |verdict: &Option<Verdict>| verdict.as_ref().is_some_and(|v| v.status == Status::True);
    let health = scaling_active(std::slice::from_ref(&given["hpaScalingActive"]));
    let event = match decision.action {
        Action::Activate { .. } => "KEDAScaleTargetActivated",
        Action::Deactivate { .. } => "KEDAScaleTargetDeactivated",
        _ => "",
    };
    json!({
        "replicas": decision.action.target().unwrap_or(replicas),
        "paused": asked.paused,
        "active": is_true(&decision.active_condition),
        "activeReason": decision.active_condition.as_ref().map(|v| v.reason),
        "lastActiveTimeSet": decision.last_active.is_some(),
        "ready": decision.ready_condition.as_ref().map(|v| v.status.as_str()),
        "readyReason": decision.ready_condition.as_ref().map(|v| v.reason),
        "hpaActive": health.as_ref().map(|health| health.0.clone()),
        "hpaActiveReason": health.as_ref().map(|health| health.1.clone()),
        "eventReason": event,
    })
}

fn read(active: bool) -> TriggerState {
    TriggerState { metric: "s0-x".into(), outcome: Outcome::Read { value: f64::from(u8::from(active)), active } }
}

/// Status and reason of HPAActive, from the HPA's conditions; one without a type is taken for ScalingActive.
fn scaling_active(conditions: &[Value]) -> Option<(String, String)> {
    let is_wanted = |condition: &&Value| condition["type"].as_str().unwrap_or("ScalingActive") == "ScalingActive";
    let condition = conditions.iter().filter(is_wanted).find(|condition| condition.is_object())?;
    let status = Status::from_word(text(condition, "status"));
    let health = hpa_health(status, text(condition, "reason"), text(condition, "message"));
    Some((health.status.to_string(), health.reason))
}

fn annotations(given: &Value) -> BTreeMap<String, String> {
    strings(&given["annotations"])
}

fn strings(map: &Value) -> BTreeMap<String, String> {
    let map = map.as_object().cloned().unwrap_or_default();
    map.into_iter().map(|(key, value)| (key, value.as_str().unwrap().to_owned())).collect()
}

fn policy(spec: &Value) -> Policy {
    Policy {
        min_replicas: count(&spec["minReplicaCount"]).unwrap_or(0),
        max_replicas: count(&spec["maxReplicaCount"]).unwrap_or(100),
        idle_replicas: count(&spec["idleReplicaCount"]),
        cooldown: Duration::from_secs(300),
        initial_cooldown: Duration::ZERO,
        fallback_replicas: count(&spec["fallback"]["replicas"]),
        created: "2025-01-01T00:00:00Z".parse().unwrap(),
    }
}
