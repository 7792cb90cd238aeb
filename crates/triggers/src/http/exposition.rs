//! Prometheus' text exposition format, and the metric selectors that pick a series of it.

use regex::Regex;

/// Which series is meant.
#[derive(Clone, Debug)]
pub struct Selector {
    name: String,
    matchers: Vec<Matcher>,
}

#[derive(Clone, Debug)]
struct Matcher {
    label: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Equal(String),
    NotEqual(String),
    Matches(Regex),
    MatchesNot(Regex),
}

impl Test {
    fn new(operator: Operator, value: String) -> Result<Self, String> {
        let anchored =
            || Regex::new(&format!("^(?s:{value})$")).map_err(|_| "has a broken regular expression".to_owned());
        Ok(match operator {
            Operator::Equal => Self::Equal(value),
            Operator::NotEqual => Self::NotEqual(value),
            Operator::Matches => Self::Matches(anchored()?),
            Operator::MatchesNot => Self::MatchesNot(anchored()?),
        })
    }

    /// A label that a series does not have equals nothing, not even the empty text: as KEDA has it.
    fn holds(&self, value: Option<&str>) -> bool {
        match self {
            Self::Equal(wanted) => value == Some(wanted),
            Self::NotEqual(unwanted) => value.unwrap_or_default() != unwanted,
            Self::Matches(wanted) => wanted.is_match(value.unwrap_or_default()),
            Self::MatchesNot(unwanted) => !unwanted.is_match(value.unwrap_or_default()),
        }
    }
}

#[derive(Clone, Copy)]
enum Operator {
    Equal,
    NotEqual,
    Matches,
    MatchesNot,
}

impl Selector {
    /// Reads `name`, `name{label="value",other!="value"}` or `{__name__="name"}`, with the operators `=`, `!=`, `=~` and
    /// `!~`.
    ///
    /// # Errors
    /// What is wrong, in words that follow "the selector".
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut scan = Scan { rest: text.trim() };
        let mut name = scan.word(true);
        let mut matchers = Vec::new();
        if scan.take("{") {
            while !scan.take("}") {
                let quoted = scan.rest.starts_with(['"', '\'', '`']);
                let label = if quoted { Some(scan.quoted()?) } else { scan.word(false) };
                let label = label.ok_or("has no name of a label where one should be")?;
                match scan.operator() {
                    Some(operator) => {
                        let value = scan.quoted()?;
                        if label == "__name__" {
                            let Operator::Equal = operator else { return Err("names no single metric".to_owned()) };
                            set_name(&mut name, value)?;
                        } else {
                            matchers.push(Matcher { label, test: Test::new(operator, value)? });
                        }
                    }
                    // A quoted text alone is the metric's name.
                    None if quoted => set_name(&mut name, label)?,
                    None => return Err(format!("has no operator after the label {label}")),
                }
                if !scan.take(",") && !scan.rest.starts_with('}') {
                    return Err("has something else than a comma between two labels".to_owned());
                }
            }
        }
        if !scan.rest.is_empty() {
            return Err("has something behind its end".to_owned());
        }
        let name = name.filter(|name| !name.is_empty()).ok_or("names no metric")?;
        Ok(Self { name, matchers })
    }

    fn fits(&self, series: &Series) -> bool {
        let value = |label: &str| series.labels.iter().find(|(name, _)| name == label).map(|(_, value)| value.as_str());
        series.name == self.name && self.matchers.iter().all(|matcher| matcher.test.holds(value(&matcher.label)))
    }

    /// The value of the first series that is meant, of an untyped metric, a counter or a gauge.
    ///
    /// # Errors
    /// The number of the first line that is not of the format: then nothing of the reply is trusted.
    pub fn find(&self, body: &str) -> Result<Option<f64>, usize> {
        let mut found = None;
        let mut compound: Vec<&str> = Vec::new();
        for (number, line) in body.lines().enumerate() {
            let line = line.trim_matches([' ', '\t']);
            if let Some(comment) = line.strip_prefix('#') {
                let mut words = comment.split_ascii_whitespace();
                if words.next() == Some("TYPE") {
                    let (Some(name), Some(kind), None) = (words.next(), words.next(), words.next()) else {
                        return Err(number + 1);
                    };
                    match kind {
                        "counter" | "gauge" | "untyped" => {}
                        "histogram" | "summary" => compound.push(name.trim_matches('"')),
                        _ => return Err(number + 1),
                    }
                }
                continue;
            }
            if line.is_empty() {
                continue;
            }
            let series = Series::parse(line).ok_or(number + 1)?;
            if found.is_none() && self.fits(&series) && !belongs(&series.name, &compound) {
                found = Some(series.value);
            }
        }
        Ok(found)
    }
}

