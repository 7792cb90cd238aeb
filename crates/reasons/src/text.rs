//! An explanation as text for a terminal.

use std::fmt::Write;

use jiff::Timestamp;

use crate::report::Explanation;

/// What lines are at most, unless a single word is longer.
const WIDTH: usize = 110;

/// The explanation on lines of at most 110 characters. It ends with a line break.
pub fn text(explanation: &Explanation, now: Timestamp) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}", wrapped(&explanation.headline, "", ""));
    let _ = writeln!(out, "As of {} UTC", now.strftime("%Y-%m-%d %H:%M:%S"));
    let mut section = |title: &str, lines: &[String]| {
        if !lines.is_empty() {
            let _ = writeln!(out, "\n{title}");
            for line in lines {
                let _ = writeln!(out, "{}", wrapped(line, "  - ", "    "));
            }
        }
    };
    let problem = |problem: &crate::report::Problem| match problem.remedy.is_empty() {
        true => problem.text.clone(),
        false => format!("{}.\u{1}What to do: {}", problem.text.trim_end_matches('.'), problem.remedy),
    };
    let problems: Vec<String> = explanation.problems.iter().map(problem).collect();
    let none = vec!["None that Tidemark knows of".to_owned()];
    section("Problems", if problems.is_empty() { &none } else { &problems });
    section("Checks", &explanation.checks);
    section("Why this many replicas", &explanation.because);
    section("Last change", &explanation.last_change);
    section("What would change it next", &explanation.next);
    out
}

/// A paragraph with `first` before its first line and `rest` before the others. The character U+0001 breaks a line.
fn wrapped(text: &str, first: &str, rest: &str) -> String {
    let mut lines = Vec::new();
    let mut indent = first;
    for part in text.split('\u{1}') {
        let mut line = String::new();
        for word in part.split(' ') {
            let used = indent.chars().count() + line.chars().count();
            if !line.is_empty() && used + 1 + word.chars().count() > WIDTH {
                lines.push(format!("{indent}{line}"));
                (line, indent) = (String::new(), rest);
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line += word;
        }
        lines.push(format!("{indent}{line}"));
        indent = rest;
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_between_words_and_indented() {
        let text = wrapped(&"word ".repeat(50), "  - ", "    ");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("    word")), "{text}");
        assert_eq!(wrapped("a\u{1}b", "- ", "  "), "- a\n  b");
    }
}
