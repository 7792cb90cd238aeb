use super::*;

const TRIGGERS: [&str; 5] = ["queue", "latency", "max_jobs", "odd name", "count"];

fn value_of(name: &str) -> Option<f64> {
    match name {
        "queue" => Some(12.0),
        "latency" => Some(0.25),
        "odd name" => Some(7.0),
        "count" => Some(3.0),
        _ => None,
    }
}

fn result(text: &str) -> Result<Value, EvalError> {
    let formula = Formula::compile(text, &TRIGGERS).unwrap_or_else(|error| panic!("{text}: {error}"));
    formula.evaluate(&value_of)
}

fn number(text: &str) -> f64 {
    let value = result(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    value.as_f64().unwrap_or_else(|| panic!("{text} is {value:?}"))
}

fn refusal(text: &str) -> CompileError {
    match Formula::compile(text, &TRIGGERS) {
        Ok(_) => panic!("{text} compiles"),
        Err(error) => error,
    }
}

fn refused(text: &str) -> (usize, String) {
    let error = refusal(text);
    (error.offset, error.to_string())
}

fn failure(text: &str) -> (usize, String) {
    let error = result(text).expect_err(text);
    (error.offset, error.to_string())
}

#[test]
fn what_scaling_modifiers_wrap_around_a_formula_works() {
    assert_eq!(number("float(queue + latency)"), 12.25);
    let wrapped = |formula: &str| {
        format!(
            "let _kedaCompositeResult = ({formula}); _kedaCompositeResult == nil ? nil : float(_kedaCompositeResult)"
        )
    };
    assert_eq!(result(&wrapped("max_jobs ?? nil")), Ok(Value::Nil));
    assert_eq!(number(&wrapped("max_jobs ?? queue")), 12.0);
    assert_eq!(number(&wrapped("max_jobs ?? 4")), 4.0);
}

#[test]
fn every_name_used_is_listed_once_and_only_those() {
    let names = |text| Formula::compile(text, &TRIGGERS).unwrap().names().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names("latency * 2 + queue + latency"), ["latency", "queue"]);
    assert_eq!(names("true ? 1 : $env[\"odd name\"]"), ["odd name"]);
    assert_eq!(names("len($env)"), TRIGGERS);
    assert_eq!(names("1"), [""; 0]);
}

#[test]
fn a_trigger_keeps_its_name_even_if_a_function_has_it() {
    assert_eq!(number("count + count([true, false])"), 4.0);
}

#[test]
fn names_that_are_no_identifiers_are_reached_through_env() {
    assert_eq!(number("$env[\"odd name\"] * 2"), 14.0);
    assert_eq!(number("$env.queue"), 12.0);
    assert_eq!(result("$env?.[\"nobody\"]"), Ok(Value::Nil));
    assert_eq!(result("\"queue\" in $env"), Ok(Value::Bool(true)));
    assert_eq!(refused("1 + $env[\"od name\"]"), (4, "unknown name `od name`; did you mean `odd name`?".to_owned()));
}

#[test]
fn unknown_names_are_refused_in_branches_that_never_run() {
    assert_eq!(refused("true ? queue : latncy"), (15, "unknown name `latncy`; did you mean `latency`?".to_owned()));
    assert_eq!(refused("false and nothing_like_it"), (10, "unknown name `nothing_like_it`".to_owned()));
    assert_eq!(refused("mx(1, 2)"), (0, "unknown function `mx`; did you mean `max`?".to_owned()));
    assert_eq!(refused("queue(1)"), (0, "`queue` is a value and cannot be called".to_owned()));
}

#[test]
fn types_that_never_fit_are_refused_in_all_branches() {
    for (text, offset, message) in [
        ("float(true)", 0, "`float` takes int or float or string, not bool"),
        ("true ? 1 : float(queue > 1)", 11, "`float` takes int or float or string, not bool"),
        ("queue + \"1\"", 6, "`+` cannot join float and string"),
        ("1 + (queue > 2)", 2, "`+` cannot join int and bool"),
        ("queue % 2", 6, "`%` cannot join float and int: it takes integers; use int(...)"),
        ("1..queue", 1, "`..` cannot join int and float: it takes integers; use int(...)"),
        ("queue ? 1 : 2", 0, "a condition takes bool, not float"),
        ("not queue", 0, "`not` takes bool, not float"),
        ("queue and true", 6, "`and` cannot join float and bool"),
        ("-\"x\"", 0, "a sign takes int or float, not string"),
        ("queue == \"12\"", 6, "`==` cannot join float and string"),
        ("queue.size", 5, "taking a member takes array or map, not float"),
        ("[1, 2][queue]", 7, "the index of an array takes int, not float; use int(...)"),
        ("[1, 2][queue:]", 7, "the bound of a slice takes int, not float; use int(...)"),
        ("filter([1], # + 1)", 12, "the predicate of `filter` takes bool, not int"),
        ("sum([\"a\"])", 0, "`sum` takes int or float, not string"),
        ("max([true])", 0, "an array for `max` takes int or float or array, not bool"),
        ("nil + 1", 4, "`+` cannot join nil and int"),
        ("(queue > 1 ? true : \"x\") * 2", 25, "`*` cannot join bool or string and int"),
        ("\"a\" in [1, 2]", 4, "string is never in array of int"),
        ("len(queue)", 0, "`len` takes string or array or map, not float"),
    ] {
        assert_eq!(refused(text), (offset, message.to_owned()), "{text}");
    }
}

