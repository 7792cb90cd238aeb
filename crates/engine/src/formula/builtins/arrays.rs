//! Functions of arrays.

use super::{Builtin, More, Parameter, a, array_of};
use crate::formula::error::EvalProblem;
use crate::formula::meter::{Meter, Outcome};
use crate::formula::operators::{by_size, equal, integer, unsuitable};
use crate::formula::types::{Kinds, Type};
use crate::formula::value::{Array, Value};

const ARRAY: Parameter = a(Kinds::ARRAY);

pub(super) const FUNCTIONS: &[Builtin] = &[
    Builtin {
        name: "len",
        parameters: &[a(Kinds::ARRAY.or(Kinds::MAP).or(Kinds::STRING))],
        more: More::Exactly,
        result: |_| Kinds::INT.into(),
        run: |meter, arguments| {
            let length = match &arguments[0] {
                Value::Array(items) => items.len(),
                Value::Map(map) => map.len(),
                Value::String(text) => {
                    meter.scan(text.len())?;
                    text.chars().count()
                }
                other => return Err(unsuitable(other, "len", "an array, a map or a string")),
            };
            Ok(Value::Int(length as i64))
        },
    },
    element("first", |_, arguments| Ok(items("first", &arguments[0])?.first().cloned().unwrap_or(Value::Nil))),
    element("last", |_, arguments| Ok(items("last", &arguments[0])?.last().cloned().unwrap_or(Value::Nil))),
    Builtin {
        name: "take",
        parameters: &[ARRAY, a(Kinds::INT)],
        more: More::Exactly,
        result: |arguments| arguments[0].only(Kinds::ARRAY),
        run: |meter, arguments| {
            let (items, count) = (items("take", &arguments[0])?, integer(&arguments[1], "take")?);
            let count = usize::try_from(count)
                .map_err(|_| EvalProblem::Argument(format!("`take` cannot take {count} elements")))?;
            copied(meter, &items[..count.min(items.len())])
        },
    },
    same("reverse", |meter, arguments| {
        let items = items("reverse", &arguments[0])?;
        allocate(meter, items)?;
        meter.array(items.iter().rev().cloned().collect())
    }),
    same("uniq", |meter, arguments| {
        let items = items("uniq", &arguments[0])?;
        allocate(meter, items)?;
        let mut found: Vec<Value> = Vec::new();
        'items: for item in items.iter() {
            for other in &found {
                if equal(meter, item, other)? {
                    continue 'items;
                }
            }
            found.push(item.clone());
        }
        meter.array(found)
    }),
    Builtin {
        name: "concat",
        parameters: &[ARRAY],
        more: More::Repeated,
        result: |arguments| {
            let first = arguments[0].only(Kinds::ARRAY);
            arguments[1..].iter().fold(first, |all, argument| all.union(&argument.only(Kinds::ARRAY)))
        },
        run: |meter, arguments| {
            let mut all = Vec::new();
            for argument in arguments {
                let items = items("concat", argument)?;
                allocate(meter, items)?;
                all.extend_from_slice(items);
            }
            meter.array(all)
        },
    },
    Builtin {
        name: "flatten",
        parameters: &[ARRAY],
        more: More::Exactly,
        result: |arguments| {
            let mut element = arguments[0].element();
            while element.kinds == Kinds::ARRAY {
                element = element.element();
            }
            if element.kinds.meets(Kinds::ARRAY) { Kinds::ARRAY.into() } else { Type::array(element) }
        },
        run: |meter, arguments| {
            let mut flat = Vec::new();
            flatten(meter, items("flatten", &arguments[0])?, &mut flat)?;
            meter.array(flat)
        },
    },
    Builtin {
        name: "sort",
        parameters: &[array_of(Kinds::NUMBER.or(Kinds::STRING)), a(Kinds::STRING)],
        more: More::Optional(1),
        result: |arguments| arguments[0].only(Kinds::ARRAY),
        run: |meter, arguments| {
            let items = items("sort", &arguments[0])?;
            let keyed = items.iter().map(|item| (item.clone(), item.clone())).collect();
            sorted(meter, "sort", keyed, arguments.get(1))
        },
    },
    Builtin {
        name: "get",
        parameters: &[a(Kinds::ARRAY.or(Kinds::MAP)), a(Kinds::KEY)],
        more: More::Exactly,
        result: |arguments| {
            let within = &arguments[0];
            if within.kinds == Kinds::ARRAY { within.element() } else { Type::any() }
        },
        run: |_, arguments| {
            Ok(match (&arguments[0], &arguments[1]) {
                (Value::Array(items), Value::Int(index)) => at(items, *index).cloned().unwrap_or(Value::Nil),
                (Value::Map(map), key) => map.get(key).cloned().unwrap_or(Value::Nil),
                _ => Value::Nil,
            })
        },
    },
];

