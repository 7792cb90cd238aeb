use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use http::{HeaderValue, Request, Response};
use tidemark_clock::Clock;
use tokio::time::{Instant, sleep};

use crate::door::HttpRequests;
use crate::{Door, ErrorKind, HttpProfile, SourceError};

fn get(url: &str) -> Request<Bytes> {
    Request::get(url).body(Bytes::new()).unwrap()
}

/// A door whose source takes a second to answer with the number of the request.
fn slow_door() -> (Door, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let requests = count.clone();
    let door = Door::in_process(Clock::system(), move |_| {
        let number = requests.fetch_add(1, Ordering::Relaxed);
        async move {
            sleep(Duration::from_secs(1)).await;
            Ok(Response::new(Bytes::from(number.to_string())))
        }
        .boxed()
    });
    (door, count)
}

type Sent = Arc<Mutex<Vec<(String, String, Option<String>, Option<String>)>>>;

/// A door whose source answers `target` for the first URL and "done" for all others, and records what it was asked:
/// method, URL, `Authorization`, `X-API-KEY`.
fn redirecting_door(status: u16, from: &'static str, target: &'static str) -> (Door, Sent) {
    let sent = Sent::default();
    let record = sent.clone();
    let door = Door::in_process(Clock::system(), move |request| {
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let url = request.uri().to_string();
        record.lock().unwrap().push((
            request.method().to_string(),
            url.clone(),
            header("authorization"),
            header("x-api-key"),
        ));
        let response = if url == from {
            Response::builder().status(status).header("location", target).body(Bytes::new()).unwrap()
        } else {
            Response::new(Bytes::from("done"))
        };
        async move { Ok(response) }.boxed()
    });
    (door, sent)
}

#[tokio::test(start_paused = true)]
async fn equal_gets_in_flight_share_one_reply() {
    let (door, count) = slow_door();
    let profile = HttpProfile::default();
    let replies = join_all((0..50).map(|_| door.http(&profile, get("http://h/p?q=1"), None))).await;
    assert!(replies.iter().all(|reply| reply.as_ref().unwrap().body() == "0"));
    door.http(&profile, get("http://h/p?q=1"), None).await.unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 2, "a reply is shared only while in flight");
}

#[tokio::test(start_paused = true)]
async fn requests_that_differ_are_not_shared() {
    let (door, count) = slow_door();
    let plain = HttpProfile::default();
    let unsafe_ssl = HttpProfile { unsafe_ssl: true, ..Default::default() };
    let mut with_header = get("http://h/p");
    with_header.headers_mut().insert("authorization", HeaderValue::from_static("x"));
    let post = || Request::post("http://h/p").body(Bytes::from("x")).unwrap();
    tokio::join!(
        door.http(&plain, get("http://h/p"), None),
        door.http(&plain, get("http://h/p?x"), None),
        door.http(&unsafe_ssl, get("http://h/p"), None),
        door.http(&plain, with_header, None),
        door.http(&plain, get("http://h/p"), Some(Duration::from_secs(9))),
        door.http(&plain, post(), None),
        door.http(&plain, post(), None),
    )
    .0
    .unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 7);
}

#[tokio::test(start_paused = true)]
async fn a_shared_request_outlives_the_caller_that_began_it() {
    let (door, count) = slow_door();
    let profile = HttpProfile::default();
    let impatient = tokio::time::timeout(Duration::from_millis(100), door.http(&profile, get("http://h/p"), None));
    let (impatient, patient) = tokio::join!(impatient, door.http(&profile, get("http://h/p"), None));
    assert!(impatient.is_err());
    assert_eq!(patient.unwrap().body(), "0");
    assert_eq!(count.load(Ordering::Relaxed), 1);
    // One that all gave up is gone, and nobody joins it.
    let gone = tokio::time::timeout(Duration::from_millis(100), door.http(&profile, get("http://h/p"), None)).await;
    assert!(gone.is_err());
    assert_eq!(door.http(&profile, get("http://h/p"), None).await.unwrap().body(), "2");
}

#[tokio::test(start_paused = true)]
async fn a_request_ends_at_its_deadline_and_names_no_secret() {
    let (door, _) = slow_door();
    let profile = HttpProfile::default();
    let begun = Instant::now();
    let request = get("http://user:hunter2@h:81/p/q?token=hunter2");
    let error = door.http(&profile, request, Some(Duration::from_millis(300))).await.unwrap_err();
    assert_eq!(begun.elapsed(), Duration::from_millis(300));
    assert_eq!(error.kind, ErrorKind::TimedOut);
    assert_eq!(error.message, "GET http://h:81/p/q: no reply within 300ms");
}

