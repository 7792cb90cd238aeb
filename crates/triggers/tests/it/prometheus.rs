//! The prometheus trigger against a real server, and against what is none.
//!
//! The server is named by `TIDEMARK_TEST_PROMETHEUS`; one that wants a login, which is in its URL, by
//! `TIDEMARK_TEST_PROMETHEUS_LOGIN`.

use std::sync::Arc;

use tidemark_trigger::{ErrorKind, Reading, SourceError, TriggerInput};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::source::{self, connect, door, service};
use crate::tls_front::TlsFront;

fn input(server: &str, query: &str, metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> TriggerInput {
    let own = [("serverAddress", server), ("query", query), ("threshold", "10")];
    source::input("prometheus", &[&own, metadata].concat(), auth)
}

async fn read(input: &TriggerInput) -> Result<Reading, SourceError> {
    source::read(&door(), input).await
}

/// The `host:port` of a URL.
fn address(url: &str) -> &str {
    let rest = url.split_once("://").unwrap().1;
    rest.rsplit_once('@').map_or(rest, |(_, address)| address).trim_end_matches('/')
}

#[tokio::test]
async fn vectors_and_scalars_are_read() {
    let Some(server) = service("TIDEMARK_TEST_PROMETHEUS") else { return };
    for (query, value) in [
        ("vector(42)", 42.0),
        ("42.5", 42.5),
        ("sum(up{job=\"prometheus\"})", 1.0),
        ("-1 * vector(3)", -3.0),
        ("prometheus_build_info * 0 + 7", 7.0),
    ] {
        let reading = read(&input(&server, query, &[], &[])).await;
        assert_eq!(reading, Ok(Reading { value, active: value > 0.0 }), "{query}");
    }
    // Time is the present.
    let age = read(&input(&server, "abs(time() - max(timestamp(up)))", &[], &[])).await.unwrap().value;
    assert!(age < 60.0, "{age}");
}

#[tokio::test]
async fn the_trigger_is_active_above_the_activation_threshold() {
    let Some(server) = service("TIDEMARK_TEST_PROMETHEUS") else { return };
    for (threshold, active) in [("41.9", true), ("42", false)] {
        let given = input(&server, "vector(42)", &[("activationThreshold", threshold)], &[]);
        assert_eq!(read(&given).await, Ok(Reading { value: 42.0, active }));
    }
}

#[tokio::test]
async fn a_series_that_is_not_there_is_zero_or_missing_as_the_user_wants() {
    let Some(server) = service("TIDEMARK_TEST_PROMETHEUS") else { return };
    let ignored = read(&input(&server, "tidemark_absent", &[], &[])).await;
    assert_eq!(ignored, Ok(Reading { value: 0.0, active: false }));
    let strict = [("ignoreNullValues", "false")];
    let error = read(&input(&server, "tidemark_absent", &strict, &[])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::MissingResource, "{error}");
    let at = format!("http://{}/api/v1/query", address(&server));
    assert_eq!(
        error.message,
        format!("query `tidemark_absent` to {at}: it yields nothing, and ignoreNullValues is false")
    );
    for query in ["vector(1) / 0", "vector(0) / 0"] {
        assert_eq!(read(&input(&server, query, &[], &[])).await.unwrap().value, 0.0, "{query}");
        let error = read(&input(&server, query, &strict, &[])).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadReply, "{error}");
    }
}

#[tokio::test]
async fn a_query_that_yields_no_single_number_is_an_error() {
    let Some(server) = service("TIDEMARK_TEST_PROMETHEUS") else { return };
    let many = read(&input(&server, "prometheus_http_requests_total or up", &[], &[])).await.unwrap_err();
    assert_eq!(many.kind, ErrorKind::BadReply, "{many}");
    assert!(many.message.ends_with("aggregate them in the query"), "{many}");
    let text = read(&input(&server, "\"many\"", &[], &[])).await.unwrap_err();
    assert_eq!(text.kind, ErrorKind::BadReply, "{text}");
    let strict = [("ignoreNullValues", "false")];
    assert_eq!(read(&input(&server, "up[1m]", &strict, &[])).await.unwrap_err().kind, ErrorKind::MissingResource);
}

