//! The schemas of Kubernetes' own types that custom resources embed. `cargo xtask schemas` takes them from the API
//! server.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::{Map, Value};

const COMMITTED: &str = include_str!("../schemas/core.json");

/// `batch/v1` JobSpec.
pub(crate) const JOB_SPEC: &str = "batch.v1.JobSpec";
/// `autoscaling/v2` HorizontalPodAutoscalerBehavior.
pub(crate) const BEHAVIOR: &str = "autoscaling.v2.HorizontalPodAutoscalerBehavior";

/// The schema of a type, references put in place.
pub(crate) fn schema(name: &str) -> JSONSchemaProps {
    read(name, COMMITTED).unwrap_or_default()
}

fn read(name: &str, committed: &str) -> serde_json::Result<JSONSchemaProps> {
    let document: Value = serde_json::from_str(committed)?;
    let none = Map::new();
    let types = document["schemas"].as_object().unwrap_or(&none);
    serde_json::from_value(resolve(types.get(name).unwrap_or(&Value::Null), types))
}

/// A copy in which every reference is replaced by what it refers to. What stands beside a reference prevails.
fn resolve(schema: &Value, types: &Map<String, Value>) -> Value {
    match schema {
        Value::Object(fields) => {
            let referred = fields.get("$ref").and_then(Value::as_str).and_then(|name| types.get(name));
            let mut resolved = match referred.map(|schema| resolve(schema, types)) {
                Some(Value::Object(referred)) => referred,
                _ => Map::new(),
            };
            let beside = fields.iter().filter(|(name, _)| *name != "$ref");
            resolved.extend(beside.map(|(name, value)| (name.clone(), resolve(value, types))));
            Value::Object(resolved)
        }
        Value::Array(items) => items.iter().map(|item| resolve(item, types)).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_committed_types_are_whole() {
        for name in [JOB_SPEC, BEHAVIOR] {
            let schema = read(name, COMMITTED).unwrap();
            assert_eq!(schema.type_.as_deref(), Some("object"), "{name}");
            assert!(!serde_json::to_string(&schema).unwrap().contains("\"$ref\""), "{name}");
        }
    }

    #[test]
    fn every_field_has_a_type() {
        fn walk(schema: &Value, place: &str) {
            let free = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"];
            let typed = schema["type"].is_string() || free.iter().any(|free| schema[*free] == true);
            assert!(typed, "{place}: {schema}");
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                walk(property, &format!("{place}.{name}"));
            }
            for below in ["items", "additionalProperties"] {
                if schema[below].is_object() {
                    walk(&schema[below], &format!("{place}.{below}"));
                }
            }
        }
        for name in [JOB_SPEC, BEHAVIOR] {
            walk(&serde_json::to_value(schema(name)).unwrap(), name);
        }
    }

    #[test]
    fn what_stands_beside_a_reference_prevails() {
        let types = json!({"a": {"type": "object", "properties": {"b": {"$ref": "b", "default": 1}}}, "b": {"type": "integer"}});
        let resolved = resolve(&json!({"$ref": "a"}), types.as_object().unwrap());
        assert_eq!(resolved, json!({"type": "object", "properties": {"b": {"type": "integer", "default": 1}}}));
    }
}
