//! Types: all branches of a tree are checked, whether they will run or not.
//!
//! A part may be of several kinds (the branches of a condition) or of any (a member of a map). An operator is refused
//! when *no* combination of kinds fits it; where only some do, the evaluation decides, and the formula counts as
//! dynamic. Nil is left to the evaluation everywhere: any trigger may have no value.

use super::builtins::{Builtin, Iteration};
use super::error::{CompileError, CompileProblem};
use super::tree::{Block, Conditional, Expression, Head, Operator, Step, StepKind};
use super::types::{Kinds, Type};

type Checked = Result<Type, CompileError>;

/// The type of a formula, and whether the types of all its operands are known to fit.
pub(super) fn check(tree: &Expression, locals: usize) -> Result<(Type, bool), CompileError> {
    let mut checker = Checker { locals: vec![Type::any(); locals], items: Vec::new(), certain: true };
    let result = checker.expression(tree)?;
    Ok((result, checker.certain))
}

struct Checker {
    /// The types of the `let`s seen so far.
    locals: Vec<Type>,
    /// What `#` is, innermost last.
    items: Vec<Type>,
    certain: bool,
}

fn refused<T>(offset: usize, message: String) -> Result<T, CompileError> {
    Err(CompileError { offset, problem: CompileProblem::Type(message) })
}

/// The kinds to reckon with: nil is left to the evaluation, and what never exists fits everywhere.
fn operand(kinds: Kinds) -> Kinds {
    if kinds.is_none() { Kinds::ANY.without(Kinds::NIL) } else { kinds.without(Kinds::NIL) }
}

impl Checker {
    /// Checks that a part can be one of these kinds.
    fn require(&mut self, found: &Type, wanted: Kinds, offset: usize, place: &str) -> Result<(), CompileError> {
        if wanted == Kinds::ANY || found.kinds.is_none() {
            return Ok(());
        }
        if !found.kinds.meets(wanted) {
            let hint = if wanted == Kinds::INT && found.kinds == Kinds::FLOAT { "; use int(...)" } else { "" };
            return refused(offset, format!("{place} takes {wanted}, not {found}{hint}"));
        }
        self.certain &= found.kinds.without(Kinds::NIL).within(wanted);
        Ok(())
    }

    fn expression(&mut self, expression: &Expression) -> Checked {
        let mut found = self.head(expression)?;
        for step in &expression.steps {
            found = self.step(found, step)?;
        }
        Ok(found)
    }

    fn head(&mut self, expression: &Expression) -> Checked {
        Ok(match &expression.head {
            Head::Literal(value) => Kinds::of(value).into(),
            Head::Variable(_) => Kinds::FLOAT.into(),
            Head::Local(number) => self.locals[*number].clone(),
            Head::Item => self.items.last().cloned().unwrap_or_else(Type::any),
            Head::Index => Kinds::INT.into(),
            Head::Accumulator => Type::any(),
            Head::Environment => Kinds::MAP.into(),
            Head::Array(items) => {
                let mut element = Type::from(Kinds::NONE);
                for item in items {
                    element = element.union(&self.expression(item)?);
                }
                Type::array(element)
            }
            Head::Map(pairs) => {
                for (key, value) in pairs {
                    let found = self.expression(key)?;
                    self.require(&found, Kinds::STRING, key.offset, "the key of a map")?;
                    self.expression(value)?;
                }
                Kinds::MAP.into()
            }
            Head::Conditional(conditional) => self.conditional(conditional)?,
            Head::Block(block) => self.block(block)?,
        })
    }

    fn conditional(&mut self, conditional: &Conditional) -> Checked {
        let condition = self.expression(&conditional.condition)?;
        self.require(&condition, Kinds::BOOL, conditional.condition.offset, "a condition")?;
        let then = match &conditional.then {
            Some(then) => self.expression(then)?,
            None => condition.only(Kinds::BOOL),
        };
        Ok(then.union(&self.expression(&conditional.otherwise)?))
    }

    fn block(&mut self, block: &Block) -> Checked {
        for (number, value) in &block.before {
            let found = self.expression(value)?;
            if let Some(number) = number {
                self.locals[*number] = found;
            }
        }
        self.expression(&block.result)
    }

