//! Probes of a container: by command, HTTP GET or TCP connection.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Node;
use super::group::Group;
use super::journal::Journal;
use super::protocol::{Launch, Report};

/// Bytes of an HTTP answer that are read, as by the kubelet: a server that is left in the middle of its answer complains.
const MOST_OF_ANSWER: usize = 10 * 1024;
/// A server that keeps the connection when it has answered is left after this long.
const LINGER: Duration = Duration::from_millis(100);
/// Bytes of a command's output that are told when it fails.
const LAST_WORDS: u64 = 512;

/// Where the output of a container's probes and hooks goes.
pub(super) struct SideLogs {
    pub(super) startup: Arc<Journal>,
    pub(super) readiness: Arc<Journal>,
    pub(super) liveness: Arc<Journal>,
    pub(super) hook: Arc<Journal>,
}

/// Why a check failed, for people.
type Cause = String;

/// The probes of one run of a container.
pub(super) struct Probes {
    pub(super) startup: Option<Prober>,
    pub(super) readiness: Option<Prober>,
    pub(super) liveness: Option<Prober>,
}

impl Probes {
    /// # Errors
    /// A probe of a kind that is not done here, or for a port that has no number.
    pub(super) fn of(container: &Container, address: &str, logs: &SideLogs) -> Result<Self, String> {
        let prober = |what, probe: &Option<Probe>, initially, log: &Arc<Journal>| {
            let prober = probe.as_ref().map(|probe| Prober::new(probe, container, address, initially, log));
            prober.transpose().map_err(|message| format!("{what} of container {}: {message}", container.name))
        };
        Ok(Self {
            startup: prober("startupProbe", &container.startup_probe, None, &logs.startup)?,
            readiness: prober("readinessProbe", &container.readiness_probe, Some(false), &logs.readiness)?,
            liveness: prober("livenessProbe", &container.liveness_probe, Some(true), &logs.liveness)?,
        })
    }
}

/// Where and how commands of probes and hooks run.
pub(super) struct Place<'a> {
    pub(super) node: &'a Node,
    pub(super) launch: &'a Launch,
    /// What hooks write goes here.
    pub(super) log: &'a Arc<Journal>,
}

/// Something to be done to see whether it works: by a probe, or as a hook.
pub(super) enum Check {
    Exec(Vec<String>),
    Http { host: String, port: u16, path: String, request: String },
    Tcp { host: String, port: u16 },
    Sleep(Duration),
}

/// One probe with its history.
pub(super) struct Prober {
    check: Check,
    /// What its command writes goes here.
    log: Arc<Journal>,
    delay: Duration,
    period: Duration,
    patience: Duration,
    successes_needed: i32,
    failures_needed: i32,
    successes: i32,
    failures: i32,
    /// `None` until the container runs.
    due: Option<Instant>,
    verdict: Option<bool>,
}

impl Prober {
    fn new(
        probe: &Probe,
        container: &Container,
        address: &str,
        verdict: Option<bool>,
        log: &Arc<Journal>,
    ) -> Result<Self, String> {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
        };
        Ok(Self {
            check: Check::of(probe, container, address)?,
            log: log.clone(),
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds.filter(|period| *period > 0), 10),
            patience: seconds(probe.timeout_seconds.filter(|timeout| *timeout > 0), 1),
            successes_needed: probe.success_threshold.unwrap_or(1).max(1),
            failures_needed: probe.failure_threshold.unwrap_or(3).max(1),
            successes: 0,
            failures: 0,
            due: None,
            verdict,
        })
    }

    /// The container runs since `now`.
    pub(super) fn begin(&mut self, now: Instant) {
        self.due = Some(now + self.delay);
    }

    /// Probes until the verdict changes or has been bad for long enough, and gives it; a bad one with the last cause. Cancel
    /// safe: a probe under way is done again.
    pub(super) async fn verdict(&mut self, place: &Place<'_>) -> Result<(), Cause> {
        loop {
            let Some(due) = self.due else { return std::future::pending().await };
            tokio::time::sleep_until(due).await;
            let check = self.check.run(place, &self.log);
            let outcome = tokio::time::timeout(self.patience, check).await;
            let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer within {} s", self.patience.as_secs())));
            self.due = Some(Instant::now().max(due + self.period));
            if self.enter(outcome.is_ok()).is_some() {
                return outcome;
            }
        }
    }

    fn enter(&mut self, passed: bool) -> Option<bool> {
        if passed {
            (self.successes, self.failures) = (self.successes.saturating_add(1), 0);
        } else {
            (self.successes, self.failures) = (0, self.failures.saturating_add(1));
        }
        let enough = self.successes >= self.successes_needed || self.failures >= self.failures_needed;
        if enough && self.verdict != Some(passed) {
            self.verdict = Some(passed);
            return self.verdict;
        }
        // What is not ready from the start is told once as well.
        (!passed && self.failures == self.failures_needed).then_some(false)
    }
}

