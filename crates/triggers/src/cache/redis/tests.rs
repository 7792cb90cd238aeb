use tidemark_trigger::{MetricType, ParseErrors};

use super::*;
use crate::tests::trigger_input;

fn parsed(metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> Result<Arc<dyn Trigger>, ParseErrors> {
    (TYPE.parse)(&trigger_input("redis", metadata, auth))
}

fn message(metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> String {
    parsed(metadata, auth).unwrap_err().to_string()
}

const LIST: (&str, &str) = ("listName", "a/list.of:jobs");
const ADDRESS: (&str, &str) = ("address", "redis:6379");

#[test]
fn name_and_target_are_those_of_the_key_and_its_length() {
    let trigger = parsed(&[LIST, ADDRESS, ("listLength", "7")], &[]).unwrap();
    let expected = MetricSpec::External {
        name: "s0-redis-a-list-of-jobs".into(),
        metric_type: MetricType::AverageValue,
        target_milli: 7000,
    };
    assert_eq!(trigger.metrics(), [expected]);
    assert!(trigger.notes().is_empty(), "{:?}", trigger.notes());
}

#[test]
fn an_address_is_needed() {
    for metadata in [&[LIST][..], &[LIST, ("host", "redis")], &[LIST, ("port", "6379")], &[LIST, ("address", ",b:1")]] {
        assert!(message(metadata, &[]).starts_with("no addresses or hosts given."), "{metadata:?}");
    }
    assert_eq!(
        message(&[LIST, ("hosts", "a,b"), ("ports", "1")], &[]),
        "not enough hosts or ports given. number of hosts should be equal to the number of ports"
    );
}

#[test]
fn tls_is_asked_for_in_one_place_only() {
    let both = "unable to set `tls` in both ScaledObject and TriggerAuthentication together";
    assert_eq!(message(&[LIST, ADDRESS, ("enableTLS", "false")], &[("tls", "enable")]), both);
    assert!(message(&[LIST, ADDRESS, ("enableTLS", "yes")], &[]).starts_with("EnableTLS parsing error"));
    let other = message(&[LIST, ADDRESS], &[("tls", "hunter2")]);
    assert!(other.starts_with("error incorrect TLS value given") && !other.contains("hunter2"), "{other}");
    assert!(parsed(&[LIST, ADDRESS], &[("tls", "enable")]).is_ok());
}

#[test]
fn host_and_port_come_after_the_addresses_and_ipv6_hosts_get_brackets() {
    let given = trigger_input("redis", &[LIST, ADDRESS, ("hosts", "a,::1"), ("ports", "1,2")], &[]);
    let shown = inspect(&given, tidemark_trigger::parameters::hide).unwrap();
    assert_eq!(shown["addresses"], serde_json::json!(["redis:6379", "a:1", "[::1]:2"]));
}

#[test]
fn what_has_no_effect_is_noted() {
    let notes = |trigger_type: &TriggerType, metadata: &[(&str, &str)]| {
        (trigger_type.parse)(&trigger_input(trigger_type.name, metadata, &[])).unwrap().notes().join("\n")
    };
    let two = [LIST, ("address", "a:1,b:2"), ("databaseIndex", "3"), ("listLength", "0"), ("username", "me")];
    let single = notes(&TYPE, &two);
    for part in ["only the first address", "listLength must be above 0", "username has no effect"] {
        assert!(single.contains(part), "{part} in: {single}");
    }
    assert!(notes(&CLUSTER, &two).contains("databaseIndex has no effect"));
    assert!(notes(&SENTINEL, &two).contains("sentinelMaster is missing"));
    assert!(notes(&TYPE, &[LIST, ("address", "redis")]).contains("not host:port"));
}

#[test]
fn only_a_number_that_is_no_less_than_zero_is_a_size() {
    let read = |value| size(&Reply { value, endpoint: "redis:6379".to_owned() }, "the size of the key `k`");
    assert_eq!(read(Value::Int(4)), Ok(4));
    let error = read(Value::BulkString(b"stream".to_vec())).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    assert_eq!(error.message, "redis:6379 cannot tell the size of the key `k`: it has the unsupported type stream");
    for value in [Value::Int(-1), Value::Nil, Value::Okay, Value::Array(vec![])] {
        assert_eq!(read(value).unwrap_err().kind, ErrorKind::BadReply);
    }
}
