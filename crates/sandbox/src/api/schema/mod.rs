//! What an object may look like: of a kind of Kubernetes by the API's own description, of a custom resource by its
//! structural schema.

mod check;
mod decode;
mod prune;
mod quantity;
mod read;

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;
use serde_json::Value;

use super::cel::Rule;

/// The `type` of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }

    fn holds(self, value: &Value) -> bool {
        match self {
            Self::Object => value.is_object(),
            Self::Array => value.is_array(),
            Self::String => value.is_string(),
            Self::Integer => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
        }
    }
}

/// A bound, and whether the bound itself is outside.
pub(crate) type Bound = (f64, bool);

/// How the items of a list are told apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum ListType {
    /// Not at all: the list is one value.
    #[default]
    Atomic,
    /// By their value.
    Set,
    /// By these fields.
    Map(Vec<String>),
}

/// What a strategic merge patch does with a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PatchStrategy {
    /// A list is merged and not replaced.
    pub merge: bool,
    /// The field by which its items are the same.
    pub key: Option<String>,
}

/// One level of a schema.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schema {
    /// The name of a type of Kubernetes, such as `v1.Container`.
    pub name: Option<Arc<str>>,
    /// The whole name of its description.
    pub definition: Option<Arc<str>>,
    pub kind: Option<Type>,
    pub nullable: bool,
    pub int_or_string: bool,
    pub quantity: bool,
    pub preserve: bool,
    /// The value is an object of Kubernetes, whose `apiVersion`, `kind` and `metadata` need no schema.
    pub embedded: bool,
    pub properties: BTreeMap<String, Arc<Schema>>,
    pub additional: Option<Arc<Schema>>,
    pub any_additional: bool,
    pub items: Option<Arc<Schema>>,
    pub list: ListType,
    /// An object that is one value.
    pub atomic: bool,
    /// A field that every object has, be it empty.
    pub implied: bool,
    pub strategy: PatchStrategy,
    pub required: Vec<String>,
    pub allowed: Option<Vec<Value>>,
    pub minimum: Option<Bound>,
    pub maximum: Option<Bound>,
    pub multiple: Option<f64>,
    pub length: (Option<u64>, Option<u64>),
    pub count: (Option<u64>, Option<u64>),
    pub size: (Option<u64>, Option<u64>),
    pub pattern: Option<Regex>,
    pub format: Option<String>,
    /// What is filled in.
    pub default: Option<Value>,
    /// What is meant by an absent key of a list's item, without being filled in.
    pub key_default: Option<Value>,
    pub rules: Vec<Arc<Rule>>,
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Box<Schema>>,
}

impl Schema {
    /// The schema of a field.
    pub(crate) fn of(&self, name: &str) -> Option<&Arc<Self>> {
        self.properties.get(name).or(self.additional.as_ref())
    }

    /// The value by which an item of a list is known.
    pub(crate) fn key_of<'a>(&'a self, item: &'a Value, key: &str) -> Option<&'a Value> {
        item.get(key).filter(|value| !value.is_null()).or_else(|| {
            let schema = self.properties.get(key)?;
            schema.default.as_ref().or(schema.key_default.as_ref())
        })
    }
}

fn inside(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
}
