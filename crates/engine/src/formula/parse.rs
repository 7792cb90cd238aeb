//! Tokens to a tree: precedence climbing, with names resolved on the way. Recursion is counted, see [`MAX_DEPTH`].

use super::builtins::{self, Builtin, Iteration};
use super::error::{CompileError, CompileProblem};
use super::lexer::{self, Lexeme, Token, syntax};
use super::limits::{MAX_DEPTH, MAX_REGEXES};
use super::names::Names;
use super::pattern;
use super::tree::{Block, Conditional, Expression, Head, Operator, Step, StepKind};
use super::value::Value;
use crate::nearest::nearest;

type Parsed = Result<Expression, CompileError>;

/// How tightly `not` and the signs bind.
const NOT: u16 = 50;
const SIGN: u16 = 90;

/// A formula's tree, the triggers that it uses and how many `let`s it has. The caller bounds the length of the text.
pub(super) fn parse(text: &str, triggers: &[&str]) -> Result<(Expression, Vec<String>, usize), CompileError> {
    let tokens = lexer::tokens(text)?;
    if tokens.len() == 1 {
        return Err(CompileError { offset: 0, problem: CompileProblem::Empty });
    }
    let mut parser =
        Parser { tokens, at: 0, depth: 0, names: Names::new(triggers), iterations: Vec::new(), regexes: 0 };
    let tree = parser.sequence()?;
    if parser.here().token != Token::End {
        return Err(parser.unexpected("an operator or the end"));
    }
    let (used, declared) = parser.names.finish();
    Ok((tree, used, declared))
}

struct Parser<'a> {
    /// Ends with [`Token::End`], which is never passed.
    tokens: Vec<Lexeme<'a>>,
    at: usize,
    depth: usize,
    names: Names<'a>,
    /// The functions whose predicates surround this place.
    iterations: Vec<Iteration>,
    /// How many regular expressions were compiled.
    regexes: usize,
}