#[test]
fn syntax_errors_tell_where_and_what_was_wanted() {
    for (text, offset, message) in [
        ("queue +", 7, "expected a value, found the end of the formula"),
        ("(queue", 6, "expected `)`, found the end of the formula"),
        ("queue queue", 6, "expected an operator or the end, found `queue`"),
        ("max(1 2)", 6, "expected `,` or `)`, found `2`"),
        ("queue ?? 1 + 2", 11, "`+` cannot follow `??`: put one of the two into parentheses"),
        ("let queue = 1; queue", 4, "`queue` has a meaning already, take another name"),
        ("let x = 1 x", 10, "expected `;`, found `x`"),
        ("1x", 0, "`1x` is not a number that 64 bits hold"),
        ("9223372036854775808", 0, "`9223372036854775808` is not a number that 64 bits hold"),
        ("1e999", 0, "`1e999` is not a number that 64 bits hold"),
        ("\"abc", 0, "the string has no end on its line"),
        ("1 /* never", 2, "the comment has no end"),
        ("queue @ 2", 6, "unexpected character '@'"),
        ("# > 1", 0, "`#` and `.field` have a meaning only within a predicate, as in `filter(list, # > 1)`"),
        ("queue.foo()", 6, "values have no methods: write `foo(...)` or `| foo(...)`"),
        ("abs()", 0, "`abs` takes 1 argument, not 0"),
        ("filter([1])", 0, "`filter` takes 2 arguments, not 1"),
        ("split(\"a\")", 0, "`split` takes 2 to 3 arguments, not 1"),
        ("max()", 0, "`max` takes at least 1 arguments, not 0"),
        ("\"a\" matches \"(\"", 12, "not a regular expression: unclosed group"),
        ("if true { 1 }", 13, "expected `else`, found the end of the formula"),
    ] {
        assert_eq!(refused(text), (offset, message.to_owned()), "{text}");
    }
    for blank in ["", "  \n", "// nothing", "/* */"] {
        assert_eq!(refusal(blank).problem, CompileProblem::Empty);
    }
}

#[test]
fn the_time_is_out_of_reach() {
    for text in ["now().Hour()", "date(\"2024-01-01\")", "duration(\"1h\")", "timezone(\"UTC\")"] {
        let error = refusal(text);
        assert!(matches!(error.problem, CompileProblem::TimeDependent(_)), "{text}: {error}");
    }
    assert!(refusal("now()").to_string().starts_with("the function `now` is not available"));
}

#[test]
fn a_missing_value_is_named_where_it_is_needed() {
    for (text, offset, message) in [
        ("queue + max_jobs", 6, "`max_jobs` has no value for `+`"),
        ("max_jobs * 2", 9, "`max_jobs` has no value for `*`"),
        ("-max_jobs", 0, "`max_jobs` has no value for `-`"),
        ("float(max_jobs)", 0, "`max_jobs` has no value for `float`"),
        ("max(queue, max_jobs)", 0, "`max_jobs` has no value for `max`"),
        ("max_jobs > 1 ? 1 : 2", 9, "`max_jobs` has no value for `>`"),
        ("sum([queue, max_jobs])", 0, "there is no value (nil) for `sum`"),
        ("find([1], # > 1) + 1", 17, "there is no value (nil) for `+`"),
    ] {
        assert_eq!(failure(text), (offset, message.to_owned()), "{text}");
    }
}

#[test]
fn a_missing_value_can_be_replaced_and_asked_for() {
    assert_eq!(number("(max_jobs ?? 5) + queue"), 17.0);
    assert_eq!(number("max_jobs == nil ? 1 : max_jobs"), 1.0);
    assert_eq!(number("queue ?? max_jobs"), 12.0);
    assert_eq!(result("max_jobs"), Ok(Value::Nil));
    assert_eq!(result("max_jobs != nil"), Ok(Value::Bool(false)));
}

