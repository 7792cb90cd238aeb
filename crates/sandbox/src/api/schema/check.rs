//! Checking a custom resource against its schema.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Bound, ListType, Schema, Type, inside};
use crate::api::failure::Cause;

impl Schema {
    /// Checks a value at `place`. What is as it was in `old` may stay so.
    pub(crate) fn check(&self, value: &Value, old: Option<&Value>, place: &str, causes: &mut Vec<Cause>) {
        if old == Some(value) {
            return;
        }
        if value.is_null() {
            if !self.nullable && (self.kind.is_some() || self.int_or_string) {
                causes.push(Cause::mistyped(place, "null", self.wanted()));
            }
            return;
        }
        let fits = match self.kind {
            _ if self.int_or_string => value.is_string() || Type::Integer.holds(value),
            Some(kind) => kind.holds(value),
            None => true,
        };
        if !fits {
            return causes.push(Cause::mistyped(place, type_name(value), self.wanted()));
        }
        if let Some(allowed) = self.allowed.as_ref().filter(|allowed| !allowed.contains(value)) {
            causes.push(Cause::unsupported(place, value, allowed));
        }
        match value {
            Value::Object(fields) => self.check_fields(fields, old, place, causes),
            Value::Array(items) => self.check_items(items, old, place, causes),
            Value::String(text) => self.check_text(text, value, place, causes),
            Value::Number(_) => self.check_number(value, place, causes),
            Value::Null | Value::Bool(_) => {}
        }
        self.check_junctions(value, place, causes);
    }

