//! The functions of the language.

pub(super) mod arrays;
mod conversions;
mod json;
mod maps;
mod numbers;
mod strings;

use super::meter::{Meter, Outcome};
use super::types::{Kinds, Type};
use super::value::Value;

pub(super) use maps::insert;

/// Functions of the language that need the time of day, or make values of that kind. They do not exist here.
pub(super) const TIME_DEPENDENT: [&str; 4] = ["now", "date", "duration", "timezone"];

/// What a function takes in one place.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) kinds: Kinds,
    /// If it is an array: what its elements may be.
    pub(super) elements: Kinds,
}

const fn a(kinds: Kinds) -> Parameter {
    Parameter { kinds, elements: Kinds::ANY }
}

const fn array_of(elements: Kinds) -> Parameter {
    Parameter { kinds: Kinds::ARRAY, elements }
}

/// A function of values.
#[derive(Debug)]
pub(super) struct Builtin {
    pub(super) name: &'static str,
    parameters: &'static [Parameter],
    more: More,
    /// The type of the result, from those of the arguments.
    pub(super) result: fn(&[Type]) -> Type,
    /// The arguments are of the kinds that the parameters tell; their elements are not checked.
    pub(super) run: fn(&mut Meter, &[Value]) -> Outcome,
}

/// How the number of arguments may vary.
#[derive(Debug, Clone, Copy)]
enum More {
    Exactly,
    /// So many of the last parameters may be left out.
    Optional(usize),
    /// The last parameter may be repeated.
    Repeated,
}

impl Builtin {
    pub(super) fn of(name: &str) -> Option<&'static Builtin> {
        BUILTINS.iter().flat_map(|group| group.iter()).find(|builtin| builtin.name == name)
    }

    /// The least and the largest number of arguments.
    pub(super) fn arity(&self) -> (usize, usize) {
        let count = self.parameters.len();
        match self.more {
            More::Exactly => (count, count),
            More::Optional(optional) => (count - optional, count),
            More::Repeated => (count, usize::MAX),
        }
    }

    /// The parameter that the argument at this place belongs to.
    pub(super) fn parameter(&self, place: usize) -> &'static Parameter {
        &self.parameters[place.min(self.parameters.len() - 1)]
    }
}

/// The names of all functions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let plain = BUILTINS.iter().flat_map(|group| group.iter()).map(|builtin| builtin.name);
    plain.chain(Iteration::ALL.iter().map(|(_, name, _)| *name))
}

static BUILTINS: [&[Builtin]; 6] = [
    numbers::FUNCTIONS,
    arrays::FUNCTIONS,
    maps::FUNCTIONS,
    strings::FUNCTIONS,
    conversions::FUNCTIONS,
    json::FUNCTIONS,
];

/// A function whose second argument is evaluated for each element of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Iteration {
    All,
    NoneOf,
    Any,
    One,
    Filter,
    Map,
    Count,
    Sum,
    Find,
    FindIndex,
    FindLast,
    FindLastIndex,
    GroupBy,
    SortBy,
    Reduce,
}

impl Iteration {
    const ALL: [(Iteration, &'static str, (usize, usize)); 15] = [
        (Iteration::All, "all", (2, 2)),
        (Iteration::NoneOf, "none", (2, 2)),
        (Iteration::Any, "any", (2, 2)),
        (Iteration::One, "one", (2, 2)),
        (Iteration::Filter, "filter", (2, 2)),
        (Iteration::Map, "map", (2, 2)),
        (Iteration::Count, "count", (1, 2)),
        (Iteration::Sum, "sum", (1, 2)),
        (Iteration::Find, "find", (2, 2)),
        (Iteration::FindIndex, "findIndex", (2, 2)),
        (Iteration::FindLast, "findLast", (2, 2)),
        (Iteration::FindLastIndex, "findLastIndex", (2, 2)),
        (Iteration::GroupBy, "groupBy", (2, 2)),
        (Iteration::SortBy, "sortBy", (2, 3)),
        (Iteration::Reduce, "reduce", (2, 3)),
    ];

    pub(super) fn of(name: &str) -> Option<Iteration> {
        Iteration::ALL.iter().find(|(_, known, _)| *known == name).map(|(iteration, ..)| *iteration)
    }

    pub(super) fn name(self) -> &'static str {
        Iteration::ALL[self as usize].1
    }

    /// The least and the largest number of arguments.
    pub(super) fn arity(self) -> (usize, usize) {
        Iteration::ALL[self as usize].2
    }
}
