//! From the text of an expression to its tree.

use super::lex::{Token, TokenKind, tokens};

/// Levels of nesting that a tree may have.
const DEEPEST: usize = 100;

/// An expression, and where it stands.
#[derive(Debug)]
pub(super) struct Expr {
    /// Characters before it.
    pub at: usize,
    pub node: Node,
}

/// What an expression is.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Ident(String),
    /// A field, which may be missing if the flag is set.
    Select(Box<Expr>, String, bool),
    /// Whether a field is there.
    Has(Box<Expr>, String),
    /// An item, which may be missing if the flag is set.
    Index(Box<Expr>, Box<Expr>, bool),
    /// A function, and what it is called on.
    Call(Option<Box<Expr>>, String, Vec<Expr>),
    Not(Box<Expr>),
    Negated(Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    Conditional(Box<Expr>, Box<Expr>, Box<Expr>),
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    /// A macro over a list or the keys of a map, with its variables and one or two expressions.
    Each(Macro, Box<Expr>, Vec<String>, Vec<Expr>),
    /// `optMap` (true wraps the result) and `optFlatMap`.
    OptMap(bool, Box<Expr>, String, Box<Expr>),
}

/// What a macro makes of the items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Macro {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}

/// An operator between two expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Operator {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Or => "||",
            Self::And => "&&",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::In => "in",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }
}

/// Operators from the loosest to the tightest.
const LEVELS: &[&[Operator]] = &[
    &[Operator::Or],
    &[Operator::And],
    &[
        Operator::Less,
        Operator::LessOrEqual,
        Operator::Greater,
        Operator::GreaterOrEqual,
        Operator::Equal,
        Operator::NotEqual,
        Operator::In,
    ],
    &[Operator::Add, Operator::Subtract],
    &[Operator::Multiply, Operator::Divide, Operator::Remainder],
];

