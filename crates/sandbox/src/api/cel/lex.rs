//! From the text of an expression to its words.

use std::fmt;

use super::parse::Mistake;

/// A word, and how many characters are before it.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub at: usize,
    pub kind: TokenKind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenKind {
    Int(u64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Ident(String),
    Symbol(&'static str),
    End,
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => write!(f, "{number}"),
            Self::Uint(number) => write!(f, "{number}u"),
            Self::Double(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bytes(_) => f.write_str("bytes"),
            Self::Ident(name) => f.write_str(name),
            Self::Symbol(symbol) => f.write_str(symbol),
            Self::End => f.write_str("<EOF>"),
        }
    }
}

/// Longer ones first.
const SYMBOLS: &[&str] = &[
    "<=", ">=", "==", "!=", "&&", "||", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}",
];

/// The words of an expression; the last is the end.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Mistake> {
    let mut lexer = Lexer { rest: text.chars().collect(), at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip();
        let at = lexer.at;
        let kind = lexer.token()?;
        let end = kind == TokenKind::End;
        tokens.push(Token { at, kind });
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer {
    rest: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.rest.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn skip(&mut self) {
        loop {
            if self.at < self.rest.len() && self.peek(0).is_whitespace() {
                self.at += 1;
            } else if self.peek(0) == '/' && self.peek(1) == '/' {
                while self.at < self.rest.len() && self.peek(0) != '\n' {
                    self.at += 1;
                }
            } else {
                return;
            }
        }
    }

    fn mistake(&self, message: impl Into<String>) -> Mistake {
        Mistake { at: self.at, message: format!("Syntax error: {}", message.into()) }
    }

    fn token(&mut self) -> Result<TokenKind, Mistake> {
        if self.at >= self.rest.len() {
            return Ok(TokenKind::End);
        }
        let first = self.peek(0);
        if first.is_ascii_digit() || first == '.' && self.peek(1).is_ascii_digit() {
            return self.number();
        }
        let mut prefix = 0;
        while prefix < 2 && matches!(self.peek(prefix), 'r' | 'R' | 'b' | 'B') {
            prefix += 1;
        }
        if matches!(self.peek(prefix), '"' | '\'') {
            let letters: String = self.rest[self.at..self.at + prefix].iter().collect::<String>().to_lowercase();
            self.at += prefix;
            return self.text(letters.contains('r'), letters.contains('b'));
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let start = self.at;
            while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == '_' {
                self.at += 1;
            }
            return Ok(TokenKind::Ident(self.rest[start..self.at].iter().collect()));
        }
        for symbol in SYMBOLS {
            if symbol.chars().enumerate().all(|(ahead, character)| self.peek(ahead) == character) {
                self.at += symbol.len();
                return Ok(TokenKind::Symbol(symbol));
            }
        }
        Err(self.mistake(format!("token recognition error at: '{first}'")))
    }

    fn number(&mut self) -> Result<TokenKind, Mistake> {
        let start = self.at;
        if self.peek(0) == '0' && matches!(self.peek(1), 'x' | 'X') {
            self.at += 2;
            while self.peek(0).is_ascii_hexdigit() {
                self.at += 1;
            }
            let digits: String = self.rest[start + 2..self.at].iter().collect();
            let number = u64::from_str_radix(&digits, 16).map_err(|_| self.mistake("invalid int literal"))?;
            return Ok(self.whole(number));
        }
        let mut fraction = false;
        loop {
            match self.peek(0) {
                '0'..='9' => {}
                '.' if !fraction && self.peek(1).is_ascii_digit() => fraction = true,
                'e' | 'E' if self.peek(1).is_ascii_digit() || matches!(self.peek(1), '+' | '-') => {
                    fraction = true;
                    self.at += 1;
                }
                _ => break,
            }
            self.at += 1;
        }
        let text: String = self.rest[start..self.at].iter().collect();
        if fraction {
            return text.parse().map(TokenKind::Double).map_err(|_| self.mistake("invalid double literal"));
        }
        let number = text.parse().map_err(|_| self.mistake("invalid int literal"))?;
        Ok(self.whole(number))
    }

    fn whole(&mut self, number: u64) -> TokenKind {
        if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            return TokenKind::Uint(number);
        }
        TokenKind::Int(number)
    }

    fn text(&mut self, raw: bool, bytes: bool) -> Result<TokenKind, Mistake> {
        let quote = self.peek(0);
        let triple = self.peek(1) == quote && self.peek(2) == quote;
        let length = if triple { 3 } else { 1 };
        self.at += length;
        let mut out: Vec<u8> = Vec::new();
        loop {
            if self.at >= self.rest.len() || (!triple && self.peek(0) == '\n') {
                return Err(self.mistake("token recognition error: unterminated string"));
            }
            if (0..length).all(|ahead| self.peek(ahead) == quote) {
                self.at += length;
                break;
            }
            let character = self.peek(0);
            self.at += 1;
            if character == '\\' && !raw {
                self.escape(bytes, &mut out)?;
            } else {
                out.extend(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        if bytes {
            return Ok(TokenKind::Bytes(out));
        }
        String::from_utf8(out).map(TokenKind::Text).map_err(|_| self.mistake("invalid string literal"))
    }

    fn escape(&mut self, bytes: bool, out: &mut Vec<u8>) -> Result<(), Mistake> {
        let letter = self.peek(0);
        self.at += 1;
        let plain = match letter {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '?' | '"' | '\'' | '`' => letter,
            'x' | 'X' => return self.code(2, 16, bytes, out),
            'u' => return self.code(4, 16, false, out),
            'U' => return self.code(8, 16, false, out),
            '0'..='3' => {
                self.at -= 1;
                return self.code(3, 8, bytes, out);
            }
            other => return Err(self.mistake(format!("invalid escape: \\{other}"))),
        };
        out.extend(plain.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn code(&mut self, digits: usize, base: u32, byte: bool, out: &mut Vec<u8>) -> Result<(), Mistake> {
        let text: String = (0..digits).map(|ahead| self.peek(ahead)).collect();
        let number = u32::from_str_radix(&text, base).map_err(|_| self.mistake("invalid escape"))?;
        self.at += digits;
        match (byte, u8::try_from(number), char::from_u32(number)) {
            (true, Ok(one), _) => out.push(one),
            (_, _, Some(character)) => out.extend(character.encode_utf8(&mut [0; 4]).as_bytes()),
            _ => return Err(self.mistake("invalid escape")),
        }
        Ok(())
    }
}
