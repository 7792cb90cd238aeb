//! Label selectors in their text form, checked by the rules of the API server and in its words.

/// The most characters of a label's name or value.
const MAX_LABEL: usize = 63;
/// The most characters of a label key's prefix.
const MAX_PREFIX: usize = 253;

const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";
const NAME: &str = "must consist of letters, digits, '-', '_' or '.', and begin and end with a letter or digit";
const PREFIX: &str =
    "must consist of lower case letters, digits, '-' and '.', and begin and end with a letter or digit";

/// Checks a selector such as `app=web,tier in (a, b),!legacy`.
///
/// # Errors
/// What the API server would say to it.
pub fn check(text: &str) -> Result<(), String> {
    Parser { tokens: tokens(text), at: 0 }.selector()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A key or value, or one of the words `in` and `notin`, which are also keys and values.
    Word(&'a str),
    /// One of `! = == != > < ( ) ,`.
    Symbol(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Word(text) | Self::Symbol(text) => text,
            Self::End => "",
        }
    }
}

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(is_blank);
    while !rest.is_empty() {
        let (token, length) = if rest.starts_with(is_symbol) {
            let length = if rest.starts_with("==") || rest.starts_with("!=") { 2 } else { 1 };
            (Token::Symbol(&rest[..length]), length)
        } else {
            let length = rest.find(|c| is_symbol(c) || is_blank(c)).unwrap_or(rest.len());
            (Token::Word(&rest[..length]), length)
        };
        tokens.push(token);
        rest = rest[length..].trim_start_matches(is_blank);
    }
    tokens
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).copied().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn selector(&mut self) -> Result<(), String> {
        loop {
            match self.peek() {
                Token::End => return Ok(()),
                Token::Word(_) | Token::Symbol("!") => {}
                other => return Err(found(other, "!, identifier, or 'end of string'")),
            }
            self.requirement().map_err(|cause| format!("unable to parse requirement: {cause}"))?;
            match self.next() {
                Token::End => return Ok(()),
                Token::Symbol(",") => match self.peek() {
                    Token::Word(_) | Token::Symbol("!") => {}
                    other => return Err(found(other, "identifier after ','")),
                },
                other => return Err(found(other, "',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<(), String> {
        let absent = self.peek() == Token::Symbol("!");
        if absent {
            self.next();
        }
        let Token::Word(key) = self.peek() else { return Err(found(self.peek(), "identifier")) };
        self.next();
        check_key(key)?;
        if absent || matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(());
        }
        match self.next() {
            Token::Word("in" | "notin") => {
                let values = self.values()?;
                if values.is_empty() {
                    return Err("for 'in', 'notin' operators, values set can't be empty".to_owned());
                }
                values.into_iter().try_for_each(|value| check_value(key, value))
            }
            Token::Symbol("=" | "==" | "!=") => check_value(key, self.value()?),
            Token::Symbol(">" | "<") => {
                let value = self.value()?;
                if value.parse::<i64>().is_err() {
                    let problem = "for 'Gt', 'Lt' operators, the value must be an integer";
                    return Err(format!("Invalid value: \"{value}\": {problem}"));
                }
                check_value(key, value)
            }
            other => Err(found(other, OPERATORS)),
        }
    }

    /// The one value after a sign; nothing at all is the empty one.
    fn value(&mut self) -> Result<&'a str, String> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(""),
            Token::Word(value) => {
                self.next();
                Ok(value)
            }
            other => Err(found(other, "identifier")),
        }
    }

    /// The values in parentheses. Between two commas, and beside a parenthesis, stands the empty one.
    fn values(&mut self) -> Result<Vec<&'a str>, String> {
        let open = self.next();
        if open != Token::Symbol("(") {
            return Err(found(open, "'('"));
        }
        let mut values = Vec::new();
        if self.peek() == Token::Symbol(")") {
            self.next();
            return Ok(values);
        }
        loop {
            match self.peek() {
                Token::Word(value) => {
                    self.next();
                    values.push(value);
                }
                Token::Symbol("," | ")") => values.push(""),
                other => return Err(found(other, "',', ')' or identifier")),
            }
            match self.next() {
                Token::Symbol(",") => {}
                Token::Symbol(")") => return Ok(values),
                other => return Err(found(other, "',' or ')'")),
            }
        }
    }
}

fn found(token: Token<'_>, expected: &str) -> String {
    format!("found '{}', expected: {expected}", token.text())
}

