//! As much of PromQL as it takes to see which metrics and labels a query names. Whether it is PromQL is promtool's to say.

/// What a query names.
#[derive(Debug, Default, PartialEq)]
pub struct Query {
    /// Metrics, each with the labels that are matched.
    pub metrics: Vec<(String, Vec<String>)>,
    /// Labels that are kept in an aggregation: `by`.
    pub kept: Vec<String>,
    /// Labels of `without`, `on`, `ignoring`, `group_left`, `group_right`.
    pub other: Vec<String>,
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

const OPERATORS: [&str; 6] = ["and", "or", "unless", "bool", "offset", "atan2"];
const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Whether what comes before this is called, and no metric.
fn calls(next: &Token) -> bool {
    match next {
        Token::Sign(sign) => *sign == '(',
        Token::Word(word) => word == "by" || word == "without",
        Token::Text(_) => false,
    }
}

/// Reads a query.
pub fn read(expression: &str) -> Query {
    let mut query = Query::default();
    let mut tokens = tokens(expression).into_iter().peekable();
    while let Some(token) = tokens.next() {
        let opened = |sign| move |next: &Token| *next == Token::Sign(sign);
        match token {
            Token::Word(word) if GROUPINGS.contains(&word.as_str()) => {
                if tokens.next_if(opened('(')).is_some() {
                    let labels = until(&mut tokens, ')').into_iter().filter_map(word_of);
                    if word == "by" { &mut query.kept } else { &mut query.other }.extend(labels);
                }
            }
            Token::Word(word) if OPERATORS.contains(&word.as_str()) => {}
            // A function, or an aggregation whose labels come first.
            Token::Word(_) if tokens.peek().is_some_and(calls) => {}
            Token::Word(name) => {
                let matched = tokens.next_if(opened('{')).map(|_| until(&mut tokens, '}')).unwrap_or_default();
                query.metrics.push((name, matched.into_iter().filter_map(word_of).collect()));
            }
            // A selector by `__name__`, which may name several.
            Token::Sign('{') => {
                let matched = until(&mut tokens, '}');
                let names = matched.iter().find_map(|token| match token {
                    Token::Text(text) => Some(text.clone()),
                    _ => None,
                });
                query.metrics.extend(names.iter().flat_map(|names| names.split('|')).map(|name| (name.into(), vec![])));
            }
            // A range: `[5m]`.
            Token::Sign('[') => drop(until(&mut tokens, ']')),
            Token::Text(_) | Token::Sign(_) => {}
        }
    }
    query
}

fn word_of(token: Token) -> Option<String> {
    match token {
        Token::Word(word) => Some(word),
        _ => None,
    }
}

fn until(tokens: &mut impl Iterator<Item = Token>, end: char) -> Vec<Token> {
    tokens.take_while(|token| *token != Token::Sign(end)).collect()
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let length = match first {
            '"' => rest[1..].find('"').expect("a string ends") + 2,
            c if word(c) => rest.find(|c| !word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        match first {
            '"' => tokens.push(Token::Text(token.trim_matches('"').to_owned())),
            // A number, or a duration.
            c if c.is_ascii_digit() => {}
            c if word(c) => tokens.push(Token::Word(token.to_owned())),
            c => tokens.push(Token::Sign(c)),
        }
        rest = after.trim_start();
    }
    tokens
}

/// The labels that a legend shows: `{{label}}`.
pub fn labels_in_legend(text: &str) -> Vec<String> {
    let parts = text.split("{{").skip(1).filter_map(|part| part.split_once("}}"));
    parts.map(|(label, _)| label.trim().to_owned()).collect()
}

/// The labels that an annotation shows: `$labels.label`.
pub fn labels_in_annotation(text: &str) -> Vec<String> {
    let end = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let parts = text.split("$labels.").skip(1);
    parts.map(|part| part[..part.find(end).unwrap_or(part.len())].to_owned()).collect()
}

#[test]
fn metrics_matchers_and_groupings_of_a_query_are_found() {
    let query = read(
        r#"topk(10, sum by (le, a) (rate(x_total{b=~"q|r", c!="s"}[5m] offset 1h)) / on (d) group_left up) unless z == bool 2"#,
    );
    let metric = |name: &str, labels: &[&str]| (name.to_owned(), labels.iter().map(|l| (*l).to_owned()).collect());
    let expected = Query {
        metrics: vec![metric("x_total", &["b", "c"]), metric("up", &[]), metric("z", &[])],
        kept: vec!["le".into(), "a".into()],
        other: vec!["d".into()],
    };
    assert_eq!(query, expected);
    assert_eq!(read(r#"{__name__=~"x|y"}"#).metrics, [metric("x", &[]), metric("y", &[])]);
    assert_eq!(labels_in_legend("{{a}}/{{ b }}: c"), ["a", "b"]);
    assert_eq!(labels_in_annotation("{{ or $labels.a $labels.b_c }}: c"), ["a", "b_c"]);
}
