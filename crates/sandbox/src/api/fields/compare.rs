//! The paths at which two states of an object differ, and the paths of one.

use std::collections::BTreeMap;

use serde_json::Value;

use super::path::{Form, Step};
use super::set::FieldSet;
use crate::api::schema::Schema;

/// The differences between two states.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub added: FieldSet,
    pub modified: FieldSet,
    pub removed: FieldSet,
}

impl Comparison {
    /// What becomes of `before` in `after`.
    pub(super) fn of(schema: &Schema, before: &Value, after: &Value) -> Self {
        let mut comparison = Self::default();
        comparison.walk(Some(schema), Some(before), Some(after), &mut Vec::new());
        comparison
    }

    fn walk(&mut self, schema: Option<&Schema>, before: Option<&Value>, after: Option<&Value>, path: &mut Vec<Step>) {
        if before == after {
            return;
        }
        // A null is a value with nothing in it.
        let some = [before, after].into_iter().flatten().filter(|value| !value.is_null());
        let forms: Vec<Form<'_>> = some.map(|value| Form::of(schema, value)).collect();
        let nothing =
            |value: Option<&Value>| value.is_none_or(|value| value.is_null() || Form::of(schema, value).is_empty());
        let leaf = match forms[..] {
            _ if nothing(before) && nothing(after) => true,
            [Form::Map(_)] | [Form::List(_)] | [Form::Map(_), Form::Map(_)] | [Form::List(_), Form::List(_)] => false,
            _ => true,
        };
        if leaf {
            return self.told(before, after, path);
        }
        for (step, schema, before, after) in pairs(schema, before, after) {
            path.push(step);
            self.walk(schema, before, after, path);
            path.pop();
        }
        if before.is_none() || after.is_none() {
            self.told(before, after, path);
        }
    }

    fn told(&mut self, before: Option<&Value>, after: Option<&Value>, path: &[Step]) {
        match (before, after) {
            (None, _) => self.added.insert(path),
            (_, None) => self.removed.insert(path),
            _ => self.modified.insert(path),
        }
    }
}

type Pair<'a> = (Step, Option<&'a Schema>, Option<&'a Value>, Option<&'a Value>);

/// The parts of two values, each with its counterpart.
fn pairs<'a>(schema: Option<&'a Schema>, before: Option<&'a Value>, after: Option<&'a Value>) -> Vec<Pair<'a>> {
    let mut found: BTreeMap<Step, (Option<&Value>, Option<&Value>)> = BTreeMap::new();
    for (value, first) in [(before, true), (after, false)] {
        let Some(value) = value else { continue };
        for (step, part) in parts(schema, value) {
            let pair = found.entry(step).or_default();
            let side = if first { &mut pair.0 } else { &mut pair.1 };
            // Of items with the same keys the first counts.
            side.get_or_insert(part);
        }
    }
    found
        .into_iter()
        .map(|(step, (before, after))| {
            let schema = below(schema, &step);
            (step, schema, before, after)
        })
        .collect()
}

/// The steps from a value and where they lead.
pub(super) fn parts<'a>(schema: Option<&Schema>, value: &'a Value) -> Vec<(Step, &'a Value)> {
    match Form::of(schema, value) {
        Form::Leaf => Vec::new(),
        Form::Map(fields) => fields.iter().map(|(name, part)| (Step::Field(name.clone()), part)).collect(),
        Form::List(items) => {
            let step = |item: &'a Value| Some((Step::to_item(schema?, item)?, item));
            items.iter().filter_map(step).collect()
        }
    }
}

/// The schema one step further.
pub(super) fn below<'a>(schema: Option<&'a Schema>, step: &Step) -> Option<&'a Schema> {
    let schema = schema?;
    match step {
        Step::Field(name) => schema.of(name).map(|schema| &**schema),
        _ => schema.items.as_deref(),
    }
}

/// The paths that an applied object names.
pub(super) fn named(schema: &Schema, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    name(Some(schema), value, &mut Vec::new(), &mut set);
    set
}

fn name(schema: Option<&Schema>, value: &Value, path: &mut Vec<Step>, set: &mut FieldSet) {
    if matches!(Form::of(schema, value), Form::Leaf) {
        return set.insert(path);
    }
    for (step, part) in parts(schema, value) {
        let field = match &step {
            Step::Field(name) => schema.is_some_and(|schema| schema.properties.contains_key(name)),
            _ => false,
        };
        let hollow = part.is_null() || part.as_object().is_some_and(serde_json::Map::is_empty);
        let inner = below(schema, &step);
        path.push(step);
        name(inner, part, path, set);
        // Keys of a map and items of a list are named themselves, fields only by what is in them.
        if !field || hollow {
            set.insert(path);
        }
        path.pop();
    }
}
