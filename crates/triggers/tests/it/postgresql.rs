//! The postgresql trigger against a real server, and against what is none.
//!
//! The server is named by `TIDEMARK_TEST_POSTGRESQL`, whose user may create roles.

use std::time::Duration;

use futures::future::join_all;
use tidemark_trigger::{ErrorKind, Reading, Secret, SourceError, TriggerInput};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::source::{self, connect, door, read, service};
use crate::tls_front::Authority;

/// Longest wait for the server to show something.
const PATIENCE: Duration = Duration::from_secs(30);

/// The URL of the server, or a visible skip.
fn server() -> Option<String> {
    service("TIDEMARK_TEST_POSTGRESQL")
}

fn input(connection: &str, query: &str, more: &[(&str, &str)]) -> TriggerInput {
    let metadata = [&[("query", query), ("targetQueryValue", "5")], more].concat();
    source::input("postgresql", &metadata, &[("connection", connection)])
}

async fn failure(connection: &str, query: &str) -> SourceError {
    match read(&door(), &input(connection, query, &[])).await {
        Err(error) => {
            for secret in ["mallory", "hunter2", "secret"] {
                assert!(!error.to_string().contains(secret), "{secret} in: {error}");
            }
            error
        }
        Ok(reading) => panic!("{query}: {reading:?}"),
    }
}

/// Runs a statement that gives no number.
async fn run(url: &str, statement: &str) {
    let error = failure(url, statement).await;
    assert!(error.message.ends_with("gave no row"), "{statement}: {error}");
}

/// The server's `host:port`.
fn address(url: &str) -> String {
    url.rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned()
}

/// The URL with another login, address and options.
fn url(user_info: &str, address: &str, options: &str) -> String {
    format!("postgres://{user_info}@{address}/tidemark?{options}")
}

#[tokio::test]
async fn the_number_of_the_first_row_is_read_whatever_its_type() {
    let Some(url) = server() else { return };
    let door = door();
    for (query, value) in [
        ("SELECT 7", 7.0),
        ("SELECT 7::bigint;", 7.0),
        ("SELECT 2.5::numeric(10,4)", 2.5),
        ("SELECT 0.1::float8", 0.1),
        ("SELECT '12.5'", 12.5),
        ("SELECT -3", -3.0),
        ("SELECT count(*) FROM generate_series(1, 12)", 12.0),
        ("SELECT n FROM generate_series(9, 100000) AS n", 9.0),
        ("WITH jobs AS (SELECT 4 AS n) SELECT n FROM jobs", 4.0),
        ("SELECT 'Infinity'::float8", f64::INFINITY),
    ] {
        let reading = read(&door, &input(&url, query, &[])).await.unwrap_or_else(|error| panic!("{query}: {error}"));
        assert_eq!(reading, Reading { value, active: value > 0.0 }, "{query}");
    }
    let reading = read(&door, &input(&url, "SELECT 'NaN'::float8", &[])).await.unwrap();
    assert!(reading.value.is_nan() && !reading.active);
    let threshold = input(&url, "SELECT 7", &[("activationTargetQueryValue", "7")]);
    assert_eq!(read(&door, &threshold).await, Ok(Reading { value: 7.0, active: false }));
}

#[tokio::test]
async fn what_gives_no_single_number_is_a_bad_reply() {
    let Some(url) = server() else { return };
    for (query, cause) in [
        ("SELECT 1 WHERE false", "gave no row"),
        ("SELECT NULL::int", "gave NULL"),
        ("SELECT 1, 2", "gave 2 columns in place of one"),
        ("SELECT true", "gave a value that is no number"),
        ("SELECT now()", "gave a value that is no number"),
        ("SELECT 'abc'", "gave a value that is no number"),
        ("SELECT 1e400::numeric", "gave a number that is too large"),
        ("SELECT repeat('7', 2000000)", "gave a row larger than 1 MiB"),
        ("COPY (SELECT 1) TO STDOUT", "is a COPY, which gives no number"),
    ] {
        let error = failure(&url, query).await;
        assert_eq!(error.kind, ErrorKind::BadReply, "{error}");
        let expected = format!("the query on the database `tidemark` of {} {cause}", address(&url));
        assert_eq!(error.message, expected, "{query}");
    }
}

