//! The rabbitmq trigger against a real broker, and against what is none.
//!
//! The broker is named by `TIDEMARK_TEST_RABBITMQ_AMQP` and `TIDEMARK_TEST_RABBITMQ_HTTP` (its management API).

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, ConnectionProperties};
use serde_json::Value;
use tidemark_trigger::{Door, ErrorKind, HttpProfile, Reading, SourceError, TriggerInput};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::source::{self, connect, door, read, service};
use crate::tls_front::TlsFront;

/// Longest wait for the broker to show something.
const PATIENCE: Duration = Duration::from_secs(30);

fn input(object: &str, metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> TriggerInput {
    TriggerInput { object: object.to_owned(), ..source::input("rabbitmq", metadata, auth) }
}

/// A queue of its own for a test, deleted and declared anew, with some messages.
async fn queue(url: &str, name: &str, messages: usize, options: QueueDeclareOptions) -> (lapin::Connection, Channel) {
    let connection = lapin::Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
    channel.queue_declare(name.into(), options, FieldTable::default()).await.unwrap();
    channel.confirm_select(Default::default()).await.unwrap();
    for _ in 0..messages {
        let publish = channel.basic_publish(
            "".into(),
            name.into(),
            BasicPublishOptions::default(),
            b"job",
            BasicProperties::default(),
        );
        publish.await.unwrap().await.unwrap();
    }
    (connection, channel)
}

/// The `host` parameter for the broker's default vhost: the environment's URL ends with a bare `/`.
fn with_user(url: &str, user_info: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let address = rest.rsplit_once('@').map_or(rest, |(_, address)| address);
    format!("{scheme}://{user_info}@{address}")
}

/// The broker's `host:port`.
fn address(url: &str) -> String {
    let rest = with_user(url, "x").split_once('@').unwrap().1.to_owned();
    rest.split('/').next().unwrap().to_owned()
}

/// What the management API answers.
async fn manage(door: &Door, http: &str, method: &str, path: &str) -> (u16, Value) {
    let url = format!("{}{path}", http.trim_end_matches('/'));
    let request = http::Request::builder().method(method).uri(url).body(Bytes::new()).unwrap();
    let reply = door.http(&HttpProfile::default(), request, Some(PATIENCE)).await.unwrap();
    (reply.status().as_u16(), serde_json::from_slice(reply.body()).unwrap_or_default())
}

/// The names by which the broker knows the connections of an object's triggers.
async fn connections(door: &Door, http: &str, object: &str) -> Vec<String> {
    let (_, all) = manage(door, http, "GET", "/api/connections").await;
    let of_object =
        |connection: &&Value| connection["client_properties"]["connection_name"] == format!("keda-it-{object}");
    let all = all.as_array().cloned().unwrap_or_default();
    all.iter().filter(of_object).map(|connection| connection["name"].as_str().unwrap().to_owned()).collect()
}

/// Asks until the broker shows so many connections of an object; its statistics lag by seconds.
async fn until_connections(door: &Door, http: &str, object: &str, number: usize) -> Vec<String> {
    let mut pause = tokio::time::interval(Duration::from_millis(200));
    let wait = async {
        loop {
            pause.tick().await;
            let found = connections(door, http, object).await;
            if found.len() == number {
                return found;
            }
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not {number} connections of {object}"))
}

fn hides(error: &SourceError, secrets: &[&str]) {
    for secret in secrets {
        assert!(!error.to_string().contains(secret), "{secret} in: {error}");
    }
}

#[tokio::test]
async fn the_length_of_a_queue_is_read() {
    let Some(amqp) = service("TIDEMARK_TEST_RABBITMQ_AMQP") else { return };
    let _queue = queue(&with_vhost(&amqp), "tidemark-length", 3, QueueDeclareOptions::default()).await;
    let door = door();
    let metadata = [("host", amqp.as_str()), ("vhostName", "/"), ("queueName", "tidemark-length")];
    assert_eq!(read(&door, &input("length", &metadata, &[])).await, Ok(Reading { value: 3.0, active: true }));
    let threshold = [&metadata[..], &[("activationValue", "3")]].concat();
    assert_eq!(read(&door, &input("length", &threshold, &[])).await, Ok(Reading { value: 3.0, active: false }));
}

/// lapin takes a bare `/` for the vhost of the empty name.
fn with_vhost(amqp: &str) -> String {
    format!("{}/%2f", amqp.trim_end_matches('/'))
}

#[tokio::test]
async fn a_refused_login_is_an_authentication_error_that_shows_no_credentials() {
    let Some(amqp) = service("TIDEMARK_TEST_RABBITMQ_AMQP") else { return };
    let host = with_user(&amqp, "mallory:hunter2");
    let error = read(&door(), &input("login", &[("host", &host), ("queueName", "q")], &[])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Authentication, "{error}");
    assert!(error.message.contains(&address(&amqp)), "{error}");
    hides(&error, &["mallory", "hunter2"]);

    let given =
        input("login", &[("host", &amqp), ("queueName", "q")], &[("username", "mallory"), ("password", "hunter2")]);
    let error = read(&door(), &given).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Authentication, "{error}");
}

#[tokio::test]
async fn a_missing_queue_is_named_and_does_not_disturb_the_others() {
    let (Some(amqp), Some(http)) = (service("TIDEMARK_TEST_RABBITMQ_AMQP"), service("TIDEMARK_TEST_RABBITMQ_HTTP"))
    else {
        return;
    };
    let _queue = queue(&with_vhost(&amqp), "tidemark-present", 1, QueueDeclareOptions::default()).await;
    let door = door();
    let present = [("host", amqp.as_str()), ("queueName", "tidemark-present")];
    let present = connect(&door, &input("missing", &present, &[])).await.unwrap();
    present.read(&door).await.unwrap();
    let before = until_connections(&door, &http, "missing", 1).await;

    let missing = [("host", amqp.as_str()), ("queueName", "tidemark-absent")];
    let missing = connect(&door, &input("missing", &missing, &[])).await.unwrap();
    for _ in 0..40 {
        let error = missing.read(&door).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::MissingResource, "{error}");
        let expected = format!("there is no queue `tidemark-absent` in the vhost `/` of {}", address(&amqp));
        assert_eq!(error.message, expected);
        assert_eq!(present.read(&door).await.unwrap()[0].value, 1.0);
    }
    assert_eq!(until_connections(&door, &http, "missing", 1).await, before);
}

#[tokio::test]
async fn a_missing_vhost_is_a_missing_resource() {
    let Some(amqp) = service("TIDEMARK_TEST_RABBITMQ_AMQP") else { return };
    let metadata = [("host", amqp.as_str()), ("vhostName", "tidemark-absent"), ("queueName", "q")];
    let error = read(&door(), &input("vhost", &metadata, &[])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::MissingResource, "{error}");
    assert_eq!(error.message, format!("{} has no vhost `tidemark-absent`", address(&amqp)));
}

#[tokio::test]
async fn an_exclusive_queue_of_another_is_refused() {
    let Some(amqp) = service("TIDEMARK_TEST_RABBITMQ_AMQP") else { return };
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let _queue = queue(&with_vhost(&amqp), "tidemark-exclusive", 0, options).await;
    let metadata = [("host", amqp.as_str()), ("queueName", "tidemark-exclusive")];
    let error = read(&door(), &input("exclusive", &metadata, &[])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
}

#[tokio::test]
async fn a_connection_that_the_broker_kills_is_replaced_by_the_next_read() {
    let (Some(amqp), Some(http)) = (service("TIDEMARK_TEST_RABBITMQ_AMQP"), service("TIDEMARK_TEST_RABBITMQ_HTTP"))
    else {
        return;
    };
    let _queue = queue(&with_vhost(&amqp), "tidemark-killed", 2, QueueDeclareOptions::default()).await;
    let door = door();
    let metadata = [("host", amqp.as_str()), ("queueName", "tidemark-killed")];
    let connection = connect(&door, &input("killed", &metadata, &[])).await.unwrap();
    let sharer = connect(&door, &input("killed", &metadata, &[])).await.unwrap();
    assert_eq!(connection.read(&door).await.unwrap()[0].value, 2.0);

    let name = until_connections(&door, &http, "killed", 1).await.remove(0);
    let path = format!("/api/connections/{}", name.replace(' ', "%20").replace('>', "%3E"));
    assert_eq!(manage(&door, &http, "DELETE", &path).await.0, 204);
    // The close may cross the first read; from the second on everything works again.
    let _ = connection.read(&door).await;
    assert_eq!(connection.read(&door).await.unwrap()[0].value, 2.0);
    assert_eq!(sharer.read(&door).await.unwrap()[0].value, 2.0);
    assert_ne!(until_connections(&door, &http, "killed", 1).await, [name]);
}

#[tokio::test]
async fn triggers_with_the_same_broker_and_login_share_one_connection() {
    let (Some(amqp), Some(http)) = (service("TIDEMARK_TEST_RABBITMQ_AMQP"), service("TIDEMARK_TEST_RABBITMQ_HTTP"))
    else {
        return;
    };
    let _one = queue(&with_vhost(&amqp), "tidemark-shared-1", 1, QueueDeclareOptions::default()).await;
    let _two = queue(&with_vhost(&amqp), "tidemark-shared-2", 2, QueueDeclareOptions::default()).await;
    let door = door();
    let one = input("shared", &[("host", &amqp), ("queueName", "tidemark-shared-1")], &[]);
    let two = input("shared", &[("host", &amqp), ("queueName", "tidemark-shared-2")], &[]);
    let (one, two) = tokio::join!(connect(&door, &one), connect(&door, &two));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.read(&door).await.unwrap()[0].value, 1.0);
    assert_eq!(two.read(&door).await.unwrap()[0].value, 2.0);
    until_connections(&door, &http, "shared", 1).await;

    drop(one);
    assert_eq!(two.read(&door).await.unwrap()[0].value, 2.0);
    drop(two);
    until_connections(&door, &http, "shared", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reads_at_a_time_go_through_a_few_channels_of_one_connection() {
    let (Some(amqp), Some(http)) = (service("TIDEMARK_TEST_RABBITMQ_AMQP"), service("TIDEMARK_TEST_RABBITMQ_HTTP"))
    else {
        return;
    };
    let _queue = queue(&with_vhost(&amqp), "tidemark-hundred", 5, QueueDeclareOptions::default()).await;
    let door = door();
    let metadata = [("host", amqp.as_str()), ("queueName", "tidemark-hundred")];
    let input = input("hundred", &metadata, &[]);
    let connections = join_all((0..100).map(|_| connect(&door, &input))).await;
    for _ in 0..3 {
        let reads = join_all(connections.iter().map(|connection| connection.as_ref().unwrap().read(&door))).await;
        assert!(reads.iter().all(|read| read.as_ref().unwrap()[0].value == 5.0));
    }
    let name = until_connections(&door, &http, "hundred", 1).await.remove(0);
    let path = format!("/api/connections/{}", name.replace(' ', "%20").replace('>', "%3E"));
    let mut pause = tokio::time::interval(Duration::from_millis(200));
    let counted = async {
        loop {
            pause.tick().await;
            // The statistics know the connection before its channels.
            if let Some(channels @ 1..) = manage(&door, &http, "GET", &path).await.1["channels"].as_i64() {
                return channels;
            }
        }
    };
    let channels = timeout(PATIENCE, counted).await.unwrap();
    assert!(channels <= 16, "{channels}");
}

#[tokio::test]
async fn a_read_that_is_given_up_leaves_the_connection_usable() {
    let Some(amqp) = service("TIDEMARK_TEST_RABBITMQ_AMQP") else { return };
    let _queue = queue(&with_vhost(&amqp), "tidemark-given-up", 4, QueueDeclareOptions::default()).await;
    let door = door();
    let metadata = [("host", amqp.as_str()), ("queueName", "tidemark-given-up")];
    let connection = connect(&door, &input("given-up", &metadata, &[])).await.unwrap();
    for polls in 0..50_u32 {
        // Polled a few times and dropped wherever it then stands.
        let mut read = connection.read(&door);
        for _ in 0..polls % 10 {
            if futures::poll!(read.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(connection.read(&door).await.unwrap()[0].value, 4.0);
}

#[tokio::test]
async fn the_management_api_gives_lengths_by_name_and_by_regular_expression() {
    let (Some(amqp), Some(http)) = (service("TIDEMARK_TEST_RABBITMQ_AMQP"), service("TIDEMARK_TEST_RABBITMQ_HTTP"))
    else {
        return;
    };
    let _one = queue(&with_vhost(&amqp), "tidemark http/1", 3, QueueDeclareOptions::default()).await;
    let _two = queue(&with_vhost(&amqp), "tidemark http/2", 5, QueueDeclareOptions::default()).await;
    let door = door();
    let value = async |metadata: &[(&str, &str)]| {
        let metadata = [metadata, &[("host", http.as_str())]].concat();
        let (mut pause, input) = (tokio::time::interval(Duration::from_millis(200)), input("http", &metadata, &[]));
        let wait = async {
            loop {
                pause.tick().await;
                // The statistics lag behind the queue.
                let reading = read(&door, &input).await.unwrap();
                if reading.value > 2.0 {
                    return reading.value;
                }
            }
        };
        timeout(PATIENCE, wait).await.unwrap()
    };
    assert_eq!(value(&[("queueName", "tidemark http/1")]).await, 3.0);
    assert_eq!(value(&[("queueName", "tidemark http/2"), ("excludeUnacknowledged", "true")]).await, 5.0);
    let regex = [("queueName", "^tidemark http/[12]$"), ("useRegex", "true"), ("vhostName", "/")];
    assert_eq!(value(&regex).await, 8.0);
    assert_eq!(value(&[&regex[..], &[("operation", "max")]].concat()).await, 5.0);

    let error = read(&door, &input("http", &[("host", &http), ("queueName", "absent")], &[])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::MissingResource, "{error}");
    let host = with_user(&http, "mallory:hunter2");
    let error = read(&door, &input("http", &[("host", &host), ("queueName", "absent")], &[])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Authentication, "{error}");
    hides(&error, &["mallory", "hunter2"]);
    let many = [&regex[..], &[("pageSize", "1"), ("host", &http)]].concat();
    let error = read(&door, &input("http", &many, &[])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Configuration, "{error}");
}

#[tokio::test]
async fn a_wrong_port_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let host = format!("amqp://john:hunter2@{address}/v");
    let error = read(&door(), &input("port", &[("host", &host), ("queueName", "q")], &[])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert_eq!(error.message, format!("cannot connect to {address}: connection refused"));
}

/// A server that sends something, and waits until the client is gone.
async fn server(greeting: &'static [u8]) -> (String, tokio::task::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(greeting).await.unwrap();
        socket.read_to_end(&mut Vec::new()).await.unwrap_or_default()
    });
    (address, task)
}

#[tokio::test]
async fn a_server_that_says_nothing_times_out_and_keeps_nothing_open() {
    let (address, gone) = server(b"").await;
    let host = format!("amqp://john:hunter2@{address}/?connection_timeout=300");
    let error = read(&door(), &input("silent", &[("host", &host), ("queueName", "q")], &[])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut);
    assert_eq!(error.message, format!("no AMQP connection to {address} within 300ms"));
    // The protocol header, and then the end: the socket was closed.
    assert_eq!(timeout(PATIENCE, gone).await.unwrap().unwrap(), 8);
    threads_end().await;
}

#[tokio::test]
async fn giving_up_a_connection_attempt_leaves_no_thread_behind() {
    let (address, gone) = server(b"").await;
    let input = input("given-up", &[("host", &format!("amqp://{address}")), ("queueName", "q")], &[]);
    assert!(timeout(Duration::from_millis(300), connect(&door(), &input)).await.is_err());
    assert_eq!(timeout(PATIENCE, gone).await.unwrap().unwrap(), 8);
    threads_end().await;
}

/// Waits until no thread of the AMQP library is in a handshake. Those of the other tests' connections come and go too.
async fn threads_end() {
    #[cfg(target_os = "linux")]
    {
        let count = || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap();
            let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
            names.filter(|name| name.starts_with("lapin-io-loop")).count()
        };
        let mut pause = tokio::time::interval(Duration::from_millis(50));
        let wait = async {
            while count() > 0 {
                pause.tick().await;
            }
        };
        timeout(PATIENCE, wait).await.expect("threads of the AMQP library are left");
    }
}

#[tokio::test]
async fn what_is_no_amqp_server_is_a_bad_reply() {
    let (address, gone) = server(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
    let input = input("other", &[("host", &format!("amqp://{address}")), ("queueName", "q")], &[]);
    let error = read(&door(), &input).await.unwrap_err();
    assert_eq!((error.kind, error.message), (ErrorKind::BadReply, format!("{address} does not speak AMQP 0-9-1")));
    assert_eq!(timeout(PATIENCE, gone).await.unwrap().unwrap(), 8);
}

#[tokio::test]
async fn a_server_that_hangs_up_during_the_login_refuses_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.read_exact(&mut [0; 8]).await.unwrap();
    });
    let input = input("hang-up", &[("host", &format!("amqp://{address}")), ("queueName", "q")], &[]);
    let error = read(&door(), &input).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Authentication, "{error}");
    server.await.unwrap();
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let front = TlsFront::new("broker.test", None, false).await;
    let host = format!("amqps://john:hunter2@{}/?server_name_indication=broker.test", front.address());
    let error = read(&door(), &input("tls", &[("host", &host), ("queueName", "q")], &[])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert!(error.message.starts_with(&format!("the certificate of {} is not accepted", front.address())), "{error}");
    hides(&error, &["john", "hunter2"]);
}

#[tokio::test]
async fn tls_towards_a_plain_listener_is_a_bad_reply() {
    let (address, _gone) = server(b"AMQP\x00\x00\x09\x01").await;
    let input = input("tls", &[("host", &format!("amqps://{address}")), ("queueName", "q")], &[]);
    let error = read(&door(), &input).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadReply, "{error}");
}

