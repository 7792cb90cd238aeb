//! YAML with places: every key and every value knows its line and column.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{DuplicateKeyPolicy, Location, Options, Spanned};
use tidemark_admission::{Path, Step};

use crate::manifests;

/// A place in a file, both numbers from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    pub line: u64,
    pub column: u64,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    pub at: Spot,
    pub content: Content,
}

/// What a value is.
#[derive(Clone, Debug)]
pub enum Content {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    /// In the order of the text; a key may be there twice.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub at: Spot,
    pub value: Node,
}

/// Whether a message is about a key or about what stands behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Key,
    Value,
}

/// Why a text is not YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub at: Spot,
    pub message: String,
}

/// A key that is there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    pub path: Path,
    pub at: Spot,
    /// Where it was first.
    pub first: Spot,
}

/// Reads one document that stands behind `before` lines of its file. `None` for one without content.
///
/// # Errors
/// It is not YAML.
pub fn parse(text: &str, before: u64) -> Result<Option<Node>, Malformed> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(None);
    }
    let mut options = Options::default();
    options.with_snippet = false;
    // Without this a namespace `n` would be `false`.
    options.strict_booleans = true;
    // Told as what it is, with both places, beside all else.
    options.duplicate_keys = DuplicateKeyPolicy::PassThrough;
    match serde_saphyr::from_str_with_options::<Parsed>(text, options) {
        Ok(Parsed(mut node)) => {
            node.shift(before);
            Ok((!matches!(node.content, Content::Null)).then_some(node))
        }
        Err(error) => {
            let at = error.location().map_or(Spot { line: 1, column: 1 }, |location| spot(&location));
            Err(Malformed { at: Spot { line: at.line + before, ..at }, message: manifests::message(&error) })
        }
    }
}

fn spot(location: &Location) -> Spot {
    Spot { line: location.line().max(1), column: location.column().max(1) }
}

