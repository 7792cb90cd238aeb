//! What can be wrong with a formula, when it is compiled and when it runs. Every error knows its place in the text.

use super::limits::{MAX_DEPTH, MAX_MEMORY, MAX_STEPS, MAX_TEXT, MAX_VALUE_DEPTH};

/// Why a text is not a formula.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct CompileError {
    /// Where in the text, in bytes from its start. See [`line_and_column`].
    pub offset: usize,
    /// What is wrong there.
    pub problem: CompileProblem,
}

/// What is wrong with a formula.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileProblem {
    /// There is nothing but blanks and comments.
    #[error("the formula is empty")]
    Empty,
    /// The text is longer than [`MAX_TEXT`] bytes.
    #[error("the formula has {0} bytes, more than the {MAX_TEXT} that are allowed")]
    TooLong(usize),
    /// It nests deeper than [`MAX_DEPTH`].
    #[error("the formula is nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// It does not follow the grammar.
    #[error("{0}")]
    Syntax(String),
    /// It uses a name that is no trigger's and no `let` declared.
    #[error("unknown name `{name}`{}", suggestion(nearest))]
    UnknownName {
        /// The name as written.
        name: String,
        /// The known name that is most like it.
        nearest: Option<String>,
    },
    /// It calls a function that does not exist.
    #[error("unknown function `{name}`{}", suggestion(nearest))]
    UnknownFunction {
        /// The name as written.
        name: String,
        /// The function whose name is most like it.
        nearest: Option<String>,
    },
    /// It calls a function of the language that formulas must not use.
    #[error(
        "the function `{0}` is not available: a formula is computed from the values of triggers only, never from the time"
    )]
    TimeDependent(String),
    /// A part has a type that its place does not take.
    #[error("{0}")]
    Type(String),
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default()
}

/// Why a formula has no result for the present values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct EvalError {
    /// Where in the text the evaluation stopped, in bytes from its start. See [`line_and_column`].
    pub offset: usize,
    /// What happened there.
    pub problem: EvalProblem,
}

/// What can happen to a formula that compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalProblem {
    /// A part has no value where one is needed.
    #[error("{} for {place}", absent(variable))]
    Nil {
        /// What needs a value, for example "`+`".
        place: String,
        /// The trigger that has no value, if the part is a trigger's name.
        variable: Option<String>,
    },
    /// A part whose type is only known at run time has a type that its place does not take.
    #[error("{0}")]
    Type(String),
    /// The remainder of a division by zero.
    #[error("integer division by zero")]
    DivisionByZero,
    /// A whole number that 64 bits do not hold.
    #[error("the result of {0} does not fit a 64 bit integer")]
    Overflow(String),
    /// An element that an array does not have.
    #[error("index {index} is outside an array of {length}")]
    OutOfRange {
        /// The index as computed.
        index: i64,
        /// How many elements the array has.
        length: usize,
    },
    /// An argument that a function cannot work with.
    #[error("{0}")]
    Argument(String),
    /// More than [`MAX_STEPS`] steps.
    #[error("the formula takes more than {MAX_STEPS} steps")]
    TooManySteps,
    /// More than [`MAX_MEMORY`] bytes.
    #[error("the formula needs more than {MAX_MEMORY} bytes of memory")]
    TooMuchMemory,
    /// Arrays within arrays deeper than [`MAX_VALUE_DEPTH`].
    #[error("arrays and maps are nested more than {MAX_VALUE_DEPTH} levels deep")]
    TooDeep,
}

fn absent(variable: &Option<String>) -> String {
    match variable {
        Some(name) => format!("`{name}` has no value"),
        None => "there is no value (nil)".into(),
    }
}

/// Line and column of a place in a text, both counted from 1, columns in characters. A place beyond the end is the end.
pub fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
