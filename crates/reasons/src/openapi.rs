//! The JSON of the reports as OpenAPI describes it.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::report::{GROUP, KIND, LIST_KIND, Page, Report, VERSION};

/// What the names of the schemas begin with.
const PREFIX: &str = "dev.tidemark.reasons.v1alpha1.";
const PLACE: &str = "#/components/schemas/";

/// The schemas of OpenAPI v3, by name. The report's is `dev.tidemark.reasons.v1alpha1.ScaledObjectReasons`, the list's
/// `...ScaledObjectReasonsList`.
pub fn schemas() -> Map<String, Value> {
    let mut generator = SchemaSettings::openapi3().into_generator();
    generator.subschema_for::<Report>();
    generator.subschema_for::<Page>();
    let found = generator.take_definitions(true);
    let renamed = found.into_iter().map(|(name, mut schema)| {
        point(&mut schema);
        let name = served_name(&name);
        if name == KIND || name == LIST_KIND {
            schema["x-kubernetes-group-version-kind"] = json!([{"group": GROUP, "version": VERSION, "kind": name}]);
        }
        (format!("{PREFIX}{name}"), schema)
    });
    renamed.collect()
}

fn served_name(name: &str) -> &str {
    match name {
        "Report" => KIND,
        "Page" => LIST_KIND,
        other => other,
    }
}

/// Leads references to the names that the schemas are served under.
fn point(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get_mut("$ref")
                && let Some(name) = reference.strip_prefix(PLACE)
            {
                *reference = format!("{PLACE}{PREFIX}{}", served_name(name));
            }
            members.values_mut().for_each(point);
        }
        Value::Array(items) => items.iter_mut().for_each(point),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_to_a_schema_and_every_field_is_described() {
        let all = schemas();
        let mut found = Vec::new();
        all.values().for_each(|schema| references(schema, &mut found));
        assert!(!found.is_empty());
        for reference in found {
            assert!(all.contains_key(reference.strip_prefix(PLACE).unwrap()), "{reference}");
        }
        let report = &all["dev.tidemark.reasons.v1alpha1.ScaledObjectReasons"];
        assert_eq!(report["x-kubernetes-group-version-kind"][0]["group"], GROUP);
        assert_eq!(report["properties"]["nextPoll"]["format"], "date-time");
        assert_eq!(report["properties"]["time"]["description"], "When this was told; ages are counted from here.");
        assert!(all.contains_key("dev.tidemark.reasons.v1alpha1.ScaledObjectReasonsList"));
    }
}
