//! `x-kubernetes-validations`: rules in the Common Expression Language.
//!
//! The language whole, with Kubernetes' additions for text, lists, sets and optional values. A rule that uses anything
//! else is refused with its definition: a rule that stands there is evaluated.

mod eval;
mod functions;
mod lex;
mod parse;
mod quantities;
mod types;
mod value;

use serde_json::{Value, json};

use super::failure::Cause;
use super::schema::{Schema, Type};
use eval::{EXHAUSTED, Scope};
use parse::{Expr, Mistake, parse};
use types::{Checker, Kind};
use value::Val;

/// Steps that all rules of an object may take together.
const BUDGET: u64 = 2_000_000;
/// Bytes of a message that a rule makes.
const LONGEST_MESSAGE: usize = 5 * 1024;

/// A rule of a schema level.
#[derive(Debug)]
pub(crate) struct Rule {
    text: String,
    expr: Expr,
    message: Option<String>,
    message_expr: Option<Expr>,
    reason: Option<String>,
    /// Where below the level the message belongs.
    field_path: String,
    /// Compares with the state before.
    transition: bool,
    /// Is evaluated without a state before, too.
    optional_old: bool,
}

impl Rule {
    /// The rules of a schema level, which has been read but for them.
    pub(super) fn read_all(
        value: &Value,
        schema: &Schema,
        place: &str,
        causes: &mut Vec<Cause>,
    ) -> Vec<std::sync::Arc<Self>> {
        let mut rules = Vec::new();
        for (index, rule) in value.as_array().into_iter().flatten().enumerate() {
            let place = format!("{place}.x-kubernetes-validations[{index}]");
            rules.extend(Self::read(rule, schema, &place, causes).map(std::sync::Arc::new));
        }
        rules
    }

