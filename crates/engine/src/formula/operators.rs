//! Operators on values.

use std::cmp::Ordering;

use super::error::EvalProblem;
use super::meter::{Meter, Outcome};
use super::tree::Operator;
use super::types::Kinds;
use super::value::Value;

/// A part that has a type which its place does not take; nil is a case of its own.
pub(super) fn unsuitable(value: &Value, place: &str, wanted: &str) -> EvalProblem {
    match value {
        Value::Nil => EvalProblem::Nil { place: format!("`{place}`"), variable: None },
        value => EvalProblem::Type(format!("`{place}` takes {wanted}, not {}", value.type_name())),
    }
}

pub(super) fn boolean(value: &Value, place: &str) -> Outcome<bool> {
    match value {
        Value::Bool(truth) => Ok(*truth),
        other => Err(unsuitable(other, place, "bool")),
    }
}

pub(super) fn integer(value: &Value, place: &str) -> Outcome<i64> {
    match value {
        Value::Int(int) => Ok(*int),
        other => Err(unsuitable(other, place, "int")),
    }
}

pub(super) fn number(value: &Value, place: &str) -> Outcome<f64> {
    value.as_f64().ok_or_else(|| unsuitable(value, place, "numbers"))
}

/// The operand that is to blame when two do not fit an operator.
fn mismatch(operator: Operator, wanted: &str, left: &Value, right: &Value) -> EvalProblem {
    match (left, right) {
        (Value::Nil, _) | (_, Value::Nil) => unsuitable(&Value::Nil, operator.symbol(), wanted),
        _ => EvalProblem::Type(format!(
            "`{}` takes {wanted}, not {} and {}",
            operator.symbol(),
            left.type_name(),
            right.type_name()
        )),
    }
}

pub(super) fn negate(value: &Value) -> Outcome {
    match value {
        Value::Int(int) => int.checked_neg().map(Value::Int).ok_or_else(|| EvalProblem::Overflow("`-`".into())),
        other => Ok(Value::Float(-number(other, "-")?)),
    }
}

/// All operators but those that may leave their right side unevaluated, and `matches`.
pub(super) fn binary(meter: &mut Meter, operator: Operator, left: &Value, right: &Value) -> Outcome {
    use Operator::*;
    match operator {
        Equal => Ok(Value::Bool(equal(meter, left, right)?)),
        NotEqual => Ok(Value::Bool(!equal(meter, left, right)?)),
        Less | LessOrEqual | Greater | GreaterOrEqual => ordered(meter, operator, left, right).map(Value::Bool),
        In => contained(meter, left, right).map(Value::Bool),
        Contains | StartsWith | EndsWith => strings(meter, operator, left, right),
        Range => range(meter, integer(left, "..")?, integer(right, "..")?),
        Divide => Ok(Value::Float(number(left, "/")? / number(right, "/")?)),
        Power => Ok(Value::Float(number(left, "**")?.powf(number(right, "**")?))),
        Remainder => match (integer(left, "%")?, integer(right, "%")?) {
            (_, 0) => Err(EvalProblem::DivisionByZero),
            // The one remainder that overflows is zero.
            (left, right) => Ok(Value::Int(left.checked_rem(right).unwrap_or(0))),
        },
        Add | Subtract | Multiply => arithmetic(meter, operator, left, right),
        Or | And | Coalesce | Matches => Err(mismatch(operator, "other operands", left, right)),
    }
}

fn arithmetic(meter: &mut Meter, operator: Operator, left: &Value, right: &Value) -> Outcome {
    if let (Value::Int(left), Value::Int(right)) = (left, right) {
        let result = match operator {
            Operator::Add => left.checked_add(*right),
            Operator::Subtract => left.checked_sub(*right),
            _ => left.checked_mul(*right),
        };
        return result.map(Value::Int).ok_or_else(|| EvalProblem::Overflow(format!("`{}`", operator.symbol())));
    }
    if let (Some(left), Some(right)) = (left.as_f64(), right.as_f64()) {
        return Ok(Value::Float(match operator {
            Operator::Add => left + right,
            Operator::Subtract => left - right,
            _ => left * right,
        }));
    }
    match (operator, left, right) {
        (Operator::Add, Value::String(left), Value::String(right)) => {
            meter.allocate(left.len() + right.len())?;
            meter.text(format!("{left}{right}"))
        }
        (Operator::Add, ..) => Err(mismatch(operator, "two numbers or two strings", left, right)),
        _ => Err(mismatch(operator, "two numbers", left, right)),
    }
}

