//! Modifiers (`@name` or `@name:argument`) and literals (`!value`).

use std::borrow::Cow;

use super::budget::{Budget, Exhausted};
use super::get;
use super::scan::{Elements, Item, Members, balanced_end, first, string_end};
use super::value::{Kind, Value, lossy, unquote};

type Text<'j> = Cow<'j, [u8]>;
type Modifier = for<'j> fn(&'j [u8], &[u8], &Budget) -> Result<Text<'j>, Exhausted>;

fn modifier(name: &[u8]) -> Option<Modifier> {
    Some(match name {
        b"this" => |json, _, _| Ok(Cow::Borrowed(json)),
        b"reverse" => reverse,
        // The layout of JSON text cannot be told from the values in it.
        b"ugly" | b"pretty" => ugly,
        b"valid" => |json, _, budget| Ok(Cow::Borrowed(if is_valid(json, budget)? { json } else { b"" })),
        b"flatten" => flatten,
        b"join" => join,
        b"keys" => keys,
        b"values" => values,
        b"tostr" => |json, _, budget| {
            budget.charge(json.len())?;
            Ok(Cow::Owned(serde_json::Value::String(lossy(json)).to_string().into_bytes()))
        },
        b"fromstr" => from_string,
        b"group" => group,
        b"dig" => dig,
        _ => return None,
    })
}

pub(super) fn is_known(name: &[u8]) -> bool {
    modifier(name).is_some()
}

/// Applies the modifier at the start of a path: the new text and the rest of the path. `None` where there is no
/// modifier of that name.
pub(super) fn apply<'j, 'p>(
    json: &'j [u8],
    path: &'p [u8],
    budget: &Budget,
) -> Result<Option<(Text<'j>, &'p [u8])>, Exhausted> {
    let end = path.iter().position(|byte| matches!(byte, b':' | b'|' | b'.')).unwrap_or(path.len());
    let Some(modifier) = modifier(&path[1..end]) else { return Ok(None) };
    let rest = &path[end..];
    let (argument, rest) = match rest.split_first() {
        Some((b':', after)) => after.split_at(argument_end(after)),
        _ => (&rest[..0], rest),
    };
    let out = modifier(json, argument, budget)?;
    budget.charge(out.len())?;
    Ok(Some((out, rest)))
}

/// A JSON argument ends with its bracket or quote, another one at the next pipe outside of brackets.
fn argument_end(text: &[u8]) -> usize {
    if matches!(text.first(), Some(b'{' | b'[')) || (text.first() == Some(&b'"') && string_end(text).is_some()) {
        return balanced_end(text);
    }
    let mut at = 0;
    while at < text.len() && text[at] != b'|' {
        at += if matches!(text[at], b'{' | b'[' | b'"' | b'(') { balanced_end(&text[at..]) } else { 1 };
    }
    at.min(text.len())
}

/// The literal at the start of a path, and the rest of the path. `None` where there is no literal.
pub(super) fn literal(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = &path[1..];
    let end = match text.first()? {
        b'{' | b'[' | b'"' => balanced_end(text),
        b'+' | b'-' | b'0'..=b'9' => text.iter().position(|byte| !is_numeric(*byte)).unwrap_or(text.len()),
        _ => {
            let end = text.iter().position(|byte| matches!(byte, b'|' | b'.')).unwrap_or(text.len());
            let word = text[..end].to_ascii_lowercase();
            if !matches!(word.as_slice(), b"true" | b"false" | b"null" | b"nan" | b"inf") {
                return None;
            }
            end
        }
    };
    Some(text.split_at(end))
}

fn is_numeric(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E')
}

fn is_valid(json: &[u8], budget: &Budget) -> Result<bool, Exhausted> {
    budget.charge(json.len())?;
    Ok(serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok())
}

