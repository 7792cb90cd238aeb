//! The steps of a path, and the value below one.

use std::fmt;

use serde_json::{Map, Value};

use crate::api::schema::{ListType, Schema};

/// One step from a value to a part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::api) enum Step {
    /// A field of an object.
    Field(String),
    /// The item of a list with these keys, each as JSON text, ordered by name.
    Keys(Vec<(String, String)>),
    /// The item of a set, as JSON text.
    Item(String),
    /// The item at a place.
    Index(u64),
}

impl Step {
    /// Reads a key of `fieldsV1`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (form, rest) = text.split_once(':')?;
        match form {
            "f" => Some(Self::Field(rest.to_owned())),
            "k" => {
                let keys: Map<String, Value> = serde_json::from_str(rest).ok()?;
                let mut keys: Vec<_> = keys.into_iter().map(|(name, value)| (name, value.to_string())).collect();
                keys.sort();
                Some(Self::Keys(keys))
            }
            "v" => Some(Self::Item(serde_json::from_str::<Value>(rest).ok()?.to_string())),
            "i" => rest.parse().ok().map(Self::Index),
            _ => None,
        }
    }

    /// The key of `fieldsV1`.
    pub(super) fn written(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Keys(keys) => {
                let pairs: Vec<_> =
                    keys.iter().map(|(name, text)| format!("{}:{text}", Value::from(&**name))).collect();
                format!("k:{{{}}}", pairs.join(","))
            }
            Self::Item(text) => format!("v:{text}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    /// The step to an item of a list; `None` where items are not told apart, or the item lacks all keys.
    pub(super) fn to_item(list: &Schema, item: &Value) -> Option<Self> {
        match &list.list {
            ListType::Atomic => None,
            ListType::Set => Some(Self::Item(item.to_string())),
            ListType::Map(keys) => {
                let schema = list.items.as_ref()?;
                let mut found: Vec<_> =
                    keys.iter().filter_map(|key| Some((key.clone(), schema.key_of(item, key)?.to_string()))).collect();
                found.sort();
                (!found.is_empty()).then_some(Self::Keys(found))
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Keys(keys) => {
                let pairs: Vec<_> = keys.iter().map(|(name, text)| format!("{name}={text}")).collect();
                write!(f, "[{}]", pairs.join(","))
            }
            Self::Item(text) => write!(f, "[={text}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// How a value is taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form<'a> {
    /// Not at all.
    Leaf,
    /// Field by field.
    Map(&'a Map<String, Value>),
    /// Item by item.
    List(&'a [Value]),
}

impl<'a> Form<'a> {
    /// Without a schema objects are taken apart and lists are not.
    pub(super) fn of(schema: Option<&Schema>, value: &'a Value) -> Self {
        let listed = schema.is_some_and(|schema| schema.list != ListType::Atomic);
        let atomic = schema.is_some_and(|schema| schema.atomic);
        match value {
            Value::Object(fields) if !atomic => Self::Map(fields),
            Value::Array(items) if listed => Self::List(items),
            _ => Self::Leaf,
        }
    }

    pub(super) fn is_empty(self) -> bool {
        match self {
            Self::Leaf => false,
            Self::Map(fields) => fields.is_empty(),
            Self::List(items) => items.is_empty(),
        }
    }
}
