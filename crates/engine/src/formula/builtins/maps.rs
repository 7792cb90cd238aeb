//! Functions of maps.

use std::collections::BTreeMap;

use super::arrays::items;
use super::{Builtin, More, a, array_of};
use crate::formula::error::EvalProblem;
use crate::formula::meter::{Meter, Outcome};
use crate::formula::operators::unsuitable;
use crate::formula::types::{Kinds, Type};
use crate::formula::value::{Key, Map, Value};

pub(super) const FUNCTIONS: &[Builtin] = &[
    Builtin {
        name: "keys",
        parameters: &[a(Kinds::MAP)],
        more: More::Exactly,
        result: |_| Type::array(Kinds::KEY.into()),
        run: |meter, arguments| {
            let map = map("keys", &arguments[0])?;
            meter.allocate_values(map.len())?;
            meter.array(map.entries().keys().map(|key| key.value().clone()).collect())
        },
    },
    Builtin {
        name: "values",
        parameters: &[a(Kinds::MAP)],
        more: More::Exactly,
        result: |_| Kinds::ARRAY.into(),
        run: |meter, arguments| {
            let map = map("values", &arguments[0])?;
            meter.allocate_values(map.len())?;
            meter.array(map.entries().values().cloned().collect())
        },
    },
    Builtin {
        name: "toPairs",
        parameters: &[a(Kinds::MAP)],
        more: More::Exactly,
        result: |_| Type::array(Kinds::ARRAY.into()),
        run: |meter, arguments| {
            let map = map("toPairs", &arguments[0])?;
            meter.allocate_values(map.len() * 3)?;
            let mut pairs = Vec::new();
            for (key, value) in map.entries() {
                pairs.push(meter.array(vec![key.value().clone(), value.clone()])?);
            }
            meter.array(pairs)
        },
    },
    Builtin {
        name: "fromPairs",
        parameters: &[array_of(Kinds::ARRAY)],
        more: More::Exactly,
        result: |_| Kinds::MAP.into(),
        run: |meter, arguments| {
            let mut entries = BTreeMap::new();
            for pair in items("fromPairs", &arguments[0])?.iter() {
                let [key, value] = &**items("fromPairs", pair)? else {
                    return Err(EvalProblem::Argument("`fromPairs` takes arrays of a key and a value".into()));
                };
                insert(meter, "fromPairs", &mut entries, key.clone(), value.clone())?;
            }
            meter.map(entries)
        },
    },
];

fn map<'v>(function: &str, value: &'v Value) -> Outcome<&'v Map> {
    match value {
        Value::Map(map) => Ok(map),
        other => Err(unsuitable(other, function, "a map")),
    }
}

/// Puts an entry in, with its cost.
pub(in crate::formula) fn insert(
    meter: &mut Meter,
    place: &str,
    entries: &mut BTreeMap<Key, Value>,
    key: Value,
    value: Value,
) -> Outcome<()> {
    meter.allocate_values(2)?;
    meter.scan(key.extent().bytes)?;
    let kind = key.type_name();
    let key =
        Key::new(key).ok_or_else(|| EvalProblem::Type(format!("`{place}` cannot have keys of the type {kind}")))?;
    entries.insert(key, value);
    Ok(())
}