    fn step(&mut self, left: Type, step: &Step) -> Checked {
        let offset = step.offset;
        match &step.kind {
            StepKind::Not => {
                self.require(&left, Kinds::BOOL, offset, "`not`")?;
                Ok(Kinds::BOOL.into())
            }
            StepKind::Minus | StepKind::Plus => {
                self.require(&left, Kinds::NUMBER, offset, "a sign")?;
                Ok(left.only(Kinds::NUMBER))
            }
            StepKind::Binary(operator, right) => {
                let right = self.expression(right)?;
                self.binary(*operator, &left, &right, offset)
            }
            StepKind::Ordered(pairs) => {
                let mut left = left;
                for (operator, offset, right) in pairs {
                    let right = self.expression(right)?;
                    self.binary(*operator, &left, &right, *offset)?;
                    left = right;
                }
                Ok(Kinds::BOOL.into())
            }
            StepKind::Matches(pattern, _) => {
                let right = self.expression(pattern)?;
                self.binary(Operator::Matches, &left, &right, offset)
            }
            StepKind::Member { key, optional } => self.member(&left, key, optional.is_some(), offset),
            StepKind::Slice { from, to } => {
                self.require(&left, Kinds::ARRAY.or(Kinds::STRING), offset, "a slice")?;
                for bound in [from, to].into_iter().flatten() {
                    let found = self.expression(bound)?;
                    self.require(&found, Kinds::INT, bound.offset, "the bound of a slice")?;
                }
                Ok(left.only(Kinds::ARRAY.or(Kinds::STRING)))
            }
            StepKind::Call(builtin, rest) => self.call(builtin, left, rest, offset),
            StepKind::Iterate(iteration, rest) => self.iterate(*iteration, &left, rest, offset),
        }
    }

    fn member(&mut self, object: &Type, key: &Expression, optional: bool, offset: usize) -> Checked {
        let index = self.expression(key)?;
        if optional && object.kinds == Kinds::NIL {
            return Ok(Kinds::NIL.into());
        }
        self.require(object, Kinds::ARRAY.or(Kinds::MAP), offset, "taking a member")?;
        let kinds = operand(object.kinds);
        if kinds.within(Kinds::ARRAY) {
            self.require(&index, Kinds::INT, key.offset, "the index of an array")?;
            return Ok(object.element());
        }
        if kinds.within(Kinds::MAP) {
            self.require(&index, Kinds::KEY, key.offset, "a map as key")?;
        } else {
            self.certain = false;
        }
        Ok(Type::any())
    }

    fn call(&mut self, builtin: &Builtin, first: Type, rest: &[Expression], offset: usize) -> Checked {
        let mut arguments = vec![first];
        for argument in rest {
            arguments.push(self.expression(argument)?);
        }
        for (place, argument) in arguments.iter().enumerate() {
            let parameter = builtin.parameter(place);
            let offset = if place == 0 { offset } else { rest[place - 1].offset };
            let name = format!("`{}`", builtin.name);
            self.require(argument, parameter.kinds, offset, &name)?;
            if argument.kinds.meets(Kinds::ARRAY) {
                self.elements(argument, parameter.elements, offset, &name)?;
            }
        }
        Ok((builtin.result)(&arguments))
    }

    /// Checks what an array holds. That an array within arrays holds something suitable is left to the evaluation.
    fn elements(&mut self, array: &Type, wanted: Kinds, offset: usize, name: &str) -> Result<(), CompileError> {
        let element = array.element();
        self.require(&element, wanted, offset, &format!("an array for {name}"))?;
        if wanted != Kinds::ANY {
            self.certain &= sortable(&element) && !(wanted.meets(Kinds::ARRAY) && element.kinds.meets(Kinds::ARRAY));
        }
        Ok(())
    }

    fn iterate(&mut self, iteration: Iteration, list: &Type, rest: &[Expression], offset: usize) -> Checked {
        let name = format!("`{}`", iteration.name());
        self.require(list, Kinds::ARRAY, offset, &name)?;
        let element = list.element();
        let (body, body_offset) = match rest.first() {
            Some(body) => {
                self.items.push(element.clone());
                let found = self.expression(body)?;
                self.items.pop();
                (found, body.offset)
            }
            None => (element.clone(), offset),
        };
        let extra = rest.get(1).map(|extra| self.expression(extra).map(|found| (found, extra.offset))).transpose()?;
        use Iteration::*;
        match iteration {
            All | NoneOf | Any | One | Filter | Count | Find | FindIndex | FindLast | FindLastIndex => {
                self.require(&body, Kinds::BOOL, body_offset, &format!("the predicate of {name}"))?;
            }
            Sum => self.require(&body, Kinds::NUMBER, body_offset, &name)?,
            SortBy => self.require(&body, Kinds::NUMBER.or(Kinds::STRING), body_offset, &name)?,
            GroupBy => self.require(&body, Kinds::KEY, body_offset, &name)?,
            Map | Reduce => {}
        }
        self.certain &= iteration != SortBy || sortable(&body);
        if let (SortBy, Some((order, offset))) = (iteration, &extra) {
            self.require(order, Kinds::STRING, *offset, &format!("the order of {name}"))?;
        }
        Ok(match iteration {
            All | NoneOf | Any | One => Kinds::BOOL.into(),
            Count | FindIndex | FindLastIndex => Kinds::INT.into(),
            Filter | SortBy => list.only(Kinds::ARRAY),
            Map => Type::array(body),
            // Nothing at all sums to the integer zero.
            Sum => body.only(Kinds::NUMBER).union(&Kinds::INT.into()),
            Find | FindLast => element,
            GroupBy => Kinds::MAP.into(),
            Reduce => body.union(&extra.map_or(element, |(initial, _)| initial)),
        })
    }

