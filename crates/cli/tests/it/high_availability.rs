//! Several `tidemark operator` processes on a real API server: who leads, how soon a leader is followed that is killed,
//! stopped or told to go, and that none contradicts its successor. Each has its own way to the API server, on which all
//! that it writes is noted, and may be held up.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::client::Body;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tidemark_api::ScaledObject;
use tidemark_serving::plain;
use tidemark_testkit::{ControlPlane, Options};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use xtask::network::free_ports;

use crate::on_control_plane::install_crds;

const LEASE: &str = "operator.keda.sh";
/// A dead leader is followed within the Lease's duration and a retry period, with KEDA's times. The rest is for slow
/// machines.
const TAKEN_OVER: Duration = Duration::from_millis(17_000 + 2_000);
/// The longest time for anything else.
const PATIENCE: Duration = Duration::from_secs(60);
const OBJECTS: usize = 12;

/// A write that has been answered.
#[derive(Clone, Debug)]
struct Written {
    at: Instant,
    path: String,
    status: u16,
    /// Whether it was held up on its way.
    held: bool,
}

impl Written {
    /// The object, whichever part of it was written.
    fn object(&self) -> &str {
        self.path.trim_end_matches("/scale").trim_end_matches("/status")
    }

    fn has_landed(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// An operator's way to the API server.
#[derive(Clone)]
struct Way {
    client: Client,
    /// All that was written, but for the Lease and for events.
    writes: Arc<Mutex<Vec<Written>>>,
    held_up: watch::Sender<bool>,
    waiting: Arc<AtomicU64>,
}

impl Way {
    async fn open(client: Client, stop: CancellationToken) -> (Self, u16) {
        let (writes, waiting) = Default::default();
        let way = Self { client, writes, waiting, held_up: watch::Sender::new(false) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let on_it = way.clone();
        let service = tower::service_fn(move |request: Request<plain::Incoming>| {
            let way = on_it.clone();
            async move {
                // What is on its way goes on, whatever becomes of its sender.
                Ok(tokio::spawn(async move { way.pass(request).await }).await.unwrap())
            }
        });
        tokio::spawn(plain::serve(listener, service, stop));
        (way, port)
    }

    async fn pass(&self, request: Request<plain::Incoming>) -> Response<plain::Body> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let writes = !matches!(parts.method, Method::GET | Method::HEAD);
        let counts = writes && !path.contains("/leases/") && !path.ends_with("/leases") && !path.contains("/events");
        let mut held = false;
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        if counts && *self.held_up.borrow() {
            held = true;
            self.waiting.fetch_add(1, Ordering::Relaxed);
            self.held_up.subscribe().wait_for(|held_up| !held_up).await.unwrap();
        }
        let mut forwarded = Request::builder().method(parts.method.clone()).uri(parts.uri.clone());
        for name in ["accept", "content-type", "user-agent"] {
            if let Some(value) = parts.headers.get(name) {
                forwarded = forwarded.header(name, value);
            }
        }
        let answer = self.client.send(forwarded.body(Body::from(body)).unwrap()).await;
        let Ok(answer) = answer else {
            let mut refused = Response::new(plain::whole("the API server is away"));
            *refused.status_mut() = http::StatusCode::BAD_GATEWAY;
            return refused;
        };
        if counts {
            let (at, status) = (Instant::now(), answer.status().as_u16());
            self.writes.lock().unwrap().push(Written { at, path, status, held });
        }
        let (head, body) = answer.into_parts();
        let frames = BodyStream::new(body).take_while(|frame| std::future::ready(frame.is_ok()));
        let frames = frames.filter_map(|frame| std::future::ready(frame.ok().map(Ok)));
        let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
        *response.status_mut() = head.status;
        if let Some(kind) = head.headers.get("content-type") {
            response.headers_mut().insert("content-type", kind.clone());
        }
        response
    }

    fn writes(&self) -> Vec<Written> {
        self.writes.lock().unwrap().clone()
    }

    fn landed(&self) -> Vec<Written> {
        self.writes().into_iter().filter(Written::has_landed).collect()
    }

    fn scaled(&self) -> usize {
        self.landed().iter().filter(|write| write.path.ends_with("/scale")).count()
    }
}

/// A running operator; it ends with the test.
struct Operator {
    name: &'static str,
    child: Child,
    log: PathBuf,
    way: Way,
    probes: u16,
}

impl Operator {
    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("it runs").cast_signed();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    async fn ended(&mut self, within: Duration) -> ExitStatus {
        let ended = timeout(within, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("{} has not ended within {within:?}: {}", self.name, self.said())).unwrap()
    }

    async fn says(&self, words: &str) {
        until(
            PATIENCE,
            || format!("{} says {words:?}; it has said {}", self.name, self.said()),
            async || self.said().contains(words),
        )
        .await;
    }

    async fn is_ready(&self) {
        let ready = async || {
            let Ok(stream) = TcpStream::connect(("127.0.0.1", self.probes)).await else { return false };
            let io = hyper_util::rt::TokioIo::new(stream);
            let Ok((mut sender, connection)) = hyper::client::conn::http1::handshake(io).await else { return false };
            tokio::spawn(connection);
            let request = Request::get("/readyz").header("host", "localhost").body(String::new()).unwrap();
            sender.send_request(request).await.is_ok_and(|answer| answer.status() == 200)
        };
        until(PATIENCE, || format!("{} is ready; it has said {}", self.name, self.said()), ready).await;
    }
}

async fn until(within: Duration, what: impl Fn() -> String, mut look: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !look().await {
        assert!(began.elapsed() < within, "not within {within:?}: {}", what());
        sleep(Duration::from_millis(50)).await;
    }
}

struct Cluster {
    plane: ControlPlane,
    client: Client,
    stop: CancellationToken,
    /// What the triggers of all objects read.
    value: Arc<AtomicU64>,
}

impl Cluster {
    async fn start() -> Option<Self> {
        let plane = ControlPlane::start_or_skip(Options::default()).await?;
        let client = plane.client().await.unwrap();
        install_crds(&client).await;
        let this = Self { plane, client, stop: CancellationToken::new(), value: Arc::default() };
        let source = this.serve_source().await;
        for number in 0..OBJECTS {
            this.create_object(&format!("workers-{number:02}"), source).await;
        }
        Some(this)
    }

    async fn serve_source(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let value = self.value.clone();
        let service = tower::service_fn(move |_: Request<plain::Incoming>| {
            let text = json!({"value": value.load(Ordering::Relaxed)}).to_string();
            std::future::ready(Ok(Response::new(plain::whole(text))))
        });
        tokio::spawn(plain::serve(listener, service, self.stop.clone()));
        port
    }

    async fn create_object(&self, name: &str, source: u16) {
        let deployment = json!({
            "metadata": {"name": name},
            "spec": {
                "replicas": 0, "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "worker"}]},
                },
            },
        });
        let deployments = Api::<Deployment>::default_namespaced(self.client.clone());
        deployments.create(&PostParams::default(), &serde_json::from_value(deployment).unwrap()).await.unwrap();
        let object = json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name},
            "spec": {
                "scaleTargetRef": {"name": name},
                "pollingInterval": 1, "cooldownPeriod": 1, "maxReplicaCount": 1,
                "triggers": [{"type": "metrics-api", "metadata": {
                    "url": format!("http://127.0.0.1:{source}/{name}"), "valueLocation": "value", "targetValue": "5",
                }}],
            },
        });
        let objects = Api::<ScaledObject>::default_namespaced(self.client.clone());
        objects.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }

    /// Starts an operator on a way of its own.
    async fn operator(&self, name: &'static str, arguments: &[&str]) -> Operator {
        let (way, port) = Way::open(self.client.clone(), self.stop.clone()).await;
        let folder = self.plane.directory().join("tidemark");
        std::fs::create_dir_all(&folder).unwrap();
        let kubeconfig = folder.join(format!("{name}.kubeconfig"));
        std::fs::write(&kubeconfig, kubeconfig_of(port)).unwrap();
        let log = folder.join(format!("{name}.log"));
        let [probes] = free_ports::<1>().unwrap();
        let file = std::fs::File::create(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
        command
            .args(["operator", "--metrics-bind-address=0", "--metrics-service-bind-address=0"])
            .arg(format!("--health-probe-bind-address=127.0.0.1:{probes}"))
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .args(arguments)
            .env_clear()
            .env("POD_NAMESPACE", "default")
            .env("WATCH_NAMESPACE", "")
            .env("HOSTNAME", name)
            .stdin(Stdio::null())
            .stderr(file.try_clone().unwrap())
            .stdout(file)
            .kill_on_drop(true);
        Operator { name, child: command.spawn().unwrap(), log, way, probes }
    }

    /// Starts one of the operators that wait for the Lease.
    async fn candidate(&self, name: &'static str) -> Operator {
        self.operator(name, &["--leader-elect", "--leader-election-id", LEASE]).await
    }

    async fn holder(&self) -> String {
        let lease = Api::<Lease>::default_namespaced(self.client.clone()).get_opt(LEASE).await.unwrap();
        lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default()
    }

    /// Waits until the operator holds the Lease, and works. Gives how long it took to hold it.
    async fn until_led_by(&self, operator: &Operator, within: Duration) -> Duration {
        let began = Instant::now();
        let prefix = format!("{}_", operator.name);
        let what = || format!("{} leads; it has said {}", operator.name, operator.said());
        until(within, what, async || self.holder().await.starts_with(&prefix)).await;
        let took = began.elapsed();
        let scaled = operator.way.scaled();
        let works = || format!("{} scales; it has said {}", operator.name, operator.said());
        until(PATIENCE, works, async || operator.way.scaled() > scaled + OBJECTS / 2).await;
        took
    }

    /// The load: there is work, and there is none, every few seconds.
    fn swing(&self) -> tokio::task::JoinHandle<()> {
        let value = self.value.clone();
        tokio::spawn(async move {
            loop {
                value.fetch_xor(50, Ordering::Relaxed);
                sleep(Duration::from_millis(2_500)).await;
            }
        })
    }

    async fn replicas(&self) -> Vec<i32> {
        let deployments = Api::<Deployment>::default_namespaced(self.client.clone());
        let found = deployments.list(&Default::default()).await.unwrap();
        found.items.iter().map(|deployment| deployment.spec.replicas.unwrap_or(1)).collect()
    }
}