#[tokio::test]
async fn a_query_that_the_server_refuses_says_why_in_kind_and_message() {
    let Some(url) = server() else { return };
    for (query, kind, text) in [
        ("SELECT n FROM absent", ErrorKind::MissingResource, "relation \"absent\" does not exist"),
        ("SELECT absent", ErrorKind::MissingResource, "column \"absent\" does not exist"),
        ("SELECT absent()", ErrorKind::MissingResource, "absent() does not exist"),
        ("SELEC 1", ErrorKind::Configuration, "syntax error"),
        ("SELECT 1; SELECT 2", ErrorKind::Configuration, "cannot insert multiple commands"),
        ("SELECT $1::int", ErrorKind::Configuration, "does it have parameters"),
        ("SELECT 1/0", ErrorKind::Refused, "`22012`"),
        ("SELECT 'hunter2'::int FROM (SELECT 1) AS one", ErrorKind::Refused, "`22P02`"),
    ] {
        let error = failure(&url, query).await;
        assert_eq!(error.kind, kind, "{query}: {error}");
        assert!(error.message.contains(text), "{query}: {error}");
        assert!(error.message.contains(&address(&url)), "{error}");
    }
    let limited = format!("{url}?statement_timeout=100");
    assert_eq!(failure(&limited, "SELECT pg_sleep(20)").await.kind, ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_refused_login_is_an_authentication_error_that_shows_no_credentials() {
    let Some(server) = server() else { return };
    let address = address(&server);
    let error = failure(&url("tidemark:hunter2", &address, ""), "SELECT 1").await;
    assert_eq!(error.kind, ErrorKind::Authentication, "{error}");
    assert_eq!(error.message, format!("{address} refused the login: wrong user or password"));
    for login in ["mallory:hunter2", "tidemark"] {
        let error = failure(&url(login, &address, "sslmode=disable"), "SELECT 1").await;
        assert_eq!(error.kind, ErrorKind::Authentication, "{error}");
    }
}

#[tokio::test]
async fn a_missing_database_is_a_missing_resource() {
    let Some(server) = server() else { return };
    let missing = format!("{}/absent", server.rsplit_once('/').unwrap().0);
    let error = failure(&missing, "SELECT 1").await;
    assert_eq!(error.kind, ErrorKind::MissingResource, "{error}");
    assert_eq!(error.message, format!("{} has no database `absent`", address(&server)));
}

#[tokio::test]
async fn an_unknown_parameter_of_the_session_is_a_configuration_error() {
    let Some(server) = server() else { return };
    let error = failure(&format!("{server}?no_such_parameter=1"), "SELECT 1").await;
    assert_eq!(error.kind, ErrorKind::Configuration, "{error}");
    let door = door();
    let known = input(&format!("{server}?search_path=nowhere"), "SELECT length(current_setting('search_path'))", &[]);
    assert_eq!(read(&door, &known).await.unwrap().value, 7.0);
}

#[tokio::test]
async fn every_way_to_prove_a_password_works() {
    let Some(server) = server() else { return };
    run(&server, "DROP ROLE IF EXISTS tidemark_md5").await;
    run(&server, "DROP ROLE IF EXISTS tidemark_plain").await;
    run(&server, "DROP ROLE IF EXISTS tidemark_unicode").await;
    // The hash that `password_encryption = md5` would make of the password `secret`.
    let hash = "SELECT length('md5' || md5('secret' || 'tidemark_md5'))";
    assert_eq!(read(&door(), &input(&server, hash, &[])).await.unwrap().value, 35.0);
    run(&server, "CREATE ROLE tidemark_plain LOGIN PASSWORD 'secret'").await;
    // The server keeps the password in its composed form, a client may type it in another.
    run(&server, "CREATE ROLE tidemark_unicode LOGIN PASSWORD U&'caf\\00e9'").await;
    run(
        &server,
        "DO $$ BEGIN SET LOCAL password_encryption = 'md5'; CREATE ROLE tidemark_md5 LOGIN PASSWORD 'secret'; END $$",
    )
    .await;
    for login in ["tidemark_md5:secret", "tidemark_plain:secret", "tidemark_unicode:cafe%CC%81"] {
        let connection = url(login, &address(&server), "sslmode=disable");
        let reading = read(&door(), &input(&connection, "SELECT 3", &[])).await;
        assert_eq!(reading.unwrap_or_else(|error| panic!("{login}: {error}")).value, 3.0);
    }
    for login in ["tidemark_md5:hunter2", "tidemark_plain:hunter2"] {
        let error = failure(&url(login, &address(&server), ""), "SELECT 3").await;
        assert_eq!(error.kind, ErrorKind::Authentication, "{login}: {error}");
    }
    let error = failure(&url("tidemark_md5:secret", &address(&server), ""), "SELECT 1 FROM pg_authid").await;
    assert_eq!(error.kind, ErrorKind::Authentication, "{error}");
    assert!(error.message.contains("permission denied"), "{error}");
}

#[tokio::test]
async fn the_parts_make_the_same_connection() {
    let Some(server) = server() else { return };
    let address = address(&server);
    let (host, port) = address.split_once(':').unwrap();
    let parts =
        [("host", host), ("port", port), ("userName", "tidemark"), ("dbName", "tidemark"), ("sslmode", "prefer")];
    let mut input = input("", "SELECT 8", &parts);
    input.auth = [("password".to_owned(), Secret::from("secret"))].into();
    assert_eq!(read(&door(), &input).await.unwrap().value, 8.0);
}

#[tokio::test]
async fn a_session_that_the_server_ends_is_replaced_by_the_next_read() {
    let Some(server) = server() else { return };
    let named = format!("{server}?application_name=tidemark-ended");
    let door = door();
    let connection = connect(&door, &input(&named, "SELECT pg_backend_pid()", &[])).await.unwrap();
    let first = connection.read(&door).await.unwrap()[0].value;
    assert_eq!(connection.read(&door).await.unwrap()[0].value, first);
    let kill =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'tidemark-ended'";
    assert_eq!(read(&door, &input(&server, kill, &[])).await.unwrap().value, 1.0);
    until(&server, "tidemark-ended", 0.0).await;
    // The end may cross the first read.
    let second = match connection.read(&door).await {
        Ok(readings) => readings[0].value,
        Err(_) => connection.read(&door).await.unwrap()[0].value,
    };
    assert_ne!(first, second);
}

/// Asks until the server shows so many sessions of an application.
async fn until(server: &str, application: &str, number: f64) {
    let query = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{application}'");
    let (door, input) = (door(), input(server, &query, &[]));
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    let wait = async {
        while read(&door, &input).await.unwrap().value != number {
            pause.tick().await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not {number} sessions of {application}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn triggers_with_the_same_login_share_a_few_sessions() {
    let Some(server) = server() else { return };
    let named = format!("{server}?application_name=tidemark-shared");
    let door = door();
    let inputs: Vec<_> = (0..100).map(|n| input(&named, &format!("SELECT {n} FROM pg_sleep(0.01)"), &[])).collect();
    let connections = join_all(inputs.iter().map(|input| connect(&door, input))).await;
    for _ in 0..2 {
        let reads = join_all(connections.iter().map(|connection| connection.as_ref().unwrap().read(&door))).await;
        let values: Vec<_> = reads.into_iter().map(|read| read.unwrap()[0].value).collect();
        assert_eq!(values, (0..100).map(f64::from).collect::<Vec<_>>());
    }
    until(&server, "tidemark-shared", 4.0).await;
    drop(connections);
    until(&server, "tidemark-shared", 0.0).await;
}

#[tokio::test]
async fn equal_queries_at_a_time_are_one() {
    let Some(server) = server() else { return };
    run(&server, "DROP SEQUENCE IF EXISTS tidemark_asked").await;
    run(&server, "CREATE SEQUENCE tidemark_asked").await;
    let door = door();
    let input = input(&server, "SELECT nextval('tidemark_asked') FROM pg_sleep(0.1)", &[]);
    let connections = join_all((0..50).map(|_| connect(&door, &input))).await;
    for expected in [1.0, 2.0] {
        let reads = join_all(connections.iter().map(|connection| connection.as_ref().unwrap().read(&door))).await;
        assert!(reads.iter().all(|read| read.as_ref().unwrap()[0].value == expected));
    }
}

#[tokio::test]
async fn a_read_that_is_given_up_leaves_the_trigger_usable() {
    let Some(server) = server() else { return };
    let door = door();
    let connection = connect(&door, &input(&server, "SELECT 4", &[])).await.unwrap();
    for polls in 0..30_u32 {
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
async fn a_query_that_was_given_up_is_cancelled_by_the_next_read() {
    let Some(server) = server() else { return };
    let named = format!("{server}?application_name=tidemark-slow");
    let door = door();
    let slow = connect(&door, &input(&named, "SELECT 1 FROM pg_sleep(600)", &[])).await.unwrap();
    let quick = connect(&door, &input(&named, "SELECT 2", &[])).await.unwrap();
    assert!(timeout(Duration::from_millis(300), slow.read(&door)).await.is_err());
    assert_eq!(quick.read(&door).await.unwrap()[0].value, 2.0);
    drop(slow);
    until(&server, "tidemark-slow", 1.0).await;
    assert_eq!(quick.read(&door).await.unwrap()[0].value, 2.0);
}

#[tokio::test]
async fn an_open_transaction_is_not_passed_on() {
    let Some(server) = server() else { return };
    let named = format!("{server}?application_name=tidemark-begin");
    run(&named, "BEGIN").await;
    until(&server, "tidemark-begin", 0.0).await;
}

#[tokio::test]
async fn only_a_session_with_nothing_under_way_is_used_again() {
    let Some(server) = server() else { return };
    let named = format!("{server}?application_name=tidemark-again");
    let door = door();
    let process = connect(&door, &input(&named, "SELECT pg_backend_pid()", &[])).await.unwrap();
    let mut last = process.read(&door).await.unwrap()[0].value;
    for (query, kept) in [
        ("SELECT 1/0", true),
        ("SELECT 1; SELECT 2", true),
        ("COPY (SELECT 1) TO STDOUT", false),
        // More than is read of an answer.
        ("SELECT n FROM generate_series(1, 1000000) AS n", false),
    ] {
        let _ = read(&door, &input(&named, query, &[])).await;
        let next = process.read(&door).await.unwrap()[0].value;
        assert_eq!(next == last, kept, "{query}");
        last = next;
    }
}

#[tokio::test]
async fn the_host_with_the_wanted_role_is_taken() {
    let Some(server) = server() else { return };
    let address = address(&server);
    let hosts = format!("{},{address}", closed_port().await);
    for role in ["read-write", "primary", "any", "prefer-standby"] {
        let connection = url("tidemark:secret", &hosts, &format!("target_session_attrs={role}"));
        assert_eq!(read(&door(), &input(&connection, "SELECT 2", &[])).await.unwrap().value, 2.0, "{role}");
    }
    let error = failure(&url("tidemark:secret", &hosts, "target_session_attrs=standby"), "SELECT 2").await;
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
}

async fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn a_wrong_port_is_unreachable() {
    let address = closed_port().await;
    let error = failure(&url("mallory:hunter2", &address, ""), "SELECT 1").await;
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert_eq!(error.message, format!("cannot connect to {address}: connection refused"));
}

/// Passes connections on to the server, until it is dropped; with TLS, answers the client's request for it itself.
struct Front {
    ca: String,
    address: String,
    task: JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn front(behind: String, port: u16, tls: bool) -> Front {
    let authority = Authority::new();
    let acceptor = tls.then(|| authority.acceptor("database.test", false));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let (behind, acceptor) = (behind.clone(), acceptor.clone());
            connections.spawn(async move {
                let mut server = TcpStream::connect(behind).await.unwrap();
                let Some(acceptor) = acceptor else {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    return;
                };
                client.read_exact(&mut [0; 8]).await.unwrap();
                client.write_all(b"S").await.unwrap();
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    Front { ca: authority.pem(), address, task }
}

#[tokio::test]
async fn a_server_that_goes_down_is_unreachable_and_read_again_when_it_is_back() {
    let Some(server) = server() else { return };
    let running = front(address(&server), 0, false).await;
    let address_of_front = running.address.clone();
    let connection = url("tidemark:secret", &address_of_front, "sslmode=disable");
    let door = door();
    let connection = connect(&door, &input(&connection, "SELECT 6", &[])).await.unwrap();
    assert_eq!(connection.read(&door).await.unwrap()[0].value, 6.0);

    drop(running);
    for _ in 0..3 {
        let error = connection.read(&door).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
        assert!(error.message.contains(&address_of_front), "{error}");
    }
    let port = address_of_front.split_once(':').unwrap().1.parse().unwrap();
    let _running = front(address(&server), port, false).await;
    assert_eq!(connection.read(&door).await.unwrap()[0].value, 6.0);
}

#[tokio::test]
async fn each_sslmode_checks_of_the_certificate_what_it_says() {
    let Some(server) = server() else { return };
    let front = front(address(&server), 0, true).await;
    let folder = std::env::temp_dir().join(format!("tidemark-postgresql-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let root = folder.join("ca.pem");
    std::fs::write(&root, &front.ca).unwrap();
    let root = format!("sslrootcert={}", root.display());
    let port = front.address.split_once(':').unwrap().1;
    let named = format!("host=database.test hostaddr=127.0.0.1 port={port}");
    let other = format!("host=127.0.0.1 port={port}");
    let value = async |hosts: &str, options: &str| {
        let connection = format!("{hosts} user=tidemark password=secret dbname=tidemark {options}");
        read(&door(), &input(&connection, "SELECT 5", &[])).await.map(|reading| reading.value)
    };
    for (hosts, options) in [
        (&named, format!("sslmode=verify-full {root}")),
        (&named, format!("sslmode=verify-ca {root}")),
        (&other, format!("sslmode=verify-ca {root}")),
        (&other, format!("sslmode=require {root}")),
        (&other, "sslmode=require".to_owned()),
        (&other, "sslmode=prefer".to_owned()),
        (&other, String::new()),
    ] {
        assert_eq!(value(hosts, &options).await, Ok(5.0), "{hosts} {options}");
    }
    for (hosts, options) in [
        (&other, format!("sslmode=verify-full {root}")),
        (&named, "sslmode=verify-full".to_owned()),
        (&named, "sslmode=verify-ca".to_owned()),
    ] {
        let error = value(hosts, &options).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused, "{hosts} {options}: {error}");
        assert!(error.message.contains("is not accepted"), "{error}");
    }
    let error = value(&named, "sslmode=verify-full sslrootcert=/nowhere/ca.pem").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Configuration, "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn a_server_without_tls_is_refused_only_where_tls_is_demanded() {
    let Some(server) = server() else { return };
    let address = address(&server);
    for mode in ["disable", "allow", "prefer"] {
        let connection = url("tidemark:secret", &address, &format!("sslmode={mode}"));
        assert_eq!(read(&door(), &input(&connection, "SELECT 1", &[])).await.unwrap().value, 1.0, "{mode}");
    }
    for mode in ["require", "verify-full"] {
        let error = failure(&url("tidemark:secret", &address, &format!("sslmode={mode}")), "SELECT 1").await;
        assert_eq!(error.kind, ErrorKind::Refused, "{error}");
        assert_eq!(error.message, format!("{address} does not offer TLS, which `sslmode` demands"));
    }
}

/// A server that reads something, sends something, and waits until the client is gone.
async fn script(steps: Vec<Vec<u8>>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        for step in steps {
            if socket.read(&mut [0; 4096]).await.unwrap() == 0 {
                return;
            }
            socket.write_all(&step).await.unwrap();
        }
        let _ = socket.read_to_end(&mut Vec::new()).await;
    });
    (address, task)
}

#[tokio::test]
async fn a_server_that_says_nothing_times_out_and_keeps_nothing_open() {
    let (address, gone) = script(vec![]).await;
    let error = failure(&url("mallory:hunter2", &address, "connect_timeout=1"), "SELECT 1").await;
    assert_eq!(error.kind, ErrorKind::TimedOut);
    assert_eq!(error.message, format!("no PostgreSQL connection to {address} within 1s"));
    timeout(PATIENCE, gone).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_no_postgresql_server_is_a_bad_reply() {
    for mode in ["disable", "require"] {
        let (address, gone) = script(vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()]).await;
        let error = failure(&url("mallory:hunter2", &address, &format!("sslmode={mode}")), "SELECT 1").await;
        let expected = format!("{address} does not speak PostgreSQL's protocol");
        assert_eq!((error.kind, error.message), (ErrorKind::BadReply, expected));
        timeout(PATIENCE, gone).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_server_that_cannot_prove_to_know_the_password_is_not_trusted() {
    let offer = b"R\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\0\0".to_vec();
    // It lets the client in without its own proof.
    let (address, gone) = script(vec![offer, b"R\x00\x00\x00\x08\x00\x00\x00\x00".to_vec()]).await;
    let error = failure(&url("mallory:hunter2", &address, "sslmode=disable"), "SELECT 1").await;
    assert_eq!(error.kind, ErrorKind::Authentication, "{error}");
    assert!(error.message.ends_with("it did not prove that it knows the password"), "{error}");
    timeout(PATIENCE, gone).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_starts_up_is_unreachable() {
    let mut message = b"SFATAL\0C57P03\0Mthe database system is starting up\0\0".to_vec();
    let mut error = vec![b'E', 0, 0, 0, (message.len() + 4) as u8];
    error.append(&mut message);
    let (address, _gone) = script(vec![error]).await;
    let error = failure(&url("mallory:hunter2", &address, "sslmode=disable"), "SELECT 1").await;
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
}
