//! The structural schema of a custom resource: pruning, defaults and validation.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use regex::Regex;
use serde_json::{Map, Value};

use super::failure::Cause;
use super::rule::Rule;

/// The `type` of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }

    fn holds(self, value: &Value) -> bool {
        match self {
            Self::Object => value.is_object(),
            Self::Array => value.is_array(),
            Self::String => value.is_string(),
            Self::Integer => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
        }
    }
}

/// A bound, and whether the bound itself is outside.
type Bound = (f64, bool);

/// Which items of a list must differ.
#[derive(Clone, Debug, PartialEq)]
enum Distinct {
    Whole,
    ByKeys(Vec<String>),
}

/// What a schema of Kubernetes cannot have.
const UNSUPPORTED: &[&str] = &["$ref", "additionalItems", "definitions", "dependencies", "id", "patternProperties"];
/// Formats that a real server checks and this one does not.
const UNCHECKED_FORMATS: &[&str] = &[
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "mac",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

/// One level of a schema.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    kind: Option<Type>,
    nullable: bool,
    int_or_string: bool,
    preserve: bool,
    /// The value is an object of Kubernetes, whose `apiVersion`, `kind` and `metadata` need no schema.
    embedded: bool,
    properties: BTreeMap<String, Schema>,
    additional: Option<Box<Schema>>,
    any_additional: bool,
    items: Option<Box<Schema>>,
    required: Vec<String>,
    allowed: Option<Vec<Value>>,
    minimum: Option<Bound>,
    maximum: Option<Bound>,
    multiple: Option<f64>,
    length: (Option<u64>, Option<u64>),
    count: (Option<u64>, Option<u64>),
    size: (Option<u64>, Option<u64>),
    pattern: Option<Regex>,
    format: Option<String>,
    distinct: Option<Distinct>,
    default: Option<Value>,
    rules: Vec<Rule>,
    all_of: Vec<Schema>,
    any_of: Vec<Schema>,
    one_of: Vec<Schema>,
    not: Option<Box<Schema>>,
}

impl Schema {
    /// Reads the `openAPIV3Schema` of a CRD; `place` is where it stands, for the causes.
    pub(crate) fn read(value: &Value, place: &str, causes: &mut Vec<Cause>) -> Self {
        unsupported(value, place, causes);
        let sub = |field: &str, causes: &mut Vec<Cause>| {
            let value = &value[field];
            value.is_object().then(|| Box::new(Self::read(value, &format!("{place}.{field}"), causes)))
        };
        let level = |field: &str, causes: &mut Vec<Cause>| {
            let value = &value[field];
            value.is_object().then(|| Box::new(Self::level(value, &format!("{place}.{field}"), causes)))
        };
        let subs = |field: &str, causes: &mut Vec<Cause>| -> Vec<Self> {
            let items = value[field].as_array().into_iter().flatten().enumerate();
            items.map(|(index, item)| Self::read(item, &format!("{place}.{field}[{index}]"), causes)).collect()
        };
        let bounds = |low: &str, high: &str| (value[low].as_u64(), value[high].as_u64());
        let bound = |field: &str, exclusive: &str| {
            value[field].as_f64().map(|bound| (bound, value[exclusive].as_bool().unwrap_or(false)))
        };
        let properties = value["properties"].as_object().into_iter().flatten();
        let schema = Self {
            kind: kind_of(value, place, causes),
            nullable: value["nullable"] == true,
            int_or_string: value["x-kubernetes-int-or-string"] == true,
            preserve: value["x-kubernetes-preserve-unknown-fields"] == true,
            embedded: value["x-kubernetes-embedded-resource"] == true,
            properties: properties
                .map(|(name, property)| {
                    (name.clone(), Self::level(property, &format!("{place}.properties[{name}]"), causes))
                })
                .collect(),
            additional: level("additionalProperties", causes),
            any_additional: value["additionalProperties"] == true,
            items: level("items", causes),
            required: texts(&value["required"]),
            allowed: value["enum"].as_array().cloned(),
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple: value["multipleOf"].as_f64(),
            length: bounds("minLength", "maxLength"),
            count: bounds("minItems", "maxItems"),
            size: bounds("minProperties", "maxProperties"),
            pattern: pattern_of(value, place, causes),
            format: value["format"].as_str().map(str::to_owned),
            distinct: match value["x-kubernetes-list-type"].as_str() {
                Some("set") => Some(Distinct::Whole),
                Some("map") => Some(Distinct::ByKeys(texts(&value["x-kubernetes-list-map-keys"]))),
                _ => None,
            },
            default: value.get("default").cloned(),
            rules: Rule::read_all(&value["x-kubernetes-validations"]),
            all_of: subs("allOf", causes),
            any_of: subs("anyOf", causes),
            one_of: subs("oneOf", causes),
            not: sub("not", causes),
        };
        schema.check_default(place, causes);
        schema
    }

