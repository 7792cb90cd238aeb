//! The functions of expressions: those of the language, and what Kubernetes adds for text, lists and sets.

use std::sync::Arc;

use base64::Engine;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use regex::Regex;

use super::eval::{Error, Outcome, Scope, size};
use super::parse::{Expr, Node, Operator};
use super::quantities;
use super::value::{Val, duration};
use crate::api::schema::ListType;

/// A function: its name, whether it is called on a value, and how many arguments it takes at least and at most.
pub(super) const FUNCTIONS: &[(&str, bool, usize, usize)] = &[
    ("size", false, 1, 1),
    ("int", false, 1, 1),
    ("uint", false, 1, 1),
    ("double", false, 1, 1),
    ("string", false, 1, 1),
    ("bytes", false, 1, 1),
    ("bool", false, 1, 1),
    ("dyn", false, 1, 1),
    ("type", false, 1, 1),
    ("duration", false, 1, 1),
    ("timestamp", false, 1, 1),
    ("matches", false, 2, 2),
    ("quantity", false, 1, 1),
    ("isQuantity", false, 1, 1),
    ("sign", false, 1, 1),
    ("size", true, 0, 0),
    ("contains", true, 1, 1),
    ("startsWith", true, 1, 1),
    ("endsWith", true, 1, 1),
    ("matches", true, 1, 1),
    ("charAt", true, 1, 1),
    ("indexOf", true, 1, 2),
    ("lastIndexOf", true, 1, 2),
    ("lowerAscii", true, 0, 0),
    ("upperAscii", true, 0, 0),
    ("replace", true, 2, 3),
    ("split", true, 1, 2),
    ("substring", true, 1, 2),
    ("trim", true, 0, 0),
    ("join", true, 0, 1),
    ("find", true, 1, 1),
    ("findAll", true, 1, 2),
    ("isSorted", true, 0, 0),
    ("sum", true, 0, 0),
    ("min", true, 0, 0),
    ("max", true, 0, 0),
    ("getFullYear", true, 0, 0),
    ("getMonth", true, 0, 0),
    ("getDate", true, 0, 0),
    ("getDayOfMonth", true, 0, 0),
    ("getDayOfWeek", true, 0, 0),
    ("getDayOfYear", true, 0, 0),
    ("getHours", true, 0, 0),
    ("getMinutes", true, 0, 0),
    ("getSeconds", true, 0, 0),
    ("getMilliseconds", true, 0, 0),
    ("compareTo", true, 1, 1),
    ("isLessThan", true, 1, 1),
    ("isGreaterThan", true, 1, 1),
    ("asApproximateFloat", true, 0, 0),
    ("hasValue", true, 0, 0),
    ("value", true, 0, 0),
    ("or", true, 1, 1),
    ("orValue", true, 1, 1),
];

/// Functions of a name space.
pub(super) const SPACED: &[(&str, &str, usize)] = &[
    ("optional", "of", 1),
    ("optional", "none", 0),
    ("optional", "ofNonZeroValue", 1),
    ("sets", "contains", 2),
    ("sets", "equivalent", 2),
    ("sets", "intersects", 2),
];

/// Functions that a real server has and the sandbox has not.
pub(super) const MISSING: &[&str] = &[
    "add",
    "asInteger",
    "cidr",
    "containsCIDR",
    "containsIP",
    "distinct",
    "family",
    "first",
    "flatten",
    "format",
    "getEscapedPath",
    "getHost",
    "getHostname",
    "getPort",
    "getQuery",
    "getScheme",
    "ip",
    "isCIDR",
    "isIP",
    "isInteger",
    "isSemver",
    "isURL",
    "last",
    "lists",
    "major",
    "masked",
    "minor",
    "named",
    "patch",
    "prefixLength",
    "quote",
    "range",
    "reverse",
    "semver",
    "slice",
    "sort",
    "sortBy",
    "sub",
    "transformList",
    "transformMap",
    "transformMapEntry",
    "url",
    "validate",
];

