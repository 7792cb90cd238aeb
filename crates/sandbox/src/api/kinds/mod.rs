//! The kinds of Kubernetes as its own API server describes them: `openapi.json` holds their part of its `/openapi/v3`, a
//! definition a line (a test compares it with a real server and writes it anew), and `protobuf.json` the numbers of the
//! fields in Kubernetes' protobuf messages, which never change.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::schema::{ListType, PatchStrategy, Schema, Type};

const DEFINITIONS: &str = include_str!("openapi.json");
const NUMBERS: &str = include_str!("protobuf.json");
/// Before the name of a definition in references to it.
pub(super) const REFERENCE: &str = "#/components/schemas/";
/// Name of the description of `metadata`.
pub(super) const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

static SCHEMAS: LazyLock<BTreeMap<String, Arc<Schema>>> = LazyLock::new(|| {
    let definitions = definitions();
    let mut reader = Reader { definitions: &definitions, schemas: BTreeMap::new() };
    for name in definitions.as_object().into_iter().flatten().map(|(name, _)| name) {
        reader.definition(name);
    }
    reader.schemas
});

/// The schema of a definition, such as `io.k8s.api.apps.v1.Deployment`; of an unknown one, that of anything.
pub(super) fn schema(name: &str) -> Arc<Schema> {
    SCHEMAS.get(name).cloned().unwrap_or_else(anything)
}

/// The schema of `metadata`.
pub(super) fn metadata() -> Arc<Schema> {
    schema(METADATA)
}

/// All definitions as OpenAPI has them. They are read anew each time: nobody asks often.
pub(super) fn definitions() -> Value {
    // The file is sound, as the tests show.
    serde_json::from_str(DEFINITIONS).unwrap_or_default()
}

/// The numbers of the fields of protobuf messages, by the names of definitions. A name that begins with `+` is a message
/// whose fields stand in JSON beside the others.
pub(super) fn numbers() -> Value {
    // Sound, too.
    serde_json::from_str(NUMBERS).unwrap_or_default()
}

/// The name of a definition out of a reference to it.
pub(super) fn referred(schema: &Value) -> Option<&str> {
    let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str())?;
    reference.strip_prefix(REFERENCE)
}

fn anything() -> Arc<Schema> {
    Arc::new(Schema { preserve: true, ..Schema::default() })
}

struct Reader<'a> {
    definitions: &'a Value,
    schemas: BTreeMap<String, Arc<Schema>>,
}

impl Reader<'_> {
    fn definition(&mut self, name: &str) -> Arc<Schema> {
        if let Some(schema) = self.schemas.get(name) {
            return schema.clone();
        }
        // A definition that refers to itself, as JSON schemas do, is open where it does.
        self.schemas.insert(name.to_owned(), anything());
        let mut schema = self.level(&self.definitions[name]);
        let parts: Vec<&str> = name.rsplit('.').take(2).collect();
        match parts[..] {
            ["Quantity", _] => (schema.quantity, schema.preserve) = (true, false),
            ["IntOrString", _] => (schema.int_or_string, schema.preserve) = (true, false),
            ["Time" | "MicroTime", _] => {}
            [kind, version] => schema.name = Some(format!("{version}.{kind}").into()),
            _ => {}
        }
        schema.definition = Some(name.into());
        let schema = Arc::new(schema);
        self.schemas.insert(name.to_owned(), schema.clone());
        schema
    }

    fn level(&mut self, value: &Value) -> Schema {
        let mut schema = Schema {
            kind: value["type"].as_str().and_then(Type::named),
            format: value["format"].as_str().map(str::to_owned),
            list: ListType::read(value),
            atomic: value["x-kubernetes-map-type"] == "atomic",
            ..Schema::default()
        };
        for (name, property) in value["properties"].as_object().into_iter().flatten() {
            let mut part = self.part(property);
            // A list that is always written is there from the beginning, without items.
            let always = value["required"].as_array().is_some_and(|required| required.iter().any(|one| one == name));
            if always && property["type"] == "array" {
                part = Arc::new(Schema { implied: true, ..(*part).clone() });
            }
            schema.properties.insert(name.clone(), part);
        }
        schema.additional = value.get("additionalProperties").map(|of| self.part(of));
        schema.items = value.get("items").map(|of| self.part(of));
        let open = schema.properties.is_empty() && schema.additional.is_none();
        schema.preserve = open && matches!(schema.kind, None | Some(Type::Object));
        if schema.kind == Some(Type::Object) && open {
            schema.kind = None;
        }
        schema
    }

    /// A field, an item or a value of a map: a definition, or a level of its own.
    fn part(&mut self, value: &Value) -> Arc<Schema> {
        let implied = value["default"].as_object().is_some_and(serde_json::Map::is_empty);
        let strategy = PatchStrategy::read(value);
        let Some(name) = referred(value) else {
            let zero = |value: &&Value| **value != "" && **value != 0 && **value != false && !value.is_object();
            let key_default = value.get("default").filter(zero).cloned();
            return Arc::new(Schema { strategy, key_default, ..self.level(value) });
        };
        let definition = self.definition(name);
        if !implied && strategy == PatchStrategy::default() {
            return definition;
        }
        Arc::new(Schema { implied, strategy, ..(*definition).clone() })
    }
}

impl PatchStrategy {
    fn read(value: &Value) -> Self {
        let strategies = value["x-kubernetes-patch-strategy"].as_str().unwrap_or_default();
        Self {
            merge: strategies.split(',').any(|strategy| strategy == "merge"),
            key: value["x-kubernetes-patch-merge-key"].as_str().map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_description_says_how_lists_merge_and_what_every_object_has() {
        let deployment = schema("io.k8s.api.apps.v1.Deployment");
        let pod = &deployment.properties["spec"].properties["template"].properties["spec"];
        let containers = &pod.properties["containers"];
        assert_eq!(containers.list, ListType::Map(vec!["name".into()]));
        assert_eq!(containers.strategy, PatchStrategy { merge: true, key: Some("name".into()) });
        let port = containers.items.as_ref().unwrap().properties["ports"].items.clone().unwrap();
        assert_eq!(port.key_of(&json!({}), "protocol"), Some(&json!("TCP")));
        assert_eq!(port.key_of(&json!({"containerPort": 80}), "containerPort"), Some(&json!(80)));
        let skeleton = deployment.skeleton();
        assert!(skeleton["spec"]["strategy"].is_object() && skeleton["spec"]["selector"].is_null(), "{skeleton}");
        assert!(definitions().as_object().unwrap().len() > 200);
    }
}
