use tidemark_clock::Clock;
use tidemark_trigger::{DoorSettings, MetricType};

use super::*;
use crate::tests::{no_network, trigger_input};

fn input(metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> TriggerInput {
    TriggerInput { index: 2, ..trigger_input("postgresql", metadata, auth) }
}

const QUERY: [(&str, &str); 2] = [("query", "SELECT 1"), ("targetQueryValue", "1.5")];
const PARTS: [(&str, &str); 7] = [
    QUERY[0],
    QUERY[1],
    ("host", "db"),
    ("port", "5432"),
    ("userName", "ann"),
    ("dbName", "shop"),
    ("sslmode", "disable"),
];

fn errors(input: &TriggerInput) -> Vec<(Option<String>, String)> {
    let errors = parse(input).expect_err("accepted").0;
    errors.into_iter().map(|error| (error.parameter, error.message)).collect()
}

#[test]
fn the_metric_has_a_constant_name() {
    let mut given = input(&PARTS, &[]);
    given.metric_type = Some("Value".to_owned());
    let trigger = parse(&given).unwrap();
    let expected =
        MetricSpec::External { name: "s2-postgresql".into(), metric_type: MetricType::Value, target_milli: 1500 };
    assert_eq!(trigger.metrics(), [expected]);
    assert!(trigger.notes().is_empty(), "{:?}", trigger.notes());
}

#[test]
fn missing_parts_are_named_in_their_order() {
    let messages: Vec<_> = errors(&input(&QUERY, &[])).into_iter().map(|(_, message)| message).collect();
    assert_eq!(
        messages,
        ["no host given", "no port given", "no userName given", "no dbName given", "no sslmode given"]
    );
    let without_target = [PARTS[0], PARTS[2], PARTS[3], PARTS[4], PARTS[5], PARTS[6]];
    assert_eq!(errors(&input(&without_target, &[]))[0].1, "no targetQueryValue given");
    let mut source = input(&without_target, &[]);
    source.as_metric_source = true;
    assert!(parse(&source).is_ok());
    let mut utilization = input(&PARTS, &[]);
    utilization.metric_type = Some("Utilization".to_owned());
    assert_eq!(errors(&utilization)[0].0.as_deref(), Some("metricType"));
}

#[test]
fn the_connection_wins_over_the_parts_which_are_put_together_without_it() {
    let shown =
        |input: &TriggerInput| inspect(input, |secret| secret.expose().to_owned()).unwrap()["connection"].clone();
    let parts = input(&PARTS, &[("password", "a b"), ("host", "other")]);
    assert_eq!(shown(&parts), "host=other port=5432 user=ann dbname=shop sslmode=disable password='a b'");
    let both = input(&PARTS, &[("connection", "postgres://u@h/d")]);
    assert_eq!(shown(&both), "postgres://u@h/d");
    // In plain metadata it counts for nothing.
    let plain = [QUERY[0], QUERY[1], ("connection", "postgres://u@h/d"), ("password", "p")];
    assert_eq!(errors(&input(&plain, &[]))[0].1, "no host given");
}

#[test]
fn pod_identities_are_refused_or_noted() {
    let mut given = input(&PARTS, &[]);
    given.pod_identity = Some("aws".to_owned());
    assert_eq!(errors(&given)[0].1, "pod identity aws is not supported by the postgresql trigger");
    given.pod_identity = Some(AZURE.to_owned());
    let trigger = parse(&given).unwrap();
    assert_eq!(trigger.notes(), [format!("{NO_AZURE}; the trigger cannot connect")]);
}

#[tokio::test]
async fn a_connection_string_that_cannot_be_used_is_noted_and_fails_to_connect_without_being_shown() {
    let door = Door::new(Clock::system(), DoorSettings::default());
    let trigger = parse(&input(&QUERY, &[("connection", "hunter2")])).unwrap();
    assert_eq!(trigger.notes().len(), 1);
    let Err(error) = trigger.connect(&door).await else { panic!("connected") };
    assert_eq!(error.kind, ErrorKind::Configuration);
    assert!(error.message.starts_with("connection: the connection string is neither"), "{error}");
    for text in [format!("{trigger:?}"), error.to_string(), trigger.notes()[0].clone()] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    let parts = [&PARTS[..6], &[("sslmode", "required")]].concat();
    let trigger = parse(&input(&parts, &[("password", "hunter2")])).unwrap();
    let Err(error) = trigger.connect(&door).await else { panic!("connected") };
    assert!(error.message.contains("`sslmode` is none of"), "{error}");
}

#[tokio::test]
async fn there_is_no_network_behind_an_in_process_door() {
    let door = no_network();
    let Err(error) = parse(&input(&PARTS, &[])).unwrap().connect(&door).await else { panic!("connected") };
    assert_eq!(error.kind, ErrorKind::Unreachable);
}
