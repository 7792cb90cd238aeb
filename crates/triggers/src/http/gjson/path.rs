//! One step of a path, for the container that it meets.

use std::borrow::Cow;

use super::budget::{Budget, Exhausted};
use super::query::Query;
use super::scan::balanced_end;
use super::value::unquote;
use super::{glob, modifier};

/// What follows a step.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rest<'p> {
    End,
    /// More steps, on what the step found.
    More(&'p [u8]),
    /// A path on the final value.
    Pipe(&'p [u8]),
}

/// A step into an object.
pub(super) struct ObjectStep<'p> {
    /// The key, or the pattern with its escapes.
    part: Cow<'p, [u8]>,
    wild: bool,
    pub(super) rest: Rest<'p>,
}

impl<'p> ObjectStep<'p> {
    pub(super) fn parse(path: &'p [u8]) -> Self {
        let mut end = path.len();
        let (mut wild, mut escaped) = (false, false);
        let mut rest = Rest::End;
        let mut at = 0;
        while at < path.len() {
            match path[at] {
                b'\\' => {
                    escaped = true;
                    at += 1;
                }
                b'*' | b'?' => wild = true,
                b'.' | b'|' => {
                    end = at;
                    rest = separated(path, at, true);
                    break;
                }
                _ => {}
            }
            at += 1;
        }
        let part = &path[..end];
        let part = if escaped && !wild { Cow::Owned(without_escapes(part)) } else { Cow::Borrowed(part) };
        Self { part, wild, rest }
    }

    /// Whether a key, given with its quotes, is meant.
    pub(super) fn matches(&self, key: &[u8], budget: &Budget) -> Result<bool, Exhausted> {
        let key = unquote(key);
        if self.wild { glob::matches(&key, &self.part, budget) } else { Ok(key == self.part) }
    }
}

fn without_escapes(part: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(part.len());
    let mut bytes = part.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => out.extend(bytes.next()),
            _ => out.push(*byte),
        }
    }
    out
}

/// What follows the separator at a place. A `.` before a modifier or a multipath acts as `|` where `dot_pipes`.
fn separated(path: &[u8], at: usize, dot_pipes: bool) -> Rest<'_> {
    let rest = &path[at + 1..];
    if path[at] == b'|' || (dot_pipes && starts_piped(rest)) { Rest::Pipe(rest) } else { Rest::More(rest) }
}

fn starts_piped(rest: &[u8]) -> bool {
    match rest.first() {
        Some(b'[' | b'{') => true,
        Some(b'@') => {
            let name = &rest[1..];
            let end = name.iter().position(|byte| matches!(byte, b'.' | b'|' | b':')).unwrap_or(name.len());
            modifier::is_known(&name[..end])
        }
        _ => false,
    }
}

/// A step into an array.
pub(super) struct ArrayStep<'p> {
    pub(super) select: Select<'p>,
    pub(super) rest: Rest<'p>,
}

pub(super) enum Select<'p> {
    Index(usize),
    Length,
    /// `#.path`: the path's value of every element.
    Each(&'p [u8]),
    Query(Query<'p>),
    Nothing,
}

impl<'p> ArrayStep<'p> {
    pub(super) fn parse(path: &'p [u8]) -> Self {
        if let Some(each) = path.strip_prefix(b"#.") {
            return Self { select: Select::Each(each), rest: Rest::End };
        }
        if path.starts_with(b"#(") || path.starts_with(b"#[") {
            return match Query::parse(path) {
                Some((query, end)) => {
                    let (_, rest) = until_separator(path, end, false);
                    Self { select: Select::Query(query), rest }
                }
                None => Self { select: Select::Query(Query::any()), rest: Rest::End },
            };
        }
        let hash = path.iter().take_while(|byte| !matches!(byte, b'.' | b'|')).any(|byte| *byte == b'#');
        let (part, rest) = until_separator(path, 0, !hash);
        let select = match part {
            b"#" => Select::Length,
            _ => index(part).map_or(Select::Nothing, Select::Index),
        };
        Self { select, rest }
    }
}

fn until_separator(path: &[u8], from: usize, dot_pipes: bool) -> (&[u8], Rest<'_>) {
    match path[from..].iter().position(|byte| matches!(byte, b'.' | b'|')) {
        Some(offset) => (&path[..from + offset], separated(path, from + offset, dot_pipes)),
        None => (path, Rest::End),
    }
}

fn index(part: &[u8]) -> Option<usize> {
    if part.is_empty() || !part.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(part).ok()?.parse().ok()
}

/// Splits the path that is applied to each element from the one that is applied to all that was collected.
pub(super) fn split_at_pipe(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    let at = if path.first() == Some(&b'{') {
        let end = balanced_end(path);
        (path.get(end) == Some(&b'|')).then_some(end)
    } else {
        first_pipe(path)
    };
    at.map_or((path, None), |at| (&path[..at], Some(&path[at + 1..])))
}

fn first_pipe(path: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < path.len() {
        match path[at] {
            b'\\' => at += 1,
            b'|' => return Some(at),
            b'.' if path[at..].starts_with(b".#(") || path[at..].starts_with(b".#[") => {
                at += 1 + balanced_end(&path[at + 2..]);
            }
            _ => {}
        }
        at += 1;
    }
    None
}
