//! Queries: `#(path op value)` and `#(path op value)#`.

use std::borrow::Cow;

use super::budget::{Budget, Exhausted};
use super::glob;
use super::value::{Kind, Value, number, unescape};

pub(super) struct Query<'p> {
    /// Where in each element to look; empty for the element itself.
    pub(super) path: &'p [u8],
    /// How to compare with what is found there; `None` asks only whether it exists.
    operator: Option<Operator>,
    right: Cow<'p, [u8]>,
    /// All matches instead of the first.
    pub(super) all: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Like,
    NotLike,
}

impl<'p> Query<'p> {
    /// The query that every element fulfils.
    pub(super) fn any() -> Self {
        Self { path: b"", operator: None, right: Cow::Borrowed(b""), all: false }
    }

    /// The query at the start of a path, and where it ends. `None` where its bracket is not closed.
    pub(super) fn parse(path: &'p [u8]) -> Option<(Self, usize)> {
        let Bounds { operator, end, escaped } = bounds(path)?;
        let (all, after) = if path.get(end + 1) == Some(&b'#') { (true, end + 2) } else { (false, end + 1) };
        let Some(start) = operator else {
            let query = Self { path: trim(&path[2..end]), operator: None, right: Cow::Borrowed(b""), all };
            return Some((query, after));
        };
        let (operator, length) = operator_of(trim(&path[start..end]));
        let right = trim(&trim(&path[start..end])[length..]);
        let right = match right {
            [b'"', inner @ .., b'"'] if escaped => unescape(inner),
            [b'"', inner @ .., b'"'] => Cow::Borrowed(inner),
            bare => Cow::Borrowed(bare),
        };
        Some((Self { path: trim(&path[2..start]), operator, right, all }, after))
    }

    /// Whether what was found under the query's path fulfils it.
    pub(super) fn matches(&self, found: &Value<'_>, budget: &Budget) -> Result<bool, Exhausted> {
        let mut right: &[u8] = &self.right;
        let mut kind = found.kind;
        if let Some(wanted) = right.strip_prefix(b"~") {
            let is = match wanted {
                b"*" => found.exists(),
                b"null" => matches!(kind, Kind::Null | Kind::Missing),
                b"true" => truth(found) == Some(true),
                b"false" => truth(found) == Some(false),
                _ => return Ok(false),
            };
            kind = if is { Kind::True } else { Kind::False };
            right = b"true";
        }
        if kind == Kind::Missing {
            return Ok(false);
        }
        let Some(operator) = self.operator else { return Ok(true) };
        budget.charge(found.raw.len())?;
        match kind {
            Kind::String => text_matches(&found.text(), operator, right, budget),
            Kind::Number => Ok(number_matches(found.number_or_zero(), operator, number(right).unwrap_or(0.0))),
            Kind::True => Ok(bool_matches(true, operator, right)),
            Kind::False => Ok(bool_matches(false, operator, right)),
            Kind::Missing | Kind::Null | Kind::Container => Ok(false),
        }
    }
}

/// Where the parts of a query lie.
struct Bounds {
    operator: Option<usize>,
    /// The closing bracket.
    end: usize,
    /// A quoted text in it has escapes.
    escaped: bool,
}

fn bounds(path: &[u8]) -> Option<Bounds> {
    let mut bounds = Bounds { operator: None, end: 0, escaped: false };
    let mut depth = 1;
    let mut at = 2;
    while at < path.len() {
        match path[at] {
            b'!' | b'=' | b'<' | b'>' | b'%' if depth == 1 && bounds.operator.is_none() => bounds.operator = Some(at),
            b'\\' => at += 1,
            b'[' | b'(' => depth += 1,
            b']' | b')' => {
                depth -= 1;
                if depth == 0 {
                    bounds.end = at;
                    return Some(bounds);
                }
            }
            b'"' => {
                at += 1;
                while at < path.len() && path[at] != b'"' {
                    if path[at] == b'\\' {
                        bounds.escaped = true;
                        at += 1;
                    }
                    at += 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The operator at the start of a text with its length. A lone `!` is no operator, and has no length.
fn operator_of(text: &[u8]) -> (Option<Operator>, usize) {
    match text {
        [b'!', b'=', ..] => (Some(Operator::NotEqual), 2),
        [b'!', b'%', ..] => (Some(Operator::NotLike), 2),
        [b'<', b'=', ..] => (Some(Operator::LessOrEqual), 2),
        [b'>', b'=', ..] => (Some(Operator::GreaterOrEqual), 2),
        [b'=', b'=', ..] => (Some(Operator::Equal), 2),
        [b'<', ..] => (Some(Operator::Less), 1),
        [b'>', ..] => (Some(Operator::Greater), 1),
        [b'=', ..] => (Some(Operator::Equal), 1),
        [b'%', ..] => (Some(Operator::Like), 1),
        _ => (None, 0),
    }
}

fn trim(text: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| *byte > b' ';
    let start = text.iter().position(is_text).unwrap_or(text.len());
    let end = text.iter().rposition(is_text).map_or(start, |at| at + 1);
    &text[start..end]
}

/// What a value says when asked for a yes or no; `None` where it says neither.
fn truth(value: &Value<'_>) -> Option<bool> {
    match value.kind {
        Kind::True => Some(true),
        Kind::False | Kind::Null | Kind::Missing => Some(false),
        Kind::Number => Some(value.number_or_zero() != 0.0),
        Kind::String => match value.text().to_ascii_lowercase().as_slice() {
            b"1" | b"t" | b"true" => Some(true),
            b"0" | b"f" | b"false" => Some(false),
            _ => None,
        },
        Kind::Container => None,
    }
}

fn text_matches(left: &[u8], operator: Operator, right: &[u8], budget: &Budget) -> Result<bool, Exhausted> {
    Ok(match operator {
        Operator::Equal => left == right,
        Operator::NotEqual => left != right,
        Operator::Less => left < right,
        Operator::LessOrEqual => left <= right,
        Operator::Greater => left > right,
        Operator::GreaterOrEqual => left >= right,
        Operator::Like => glob::matches(left, right, budget)?,
        Operator::NotLike => !glob::matches(left, right, budget)?,
    })
}

#[allow(clippy::float_cmp)] // `==` on two numbers as they are written is what the query asks for.
fn number_matches(left: f64, operator: Operator, right: f64) -> bool {
    match operator {
        Operator::Equal => left == right,
        Operator::NotEqual => left != right,
        Operator::Less => left < right,
        Operator::LessOrEqual => left <= right,
        Operator::Greater => left > right,
        Operator::GreaterOrEqual => left >= right,
        Operator::Like | Operator::NotLike => false,
    }
}

/// `true` lies above `false`.
fn bool_matches(left: bool, operator: Operator, right: &[u8]) -> bool {
    let (same, other): (&[u8], &[u8]) = if left { (b"true", b"false") } else { (b"false", b"true") };
    match operator {
        Operator::Equal => right == same,
        Operator::NotEqual => right != same,
        Operator::Greater => left && right == other,
        Operator::GreaterOrEqual => left,
        Operator::Less => !left && right == other,
        Operator::LessOrEqual => !left,
        Operator::Like | Operator::NotLike => false,
    }
}
