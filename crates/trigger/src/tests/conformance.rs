//! The rules on names, lists and targets that all trigger types share.

use std::fs;

use serde_json::{Value, json};

use super::input;
use crate::metric::{MetricType, external_name, metric_type, normalize, remove_index, same_name, target_milli};
use crate::parameters::{Pairs, Ranges, Text, Value as _};

const FILE: &str = "../../../shared/conformance/engine/util.json";

fn list(text: &str) -> Text<'_> {
    Text { text, hidden: false, separator: ',' }
}

fn ranges(text: &str) -> Result<Vec<i64>, String> {
    Ranges::parse(list(text)).map(|ranges| ranges.0)
}

/// The outcome of an operation; `None` for one that belongs elsewhere.
fn outcome(op: &str, given: &Value) -> Option<Value> {
    let text = |key: &str| given[key].as_str().unwrap_or_default();
    fn result<T: Into<Value>, E>(value: Result<T, E>) -> Value {
        value.map_or_else(|_| json!({"error": true}), |value| json!({"error": false, "value": value.into()}))
    }
    Some(match op {
        "normalize" => json!({"output": normalize(text("input"))}),
        "removeIndex" => {
            let index = given["triggerIndex"].as_u64().unwrap() as usize;
            match remove_index(text("metricName"), index) {
                Some(name) => json!({"error": false, "name": name}),
                None => json!({"error": true}),
            }
        }
        "parseRange" => result(ranges(&format!("{}-{}", text("from"), text("to")))),
        "parseIntList" => result(ranges(text("input"))),
        "parsePairs" => result(Pairs::parse(list(text("input"))).map(|pairs| json!(pairs.0))),
        "metricTargetType" => {
            let mut trigger = input(&[], &[], &[]);
            trigger.metric_type = Some(text("metricType").to_owned());
            match metric_type(&trigger) {
                Ok(metric_type) => json!({"error": false, "type": metric_type.as_str()}),
                Err(_) => json!({"error": true}),
            }
        }
        "containsName" => {
            let names = given["names"].as_array().unwrap().iter().filter_map(Value::as_str);
            json!({"result": names.into_iter().any(|name| same_name(name, text("name")))})
        }
        _ => return None,
    })
}

#[test]
fn names_lists_and_targets_are_those_of_keda() {
    let Ok(cases) = fs::read_to_string(FILE) else {
        assert!(std::env::var("TIDEMARK_REQUIRE_CONFORMANCE").as_deref() != Ok("1"), "{FILE} not found");
        println!("SKIPPED: {FILE} not found");
        return;
    };
    let cases: Vec<Value> = serde_json::from_str(&cases).unwrap();
    let mut seen = 0;
    for case in &cases {
        let Some(outcome) = outcome(case["op"].as_str().unwrap(), &case["given"]) else { continue };
        assert_eq!(outcome, case["expect"], "{}", case["id"]);
        seen += 1;
    }
    assert!(seen >= 30, "only {seen} cases were recognised");
}

#[test]
fn only_external_metric_types_are_accepted() {
    let of = |metric_type_text: Option<&str>| {
        let mut trigger = input(&[], &[], &[]);
        trigger.metric_type = metric_type_text.map(str::to_owned);
        metric_type(&trigger)
    };
    assert_eq!(of(None), Ok(MetricType::AverageValue));
    assert_eq!(of(Some("")), Ok(MetricType::AverageValue));
    assert!(of(Some("Utilization")).unwrap_err().message.contains("'Utilization' metric type is unsupported"));
    assert!(of(Some("average")).unwrap_err().message.contains("'average'"));
}

#[test]
fn a_metric_name_has_its_index_in_front_and_keeps_odd_characters() {
    assert_eq!(&*external_name(2, "a/b.c:d%e(f) G+_"), "s2-a-b-c-d-e-f- G+_");
    assert_eq!(remove_index("s12-x", 1), None);
}

#[test]
fn a_target_is_rounded_to_thousandths() {
    assert_eq!([target_milli(1.5), target_milli(0.0004), target_milli(-1.0)], [1500, 0, 0]);
}
