use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tidemark_clock::Clock;

use super::*;
use crate::tests::trigger_input;

const NOW: &str = "2026-01-02T03:04:05.6Z";

fn input(metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> TriggerInput {
    let needed = [("serverAddress", "http://u:hunter2@h.test:9090/"), ("query", "sum(up)"), ("threshold", "5")];
    trigger_input("prometheus", &[&needed, metadata].concat(), auth)
}

/// The outcome of one read when the server answers with this status and body, and the requests that were seen.
async fn read(input: &TriggerInput, status: u16, body: &str) -> (Result<Reading, SourceError>, Vec<Request<Bytes>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (body, sink) = (Bytes::copy_from_slice(body.as_bytes()), Arc::clone(&seen));
    let door = Door::in_process(Clock::starting_at(NOW.parse().unwrap()), move |request| {
        let token = request.uri().path() == "/token";
        sink.lock().unwrap().push(request);
        let reply = match token {
            true => Response::builder().body(Bytes::from(r#"{"access_token":"abc"}"#)),
            false => Response::builder().status(status).body(body.clone()),
        };
        async move { Ok(reply.unwrap()) }.boxed()
    });
    let trigger = Prometheus::parse(input).unwrap();
    let outcome = async { Ok(trigger.connect(&door).await?.read(&door).await?[0]) }.await;
    let requests = std::mem::take(&mut *seen.lock().unwrap());
    (outcome, requests)
}

fn vector(value: &str) -> String {
    format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"value":[1,"{value}"]}}]}}}}"#)
}

const EMPTY: &str = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;

/// The only request of a read.
async fn request(input: &TriggerInput) -> Request<Bytes> {
    let (outcome, mut requests) = read(input, 200, &vector("1")).await;
    outcome.unwrap();
    assert_eq!(requests.len(), 1);
    requests.remove(0)
}

#[tokio::test(start_paused = true)]
async fn the_query_is_asked_at_the_present_second() {
    let metadata = [
        ("query", "rate(http_total{job=\"a b\"}[1m]) > 0"),
        ("namespace", "team-a"),
        ("queryParameters", "dedup=true, a b=c&d"),
        ("customHeaders", "X-Scope-OrgID=team, X-Other = 1"),
    ];
    let request = request(&input(&metadata, &[])).await;
    let uri = request.uri().to_string();
    let query = "rate%28http_total%7Bjob%3D%22a+b%22%7D%5B1m%5D%29+%3E+0";
    let rest = "time=2026-01-02T03:04:05Z&namespace=team-a&a+b=c%26d&dedup=true";
    assert_eq!(uri, format!("http://h.test:9090/api/v1/query?query={query}&{rest}"));
    assert_eq!(request.method(), http::Method::GET);
    assert_eq!(request.headers()["x-scope-orgid"], "team");
    assert_eq!(request.headers()["x-other"], "1");
    assert_eq!(request.headers()["authorization"], format!("Basic {}", BASE64.encode("u:hunter2")));
}

