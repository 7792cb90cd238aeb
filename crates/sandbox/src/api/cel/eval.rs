//! From the tree of an expression to its value.

use std::sync::Arc;

use super::functions;
use super::parse::{Expr, Macro, Node, Operator};
use super::value::Val;

/// Why there is no value.
pub(super) type Error = String;
pub(super) type Outcome<'a> = Result<Val<'a>, Error>;

/// What names mean, and how much may still be done.
pub(super) struct Scope<'a, 'b> {
    pub variables: Vec<(&'b str, Val<'a>)>,
    /// Steps that are left.
    pub budget: &'b mut u64,
}

/// How a budget that has run out is told.
pub(super) const EXHAUSTED: &str = "operation cancelled: actual cost limit exceeded";

impl<'a, 'b> Scope<'a, 'b> {
    /// Pays for work of so many steps.
    pub(super) fn pay(&mut self, steps: usize) -> Result<(), Error> {
        match self.budget.checked_sub(steps as u64) {
            Some(rest) => {
                *self.budget = rest;
                Ok(())
            }
            None => {
                *self.budget = 0;
                Err(EXHAUSTED.to_owned())
            }
        }
    }

    pub(super) fn value(&mut self, expr: &'b Expr) -> Outcome<'a> {
        self.pay(1)?;
        match &expr.node {
            Node::Null => Ok(Val::Null),
            Node::Bool(flag) => Ok(Val::Bool(*flag)),
            Node::Int(number) => Ok(Val::Int(*number)),
            Node::Uint(number) => Ok(Val::Uint(*number)),
            Node::Double(number) => Ok(Val::Double(*number)),
            Node::Text(text) => Ok(Val::text(text)),
            Node::Bytes(bytes) => Ok(Val::Bytes(Arc::from(&bytes[..]))),
            Node::Ident(name) => self.named(name),
            Node::Select(of, name, optional) => self.select(of, name, *optional),
            Node::Has(of, name) => match self.value(of)? {
                Val::Optional(inner) => Ok(Val::Bool(inner.is_some_and(|inner| inner.field(name).is_some()))),
                value @ (Val::Object(..) | Val::Map(_)) => Ok(Val::Bool(value.field(name).is_some())),
                other => Err(format!("no such overload: has({})", other.kind())),
            },
            Node::Index(of, index, optional) => self.index(of, index, *optional),
            Node::Call(of, name, arguments) => functions::call(self, of.as_deref(), name, arguments),
            Node::Not(of) => match self.value(of)? {
                Val::Bool(flag) => Ok(Val::Bool(!flag)),
                other => Err(format!("no such overload: !{}", other.kind())),
            },
            Node::Negated(of) => match self.value(of)? {
                Val::Int(number) => number.checked_neg().map(Val::Int).ok_or_else(|| "integer overflow".to_owned()),
                Val::Double(number) => Ok(Val::Double(-number)),
                Val::Duration(time) => Ok(Val::Duration(-time)),
                other => Err(format!("no such overload: -{}", other.kind())),
            },
            Node::Binary(operator, left, right) => self.binary(*operator, left, right),
            Node::Conditional(condition, then, otherwise) => match self.value(condition)? {
                Val::Bool(true) => self.value(then),
                Val::Bool(false) => self.value(otherwise),
                other => Err(format!("no such overload: {} ? _ : _", other.kind())),
            },
            Node::List(items) => {
                let items = items.iter().map(|item| self.value(item)).collect::<Result<_, _>>()?;
                Ok(Val::List(Arc::new(items)))
            }
            Node::Map(entries) => {
                let entry = |(key, value): &'b (Expr, Expr)| Ok((self.value(key)?, self.value(value)?));
                let entries = entries.iter().map(entry).collect::<Result<_, Error>>()?;
                Ok(Val::Map(Arc::new(entries)))
            }
            Node::Each(form, of, variables, bodies) => self.each(*form, of, variables, bodies),
            Node::OptMap(wrap, of, name, body) => match self.value(of)? {
                Val::Optional(None) => Ok(Val::Optional(None)),
                Val::Optional(Some(inner)) => {
                    let value = self.with(vec![(name, (*inner).clone())], body)?;
                    Ok(if *wrap { Val::Optional(Some(Arc::new(value))) } else { value })
                }
                other => Err(format!("no such overload: {}.optMap", other.kind())),
            },
        }
    }

    fn named(&self, name: &str) -> Outcome<'a> {
        let kinds = ["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"];
        if let Some((_, value)) = self.variables.iter().rev().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        let kind = kinds.into_iter().find(|kind| *kind == name);
        kind.map(Val::Kind).ok_or_else(|| format!("undeclared reference to '{name}'"))
    }

