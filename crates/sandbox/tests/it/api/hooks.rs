//! Admission webhooks in the same process.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use kube::client::Body;
use tidemark_sandbox::{AdmissionHook, AdmissionRule, HookOperation};

use super::*;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A webhook that notes what it is asked and says what `answer` makes of it.
fn hook(
    answer: impl Fn(&Value) -> Value + Send + Sync + 'static,
    asked: &Arc<Mutex<Vec<Value>>>,
    change: impl FnOnce(&mut AdmissionHook),
) -> AdmissionHook {
    let (answer, asked) = (Arc::new(answer), asked.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (answer, asked) = (answer.clone(), asked.clone());
        async move {
            assert_eq!(request.uri().path(), "/validate");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let review: Value = serde_json::from_slice(&body).unwrap();
            let mut response = answer(&review["request"]);
            response["uid"] = review["request"]["uid"].clone();
            asked.lock().unwrap().push(review["request"].clone());
            let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
            Ok::<_, Infallible>(Response::new(http_body_util::Full::new(bytes::Bytes::from(body.to_string()))))
        }
    });
    let mut hook = AdmissionHook {
        name: "check.example.com".into(),
        path: "/validate".into(),
        rules: vec![AdmissionRule {
            group: String::new(),
            version: "v1".into(),
            resource: "configmaps".into(),
            operations: vec![HookOperation::Create, HookOperation::Update, HookOperation::Delete],
        }],
        service: tidemark_sandbox::webhook(service),
        timeout: Duration::from_secs(5),
        fail_open: false,
    };
    change(&mut hook);
    hook
}

fn map(value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"key": value}})
}

#[tokio::test(start_paused = true)]
async fn a_webhook_is_asked_before_each_write_and_refuses_as_on_a_real_server() {
    let sandbox = sandbox(Options::default());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let strict = |request: &Value| {
        let value = &request["object"]["data"]["key"];
        if *value == "bad" {
            return json!({"allowed": false, "status": {"code": 400, "message": "bad is not good", "reason": "BadRequest"}});
        }
        json!({"allowed": request["oldObject"]["data"]["key"] != "kept" || request["operation"] != "DELETE"})
    };
    sandbox.admit(hook(strict, &asked, |_| ()));
    let client = sandbox.client();
    let status = refused(send(&client, "POST", MAPS, map("bad")).await);
    assert_eq!((status.code, &*status.reason), (400, "BadRequest"));
    assert_eq!(status.message, "admission webhook \"check.example.com\" denied the request: bad is not good");
    send(&client, "POST", MAPS, map("good")).await.unwrap();
    assert_eq!(refused(send(&client, "PUT", &format!("{MAPS}/a"), map("bad")).await).code, 400);
    send(&client, "PUT", &format!("{MAPS}/a"), map("good")).await.unwrap();
    send(&client, "PUT", &format!("{MAPS}/a"), map("kept")).await.unwrap();
    let status = refused(send(&client, "DELETE", &format!("{MAPS}/a"), json!({})).await);
    assert_eq!(status.message, "admission webhook \"check.example.com\" denied the request without explanation");
    send(&client, "PUT", &format!("{MAPS}/a?dryRun=All"), map("good")).await.unwrap();
    assert_eq!(get(&client, &format!("{MAPS}/a"), "application/json").await["data"]["key"], "kept");
    let asked = asked.lock().unwrap();
    let told: Vec<_> = asked
        .iter()
        .map(|one| {
            let key = |object: &str| one[object]["data"]["key"].as_str().unwrap_or("-").to_owned();
            format!("{} {} {} {}", one["operation"], key("oldObject"), key("object"), one["dryRun"])
        })
        .collect();
    assert_eq!(
        told,
        [
            "\"CREATE\" - bad false",
            "\"CREATE\" - good false",
            "\"UPDATE\" good bad false",
            "\"UPDATE\" good good false",
            "\"UPDATE\" good kept false",
            "\"DELETE\" kept - false",
            "\"UPDATE\" kept good true",
        ]
    );
    assert_eq!(asked[0]["object"]["metadata"]["namespace"], "default");
    assert!(asked[0]["object"]["metadata"].get("resourceVersion").is_none());
    assert_eq!(asked[0]["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_does_not_answer_fails_the_write_or_is_passed_over() {
    for (open, code) in [(false, 500), (true, 201)] {
        let sandbox = sandbox(Options::default());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let silent = tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
        sandbox.admit(hook(
            |_| json!({}),
            &asked,
            |hook| {
                hook.service = tidemark_sandbox::webhook(silent);
                hook.fail_open = open;
            },
        ));
        let request = Request::post(MAPS).header("Content-Type", "application/json");
        let request = request.body(map("x").to_string().into_bytes().into()).unwrap();
        let response = sandbox.client().send(request).await.unwrap();
        assert_eq!(response.status(), code);
    }
}

#[tokio::test(start_paused = true)]
async fn warnings_of_a_webhook_reach_the_writer_and_a_change_meanwhile_is_asked_about_again() {
    let sandbox = sandbox(Options::default());
    let client = sandbox.client();
    send(&client, "POST", MAPS, map("0")).await.unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let warning = |_: &Value| json!({"allowed": true, "warnings": ["think twice"]});
    let slow = hook(warning, &asked, |_| ());
    let quick = slow.service.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let quick = quick.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            tower::ServiceExt::oneshot(quick, request).await
        }
    });
    sandbox.admit(AdmissionHook { service: tidemark_sandbox::webhook(service), ..slow });
    let patch = |body: Value| {
        let request = Request::patch(format!("{MAPS}/a")).header("Content-Type", "application/merge-patch+json");
        client.send(request.body(body.to_string().into_bytes().into()).unwrap())
    };
    let (first, second) = tokio::join!(patch(json!({"data": {"one": "1"}})), patch(json!({"data": {"two": "2"}})));
    assert_eq!(first.unwrap().headers()["warning"], "299 - \"think twice\"");
    assert_eq!(second.unwrap().status(), 200);
    let data = &get(&client, &format!("{MAPS}/a"), "application/json").await["data"];
    assert_eq!(*data, json!({"key": "0", "one": "1", "two": "2"}));
    assert_eq!(asked.lock().unwrap().len(), 3);
}