    fn wanted(&self) -> &'static str {
        if self.int_or_string { "integer or string" } else { self.kind.map_or("any", Type::name) }
    }

    fn check_fields(&self, fields: &Map<String, Value>, old: Option<&Value>, place: &str, causes: &mut Vec<Cause>) {
        for name in self.required.iter().filter(|name| !fields.contains_key(*name)) {
            causes.push(Cause::required(inside(place, name), ""));
        }
        let body = format!("{place} in body");
        within(fields.len() as u64, self.size, &body, "properties", place, &Value::Object(Map::new()), causes);
        for (name, value) in fields {
            if let Some(schema) = self.of(name) {
                schema.check(value, old.and_then(|old| old.get(name)), &inside(place, name), causes);
            }
        }
    }

    fn check_items(&self, items: &[Value], old: Option<&Value>, place: &str, causes: &mut Vec<Cause>) {
        let body = format!("{place} in body");
        let shown = Value::from(items.len());
        within(items.len() as u64, self.count, &body, "items", place, &shown, causes);
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let at = format!("{place}[{index}]");
            if self.identity(item).is_some_and(|identity| !seen.insert(identity)) {
                causes.push(Cause::duplicate(&at, &self.told(item)));
            }
            if let Some(schema) = &self.items {
                let before = self.before(item, old);
                schema.check(item, before, &at, causes);
            }
        }
    }

    /// The item that had an item's keys before.
    pub(in crate::api) fn before<'a>(&self, item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
        let identity = match &self.list {
            ListType::Map(_) => self.identity(item)?,
            _ => return None,
        };
        old?.as_array()?.iter().find(|one| self.identity(one).as_ref() == Some(&identity))
    }

    /// What a message shows of an item that is there twice.
    fn told(&self, item: &Value) -> Value {
        match &self.list {
            ListType::Map(keys) => {
                Value::Object(keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect())
            }
            _ => item.clone(),
        }
    }

    /// A text that is the same for items of the list that are the same; `None` where items are not told apart.
    pub(in crate::api) fn identity(&self, item: &Value) -> Option<String> {
        match &self.list {
            ListType::Atomic => None,
            ListType::Set => {
                let mut item = item.clone();
                item.sort_all_objects();
                Some(item.to_string())
            }
            ListType::Map(keys) => Some(keys.iter().map(|key| item[key].to_string()).collect::<Vec<_>>().join(",")),
        }
    }

    fn check_text(&self, text: &str, value: &Value, place: &str, causes: &mut Vec<Cause>) {
        let body = format!("{place} in body");
        within(text.chars().count() as u64, self.length, &body, "chars long", place, value, causes);
        if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            causes.push(Cause::invalid(place, value, &format!("{body} should match '{}'", pattern.as_str())));
        }
        if self.format.as_deref() == Some("date-time") && text.parse::<Timestamp>().is_err() {
            causes.push(Cause::invalid(place, value, &format!("{body} must be of type date-time: {text:?}")));
        }
    }

    fn check_number(&self, value: &Value, place: &str, causes: &mut Vec<Cause>) {
        let number = value.as_f64().unwrap_or_default();
        let body = format!("{place} in body");
        let outside = |beyond: bool, (bound, exclusive): &Bound| beyond || (*exclusive && number == *bound);
        if let Some((bound, exclusive)) = self.minimum.filter(|bound| outside(number < bound.0, bound)) {
            let relation = if exclusive { "greater than" } else { "greater than or equal to" };
            causes.push(Cause::invalid(place, value, &format!("{body} should be {relation} {bound}")));
        }
        if let Some((bound, exclusive)) = self.maximum.filter(|bound| outside(number > bound.0, bound)) {
            let relation = if exclusive { "less than" } else { "less than or equal to" };
            causes.push(Cause::invalid(place, value, &format!("{body} should be {relation} {bound}")));
        }
        if let Some(multiple) = self.multiple.filter(|multiple| (number / multiple).fract() != 0.0) {
            causes.push(Cause::invalid(place, value, &format!("{body} should be a multiple of {multiple}")));
        }
        let whole = value.as_i64();
        if self.format.as_deref() == Some("int32") && whole.is_none_or(|number| i32::try_from(number).is_err()) {
            causes.push(Cause::invalid(place, value, &format!("{body} must be of type int32: {value}")));
        }
    }

    fn check_junctions(&self, value: &Value, place: &str, causes: &mut Vec<Cause>) {
        for schema in &self.all_of {
            schema.check(value, None, place, causes);
        }
        let holds = |schema: &Schema| {
            let mut found = Vec::new();
            schema.check(value, None, place, &mut found);
            found.is_empty()
        };
        if !self.any_of.is_empty() && !self.any_of.iter().any(holds) {
            causes.push(Cause::invalid(
                place,
                value,
                &format!("{place} in body must validate at least one schema (anyOf)"),
            ));
        }
        if !self.one_of.is_empty() && self.one_of.iter().filter(|schema| holds(schema)).count() != 1 {
            causes.push(Cause::invalid(
                place,
                value,
                &format!("{place} in body must validate one and only one schema (oneOf)"),
            ));
        }
        if self.not.as_ref().is_some_and(|schema| holds(schema)) {
            causes.push(Cause::invalid(place, value, &format!("{place} in body must not validate the schema (not)")));
        }
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn within(
    number: u64,
    (low, high): (Option<u64>, Option<u64>),
    body: &str,
    unit: &str,
    place: &str,
    value: &Value,
    causes: &mut Vec<Cause>,
) {
    // A text has a length, a list or an object has members.
    let verb = if unit == "chars long" { "be" } else { "have" };
    if let Some(low) = low.filter(|low| number < *low) {
        causes.push(Cause::invalid(place, value, &format!("{body} should {verb} at least {low} {unit}")));
    }
    if let Some(high) = high.filter(|high| number > *high) {
        causes.push(Cause::invalid(place, value, &format!("{body} should {verb} at most {high} {unit}")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        let mut causes = Vec::new();
        let schema = Schema::read(
            &json!({"type": "object", "required": ["spec"], "properties": {
                "spec": {"type": "object", "required": ["size"], "properties": {
                    "size": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 9},
                    "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
                    "code": {"type": "string", "pattern": "^[0-9]+$", "minLength": 2},
                    "list": {"type": "array", "minItems": 1, "items": {"type": "object", "properties": {"x": {"type": "string"}}}},
                    "port": {"x-kubernetes-int-or-string": true},
                    "map": {"type": "object", "additionalProperties": {"type": "string"}},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                        "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
                }},
            }}),
            "",
            &mut causes,
        );
        assert!(causes.is_empty(), "{causes:?}");
        schema
    }

    fn refusals(spec: Value) -> String {
        let mut causes = Vec::new();
        schema().check(&json!({"spec": spec}), None, "", &mut causes);
        format!("{causes:?}")
    }

    #[test]
    fn unknown_fields_are_pruned_and_named() {
        let mut value = json!({
            "apiVersion": "v", "kind": "K", "metadata": {"name": "n", "labels": {"a": "b"}}, "extra": 1,
            "spec": {"size": 1, "no": 1, "list": [{"x": "1", "y": 2}], "map": {"any": "thing"}, "free": {"a": {"b": 1}}},
        });
        let mut unknown = Vec::new();
        schema().prune(&mut value, true, "", &mut unknown);
        assert_eq!(unknown, ["extra", "spec.no", "spec.list[0].y"]);
        assert_eq!(value["spec"]["free"]["a"]["b"], 1);
        assert_eq!(value["metadata"]["labels"]["a"], "b");
        assert!(value["spec"]["list"][0].get("y").is_none());
    }

    #[test]
    fn defaults_fill_the_absent_and_the_null() {
        let mut value = json!({"spec": {"size": 1, "mode": null}});
        schema().fill(&mut value);
        assert_eq!(value["spec"]["mode"], "a");
    }

    #[test]
    fn a_null_stands_for_an_absent_field() {
        let mut value = json!({"spec": {"size": null, "code": null, "map": {"a": null}, "free": {"kept": null}}});
        schema().fill(&mut value);
        assert_eq!(value, json!({"spec": {"mode": "a", "map": {}, "free": {"kept": null}}}));
    }

    #[test]
    fn a_schema_that_would_not_be_obeyed_is_refused() {
        for (field, place) in [
            (json!({"type": "string", "$ref": "#/x"}), "x.$ref"),
            (json!({"type": "array", "uniqueItems": true, "items": {"type": "string"}}), "x.uniqueItems"),
            (json!({"type": "object", "patternProperties": {}}), "x.patternProperties"),
            (json!({"properties": {"a": {"type": "string"}}}), "x.type"),
            (json!({"type": "array"}), "x.items"),
            (json!({"type": "string", "default": 5}), "x.default"),
            (
                json!({"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}),
                "x.additionalProperties",
            ),
        ] {
            let mut causes = Vec::new();
            Schema::read(&json!({"type": "object", "properties": {"x": field}}), "", &mut causes);
            let place = place.replacen("x.", ".properties[x].", 1);
            assert_eq!(causes.len(), 1, "{causes:?}");
            assert!(format!("{causes:?}").contains(&place), "{place}: {causes:?}");
        }
    }

    #[test]
    fn each_restriction_refuses_what_it_forbids() {
        assert_eq!(refusals(json!({"size": 5, "port": "http", "code": "42", "list": [{}]})), "[]");
        assert!(refusals(json!({})).contains("spec.size"));
        assert!(refusals(json!({"size": 0})).contains("should be greater than or equal to 1"));
        assert!(refusals(json!({"size": 10})).contains("should be less than or equal to 9"));
        assert!(refusals(json!({"size": "5"})).contains("must be of type integer"));
        assert!(refusals(json!({"size": 1.5})).contains("must be of type integer"));
        assert!(refusals(json!({"size": null})).contains("must be of type integer"));
        assert!(refusals(json!({"size": 1, "mode": "c"})).contains("Unsupported value"));
        assert!(refusals(json!({"size": 1, "code": "xx"})).contains("should match"));
        assert!(refusals(json!({"size": 1, "code": "1"})).contains("at least 2 chars long"));
        assert!(refusals(json!({"size": 1, "list": []})).contains("should have at least 1 items"));
        assert!(refusals(json!({"size": 1, "port": true})).contains("integer or string"));
        assert!(refusals(json!({"size": 1, "map": {"a": 1}})).contains("spec.map.a"));
        assert!(refusals(json!({"size": 1, "keyed": [{"k": "a"}, {"k": "a"}]})).contains("Duplicate"));
    }
}
