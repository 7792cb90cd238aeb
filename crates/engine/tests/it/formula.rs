//! The formula language against hand-written results, and against another implementation of the same language.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tidemark_engine::formula::{CompileProblem, EvalProblem, Formula, Value};

/// The triggers that formulas may name, and their values.
pub const TRIGGERS: [(&str, Option<f64>); 4] = [("a", Some(2.0)), ("b", Some(0.5)), ("c", Some(-3.0)), ("d", None)];

/// What a formula yields, written out. Errors are told apart only as far as implementations may differ.
#[derive(Debug, Clone, PartialEq)]
pub enum Result {
    Value(String),
    Error,
    /// The types do not fit, which only a compiler that knows types can tell.
    Refused,
    /// A limit or an integer that does not fit: other implementations have none, or compute on with other numbers.
    Bounded,
}

fn float(value: f64) -> String {
    // One NaN is as good as another.
    if value.is_nan() { "NaN".into() } else { format!("{value:?}") }
}

fn written(value: &Value) -> String {
    match value {
        Value::Nil => "nil".into(),
        Value::Bool(truth) => truth.to_string(),
        Value::Int(int) => int.to_string(),
        Value::Float(value) => float(*value),
        Value::String(text) => format!("{text:?}"),
        Value::Array(items) => format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(", ")),
        // A map is seen through its members.
        Value::Map(map) => format!("map of {}", map.len()),
    }
}

pub fn ours(text: &str) -> Result {
    let names: Vec<&str> = TRIGGERS.iter().map(|(name, _)| *name).collect();
    let formula = match Formula::compile(text, &names) {
        Ok(formula) => formula,
        Err(error) => {
            return match error.problem {
                CompileProblem::Type(_) | CompileProblem::UnknownName { .. } => Result::Refused,
                CompileProblem::TooDeep | CompileProblem::TooLong(_) => Result::Bounded,
                _ => Result::Error,
            };
        }
    };
    match formula.evaluate(&|name| TRIGGERS.iter().find(|(known, _)| *known == name).and_then(|(_, value)| *value)) {
        Ok(value) => Result::Value(written(&value)),
        Err(error) => match error.problem {
            EvalProblem::Overflow(_)
            | EvalProblem::TooManySteps
            | EvalProblem::TooMuchMemory
            | EvalProblem::TooDeep => Result::Bounded,
            _ => Result::Error,
        },
    }
}

fn written_by_oracle(value: &expr::Value) -> String {
    match value {
        expr::Value::Nil => "nil".into(),
        expr::Value::Bool(truth) => truth.to_string(),
        expr::Value::Integer(int) => int.to_string(),
        expr::Value::Float(value) => float(*value),
        expr::Value::String(text) => format!("{text:?}"),
        expr::Value::Array(items) => {
            format!("[{}]", items.iter().map(written_by_oracle).collect::<Vec<_>>().join(", "))
        }
        expr::Value::Map(map) => format!("map of {}", map.len()),
        expr::Value::KeyedMap(pairs) => format!("map of {}", pairs.len()),
        other => format!("{other:?}"),
    }
}

pub fn oracle(text: &str) -> Result {
    let mut context = expr::Context::default();
    for (name, value) in TRIGGERS {
        context.insert(name, value.map_or(expr::Value::Nil, expr::Value::Float));
    }
    match catch_unwind(AssertUnwindSafe(|| expr::eval(text, &context))) {
        Ok(Ok(value)) => Result::Value(written_by_oracle(&value)),
        _ => Result::Error,
    }
}

