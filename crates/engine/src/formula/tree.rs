//! The syntax tree. An expression is a head and the steps that are applied to it one after another, so that a long
//! chain of operators, members or pipes is a list and not a deep tree: whatever walks the tree recurses only where the
//! formula nests, which the parser limits.

use regex::Regex;

use super::builtins::{Builtin, Iteration};
use super::value::Value;

#[derive(Debug)]
pub(super) struct Expression {
    /// Where it begins.
    pub(super) offset: usize,
    pub(super) head: Head,
    pub(super) steps: Vec<Step>,
}

#[derive(Debug)]
pub(super) enum Head {
    Literal(Value),
    /// A trigger, by its place in the list of names used.
    Variable(usize),
    /// What a `let` declared, by its number.
    Local(usize),
    /// `#`
    Item,
    /// `#index`
    Index,
    /// `#acc`
    Accumulator,
    /// `$env` as a whole.
    Environment,
    Array(Vec<Expression>),
    Map(Vec<(Expression, Expression)>),
    Conditional(Box<Conditional>),
    Block(Box<Block>),
}

#[derive(Debug)]
pub(super) struct Conditional {
    pub(super) condition: Expression,
    /// `None` for `condition ?: otherwise`, which yields the condition itself.
    pub(super) then: Option<Expression>,
    pub(super) otherwise: Expression,
}

/// `let` declarations and other expressions before a last one, which is the result.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) before: Vec<(Option<usize>, Expression)>,
    pub(super) result: Expression,
}

#[derive(Debug)]
pub(super) struct Step {
    /// Where the operator or the function's name is.
    pub(super) offset: usize,
    pub(super) kind: StepKind,
}

#[derive(Debug)]
pub(super) enum StepKind {
    Not,
    Minus,
    Plus,
    Binary(Operator, Expression),
    /// `left < b <= c`: each pair compared, each operand evaluated at most once.
    Ordered(Vec<(Operator, usize, Expression)>),
    /// The regular expression is compiled when it is a literal.
    Matches(Expression, Option<Regex>),
    Member {
        key: Expression,
        /// For `?.`: how many of the steps that follow are skipped when there is no value.
        optional: Option<usize>,
    },
    Slice {
        from: Option<Expression>,
        to: Option<Expression>,
    },
    /// A function of the value and further arguments.
    Call(&'static Builtin, Vec<Expression>),
    /// A function that evaluates its second argument for each element of the value.
    Iterate(Iteration, Vec<Expression>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Matches,
    Contains,
    StartsWith,
    EndsWith,
    Range,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
    Coalesce,
}

impl Operator {
    /// The operator and how tightly it binds.
    pub(super) fn of(symbol: &str) -> Option<(Operator, u16)> {
        use Operator::*;
        Some(match symbol {
            "or" | "||" => (Or, 10),
            "and" | "&&" => (And, 15),
            "==" => (Equal, 20),
            "!=" => (NotEqual, 20),
            "<" => (Less, 20),
            "<=" => (LessOrEqual, 20),
            ">" => (Greater, 20),
            ">=" => (GreaterOrEqual, 20),
            "in" => (In, 20),
            "matches" => (Matches, 20),
            "contains" => (Contains, 20),
            "startsWith" => (StartsWith, 20),
            "endsWith" => (EndsWith, 20),
            ".." => (Range, 25),
            "+" => (Add, 30),
            "-" => (Subtract, 30),
            "*" => (Multiply, 60),
            "/" => (Divide, 60),
            "%" => (Remainder, 60),
            "**" | "^" => (Power, 100),
            "??" => (Coalesce, 500),
            _ => return None,
        })
    }

    pub(super) fn symbol(self) -> &'static str {
        use Operator::*;
        match self {
            Or => "or",
            And => "and",
            Equal => "==",
            NotEqual => "!=",
            Less => "<",
            LessOrEqual => "<=",
            Greater => ">",
            GreaterOrEqual => ">=",
            In => "in",
            Matches => "matches",
            Contains => "contains",
            StartsWith => "startsWith",
            EndsWith => "endsWith",
            Range => "..",
            Add => "+",
            Subtract => "-",
            Multiply => "*",
            Divide => "/",
            Remainder => "%",
            Power => "**",
            Coalesce => "??",
        }
    }

    /// Whether comparisons by this chain: `a < b < c`.
    pub(super) fn orders(self) -> bool {
        use Operator::*;
        matches!(self, Less | LessOrEqual | Greater | GreaterOrEqual)
    }

    /// Whether `not` may stand before it: `a not in b`.
    pub(super) fn negatable(self) -> bool {
        use Operator::*;
        matches!(self, In | Matches | Contains | StartsWith | EndsWith)
    }
}
