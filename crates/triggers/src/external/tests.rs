use std::time::Duration;

use futures::stream::StreamExt as _;
use tidemark_trigger::{ErrorKind, MetricType};

use super::contract::{GetMetricSpecResponse, ScaledObjectRef, Spec, Value};
use super::*;
use crate::tests::{no_network, trigger_input};

fn input(metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> TriggerInput {
    trigger_input("external", &[&[("scalerAddress", "scaler:8080")], metadata].concat(), auth)
}

fn declared(metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> Declared {
    <Declared as Parameters>::parse(&input(metadata, auth)).unwrap()
}

fn notes(metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> Vec<String> {
    parse(&input(metadata, auth), false).unwrap().notes().to_vec()
}

fn scaler(input: &TriggerInput) -> Scaler {
    let declared = <Declared as Parameters>::parse(input).unwrap();
    let metric_type = metric::metric_type(input).unwrap();
    Scaler::new(input, &declared.scaler_address, declared.tls(), scaler::sent(input), metric_type)
}

fn specs(specs: &[(&str, i64, f64)]) -> GetMetricSpecResponse {
    let spec = |(name, target_size, target_size_float): &(&str, i64, f64)| Spec {
        metric_name: (*name).to_owned(),
        target_size: *target_size,
        target_size_float: *target_size_float,
    };
    GetMetricSpecResponse { metric_specs: specs.iter().map(spec).collect() }
}

fn values(values: &[(i64, f64)]) -> GetMetricsResponse {
    let value = |(metric_value, metric_value_float): &(i64, f64)| Value {
        metric_name: "whatever".to_owned(),
        metric_value: *metric_value,
        metric_value_float: *metric_value_float,
    };
    GetMetricsResponse { metric_values: values.iter().map(value).collect() }
}

#[test]
fn tls_is_on_by_its_switch_an_authority_or_a_pair_and_by_nothing_else() {
    let on = |metadata: &[(&str, &str)], auth: &[(&str, &str)]| declared(metadata, auth).tls().is_some();
    assert!(on(&[("enableTLS", "true")], &[]));
    assert!(on(&[], &[("caCert", "pem")]));
    assert!(on(&[], &[("tlsClientCert", "pem"), ("tlsClientKey", "pem")]));
    assert!(!on(&[], &[]));
    assert!(!on(&[("unsafeSsl", "true")], &[]));
    assert!(!on(&[], &[("tlsClientCert", "pem")]));
    // In the metadata they are the scaler's own.
    assert!(!on(&[("caCert", "pem"), ("tlsClientCert", "pem"), ("tlsClientKey", "pem")], &[]));
    let tls = declared(&[("unsafeSsl", "true")], &[("caCert", "pem")]).tls().unwrap();
    assert!(tls.unsafe_ssl && tls.ca == Some(Secret::from("pem")));
}

#[test]
fn what_has_no_effect_is_noted() {
    assert_eq!(notes(&[("anything", "goes"), ("enableTLS", "true"), ("unsafeSsl", "true")], &[]), [""; 0]);
    for (metadata, auth, expected) in [
        (("unsafeSsl", "true"), ("", ""), "unsafeSsl has no effect without TLS"),
        (("a", "b"), ("tlsClientKey", "k"), "have an effect only together"),
        (("caCert", "pem"), ("", ""), "caCert in the metadata is only handed on"),
        (("tlsCertFile", "/pem"), ("", ""), "tlsCertFile is only handed on"),
        (("tokenFromEnv", "TOKEN"), ("", ""), "the container sets no variable \"TOKEN\""),
        (("scalerAddress", "http://scaler"), ("", ""), "scalerAddress cannot be used: the scheme http is not known"),
    ] {
        let notes = notes(&[metadata], &[auth]);
        assert!(notes.len() == 1 && notes[0].contains(expected), "{notes:?}");
    }
}

#[test]
fn all_of_the_metadata_is_sent_and_the_environment_under_its_own_keys() {
    let metadata =
        [(" odd key ", " kept "), ("tokenFromEnv", "TOKEN"), ("goneFromEnv", "GONE"), ("emptyFromEnv", "EMPTY")];
    let mut given = input(&metadata, &[("caCert", "pem"), ("password", "hunter3")]);
    given.env = [("TOKEN".to_owned(), Secret::from("hunter2")), ("EMPTY".to_owned(), Secret::from(""))].into();
    let scaler = scaler(&given);
    let sent = ScaledObjectRef::decode(scaler.reference()).unwrap();
    assert_eq!((sent.namespace.as_str(), sent.name.as_str()), ("default", "object"));
    let expected = [(" odd key ", " kept "), ("scalerAddress", "scaler:8080"), ("tokenFromEnv", "hunter2")];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    assert_eq!(sent.scaler_metadata, expected);
    // None of it shows.
    let trigger = parse(&given, true).unwrap();
    let shown = format!("{trigger:?} {scaler:?} {:?}", trigger.notes());
    assert!(shown.contains("scaler:8080") && !shown.contains("hunter"), "{shown}");
    let failure = grpc::Failure::Status(tonic::Code::Unauthenticated, "no user has the token hunter2!".to_owned());
    let error = scaler.error(failure, IS_ACTIVE);
    let expected = "the scaler at scaler:8080 answered IsActive with Unauthenticated: no user has the token ***!";
    assert_eq!(error, SourceError::new(ErrorKind::Authentication, expected));
}

#[test]
fn metrics_are_named_as_the_scaler_says_and_have_its_targets() {
    let mut given = input(&[], &[]);
    given.index = 3;
    given.metric_type = Some("Value".to_owned());
    let scaler = scaler(&given);
    let named = |reply| scaler.metrics(&reply);
    let metrics = named(specs(&[("a.b:c", 5, 0.0), ("d", 9, 2.5), ("e", 7, -1.0), ("f", 8, f64::NAN)])).unwrap();
    let expected = [("s3-a.b:c", 5000), ("s3-d", 2500), ("s3-e", 7000), ("s3-f", 8000)];
    let expected = expected.map(|(name, target_milli)| MetricSpec::External {
        name: name.into(),
        metric_type: MetricType::Value,
        target_milli,
    });
    assert_eq!(*metrics, expected);

    assert_eq!(named(specs(&[])).unwrap_err().kind, ErrorKind::MissingResource);
    for bad in [("a/b", 5, 0.0), ("a%b", 5, 0.0), ("a\nb", 5, 0.0), ("a", 0, 0.0), ("a", -1, 0.0), ("a", 0, 0.0001)] {
        let error = named(specs(&[("good", 5, 0.0), bad])).unwrap_err();
        assert!(error.kind == ErrorKind::BadReply && !error.message.contains('\n'), "{error}");
    }
    let long = "a".repeat(1001);
    assert_eq!(named(specs(&[(&long, 5, 0.0)])).unwrap_err().kind, ErrorKind::BadReply);
    assert_eq!(named(specs(&[("a", 5, 0.0); 1001])).unwrap_err().kind, ErrorKind::BadReply);
    // A formula needs no target.
    given.as_metric_source = true;
    assert!(self::scaler(&given).metrics(&specs(&[("a", 0, 0.0)])).is_ok());
}

#[test]
fn values_are_added_up_each_as_it_counts_alone() {
    let scaler = scaler(&input(&[], &[]));
    for (given, sum) in [
        (&[(7, 0.0)][..], 7.0),
        (&[(7, 2.5)], 2.5),
        (&[(7, -2.5)], 7.0),
        (&[(-7, 0.0)], 0.0),
        (&[(-7, 0.0), (3, 0.0), (0, 0.25)], 3.25),
        (&[(0, f64::INFINITY)], 0.0),
        (&[(4, f64::NAN), (1, f64::NEG_INFINITY)], 5.0),
        (&[(0, 0.1), (0, 0.2)], 0.3),
    ] {
        assert_eq!(scaler.value("m", &values(given)), Ok(sum), "{given:?}");
    }
    let most = scaler.value("m", &values(&[(i64::MAX, 0.0), (i64::MAX, 0.0)])).unwrap();
    assert_eq!(most, i64::MAX as f64 / 1000.0);
    // No value is not zero.
    assert_eq!(scaler.value("m", &values(&[])).unwrap_err().kind, ErrorKind::BadReply);
}

#[test]
fn metrics_of_a_stream_are_remembered_and_told_only_when_they_are_news() {
    let scaler = scaler(&input(&[], &[]));
    assert_eq!(scaler.streamed(), None);
    let first = scaler.adopt(&specs(&[("a", 5, 0.0)])).unwrap();
    assert_eq!((first.as_ref(), first.clone()), (scaler.streamed().as_ref(), scaler.streamed()));
    assert_eq!(scaler.adopt(&specs(&[("a", 5, 0.0)])), Ok(None));
    // Neither an empty list nor one that cannot be used replaces them.
    assert_eq!(scaler.adopt(&specs(&[])), Ok(None));
    assert!(scaler.adopt(&specs(&[("a", 0, 0.0)])).is_err());
    assert_eq!(scaler.streamed(), first);
    assert!(scaler.adopt(&specs(&[("a", 6, 0.0)])).unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn without_a_network_everything_is_unreachable_and_pushes_stay_away() {
    let (door, external) = (no_network(), parse(&input(&[], &[]), false).unwrap());
    assert!(external.metrics().is_empty() && external.pushes(&door).is_none());
    let push = parse(&input(&[], &[]), true).unwrap();
    for trigger in [external, push.clone()] {
        let error = trigger.connect(&door).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Unreachable);
        assert!(error.message.starts_with("the scaler at scaler:8080 cannot be asked: there is no network"), "{error}");
    }
    let mut pushes = push.pushes(&door).unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(86_400), pushes.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_address_or_certificate_that_is_none_shows_when_connecting() {
    let door = Door::new(crate::tests::clock(), Default::default());
    for (metadata, auth, cause) in [
        (("scalerAddress", "http://hunter2"), ("", ""), "scalerAddress cannot be used"),
        (("a", "b"), ("caCert", "hunter2"), "caCert, tlsClientCert or tlsClientKey cannot be used: ca holds no"),
    ] {
        let error = parse(&input(&[metadata], &[auth]), false).unwrap().connect(&door).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Configuration, "{error}");
        assert!(error.message.starts_with(cause) && !error.message.contains("hunter2"), "{error}");
    }
}
