//! The external triggers against a scaler in another language, which `TIDEMARK_TEST_EXTERNAL_SCALER` names by the URL of
//! its control; `xtask/external-scaler/main.go` says what that understands.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::try_join_all;
use futures::stream::BoxStream;
use http::{Method, Request};
use serde_json::{Value, json};
use tidemark_trigger::{
    Connection, Door, DoorSettings, ErrorKind, HttpProfile, MetricSpec, Push, Reading, SourceError, TriggerInput,
};
use tokio::time::timeout;

use crate::source::{self, door, service};

/// Longest wait for the scaler to show something.
const PATIENCE: Duration = Duration::from_secs(30);

/// The scaler, as one object sees it.
struct Scaler {
    control: String,
    places: Value,
    object: String,
    door: Door,
}

impl Scaler {
    /// An object of its own in the scaler, or a visible skip.
    async fn of(object: &str) -> Option<Self> {
        let control = service("TIDEMARK_TEST_EXTERNAL_SCALER")?;
        let mut scaler = Self { control, places: Value::Null, object: object.to_owned(), door: door() };
        scaler.places = scaler.control(Method::GET, "", Value::Null).await;
        scaler.control(Method::DELETE, &format!("objects/it/{object}"), Value::Null).await;
        Some(scaler)
    }

    async fn control(&self, method: Method, path: &str, body: Value) -> Value {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder().method(method).uri(format!("{}/{path}", self.control)).body(body).unwrap();
        let reply = self.door.http(&HttpProfile::default(), request, Some(PATIENCE)).await.unwrap();
        assert!(reply.status().is_success(), "{:?}", reply.body());
        if reply.body().is_empty() { Value::Null } else { serde_json::from_slice(reply.body()).unwrap() }
    }

    /// What it answers from now on.
    async fn state(&self, state: Value) {
        self.control(Method::PUT, &format!("objects/it/{}", self.object), state).await;
    }

    /// What it was asked.
    async fn seen(&self) -> Value {
        self.control(Method::GET, &format!("objects/it/{}", self.object), Value::Null).await
    }

    /// Does something to the open streams.
    async fn stream(&self, action: &str, body: Value) {
        self.control(Method::POST, &format!("objects/it/{}/{action}", self.object), body).await;
    }