impl Check {
    fn of(probe: &Probe, container: &Container, address: &str) -> Result<Self, String> {
        let host = |host: &Option<String>| host.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| address.to_owned());
        if let Some(exec) = &probe.exec {
            let command = exec.command.clone().unwrap_or_default();
            return if command.is_empty() { Err("exec without a command".to_owned()) } else { Ok(Self::Exec(command)) };
        }
        if let Some(http) = &probe.http_get {
            if http.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("HTTPS")) {
                return Err("httpGet over HTTPS is not done by process pods".to_owned());
            }
            let (host, port) = (host(&http.host), number(&http.port, container)?);
            let path = http.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
            let headers = http.http_headers.iter().flatten();
            let headers: String = headers.map(|header| format!("{}: {}\r\n", header.name, header.value)).collect();
            let head = format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: kube-probe/1.36\r\n");
            let request = format!("{head}{headers}Connection: close\r\n\r\n");
            return Ok(Self::Http { host, port, path: path.to_owned(), request });
        }
        if let Some(tcp) = &probe.tcp_socket {
            return Ok(Self::Tcp { host: host(&tcp.host), port: number(&tcp.port, container)? });
        }
        Err("process pods know exec, httpGet and tcpSocket".to_owned())
    }

    /// A hook of a container's life.
    pub(super) fn of_hook(hook: &LifecycleHandler, container: &Container, address: &str) -> Result<Self, String> {
        if let Some(sleep) = &hook.sleep {
            return Ok(Self::Sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or_default())));
        }
        let (exec, http_get, tcp_socket) = (hook.exec.clone(), hook.http_get.clone(), hook.tcp_socket.clone());
        Self::of(&Probe { exec, http_get, tcp_socket, ..Default::default() }, container, address)
    }

    /// Does it; what a command writes goes to `log`.
    ///
    /// # Errors
    /// The cause, when it does not pass.
    pub(super) async fn run(&self, place: &Place<'_>, log: &Arc<Journal>) -> Result<(), Cause> {
        match self {
            Self::Exec(command) => execute(command, place, log).await,
            Self::Http { host, port, path, request } => {
                let cause = match get((host, *port), request).await {
                    Ok(200..400) => return Ok(()),
                    Ok(status) => format!("status {status}"),
                    Err(error) => error.to_string(),
                };
                Err(format!("GET http://{host}:{port}{path}: {cause}"))
            }
            Self::Tcp { host, port } => {
                let connected = TcpStream::connect((host.as_str(), *port)).await;
                connected.map(drop).map_err(|error| format!("connection to {host}:{port}: {error}"))
            }
            Self::Sleep(time) => {
                tokio::time::sleep(*time).await;
                Ok(())
            }
        }
    }
}

