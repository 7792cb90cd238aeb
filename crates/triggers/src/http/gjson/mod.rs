//! The path language in which KEDA users point at a value of a JSON document (`o.b`, `arr.#`, `objs.#(n=="q").v`,
//! `nums.@reverse.0`, `{"q":s}.q`), evaluated over the raw text: the document is not validated, and only as much of it
//! is looked at as the path asks for.
//!
//! Path and document come from outside. An evaluation is bounded in depth and in work, both proportional to the
//! document at most, and nothing in it panics.

mod budget;
mod glob;
mod modifier;
mod multipath;
mod path;
mod query;
mod scan;
#[cfg(test)]
mod tests;
mod value;

use std::borrow::Cow;

pub use budget::Exhausted;
pub use value::{Leaf, Value};

use budget::Budget;
use modifier::value_of;
use path::{ArrayStep, ObjectStep, Rest, Select, split_at_pipe};
use query::Query;
use scan::{Elements, Members};
use value::Kind;

/// What a path leads to in a JSON document.
///
/// # Errors
/// The path nests too deeply, or asks for more work than a document of this size should need.
pub fn find<'j>(json: &'j [u8], path: &str) -> Result<Value<'j>, Exhausted> {
    get(json, path.as_bytes(), &Budget::new(json.len()))
}

fn get<'j>(json: &'j [u8], path: &[u8], budget: &Budget) -> Result<Value<'j>, Exhausted> {
    let _level = budget.enter()?;
    budget.charge(path.len())?;
    if let Some(value) = transformed(json, path, budget)? {
        return Ok(value);
    }
    let mut walk = Walk { value: Value::MISSING, pipe: None, budget };
    if let Some(lines) = path.strip_prefix(b"..") {
        walk.array(json, lines)?;
    } else if let Some(start) = json.iter().position(|byte| matches!(byte, b'{' | b'[')) {
        budget.charge(start)?;
        walk.inside(&json[start..], path)?;
    }
    match walk.pipe {
        None => Ok(walk.value),
        Some(pipe) => match walk.value.raw {
            Cow::Borrowed(raw) => get(raw, pipe, budget),
            Cow::Owned(raw) => Ok(get(&raw, pipe, budget)?.into_owned()),
        },
    }
}

/// The value of a path that starts with a modifier, a literal or a multipath; `None` for any other path.
fn transformed<'j>(json: &'j [u8], path: &[u8], budget: &Budget) -> Result<Option<Value<'j>>, Exhausted> {
    if path.len() < 2 {
        return Ok(None);
    }
    let (text, rest) = match path[0] {
        b'@' => match modifier::apply(json, path, budget)? {
            Some(applied) => applied,
            None => return Ok(None),
        },
        b'!' => match modifier::literal(path) {
            Some((text, rest)) => (Cow::Owned(text.to_vec()), rest),
            None => return Ok(None),
        },
        b'[' | b'{' => match multipath::build(json, path, budget)? {
            Some((text, rest)) => (Cow::Owned(text), rest),
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    let follow = match rest.split_first() {
        Some((b'.' | b'|', path)) => Some(path),
        _ => None,
    };
    Ok(Some(match text {
        Cow::Borrowed(text) => follow_on(text, follow, budget)?,
        Cow::Owned(text) => follow_on(&text, follow, budget)?.into_owned(),
    }))
}

/// The value of a text, or of a path into it.
fn follow_on<'j>(text: &'j [u8], path: Option<&[u8]>, budget: &Budget) -> Result<Value<'j>, Exhausted> {
    path.map_or_else(|| Ok(value_of(text)), |path| get(text, path, budget))
}

/// A walk down the document, step by step.
struct Walk<'j, 'p, 'b> {
    value: Value<'j>,
    /// The path that is applied to the value at the end.
    pipe: Option<&'p [u8]>,
    budget: &'b Budget,
}

