//! Validating admission webhooks: `AdmissionReview`s of `admission.k8s.io/v1` over HTTP, one path for each kind.
//!
//! A review that is not understood is answered with 400, one that cannot be judged in time with 503 or 504; what comes of
//! these is up to the `failurePolicy` of the webhook configuration. Everything else is a verdict.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{Method, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use serde_json::{Value, json};
use tidemark_admission::{Finding, Verdict};
use tidemark_api::{EVENTING_GROUP, GROUP, VERSION};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tower::BoxError;

use crate::reply;
use crate::service::service;

/// The group and version of the reviews.
const API_VERSION: &str = "admission.k8s.io/v1";
/// A review holds two objects at most, and an API server takes none of more than 3 MiB.
const BODY_LIMIT: usize = 8 * 1024 * 1024;
/// Reviews at once; further ones wait, so that a burst takes time and not memory.
const AT_ONCE: usize = 64;
/// The time for a review where the API server does not say how long it waits; it is registered with 10 s.
const PATIENCE: Duration = Duration::from_secs(8);
/// The longest time that an API server may be told to wait.
const LONGEST: Duration = Duration::from_secs(30);

/// One webhook, as it is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// By which refusals name it.
    pub name: &'static str,
    /// Where it is served.
    pub path: &'static str,
    /// The API group of what it reviews; the version is always [`VERSION`].
    pub group: &'static str,
    /// The kind of what it reviews.
    pub kind: &'static str,
    /// The plural name of the kind.
    pub resource: &'static str,
}

/// All webhooks, under the names and paths that KEDA's have.
pub const WEBHOOKS: [Webhook; 6] = [
    Webhook {
        name: "vscaledobject.kb.io",
        path: "/validate-keda-sh-v1alpha1-scaledobject",
        group: GROUP,
        kind: "ScaledObject",
        resource: "scaledobjects",
    },
    Webhook {
        name: "vscaledjob.kb.io",
        path: "/validate-keda-sh-v1alpha1-scaledjob",
        group: GROUP,
        kind: "ScaledJob",
        resource: "scaledjobs",
    },
    Webhook {
        name: "vstriggerauthentication.kb.io",
        path: "/validate-keda-sh-v1alpha1-triggerauthentication",
        group: GROUP,
        kind: "TriggerAuthentication",
        resource: "triggerauthentications",
    },
    Webhook {
        name: "vsclustertriggerauthentication.kb.io",
        path: "/validate-keda-sh-v1alpha1-clustertriggerauthentication",
        group: GROUP,
        kind: "ClusterTriggerAuthentication",
        resource: "clustertriggerauthentications",
    },
    Webhook {
        name: "vcloudeventsource.kb.io",
        path: "/validate-eventing-keda-sh-v1alpha1-cloudeventsource",
        group: EVENTING_GROUP,
        kind: "CloudEventSource",
        resource: "cloudeventsources",
    },
    Webhook {
        name: "vclustercloudeventsource.kb.io",
        path: "/validate-eventing-keda-sh-v1alpha1-clustercloudeventsource",
        group: EVENTING_GROUP,
        kind: "ClusterCloudEventSource",
        resource: "clustercloudeventsources",
    },
];

/// What is about to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// An object is created.
    Create,
    /// An object is changed, but for its subresources.
    Update,
}

/// One write that is to be judged.
#[derive(Clone, Debug)]
pub struct Question {
    /// The kind of the object.
    pub kind: &'static str,
    /// What is about to be done.
    pub operation: Operation,
    /// The object as it would be stored. Its namespace, if its kind has any, and its name are in its metadata.
    pub object: Value,
    /// The object as it is stored; none for a creation.
    pub old: Option<Value>,
    /// Nothing will be stored.
    pub dry_run: bool,
    /// Nobody waits for the answer after this.
    pub deadline: Instant,
}

/// The write cannot be judged; the text says why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unjudged(pub String);

/// Who judges.
pub trait Reviewer: Send + Sync + 'static {
    /// Judges a write, before [`Question::deadline`].
    fn review(&self, question: Question) -> BoxFuture<'_, Result<Verdict, Unjudged>>;
}

/// The webhooks as a tower service. Cheap to clone.
#[derive(Clone)]
pub struct AdmissionReviews {
    reviewer: Arc<dyn Reviewer>,
    turns: Arc<Semaphore>,
}

