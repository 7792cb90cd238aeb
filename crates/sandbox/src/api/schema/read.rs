//! Reading the structural schema of a custom resource.

use std::sync::Arc;

use regex::Regex;
use serde_json::Value;

use super::{ListType, Schema, Type};
use crate::api::cel::Rule;
use crate::api::failure::Cause;

/// What a schema of Kubernetes cannot have.
const UNSUPPORTED: &[&str] = &["$ref", "additionalItems", "definitions", "dependencies", "id", "patternProperties"];
/// Formats that a real server checks and this one does not.
const UNCHECKED_FORMATS: &[&str] = &[
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "mac",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

impl Schema {
    /// Reads the `openAPIV3Schema` of a CRD; `place` is where it stands, for the causes.
    pub(crate) fn read(value: &Value, place: &str, causes: &mut Vec<Cause>) -> Self {
        unsupported(value, place, causes);
        let sub = |field: &str, causes: &mut Vec<Cause>| {
            let value = &value[field];
            value.is_object().then(|| Box::new(Self::read(value, &format!("{place}.{field}"), causes)))
        };
        let level = |field: &str, causes: &mut Vec<Cause>| {
            let value = &value[field];
            value.is_object().then(|| Arc::new(Self::level(value, &format!("{place}.{field}"), causes)))
        };
        let subs = |field: &str, causes: &mut Vec<Cause>| -> Vec<Self> {
            let items = value[field].as_array().into_iter().flatten().enumerate();
            items.map(|(index, item)| Self::read(item, &format!("{place}.{field}[{index}]"), causes)).collect()
        };
        let bounds = |low: &str, high: &str| (value[low].as_u64(), value[high].as_u64());
        let bound = |field: &str, exclusive: &str| {
            value[field].as_f64().map(|bound| (bound, value[exclusive].as_bool().unwrap_or(false)))
        };
        let properties = value["properties"].as_object().into_iter().flatten();
        let mut schema = Self {
            kind: kind_of(value, place, causes),
            nullable: value["nullable"] == true,
            int_or_string: value["x-kubernetes-int-or-string"] == true,
            preserve: value["x-kubernetes-preserve-unknown-fields"] == true,
            embedded: value["x-kubernetes-embedded-resource"] == true,
            properties: properties
                .map(|(name, property)| {
                    let at = format!("{place}.properties[{name}]");
                    (name.clone(), Arc::new(Self::level(property, &at, causes)))
                })
                .collect(),
            additional: level("additionalProperties", causes),
            any_additional: value["additionalProperties"] == true,
            items: level("items", causes),
            required: texts(&value["required"]),
            allowed: value["enum"].as_array().cloned(),
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple: value["multipleOf"].as_f64(),
            length: bounds("minLength", "maxLength"),
            count: bounds("minItems", "maxItems"),
            size: bounds("minProperties", "maxProperties"),
            pattern: pattern_of(value, place, causes),
            format: value["format"].as_str().map(str::to_owned),
            list: ListType::read(value),
            atomic: value["x-kubernetes-map-type"] == "atomic",
            default: value.get("default").cloned(),
            all_of: subs("allOf", causes),
            any_of: subs("anyOf", causes),
            one_of: subs("oneOf", causes),
            not: sub("not", causes),
            ..Self::default()
        };
        schema.rules = Rule::read_all(&value["x-kubernetes-validations"], &schema, place, causes);
        schema.check_default(place, causes);
        schema
    }

    /// Reads the schema of a field or an item, which needs a type.
    fn level(value: &Value, place: &str, causes: &mut Vec<Cause>) -> Self {
        let free = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"];
        if value["type"].is_null() && free.iter().all(|free| value[*free] != true) {
            causes.push(Cause::required(format!("{place}.type"), "must not be empty for specified object fields"));
        }
        Self::read(value, place, causes)
    }

    fn check_default(&self, place: &str, causes: &mut Vec<Cause>) {
        let Some(default) = &self.default else { return };
        let mut refused = Vec::new();
        self.check(default, None, "", &mut refused);
        if !refused.is_empty() {
            causes.push(Cause::invalid(format!("{place}.default"), default, "must obey its own schema"));
        }
    }

    /// The formats, of this level and below, that nobody checks here.
    pub(crate) fn unchecked_formats(&self, found: &mut Vec<String>) {
        found.extend(
            self.format
                .iter()
                .filter(|format| self.kind == Some(Type::String) && UNCHECKED_FORMATS.contains(&format.as_str()))
                .map(|format| format!("format {format:?}")),
        );
        let below = self.properties.values().chain(&self.additional).chain(&self.items);
        for schema in below
            .map(|schema| &**schema)
            .chain(&self.all_of)
            .chain(&self.any_of)
            .chain(&self.one_of)
            .chain(self.not.as_deref())
        {
            schema.unchecked_formats(found);
        }
    }
}

impl Type {
    /// The type of that name.
    pub(in crate::api) fn named(name: &str) -> Option<Self> {
        let types = [Self::Object, Self::Array, Self::String, Self::Integer, Self::Number, Self::Boolean];
        types.into_iter().find(|kind| kind.name() == name)
    }
}

impl ListType {
    /// Reads the list type of a schema.
    pub(in crate::api) fn read(value: &Value) -> Self {
        match value["x-kubernetes-list-type"].as_str() {
            Some("set") => Self::Set,
            Some("map") => Self::Map(texts(&value["x-kubernetes-list-map-keys"])),
            _ => Self::Atomic,
        }
    }
}

/// Refuses what would be accepted and then not be done.
fn unsupported(value: &Value, place: &str, causes: &mut Vec<Cause>) {
    for field in UNSUPPORTED.iter().filter(|field| !value[**field].is_null()) {
        causes.push(Cause::forbidden(format!("{place}.{field}"), &format!("{field} is not supported")));
    }
    if value["uniqueItems"] == true {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        causes.push(Cause::forbidden(format!("{place}.uniqueItems"), detail));
    }
    if value["properties"].is_object() && value["additionalProperties"].is_object() {
        let detail = "additionalProperties and properties are mutual exclusive";
        causes.push(Cause::forbidden(format!("{place}.additionalProperties"), detail));
    }
    if value["type"] == "array" && !value["items"].is_object() {
        causes.push(Cause::required(format!("{place}.items"), "must be specified"));
    }
}

fn kind_of(value: &Value, place: &str, causes: &mut Vec<Cause>) -> Option<Type> {
    let found = Type::named(value["type"].as_str()?);
    if found.is_none() {
        let types = [Type::Object, Type::Array, Type::String, Type::Integer, Type::Number, Type::Boolean];
        let supported = types.map(|kind| Value::from(kind.name()));
        causes.push(Cause::unsupported(format!("{place}.type"), &value["type"], &supported));
    }
    found
}

fn pattern_of(value: &Value, place: &str, causes: &mut Vec<Cause>) -> Option<Regex> {
    match Regex::new(value["pattern"].as_str()?) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let detail = format!("must be a valid regular expression, but isn't: {error}");
            causes.push(Cause::invalid(format!("{place}.pattern"), &value["pattern"], &detail));
            None
        }
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