#[tokio::test]
async fn amqps_works_with_the_ca_or_with_unsafe_ssl() {
    let Some(amqp) = service("TIDEMARK_TEST_RABBITMQ_AMQP") else { return };
    let _queue = queue(&with_vhost(&amqp), "tidemark-tls", 6, QueueDeclareOptions::default()).await;
    let front = TlsFront::new("broker.test", Some(&address(&amqp)), false).await;
    let user_info = amqp.split_once("://").unwrap().1.rsplit_once('@').unwrap().0;
    let host = format!("amqps://{user_info}@{}", front.address());
    let named = format!("{host}/?server_name_indication=broker.test");
    let with_ca =
        input("tls", &[("host", &named), ("queueName", "tidemark-tls")], &[("tls", "enable"), ("ca", &front.ca)]);
    assert_eq!(read(&door(), &with_ca).await.unwrap().value, 6.0);
    let unchecked = [("host", host.as_str()), ("queueName", "tidemark-tls"), ("unsafeSsl", "true")];
    assert_eq!(read(&door(), &input("tls", &unchecked, &[])).await.unwrap().value, 6.0);
    // The name in the certificate is not that of the host.
    let wrong_name =
        input("tls", &[("host", &host), ("queueName", "tidemark-tls")], &[("tls", "enable"), ("ca", &front.ca)]);
    assert_eq!(read(&door(), &wrong_name).await.unwrap_err().kind, ErrorKind::Refused);
}