/// What a text holds, as far as modifiers tell it apart.
enum Shape<'j> {
    Array(Elements<'j>),
    Object(Members<'j>),
    Scalar(Item<'j>),
    Nothing,
}

fn shape(json: &[u8]) -> Shape<'_> {
    match first(json) {
        None => Shape::Nothing,
        Some(item) if item.kind != Kind::Container => Shape::Scalar(item),
        Some(item) if item.raw[0] == b'[' => Shape::Array(Elements::new(&item.raw[1..])),
        Some(item) => Shape::Object(Members::new(&item.raw[1..])),
    }
}

/// Pieces between brackets, with commas.
struct Builder<'b> {
    out: Vec<u8>,
    close: u8,
    budget: &'b Budget,
}

impl<'b> Builder<'b> {
    fn array(budget: &'b Budget) -> Self {
        Self { out: vec![b'['], close: b']', budget }
    }

    fn object(budget: &'b Budget) -> Self {
        Self { out: vec![b'{'], close: b'}', budget }
    }

    fn push(&mut self, pieces: &[&[u8]]) -> Result<(), Exhausted> {
        self.budget.charge(pieces.iter().map(|piece| piece.len()).sum())?;
        if self.out.len() > 1 {
            self.out.push(b',');
        }
        pieces.iter().for_each(|piece| self.out.extend_from_slice(piece));
        Ok(())
    }

    fn finish(mut self) -> Text<'static> {
        self.out.push(self.close);
        Cow::Owned(self.out)
    }
}

fn reverse<'j>(json: &'j [u8], _: &[u8], budget: &Budget) -> Result<Text<'j>, Exhausted> {
    match shape(json) {
        Shape::Array(elements) => {
            let mut out = Builder::array(budget);
            let elements: Vec<_> = elements.collect();
            elements.iter().rev().try_for_each(|element| out.push(&[element.raw]))?;
            Ok(out.finish())
        }
        Shape::Object(members) => {
            let mut out = Builder::object(budget);
            let members: Vec<_> = members.collect();
            members.iter().rev().try_for_each(|(key, value)| out.push(&[key, b":", value.raw]))?;
            Ok(out.finish())
        }
        Shape::Scalar(_) | Shape::Nothing => Ok(Cow::Borrowed(json)),
    }
}

fn ugly<'j>(json: &'j [u8], _: &[u8], budget: &Budget) -> Result<Text<'j>, Exhausted> {
    budget.charge(json.len())?;
    let mut out = Vec::with_capacity(json.len());
    let mut at = 0;
    while at < json.len() {
        let length = if json[at] == b'"' { string_end(&json[at..]).unwrap_or(json.len() - at) } else { 1 };
        if json[at] > b' ' {
            out.extend_from_slice(&json[at..at + length]);
        }
        at += length;
    }
    Ok(Cow::Owned(out))
}

/// Whether a JSON argument has a member of this name that is true.
fn is_set(argument: &[u8], name: &[u8], budget: &Budget) -> Result<bool, Exhausted> {
    Ok(get(argument, name, budget)?.kind == Kind::True)
}

fn flatten<'j>(json: &'j [u8], argument: &[u8], budget: &Budget) -> Result<Text<'j>, Exhausted> {
    let Shape::Array(elements) = shape(json) else { return Ok(Cow::Borrowed(json)) };
    let deep = is_set(argument, b"deep", budget)?;
    let mut out = Builder::array(budget);
    flatten_into(&mut out, elements, if deep { usize::MAX } else { 1 })?;
    Ok(out.finish())
}

fn flatten_into(out: &mut Builder<'_>, elements: Elements<'_>, levels: usize) -> Result<(), Exhausted> {
    let budget = out.budget;
    let _level = budget.enter()?;
    for element in elements {
        budget.charge(element.raw.len())?;
        match shape(element.raw) {
            Shape::Array(inner) if levels > 0 => flatten_into(out, inner, levels - 1)?,
            _ => out.push(&[element.raw])?,
        }
    }
    Ok(())
}

