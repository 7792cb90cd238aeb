use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use http::Response;
use tidemark_trigger::door::{Cluster, ServiceEndpoint};

use super::*;
use crate::tests::{door, trigger_input};

fn input(metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> TriggerInput {
    let needed = [("url", "http://u:p@h.test:81/stats?token=hidden"), ("valueLocation", "jobs"), ("targetValue", "5")];
    trigger_input("metrics-api", &[&needed, metadata].concat(), auth)
}

/// The outcome of one read when the endpoint answers with this status and body, and the request that it saw.
async fn read(input: &TriggerInput, status: u16, body: &str) -> (Result<Reading, SourceError>, Option<Request<Bytes>>) {
    let seen = Arc::new(Mutex::new(None));
    let (body, sink) = (Bytes::copy_from_slice(body.as_bytes()), seen.clone());
    let door = door(move |request| {
        *sink.lock().unwrap() = Some(request);
        let reply = Response::builder().status(status).body(body.clone()).unwrap();
        async move { Ok(reply) }.boxed()
    });
    let trigger = MetricsApi::parse(input).unwrap();
    let outcome = async { Ok(trigger.connect(&door).await?.read(&door).await?[0]) }.await;
    let request = seen.lock().unwrap().take();
    (outcome, request)
}

async fn value(location: &str, body: &str) -> Result<f64, String> {
    let (outcome, _) = read(&input(&[("valueLocation", location)], &[]), 200, body).await;
    outcome.map(|reading| reading.value).map_err(|error| error.to_string())
}

#[tokio::test(start_paused = true)]
async fn numbers_and_quantities_are_readings() {
    assert_eq!(value("jobs.waiting", r#"{"jobs":{"waiting":42}}"#).await, Ok(42.0));
    assert_eq!(value("queues.#(name==\"mail\").length", r#"{"queues":[{"name":"mail","length":7}]}"#).await, Ok(7.0));
    assert_eq!(value("q.#", r#"{"q":[1,2,3]}"#).await, Ok(3.0));
    for (text, expected) in [("12", 12.0), ("500m", 0.5), ("10Ki", 10240.0), ("-2", -2.0), ("1e3", 1000.0)] {
        assert_eq!(value("n", &format!(r#"{{"n":"{text}"}}"#)).await, Ok(expected), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_format_has_its_own_language() {
    let value = async |format: &str, location: &str, body: &str| {
        let given = input(&[("format", format), ("valueLocation", location)], &[]);
        read(&given, 200, body).await.0.map(|reading| reading.value).map_err(|error| (error.kind, error.message))
    };
    assert_eq!(value("yaml", "q.1.n", "q:\n- n: 1\n- n: 2Ki\n").await, Ok(2048.0));
    assert_eq!(value("xml", "q.1.n", "<r><q><n>1</n></q><q><n>2.5</n></q></r>").await, Ok(2.5));
    assert_eq!(value("prometheus", "jobs{q=\"a\"}", "jobs{q=\"b\"} 1\r\njobs{q=\"a\"} 2").await, Ok(2.0));
    let error = |kind, text: &str| Err((kind, format!("http://h.test:81/stats: valueLocation {text}")));
    let bad = ErrorKind::BadReply;
    assert!(value("yaml", "a", "a: [").await.unwrap_err().1.contains("the reply is not valid YAML (line "));
    assert_eq!(
        value("xml", "a", "<r><a/></r>").await,
        error(bad, "\"a\" leads to a text in the reply, not to a number or a quantity")
    );
    assert_eq!(
        value("prometheus", "a", "a 1\nb\n").await,
        error(bad, "\"a\" cannot be found: line 2 of the reply is not in Prometheus' text format")
    );
    assert_eq!(
        value("prometheus", "a", "b 1\n").await,
        error(bad, "\"a\" is no gauge, counter or untyped metric of the reply")
    );
    assert_eq!(value("prometheus", "sum(a)", "").await.unwrap_err().0, ErrorKind::Configuration);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_number_is_a_bad_reply_and_never_zero() {
    let body = r#"{"t":"many","z":null,"b":true,"l":[1],"o":{"a":1},"w":-x}"#;
    let kinds =
        [("t", "a text"), ("z", "null"), ("b", "a boolean"), ("l", "a list"), ("o", "an object"), ("none", "nothing")];
    for (location, what) in kinds {
        let expected = format!(
            "http://h.test:81/stats: valueLocation \"{location}\" leads to {what} in the reply, not to a number or a \
             quantity (bad reply)"
        );
        assert_eq!(value(location, body).await, Err(expected));
    }
    assert!(value("w", body).await.is_err());
    assert!(value("a", "").await.is_err());
    assert!(value("a", "<html>busy</html>").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_trigger_is_active_above_the_activation_value_only() {
    let active = async |threshold: &str, body: &str| {
        read(&input(&[("activationTargetValue", threshold)], &[]), 200, body).await.0.unwrap().active
    };
    assert!(!active("5", r#"{"jobs":5}"#).await);
    assert!(active("5", r#"{"jobs":5.001}"#).await);
    assert!(!active("", r#"{"jobs":0}"#).await);
    assert!(!active("", r#"{"jobs":nan}"#).await);
    assert!(active("", r#"{"jobs":+Inf}"#).await);
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_the_kind_of_failure() {
    let kinds = [
        (401, ErrorKind::Authentication),
        (403, ErrorKind::Authentication),
        (404, ErrorKind::MissingResource),
        (500, ErrorKind::Refused),
        (204, ErrorKind::Refused),
    ];
    for (status, kind) in kinds {
        let error = read(&input(&[], &[]), status, r#"{"jobs":1}"#).await.0.unwrap_err();
        assert_eq!(error.kind, kind);
        assert!(error.message.starts_with(&format!("http://h.test:81/stats: api returned {status}")), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn modes_combine_and_reach_the_request() {
    let given = input(
        &[("authModes", "apiKey, basic"), ("url", "http://h.test/s?z=1&a=2")],
        &[("apiKey", "k"), ("username", "u"), ("password", "p:w")],
    );
    let request = read(&given, 200, r#"{"jobs":1}"#).await.1.unwrap();
    assert_eq!(request.uri().to_string(), "http://h.test/s?z=1&a=2");
    assert_eq!(request.headers()["x-api-key"], "k");
    let expected = base64::engine::general_purpose::STANDARD.encode("u:p:w");
    assert_eq!(request.headers()["authorization"].to_str().unwrap(), format!("Basic {expected}"));
    let bearer = input(&[("authMode", "bearer")], &[("token", "t")]);
    assert_eq!(read(&bearer, 200, r#"{"jobs":1}"#).await.1.unwrap().headers()["authorization"], "Bearer t");
}

#[tokio::test(start_paused = true)]
async fn a_key_in_the_query_replaces_the_one_there() {
    let url = "http://h.test/s?z=1&key=old&a=2%2B2";
    let metadata = [("authModes", "apiKey"), ("method", "query"), ("keyParamName", "key"), ("url", url)];
    let request = read(&input(&metadata, &[("apiKey", "n w")]), 200, r#"{"jobs":1}"#).await.1.unwrap();
    assert_eq!(request.uri().query(), Some("a=2%2B2&key=n+w&z=1"));
}

#[tokio::test(start_paused = true)]
async fn nothing_secret_is_shown() {
    let bad_url = input(&[("url", "http://user:hunter2@:x/?token=hidden")], &[]);
    let (outcome, _) = read(&bad_url, 200, "").await;
    let trigger = MetricsApi::parse(&bad_url).unwrap();
    let error = outcome.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Configuration);
    let bad_key = input(&[("authModes", "apiKey")], &[("apiKey", "hun\nter2")]);
    let refused = read(&bad_key, 200, "").await.0.unwrap_err();
    assert_eq!(refused.message, "apiKey has a character that no header may have");
    let failing = read(&input(&[], &[]), 500, "").await.0.unwrap_err();
    let shown = format!("{error} {refused} {failing} {trigger:?} {:?}", trigger.notes());
    assert!(!shown.contains("hunter2") && !shown.contains("hidden"), "{shown}");
}

#[test]
fn certificates_are_used_in_mode_tls_only() {
    let auth = [("cert", "c"), ("key", "k"), ("ca", "a")];
    let profile =
        |metadata: &[(&str, &str)]| MetricsApi::parse(&input(metadata, &auth)).unwrap().endpoint().unwrap().profile;
    let tls = profile(&[("authModes", "tls"), ("unsafeSsl", "true")]);
    assert!(tls.unsafe_ssl && tls.ca.is_some() && tls.client_cert.is_some());
    assert_eq!(profile(&[]), HttpProfile::default());
}

#[test]
fn all_that_is_wrong_is_named() {
    let errors = |metadata: &[(&str, &str)]| MetricsApi::parse(&input(metadata, &[])).unwrap_err().to_string();
    assert_eq!(errors(&[("targetValue", "")]), "no targetValue given in metadata");
    assert_eq!(errors(&[("targetValue", "-1")]), "parameter \"targetValue\" value \"-1\" must be at least 0.001");
    assert_eq!(errors(&[("authModes", "tls")]), "authModes tls needs cert\nauthModes tls needs key");
    assert!(errors(&[("authModes", "basic,bearer")]).contains("must contain only one of"));
    assert!(errors(&[("format", "toml")]).contains("must be one of [json xml yaml prometheus]"));
    let mut utilization = input(&[], &[]);
    utilization.metric_type = Some("Utilization".to_owned());
    assert!(MetricsApi::parse(&utilization).is_err());
    let mut source = input(&[("targetValue", "")], &[]);
    source.as_metric_source = true;
    assert!(MetricsApi::parse(&source).is_ok());
}

#[test]
fn what_has_no_effect_is_noted() {
    let given = input(
        &[("authModes", "custom"), ("activationTarget", "3")],
        &[("customAuthHeader", "h"), ("customAuthValue", "v")],
    );
    let notes = MetricsApi::parse(&given).unwrap().notes;
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].contains("unknown parameter activationTarget"), "{notes:?}");
    assert_eq!(notes[1], "authModes custom has no effect with metrics-api");
}

/// A cluster with one service of a few endpoints.
struct Endpoints(Result<Vec<ServiceEndpoint>, SourceError>);

impl Cluster for Endpoints {
    fn live_pods<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<usize, SourceError>> {
        unreachable!("only endpoints are asked for")
    }

    fn nodes_of_live_pods<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<BTreeSet<Box<str>>, SourceError>> {
        unreachable!("only endpoints are asked for")
    }

    fn service_endpoints<'a>(
        &'a self,
        namespace: &'a str,
        service: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ServiceEndpoint>, SourceError>> {
        assert_eq!((namespace, service), ("shop", "web"));
        async move { self.0.clone() }.boxed()
    }
}

fn endpoints(addresses: &[&str]) -> Endpoints {
    let endpoint = |address: &&str| ServiceEndpoint { address: (*address).into(), ready: true, ports: [8080].into() };
    Endpoints(Ok(addresses.iter().map(endpoint).collect()))
}

/// The outcome when the endpoints answer with the last digit of their address, but for those that end with 0, which
/// fail, and those that end with 9, which do not answer; and the URLs that were asked.
async fn read_all(metadata: &[(&str, &str)], cluster: Endpoints) -> (Result<f64, SourceError>, Vec<String>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let door = door(move |request| {
        sink.lock().unwrap().push(request.uri().to_string());
        assert_eq!(request.headers()["x-api-key"], "k");
        let digit = request.uri().host().unwrap().trim_end_matches(']').chars().last().unwrap();
        let status = if digit == '0' { 503 } else { 200 };
        let reply = Response::builder().status(status).body(Bytes::from(format!("{{\"jobs\":{digit}}}"))).unwrap();
        async move { if digit == '9' { std::future::pending().await } else { Ok(reply) } }.boxed()
    });
    let needed =
        [("url", "http://web.shop:8080/m?q=1"), ("aggregateFromKubeServiceEndpoints", "true"), ("authModes", "apiKey")];
    let given = input(&[&needed, metadata].concat(), &[("apiKey", "k")]);
    let door = door.with_cluster(Arc::new(cluster));
    let trigger = MetricsApi::parse(&given).unwrap();
    let outcome = async { Ok(trigger.connect(&door).await?.read(&door).await?[0].value) }.await;
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    (outcome, seen)
}

#[tokio::test(start_paused = true)]
async fn all_endpoints_of_a_service_are_asked_and_those_that_fail_are_left_out() {
    let addresses = ["10.0.0.4", "10.0.0.10", "10.0.0.8"];
    let (average, seen) = read_all(&[], endpoints(&addresses)).await;
    assert_eq!(average, Ok(6.0));
    assert_eq!(seen, ["http://10.0.0.4:8080/m?q=1", "http://10.0.0.10:8080/m?q=1", "http://10.0.0.8:8080/m?q=1"]);
    for (aggregation, expected) in [("average", 6.0), ("sum", 12.0), ("max", 8.0), ("min", 4.0)] {
        let (outcome, _) = read_all(&[("aggregationType", aggregation)], endpoints(&addresses)).await;
        assert_eq!(outcome, Ok(expected), "{aggregation}");
    }
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_do_not_answer_cost_the_others_nothing() {
    let started = tokio::time::Instant::now();
    let addresses = ["10.0.0.4", "10.0.0.8", "10.0.0.9", "10.0.1.9", "10.0.2.9", "10.0.3.9"];
    assert_eq!(read_all(&[], endpoints(&addresses)).await.0, Ok(6.0));
    assert_eq!(started.elapsed(), Duration::from_secs(3), "the deadline of a request");

    let started = tokio::time::Instant::now();
    let silent: Vec<String> = (0..40).map(|i| format!("10.0.{i}.9")).collect();
    let addresses: Vec<&str> = ["10.0.0.4", "10.0.0.8"].into_iter().chain(silent.iter().map(String::as_str)).collect();
    assert_eq!(read_all(&[], endpoints(&addresses)).await.0, Ok(6.0));
    assert_eq!(started.elapsed(), Duration::from_secs(8));
    for aggregation in ["sum", "max", "min"] {
        let (outcome, seen) = read_all(&[("aggregationType", aggregation)], endpoints(&addresses)).await;
        let (error, asked) = (outcome.unwrap_err(), seen.len());
        assert_eq!(error.kind, ErrorKind::TimedOut, "{aggregation}");
        let told = format!("only {asked} of the 42 endpoints of service shop/web could be asked within 8s");
        assert!(error.message.starts_with(&told), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_without_any_answer_is_an_error_and_not_zero() {
    let error = async |metadata: &[(&str, &str)], cluster| read_all(metadata, cluster).await.0.unwrap_err();
    let failed = error(&[], endpoints(&["10.0.0.10", "10.0.0.20"])).await;
    assert_eq!(failed.kind, ErrorKind::Refused);
    assert_eq!(
        failed.message,
        "could not get any metric successfully from the 2 provided endpoints of service shop/web: \
         http://10.0.0.10:8080/m: api returned 503 Service Unavailable"
    );
    let wrong_port = error(&[("url", "http://web.shop:80/m")], endpoints(&["10.0.0.10"])).await;
    assert!(wrong_port.message.contains("(the URL's port 80 is none of the pods' ports: 8080)"), "{wrong_port}");
    let none = error(&[], endpoints(&[])).await;
    assert_eq!(none.kind, ErrorKind::MissingResource);
    assert!(none.message.starts_with("no endpoints URLs were given for the service name"), "{none}");
    let refused = SourceError::new(ErrorKind::Authentication, "not allowed");
    let refused = error(&[], Endpoints(Err(refused))).await;
    assert_eq!(refused.kind, ErrorKind::Authentication);
    assert!(refused.message.ends_with("from configured service URL: not allowed"), "{refused}");
    let no_service = error(&[("url", "http://web/m")], endpoints(&["10.0.0.1"])).await;
    assert_eq!(no_service.kind, ErrorKind::Configuration);
}

#[test]
fn a_url_without_a_service_is_noted() {
    let given = input(&[("url", "http://web/m"), ("aggregateFromKubeServiceEndpoints", "true")], &[]);
    assert!(MetricsApi::parse(&given).unwrap().notes[0].contains("http://service.namespace:8080/path"));
    let without = input(&[("aggregationType", "max")], &[]);
    let expected = "aggregationType has no effect without aggregateFromKubeServiceEndpoints";
    assert_eq!(*MetricsApi::parse(&without).unwrap().notes, [expected]);
}
