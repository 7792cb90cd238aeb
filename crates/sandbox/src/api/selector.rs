//! Label and field selectors.

use std::borrow::Cow;

use serde_json::Value;

use super::failure::Failure;
use super::validation::{label_value, qualified};

/// A label selector in its text form, such as `app=web,tier in (a,b),!legacy`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

impl LabelSelector {
    /// Reads the text form.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        split_outside_parentheses(text)
            .into_iter()
            .filter(|part| !part.trim().is_empty())
            .map(|part| requirement(part.trim()))
            .collect::<Option<Vec<_>>>()
            .map(Self)
            .ok_or_else(|| Failure::bad_request(format!("unable to parse requirement: label selector {text:?}")))
    }

    /// Whether an object's labels satisfy every requirement.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.0.iter().all(|requirement| {
            let value = labels[&requirement.key].as_str();
            match &requirement.test {
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
                Test::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
                Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|one| one != value)),
                Test::Greater(bound) => number(value).is_some_and(|value| value > *bound),
                Test::Less(bound) => number(value).is_some_and(|value| value < *bound),
            }
        })
    }
}

fn number(value: Option<&str>) -> Option<i64> {
    value?.parse().ok()
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0_i32);
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(text: &str) -> Option<Requirement> {
    let made = |key: &str, test| {
        let key = key.trim();
        let sound = match &test {
            Test::In(values) | Test::NotIn(values) => values.iter().all(|value| label_value(value)),
            _ => true,
        };
        (sound && qualified(key)).then(|| Requirement { key: key.to_owned(), test })
    };
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some(key) = text.strip_prefix('!') {
        return made(key, Test::Absent);
    }
    if let Some((key, value)) = text.split_once("!=") {
        return made(key, Test::NotIn(one(value)));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return made(key, Test::In(one(value)));
    }
    if let Some(list) = text.strip_suffix(')') {
        let (head, values) = list.split_once('(')?;
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        let (key, word) = head.trim().rsplit_once(char::is_whitespace)?;
        return match word {
            "in" => made(key, Test::In(values)),
            "notin" => made(key, Test::NotIn(values)),
            _ => None,
        };
    }
    if let Some((key, value)) = text.split_once('>') {
        return made(key, Test::Greater(value.trim().parse().ok()?));
    }
    if let Some((key, value)) = text.split_once('<') {
        return made(key, Test::Less(value.trim().parse().ok()?));
    }
    made(text, Test::Exists)
}

/// The text form of a `LabelSelector` object, as a scale's `status.selector` carries it.
pub(crate) fn text_of(selector: &Value) -> String {
    let mut parts = Vec::new();
    let labels = selector["matchLabels"].as_object();
    for (key, value) in labels.into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let values: Vec<_> = expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        parts.push(match expression["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    parts.sort();
    parts.join(",")
}

/// A field selector, such as `metadata.name=x,status.phase!=Running`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector(Vec<FieldTest>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldTest {
    path: Vec<String>,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// Reads the text form.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let mut tests = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (field, value, equal) = if let Some((field, value)) = part.split_once("!=") {
                (field, value, false)
            } else if let Some((field, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (field, value, true)
            } else {
                return Err(Failure::bad_request(format!("invalid field selector {part:?}")));
            };
            let path = field.split('.').map(str::to_owned).collect();
            tests.push(FieldTest { path, value: value.to_owned(), equal });
        }
        Ok(Self(tests))
    }

    /// Refuses fields that the resource cannot be selected by, besides name and namespace.
    /// `told` words the refusal.
    pub(crate) fn check(&self, selectable: &[&str], told: impl Fn(&str) -> String) -> Result<(), Failure> {
        for test in &self.0 {
            let field = test.path.join(".");
            if !matches!(&*field, "metadata.name" | "metadata.namespace") && !selectable.contains(&&*field) {
                return Err(Failure::bad_request(told(&field)));
            }
        }
        Ok(())
    }

    /// Whether an object's fields satisfy every test; a missing field reads as empty.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|test| {
            let mut value = object;
            for key in &test.path {
                value = &value[key];
            }
            (plain_text(value) == test.value) == test.equal
        })
    }
}

/// A value as a selector writes it: text without quotes, nothing for null.
pub(super) fn plain_text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed(""),
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_form_of_requirement_is_understood() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "b", "n": "5"}}});
        let matches = |text: &str| LabelSelector::parse(text).unwrap().matches(&object);
        for text in ["", "app=web", "app==web", "app!=db", "tier in (a, b),app", "x notin (y)", "!x", "n>4,n<6", "x!=y"]
        {
            assert!(matches(text), "{text}");
        }
        for text in ["app=db", "app!=web", "tier in (a)", "tier notin (b,c)", "!app", "x", "n>5", "app=web,x"] {
            assert!(!matches(text), "{text}");
        }
        for text in ["a b", "a in b", "=x", "a in (b", "a=-x", "a/b/c"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_selector_object_becomes_text() {
        let selector = json!({
            "matchLabels": {"b": "2", "a": "1"},
            "matchExpressions": [{"key": "t", "operator": "In", "values": ["x", "y"]}, {"key": "z", "operator": "Exists"}],
        });
        assert_eq!(text_of(&selector), "a=1,b=2,t in (x,y),z");
    }

    #[test]
    fn fields_are_selected_by_path_and_refused_when_not_selectable() {
        let pod = json!({"metadata": {"name": "x"}, "status": {"phase": "Running"}});
        let selector = FieldSelector::parse("metadata.name=x,status.phase!=Pending").unwrap();
        assert!(selector.matches(&pod));
        assert!(selector.check(&["status.phase"], str::to_owned).is_ok());
        assert!(selector.check(&[], str::to_owned).is_err());
    }
}
