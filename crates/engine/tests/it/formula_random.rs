//! Random formulas: generated ones against another implementation, mutated ones against what must hold for any text.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::BoxedStrategy;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::formula::{RESULTS, Result, oracle, ours};

#[path = "../../../../fuzz/src/formula.rs"]
mod target;

/// How deep generated formulas nest.
const DEPTH: u32 = 4;

fn joined(
    left: BoxedStrategy<String>,
    operators: &'static [&'static str],
    right: BoxedStrategy<String>,
) -> BoxedStrategy<String> {
    let form = select(vec!["L O R", "LOR", "(L O R)", "L O (R)", "(L) O R"]);
    (left, select(operators), right, form)
        .prop_map(|(left, operator, right, form)| {
            let form = match (operator, form) {
                // The other implementation has another idea of how tightly it binds.
                ("??", _) => "((L) O (R))",
                // Words need blanks around them.
                ("and" | "or" | "in" | "not in", "LOR") => "L O R",
                _ => form,
            };
            form.chars()
                .map(|part| match part {
                    'L' => left.clone(),
                    'O' => operator.to_owned(),
                    'R' => right.clone(),
                    other => other.to_string(),
                })
                .collect()
        })
        .boxed()
}

fn call(function: &'static [&'static str], arguments: BoxedStrategy<String>) -> BoxedStrategy<String> {
    (select(function), arguments).prop_map(|(name, arguments)| format!("{name}({arguments})")).boxed()
}

fn pair(left: BoxedStrategy<String>, between: &'static str, right: BoxedStrategy<String>) -> BoxedStrategy<String> {
    (left, right).prop_map(move |(left, right)| format!("{left}{between}{right}")).boxed()
}

fn leaf(item: bool) -> BoxedStrategy<String> {
    let mut leaves: Vec<String> =
        ["0", "1", "2", "3", "7", "10", "0.5", "2.5", "1e2", "a", "b", "c", "(d ?? 4)", "$env[\"a\"]"]
            .map(str::to_owned)
            .into();
    if item {
        leaves.extend(["#".to_owned(), "#".to_owned()]);
    }
    select(leaves).boxed()
}

fn number(depth: u32, item: bool) -> BoxedStrategy<String> {
    if depth == 0 {
        return leaf(item);
    }
    let n = || number(depth - 1, item);
    let list = || list(depth - 1, item);
    prop_oneof![
        4 => leaf(item),
        6 => joined(n(), &["+", "-", "*", "/", "**", "^", "??"], n()),
        1 => joined(n(), &["%"], n()),
        1 => n().prop_map(|operand| if operand.starts_with('-') { format!("-({operand})") } else { format!("-{operand}") }),
        2 => (truth(depth - 1, item), n(), n()).prop_map(|(condition, then, otherwise)| format!("({condition} ? {then} : {otherwise})")),
        1 => (truth(depth - 1, item), n(), n()).prop_map(|(condition, then, otherwise)| format!("(if {condition} {{ {then} }} else {{ {otherwise} }})")),
        2 => call(&["abs", "ceil", "floor", "round", "int", "float"], n()),
        2 => call(&["max", "min", "mean", "median"], pair(n(), ", ", list())),
        2 => call(&["len", "mean", "median"], list()),
        // Nil goes no further: what the numbers are among which one is nil is not agreed on.
        2 => call(&["first", "last", "max", "min"], list()).prop_map(|call| format!("({call} ?? 3)")),
        1 => (n(), n(), -2..2).prop_map(|(first, second, index)| format!("[{first}, {second}][{index}]")),
        1 => (list(), n()).prop_map(|(list, index)| format!("(get({list}, int({index})) ?? 5)")),
        2 => (list(), select(&["sum", "find", "findIndex"]), number(depth - 1, true)).prop_map(|(list, function, body)| {
            match function {
                "sum" => format!("sum({list}, {{{body}}})"),
                _ => format!("({function}({list}, {{# > {body}}}) ?? 1)"),
            }
        }),
        1 => (list(), number(depth - 1, true)).prop_map(|(list, body)| format!("reduce({list}, {{#acc + {body}}}, 0)")),
        1 => (list(), select(&["len()", "sum()", "max(1)"])).prop_map(|(list, call)| format!("({list} | {call})")),
    ]
    .boxed()
}

fn truth(depth: u32, item: bool) -> BoxedStrategy<String> {
    if depth == 0 {
        return select(vec!["true".to_owned(), "false".to_owned(), "d == nil".to_owned()]).boxed();
    }
    let n = || number(depth - 1, item);
    let t = || truth(depth - 1, item);
    prop_oneof![
        4 => joined(n(), &["==", "!=", "<", "<=", ">", ">="], n()),
        2 => joined(t(), &["and", "or", "&&", "||", "==", "!="], t()),
        1 => t().prop_map(|operand| format!("not ({operand})")),
        1 => t().prop_map(|operand| format!("!({operand})")),
        1 => joined(n(), &["in", "not in"], list(depth - 1, item)),
        1 => (n(), n(), n()).prop_map(|(low, value, high)| format!("({low} < {value} and {value} <= {high})")),
        1 => (select(&["all", "any", "none", "one"]), list(depth - 1, item), truth(depth - 1, true))
            .prop_map(|(function, list, body)| format!("{function}({list}, {{{body}}})")),
    ]
    .boxed()
}

