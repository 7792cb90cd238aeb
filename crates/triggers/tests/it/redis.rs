//! The triggers of Redis against a real server, a real cluster and a real sentinel, and against what is none.
//!
//! They are named by `TIDEMARK_TEST_REDIS`, `TIDEMARK_TEST_REDIS_CLUSTER` and `TIDEMARK_TEST_REDIS_SENTINEL`:
//! `redis://USER:PASSWORD@HOST:PORT[,HOST:PORT][/MASTER]`.

mod streams;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisResult};
use tidemark_trigger::{ErrorKind, Reading, SourceError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::source::{connect, door, input, read, service};
use crate::tls_front::TlsFront;

/// Servers from the environment.
struct Servers {
    password: String,
    addresses: Vec<String>,
    master: String,
}

/// The servers that a variable names, or a visible skip.
fn servers(variable: &str) -> Option<Servers> {
    let url = service(variable)?;
    let (login, rest) = url.strip_prefix("redis://").unwrap().split_once('@').unwrap();
    let (addresses, master) = rest.split_once('/').unwrap_or((rest, ""));
    Some(Servers {
        password: login.split_once(':').unwrap().1.to_owned(),
        addresses: addresses.split(',').map(str::to_owned).collect(),
        master: master.to_owned(),
    })
}

impl Servers {
    fn address(&self) -> &str {
        &self.addresses[0]
    }

    /// What a server answers to a command, by the client library's own connection.
    async fn ask<T: FromRedisValue>(&self, address: &str, command: &str) -> RedisResult<T> {
        let mut connection = self.open(address).await;
        words(command).query_async(&mut connection).await
    }

    async fn open(&self, address: &str) -> MultiplexedConnection {
        let client = redis::Client::open(format!("redis://:{}@{address}", self.password)).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// Runs commands, each of which must succeed.
    async fn run(&self, commands: &[&str]) {
        for command in commands {
            self.ask::<redis::Value>(self.address(), command)
                .await
                .unwrap_or_else(|error| panic!("{command}: {error}"));
        }
    }

    /// Runs a command on the node of the cluster that has its key; gives the place of that node.
    async fn run_on_its_node(&self, command: &str) -> usize {
        for (i, address) in self.addresses.iter().enumerate() {
            match self.ask::<redis::Value>(address, command).await {
                Ok(_) => return i,
                Err(error) => assert_eq!(error.code(), Some("MOVED"), "{error}"),
            }
        }
        panic!("no node has the key of {command}")
    }
}

fn words(command: &str) -> redis::Cmd {
    let mut cmd = redis::Cmd::new();
    for word in command.split_whitespace() {
        cmd.arg(word);
    }
    cmd
}

/// The error of a trigger of the type `redis` that cannot be read.
async fn error(metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> SourceError {
    let error = read(&door(), &input("redis", metadata, auth)).await.unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
    error
}

fn value(value: f64, active: bool) -> Result<Reading, SourceError> {
    Ok(Reading { value, active })
}

#[tokio::test]
async fn the_size_of_every_measurable_kind_of_key_is_read() {
    let Some(server) = servers("TIDEMARK_TEST_REDIS") else { return };
    server.run(&["DEL size:list size:set size:zset size:hash size:none"]).await;
    server.run(&["RPUSH size:list a b c", "SADD size:set a b", "ZADD size:zset 1 a", "HSET size:hash a 1 b 2"]).await;
    let door = door();
    let auth = [("password", server.password.as_str())];
    for (key, size) in [("list", 3.0), ("set", 2.0), ("zset", 1.0), ("hash", 2.0), ("none", 0.0)] {
        let key = format!("size:{key}");
        let input = input("redis", &[("listName", &key), ("address", server.address())], &auth);
        assert_eq!(read(&door, &input).await, value(size, size > 0.0), "{key}");
    }
    let threshold = [("listName", "size:list"), ("address", server.address()), ("activationListLength", "3")];
    assert_eq!(read(&door, &input("redis", &threshold, &auth)).await, value(3.0, false));
}

#[tokio::test]
async fn the_database_is_the_one_of_the_trigger() {
    let Some(server) = servers("TIDEMARK_TEST_REDIS") else { return };
    let mut connection = server.open(server.address()).await;
    for command in ["SELECT 3", "DEL database:list", "RPUSH database:list a b"] {
        words(command).query_async::<redis::Value>(&mut connection).await.unwrap();
    }
    let metadata = [("listName", "database:list"), ("address", server.address())];
    let auth = [("password", server.password.as_str())];
    let door = door();
    assert_eq!(read(&door, &input("redis", &metadata, &auth)).await, value(0.0, false));
    let third = [&metadata[..], &[("databaseIndex", "3")]].concat();
    assert_eq!(read(&door, &input("redis", &third, &auth)).await, value(2.0, true));
    let missing = [&metadata[..], &[("databaseIndex", "99")]].concat();
    let error = error(&missing, &auth).await;
    assert_eq!(error.kind, ErrorKind::MissingResource);
    assert_eq!(error.message, format!("{} has no database 99", server.address()));
}

#[tokio::test]
async fn a_key_without_a_size_is_refused_by_the_name_of_its_type() {
    let Some(server) = servers("TIDEMARK_TEST_REDIS") else { return };
    server.run(&["SET unsized:string hello"]).await;
    let metadata = [("listName", "unsized:string"), ("address", server.address())];
    let error = error(&metadata, &[("password", &server.password)]).await;
    assert_eq!(error.kind, ErrorKind::Refused);
    let expected = format!(
        "{} cannot tell the size of the key `unsized:string`: it has the unsupported type string",
        server.address()
    );
    assert_eq!(error.message, expected);
}

#[tokio::test]
async fn a_refused_login_is_an_authentication_error_that_shows_no_credentials() {
    let Some(server) = servers("TIDEMARK_TEST_REDIS") else { return };
    let metadata = [("listName", "k"), ("address", server.address())];
    for auth in [&[("password", "hunter2")][..], &[("username", "mallory"), ("password", "hunter2")]] {
        let error = error(&metadata, auth).await;
        assert_eq!(error.kind, ErrorKind::Authentication, "{error}");
        assert_eq!(error.message, format!("{} refused the login", server.address()));
    }
    let error = error(&metadata, &[]).await;
    assert_eq!(error.kind, ErrorKind::Authentication, "{error}");
    assert_eq!(error.message, format!("{} wants a password, and there is none", server.address()));
}

#[tokio::test]
async fn a_user_needs_the_script_and_the_sizes_and_nothing_else() {
    let Some(server) = servers("TIDEMARK_TEST_REDIS") else { return };
    server.run(&["DEL acl:list", "RPUSH acl:list a"]).await;
    server.run(&["ACL SETUSER enough reset on >hunter2 ~acl:* -@all +eval +type +llen"]).await;
    server.run(&["ACL SETUSER unscripted reset on >hunter2 ~acl:* -@all +type +llen"]).await;
    server.run(&["ACL SETUSER untyped reset on >hunter2 ~acl:* -@all +eval +llen"]).await;
    let metadata = [("listName", "acl:list"), ("address", server.address())];
    let auth = |user| [("username", user), ("password", "hunter2")];
    assert_eq!(read(&door(), &input("redis", &metadata, &auth("enough"))).await, value(1.0, true));
    for user in ["unscripted", "untyped"] {
        let error = error(&metadata, &auth(user)).await;
        assert_eq!(error.kind, ErrorKind::Authentication, "{user}: {error}");
        assert!(error.message.contains("the size of the key `acl:list`") && !error.message.contains(user), "{error}");
    }
}

#[tokio::test]
async fn a_wrong_port_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = error(&[("listName", "k"), ("address", &address)], &[("password", "hunter2")]).await;
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert_eq!(error.message, format!("cannot connect to {address}: connection refused"));
}

#[tokio::test]
async fn what_is_no_address_is_a_configuration_error_that_does_not_show_it() {
    let error = error(&[("listName", "k"), ("address", "redis://:hunter2@redis:6379")], &[]).await;
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Configuration, "address: number 1 is not host:port"));
}