impl Node {
    /// The value alone. Of a key that is there twice the last value counts, as in Kubernetes' own tools.
    pub fn json(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(flag) => Value::Bool(*flag),
            Content::Number(number) => Value::Number(number.clone()),
            Content::Text(text) => Value::String(text.clone()),
            Content::List(items) => Value::Array(items.iter().map(Self::json).collect()),
            Content::Map(entries) => {
                let fields: Map<_, _> = entries.iter().map(|entry| (entry.key.clone(), entry.value.json())).collect();
                Value::Object(fields)
            }
        }
    }

    /// The entry of a key; the last one of several.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.content {
            Content::Map(entries) => entries.iter().rev().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The items of a list.
    pub fn items(&self) -> Option<&[Self]> {
        match &self.content {
            Content::List(items) => Some(items),
            _ => None,
        }
    }

    /// A field's text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match &self.entry(key)?.value.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Where the value of a path stands, or its key. A mapping or list is shown by its key, and what is missing by the
    /// key of what it is missing in.
    pub fn spot(&self, path: &Path, side: Side) -> Spot {
        let (mut node, mut at) = (self, self.at);
        for (number, step) in path.steps().iter().enumerate() {
            let last = number + 1 == path.steps().len();
            match step {
                Step::Key(key) => {
                    let Some(entry) = node.entry(key) else { return at };
                    let plain = !matches!(entry.value.content, Content::List(_) | Content::Map(_) | Content::Null);
                    at = if last && side == Side::Value && plain { entry.value.at } else { entry.at };
                    node = &entry.value;
                }
                Step::Index(index) => {
                    let Some(item) = node.items().and_then(|items| items.get(*index)) else { return at };
                    (at, node) = (item.at, item);
                }
            }
        }
        at
    }

    /// The path that a text such as `spec.triggers[0].metadata.a.b` means here. Keys may hold dots: the longest key that is
    /// there counts.
    pub fn path(&self, text: &str) -> Path {
        let (mut steps, mut rest, mut node) = (Vec::new(), text, Some(self));
        while !rest.is_empty() {
            if let Some((index, behind)) = index(rest) {
                steps.push(Step::Index(index));
                node = node.and_then(Self::items).and_then(|items| items.get(index));
                rest = behind;
                continue;
            }
            let key = node.and_then(|node| node.longest_key(rest)).unwrap_or_else(|| {
                let end = rest.find(['.', '[']).filter(|end| *end > 0).unwrap_or(rest.len());
                rest[..end].to_owned()
            });
            rest = &rest[key.len()..];
            node = node.and_then(|node| node.entry(&key)).map(|entry| &entry.value);
            steps.push(Step::Key(key));
            rest = rest.strip_prefix('.').unwrap_or(rest);
        }
        steps.into_iter().collect()
    }

    fn longest_key(&self, text: &str) -> Option<String> {
        let Content::Map(entries) = &self.content else { return None };
        let begins =
            |key: &str| text.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        let keys = entries.iter().map(|entry| &entry.key).filter(|key| !key.is_empty() && begins(key));
        keys.max_by_key(|key| key.len()).cloned()
    }

    /// Keys that are there more than once, in here and below.
    pub fn duplicates(&self, path: &Path, found: &mut Vec<Duplicate>) {
        match &self.content {
            Content::Map(entries) => {
                let mut first = std::collections::BTreeMap::new();
                for entry in entries {
                    let at = path.key(entry.key.as_str());
                    match first.entry(&entry.key) {
                        std::collections::btree_map::Entry::Occupied(known) => {
                            found.push(Duplicate { path: at.clone(), at: entry.at, first: *known.get() });
                        }
                        std::collections::btree_map::Entry::Vacant(place) => {
                            place.insert(entry.at);
                        }
                    }
                    entry.value.duplicates(&at, found);
                }
            }
            Content::List(items) => {
                items.iter().enumerate().for_each(|(index, item)| item.duplicates(&path.index(index), found));
            }
            _ => {}
        }
    }

    fn shift(&mut self, lines: u64) {
        self.at.line += lines;
        match &mut self.content {
            Content::List(items) => items.iter_mut().for_each(|item| item.shift(lines)),
            Content::Map(entries) => entries.iter_mut().for_each(|entry| {
                entry.at.line += lines;
                entry.value.shift(lines);
            }),
            _ => {}
        }
    }
}

/// `[5]` at the start of a text, and what follows.
fn index(text: &str) -> Option<(usize, &str)> {
    let (number, rest) = text.strip_prefix('[')?.split_once(']')?;
    Some((number.parse().ok()?, rest.strip_prefix('.').unwrap_or(rest)))
}

/// A node as the parser gives it.
struct Parsed(Node);

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Self(Node { at: defined(&spanned), content: spanned.value }))
    }
}

/// Where the text stands, rather than an alias to it.
fn defined<T>(spanned: &Spanned<T>) -> Spot {
    spot(&spanned.defined)
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyContent)
    }
}

struct AnyContent;

