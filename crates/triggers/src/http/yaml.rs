//! YAML replies.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::node::{MAX_DEPTH, Node};

/// The first document of a text.
///
/// # Errors
/// Where the text is no YAML, or too deep, or unfolds to more than a text of its size should.
pub fn parse(body: &[u8]) -> Result<Node, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
        legacy_octal_numbers: true,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::PassThrough,
        strict_booleans: true,
        with_snippet: false,
    };
    let mut reader = body;
    let first = serde_saphyr::read_with_options::<_, Node>(&mut reader, options).next();
    first.unwrap_or(Ok(Node::Null)).map_err(|error| match error.location() {
        Some(place) => format!("line {}, column {}", place.line(), place.column()),
        None => "not readable".to_owned(),
    })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Nodes)
    }
}

struct Nodes;

impl<'de> Visitor<'de> for Nodes {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value as f64))
    }

    /// Whole numbers beyond 2^63 - 1 stay what they are written as: KEDA takes them for no number.
    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(i64::try_from(value)
            .map_or_else(|_| Node::Text(format!("{value} (too large)")), |_| Node::Number(value as f64)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some((key, value)) = members.next_entry::<Node, Node>()? {
            let key = match key {
                Node::Text(text) => text,
                Node::Number(number) => number.to_string(),
                Node::Bool(flag) => flag.to_string(),
                Node::Null => "null".to_owned(),
                Node::List(_) | Node::Map(_) => return Err(A::Error::custom("a key is a list or mapping")),
            };
            map.push((key, value));
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(yaml: &str, path: &str) -> Result<Node, String> {
        parse(yaml.as_bytes())?.find(path).cloned()
    }

    #[test]
    fn scalars_have_the_types_of_yaml() {
        let numbers = [
            ("12", 12.0),
            ("-1.5", -1.5),
            ("1e3", 1000.0),
            ("0x1F", 31.0),
            ("0o17", 15.0),
            ("017", 15.0),
            ("0b11", 3.0),
            ("1_000", 1000.0),
            (".inf", f64::INFINITY),
        ];
        for (text, expected) in numbers {
            assert_eq!(value(&format!("a: {text}"), "a"), Ok(Node::Number(expected)), "{text}");
        }
        assert!(matches!(value("a: .nan", "a"), Ok(Node::Number(number)) if number.is_nan()));
        for (text, expected) in [("yes", "yes"), ("'12'", "12"), ("500m", "500m"), ("2024-01-01", "2024-01-01")] {
            assert_eq!(value(&format!("a: {text}"), "a"), Ok(Node::Text(expected.to_owned())), "{text}");
        }
        assert_eq!(value("a: true", "a"), Ok(Node::Bool(true)));
        assert_eq!(value("a: ~", "a"), Ok(Node::Null));
        assert!(!matches!(value("a: 18446744073709551615", "a"), Ok(Node::Number(_))));
    }

    #[test]
    fn keys_compare_as_printed_and_lists_by_place() {
        assert_eq!(value("1: {true: [x, 7]}", "1.true.1"), Ok(Node::Number(7.0)));
        assert_eq!(value("a: &x {b: 3}\nc: *x", "c.b"), Ok(Node::Number(3.0)));
    }

    #[test]
    fn only_the_first_document_counts() {
        assert_eq!(value("a: 1\n---\na: 2\n", "a"), Ok(Node::Number(1.0)));
    }

    #[test]
    fn hostile_texts_are_refused() {
        assert!(parse(b"a: [").is_err());
        assert!(parse(b"a: \xff").is_err());
        assert!(parse(format!("a: {}", "[".repeat(100_000)).as_bytes()).is_err());
        let mut bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
        for level in 1..10 {
            let alias = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(","));
        }
        assert!(parse(bomb.as_bytes()).is_err());
    }
}
