//! Regular expressions for `matches`.

use regex::{Regex, RegexBuilder};

use super::limits::MAX_REGEX;

/// Compiles a regular expression; the error is a sentence for the user.
pub(super) fn compile(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).size_limit(MAX_REGEX).dfa_size_limit(MAX_REGEX).nest_limit(32).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "the regular expression is too large".to_owned(),
        // The first lines show the expression again; the last one says what is wrong.
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!("not a regular expression: {}", last.trim_start_matches("error: "))
        }
    })
}
