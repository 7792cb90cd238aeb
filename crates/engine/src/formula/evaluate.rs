//! The evaluation of a checked tree. Recursion follows the tree's nesting, which the parser limits.

use std::collections::BTreeMap;

use super::builtins::{arrays, insert};
use super::error::{EvalError, EvalProblem};
use super::limits::{STEPS_PER_MATCHED_BYTE, STEPS_PER_REGEX};
use super::meter::{Meter, Outcome};
use super::operators::{binary, boolean, integer, negate, number, unsuitable};
use super::pattern;
use super::tree::{Block, Conditional, Expression, Head, Operator, Step, StepKind};
use super::types::Kinds;
use super::value::Value;

pub(super) type Evaluated<T = Value> = Result<T, EvalError>;

/// One evaluation.
pub(super) struct Evaluation<'a> {
    names: &'a [String],
    /// The triggers' values, in the order of their names.
    variables: Vec<Option<f64>>,
    locals: Vec<Value>,
    /// The elements that predicates look at, innermost last.
    pub(super) items: Vec<Item>,
    pub(super) meter: Meter,
}

/// An element that a predicate looks at.
pub(super) struct Item {
    pub(super) value: Value,
    pub(super) index: usize,
    pub(super) accumulator: Value,
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(names: &'a [String], variables: Vec<Option<f64>>, locals: usize) -> Evaluation<'a> {
        Evaluation { names, variables, locals: vec![Value::Nil; locals], items: Vec::new(), meter: Meter::default() }
    }

    pub(super) fn expression(&mut self, expression: &Expression) -> Evaluated {
        self.meter.spend(1).map_err(at(expression.offset))?;
        let mut value = self.head(expression)?;
        let mut next = 0;
        while let Some(step) = expression.steps.get(next) {
            next += 1;
            match &step.kind {
                StepKind::Member { optional: Some(skipped), .. } if value.is_nil() => next += skipped,
                _ => {
                    // Only the first step sees the head itself.
                    let variable = if next == 1 { self.variable(expression) } else { None };
                    value = self.step(value, step).map_err(|error| named(error, step.offset, variable))?;
                }
            }
        }
        Ok(value)
    }

    /// The name of the trigger whose missing value an expression's head is.
    fn variable(&self, expression: &Expression) -> Option<&'a str> {
        match expression.head {
            Head::Variable(place) if self.variables[place].is_none() => Some(&self.names[place]),
            _ => None,
        }
    }

    /// The value of an operand, and its trigger's name if it is one without a value.
    fn operand(&mut self, expression: &Expression) -> Evaluated<(Value, Option<&'a str>)> {
        let value = self.expression(expression)?;
        let variable = if expression.steps.is_empty() { self.variable(expression) } else { None };
        Ok((value, variable))
    }

    fn head(&mut self, expression: &Expression) -> Evaluated {
        let offset = expression.offset;
        Ok(match &expression.head {
            Head::Literal(value) => value.clone(),
            Head::Variable(place) => self.variables[*place].map_or(Value::Nil, Value::Float),
            Head::Local(number) => self.locals[*number].clone(),
            Head::Item => self.items.last().map_or(Value::Nil, |item| item.value.clone()),
            Head::Index => self.items.last().map_or(Value::Nil, |item| Value::Int(item.index as i64)),
            Head::Accumulator => self.items.last().map_or(Value::Nil, |item| item.accumulator.clone()),
            Head::Environment => self.environment().map_err(at(offset))?,
            Head::Array(parts) => {
                self.meter.allocate_values(parts.len()).map_err(at(offset))?;
                let values = parts.iter().map(|part| self.expression(part)).collect::<Evaluated<Vec<_>>>()?;
                self.meter.array(values).map_err(at(offset))?
            }
            Head::Map(pairs) => {
                let mut entries = BTreeMap::new();
                for (key, value) in pairs {
                    let (name, value) = (self.expression(key)?, self.expression(value)?);
                    if !matches!(name, Value::String(_)) {
                        return Err(at(key.offset)(unsuitable(&name, "{}", "strings as keys")));
                    }
                    insert(&mut self.meter, "{}", &mut entries, name, value).map_err(at(key.offset))?;
                }
                self.meter.map(entries).map_err(at(offset))?
            }
            Head::Conditional(conditional) => self.conditional(conditional)?,
            Head::Block(block) => self.block(block)?,
        })
    }