impl<'a> Parser<'a> {
    fn here(&self) -> &Lexeme<'a> {
        &self.tokens[self.at]
    }

    /// Whether this operator, bracket or word is next.
    fn is(&self, symbol: &str) -> bool {
        self.here().token == Token::Symbol && self.here().text == symbol
    }

    fn advance(&mut self) -> Lexeme<'a> {
        let passed = self.here().clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        passed
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = self.is(symbol);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), CompileError> {
        if self.take(symbol) { Ok(()) } else { Err(self.unexpected(&format!("`{symbol}`"))) }
    }

    fn unexpected(&self, wanted: &str) -> CompileError {
        let found = match self.here().token {
            Token::End => "the end of the formula".to_owned(),
            _ => format!("`{}`", self.here().text),
        };
        syntax(self.here().offset, format!("expected {wanted}, found {found}"))
    }

    /// Parses one level deeper.
    fn nested(&mut self, part: impl FnOnce(&mut Self) -> Parsed) -> Parsed {
        if self.depth == MAX_DEPTH {
            return Err(CompileError { offset: self.here().offset, problem: CompileProblem::TooDeep });
        }
        self.depth += 1;
        let parsed = part(self);
        self.depth -= 1;
        parsed
    }

    /// `let name = value; ...; result`
    fn sequence(&mut self) -> Parsed {
        let (offset, visible) = (self.here().offset, self.names.visible());
        let mut before = Vec::new();
        let result = loop {
            if self.take("let") {
                let name = self.name()?;
                self.expect("=")?;
                let value = self.expression()?;
                self.expect(";")?;
                before.push((Some(self.declare(&name)?), value));
                continue;
            }
            let expression = self.expression()?;
            if !self.take(";") || self.here().token == Token::End {
                break expression;
            }
            before.push((None, expression));
        };
        self.names.forget(visible);
        if before.is_empty() {
            return Ok(result);
        }
        Ok(expression(offset, Head::Block(Box::new(Block { before, result }))))
    }

    fn declare(&mut self, name: &Lexeme<'a>) -> Result<usize, CompileError> {
        let taken = self.names.is_value(name.text) || matches!(name.text, "$env" | "true" | "false" | "nil");
        if taken || builtins::names().any(|function| function == name.text) {
            return Err(syntax(name.offset, format!("`{}` has a meaning already, take another name", name.text)));
        }
        Ok(self.names.declare(name.text))
    }

    fn name(&mut self) -> Result<Lexeme<'a>, CompileError> {
        if self.here().token == Token::Name { Ok(self.advance()) } else { Err(self.unexpected("a name")) }
    }

    fn expression(&mut self) -> Parsed {
        self.nested(|parser| {
            if parser.is("let") {
                parser.sequence()
            } else if parser.is("if") {
                parser.if_else()
            } else {
                parser.ternary()
            }
        })
    }

    fn if_else(&mut self) -> Parsed {
        let offset = self.advance().offset;
        let condition = self.expression()?;
        self.expect("{")?;
        let then = Some(self.sequence()?);
        self.expect("}")?;
        self.expect("else")?;
        let otherwise = if self.is("if") {
            self.expression()?
        } else {
            self.expect("{")?;
            let otherwise = self.sequence()?;
            self.expect("}")?;
            otherwise
        };
        Ok(expression(offset, Head::Conditional(Box::new(Conditional { condition, then, otherwise }))))
    }

    fn ternary(&mut self) -> Parsed {
        let mut condition = self.binary(0)?;
        while self.is("?") {
            let offset = self.advance().offset;
            let then = if self.take(":") {
                None
            } else {
                let then = self.expression()?;
                self.expect(":")?;
                Some(then)
            };
            let otherwise = self.expression()?;
            let choice = Conditional { condition, then, otherwise };
            condition = expression(offset, Head::Conditional(Box::new(choice)));
        }
        Ok(condition)
    }

    /// Operands joined by operators that bind at least this tightly.
    fn binary(&mut self, minimum: u16) -> Parsed {
        let mut left = self.primary()?;
        let mut coalesced = false;
        loop {
            if self.is("|") && minimum == 0 {
                self.advance();
                let function = self.name()?;
                let first = self.call(&function, Some(left))?;
                left = self.postfix(first)?;
                coalesced = false;
                continue;
            }
            let negated = self.is("not");
            let place = if negated { &self.tokens[(self.at + 1).min(self.tokens.len() - 1)] } else { self.here() };
            let (offset, symbol) = (place.offset, place.text);
            let operator = if place.token == Token::Symbol { Operator::of(symbol) } else { None };
            let Some((operator, tightness)) = operator.filter(|(operator, _)| !negated || operator.negatable()) else {
                break;
            };
            if tightness < minimum {
                break;
            }
            if coalesced && operator != Operator::Coalesce {
                let message = format!("`{symbol}` cannot follow `??`: put one of the two into parentheses");
                return Err(syntax(offset, message));
            }
            if negated {
                self.advance();
            }
            let kind = self.operation(operator, tightness)?;
            left.steps.push(Step { offset, kind });
            if negated {
                left.steps.push(Step { offset, kind: StepKind::Not });
            }
            coalesced = operator == Operator::Coalesce;
        }
        Ok(left)
    }

    /// An operator and its right side.
    fn operation(&mut self, operator: Operator, tightness: u16) -> Result<StepKind, CompileError> {
        if operator.orders() {
            let mut pairs = Vec::new();
            while let Some((operator, _)) =
                Operator::of(self.here().text).filter(|(next, _)| next.orders() && self.is(next.symbol()))
            {
                let offset = self.advance().offset;
                pairs.push((operator, offset, self.nested(|parser| parser.binary(tightness + 1))?));
            }
            return Ok(StepKind::Ordered(pairs));
        }
        self.advance();
        // Only powers group from the right.
        let minimum = if operator == Operator::Power { tightness } else { tightness + 1 };
        let right = self.nested(|parser| parser.binary(minimum))?;
        if operator != Operator::Matches {
            return Ok(StepKind::Binary(operator, right));
        }
        let compiled = match literal(&right) {
            Some(Value::String(_)) if self.regexes == MAX_REGEXES => {
                return Err(syntax(right.offset, format!("there are more than {MAX_REGEXES} regular expressions")));
            }
            Some(Value::String(text)) => {
                self.regexes += 1;
                Some(pattern::compile(text).map_err(|problem| syntax(right.offset, problem))?)
            }
            _ => None,
        };
        Ok(StepKind::Matches(right, compiled))
    }

    fn primary(&mut self) -> Parsed {
        let Lexeme { token, offset, text } = self.here().clone();
        let head = match token {
            Token::Int(int) => Head::Literal(Value::Int(int)),
            Token::Float(float) => Head::Literal(Value::Float(float)),
            Token::Text(text) => Head::Literal(Value::String(text.into())),
            Token::Name => return self.named(),
            Token::End => return Err(self.unexpected("a value")),
            Token::Symbol => return self.symbol(offset, text),
        };
        self.advance();
        self.postfix(expression(offset, head))
    }

    /// A name, a function call, or a word for a value.
    fn named(&mut self) -> Parsed {
        let name = self.advance();
        if self.is("(") {
            let call = self.call(&name, None)?;
            return self.postfix(call);
        }
        let head = match name.text {
            "true" => Head::Literal(Value::Bool(true)),
            "false" => Head::Literal(Value::Bool(false)),
            "nil" => Head::Literal(Value::Nil),
            "$env" => return self.environment(name.offset),
            text => self.names.resolve(text).map_err(|problem| CompileError { offset: name.offset, problem })?,
        };
        self.postfix(expression(name.offset, head))
    }

    fn symbol(&mut self, offset: usize, symbol: &str) -> Parsed {
        match symbol {
            "not" | "!" | "-" | "+" => {
                self.advance();
                let (tightness, kind) = match symbol {
                    "-" => (SIGN, StepKind::Minus),
                    "+" => (SIGN, StepKind::Plus),
                    _ => (NOT, StepKind::Not),
                };
                let mut operand = self.nested(|parser| parser.binary(tightness))?;
                operand.steps.push(Step { offset, kind });
                Ok(begun(operand, offset))
            }
            "(" => {
                self.advance();
                let group = self.sequence()?;
                self.expect(")")?;
                self.postfix(begun(group, offset))
            }
            "[" => {
                self.advance();
                let items = self.list("]", Self::expression)?;
                self.postfix(expression(offset, Head::Array(items)))
            }
            "{" => {
                self.advance();
                let pairs = self.list("}", Self::pair)?;
                self.postfix(expression(offset, Head::Map(pairs)))
            }
            "#" | "." => {
                let head = self.item()?;
                self.postfix(expression(offset, head))
            }
            "::" => {
                self.advance();
                let function = self.name()?;
                let call = self.call(&function, None)?;
                self.postfix(call)
            }
            _ => Err(self.unexpected("a value")),
        }
    }

    /// Things between commas up to a closing bracket; a comma may follow the last.
    fn list<T>(
        &mut self,
        end: &str,
        mut part: impl FnMut(&mut Self) -> Result<T, CompileError>,
    ) -> Result<Vec<T>, CompileError> {
        let mut parts = Vec::new();
        while !self.take(end) {
            parts.push(part(self)?);
            if !self.is(end) && !self.take(",") {
                return Err(self.unexpected(&format!("`,` or `{end}`")));
            }
        }
        Ok(parts)
    }

    fn pair(&mut self) -> Result<(Expression, Expression), CompileError> {
        let Lexeme { token, offset, text } = self.here().clone();
        let key = match token {
            Token::Int(_) | Token::Float(_) | Token::Name => {
                self.advance();
                expression(offset, Head::Literal(Value::String(text.into())))
            }
            Token::Text(text) => {
                self.advance();
                expression(offset, Head::Literal(Value::String(text.into())))
            }
            Token::Symbol if text == "(" => self.expression()?,
            _ => return Err(self.unexpected("a key: a name, a string, a number or an expression in parentheses")),
        };
        self.expect(":")?;
        Ok((key, self.expression()?))
    }

    /// `#`, `#acc`, `#index`, or the `#` that is left out before `.field`.
    fn item(&mut self) -> Result<Head, CompileError> {
        let offset = self.here().offset;
        let Some(iteration) = self.iterations.last().copied() else {
            return Err(syntax(
                offset,
                "`#` and `.field` have a meaning only within a predicate, as in `filter(list, # > 1)`",
            ));
        };
        if self.is(".") {
            return Ok(Head::Item);
        }
        self.advance();
        let next = self.here().clone();
        if next.token != Token::Name || next.offset != offset + 1 {
            return Ok(Head::Item);
        }
        self.advance();
        match next.text {
            "index" => Ok(Head::Index),
            "acc" if iteration == Iteration::Reduce => Ok(Head::Accumulator),
            other => Err(syntax(offset, format!("unknown `#{other}`: there are #, #index and, in reduce, #acc"))),
        }
    }

    /// `$env`, alone or with a trigger's name behind it.
    fn environment(&mut self, offset: usize) -> Parsed {
        let start = self.at;
        let optional = self.is("?.");
        let name = if self.take("[") || (self.take("?.") && self.take("[")) {
            match self.advance().token {
                Token::Text(name) if self.take("]") => Some(name),
                _ => None,
            }
        } else if self.at > start || self.take(".") {
            Some(self.name()?.text.to_owned())
        } else {
            None
        };
        let head = match name {
            Some(name) => match self.names.trigger(&name) {
                Some(head) => head,
                None if optional => Head::Literal(Value::Nil),
                None => {
                    let problem = self.names.resolve(&name).err();
                    let problem = problem.unwrap_or(CompileProblem::UnknownName { name, nearest: None });
                    return Err(CompileError { offset, problem });
                }
            },
            None => {
                self.at = start;
                self.names.use_all();
                Head::Environment
            }
        };
        self.postfix(expression(offset, head))
    }

    /// Members, elements and slices of what was parsed.
    fn postfix(&mut self, mut object: Expression) -> Parsed {
        let mut optionals = Vec::new();
        loop {
            let optional = self.is("?.");
            let offset = self.here().offset;
            let kind = if (optional || self.is(".")) && !(optional && self.next_is("[")) {
                self.advance();
                self.member(optional)?
            } else if optional || self.is("[") {
                self.at += usize::from(optional);
                self.advance();
                self.element(optional)?
            } else {
                break;
            };
            if optional {
                optionals.push(object.steps.len());
            }
            object.steps.push(Step { offset, kind });
        }
        let end = object.steps.len();
        for place in optionals {
            if let StepKind::Member { optional, .. } = &mut object.steps[place].kind {
                *optional = Some(end - place - 1);
            }
        }
        Ok(object)
    }

    fn next_is(&self, symbol: &str) -> bool {
        self.tokens.get(self.at + 1).is_some_and(|next| next.token == Token::Symbol && next.text == symbol)
    }

    fn member(&mut self, optional: bool) -> Result<StepKind, CompileError> {
        let name = self.advance();
        let word = name.token == Token::Symbol && name.text.starts_with(|first: char| first.is_alphabetic());
        if name.token != Token::Name && !word {
            return Err(syntax(name.offset, "expected the name of a member after the dot"));
        }
        if self.is("(") {
            return Err(syntax(
                name.offset,
                format!("values have no methods: write `{}(...)` or `| {0}(...)`", name.text),
            ));
        }
        let key = expression(name.offset, Head::Literal(Value::String(name.text.into())));
        Ok(StepKind::Member { key, optional: optional.then_some(0) })
    }

    /// An index or a slice, from behind the bracket.
    fn element(&mut self, optional: bool) -> Result<StepKind, CompileError> {
        let from = if self.is(":") { None } else { Some(self.expression()?) };
        if let Some(key) = from {
            if self.take("]") {
                return Ok(StepKind::Member { key, optional: optional.then_some(0) });
            }
            return self.slice(Some(key));
        }
        self.slice(None)
    }

    fn slice(&mut self, from: Option<Expression>) -> Result<StepKind, CompileError> {
        self.expect(":")?;
        let to = if self.is("]") { None } else { Some(self.expression()?) };
        self.expect("]")?;
        Ok(StepKind::Slice { from, to })
    }

    /// A call, from the opening parenthesis on; `first` is what was piped into it.
    fn call(&mut self, function: &Lexeme<'a>, first: Option<Expression>) -> Parsed {
        let (offset, name) = (function.offset, function.text);
        if let Some(iteration) = Iteration::of(name) {
            return self.iterate(iteration, offset, first);
        }
        let Some(builtin) = Builtin::of(name) else { return Err(self.no_function(offset, name)) };
        self.expect("(")?;
        let mut arguments: Vec<_> = first.into_iter().collect();
        arguments.extend(self.list(")", Self::expression)?);
        let (least, most) = builtin.arity();
        if arguments.len() < least || arguments.len() > most {
            return Err(wrong_arity(offset, name, least, most, arguments.len()));
        }
        Ok(applied(offset, arguments, |rest| StepKind::Call(builtin, rest)))
    }

    /// A function with a predicate.
    fn iterate(&mut self, iteration: Iteration, offset: usize, first: Option<Expression>) -> Parsed {
        self.expect("(")?;
        let (least, most) = iteration.arity();
        let mut arguments: Vec<_> = first.into_iter().collect();
        self.list(")", |parser| {
            let is_predicate = arguments.len() == 1;
            arguments.push(if is_predicate { parser.predicate(iteration)? } else { parser.expression()? });
            Ok(())
        })?;
        if arguments.len() < least || arguments.len() > most {
            return Err(wrong_arity(offset, iteration.name(), least, most, arguments.len()));
        }
        Ok(applied(offset, arguments, |rest| StepKind::Iterate(iteration, rest)))
    }

    fn predicate(&mut self, iteration: Iteration) -> Parsed {
        self.iterations.push(iteration);
        let body = if self.take("{") {
            let body = self.nested(Self::sequence)?;
            self.expect("}")?;
            body
        } else {
            self.expression()?
        };
        self.iterations.pop();
        Ok(body)
    }

    fn no_function(&self, offset: usize, name: &str) -> CompileError {
        let problem = if builtins::TIME_DEPENDENT.contains(&name) {
            CompileProblem::TimeDependent(name.to_owned())
        } else if self.names.is_value(name) {
            CompileProblem::Type(format!("`{name}` is a value and cannot be called"))
        } else {
            let nearest = nearest(name, builtins::names()).map(str::to_owned);
            CompileProblem::UnknownFunction { name: name.to_owned(), nearest }
        };
        CompileError { offset, problem }
    }
}

