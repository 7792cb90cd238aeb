//! Admission as a user meets it: on the sandbox, and by a real API server that calls the webhooks over HTTPS.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use http::Request;
use http::header::CONTENT_TYPE;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use kube::client::Body;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tidemark_cli::webhooks::{Admission, Listener, register};
use tidemark_clock::Clock;
use tidemark_sandbox::{AdmissionHook, AdmissionRule, HookOperation, Options, Sandbox};
use tidemark_serving::admission_review::{AdmissionReviews, Operation, WEBHOOKS};
use tidemark_serving::certificates::Authority;
use tidemark_serving::https;
use tidemark_serving::tls::{Clients, Policy, server_config};
use tidemark_testkit::ControlPlane;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use xtask::network::free_ports;

use crate::desk::{CRON, Desk, Up, workload};
use crate::metrics_table::scrape::Scrape;

/// What an API server has answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
    warnings: Vec<String>,
}

impl Answer {
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

pub async fn send(client: &Client, method: &str, path: &str, body: &Value) -> Answer {
    let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, content_type);
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let response = client.send(request.body(Body::from(body)).unwrap()).await.unwrap();
    let warnings = response.headers().get_all("warning").iter();
    let warnings = warnings.map(|warning| warning.to_str().unwrap().to_owned()).collect();
    let status = response.status().as_u16();
    let body = response.into_body().collect_bytes().await.unwrap();
    Answer { status, body: serde_json::from_slice(&body).unwrap_or_default(), warnings }
}

/// The path of an object's kind, and of the object itself.
pub fn paths(object: &Value, namespace: &str) -> (String, String) {
    let kind = object["kind"].as_str().unwrap();
    let version = object["apiVersion"].as_str().unwrap();
    let plural = match kind.to_lowercase() {
        word if word.ends_with('s') => format!("{word}es"),
        word => format!("{word}s"),
    };
    let root = if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") };
    let scope = if kind.starts_with("Cluster") { String::new() } else { format!("/namespaces/{namespace}") };
    let all = format!("{root}{scope}/{plural}");
    let one = format!("{all}/{}", object["metadata"]["name"].as_str().unwrap_or_default());
    (all, one)
}

async fn create(client: &Client, namespace: &str, object: &Value) -> Answer {
    send(client, "POST", &paths(object, namespace).0, object).await
}

pub async fn make_namespace(client: &Client, name: &str) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let made = send(client, "POST", "/api/v1/namespaces", &namespace).await;
    assert_eq!(made.status, 201, "{made:?}");
}

