//! Calls as either end counts them: as interceptors of Go's gRPC do, so that the numbers mean what dashboards take them
//! for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{BoxStream, Stream, StreamExt as _};
use tokio::time::Instant;
use tonic::{Code, Status};

/// A method of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// With its package, such as `api.MetricsService`.
    pub service: &'static str,
    pub name: &'static str,
    /// The answer is a stream of messages.
    pub streams: bool,
}

impl Method {
    /// The method at a path of the form `/SERVICE/METHOD`.
    pub(super) fn at(path: &'static str, streams: bool) -> Self {
        let (service, name) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
        Self { service, name, streams }
    }

    /// `unary` or `server_stream`.
    pub fn kind(self) -> &'static str {
        if self.streams { "server_stream" } else { "unary" }
    }
}

/// What happens in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Started,
    /// A message came.
    Received,
    /// A message went.
    Sent,
    /// The call is over, well or not; `code` is the name of a gRPC code, such as `OK`.
    Ended {
        code: &'static str,
        took: Duration,
    },
}

/// Is told of every turn, at once. Must not block.
pub type Counter = Arc<dyn Fn(Method, Turn) + Send + Sync>;

/// The name of a code as Go writes it.
pub(super) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// A call under way. One that is dropped before its end was cancelled.
pub(super) struct Call {
    counter: Option<Counter>,
    method: Method,
    began: Instant,
}

impl Call {
    pub(super) fn begin(counter: Option<&Counter>, method: Method) -> Self {
        let this = Self { counter: counter.cloned(), method, began: Instant::now() };
        this.tell(Turn::Started);
        this
    }

    pub(super) fn received(&self) {
        self.tell(Turn::Received);
    }

    pub(super) fn sent(&self) {
        self.tell(Turn::Sent);
    }

    pub(super) fn end(mut self, code: &'static str) {
        self.finish(code);
    }

    fn finish(&mut self, code: &'static str) {
        self.tell(Turn::Ended { code, took: self.began.elapsed() });
        self.counter = None;
    }

    fn tell(&self, turn: Turn) {
        if let Some(counter) = &self.counter {
            counter(self.method, turn);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.finish("Canceled");
    }
}

/// Counts a call of one message each way, at the end that answers.
pub(super) async fn answered<T>(
    counter: Option<&Counter>,
    method: Method,
    answer: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let call = Call::begin(counter, method);
    call.received();
    let answer = answer.await;
    if answer.is_ok() {
        call.sent();
    }
    call.end(code_name(answer.as_ref().err().map_or(Code::Ok, Status::code)));
    answer
}

/// Counts a call whose answer is a stream, at the end that answers.
pub(super) fn streamed<T: Send + 'static>(
    counter: Option<&Counter>,
    method: Method,
    answer: Result<BoxStream<'static, Result<T, Status>>, Status>,
) -> Result<BoxStream<'static, Result<T, Status>>, Status> {
    let call = Call::begin(counter, method);
    call.received();
    match answer {
        Ok(stream) => Ok(CountedStream { stream, call: Some(call) }.boxed()),
        Err(status) => {
            call.end(code_name(status.code()));
            Err(status)
        }
    }
}

struct CountedStream<T> {
    stream: BoxStream<'static, Result<T, Status>>,
    call: Option<Call>,
}

impl<T> Stream for CountedStream<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.stream.poll_next_unpin(cx));
        let ended = match &next {
            Some(Ok(_)) => None,
            Some(Err(status)) => Some(status.code()),
            None => Some(Code::Ok),
        };
        match ended {
            None => {
                if let Some(call) = &self.call {
                    call.sent();
                }
            }
            Some(code) => {
                if let Some(call) = self.call.take() {
                    call.end(code_name(code));
                }
            }
        }
        Poll::Ready(next)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const METHOD: Method = Method { service: "api.MetricsService", name: "GetMetrics", streams: false };

    /// A counter, and what it was told in a word each.
    fn counter() -> (Counter, Arc<Mutex<Vec<String>>>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = told.clone();
        let counter = move |_: Method, turn: Turn| {
            heard.lock().unwrap().push(match turn {
                Turn::Ended { code, .. } => code.to_owned(),
                other => format!("{other:?}"),
            });
        };
        (Arc::new(counter), told)
    }

    #[test]
    fn a_path_names_service_and_method() {
        let method = Method::at("/api.MetricsService/GetMetrics", false);
        assert_eq!((method, method.kind()), (METHOD, "unary"));
        assert_eq!(Method::at("/a.B/C", true).kind(), "server_stream");
    }

    #[tokio::test]
    async fn an_answer_is_a_message_and_an_error_is_none() {
        let (counter, told) = counter();
        answered(Some(&counter), METHOD, async { Ok(()) }).await.unwrap();
        assert_eq!(*told.lock().unwrap(), ["Started", "Received", "Sent", "OK"]);
        told.lock().unwrap().clear();
        answered(Some(&counter), METHOD, async { Err::<(), _>(Status::unknown("no")) }).await.unwrap_err();
        assert_eq!(*told.lock().unwrap(), ["Started", "Received", "Unknown"]);
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_any_more_was_cancelled() {
        let (counter, told) = counter();
        let call = answered(Some(&counter), METHOD, std::future::pending::<Result<(), Status>>());
        assert!(futures::FutureExt::now_or_never(call).is_none());
        assert_eq!(*told.lock().unwrap(), ["Started", "Received", "Canceled"]);
    }

    #[tokio::test]
    async fn every_message_of_a_stream_counts_and_its_end_ends_the_call() {
        let (counter, told) = counter();
        let stream = futures::stream::iter([Ok(1), Ok(2)]).boxed();
        let mut stream = streamed(Some(&counter), METHOD, Ok(stream)).unwrap();
        while stream.next().await.is_some() {}
        drop(stream);
        assert_eq!(*told.lock().unwrap(), ["Started", "Received", "Sent", "Sent", "OK"]);
        told.lock().unwrap().clear();
        let stream = streamed::<u8>(Some(&counter), METHOD, Ok(futures::stream::pending().boxed())).unwrap();
        drop(stream);
        assert_eq!(*told.lock().unwrap(), ["Started", "Received", "Canceled"]);
    }
}