fn set_name(name: &mut Option<String>, value: String) -> Result<(), String> {
    if name.is_some() {
        return Err("names two metrics".to_owned());
    }
    *name = Some(value);
    Ok(())
}

/// Whether a name is that of a histogram or summary, or of one of its parts.
fn belongs(name: &str, compound: &[&str]) -> bool {
    let part =
        |of: &&str| name.strip_prefix(*of).is_some_and(|rest| matches!(rest, "" | "_sum" | "_count" | "_bucket"));
    compound.iter().any(part)
}

/// A line with a sample.
struct Series {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Series {
    fn parse(line: &str) -> Option<Self> {
        let mut scan = Scan { rest: line };
        let mut name = scan.word(true);
        let mut labels: Vec<(String, String)> = Vec::new();
        if scan.take("{") {
            while !scan.take("}") {
                if scan.rest.starts_with('"') {
                    let text = scan.escaped()?;
                    if !scan.take("=") {
                        set_name(&mut name, text).ok()?;
                        if !scan.take(",") && !scan.rest.starts_with('}') {
                            return None;
                        }
                        continue;
                    }
                    labels.push((text, scan.escaped()?));
                } else {
                    let label = scan.word(false)?;
                    scan.take("=").then_some(())?;
                    labels.push((label, scan.escaped()?));
                }
                if !scan.take(",") && !scan.rest.starts_with('}') {
                    return None;
                }
            }
        }
        let (mut names, name) = (labels.iter().map(|(name, _)| name).collect::<Vec<_>>(), name?);
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return None;
        }
        let mut words = scan.rest.split_ascii_whitespace();
        let value = number(words.next()?)?;
        let stamped = words.next().is_none_or(|stamp| stamp.parse::<i64>().is_ok());
        (stamped && words.next().is_none()).then_some(Self { name, labels, value })
    }
}

/// A decimal number, an infinity or `NaN`, in any case of letters.
fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// A text that is read from its start; blanks between its parts do not count.
struct Scan<'t> {
    rest: &'t str,
}

impl<'t> Scan<'t> {
    fn skip(&mut self, bytes: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest.trim_start();
        taken
    }

    fn take(&mut self, token: &str) -> bool {
        let is_next = self.rest.starts_with(token);
        if is_next {
            self.skip(token.len());
        }
        is_next
    }