    /// Waits until it has these streams open.
    async fn has_streams(&self, streams: Value) {
        let open = async {
            while self.seen().await["streams"] != streams {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, open).await.unwrap_or_else(|_| panic!("the streams are not {streams}"));
    }

    fn place(&self, name: &str) -> String {
        self.places[name].as_str().unwrap().to_owned()
    }

    /// The port of a place by the name that its certificate has.
    fn localhost(&self, name: &str) -> String {
        format!("localhost:{}", self.place(name).rsplit_once(':').unwrap().1)
    }

    fn input(&self, trigger_type: &str, address: &str, more: &[(&str, &str)], auth: &[(&str, &str)]) -> TriggerInput {
        let metadata = [&[("scalerAddress", address)], more].concat();
        TriggerInput { object: self.object.clone(), ..source::input(trigger_type, &metadata, auth) }
    }

    fn plain(&self) -> TriggerInput {
        self.input("external", &self.place("plain"), &[], &[])
    }

    async fn connect(&self, input: &TriggerInput) -> Result<Arc<dyn Connection>, SourceError> {
        source::connect(&self.door, input).await
    }

    async fn read(&self, input: &TriggerInput) -> Result<Vec<Reading>, SourceError> {
        self.connect(input).await?.read(&self.door).await
    }

    fn pushes(&self, address: &str) -> (Arc<dyn tidemark_trigger::Trigger>, BoxStream<'static, Push>) {
        let trigger = tidemark_triggers::parse(&self.input("external-push", address, &[], &[])).unwrap();
        let pushes = trigger.pushes(&self.door).unwrap();
        (trigger, pushes)
    }
}

/// One metric with one value.
fn one(value: Value, active: bool) -> Value {
    json!({"metrics": [{"name": "jobs", "target": 5}], "values": {"jobs": [value]}, "active": active})
}

/// Names and targets in thousandths.
fn shown(metrics: &[MetricSpec]) -> Vec<(String, i64)> {
    let shown = metrics.iter().map(|metric| match metric {
        MetricSpec::External { name, target_milli, .. } => (name.to_string(), *target_milli),
        MetricSpec::Resource { .. } => panic!("no external metric"),
    });
    shown.collect()
}

async fn next(pushes: &mut BoxStream<'static, Push>) -> Push {
    timeout(PATIENCE, pushes.next()).await.expect("nothing is pushed").expect("nothing more will come")
}

#[tokio::test]
async fn metrics_values_and_activity_are_what_the_scaler_says() {
    let Some(scaler) = Scaler::of("whole").await else { return };
    scaler
        .state(json!({
            "metrics": [{"name": "jobs", "target": 5}, {"name": "mails.total", "target": 9, "float": 2.5}],
            "values": {"jobs": [{"value": 7}], "mails.total": [{"value": 1, "float": 0.25}, {"value": 3}, {"value": -9}]},
            "active": true,
        }))
        .await;
    let mut given = scaler.plain();
    given.index = 2;
    let connection = scaler.connect(&given).await.unwrap();
    let metrics = shown(&connection.metrics().unwrap());
    assert_eq!(metrics, [("s2-jobs".to_owned(), 5000), ("s2-mails.total".to_owned(), 2500)]);
    let readings = connection.read(&scaler.door).await.unwrap();
    assert_eq!(readings, [Reading { value: 7.0, active: true }, Reading { value: 3.25, active: true }]);
    // The value plays no part in the activity.
    scaler.state(one(json!({"value": 7}), false)).await;
    assert_eq!(scaler.read(&given).await, Ok(vec![Reading { value: 7.0, active: false }]));
}

#[tokio::test]
async fn calls_come_in_the_order_that_servers_know_with_a_deadline_and_the_bare_name() {
    let Some(scaler) = Scaler::of("order").await else { return };
    scaler
        .state(json!({
            "metrics": [{"name": "a", "target": 1}, {"name": "s0-b", "target": 1}],
            "values": {"a": [{"value": 1}], "s0-b": [{"value": 2}]},
        }))
        .await;
    let connection = scaler.connect(&scaler.plain()).await.unwrap();
    for _ in 0..2 {
        let values: Vec<_> = connection.read(&scaler.door).await.unwrap().iter().map(|reading| reading.value).collect();
        assert_eq!(values, [1.0, 2.0]);
    }
    let seen = scaler.seen().await;
    let poll = ["GetMetrics", "IsActive", "GetMetrics", "IsActive"];
    assert_eq!(seen["calls"], json!([&["GetMetricSpec"], &poll[..], &poll[..]].concat()));
    assert_eq!((&seen["asked"], &seen["deadline"]), (&json!("s0-b"), &json!(true)));
    assert_eq!(seen["authority"], json!(scaler.place("plain")));
}

#[tokio::test]
async fn the_metadata_is_sent_with_the_environment_and_without_the_authentication() {
    let Some(scaler) = Scaler::of("metadata").await else { return };
    scaler.state(one(json!({"value": 1}), true)).await;
    let address = scaler.place("plain");
    let more = [("queue", " q "), ("passwordFromEnv", "PW"), ("goneFromEnv", "GONE"), ("unsafeSsl", "true")];
    let mut given = scaler.input("external", &address, &more, &[("password", "hunter3")]);
    given.env = [("PW".to_owned(), "hunter2".into())].into();
    scaler.read(&given).await.unwrap();
    let expected = json!({"scalerAddress": address, "queue": " q ", "passwordFromEnv": "hunter2", "unsafeSsl": "true"});
    assert_eq!(scaler.seen().await["metadata"], expected);
}

#[tokio::test]
async fn a_scaler_of_the_older_contract_works() {
    let Some(scaler) = Scaler::of("old").await else { return };
    scaler.state(one(json!({"value": 7, "float": 9.5}), true)).await;
    let address = scaler.place("old");
    let given = scaler.input("external", &address, &[], &[]);
    assert_eq!(scaler.read(&given).await, Ok(vec![Reading { value: 7.0, active: true }]));
    // It has no stream of metrics: it is asked for that once, and the other stream goes on.
    let (_, mut pushes) = scaler.pushes(&address);
    let open = async {
        scaler.has_streams(json!({"StreamIsActive": 1})).await;
        scaler.stream("active", json!(true)).await;
    };
    let (push, ()) = tokio::join!(next(&mut pushes), open);
    assert_eq!(push, Push::Active);
}

#[tokio::test]
async fn triggers_with_the_same_address_share_one_connection() {
    let Some(scaler) = Scaler::of("shared-a").await else { return };
    let other = Scaler::of("shared-b").await.unwrap();
    for one_of_them in [&scaler, &other] {
        one_of_them.state(one(json!({"value": 1}), true)).await;
    }
    let given = [scaler.plain(), other.plain()];
    let connections = given.iter().map(|given| scaler.connect(given));
    let connections = try_join_all(connections).await.unwrap();
    for connection in &connections {
        connection.read(&scaler.door).await.unwrap();
    }
    let (a, b) = (scaler.seen().await, other.seen().await);
    assert_eq!(a["peers"].as_array().unwrap().len(), 1);
    assert_eq!(a["peers"], b["peers"]);
}

#[tokio::test]
async fn tls_works_with_the_authority_a_client_certificate_or_unchecked() {
    let Some(scaler) = Scaler::of("tls").await else { return };
    scaler.state(one(json!({"value": 7}), true)).await;
    let (ca, cert, key) = (scaler.place("ca"), scaler.place("clientCert"), scaler.place("clientKey"));
    let (tls, mtls) = (scaler.localhost("tls"), scaler.localhost("mtls"));
    let seven = Ok(vec![Reading { value: 7.0, active: true }]);
    let auth = [("caCert", ca.as_str()), ("tlsClientCert", cert.as_str()), ("tlsClientKey", key.as_str())];
    let unchecked = [("enableTLS", "true"), ("unsafeSsl", "true")];
    for (address, metadata, auth) in
        [(&tls, &[][..], &auth[..1]), (&tls, &unchecked, &[]), (&mtls, &[], &auth), (&mtls, &unchecked, &auth[1..])]
    {
        let given = scaler.input("external", address, metadata, auth);
        assert_eq!(scaler.read(&given).await, seven, "{address} {metadata:?}");
    }
}

#[tokio::test]
async fn tls_that_does_not_fit_is_an_error_of_its_kind() {
    let Some(scaler) = Scaler::of("tls-wrong").await else { return };
    scaler.state(one(json!({"value": 7}), true)).await;
    let (ca, tls, mtls) = (scaler.place("ca"), scaler.localhost("tls"), scaler.localhost("mtls"));
    let (plain, enabled) = (scaler.localhost("plain"), [("enableTLS", "true")]);
    let error = async |address: &str, metadata: &[(&str, &str)], auth: &[(&str, &str)]| {
        scaler.read(&scaler.input("external", address, metadata, auth)).await.unwrap_err()
    };
    let unknown = error(&tls, &enabled, &[]).await;
    assert_eq!(unknown.kind, ErrorKind::Refused, "{unknown}");
    assert!(unknown.message.starts_with(&format!("the certificate of {tls}")), "{unknown}");
    // The refusal may get lost when the scaler closes the connection: then a hint takes its place.
    let nobody = error(&mtls, &[], &[("caCert", &ca)]).await;
    let hinted = nobody.kind == ErrorKind::Unreachable && nobody.message.contains("want a client certificate");
    assert!(nobody.kind == ErrorKind::Authentication || hinted, "{nobody}");
    let no_tls = error(&plain, &enabled, &[]).await;
    assert_eq!(no_tls.kind, ErrorKind::BadReply, "{no_tls}");
    // `unsafeSsl` alone leaves the connection plain.
    let only_plain = error(&tls, &[("unsafeSsl", "true")], &[]).await;
    assert!(only_plain.message.ends_with("it may not speak gRPC, or want TLS"), "{only_plain}");
}

#[tokio::test]
async fn targets_of_grpc_and_unix_sockets_lead_to_the_scaler() {
    let Some(scaler) = Scaler::of("targets").await else { return };
    scaler.state(one(json!({"value": 7}), true)).await;
    let plain = scaler.localhost("plain");
    for address in [format!("dns:///{plain}"), format!("unix://{}", scaler.place("unix"))] {
        let given = scaler.input("external", &address, &[], &[]);
        assert_eq!(scaler.read(&given).await, Ok(vec![Reading { value: 7.0, active: true }]), "{address}");
    }
}

#[tokio::test]
async fn a_scaler_that_fails_is_an_error_that_hides_what_it_repeats() {
    let Some(scaler) = Scaler::of("failing").await else { return };
    let mut given = scaler.input("external", &scaler.place("plain"), &[("passwordFromEnv", "PW")], &[]);
    given.env = [("PW".to_owned(), "hunter2".into())].into();
    for (code, kind) in [(16, ErrorKind::Authentication), (5, ErrorKind::MissingResource), (2, ErrorKind::Refused)] {
        scaler.state(json!({"code": code, "message": "no login with {passwordFromEnv} here"})).await;
        let error = scaler.read(&given).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.starts_with(&format!("the scaler at {} answered", scaler.place("plain"))), "{error}");
        assert!(error.message.ends_with("no login with *** here"), "{error}");
    }
    scaler.state(json!({"metrics": []})).await;
    let error = scaler.read(&given).await.unwrap_err();
    assert!(error.message.starts_with("got empty metric spec"), "{error}");
    scaler.state(json!({"metrics": [{"name": "jobs", "target": 5}], "values": {}})).await;
    let error = scaler.read(&given).await.unwrap_err();
    assert_eq!(error.message, "the scaler gave no value of the metric `jobs`");
}

