use std::convert::Infallible;
use std::sync::Mutex;

use http::{HeaderValue, Method, Request};
use http_body_util::BodyExt as _;
use kube::client::Body;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tidemark_clock::Clock;

use super::*;
use crate::certificates::Authority;

fn authority(name: &str) -> Authority {
    Authority::new(name, Clock::system().now()).unwrap()
}

/// A cluster's settings with the CA of its front proxies and that of its users.
fn settings(proxies: &Authority, users: Option<&Authority>, allowed: &str) -> FrontProxy {
    let data = [
        ("requestheader-client-ca-file", proxies.certificate()),
        ("requestheader-allowed-names", allowed.to_owned()),
        ("requestheader-username-headers", r#"["X-Remote-User"]"#.to_owned()),
        ("requestheader-uid-headers", r#"["X-Remote-Uid"]"#.to_owned()),
        ("requestheader-group-headers", r#"["X-Remote-Group"]"#.to_owned()),
        ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#.to_owned()),
        ("client-ca-file", users.map(Authority::certificate).unwrap_or_default()),
    ];
    FrontProxy::parse(&data.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()).unwrap()
}

fn peer(authority: &Authority, name: &str) -> PeerCertificates {
    let pair = authority.client(name).unwrap();
    PeerCertificates([CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()].into())
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("x-remote-user", HeaderValue::from_static("system:hpa"));
    headers.insert("x-remote-uid", HeaderValue::from_static("7"));
    headers.append("x-remote-group", HeaderValue::from_static("a"));
    headers.append("x-remote-group", HeaderValue::from_static("b"));
    headers.insert("x-remote-extra-scopes", HeaderValue::from_static("s"));
    headers.insert("x-remote-extra-authentication.kubernetes.io%2fpod-name", HeaderValue::from_static("p"));
    headers
}

fn bearer(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(http::header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
}

#[test]
fn an_allowed_front_proxy_names_the_user() {
    let proxies = authority("front-proxy");
    let trust = Trust::new(settings(&proxies, None, r#"["front-proxy-client"]"#));
    let user = trust.user(Some(&peer(&proxies, "front-proxy-client")), &headers()).unwrap();
    assert_eq!((&*user.name, user.uid.as_deref()), ("system:hpa", Some("7")));
    assert_eq!(user.groups, ["a", "b", "system:authenticated"]);
    assert_eq!(user.extra["scopes"], ["s"]);
    assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
    let all = Trust::new(settings(&proxies, None, "[]"));
    assert!(all.user(Some(&peer(&proxies, "anyone")), &headers()).is_some());
}

#[test]
fn headers_without_an_allowed_certificate_name_nobody() {
    let (proxies, users) = (authority("front-proxy"), authority("users"));
    let trust = Trust::new(settings(&proxies, None, r#"["front-proxy-client"]"#));
    assert!(trust.user(None, &headers()).is_none());
    assert!(trust.user(Some(&peer(&proxies, "somebody")), &headers()).is_none());
    assert!(trust.user(Some(&peer(&proxies, "front-proxy-client")), &HeaderMap::new()).is_none());
    assert!(trust.user(Some(&peer(&users, "front-proxy-client")), &headers()).is_none());
}

#[test]
fn a_certificate_of_the_users_ca_is_its_owners_and_does_not_make_a_front_proxy() {
    let (proxies, users) = (authority("front-proxy"), authority("users"));
    let trust = Trust::new(settings(&proxies, Some(&users), r#"["front-proxy-client"]"#));
    let user = trust.user(Some(&peer(&users, "front-proxy-client")), &headers()).unwrap();
    assert_eq!((&*user.name, &*user.groups), ("front-proxy-client", &["system:authenticated".to_owned()][..]));
    assert!(trust.user(Some(&peer(&proxies, "somebody")), &HeaderMap::new()).is_none(), "a front proxy is no user");
}

/// An API server that knows one token and lets one user list one metric; it notes what it was asked.
fn cluster() -> (Client, Arc<Mutex<Vec<Value>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let notes = notes.clone();
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut review: Value = serde_json::from_slice(&body).unwrap();
            notes.lock().unwrap().push(review["spec"].clone());
            review["status"] = match review["kind"].as_str().unwrap() {
                "TokenReview" if review["spec"]["token"] == "good" => {
                    json!({"authenticated": true, "user": {"username": "dash", "groups": ["viewers"]}})
                }
                "TokenReview" => json!({"authenticated": false}),
                _ => json!({"allowed": review["spec"]["user"] == "dash"}),
            };
            Ok::<_, Infallible>(Response::new(Body::from(review.to_string().into_bytes())))
        }
    });
    (Client::new(service, "default"), asked)
}

fn metric() -> Attributes {
    Attributes::of(&Method::GET, "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/s0-x")
}

#[tokio::test(start_paused = true)]
async fn a_token_is_judged_by_the_api_server_and_so_is_what_its_owner_may_each_for_ten_seconds() {
    let (client, asked) = cluster();
    let delegated = Delegated::new(client, settings(&authority("front-proxy"), None, "[]"));
    for _ in 0..3 {
        assert_eq!(delegated.check(None, &bearer("good"), &metric()).await, Ok(()));
        assert_eq!(delegated.check(None, &bearer("bad"), &metric()).await, Err(Denied::Unauthorized));
    }
    let first = asked.lock().unwrap().clone();
    assert_eq!(first.len(), 3, "{first:?}");
    assert_eq!(first[1]["groups"], json!(["viewers", "system:authenticated"]));
    assert_eq!(first[1]["resourceAttributes"]["verb"], "list");
    assert_eq!(first[1]["resourceAttributes"]["resource"], "s0-x");
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(delegated.check(None, &bearer("good"), &metric()).await, Ok(()));
    assert_eq!(asked.lock().unwrap().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn answers_are_believed_as_long_as_was_said_and_open_paths_are_not_asked_about() {
    let (client, asked) = cluster();
    let leniency = Leniency {
        tokens: Duration::from_secs(60),
        allowed: Duration::from_secs(30),
        refused: Duration::ZERO,
        open_paths: vec!["/healthz".to_owned(), "/open/*".to_owned(), "/apis/*".to_owned()],
    };
    let delegated = Delegated::new(client, settings(&authority("front-proxy"), None, "[]")).with(leniency);
    for later in [0, 29, 2] {
        tokio::time::advance(Duration::from_secs(later)).await;
        assert_eq!(delegated.check(None, &bearer("good"), &metric()).await, Ok(()));
    }
    let reviews = |kind: &str| asked.lock().unwrap().iter().filter(|spec| spec.get(kind).is_some()).count();
    assert_eq!((reviews("token"), reviews("user")), (1, 2));
    let path = |path: &str| Attributes::of(&Method::GET, path);
    for open in ["/healthz", "/open/a/b", "/apis/external.metrics.k8s.io"] {
        assert_eq!(delegated.check(None, &HeaderMap::new(), &path(open)).await, Ok(()), "{open}");
    }
    for closed in ["/healthz/x", "/open", "/"] {
        assert_eq!(
            delegated.check(None, &HeaderMap::new(), &path(closed)).await,
            Err(Denied::Unauthorized),
            "{closed}"
        );
    }
    assert_eq!(delegated.check(None, &HeaderMap::new(), &metric()).await, Err(Denied::Unauthorized));
}

#[tokio::test]
async fn nobody_is_unauthorized_a_stranger_is_forbidden_and_a_master_is_not_asked_about() {
    let (client, asked) = cluster();
    let proxies = authority("front-proxy");
    let delegated = Delegated::new(client, settings(&proxies, None, "[]"));
    assert_eq!(delegated.check(None, &HeaderMap::new(), &metric()).await, Err(Denied::Unauthorized));
    let proxy = peer(&proxies, "front-proxy-client");
    let denied = delegated.check(Some(&proxy), &headers(), &metric()).await.unwrap_err();
    let Denied::Forbidden(message, _) = denied else { panic!("{denied:?}") };
    assert!(message.starts_with("s0-x.external.metrics.k8s.io is forbidden: User \"system:hpa\""), "{message}");
    assert_eq!(asked.lock().unwrap().len(), 1);
    let mut masters = headers();
    masters.append("x-remote-group", HeaderValue::from_static(MASTERS));
    assert_eq!(delegated.check(Some(&proxy), &masters, &metric()).await, Ok(()));
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_lets_nobody_in() {
    let service = tower::service_fn(|_: Request<Body>| async {
        let response = Response::builder().status(500).body(Body::from(b"down".to_vec())).unwrap();
        Ok::<_, Infallible>(response)
    });
    let proxies = authority("front-proxy");
    let delegated = Delegated::new(Client::new(service, "default"), settings(&proxies, None, "[]"));
    assert_eq!(delegated.check(None, &bearer("good"), &metric()).await, Err(Denied::Unauthorized));
    let denied = delegated.check(Some(&peer(&proxies, "proxy")), &headers(), &metric()).await;
    assert!(matches!(denied, Err(Denied::Unknown(_))), "{denied:?}");
}
