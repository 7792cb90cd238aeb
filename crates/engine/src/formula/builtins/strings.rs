//! Functions of strings. Lengths and positions are counted in characters.

use super::arrays::items;
use super::{Builtin, More, Parameter, a, array_of};
use crate::formula::error::EvalProblem;
use crate::formula::meter::{Meter, Outcome};
use crate::formula::operators::{integer, unsuitable};
use crate::formula::types::{Kinds, Type};
use crate::formula::value::Value;

const STRING: Parameter = a(Kinds::STRING);
const INT: Parameter = a(Kinds::INT);

pub(super) const FUNCTIONS: &[Builtin] = &[
    function("trim", &[STRING, STRING], More::Optional(1), string, |meter, arguments| {
        let text = text("trim", meter, &arguments[0])?;
        let trimmed = match arguments.get(1) {
            None => text.trim(),
            Some(unwanted) => {
                let unwanted: std::collections::BTreeSet<char> = self::text("trim", meter, unwanted)?.chars().collect();
                text.trim_matches(|character| unwanted.contains(&character))
            }
        };
        meter.text(trimmed)
    }),
    function("trimPrefix", &[STRING, STRING], More::Optional(1), string, |meter, arguments| {
        let (text, prefix) = with_default("trimPrefix", meter, arguments, " ")?;
        meter.text(text.strip_prefix(prefix).unwrap_or(text))
    }),
    function("trimSuffix", &[STRING, STRING], More::Optional(1), string, |meter, arguments| {
        let (text, suffix) = with_default("trimSuffix", meter, arguments, " ")?;
        meter.text(text.strip_suffix(suffix).unwrap_or(text))
    }),
    function("upper", &[STRING], More::Exactly, string, |meter, arguments| {
        let text = text("upper", meter, &arguments[0])?;
        meter.text(text.to_uppercase())
    }),
    function("lower", &[STRING], More::Exactly, string, |meter, arguments| {
        let text = text("lower", meter, &arguments[0])?;
        meter.text(text.to_lowercase())
    }),
    function("split", &[STRING, STRING, INT], More::Optional(1), strings, |meter, arguments| {
        split("split", meter, arguments, false)
    }),
    function("splitAfter", &[STRING, STRING, INT], More::Optional(1), strings, |meter, arguments| {
        split("splitAfter", meter, arguments, true)
    }),
    function("replace", &[STRING, STRING, STRING, INT], More::Optional(1), string, replace),
    function("repeat", &[STRING, INT], More::Exactly, string, |meter, arguments| {
        let (text, times) = (text("repeat", meter, &arguments[0])?, integer(&arguments[1], "repeat")?);
        let times = usize::try_from(times)
            .map_err(|_| EvalProblem::Argument(format!("`repeat` cannot repeat {times} times")))?;
        // Even nothing, repeated often enough, is work.
        meter.spend(times)?;
        meter.allocate(text.len().saturating_mul(times))?;
        meter.text(text.repeat(times))
    }),
    function("join", &[array_of(Kinds::STRING), STRING], More::Optional(1), string, |meter, arguments| {
        let glue = arguments.get(1).map(|glue| text("join", meter, glue)).transpose()?.unwrap_or_default();
        let mut joined = String::new();
        for (place, item) in items("join", &arguments[0])?.iter().enumerate() {
            let part = text("join", meter, item)?;
            let glue = if place == 0 { "" } else { glue };
            meter.spend(1)?;
            meter.allocate(glue.len() + part.len())?;
            joined.push_str(glue);
            joined.push_str(part);
        }
        meter.text(joined)
    }),
    function("indexOf", &[STRING, STRING], More::Exactly, int, |meter, arguments| {
        let (text, part) = pair("indexOf", meter, arguments)?;
        Ok(position(text, text.find(part)))
    }),
    function("lastIndexOf", &[STRING, STRING], More::Exactly, int, |meter, arguments| {
        let (text, part) = pair("lastIndexOf", meter, arguments)?;
        Ok(position(text, text.rfind(part)))
    }),
    function("hasPrefix", &[STRING, STRING], More::Exactly, bool, |meter, arguments| {
        let (text, part) = pair("hasPrefix", meter, arguments)?;
        Ok(Value::Bool(text.starts_with(part)))
    }),
    function("hasSuffix", &[STRING, STRING], More::Exactly, bool, |meter, arguments| {
        let (text, part) = pair("hasSuffix", meter, arguments)?;
        Ok(Value::Bool(text.ends_with(part)))
    }),
];

type Run = fn(&mut Meter, &[Value]) -> Outcome;