impl AdmissionReviews {
    /// The webhooks over one who judges.
    pub fn new(reviewer: Arc<dyn Reviewer>) -> Self {
        Self { reviewer, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    async fn answer(
        self,
        head: http::request::Parts,
        body: BoxFuture<'static, Result<Bytes, BoxError>>,
    ) -> Response<Bytes> {
        let Some(webhook) = WEBHOOKS.iter().find(|webhook| webhook.path == head.uri.path()) else {
            return reply::failure(StatusCode::NOT_FOUND, "NotFound", "there is no webhook at this path");
        };
        if head.method != Method::POST {
            let text = "an AdmissionReview is posted";
            return reply::failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", text);
        }
        let deadline = Instant::now() + patience(head.uri.query().unwrap_or_default());
        match tokio::time::timeout_at(deadline, self.judged(webhook, &head, body, deadline)).await {
            Ok(Ok(answer)) => reply::json(StatusCode::OK, &answer),
            Ok(Err(Failure::BadReview(text))) => reply::failure(StatusCode::BAD_REQUEST, "BadRequest", &text),
            Ok(Err(Failure::TooLong)) => {
                let text = format!("the review is longer than {BODY_LIMIT} bytes");
                reply::failure(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &text)
            }
            Ok(Err(Failure::Unjudged(text))) => {
                reply::failure(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", &text)
            }
            Err(_) => {
                let text = "the cluster could not be looked at in time";
                reply::failure(StatusCode::GATEWAY_TIMEOUT, "Timeout", text)
            }
        }
    }

    async fn judged(
        &self,
        webhook: &Webhook,
        head: &http::request::Parts,
        body: BoxFuture<'static, Result<Bytes, BoxError>>,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if content_type.split(';').next().unwrap_or_default().trim() != "application/json" {
            return Err(Failure::bad(format!("the content type must be application/json, not {content_type:?}")));
        }
        // Closed never: it lives as long as this.
        let _turn = self.turns.acquire().await.map_err(|error| Failure::Unjudged(error.to_string()))?;
        let body = body.await.map_err(|error| match error.is::<LengthLimitError>() {
            true => Failure::TooLong,
            false => Failure::bad("the body has not come whole"),
        })?;
        let review =
            serde_json::from_slice(&body).map_err(|error| Failure::bad(format!("this is no JSON: {error}")))?;
        drop(body);
        let (uid, question) = question(review, webhook, deadline)?;
        let verdict = match question {
            None => Verdict::default(),
            Some(question) => {
                let judged = self.reviewer.review(question).await;
                judged.map_err(|Unjudged(text)| Failure::Unjudged(text))?
            }
        };
        Ok(json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response(uid, &verdict)}))
    }
}

service!(AdmissionReviews, [B: Body<Data = Bytes> + Send + 'static, B::Error: Into<BoxError>], Full<Bytes>, |this, request| {
    let (head, body) = request.into_parts();
    let body = async move { Ok(Limited::new(body, BODY_LIMIT).collect().await?.to_bytes()) };
    this.answer(head, Box::pin(body)).await.map(Full::new)
});

/// Why there is no verdict.
enum Failure {
    BadReview(String),
    TooLong,
    Unjudged(String),
}

impl Failure {
    fn bad(text: impl Into<String>) -> Self {
        Self::BadReview(text.into())
    }
}

/// For how long somebody waits for the answer: API servers say so, in the form of `10s`. A part of it is for the way.
fn patience(query: &str) -> Duration {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let given = pairs.find(|(key, _)| key == "timeout").map(|(_, value)| value);
    let seconds = given.and_then(|text| text.strip_suffix('s')?.parse::<f64>().ok());
    match seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        Some(given) if !given.is_zero() => given.min(LONGEST).mul_f64(0.8),
        _ => PATIENCE,
    }
}

/// The uid of a review, and the write that it is about; none where there is nothing to judge.
fn question(mut review: Value, webhook: &Webhook, deadline: Instant) -> Result<(String, Option<Question>), Failure> {
    if review["kind"] != "AdmissionReview" || review["apiVersion"] != API_VERSION {
        return Err(Failure::bad(format!("this is no AdmissionReview of {API_VERSION}")));
    }
    let mut request = review["request"].take();
    let uid = request["uid"].as_str().filter(|uid| !uid.is_empty());
    let uid = uid.ok_or_else(|| Failure::bad("the review has no request.uid"))?.to_owned();
    let operation = match request["operation"].as_str() {
        Some("CREATE") => Operation::Create,
        Some("UPDATE") => Operation::Update,
        Some("DELETE" | "CONNECT") => return Ok((uid, None)),
        other => return Err(Failure::bad(format!("request.operation {:?} is not known", other.unwrap_or_default()))),
    };
    if request["subResource"].as_str().is_some_and(|name| !name.is_empty()) {
        return Ok((uid, None));
    }
    let object =
        written(&mut request, "object", webhook)?.ok_or_else(|| Failure::bad("the review has no request.object"))?;
    let old = match operation {
        Operation::Create => None,
        Operation::Update => written(&mut request, "oldObject", webhook)?,
    };
    let dry_run = request["dryRun"] == true;
    Ok((uid, Some(Question { kind: webhook.kind, operation, object, old, dry_run, deadline })))
}