/// A sandbox that asks the webhooks.
struct Admitted {
    client: Client,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Admitted {
    async fn start(sandbox: Sandbox, listeners: Vec<Listener>) -> Self {
        Self::over(&sandbox, sandbox.client(), listeners).await
    }

    /// The webhooks see the cluster through this client.
    async fn over(sandbox: &Sandbox, seen_through: Client, listeners: Vec<Listener>) -> Self {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let admission = Admission::new(seen_through, clock, "test", listeners);
        register(sandbox, &admission.service());
        let mut synced = admission.synced();
        let stop = CancellationToken::new();
        let running = tokio::spawn(admission.run(stop.clone()));
        synced.wait_for(|synced| synced.all()).await.unwrap();
        Self { client: sandbox.client(), stop, running }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

fn sandbox() -> Sandbox {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let sandbox = Sandbox::new(clock, Options::default());
    sandbox.install_crds(&tidemark_api::crds()).unwrap();
    sandbox
}

/// The rules, case by case.
pub const RULES: &str = include_str!("webhooks.yaml");

/// The cases of a table, one for each kind that a case is about.
pub fn cases(table: &str) -> Vec<Value> {
    // A table repeats itself more than a manifest may.
    let options = serde_saphyr::options! { budget: None };
    let cases: Vec<Value> = serde_saphyr::from_str_with_options(table, options).unwrap();
    let mut all = Vec::new();
    for case in cases {
        let kinds = case["kinds"].as_array().cloned().unwrap_or_default();
        for kind in if kinds.is_empty() { vec![Value::Null] } else { kinds } {
            let mut of_kind = case.clone();
            for field in ["create", "of"] {
                complete(&mut of_kind[field], &kind);
            }
            for object in of_kind["given"].as_array_mut().into_iter().flatten() {
                complete(object, &kind);
            }
            all.push(of_kind);
        }
    }
    all
}

/// Says what an object of the table is, where the table does not.
fn complete(object: &mut Value, kind: &Value) {
    if object.is_null() {
        return;
    }
    if !kind.is_null() {
        object["kind"] = kind.clone();
    }
    if object.get("apiVersion").is_none() {
        let eventing = object["kind"].as_str().unwrap().contains("CloudEvent");
        object["apiVersion"] = if eventing { "eventing.keda.sh/v1alpha1" } else { "keda.sh/v1alpha1" }.into();
    }
}

/// Plays the table against an API server that asks the webhooks.
async fn rules_hold(client: &Client, cases: &[Value]) {
    let mut failed = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let namespace = format!("case-{number}");
        make_namespace(client, &namespace).await;
        let given = case["given"].as_array().cloned().unwrap_or_default();
        for object in &given {
            let made = create(client, &namespace, object).await;
            assert_eq!(made.status, 201, "{}: {}", case["case"], made.body);
        }
        // An HPA is in the way once the watch has told of it, and not before.
        if given.iter().any(|object| object["kind"] == "HorizontalPodAutoscaler") {
            let told = async {
                while compare(case, &write(client, case, &given, &namespace, true).await).is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let _ = tokio::time::timeout(Duration::from_secs(10), told).await;
        }
        let outcome = compare(case, &write(client, case, &given, &namespace, case["dryRun"] == true).await);
        if let Err(why) = outcome {
            failed.push(format!("{} ({namespace}): {why}", case["case"]));
        }
    }
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
}

async fn write(client: &Client, case: &Value, given: &[Value], namespace: &str, dry_run: bool) -> Answer {
    let query = if dry_run { "?dryRun=All" } else { "" };
    if case["update"].is_null() {
        let path = paths(&case["create"], namespace).0;
        return send(client, "POST", &format!("{path}{query}"), &case["create"]).await;
    }
    let of = if case["of"].is_null() { given.last().unwrap() } else { &case["of"] };
    send(client, "PATCH", &format!("{}{query}", paths(of, namespace).1), &case["update"]).await
}

fn compare(case: &Value, answer: &Answer) -> Result<(), String> {
    match case["says"].as_str() {
        Some(says) => {
            let refused = answer.status == 403 && answer.message().starts_with("admission webhook \"v");
            if !refused || !answer.message().contains("\" denied the request: ") || !answer.message().contains(says) {
                return Err(format!("is answered {} {:?}, not with {says:?}", answer.status, answer.message()));
            }
        }
        None if !(200..300).contains(&answer.status) => {
            return Err(format!("is refused: {} {}", answer.status, answer.message()));
        }
        None => {}
    }
    let warns: Vec<_> = case["warns"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    // The API server itself has something to say about the form of KEDA's finalizer.
    let told: Vec<_> = answer.warnings.iter().filter(|warning| !warning.contains("metadata.finalizers")).collect();
    let all = warns.iter().all(|text| told.iter().any(|warning| warning.contains(text)));
    match all && warns.len() == told.len() {
        true => Ok(()),
        false => Err(format!("warns of {:?}, not of {warns:?}", answer.warnings)),
    }
}

#[tokio::test(start_paused = true)]
async fn the_rules_hold_in_the_sandbox() {
    let admitted = Admitted::start(sandbox(), Vec::new()).await;
    let (possible, not): (Vec<Value>, Vec<Value>) =
        cases(RULES).into_iter().partition(|case| case["notInSandbox"].is_null());
    rules_hold(&admitted.client, &possible).await;
    for case in not {
        let answer = create(&admitted.client, "default", case["given"].as_array().unwrap().last().unwrap()).await;
        assert_eq!(answer.status, 501, "{} is possible in the sandbox by now", case["case"]);
    }
    admitted.stop().await;
}

/// A client that tells of no change after its first list.
fn deaf(sandbox: &Sandbox) -> Client {
    let service = sandbox.service();
    let service = tower::service_fn(move |request: Request<Body>| {
        let service = service.clone();
        async move {
            if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
                std::future::pending::<()>().await;
            }
            service.oneshot(request).await
        }
    });
    Client::new(service, "default")
}

fn scaled(name: &str, target: &str) -> Value {
    json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name},
        "spec": {"scaleTargetRef": {"name": target}, "triggers": [{"type": "cron", "metadata": {"timezone": "UTC"}}]},
    })
}

