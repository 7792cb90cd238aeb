//! What goes wrong with a trigger.

use std::error::Error;
use std::fmt;

/// The kind of a scaler error, as shown in conditions, events, metric labels and explanations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorKind {
    /// The parameters are wrong or missing.
    Configuration,
    /// The source refused the credentials.
    Authentication,
    /// The source could not be reached.
    Unreachable,
    /// The source answered, and refused.
    Refused,
    /// The source's answer could not be understood.
    BadReply,
    /// The queue, table, metric or other thing asked for does not exist.
    MissingResource,
    /// The source did not answer in time.
    TimedOut,
}

impl ErrorKind {
    /// The kind in words of lower case, for messages and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Authentication => "authentication",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::BadReply => "bad reply",
            Self::MissingResource => "missing resource",
            Self::TimedOut => "timed out",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failed connect or read. The message names what was asked and carries no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({kind})")]
pub struct SourceError {
    pub kind: ErrorKind,
    pub message: String,
}

impl SourceError {
    /// An error of a kind. The caller sees to it that the message carries no secret.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// An error and what it came from, each in its words unless what stands before has said so.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

/// One thing wrong with a trigger's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The parameter at fault (its first name), or none where the fault is between parameters.
    pub parameter: Option<String>,
    pub message: String,
}

impl ParseError {
    /// Something wrong with one parameter. The caller sees to it that the message carries no secret.
    pub fn new(parameter: impl Into<String>, message: impl Into<String>) -> Self {
        Self { parameter: Some(parameter.into()), message: message.into() }
    }

    /// Something wrong between parameters, or with the trigger as a whole.
    pub fn general(message: impl Into<String>) -> Self {
        Self { parameter: None, message: message.into() }
    }
}

impl From<ParseError> for ParseErrors {
    fn from(error: ParseError) -> Self {
        Self(vec![error])
    }
}

/// All that is wrong with a trigger's parameters, in the order of their declaration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ParseErrors(pub Vec<ParseError>);

impl fmt::Display for ParseErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&error.message)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Caused(&'static str, #[source] Option<Box<Self>>);

    #[test]
    fn a_cause_that_has_been_told_is_not_told_again() {
        let refused = Caused("connection refused", None);
        let cannot_ask = Caused("cannot ask: connection refused", Some(Box::new(refused)));
        assert_eq!(causes(&Caused("no start", Some(Box::new(cannot_ask)))), "no start: cannot ask: connection refused");
    }
}
