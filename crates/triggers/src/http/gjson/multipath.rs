//! Multipaths: `[path,path]` and `{"name":path,path}` build an array or an object from what their paths find.

use super::budget::{Budget, Exhausted};
use super::get;
use super::scan::string_end;
use super::value::lossy;

struct Selector<'p> {
    name: Option<&'p [u8]>,
    path: &'p [u8],
}

/// A built container, and the rest of the path.
type Built<'p> = (Vec<u8>, &'p [u8]);

/// The container that the multipath at the start of a path builds, and the rest of the path. `None` where it is not a
/// multipath: not closed, or followed by something else than a separator.
pub(super) fn build<'p>(json: &[u8], path: &'p [u8], budget: &Budget) -> Result<Option<Built<'p>>, Exhausted> {
    let Some((selectors, rest)) = parse(path) else { return Ok(None) };
    if !matches!(rest.first(), None | Some(b'.' | b'|')) {
        return Ok(None);
    }
    let object = path[0] == b'{';
    let mut out = vec![path[0]];
    for selector in selectors {
        let value = get(json, selector.path, budget)?;
        if !value.exists() {
            continue;
        }
        budget.charge(value.raw.len())?;
        if out.len() > 1 {
            out.push(b',');
        }
        if object {
            out.extend_from_slice(key(&selector).as_bytes());
            out.push(b':');
        }
        out.extend_from_slice(&value.raw);
    }
    out.push(if object { b'}' } else { b']' });
    Ok(Some((out, rest)))
}

/// The selectors between the brackets, and what follows the closing one.
fn parse(path: &[u8]) -> Option<(Vec<Selector<'_>>, &[u8])> {
    let mut selectors = Vec::new();
    let (mut depth, mut start, mut colon) = (1, 1, None);
    let mut modifier = false;
    let mut at = 1;
    while at < path.len() {
        match path[at] {
            b'\\' => at += 1,
            b'@' if matches!(path[at - 1], b'.' | b'|') => modifier = true,
            b':' if depth == 1 && !modifier => colon = Some(at),
            b',' if depth == 1 => {
                selectors.push(selector(path, start, colon, at));
                (start, colon, modifier) = (at + 1, None, false);
            }
            b'"' => at += string_end(&path[at..])? - 1,
            b'[' | b'(' | b'{' => depth += 1,
            b']' | b')' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    selectors.push(selector(path, start, colon, at));
                    return Some((selectors, &path[at + 1..]));
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

fn selector(path: &[u8], start: usize, colon: Option<usize>, end: usize) -> Selector<'_> {
    match colon {
        Some(colon) => Selector { name: Some(&path[start..colon]), path: &path[colon + 1..end] },
        None => Selector { name: None, path: &path[start..end] },
    }
}

/// The member's key as JSON: the name given, else the last step of the path, else `_`.
fn key(selector: &Selector<'_>) -> String {
    let quoted = |text: &[u8]| serde_json::Value::String(lossy(text)).to_string();
    match selector.name {
        Some(name) if !name.is_empty() => match serde_json::from_slice::<String>(name) {
            Ok(_) => lossy(name),
            Err(_) => quoted(name),
        },
        _ => {
            let last = last_step(selector.path);
            let special = |byte: &u8| *byte < b' ' || b"[]{}()#|!".contains(byte);
            if last.iter().any(special) { "\"_\"".to_owned() } else { quoted(last) }
        }
    }
}

fn last_step(path: &[u8]) -> &[u8] {
    let separator = |at: &usize| matches!(path[*at], b'.' | b'|') && (*at == 0 || path[*at - 1] != b'\\');
    (0..path.len()).rev().find(separator).map_or(path, |at| &path[at + 1..])
}
