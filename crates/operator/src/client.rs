//! The client that all requests to the API server go through: a deadline for each request, and repeats only where a
//! repeat cannot do harm.
//!
//! kube's own retry is switched off, because it repeats a POST after a 504: one Job wanted, five Jobs made.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{Method, Request, Response, StatusCode, Uri};
use kube::Client;
use kube::client::Body;
use tidemark_trigger::causes;
use tower::BoxError;

use crate::settings::Writes;

mod dry_run;

/// Attempts in all, the first included.
const ATTEMPTS: u32 = 4;
/// Pause before the first repeat; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// A server may ask for a longer pause, but not for more than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A request that was not answered in time.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not answer {method} {path} within {seconds} s")]
struct Unanswered {
    method: Method,
    path: String,
    seconds: u64,
}

/// A write that was not sent, because another operator may lead by now.
#[derive(Debug, thiserror::Error)]
#[error("not written: this operator leads no longer")]
struct NotLeading;

/// A client for a cluster, kube's own retry switched off. Guard it with [`guard`] before use; the operator does that
/// with the client that it is given.
///
/// # Errors
/// What kube says of a configuration that cannot work.
pub fn build(mut config: kube::Config) -> kube::Result<Client> {
    config.default_retry = false;
    Client::try_from(config)
}

/// The same client with a deadline of `timeout` for each request (for a watch: until its first byte), and with
/// repeats: after 429 always, after a failure on the way or a 502, 503, 504 only for idempotent methods.
pub fn guard(client: Client, timeout: Duration) -> Client {
    guarded(client, timeout, Writes::Always)
}

/// As [`guard`]; besides, a request that writes is refused when a fence is closed, and in a dry run answered in the API
/// server's place.
pub fn guarded(client: Client, timeout: Duration, writes: Writes) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request| perform(client.clone(), request, timeout, writes.clone()));
    Client::new(service, namespace)
}

async fn perform(
    client: Client,
    request: Request<Body>,
    timeout: Duration,
    writes: Writes,
) -> Result<Response<Body>, BoxError> {
    let (parts, body) = request.into_parts();
    let body = body.collect_bytes().await?;
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    if !reads && !writes.are_real() {
        return dry_run::answer(&client, &parts, &body, timeout).await;
    }
    let watch = is_watch(&parts.uri);
    let idempotent = [Method::GET, Method::HEAD, Method::PUT, Method::DELETE].contains(&parts.method);
    let mut attempt = 1;
    loop {
        if let (false, Writes::Behind(fence)) = (reads, &writes)
            && !fence.is_open()
        {
            return Err(Box::new(NotLeading));
        }
        let request = Request::from_parts(parts.clone(), Body::from(body.clone()));
        let outcome = match tokio::time::timeout(timeout, once(&client, request, watch)).await {
            Ok(outcome) => outcome.map_err(BoxError::from),
            Err(_) => Err(BoxError::from(Unanswered {
                method: parts.method.clone(),
                path: parts.uri.path().to_owned(),
                seconds: timeout.as_secs(),
            })),
        };
        if attempt >= ATTEMPTS || !may_repeat(&outcome, idempotent) {
            return outcome;
        }
        tokio::time::sleep(pause(&outcome, &parts.method, &parts.uri, attempt)).await;
        attempt += 1;
    }
}

/// Sends once and takes the whole body in, so that the deadline covers it; a watch's body goes on as it comes.
async fn once(client: &Client, request: Request<Body>, watch: bool) -> kube::Result<Response<Body>> {
    let response = client.send(request).await?;
    if watch {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    Ok(Response::from_parts(parts, Body::from(body.collect_bytes().await?)))
}

fn is_watch(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1")))
}

fn may_repeat(outcome: &Result<Response<Body>, BoxError>, idempotent: bool) -> bool {
    match outcome {
        Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => true,
        Ok(response) => idempotent && matches!(response.status().as_u16(), 502..=504),
        Err(_) => idempotent,
    }
}

/// The pause asked for by the server, else a doubling one; lengthened by up to a half, by a number that depends on the
/// request only, so that requests that failed together come back apart and a replay does the same again.
fn pause(outcome: &Result<Response<Body>, BoxError>, method: &Method, uri: &Uri, attempt: u32) -> Duration {
    let asked = outcome.as_ref().ok().and_then(|response| {
        response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
    });
    let base = asked.unwrap_or(FIRST_PAUSE * 2_u32.pow(attempt - 1)).min(LONGEST_PAUSE);
    let mut hasher = DefaultHasher::new();
    (method.as_str(), uri.path(), attempt).hash(&mut hasher);
    base + base.mul_f64((hasher.finish() % 512) as f64 / 1024.0)
}

/// An error of the API server in words for people.
pub(crate) fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("the API server answered {} {}", status.code, status.reason),
        kube::Error::Service(inner) => causes(&**inner),
        other => causes(other),
    }
}

/// Whether the API server says that there is no such thing.
pub(crate) fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the API server says that the object has changed since it was read, or exists already.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, PostParams};

    use super::*;

    /// A server that answers `failures` times with `status`, then with an empty ConfigMap; and the count of requests.
    fn server(status: u16, failures: u32) -> (Client, Arc<AtomicU32>) {
        let seen = Arc::new(AtomicU32::new(0));
        let count = seen.clone();
        let service = tower::service_fn(move |_: Request<Body>| {
            let failed = count.fetch_add(1, Ordering::Relaxed) < failures;
            let text = if failed { "{}" } else { r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"# };
            let response = Response::builder()
                .status(if failed { status } else { 200 })
                .body(Body::from(text.as_bytes().to_vec()));
            async move { Ok::<_, Infallible>(response.expect("a status and a body make a response")) }
        });
        (guard(Client::new(service, "default"), Duration::from_secs(5)), seen)
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_is_repeated_after_a_gateway_error() {
        let (client, seen) = server(503, 2);
        Api::<ConfigMap>::default_namespaced(client).get("a").await.unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_create_is_never_repeated_after_a_gateway_error() {
        let (client, seen) = server(504, 1);
        let api = Api::<ConfigMap>::default_namespaced(client);
        assert!(api.create(&PostParams::default(), &ConfigMap::default()).await.is_err());
        assert_eq!(seen.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_create_is_repeated_after_too_many_requests() {
        let (client, seen) = server(429, 1);
        let api = Api::<ConfigMap>::default_namespaced(client);
        api.create(&PostParams::default(), &ConfigMap::default()).await.unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_given_up_on() {
        let service =
            tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
        let client = guard(Client::new(service, "default"), Duration::from_secs(5));
        let error = Api::<ConfigMap>::default_namespaced(client).get("a").await.unwrap_err();
        assert_eq!(
            describe(&error),
            "the API server did not answer GET /api/v1/namespaces/default/configmaps/a within 5 s"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_names_what_it_came_from_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("client error (Connect)")]
        struct Connect(#[source] std::io::Error);
        let service = tower::service_fn(|_: Request<Body>| async {
            Err::<Response<Body>, _>(Connect(std::io::Error::other("connection refused")))
        });
        let client = guard(Client::new(service, "default"), Duration::from_secs(5));
        let error = Api::<ConfigMap>::default_namespaced(client).get("a").await.unwrap_err();
        let text = describe(&error);
        assert!(text.contains("client error (Connect)"), "{text}");
        assert_eq!(text.matches("connection refused").count(), 1, "{text}");
    }
}