fn list(depth: u32, item: bool) -> BoxedStrategy<String> {
    let short = proptest::collection::vec(leaf(item), 0..4).prop_map(|items| format!("[{}]", items.join(", ")));
    if depth == 0 {
        return short.boxed();
    }
    let l = || list(depth - 1, item);
    prop_oneof![
        3 => short,
        2 => proptest::collection::vec(number(depth - 1, item), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
        1 => (0..5, 0..6).prop_map(|(from, to)| format!("({from}..{to})")),
        2 => (l(), number(depth - 1, true)).prop_map(|(list, body)| format!("map({list}, {{{body}}})")),
        2 => (l(), truth(depth - 1, true)).prop_map(|(list, body)| format!("filter({list}, {{{body}}})")),
        1 => (l(), number(depth - 1, true)).prop_map(|(list, body)| format!("sortBy({list}, {{{body}}})")),
        1 => call(&["sort", "reverse", "uniq", "flatten"], l()),
        1 => call(&["concat"], pair(l(), ", ", l())),
        1 => (l(), 0..4).prop_map(|(list, count)| format!("take({list}, {count})")),
        1 => (l(), -4..5, -4..5).prop_map(|(list, from, to)| format!("{list}[{from}:{to}]")),
    ]
    .boxed()
}

/// Runs as many cases, always the same ones.
fn cases(count: u32) -> TestRunner {
    TestRunner::new(Config {
        cases: count,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..Config::default()
    })
}

#[test]
fn generated_formulas_yield_what_another_implementation_says() {
    let compared = std::cell::Cell::new(0);
    let n = || number(DEPTH - 1, false);
    let declared = (n(), n()).prop_map(|(value, body)| format!("let x = {value}; {body} + x"));
    let formulas = prop_oneof![number(DEPTH, false), truth(DEPTH, false), list(DEPTH, false), declared];
    let outcome = cases(2000).run(&formulas, |text| {
        match (ours(&text), oracle(&text)) {
            (Result::Refused | Result::Bounded, _) => {}
            // It refuses to sort NaN, which here comes first.
            (Result::Value(_), Result::Error) if text.contains("sort") => {}
            (found, expected) => {
                compared.set(compared.get() + i32::from(found != Result::Error));
                prop_assert_eq!(found, expected, "{}", text);
            }
        }
        target::check(text.as_bytes());
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(compared.get() > 1000, "only {} formulas had a value to compare", compared.get());
}

/// A small generator of numbers, so that every run mutates alike.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

const FRAGMENTS: [&str; 48] = [
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "?",
    ":",
    "??",
    "?.",
    "..",
    ".",
    ",",
    ";",
    "|",
    "#",
    "#acc",
    "#index",
    "let x = ",
    "x",
    "if true {",
    "} else {",
    "not ",
    "-",
    " in ",
    " matches ",
    "$env",
    "nil",
    "9223372036854775807",
    "1e308",
    "0",
    "\"",
    "'",
    "`",
    "\\",
    "a",
    "odd name",
    "map(",
    "reduce(",
    "groupBy(",
    "sortBy(",
    "repeat(\"x\",",
    "1..1000",
    "fromJSON(",
    "toJSON(",
    "int(",
    "/*",
    "\u{e9}",
];

/// A text made of the corpus by a few cuts, copies and insertions.
fn mutated(dice: &mut Dice, corpus: &[&str]) -> String {
    let mut text: Vec<char> = corpus[dice.below(corpus.len())].chars().collect();
    for _ in 0..=dice.below(4) {
        let from = dice.below(text.len() + 1);
        let to = (from + dice.below(9)).min(text.len());
        let piece: Vec<char> = match dice.below(4) {
            0 => Vec::new(),
            1 => FRAGMENTS[dice.below(FRAGMENTS.len())].chars().collect(),
            2 => text[from..to].repeat(1 + dice.below(40)),
            _ => corpus[dice.below(corpus.len())].chars().collect(),
        };
        let to = if dice.below(2) == 0 { from } else { to };
        text.splice(from..to, piece);
    }
    text.into_iter().collect()
}

#[test]
fn mutated_formulas_neither_panic_nor_break_the_promise_of_their_types() {
    let corpus: Vec<&str> = RESULTS.iter().map(|(text, _)| *text).collect();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..20_000 {
        let text = mutated(&mut dice, &corpus);
        let checked = std::panic::catch_unwind(|| target::check(text.as_bytes()));
        assert!(checked.is_ok(), "{text}");
    }
}