#[tokio::test]
async fn a_scaler_that_hangs_times_out_and_one_that_is_down_is_unreachable() {
    let Some(scaler) = Scaler::of("slow").await else { return };
    let mut state = one(json!({"value": 7}), true);
    state["delay"] = json!(600_000);
    scaler.state(state).await;
    let settings = DoorSettings { http_timeout: Duration::from_millis(300), ..DoorSettings::default() };
    let hasty = Door::new(tidemark_clock::Clock::system(), settings);
    let error = source::connect(&hasty, &scaler.plain()).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::TimedOut, "{error}");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = scaler.read(&scaler.input("external", &address, &[], &[])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert_eq!(error.message, format!("cannot connect to {address}: connection refused"));
}

#[tokio::test]
async fn the_scaler_pushes_activity_and_metrics() {
    let Some(scaler) = Scaler::of("pushing").await else { return };
    scaler.state(one(json!({"value": 7}), false)).await;
    let (trigger, mut pushes) = scaler.pushes(&scaler.place("plain"));
    let Push::Metrics(metrics) = next(&mut pushes).await else { panic!("no metrics") };
    assert_eq!(shown(&metrics), [("s0-jobs".to_owned(), 5000)]);
    let told = async {
        scaler.has_streams(json!({"StreamIsActive": 1, "StreamMetricSpec": 1})).await;
        // That it is quiet is not told on, and the same metrics are no news.
        scaler.stream("active", json!(false)).await;
        scaler.stream("specs", Value::Null).await;
        scaler.stream("active", json!(true)).await;
    };
    let (push, ()) = tokio::join!(next(&mut pushes), told);
    assert_eq!(push, Push::Active);

    // Streamed metrics win over those that the scaler would name when asked.
    scaler.state(json!({"metrics": [{"name": "mails", "float": 1.5}], "values": {"mails": [{"value": 3}]}})).await;
    let (push, ()) = tokio::join!(next(&mut pushes), scaler.stream("specs", Value::Null));
    let Push::Metrics(metrics) = push else { panic!("no metrics") };
    assert_eq!(shown(&metrics), [("s0-mails".to_owned(), 1500)]);
    scaler.state(json!({"metrics": [{"name": "other", "target": 1}], "values": {"mails": [{"value": 3}]}})).await;
    let connection = trigger.connect(&scaler.door).await.unwrap();
    assert_eq!(shown(&connection.metrics().unwrap()), [("s0-mails".to_owned(), 1500)]);
    assert_eq!(connection.read(&scaler.door).await.unwrap()[0].value, 3.0);
    let calls = scaler.seen().await["calls"].clone();
    assert!(!calls.as_array().unwrap().contains(&json!("GetMetricSpec")), "{calls}");
}