#[tokio::test]
async fn a_wrong_query_is_refused_with_the_servers_words() {
    let Some(server) = service("TIDEMARK_TEST_PROMETHEUS") else { return };
    let error = read(&input(&server, "sum(up", &[], &[])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert!(error.message.contains("status: 400 (bad_data: ") && error.message.contains("parse error"), "{error}");
}

#[tokio::test]
async fn a_server_that_gives_up_a_query_times_out() {
    let Some(server) = service("TIDEMARK_TEST_PROMETHEUS") else { return };
    let given = input(&server, "up", &[("queryParameters", "timeout=0s")], &[]);
    let error = read(&given).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut, "{error}");
    assert!(error.message.contains("status: 503 (timeout: "), "{error}");
}

#[tokio::test]
async fn a_path_without_the_api_is_a_missing_resource() {
    let Some(server) = service("TIDEMARK_TEST_PROMETHEUS") else { return };
    let error = read(&input(&format!("{server}/absent"), "up", &[], &[])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::MissingResource, "{error}");
    assert!(error.message.contains(&format!("http://{}/absent/api/v1/query", address(&server))), "{error}");
}

#[tokio::test]
async fn a_login_is_let_in_and_a_wrong_one_is_an_authentication_error() {
    let Some(server) = service("TIDEMARK_TEST_PROMETHEUS_LOGIN") else { return };
    let plain = format!("http://{}", address(&server));
    let right = [("username", "tidemark"), ("password", "s3cret")];
    let basic = [("authModes", "basic")];
    assert_eq!(read(&input(&server, "vector(1)", &[], &[])).await.unwrap().value, 1.0);
    assert_eq!(read(&input(&plain, "vector(2)", &basic, &right)).await.unwrap().value, 2.0);
    // "tidemark:s3cret" in base64.
    let custom = [("customAuthHeader", "Authorization"), ("customAuthValue", "Basic dGlkZW1hcms6czNjcmV0")];
    assert_eq!(read(&input(&plain, "vector(3)", &[("authModes", "custom")], &custom)).await.unwrap().value, 3.0);

    let wrong = [("username", "mallory"), ("password", "hunter2"), ("bearerToken", "hunter2")];
    for mode in ["basic", "bearer", ""] {
        let error = read(&input(&plain, "vector(1)", &[("authModes", mode)], &wrong)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Authentication, "{error}");
        let asked = format!("query `vector(1)` to {plain}/api/v1/query: ");
        assert_eq!(error.message, format!("{asked}prometheus query api returned error. status: 401"));
    }
}

#[tokio::test]
async fn mode_oauth_sends_the_token_of_the_token_server() {
    let Some(server) = service("TIDEMARK_TEST_PROMETHEUS") else { return };
    let reply = "{\"access_token\":\"abc\",\"token_type\":\"bearer\",\"expires_in\":3600}";
    let (token_server, asked) = answering(reply).await;
    let (front, seen) = front(&server, None).await;
    let token_url = format!("http://{token_server}/token");
    let auth = [("oauthTokenURI", token_url.as_str()), ("clientID", "id"), ("clientSecret", "hunter2")];
    let door = door();
    let given = input(&format!("http://{front}"), "vector(4)", &[("authModes", "oauth")], &auth);
    let connection = connect(&door, &given).await.unwrap();
    for _ in 0..2 {
        assert_eq!(connection.read(&door).await.unwrap()[0].value, 4.0);
    }
    assert!(asked.await.unwrap().contains("grant_type=client_credentials"));
    let heads = seen.stop().await;
    assert!(heads.contains("authorization: Bearer abc"), "{heads}");
}

/// A server that answers one request, and gives what it saw.
async fn answering(body: &'static str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut seen = String::new();
        while !seen.contains("grant_type") {
            let mut buffer = [0; 4096];
            let read = socket.read(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length:";
        socket.write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
        seen
    });
    (address, task)
}

/// A listener before a server, that can be stopped.
struct Front {
    stop: tokio::sync::oneshot::Sender<()>,
    task: JoinHandle<String>,
}