/// Someone who accepts connections, says something and keeps them open.
async fn stranger(greeting: &'static [u8]) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(greeting).await.unwrap();
            open.push(socket);
        }
    });
    (address, task)
}

// Under the paused clock the deadline is reached as soon as nothing happens any more.
#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_times_out() {
    let (address, task) = stranger(b"").await;
    let error = error(&[("listName", "k"), ("address", &address)], &[("password", "hunter2")]).await;
    assert_eq!(error.kind, ErrorKind::TimedOut);
    assert_eq!(error.message, format!("no connection to Redis at {address} within 5s"));
    task.abort();
}

// A Redis without TLS takes the handshake for half a command.
#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_the_tls_handshake_may_have_none() {
    let (address, task) = stranger(b"").await;
    let error = error(&[("listName", "k"), ("address", &address), ("unsafeSsl", "true")], &[("tls", "enable")]).await;
    assert_eq!(error.kind, ErrorKind::TimedOut);
    assert_eq!(error.message, format!("no connection to Redis at {address} within 5s; it may not speak TLS"));
    task.abort();
}

#[tokio::test]
async fn what_is_no_redis_server_is_a_bad_reply() {
    let (address, task) = stranger(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
    let error = error(&[("listName", "k"), ("address", &address)], &[("password", "hunter2")]).await;
    assert_eq!(error.kind, ErrorKind::BadReply, "{error}");
    assert_eq!(error.message, format!("{address} does not speak the protocol of Redis"));
    task.abort();
}

#[tokio::test]
async fn no_reply_however_strange_is_more_than_an_error() {
    let deep = "*1\r\n".repeat(100_000);
    let strange = [
        "*9223372036854775807\r\n",
        "*1000000000\r\n+a\r\n",
        "$9223372036854775807\r\nabc",
        "$-5\r\n",
        "%4611686018427387904\r\n",
        "|0\r\n",
        "|1\r\n+a\r\n+b\r\n",
        ">0\r\n",
        ">1\r\n$7\r\nmessage\r\n",
        "-\r\n",
        "-MOVED\r\n",
        "=1\r\na\r\n",
        "(12x\r\n",
        "",
        &deep,
    ];
    for reply in strange {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let reply = reply.as_bytes().to_vec();
        let task = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            // The client may hang up at the first bytes.
            let _ = socket.write_all(&reply).await;
            let _ = socket.shutdown().await;
        });
        let error = error(&[("listName", "k"), ("address", &address)], &[]).await;
        let kinds = [ErrorKind::BadReply, ErrorKind::Unreachable, ErrorKind::Refused];
        let first = !error.message.starts_with("cannot connect");
        assert!(kinds.contains(&error.kind) && error.message.contains(&address) && first, "{error}");
        task.await.unwrap();
    }
}

