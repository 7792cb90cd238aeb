//! Functions of numbers.

use super::{Builtin, More, Parameter, a};
use crate::formula::error::EvalProblem;
use crate::formula::meter::{Meter, Outcome};
use crate::formula::operators::{by_size, integer, number, unsuitable};
use crate::formula::types::{Kinds, Type};
use crate::formula::value::Value;

const NUMBER: Parameter = a(Kinds::NUMBER);
const INT: Parameter = a(Kinds::INT);
/// Numbers, and arrays of them, arrays within arrays included.
const NUMBERS: Parameter =
    Parameter { kinds: Kinds::NUMBER.or(Kinds::ARRAY), elements: Kinds::NUMBER.or(Kinds::ARRAY) };

pub(super) const FUNCTIONS: &[Builtin] = &[
    Builtin {
        name: "abs",
        parameters: &[NUMBER],
        more: More::Exactly,
        result: |arguments| arguments[0].only(Kinds::NUMBER),
        run: |_, arguments| match &arguments[0] {
            Value::Int(int) => int.checked_abs().map(Value::Int).ok_or_else(|| EvalProblem::Overflow("`abs`".into())),
            other => Ok(Value::Float(number(other, "abs")?.abs())),
        },
    },
    rounding("ceil", |_, arguments| Ok(Value::Float(number(&arguments[0], "ceil")?.ceil()))),
    rounding("floor", |_, arguments| Ok(Value::Float(number(&arguments[0], "floor")?.floor()))),
    rounding("round", |_, arguments| Ok(Value::Float(number(&arguments[0], "round")?.round()))),
    aggregate("max", one_of, |meter, arguments| extreme(meter, "max", arguments, std::cmp::Ordering::Greater)),
    aggregate("min", one_of, |meter, arguments| extreme(meter, "min", arguments, std::cmp::Ordering::Less)),
    aggregate("mean", float, |meter, arguments| {
        let values = numbers(meter, "mean", arguments)?;
        let sum: f64 = values.iter().filter_map(Value::as_f64).sum();
        Ok(Value::Float(if values.is_empty() { 0.0 } else { sum / values.len() as f64 }))
    }),
    aggregate("median", float, |meter, arguments| {
        let mut values = numbers(meter, "median", arguments)?;
        values.sort_by(by_size);
        let at = |place: usize| values.get(place).and_then(Value::as_f64).unwrap_or(0.0);
        let half = values.len() / 2;
        Ok(Value::Float(match values.len() {
            0 => 0.0,
            count if count % 2 == 1 => at(half),
            _ => (at(half - 1) + at(half)) / 2.0,
        }))
    }),
    bits("bitand", |_, arguments| pair("bitand", arguments).map(|(left, right)| Value::Int(left & right))),
    bits("bitor", |_, arguments| pair("bitor", arguments).map(|(left, right)| Value::Int(left | right))),
    bits("bitxor", |_, arguments| pair("bitxor", arguments).map(|(left, right)| Value::Int(left ^ right))),
    bits("bitnand", |_, arguments| pair("bitnand", arguments).map(|(left, right)| Value::Int(left & !right))),
    bits("bitshl", |_, arguments| shift("bitshl", arguments, |value, places| value.checked_shl(places).unwrap_or(0))),
    bits("bitshr", |_, arguments| shift("bitshr", arguments, |value, places| value >> places.min(63))),
    bits("bitushr", |_, arguments| {
        shift("bitushr", arguments, |value, places| (value as u64).checked_shr(places).unwrap_or(0) as i64)
    }),
    Builtin {
        name: "bitnot",
        parameters: &[INT],
        more: More::Exactly,
        result: |_| Kinds::INT.into(),
        run: |_, arguments| Ok(Value::Int(!integer(&arguments[0], "bitnot")?)),
    },
];

type Run = fn(&mut Meter, &[Value]) -> Outcome;

const fn rounding(name: &'static str, run: Run) -> Builtin {
    Builtin { name, parameters: &[NUMBER], more: More::Exactly, result: float, run }
}

const fn aggregate(name: &'static str, result: fn(&[Type]) -> Type, run: Run) -> Builtin {
    Builtin { name, parameters: &[NUMBERS], more: More::Repeated, result, run }
}

const fn bits(name: &'static str, run: Run) -> Builtin {
    Builtin { name, parameters: &[INT, INT], more: More::Exactly, result: |_| Kinds::INT.into(), run }
}

fn float(_: &[Type]) -> Type {
    Kinds::FLOAT.into()
}

/// One of the numbers in the arguments. That there may be none is left to the evaluation.
fn one_of(arguments: &[Type]) -> Type {
    let mut kinds = Kinds::NONE;
    for argument in arguments {
        kinds = kinds.or(argument.kinds.and(Kinds::NUMBER));
        if argument.kinds.meets(Kinds::ARRAY) {
            let element = argument.element().kinds;
            kinds = kinds.or(if element.meets(Kinds::ARRAY) { Kinds::NUMBER } else { element.and(Kinds::NUMBER) });
        }
    }
    kinds.into()
}

/// All numbers in the arguments, those in arrays included.
fn numbers(meter: &mut Meter, function: &str, arguments: &[Value]) -> Outcome<Vec<Value>> {
    let mut found = Vec::new();
    collect(meter, function, arguments, &mut found)?;
    Ok(found)
}

/// Recurses as deep as a value can be nested.
fn collect(meter: &mut Meter, function: &str, values: &[Value], found: &mut Vec<Value>) -> Outcome<()> {
    for value in values {
        meter.allocate_values(1)?;
        match value {
            Value::Array(items) => collect(meter, function, items, found)?,
            Value::Int(_) | Value::Float(_) => found.push(value.clone()),
            other => return Err(unsuitable(other, function, "numbers")),
        }
    }
    Ok(())
}

/// The first of the numbers that no other one surpasses; nil when there is none.
fn extreme(meter: &mut Meter, function: &str, arguments: &[Value], surpasses: std::cmp::Ordering) -> Outcome {
    let mut values = numbers(meter, function, arguments)?.into_iter();
    let Some(mut best) = values.next() else { return Ok(Value::Nil) };
    for value in values {
        let order = match (&value, &best) {
            (Value::Int(value), Value::Int(best)) => Some(value.cmp(best)),
            (value, best) => number(value, function)?.partial_cmp(&number(best, function)?),
        };
        if order == Some(surpasses) {
            best = value;
        }
    }
    Ok(best)
}

fn pair(function: &str, arguments: &[Value]) -> Outcome<(i64, i64)> {
    Ok((integer(&arguments[0], function)?, integer(&arguments[1], function)?))
}

fn shift(function: &str, arguments: &[Value], shifted: fn(i64, u32) -> i64) -> Outcome {
    let (value, places) = pair(function, arguments)?;
    if places < 0 {
        return Err(EvalProblem::Argument(format!("`{function}` cannot shift by {places} places")));
    }
    Ok(Value::Int(shifted(value, u32::try_from(places).unwrap_or(u32::MAX))))
}