    fn read(value: &Value, schema: &Schema, place: &str, causes: &mut Vec<Cause>) -> Option<Self> {
        let text = |field: &str| value[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let Some(rule) = text("rule") else {
            causes.push(Cause::required(format!("{place}.rule"), "rule is not specified"));
            return None;
        };
        let optional_old = value["optionalOldSelf"] == true;
        let expr = compiled(&rule, schema, optional_old, |kind| kind.may_be_bool());
        let expr = match expr {
            Ok(expr) => expr,
            Err(Refusal::Unknown(function)) => {
                let what = format!("the function {function} of the Common Expression Language");
                causes.push(Cause::not_implemented(format!("{place}.rule"), &what));
                return None;
            }
            Err(Refusal::Mistakes(lines)) => {
                let detail = format!("compilation failed: {lines}");
                causes.push(Cause::invalid_text(format!("{place}.rule"), &whole(value), &detail));
                return None;
            }
            Err(Refusal::Result) => {
                let detail = "cel expression must evaluate to a bool";
                causes.push(Cause::invalid_text(format!("{place}.rule"), &whole(value), detail));
                return None;
            }
        };
        let mut message_expr = None;
        if let Some(text) = text("messageExpression") {
            match compiled(&text, schema, optional_old, |kind| kind.may_be_text()) {
                Ok(expr) => message_expr = Some(expr),
                Err(Refusal::Unknown(function)) => {
                    let what = format!("the function {function} of the Common Expression Language");
                    causes.push(Cause::not_implemented(format!("{place}.messageExpression"), &what));
                }
                Err(Refusal::Mistakes(lines)) => {
                    let detail = format!("messageExpression compilation failed: {lines}");
                    causes.push(Cause::invalid_text(format!("{place}.messageExpression"), &whole(value), &detail));
                }
                Err(Refusal::Result) => {
                    let detail = "messageExpression must evaluate to a string";
                    causes.push(Cause::invalid_text(format!("{place}.messageExpression"), &whole(value), detail));
                }
            }
        }
        Some(Self {
            transition: mentions_old(&rule),
            text: rule,
            expr,
            message: text("message"),
            message_expr,
            reason: text("reason"),
            field_path: text("fieldPath").unwrap_or_default(),
            optional_old,
        })
    }

    /// What the rule's own text or message says of it.
    fn name(&self) -> &str {
        self.message.as_deref().unwrap_or(&self.text).trim()
    }
}

/// A rule as the message of a refused definition shows it.
fn whole(rule: &Value) -> String {
    let text = |field: &str| json!(rule[field].as_str().unwrap_or_default()).to_string();
    let shown = format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        text("rule"),
        text("message"),
        text("messageExpression"),
        rule["reason"],
        text("fieldPath"),
        rule["optionalOldSelf"]
    );
    // As Go writes JSON.
    shown.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn mentions_old(rule: &str) -> bool {
    let is_old = |token: &lex::Token| token.kind == lex::TokenKind::Ident("oldSelf".to_owned());
    lex::tokens(rule).is_ok_and(|tokens| tokens.iter().any(is_old))
}

enum Refusal {
    Unknown(String),
    Mistakes(String),
    Result,
}

fn compiled(text: &str, schema: &Schema, optional_old: bool, fits: fn(Kind<'_>) -> bool) -> Result<Expr, Refusal> {
    let told = |mistakes: &[Mistake]| {
        let line = |mistake: &Mistake| {
            let dots = ".".repeat(mistake.at);
            format!("ERROR: <input>:1:{}: {}\n | {text}\n | {dots}^", mistake.at + 1, mistake.message)
        };
        mistakes.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    let expr = parse(text).map_err(|mistake| Refusal::Mistakes(told(&[mistake])))?;
    let own = Kind::of(schema);
    let old = if optional_old { Kind::Any } else { own };
    let mut checker =
        Checker { names: vec![("self", own), ("oldSelf", old)], mistakes: Vec::new(), missing: Vec::new() };
    let kind = checker.kind(&expr);
    if !checker.mistakes.is_empty() {
        return Err(Refusal::Mistakes(told(&checker.mistakes)));
    }
    if let Some(function) = checker.missing.pop() {
        return Err(Refusal::Unknown(function));
    }
    if fits(kind) { Ok(expr) } else { Err(Refusal::Result) }
}

/// Evaluates the rules of a schema and of all that is below it. `old` is the state before, where there is one. What the
/// unchanged breaks goes to the warnings.
pub(super) fn check(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    causes: &mut Vec<Cause>,
    warnings: &mut Vec<String>,
) {
    let mut check = Check { budget: BUDGET, causes, warnings };
    check.level(schema, value, old, "");
}

/// Whether a schema or one below it has rules.
pub(super) fn has_rules(schema: &Schema) -> bool {
    let below = schema.properties.values().chain(&schema.additional).chain(&schema.items);
    !schema.rules.is_empty() || below.into_iter().any(|schema| has_rules(schema))
}

struct Check<'c> {
    budget: u64,
    causes: &'c mut Vec<Cause>,
    warnings: &'c mut Vec<String>,
}

impl Check<'_> {
    fn level(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, place: &str) {
        if value.is_null() {
            return;
        }
        for rule in &schema.rules {
            if self.budget == 0 {
                return;
            }
            self.rule(rule, schema, value, old.filter(|old| !old.is_null()), place);
        }
        match value {
            Value::Object(fields) => {
                for (name, part) in fields {
                    let Some(inner) = schema.of(name) else { continue };
                    let at = if schema.properties.contains_key(name) {
                        if place.is_empty() { name.clone() } else { format!("{place}.{name}") }
                    } else {
                        format!("{place}[{name}]")
                    };
                    self.level(inner, part, old.and_then(|old| old.get(name)), &at);
                }
            }
            Value::Array(items) => {
                let Some(inner) = &schema.items else { return };
                for (index, item) in items.iter().enumerate() {
                    // Only items that are known by their keys are the same before and after.
                    let before = schema.before(item, old);
                    self.level(inner, item, before, &format!("{place}[{index}]"));
                }
            }
            _ => {}
        }
    }

    fn rule(&mut self, rule: &Rule, schema: &Schema, value: &Value, old: Option<&Value>, place: &str) {
        if rule.transition && old.is_none() && !rule.optional_old {
            return;
        }
        let own = Val::of(value, Some(schema));
        let before = old.map(|old| Val::of(old, Some(schema)));
        let before = match rule.optional_old {
            true => Some(Val::Optional(before.map(std::sync::Arc::new))),
            false => before,
        };
        let variables: Vec<_> = [("self", Some(own)), ("oldSelf", before)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        let outcome = Scope { variables: variables.clone(), budget: &mut self.budget }.value(&rule.expr);
        let kind = schema.kind.map_or("object", Type::name);
        let detail = match outcome {
            Ok(Val::Bool(true)) => return,
            Ok(_) => self.message(rule, variables),
            Err(error) => {
                let detail = if error.starts_with("no such overload") {
                    format!(
                        "'{error}': call arguments did not match a supported operator, function or macro signature for \
                         rule: {}",
                        rule.name()
                    )
                } else if error == EXHAUSTED {
                    format!(
                        "'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                        rule.name()
                    )
                } else {
                    format!("{error} evaluating rule: {}", rule.name())
                };
                self.causes.push(Cause::invalid(place, &kind.into(), &detail));
                return;
            }
        };
        let place = match rule.field_path.strip_prefix('.') {
            Some(path) if place.is_empty() => path.to_owned(),
            None if place.is_empty() => "<nil>".to_owned(),
            _ => format!("{place}{}", rule.field_path),
        };
        let cause = match rule.reason.as_deref() {
            Some("FieldValueForbidden") => Cause::forbidden(place, &detail),
            Some("FieldValueRequired") => Cause::required(place, &detail),
            Some("FieldValueDuplicate") => Cause::duplicate(place, value),
            _ if value.is_object() || value.is_array() => Cause::ruled(place, &detail),
            _ => Cause::invalid(place, value, &detail),
        };
        if !rule.transition && old == Some(value) {
            self.warnings.push(cause.text());
        } else {
            self.causes.push(cause);
        }
    }

    fn message<'a>(&mut self, rule: &'a Rule, variables: Vec<(&'a str, Val<'a>)>) -> String {
        if let Some(expr) = &rule.message_expr {
            let outcome = Scope { variables, budget: &mut self.budget }.value(expr);
            if let Ok(Val::Text(text)) = outcome
                && !text.trim().is_empty()
                && text.len() <= LONGEST_MESSAGE
                && !text.contains('\n')
            {
                return text.to_string();
            }
        }
        rule.message
            .as_ref()
            .map_or_else(|| format!("failed rule: {}", rule.name()), |message| message.trim().to_owned())
    }
}

#[cfg(test)]
mod tests;