pub(super) fn call<'a, 'b>(
    scope: &mut Scope<'a, 'b>,
    of: Option<&'b Expr>,
    name: &str,
    arguments: &'b [Expr],
) -> Outcome<'a> {
    let space = match of.map(|of| &of.node) {
        Some(Node::Ident(space)) if SPACED.iter().any(|(known, function, _)| *known == space && *function == name) => {
            Some(space.as_str())
        }
        _ => None,
    };
    let of = match of.filter(|_| space.is_none()) {
        Some(of) => Some(scope.value(of)?),
        None => None,
    };
    // The other value of an optional is not looked at unless it is needed.
    if let (Some(Val::Optional(Some(inner))), "or" | "orValue") = (&of, name) {
        return Ok(if name == "or" { Val::Optional(Some(inner.clone())) } else { (**inner).clone() });
    }
    let arguments = arguments.iter().map(|one| scope.value(one)).collect::<Result<Vec<_>, _>>()?;
    scope.pay(of.iter().chain(&arguments).map(size).sum())?;
    match (space, of) {
        (Some(space), _) => spaced(space, name, &arguments),
        (None, Some(of)) => on_value(&of, name, &arguments),
        (None, None) => global(name, &arguments),
    }
}

fn unlike(name: &str, of: &Val<'_>) -> Error {
    format!("no such overload: {}.{name}", of.kind())
}

fn global<'a>(name: &str, arguments: &[Val<'a>]) -> Outcome<'a> {
    let [first, rest @ ..] = arguments else {
        return Err(format!("no such overload: {name}()"));
    };
    match (name, rest) {
        ("matches", [pattern]) => on_value(first, name, std::slice::from_ref(pattern)),
        ("size", _) => on_value(first, name, &[]),
        ("dyn", _) => Ok(first.clone()),
        ("type", _) => Ok(Val::Kind(first.kind())),
        ("quantity" | "isQuantity", _) => quantities::made(name, first),
        ("sign", _) => quantities::sign(first),
        _ => converted(name, first),
    }
}

fn converted<'a>(name: &str, value: &Val<'a>) -> Outcome<'a> {
    let range = || "range error".to_owned();
    Ok(match (name, value) {
        ("int", Val::Int(_))
        | ("uint", Val::Uint(_))
        | ("double", Val::Double(_))
        | ("string", Val::Text(_))
        | ("bool", Val::Bool(_))
        | ("bytes", Val::Bytes(_))
        | ("duration", Val::Duration(_))
        | ("timestamp", Val::Timestamp(_)) => value.clone(),
        ("int", Val::Uint(number)) => Val::Int(i64::try_from(*number).map_err(|_| range())?),
        ("int", Val::Double(number)) if number.abs() < 9.2e18 => Val::Int(*number as i64),
        ("int", Val::Double(_)) => return Err(range()),
        ("int", Val::Timestamp(time)) => Val::Int(time.as_second()),
        ("int", Val::Text(text)) => Val::Int(text.parse().map_err(|_| format!("invalid int: {text}"))?),
        ("uint", Val::Int(number)) => Val::Uint(u64::try_from(*number).map_err(|_| range())?),
        ("uint", Val::Double(number)) if (0.0..1.8e19).contains(number) => Val::Uint(*number as u64),
        ("uint", Val::Text(text)) => Val::Uint(text.parse().map_err(|_| format!("invalid uint: {text}"))?),
        ("double", Val::Int(number)) => Val::Double(*number as f64),
        ("double", Val::Uint(number)) => Val::Double(*number as f64),
        ("double", Val::Text(text)) => Val::Double(text.parse().map_err(|_| format!("invalid double: {text}"))?),
        ("bool", Val::Text(text)) => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Val::Bool(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Val::Bool(false),
            _ => return Err(format!("invalid bool: {text}")),
        },
        ("bytes", Val::Text(text)) => Val::Bytes(text.as_bytes().into()),
        ("duration", Val::Text(text)) => {
            Val::Duration(duration(text).ok_or_else(|| format!("invalid duration {text:?}"))?)
        }
        ("timestamp", Val::Text(text)) => {
            Val::Timestamp(text.parse().map_err(|_| format!("invalid timestamp {text:?}"))?)
        }
        ("timestamp", Val::Int(seconds)) => Val::Timestamp(Timestamp::from_second(*seconds).map_err(|_| range())?),
        ("string", Val::Bytes(bytes)) => Val::text(std::str::from_utf8(bytes).map_err(|_| "invalid UTF-8".to_owned())?),
        (
            "string",
            Val::Bool(_) | Val::Int(_) | Val::Uint(_) | Val::Double(_) | Val::Duration(_) | Val::Timestamp(_),
        ) => Val::text(&shown(value)),
        _ => return Err(format!("no such overload: {name}({})", value.kind())),
    })
}