const fn function(
    name: &'static str,
    parameters: &'static [Parameter],
    more: More,
    result: fn(&[Type]) -> Type,
    run: Run,
) -> Builtin {
    Builtin { name, parameters, more, result, run }
}

fn string(_: &[Type]) -> Type {
    Kinds::STRING.into()
}

fn strings(_: &[Type]) -> Type {
    Type::array(Kinds::STRING.into())
}

fn int(_: &[Type]) -> Type {
    Kinds::INT.into()
}

fn bool(_: &[Type]) -> Type {
    Kinds::BOOL.into()
}

/// The string, the work of reading it counted.
pub(super) fn text<'v>(function: &str, meter: &mut Meter, value: &'v Value) -> Outcome<&'v str> {
    let Value::String(text) = value else { return Err(unsuitable(value, function, "strings")) };
    meter.scan(text.len())?;
    Ok(text)
}

fn pair<'v>(function: &str, meter: &mut Meter, arguments: &'v [Value]) -> Outcome<(&'v str, &'v str)> {
    Ok((text(function, meter, &arguments[0])?, text(function, meter, &arguments[1])?))
}

fn with_default<'v>(
    function: &str,
    meter: &mut Meter,
    arguments: &'v [Value],
    default: &'static str,
) -> Outcome<(&'v str, &'v str)> {
    let second = arguments.get(1).map(|second| text(function, meter, second)).transpose()?;
    Ok((text(function, meter, &arguments[0])?, second.unwrap_or(default)))
}

/// A place in bytes as one in characters; -1 for none.
fn position(text: &str, found: Option<usize>) -> Value {
    Value::Int(found.map_or(-1, |bytes| text[..bytes].chars().count() as i64))
}

/// How many parts or replacements an optional last argument allows; below zero is no limit.
fn limit(function: &str, argument: Option<&Value>) -> Outcome<usize> {
    let limit = argument.map_or(Ok(-1), |limit| integer(limit, function))?;
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// The parts between separators, each with the separator behind it when `keep` is set. Without a separator: characters.
fn split(function: &str, meter: &mut Meter, arguments: &[Value], keep: bool) -> Outcome {
    let (text, separator) = pair(function, meter, arguments)?;
    let limit = limit(function, arguments.get(2))?;
    if limit == 0 {
        return meter.array(Vec::new());
    }
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let cut = if separator.is_empty() {
            rest.chars().next().map(char::len_utf8).filter(|first| *first < rest.len()).map(|first| (first, first))
        } else {
            rest.find(separator).map(|place| (place, place + separator.len()))
        };
        meter.allocate_values(1)?;
        let Some((end, next)) = cut.filter(|_| parts.len() + 1 < limit) else {
            if !(rest.is_empty() && separator.is_empty()) {
                parts.push(meter.text(rest)?);
            }
            break;
        };
        parts.push(meter.text(&rest[..if keep { next } else { end }])?);
        rest = &rest[next..];
    }
    meter.array(parts)
}

fn replace(meter: &mut Meter, arguments: &[Value]) -> Outcome {
    let (text, old) = pair("replace", meter, arguments)?;
    let new = self::text("replace", meter, &arguments[2])?;
    let limit = limit("replace", arguments.get(3))?;
    let count = text.matches(old).count().min(limit);
    meter.spend(count)?;
    meter.allocate(text.len().saturating_add(count.saturating_mul(new.len())))?;
    meter.text(text.replacen(old, new, count))
}

/// A number as the language writes it: the shortest digits that give it back, with an exponent when its size
/// is below ten to the power of `small`, or not below that of `large`.
pub(in crate::formula) fn go_float(float: f64, small: i32, large: i32) -> String {
    if float.is_nan() {
        return "NaN".into();
    }
    if float.is_infinite() {
        return if float > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if float == 0.0 || (small..large).contains(&exponent) {
        return format!("{float}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Writes a value as the language's `string` does, up to a number of bytes. Recurses as deep as a value is nested.
pub(in crate::formula) fn go_text(value: &Value, out: &mut String, most: usize) -> Outcome<()> {
    if out.len() > most {
        return Err(EvalProblem::TooMuchMemory);
    }
    match value {
        Value::Nil => out.push_str("<nil>"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Int(int) => out.push_str(&int.to_string()),
        Value::Float(float) => out.push_str(&go_float(*float, -4, 6)),
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                out.push_str(if place == 0 { "" } else { " " });
                go_text(item, out, most)?;
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push_str("map[");
            for (place, (key, value)) in map.entries().iter().enumerate() {
                out.push_str(if place == 0 { "" } else { " " });
                go_text(key.value(), out, most)?;
                out.push(':');
                go_text(value, out, most)?;
            }
            out.push(']');
        }
    }
    Ok(())
}
