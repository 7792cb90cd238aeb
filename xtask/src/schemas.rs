//! `cargo xtask schemas`: the schemas of Kubernetes' own types that our custom resources embed, out of the API server's
//! OpenAPI.

use std::collections::BTreeMap;
use std::env;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use crate::control_plane;
use crate::test::workspace;

/// The types that are embedded: the OpenAPI document (below `/openapi/v3/`), and the name in it.
pub const ROOTS: [(&str, &str); 2] = [
    ("apis/autoscaling/v2", "io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerBehavior"),
    ("apis/batch/v1", "io.k8s.api.batch.v1.JobSpec"),
];

/// Writes the committed file anew, or with `--check` only tells whether it is current. The work is done by the test that
/// otherwise checks, so that both look at the same API server in the same way.
///
/// # Errors
/// Unknown arguments; no control plane; no cargo. A failing test is no error but the exit code.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    let check = match arguments {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => bail!("usage: cargo xtask schemas [--check]"),
    };
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace())
        .args(["test", "--package", "tidemark-api", "--test", "it", "--", "core_schemas"])
        .env("KUBEBUILDER_ASSETS", control_plane::provide()?)
        .env("TIDEMARK_REQUIRE_CONTROL_PLANE", "1");
    if !check {
        cargo.env("TIDEMARK_UPDATE", "1");
    }
    let status = cargo.status().context("cannot run cargo")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The committed file: the schemas of [`ROOTS`] and of all that they refer to, one a line, in a form that a
/// CustomResourceDefinition takes once its references are put in place. `documents` are the OpenAPI documents, in the
/// order of `ROOTS`.
///
/// What a definition cannot have or should not say goes: descriptions, patch strategies, enumerations (Kubernetes checks
/// them where the object is used, and an older server must not refuse what a newer one knows) and the zero values that
/// stand in OpenAPI as the default of every required field.
///
/// # Errors
/// A type is missing, or says something that this function does not know.
pub fn distill(version: &str, documents: &[Value]) -> Result<String> {
    let mut found = BTreeMap::new();
    for ((_, root), document) in ROOTS.iter().zip(documents) {
        let mut wanted = vec![(*root).to_owned()];
        while let Some(name) = wanted.pop() {
            if found.contains_key(short(&name)) {
                continue;
            }
            let schema = document["components"]["schemas"][&name].as_object();
            let schema = schema.with_context(|| format!("the API server describes no {name}"))?;
            let (mut schema, mut references) = (simplify(schema, false).context(name.clone())?, Vec::new());
            refer(&mut schema, &mut references);
            schema.sort_all_objects();
            found.insert(short(&name).to_owned(), schema);
            wanted.append(&mut references);
        }
    }
    let lines: Vec<String> = found.iter().map(|(name, schema)| format!("{}: {schema}", json!(name))).collect();
    Ok(format!("{{\n\"kubernetes\": {},\n\"schemas\": {{\n{}\n}}\n}}\n", json!(version), lines.join(",\n")))
}

fn short(name: &str) -> &str {
    let prefixes = ["io.k8s.api.", "io.k8s.apimachinery.pkg.apis."];
    prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name)
}

/// The schemas of types that are not what their Go type says.
fn special(reference: &str) -> Option<Value> {
    const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    match reference.rsplit('.').next()? {
        "Quantity" => Some(json!({"anyOf": either, "pattern": QUANTITY, "x-kubernetes-int-or-string": true})),
        "IntOrString" => Some(json!({"anyOf": either, "x-kubernetes-int-or-string": true})),
        "Time" | "MicroTime" => Some(json!({"type": "string", "format": "date-time"})),
        // A definition cannot describe the metadata of an embedded object; without this all of it would be lost.
        "ObjectMeta" => Some(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})),
        _ => None,
    }
}