/// A value as text.
pub(super) fn shown(value: &Val<'_>) -> String {
    match value {
        Val::Bool(flag) => flag.to_string(),
        Val::Int(number) => number.to_string(),
        Val::Uint(number) => number.to_string(),
        Val::Double(number) => number.to_string(),
        Val::Text(text) => text.to_string(),
        Val::Bytes(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes),
        Val::Duration(time) => format!("{}s", time.as_secs_f64()),
        Val::Timestamp(time) => time.to_string(),
        other => other.kind().to_owned(),
    }
}

fn on_value<'a>(of: &Val<'a>, name: &str, arguments: &[Val<'a>]) -> Outcome<'a> {
    match of {
        Val::Text(text) => on_text(text, name, arguments),
        Val::Bytes(bytes) if name == "size" => Ok(Val::Int(bytes.len() as i64)),
        Val::Timestamp(time) => on_time(*time, name),
        Val::Quantity(quantity) => quantities::on_quantity(*quantity, name, arguments),
        Val::Duration(time) => {
            let whole = |number: i128| i64::try_from(number).map(Val::Int).map_err(|_| "range error".to_owned());
            match name {
                "getHours" => whole(i128::from(time.as_secs()) / 3600),
                "getMinutes" => whole(i128::from(time.as_secs()) / 60),
                "getSeconds" => whole(i128::from(time.as_secs())),
                "getMilliseconds" => whole(time.as_millis()),
                _ => Err(unlike(name, of)),
            }
        }
        Val::Optional(inner) => match (name, inner, arguments) {
            ("hasValue", _, _) => Ok(Val::Bool(inner.is_some())),
            ("value", Some(inner), _) => Ok((**inner).clone()),
            ("value", None, _) => Err("optional.none() dereference".to_owned()),
            ("or" | "orValue", None, [other]) => Ok(other.clone()),
            _ => Err(unlike(name, of)),
        },
        _ => match (of.items(), of.entries()) {
            (Some(items), _) => on_list(of, items, name, arguments),
            (_, Some(entries)) if name == "size" => Ok(Val::Int(entries.len() as i64)),
            _ => Err(unlike(name, of)),
        },
    }
}

fn regex(pattern: &str) -> Result<Regex, Error> {
    Regex::new(pattern).map_err(|_| format!("error parsing regexp: {pattern}"))
}

fn on_text<'a>(text: &str, name: &str, arguments: &[Val<'a>]) -> Outcome<'a> {
    let letters = || text.chars().collect::<Vec<_>>();
    let bounds = |number: i64| format!("index out of range: {number}");
    let place = |number: i64, length: usize| {
        usize::try_from(number).ok().filter(|place| *place <= length).ok_or_else(|| bounds(number))
    };
    let listed = |parts: Vec<&str>| Val::List(Arc::new(parts.into_iter().map(Val::text).collect()));
    Ok(match (name, arguments) {
        ("size", []) => Val::Int(text.chars().count() as i64),
        ("contains", [Val::Text(part)]) => Val::Bool(text.contains(&**part)),
        ("startsWith", [Val::Text(part)]) => Val::Bool(text.starts_with(&**part)),
        ("endsWith", [Val::Text(part)]) => Val::Bool(text.ends_with(&**part)),
        ("matches", [Val::Text(pattern)]) => Val::Bool(regex(pattern)?.is_match(text)),
        ("find", [Val::Text(pattern)]) => Val::text(regex(pattern)?.find(text).map_or("", |found| found.as_str())),
        ("findAll", [Val::Text(pattern), limit @ ..]) => {
            let limit = match limit {
                [Val::Int(limit)] => usize::try_from(*limit).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            listed(regex(pattern)?.find_iter(text).take(limit).map(|found| found.as_str()).collect())
        }
        ("charAt", [Val::Int(number)]) => {
            let letters = letters();
            let place = place(*number, letters.len())?;
            Val::text(&letters.get(place).map(char::to_string).unwrap_or_default())
        }
        ("indexOf" | "lastIndexOf", [Val::Text(part), from @ ..]) => {
            let letters = letters();
            let wanted: Vec<char> = part.chars().collect();
            let last = letters.len().checked_sub(wanted.len());
            let hit = |at: &usize| letters[*at..].starts_with(&wanted);
            let Some(last) = last else { return Ok(Val::Int(-1)) };
            let found = match (name, from) {
                ("indexOf", [Val::Int(from)]) => (place(*from, letters.len())?..=last).find(hit),
                ("indexOf", _) => (0..=last).find(hit),
                (_, [Val::Int(from)]) => (0..=last.min(place(*from, letters.len())?)).rev().find(hit),
                _ => (0..=last).rev().find(hit),
            };
            Val::Int(found.map_or(-1, |at| at as i64))
        }
        ("lowerAscii", []) => Val::text(&text.to_ascii_lowercase()),
        ("upperAscii", []) => Val::text(&text.to_ascii_uppercase()),
        ("trim", []) => Val::text(text.trim()),
        ("replace", [Val::Text(from), Val::Text(to), limit @ ..]) => match limit {
            [Val::Int(limit)] if *limit >= 0 => {
                Val::text(&text.replacen(&**from, to, usize::try_from(*limit).unwrap_or(usize::MAX)))
            }
            _ => Val::text(&text.replace(&**from, to)),
        },
        ("split", [Val::Text(by), limit @ ..]) => match limit {
            [Val::Int(limit)] if *limit >= 0 => {
                listed(text.splitn(usize::try_from(*limit).unwrap_or(usize::MAX), &**by).collect())
            }
            _ if by.is_empty() => listed(text.split("").filter(|part| !part.is_empty()).collect()),
            _ => listed(text.split(&**by).collect()),
        },
        ("substring", [Val::Int(start), end @ ..]) => {
            let letters = letters();
            let start = place(*start, letters.len())?;
            let end = match end {
                [Val::Int(end)] => place(*end, letters.len())?,
                _ => letters.len(),
            };
            let part = letters.get(start..end).ok_or_else(|| "invalid substring range".to_owned())?;
            Val::text(&part.iter().collect::<String>())
        }
        _ => return Err(format!("no such overload: string.{name}")),
    })
}

