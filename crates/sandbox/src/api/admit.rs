//! From what is sent to an object in its stored form.

use serde_json::{Value, json};

use super::failure::{Cause, Failure};
use super::fields;
use super::kinds;
use super::query::FieldValidation;
use super::resource::{Form, Resource, api_version};
use super::schema::Schema;
use super::selector::plain_text;
use super::world::Call;

/// Reads a body as an object of the resource, in the stored form.
pub(super) fn admit(call: &Call<'_>, value: Value, warnings: &mut Vec<String>) -> Result<Value, Failure> {
    let (version, kind) = (&call.resource.version, &call.resource.kind);
    let cannot = |error: String, _: &Value| {
        Failure::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {error}"))
    };
    admit_or(call, value, warnings, cannot)
}

/// Reads a patched object; `shown` is what a refusal shows of it.
pub(super) fn admit_patched(
    call: &Call<'_>,
    value: Value,
    shown: impl FnOnce(&Value) -> String,
    warnings: &mut Vec<String>,
) -> Result<Value, Failure> {
    admit_or(call, value, warnings, |error, value| {
        let cause = Cause::invalid("patch", &shown(value).into(), &error);
        Failure::invalid("", "", "", &[cause])
    })
}

fn admit_or(
    call: &Call<'_>,
    mut value: Value,
    warnings: &mut Vec<String>,
    cannot: impl FnOnce(String, &Value) -> Failure,
) -> Result<Value, Failure> {
    let resource = call.resource;
    check_kind(&mut value, &resource.api_version(), &resource.kind)?;
    let mut unknown = Vec::new();
    let read = match &resource.form {
        Form::Builtin(row) => read(&kinds::schema(row.definition), &mut value, &resource.kind, "", &mut unknown),
        Form::Custom(form) => {
            form.schema.prune(&mut value, true, "", &mut unknown);
            read(&kinds::metadata(), &mut value["metadata"], "ObjectMeta", "metadata", &mut unknown)
        }
    };
    if let Err(error) = read {
        return Err(cannot(error, &value));
    }
    let mut value = stored(resource, value);
    settle(resource, &mut value);
    let lines: Vec<_> = unknown.iter().map(|field| format!("unknown field {field:?}")).collect();
    match call.query.field_validation {
        FieldValidation::Strict if !lines.is_empty() => {
            Err(cannot(format!("strict decoding error: {}", lines.join(", ")), &value))
        }
        FieldValidation::Warn => {
            warnings.extend(lines);
            Ok(value)
        }
        _ => Ok(value),
    }
}

/// Refuses what is not of its type, and takes out what nobody knows.
fn read(schema: &Schema, value: &mut Value, owner: &str, place: &str, unknown: &mut Vec<String>) -> Result<(), String> {
    match schema.mismatch(value, owner, place) {
        Some(error) => Err(error),
        None => {
            schema.prune(value, false, place, unknown);
            Ok(())
        }
    }
}

/// An object in the form in which it is stored.
fn stored(resource: &Resource, mut value: Value) -> Value {
    match &resource.form {
        Form::Builtin(row) => match &row.exchange {
            Some(exchange) => (exchange.stored)(value),
            None => value,
        },
        Form::Custom(form) => {
            value["apiVersion"] = api_version(&resource.group, &form.storage).into();
            value
        }
    }
}

/// Brings an object in its stored form into the shape in which objects are kept: with the defaults of its schema, without
/// nulls, quantities in their one way of writing, and nothing where nothing is said.
pub(super) fn settle(resource: &Resource, value: &mut Value) {
    match &resource.form {
        Form::Builtin(_) => {
            resource.tree.fill(value);
            resource.tree.measure(value);
        }
        Form::Custom(form) => {
            kinds::metadata().fill(&mut value["metadata"]);
            form.schema.fill(value);
        }
    }
    if let Some(metadata) = value["metadata"].as_object_mut() {
        metadata.retain(|name, part| {
            let listed = matches!(name.as_str(), "annotations" | "finalizers" | "labels" | "ownerReferences");
            let empty =
                part.as_object().is_some_and(serde_json::Map::is_empty) || part.as_array().is_some_and(Vec::is_empty);
            !(listed && empty)
        });
    }
}

/// Refuses an applied object that its schema does not describe, and brings it into the stored form.
pub(super) fn refuse_others(call: &Call<'_>, config: &mut Value) -> Result<(), Failure> {
    let resource = call.resource;
    let version = resource.api_version();
    check_kind(config, &version, &resource.kind)?;
    let described = resource.described();
    let errors = fields::untyped(described.as_deref().unwrap_or(&resource.tree), config);
    if !errors.is_empty() {
        let errors = match &errors[..] {
            [only] => only.clone(),
            _ => format!("errors:\n  {}", errors.join("\n  ")),
        };
        let text = |field: &str| config["metadata"][field].as_str().unwrap_or_default();
        let (namespace, name, kind) = (text("namespace"), text("name"), &resource.kind);
        let message =
            format!("failed to create typed patch object ({namespace}/{name}; {version}, Kind={kind}): {errors}");
        return Err(Failure::unexplained(message));
    }
    *config = stored(resource, config.take());
    Ok(())
}

/// Fills in `apiVersion` and `kind`, or refuses others.
pub(super) fn check_kind(value: &mut Value, api_version: &str, kind: &str) -> Result<(), Failure> {
    if !value.is_object() {
        return Err(Failure::bad_request("the body of the request must be an object"));
    }
    for (field, wanted) in [("apiVersion", api_version), ("kind", kind)] {
        match &value[field] {
            Value::Null => value[field] = wanted.into(),
            Value::String(given) if given.is_empty() => value[field] = wanted.into(),
            given if given == wanted => {}
            given => {
                let given = plain_text(given);
                let message = format!("the {field} in the data ({given}) does not match the expected one ({wanted})");
                return Err(Failure::bad_request(message));
            }
        }
    }
    match &value["metadata"] {
        Value::Object(_) => Ok(()),
        Value::Null => {
            value["metadata"] = json!({});
            Ok(())
        }
        other => Err(Failure::bad_request(format!("{kind} cannot be handled: {other} is no metadata"))),
    }
}
