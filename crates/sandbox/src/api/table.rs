//! Objects as rows of a `Table`.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{age, age_of, duration_text};
use super::jsonpath::JsonPath;
use super::read::metadata_only;
use super::resource::{Column, Form, Resource};
use crate::store::Object;

/// A table of objects; `include` says what each row carries beside its cells.
pub(super) fn of(
    resource: &Resource,
    objects: &[&Object],
    metadata: Value,
    include: Option<&str>,
    now: Timestamp,
) -> Value {
    let rows: Vec<_> = objects.iter().map(|object| row(resource, object, include, now)).collect();
    let columns: Vec<_> = columns(resource).iter().map(definition).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}

fn row(resource: &Resource, object: &Object, include: Option<&str>, now: Timestamp) -> Value {
    let cells = match &resource.form {
        Form::Builtin(row) => (row.columns.cells)(&object.value, now),
        Form::Custom(form) => custom_cells(&form.columns, &object.value, now),
    };
    let carried = match include {
        Some("None") => Value::Null,
        Some("Object") => resource.shown(object).into_owned(),
        _ => metadata_only(&object.value),
    };
    json!({"cells": cells, "object": carried})
}

fn custom_cells(columns: &[(Column, JsonPath)], value: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![value["metadata"]["name"].clone()];
    if columns.is_empty() {
        cells.push(age(value, now));
    }
    cells.extend(columns.iter().map(|(column, path)| cell(column, &path.find(value), now)));
    cells
}

fn cell(column: &Column, found: &[&Value], now: Timestamp) -> Value {
    if found.is_empty() {
        return Value::Null;
    }
    match (&*column.kind, found) {
        ("date", [time, ..]) => age_of(time, now).map_or("<unknown>".to_owned(), duration_text).into(),
        ("integer" | "number" | "boolean", [one, ..]) => (*one).clone(),
        (_, many) => {
            let text = |value: &&Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            many.iter().map(text).collect::<Vec<_>>().join(",").into()
        }
    }
}

fn columns(resource: &Resource) -> Vec<Column> {
    match &resource.form {
        Form::Builtin(row) => row.columns.names.iter().map(|name| builtin(name)).collect(),
        Form::Custom(form) => {
            let mut columns = vec![builtin("Name")];
            if form.columns.is_empty() {
                columns.push(builtin("Age"));
            }
            columns.extend(form.columns.iter().map(|(column, _)| column.clone()));
            columns
        }
    }
}

fn builtin(name: &'static str) -> Column {
    let (name, priority) = name.strip_prefix('+').map_or((name, 0), |wide| (wide, 1));
    Column {
        name: Cow::Borrowed(name),
        kind: Cow::Borrowed("string"),
        format: Cow::Borrowed(if name == "Name" { "name" } else { "" }),
        priority,
    }
}

fn definition(column: &Column) -> Value {
    json!({
        "name": column.name, "type": column.kind, "format": column.format, "description": "",
        "priority": column.priority,
    })
}
