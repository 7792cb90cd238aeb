//! What a path leads to.

use std::borrow::Cow;

use super::scan::Item;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Missing,
    Null,
    False,
    True,
    Number,
    String,
    Container,
}

/// What a path leads to: a piece of the document, or a text made from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value<'j> {
    pub(super) kind: Kind,
    pub(super) raw: Cow<'j, [u8]>,
}

/// A value in terms of what it can be used for.
#[derive(Clone, Debug, PartialEq)]
pub enum Leaf {
    /// The path leads nowhere.
    Missing,
    Null,
    Bool(bool),
    /// A number; also the tokens `nan`, `inf` and numbers beyond the range of a double.
    Number(f64),
    /// A token in a number's place that is none.
    NotANumber(String),
    /// A text, unescaped.
    Text(String),
    /// An array or object, as JSON text.
    Container(String),
}

impl<'j> Value<'j> {
    pub(super) const MISSING: Value<'static> = Value { kind: Kind::Missing, raw: Cow::Borrowed(b"") };

    pub(super) fn container(raw: Vec<u8>) -> Value<'static> {
        Value { kind: Kind::Container, raw: Cow::Owned(raw) }
    }

    pub(super) fn exists(&self) -> bool {
        self.kind != Kind::Missing
    }

    pub(super) fn into_owned(self) -> Value<'static> {
        Value { kind: self.kind, raw: Cow::Owned(self.raw.into_owned()) }
    }

    /// The text of a string, unescaped; of anything else its JSON.
    pub(super) fn text(&self) -> Cow<'_, [u8]> {
        match self.kind {
            Kind::String => unquote(&self.raw),
            _ => Cow::Borrowed(&self.raw),
        }
    }

    /// The number as queries compare it: 0 for a token that is none.
    pub(super) fn number_or_zero(&self) -> f64 {
        number(&self.raw).unwrap_or(0.0)
    }

    /// The value in terms of what it can be used for.
    pub fn leaf(&self) -> Leaf {
        match self.kind {
            Kind::Missing => Leaf::Missing,
            Kind::Null => Leaf::Null,
            Kind::False => Leaf::Bool(false),
            Kind::True => Leaf::Bool(true),
            Kind::Number => number(&self.raw).map_or_else(|| Leaf::NotANumber(lossy(&self.raw)), Leaf::Number),
            Kind::String => Leaf::Text(lossy(&self.text())),
            Kind::Container => Leaf::Container(lossy(&self.raw)),
        }
    }
}

impl<'j> From<Item<'j>> for Value<'j> {
    fn from(item: Item<'j>) -> Self {
        Self { kind: item.kind, raw: Cow::Borrowed(item.raw) }
    }
}

pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A decimal number, `inf`, `infinity` (both with a sign or without) or `nan`, in any case of letters.
pub(super) fn number(raw: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(raw).ok()?;
    text.parse().ok().filter(|number: &f64| !number.is_nan() || !text.starts_with(['+', '-']))
}

/// The text between a JSON string's quotes, unescaped as far as its escapes are valid.
pub(super) fn unquote(quoted: &[u8]) -> Cow<'_, [u8]> {
    let inner = quoted.strip_prefix(b"\"").unwrap_or(quoted);
    unescape(inner.strip_suffix(b"\"").unwrap_or(inner))
}

pub(super) fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        if text[at] < b' ' {
            break;
        }
        if text[at] != b'\\' {
            out.push(text[at]);
            at += 1;
            continue;
        }
        let plain = match text.get(at + 1) {
            Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let Some((character, length)) = code_point(&text[at..]) else { break };
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                at += length;
                continue;
            }
            _ => break,
        };
        out.push(plain);
        at += 2;
    }
    Cow::Owned(out)
}

/// The character that a `\uXXXX` or a pair of them stands for, with the length of the escape.
fn code_point(text: &[u8]) -> Option<(char, usize)> {
    let high = code_unit(text)?;
    if let Some(low) = code_unit(&text[6..]).filter(|_| (0xD800..0xE000).contains(&high)) {
        let pair = char::decode_utf16([high, low]).next().and_then(Result::ok);
        return Some((pair.filter(|c| *c as u32 > 0xFFFF).unwrap_or(char::REPLACEMENT_CHARACTER), 12));
    }
    Some((char::from_u32(high.into()).unwrap_or(char::REPLACEMENT_CHARACTER), 6))
}

fn code_unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