/// A key: a name, with or without a DNS subdomain and `/` before it.
fn check_key(key: &str) -> Result<(), String> {
    let invalid = |problem: &str| Err(format!("Invalid value: \"{key}\": {problem}"));
    let name = match key.split_once('/') {
        None => key,
        Some(("", _)) => return invalid("prefix part must be non-empty"),
        Some((_, name)) if name.contains('/') => {
            return invalid("a qualified name must consist of a name and at most one prefix before '/'");
        }
        Some((prefix, _)) if prefix.len() > MAX_PREFIX => {
            return invalid(&format!("prefix part must be no more than {MAX_PREFIX} characters"));
        }
        Some((prefix, _)) if !prefix.split('.').all(is_dns_label) => return invalid(&format!("prefix part {PREFIX}")),
        Some((_, name)) => name,
    };
    match name {
        "" => invalid("name part must be non-empty"),
        name if name.len() > MAX_LABEL => invalid(&format!("name part must be no more than {MAX_LABEL} characters")),
        name if !is_name(name) => invalid(&format!("name part {NAME}")),
        _ => Ok(()),
    }
}

fn check_value(key: &str, value: &str) -> Result<(), String> {
    let invalid = |problem: &str| Err(format!("value of {key}: Invalid value: \"{value}\": {problem}"));
    if value.len() > MAX_LABEL {
        return invalid(&format!("must be no more than {MAX_LABEL} characters"));
    }
    if value.is_empty() || is_name(value) {
        return Ok(());
    }
    invalid(&format!("a valid label must be an empty string or {}", NAME.trim_start_matches("must ")))
}

fn is_name(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let inside = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte));
    edge(bytes.first()) && edge(bytes.last()) && inside
}

fn is_dns_label(text: &str) -> bool {
    is_name(text) && text.bytes().all(|byte| !byte.is_ascii_uppercase() && !b"_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_accepts_is_accepted() {
        for text in [
            "app=demo",
            "app in (demo1, demo2)",
            "app in (demo1, demo2),deploy in (deploy1, deploy2)",
            "app=backend, deploy notin (critical, monolith)",
            " app == demo , !legacy,track , n>4 , n<10",
            "app!=demo,app.kubernetes.io/name=x",
            "app=",
            "app=,b",
            "a in (,)",
            "a in (x,,y)",
            "a in (,x)",
            "in in (in,notin)",
            "in=notin",
            "! a",
            "a\tnotin\n(b)",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        let long = "x".repeat(63);
        assert_eq!(check(&format!("{long}={long}")), Ok(()));
    }

    #[test]
    fn what_is_refused_is_told_in_the_words_of_the_api_server() {
        let requirement = |cause: &str| format!("unable to parse requirement: {cause}");
        for (text, message) in [
            ("=a", "found '=', expected: !, identifier, or 'end of string'".to_owned()),
            ("a=b,", "found '', expected: identifier after ','".to_owned()),
            ("a=b c", "found 'c', expected: ',' or 'end of string'".to_owned()),
            ("!a in (b)", "found 'in', expected: ',' or 'end of string'".to_owned()),
            ("a b", requirement("found 'b', expected: in, notin, =, ==, !=, gt, lt")),
            ("!", requirement("found '', expected: identifier")),
            ("!=a", "found '!=', expected: !, identifier, or 'end of string'".to_owned()),
            ("a===b", requirement("found '=', expected: identifier")),
            ("a in b", requirement("found 'b', expected: '('")),
            ("a in (b", requirement("found '', expected: ',' or ')'")),
            ("a in (b c)", requirement("found 'c', expected: ',' or ')'")),
            ("a in (", requirement("found '', expected: ',', ')' or identifier")),
            ("a in (=)", requirement("found '=', expected: ',', ')' or identifier")),
            ("a in ()", requirement("for 'in', 'notin' operators, values set can't be empty")),
            ("a>x", requirement("Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer")),
        ] {
            assert_eq!(check(text), Err(message), "{text}");
        }
    }

    #[test]
    fn keys_and_values_must_be_those_of_labels() {
        for (text, part) in [
            ("a@b=c", "name part must consist of letters"),
            ("-a", "name part must consist of letters"),
            ("a/b/c", "at most one prefix before '/'"),
            ("/b", "prefix part must be non-empty"),
            ("a/=c", "name part must be non-empty"),
            ("A.b/c", "prefix part must consist of lower case letters"),
            ("a..b/c", "prefix part must consist of lower case letters"),
            ("a=-b", "value of a: Invalid value: \"-b\": a valid label must be an empty string or consist of"),
            ("a in (b, c_)", "Invalid value: \"c_\""),
            ("a>-5", "Invalid value: \"-5\""),
            ("ä=b", "Invalid value: \"ä\""),
        ] {
            let message = check(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
        assert!(check(&"x".repeat(64)).unwrap_err().contains("no more than 63"));
        assert!(check(&format!("a={}", "x".repeat(64))).unwrap_err().contains("no more than 63"));
        assert!(check(&format!("{}/b", "x".repeat(254))).unwrap_err().contains("no more than 253"));
    }
}