#[tokio::test]
async fn a_broker_that_wants_a_client_certificate_gets_the_triggers() {
    let front = TlsFront::new("broker.test", None, true).await;
    let host = format!("amqps://john:hunter2@{}/?server_name_indication=broker.test", front.address());
    let metadata = [("host", host.as_str()), ("queueName", "q")];
    let without = input("cert", &metadata, &[("tls", "enable"), ("ca", &front.ca)]);
    let error = read(&door(), &without).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Authentication, "{error}");
    assert!(error.message.contains("refused the TLS connection: CertificateRequired"), "{error}");

    let Some(amqp) = service("TIDEMARK_TEST_RABBITMQ_AMQP") else { return };
    let _queue = queue(&with_vhost(&amqp), "tidemark-cert", 7, QueueDeclareOptions::default()).await;
    let front = TlsFront::new("broker.test", Some(&address(&amqp)), true).await;
    let user_info = amqp.split_once("://").unwrap().1.rsplit_once('@').unwrap().0;
    let host = format!("amqps://{user_info}@{}/?server_name_indication=broker.test", front.address());
    let metadata = [("host", host.as_str()), ("queueName", "tidemark-cert")];
    let auth = [("tls", "enable"), ("ca", &*front.ca), ("cert", &*front.client_cert), ("key", &*front.client_key)];
    assert_eq!(read(&door(), &input("cert", &metadata, &auth)).await.unwrap().value, 7.0);

    // Without a password the certificate is the login (SASL EXTERNAL), which a broker without that plugin refuses.
    let host = format!("amqps://{}/?server_name_indication=broker.test", front.address());
    let error = read(&door(), &input("cert", &[("host", &host), ("queueName", "q")], &auth)).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Authentication | ErrorKind::Refused), "{error}");
}