fn join<'j>(json: &'j [u8], argument: &[u8], budget: &Budget) -> Result<Text<'j>, Exhausted> {
    let Shape::Array(elements) = shape(json) else { return Ok(Cow::Borrowed(json)) };
    let preserve = is_set(argument, b"preserve", budget)?;
    let mut members: Vec<(&[u8], &[u8])> = Vec::new();
    let mut places = std::collections::BTreeMap::new();
    for element in elements {
        let Shape::Object(object) = shape(element.raw) else { continue };
        for (key, value) in object {
            budget.charge(key.len() + value.raw.len())?;
            let place = *places.entry(unquote(key)).or_insert(members.len());
            match members.get_mut(place) {
                Some(member) if !preserve => member.1 = value.raw,
                _ => members.push((key, value.raw)),
            }
        }
    }
    let mut out = Builder::object(budget);
    members.iter().try_for_each(|(key, value)| out.push(&[key, b":", value]))?;
    Ok(out.finish())
}

fn keys<'j>(json: &'j [u8], _: &[u8], budget: &Budget) -> Result<Text<'j>, Exhausted> {
    let mut out = Builder::array(budget);
    match shape(json) {
        Shape::Object(mut members) => members.try_for_each(|(key, _)| out.push(&[key]))?,
        Shape::Array(mut elements) => elements.try_for_each(|_| out.push(&[b"null"]))?,
        Shape::Scalar(_) => out.push(&[b"null"])?,
        Shape::Nothing => {}
    }
    Ok(out.finish())
}

fn values<'j>(json: &'j [u8], _: &[u8], budget: &Budget) -> Result<Text<'j>, Exhausted> {
    let mut out = Builder::array(budget);
    match shape(json) {
        Shape::Array(_) => return Ok(Cow::Borrowed(json)),
        Shape::Object(mut members) => members.try_for_each(|(_, value)| out.push(&[value.raw]))?,
        Shape::Scalar(item) => out.push(&[item.raw])?,
        Shape::Nothing => {}
    }
    Ok(out.finish())
}

fn from_string<'j>(json: &'j [u8], _: &[u8], budget: &Budget) -> Result<Text<'j>, Exhausted> {
    if !is_valid(json, budget)? {
        return Ok(Cow::Borrowed(b""));
    }
    Ok(match first(json) {
        Some(item) if item.kind == Kind::String => unquote(item.raw),
        Some(item) if item.kind == Kind::Null => Cow::Borrowed(b""),
        Some(item) => Cow::Borrowed(item.raw),
        None => Cow::Borrowed(b""),
    })
}

fn group<'j>(json: &'j [u8], _: &[u8], budget: &Budget) -> Result<Text<'j>, Exhausted> {
    let Shape::Object(members) = shape(json) else { return Ok(Cow::Borrowed(b"")) };
    let mut groups: Vec<Builder<'_>> = Vec::new();
    for (key, value) in members {
        let Shape::Array(elements) = shape(value.raw) else { continue };
        for (place, element) in elements.enumerate() {
            if place == groups.len() {
                groups.push(Builder::object(budget));
            }
            groups[place].push(&[key, b":", element.raw])?;
        }
    }
    let mut out = Builder::array(budget);
    groups.into_iter().try_for_each(|group| out.push(&[&group.finish()]))?;
    Ok(out.finish())
}

/// What the argument finds in the value and in everything inside it.
fn dig<'j>(json: &'j [u8], argument: &[u8], budget: &Budget) -> Result<Text<'j>, Exhausted> {
    let mut out = Builder::array(budget);
    if let Some(item) = first(json) {
        dig_into(&mut out, item, argument)?;
    }
    Ok(out.finish())
}

fn dig_into(out: &mut Builder<'_>, item: Item<'_>, path: &[u8]) -> Result<(), Exhausted> {
    let budget = out.budget;
    let _level = budget.enter()?;
    budget.charge(item.raw.len())?;
    let found = get(item.raw, path, budget)?;
    if found.exists() {
        out.push(&[&found.raw])?;
    }
    match shape(item.raw) {
        Shape::Array(mut elements) => elements.try_for_each(|element| dig_into(out, element, path)),
        Shape::Object(mut members) => members.try_for_each(|(_, value)| dig_into(out, value, path)),
        Shape::Scalar(_) | Shape::Nothing => Ok(()),
    }
}

/// The value that a text holds.
pub(super) fn value_of(json: &[u8]) -> Value<'_> {
    first(json).map_or(Value::MISSING, Value::from)
}