type Run = fn(&mut Meter, &[Value]) -> Outcome;

const fn element(name: &'static str, run: Run) -> Builtin {
    Builtin { name, parameters: &[ARRAY], more: More::Exactly, result: |arguments| arguments[0].element(), run }
}

const fn same(name: &'static str, run: Run) -> Builtin {
    Builtin {
        name,
        parameters: &[ARRAY],
        more: More::Exactly,
        result: |arguments| arguments[0].only(Kinds::ARRAY),
        run,
    }
}

pub(super) fn items<'v>(function: &str, value: &'v Value) -> Outcome<&'v Array> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(unsuitable(other, function, "an array")),
    }
}

/// The element at an index; negative ones count from the end.
pub(in crate::formula) fn at(items: &[Value], index: i64) -> Option<&Value> {
    let index = if index < 0 { index.checked_add(i64::try_from(items.len()).ok()?)? } else { index };
    items.get(usize::try_from(index).ok()?)
}

fn allocate(meter: &mut Meter, items: &[Value]) -> Outcome<()> {
    meter.allocate_values(items.len())
}

/// These elements as an array of their own.
pub(in crate::formula) fn copied(meter: &mut Meter, items: &[Value]) -> Outcome {
    allocate(meter, items)?;
    meter.array(items.to_vec())
}

/// Recurses as deep as a value can be nested.
fn flatten(meter: &mut Meter, items: &[Value], flat: &mut Vec<Value>) -> Outcome<()> {
    for item in items {
        meter.allocate_values(1)?;
        match item {
            Value::Array(items) => flatten(meter, items, flat)?,
            other => flat.push(other.clone()),
        }
    }
    Ok(())
}

/// The second of each pair in the order of the first ones, which have to be all numbers or all strings.
pub(in crate::formula) fn sorted(
    meter: &mut Meter,
    function: &str,
    mut keyed: Vec<(Value, Value)>,
    order: Option<&Value>,
) -> Outcome {
    let descending = match order {
        None => false,
        Some(Value::String(order)) if &**order == "asc" => false,
        Some(Value::String(order)) if &**order == "desc" => true,
        Some(_) => return Err(EvalProblem::Argument(format!("the order of `{function}` is \"asc\" or \"desc\""))),
    };
    let texts = matches!(keyed.first(), Some((Value::String(_), _)));
    let mut bytes = 0;
    for (key, _) in &keyed {
        bytes += match key {
            Value::String(text) if texts => text.len(),
            Value::Int(_) | Value::Float(_) if !texts => 0,
            other => return Err(unsuitable(other, function, if texts { "only strings" } else { "only numbers" })),
        };
    }
    let rounds = keyed.len().checked_ilog2().map_or(0, |log| log as usize + 1);
    meter.spend(keyed.len() * rounds)?;
    meter.scan(bytes * rounds)?;
    meter.allocate_values(keyed.len() * 2)?;
    keyed.sort_by(|(left, _), (right, _)| {
        let order = match (left, right) {
            (Value::String(left), Value::String(right)) => left.cmp(right),
            _ => by_size(left, right),
        };
        if descending { order.reverse() } else { order }
    });
    meter.array(keyed.into_iter().map(|(_, value)| value).collect())
}
