//! Who may use a port on loopback: whoever holds the token, and no web page.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::future::{BoxFuture, TryFutureExt};
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full};
use tokio::time::timeout;
use tower::Service;

use crate::reply;

/// What a client that is turned away may still send, in bytes and time, before it gets its answer.
const LIMIT: usize = 16 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

/// Lets a request through only with the bearer token, a `Host` of this machine and no foreign `Origin`.
///
/// A page in the user's browser can send requests to loopback under a name that its owner's DNS points there; such a
/// request carries that name as its host, and a page's origin.
#[derive(Clone)]
pub struct Guard<S> {
    inner: S,
    token: Arc<str>,
}

impl<S> Guard<S> {
    /// Guards `inner` with a token.
    pub fn new(inner: S, token: impl Into<Arc<str>>) -> Self {
        Self { inner, token: token.into() }
    }
}

impl<S, B, R> Service<Request<B>> for Guard<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    R: Send + 'static,
{
    type Response = Response<Either<R, Full<Bytes>>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let host = request.uri().authority().map(|authority| authority.as_str().to_owned());
        match refusal(host.as_deref(), request.headers(), &self.token) {
            Some((status, reason, message)) => {
                let response = reply::failure(status, reason, message).map(|body| Either::Right(Full::new(body)));
                let body = request.into_body();
                Box::pin(async move {
                    let _ = timeout(PATIENCE, discard(body)).await;
                    Ok(response)
                })
            }
            None => Box::pin(self.inner.call(request).map_ok(|response| response.map(Either::Left))),
        }
    }
}

/// Takes in what a client sends whose request is turned away. Over HTTP/2 an answer before the end of the body breaks the
/// stream off, and many clients then tell of that instead of the answer.
async fn discard(body: impl http_body::Body) {
    let mut body = std::pin::pin!(body);
    let mut left = LIMIT;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, |data| data.remaining());
        left = match left.checked_sub(bytes) {
            Some(left) => left,
            None => return,
        };
    }
}

/// Why a request is turned away, if it is. `authority` is the URI's (HTTP/2 has no `Host` header).
fn refusal(
    authority: Option<&str>,
    headers: &HeaderMap,
    token: &str,
) -> Option<(StatusCode, &'static str, &'static str)> {
    if let Some(message) = stranger(authority, headers) {
        return Some((StatusCode::FORBIDDEN, "Forbidden", message));
    }
    let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown =
        shown.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let shown = shown.map_or("", |(_, token)| token);
    if !equal(shown.as_bytes(), token.as_bytes()) {
        return Some((StatusCode::UNAUTHORIZED, "Unauthorized", "the bearer token of the kubeconfig is needed"));
    }
    None
}

/// Why a request to a port on loopback comes from elsewhere, as far as its host and origin tell.
pub(crate) fn stranger(authority: Option<&str>, headers: &HeaderMap) -> Option<&'static str> {
    let host = authority.or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok()));
    if !host.is_some_and(is_loopback) {
        return Some("this API answers only to localhost, 127.0.0.1 or [::1]");
    }
    let own = |origin: &str| origin.split_once("://").is_some_and(|(_, host)| is_loopback(host));
    let foreign = headers.get(ORIGIN).is_some_and(|origin| !origin.to_str().is_ok_and(own));
    foreign.then_some("this API answers no page of another origin")
}

/// Whether `HOST[:PORT]` is this machine, and nothing else besides.
fn is_loopback(host: &str) -> bool {
    let is_port =
        |rest: &str| rest.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    let names = ["localhost", "127.0.0.1", "[::1]"];
    names.iter().filter_map(|name| host.strip_prefix(name)).any(|rest| rest.is_empty() || is_port(rest))
}

/// Comparison in a time that does not tell how much of the token was right.
fn equal(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |different, (l, r)| different | (l ^ r)) == 0
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    fn verdict(host: &str, origin: Option<&str>, authorization: Option<&str>) -> Option<u16> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(authorization).unwrap());
        }
        refusal(None, &headers, "secret").map(|(status, ..)| status.as_u16())
    }

    #[tokio::test]
    async fn what_is_sent_with_a_refused_request_is_read_to_its_end_before_the_answer() {
        let (sender, receiver) = futures::channel::mpsc::unbounded::<Result<Frame<Bytes>, Infallible>>();
        let inner = tower::service_fn(|_: Request<StreamBody<_>>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
        });
        let request = Request::get("https://localhost/").body(StreamBody::new(receiver)).unwrap();
        let answer = tokio::spawn(Guard::new(inner, "secret").call(request));
        for _ in 0..3 {
            sender.unbounded_send(Ok(Frame::data(Bytes::from_static(b"more")))).unwrap();
            tokio::task::yield_now().await;
        }
        assert!(!answer.is_finished());
        drop(sender);
        assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn the_holder_of_the_token_passes() {
        assert_eq!(verdict("127.0.0.1:6443", None, Some("Bearer secret")), None);
        assert_eq!(verdict("localhost:6443", Some("https://localhost:6443"), Some("Bearer secret")), None);
        assert_eq!(verdict("[::1]:6443", None, Some("bearer secret")), None);
    }

    #[test]
    fn a_wrong_or_missing_token_is_unauthorized() {
        assert_eq!(verdict("localhost", None, None), Some(401));
        assert_eq!(verdict("localhost", None, Some("Bearer secreT")), Some(401));
        assert_eq!(verdict("localhost", None, Some("Bearer ")), Some(401));
        assert_eq!(verdict("localhost", None, Some("Basic secret")), Some(401));
    }

    #[test]
    fn a_foreign_host_or_origin_is_forbidden_even_with_the_token() {
        assert_eq!(verdict("evil.example:6443", None, Some("Bearer secret")), Some(403));
        assert_eq!(verdict("localhost:1@evil.example", None, Some("Bearer secret")), Some(403));
        assert_eq!(verdict("[::1]evil.example", None, Some("Bearer secret")), Some(403));
        assert_eq!(verdict("", None, Some("Bearer secret")), Some(403));
        assert_eq!(verdict("localhost.evil.example", None, Some("Bearer secret")), Some(403));
        assert_eq!(verdict("localhost", Some("https://evil.example"), Some("Bearer secret")), Some(403));
        assert_eq!(verdict("localhost", Some("null"), Some("Bearer secret")), Some(403));
    }
}
