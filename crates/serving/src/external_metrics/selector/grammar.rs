//! The text form of label selectors, as Kubernetes reads it.

/// A term of a selector.
#[derive(Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub test: Test,
}

/// What a term asks of its label.
#[derive(Debug, PartialEq, Eq)]
pub enum Test {
    /// `key=value`.
    Equal(String),
    /// Anything else, with the whole term as it is written.
    Other(String),
}

/// The longest name of a label, and its longest value.
const NAME: usize = 63;
/// The longest prefix of a name.
const PREFIX: usize = 253;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'a str),
    End,
}

/// Reads a selector.
///
/// # Errors
/// It is none; the text says where it ends to be one.
pub fn parse(text: &str) -> Result<Vec<Requirement>, String> {
    let mut tokens = Tokens { rest: text };
    let mut requirements = Vec::new();
    if tokens.peek() == Token::End {
        return Ok(requirements);
    }
    loop {
        requirements.push(tokens.requirement()?);
        match tokens.next() {
            Token::End => return Ok(requirements),
            Token::Symbol(",") => {}
            other => return Err(found(other, "',' or the end")),
        }
    }
}

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Token<'a> {
        self.rest = self.rest.trim_start();
        let symbols = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];
        let symbol = symbols.iter().find(|symbol| self.rest.starts_with(**symbol));
        let length = match symbol {
            Some(symbol) => symbol.len(),
            None => self.rest.find(|c: char| "=!(),<>".contains(c) || c.is_whitespace()).unwrap_or(self.rest.len()),
        };
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        match (symbol, token) {
            (Some(_), symbol) => Token::Symbol(symbol),
            (None, "") => Token::End,
            (None, word) => Token::Word(word),
        }
    }

    fn peek(&self) -> Token<'a> {
        Tokens { rest: self.rest }.next()
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let key = match self.next() {
            Token::Symbol("!") => {
                let key = self.key()?;
                let test = Test::Other(format!("!{key}"));
                return Ok(Requirement { key, test });
            }
            token => key(token)?,
        };
        let test = match self.peek() {
            Token::End | Token::Symbol(",") => Test::Other(key.clone()),
            operator => {
                self.next();
                match operator {
                    Token::Symbol("=") => Test::Equal(self.value()?),
                    Token::Symbol(symbol @ ("==" | "!=")) => Test::Other(format!("{key}{symbol}{}", self.value()?)),
                    Token::Symbol(symbol @ (">" | "<")) => Test::Other(format!("{key}{symbol}{}", self.number()?)),
                    Token::Word(word @ ("in" | "notin")) => Test::Other(format!("{key} {word} ({})", self.values()?)),
                    other => return Err(found(other, "in, notin, =, ==, !=, > or <")),
                }
            }
        };
        Ok(Requirement { key, test })
    }

    fn key(&mut self) -> Result<String, String> {
        key(self.next())
    }

    /// One value; none is an empty one.
    fn value(&mut self) -> Result<String, String> {
        match self.peek() {
            Token::Word(word) => {
                self.next();
                value(word)
            }
            Token::End | Token::Symbol(",") => Ok(String::new()),
            other => Err(found(other, "a value")),
        }
    }

    fn number(&mut self) -> Result<i64, String> {
        let text = self.value()?;
        text.parse().map_err(|_| format!("{text:?} is no whole number, as > and < want one"))
    }

    /// Values in parentheses.
    fn values(&mut self) -> Result<String, String> {
        match self.next() {
            Token::Symbol("(") => {}
            other => return Err(found(other, "'('")),
        }
        let mut values = Vec::new();
        loop {
            values.push(match self.peek() {
                Token::Symbol(")") => String::new(),
                _ => self.value()?,
            });
            match self.next() {
                Token::Symbol(",") => {}
                Token::Symbol(")") => return Ok(values.join(",")),
                other => return Err(found(other, "',' or ')'")),
            }
        }
    }
}

fn found(token: Token<'_>, wanted: &str) -> String {
    match token {
        Token::Word(text) | Token::Symbol(text) => format!("the label selector has '{text}' in place of {wanted}"),
        Token::End => format!("the label selector ends in place of {wanted}"),
    }
}

fn key(token: Token<'_>) -> Result<String, String> {
    let Token::Word(key) = token else { return Err(found(token, "a label's name")) };
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let domain = |prefix: &str| prefix.len() <= PREFIX && prefix.split('.').all(is_domain_part);
    match is_name(name) && prefix.is_none_or(domain) {
        true => Ok(key.to_owned()),
        false => Err(format!("{key:?} is no label's name")),
    }
}

fn value(text: &str) -> Result<String, String> {
    if is_name(text) { Ok(text.to_owned()) } else { Err(format!("{text:?} is no label's value")) }
}

/// Whether this is the name of a label, or a value that is not empty.
fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.len() <= NAME && text.bytes().all(inner) && has_sound_ends(text)
}

fn is_domain_part(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.bytes().all(inner) && has_sound_ends(text)
}

fn has_sound_ends(text: &str) -> bool {
    let sound = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    sound(text.bytes().next()) && sound(text.bytes().last())
}