/// The command runs under a shim of its own, which ends with the future.
async fn execute(command: &[String], place: &Place<'_>, log: &Arc<Journal>) -> Result<(), Cause> {
    let Place { node, launch, .. } = place;
    let path = launch.environment.get("PATH").map(String::as_str).unwrap_or_default();
    let Some(program) = super::environment::find(&command[0], path, &launch.working_dir) else {
        return Err(format!("exec: {:?}: executable file not found in $PATH", command[0]));
    };
    let probe = Launch { program, arguments: command.to_vec(), ..(*launch).clone() };
    let group = Group::start(&node.settings, node.clock, probe, log).await;
    let mut group = group.map_err(|error| format!("the shim cannot be started: {error}"))?;
    let cause = loop {
        match group.report().await {
            Some(Report::Started) => {}
            Some(Report::Exited { code: 0, .. }) => break None,
            Some(Report::Exited { code, .. }) => break Some(format!("exit code {code}")),
            Some(Report::Failed { message }) => break Some(message),
            None => break Some("ended from outside".to_owned()),
        }
    };
    group.end().await;
    let Some(cause) = cause else { return Ok(()) };
    let words = log.last_words(LAST_WORDS);
    Err(if words.is_empty() { cause } else { format!("{cause}: {words}") })
}

/// The answer's status.
async fn get(server: (&str, u16), request: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(request.as_bytes()).await?;
    // `HTTP/1.1 200`
    let mut start = [0; 12];
    stream.read_exact(&mut start).await?;
    let status = start.strip_prefix(b"HTTP/1.").and_then(|rest| std::str::from_utf8(rest.get(2..)?).ok()?.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other("the answer is not HTTP"))?;
    let rest = async {
        let (mut chunk, mut read) = ([0; 1024], 0);
        while read < MOST_OF_ANSWER
            && let Ok(more @ 1..) = stream.read(&mut chunk).await
        {
            read += more;
        }
    };
    let _ = tokio::time::timeout(LINGER, rest).await;
    Ok(status)
}

fn number(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    number.and_then(|number| u16::try_from(number).ok()).ok_or_else(|| format!("port {port:?} has no number"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn log() -> Arc<Journal> {
        Arc::new(Journal::new(std::path::PathBuf::new()))
    }

    fn prober(probe: serde_json::Value, verdict: Option<bool>) -> Prober {
        let probe = serde_json::from_value(probe).unwrap();
        Prober::new(&probe, &Container::default(), "127.1.0.1", verdict, &log())
            .unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_verdict_needs_its_threshold() {
        let probe = json!({ "tcpSocket": { "port": 80 }, "failureThreshold": 2, "successThreshold": 2 });
        let mut prober = prober(probe, Some(false));
        let verdicts: Vec<_> = [true, true, false, true, false, false].map(|passed| prober.enter(passed)).into();
        assert_eq!(verdicts, [None, Some(true), None, None, None, Some(false)]);
    }

    #[test]
    fn what_cannot_be_probed_is_said() {
        let container = Container::default();
        for (probe, word) in [
            (json!({ "grpc": { "port": 80 } }), "exec, httpGet and tcpSocket"),
            (json!({ "httpGet": { "port": "web" } }), "no number"),
            (json!({ "httpGet": { "port": 80, "scheme": "HTTPS" } }), "HTTPS"),
        ] {
            let probe: Probe = serde_json::from_value(probe).unwrap();
            let error = Prober::new(&probe, &container, "127.1.0.1", None, &log()).err().unwrap();
            assert!(error.contains(word), "{error}");
        }
    }

    #[tokio::test]
    async fn an_answer_is_read_to_its_end() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 18];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.0 503 Service Unavailable\r\n\r\n").await.unwrap();
            // A client that had gone by now would have the second write fail.
            for _ in 0..2 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                stream.write_all(&[b'x'; 1024]).await?;
            }
            stream.shutdown().await
        });
        assert_eq!(get(("127.0.0.1", port), "GET / HTTP/1.1\r\n\r\n").await.unwrap(), 503);
        served.await.unwrap().unwrap();
    }
}
