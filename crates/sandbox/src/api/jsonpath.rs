//! The small part of JSONPath that printer columns use: fields, indices, `[*]` and `[?(@.field=="text")]`.

use serde_json::Value;

use super::selector::plain_text;

/// A parsed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(usize),
    All,
    Where { path: Vec<String>, value: String },
}

impl JsonPath {
    /// Reads a path such as `.status.conditions[?(@.type=="Ready")].status`; `None` if it uses anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut steps = Vec::new();
        let mut rest = text.trim();
        rest = rest.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(rest);
        while !rest.is_empty() {
            let (step, after) = match rest.as_bytes()[0] {
                b'[' => bracket(rest)?,
                b'.' => field(&rest[1..])?,
                _ if steps.is_empty() => field(rest)?,
                _ => return None,
            };
            steps.push(step);
            rest = after;
        }
        Some(Self(steps))
    }

    /// What the path finds, in order.
    pub(crate) fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.take(value)).collect();
        }
        found
    }
}

impl Step {
    fn take<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => value.get(index).into_iter().collect(),
            Self::All => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(fields) => fields.values().collect(),
                _ => Vec::new(),
            },
            Self::Where { path, value: wanted } => {
                let holds = |item: &&Value| {
                    let found = path.iter().fold(*item, |value, key| &value[key]);
                    plain_text(found) == *wanted
                };
                value.as_array().into_iter().flatten().filter(holds).collect()
            }
        }
    }
}

/// A field's name up to the next dot or bracket; a dot in the name is escaped.
fn field(text: &str) -> Option<(Step, &str)> {
    let mut name = String::new();
    let mut characters = text.char_indices();
    let mut end = text.len();
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => name.push(characters.next()?.1),
            '.' | '[' => {
                end = index;
                break;
            }
            other => name.push(other),
        }
    }
    match name.as_str() {
        "" => None,
        "*" => Some((Step::All, &text[end..])),
        _ => Some((Step::Field(name), &text[end..])),
    }
}

fn bracket(text: &str) -> Option<(Step, &str)> {
    if let Some(condition) = text.strip_prefix("[?(@.") {
        let (path, rest) = condition.split_once("==")?;
        let rest = rest.trim_start();
        let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        let (value, rest) = rest[1..].split_once(quote)?;
        let path = path.trim().split('.').map(str::to_owned).collect();
        return Some((Step::Where { path, value: value.to_owned() }, rest.trim_start().strip_prefix(")]")?));
    }
    let (inner, rest) = text[1..].split_once(']')?;
    let step = match inner {
        "*" => Step::All,
        _ => match inner.strip_prefix(['\'', '"']).and_then(|name| name.strip_suffix(['\'', '"'])) {
            Some(name) => Step::Field(name.to_owned()),
            None => Step::Index(inner.parse().ok()?),
        },
    };
    Some((step, rest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(path: &str) -> Vec<String> {
        let value = json!({
            "spec": {"list": [{"name": "a"}, {"name": "b"}], "a.b": "dotted"},
            "status": {"conditions": [{"type": "Active", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        let path = JsonPath::parse(path).unwrap();
        path.find(&value).into_iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_forms_of_printer_columns_work() {
        assert_eq!(found(r#".status.conditions[?(@.type=="Ready")].status"#), ["\"True\""]);
        assert_eq!(found(".spec.list[*].name"), ["\"a\"", "\"b\""]);
        assert_eq!(found(".spec.list[1].name"), ["\"b\""]);
        assert_eq!(found(r".spec.a\.b"), ["\"dotted\""]);
        assert_eq!(found(".spec['a.b']"), ["\"dotted\""]);
        assert!(found(".spec.none").is_empty());
        assert_eq!(JsonPath::parse(".a..b"), None);
        assert_eq!(JsonPath::parse(".a[1:2]"), None);
    }
}
