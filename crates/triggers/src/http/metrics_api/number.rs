//! From a reply to its number, by format.

use std::fmt;

use tidemark_engine::quantity;
use tidemark_trigger::Choice;

use crate::http::exposition::Selector;
use crate::http::gjson::{self, Leaf};
use crate::http::node::Node;
use crate::http::{xml, yaml};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub(super) enum Format {
    Json,
    Xml,
    Yaml,
    Prometheus,
}

/// Where in a reply the number stands.
#[derive(Clone, Debug)]
pub(super) struct Location {
    text: Box<str>,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Json,
    Xml,
    Yaml,
    Prometheus(Box<Selector>),
}

impl Location {
    /// Reads a location.
    ///
    /// # Errors
    /// It is not a selector, where the format asks for one. Other locations may be anything.
    pub fn parse(format: Format, text: &str) -> Result<Self, String> {
        let way = match format {
            Format::Json => Way::Json,
            Format::Xml => Way::Xml,
            Format::Yaml => Way::Yaml,
            Format::Prometheus => match Selector::parse(text) {
                Ok(selector) => Way::Prometheus(Box::new(selector)),
                Err(cause) => return Err(format!("valueLocation \"{text}\" is not a metric selector: it {cause}")),
            },
        };
        Ok(Self { text: text.into(), way })
    }

    /// The number in a reply: a number, or a text with a Kubernetes quantity.
    ///
    /// # Errors
    /// What is there instead; nothing of the reply is shown.
    pub fn number(&self, body: &[u8]) -> Result<f64, String> {
        let found = match &self.way {
            Way::Json => in_json(body, &self.text),
            Way::Xml => tree(xml::parse(body), "XML").and_then(|tree| in_tree(&tree, &self.text)),
            Way::Yaml => tree(yaml::parse(body), "YAML").and_then(|tree| in_tree(&tree, &self.text)),
            Way::Prometheus(selector) => in_exposition(body, selector),
        };
        found.map_err(|cause| format!("valueLocation \"{}\" {cause}", self.text))
    }
}

/// What a path leads to instead of a number.
fn not_a_number<T>(what: impl fmt::Display) -> Result<T, String> {
    Err(format!("leads to {what} in the reply, not to a number or a quantity"))
}

fn in_text(text: &str) -> Result<f64, String> {
    quantity::parse_f64(text).map_or_else(|| not_a_number("a text"), Ok)
}

fn in_json(body: &[u8], path: &str) -> Result<f64, String> {
    match gjson::find(body, path).map_err(|exhausted| format!("cannot be evaluated: {exhausted}"))?.leaf() {
        Leaf::Number(number) => Ok(number),
        Leaf::Text(text) => in_text(&text),
        Leaf::Missing => not_a_number("nothing"),
        Leaf::Null => not_a_number("null"),
        Leaf::Bool(_) => not_a_number("a boolean"),
        Leaf::NotANumber(_) => not_a_number("a token that is no JSON"),
        Leaf::Container(json) if json.starts_with('[') => not_a_number("a list"),
        Leaf::Container(_) => not_a_number("an object"),
    }
}

fn tree(parsed: Result<Node, String>, language: &str) -> Result<Node, String> {
    parsed.map_err(|place| format!("cannot be followed: the reply is not valid {language} ({place})"))
}

fn in_tree(tree: &Node, path: &str) -> Result<f64, String> {
    match tree.find(path)? {
        Node::Number(number) => Ok(*number),
        Node::Text(text) => in_text(text),
        Node::Null => not_a_number("null"),
        Node::Bool(_) => not_a_number("a boolean"),
        Node::List(_) => not_a_number("a list"),
        Node::Map(_) => not_a_number("a mapping"),
    }
}

fn in_exposition(body: &[u8], selector: &Selector) -> Result<f64, String> {
    let text = std::str::from_utf8(body).map_err(|_| "cannot be found: the reply is not UTF-8".to_owned())?;
    match selector.find(text) {
        Ok(Some(number)) => Ok(number),
        Ok(None) => Err("is no gauge, counter or untyped metric of the reply".to_owned()),
        Err(line) => Err(format!("cannot be found: line {line} of the reply is not in Prometheus' text format")),
    }
}
