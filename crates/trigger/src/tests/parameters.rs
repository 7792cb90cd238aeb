use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::input;
use crate::parameters::{Form, Kind, Pairs, Parameter, Ranges, Shown, Source, hide};
use crate::{Choice, Parameters, ParseError, Secret, TriggerInput};

#[derive(Clone, Copy, Debug, PartialEq, Choice)]
enum Mode {
    QueueLength,
    #[choice("MessageRate")]
    Rate,
}

#[derive(Clone, Debug, Parameters)]
#[parameters(check = Tls::check)]
struct Tls {
    #[param(from = "auth")]
    cert: Option<Secret>,
    #[param(from = "auth")]
    key: Option<Secret>,
}

impl Tls {
    fn check(&self, _: &TriggerInput) -> Vec<ParseError> {
        let both = self.cert.is_some() == self.key.is_some();
        if both { vec![] } else { vec![ParseError::general("cert and key must be given together")] }
    }
}

/// All kinds of fields.
#[derive(Clone, Debug, Parameters)]
#[parameters(check = Example::check)]
struct Example {
    /// Where the
    /// queue is.
    ///
    /// A URL.
    #[param(from = "metadata auth env")]
    host: Secret,
    #[param(from = "metadata")]
    queue_name: String,
    #[param(from = "metadata", default = 20, min = 1, max = 1000, unit = "messages")]
    queue_length: i64,
    #[param(from = "metadata", default = "queueLength")]
    mode: Mode,
    #[param(group)]
    tls: Tls,
    #[param(name = "scopes", alias = "scope", from = "auth metadata", plain)]
    scopes: Option<Vec<String>>,
    #[param(from = "metadata", one_of = ["bearer", "basic", "tls"], exclusive = ["bearer", "basic"], optional)]
    auth_modes: Vec<String>,
    #[param(from = "metadata", default = "sum", one_of = ["sum", "max"])]
    operation: String,
    #[param(from = "metadata", optional)]
    use_regex: bool,
    #[param(from = "metadata", min = 1)]
    timeout: Option<Duration>,
    #[param(from = "metadata", separator = ";")]
    partitions: Option<Ranges>,
    #[param(from = "metadata")]
    labels: Option<Pairs>,
    #[param(from = "auth", plain)]
    endpoint_params: Option<Form>,
    #[param(from = "metadata", deprecated = "say queueLength instead")]
    length: Option<i64>,
    #[param(from = "metadata", removed = "host knows it")]
    port: Option<String>,
}

impl Example {
    fn check(&self, _: &TriggerInput) -> Vec<ParseError> {
        if self.queue_length == 13 { vec![ParseError::new("queueLength", "unlucky")] } else { vec![] }
    }
}

const NEEDED: [(&str, &str); 2] = [("host", "http://h"), ("queueName", "q")];

fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    NEEDED.iter().chain(more).copied().collect()
}

/// The errors of an input, as text.
fn errors(input: &TriggerInput) -> String {
    Example::parse(input).unwrap_err().to_string()
}

#[test]
fn the_first_source_and_name_with_a_value_win() {
    let parse = |metadata: &[_], auth: &[_], env: &[_]| Example::parse(&input(metadata, auth, env)).unwrap();
    let q = ("queueName", "q");
    let all = parse(&[q, ("host", "m"), ("hostFromEnv", "HOST")], &[("host", "a")], &[("HOST", "e")]);
    assert_eq!(all.host.expose(), "m");
    let blank = parse(&[q, ("host", "  "), ("hostFromEnv", "HOST")], &[("host", " a ")], &[("HOST", "e")]);
    assert_eq!(blank.host.expose(), "a");
    let empty = parse(&[q, ("hostFromEnv", "HOST")], &[("host", "")], &[("HOST", "e")]);
    assert_eq!(empty.host.expose(), "e");
    // The source is the outer loop: the alias in the first source goes before the name in the second.
    let alias = parse(&with(&[("scopes", "m")]), &[("scope", "a")], &[]);
    assert_eq!(alias.scopes, Some(vec!["a".to_owned()]));
}

#[test]
fn what_is_left_out_has_its_default() {
    let parsed = Example::parse(&input(&NEEDED, &[], &[])).unwrap();
    assert_eq!((parsed.queue_length, parsed.mode, parsed.operation.as_str()), (20, Mode::QueueLength, "sum"));
    assert_eq!((parsed.use_regex, parsed.timeout, parsed.auth_modes.len()), (false, None, 0));
}