async fn made(client: &Client, object: &Value) -> Result<(), String> {
    let answer = create(client, "default", object).await;
    if answer.status == 201 { Ok(()) } else { Err(answer.message().to_owned()) }
}

#[tokio::test(start_paused = true)]
async fn of_two_objects_for_one_workload_the_second_is_refused_before_a_watch_has_told_of_the_first() {
    let sandbox = sandbox();
    let admitted = Admitted::over(&sandbox, deaf(&sandbox), Vec::new()).await;
    made(&admitted.client, &scaled("first", "web")).await.unwrap();
    let refused = made(&admitted.client, &scaled("second", "web")).await.unwrap_err();
    assert!(refused.contains("is already managed by the ScaledObject 'first'"), "{refused}");
    made(&admitted.client, &scaled("third", "api")).await.unwrap();
    // Both at once: whoever is judged first has the place.
    let [left, right] = [scaled("left", "shop"), scaled("right", "shop")];
    let both = tokio::join!(made(&admitted.client, &left), made(&admitted.client, &right));
    assert!(both.0.is_ok() != both.1.is_ok(), "{both:?}");
    admitted.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_admitted_object_that_was_never_stored_is_in_nobodys_way() {
    let sandbox = sandbox();
    let admitted = Admitted::over(&sandbox, deaf(&sandbox), Vec::new()).await;
    sandbox.admit(refusing("first"));
    let refused = made(&admitted.client, &scaled("first", "web")).await.unwrap_err();
    assert!(refused.contains("policy.example.com"), "{refused}");
    let start = tokio::time::Instant::now();
    made(&admitted.client, &scaled("second", "web")).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    admitted.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_only_tried_is_in_nobodys_way() {
    let sandbox = sandbox();
    let admitted = Admitted::over(&sandbox, deaf(&sandbox), Vec::new()).await;
    let path = "/apis/keda.sh/v1alpha1/namespaces/default/scaledobjects?dryRun=All";
    assert_eq!(send(&admitted.client, "POST", path, &scaled("tried", "web")).await.status, 201);
    let start = tokio::time::Instant::now();
    made(&admitted.client, &scaled("real", "web")).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    admitted.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_has_gone_or_moved_away_is_in_nobodys_way_though_no_watch_has_told_so() {
    let sandbox = sandbox();
    let client = sandbox.client();
    let hpa = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "old"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
    });
    let objects = [scaled("gone", "web"), scaled("moved", "api"), scaled("stays", "shop"), hpa];
    for object in &objects {
        made(&client, object).await.unwrap();
    }
    let admitted = Admitted::over(&sandbox, deaf(&sandbox), Vec::new()).await;
    for object in [&objects[0], &objects[3]] {
        send(&client, "DELETE", &paths(object, "default").1, &Value::Null).await;
    }
    let elsewhere = json!({"spec": {"scaleTargetRef": {"name": "elsewhere"}}});
    let moved = send(&client, "PATCH", &paths(&objects[1], "default").1, &elsewhere).await;
    assert_eq!(moved.status, 200, "{}", moved.message());
    made(&client, &scaled("a", "web")).await.unwrap();
    made(&client, &scaled("b", "api")).await.unwrap();
    assert!(made(&client, &scaled("c", "elsewhere")).await.unwrap_err().contains("'moved'"));
    assert!(made(&client, &scaled("d", "shop")).await.unwrap_err().contains("'stays'"));
    admitted.stop().await;
}

/// A webhook of somebody else's that refuses objects of this name.
fn refusing(name: &'static str) -> AdmissionHook {
    let service = tower::service_fn(move |request: Request<Body>| async move {
        let body = request.into_body().collect_bytes().await.unwrap();
        let review: Value = serde_json::from_slice(&body).unwrap();
        let allowed = review["request"]["name"] != name;
        let response = json!({"uid": review["request"]["uid"], "allowed": allowed});
        let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        Ok::<_, Infallible>(http::Response::new(Body::from(answer.to_string().into_bytes())))
    });
    let rule = AdmissionRule {
        group: "keda.sh".into(),
        version: "v1alpha1".into(),
        resource: "scaledobjects".into(),
        operations: vec![HookOperation::Create],
    };
    AdmissionHook {
        name: "policy.example.com".into(),
        path: "/".into(),
        rules: vec![rule],
        service: tidemark_sandbox::webhook(service),
        timeout: Duration::from_secs(5),
        fail_open: false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_warning_becomes_an_event_unless_the_object_is_refused_or_only_tried() {
    let verdicts = Arc::new(Mutex::new(Vec::new()));
    let noted = verdicts.clone();
    let listener: Listener = Box::new(move |judged| {
        let reason = judged.verdict.errors.first().and_then(|error| error.reason);
        noted.lock().unwrap().push((judged.question.operation, judged.question.dry_run, reason));
    });
    let admitted = Admitted::start(sandbox(), vec![listener]).await;
    let client = &admitted.client;
    let mut object = scaled("a", "web");
    object["spec"]["minReplicaCount"] = json!(2);
    object["spec"]["cooldownPeriod"] = json!(60);
    let path = "/apis/keda.sh/v1alpha1/namespaces/default/scaledobjects";
    let tried = send(client, "POST", &format!("{path}?dryRun=All"), &object).await;
    assert_eq!((tried.status, tried.warnings.len()), (201, 1));
    let mut bad = object.clone();
    bad["spec"]["idleReplicaCount"] = json!(2);
    assert_eq!(send(client, "POST", path, &bad).await.status, 403);
    assert_eq!(send(client, "POST", path, &object).await.status, 201);
    for max in [10, 11] {
        let change = json!({"spec": {"maxReplicaCount": max}});
        assert_eq!(send(client, "PATCH", &format!("{path}/a"), &change).await.status, 200);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let events = send(client, "GET", "/apis/events.k8s.io/v1/namespaces/default/events", &Value::Null).await;
    let [event] = &events.body["items"].as_array().unwrap()[..] else { panic!("{}", events.body) };
    let stored = send(client, "GET", &format!("{path}/a"), &Value::Null).await;
    assert_eq!(event["regarding"]["uid"], stored.body["metadata"]["uid"]);
    assert_eq!((&event["reason"], &event["type"]), (&json!("KEDAScalerInfo"), &json!("Normal")));
    assert_eq!(event["reportingController"], "keda-admission");
    assert!(event["note"].as_str().unwrap().starts_with("CooldownPeriod is configured"), "{event}");
    assert_eq!(event["series"]["count"], 3);
    let expected = [
        (Operation::Create, true, None),
        (Operation::Create, false, Some("incorrect-replicas")),
        (Operation::Create, false, None),
        (Operation::Update, false, None),
        (Operation::Update, false, None),
    ];
    assert_eq!(*verdicts.lock().unwrap(), expected);
    admitted.stop().await;
}

/// The cases of `conformance/admission`, each in a sandbox of its own that asks the webhooks.
#[tokio::test(start_paused = true)]
async fn kedas_own_cases_are_answered_alike_over_http() {
    let mut failed = Vec::new();
    let mut count = 0;
    for kind in ["scaledobject", "scaledjob", "triggerauthentication", "cloudeventsource"] {
        let path = format!("../../../shared/conformance/admission/{kind}.json");
        let Ok(text) = std::fs::read_to_string(&path) else {
            assert!(std::env::var("TIDEMARK_REQUIRE_CONFORMANCE").as_deref() != Ok("1"), "{path} not found");
            println!("SKIPPED: {path} not found");
            continue;
        };
        for case in serde_json::from_str::<Vec<Value>>(&text).unwrap() {
            count += 1;
            if let Err(why) = conforms(case.clone()).await {
                failed.push(format!("{}: {why}", case["id"]));
            }
        }
    }
    println!("{count} cases");
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
}

async fn conforms(mut case: Value) -> Result<(), String> {
    let sandbox = sandbox();
    let client = sandbox.client();
    make_namespace(&client, "test").await;
    let old = case.get("old").cloned();
    for object in case["cluster"].as_array().unwrap().iter().chain(&old) {
        let given = create(&client, "test", object).await;
        if given.status != 201 {
            return Err(format!("the sandbox has no place for {object}: {}", given.message()));
        }
    }
    let object = &mut case["object"];
    // The client that the cases come from writes an empty one, which the definition requires.
    if object["kind"].as_str().unwrap().contains("CloudEventSource") && object["spec"].get("destination").is_none() {
        object["spec"]["destination"] = json!({});
    }
    let admitted = Admitted::start(sandbox, Vec::new()).await;
    let (all, one) = paths(&case["object"], "test");
    let dry = if case["dryRun"] == true { "?dryRun=All" } else { "" };
    let answer = match old {
        None => send(&admitted.client, "POST", &format!("{all}{dry}"), &case["object"]).await,
        Some(_) => send(&admitted.client, "PATCH", &format!("{one}{dry}"), &case["object"]).await,
    };
    admitted.stop().await;
    let accepted = (200..300).contains(&answer.status);
    if accepted != (case["expect"]["accepted"] == true) {
        return Err(format!("is answered {} {}", answer.status, answer.message()));
    }
    let told = |part: &Value| answer.warnings.iter().any(|warning| warning.contains(part.as_str().unwrap()));
    let parts = |field: &str| case["expect"][field].as_array().cloned().unwrap_or_default();
    let missing = parts("warnings").iter().any(|part| !told(part));
    let extra =
        parts("noWarnings").iter().any(|part| if *part == "*" { !answer.warnings.is_empty() } else { told(part) });
    if missing || extra { Err(format!("warns of {:?}", answer.warnings)) } else { Ok(()) }
}

#[tokio::test]
async fn up_refuses_a_bad_object_as_a_cluster_does() {
    let desk = Desk::new();
    desk.write("m/shop.yaml", &workload("shop", "", CRON));
    let up = Up::start(&desk, &["m/shop.yaml", "--simulate-pods"], &[]).await;
    let refused = made(&up.client, &scaled("second", "shop")).await.unwrap_err();
    assert_eq!(
        refused,
        "admission webhook \"vscaledobject.kb.io\" denied the request: the workload 'shop' of type \
         'apps/v1.Deployment' is already managed by the ScaledObject 'shop'"
    );
    assert_eq!(up.interrupt().await.code(), Some(0), "{}", up.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rules_hold_on_a_real_api_server() {
    let Some(control_plane) = ControlPlane::start_or_skip(tidemark_testkit::Options::default()).await else { return };
    let client = tidemark_operator::client::build(control_plane.config().await.unwrap()).unwrap();
    install_crds(&client).await;
    let clock = Clock::system();
    let admission = Admission::new(client.clone(), clock, "test", Vec::new());
    let stop = CancellationToken::new();
    let service = admission.service();
    let background = tokio::spawn(admission.run(stop.clone()));
    let (port, ca, serving) = serve(service, clock, stop.clone()).await;
    register_by_url(&client, port, &ca).await;
    until_asked(&client).await;
    rules_hold(&client, &cases(RULES)).await;
    stop.cancel();
    background.await.unwrap();
    serving.await.unwrap();
}

/// The certificate of 127.0.0.1 by a new authority, in the files that the process reads. Gives the authority's.
pub fn write_certificate(desk: &Desk) -> String {
    let authority = Authority::new("test", Clock::system().now()).unwrap();
    let pair = authority.server(&["127.0.0.1"]).unwrap();
    desk.write("certs/tls.crt", &pair.certificate);
    desk.write("certs/tls.key", &pair.key);
    authority.certificate()
}

/// What a path of the health probes answers, head and all.
async fn probed(port: u16, path: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(|error| error.to_string())?;
    Ok(answer)
}

#[tokio::test]
async fn the_process_is_ready_once_it_can_judge_and_takes_new_certificates_while_it_runs() {
    let Some(control_plane) = ControlPlane::start_or_skip(tidemark_testkit::Options::default()).await else { return };
    let client = tidemark_operator::client::build(control_plane.config().await.unwrap()).unwrap();
    install_crds(&client).await;
    let desk = Desk::new();
    let [port, probes, metrics] = free_ports().unwrap();
    let (port_text, probe_address) = (port.to_string(), format!("127.0.0.1:{probes}"));
    let metrics_address = format!("--metrics-bind-address=127.0.0.1:{metrics}");
    let kubeconfig = control_plane.kubeconfig().to_str().unwrap();
    // As KEDA's manifests and chart call it, but for the places.
    let arguments = [
        "webhooks",
        "--zap-log-level=info",
        "--zap-encoder=console",
        "--zap-time-encoding=rfc3339",
        "--cert-dir=certs",
        &metrics_address,
        "--profiling-bind-address=",
        "--cache-miss-to-direct-client=true",
        "--kube-api-qps=20",
        "--kube-api-burst=30",
        "--health-probe-bind-address",
        &probe_address,
        "--port",
        &port_text,
        "--kubeconfig",
        kubeconfig,
    ];
    desk.spawn("webhooks", &arguments, &[("KEDA_SERVICE_MIN_TLS_VERSION", "TLS13")]);
    let answers = async |path: &str, status: &str, says: &str| {
        desk.until(30, &format!("{path} answers {status}, {says}"), async || match probed(probes, path).await {
            Ok(answer) if answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(says) => Ok(()),
            other => Err(format!("{other:?}\n{}", desk.log("webhooks"))),
        })
        .await;
    };
    answers("/healthz", "200", "ok").await;
    answers("/readyz", "503", "the certificate: waiting for tls.crt and tls.key").await;
    let ca = write_certificate(&desk);
    answers("/readyz", "200", "ok").await;
    register_by_url(&client, port, &ca).await;
    until_asked(&client).await;
    made(&client, &scaled("first", "web")).await.unwrap();
    let refused = made(&client, &scaled("second", "web")).await.unwrap_err();
    assert!(refused.contains("is already managed by the ScaledObject 'first'"), "{refused}");
    let scrape = Scrape::of(metrics).await;
    let created = [("namespace", "default"), ("action", "create")];
    assert!(scrape.values("keda_webhook_scaled_object_validations_total", &created)[0] >= 2.0);
    let refused = [("namespace", "default"), ("action", "create"), ("reason", "other-scaled-object")];
    assert!(scrape.values("keda_webhook_scaled_object_validation_errors_total", &refused)[0] >= 1.0);
    assert!(scrape.values("tidemark_certificate_expiry_timestamp_seconds", &[])[0] > 0.0);

    let ca = write_certificate(&desk);
    desk.until(30, "the new certificate is in use", async || match desk.log("webhooks") {
        log if log.contains("new certificates are in use") => Ok(()),
        log => Err(log),
    })
    .await;
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/keda-admission";
    let mut configuration = send(&client, "GET", path, &Value::Null).await.body;
    for webhook in configuration["webhooks"].as_array_mut().unwrap() {
        webhook["clientConfig"]["caBundle"] = base64::prelude::BASE64_STANDARD.encode(&ca).into();
    }
    assert_eq!(send(&client, "PUT", path, &configuration).await.status, 200);
    // The API server takes a moment to use what was written.
    desk.until(30, "the API server asks again", async || match made(&client, &scaled("third", "web")).await {
        Err(refused) if refused.contains("is already managed by the ScaledObject 'first'") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let log = desk.log("webhooks");
    assert!(!log.contains("ERROR") && !log.contains("orbidden"), "{log}");
}

#[tokio::test]
async fn an_unknown_flag_of_the_webhooks_ends_with_2_and_a_missing_cluster_with_1() {
    let desk = Desk::new();
    assert_eq!(desk.tidemark(&["webhooks", "--no-such-flag"], &[]).await.status.code(), Some(2));
    let [port] = free_ports().unwrap();
    let arguments = ["webhooks", "--port", &port.to_string(), "--kubeconfig", "absent"];
    let output = desk.tidemark(&arguments, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("cannot use the kubeconfig absent"), "{error}");
}

async fn install_crds(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in tidemark_api::crds() {
        api.create(&PostParams::default(), &crd).await.unwrap();
        let established = kube::runtime::conditions::is_crd_established();
        let name = crd.name_any();
        let wait = kube::runtime::wait::await_condition(api.clone(), &name, established);
        tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap().unwrap();
    }
}

async fn serve(service: AdmissionReviews, clock: Clock, stop: CancellationToken) -> (u16, String, JoinHandle<()>) {
    let authority = Authority::new("test", clock.now()).unwrap();
    let pair = authority.server(&["127.0.0.1"]).unwrap();
    let tls = server_config(&pair, Clients::None, &Policy::default()).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = tokio::sync::watch::Sender::new(Arc::new(tls)).subscribe();
    (port, authority.certificate(), tokio::spawn(https::serve(listener, tls, service, stop)))
}

/// The registration as KEDA's manifests have it, but by URL.
async fn register_by_url(client: &Client, port: u16, ca: &str) {
    let ca = base64::prelude::BASE64_STANDARD.encode(ca);
    let webhooks = WEBHOOKS.map(|webhook| {
        json!({
            "name": webhook.name, "admissionReviewVersions": ["v1"], "failurePolicy": "Fail", "sideEffects": "None",
            "matchPolicy": "Equivalent", "timeoutSeconds": 10,
            "clientConfig": {"url": format!("https://127.0.0.1:{port}{}", webhook.path), "caBundle": ca},
            "rules": [{
                "apiGroups": [webhook.group], "apiVersions": ["v1alpha1"], "resources": [webhook.resource],
                "operations": ["CREATE", "UPDATE"],
            }],
        })
    });
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "keda-admission"}, "webhooks": webhooks,
    });
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let made = send(client, "POST", path, &configuration).await;
    assert_eq!(made.status, 201, "{made:?}");
}

/// API servers take a while to notice a registration.
async fn until_asked(client: &Client) {
    let bad = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": "asked"},
        "spec": {"podIdentity": {"provider": "aws", "externalID": "x"}},
    });
    let path = "/apis/keda.sh/v1alpha1/namespaces/default/triggerauthentications?dryRun=All";
    let asked = async {
        while send(client, "POST", path, &bad).await.status != 403 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asked).await.expect("the API server asks the webhooks");
}
