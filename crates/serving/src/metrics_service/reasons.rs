//! Reasons over the link: service `tidemark.reasons.v1.Reasons` beside those that KEDA has, on the same port.
//!
//! KEDA's operator does not know it, which is an answer too.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use serde_json::json;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tower::{BoxError, service_fn};

use super::calls::{Counter, Method, answered};
use super::client::{Failed, GrpcMetrics};
use crate::reasons_api::{Asked, ReasonsSource};

/// The method.
pub(super) const ASK: &str = "/tidemark.reasons.v1.Reasons/Ask";
/// The longest answer: a page of reports.
pub(super) const ANSWER_LIMIT: usize = 32 * 1024 * 1024;
const REQUEST_LIMIT: usize = 64 * 1024;
/// A source that has its own deadlines is not waited for longer than this.
const PATIENCE: Duration = Duration::from_secs(30);

/// A GET of the API.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Question {
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(string, tag = "2")]
    pub query: String,
}

/// What HTTP answers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Answer {
    #[prost(uint32, tag = "1")]
    pub status: u32,
    #[prost(string, tag = "2")]
    pub json: String,
}

/// Answers a call of [`ASK`].
pub(super) async fn serve<B>(
    request: Request<B>,
    counter: Option<Counter>,
    source: Arc<dyn ReasonsSource>,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    let call = service_fn(move |request: tonic::Request<Question>| {
        let (counter, source) = (counter.clone(), source.clone());
        async move {
            let Question { path, query } = request.into_inner();
            let answer = async {
                let asked = timeout(PATIENCE, source.ask(&path, &query)).await;
                let asked = asked.map_err(|_| Status::deadline_exceeded("the object did not answer in time"))?;
                Ok(Answer { status: asked.status.into(), json: asked.json })
            };
            answered(counter.as_ref(), Method::at(ASK, false), answer).await.map(tonic::Response::new)
        }
    });
    let codec = ProstCodec::<Answer, Question>::default();
    let mut grpc = Grpc::new(codec).max_decoding_message_size(REQUEST_LIMIT);
    grpc = grpc.max_encoding_message_size(ANSWER_LIMIT);
    grpc.unary(call, request).await
}

impl ReasonsSource for GrpcMetrics {
    fn ask<'a>(&'a self, path: &'a str, query: &'a str) -> BoxFuture<'a, Asked> {
        Box::pin(async move {
            let question = Question { path: path.to_owned(), query: query.to_owned() };
            match self.call::<Question, Answer>(question, ASK).await {
                Ok(answer) => Asked { status: u16::try_from(answer.status).unwrap_or(500), json: answer.json },
                Err(failed) => refusal(&failed),
            }
        })
    }
}

/// What a caller is told when the operator has not answered.
fn refusal(failed: &Failed) -> Asked {
    let (status, reason, message) = match failed {
        Failed::NotConnected => (
            503,
            "ServiceUnavailable",
            "the metrics server has no connection to the operator: it does not run, or does not lead yet".to_owned(),
        ),
        Failed::Status(status) if status.code() == Code::Unimplemented => (
            501,
            "NotImplemented",
            "the operator does not tell its reasons: it is KEDA's, or an older Tidemark".to_owned(),
        ),
        Failed::Status(status) => (500, "InternalError", format!("the operator: {}", status.message())),
    };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason,
        "message": message, "code": status,
    });
    Asked { status, json: body.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_that_is_kedas_or_away_is_told_apart() {
        let code = |failed: Failed| refusal(&failed).status;
        assert_eq!(code(Failed::NotConnected), 503);
        assert_eq!(code(Failed::Status(Box::new(Status::unimplemented("there is no method")))), 501);
        let asked = refusal(&Failed::Status(Box::new(Status::deadline_exceeded("late"))));
        assert!(asked.status == 500 && asked.json.contains("the operator: late"), "{asked:?}");
    }
}
