//! Text to tokens.

use super::error::{CompileError, CompileProblem};

/// A piece of the text with its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lexeme<'a> {
    pub(super) token: Token,
    pub(super) offset: usize,
    pub(super) text: &'a str,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Int(i64),
    Float(f64),
    Text(String),
    Name,
    /// An operator, a bracket or a word of the language; which one is in the lexeme's text.
    Symbol,
    End,
}

/// Words that are operators, not names.
const WORDS: [&str; 11] =
    ["not", "in", "or", "and", "matches", "contains", "startsWith", "endsWith", "let", "if", "else"];

/// Longer ones first: the first that fits is taken.
const SYMBOLS: [&str; 34] = [
    "**", "&&", "||", "==", "!=", "<=", ">=", "??", "?.", "..", "::", "+", "-", "*", "/", "%", "^", "<", ">", "!", "=",
    "?", ":", ";", ",", ".", "|", "#", "(", ")", "[", "]", "{", "}",
];

pub(super) fn syntax(offset: usize, message: impl Into<String>) -> CompileError {
    CompileError { offset, problem: CompileProblem::Syntax(message.into()) }
}

/// The tokens of a text; the last one is the end.
pub(super) fn tokens(text: &str) -> Result<Vec<Lexeme<'_>>, CompileError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks()?;
        let offset = lexer.at;
        let Some(first) = lexer.peek() else {
            tokens.push(Lexeme { token: Token::End, offset, text: "" });
            return Ok(tokens);
        };
        let token = lexer.token(first)?;
        tokens.push(Lexeme { token, offset, text: &text[offset..lexer.at] });
    }
}

/// Whether a name may contain this.
fn is_name(character: char) -> bool {
    character == '_' || character == '$' || character.is_alphanumeric()
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += character.len_utf8();
        Some(character)
    }

    fn skip_while(&mut self, wanted: impl Fn(char) -> bool) {
        self.at = self.text.len() - self.rest().trim_start_matches(wanted).len();
    }

    fn skip_blanks(&mut self) -> Result<(), CompileError> {
        loop {
            self.skip_while(char::is_whitespace);
            if self.rest().starts_with("//") {
                self.skip_while(|character| character != '\n');
            } else if let Some(comment) = self.rest().strip_prefix("/*") {
                let Some(end) = comment.find("*/") else { return Err(syntax(self.at, "the comment has no end")) };
                self.at += end + 4;
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self, first: char) -> Result<Token, CompileError> {
        let offset = self.at;
        let second = self.rest()[first.len_utf8()..].chars().next();
        if first.is_ascii_digit() || (first == '.' && second.is_some_and(|digit| digit.is_ascii_digit())) {
            return self.number();
        }
        match first {
            '\'' | '"' => return self.quoted(first).map(Token::Text),
            '`' => return self.raw().map(Token::Text),
            _ if is_name(first) => {
                self.skip_while(is_name);
                let word = &self.text[offset..self.at];
                return Ok(if WORDS.contains(&word) { Token::Symbol } else { Token::Name });
            }
            _ => {}
        }
        let Some(symbol) = SYMBOLS.iter().find(|symbol| self.rest().starts_with(**symbol)) else {
            return Err(syntax(offset, format!("unexpected character {first:?}")));
        };
        // `a ?.5 : b` is a choice, not a member named 5.
        let digit_follows = self.rest()[symbol.len()..].starts_with(|next: char| next.is_ascii_digit());
        self.at += if *symbol == "?." && digit_follows { 1 } else { symbol.len() };
        Ok(Token::Symbol)
    }

    fn number(&mut self) -> Result<Token, CompileError> {
        let offset = self.at;
        let prefix = self.rest().get(..2).unwrap_or_default().to_ascii_lowercase();
        let radix = match prefix.as_str() {
            "0x" => 16,
            "0o" => 8,
            "0b" => 2,
            _ => 10,
        };
        let mut float = false;
        if radix != 10 {
            self.at += 2;
            self.skip_while(|digit| digit.is_digit(radix) || digit == '_');
        } else {
            self.skip_while(|digit| digit.is_ascii_digit() || digit == '_');
            if self.rest().starts_with('.') && !self.rest().starts_with("..") {
                float = true;
                self.at += 1;
                self.skip_while(|digit| digit.is_ascii_digit() || digit == '_');
            }
            if self.rest().starts_with(['e', 'E']) {
                float = true;
                self.at += 1;
                self.at += usize::from(self.rest().starts_with(['+', '-']));
                self.skip_while(|digit| digit.is_ascii_digit() || digit == '_');
            }
        }
        let end = self.at;
        self.skip_while(is_name);
        let text = &self.text[offset..self.at];
        let digits = text.replace('_', "");
        let number = match (end == self.at, float) {
            (false, _) => None,
            (true, true) => digits.parse().ok().filter(|float: &f64| float.is_finite()).map(Token::Float),
            (true, false) => {
                let digits = if radix == 10 { &digits } else { &digits[2..] };
                i64::from_str_radix(digits, radix).ok().map(Token::Int)
            }
        };
        number.ok_or_else(|| syntax(offset, format!("`{text}` is not a number that 64 bits hold")))
    }

    /// A string in backquotes: as it stands, but for a doubled backquote, which is one.
    fn raw(&mut self) -> Result<String, CompileError> {
        let offset = self.at;
        let mut content = String::new();
        self.next();
        while let Some(character) = self.next() {
            if character != '`' {
                content.push(character);
            } else if self.peek() == Some('`') {
                content.push('`');
                self.next();
            } else {
                return Ok(content);
            }
        }
        Err(syntax(offset, "the string has no end"))
    }

    fn quoted(&mut self, quote: char) -> Result<String, CompileError> {
        let offset = self.at;
        let mut content = String::new();
        self.next();
        loop {
            let place = self.at;
            match self.next() {
                None | Some('\n') => return Err(syntax(offset, "the string has no end on its line")),
                Some('\\') => content.push(self.escape(place)?),
                Some(character) if character == quote => return Ok(content),
                Some(character) => content.push(character),
            }
        }
    }

    fn escape(&mut self, place: usize) -> Result<char, CompileError> {
        let wrong = || syntax(place, "unknown escape sequence in the string");
        let code = match self.next().ok_or_else(wrong)? {
            'n' => return Ok('\n'),
            't' => return Ok('\t'),
            'r' => return Ok('\r'),
            'a' => return Ok('\x07'),
            'b' => return Ok('\x08'),
            'f' => return Ok('\x0c'),
            'v' => return Ok('\x0b'),
            quoted @ ('\\' | '\'' | '"' | '`' | '?') => return Ok(quoted),
            'x' | 'X' => self.code(16, 2),
            'u' => self.code(16, 4),
            'U' => self.code(16, 8),
            '0'..='3' => {
                self.at -= 1;
                self.code(8, 3)
            }
            _ => None,
        };
        code.and_then(char::from_u32).ok_or_else(wrong)
    }

    /// A character's number in exactly so many digits.
    fn code(&mut self, radix: u32, digits: usize) -> Option<u32> {
        let text = self.rest().get(..digits)?;
        if !text.chars().all(|digit| digit.is_digit(radix)) {
            return None;
        }
        self.at += digits;
        u32::from_str_radix(text, radix).ok()
    }
}