/// Formulas and what they yield.
#[rustfmt::skip]
pub const RESULTS: &[(&str, &str)] = &[
    // Literals and blanks.
    ("42", "42"), ("0x2A", "42"), ("0o52", "42"), ("0b101010", "42"), ("1_000", "1000"), ("0.5", "0.5"), (".5", "0.5"),
    ("1e3", "1000.0"), ("1.5e-3", "0.0015"), ("2.", "2.0"), ("010", "10"), ("true", "true"), ("nil", "nil"),
    ("\"a\\n\\t\\\"\\u00e9\\x41\"", "\"a\\n\\t\\\"éA\""), ("'it''s' == 'it'", "error"), ("'\"'", "\"\\\"\""),
    ("`raw \\n`", "\"raw \\\\n\""), ("[1, 2.5, \"x\",]", "[1, 2.5, \"x\"]"), ("{a: 1, 'b c': 2,}['b c']", "2"),
    ("{1: \"one\"}[\"1\"]", "\"one\""), ("{(\"a\" + \"b\"): 3}.ab", "3"),
    ("1 /* one */ + // and\n 2", "3"), (" \t\n1\r\n", "1"),
    // Arithmetic: whole numbers stay whole, but for quotients and powers.
    ("1 + 2 * 3", "7"), ("7 - 2 - 1", "4"), ("5 / 2", "2.5"), ("4 / 2", "2.0"), ("8 / 4 / 2", "1.0"), ("7 % 3", "1"),
    ("-7 % 3", "-1"), ("2 ** 3", "8.0"), ("2 ^ 3 ** 2", "512.0"), ("-2 ** 2", "-4.0"), ("2 ** -1", "0.5"),
    ("1 + 0.5", "1.5"), ("1.5 * 2", "3.0"), ("a + 1", "3.0"), ("1 / 0", "inf"), ("-1 / 0", "-inf"), ("0 / 0", "NaN"),
    ("1 % 0", "error"), ("+3", "3"), ("- -3", "3"), ("\"a\" + \"b\"", "\"ab\""),
    // Comparisons and logic.
    ("1 == 1.0", "true"), ("1 != 2", "true"), ("1 < 1.5", "true"), ("\"a\" < \"b\"", "true"), ("1 < 2 < 3", "true"),
    ("1 < 3 < 2", "false"), ("1 < 2 == true", "true"), ("nil == nil", "true"), ("a == nil", "false"), ("d == nil", "true"),
    ("[1, 2] == [1.0, 2]", "true"), ("[1] == [1, 2]", "false"), ("0 / 0 == 0 / 0", "false"), ("0 / 0 < 1", "false"),
    ("not true", "false"), ("!true or true", "true"), ("not (1 == 2)", "true"), ("true and false or true", "true"),
    ("true || false && false", "true"), ("false and 1 % 0 == 1", "false"), ("true or 1 % 0 == 1", "true"),
    ("1 in [1, 2]", "true"), ("1.0 in [1, 2]", "true"), ("3 not in [1, 2]", "true"), ("not (1 in [1, 2])", "false"),
    ("\"x\" in {x: 1}", "true"), ("\"y\" in {x: 1}", "false"), ("nil in [nil, 1]", "true"),
    ("\"hello\" contains \"ell\"", "true"), ("\"hello\" startsWith \"he\"", "true"), ("\"hello\" endsWith \"he\"", "false"),
    ("\"hello\" not contains \"x\"", "true"), ("\"hello\" matches \"^h.l+o$\"", "true"), ("\"hello\" not matches \"x\"", "true"),
    // Choices.
    ("a > 1 ? 10 : 20", "10"), ("a > 9 ? 10 : b > 9 ? 20 : 30", "30"), ("true ?: false", "true"), ("false ?: true", "true"),
    ("if a > 1 { 1 } else { 2 }", "1"), ("if a > 9 { 1 } else if b > 9 { 2 } else { 3 }", "3"),
    ("if true { let x = 2; x * 3 } else { 0 }", "6"), ("1 ? 2 : 3", "error"),
    ("d ?? 5", "5"), ("a ?? 5", "2.0"), ("d ?? nil ?? 7", "7"), ("1 + d ?? 5", "6"), ("1 + d ?? 5 + 2", "8"),
    ("d ?? 1 + 2", "error"), ("(d ?? 1) + 2", "3"), ("-d ?? 1", "-1"), ("d ?? 1 == 1", "error"),
    // Declarations.
    ("let x = 2; x * 3", "6"), ("let x = 2; let y = x + 1; x * y", "6"), ("(let x = 2; x) + 1", "3"),
    ("let x = [1, 2]; x[1]", "2"), ("let x = 1; map([1, 2], # + x)", "[2, 3]"), ("1; 2", "2"), ("let x = 1; x;", "1"),
    // Members, elements, slices and ranges.
    ("[1, 2, 3][0]", "1"), ("[1, 2, 3][-1]", "3"), ("[1][1]", "error"), ("{a: {b: 5}}.a.b", "5"), ("{a: 1}.b", "nil"),
    ("{a: 1}[\"a\"]", "1"), ("{a: 1}?.b?.c", "nil"), ("{a: 1}.b?.c.d.e", "nil"), ("{a: 1}.b.c", "error"),
    ("nil?.[0]", "nil"), ("{\"not\": 1}.not", "1"), ("{not: 1}", "error"), ("[1, 2, 3, 4][1:3]", "[2, 3]"), ("[1, 2, 3][:2]", "[1, 2]"),
    ("[1, 2, 3][1:]", "[2, 3]"), ("[1, 2, 3][:]", "[1, 2, 3]"), ("[1, 2, 3][-2:]", "[2, 3]"), ("[1, 2][2:1]", "[]"),
    ("[1, 2][99:]", "[]"), ("[1, 2][-99:]", "[1, 2]"), ("\"hello\"[1:3]", "\"el\""), ("1..3", "[1, 2, 3]"), ("3..1", "[]"),
    ("1 + 1..2 + 2", "[2, 3, 4]"), ("-1..1", "[-1, 0, 1]"),
    // Pipes.
    ("[1, 2] | sum()", "3"), ("-5 | abs()", "5"), ("1 + 2 | max(2)", "3"), ("\"a,b\" | split(\",\") | len()", "2"),
    ("[3, 1] | sort() | first()", "1"), ("[1, 2, 3] | filter(# > 1) | map(# * 2)", "[4, 6]"),
    // Predicates.
    ("all([1, 2], # > 0)", "true"), ("all([], # > 0)", "true"), ("any([1, 2], {# > 1})", "true"), ("any([], # > 1)", "false"),
    ("none([1, 2], # > 2)", "true"), ("one([1, 2], # > 1)", "true"), ("one([1, 2], # > 0)", "false"),
    ("map([1, 2], # * 2)", "[2, 4]"), ("map([10, 20], #index)", "[0, 1]"), ("filter([1, 2, 3], {# % 2 == 1})", "[1, 3]"),
    ("find([1, 2, 3], # > 1)", "2"), ("find([1], # > 1)", "nil"), ("findIndex([1, 2], # > 1)", "1"),
    ("findIndex([1], # > 1)", "-1"), ("findLast([1, 2, 3], # < 3)", "2"), ("findLastIndex([1, 2, 3], # < 3)", "1"),
    ("count([1, 2, 3], # > 1)", "2"), ("count([true, false])", "1"), ("sum([1, 2.5])", "3.5"), ("sum([1, 2], # * 3)", "9"),
    ("sum([])", "0"), ("groupBy(1..5, # % 2)[1]", "[1, 3, 5]"), ("sortBy([3, 1, 2], -#)", "[3, 2, 1]"),
    ("sortBy([{v: 2}, {v: 1}], .v)[0].v", "1"), ("sortBy([1, 2], #, \"desc\")", "[2, 1]"),
    ("reduce(1..4, #acc + #)", "10"), ("reduce(1..4, #acc * #, 10)", "240"), ("reduce([], #acc + #)", "error"),
    ("reduce([], #acc + #, 3)", "3"), ("map([[1, 2], [3]], sum(#))", "[3, 3]"), ("map([[1], [2]], {map(#, # * 2)})", "[[2], [4]]"),
    ("filter([{a: 1}, {a: 2}], .a > 1)[0].a", "2"), ("map(1..2, {let y = # * 2; y + 1})", "[3, 5]"),
    ("count([a, b, c], # > 0) > 1 ? max(a, b, c) : 0", "2.0"),
    // Numbers.
    ("max(1, 5, 3)", "5"), ("min(1, 5, -3)", "-3"), ("max([1, [7, 3]], 4)", "7"), ("max(a, b, c)", "2.0"), ("max(1.5, 2)", "2"),
    ("min([])", "nil"), ("mean([1, 2, 3, 4])", "2.5"), ("mean([])", "0.0"), ("mean(1, [2, 6])", "3.0"), ("median([4, 1, 3])", "3.0"),
    ("median([4, 1, 3, 2])", "2.5"), ("median([])", "0.0"), ("abs(-5)", "5"), ("abs(-1.5)", "1.5"), ("ceil(1.2)", "2.0"),
    ("floor(-1.2)", "-2.0"), ("round(1.5)", "2.0"), ("round(-2.5)", "-3.0"), ("round(2)", "2.0"), ("int(2.9)", "2"), ("int(-2.9)", "-2"),
    ("int(\"42\")", "42"), ("int(\"4.2\")", "error"), ("float(3)", "3.0"), ("float(\"1.5\")", "1.5"), ("float(\"x\")", "error"),
    ("bitand(14, 11)", "10"), ("bitor(8, 3)", "11"), ("bitxor(6, 3)", "5"), ("bitnand(14, 11)", "4"), ("bitnot(0)", "-1"),
    ("bitshl(1, 4)", "16"), ("bitshl(1, 70)", "0"), ("bitshr(-16, 2)", "-4"), ("bitushr(-5, 2)", "4611686018427387902"),
    ("bitshl(1, -1)", "error"),
    // Arrays and maps.
    ("len([1, 2])", "2"), ("len({a: 1})", "1"), ("len(\"é🙂\")", "2"), ("first([1, 2])", "1"), ("first([])", "nil"), ("last([1, 2])", "2"),
    ("take([1, 2, 3], 2)", "[1, 2]"), ("take([1], 9)", "[1]"), ("take([1], -1)", "error"), ("reverse([1, 2])", "[2, 1]"),
    ("uniq([1, 2, 1, 1.0])", "[1, 2]"), ("concat([1], [2, 3])", "[1, 2, 3]"), ("flatten([1, [2, [3]]])", "[1, 2, 3]"),
    ("sort([3, 1, 2])", "[1, 2, 3]"), ("sort([3, 1, 2], \"desc\")", "[3, 2, 1]"), ("sort([\"b\", \"a\"])", "[\"a\", \"b\"]"),
    ("sort([1, \"a\"])", "error"), ("sort([2, 1], \"up\")", "error"), ("sort(keys({b: 1, a: 2}))", "[\"a\", \"b\"]"),
    ("sort(values({b: 1, a: 2}))", "[1, 2]"), ("toPairs({a: 1})", "[[\"a\", 1]]"), ("fromPairs([[\"a\", 1]]).a", "1"),
    ("fromPairs([[1]])", "error"), ("get([1, 2], 5)", "nil"), ("get([1, 2], -1)", "2"), ("get({a: 1}, \"b\")", "nil"),
    // Strings.
    ("trim(\"  x \")", "\"x\""), ("trim(\"__x_\", \"_\")", "\"x\""), ("trimPrefix(\"abc\", \"a\")", "\"bc\""),
    ("trimSuffix(\"abc\", \"c\")", "\"ab\""), ("upper(\"aé\")", "\"AÉ\""), ("lower(\"AB\")", "\"ab\""),
    ("split(\"a,b,c\", \",\")", "[\"a\", \"b\", \"c\"]"), ("split(\"a,b,c\", \",\", 2)", "[\"a\", \"b,c\"]"),
    ("split(\"\", \",\")", "[\"\"]"), ("split(\"ab\", \"\")", "[\"a\", \"b\"]"), ("len(split(\"a\", \",\", 0))", "0"),
    ("splitAfter(\"a,b\", \",\")", "[\"a,\", \"b\"]"), ("replace(\"aaa\", \"a\", \"b\", 2)", "\"bba\""),
    ("replace(\"a.b.c\", \".\", \"\")", "\"abc\""), ("repeat(\"ab\", 3)", "\"ababab\""), ("repeat(\"a\", -1)", "error"),
    ("join([\"a\", \"b\"], \"-\")", "\"a-b\""), ("join([\"a\", \"b\"])", "\"ab\""), ("indexOf(\"apple\", \"p\")", "1"),
    ("lastIndexOf(\"apple\", \"p\")", "2"), ("indexOf(\"apple\", \"x\")", "-1"), ("hasPrefix(\"ab\", \"a\")", "true"),
    ("hasSuffix(\"ab\", \"a\")", "false"), ("string(5)", "\"5\""), ("string(1.5)", "\"1.5\""), ("string([1, \"a\"])", "\"[1 a]\""),
    ("string(1 / 0)", "\"+Inf\""), ("string(1.0)", "\"1\""), ("string(1e6)", "\"1e+06\""), ("string(0.00001)", "\"1e-05\""),
    ("string({a: 1})", "\"map[a:1]\""), ("type(nil)", "\"nil\""), ("type(a)", "\"float\""), ("type([])", "\"array\""),
    ("type({})", "\"map\""), ("toBase64(\"hi\")", "\"aGk=\""), ("fromBase64(\"aGk=\")", "\"hi\""), ("fromBase64(\"!\")", "error"),
    ("toJSON({a: [1, 2.5, nil]})", "\"{\\n  \\\"a\\\": [\\n    1,\\n    2.5,\\n    null\\n  ]\\n}\""), ("toJSON(\"<\")", "\"\\\"\\\\u003c\\\"\""),
    ("fromJSON(\"{\\\"a\\\": [1]}\").a[0]", "1.0"), ("fromJSON(\"{\")", "error"), ("fromJSON(\"null\")", "nil"),
    // What is written in scaling modifiers.
    ("a > 5 ? 1 : count([a, b, c], # > 1)", "1"), ("(d ?? 0) + a", "2.0"), ("float(a + b)", "2.5"),
    ("let _kedaCompositeResult = (d ?? a); _kedaCompositeResult == nil ? nil : float(_kedaCompositeResult)", "2.0"),
    ("let _kedaCompositeResult = (d ?? nil); _kedaCompositeResult == nil ? nil : float(_kedaCompositeResult)", "nil"),
];

