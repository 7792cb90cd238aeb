//! Taking out what a schema does not know, and filling in what it does.

use serde_json::{Map, Value};

use super::{Schema, Type, inside};

impl Schema {
    /// Removes what the schema does not know and collects the places.
    pub(crate) fn prune(&self, value: &mut Value, root: bool, place: &str, unknown: &mut Vec<String>) {
        match value {
            Value::Object(fields) => self.prune_fields(fields, root, place, unknown),
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                for (index, item) in items.iter_mut().enumerate() {
                    schema.prune(item, false, &format!("{place}[{index}]"), unknown);
                }
            }
            _ => {}
        }
    }

    fn prune_fields(&self, fields: &mut Map<String, Value>, root: bool, place: &str, unknown: &mut Vec<String>) {
        let known = |name: &str| {
            let meta = (root || self.embedded) && matches!(name, "apiVersion" | "kind" | "metadata");
            meta || self.preserve
                || self.any_additional
                || self.additional.is_some()
                || self.properties.contains_key(name)
        };
        fields.retain(|name, value| {
            let keep = known(name);
            if !keep && !value.is_null() {
                unknown.push(inside(place, name));
            }
            keep
        });
        for (name, value) in fields.iter_mut() {
            if let Some(schema) = self.of(name).filter(|_| !(root && name == "metadata")) {
                schema.prune(value, false, &inside(place, name), unknown);
            }
        }
    }

    /// Fills in defaults, and takes out nulls where there can be none: they stand for an absent field.
    pub(crate) fn fill(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, schema) in &self.properties {
                    let vacant = fields.get(name).is_none_or(|value| value.is_null() && !schema.nullable);
                    if let Some(default) = schema.default.as_ref().filter(|_| vacant) {
                        fields.insert(name.clone(), default.clone());
                    }
                }
                fields.retain(|name, value| {
                    let Some(schema) = self.of(name) else { return true };
                    let stays = schema.nullable || schema.preserve || !value.is_null();
                    schema.fill(value);
                    stays
                });
            }
            Value::Array(items) => {
                for item in items {
                    if let Some(schema) = &self.items {
                        schema.fill(item);
                    }
                }
            }
            _ => {}
        }
    }

    /// An object as Kubernetes has it before anything is said about it: with the parts that every object has.
    pub(crate) fn skeleton(&self) -> Value {
        if self.kind == Some(Type::Array) {
            return Value::Null;
        }
        let parts = self.properties.iter().filter(|(_, schema)| schema.implied);
        Value::Object(parts.map(|(name, schema)| (name.clone(), schema.skeleton())).collect())
    }
}
