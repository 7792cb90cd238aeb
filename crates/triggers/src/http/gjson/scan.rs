//! Lenient scanning of JSON text: values are found, not validated.

use super::value::Kind;

/// One value in a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'j> {
    pub(super) kind: Kind,
    pub(super) raw: &'j [u8],
}

/// The end of a text that starts with `"`, the quotes included; `None` where it is not closed.
pub(super) fn string_end(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

/// The end of what starts with a bracket or a quote, all brackets balanced; the text's end where it is not closed.
pub(super) fn balanced_end(text: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' => {
                let Some(length) = string_end(&text[at..]) else { return text.len() };
                at += length;
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// The kind of the value that starts at a byte, `None` where no value starts.
fn kind_at(text: &[u8], at: usize) -> Option<Kind> {
    Some(match text[at] {
        b'"' => Kind::String,
        b'{' | b'[' => Kind::Container,
        b't' => Kind::True,
        b'f' => Kind::False,
        b'n' if text.get(at + 1).is_none_or(|next| *next == b'u') => Kind::Null,
        b'n' | b'N' | b'i' | b'I' | b'+' | b'-' | b'0'..=b'9' => Kind::Number,
        _ => return None,
    })
}

/// The value that starts at a byte, `None` where none starts or a text is not closed.
fn item_at(text: &[u8], at: usize) -> Option<Item<'_>> {
    let kind = kind_at(text, at)?;
    let rest = &text[at..];
    let end = match kind {
        Kind::String => string_end(rest)?,
        Kind::Container => balanced_end(rest),
        Kind::Number => number_end(rest),
        _ => rest.iter().position(|byte| !byte.is_ascii_lowercase()).unwrap_or(rest.len()),
    };
    Some(Item { kind, raw: &rest[..end] })
}

/// The end of a number token: numbers are whatever stands up to the next separator.
fn number_end(text: &[u8]) -> usize {
    let is_end = |byte: &u8| *byte <= b' ' || matches!(byte, b',' | b']' | b'}');
    text.iter().skip(1).position(is_end).map_or(text.len(), |at| at + 1)
}

/// The first value of a text, white space before it skipped. A container is taken with all that follows it.
pub(super) fn first(text: &[u8]) -> Option<Item<'_>> {
    let at = text.iter().position(|byte| *byte > b' ')?;
    match kind_at(text, at)? {
        Kind::Container => Some(Item { kind: Kind::Container, raw: &text[at..] }),
        _ => item_at(text, at),
    }
}

/// The next value at or after a place; what starts no value is skipped. `Err` where a text is not closed.
fn next_value(text: &[u8], from: usize, closer: Option<u8>) -> Result<Option<(usize, Item<'_>)>, Unclosed> {
    for at in from..text.len() {
        if closer == Some(text[at]) {
            return Ok(None);
        }
        if kind_at(text, at).is_some() {
            let item = item_at(text, at).ok_or(Unclosed)?;
            return Ok(Some((at + item.raw.len(), item)));
        }
    }
    Ok(None)
}

/// A string without its closing quote: nothing after it can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unclosed;

/// The elements of an array whose opening bracket lies before `text`. The text's end closes it, too.
pub(super) struct Elements<'j> {
    text: &'j [u8],
    at: usize,
    /// Set when the iteration ended at a text without its closing quote.
    pub(super) unclosed: bool,
}

impl<'j> Elements<'j> {
    pub(super) fn new(text: &'j [u8]) -> Self {
        Self { text, at: 0, unclosed: false }
    }
}

impl<'j> Iterator for Elements<'j> {
    type Item = Item<'j>;

    fn next(&mut self) -> Option<Item<'j>> {
        match next_value(self.text, self.at, Some(b']')) {
            Ok(Some((end, item))) => {
                self.at = end;
                Some(item)
            }
            Ok(None) => {
                self.at = self.text.len();
                None
            }
            Err(Unclosed) => {
                self.at = self.text.len();
                self.unclosed = true;
                None
            }
        }
    }
}

/// The members of an object whose opening bracket lies before the text: each key with its quotes, and its value.
pub(super) struct Members<'j> {
    text: &'j [u8],
    at: usize,
}

impl<'j> Members<'j> {
    pub(super) fn new(text: &'j [u8]) -> Self {
        Self { text, at: 0 }
    }

    fn key(&mut self) -> Option<&'j [u8]> {
        let start = self.at + self.text[self.at..].iter().position(|byte| matches!(byte, b'"' | b'}'))?;
        if self.text[start] == b'}' {
            return None;
        }
        let length = string_end(&self.text[start..])?;
        self.at = start + length;
        Some(&self.text[start..self.at])
    }
}

impl<'j> Iterator for Members<'j> {
    type Item = (&'j [u8], Item<'j>);

    fn next(&mut self) -> Option<Self::Item> {
        let member = self.key().and_then(|key| {
            let (end, item) = next_value(self.text, self.at, None).ok().flatten()?;
            self.at = end;
            Some((key, item))
        });
        if member.is_none() {
            self.at = self.text.len();
        }
        member
    }
}