#[test]
fn every_error_is_reported_in_the_order_of_the_declaration() {
    let given = input(
        &[("queueLength", "0"), ("mode", "Rate"), ("authModes", "bearer, basic"), ("useRegex", "yes"), ("port", "1")],
        &[],
        &[],
    );
    let expected = [
        r#"missing required parameter "host" in [triggerMetadata authParams resolvedEnv]"#,
        r#"missing required parameter "queueName" in [triggerMetadata]"#,
        r#"parameter "queueLength" value "0" must be at least 1"#,
        r#"parameter "mode" value "Rate" must be one of [queueLength MessageRate]"#,
        r#"parameter "authModes" value "bearer, basic" must contain only one of [bearer basic]"#,
        r#"unable to set param "useRegex" value "yes": unable to parse boolean value "yes": must be true or false"#,
        "scaler test info: host knows it",
    ];
    assert_eq!(errors(&given).lines().collect::<Vec<_>>(), expected);
}

#[test]
fn checks_run_after_the_fields_and_those_of_a_group_first() {
    let given = input(&with(&[("queueLength", "13")]), &[("cert", "c")], &[]);
    let errors = Example::parse(&given).unwrap_err().0;
    assert_eq!(errors[0], ParseError::general("cert and key must be given together"));
    assert_eq!(errors[1], ParseError::new("queueLength", "unlucky"));
}

#[test]
fn an_allowed_text_is_checked_whole_unless_it_is_a_list() {
    assert!(errors(&input(&with(&[("operation", "max,sum")]), &[], &[])).contains("must be one of [sum max]"));
    let list = Example::parse(&input(&with(&[("authModes", "tls, basic")]), &[], &[])).unwrap();
    assert_eq!(list.auth_modes, ["tls", "basic"]);
}

#[test]
fn bounds_of_a_duration_are_in_seconds() {
    assert!(errors(&input(&with(&[("timeout", "999")]), &[], &[])).contains("must be at least 1"));
    let parsed = Example::parse(&input(&with(&[("timeout", "1500")]), &[], &[])).unwrap();
    assert_eq!(parsed.timeout, Some(Duration::from_millis(1500)));
}