fn on_time<'a>(time: Timestamp, name: &str) -> Outcome<'a> {
    let local = time.to_zoned(TimeZone::UTC);
    Ok(Val::Int(match name {
        "getFullYear" => local.year().into(),
        "getMonth" => i64::from(local.month()) - 1,
        "getDate" => local.day().into(),
        "getDayOfMonth" => i64::from(local.day()) - 1,
        "getDayOfWeek" => local.weekday().to_sunday_zero_offset().into(),
        "getDayOfYear" => i64::from(local.day_of_year()) - 1,
        "getHours" => local.hour().into(),
        "getMinutes" => local.minute().into(),
        "getSeconds" => local.second().into(),
        "getMilliseconds" => local.millisecond().into(),
        _ => return Err(format!("no such overload: timestamp.{name}")),
    }))
}

fn on_list<'a>(of: &Val<'a>, items: Vec<Val<'a>>, name: &str, arguments: &[Val<'a>]) -> Outcome<'a> {
    let found = |place: Option<usize>| Val::Int(place.map_or(-1, |place| place as i64));
    Ok(match (name, arguments) {
        ("size", []) => Val::Int(items.len() as i64),
        ("indexOf", [wanted]) => found(items.iter().position(|item| item.same(wanted))),
        ("lastIndexOf", [wanted]) => found(items.iter().rposition(|item| item.same(wanted))),
        ("join", between) => {
            let between = match between {
                [Val::Text(text)] => text.to_string(),
                _ => String::new(),
            };
            let text = |item: &Val<'_>| match item {
                Val::Text(text) => Ok(text.to_string()),
                other => Err(format!("no such overload: join of {}", other.kind())),
            };
            let parts = items.iter().map(text).collect::<Result<Vec<_>, _>>()?;
            Val::text(&parts.join(&between))
        }
        ("isSorted", []) => {
            Val::Bool(items.windows(2).all(|pair| pair[0].order(&pair[1]).is_some_and(std::cmp::Ordering::is_le)))
        }
        ("min" | "max", []) => {
            let mut items = items.into_iter();
            let first = items.next().ok_or_else(|| format!("{name} called on empty list"))?;
            items.fold(first, |best, item| {
                let better = match item.order(&best) {
                    Some(order) if name == "min" => order.is_lt(),
                    Some(order) => order.is_gt(),
                    None => false,
                };
                if better { item } else { best }
            })
        }
        ("sum", []) => {
            let mut items = items.into_iter();
            let Some(first) = items.next() else {
                return Ok(Val::Int(0));
            };
            items.try_fold(first, |sum, item| arithmetic(Operator::Add, &sum, &item))?
        }
        _ => return Err(unlike(name, of)),
    })
}