/// Whether two values are equal; an integer and a float are when they are the same number.
pub(super) fn equal(meter: &mut Meter, left: &Value, right: &Value) -> Outcome<bool> {
    meter.spend(1)?;
    Ok(match (left, right) {
        (Value::Nil, Value::Nil) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Int(left), Value::Int(right)) => left == right,
        (Value::String(left), Value::String(right)) => {
            meter.scan(left.len().min(right.len()))?;
            left == right
        }
        (Value::Array(left), Value::Array(right)) => {
            if left.len() != right.len() {
                return Ok(false);
            }
            for (left, right) in left.iter().zip(right.iter()) {
                if !equal(meter, left, right)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Map(left), Value::Map(right)) => {
            if left.len() != right.len() {
                return Ok(false);
            }
            for (left, right) in left.entries().iter().zip(right.entries()) {
                if left.0 != right.0 || !equal(meter, left.1, right.1)? {
                    return Ok(false);
                }
            }
            true
        }
        (left, right) => matches!((left.as_f64(), right.as_f64()), (Some(left), Some(right)) if left == right),
    })
}

fn ordered(meter: &mut Meter, operator: Operator, left: &Value, right: &Value) -> Outcome<bool> {
    let order = match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::String(left), Value::String(right)) => {
            meter.scan(left.len().min(right.len()))?;
            Some(left.cmp(right))
        }
        _ => match (left.as_f64(), right.as_f64()) {
            (Some(left), Some(right)) => left.partial_cmp(&right),
            _ => return Err(mismatch(operator, "two numbers or two strings", left, right)),
        },
    };
    // Nothing is less than, equal to or greater than NaN.
    Ok(order.is_some_and(|order| match operator {
        Operator::Less => order == Ordering::Less,
        Operator::LessOrEqual => order != Ordering::Greater,
        Operator::Greater => order == Ordering::Greater,
        _ => order != Ordering::Less,
    }))
}

fn contained(meter: &mut Meter, needle: &Value, stack: &Value) -> Outcome<bool> {
    match stack {
        Value::Nil => Ok(false),
        Value::Array(items) => {
            for item in items.iter() {
                if equal(meter, needle, item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Map(map) => {
            if !Kinds::of(needle).within(Kinds::KEY) {
                return Err(unsuitable(needle, "in", "a key on the left of a map"));
            }
            meter.scan(needle.extent().bytes)?;
            Ok(map.get(needle).is_some())
        }
        other => Err(unsuitable(other, "in", "an array or a map on its right")),
    }
}

fn strings(meter: &mut Meter, operator: Operator, left: &Value, right: &Value) -> Outcome {
    let (Value::String(text), Value::String(part)) = (left, right) else {
        return Err(mismatch(operator, "two strings", left, right));
    };
    meter.scan(text.len() + part.len())?;
    Ok(Value::Bool(match operator {
        Operator::Contains => text.contains(&**part),
        Operator::StartsWith => text.starts_with(&**part),
        _ => text.ends_with(&**part),
    }))
}

/// The integers from the first to the last, both included; none when the last is smaller.
fn range(meter: &mut Meter, first: i64, last: i64) -> Outcome {
    if last < first {
        return meter.array(Vec::new());
    }
    let count = usize::try_from(last.abs_diff(first)).unwrap_or(usize::MAX).saturating_add(1);
    meter.allocate_values(count)?;
    meter.array((first..=last).map(Value::Int).collect())
}

/// A total order of numbers in which equal numbers of both kinds are equal and NaN is first.
pub(super) fn by_size(left: &Value, right: &Value) -> Ordering {
    let key = |value: &Value| match value {
        Value::Int(int) => (*int as f64, i128::from(*int)),
        // Plus zero: -0.0 and 0.0 are equal. Where floats are coarser than integers the second part tells them apart.
        Value::Float(float) if float.is_nan() => (-f64::NAN, 0),
        Value::Float(float) => (float + 0.0, *float as i128),
        _ => (-f64::NAN, 0),
    };
    let (left, right) = (key(left), key(right));
    left.0.total_cmp(&right.0).then(left.1.cmp(&right.1))
}
