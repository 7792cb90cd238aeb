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

/// The probes of one run of a container.
pub(super) struct Probes {
    pub(super) startup: Option<Prober>,
    pub(super) readiness: Option<Prober>,
    pub(super) liveness: Option<Prober>,
}

impl Probes {
    /// # Errors
    /// A probe of a kind that is not done here, or for a port that has no number.
    pub(super) fn of(container: &Container, address: &str) -> Result<Self, String> {
        let prober = |what, probe: &Option<Probe>, initially| {
            let prober = probe.as_ref().map(|probe| Prober::new(probe, container, address, initially));
            prober.transpose().map_err(|message| format!("{what} of container {}: {message}", container.name))
        };
        Ok(Self {
            startup: prober("startupProbe", &container.startup_probe, None)?,
            readiness: prober("readinessProbe", &container.readiness_probe, Some(false))?,
            liveness: prober("livenessProbe", &container.liveness_probe, Some(true))?,
        })
    }
}

/// Where and how commands of probes and hooks run.
pub(super) struct Place<'a> {
    pub(super) node: &'a Node,
    pub(super) launch: &'a Launch,
    /// What they write goes here.
    pub(super) log: &'a Arc<Journal>,
}

/// Something to be done to see whether it works: by a probe, or as a hook.
pub(super) enum Check {
    Exec(Vec<String>),
    Http { host: String, port: u16, request: String },
    Tcp { host: String, port: u16 },
    Sleep(Duration),
}

/// One probe with its history.
pub(super) struct Prober {
    check: Check,
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
    fn new(probe: &Probe, container: &Container, address: &str, verdict: Option<bool>) -> Result<Self, String> {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
        };
        Ok(Self {
            check: Check::of(probe, container, address)?,
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

    /// Probes until the verdict changes or has been bad for long enough, and gives it. Cancel safe: a probe under way is done again.
    pub(super) async fn verdict(&mut self, place: &Place<'_>) -> bool {
        loop {
            let Some(due) = self.due else { return std::future::pending().await };
            tokio::time::sleep_until(due).await;
            let check = self.check.run(place);
            let passed = tokio::time::timeout(self.patience, check).await.unwrap_or(false);
            self.due = Some(Instant::now().max(due + self.period));
            if let Some(verdict) = self.enter(passed) {
                return verdict;
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
            return Ok(Self::Http { host, port, request: format!("{head}{headers}Connection: close\r\n\r\n") });
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

    pub(super) async fn run(&self, place: &Place<'_>) -> bool {
        match self {
            Self::Exec(command) => execute(command, place).await,
            Self::Http { host, port, request } => get((host, *port), request).await.unwrap_or(false),
            Self::Tcp { host, port } => TcpStream::connect((host.as_str(), *port)).await.is_ok(),
            Self::Sleep(time) => {
                tokio::time::sleep(*time).await;
                true
            }
        }
    }
}

/// The command runs under a shim of its own, which ends with the future.
async fn execute(command: &[String], place: &Place<'_>) -> bool {
    let Place { node, launch, log } = place;
    let path = launch.environment.get("PATH").map(String::as_str).unwrap_or_default();
    let Some(program) = super::environment::find(&command[0], path, &launch.working_dir) else { return false };
    let probe = Launch { program, arguments: command.to_vec(), ..(*launch).clone() };
    let Ok(mut group) = Group::start(&node.settings, node.clock, probe, log).await else { return false };
    let passed = loop {
        match group.report().await {
            Some(Report::Started) => {}
            Some(Report::Exited { code, .. }) => break code == 0,
            Some(Report::Failed { .. }) | None => break false,
        }
    };
    group.end().await;
    passed
}

/// Whether the answer's status is from 200 to 399. The body is not read.
async fn get(server: (&str, u16), request: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(request.as_bytes()).await?;
    // `HTTP/1.1 200`
    let mut start = [0; 12];
    stream.read_exact(&mut start).await?;
    Ok(start.starts_with(b"HTTP/1.") && matches!(start[8..], [b' ', b'2' | b'3', b'0'..=b'9', b'0'..=b'9']))
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

    fn prober(probe: serde_json::Value, verdict: Option<bool>) -> Prober {
        let probe = serde_json::from_value(probe).unwrap();
        Prober::new(&probe, &Container::default(), "127.1.0.1", verdict).unwrap_or_else(|error| panic!("{error}"))
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
            let error = Prober::new(&probe, &container, "127.1.0.1", None).err().unwrap();
            assert!(error.contains(word), "{error}");
        }
    }
}
