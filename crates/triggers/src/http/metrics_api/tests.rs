use std::sync::{Arc, Mutex};

use base64::Engine as _;
use http::Response;
use tidemark_clock::Clock;

use super::*;

fn input(metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> TriggerInput {
    let needed = [("url", "http://u:p@h.test:81/stats?token=hidden"), ("valueLocation", "jobs"), ("targetValue", "5")];
    let texts = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>();
    let metadata = texts(&needed).into_iter().chain(texts(metadata)).collect();
    TriggerInput {
        index: 0,
        trigger_type: "metrics-api".to_owned(),
        name: None,
        metadata,
        auth: auth.iter().map(|(key, value)| (key.to_string(), Secret::from(*value))).collect(),
        env: Default::default(),
        pod_identity: None,
        metric_type: None,
        as_metric_source: false,
        namespace: "default".to_owned(),
        object: "object".to_owned(),
    }
}

/// The outcome of one read when the endpoint answers with this status and body, and the request that it saw.
async fn read(input: &TriggerInput, status: u16, body: &str) -> (Result<Reading, SourceError>, Option<Request<Bytes>>) {
    let seen = Arc::new(Mutex::new(None));
    let (body, sink) = (Bytes::copy_from_slice(body.as_bytes()), seen.clone());
    let door = Door::in_process(Clock::system(), move |request| {
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
    assert!(errors(&[("aggregateFromKubeServiceEndpoints", "true")]).contains("not supported yet"));
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