#[test]
fn arithmetic_that_has_no_result_is_an_error_or_infinite() {
    assert_eq!(number("queue / 0"), f64::INFINITY);
    assert_eq!(number("-1 / 0"), f64::NEG_INFINITY);
    assert!(number("0 / 0").is_nan());
    assert_eq!(failure("1 % 0"), (2, "integer division by zero".to_owned()));
    let overflow = |of: &str| format!("the result of `{of}` does not fit a 64 bit integer");
    assert_eq!(failure("9223372036854775807 + 1"), (20, overflow("+")));
    assert_eq!(failure("-9223372036854775807 - 2"), (21, overflow("-")));
    assert_eq!(failure("3037000500 * 3037000500"), (11, overflow("*")));
    assert_eq!(failure("abs(-9223372036854775807 - 1)"), (0, overflow("abs")));
    assert_eq!(failure("-(-9223372036854775807 - 1)"), (0, overflow("-")));
    assert_eq!(failure("int(1 / 0)"), (0, overflow("int")));
    assert_eq!(failure("int(2 ** 63)"), (0, overflow("int")));
    assert_eq!(number("(-9223372036854775807 - 1) % -1"), 0.0);
}

#[test]
fn elements_outside_an_array_are_an_error_and_slices_are_cut() {
    assert_eq!(failure("[1, 2][2]"), (6, "index 2 is outside an array of 2".to_owned()));
    assert_eq!(failure("[1, 2][-3]"), (6, "index -3 is outside an array of 2".to_owned()));
    assert_eq!(number("[1, 2][-1]"), 2.0);
    assert_eq!(number("len([1, 2, 3][-99:99]) * 10 + len([1, 2][5:1])"), 30.0);
    assert_eq!(number("len([1, 2, 3][1:-9223372036854775807])"), 0.0);
}

#[test]
fn a_formula_that_is_fully_typed_says_so() {
    let typed = |text| Formula::compile(text, &TRIGGERS).unwrap().is_fully_typed();
    for text in [
        "queue + 1 > 2 ? max(queue, 2, [3]) : sum([latency, 1])",
        "count([queue, latency], # > 1) % 2",
        "let x = [queue, 1]; x[0] + x[int(latency)]",
        "max_jobs ?? queue",
        "reduce([1, 2], # + #index)",
        "map([], # + 1)",
        "(queue > 1 ? 1 : 2.5) * 2",
    ] {
        assert!(typed(text), "{text}");
    }
    for text in [
        "{a: 1}.a + 1",
        "reduce([1, 2], #acc + #)",
        "fromJSON(\"1\") + 1",
        "(queue > 1 ? 1 : \"x\") + 1",
        "[1, \"x\"][0] + 1",
        "sort([1, \"x\"])",
        "max([[1], [true]])",
    ] {
        assert!(!typed(text), "{text}");
    }
}

#[test]
fn a_type_known_only_at_run_time_is_checked_there() {
    assert_eq!(
        failure("{a: \"x\"}.a + 1"),
        (11, "`+` takes two numbers or two strings, not string and int".to_owned())
    );
    assert_eq!(failure("fromJSON(\"[1]\") ? 1 : 2"), (0, "`?:` takes bool, not array".to_owned()));
    assert_eq!(failure("sort([1, \"x\"])"), (0, "`sort` takes only numbers, not string".to_owned()));
}

#[test]
fn text_and_nesting_are_limited() {
    let long = format!("{}1", " ".repeat(limits::MAX_TEXT));
    assert_eq!(
        refusal(&long),
        CompileError { offset: limits::MAX_TEXT, problem: CompileProblem::TooLong(limits::MAX_TEXT + 1) }
    );
    assert!(matches!(refusal(&"(".repeat(100_000)).problem, CompileProblem::TooLong(_)));
    for (start, end) in [
        ("(", ")"),
        ("-", ""),
        ("not ", ""),
        ("[", "]"),
        ("abs(", ")"),
        ("1+(", ")"),
        ("1**", ""),
        ("true?1:", ""),
        ("[1][", "]"),
        ("{a:", "}"),
        ("let x=", ";1"),
        ("map([1],", ")"),
        ("if true{", "}else{1}"),
    ] {
        let nested = |levels: usize| format!("{}1{}", start.repeat(levels), end.repeat(levels));
        assert_eq!(refusal(&nested(65)).problem, CompileProblem::TooDeep, "{start}");
        let shallow = Formula::compile(&nested(20).replace("not 1", "not true"), &TRIGGERS);
        assert!(!matches!(shallow, Err(CompileError { problem: CompileProblem::TooDeep, .. })), "{start}");
    }
    assert_eq!(number(&format!("{}1{}", "(".repeat(63), ")".repeat(63))), 1.0);
}

