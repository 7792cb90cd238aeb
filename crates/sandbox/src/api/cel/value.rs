//! The values of expressions: parts of an object, seen through its schema, and what is made of them.

use std::cmp::Ordering;
use std::sync::Arc;

use base64::Engine;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use tidemark_engine::quantity::Quantity;

use crate::api::schema::{ListType, Schema, Type};

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Arc<str>),
    Bytes(Arc<[u8]>),
    Duration(SignedDuration),
    Timestamp(Timestamp),
    /// A quantity of the Kubernetes API.
    Quantity(Quantity),
    /// A list of the object.
    Array(&'a [Value], Option<&'a Schema>),
    /// A map or an object of the object.
    Object(&'a Map<String, Value>, Option<&'a Schema>),
    /// A list that an expression has made.
    List(Arc<Vec<Val<'a>>>),
    /// A map that an expression has made.
    Map(Arc<Vec<(Val<'a>, Val<'a>)>>),
    Optional(Option<Arc<Val<'a>>>),
    Kind(&'static str),
}

impl<'a> Val<'a> {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(Arc::from(text))
    }

    /// A value of the object.
    pub(super) fn of(value: &'a Value, schema: Option<&'a Schema>) -> Self {
        let kind = schema.and_then(|schema| schema.kind);
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Number(number) => match (kind, number.as_i64()) {
                (Some(Type::Number), _) => Self::Double(number.as_f64().unwrap_or_default()),
                (_, Some(whole)) => Self::Int(whole),
                // A whole number may be written with a fraction of nothing.
                (Some(Type::Integer), None) => Self::Int(number.as_f64().unwrap_or_default() as i64),
                _ => Self::Double(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => Self::of_text(text, schema.and_then(|schema| schema.format.as_deref())),
            Value::Array(items) => Self::Array(items, schema),
            Value::Object(fields) => Self::Object(fields, schema),
        }
    }

    fn of_text(text: &str, format: Option<&str>) -> Self {
        match format {
            Some("date-time") => match text.parse() {
                Ok(time) => Self::Timestamp(time),
                Err(_) => Self::text(text),
            },
            Some("duration") => duration(text).map_or_else(|| Self::text(text), Self::Duration),
            Some("byte") => match base64::engine::general_purpose::STANDARD.decode(text) {
                Ok(bytes) => Self::Bytes(bytes.into()),
                Err(_) => Self::text(text),
            },
            _ => Self::text(text),
        }
    }

    /// The name of the type.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Array(..) | Self::List(_) => "list",
            Self::Object(..) | Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Kind(_) => "type",
        }
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Option<Vec<Val<'a>>> {
        match self {
            Self::Array(items, schema) => {
                let inner = schema.and_then(|schema| schema.items.as_deref());
                Some(items.iter().map(|item| Self::of(item, inner)).collect())
            }
            Self::List(items) => Some(items.to_vec()),
            _ => None,
        }
    }

    /// The keys and values of a map.
    pub(super) fn entries(&self) -> Option<Vec<(Val<'a>, Val<'a>)>> {
        match self {
            Self::Object(fields, schema) => {
                let entry = |(name, value): (&'a String, &'a Value)| {
                    (Self::text(name), Self::of(value, field_schema(*schema, name)))
                };
                Some(fields.iter().filter(|(_, value)| !value.is_null()).map(entry).collect())
            }
            Self::Map(entries) => Some(entries.to_vec()),
            _ => None,
        }
    }

    /// The value of a field, by its name in expressions; `None` if it is not there.
    pub(super) fn field(&self, name: &str) -> Option<Val<'a>> {
        match self {
            Self::Object(fields, schema) => {
                let known = schema.is_some_and(|schema| !schema.properties.is_empty());
                let name = if known { unescaped(name) } else { name.to_owned() };
                let value = fields.get(&name)?;
                let inner = field_schema(*schema, &name);
                let nullable = inner.is_some_and(|inner| inner.nullable);
                (!value.is_null() || nullable).then(|| Self::of(value, inner))
            }
            Self::Map(entries) => entries
                .iter()
                .find(|(key, _)| matches!(key, Self::Text(text) if **text == *name))
                .map(|(_, v)| v.clone()),
            _ => None,
        }
    }

    /// The value under a key.
    pub(super) fn under(&self, key: &Val<'a>) -> Option<Val<'a>> {
        match (self, key) {
            (Self::Object(fields, schema), Self::Text(name)) => {
                Some(Self::of(fields.get(&**name)?, field_schema(*schema, name)))
            }
            (Self::Map(entries), key) => entries.iter().find(|(found, _)| found.same(key)).map(|(_, v)| v.clone()),
            _ => None,
        }
    }

    /// How items of the list are told apart.
    pub(super) fn list_type(&self) -> Option<&'a ListType> {
        match self {
            Self::Array(_, Some(schema)) => Some(&schema.list),
            _ => None,
        }
    }

    /// Whether both are equal. Numbers are compared by their value, lists of Kubernetes by what their type says.
    pub(super) fn same(&self, other: &Val<'a>) -> bool {
        if let (Some(left), Some(right)) = (self.items(), other.items()) {
            let unordered =
                [self, other].iter().any(|list| matches!(list.list_type(), Some(ListType::Set | ListType::Map(_))));
            return left.len() == right.len()
                && if unordered {
                    left.iter().all(|item| right.iter().any(|theirs| item.same(theirs)))
                } else {
                    left.iter().zip(&right).all(|(mine, theirs)| mine.same(theirs))
                };
        }
        if let (Some(left), Some(right)) = (self.entries(), other.entries()) {
            return left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, value)| right.iter().any(|(theirs, other)| key.same(theirs) && value.same(other)));
        }
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Kind(left), Self::Kind(right)) => left == right,
            (Self::Bytes(left), Self::Bytes(right)) => left == right,
            (Self::Quantity(left), Self::Quantity(right)) => left == right,
            (Self::Optional(left), Self::Optional(right)) => match (left, right) {
                (Some(left), Some(right)) => left.same(right),
                (left, right) => left.is_none() && right.is_none(),
            },
            _ => self.order(other) == Some(Ordering::Equal),
        }
    }

    /// Which is greater, of values that can be ordered.
    pub(super) fn order(&self, other: &Val<'a>) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(left), Self::Bool(right)) => Some(left.cmp(right)),
            (Self::Int(left), Self::Int(right)) => Some(left.cmp(right)),
            (Self::Uint(left), Self::Uint(right)) => Some(left.cmp(right)),
            (Self::Int(left), Self::Uint(right)) => Some(i128::from(*left).cmp(&i128::from(*right))),
            (Self::Uint(left), Self::Int(right)) => Some(i128::from(*left).cmp(&i128::from(*right))),
            (Self::Text(left), Self::Text(right)) => Some(left.cmp(right)),
            (Self::Bytes(left), Self::Bytes(right)) => Some(left.cmp(right)),
            (Self::Duration(left), Self::Duration(right)) => Some(left.cmp(right)),
            (Self::Timestamp(left), Self::Timestamp(right)) => Some(left.cmp(right)),
            _ => self.number()?.partial_cmp(&other.number()?),
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Uint(number) => Some(*number as f64),
            Self::Double(number) => Some(*number),
            _ => None,
        }
    }
}

fn field_schema<'a>(schema: Option<&'a Schema>, name: &str) -> Option<&'a Schema> {
    schema?.of(name).map(|schema| &**schema)
}

/// A field's name from the one that expressions have for it: some characters and words cannot stand in them.
pub(super) fn unescaped(name: &str) -> String {
    const WORDS: &[&str] = &[
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    let word = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
    if let Some(word) = word.filter(|word| WORDS.contains(word)) {
        return word.to_owned();
    }
    name.replace("__dot__", ".").replace("__dash__", "-").replace("__slash__", "/").replace("__underscores__", "__")
}

/// A duration such as `1h2m3.5s`.
pub(super) fn duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0.0;
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];
        let (unit, factor) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        nanos += number * factor;
        rest = &rest[unit.len()..];
    }
    let nanos = if negative { -nanos } else { nanos };
    (nanos.abs() < i64::MAX as f64).then(|| SignedDuration::from_nanos(nanos as i64))
}
