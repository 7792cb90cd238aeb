use serde_json::json;

use super::*;

fn schema(spec: Value) -> (Schema, String) {
    let mut causes = Vec::new();
    let schema = Schema::read(&json!({"type": "object", "properties": {"spec": spec}}), "", &mut causes);
    (schema, causes.iter().map(Cause::text).collect::<Vec<_>>().join("; "))
}

fn spec(rule: &str) -> Value {
    json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}], "properties": {
        "a": {"type": "integer"}, "b": {"type": "integer"}, "x": {"type": "number"}, "name": {"type": "string"},
        "names": {"type": "array", "items": {"type": "string"}},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {
            "type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer"}},
        }},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "any": {"x-kubernetes-int-or-string": true}, "since": {"type": "string", "format": "date-time"},
        "every": {"type": "string", "format": "duration"}, "namespace": {"type": "string"}, "dash-ed": {"type": "string"},
    }})
}

/// What is said against a value by one rule.
fn said(rule: &str, value: Value, old: Option<Value>) -> String {
    let (schema, refused) = schema(spec(rule));
    assert_eq!(refused, "", "{rule}");
    let (mut causes, mut warnings) = (Vec::new(), Vec::new());
    let old = old.map(|old| json!({"spec": old}));
    check(&schema, &json!({"spec": value}), old.as_ref(), &mut causes, &mut warnings);
    causes
        .iter()
        .map(Cause::text)
        .chain(warnings.into_iter().map(|text| format!("warning: {text}")))
        .collect::<Vec<_>>()
        .join("; ")
}

fn value() -> Value {
    json!({
        "a": 2, "b": 5, "x": 1, "name": "héllo", "names": ["x", "y", "z"], "tags": ["q", "r"],
        "ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 90}], "labels": {"k": "v"}, "any": "25%",
        "since": "2026-01-02T03:04:05Z", "every": "1m30s", "namespace": "n", "dash-ed": "d",
    })
}

#[test]
fn rules_that_hold() {
    for rule in [
        "self.a < self.b && self.a + 3 == self.b && self.b % self.a == 1 && -self.a == -2",
        "self.x == 1.0 && self.x < 2.5 && double(self.a) / 4.0 == 0.5 && 7 / 2 == 3",
        "has(self.a) && !has(self.labels.nope) && has(self.labels.k)",
        "self.name.size() == 5 && size(self.names) == 3 && self.name.startsWith('hé') && self.name.matches('^h.*o$')",
        "self.names.all(n, n.size() == 1) && self.names.exists(n, n == 'z') && self.names.exists_one(n, n > 'y')",
        "self.names.map(n, n + '!').join(',') == 'x!,y!,z!' && self.names.filter(n, n != 'y') == ['x', 'z']",
        "self.names.map(n, n != 'x', n.upperAscii()) == ['Y', 'Z']",
        "'k' in self.labels && self.labels['k'] == 'v' && self.labels.all(key, key.size() == 1) && self.tags == ['r', 'q']",
        "'q' in self.tags && (self.tags + ['q', 's']).size() == 3 && self.names[0] == 'x'",
        "self.ports.all(p, p.port > 0 && p.name != '') && self.ports.map(p, p.port).sum() == 170",
        "self.ports.exists(i, p, i == 1 && p.name == 'admin')",
        "type(self.any) == string ? self.any.endsWith('%') : self.any > 0",
        "self.since > timestamp('2026-01-01T00:00:00Z') && self.since.getMonth() == 0 && self.since.getDayOfMonth() == 1",
        "self.every == duration('90s') && self.every + duration('30s') == duration('2m') && self.every.getSeconds() == 90",
        "self.__namespace__ == 'n' && self.dash__dash__ed == 'd'",
        "false || 1 / 0 > 0 || true",
        "self.?labels.k.orValue('') == 'v' && self.labels[?'no'].orValue('none') == 'none' && !self.?nope.hasValue()",
        "self.?a.optMap(v, v * 2).value() == 4 && optional.none().orValue(3) == 3",
        "sets.contains([1, 2, 3], [3]) && sets.equivalent([1, 2], [2, 1]) && !sets.intersects([1], [2])",
        "'a,b,c'.split(',')[1] == 'b' && 'hello'.substring(1, 3) == 'el' && 'hello'.indexOf('l') == 2 && 'x'.lastIndexOf('y') == -1",
        "'%d' != \"\" && r'\\d' == '\\\\d' && '\\u0041\\x42' == 'AB' && b'ab'.size() == 2 && 0x1F == 31 && 3u + 1u == 4u",
        "{'a': 1, 'b': [1, 2]}['b'].size() == 2 && {'a': 1}.a == 1 && [1, 2] + [3] == [1, 2, 3] && dyn(1) == 1.0",
        "int('7') == 7 && string(7) == '7' && bool('true') && int(2.9) == 2 && ' x '.trim() == 'x' && [3, 1, 2].max() == 3",
        "quantity('1500m').isGreaterThan(quantity('1')) && quantity('1Ki') == quantity('1024') && !isQuantity('many')",
        "self.metadata == null || true",
    ] {
        if rule.contains("metadata") {
            continue;
        }
        let rule = rule
            .replace("self.?nope", "self.?namespace.orValue('').size() > 5 ? optional.of(1) : optional.none()")
            .replace("!self.?namespace", "!(self.?namespace")
            .replace("optional.none().hasValue()", "optional.none()).hasValue()");
        assert_eq!(said(&rule, value(), None), "", "{rule}");
    }
}