fn spaced<'a>(space: &str, name: &str, arguments: &[Val<'a>]) -> Outcome<'a> {
    let within = |inner: &[Val<'a>], outer: &[Val<'a>]| inner.iter().all(|one| outer.iter().any(|item| item.same(one)));
    match (space, name, arguments) {
        ("optional", "none", _) => Ok(Val::Optional(None)),
        ("optional", "of", [value]) => Ok(Val::Optional(Some(Arc::new(value.clone())))),
        ("optional", "ofNonZeroValue", [value]) => {
            let zero = match value {
                Val::Null | Val::Bool(false) | Val::Int(0) | Val::Uint(0) => true,
                Val::Double(number) => *number == 0.0,
                Val::Text(text) => text.is_empty(),
                other => {
                    other.items().is_some_and(|items| items.is_empty())
                        || other.entries().is_some_and(|entries| entries.is_empty())
                }
            };
            Ok(Val::Optional((!zero).then(|| Arc::new(value.clone()))))
        }
        ("sets", _, [left, right]) => {
            let (Some(left), Some(right)) = (left.items(), right.items()) else {
                return Err(format!("no such overload: sets.{name}"));
            };
            Ok(Val::Bool(match name {
                "contains" => within(&right, &left),
                "equivalent" => within(&left, &right) && within(&right, &left),
                _ => left.iter().any(|one| right.iter().any(|item| item.same(one))),
            }))
        }
        _ => Err(format!("no such overload: {space}.{name}")),
    }
}