const UNSUPPORTED: &str = "the other implementation does not parse this";
const PANICS: &str = "the other implementation panics on a container within a literal map";
const COALESCING: &str = "`??` binds tightest, and no operator may follow it without parentheses";

/// Formulas of the list on which the other implementation differs, and why it is not followed.
#[rustfmt::skip]
const ORACLE_DIFFERS: &[(&str, &str)] = &[
    ("\"a\\n\\t\\\"\\u00e9\\x41\"", UNSUPPORTED), ("{1: \"one\"}[\"1\"]", UNSUPPORTED), ("{(\"a\" + \"b\"): 3}.ab", UNSUPPORTED),
    ("- -3", UNSUPPORTED), ("1 < 2 < 3", UNSUPPORTED), ("1 < 3 < 2", UNSUPPORTED),
    ("\"hello\" not contains \"x\"", UNSUPPORTED), ("\"hello\" not matches \"x\"", UNSUPPORTED),
    ("true ?: false", UNSUPPORTED), ("false ?: true", UNSUPPORTED), ("(let x = 2; x) + 1", UNSUPPORTED), ("1; 2", UNSUPPORTED),
    ("let x = 1; x;", UNSUPPORTED), ("sortBy([1, 2], #, \"desc\")", UNSUPPORTED), ("map([[1, 2], [3]], sum(#))", UNSUPPORTED),
    ("filter([{a: 1}, {a: 2}], .a > 1)[0].a", UNSUPPORTED),
    ("{not: 1}", "a word of the language is no key without quotes"), ("d ?? 1 + 2", COALESCING), ("d ?? 1 == 1", COALESCING),
    ("{a: {b: 5}}.a.b", PANICS), ("toJSON({a: [1, 2.5, nil]})", PANICS),
    ("{a: 1}.b?.c.d.e", "`?.` guards all that follows it"),
    ("[1][1]", "an element that is not there is an error"),
    ("split(\"ab\", \"\")", "without a separator a string falls into its characters"),
    ("toJSON(\"<\")", "what matters within HTML is escaped"),
    ("fromJSON(\"{\\\"a\\\": [1]}\").a[0]", "numbers in JSON are floats"),
];

