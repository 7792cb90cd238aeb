//! Server-side apply: the applied object over the present one, without what its manager no longer applies.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::compare::{below, named};
use super::managers::{Managers, Writer};
use super::path::{Form, Step};
use super::set::FieldSet;
use crate::api::schema::Schema;

/// A field that somebody else owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api) struct Conflict {
    /// The other, as messages name it.
    pub manager: String,
    pub path: String,
}

/// The object after an apply, and who then owns what.
///
/// # Errors
/// Fields that others own and that the apply would change, unless it is forced.
pub(in crate::api) fn applied(
    schema: &Schema,
    live: &Value,
    config: &Value,
    managers: &Managers,
    writer: &Writer<'_>,
    force: bool,
) -> Result<(Value, Managers), Vec<Conflict>> {
    let set = writer.filtered(named(schema, config));
    let last = managers.set_of(writer).cloned().unwrap_or_default();
    let before = managers.time_of(writer);
    let mut managers = managers.clone();
    managers.put(writer, set);
    let merged = merge(Some(schema), live, config);
    let kept = managers.all();
    let next = pruned(Some(schema), merged, &last, Some(&kept));
    if !managers.settle(schema, live, &next, writer, force)? {
        // An apply that changes nothing is not dated.
        managers.date(writer, before);
    }
    Ok((next, managers))
}

/// The applied value over the present one.
fn merge(schema: Option<&Schema>, live: &Value, config: &Value) -> Value {
    match (Form::of(schema, live), Form::of(schema, config)) {
        (Form::Map(present), Form::Map(wanted)) => {
            let mut fields = present.clone();
            for (name, value) in wanted {
                let inner = schema.and_then(|schema| schema.of(name)).map(|schema| &**schema);
                let value = match present.get(name) {
                    Some(before) => merge(inner, before, value),
                    None => value.clone(),
                };
                fields.insert(name.clone(), value);
            }
            Value::Object(fields)
        }
        (Form::List(present), Form::List(wanted)) => match schema {
            Some(schema) => Value::Array(merge_items(schema, present, wanted)),
            None => config.clone(),
        },
        _ => config.clone(),
    }
}

/// The items of both lists: the wanted ones in their order, the others where they stand between them.
fn merge_items(schema: &Schema, present: &[Value], wanted: &[Value]) -> Vec<Value> {
    let index =
        |items: &[Value]| -> Vec<Option<Step>> { items.iter().map(|item| Step::to_item(schema, item)).collect() };
    let (left, right) = (index(present), index(wanted));
    let place = |steps: &[Option<Step>], step: &Option<Step>| steps.iter().position(|one| one == step);
    let mut shared = right.iter().filter(|step| left.contains(step));
    let mut next = shared.next();
    let mut taken: BTreeSet<usize> = BTreeSet::new();
    let mut out = Vec::new();
    let both = |l: usize, r: usize| merge(schema.items.as_deref(), &present[l], &wanted[r]);
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if l < left.len() && r < right.len() {
            if left[l] == right[r] {
                taken.insert(r);
                out.push(both(l, r));
                (l, r) = (l + 1, r + 1);
                next = shared.next();
                continue;
            }
            if right.contains(&left[l]) && next.is_some_and(|next| *next != left[l]) {
                l += 1;
                continue;
            }
        }
        if l < left.len() {
            match place(&right, &left[l]) {
                None => {
                    out.push(present[l].clone());
                    l += 1;
                    continue;
                }
                Some(at) if taken.contains(&at) => l += 1,
                Some(_) => {}
            }
        }
        if r < right.len() {
            taken.insert(r);
            out.push(match place(&left, &right[r]) {
                Some(at) => both(at, r),
                None => wanted[r].clone(),
            });
            if next.is_some_and(|next| *next == right[r]) {
                next = shared.next();
            }
            r += 1;
        }
    }
    out
}

/// The value without what is in `last` and nobody owns.
fn pruned(schema: Option<&Schema>, value: Value, last: &FieldSet, owned: Option<&FieldSet>) -> Value {
    if last.is_empty() {
        return value;
    }
    let part = |step: &Step, value: Value| -> Option<Value> {
        let Some(before) = last.at(step) else { return Some(value) };
        let now = owned.and_then(|owned| owned.at(step));
        let field = match step {
            Step::Field(name) => schema.is_some_and(|schema| schema.properties.contains_key(name)),
            _ => false,
        };
        if now.is_none() && (before.member || field) {
            return None;
        }
        Some(pruned(below(schema, step), value, &before.below, now.map(|node| &node.below)))
    };
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter_map(|(name, value)| {
                let value = part(&Step::Field(name.clone()), value)?;
                Some((name, value))
            });
            Value::Object(kept.collect::<Map<_, _>>())
        }
        Value::Array(items) => {
            let kept =
                items.into_iter().filter_map(|item| match schema.and_then(|schema| Step::to_item(schema, &item)) {
                    Some(step) => part(&step, item),
                    None => Some(item),
                });
            Value::Array(kept.collect())
        }
        other => other,
    }
}

/// The items of an applied object that name the same thing twice, and the fields that its schema does not know.
pub(in crate::api) fn untyped(schema: &Schema, value: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    judge(Some(schema), value, "", &mut errors);
    errors
}

fn judge(schema: Option<&Schema>, value: &Value, place: &str, errors: &mut Vec<String>) {
    let Some(schema) = schema else { return };
    match value {
        Value::Object(fields) => {
            let open = schema.preserve || schema.any_additional || schema.additional.is_some();
            for (name, part) in fields {
                let known = open || schema.properties.contains_key(name);
                let here = format!("{place}.{name}");
                if !known && !schema.properties.is_empty() {
                    errors.push(format!("{here}: field not declared in schema"));
                }
                judge(schema.of(name).map(|schema| &**schema), part, &here, errors);
            }
        }
        Value::Array(items) => {
            let mut counts: BTreeMap<Step, usize> = BTreeMap::new();
            for step in items.iter().filter_map(|item| Step::to_item(schema, item)) {
                *counts.entry(step).or_default() += 1;
            }
            for (step, _) in counts.iter().filter(|(_, count)| **count > 1) {
                errors.push(format!("{place}: duplicate entries for key {step}"));
            }
            for (index, item) in items.iter().enumerate() {
                let step = Step::to_item(schema, item).unwrap_or(Step::Index(index as u64));
                judge(schema.items.as_deref(), item, &format!("{place}{step}"), errors);
            }
        }
        scalar => errors.extend(mistyped(schema, scalar).map(|error| format!("{place}: {error}"))),
    }
}

fn mistyped(schema: &Schema, value: &Value) -> Option<String> {
    use crate::api::schema::Type;
    if value.is_null() || schema.int_or_string || schema.quantity || schema.preserve {
        return None;
    }
    let found = || format!("&value.valueUnstructured{{Value:{value}}}");
    match (schema.kind?, value) {
        (Type::String, Value::String(_)) | (Type::Boolean, Value::Bool(_)) => None,
        (Type::Integer | Type::Number, Value::Number(_)) => None,
        (Type::Integer | Type::Number, Value::String(_)) => {
            Some("expected numeric (int or float), got string".to_owned())
        }
        (Type::Integer | Type::Number, _) => Some("expected numeric (int or float), got boolean".to_owned()),
        (Type::String, _) => Some(format!("expected string, got {}", found())),
        (Type::Boolean, _) => Some(format!("expected boolean, got {}", found())),
        (Type::Object, _) => Some(format!("expected map, got {}", found())),
        (Type::Array, _) => Some(format!("expected list, got {}", found())),
    }
}
