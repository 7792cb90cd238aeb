//! JSON to values and back. Numbers become floats, as the language has it.

use std::collections::BTreeMap;

use super::strings::{go_float, text};
use super::{Builtin, More, a, maps};
use crate::formula::error::EvalProblem;
use crate::formula::limits::MAX_MEMORY;
use crate::formula::meter::{Meter, Outcome};
use crate::formula::types::{Kinds, Type};
use crate::formula::value::Value;

pub(super) const FUNCTIONS: &[Builtin] = &[
    Builtin {
        name: "toJSON",
        parameters: &[a(Kinds::ANY)],
        more: More::Exactly,
        result: |_| Kinds::STRING.into(),
        run: |meter, arguments| {
            let mut written = String::new();
            meter.scan(arguments[0].extent().bytes)?;
            write(&arguments[0], 0, &mut written)?;
            meter.text(written)
        },
    },
    Builtin {
        name: "fromJSON",
        parameters: &[a(Kinds::STRING)],
        more: More::Exactly,
        result: |_| Type::any(),
        run: |meter, arguments| {
            let text = text("fromJSON", meter, &arguments[0])?;
            // The parser's values take up to this much more than the text does.
            meter.allocate(text.len().saturating_mul(16))?;
            let parsed = serde_json::from_str(text)
                .map_err(|error| EvalProblem::Argument(format!("`fromJSON` was given no JSON: {error}")))?;
            read(meter, parsed)
        },
    },
];

/// Recurses as deep as the parser allows.
fn read(meter: &mut Meter, json: serde_json::Value) -> Outcome {
    meter.allocate_values(1)?;
    Ok(match json {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(truth) => Value::Bool(truth),
        serde_json::Value::Number(number) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(text) => meter.text(text)?,
        serde_json::Value::Array(items) => {
            let items = items.into_iter().map(|item| read(meter, item)).collect::<Outcome<Vec<_>>>()?;
            meter.array(items)?
        }
        serde_json::Value::Object(members) => {
            let mut entries = BTreeMap::new();
            for (name, member) in members {
                let (name, member) = (meter.text(name)?, read(meter, member)?);
                maps::insert(meter, "fromJSON", &mut entries, name, member)?;
            }
            meter.map(entries)?
        }
    })
}

/// Indented by two spaces a level. Recurses as deep as a value is nested.
fn write(value: &Value, level: usize, out: &mut String) -> Outcome<()> {
    if out.len() > MAX_MEMORY {
        return Err(EvalProblem::TooMuchMemory);
    }
    match value {
        Value::Nil => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Int(int) => out.push_str(&int.to_string()),
        Value::Float(float) if float.is_finite() => out.push_str(&go_float(*float, -6, 21).replace("e-0", "e-")),
        Value::Float(_) => return Err(EvalProblem::Argument("JSON has no NaN and no infinities".into())),
        Value::String(text) => quote(text, out),
        Value::Array(items) if items.is_empty() => out.push_str("[]"),
        Value::Array(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                line(place > 0, level + 1, out);
                write(item, level + 1, out)?;
            }
            line(false, level, out);
            out.push(']');
        }
        Value::Map(map) if map.is_empty() => out.push_str("{}"),
        Value::Map(map) => {
            out.push('{');
            for (place, (key, value)) in map.entries().iter().enumerate() {
                line(place > 0, level + 1, out);
                let Value::String(name) = key.value() else {
                    let kind = key.value().type_name();
                    return Err(EvalProblem::Argument(format!("JSON has no keys of the type {kind}")));
                };
                quote(name, out);
                out.push_str(": ");
                write(value, level + 1, out)?;
            }
            line(false, level, out);
            out.push('}');
        }
    }
    Ok(())
}

fn line(comma: bool, level: usize, out: &mut String) {
    out.push_str(if comma { ",\n" } else { "\n" });
    out.extend(std::iter::repeat_n("  ", level));
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Also what would matter within HTML, as the language does it.
            '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}