    fn binary(&mut self, operator: Operator, left: &Type, right: &Type, offset: usize) -> Checked {
        use Operator::*;
        if operator == Coalesce {
            return Ok(if left.kinds == Kinds::NIL { right.clone() } else { left.without(Kinds::NIL).union(right) });
        }
        let pure_nil = left.kinds == Kinds::NIL || right.kinds == Kinds::NIL;
        let (l, r) = (operand(left.kinds), operand(right.kinds));
        let pairs: &[(Kinds, Kinds)] = match operator {
            Equal | NotEqual if pure_nil || comparable(l, r) => return Ok(Kinds::BOOL.into()),
            Equal | NotEqual => &[],
            Or | And => &[(Kinds::BOOL, Kinds::BOOL)],
            Add | Less | LessOrEqual | Greater | GreaterOrEqual => {
                &[(Kinds::NUMBER, Kinds::NUMBER), (Kinds::STRING, Kinds::STRING)]
            }
            Subtract | Multiply | Divide | Power => &[(Kinds::NUMBER, Kinds::NUMBER)],
            Remainder | Range => &[(Kinds::INT, Kinds::INT)],
            Matches | Contains | StartsWith | EndsWith => &[(Kinds::STRING, Kinds::STRING)],
            In => return self.membership(left, right, offset),
            Coalesce => &[(Kinds::ANY, Kinds::ANY)],
        };
        let fits = !pure_nil && pairs.iter().any(|(wanted, other)| l.meets(*wanted) && r.meets(*other));
        if !fits {
            let whole = matches!(operator, Remainder | Range) && !l.or(r).meets(Kinds::STRING.or(Kinds::BOOL));
            let hint = if whole { ": it takes integers; use int(...)" } else { "" };
            return refused(offset, format!("`{}` cannot join {left} and {right}{hint}", operator.symbol()));
        }
        let (sure_l, sure_r) = (left.kinds.without(Kinds::NIL), right.kinds.without(Kinds::NIL));
        self.certain &= pairs.iter().any(|(wanted, other)| sure_l.within(*wanted) && sure_r.within(*other));
        Ok(match operator {
            Add | Subtract | Multiply => {
                let mut kinds = Kinds::NONE;
                if l.meets(Kinds::INT) && r.meets(Kinds::INT) {
                    kinds = kinds.or(Kinds::INT);
                }
                if (l.meets(Kinds::FLOAT) && r.meets(Kinds::NUMBER))
                    || (l.meets(Kinds::NUMBER) && r.meets(Kinds::FLOAT))
                {
                    kinds = kinds.or(Kinds::FLOAT);
                }
                if operator == Add && l.meets(Kinds::STRING) && r.meets(Kinds::STRING) {
                    kinds = kinds.or(Kinds::STRING);
                }
                kinds.into()
            }
            Divide | Power => Kinds::FLOAT.into(),
            Remainder => Kinds::INT.into(),
            Range => Type::array(Kinds::INT.into()),
            _ => Kinds::BOOL.into(),
        })
    }

    fn membership(&mut self, left: &Type, right: &Type, offset: usize) -> Checked {
        let (l, r) = (operand(left.kinds), operand(right.kinds));
        self.require(right, Kinds::ARRAY.or(Kinds::MAP), offset, "the right side of `in`")?;
        if r.within(Kinds::ARRAY) && left.kinds != Kinds::NIL {
            let element = right.element();
            if !element.kinds.meets(Kinds::NIL) && !comparable(l, operand(element.kinds)) {
                return refused(offset, format!("{left} is never in {right}"));
            }
        } else if r.meets(Kinds::MAP) {
            self.certain &= left.kinds.within(Kinds::KEY);
        }
        Ok(Kinds::BOOL.into())
    }
}

/// Whether such values can be put in an order: numbers and strings cannot.
fn sortable(element: &Type) -> bool {
    !(element.kinds.meets(Kinds::STRING) && element.kinds.meets(Kinds::NUMBER))
}

/// Whether values of these kinds can be equal.
fn comparable(left: Kinds, right: Kinds) -> bool {
    left.meets(right) || (left.meets(Kinds::NUMBER) && right.meets(Kinds::NUMBER))
}