#[tokio::test]
async fn a_stream_that_breaks_is_opened_again_and_both_close_with_the_last_holder() {
    let Some(scaler) = Scaler::of("breaking").await else { return };
    scaler.state(one(json!({"value": 7}), false)).await;
    let (_, mut pushes) = scaler.pushes(&scaler.place("plain"));
    assert!(matches!(next(&mut pushes).await, Push::Metrics(_)));
    for code in [14, 0] {
        let broken = async {
            scaler.has_streams(json!({"StreamIsActive": 1, "StreamMetricSpec": 1})).await;
            scaler.stream("end", json!(code)).await;
            scaler.has_streams(json!({})).await;
            scaler.has_streams(json!({"StreamIsActive": 1, "StreamMetricSpec": 1})).await;
            scaler.stream("active", json!(true)).await;
        };
        let (push, ()) = tokio::join!(next(&mut pushes), broken);
        assert_eq!(push, Push::Active);
    }
    drop(pushes);
    scaler.has_streams(json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scaler_that_sends_its_clients_away_gets_every_call_once() {
    let Some(scaler) = Scaler::of("restless").await else { return };
    scaler.state(one(json!({"value": 7}), true)).await;
    let given = scaler.input("external", &scaler.place("restless"), &[], &[]);
    let connection = scaler.connect(&given).await.unwrap();
    let (mut connections, mut reads) = (0, 0);
    for round in 0..10_000 {
        let read = || {
            let (connection, door) = (connection.clone(), scaler.door.clone());
            tokio::spawn(async move { connection.read(&door).await })
        };
        for readings in try_join_all((0..8).map(|_| read())).await.unwrap() {
            assert_eq!(readings, Ok(vec![Reading { value: 7.0, active: true }]), "round {round}");
        }
        reads += 8;
        if round % 50 == 0 {
            connections = scaler.seen().await["peers"].as_array().unwrap().len();
        }
        if connections > 20 {
            break;
        }
    }
    assert!(connections > 20, "{connections} connections");
    let calls = scaler.seen().await["calls"].clone();
    let count = |method| calls.as_array().unwrap().iter().filter(|call| **call == json!(method)).count();
    assert_eq!((count("GetMetrics"), count("IsActive")), (reads, reads));
}
