//! Admission webhooks in the same process: who is asked before an object is written or deleted.

use std::time::Duration;

use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::aggregate::AggregatedService;
use super::failure::Failure;
use super::resource::Resource;
use super::world::Call;

/// Longest answer of a webhook in bytes.
const ANSWER_LIMIT: usize = 1024 * 1024;

/// What is about to happen to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookOperation {
    /// It is created.
    Create,
    /// It is changed, but for its subresources.
    Update,
    /// It is deleted.
    Delete,
}

impl HookOperation {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// Which objects a webhook is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionRule {
    /// API group; empty for the core group.
    pub group: String,
    /// Version of the group.
    pub version: String,
    /// Plural name of the resource.
    pub resource: String,
    /// The operations.
    pub operations: Vec<HookOperation>,
}

/// A validating webhook. It gets `AdmissionReview`s of `admission.k8s.io/v1` and answers with them.
#[derive(Clone)]
pub struct AdmissionHook {
    /// Name of the webhook, by which refusals name it.
    pub name: String,
    /// Path to which it is posted.
    pub path: String,
    /// What it is asked about.
    pub rules: Vec<AdmissionRule>,
    /// Who answers.
    pub service: AggregatedService,
    /// How long it may take.
    pub timeout: Duration,
    /// Without an answer the write goes on; otherwise it fails.
    pub fail_open: bool,
}

impl std::fmt::Debug for AdmissionHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdmissionHook").field("name", &self.name).field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// What a webhook is asked.
pub(super) struct Question<'a> {
    pub operation: HookOperation,
    pub name: &'a str,
    /// Both in the form of the request's version; null where there is none.
    pub object: Value,
    pub old: Value,
}

impl AdmissionHook {
    pub(super) fn is_asked(&self, resource: &Resource, operation: HookOperation) -> bool {
        self.rules.iter().any(|rule| {
            rule.group == resource.group
                && rule.version == resource.version
                && rule.resource == resource.plural
                && rule.operations.contains(&operation)
        })
    }

    /// Asks. What it warns of is added to the warnings.
    pub(super) async fn ask(
        &self,
        call: &Call<'_>,
        question: &Question<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<(), Failure> {
        let review = review(call, question);
        let answer = match tokio::time::timeout(self.timeout, answer(self.service.clone(), &self.path, &review)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => return self.unanswered(&why),
            Err(_) => return self.unanswered("context deadline exceeded"),
        };
        let response = &answer["response"];
        if response["uid"] != review["request"]["uid"] {
            return self.unanswered("expected response.uid to be that of the request");
        }
        let told = response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
        warnings.extend(told.map(str::to_owned));
        if response["allowed"] == true {
            return Ok(());
        }
        let status = &response["status"];
        let text = |field: &str| status[field].as_str().unwrap_or_default();
        let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        Err(Failure::denied(&self.name, code, text("reason"), text("message")))
    }

    fn unanswered(&self, why: &str) -> Result<(), Failure> {
        if self.fail_open {
            return Ok(());
        }
        let message = format!("Internal error occurred: failed calling webhook {:?}: {why}", self.name);
        Err(Failure::internal(message))
    }
}

/// Posts a question and reads what comes back.
fn answer(service: AggregatedService, path: &str, review: &Value) -> BoxFuture<'static, Result<Value, String>> {
    let request = Request::builder().method(Method::POST).uri(path).header(CONTENT_TYPE, "application/json");
    let request = request.body(Body::from(review.to_string().into_bytes()));
    Box::pin(async move {
        let response = match service.oneshot(request.map_err(|error| error.to_string())?).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let status = response.status();
        let mut body = response.into_body();
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| error.to_string())?;
            text.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
            if text.len() > ANSWER_LIMIT {
                return Err("the answer is too long".to_owned());
            }
        }
        if !status.is_success() {
            return Err(format!("an error on the server ({status})"));
        }
        serde_json::from_slice(&text).map_err(|error| error.to_string())
    })
}

fn review(call: &Call<'_>, question: &Question<'_>) -> Value {
    let resource = call.resource;
    let (group, version) = (&resource.group, &resource.version);
    let kind = json!({"group": group, "version": version, "kind": resource.kind});
    let plural = json!({"group": group, "version": version, "resource": resource.plural});
    // One question at a time is asked of a hook, so the object's own identity tells answers apart.
    let uid = [&question.object, &question.old].into_iter().find_map(|value| value["metadata"]["uid"].as_str());
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": uid.unwrap_or_default(), "kind": kind, "resource": plural, "requestKind": kind,
            "requestResource": plural, "name": question.name, "namespace": call.namespace,
            "operation": question.operation.name(), "userInfo": {"username": call.writer, "groups": ["system:masters"]},
            "object": question.object, "oldObject": question.old, "dryRun": call.query.dry_run,
            "options": {"kind": format!("{}Options", options(question.operation)), "apiVersion": "meta.k8s.io/v1"},
        },
    })
}

fn options(operation: HookOperation) -> &'static str {
    match operation {
        HookOperation::Create => "Create",
        HookOperation::Update => "Update",
        HookOperation::Delete => "Delete",
    }
}