#[test]
fn long_chains_are_no_nesting() {
    assert_eq!(number(&format!("1{}", "+1".repeat(2000))), 2001.0);
    assert_eq!(number(&format!("1{}", "*1-0".repeat(1000))), 1.0);
    assert_eq!(number(&format!("-1{}", "|abs()".repeat(600))), 1.0);
    assert_eq!(number(&format!("nil{}", "??1".repeat(1300))), 1.0);
    assert_eq!(result(&format!("true{}", " and true".repeat(400))), Ok(Value::Bool(true)));
    assert_eq!(result(&format!("1{}", "<2<3>2>1".repeat(500))), Ok(Value::Bool(true)));
    assert_eq!(result(&format!("nil{}", "?.a".repeat(1300))), Ok(Value::Nil));
    let lets: String = (0..250).map(|place| format!("let x{place}=1;")).collect();
    assert_eq!(number(&format!("{lets} x249")), 1.0);
}

#[test]
fn work_and_memory_are_limited() {
    let steps = "the formula takes more than 200000 steps";
    let memory = "the formula needs more than 1048576 bytes of memory";
    for (text, message) in [
        ("len(1..1000000000)", steps),
        ("len(1..50000)", memory),
        ("len(-9223372036854775807..9223372036854775807)", steps),
        ("repeat(\"x\", 1000000000)", steps),
        ("repeat(repeat(\"0123456789\", 10000), 100)", memory),
        ("len(repeat(\"\", 9223372036854775807))", steps),
        ("sum(map(1..10000, sum(1..10000)))", memory),
        ("sum(map(1..1000, sum(map(1..1000, #))))", memory),
        ("reduce(1..100, concat(#acc, #acc), [1])", memory),
        ("reduce(1..100, #acc + #acc, \"x\")", memory),
        ("reduce(1..100, [#acc, #acc], [1])", memory),
        ("reduce(1..100, [#acc], [1])", "arrays and maps are nested more than 64 levels deep"),
        ("reduce(1..100, {{a: #acc}}, {})", "arrays and maps are nested more than 64 levels deep"),
        ("len(uniq(1..5000))", steps),
        ("replace(repeat(\"x\", 1000), \"x\", repeat(\"y\", 100000))", memory),
        ("len(join(map(1..1000, \"x\"), repeat(\"y\", 100000)))", memory),
        ("count(1..10000, \"aaaaaaaaaaaaaaaa\" matches \"(a*)*b\")", steps),
        ("count(1..20, \"a\" matches string(#))", steps),
        ("let s = repeat(\"x\", 100000); count(1..1000, indexOf(s, \"y\") > 0)", steps),
    ] {
        let error = failure(text);
        assert_eq!(error.1, message, "{text}");
    }
    assert_eq!(number("sum(1..1000)"), 500_500.0);
    assert_eq!(number("sum(map(1..10000, # * 2))"), 100_010_000.0);
}

#[test]
fn a_regular_expression_has_a_size_limit() {
    let error = refusal("\"x\" matches \"(\\\\pL{500}){500}\"");
    assert_eq!((error.offset, error.to_string().as_str()), (12, "the regular expression is too large"));
    let many = |count: usize| vec!["'x' matches 'y'"; count].join(" or ");
    assert_eq!(result(&many(16)), Ok(Value::Bool(false)));
    assert_eq!(refused(&many(17)).1, "there are more than 16 regular expressions");
    assert_eq!(result("\"queue-17\" matches \"^queue-[0-9]+$\""), Ok(Value::Bool(true)));
}

#[test]
fn a_place_is_told_as_line_and_column() {
    let text = "queue +\n  möglich * latncy";
    assert_eq!(line_and_column(text, 0), (1, 1));
    assert_eq!(line_and_column(text, text.find("latncy").unwrap()), (2, 13));
    assert_eq!(line_and_column(text, 12), (2, 4));
    assert_eq!(line_and_column(text, 9999), (2, 19));
}

#[test]
fn the_deepest_formulas_fit_half_the_stack_of_a_worker() {
    let run = || {
        for (start, end) in [
            ("map([1],sum([#+1-(", ")]))[0]"),
            ("(1+2*3**", ")"),
            ("[{a:1 or ", "}]"),
            ("true?[", "][0]:1"),
            ("let x1=1;max(1,", ")"),
        ] {
            for levels in (1..40).rev() {
                let text = format!("{}1{}", start.repeat(levels), end.repeat(levels)).replace("or 1", "or true");
                if let Ok(formula) = Formula::compile(&text, &TRIGGERS) {
                    let _ = formula.evaluate(&value_of);
                    break;
                }
            }
        }
    };
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap();
    thread.join().unwrap();
}

#[test]
fn a_compiled_formula_can_be_shared_between_threads() {
    fn shareable<T: Send + Sync>() {}
    shareable::<Formula>();
}