impl<'de> Visitor<'de> for AnyContent {
    type Value = Content;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Content, E> {
        Ok(Content::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Content, E> {
        Ok(Content::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Content, E> {
        Ok(Content::Number(number.into()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Content, E> {
        Ok(Number::from_f64(number as f64).map_or(Content::Null, Content::Number))
    }

    fn visit_u128<E>(self, number: u128) -> Result<Content, E> {
        Ok(Number::from_f64(number as f64).map_or(Content::Null, Content::Number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Content, E> {
        Ok(Number::from_f64(number).map_or(Content::Null, Content::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Content, E> {
        Ok(Content::Text(text))
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(Parsed(item)) = list.next_element()? {
            items.push(item);
        }
        Ok(Content::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let Parsed(value) = map.next_value()?;
            let at = defined(&key);
            entries.push(Entry { key: key.value, at, value });
        }
        Ok(Content::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        parse(text, 0).unwrap().unwrap()
    }

    fn at(node: &Node, path: &str, side: Side) -> (u64, u64) {
        let spot = node.spot(&node.path(path), side);
        (spot.line, spot.column)
    }

    const OBJECT: &str = "kind: A\nspec:\n  triggers:\n  - type: cron\n    metadata:\n      value: \"5\"\n      a.b: c\n  \
                          flow: {x: 1, y: [2, three]}\n";

    #[test]
    fn keys_and_values_know_their_places() {
        let node = node(OBJECT);
        assert_eq!(at(&node, "kind", Side::Key), (1, 1));
        assert_eq!(at(&node, "kind", Side::Value), (1, 7));
        assert_eq!(at(&node, "spec.triggers[0].metadata.value", Side::Value), (6, 14));
        assert_eq!(at(&node, "spec.triggers[0].metadata.value", Side::Key), (6, 7));
        assert_eq!(at(&node, "spec.triggers[0]", Side::Value), (4, 5));
        assert_eq!(at(&node, "spec.triggers", Side::Value), (3, 3));
        assert_eq!(at(&node, "spec.flow.y[1]", Side::Value), (8, 23));
    }

    #[test]
    fn what_is_missing_is_shown_by_what_it_is_missing_in() {
        let node = node(OBJECT);
        assert_eq!(at(&node, "spec.triggers[0].metadata.other", Side::Value), (5, 5));
        assert_eq!(at(&node, "spec.scaleTargetRef.name", Side::Value), (2, 1));
        assert_eq!(at(&node, "metadata", Side::Value), (1, 1));
    }

    #[test]
    fn a_key_with_dots_is_found() {
        let node = node(OBJECT);
        assert_eq!(node.path("spec.triggers[0].metadata.a.b").steps().len(), 5);
        assert_eq!(at(&node, "spec.triggers[0].metadata.a.b", Side::Value), (7, 12));
    }

    #[test]
    fn values_are_those_of_the_other_reader() {
        let text =
            "a: [1, -2, 2.5, 0x10, 1e3, true, yes, n, null, ~, \"5\", '', 2026-01-01, .5]\nb: |\n  x\n  y\nc: {}\n";
        let mut options = Options::default();
        options.strict_booleans = true;
        let other: Value = serde_saphyr::from_str_with_options(text, options).unwrap();
        assert_eq!(node(text).json(), other);
    }

    #[test]
    fn lines_count_from_the_start_of_the_file() {
        let node = parse("a: 1\n", 41).unwrap().unwrap();
        assert_eq!(at(&node, "a", Side::Value), (42, 4));
        let error = parse("a: [1\n", 41).unwrap_err();
        assert!(error.at.line >= 42, "{error:?}");
    }

    #[test]
    fn a_key_given_twice_is_told_with_both_places() {
        let node = node("a: 1\nb:\n- c: 1\n  c: 2\n");
        let mut found = Vec::new();
        node.duplicates(&Path::default(), &mut found);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].path.to_string(), found[0].at.line, found[0].first.line), ("b[0].c".to_owned(), 4, 3));
        assert_eq!(node.json()["b"][0]["c"], 2);
    }

    #[test]
    fn an_alias_is_shown_where_its_text_stands() {
        let node = node("base: &base\n  x: 1\nuse: *base\nmerged:\n  <<: *base\n  y: 2\n");
        assert_eq!(at(&node, "use.x", Side::Value), (2, 6));
        assert_eq!(at(&node, "merged.x", Side::Value), (2, 6));
    }

    #[test]
    fn json_with_tabs_is_read() {
        let node = node("{\n\t\"kind\": \"A\",\n\t\"spec\": {\"n\": 5}\n}\n");
        assert_eq!(node.text("kind"), Some("A"));
        assert_eq!(at(&node, "spec.n", Side::Value), (3, 16));
    }

    #[test]
    fn nothing_is_no_document() {
        assert!(parse("# a comment\n\n", 0).unwrap().is_none());
        assert!(parse("~\n", 0).unwrap().is_none());
    }
}