    /// Reads the schema of a field or an item, which needs a type.
    fn level(value: &Value, place: &str, causes: &mut Vec<Cause>) -> Self {
        let free = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"];
        if value["type"].is_null() && free.iter().all(|free| value[*free] != true) {
            causes.push(Cause::required(format!("{place}.type"), "must not be empty for specified object fields"));
        }
        Self::read(value, place, causes)
    }

    fn check_default(&self, place: &str, causes: &mut Vec<Cause>) {
        let Some(default) = &self.default else { return };
        let mut refused = Vec::new();
        self.check(default, "", &mut refused);
        if !refused.is_empty() {
            causes.push(Cause::invalid(format!("{place}.default"), default, "must obey its own schema"));
        }
    }

    /// The schema of a field.
    fn of(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(self.additional.as_deref())
    }

    /// Removes what the schema does not know and collects the places.
    pub(crate) fn prune(&self, value: &mut Value, root: bool, place: &str, unknown: &mut Vec<String>) {
        match value {
            Value::Object(fields) => self.prune_fields(fields, root, place, unknown),
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                for (index, item) in items.iter_mut().enumerate() {
                    schema.prune(item, false, &format!("{place}[{index}]"), unknown);
                }
            }
            _ => {}
        }
    }

    fn prune_fields(&self, fields: &mut Map<String, Value>, root: bool, place: &str, unknown: &mut Vec<String>) {
        let known = |name: &str| {
            let meta = (root || self.embedded) && matches!(name, "apiVersion" | "kind" | "metadata");
            meta || self.preserve
                || self.any_additional
                || self.additional.is_some()
                || self.properties.contains_key(name)
        };
        fields.retain(|name, _| {
            let keep = known(name);
            if !keep {
                unknown.push(inside(place, name));
            }
            keep
        });
        for (name, value) in fields.iter_mut() {
            if let Some(schema) = self.of(name).filter(|_| !(root && name == "metadata")) {
                schema.prune(value, false, &inside(place, name), unknown);
            }
        }
    }

    /// Fills in defaults, and takes out nulls where there can be none: they stand for an absent field.
    pub(crate) fn fill(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, schema) in &self.properties {
                    let vacant = fields.get(name).is_none_or(|value| value.is_null() && !schema.nullable);
                    if let Some(default) = schema.default.as_ref().filter(|_| vacant) {
                        fields.insert(name.clone(), default.clone());
                    }
                }
                fields.retain(|name, value| {
                    let Some(schema) = self.of(name) else { return true };
                    let stays = schema.nullable || !value.is_null();
                    schema.fill(value);
                    stays
                });
            }
            Value::Array(items) => {
                for item in items {
                    if let Some(schema) = &self.items {
                        schema.fill(item);
                    }
                }
            }
            _ => {}
        }
    }

    /// Checks a value at `place`.
    pub(crate) fn check(&self, value: &Value, place: &str, causes: &mut Vec<Cause>) {
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
            Value::Object(fields) => self.check_fields(fields, place, causes),
            Value::Array(items) => self.check_items(items, place, causes),
            Value::String(text) => self.check_text(text, value, place, causes),
            Value::Number(_) => self.check_number(value, place, causes),
            Value::Null | Value::Bool(_) => {}
        }
        self.check_junctions(value, place, causes);
        for rule in self.rules.iter().filter(|rule| !rule.holds(value)) {
            causes.push(Cause::invalid(place, value, &rule.message));
        }
    }

    fn wanted(&self) -> &'static str {
        if self.int_or_string { "integer or string" } else { self.kind.map_or("any", Type::name) }
    }

    fn check_fields(&self, fields: &Map<String, Value>, place: &str, causes: &mut Vec<Cause>) {
        for name in self.required.iter().filter(|name| !fields.contains_key(*name)) {
            causes.push(Cause::required(inside(place, name), ""));
        }
        let body = format!("{place} in body");
        within(fields.len() as u64, self.size, &body, "properties", place, &Value::Object(Map::new()), causes);
        for (name, value) in fields {
            if let Some(schema) = self.of(name) {
                schema.check(value, &inside(place, name), causes);
            }
        }
    }

    fn check_items(&self, items: &[Value], place: &str, causes: &mut Vec<Cause>) {
        let body = format!("{place} in body");
        let shown = Value::from(items.len());
        within(items.len() as u64, self.count, &body, "items", place, &shown, causes);
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let at = format!("{place}[{index}]");
            if self.distinct.as_ref().is_some_and(|distinct| !seen.insert(distinct.identity(item))) {
                causes.push(Cause::duplicate(&at, item));
            }
            if let Some(schema) = &self.items {
                schema.check(item, &at, causes);
            }
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
            schema.check(value, place, causes);
        }
        let holds = |schema: &Schema| {
            let mut found = Vec::new();
            schema.check(value, place, &mut found);
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

    /// The rules and formats, of this level and below, that nobody can evaluate here.
    pub(crate) fn unevaluated(&self, found: &mut Vec<String>) {
        found.extend(self.rules.iter().filter(|rule| !rule.is_known()).map(|rule| format!("rule {:?}", rule.text)));
        found.extend(
            self.format
                .iter()
                .filter(|format| self.kind == Some(Type::String) && UNCHECKED_FORMATS.contains(&format.as_str()))
                .map(|format| format!("format {format:?}")),
        );
        let below = self.properties.values().chain(self.additional.as_deref()).chain(self.items.as_deref());
        for schema in below.chain(&self.all_of).chain(&self.any_of).chain(&self.one_of).chain(self.not.as_deref()) {
            schema.unevaluated(found);
        }
    }
}

