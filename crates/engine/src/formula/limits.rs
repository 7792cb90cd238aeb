//! What a formula may cost. Formulas are user input that runs inside the operator, so all of it is bounded.

/// The longest formula, in bytes.
pub const MAX_TEXT: usize = 4096;

/// The deepest nesting of a formula: parentheses, arguments, operands of operators that bind tighter, branches.
pub const MAX_DEPTH: usize = 64;

/// The deepest nesting of arrays and maps in a value.
pub const MAX_VALUE_DEPTH: usize = 64;

/// The work of one evaluation. A unit is one value, operator or call, one element of an array that a function visits,
/// or [`BYTES_PER_STEP`] bytes of a string that a function reads.
pub const MAX_STEPS: usize = 200_000;

/// How much of a string one step of work covers, in bytes.
pub const BYTES_PER_STEP: usize = 16;

/// The memory that all values made by one evaluation may take together, in bytes.
pub const MAX_MEMORY: usize = 1 << 20;

/// The size that a compiled regular expression may have, in bytes.
pub const MAX_REGEX: usize = 128 << 10;

/// How many literal regular expressions a formula may have; they are kept compiled.
pub const MAX_REGEXES: usize = 16;

/// Steps charged for compiling a regular expression that is not a literal.
pub const STEPS_PER_REGEX: usize = 20_000;

/// Steps charged per byte that a regular expression is matched against: the engine keeps all alternatives in step.
pub const STEPS_PER_MATCHED_BYTE: usize = 64;