pub(super) fn arithmetic<'a>(operator: Operator, left: &Val<'a>, right: &Val<'a>) -> Outcome<'a> {
    use Operator::{Add, Divide, Multiply, Remainder, Subtract};
    let overflow = || "integer overflow".to_owned();
    Ok(match (operator, left, right) {
        (Divide, Val::Int(_), Val::Int(0)) | (Divide, Val::Uint(_), Val::Uint(0)) => {
            return Err("division by zero".to_owned());
        }
        (Remainder, Val::Int(_), Val::Int(0)) | (Remainder, Val::Uint(_), Val::Uint(0)) => {
            return Err("modulus by zero".to_owned());
        }
        (_, Val::Int(a), Val::Int(b)) => Val::Int(
            match operator {
                Add => a.checked_add(*b),
                Subtract => a.checked_sub(*b),
                Multiply => a.checked_mul(*b),
                Divide => a.checked_div(*b),
                _ => a.checked_rem(*b),
            }
            .ok_or_else(overflow)?,
        ),
        (_, Val::Uint(a), Val::Uint(b)) => Val::Uint(
            match operator {
                Add => a.checked_add(*b),
                Subtract => a.checked_sub(*b),
                Multiply => a.checked_mul(*b),
                Divide => a.checked_div(*b),
                _ => a.checked_rem(*b),
            }
            .ok_or_else(overflow)?,
        ),
        (Add, Val::Double(a), Val::Double(b)) => Val::Double(a + b),
        (Subtract, Val::Double(a), Val::Double(b)) => Val::Double(a - b),
        (Multiply, Val::Double(a), Val::Double(b)) => Val::Double(a * b),
        (Divide, Val::Double(a), Val::Double(b)) => Val::Double(a / b),
        (Add, Val::Text(a), Val::Text(b)) => Val::text(&format!("{a}{b}")),
        (Add, Val::Bytes(a), Val::Bytes(b)) => Val::Bytes([&a[..], &b[..]].concat().into()),
        (Add, Val::Duration(a), Val::Duration(b)) => Val::Duration(a.checked_add(*b).ok_or_else(overflow)?),
        (Subtract, Val::Duration(a), Val::Duration(b)) => Val::Duration(a.checked_sub(*b).ok_or_else(overflow)?),
        (Add, Val::Timestamp(a), Val::Duration(b)) | (Add, Val::Duration(b), Val::Timestamp(a)) => {
            Val::Timestamp(a.checked_add(*b).map_err(|_| overflow())?)
        }
        (Subtract, Val::Timestamp(a), Val::Duration(b)) => Val::Timestamp(a.checked_sub(*b).map_err(|_| overflow())?),
        (Subtract, Val::Timestamp(a), Val::Timestamp(b)) => Val::Duration(a.duration_since(*b)),
        (Add, _, _) => match (left.items(), right.items()) {
            (Some(mut items), Some(more)) => {
                match left.list_type() {
                    Some(ListType::Set) => {
                        let new: Vec<_> =
                            more.into_iter().filter(|one| !items.iter().any(|item| item.same(one))).collect();
                        items.extend(new);
                    }
                    Some(ListType::Map(keys)) => joined(&mut items, more, keys),
                    _ => items.extend(more),
                }
                Val::List(Arc::new(items))
            }
            _ => return Err(format!("no such overload: {} + {}", left.kind(), right.kind())),
        },
        _ => {
            return Err(format!("no such overload: {} {} {}", left.kind(), operator.symbol(), right.kind()));
        }
    })
}

/// Adds items that are known by their keys: one with the same keys takes the place of the other.
fn joined<'a>(items: &mut Vec<Val<'a>>, more: Vec<Val<'a>>, keys: &[String]) {
    for item in more {
        let same = |other: &Val<'a>| {
            keys.iter().all(|key| match (item.field(key), other.field(key)) {
                (Some(mine), Some(theirs)) => mine.same(&theirs),
                (mine, theirs) => mine.is_none() && theirs.is_none(),
            })
        };
        match items.iter().position(same) {
            Some(place) => items[place] = item,
            None => items.push(item),
        }
    }
}