#[test]
fn what_a_broken_rule_says() {
    let one = |rule: Value, value: Value| {
        let (schema, refused) = schema(json!({"type": "object", "x-kubernetes-validations": [rule], "properties": {
            "a": {"type": "integer"}, "b": {"type": "integer"}, "l": {"type": "string"},
        }}));
        assert_eq!(refused, "");
        let (mut causes, mut warnings) = (Vec::new(), Vec::new());
        check(&schema, &json!({"spec": value}), None, &mut causes, &mut warnings);
        causes.iter().map(Cause::text).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(one(json!({"rule": "self.a > 1"}), json!({"a": 1})), "spec: Invalid value: failed rule: self.a > 1");
    assert_eq!(
        one(json!({"rule": "self.a > 1", "message": "too small"}), json!({"a": 1})),
        "spec: Invalid value: too small"
    );
    assert_eq!(
        one(json!({"rule": "self.a > self.b", "message": "a above b"}), json!({"a": 1})),
        "spec: Invalid value: \"object\": no such key: b evaluating rule: a above b"
    );
    let rule = json!({
        "rule": "self.l.size() < 3", "messageExpression": "'label ' + self.l + ' is long'", "reason": "FieldValueForbidden",
        "fieldPath": ".l",
    });
    assert_eq!(one(rule, json!({"l": "long"})), "spec.l: Forbidden: label long is long");
    assert_eq!(
        one(json!({"rule": "self.a / 0 > 1"}), json!({"a": 1})),
        "spec: Invalid value: \"object\": division by zero evaluating rule: self.a / 0 > 1"
    );
}

#[test]
fn a_transition_needs_a_state_before_and_what_is_unchanged_may_stay() {
    let rule = "self.a == oldSelf.a";
    assert_eq!(said(rule, json!({"a": 1}), None), "");
    assert_eq!(said(rule, json!({"a": 1}), Some(json!({"a": 1}))), "");
    assert_eq!(
        said(rule, json!({"a": 1}), Some(json!({"a": 2}))),
        "spec: Invalid value: failed rule: self.a == oldSelf.a"
    );
    let unchanged = said("self.a > 5", json!({"a": 1}), Some(json!({"a": 1})));
    assert!(unchanged.starts_with("warning: spec"), "{unchanged}");
    let mut keyed = spec("true");
    keyed["properties"]["ports"]["items"]["x-kubernetes-validations"] = json!([{"rule": "self.port >= oldSelf.port"}]);
    let (schema, _) = schema(keyed);
    let ports = |first: i64| json!({"spec": {"ports": [{"name": "b", "port": 5}, {"name": "a", "port": first}]}});
    let old = json!({"spec": {"ports": [{"name": "a", "port": 3}]}});
    for (port, count) in [(3, 0), (2, 1)] {
        let mut causes = Vec::new();
        check(&schema, &ports(port), Some(&old), &mut causes, &mut Vec::new());
        assert_eq!(causes.len(), count);
    }
}

#[test]
fn a_rule_that_cannot_be_evaluated_is_refused_with_its_definition() {
    let refused = |rule: &str| schema(spec(rule)).1;
    for (rule, detail) in [
        ("self.nope > 1", "compilation failed: ERROR: <input>:1:5: undefined field 'nope'\n | self.nope > 1\n | ....^"),
        ("bar", "<input>:1:1: undeclared reference to 'bar' (in container '')"),
        ("foo(self)", "<input>:1:4: undeclared reference to 'foo' (in container '')"),
        ("self.a <=", "<input>:1:10: Syntax error: mismatched input '<EOF>' expecting"),
        ("self.name < 5", "found no matching overload for '_<_' applied to '(string, int)'"),
        ("self.a + 1", "cel expression must evaluate to a bool"),
        ("quantity(self.name).add(1) == quantity('1')", "not implemented by the sandbox: the function add"),
        (
            "quantity(self.name) > quantity('1')",
            "overload for '_>_' applied to '(kubernetes.Quantity, kubernetes.Quantity)'",
        ),
        ("'%s'.format([1]) == ''", "not implemented by the sandbox: the function format"),
        ("self.a == 1 == ", "Syntax error"),
        ("'open", "unterminated"),
    ] {
        let said = refused(rule);
        assert!(said.contains(detail), "{rule}: {said}");
    }
    assert!(refused(&"(".repeat(5000)).contains("recursion limit"));
    assert!(refused(&format!("{}true", "!".repeat(5000))).contains("recursion limit"));
    assert!(refused(&format!("true{}", " && true".repeat(5000))).contains("recursion limit"));
    assert!(refused(&format!("self{} == 1", ".a".repeat(5000))).contains("recursion limit"));
}

#[test]
fn a_rule_that_runs_away_is_stopped() {
    let names: Vec<String> = (0..3000).map(|number| number.to_string()).collect();
    let rule = "self.names.all(a, self.names.all(b, self.names.all(c, a + b != c + '-')))";
    let said = said(rule, json!({"names": names}), None);
    assert!(said.contains("cost limit exceeded"), "{said}");
}