/// `required`: whether the value must be there, so that its zero value is no default.
fn simplify(schema: &Map<String, Value>, required: bool) -> Result<Value> {
    let mut simple = Map::new();
    for (keyword, value) in schema {
        match keyword.as_str() {
            "type"
            | "format"
            | "required"
            | "x-kubernetes-list-type"
            | "x-kubernetes-list-map-keys"
            | "x-kubernetes-map-type" => {
                simple.insert(keyword.clone(), value.clone());
            }
            "description"
            | "enum"
            | "x-kubernetes-group-version-kind"
            | "x-kubernetes-patch-merge-key"
            | "x-kubernetes-patch-strategy"
            | "x-kubernetes-unions" => {}
            "default" => {
                let zero = *value == "" || *value == 0 || *value == false;
                if *value != json!({}) && !(zero && required) {
                    simple.insert(keyword.clone(), value.clone());
                }
            }
            "properties" => {
                simple.insert(keyword.clone(), properties(value, schema.get("required").unwrap_or(&Value::Null))?);
            }
            "items" | "additionalProperties" => {
                let schema = value.as_object().with_context(|| format!("{keyword} is no schema: {value}"))?;
                simple.insert(keyword.clone(), simplify(schema, true)?);
            }
            "allOf" | "$ref" => {
                ensure!(
                    value.as_array().is_none_or(|all| all.len() == 1),
                    "{keyword} is more than one schema: {value}"
                );
                let reference = value.as_str().or_else(|| value[0]["$ref"].as_str());
                let reference = reference.with_context(|| format!("{keyword} is no reference: {value}"))?;
                let name = reference.rsplit('/').next().unwrap_or_default();
                match special(name) {
                    Some(Value::Object(schema)) => simple.extend(schema),
                    _ => drop(simple.insert("$ref".to_owned(), json!(name))),
                }
            }
            unknown => bail!("the keyword {unknown} is not known: {value}"),
        }
    }
    Ok(Value::Object(simple))
}

fn properties(value: &Value, required: &Value) -> Result<Value> {
    let required: Vec<&str> = required.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut properties = Map::new();
    for (name, schema) in value.as_object().into_iter().flatten() {
        let schema = schema.as_object().with_context(|| format!("{name} has no schema"))?;
        let schema = simplify(schema, required.contains(&name.as_str())).context(name.clone())?;
        ensure!(schema != json!({}), "nothing is said about {name}");
        properties.insert(name.clone(), schema);
    }
    Ok(Value::Object(properties))
}

/// Shortens the names that are referred to, and collects the long ones.
fn refer(schema: &mut Value, references: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                match value {
                    Value::String(reference) if name == "$ref" => {
                        references.push(reference.clone());
                        *reference = short(reference).to_owned();
                    }
                    _ => refer(value, references),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| refer(item, references)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simple(schema: Value) -> Value {
        simplify(schema.as_object().unwrap(), false).unwrap()
    }

    #[test]
    fn zero_values_are_defaults_only_where_the_field_is_optional() {
        let schema = json!({"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "default": ""},
            "service": {"type": "string", "default": ""},
            "protocol": {"type": "string", "default": "TCP", "enum": ["TCP", "UDP"]},
            "args": {"type": "array", "items": {"type": "string", "default": ""}},
        }});
        let wanted = json!({"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string"},
            "service": {"type": "string", "default": ""},
            "protocol": {"type": "string", "default": "TCP"},
            "args": {"type": "array", "items": {"type": "string"}},
        }});
        assert_eq!(simple(schema), wanted);
    }

    #[test]
    fn a_reference_keeps_what_stands_beside_it() {
        let reference = |name: &str| json!([{"$ref": format!("#/components/schemas/io.k8s.{name}")}]);
        let schema = json!({"properties": {
            "policies": {"type": "array", "x-kubernetes-list-type": "atomic", "items": {"default": {}, "allOf": reference("api.autoscaling.v2.P")}},
            "metadata": {"default": {}, "allOf": reference("apimachinery.pkg.apis.meta.v1.ObjectMeta")},
            "port": {"description": "a port", "allOf": reference("apimachinery.pkg.util.intstr.IntOrString")},
        }});
        let properties = &simple(schema)["properties"];
        assert_eq!(properties["policies"]["items"], json!({"$ref": "io.k8s.api.autoscaling.v2.P"}));
        assert_eq!(properties["policies"]["x-kubernetes-list-type"], "atomic");
        assert_eq!(properties["metadata"]["x-kubernetes-preserve-unknown-fields"], true);
        assert_eq!(properties["port"]["x-kubernetes-int-or-string"], true);
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        let schema = json!({"type": "string", "x-kubernetes-new": true});
        assert!(simplify(schema.as_object().unwrap(), false).is_err());
        let two = json!({"allOf": [{"$ref": "#/components/schemas/A"}, {"$ref": "#/components/schemas/B"}]});
        assert!(simplify(two.as_object().unwrap(), false).is_err());
    }
}