/// A way to a server that can be cut, and that counts who takes it.
struct Path {
    address: String,
    taken: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Path {
    async fn to(server: &str, address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (server, taken) = (server.to_owned(), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&taken);
        let task = tokio::spawn(async move {
            // Dropped, and so cut, together with this task.
            let mut open = tokio::task::JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
                let mut server = TcpStream::connect(&server).await.unwrap();
                open.spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
            }
        });
        Self { address, taken, task }
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    async fn cut(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

#[tokio::test]
async fn a_server_that_was_down_is_read_again_when_it_is_back() {
    let Some(server) = servers("TIDEMARK_TEST_REDIS") else { return };
    server.run(&["DEL down:list", "RPUSH down:list a b"]).await;
    let path = Path::to(server.address(), "127.0.0.1:0").await;
    let address = path.address.clone();
    let door = door();
    let auth = [("password", server.password.as_str())];
    let trigger = input("redis", &[("listName", "down:list"), ("address", &address)], &auth);
    let connection = connect(&door, &trigger).await.unwrap();
    let sharer = connect(&door, &trigger).await.unwrap();
    assert_eq!(connection.read(&door).await.unwrap()[0].value, 2.0);
    path.cut().await;
    // The loss itself may be what the first read meets.
    for _ in 0..2 {
        let error = connection.read(&door).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
        assert!(error.message.contains(&address), "{error}");
    }
    let path = Path::to(server.address(), &address).await;
    assert_eq!(connection.read(&door).await.unwrap()[0].value, 2.0);
    assert_eq!(sharer.read(&door).await.unwrap()[0].value, 2.0);
    assert_eq!(path.taken(), 1);
}

#[tokio::test]
async fn a_connection_that_the_server_closes_is_replaced() {
    let Some(server) = servers("TIDEMARK_TEST_REDIS") else { return };
    server.run(&["ACL SETUSER closed reset on >hunter2 ~* +@all"]).await;
    server.run(&["DEL closed:list", "RPUSH closed:list a"]).await;
    let door = door();
    let auth = [("username", "closed"), ("password", "hunter2")];
    let trigger = input("redis", &[("listName", "closed:list"), ("address", server.address())], &auth);
    let connection = connect(&door, &trigger).await.unwrap();
    for _ in 0..3 {
        assert_eq!(connection.read(&door).await.unwrap()[0].value, 1.0);
        assert_eq!(server.ask::<i64>(server.address(), "CLIENT KILL USER closed").await.unwrap(), 1);
        // The close may cross the first read; from the second on everything works again.
        let _ = connection.read(&door).await;
    }
    assert_eq!(connection.read(&door).await.unwrap()[0].value, 1.0);
}

#[tokio::test]
async fn triggers_with_the_same_server_and_login_share_one_connection() {
    let Some(server) = servers("TIDEMARK_TEST_REDIS") else { return };
    let path = Path::to(server.address(), "127.0.0.1:0").await;
    let door = door();
    let auth = [("password", server.password.as_str())];
    let trigger = |key: &str, more: &[_]| {
        input("redis", &[&[("listName", key), ("address", &path.address)], more].concat(), &auth)
    };
    let triggers = [trigger("shared:1", &[]), trigger("shared:2", &[]), trigger("shared:1", &[])];
    let connections = futures::future::join_all(triggers.iter().map(|trigger| connect(&door, trigger))).await;
    let reads = connections.iter().map(|connection| connection.as_ref().unwrap().read(&door));
    assert!(futures::future::join_all(reads).await.iter().all(Result::is_ok));
    assert_eq!(path.taken(), 1);
    // Another database is another connection.
    read(&door, &trigger("shared:1", &[("databaseIndex", "1")])).await.unwrap();
    assert_eq!(path.taken(), 2);
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let front = TlsFront::new("localhost", None, false).await;
    let address = format!("localhost:{}", front.port);
    let error = error(&[("listName", "k"), ("address", &address)], &[("tls", "enable"), ("password", "hunter2")]).await;
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert!(error.message.starts_with(&format!("the certificate of {address} is not accepted")), "{error}");
}

#[tokio::test]
async fn a_client_certificate_that_is_none_is_a_configuration_error() {
    let front = TlsFront::new("localhost", None, false).await;
    let address = format!("localhost:{}", front.port);
    let auth = [("tls", "enable"), ("cert", "hunter2"), ("key", "hunter2")];
    let error = error(&[("listName", "k"), ("address", &address)], &auth).await;
    assert_eq!(error.kind, ErrorKind::Configuration, "{error}");
}

#[tokio::test]
async fn tls_works_with_the_ca_or_with_unsafe_ssl() {
    let Some(server) = servers("TIDEMARK_TEST_REDIS") else { return };
    server.run(&["DEL tls:list", "RPUSH tls:list a b c d"]).await;
    let front = TlsFront::new("localhost", Some(server.address()), false).await;
    let address = format!("localhost:{}", front.port);
    let metadata = [("listName", "tls:list"), ("address", address.as_str())];
    let auth = [("password", server.password.as_str()), ("tls", "enable"), ("ca", &front.ca)];
    assert_eq!(read(&door(), &input("redis", &metadata, &auth)).await, value(4.0, true));
    let unchecked = [&metadata[..], &[("enableTLS", "true"), ("unsafeSsl", "true")]].concat();
    assert_eq!(read(&door(), &input("redis", &unchecked, &auth[..1])).await, value(4.0, true));
    // A plain client at a listener that wants TLS.
    let error = error(&metadata, &auth[..1]).await;
    assert!(matches!(error.kind, ErrorKind::Unreachable | ErrorKind::BadReply), "{error}");
}

#[tokio::test]
async fn keys_of_every_node_of_a_cluster_are_read_from_any_address() {
    let Some(cluster) = servers("TIDEMARK_TEST_REDIS_CLUSTER") else { return };
    let (door, mut nodes) = (door(), std::collections::BTreeSet::new());
    let auth = [("password", cluster.password.as_str())];
    for i in 1..=9 {
        let key = format!("cluster:{i}");
        cluster.run_on_its_node(&format!("DEL {key}")).await;
        nodes.insert(cluster.run_on_its_node(&format!("RPUSH {key} {}", "x ".repeat(i))).await);
        let input = input("redis-cluster", &[("listName", &key), ("address", cluster.address())], &auth);
        let connection = connect(&door, &input).await.unwrap();
        for _ in 0..2 {
            assert_eq!(connection.read(&door).await.unwrap()[0].value, i as f64, "{key}");
        }
    }
    assert_eq!(nodes.len(), cluster.addresses.len());
    // A dead address before a living one.
    let addresses = format!("127.0.0.1:1,{}", cluster.address());
    let input = input("redis-cluster", &[("listName", "cluster:2"), ("addresses", &addresses)], &auth);
    assert_eq!(read(&door, &input).await, value(2.0, true));
}

#[tokio::test]
async fn a_key_that_is_moving_to_another_node_is_asked_for_there() {
    let Some(cluster) = servers("TIDEMARK_TEST_REDIS_CLUSTER") else { return };
    let key = "moving:list";
    let from = cluster.run_on_its_node(&format!("DEL {key}")).await;
    let (from, to) = (&cluster.addresses[from], &cluster.addresses[(from + 1) % cluster.addresses.len()]);
    let slot: i64 = cluster.ask(from, &format!("CLUSTER KEYSLOT {key}")).await.unwrap();
    let from_id: String = cluster.ask(from, "CLUSTER MYID").await.unwrap();
    let to_id: String = cluster.ask(to, "CLUSTER MYID").await.unwrap();
    let set = async |address: &str, state: &str| {
        cluster.ask::<redis::Value>(address, &format!("CLUSTER SETSLOT {slot} {state}")).await.unwrap();
    };
    set(to, &format!("IMPORTING {from_id}")).await;
    set(from, &format!("MIGRATING {to_id}")).await;
    let mut connection = cluster.open(to).await;
    for command in ["ASKING", &format!("RPUSH {key} a b"), "ASKING"] {
        words(command).query_async::<redis::Value>(&mut connection).await.unwrap();
    }
    let input = input("redis-cluster", &[("listName", key), ("address", from)], &[("password", &cluster.password)]);
    let reading = read(&door(), &input).await;
    words(&format!("DEL {key}")).query_async::<redis::Value>(&mut connection).await.unwrap();
    set(from, "STABLE").await;
    set(to, "STABLE").await;
    assert_eq!(reading, value(2.0, true));
}

#[tokio::test]
async fn of_a_cluster_that_cannot_be_reached_the_reason_is_given() {
    let metadata = [("listName", "k"), ("hosts", "127.0.0.1,127.0.0.1"), ("ports", "1,2")];
    let error = read(&door(), &input("redis-cluster", &metadata, &[])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    let expected = "cannot connect to 127.0.0.1:1: connection refused; none of 2 addresses can be used";
    assert_eq!(error.message, expected);
}

#[tokio::test]
async fn the_master_is_found_by_the_sentinel() {
    let Some(sentinel) = servers("TIDEMARK_TEST_REDIS_SENTINEL") else { return };
    let ask = format!("SENTINEL get-master-addr-by-name {}", sentinel.master);
    let master: (String, String) = sentinel.ask(sentinel.address(), &ask).await.unwrap();
    let master = format!("{}:{}", master.0, master.1);
    for command in ["DEL sentinel:list", "RPUSH sentinel:list a b c"] {
        sentinel.ask::<redis::Value>(&master, command).await.unwrap();
    }
    let read = async |metadata: &[(&str, &str)], passwords: (&str, &str)| {
        let metadata = [&[("listName", "sentinel:list"), ("address", sentinel.address())], metadata].concat();
        let auth = [("password", passwords.0), ("sentinelPassword", passwords.1)];
        read(&door(), &input("redis-sentinel", &metadata, &auth)).await
    };
    let (named, good) = ([("sentinelMaster", sentinel.master.as_str())], sentinel.password.as_str());
    assert_eq!(read(&named, (good, good)).await, value(3.0, true));

    let error = read(&[("sentinelMaster", "absent")], (good, good)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::MissingResource, "{error}");
    assert_eq!(error.message, format!("the sentinel {} knows no master `absent`", sentinel.address()));
    let error = read(&[], (good, good)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Configuration, "{error}");
    // Which of the two logins is refused can be told from the address.
    let error = read(&named, (good, "hunter2")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Authentication, "{error}");
    assert_eq!(error.message, format!("{} refused the login", sentinel.address()));
    let error = read(&named, ("hunter2", good)).await.unwrap_err();
    assert_eq!((error.kind, error.message), (ErrorKind::Authentication, format!("{master} refused the login")));
}

/// A sentinel that names whatever master it is told, and ends when it is told none.
async fn puppet_sentinel(mut master: tokio::sync::watch::Receiver<Option<String>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 1024];
        loop {
            let read = tokio::select! {
                biased;
                changed = master.changed() => match changed.is_ok() && master.borrow().is_some() {
                    true => continue,
                    false => return,
                },
                read = socket.read(&mut buffer) => read.unwrap(),
            };
            let reply = match String::from_utf8_lossy(&buffer[..read]).contains("SENTINEL") {
                false => "+PONG\r\n".to_owned(),
                true => {
                    let master = master.borrow().clone().unwrap();
                    let (host, port) = master.split_once(':').unwrap();
                    format!("*2\r\n${}\r\n{host}\r\n${}\r\n{port}\r\n", host.len(), port.len())
                }
            };
            socket.write_all(reply.as_bytes()).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_master_that_the_sentinels_replaced_is_no_longer_read_though_it_answers() {
    let (Some(server), Some(cluster)) = (servers("TIDEMARK_TEST_REDIS"), servers("TIDEMARK_TEST_REDIS_CLUSTER")) else {
        return;
    };
    let key = "replaced:list";
    server.run(&["DEL replaced:list", "RPUSH replaced:list a"]).await;
    cluster.run_on_its_node(&format!("DEL {key}")).await;
    let node = cluster.run_on_its_node(&format!("RPUSH {key} a b")).await;
    let (tell, told) = tokio::sync::watch::channel(Some(server.address().to_owned()));
    let sentinel = puppet_sentinel(told).await;
    let metadata = [("listName", key), ("address", sentinel.as_str()), ("sentinelMaster", "m")];
    let door = door();
    let trigger = input("redis-sentinel", &metadata, &[("password", &server.password)]);
    let connection = connect(&door, &trigger).await.unwrap();
    assert_eq!(connection.read(&door).await.unwrap()[0].value, 1.0);
    tell.send(Some(cluster.addresses[node].clone())).unwrap();
    assert_eq!(connection.read(&door).await.unwrap()[0].value, 2.0);
    // Without a sentinel the last master counts.
    tell.send(None).unwrap();
    tell.closed().await;
    assert_eq!(connection.read(&door).await.unwrap()[0].value, 2.0);
}