#[tokio::test]
async fn user_info_becomes_basic_authentication() {
    let (door, sent) = redirecting_door(302, "", "");
    let profile = HttpProfile::default();
    door.http(&profile, get("http://us%2Ber:p%40ss+word@h/p"), None).await.unwrap();
    let mut own = get("http://user:pass@h/p");
    own.headers_mut().insert("authorization", HeaderValue::from_static("Bearer t"));
    door.http(&profile, own, None).await.unwrap();
    let sent = sent.lock().unwrap();
    // us+er:p@ss+word
    assert_eq!(sent[0].2.as_deref(), Some("Basic dXMrZXI6cEBzcyt3b3Jk"));
    assert_eq!((sent[1].1.as_str(), sent[1].2.as_deref()), ("http://h/p", Some("Bearer t")));
}

#[tokio::test]
async fn credentials_follow_a_redirect_only_to_the_same_host() {
    let cases = [
        ("http://h/a", "/b", true),
        ("http://h/a", "https://h:8443/b", true),
        ("http://h/a", "http://sub.h/b", true),
        ("https://h/a", "http://h/b", false),
        ("http://h/a", "http://other/b", false),
        ("http://h/a", "http://evilh/b", false),
        ("http://sub.h/a", "http://h/b", false),
        ("http://10.0.0.1/a", "http://1.10.0.0.1.example/b", false),
    ];
    for (from, target, kept) in cases {
        let (door, sent) = redirecting_door(302, from, target);
        let mut request = get(from);
        request.headers_mut().insert("authorization", HeaderValue::from_static("Bearer t"));
        let mut key = HeaderValue::from_static("key");
        key.set_sensitive(true);
        request.headers_mut().insert("x-api-key", key);
        let reply = door.http(&HttpProfile::default(), request, None).await.unwrap();
        assert_eq!(reply.body(), "done");
        let sent = sent.lock().unwrap();
        assert_eq!(sent[1].2.is_some(), kept, "{from} to {target}");
        assert_eq!(sent[1].3.is_some(), kept, "{from} to {target}");
    }
}

#[tokio::test]
async fn a_redirect_keeps_or_changes_the_method_as_its_status_says() {
    for (status, method) in [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")] {
        let (door, sent) = redirecting_door(status, "http://h/a", "/b");
        let request = Request::post("http://h/a").body(Bytes::from("x")).unwrap();
        door.http(&HttpProfile::default(), request, None).await.unwrap();
        assert_eq!(sent.lock().unwrap()[1].0, method, "{status}");
    }
}

#[tokio::test]
async fn a_body_follows_a_redirect_only_to_the_same_host() {
    for (status, target, asked) in
        [(307, "https://other/b", 1), (308, "http://h/b", 1), (307, "/b", 2), (302, "https://other/b", 2)]
    {
        let (door, sent) = redirecting_door(status, "https://h/a", target);
        let request = Request::post("https://h/a").body(Bytes::from("client_secret=hunter2")).unwrap();
        let outcome = door.http(&HttpProfile::default(), request, None).await.map_err(|error| error.kind);
        assert_eq!(sent.lock().unwrap().len(), asked, "{status} to {target}");
        assert_eq!(outcome.err(), (asked == 1).then_some(ErrorKind::Refused), "{status} to {target}");
    }
}

#[tokio::test]
async fn endless_redirects_end() {
    let (door, sent) = redirecting_door(302, "http://h/a", "/a");
    let error = door.http(&HttpProfile::default(), get("http://h/a"), None).await.unwrap_err();
    assert_eq!((error.kind, sent.lock().unwrap().len()), (ErrorKind::Refused, 11));
}

#[tokio::test]
async fn what_is_no_http_url_is_a_configuration_error() {
    let (door, _) = redirecting_door(302, "", "");
    for url in ["/relative", "ftp://h/x"] {
        let error = door.http(&HttpProfile::default(), get(url), None).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Configuration, "{error}");
    }
}

#[tokio::test]
async fn an_in_process_door_opens_no_connection() {
    let (door, _) = redirecting_door(302, "", "");
    let opened = door.shared("k", async { Ok::<_, SourceError>(1) }).await;
    assert_eq!(opened.unwrap_err().kind, ErrorKind::Unreachable);
}

#[tokio::test(start_paused = true)]
async fn every_request_of_a_read_is_noted_with_its_status_redirects_and_deadlines_too() {
    let door = Door::in_process(Clock::system(), |request| {
        async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            match request.uri().path() {
                "/old" => Ok(Response::builder().status(302).header("location", "/new").body(Bytes::new()).unwrap()),
                "/slow" => std::future::pending().await,
                _ => Ok(Response::new(Bytes::new())),
            }
        }
        .boxed()
    });
    let requests = HttpRequests::default();
    let noting = door.noting(requests.clone());
    noting.http(&HttpProfile::default(), get("http://source/old"), None).await.unwrap();
    noting.http(&HttpProfile::default(), get("http://source/slow"), Some(Duration::from_secs(1))).await.unwrap_err();
    door.http(&HttpProfile::default(), get("http://source/other"), None).await.unwrap();
    let noted = requests.take().into_iter().map(|hop| (hop.status.map(|s| s.as_u16()), hop.took.as_millis()));
    assert_eq!(noted.collect::<Vec<_>>(), [(Some(302), 20), (Some(200), 20), (None, 1000)]);
}
