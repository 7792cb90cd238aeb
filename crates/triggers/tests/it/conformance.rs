//! The cases of every trigger type that is built: accepted or refused, metric names, parsed parameters.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use bytes::Bytes;
use futures::FutureExt;
use jiff::Timestamp;
use serde_json::Value;
use tidemark_clock::Clock;
use tidemark_trigger::{Door, Secret, Trigger, TriggerInput, TriggerType};
use tidemark_triggers::{CATALOGUE, find};

use crate::deviations::DEVIATIONS;

const FOLDER: &str = "../../../shared/conformance";

/// What stands for the server of cases that need one to tell whether a trigger is valid.
const SERVER: &str = "http://source.test";

/// The cases of a file; `None`, with a visible line, when the data is not there and need not be.
pub fn cases(file: &str) -> Option<Vec<Value>> {
    let path = format!("{FOLDER}/{file}");
    match fs::read_to_string(&path) {
        Ok(text) => Some(serde_json::from_str(&text).unwrap()),
        Err(error) => {
            let required = std::env::var("TIDEMARK_REQUIRE_CONFORMANCE").as_deref() == Ok("1");
            assert!(!required, "{path} not found: {error}");
            println!("SKIPPED: {path} not found");
            None
        }
    }
}

/// The inputs of a case.
pub struct Case {
    pub input: TriggerInput,
    server: Option<(u16, String)>,
    /// The operator's own environment plays a part, which triggers do not see.
    operator_env: bool,
}

impl Case {
    /// The inputs as the file has them.
    pub fn of(trigger_type: &str, case: &Value) -> Self {
        let text = |key: &str| case[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let server = case.get("server").map(|server| {
            let status = server["status"].as_u64().unwrap_or(200) as u16;
            let body = &server["body"];
            (status, body.as_str().map_or_else(|| body.to_string(), str::to_owned))
        });
        let map = |key: &str| {
            let entries = case[key].as_object().into_iter().flatten();
            let entries = entries
                .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().replace("{{server}}", SERVER)));
            entries.collect::<BTreeMap<String, String>>()
        };
        let secrets = |key| map(key).into_iter().map(|(key, value)| (key, Secret::from(value))).collect();
        let input = TriggerInput {
            index: case["triggerIndex"].as_u64().unwrap_or_default() as usize,
            trigger_type: trigger_type.to_owned(),
            name: None,
            metadata: map("metadata"),
            auth: secrets("auth"),
            env: secrets("env"),
            pod_identity: text("podIdentity").filter(|provider| provider != "none"),
            metric_type: text("metricType"),
            as_metric_source: case["asMetricSource"].as_bool().unwrap_or_default(),
            namespace: text("namespace").unwrap_or_else(|| "default".to_owned()),
            object: "object".to_owned(),
        };
        Self { input, server, operator_env: case.get("operatorEnv").is_some() }
    }

    /// Whether the trigger can be built: parsed, and connected where the case has a server.
    async fn build(&self) -> Result<std::sync::Arc<dyn Trigger>, String> {
        let trigger = tidemark_triggers::parse(&self.input).map_err(|error| error.to_string())?;
        if let Some((status, body)) = self.server.clone() {
            let door = Door::in_process(Clock::starting_at(Timestamp::UNIX_EPOCH), move |_| {
                let reply = http::Response::builder().status(status).body(Bytes::from(body.clone()));
                async move { Ok(reply.unwrap()) }.boxed()
            });
            trigger.connect(&door).await.map_err(|error| error.to_string())?;
        }
        Ok(trigger)
    }

    /// What is not as expected.
    async fn differences(&self, known: &TriggerType, expect: &Value) -> Vec<String> {
        let trigger = self.build().await;
        let valid = expect["valid"].as_bool().unwrap();
        let trigger = match trigger {
            Ok(_) if !valid => return vec!["is accepted, should be refused".to_owned()],
            Err(error) if valid => return vec![format!("is refused, should be accepted: {error}")],
            Err(_) => return vec![],
            Ok(trigger) => trigger,
        };
        let mut wrong = Vec::new();
        let names: Vec<_> =
            trigger.metrics().iter().filter_map(|metric| metric.external_name().map(ToString::to_string)).collect();
        if let Some(name) = expect.get("metricName").filter(|name| names.first().map(String::as_str) != name.as_str()) {
            wrong.push(format!("metric names {names:?}, expected {name}"));
        }
        if let Some(within) = expect["metricNamesWithin"].as_array() {
            let outside = names.iter().filter(|name| !within.iter().any(|known| known == name.as_str()));
            wrong.extend(outside.map(|name| format!("metric name {name} is not expected")));
        }
        if let Some(source) = expect["metricSource"].as_str() {
            let others = trigger.metrics().iter().filter(|metric| metric.source() != source);
            wrong.extend(others.map(|metric| format!("metric source {}, expected {source}", metric.source())));
        }
        if let Some(expected) = expect["parsed"].as_object() {
            let parsed = (known.inspect)(&self.input, |secret| secret.expose().to_owned()).unwrap_or_default();
            let others = expected.iter().filter(|(name, value)| !same(parsed.get(*name), value));
            wrong.extend(others.map(|(name, value)| {
                format!("parsed {name} is {}, expected {value}", parsed.get(name).unwrap_or(&Value::Null))
            }));
        }
        wrong
    }
}