fn expression(offset: usize, head: Head) -> Expression {
    Expression { offset, head, steps: Vec::new() }
}

/// The expression, beginning no later than here.
fn begun(expression: Expression, offset: usize) -> Expression {
    Expression { offset: expression.offset.min(offset), ..expression }
}

/// The value, when the expression is nothing but a literal.
fn literal(expression: &Expression) -> Option<&Value> {
    match &expression.head {
        Head::Literal(value) if expression.steps.is_empty() => Some(value),
        _ => None,
    }
}

/// The first argument with the call as its last step.
fn applied(
    offset: usize,
    mut arguments: Vec<Expression>,
    kind: impl FnOnce(Vec<Expression>) -> StepKind,
) -> Expression {
    let mut first = arguments.remove(0);
    first.steps.push(Step { offset, kind: kind(arguments) });
    begun(first, offset)
}

fn wrong_arity(offset: usize, name: &str, least: usize, most: usize, given: usize) -> CompileError {
    let wanted = match (least, most) {
        (least, usize::MAX) => format!("at least {least}"),
        (least, most) if least == most => least.to_string(),
        (least, most) => format!("{least} to {most}"),
    };
    let message = format!("`{name}` takes {wanted} argument{}, not {given}", if most == 1 { "" } else { "s" });
    CompileError { offset, problem: CompileProblem::Type(message) }
}
