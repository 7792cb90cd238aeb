//! A client for reads that many objects make alike: Secrets, ConfigMaps and authentications that hundreds of objects
//! share are read once for all of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tower::BoxError;

/// A client whose equal GETs under way share one answer. An answer serves for `keep` after its request was made;
/// with zero, only those share it who ask while it is under way.
///
/// Answers other than 200 and 404 serve nobody else.
pub(crate) fn share_reads(client: Client, keep: Duration) -> Client {
    let namespace = client.default_namespace().to_owned();
    let answers = Arc::new(Answers { keep, entries: Mutex::default() });
    let service = tower::service_fn(move |request| answer(client.clone(), answers.clone(), request));
    Client::new(service, namespace)
}

struct Answers {
    keep: Duration,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    by_uri: BTreeMap<String, Entry>,
    swept: Option<Instant>,
}

#[derive(Clone)]
struct Entry {
    asked: Instant,
    answer: Arc<OnceCell<Answer>>,
}

#[derive(Clone)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response
    }
}

impl Answers {
    /// The answer that serves a request made now, or the place for one.
    fn entry(&self, uri: String) -> Entry {
        let now = Instant::now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let serves = |entry: &Entry| !entry.answer.initialized() || now.duration_since(entry.asked) < self.keep;
        if entries.swept.is_none_or(|swept| now.duration_since(swept) >= self.keep) {
            entries.swept = Some(now);
            // A place without an answer is held by those who wait for it; nobody does where their requests failed.
            let awaited = |entry: &Entry| entry.answer.initialized() || Arc::strong_count(&entry.answer) > 1;
            entries.by_uri.retain(|_, entry| serves(entry) && awaited(entry));
        }
        match entries.by_uri.get(&uri) {
            Some(entry) if serves(entry) => entry.clone(),
            _ => {
                let entry = Entry { asked: now, answer: Arc::default() };
                entries.by_uri.insert(uri, entry.clone());
                entry
            }
        }
    }
}

/// Why an answer serves only the one who asked.
enum Alone {
    Answer(Answer),
    Error(BoxError),
}

async fn answer(client: Client, answers: Arc<Answers>, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    if request.method() != Method::GET {
        return Ok(client.send(request).await?);
    }
    let entry = answers.entry(request.uri().to_string());
    let read = || async {
        let response = client.send(request).await.map_err(|error| Alone::Error(error.into()))?;
        let (parts, body) = response.into_parts();
        let body = body.collect_bytes().await.map_err(|error| Alone::Error(error.into()))?;
        let answer = Answer { status: parts.status, headers: parts.headers, body };
        match answer.status {
            StatusCode::OK | StatusCode::NOT_FOUND => Ok(answer),
            _ => Err(Alone::Answer(answer)),
        }
    };
    match entry.answer.get_or_try_init(read).await {
        Ok(answer) => Ok(answer.response()),
        Err(Alone::Answer(answer)) => Ok(answer.response()),
        Err(Alone::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};

    use k8s_openapi::api::core::v1::Secret;
    use kube::Api;

    use super::*;

    /// A server that needs a second for each answer, and the count of requests.
    fn server(keep: Duration, status: u16) -> (Api<Secret>, Arc<AtomicU32>) {
        let seen = Arc::new(AtomicU32::new(0));
        let count = seen.clone();
        let service = tower::service_fn(move |_: Request<Body>| {
            count.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let text = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"}}"#;
                let mut response = Response::new(Body::from(text.as_bytes().to_vec()));
                *response.status_mut() = StatusCode::from_u16(status).expect("a valid status");
                Ok::<_, Infallible>(response)
            }
        });
        (Api::default_namespaced(share_reads(Client::new(service, "default"), keep)), seen)
    }

    #[tokio::test(start_paused = true)]
    async fn reads_under_way_share_one_request_and_later_ones_do_not() {
        let (secrets, seen) = server(Duration::ZERO, 200);
        let (a, b, c) = tokio::join!(secrets.get("a"), secrets.get("a"), secrets.get("b"));
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        assert_eq!(seen.load(Ordering::Relaxed), 2);
        secrets.get("a").await.unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_serves_for_its_time_and_not_longer() {
        let (secrets, seen) = server(Duration::from_secs(150), 200);
        secrets.get("a").await.unwrap();
        tokio::time::sleep(Duration::from_secs(100)).await;
        secrets.get("a").await.unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 1);
        tokio::time::sleep(Duration::from_secs(100)).await;
        secrets.get("a").await.unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_serves_nobody_else() {
        let (secrets, seen) = server(Duration::from_secs(150), 500);
        assert!(secrets.get("a").await.is_err());
        assert!(secrets.get("a").await.is_err());
        assert_eq!(seen.load(Ordering::Relaxed), 2);
    }
}