/// Whether a parsed value is the expected one. One that is unset is as good as an empty one; numbers compare as numbers.
fn same(parsed: Option<&Value>, expected: &Value) -> bool {
    match (parsed, expected) {
        (None, expected) => empty(expected),
        (Some(Value::Number(a)), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Some(Value::Array(a)), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(Some(a), b))
        }
        (Some(Value::Object(a)), Value::Object(b)) => {
            a.keys().chain(b.keys()).all(|key| same(a.get(key), b.get(key).unwrap_or(&Value::Null)))
        }
        (Some(parsed), expected) => parsed == expected || (empty(parsed) && empty(expected)),
    }
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(empty),
    }
}

#[tokio::test(start_paused = true)]
async fn triggers_are_accepted_refused_and_named_as_by_keda() {
    let (mut failed, mut ids, mut deviating) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for known in CATALOGUE {
        let Some(cases) = cases(&format!("triggers/{}.json", known.name)) else { continue };
        for case in &cases {
            let id = case["id"].as_str().unwrap().to_owned();
            let given = Case::of(known.name, case);
            if given.operator_env {
                println!("SKIPPED: {id} is about the operator's environment");
                continue;
            }
            let wrong = given.differences(known, &case["expect"]).await;
            if DEVIATIONS.iter().any(|(known, _)| *known == id) {
                if !wrong.is_empty() {
                    deviating.insert(id.clone());
                }
            } else if !wrong.is_empty() {
                failed.push(format!("{id}: {}", wrong.join("; ")));
            }
            ids.insert(id);
        }
    }
    if ids.is_empty() {
        return;
    }
    for (id, reason) in DEVIATIONS {
        println!("DEVIATION: {id}: {reason}");
        if !deviating.contains(*id) {
            failed.push(format!("{id}: is on the list of deviations and does not deviate"));
        }
    }
    println!("{} cases of {} trigger types", ids.len(), CATALOGUE.len());
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn types_that_are_not_built_are_named() {
    let Ok(files) = fs::read_dir(format!("{FOLDER}/triggers")) else {
        println!("SKIPPED: {FOLDER}/triggers not found");
        return;
    };
    let names = files.filter_map(|file| file.ok()?.file_name().to_str()?.strip_suffix(".json").map(str::to_owned));
    let missing: BTreeSet<_> = names.filter(|name| find(name).is_err()).collect();
    let missing: Vec<_> = missing.iter().map(String::as_str).collect();
    println!("SKIPPED: {} trigger types are not built: {}", missing.len(), missing.join(" "));
    assert!(CATALOGUE.iter().all(|known| !missing.contains(&known.name)));
}

#[test]
fn values_compare_by_meaning() {
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    for (parsed, expected) in [("20.0", "20"), (r#"["a"]"#, r#"["a"]"#), (r#"{"seconds":5.0}"#, r#"{"seconds":5}"#)] {
        assert!(same(Some(&value(parsed)), &value(expected)), "{parsed}");
    }
    for (parsed, expected) in [("20", "21"), ("\"20\"", "20"), (r#"["a","b"]"#, r#"["a"]"#), ("true", "false")] {
        assert!(!same(Some(&value(parsed)), &value(expected)), "{parsed}");
    }
    assert!(same(None, &value("\"\"")) && same(None, &value("0")) && !same(None, &value("1")));
}