fn kubeconfig_of(port: u16) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "way",
        "clusters": [{"name": "way", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "users": [{"name": "way", "user": {}}],
        "contexts": [{"name": "way", "context": {"cluster": "way", "user": "way"}}],
    })
    .to_string()
}

/// A leader that was stopped while its writes were on their way, and goes on when another one leads.
async fn a_stopped_leader_contradicts_nobody(cluster: &Cluster, first: &mut Operator, second: &Operator) {
    first.way.held_up.send_replace(true);
    let waiting = || format!("writes are on their way; {} has said {}", first.name, first.said());
    until(PATIENCE, waiting, async || first.way.waiting.load(Ordering::Relaxed) >= 4).await;
    first.signal(Signal::STOP);
    let stopped = Instant::now();
    cluster.until_led_by(second, TAKEN_OVER).await;
    sleep(Duration::from_secs(30).saturating_sub(stopped.elapsed())).await;
    first.way.held_up.send_replace(false);
    sleep(Duration::from_secs(1)).await;
    first.signal(Signal::CONT);
    let status = first.ended(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(1), "{}", first.said());
    first.says("the Lease is lost").await;

    let (before, after) = (first.way.writes(), second.way.landed());
    let began = after[0].at;
    let late: Vec<_> = before.iter().filter(|write| write.at >= began).collect();
    assert!(late.iter().filter(|write| write.held).count() >= 4, "nothing was on its way: {late:?}");
    for write in late.iter().filter(|write| write.has_landed()) {
        let by_successor = after.iter().find(|other| other.object() == write.object() && other.at < write.at);
        assert!(by_successor.is_none(), "{write:?} contradicts {by_successor:?}");
    }
    assert!(late.iter().any(|write| write.status == 409), "no write met what the successor had written: {late:?}");
    let unheld: Vec<_> = late.iter().filter(|write| !write.held && write.has_landed()).collect();
    assert!(unheld.is_empty(), "written by a leader that was one no longer: {unheld:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_stopped_killed_or_told_to_go_is_followed_and_contradicts_nobody() {
    let Some(cluster) = Cluster::start().await else { return };
    let load = cluster.swing();
    let mut first = cluster.candidate("first").await;
    cluster.until_led_by(&first, PATIENCE).await;
    first.is_ready().await;
    let second = cluster.candidate("second").await;
    second.says("standing by").await;
    second.is_ready().await;

    // Beside a leader: one that only looks, and one that would not wait.
    let watcher = cluster.operator("watcher", &["--dry-run", "--leader-elect"]).await;
    let mut rash = cluster.operator("rash", &[]).await;
    assert_eq!(rash.ended(PATIENCE).await.code(), Some(1));
    let said = rash.said();
    assert!(said.contains("holds the Lease default/operator.keda.sh") && said.contains("--dry-run"), "{said}");
    watcher.says("would scale").await;

    a_stopped_leader_contradicts_nobody(&cluster, &mut first, &second).await;

    // One that is told to go gives the Lease back.
    let mut second = second;
    let third = cluster.candidate("third").await;
    third.says("standing by").await;
    second.signal(Signal::TERM);
    let told = Instant::now();
    assert_eq!(second.ended(Duration::from_secs(10)).await.code(), Some(0), "{}", second.said());
    cluster.until_led_by(&third, Duration::from_secs(5)).await;
    let (last, next) = (second.way.landed(), third.way.landed());
    assert!(last.last().unwrap().at < next[0].at && next[0].at < told + TAKEN_OVER);

    // One that is killed does not.
    let mut third = third;
    let fourth = cluster.candidate("fourth").await;
    fourth.says("standing by").await;
    third.child.kill().await.unwrap();
    cluster.until_led_by(&fourth, TAKEN_OVER).await;

    load.abort();
    cluster.value.store(50, Ordering::Relaxed);
    until(PATIENCE, || fourth.said(), async || cluster.replicas().await == [1; OBJECTS]).await;
    let written: Vec<_> = watcher.way.writes();
    assert!(written.is_empty() && rash.way.writes().is_empty(), "{written:?}");
    let forbidden = [&first, &second, &third, &fourth].map(Operator::said).concat();
    assert!(!forbidden.contains("panicked"), "{forbidden}");
    cluster.stop.cancel();
}

#[tokio::test]
async fn what_cannot_be_meant_ends_the_operator_before_it_does_anything() {
    let run = async |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
        command.arg("operator").args(arguments).env_clear().envs(variables.iter().copied()).kill_on_drop(true);
        let output = timeout(PATIENCE, command.stdin(Stdio::null()).output()).await.unwrap().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let absent = Path::new("absent").to_str().unwrap();
    let renew = "KEDA_OPERATOR_LEADER_ELECTION_RENEW_DEADLINE";
    for (arguments, variables, code, words) in [
        (vec!["--no-such-flag"], vec![], 2, "--no-such-flag"),
        (vec!["--metrics-bind-address=nowhere"], vec![], 2, "--metrics-bind-address"),
        (vec!["--leader-elect=perhaps"], vec![], 2, "--leader-elect"),
        (vec![], vec![(renew, "soon")], 1, renew),
        (vec![], vec![(renew, "20s")], 1, "must be longer than the renew deadline"),
        (vec![], vec![("KEDA_BOUND_SERVICE_ACCOUNT_TOKEN_EXPIRY", "7h")], 1, "between 1h and 6h"),
        (vec!["--kubeconfig", absent], vec![], 1, "cannot use the kubeconfig absent"),
        // The last of two flags counts, as in charts that append their users' own.
        (vec!["--kubeconfig=first", "--kubeconfig=absent"], vec![], 1, "cannot use the kubeconfig absent"),
    ] {
        let (status, said) = run(&arguments, &variables).await;
        assert_eq!(status, Some(code), "{arguments:?} {variables:?}: {said}");
        assert!(said.contains(words), "{arguments:?} {variables:?}: {said}");
    }
}