    /// A metric's name, which may have colons, or a label's.
    fn word(&mut self, colons: bool) -> Option<String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
        let end = self.rest.find(|c| !fits(c)).unwrap_or(self.rest.len());
        let starts = self.rest.starts_with(|c: char| fits(c) && !c.is_ascii_digit());
        starts.then(|| self.skip(end).to_owned())
    }

    fn operator(&mut self) -> Option<Operator> {
        let operators = [
            ("=~", Operator::Matches),
            ("!~", Operator::MatchesNot),
            ("!=", Operator::NotEqual),
            ("=", Operator::Equal),
        ];
        operators.into_iter().find(|(token, _)| self.take(token)).map(|(_, operator)| operator)
    }

    /// A text of a selector: in double or single quotes with escapes, or in backquotes as it is.
    fn quoted(&mut self) -> Result<String, String> {
        let broken = || "has a text without quotes or with a broken escape".to_owned();
        let quote = self.rest.chars().next().filter(|c| matches!(c, '"' | '\'' | '`')).ok_or_else(broken)?;
        if quote == '`' {
            let end = self.rest[1..].find('`').ok_or_else(broken)?;
            return Ok(self.skip(end + 2)[1..=end].to_owned());
        }
        self.unescaped(quote, |escape| match escape {
            'a' => Some('\x07'),
            'b' => Some('\x08'),
            'f' => Some('\x0c'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\x0b'),
            '\\' | '"' | '\'' => Some(escape),
            _ => None,
        })
        .ok_or_else(broken)
    }

    /// A text of an exposition.
    fn escaped(&mut self) -> Option<String> {
        self.unescaped('"', |escape| match escape {
            'n' => Some('\n'),
            '\\' | '"' => Some(escape),
            _ => None,
        })
    }

    fn unescaped(&mut self, quote: char, escape: impl Fn(char) -> Option<char>) -> Option<String> {
        let mut text = String::new();
        let mut characters = self.rest.strip_prefix(quote)?.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => text.push(escape(characters.next()?.1)?),
                end if end == quote => {
                    // One quote before, one here.
                    self.skip(at + 2);
                    return Some(text);
                }
                _ => text.push(character),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BODY: &str = "# HELP jobs Jobs, \"all\" of them\r\n# TYPE jobs gauge\njobs{queue=\"mail\",host=\"a\"} 3\n\
        jobs{queue=\"web\",} 5.5e1 1700000000000\njobs 7\n\n# a comment\n# TYPE lat histogram\nlat_bucket{le=\"+Inf\"} 4\n\
        lat_sum 2\nlat_count 4\nup:x +Inf\n{\"utf.8\",\"é\"=\"a\\\"b\\\\\\n\"} NaN\nother_sum 8";

    fn value(selector: &str, body: &str) -> Result<Option<f64>, usize> {
        Selector::parse(selector).unwrap().find(body)
    }

    #[test]
    fn the_first_series_with_all_the_labels_is_meant() {
        for (selector, expected) in [
            ("jobs", Some(3.0)),
            ("jobs{queue=\"web\"}", Some(55.0)),
            (" jobs { queue = 'mail' , host = `a` , } ", Some(3.0)),
            ("{__name__=\"jobs\",queue=\"web\"}", Some(55.0)),
            ("jobs{queue!=\"mail\"}", Some(55.0)),
            ("jobs{queue!~\"mail|web\"}", Some(7.0)),
            ("jobs{queue=~\"w.*\"}", Some(55.0)),
            ("jobs{queue=~\"w\"}", None),
            ("jobs{queue=\"\"}", None),
            ("jobs{queue=\"none\"}", None),
            ("up:x", Some(f64::INFINITY)),
            ("other_sum", Some(8.0)),
            ("job", None),
        ] {
            assert_eq!(value(selector, BODY), Ok(expected), "{selector}");
        }
        let nan = value(r#"{"utf.8","é"="a\"b\\\n"}"#, BODY).unwrap();
        assert!(nan.is_some_and(f64::is_nan));
    }

    #[test]
    fn parts_of_histograms_and_summaries_are_not_found() {
        for name in ["lat", "lat_sum", "lat_count", "lat_bucket"] {
            assert_eq!(value(name, BODY), Ok(None), "{name}");
        }
    }

    #[test]
    fn one_broken_line_spoils_the_reply() {
        for line in [
            "b",
            "b{",
            "b{c} 1",
            "b{c=\"d\"",
            "b 1 2 3",
            "b one",
            "b{c=\"\\x\"} 1",
            "b{c=\"1\",c=\"2\"} 1",
            "1b 1",
            "# TYPE b",
            "# TYPE b strange",
            "b{c=\"d\" e=\"f\"} 1",
            "<html>",
        ] {
            assert_eq!(value("a", &format!("a 1\n{line}\n")), Err(2), "{line}");
        }
    }

    #[test]
    fn broken_selectors_are_refused() {
        for selector in [
            "",
            "{}",
            "a{",
            "a}",
            "a{b}",
            "a{b=c}",
            "a{b=\"c\"",
            "a{__name__=\"b\"}",
            "{__name__=~\"b\"}",
            "a b",
            "sum(a)",
            "a[5m]",
            "a{b=~\"(\"}",
            "a{b=\"\\q\"}",
        ] {
            assert!(Selector::parse(selector).is_err(), "{selector}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_panics(selector in "[a{}=\"'`~!,\\\\ é]{0,12}", body in "[a{}=\"#\\\\ ,1é\n]{0,24}") {
            if let Ok(selector) = Selector::parse(&selector) {
                let _ = selector.find(&body);
            }
            let _ = Selector::parse("a").unwrap().find(&body);
        }
    }
}
