//! Lists of ranges, maps and query strings.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::json;
use url::form_urlencoded;

use super::{Kind, ShowSecret, Text, Value};

/// The most numbers that a text of ranges may stand for. `0-9999999999` must not eat the memory of the process.
const MAX_RANGE_ELEMENTS: usize = 100_000;

/// Whole numbers given as a list such as `1,2,4-10` of numbers and inclusive ranges, at most 100,000 in all. `7-3` stands
/// for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(pub Vec<i64>);

impl Value for Ranges {
    const KIND: Kind = Kind::Ranges;

    fn parse(text: Text<'_>) -> Result<Self, String> {
        numbers(text).map(Self)
    }

    fn show(&self, _: ShowSecret) -> serde_json::Value {
        json!(self.0)
    }
}

fn numbers(text: Text<'_>) -> Result<Vec<i64>, String> {
    let mut numbers = Vec::new();
    for (i, element) in text.text.split(text.separator).enumerate() {
        let element = text.part(element);
        let at = |cause| format!("slice element {i}: {cause}");
        if element.text.contains('-') {
            let parts: Vec<_> = element.text.split('-').collect();
            let [from, to] = parts[..] else {
                return Err(at(format!("expected format start-end, got \"{}\"", element.shown())));
            };
            numbers.extend(range(element.part(from), element.part(to)).map_err(at)?);
        } else {
            numbers.push(i64::parse(element).map_err(at)?);
        }
        if numbers.len() > MAX_RANGE_ELEMENTS {
            return Err(at(format!("more than {MAX_RANGE_ELEMENTS} numbers")));
        }
    }
    Ok(numbers)
}

fn range(from: Text<'_>, to: Text<'_>) -> Result<Vec<i64>, String> {
    let (from, to) = (i64::parse(from)?, i64::parse(to)?);
    if to.saturating_sub(from) >= MAX_RANGE_ELEMENTS as i64 {
        return Err(format!("more than {MAX_RANGE_ELEMENTS} numbers"));
    }
    Ok((from..=to).collect())
}

/// `key=value` pairs, separated by commas, each key once; blanks around keys and values do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(pub BTreeMap<String, String>);

impl Value for Pairs {
    const KIND: Kind = Kind::Pairs;

    fn parse(text: Text<'_>) -> Result<Self, String> {
        pairs(text).map(Self)
    }

    fn show(&self, _: ShowSecret) -> serde_json::Value {
        json!(self.0)
    }
}

fn pairs(text: Text<'_>) -> Result<BTreeMap<String, String>, String> {
    let mut pairs = BTreeMap::new();
    if text.text.is_empty() {
        return Ok(pairs);
    }
    for element in text.text.split(text.separator) {
        let element = text.part(element);
        let (key, value) = element
            .text
            .split_once('=')
            .filter(|(_, value)| !value.contains('='))
            .ok_or_else(|| format!("expected format key=value, got \"{}\"", element.shown()))?;
        if pairs.insert(key.trim().to_owned(), value.trim().to_owned()).is_some() {
            return Err(format!("key \"{}\" is given twice", element.part(key).shown()));
        }
    }
    Ok(pairs)
}

/// The pairs of a URL query string, decoded, in their order; a key may be repeated.
///
/// `Debug` shows the keys and not the values: they often are credentials.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Form(pub Vec<(String, String)>);

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(key, _)| key)).finish()
    }
}

impl Value for Form {
    const KIND: Kind = Kind::Form;

    fn parse(text: Text<'_>) -> Result<Self, String> {
        if text.text.contains(';') {
            return Err(format!("invalid semicolon separator in query \"{}\"", text.shown()));
        }
        let escapes = text.text.split('%').skip(1);
        for escape in escapes {
            let hex = escape.as_bytes().get(..2);
            if !hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) {
                return Err(format!("invalid URL escape in query \"{}\"", text.shown()));
            }
        }
        Ok(Self(form_urlencoded::parse(text.text.as_bytes()).into_owned().collect()))
    }

    fn show(&self, _: ShowSecret) -> serde_json::Value {
        let mut by_key = serde_json::Map::new();
        for (key, value) in &self.0 {
            if let serde_json::Value::Array(values) = by_key.entry(key.clone()).or_insert_with(|| json!([])) {
                values.push(json!(value));
            }
        }
        by_key.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Text<'_> {
        Text { text, hidden: false, separator: ',' }
    }

    fn ranges(list: &str) -> Result<Vec<i64>, String> {
        Ranges::parse(text(list)).map(|ranges| ranges.0)
    }

    #[test]
    fn ranges_are_inclusive_and_a_falling_one_is_empty() {
        assert_eq!(ranges("1, 4-6"), Ok(vec![1, 4, 5, 6]));
        assert_eq!(ranges("7-3"), Ok(vec![]));
        for list in ["-1", "1-2-3", "a-3", "1,", "1-"] {
            assert!(ranges(list).is_err(), "{list}");
        }
    }

    #[test]
    fn a_huge_range_is_refused_and_not_built() {
        assert!(ranges("0-9223372036854775807").is_err());
        assert!(ranges("0-99999,0-99999").is_err());
        assert!(ranges("0-99999").is_ok());
    }

    #[test]
    fn a_query_string_is_decoded_and_keeps_repeated_keys() {
        let form = |query| Form::parse(text(query));
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            form("a=1&a=2&b=%20x+y&c"),
            Ok(Form(vec![pair("a", "1"), pair("a", "2"), pair("b", " x y"), pair("c", "")]))
        );
        for query in ["a=1;b=2", "a=%2", "a=%zz", "%"] {
            assert!(form(query).is_err(), "{query}");
        }
        assert_eq!(format!("{:?}", form("key=hunter2").unwrap()), "[\"key\"]");
    }
}