impl Front {
    /// Closes the listener and all connections; gives what the first connection's client sent.
    async fn stop(self) -> String {
        self.stop.send(()).unwrap();
        self.task.await.unwrap()
    }
}

/// Passes connections on to a server; at a given port, or at any.
async fn front(server: &str, at: Option<&str>) -> (String, Front) {
    let listener = TcpListener::bind(at.unwrap_or("127.0.0.1:0")).await.unwrap();
    let (address, behind) = (listener.local_addr().unwrap().to_string(), self::address(server).to_owned());
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let seen = Arc::new(std::sync::Mutex::new(String::new()));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                accepted = listener.accept() => {
                    let server = TcpStream::connect(&behind).await.unwrap();
                    connections.spawn(pass_on(accepted.unwrap().0, server, Arc::clone(&seen)));
                }
            }
        }
        connections.shutdown().await;
        let seen = seen.lock().unwrap();
        seen.clone()
    });
    (address, Front { stop, task })
}

async fn pass_on(client: TcpStream, server: TcpStream, seen: Arc<std::sync::Mutex<String>>) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            seen.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
            if to_server.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
    };
    let _ = tokio::join!(up, tokio::io::copy(&mut from_server, &mut to_client));
}

#[tokio::test]
async fn a_server_that_goes_is_unreachable_and_read_again_when_it_is_back() {
    let Some(server) = service("TIDEMARK_TEST_PROMETHEUS") else { return };
    let (at, running) = front(&server, None).await;
    let door = door();
    let connection = connect(&door, &input(&format!("http://{at}"), "vector(5)", &[], &[])).await.unwrap();
    assert_eq!(connection.read(&door).await.unwrap()[0].value, 5.0);
    running.stop().await;
    for _ in 0..2 {
        let error = connection.read(&door).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
        assert!(error.message.starts_with(&format!("query `vector(5)` to http://{at}/api/v1/query: ")), "{error}");
    }
    let (_, running) = front(&server, Some(&at)).await;
    assert_eq!(connection.read(&door).await.unwrap()[0].value, 5.0);
    running.stop().await;
}

#[tokio::test]
async fn a_server_that_says_nothing_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://john:hunter2@{}", listener.local_addr().unwrap());
    let error = read(&input(&server, "up", &[("timeout", "200ms")], &[])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut, "{error}");
    assert!(error.message.ends_with("no reply within 200ms"), "{error}");
    assert!(!error.message.contains("john") && !error.message.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn https_works_with_the_ca_or_with_unsafe_ssl_and_not_without() {
    let Some(server) = service("TIDEMARK_TEST_PROMETHEUS") else { return };
    let front = TlsFront::new("127.0.0.1", Some(address(&server)), false).await;
    let url = format!("https://{}", front.address());
    let value = async |metadata: &[(&str, &str)], auth: &[(&str, &str)]| {
        read(&input(&url, "vector(6)", metadata, auth)).await.map(|reading| reading.value)
    };
    assert_eq!(value(&[], &[("ca", &front.ca)]).await, Ok(6.0));
    assert_eq!(value(&[("unsafeSsl", "true")], &[]).await, Ok(6.0));
    let error = value(&[], &[]).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Refused), "{error}");
    let not_pem = value(&[("authModes", "bearer")], &[("ca", "hunter2"), ("token", "t")]).await.unwrap_err();
    assert_eq!(not_pem.kind, ErrorKind::Configuration, "{not_pem}");
    assert!(!not_pem.message.contains("hunter2"), "{not_pem}");
}

#[tokio::test]
async fn mode_tls_shows_the_client_certificate() {
    let Some(server) = service("TIDEMARK_TEST_PROMETHEUS") else { return };
    let front = TlsFront::new("127.0.0.1", Some(address(&server)), true).await;
    let url = format!("https://{}", front.address());
    let auth = [("ca", &*front.ca), ("cert", &*front.client_cert), ("key", &*front.client_key)];
    let with = read(&input(&url, "vector(7)", &[("authModes", "tls")], &auth)).await;
    assert_eq!(with.map(|reading| reading.value), Ok(7.0));
    assert!(read(&input(&url, "vector(7)", &[], &auth[..1])).await.is_err());
}
