//! The processes of both, and what the system knows of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use xtask::process_group::ProcessGroup;
use xtask::services::keda;

pub const NAMESPACE: &str = "keda";
pub const OPERATOR: &str = "keda-operator";
pub const METRICS_SERVER: &str = "keda-metrics-apiserver";
/// How long a process may take to end by itself, as in KEDA's manifests.
const GRACE: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum System {
    /// KEDA with the flags of its manifests: its client asks the API server at most 20 times a second
    Keda,
    /// The same with 1,000 requests a second
    KedaUnthrottled,
    /// Tidemark with the flags of its manifests
    Tidemark,
}

impl std::fmt::Display for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Keda => "KEDA",
            Self::KedaUnthrottled => "KEDA, unthrottled",
            Self::Tidemark => "Tidemark",
        })
    }
}

/// Where the programs are.
pub struct Programs {
    /// Folder of [`keda::PROGRAMS`].
    pub keda: PathBuf,
    pub tidemark: PathBuf,
}

/// What the processes are told: files, and ports of the loopback.
pub struct Places {
    pub operator_kubeconfig: PathBuf,
    pub metrics_server_kubeconfig: PathBuf,
    pub certs: PathBuf,
    /// Where the operator answers the metrics server.
    pub link: u16,
    /// Where the metrics server answers the API server.
    pub api: u16,
    /// Metrics of the operator, its health, its reasons, and metrics of the metrics server.
    pub other: [u16; 4],
}

/// The operator.
pub fn operator(system: System, programs: &Programs, places: &Places) -> Command {
    let [metrics, health, reasons, _] = places.other;
    let mut command = match system {
        System::Keda | System::KedaUnthrottled => Command::new(programs.keda.join(keda::PROGRAMS[0])),
        System::Tidemark => {
            let mut command = Command::new(&programs.tidemark);
            command.arg("operator").arg(format!("--reasons-bind-address=127.0.0.1:{reasons}"));
            command
        }
    };
    common(&mut command, system, &places.operator_kubeconfig, &places.certs, "info");
    command.args(["--leader-elect", "--enable-cert-rotation=true", "--enable-webhook-patching=false"]).args([
        format!("--metrics-service-bind-address=127.0.0.1:{}", places.link),
        format!("--metrics-bind-address=127.0.0.1:{metrics}"),
        format!("--health-probe-bind-address=127.0.0.1:{health}"),
    ]);
    command
}

/// The metrics server. It needs the certificates.
pub fn metrics_server(system: System, programs: &Programs, places: &Places) -> Command {
    let kubeconfig = places.metrics_server_kubeconfig.display();
    let mut command = match system {
        System::Keda | System::KedaUnthrottled => {
            let mut command = Command::new(programs.keda.join(keda::PROGRAMS[1]));
            // In a pod all are the pod's own.
            command.args([
                format!("--lister-kubeconfig={kubeconfig}"),
                format!("--authentication-kubeconfig={kubeconfig}"),
                format!("--authorization-kubeconfig={kubeconfig}"),
            ]);
            command
        }
        System::Tidemark => {
            let mut command = Command::new(&programs.tidemark);
            command.arg("metrics-server");
            command
        }
    };
    common(&mut command, system, &places.metrics_server_kubeconfig, &places.certs, "error");
    let cert = |file: &str| places.certs.join(file).display().to_string();
    command.args([
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", places.api),
        format!("--port={}", places.other[3]),
        format!("--client-ca-file={}", cert("ca.crt")),
        format!("--tls-cert-file={}", cert("tls.crt")),
        format!("--tls-private-key-file={}", cert("tls.key")),
        format!("--metrics-service-address=127.0.0.1:{}", places.link),
        format!("--metrics-service-grpc-authority={OPERATOR}.{NAMESPACE}.svc.cluster.local"),
    ]);
    command
}

fn common(command: &mut Command, system: System, kubeconfig: &Path, certs: &Path, level: &str) {
    command.env_clear().envs([
        ("POD_NAMESPACE", NAMESPACE),
        ("WATCH_NAMESPACE", ""),
        // What a pod has as a file.
        ("KEDA_CLUSTER_OBJECT_NAMESPACE", NAMESPACE),
        ("HOSTNAME", "measured"),
        // A machine that does other things as well must not cost an operator its Lease.
        ("KEDA_OPERATOR_LEADER_ELECTION_LEASE_DURATION", "60s"),
        ("KEDA_OPERATOR_LEADER_ELECTION_RENEW_DEADLINE", "50s"),
    ]);
    command.args([
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--cert-dir={}", certs.display()),
        format!("--zap-log-level={level}"),
        "--zap-encoder=console".to_owned(),
    ]);
    if system == System::KedaUnthrottled {
        command.args(["--kube-api-qps=1000", "--kube-api-burst=1000"]);
    }
}

/// Asks a process to end, and waits until it has.
pub async fn stop(group: &mut ProcessGroup, name: &str) {
    let id = group.process_id(name).and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).unwrap();
    // It may have ended by itself.
    let _ = kill_process(id, Signal::TERM);
    let asked = Instant::now();
    while asked.elapsed() < GRACE && group.ended().unwrap().is_none_or(|(ended, _)| ended != name) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    group.kill(name).unwrap();
}

/// What a process holds, in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident, of that anonymous (not a file's), and the most that was ever resident.
    pub resident: f64,
    pub anonymous: f64,
    pub peak: f64,
}

/// Reads `/proc`.
pub fn memory(id: u32) -> Memory {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let of = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    };
    Memory { resident: of("VmRSS"), anonymous: of("RssAnon"), peak: of("VmHWM") }
}

/// Processor time of a process so far, in its programs and in the kernel.
pub fn processor_time(id: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    // The name, in parentheses, may hold anything.
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..=12].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}
