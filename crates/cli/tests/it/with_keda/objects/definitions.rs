//! KEDA's own definitions beside Tidemark's: what those have that these lack, an object would lose at a swap.
//!
//! `definitions.yaml` has what is not the same, each with its reason.

use std::collections::BTreeMap;

use serde_json::Value;

use super::known::{self, Known};
use super::seen::{self, Seen};
use crate::with_keda::processes::definitions;

const KNOWN: &str = "tests/it/with_keda/objects/definitions.yaml";

#[test]
fn the_definitions_are_those_of_keda() {
    let theirs = definitions();
    if theirs.is_empty() {
        return;
    }
    let ours = tidemark_api::crds().into_iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
    let differences = seen::differences(&all(theirs), &all(ours));
    let mut known = Known::read(KNOWN);
    let news: Vec<String> = known.news(&differences).into_iter().map(known::shown).collect();
    assert!(news.is_empty(), "{}", news.join("\n"));
    known.note(&differences);
    known.assert_all_seen();
}

fn all(definitions: Vec<Value>) -> Seen {
    let fields = |definition: &Value| {
        let mut fields = BTreeMap::new();
        flatten("", &definition["spec"], &mut fields);
        (definition["metadata"]["name"].as_str().unwrap().to_owned(), fields)
    };
    definitions.iter().map(fields).collect()
}

/// Every value in it by its path, but for what people read. Lists stand by the names of what is in them; the order of
/// texts has no meaning.
fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    let text = match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields.iter().filter(|(name, field)| *name != "description" || !field.is_string()) {
                flatten(&format!("{path}/{name}"), field, into);
            }
            return;
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, item) in items.iter().enumerate() {
                let key = item["name"].as_str().map_or_else(|| index.to_string(), str::to_owned);
                flatten(&format!("{path}/{key}"), item, into);
            }
            return;
        }
        Value::Array(items) => {
            let mut items: Vec<String> = items.iter().map(Value::to_string).collect();
            items.sort();
            items.join(" ")
        }
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), |number| number.to_string()),
        value => value.to_string(),
    };
    into.insert(path.replace("/versions/v1alpha1/schema/openAPIV3Schema", "").replace("/properties", ""), text);
}