/// One object of a review. One that is not what the path is for would be admitted unseen.
fn written(request: &mut Value, field: &str, webhook: &Webhook) -> Result<Option<Value>, Failure> {
    let mut object = request[field].take();
    if object.is_null() {
        return Ok(None);
    }
    let api_version = format!("{}/{VERSION}", webhook.group);
    if !object["metadata"].is_object() || object["kind"] != webhook.kind || object["apiVersion"] != *api_version {
        let kind = webhook.kind;
        return Err(Failure::bad(format!("request.{field} is no {kind} of {api_version}, which this path is for")));
    }
    // In the moment of its creation an object need not say where it is.
    for part in ["namespace", "name"] {
        if !object["metadata"][part].is_string() && request[part].is_string() {
            object["metadata"][part] = request[part].clone();
        }
    }
    Ok(Some(object))
}

fn response(uid: String, verdict: &Verdict) -> Value {
    if !verdict.admitted() {
        let messages: Vec<_> = verdict.errors.iter().map(|error| error.message.as_str()).collect();
        let cause = |finding: &Finding| {
            json!({
                "reason": "FieldValueInvalid", "field": finding.path.to_string(), "message": finding.message,
            })
        };
        return json!({
            "uid": uid, "allowed": false,
            "status": {
                "status": "Failure", "code": 403, "reason": "Forbidden", "message": messages.join("; "),
                "details": {"causes": verdict.errors.iter().map(cause).collect::<Vec<_>>()},
            },
        });
    }
    let mut response = json!({"uid": uid, "allowed": true});
    if !verdict.warnings.is_empty() {
        response["warnings"] = verdict.warnings.iter().map(|warning| warning.message.as_str()).collect();
    }
    response
}

#[cfg(test)]
mod tests {
    use http::Request;
    use tower::ServiceExt;

    use super::*;

    /// Judges by the bounds of replicas only, or not at all.
    struct Judge;

