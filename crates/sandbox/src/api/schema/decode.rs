//! Reading an object of a kind of Kubernetes: what cannot be its type is refused in the words of the API server.

use base64::Engine;
use jiff::Timestamp;
use serde_json::Value;

use super::{Schema, Type, inside};

const QUANTITY: &str = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

impl Schema {
    /// The first value that is not of its type. `owner` is the type whose field is at `place`.
    pub(crate) fn mismatch(&self, value: &Value, owner: &str, place: &str) -> Option<String> {
        if value.is_null() || self.preserve && self.kind.is_none() {
            return None;
        }
        if self.quantity {
            return (!is_quantity(value)).then(|| QUANTITY.to_owned());
        }
        if self.int_or_string {
            return (!value.is_string() && value.as_i64().is_none()).then(|| self.cannot(value, owner, place));
        }
        let owner = match &self.name {
            Some(name) => name.rsplit('.').next().unwrap_or(name),
            None => owner,
        };
        match (self.kind, value) {
            (Some(Type::Object), Value::Object(fields)) => fields.iter().find_map(|(name, value)| {
                // A map is known by its field, not by its keys.
                let place = if self.properties.contains_key(name) { inside(place, name) } else { place.to_owned() };
                self.of(name)?.mismatch(value, owner, &place)
            }),
            (Some(Type::Array), Value::Array(items)) => {
                let schema = self.items.as_ref()?;
                items.iter().find_map(|item| schema.mismatch(item, owner, place))
            }
            (Some(Type::String), Value::String(text)) => self.misformed(text),
            (Some(Type::Integer), Value::Number(_)) => (!self.fits(value)).then(|| self.cannot(value, owner, place)),
            (Some(Type::Number), Value::Number(_)) | (Some(Type::Boolean), Value::Bool(_)) | (None, _) => None,
            _ => Some(self.cannot(value, owner, place)),
        }
    }

    fn fits(&self, value: &Value) -> bool {
        let whole = value.as_i64();
        match self.format.as_deref() {
            Some("int32") => whole.is_some_and(|number| i32::try_from(number).is_ok()),
            _ => whole.is_some(),
        }
    }

    fn misformed(&self, text: &str) -> Option<String> {
        match self.format.as_deref() {
            Some("byte") => {
                let error = base64::engine::general_purpose::STANDARD.decode(text).err()?;
                let place = match error {
                    base64::DecodeError::InvalidByte(place, _) | base64::DecodeError::InvalidLastSymbol(place, _) => {
                        place
                    }
                    _ => text.len(),
                };
                Some(format!("illegal base64 data at input byte {place}"))
            }
            Some("date-time") => text.parse::<Timestamp>().err().map(|_| {
                let form = "2006-01-02T15:04:05Z07:00";
                format!("parsing time {text:?} as {form:?}: cannot parse {text:?} as \"2006\"")
            }),
            _ => None,
        }
    }

    fn cannot(&self, value: &Value, owner: &str, place: &str) -> String {
        let found = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(number) if matches!(self.kind, Some(Type::Integer)) => format!("number {number}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        format!("json: cannot unmarshal {found} into Go struct field {owner}.{place} of type {}", self.go_type())
    }

    fn go_type(&self) -> String {
        if let Some(name) = &self.name {
            return name.to_string();
        }
        match (self.kind, self.format.as_deref()) {
            (Some(Type::Integer), Some(format)) => format.to_owned(),
            (Some(Type::Integer), None) => "int64".to_owned(),
            (Some(Type::Number), _) => "float64".to_owned(),
            (Some(Type::Boolean), _) => "bool".to_owned(),
            (Some(Type::String), Some("byte")) => "[]uint8".to_owned(),
            (Some(Type::String) | None, _) => "string".to_owned(),
            (Some(Type::Array), _) => {
                format!("[]{}", self.items.as_ref().map_or_else(String::new, |items| items.go_type()))
            }
            (Some(Type::Object), _) => {
                format!("map[string]{}", self.additional.as_ref().map_or_else(String::new, |items| items.go_type()))
            }
        }
    }
}

/// Whether a value can be a quantity. Whether it is one of a sound size is left to those who count with it.
fn is_quantity(value: &Value) -> bool {
    let text = match value {
        Value::Number(_) => return true,
        Value::String(text) => text.trim_start_matches(['+', '-']),
        _ => return false,
    };
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &text[number.len()..];
    let digits = |text: &str| text.chars().any(|c| c.is_ascii_digit());
    let plain = |text: &str| digits(text) && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    match number.split_once(['e', 'E']) {
        Some((number, exponent)) => {
            let exponent = exponent.trim_start_matches(['+', '-']);
            suffix.is_empty() && plain(number) && digits(exponent) && exponent.chars().all(|c| c.is_ascii_digit())
        }
        None => {
            let known = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
            plain(number) && known.contains(&suffix)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::kinds;

    #[test]
    fn a_wrong_type_is_refused_as_the_api_server_does() {
        let schema = kinds::schema("io.k8s.api.apps.v1.Deployment");
        let said = |value: Value| schema.mismatch(&value, "", "").unwrap_or_default();
        assert_eq!(
            said(json!({"spec": {"replicas": "two"}})),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
        assert_eq!(
            said(json!({"spec": {"template": {"spec": {"containers": [{"image": true}]}}}})),
            "json: cannot unmarshal bool into Go struct field Container.spec.template.spec.containers.image of type string"
        );
        assert_eq!(
            said(json!({"metadata": {"labels": {"a": 5}}})),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"
        );
        assert_eq!(said(json!({"spec": {"replicas": null, "template": {}}})), "");
        let limits = |cpu: Value| json!({"spec": {"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": cpu}}}]}}}});
        assert_eq!(said(limits(json!(0.5))), "");
        assert_eq!(said(limits(json!("1e3"))), "");
        assert!(said(limits(json!("many"))).starts_with("quantities must match"));
    }
}
