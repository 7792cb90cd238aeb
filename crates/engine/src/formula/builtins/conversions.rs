//! Functions from one type to another.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::strings::{go_text, text};
use super::{Builtin, More, Parameter, a};
use crate::formula::error::EvalProblem;
use crate::formula::limits::MAX_MEMORY;
use crate::formula::meter::{Meter, Outcome};
use crate::formula::operators::unsuitable;
use crate::formula::types::{Kinds, Type};
use crate::formula::value::Value;

/// What can be made a number.
const NUMERIC: Parameter = a(Kinds::NUMBER.or(Kinds::STRING));
const ANY: Parameter = a(Kinds::ANY);

pub(super) const FUNCTIONS: &[Builtin] = &[
    one("int", &[NUMERIC], |_| Kinds::INT.into(), int),
    one("float", &[NUMERIC], |_| Kinds::FLOAT.into(), float),
    one("string", &[ANY], string, |meter, arguments| {
        let mut written = String::new();
        meter.scan(arguments[0].extent().bytes)?;
        go_text(&arguments[0], &mut written, MAX_MEMORY)?;
        meter.text(written)
    }),
    one("type", &[ANY], string, |meter, arguments| meter.text(arguments[0].type_name())),
    one("toBase64", &[a(Kinds::STRING)], string, |meter, arguments| {
        let text = text("toBase64", meter, &arguments[0])?;
        meter.text(STANDARD.encode(text))
    }),
    one("fromBase64", &[a(Kinds::STRING)], string, |meter, arguments| {
        let text = text("fromBase64", meter, &arguments[0])?;
        let decoded = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        meter.text(decoded.ok_or_else(|| EvalProblem::Argument("`fromBase64` was given no text in Base64".into()))?)
    }),
];

const fn one(
    name: &'static str,
    parameters: &'static [Parameter],
    result: fn(&[Type]) -> Type,
    run: fn(&mut Meter, &[Value]) -> Outcome,
) -> Builtin {
    Builtin { name, parameters, more: More::Exactly, result, run }
}

fn string(_: &[Type]) -> Type {
    Kinds::STRING.into()
}

fn not_a_number(function: &str, text: &str) -> EvalProblem {
    let start: String = text.chars().take(40).collect();
    EvalProblem::Argument(format!("`{function}` cannot make a number of {start:?}"))
}

/// Towards zero. What 64 bits do not hold is an error, not some other number.
fn int(meter: &mut Meter, arguments: &[Value]) -> Outcome {
    match &arguments[0] {
        Value::Int(int) => Ok(Value::Int(*int)),
        // The limits are exact: i64::MAX + 1 is a float, i64::MAX is not.
        Value::Float(float) if *float >= i64::MIN as f64 && *float < -(i64::MIN as f64) => {
            Ok(Value::Int(*float as i64))
        }
        Value::Float(_) => Err(EvalProblem::Overflow("`int`".into())),
        value => {
            let text = text("int", meter, value)?;
            text.parse().map(Value::Int).map_err(|_| not_a_number("int", text))
        }
    }
}

fn float(meter: &mut Meter, arguments: &[Value]) -> Outcome {
    match &arguments[0] {
        Value::String(_) => {
            let text = text("float", meter, &arguments[0])?;
            let parsed: Option<f64> = text.parse().ok();
            // "inf" is infinite because it says so, "1e999" because it does not fit.
            let fits =
                parsed.is_some_and(|float| float.is_finite() || !text.contains(|digit: char| digit.is_ascii_digit()));
            parsed.filter(|_| fits).map(Value::Float).ok_or_else(|| not_a_number("float", text))
        }
        number => number.as_f64().map(Value::Float).ok_or_else(|| unsuitable(number, "float", "a number or a string")),
    }
}