/// A mistake in the text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub at: usize,
    pub message: String,
}

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<Expr, Mistake> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
    let expr = parser.expression()?;
    match parser.peek() {
        TokenKind::End => Ok(expr),
        _ => Err(parser.unexpected("<EOF>")),
    }
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &TokenKind {
        &self.tokens[self.next].kind
    }

    fn at(&self) -> usize {
        self.tokens[self.next].at
    }

    fn advance(&mut self) {
        // The last token is the end, which nobody takes.
        self.next = (self.next + 1).min(self.tokens.len() - 1);
    }

    fn takes(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), TokenKind::Symbol(found) if *found == symbol);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Mistake> {
        if self.takes(symbol) { Ok(()) } else { Err(self.unexpected(&format!("'{symbol}'"))) }
    }

    fn unexpected(&self, wanted: &str) -> Mistake {
        let found = match self.peek() {
            TokenKind::End => "<EOF>".to_owned(),
            other => other.to_string(),
        };
        Mistake { at: self.at(), message: format!("Syntax error: mismatched input '{found}' expecting {wanted}") }
    }

    fn identifier(&mut self) -> Result<String, Mistake> {
        match self.peek().clone() {
            TokenKind::Ident(name) => {
                self.advance();
                Ok(name)
            }
            _ => Err(self.unexpected("IDENTIFIER")),
        }
    }

    fn expression(&mut self) -> Result<Expr, Mistake> {
        self.depth += 1;
        if self.depth > DEEPEST {
            let message = format!("expression recursion limit exceeded: {DEEPEST}");
            return Err(Mistake { at: self.at(), message });
        }
        let (condition, at) = (self.binary(0)?, self.at());
        let expr = if self.takes("?") {
            let then = self.binary(0)?;
            self.expect(":")?;
            let otherwise = self.expression()?;
            Expr { at, node: Node::Conditional(Box::new(condition), Box::new(then), Box::new(otherwise)) }
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn binary(&mut self, level: usize) -> Result<Expr, Mistake> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        // Each operator makes the tree one level deeper, with which everyone who walks it has to cope.
        let mut chained = 0;
        loop {
            let at = self.at();
            let operator = operators.iter().find(|operator| match self.peek() {
                TokenKind::Symbol(symbol) => *symbol == operator.symbol(),
                TokenKind::Ident(name) => name == "in" && **operator == Operator::In,
                _ => false,
            });
            let Some(operator) = operator else { return Ok(left) };
            chained += 1;
            if chained > DEEPEST {
                let message = format!("expression recursion limit exceeded: {DEEPEST}");
                return Err(Mistake { at, message });
            }
            self.advance();
            let right = self.binary(level + 1)?;
            left = Expr { at, node: Node::Binary(*operator, Box::new(left), Box::new(right)) };
        }
    }

    fn unary(&mut self) -> Result<Expr, Mistake> {
        let at = self.at();
        self.depth += 1;
        if self.depth > DEEPEST {
            let message = format!("expression recursion limit exceeded: {DEEPEST}");
            return Err(Mistake { at, message });
        }
        let node = if self.takes("!") {
            Node::Not(Box::new(self.unary()?))
        } else if self.takes("-") {
            match self.peek().clone() {
                TokenKind::Int(number) => {
                    self.advance();
                    let number = i64::try_from(-i128::from(number)).map_err(|_| self.unexpected("NUM_INT"))?;
                    let literal = Expr { at, node: Node::Int(number) };
                    self.depth -= 1;
                    return self.member(literal);
                }
                _ => Node::Negated(Box::new(self.unary()?)),
            }
        } else {
            self.depth -= 1;
            let primary = self.primary()?;
            return self.member(primary);
        };
        self.depth -= 1;
        Ok(Expr { at, node })
    }

    /// Fields, items and calls behind an expression.
    fn member(&mut self, mut of: Expr) -> Result<Expr, Mistake> {
        let mut chained = 0;
        loop {
            let at = self.at();
            chained += 1;
            if chained > DEEPEST {
                let message = format!("expression recursion limit exceeded: {DEEPEST}");
                return Err(Mistake { at, message });
            }
            if self.takes(".") {
                let optional = self.takes("?");
                let name = self.identifier()?;
                let called = matches!(self.peek(), TokenKind::Symbol("("));
                let open = self.at();
                of = if !optional && self.takes("(") {
                    let arguments = self.list(")")?;
                    self.method(open, of, name, arguments)?
                } else if called {
                    return Err(self.unexpected("a field"));
                } else {
                    Expr { at, node: Node::Select(Box::new(of), name, optional) }
                };
            } else if self.takes("[") {
                let optional = self.takes("?");
                let index = self.expression()?;
                self.expect("]")?;
                of = Expr { at, node: Node::Index(Box::new(of), Box::new(index), optional) };
            } else {
                return Ok(of);
            }
        }
    }

    fn list(&mut self, end: &str) -> Result<Vec<Expr>, Mistake> {
        let mut items = Vec::new();
        while !self.takes(end) {
            if !items.is_empty() {
                self.expect(",")?;
                if end == "]" && self.takes(end) {
                    break;
                }
            }
            items.push(self.expression()?);
        }
        Ok(items)
    }

    fn method(&self, at: usize, of: Expr, name: String, mut arguments: Vec<Expr>) -> Result<Expr, Mistake> {
        let variable = |expr: &Expr| match &expr.node {
            Node::Ident(name) => Ok(name.clone()),
            _ => Err(Mistake { at: expr.at, message: "argument must be a simple name".to_owned() }),
        };
        let form = match (name.as_str(), arguments.len()) {
            ("all", 2 | 3) => Some(Macro::All),
            ("exists", 2 | 3) => Some(Macro::Exists),
            ("exists_one" | "existsOne", 2 | 3) => Some(Macro::ExistsOne),
            ("map", 2 | 3) => Some(Macro::Map),
            ("filter", 2) => Some(Macro::Filter),
            _ => None,
        };
        if let Some(form) = form {
            let count = if form != Macro::Map && arguments.len() == 3 { 2 } else { 1 };
            let bodies = arguments.split_off(count);
            let variables = arguments.iter().map(variable).collect::<Result<_, _>>()?;
            return Ok(Expr { at, node: Node::Each(form, Box::new(of), variables, bodies) });
        }
        if matches!(name.as_str(), "optMap" | "optFlatMap") && arguments.len() == 2 {
            let (body, name_of) = (arguments.remove(1), variable(&arguments[0])?);
            return Ok(Expr { at, node: Node::OptMap(name == "optMap", Box::new(of), name_of, Box::new(body)) });
        }
        Ok(Expr { at, node: Node::Call(Some(Box::new(of)), name, arguments) })
    }

    fn primary(&mut self) -> Result<Expr, Mistake> {
        let at = self.at();
        let token = self.peek().clone();
        let node = match token {
            TokenKind::Int(number) => {
                Node::Int(i64::try_from(number).map_err(|_| Mistake { at, message: "invalid int literal".to_owned() })?)
            }
            TokenKind::Uint(number) => Node::Uint(number),
            TokenKind::Double(number) => Node::Double(number),
            TokenKind::Text(text) => Node::Text(text),
            TokenKind::Bytes(bytes) => Node::Bytes(bytes),
            TokenKind::Symbol("(") => {
                self.advance();
                let inner = self.expression()?;
                self.expect(")")?;
                return Ok(inner);
            }
            TokenKind::Symbol("[") => {
                self.advance();
                return Ok(Expr { at, node: Node::List(self.list("]")?) });
            }
            TokenKind::Symbol("{") => {
                self.advance();
                return Ok(Expr { at, node: Node::Map(self.entries()?) });
            }
            TokenKind::Symbol(".") => {
                self.advance();
                return self.named();
            }
            TokenKind::Ident(_) => return self.named(),
            _ => {
                let wanted = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, \
                              STRING, BYTES, IDENTIFIER}";
                return Err(self.unexpected(wanted));
            }
        };
        self.advance();
        Ok(Expr { at, node })
    }

    /// An identifier, a call or one of the words.
    fn named(&mut self) -> Result<Expr, Mistake> {
        let at = self.at();
        let name = self.identifier()?;
        let node = match name.as_str() {
            "true" => Node::Bool(true),
            "false" => Node::Bool(false),
            "null" => Node::Null,
            "in" => return Err(Mistake { at, message: "Syntax error: reserved identifier: in".to_owned() }),
            _ => {
                let open = self.at();
                if !self.takes("(") {
                    return Ok(Expr { at, node: Node::Ident(name) });
                }
                let mut arguments = self.list(")")?;
                if name != "has" {
                    return Ok(Expr { at: open, node: Node::Call(None, name, arguments) });
                }
                match (arguments.pop().map(|one| one.node), arguments.is_empty()) {
                    (Some(Node::Select(of, field, false)), true) => Node::Has(of, field),
                    _ => return Err(Mistake { at: open, message: "invalid argument to has() macro".to_owned() }),
                }
            }
        };
        Ok(Expr { at, node })
    }

    fn entries(&mut self) -> Result<Vec<(Expr, Expr)>, Mistake> {
        let mut entries = Vec::new();
        while !self.takes("}") {
            if !entries.is_empty() {
                self.expect(",")?;
                if self.takes("}") {
                    break;
                }
            }
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?));
        }
        Ok(entries)
    }
}