impl<'j, 'p> Walk<'j, 'p, '_> {
    /// Follows a path into a container; anything else has no inside. Returns whether the search is over.
    fn inside(&mut self, raw: &'j [u8], path: &'p [u8]) -> Result<bool, Exhausted> {
        match raw.first() {
            Some(b'{') => self.object(&raw[1..], path),
            Some(b'[') => self.array(&raw[1..], path),
            _ => Ok(false),
        }
    }

    fn object(&mut self, json: &'j [u8], path: &'p [u8]) -> Result<bool, Exhausted> {
        let _level = self.budget.enter()?;
        let step = ObjectStep::parse(path);
        if let Rest::Pipe(pipe) = step.rest {
            self.pipe = Some(pipe);
        }
        for (key, item) in Members::new(json) {
            self.budget.charge(key.len() + item.raw.len())?;
            if !step.matches(key, self.budget)? {
                continue;
            }
            match step.rest {
                // Another key may match as well, and lead further.
                Rest::More(rest) if !self.inside(item.raw, rest)? => {}
                Rest::More(_) => return Ok(true),
                Rest::End | Rest::Pipe(_) => {
                    self.value = item.into();
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn array(&mut self, json: &'j [u8], path: &'p [u8]) -> Result<bool, Exhausted> {
        let _level = self.budget.enter()?;
        let step = ArrayStep::parse(path);
        if let Rest::Pipe(pipe) = step.rest {
            self.pipe = Some(pipe);
        }
        match step.select {
            Select::Index(index) => self.element(json, index, step.rest),
            Select::Length => self.length(json),
            Select::Each(path) => self.each(json, path),
            Select::Query(query) => self.query(json, &query, step.rest),
            Select::Nothing => Ok(false),
        }
    }

    fn element(&mut self, json: &'j [u8], index: usize, rest: Rest<'p>) -> Result<bool, Exhausted> {
        for (place, item) in Elements::new(json).enumerate() {
            self.budget.charge(item.raw.len())?;
            if place < index {
                continue;
            }
            if let Rest::More(rest) = rest {
                return self.inside(item.raw, rest);
            }
            self.value = item.into();
            return Ok(true);
        }
        Ok(false)
    }

    fn length(&mut self, json: &'j [u8]) -> Result<bool, Exhausted> {
        let mut elements = Elements::new(json);
        let mut count = 0_usize;
        for item in elements.by_ref() {
            self.budget.charge(item.raw.len())?;
            count += 1;
        }
        if !elements.unclosed {
            self.value = Value { kind: Kind::Number, raw: Cow::Owned(count.to_string().into_bytes()) };
        }
        Ok(!elements.unclosed)
    }

    /// Collects what a path finds in each element.
    fn each(&mut self, json: &'j [u8], path: &'p [u8]) -> Result<bool, Exhausted> {
        let (path, pipe) = split_at_pipe(path);
        let mut elements = Elements::new(json);
        let mut all = vec![b'['];
        for item in elements.by_ref() {
            self.budget.charge(item.raw.len())?;
            let found = get(item.raw, path, self.budget)?;
            if found.exists() {
                self.collect(&mut all, &found)?;
            }
        }
        if elements.unclosed {
            return Ok(false);
        }
        self.pipe = pipe.or(self.pipe);
        all.push(b']');
        self.value = Value::container(all);
        Ok(true)
    }

    fn query(&mut self, json: &'j [u8], query: &Query<'p>, rest: Rest<'p>) -> Result<bool, Exhausted> {
        let mut elements = Elements::new(json);
        let mut all = vec![b'['];
        for item in elements.by_ref() {
            self.budget.charge(item.raw.len())?;
            let probe = match item.kind {
                Kind::Container => get(item.raw, query.path, self.budget)?,
                _ if query.path.is_empty() => item.into(),
                _ => continue,
            };
            if !query.matches(&probe, self.budget)? {
                continue;
            }
            let found = match rest {
                Rest::More(path) => {
                    let (path, pipe) = split_at_pipe(path);
                    self.pipe = pipe.or(self.pipe);
                    get(item.raw, path, self.budget)?
                }
                Rest::End | Rest::Pipe(_) => item.into(),
            };
            if !query.all {
                self.value = found;
                return Ok(true);
            }
            if found.exists() {
                self.collect(&mut all, &found)?;
            }
        }
        if !query.all || elements.unclosed {
            return Ok(false);
        }
        all.push(b']');
        self.value = Value::container(all);
        Ok(true)
    }

    fn collect(&self, all: &mut Vec<u8>, found: &Value<'_>) -> Result<(), Exhausted> {
        self.budget.charge(found.raw.len())?;
        if all.len() > 1 {
            all.push(b',');
        }
        all.extend_from_slice(&found.raw);
        Ok(())
    }
}
