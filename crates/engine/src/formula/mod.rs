//! The formula language of scaling modifiers: the language of expr-lang/expr 1.17 as far as numbers from triggers need
//! it, typed over all branches when compiled, and bounded in length, depth, work and memory ([`limits`]).
//!
//! A formula sees nothing but the values of triggers: it cannot tell the time, and the same values give the same result.

mod builtins;
mod check;
mod error;
mod evaluate;
mod iterate;
mod lexer;
pub mod limits;
mod meter;
mod names;
mod operators;
mod parse;
mod pattern;
#[cfg(test)]
mod tests;
mod tree;
mod types;
mod value;

pub use error::{CompileError, CompileProblem, EvalError, EvalProblem, line_and_column};
pub use value::{Array, Map, Value};

/// A compiled formula.
#[derive(Debug)]
pub struct Formula {
    tree: tree::Expression,
    names: Vec<String>,
    locals: usize,
    certain: bool,
}

impl Formula {
    /// Compiles a formula over the triggers with these names.
    ///
    /// # Errors
    /// Syntax, unknown names (also in branches that would never run), types that do not fit, and the [`limits`].
    pub fn compile(text: &str, names: &[&str]) -> Result<Formula, CompileError> {
        Self::compile_between("", text, "", names)
    }

    /// Compiles a formula with something of ours before and after it. The length is that of the formula alone; places in
    /// errors are those in the whole.
    pub(crate) fn compile_between(
        before: &str,
        text: &str,
        after: &str,
        names: &[&str],
    ) -> Result<Formula, CompileError> {
        if text.len() > limits::MAX_TEXT {
            let offset = before.len() + limits::MAX_TEXT;
            return Err(CompileError { offset, problem: CompileProblem::TooLong(text.len()) });
        }
        let (tree, names, locals) = parse::parse(&format!("{before}{text}{after}"), names)?;
        let (_, certain) = check::check(&tree, locals)?;
        Ok(Formula { tree, names, locals, certain })
    }

    /// The result for the present values; a trigger without a value is nil. Every trigger used is asked for once.
    ///
    /// # Errors
    /// A missing value where one is needed, a failing conversion, an index out of range, overflow, and the [`limits`].
    pub fn evaluate(&self, value_of: &dyn Fn(&str) -> Option<f64>) -> Result<Value, EvalError> {
        let variables = self.names.iter().map(|name| value_of(name)).collect();
        evaluate::Evaluation::new(&self.names, variables, self.locals).expression(&self.tree)
    }

    /// The names of the triggers that the formula uses, in the order of their first use, each once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Whether every part is known to have a type that its place takes, so that [`EvalProblem::Type`] cannot happen.
    /// Members of maps, `#acc`, `fromJSON` and branches of different types are known only when the formula runs.
    pub fn is_fully_typed(&self) -> bool {
        self.certain
    }
}