    fn environment(&mut self) -> Outcome {
        let mut entries = BTreeMap::new();
        for (name, value) in self.names.iter().zip(&self.variables) {
            let name = self.meter.text(name)?;
            insert(&mut self.meter, "$env", &mut entries, name, value.map_or(Value::Nil, Value::Float))?;
        }
        self.meter.map(entries)
    }

    fn conditional(&mut self, conditional: &Conditional) -> Evaluated {
        let (condition, variable) = self.operand(&conditional.condition)?;
        let offset = conditional.condition.offset;
        let holds = boolean(&condition, "?:").map_err(at(offset)).map_err(|error| named(error, offset, variable))?;
        match (holds, &conditional.then) {
            (true, Some(then)) => self.expression(then),
            (true, None) => Ok(condition),
            (false, _) => self.expression(&conditional.otherwise),
        }
    }

    fn block(&mut self, block: &Block) -> Evaluated {
        for (number, expression) in &block.before {
            let value = self.expression(expression)?;
            if let Some(number) = number {
                self.locals[*number] = value;
            }
        }
        self.expression(&block.result)
    }

    fn step(&mut self, left: Value, step: &Step) -> Evaluated {
        let offset = step.offset;
        self.meter.spend(1).map_err(at(offset))?;
        match &step.kind {
            StepKind::Not => boolean(&left, "not").map(|truth| Value::Bool(!truth)).map_err(at(offset)),
            StepKind::Minus => negate(&left).map_err(at(offset)),
            StepKind::Plus => number(&left, "+").map(|_| left).map_err(at(offset)),
            StepKind::Binary(operator, right) => self.binary(*operator, left, right, offset),
            StepKind::Ordered(pairs) => self.ordered(left, pairs),
            StepKind::Matches(right, compiled) => {
                let right = self.expression(right)?;
                matches(&mut self.meter, &left, &right, compiled.as_ref()).map_err(at(offset))
            }
            StepKind::Member { key, .. } => {
                let key = self.expression(key)?;
                member(&mut self.meter, &left, &key).map_err(at(offset))
            }
            StepKind::Slice { from, to } => {
                let mut bound = |bound: &Option<Expression>| match bound {
                    None => Ok(None),
                    Some(bound) => {
                        let value = self.expression(bound)?;
                        integer(&value, "[:]").map(Some).map_err(at(bound.offset))
                    }
                };
                let (from, to) = (bound(from)?, bound(to)?);
                slice(&mut self.meter, &left, from, to).map_err(at(offset))
            }
            StepKind::Call(builtin, rest) => {
                let mut arguments = vec![left];
                let mut variables = vec![None];
                for argument in rest {
                    let (value, variable) = self.operand(argument)?;
                    arguments.push(value);
                    variables.push(variable);
                }
                for (place, (argument, variable)) in arguments.iter().zip(variables).enumerate() {
                    let wanted = builtin.parameter(place).kinds;
                    if !Kinds::of(argument).within(wanted) {
                        let error = at(offset)(unsuitable(argument, builtin.name, &wanted.to_string()));
                        return Err(named(error, offset, variable));
                    }
                }
                (builtin.run)(&mut self.meter, &arguments).map_err(at(offset))
            }
            StepKind::Iterate(iteration, rest) => self.iterate(*iteration, left, rest, offset),
        }
    }

