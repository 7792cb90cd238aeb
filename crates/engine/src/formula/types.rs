//! What is known about a value before the formula runs: the kinds that it can have, and those of its elements.

use std::fmt;
use std::sync::Arc;

use super::value::Value;

/// A set of kinds of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kinds(u8);

impl Kinds {
    pub(super) const NONE: Kinds = Kinds(0);
    pub(super) const NIL: Kinds = Kinds(1);
    pub(super) const BOOL: Kinds = Kinds(2);
    pub(super) const INT: Kinds = Kinds(4);
    pub(super) const FLOAT: Kinds = Kinds(8);
    pub(super) const STRING: Kinds = Kinds(16);
    pub(super) const ARRAY: Kinds = Kinds(32);
    pub(super) const MAP: Kinds = Kinds(64);
    pub(super) const NUMBER: Kinds = Kinds::INT.or(Kinds::FLOAT);
    pub(super) const KEY: Kinds = Kinds(31);
    pub(super) const ANY: Kinds = Kinds(127);

    const NAMES: [(Kinds, &'static str); 7] = [
        (Kinds::BOOL, "bool"),
        (Kinds::INT, "int"),
        (Kinds::FLOAT, "float"),
        (Kinds::STRING, "string"),
        (Kinds::ARRAY, "array"),
        (Kinds::MAP, "map"),
        (Kinds::NIL, "nil"),
    ];

    pub(super) const fn or(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    pub(super) const fn and(self, other: Kinds) -> Kinds {
        Kinds(self.0 & other.0)
    }

    pub(super) const fn without(self, other: Kinds) -> Kinds {
        Kinds(self.0 & !other.0)
    }

    pub(super) const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether there is a kind in both.
    pub(super) const fn meets(self, other: Kinds) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether all kinds are among the others.
    pub(super) const fn within(self, other: Kinds) -> bool {
        self.0 & !other.0 == 0
    }

    pub(super) fn of(value: &Value) -> Kinds {
        match value {
            Value::Nil => Kinds::NIL,
            Value::Bool(_) => Kinds::BOOL,
            Value::Int(_) => Kinds::INT,
            Value::Float(_) => Kinds::FLOAT,
            Value::String(_) => Kinds::STRING,
            Value::Array(_) => Kinds::ARRAY,
            Value::Map(_) => Kinds::MAP,
        }
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if Kinds::ANY.within(*self) || self.is_none() {
            return formatter.write_str("any");
        }
        let names: Vec<_> = Kinds::NAMES.iter().filter(|(kind, _)| kind.within(*self)).map(|(_, name)| *name).collect();
        formatter.write_str(&names.join(" or "))
    }
}

/// How deep the elements of arrays of arrays are known. Beyond, they can be anything.
const KNOWN_LEVELS: usize = 8;

/// The kinds that a value can have. No kind at all is the element of an array that is known to be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Type {
    pub(super) kinds: Kinds,
    /// What an array holds; `None` when that is not known, or it is no array.
    element: Option<Arc<Type>>,
}

impl From<Kinds> for Type {
    fn from(kinds: Kinds) -> Type {
        Type { kinds, element: None }
    }
}

impl Type {
    pub(super) fn any() -> Type {
        Kinds::ANY.into()
    }

    pub(super) fn array(element: Type) -> Type {
        let known = element.levels() < KNOWN_LEVELS;
        Type { kinds: Kinds::ARRAY, element: known.then(|| Arc::new(element)) }
    }

    fn levels(&self) -> usize {
        self.element.as_ref().map_or(0, |element| element.levels() + 1)
    }

    /// What an element of this array can be.
    pub(super) fn element(&self) -> Type {
        self.element.as_deref().cloned().unwrap_or_else(Type::any)
    }

    pub(super) fn union(&self, other: &Type) -> Type {
        let element = match (self.kinds.meets(Kinds::ARRAY), other.kinds.meets(Kinds::ARRAY)) {
            (true, true) => match (&self.element, &other.element) {
                (Some(left), Some(right)) => Some(Arc::new(left.union(right))),
                _ => None,
            },
            (true, false) => self.element.clone(),
            (false, _) => other.element.clone(),
        };
        Type { kinds: self.kinds.or(other.kinds), element }
    }

    /// The same without these kinds.
    pub(super) fn without(&self, kinds: Kinds) -> Type {
        Type { kinds: self.kinds.without(kinds), element: self.element.clone() }
    }

    /// Only these kinds; any of them when nothing is known.
    pub(super) fn only(&self, kinds: Kinds) -> Type {
        let rest = self.kinds.and(kinds);
        Type { kinds: if rest.is_none() { kinds } else { rest }, element: self.element.clone() }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.element {
            Some(element) if self.kinds == Kinds::ARRAY && !element.kinds.is_none() => {
                write!(formatter, "array of {element}")
            }
            _ => self.kinds.fmt(formatter),
        }
    }
}
