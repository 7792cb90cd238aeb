//! Log lines on standard output.

use std::fmt::Display;
use std::io::Write as _;

/// Writes a line. That nobody reads it is no reason to stop working.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Writes a line once, however often the same trouble comes up in a row.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    last: Option<String>,
}

impl Troubles {
    pub(crate) fn say(&mut self, trouble: &anyhow::Error) {
        let line = summary(trouble);
        if self.last.as_ref() != Some(&line) {
            say(&line);
            self.last = Some(line);
        }
    }

    /// The trouble is over: the next one is new, even if it is the same.
    pub(crate) fn over(&mut self) {
        self.last = None;
    }
}

/// What failed and why at the root: what lies between repeats one or the other.
pub(crate) fn summary(error: &anyhow::Error) -> String {
    match error.chain().len() {
        1 => error.to_string(),
        _ => format!("{error}: {}", error.root_cause()),
    }
}
