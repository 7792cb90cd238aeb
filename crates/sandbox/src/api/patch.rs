//! The patches: merge (RFC 7386), JSON (RFC 6902), Kubernetes' strategic merge and server-side apply.

use http::StatusCode;
use serde_json::Value;

use super::failure::Failure;
use super::schema::Schema;
use super::strategic;

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
/// Most operations of a JSON patch, as on a real server.
const MOST_OPERATIONS: usize = 10_000;
/// Bytes that the copies and moves of one JSON patch may carry together, as a real server limits copies: each can double
/// the object.
const MOST_CARRIED: usize = 3 * 1024 * 1024;
/// Levels of nesting that a JSON patch may reach. Parsers of JSON take a few more, and none takes just any number.
const DEEPEST: usize = 120;

/// A change to an object.
#[derive(Debug)]
pub(crate) enum Patch {
    Merge(Value),
    Json(json_patch::Patch),
    Strategic(Value),
    /// What a manager wants of an object, whole.
    Apply(Value),
}

impl Patch {
    /// Reads a patch of the given content type; `builtin` kinds alone know how their lists merge.
    pub(crate) fn parse(content_type: &str, body: &[u8], builtin: bool) -> Result<Self, Failure> {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        let bad = |error: serde_json::Error| Failure::bad_request(format!("error decoding patch: {error}"));
        let object = || match serde_json::from_slice(body).map_err(bad)? {
            value @ Value::Object(_) => Ok(value),
            _ => Err(Failure::bad_request("error decoding patch: it must be an object")),
        };
        match media {
            "application/merge-patch+json" => object().map(Self::Merge),
            "application/json-patch+json" => serde_json::from_slice(body).map_err(bad).map(Self::Json),
            "application/strategic-merge-patch+json" if builtin => object().map(Self::Strategic),
            "application/apply-patch+yaml" => applied_object(body).map(Self::Apply),
            _ => Err(Failure::unsupported_media_type(ACCEPTED)),
        }
    }

    /// The value that a message shows when the changed object cannot be read.
    pub(crate) fn shown(&self, patched: &Value) -> String {
        match self {
            Self::Strategic(patch) => go_text(patch),
            _ => patched.to_string(),
        }
    }

    /// The object with the change made. The schema says how lists merge; an apply needs more than the object.
    pub(crate) fn applied(&self, value: &Value, schema: Option<&Schema>) -> Result<Value, Failure> {
        let mut value = value.clone();
        match self {
            Self::Merge(patch) => json_patch::merge(&mut value, patch),
            Self::Strategic(patch) => strategic::merge_object(&mut value, patch, schema)?,
            Self::Json(patch) => change(&mut value, patch)?,
            Self::Apply(_) => return Err(Failure::not_implemented("server-side apply of a subresource")),
        }
        Ok(value)
    }
}

/// A value as Go prints maps.
fn go_text(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut parts: Vec<_> = fields.iter().map(|(name, part)| format!("{name}:{}", go_text(part))).collect();
            parts.sort();
            format!("map[{}]", parts.join(" "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

/// An applied object, in YAML or in JSON, which is YAML but faster to read.
fn applied_object(body: &[u8]) -> Result<Value, Failure> {
    let read = serde_json::from_slice(body).or_else(|_| {
        let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    });
    match read {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(Failure::bad_request("error decoding YAML: it must be an object")),
        Err(error) => Err(Failure::bad_request(format!("error decoding YAML: {error}"))),
    }
}

/// Makes the operations of a JSON patch one by one, within what an object may become.
fn change(value: &mut Value, patch: &json_patch::Patch) -> Result<(), Failure> {
    use json_patch::PatchOperation::{Add, Copy, Move, Remove, Replace, Test};
    let limited = |what: &str, limit: usize| {
        let message = format!("Request entity is too large: a JSON patch may have at most {limit} {what}");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    };
    if patch.0.len() > MOST_OPERATIONS {
        return Err(limited("operations", MOST_OPERATIONS));
    }
    let mut carried = 0;
    for operation in &patch.0 {
        let (new, from) = match operation {
            Add(add) => (Some(&add.value), None),
            Replace(replace) => (Some(&replace.value), None),
            Copy(copy) => (None, value.pointer(copy.from.as_str())),
            Move(shift) => (None, value.pointer(shift.from.as_str())),
            Remove(_) | Test(_) => (None, None),
        };
        carried += from.map_or(0, size);
        if carried > MOST_CARRIED {
            return Err(limited("bytes copied and moved", MOST_CARRIED));
        }
        if operation.path().count() + new.or(from).map_or(0, depth) > DEEPEST {
            return Err(limited("levels", DEEPEST));
        }
        json_patch::patch(value, std::slice::from_ref(operation)).map_err(|_| Failure::rejected())?;
    }
    Ok(())
}

/// About as many bytes as the value has as JSON text.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 3,
        Value::Array(items) => 2 + items.iter().map(size).sum::<usize>(),
        Value::Object(fields) => 2 + fields.iter().map(|(name, value)| name.len() + 4 + size(value)).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 5,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn media_types_decide() {
        let code = |media: &str, builtin| {
            Patch::parse(media, b"{}", builtin).map(|_| ()).map_err(|failure| failure.code().as_u16())
        };
        assert_eq!(code("application/merge-patch+json", false), Ok(()));
        assert_eq!(code("application/strategic-merge-patch+json", true), Ok(()));
        assert_eq!(code("application/strategic-merge-patch+json", false), Err(415));
        assert_eq!(code("application/apply-patch+yaml", true), Ok(()));
        assert_eq!(code("application/json", true), Err(415));
    }

    #[test]
    fn a_json_patch_whose_test_fails_changes_nothing() {
        let body = br#"[{"op": "test", "path": "/a", "value": 2}, {"op": "replace", "path": "/a", "value": 3}]"#;
        let patch = Patch::parse("application/json-patch+json", body, true).unwrap();
        assert_eq!(patch.applied(&json!({"a": 1}), None).unwrap_err().code(), 422);
        assert_eq!(patch.applied(&json!({"a": 2}), None).unwrap(), json!({"a": 3}));
    }

    #[test]
    fn a_json_patch_cannot_make_a_small_request_a_huge_object() {
        let patch = |operations: Vec<Value>| {
            let body = Value::from(operations).to_string();
            Patch::parse("application/json-patch+json", body.as_bytes(), true).unwrap()
        };
        let doubled = (0..64).map(|n| json!({"op": "copy", "from": "/a", "path": format!("/a/{n}")})).collect();
        assert_eq!(patch(doubled).applied(&json!({"a": {"b": "c"}}), None).unwrap_err().code(), 413);
        // In turn each of the two is made anew and takes up the other.
        let nested = |op: &str| {
            let step = |number: usize| {
                let (outer, inner) = if number.is_multiple_of(2) { ("/a", "/b") } else { ("/b", "/a") };
                [
                    json!({"op": "add", "path": outer, "value": {"x": {}}}),
                    json!({"op": op, "from": inner, "path": format!("{outer}/x")}),
                ]
            };
            patch((0..200).flat_map(step).collect())
        };
        let start = json!({"a": {}, "b": {}});
        assert_eq!(nested("move").applied(&start, None).unwrap_err().code(), 413);
        assert_eq!(nested("copy").applied(&start, None).unwrap_err().code(), 413);
        let many = vec![json!({"op": "test", "path": "/a", "value": {}}); MOST_OPERATIONS + 1];
        assert_eq!(patch(many).applied(&start, None).unwrap_err().code(), 413);
    }
}