#[test]
fn a_missing_parameter_says_where_it_was_meant_to_come_from() {
    let given = input(&[("queueName", "q"), ("hostFromEnv", "HOST")], &[("host", "")], &[]);
    let errors = errors(&given);
    assert!(errors.contains(r#"hostFromEnv names the variable "HOST", which the container does not set"#), "{errors}");
    assert!(errors.contains("the authentication's value of host is empty or could not be read"), "{errors}");
}

#[test]
fn no_message_shows_what_came_from_authentication_or_environment() {
    #[derive(Debug, Parameters)]
    struct Numbers {
        #[param(from = "auth env")]
        number: i64,
        #[param(from = "auth env", max = 1)]
        small: i64,
        #[param(from = "auth env")]
        mode: Mode,
        #[param(from = "auth env", one_of = ["a"], plain)]
        word: String,
        #[param(from = "metadata", secret)]
        duration: Option<Duration>,
    }
    let given = input(
        &[("numberFromEnv", "X"), ("duration", "hunter2")],
        &[("small", "2147483647"), ("mode", "hunter2"), ("word", "hunter2")],
        &[("X", "hunter2")],
    );
    let errors = Numbers::parse(&given).unwrap_err();
    assert_eq!(errors.0.len(), 5);
    assert!(!errors.to_string().contains("hunter2") && !errors.to_string().contains("2147483647"), "{errors}");
}

#[test]
fn the_table_holds_the_whole_declaration() {
    let by_name: BTreeMap<_, _> = Example::TABLE.iter().map(|parameter| (parameter.name(), parameter)).collect();
    let names: Vec<_> = Example::TABLE.iter().map(Parameter::name).collect();
    assert_eq!(names[..8], ["host", "queueName", "queueLength", "mode", "cert", "key", "scopes", "authModes"]);
    let host = by_name["host"];
    assert_eq!(host.sources, [Source::Metadata, Source::Auth, Source::Env]);
    assert_eq!(host.docs, "Where the queue is.\nA URL.");
    assert!(host.secret && host.required());
    let length = by_name["queueLength"];
    assert_eq!((length.default, length.min, length.unit), (Some("20"), Some(1.0), Some("messages")));
    assert_eq!(by_name["mode"].one_of, ["queueLength", "MessageRate"]);
    assert_eq!(by_name["scopes"].names, ["scopes", "scope"]);
    assert_eq!(by_name["scopes"].kind, Kind::List(&Kind::Text));
    assert_eq!((by_name["partitions"].kind, by_name["partitions"].separator), (Kind::Ranges, ';'));
    assert!(by_name["cert"].secret && by_name["cert"].optional && !by_name["endpointParams"].secret);
}

#[test]
fn shown_parameters_hide_secrets_unless_the_caller_exposes_them() {
    let given = input(&with(&[("timeout", "2s"), ("labels", "a=b")]), &[("endpointParams", "a=1&a=2")], &[]);
    let show = |secret| {
        let mut shown = Shown::new(secret);
        Example::parse(&given).unwrap().show(&mut shown);
        shown.into_map()
    };
    let hidden = show(hide);
    assert_eq!(hidden["host"], "***");
    assert_eq!(hidden["timeout"], json!({"seconds": 2.0}));
    assert_eq!(hidden["labels"], json!({"a": "b"}));
    assert_eq!(hidden["endpointParams"], json!({"a": ["1", "2"]}));
    assert_eq!(hidden["mode"], "queueLength");
    assert_eq!(hidden.get("cert"), None);
    assert_eq!(show(|secret| secret.expose().to_owned())["host"], "http://h");
    assert!(!format!("{given:?} {:?}", Example::parse(&given)).contains("http://h"));
}

#[test]
fn what_is_declared_secret_is_hidden_whatever_its_type() {
    #[derive(Debug, Parameters)]
    struct Hidden {
        #[param(from = "auth", secret)]
        form: Form,
        #[param(from = "metadata", secret)]
        pin: i64,
        #[param(from = "auth", secret)]
        words: Vec<String>,
    }
    let given = input(&[("pin", "4711")], &[("form", "key=hunter2"), ("words", "hunter3")], &[]);
    let show = |secret| {
        let mut shown = Shown::new(secret);
        Hidden::parse(&given).unwrap().show(&mut shown);
        serde_json::Value::from(shown.into_map())
    };
    assert_eq!(show(hide), json!({"form": {"key": ["***"]}, "pin": "***", "words": ["***"]}));
    assert_eq!(show(|secret| secret.expose().to_owned())["form"], json!({"key": ["hunter2"]}));
}

#[test]
fn notes_name_what_is_deprecated_unknown_or_without_effect() {
    let metadata = with(&[
        ("length", "5"),
        ("queuename", "x"),
        ("queueNameFromEnv", "X"),
        ("cert", "c"),
        ("whatever", "x"),
        ("hostsFromEnv", "X"),
    ]);
    let notes = Example::notes(&input(&metadata, &[], &[]));
    let expected = [
        "scaler test info: say queueLength instead",
        "cert in the metadata has no effect: it is only taken from a TriggerAuthentication",
        "unknown parameter hostsFromEnv, did you mean hostFromEnv?",
        "queueNameFromEnv has no effect: queueName is only taken from the metadata",
        "unknown parameter queuename, did you mean queueName?",
        "unknown parameter whatever",
    ];
    assert_eq!(*notes, expected);
}

#[test]
fn the_rest_is_all_of_the_metadata_and_nothing_is_unknown() {
    #[derive(Debug, Parameters)]
    struct External {
        #[param(from = "metadata")]
        scaler_address: String,
        /// Handed on.
        #[param(rest)]
        all: BTreeMap<String, String>,
    }
    let given = input(&[("scalerAddress", "a:1"), ("anything", " x ")], &[], &[]);
    let parsed = External::parse(&given).unwrap();
    assert_eq!((parsed.scaler_address.as_str(), parsed.all), ("a:1", given.metadata.clone()));
    assert!(External::notes(&given).is_empty());
    assert_eq!(External::TABLE[1].docs, "Handed on.");
}

#[test]
fn a_missing_parameter_names_the_key_that_may_be_meant() {
    #[derive(Debug, Parameters)]
    struct Queue {
        #[param(from = "metadata")]
        queue_name: String,
    }
    let errors = Queue::parse(&input(&[("queuename", "x")], &[], &[])).map(|queue| queue.queue_name).unwrap_err();
    let expected = "missing required parameter \"queueName\" in [triggerMetadata] (the metadata has queuename, did you \
                    mean queueName?)";
    assert_eq!(errors.to_string(), expected);
}