    fn binary(&mut self, operator: Operator, left: Value, right: &Expression, offset: usize) -> Evaluated {
        match operator {
            Operator::Coalesce if left.is_nil() => self.expression(right),
            Operator::Coalesce => Ok(left),
            Operator::Or | Operator::And => {
                let decided = operator == Operator::Or;
                if boolean(&left, operator.symbol()).map_err(at(offset))? == decided {
                    return Ok(left);
                }
                let right = self.expression(right)?;
                boolean(&right, operator.symbol()).map(|_| right).map_err(at(offset))
            }
            _ => {
                let left_is_nil = left.is_nil();
                let (right, variable) = self.operand(right)?;
                let variable = if left_is_nil { None } else { variable };
                binary(&mut self.meter, operator, &left, &right)
                    .map_err(at(offset))
                    .map_err(|error| named(error, offset, variable))
            }
        }
    }

    fn ordered(&mut self, mut left: Value, pairs: &[(Operator, usize, Expression)]) -> Evaluated {
        for (operator, offset, right) in pairs {
            let left_is_nil = left.is_nil();
            let (right, variable) = self.operand(right)?;
            let variable = if left_is_nil { None } else { variable };
            let holds = binary(&mut self.meter, *operator, &left, &right)
                .map_err(at(*offset))
                .map_err(|error| named(error, *offset, variable))?;
            if holds == Value::Bool(false) {
                return Ok(holds);
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }
}

/// Gives a problem its place.
pub(super) fn at(offset: usize) -> impl FnOnce(EvalProblem) -> EvalError {
    move |problem| EvalError { offset, problem }
}

/// Tells whose value is missing, if that is the problem and it arose here.
fn named(mut error: EvalError, offset: usize, trigger: Option<&str>) -> EvalError {
    if let EvalProblem::Nil { variable, .. } = &mut error.problem
        && error.offset == offset
        && variable.is_none()
    {
        *variable = trigger.map(str::to_owned);
    }
    error
}

fn matches(meter: &mut Meter, left: &Value, right: &Value, compiled: Option<&regex::Regex>) -> Outcome {
    let (Value::String(text), Value::String(expression)) = (left, right) else {
        let wrong = if matches!(left, Value::String(_)) { right } else { left };
        return Err(unsuitable(wrong, "matches", "two strings"));
    };
    meter.spend(text.len().saturating_mul(STEPS_PER_MATCHED_BYTE))?;
    if let Some(compiled) = compiled {
        return Ok(Value::Bool(compiled.is_match(text)));
    }
    meter.spend(STEPS_PER_REGEX)?;
    let compiled = pattern::compile(expression).map_err(EvalProblem::Argument)?;
    Ok(Value::Bool(compiled.is_match(text)))
}

fn member(meter: &mut Meter, object: &Value, key: &Value) -> Outcome {
    match (object, key) {
        (Value::Array(items), Value::Int(index)) => {
            arrays::at(items, *index).cloned().ok_or(EvalProblem::OutOfRange { index: *index, length: items.len() })
        }
        (Value::Array(_), other) => Err(unsuitable(other, "[]", "an integer as the index of an array")),
        (Value::Map(map), key) => {
            meter.scan(key.extent().bytes)?;
            Ok(map.get(key).cloned().unwrap_or(Value::Nil))
        }
        (other, _) => Err(unsuitable(other, "[]", "an array or a map")),
    }
}

/// Bounds count from the end when they are negative; what lies outside is cut off.
fn slice(meter: &mut Meter, value: &Value, from: Option<i64>, to: Option<i64>) -> Outcome {
    let bounds = |length: usize| {
        let signed = length as i64;
        let place = |bound: i64| if bound < 0 { signed.saturating_add(bound).max(0) } else { bound.min(signed) };
        let to = place(to.unwrap_or(signed));
        let from = place(from.unwrap_or(0)).min(to);
        // Both are between zero and the length.
        (from as usize, to as usize)
    };
    match value {
        Value::Array(items) => {
            let (from, to) = bounds(items.len());
            arrays::copied(meter, &items[from..to])
        }
        Value::String(text) => {
            meter.scan(text.len())?;
            let (from, to) = bounds(text.chars().count());
            meter.allocate(text.len())?;
            meter.text(text.chars().skip(from).take(to - from).collect::<String>())
        }
        other => Err(unsuitable(other, "[:]", "an array or a string")),
    }
}