impl Distinct {
    /// A text that is the same for items that are the same.
    fn identity(&self, item: &Value) -> String {
        match self {
            Self::Whole => {
                let mut item = item.clone();
                item.sort_all_objects();
                item.to_string()
            }
            Self::ByKeys(keys) => keys.iter().map(|key| item[key].to_string()).collect::<Vec<_>>().join(","),
        }
    }
}

/// Refuses what would be accepted and then not be done.
fn unsupported(value: &Value, place: &str, causes: &mut Vec<Cause>) {
    for field in UNSUPPORTED.iter().filter(|field| !value[**field].is_null()) {
        causes.push(Cause::forbidden(format!("{place}.{field}"), &format!("{field} is not supported")));
    }
    if value["uniqueItems"] == true {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        causes.push(Cause::forbidden(format!("{place}.uniqueItems"), detail));
    }
    if value["properties"].is_object() && value["additionalProperties"].is_object() {
        let detail = "additionalProperties and properties are mutual exclusive";
        causes.push(Cause::forbidden(format!("{place}.additionalProperties"), detail));
    }
    if value["type"] == "array" && !value["items"].is_object() {
        causes.push(Cause::required(format!("{place}.items"), "must be specified"));
    }
}

fn kind_of(value: &Value, place: &str, causes: &mut Vec<Cause>) -> Option<Type> {
    let types = [Type::Object, Type::Array, Type::String, Type::Integer, Type::Number, Type::Boolean];
    let name = value["type"].as_str()?;
    let found = types.into_iter().find(|kind| kind.name() == name);
    if found.is_none() {
        let supported = types.map(|kind| Value::from(kind.name()));
        causes.push(Cause::unsupported(format!("{place}.type"), &value["type"], &supported));
    }
    found
}

fn pattern_of(value: &Value, place: &str, causes: &mut Vec<Cause>) -> Option<Regex> {
    match Regex::new(value["pattern"].as_str()?) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let detail = format!("must be a valid regular expression, but isn't: {error}");
            causes.push(Cause::invalid(format!("{place}.pattern"), &value["pattern"], &detail));
            None
        }
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn inside(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
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
        schema().check(&json!({"spec": spec}), "", &mut causes);
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