    fn with(&mut self, names: Vec<(&'b str, Val<'a>)>, body: &'b Expr) -> Outcome<'a> {
        let depth = self.variables.len();
        self.variables.extend(names);
        let value = self.value(body);
        self.variables.truncate(depth);
        value
    }

    fn select(&mut self, of: &'b Expr, name: &str, optional: bool) -> Outcome<'a> {
        let wrapped = |found: Option<Val<'a>>| Val::Optional(found.map(Arc::new));
        match self.value(of)? {
            Val::Optional(inner) => Ok(wrapped(inner.and_then(|inner| inner.field(name)))),
            value if optional => Ok(wrapped(value.field(name))),
            value @ (Val::Object(..) | Val::Map(_)) => value.field(name).ok_or_else(|| format!("no such key: {name}")),
            other => Err(format!("no such overload: {}.{name}", other.kind())),
        }
    }

    fn index(&mut self, of: &'b Expr, index: &'b Expr, optional: bool) -> Outcome<'a> {
        let (mut of, index) = (self.value(of)?, self.value(index)?);
        let mut optional = optional;
        if let Val::Optional(inner) = of {
            let Some(inner) = inner else { return Ok(Val::Optional(None)) };
            (of, optional) = ((*inner).clone(), true);
        }
        let found = match (of.items(), &index) {
            (Some(items), Val::Int(_) | Val::Uint(_)) => {
                self.pay(items.len() / 16)?;
                let place = match index {
                    Val::Int(number) => usize::try_from(number).ok(),
                    Val::Uint(number) => usize::try_from(number).ok(),
                    _ => None,
                };
                place.and_then(|place| items.into_iter().nth(place)).ok_or_else(|| match index {
                    Val::Int(number) => format!("index out of bounds: {number}"),
                    _ => "index out of bounds".to_owned(),
                })
            }
            (None, _) if of.entries().is_some() => of.under(&index).ok_or_else(|| match &index {
                Val::Text(key) => format!("no such key: {key}"),
                other => format!("no such key: {}", functions::shown(other)),
            }),
            _ => return Err(format!("no such overload: {}[{}]", of.kind(), index.kind())),
        };
        if optional { Ok(Val::Optional(found.ok().map(Arc::new))) } else { found }
    }

    fn binary(&mut self, operator: Operator, left: &'b Expr, right: &'b Expr) -> Outcome<'a> {
        if matches!(operator, Operator::And | Operator::Or) {
            return self.junction(operator == Operator::Or, left, right);
        }
        let (left, right) = (self.value(left)?, self.value(right)?);
        match operator {
            Operator::Equal | Operator::NotEqual => {
                self.pay(size(&left).min(size(&right)))?;
                Ok(Val::Bool(left.same(&right) == (operator == Operator::Equal)))
            }
            Operator::In => {
                self.pay(size(&right))?;
                if let Some(items) = right.items() {
                    return Ok(Val::Bool(items.iter().any(|item| item.same(&left))));
                }
                match right.entries() {
                    Some(entries) => Ok(Val::Bool(entries.iter().any(|(key, _)| key.same(&left)))),
                    None => Err(format!("no such overload: {} in {}", left.kind(), right.kind())),
                }
            }
            Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
                let unlike = || format!("no such overload: {} {} {}", left.kind(), operator.symbol(), right.kind());
                let order = left.order(&right).ok_or_else(unlike)?;
                Ok(Val::Bool(match operator {
                    Operator::Less => order.is_lt(),
                    Operator::LessOrEqual => order.is_le(),
                    Operator::Greater => order.is_gt(),
                    _ => order.is_ge(),
                }))
            }
            _ => {
                self.pay((size(&left) + size(&right)) / 8)?;
                functions::arithmetic(operator, &left, &right)
            }
        }
    }

    /// `||` and `&&`: what one side says for sure counts, whatever the other does.
    fn junction(&mut self, sure: bool, left: &'b Expr, right: &'b Expr) -> Outcome<'a> {
        let mut failed = None;
        for side in [left, right] {
            match self.value(side) {
                Ok(Val::Bool(flag)) if flag == sure => return Ok(Val::Bool(sure)),
                Ok(Val::Bool(_)) => {}
                Ok(other) => failed = failed.or_else(|| Some(format!("no such overload: {}", other.kind()))),
                Err(error) if error == EXHAUSTED => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Val::Bool(!sure)), Err)
    }

    fn each(&mut self, form: Macro, of: &'b Expr, variables: &'b [String], bodies: &'b [Expr]) -> Outcome<'a> {
        let of = self.value(of)?;
        let rounds: Vec<Vec<Val<'a>>> = match (of.items(), variables.len()) {
            (Some(items), 1) => items.into_iter().map(|item| vec![item]).collect(),
            (Some(items), _) => {
                items.into_iter().enumerate().map(|(place, item)| vec![Val::Int(place as i64), item]).collect()
            }
            (None, count) => {
                let entries = of.entries().ok_or_else(|| format!("no such overload: {}", of.kind()))?;
                entries.into_iter().map(|(key, value)| if count == 1 { vec![key] } else { vec![key, value] }).collect()
            }
        };
        let mut made = Vec::new();
        let (mut matched, mut failed) = (0, None);
        for values in rounds {
            let item = values[0].clone();
            let names = || variables.iter().map(String::as_str).zip(values.iter().cloned()).collect();
            let last = &bodies[bodies.len() - 1];
            if form == Macro::Map {
                let [condition, _] = bodies else {
                    made.push(self.with(names(), last)?);
                    continue;
                };
                if flag(self.with(names(), condition)?)? {
                    made.push(self.with(names(), last)?);
                }
                continue;
            }
            match (form, self.with(names(), last).and_then(flag)) {
                (Macro::All, Ok(false)) => return Ok(Val::Bool(false)),
                (Macro::Exists, Ok(true)) => return Ok(Val::Bool(true)),
                (Macro::Filter, Ok(true)) => made.push(item),
                (_, Ok(true)) => matched += 1,
                (_, Ok(false)) => {}
                // Another item may decide.
                (Macro::All | Macro::Exists, Err(error)) if error != EXHAUSTED => failed = failed.or(Some(error)),
                (_, Err(error)) => return Err(error),
            }
        }
        match (form, failed) {
            (Macro::Map | Macro::Filter, _) => Ok(Val::List(Arc::new(made))),
            (_, Some(error)) => Err(error),
            (Macro::All, None) => Ok(Val::Bool(true)),
            (Macro::Exists, None) => Ok(Val::Bool(false)),
            (Macro::ExistsOne, None) => Ok(Val::Bool(matched == 1)),
        }
    }
}

fn flag(value: Val<'_>) -> Result<bool, Error> {
    match value {
        Val::Bool(flag) => Ok(flag),
        other => Err(format!("no such overload: {}", other.kind())),
    }
}

/// About the work of looking at all of a value.
pub(super) fn size(value: &Val<'_>) -> usize {
    match value {
        Val::Text(text) => text.len() / 16,
        Val::Bytes(bytes) => bytes.len() / 16,
        Val::Array(items, _) => items.len(),
        Val::Object(fields, _) => fields.len(),
        Val::List(items) => items.len(),
        Val::Map(entries) => entries.len(),
        _ => 0,
    }
}
