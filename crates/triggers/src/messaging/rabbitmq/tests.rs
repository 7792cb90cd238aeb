//! What is accepted, what is refused and in which words.

use super::*;
use crate::tests::{no_network, trigger_input};

fn input(metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> TriggerInput {
    let mut input = trigger_input("rabbitmq", metadata, auth);
    input.metadata.entry("queueName".to_owned()).or_insert_with(|| "q".to_owned());
    TriggerInput { index: 1, namespace: "shop".to_owned(), object: "orders".to_owned(), ..input }
}

fn target(input: &TriggerInput) -> amqp::Target {
    let declared = <Declared as Parameters>::parse(input).unwrap();
    match resolve(&declared, input).unwrap().source {
        Source::Amqp(target) => (*target).clone(),
        Source::Management(_) => panic!("not AMQP"),
    }
}

fn error(metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> String {
    match parse(&input(metadata, auth)) {
        Ok(trigger) => panic!("accepted: {trigger:?}"),
        Err(errors) => errors.to_string(),
    }
}

const AMQP: (&str, &str) = ("host", "amqp://h/v");
const HTTP: (&str, &str) = ("host", "http://h/v");
const OAUTH2: [(&str, &str); 3] =
    [("oauthTokenURI", "https://login.test"), ("clientID", "id"), ("clientSecret", "secret")];

#[test]
fn each_mistake_is_refused_in_the_words_of_keda() {
    for (metadata, auth, message) in [
        (
            &[AMQP, ("protocol", "mqtt")][..],
            &[][..],
            "the protocol has to be either `amqp`, `http`, or `auto` but is `mqtt`",
        ),
        (&[AMQP], &[("tls", "yes")], "incorrect value for TLS given: yes"),
        (&[AMQP], &[("cert", "c")], "both key and certificate must be provided"),
        (&[HTTP, ("pageSize", "0")], &[], "pageSize should be 1 or greater"),
        (&[AMQP], &[("password", "p")], "username and password must be given together"),
        (&[("host", "mqtt://h")], &[], "unknown host URL scheme: `mqtt`"),
        (
            &[AMQP],
            &[("workloadIdentityResource", "r")],
            "workload identity is not supported for the AMQP protocol at the moment",
        ),
        (
            &[HTTP],
            &OAUTH2[..2],
            "OAuth2 requires tokenUrl clientId and clientSecret to be configured in TriggerAuthentication",
        ),
        (&[AMQP], &OAUTH2, "OAuth2 authentication is only supported with HTTP protocol, not AMQP"),
        (&[AMQP, ("useRegex", "true")], &[], "configure useRegex=true only with HTTP protocol"),
        (
            &[AMQP, ("excludeUnacknowledged", "true")],
            &[],
            "configure excludeUnacknowledged=true only with HTTP protocol",
        ),
        (&[AMQP, ("queueLength", "1"), ("value", "1")], &[], "queueLength is deprecated; use mode and value"),
        (&[AMQP, ("value", "1")], &[], "mode must be specified"),
        (&[AMQP, ("mode", "QueueLength")], &[], "value must be specified"),
        (&[AMQP, ("mode", "QueueLength"), ("value", "-1")], &[], "value must be at least 0.001"),
        (&[AMQP, ("queueLength", "0.0004")], &[], "queueLength must be at least 0.001"),
        (
            &[AMQP, ("mode", "Length"), ("value", "1")],
            &[],
            "trigger mode Length must be one of QueueLength, MessageRate, DeliverGetRate, PublishedToDeliveredRatio or \
             ExpectedQueueConsumptionTime",
        ),
        (
            &[AMQP, ("mode", "MessageRate"), ("value", "1")],
            &[],
            "protocol amqp not supported; must be HTTP to use trigger mode MessageRate",
        ),
        (
            &[AMQP, ("mode", "QueueLength"), ("value", "1"), ("timeout", "10")],
            &[],
            "AMQP protocol doesn't support custom timeouts: 10000000",
        ),
    ] {
        assert_eq!(error(metadata, auth), message);
    }
}

#[test]
fn a_url_that_amqp_cannot_use_is_refused_before_anything_is_contacted() {
    for (host, message) in [
        ("h/v", "can't parse host to find protocol: the URL has no scheme, such as amqp:// or https://"),
        ("amqp://h/my v", "error parsing the AMQP URL: the URL contains a blank; write it as %20"),
        (
            "amqp://user:pa#ss@h/v",
            "error parsing the AMQP URL: the URL has an invalid port; a `/`, `?` or `#` in the password must be \
             percent-encoded",
        ),
    ] {
        assert_eq!(error(&[("host", host)], &[]), message);
    }
    let message = "error parsing the AMQP URL: the AMQP URL must begin with amqp:// or amqps://";
    assert_eq!(error(&[HTTP, ("protocol", "amqp")], &[]), message);
    let long = "q".repeat(256);
    let message = "the name is longer than the 255 bytes that AMQP allows";
    assert_eq!(error(&[AMQP, ("queueName", &long)], &[]), message);
    assert_eq!(error(&[AMQP, ("vhostName", &long)], &[]), message);
}

#[test]
fn no_message_and_no_debug_output_shows_a_credential() {
    let secrets = ["john", "hunter2", "jack", "hunter3"];
    let url = [("host", "amqps://john:hunter2@h:x/v")];
    let shown = error(&url, &[("username", "jack"), ("password", "hunter3")]);
    assert!(secrets.iter().all(|secret| !shown.contains(secret)), "{shown}");
    let url = [("host", "amqps://john:hunter2@h/v")];
    let trigger = parse(&input(&url, &[("username", "jack"), ("password", "hunter3")])).unwrap();
    let shown = format!("{trigger:?}");
    assert!(secrets.iter().all(|secret| !shown.contains(secret)), "{shown}");
}

#[test]
fn the_metric_is_named_after_the_queue() {
    let trigger = parse(&input(&[AMQP, ("queueName", "a/b c%d"), ("queueLength", "2.5")], &[])).unwrap();
    let expected = MetricSpec::External {
        name: "s1-rabbitmq-a-2Fb+c-25d".into(),
        metric_type: MetricType::AverageValue,
        target_milli: 2500,
    };
    assert_eq!(trigger.metrics(), [expected]);
}

#[test]
fn the_users_own_login_and_vhost_win_over_the_urls() {
    let plain = target(&input(&[("host", "amqp://u:p@h/v")], &[]));
    assert_eq!((plain.address.user.expose(), plain.address.vhost.as_str()), ("u", "v"));
    assert_eq!(plain.connection_name, "keda-shop-orders");
    let url = [("host", "amqp://u:p@h/v"), ("vhostName", "/")];
    let given = target(&input(&url, &[("username", "john"), ("password", "pw")]));
    let Address { user, password, vhost, .. } = &given.address;
    assert_eq!((user.expose(), password.expose(), vhost.as_str()), ("john", "pw", "/"));
}

#[test]
fn a_client_certificate_is_the_login_only_when_no_password_is_given() {
    let tls = [("tls", "enable"), ("cert", "c"), ("key", "k")];
    let mechanism = |host: &str, auth: &[(&str, &str)]| {
        target(&input(&[("host", host)], &[&tls[..], auth].concat())).address.options.mechanism
    };
    assert_eq!(mechanism("amqps://h/v", &[]), Some(Mechanism::External));
    assert_eq!(mechanism("amqps://u@h/v", &[]), Some(Mechanism::External));
    assert_eq!(mechanism("amqps://u:@h/v", &[]), None);
    assert_eq!(mechanism("amqps://h/v", &[("username", "u"), ("password", "p")]), None);
    assert_eq!(target(&input(&[("host", "amqps://h/v")], &tls[1..])).address.options.mechanism, None);
}

#[test]
fn triggers_share_a_connection_exactly_when_broker_login_and_tls_are_the_same() {
    let print = |host: &str, queue: &str, auth: &[(&str, &str)]| {
        target(&input(&[("host", host), ("queueName", queue)], auth)).fingerprint()
    };
    let one = print("amqp://u:p@h/v", "q", &[]);
    assert_eq!(one, print("AMQP://u:p@h:5672/v?foo=bar", "other", &[]));
    assert_eq!(one, print("amqp://x:y@h/v", "q", &[("username", "u"), ("password", "p")]));
    for other in [
        print("amqps://u:p@h/v", "q", &[]),
        print("amqp://u:p@h:5673/v", "q", &[]),
        print("amqp://u:p@i/v", "q", &[]),
        print("amqp://u:p@h/w", "q", &[]),
        print("amqp://u:q@h/v", "q", &[]),
        print("amqp://up:@h/v", "q", &[]),
        print("amqp://u:p@h/v?heartbeat=5", "q", &[]),
        print("amqp://u:p@h/v", "q", &[("tls", "enable"), ("ca", "c")]),
    ] {
        assert_ne!(one, other);
    }
    assert!(!one.contains('u') && one.len() == "amqp:".len() + 64, "{one}");
}

#[test]
fn what_will_not_do_what_it_says_is_noted() {
    let notes =
        |metadata: &[(&str, &str)], auth: &[(&str, &str)]| parse(&input(metadata, auth)).unwrap().notes().join("; ");
    assert_eq!(notes(&[AMQP], &[]), "");
    assert_eq!(notes(&[AMQP, ("timeout", "5")], &[]), "timeout has no effect with AMQP");
    let plain = "tls and unsafeSsl have no effect with an amqp:// host; use amqps://";
    assert_eq!(notes(&[AMQP], &[("tls", "enable")]), plain);
    let operation = notes(&[HTTP, ("useRegex", "true"), ("operation", "median")], &[]);
    assert_eq!(operation, "operation `median` is not sum, avg or max; reading fails");
    let scheme = notes(&[AMQP, ("protocol", "http")], &[]);
    assert_eq!(
        scheme,
        "host: with protocol http the URL must begin with http:// or https://; the trigger cannot connect"
    );
    assert_eq!(notes(&[AMQP, ("vHostName", "x")], &[]).matches("vhostName").count(), 1);
}

#[test]
fn inspection_shows_what_the_rules_made_of_the_parameters() {
    let shown =
        inspect(&input(&[AMQP], &[("endpointParams", "key=hunter2")]), tidemark_trigger::parameters::hide).unwrap();
    assert_eq!(
        (&shown["mode"], &shown["value"], &shown["protocol"]),
        (&"QueueLength".into(), &20.0.into(), &"amqp".into())
    );
    assert!(!serde_json::to_string(&shown).unwrap().contains("hunter2"));
}

#[tokio::test]
async fn without_a_network_amqp_is_unreachable() {
    let door = no_network();
    let failed = parse(&input(&[AMQP], &[])).unwrap().connect(&door).await.map(drop).unwrap_err();
    assert_eq!(failed.kind, tidemark_trigger::ErrorKind::Unreachable);
}