    impl Reviewer for Judge {
        fn review(&self, question: Question) -> BoxFuture<'_, Result<Verdict, Unjudged>> {
            Box::pin(async move {
                match question.object["metadata"]["name"].as_str() {
                    Some("slow") => tokio::time::sleep(Duration::from_secs(3600)).await,
                    Some("unknown") => return Err(Unjudged("the API server does not answer".into())),
                    _ => {}
                }
                let request = tidemark_admission::Request {
                    object: &question.object,
                    old: question.old.as_ref(),
                    dry_run: question.dry_run,
                };
                Ok(tidemark_admission::review(&request, &tidemark_admission::View::default()))
            })
        }
    }

    const PATH: &str = WEBHOOKS[0].path;

    fn review(name: &str, spec: Value) -> Value {
        let mut whole = json!({
            "scaleTargetRef": {"name": "web"}, "triggers": [{"type": "cron", "metadata": {"timezone": "UTC"}}],
        });
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        json!({
            "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "request": {
                "uid": "u-1", "operation": "CREATE", "namespace": "shop", "name": name, "dryRun": false,
                "object": {
                    "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name}, "spec": whole,
                },
                "oldObject": null,
            },
        })
    }

    async fn post(path: &str, body: impl Into<Bytes>) -> (u16, Value) {
        let request = Request::post(path).header(CONTENT_TYPE, "application/json");
        let request = request.body(Full::new(body.into())).unwrap();
        let response = AdmissionReviews::new(Arc::new(Judge)).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn asked(review: &Value) -> (u16, Value) {
        post(PATH, review.to_string()).await
    }

    #[tokio::test]
    async fn a_good_object_is_allowed_under_the_uid_of_its_review() {
        let (status, answer) = asked(&review("a", json!({}))).await;
        assert_eq!(status, 200);
        let expected = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": "u-1", "allowed": true},
        });
        assert_eq!(answer, expected);
    }

    #[tokio::test]
    async fn a_bad_object_is_forbidden_in_the_words_of_the_rules_with_the_fields_at_fault() {
        let spec = json!({"minReplicaCount": 5, "maxReplicaCount": 2, "idleReplicaCount": 5});
        let (status, answer) = asked(&review("a", spec)).await;
        let response = &answer["response"];
        assert_eq!((status, &response["allowed"], &response["uid"]), (200, &json!(false), &json!("u-1")));
        assert_eq!((&response["status"]["code"], &response["status"]["reason"]), (&json!(403), &json!("Forbidden")));
        assert_eq!(
            response["status"]["message"],
            "MinReplicaCount=5 must be less than or equal to MaxReplicaCount=2; \
             IdleReplicaCount=5 must be less than MinReplicaCount=5"
        );
        assert_eq!(response["status"]["details"]["causes"][1]["field"], "spec.idleReplicaCount");
    }

    #[tokio::test]
    async fn a_setting_without_effect_is_a_warning_of_an_allowed_object() {
        let (_, answer) = asked(&review("a", json!({"minReplicaCount": 1, "cooldownPeriod": 30}))).await;
        let response = &answer["response"];
        assert_eq!(response["allowed"], true);
        assert!(response["warnings"][0].as_str().unwrap().starts_with("CooldownPeriod is configured"), "{response}");
    }

    #[tokio::test]
    async fn a_deletion_and_a_subresource_are_allowed_without_a_look() {
        let mut deletion = review("unknown", json!({}));
        deletion["request"]["operation"] = json!("DELETE");
        deletion["request"]["object"] = Value::Null;
        assert_eq!(asked(&deletion).await.1["response"]["allowed"], true);
        let mut status = review("unknown", json!({}));
        status["request"]["subResource"] = json!("status");
        assert_eq!(asked(&status).await.1["response"]["allowed"], true);
    }

    #[tokio::test]
    async fn what_is_not_understood_is_a_bad_request_that_says_why() {
        let changed = |path: &str, value: Value| {
            let mut review = review("a", json!({}));
            *review.pointer_mut(path).unwrap() = value;
            review.to_string()
        };
        for (body, why) in [
            ("{".to_owned(), "no JSON"),
            ("[1]".to_owned(), "no AdmissionReview"),
            ("null".to_owned(), "no AdmissionReview"),
            (changed("/apiVersion", json!("admission.k8s.io/v1beta1")), "no AdmissionReview of admission.k8s.io/v1"),
            (changed("/request", Value::Null), "no request.uid"),
            (changed("/request", json!("text")), "no request.uid"),
            (changed("/request/uid", json!(7)), "no request.uid"),
            (changed("/request/operation", json!("PATCH")), "\"PATCH\" is not known"),
            (changed("/request/object", Value::Null), "no request.object"),
            (changed("/request/object", json!([])), "is no ScaledObject"),
            (changed("/request/object/kind", json!("ScaledJob")), "is no ScaledObject of keda.sh/v1alpha1"),
            (changed("/request/object/apiVersion", json!("keda.sh/v2")), "is no ScaledObject of keda.sh/v1alpha1"),
        ] {
            let (status, answer) = post(PATH, body.clone()).await;
            let message = answer["message"].as_str().unwrap();
            assert!(status == 400 && message.contains(why), "{body}: {status} {message}");
        }
        let (status, answer) = post(WEBHOOKS[1].path, review("a", json!({})).to_string()).await;
        assert_eq!((status, answer["reason"].as_str()), (400, Some("BadRequest")));
        assert_eq!(post("/validate", "{}").await.0, 404);
        assert_eq!(post(PATH, vec![b' '; BODY_LIMIT + 1]).await.0, 413);
        let get = Request::get(PATH).body(Full::<Bytes>::default()).unwrap();
        let got = AdmissionReviews::new(Arc::new(Judge)).oneshot(get).await.unwrap();
        assert_eq!(got.status(), StatusCode::METHOD_NOT_ALLOWED);
        let text = Request::post(PATH).body(Full::from(review("a", json!({})).to_string())).unwrap();
        let answer = AdmissionReviews::new(Arc::new(Judge)).oneshot(text).await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_judged_is_neither_allowed_nor_refused_and_told_before_the_api_server_gives_up() {
        let (status, answer) = asked(&review("unknown", json!({}))).await;
        assert_eq!((status, answer["message"].as_str()), (503, Some("the API server does not answer")));
        for (path, least, most) in [(PATH.to_owned(), 7, 9), (format!("{PATH}?timeout=5s"), 3, 5)] {
            let start = Instant::now();
            let (status, _) = post(&path, review("slow", json!({})).to_string()).await;
            let took = start.elapsed().as_secs();
            assert!(status == 504 && (least..most).contains(&took), "{status} after {took} s");
        }
    }

    #[test]
    fn every_kind_that_has_rules_has_a_webhook() {
        let kinds = WEBHOOKS.map(|webhook| (webhook.group, webhook.kind));
        assert_eq!(kinds, tidemark_admission::KINDS);
    }
}
