//! Values of the formula language. Copies are cheap (strings, arrays and maps are shared) and every value is bounded:
//! arrays and maps know their whole size and depth, shared parts counted each time they appear.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use super::limits::{MAX_MEMORY, MAX_VALUE_DEPTH};

/// What a formula, or a part of it, yields.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No value: a trigger without data, a missing key.
    Nil,
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating point number, NaN and infinities included. All trigger values are of this kind.
    Float(f64),
    /// Text.
    String(Arc<str>),
    /// A list of values of any kind.
    Array(Array),
    /// Values by key.
    Map(Map),
}

impl Value {
    /// The number, if the value is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Int(int) => Some(*int as f64),
            Value::Float(float) => Some(*float),
            _ => None,
        }
    }

    /// Whether this is the absence of a value.
    pub fn is_nil(&self) -> bool {
        matches!(self, Value::Nil)
    }

    /// What the function `type` of the language answers: `nil`, `bool`, `int`, `float`, `string`, `array` or `map`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Nil => "nil",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Map(_) => "map",
        }
    }

    pub(super) fn extent(&self) -> Extent {
        match self {
            Value::String(text) => Extent { bytes: size_of::<Value>() + text.len(), depth: 0 },
            Value::Array(array) => array.0.extent,
            Value::Map(map) => map.0.extent,
            _ => Extent { bytes: size_of::<Value>(), depth: 0 },
        }
    }
}

/// How much a value holds, its parts included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Extent {
    pub(super) bytes: usize,
    pub(super) depth: usize,
}

/// The extent of a container with these parts; `None` if it is larger or deeper than a value may be.
fn extent_around(parts: impl Iterator<Item = Extent>) -> Option<Extent> {
    let mut whole = Extent { bytes: size_of::<Value>(), depth: 0 };
    for part in parts {
        whole = Extent { bytes: whole.bytes.saturating_add(part.bytes), depth: whole.depth.max(part.depth) };
    }
    whole.depth += 1;
    (whole.bytes <= MAX_MEMORY && whole.depth <= MAX_VALUE_DEPTH).then_some(whole)
}

/// A list of values, shared by its copies.
#[derive(Debug, Clone, PartialEq)]
pub struct Array(Arc<Items>);

#[derive(Debug, PartialEq)]
struct Items {
    values: Vec<Value>,
    extent: Extent,
}

impl Array {
    /// `None` if the array is larger or nested deeper than a value may be.
    pub(super) fn new(values: Vec<Value>) -> Option<Array> {
        let extent = extent_around(values.iter().map(Value::extent))?;
        Some(Array(Arc::new(Items { values, extent })))
    }
}

impl Deref for Array {
    type Target = [Value];

    fn deref(&self) -> &[Value] {
        &self.0.values
    }
}

/// Values by key, in the keys' order, shared by its copies.
#[derive(Debug, Clone, PartialEq)]
pub struct Map(Arc<Entries>);

#[derive(Debug, PartialEq)]
struct Entries {
    values: BTreeMap<Key, Value>,
    extent: Extent,
}

impl Map {
    /// `None` if the map is larger or nested deeper than a value may be.
    pub(super) fn new(values: BTreeMap<Key, Value>) -> Option<Map> {
        let keys = values.keys().map(|key| key.0.extent());
        let extent = extent_around(keys.chain(values.values().map(Value::extent)))?;
        Some(Map(Arc::new(Entries { values, extent })))
    }

    pub(super) fn entries(&self) -> &BTreeMap<Key, Value> {
        &self.0.values
    }

    /// The value under this key, if there is one.
    pub fn get(&self, key: &Value) -> Option<&Value> {
        self.0.values.get(&Key::new(key.clone())?)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.values.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.values.is_empty()
    }
}

/// A key of a map: nil, a boolean, a number or a string. An integer and a float are never the same key.
#[derive(Debug, Clone)]
pub(super) struct Key(Value);

impl Key {
    /// `None` for arrays and maps, which cannot be keys.
    pub(super) fn new(value: Value) -> Option<Key> {
        (!matches!(value, Value::Array(_) | Value::Map(_))).then_some(Key(value))
    }

    pub(super) fn value(&self) -> &Value {
        &self.0
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        let rank = |value: &Value| match value {
            Value::Nil => 0,
            Value::Bool(_) => 1,
            Value::Int(_) => 2,
            Value::Float(_) => 3,
            _ => 4,
        };
        match (&self.0, &other.0) {
            (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
            (Value::Int(left), Value::Int(right)) => left.cmp(right),
            // 0.0 and -0.0 are the same key, as they are equal.
            (Value::Float(left), Value::Float(right)) => (left + 0.0).total_cmp(&(right + 0.0)),
            (Value::String(left), Value::String(right)) => left.cmp(right),
            (left, right) => rank(left).cmp(&rank(right)),
        }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key {}