#[test]
fn formulas_yield_what_the_language_defines() {
    let mut wrong = Vec::new();
    for (text, expected) in RESULTS {
        let expected = if *expected == "error" { None } else { Some((*expected).to_owned()) };
        let found = ours(text);
        let right = match &found {
            Result::Value(value) => Some(value) == expected.as_ref(),
            _ => expected.is_none(),
        };
        if !right {
            wrong.push(format!("{text}: expected {expected:?}, found {found:?}"));
        }
        let agrees = match (&found, oracle(text)) {
            (Result::Value(value), Result::Value(other)) => *value == other,
            (Result::Value(_), _) | (_, Result::Value(_)) => false,
            _ => true,
        };
        if agrees == ORACLE_DIFFERS.iter().any(|(known, _)| known == text) {
            let so = if agrees { "now agrees" } else { "differs" };
            wrong.push(format!("{text}: {found:?}, and the other implementation {so}: {:?}", oracle(text)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_formulas_of_the_users_page_compile() {
    let page = include_str!("../../../../docs/formulas.md");
    let (_, table) = page.split_once("## What people write").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let formulas: Vec<&str> = table.lines().filter_map(|line| line.split('`').nth(1)).collect();
    assert!(formulas.len() > 5, "{formulas:?}");
    for text in formulas {
        let compiled = Formula::compile(text, &["a", "b", "c", "queue", "enabled"]);
        assert!(compiled.is_ok_and(|formula| formula.is_fully_typed()), "{text}");
    }
}
