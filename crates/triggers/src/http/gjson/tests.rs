use proptest::prelude::*;

use super::*;

const DOCUMENT: &str = r#"{"o":{"b":1},"arr":[10,20,{"k":[1,2]}],"x.y":7,"nums":[5,3,9],"objs":[{"n":"p","v":5},{"n":"q","v":3},{"n":"r","v":null}],"s":"12"}"#;

/// What a path leads to, in short: `-` for nothing, a text with quotes, anything else as its JSON.
fn shown(json: &str, path: &str) -> String {
    match find(json.as_bytes(), path).unwrap().leaf() {
        Leaf::Missing => "-".to_owned(),
        Leaf::Null => "null".to_owned(),
        Leaf::Bool(flag) => flag.to_string(),
        Leaf::Number(number) => number.to_string(),
        Leaf::NotANumber(token) => format!("?{token}"),
        Leaf::Text(text) => format!("{text:?}"),
        Leaf::Container(json) => json,
    }
}

fn check(json: &str, cases: &[(&str, &str)]) {
    for (path, expected) in cases {
        assert_eq!(shown(json, path), *expected, "{path}");
    }
}

#[test]
fn steps_lead_through_objects_and_lists() {
    check(
        DOCUMENT,
        &[
            ("o.b", "1"),
            ("o|b", "1"),
            (r"x\.y", "7"),
            ("arr.1", "20"),
            ("arr.01", "20"),
            ("arr.2.k.0", "1"),
            ("arr.#", "3"),
            ("o.?", "1"),
            ("o.*", "1"),
            ("*.b", "1"),
            ("arr.3", "-"),
            ("arr.-1", "-"),
            ("arr.1x", "-"),
            ("O.b", "-"),
            ("nope", "-"),
            ("o..b", "-"),
            ("o.b.c", "-"),
            ("s.0", "-"),
            ("", "-"),
            (".", "-"),
            ("o.", "-"),
        ],
    );
    check("[]", &[("#", "0"), ("0", "-")]);
    check(r#"{"a":1,"a":2,"b":{"x":1},"b":{"y":2}}"#, &[("a", "1"), ("b.y", "2"), ("*.y", "2")]);
    check(
        r#"{"a*b":1,"axb":2,"é\"q":3,"":4}"#,
        &[(r"a\*b", "1"), ("a?b", "1"), ("?\"q", "3"), ("", "4"), (r"?\*?", "1")],
    );
}

#[test]
fn a_hash_collects_from_every_element() {
    check(
        DOCUMENT,
        &[
            ("objs.#.v", "[5,3,null]"),
            ("objs.#.v|#", "3"),
            ("objs.#.v|0", "5"),
            ("objs.#.v.#", "[]"),
            ("arr.#.k.1", "[2]"),
            ("arr.#.@this|0", "10"),
        ],
    );
}

#[test]
fn queries_select_elements() {
    check(
        DOCUMENT,
        &[
            ("objs.#(n==\"q\").v", "3"),
            ("objs.#(n==q).v", "3"),
            ("objs.#(n=q).v", "3"),
            ("objs.#(n!=p)#.n", r#"["q","r"]"#),
            ("objs.#(v>=4).n", "\"p\""),
            ("objs.#(v<4).n", "\"q\""),
            ("objs.#(n%\"?\")#|#", "3"),
            ("objs.#(n!%\"p*\")#|#", "2"),
            ("objs.#[n==\"q\"].v", "3"),
            ("objs.#(n).v", "5"),
            ("objs.#(zz)", "-"),
            ("objs.#(zz)#", "[]"),
            ("nums.#(>4)", "5"),
            ("nums.#(>4)#", "[5,9]"),
            ("nums.#(>4)#|#", "2"),
            ("nums.#(>=10)#|#", "0"),
            ("arr.#(k.#(==2)).k.0", "1"),
            ("arr.#(k)#|0|k|1", "2"),
            ("objs.#(v==~null).n", "\"r\""),
            ("objs.#(v==null).n", "-"),
            ("objs.#(v==~true)#|#", "2"),
            ("objs.#(v==~false).n", "\"r\""),
            ("objs.#(nope==~*)#", "[]"),
            ("nums.#(==~nope)#", "[]"),
        ],
    );
    check(
        r#"[{"a":"x\"y","b":true},{"a":"z)","b":false}]"#,
        &[(r#"#(a=="x\"y").b"#, "true"), (r#"#(a=="z)").b"#, "false")],
    );
    check(r#"[true,false]"#, &[("#(>false)", "true"), ("#(<true)", "false"), ("#(!=true)", "false")]);
}

#[test]
fn modifiers_rebuild_the_value() {
    check(
        DOCUMENT,
        &[
            ("nums.@reverse.0", "9"),
            ("@this.o.b", "1"),
            ("o.@pretty.b", "1"),
            ("@ugly|o.b", "1"),
            ("@valid.o.b", "1"),
            ("o.@keys.0", "\"b\""),
            ("o.@values.0", "1"),
            ("arr.@keys", "[null,null,null]"),
            ("s.@tostr", r#""\"12\"""#),
            ("s.@tostr.@fromstr", "\"12\""),
            ("s.@fromstr", "12"),
            ("@dig:k|0.1", "2"),
            ("@dig:b", "[1]"),
            ("[nums,[nums]].@flatten.#", "4"),
            (r#"[nums,[nums]].@flatten:{"deep":true}.#"#, "6"),
            (r#"[o,{"b":s}].@join"#, r#"{"b":"12"}"#),
            (r#"[o,{"b":s}].@join:{"preserve":true}"#, r#"{"b":1,"b":"12"}"#),
            (r#"{"id":nums,"x":[s,s]}.@group.1.id"#, "3"),
            (r#"{"id":nums,"x":[s,s]}.@group.#"#, "3"),
            ("nope.@keys", "[]"),
            ("nope.@values", "[]"),
            ("o.@nope", "-"),
            ("@nope:1", "-"),
        ],
    );
    check("{", &[("@valid", "-")]);
    check("{ \"a\" : [ 1 , \" \" ] }", &[("@ugly", r#"{"a":[1," "]}"#)]);
}

#[test]
fn multipaths_and_literals_build_new_values() {
    check(
        DOCUMENT,
        &[
            ("[o.b,s].1", "\"12\""),
            ("{\"q\":s}.q", "\"12\""),
            ("{s,o.b}", r#"{"s":"12","b":1}"#),
            ("{\"x\":{\"y\":o.b}}.x.y", "1"),
            ("{o.b,nums.#}", r#"{"b":1,"_":3}"#),
            ("o.[b].0", "1"),
            ("[nope,o.b]", "[1]"),
            ("!5", "5"),
            ("!5|@this", "5"),
            ("!\"a.b\"", "\"a.b\""),
            ("!true", "true"),
            ("!null", "null"),
            ("![1,2].1", "2"),
            ("{\"a\":!7}.a", "7"),
            ("[o.b", "-"),
        ],
    );
}

#[test]
fn leading_dots_read_lines() {
    let lines = "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n";
    check(lines, &[("..#", "3"), ("..1.a", "2"), ("..#.a", "[1,2,3]"), ("..#(a>1).a", "2"), ("a", "1")]);
}

#[test]
fn number_tokens_are_numbers_and_others_are_not() {
    check(
        r#"{"a":nan,"b":+Inf,"c":1e400,"d":-5.5e1,"e":-x,"f":"\u00e9\ud83d\ude00\n"}"#,
        &[("a", "NaN"), ("b", "inf"), ("c", "inf"), ("d", "-55"), ("e", "?-x"), ("f", "\"é😀\\n\"")],
    );
}

/// What the language's reference implementation (github.com/tidwall/gjson v1.20.1) answers: document, path and the
/// raw text of the result, empty for none. Made by running it on documents and paths put together at random.
#[test]
fn answers_are_those_of_the_reference_implementation() {
    let cases: Vec<(String, String, String)> = serde_json::from_str(include_str!("cases.json")).unwrap();
    for (json, path, expected) in cases {
        let found = find(json.as_bytes(), &path).unwrap();
        let same = match serde_json::from_slice::<serde_json::Value>(&found.raw) {
            Ok(found) => serde_json::from_str::<serde_json::Value>(&expected).is_ok_and(|expected| expected == found),
            Err(_) => found.raw.as_ref() == expected.as_bytes(),
        };
        assert!(same, "{path} in {json}: {} instead of {expected}", String::from_utf8_lossy(&found.raw));
    }
}

#[test]
fn bounds_hold_against_hostile_paths_and_documents() {
    let deep = "[".repeat(20_000);
    assert_eq!(find(deep.as_bytes(), &"0.".repeat(200)).unwrap_err(), Exhausted::Depth);
    assert_eq!(find(deep.as_bytes(), r#"@flatten:{"deep":true}"#).unwrap_err(), Exhausted::Depth);
    assert!(find(deep.as_bytes(), "@valid").is_ok());
    let doubling = vec!["[@this,@this]"; 40].join("|");
    assert_eq!(find(br#"{"a":"some text to double"}"#, &doubling).unwrap_err(), Exhausted::Work);
    let nested = format!("{}1{}", "#(a".repeat(500), ")".repeat(500));
    assert!(find(br#"[{"a":[{"a":[1]}]}]"#, &nested).is_ok());
    let glob = format!("{{\"{}\":1}}", "a".repeat(1 << 20));
    assert_eq!(find(glob.as_bytes(), &format!("*{}b", "a".repeat(1000))).unwrap_err(), Exhausted::Work);
}

/// JSON documents; no object has a key twice.
fn document() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<i16>().prop_map(|n| n.to_string()),
        Just("1.5".to_owned()),
        Just("true".to_owned()),
        Just("null".to_owned()),
        Just(r#""12""#.to_owned()),
        Just(r#""a\"é""#.to_owned()),
        Just(r#""b""#.to_owned()),
    ];
    let key = prop_oneof![Just("a"), Just("b"), Just("c.d"), Just("k*"), Just("")];
    let inner = leaf.prop_recursive(4, 24, 4, move |value| {
        prop_oneof![
            prop::collection::vec(value.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::btree_map(key.clone(), value, 0..4).prop_map(|members| {
                let members: Vec<_> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    });
    inner.prop_map(|value| format!("[{value}]"))
}

/// Paths from pieces that mean something, in any order.
fn path() -> impl Strategy<Value = String> {
    let pieces = [
        "a",
        "b",
        "c",
        "0",
        "1",
        "#",
        ".",
        ".",
        ".",
        "|",
        "*",
        "?",
        "\\",
        "@this",
        "@reverse",
        "@flatten",
        "@keys",
        "@values",
        "@tostr",
        "@fromstr",
        "@group",
        "@join",
        "@dig:a",
        "@valid",
        "@ugly",
        ":{\"deep\":true}",
        "#(",
        "#[",
        ")",
        "]",
        "#(a==1)",
        "#(a>1)#",
        "#(b)",
        "#(=~true)",
        "==",
        "~",
        "[",
        "{",
        "}",
        ",",
        "\"",
        "!",
        "!5",
        "..",
        "é",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..12).prop_map(|pieces| pieces.concat())
}

/// Paths of the part of the language in which the crate `gjson` does what the language's author says. It has no
/// literals, fewer modifiers, and gives up after the first key that a wildcard matches.
fn plain_path() -> impl Strategy<Value = String> {
    let steps = ["a", "b", r"c\.d", "0", "1", "#", "#(a==1)", "#(a>1)#", "#(b)", "@reverse", "@this"];
    (prop::collection::vec(prop::sample::select(steps.to_vec()), 1..5), prop::sample::select(vec![".", "|"]))
        .prop_map(|(steps, separator)| steps.join(separator))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics(json in prop_oneof![document(), ".{0,40}"], path in prop_oneof![path(), ".{0,20}"], cut in any::<prop::sample::Index>()) {
        let bytes = json.as_bytes();
        for json in [bytes, &bytes[..cut.index(bytes.len() + 1)]] {
            let _ = find(json, &path).map(|value| value.leaf());
        }
    }

    #[test]
    fn the_common_part_agrees_with_another_implementation(json in document(), path in plain_path()) {
        let theirs = ::gjson::get(&json, &path);
        let theirs = theirs.json().trim();
        let ours = find(json.as_bytes(), &path).unwrap();
        let ours = String::from_utf8_lossy(&ours.raw);
        prop_assert_eq!(ours.trim(), theirs, "{} in {}", path, json);
    }
}