#[tokio::test(start_paused = true)]
async fn the_server_address_may_have_a_path() {
    for address in ["https://h.test/prometheus", "https://h.test/prometheus/"] {
        let request = request(&input(&[("serverAddress", address)], &[])).await;
        let uri = request.uri().to_string();
        assert!(uri.starts_with("https://h.test/prometheus/api/v1/query?query=sum%28up%29&time="), "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_trigger_is_active_above_the_activation_threshold_only() {
    let reading = async |threshold: &str, value: &str| {
        read(&input(&[("activationThreshold", threshold)], &[]), 200, &vector(value)).await.0.unwrap()
    };
    assert_eq!(reading("5", "5").await, Reading { value: 5.0, active: false });
    assert_eq!(reading("5", "5.001").await, Reading { value: 5.001, active: true });
    assert_eq!(reading("", "-2").await, Reading { value: -2.0, active: false });
    assert_eq!(reading("-3", "-2").await, Reading { value: -2.0, active: true });
}

#[tokio::test(start_paused = true)]
async fn what_is_null_is_zero_or_an_error_as_the_user_wants() {
    let strict = input(&[("ignoreNullValues", "false")], &[]);
    for value in [vector("NaN"), vector("+Inf"), vector("-Inf"), EMPTY.to_owned()] {
        let ignored = read(&input(&[], &[]), 200, &value).await.0;
        assert_eq!(ignored, Ok(Reading { value: 0.0, active: false }), "{value}");
        let kind = if value == EMPTY { ErrorKind::MissingResource } else { ErrorKind::BadReply };
        assert_eq!(read(&strict, 200, &value).await.0.unwrap_err().kind, kind, "{value}");
    }
    let error = read(&strict, 200, EMPTY).await.0.unwrap_err();
    let expected =
        "query `sum(up)` to http://h.test:9090/api/v1/query: it yields nothing, and ignoreNullValues is false";
    assert_eq!(error.message, expected);
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_not_prometheus_is_never_zero() {
    for body in ["", "{}", "<html>busy</html>", r#"{"status":"error","errorType":"internal","error":"x"}"#] {
        assert!(read(&input(&[], &[]), 200, body).await.0.is_err(), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_the_kind_of_failure_and_the_server_its_cause() {
    let late = r#"{"status":"error","errorType":"timeout","error":"query timed out"}"#;
    let wrong = r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
    let kinds = [
        (401, "", ErrorKind::Authentication, ""),
        (403, wrong, ErrorKind::Authentication, ""),
        (404, "no page", ErrorKind::MissingResource, ""),
        (400, wrong, ErrorKind::Refused, " (bad_data: parse error)"),
        (503, late, ErrorKind::TimedOut, " (timeout: query timed out)"),
        (503, "<html>", ErrorKind::Refused, ""),
        (504, "", ErrorKind::TimedOut, ""),
        (304, "", ErrorKind::Refused, ""),
    ];
    for (status, body, kind, told) in kinds {
        let error = read(&input(&[], &[]), status, body).await.0.unwrap_err();
        assert_eq!(error.kind, kind, "{status}");
        let expected =
            "query `sum(up)` to http://h.test:9090/api/v1/query: prometheus query api returned error. status:";
        assert_eq!(error.message, format!("{expected} {status}{told}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_shows_the_beginning_of_a_query_on_one_line() {
    let long = format!("sum(\n  up\t{{a=\"{}\"}})", "x".repeat(500));
    let error = read(&input(&[("query", &long)], &[]), 500, "").await.0.unwrap_err();
    assert!(error.message.starts_with("query `sum( up {a=\"xxx") && error.message.len() < 400, "{error}");
}

#[tokio::test(start_paused = true)]
async fn one_mode_logs_in_and_the_first_of_bearer_basic_and_custom_wins() {
    let auth = [
        ("bearerToken", "t"),
        ("username", "john"),
        ("password", "pw"),
        ("customAuthHeader", "X-Key"),
        ("customAuthValue", "k"),
    ];
    let headers = async |modes: &str| {
        let metadata = [("authModes", modes), ("customHeaders", "X-Key=old,Authorization=old")];
        let request = request(&input(&metadata, &auth)).await;
        let all = |name: &str| {
            let values = request.headers().get_all(name).iter();
            values.map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" and ")
        };
        (all("authorization"), all("x-key"))
    };
    let pair = |authorization: &str, key: &str| (authorization.to_owned(), key.to_owned());
    let basic = format!("Basic {}", BASE64.encode("john:pw"));
    assert_eq!(headers("bearer").await, pair("Bearer t", "old"));
    assert_eq!(headers("basic").await, pair(&basic, "old"));
    assert_eq!(headers("custom").await, pair("old", "k"));
    assert_eq!(headers("bearer,custom").await, pair("Bearer t", "old"));
    assert_eq!(headers("custom, basic").await, pair(&basic, "old"));
}

#[tokio::test(start_paused = true)]
async fn mode_oauth_asks_for_a_token_first() {
    let auth = [("oauthTokenURI", "https://login.test/token"), ("clientID", "id"), ("scopes", "read, ,write")];
    let (outcome, requests) = read(&input(&[("authModes", "oauth")], &auth), 200, &vector("7")).await;
    assert_eq!(outcome.unwrap().value, 7.0);
    let uris: Vec<_> = requests.iter().map(|request| request.uri().host().unwrap()).collect();
    assert_eq!(uris, ["login.test", "h.test"]);
    assert_eq!(requests[0].body(), "grant_type=client_credentials&scope=read+write");
    assert_eq!(requests[1].headers()["authorization"], "Bearer abc");
}

#[test]
fn certificates_of_the_authentication_are_always_checked() {
    let auth = [("cert", "c"), ("key", "k"), ("ca", "a"), ("bearerToken", "t")];
    let profile = |mode: &str, auth: &[(&str, &str)]| {
        let metadata = [("unsafeSsl", "true"), ("authModes", mode)];
        Prometheus::parse(&input(&metadata, auth)).unwrap().declared.profile()
    };
    let (ca, client_cert) = (Some("a".into()), Some(("c".into(), "k".into())));
    let own = HttpProfile { unsafe_ssl: false, ca: ca.clone(), client_cert };
    assert_eq!(profile("tls", &auth), own);
    assert_eq!(profile("bearer", &auth), own);
    assert_eq!(profile("bearer", &auth[3..]), HttpProfile { unsafe_ssl: true, ..HttpProfile::default() });
    assert_eq!(profile("", &auth), HttpProfile { unsafe_ssl: true, ca, client_cert: None });
}

#[tokio::test(start_paused = true)]
async fn nothing_secret_is_shown() {
    let metadata = [("customHeaders", "X-Key=hunter2"), ("queryParameters", "key=hunter2"), ("authModes", "custom")];
    let auth = [("customAuthHeader", "X-Key"), ("customAuthValue", "hunter2")];
    let good = input(&metadata, &auth);
    let bad_url = input(&[("serverAddress", "http://user:hunter2@:x/")], &[]);
    let bad_header = input(&[("customHeaders", "X-Key=hunter2\u{7f}")], &[]);
    let bad_token = input(&[("authModes", "bearer")], &[("bearerToken", "hunter2\n2")]);
    let not_http = input(&[("serverAddress", "ftp://user:hunter2@h/")], &[]);
    let mut shown = String::new();
    for (input, kind) in [
        (&good, ErrorKind::Refused),
        (&bad_url, ErrorKind::Configuration),
        (&bad_header, ErrorKind::Configuration),
        (&bad_token, ErrorKind::Configuration),
        (&not_http, ErrorKind::Configuration),
    ] {
        let trigger = Prometheus::parse(input).unwrap();
        let error = read(input, 500, "hunter2").await.0.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        shown.push_str(&format!("{error} {trigger:?} {:?}\n", trigger.notes()));
    }
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("customHeaders: X-Key cannot be sent as a header; nothing can be read"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn a_cloud_login_is_refused_at_the_connection_and_noted_before() {
    let identity = |provider: &str, metadata: &[(&str, &str)], auth: &[(&str, &str)]| TriggerInput {
        pod_identity: Some(provider.to_owned()),
        ..input(metadata, auth)
    };
    let env = |name: &str, metadata: &[(&str, &str)]| TriggerInput {
        env: [(name.to_owned(), "{}".into())].into(),
        ..input(metadata, &[])
    };
    for refused in [
        identity("azure-workload", &[], &[]),
        identity("gcp", &[], &[]),
        identity("aws", &[], &[]),
        identity("aws-eks", &[], &[("awsRoleArn", "r")]),
        input(&[("identityOwner", "operator")], &[]),
        input(&[], &[("awsAccessKeyId", "a"), ("awsSecretAccessKey", "s")]),
        input(&[], &[("GoogleApplicationCredentials", "{}")]),
        env("KEY", &[("credentialsFromEnv", "KEY")]),
        env("KEY", &[("credentialsFromEnvFile", "KEY")]),
    ] {
        let error = read(&refused, 200, EMPTY).await.0.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Configuration);
        assert!(error.message.ends_with("is not supported yet by the prometheus trigger"), "{error}");
        let notes = Prometheus::parse(&refused).unwrap().notes;
        assert_eq!(*notes, [format!("{}; nothing can be read", error.message)]);
    }
    // What KEDA leaves without a login, too.
    for accepted in [identity("none", &[], &[]), identity("azure", &[], &[]), input(&[("awsRegion", "r")], &[])] {
        assert!(read(&accepted, 200, EMPTY).await.0.is_ok());
    }
}

#[test]
fn all_that_is_wrong_is_named() {
    let errors = |input: &TriggerInput| Prometheus::parse(input).unwrap_err().to_string();
    let mut azure = input(&[("authModes", "bearer")], &[("token", "t")]);
    azure.pod_identity = Some("azure-workload".to_owned());
    assert_eq!(errors(&azure), "pod identity cannot be enabled with other auth types");
    for (cloud, message) in [
        ("Private", "azureManagedPrometheusResourceURL must be provided for Private cloud type"),
        ("AzureGermanCloud", "azure managed prometheus is not available in cloud AzureGermanCloud"),
        ("Mine", "invalid cloud environment Mine"),
    ] {
        let given = TriggerInput { pod_identity: azure.pod_identity.clone(), ..input(&[("cloud", cloud)], &[]) };
        assert_eq!(errors(&given), message);
        assert!(Prometheus::parse(&input(&[("cloud", cloud)], &[])).is_ok());
    }
    let missing = input(&[("threshold", ""), ("query", " ")], &[]);
    let expected = "missing required parameter \"query\" in [triggerMetadata]\nmissing required parameter \"threshold\" \
                    in [triggerMetadata]";
    assert_eq!(errors(&missing), expected);
    assert!(errors(&input(&[("authModes", "basic,bearer")], &[])).contains("must contain only one of"));
    assert!(errors(&input(&[("method", "body")], &[])).contains("must be one of [header query]"));
    let utilization = TriggerInput { metric_type: Some("Utilization".to_owned()), ..input(&[], &[]) };
    assert!(errors(&utilization).contains("'Utilization' metric type is unsupported"));
}

#[test]
fn name_and_target_are_those_of_keda() {
    let given = TriggerInput { index: 2, ..input(&[("threshold", "0.5")], &[]) };
    let [MetricSpec::External { name, target_milli, .. }] = Prometheus::parse(&given).unwrap().metrics else {
        panic!("not an external metric")
    };
    assert_eq!((&*name, target_milli), ("s2-prometheus", 500));
}

#[test]
fn what_has_no_effect_is_noted() {
    let notes = |metadata: &[(&str, &str)], auth: &[(&str, &str)]| {
        Prometheus::parse(&input(metadata, auth)).unwrap().notes.into_vec()
    };
    assert!(notes(&[], &[]).is_empty());
    let legacy = notes(&[("metricName", "m"), ("cortexOrgID", "t")], &[]);
    assert!(legacy[0].contains("metricName has no effect") && legacy[1].contains("X-Scope-OrgID"), "{legacy:?}");
    let target = notes(&[("threshold", "0")], &[]);
    assert_eq!(target, ["threshold is below 0.001: a HorizontalPodAutoscaler refuses such a target"]);
    let auth =
        [("apiKey", "k"), ("bearerToken", "t"), ("customAuthHeader", "h"), ("customAuthValue", "v"), ("ca", "c")];
    let modes = notes(&[("authModes", "apiKey,bearer,custom"), ("unsafeSsl", "true")], &auth);
    let expected = [
        "authModes apiKey has no effect with prometheus",
        "authModes custom has no effect beside bearer",
        "unsafeSsl has no effect in mode tls, or in another mode with ca",
    ];
    assert_eq!(modes, expected);
}
