//! An OpenTelemetry Collector that writes to a Prometheus of its own, both as an example configures them.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use super::go_program::GoProgram;
use super::{Running, fail_if_ended, prometheus, wait_until_ready};
use crate::network::free_ports;
use crate::process_group::ProcessGroup;
use crate::test::workspace;

/// The variable that names a Collector to use instead of building one. It must have the components of the one here; the
/// distribution `otelcol-contrib` has.
pub const VARIABLE: &str = "TIDEMARK_TEST_COLLECTOR";

const READY_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Without the tag it would hold the clients of all clouds, to find targets there.
const PROGRAM: GoProgram = GoProgram { name: "collector", tags: "remove_all_sd" };
/// Where the examples' configurations have the Collector's OTLP receiver and Prometheus.
const OTLP: &str = "127.0.0.1:4318";
const PROMETHEUS: &str = "127.0.0.1:9090";

/// The Collector to use, when there is one: the one that [`VARIABLE`] names, else that of the per-user cache.
///
/// # Errors
/// When the variable names no file, or no home directory is known.
pub fn find() -> Result<Option<PathBuf>> {
    if let Some(named) = env::var_os(VARIABLE).filter(|named| !named.is_empty()) {
        let program = PathBuf::from(named);
        ensure!(program.is_file(), "{VARIABLE} is set to {}, which is no file", program.display());
        return Ok(Some(program));
    }
    PROGRAM.find()
}

/// The Collector to use, built first when there is none, which takes some minutes.
///
/// # Errors
/// Those of [`find`]; no Go toolchain; a module that cannot be downloaded or built.
pub fn provide() -> Result<PathBuf> {
    match find()? {
        Some(program) => Ok(program),
        None => PROGRAM.provide(),
    }
}

/// The service `collector`: configured as the HTTP example has it.
pub(super) fn start() -> Result<Running> {
    let pipeline = Pipeline::start(&workspace().join("examples/http/telemetry"), &[])?;
    let variables = vec![
        ("TIDEMARK_TEST_COLLECTOR_OTLP", pipeline.otlp()),
        ("TIDEMARK_TEST_COLLECTOR_PROMETHEUS", pipeline.prometheus()),
    ];
    Ok(Running { variables, group: pipeline.group })
}

/// A Collector and the Prometheus that it writes to. They and what they have stored are gone when this is dropped.
#[derive(Debug)]
pub struct Pipeline {
    group: ProcessGroup,
    otlp: u16,
    prometheus: u16,
}

impl Pipeline {
    /// Starts both on free ports of the loopback interface. `folder` holds `collector.yaml` and `prometheus.yml`; their
    /// own ports apart, each of `changes` is an address in them and what takes its place.
    ///
    /// # Errors
    /// Those of [`provide`]; no Prometheus can be had; a configuration that is refused or has no such address.
    pub fn start(folder: &Path, changes: &[(&str, &str)]) -> Result<Self> {
        let (collector, server) = (provide()?, prometheus::server()?);
        let [otlp, port] = free_ports()?;
        let mut group = ProcessGroup::start("collector")?;
        let addresses = (format!("127.0.0.1:{otlp}"), format!("127.0.0.1:{port}"));
        let own = [(OTLP, &*addresses.0), (PROMETHEUS, &*addresses.1)];
        let all: Vec<_> = own.into_iter().chain(changes.iter().copied()).collect();
        let configuration = configure(&folder.join("collector.yaml"), group.directory(), &all)?;
        let scraping = configure(&folder.join("prometheus.yml"), group.directory(), &[])?;

        let mut command = Command::new(server);
        command
            .arg(format!("--config.file={}", scraping.display()))
            .arg(format!("--storage.tsdb.path={}", group.directory().join("data").display()))
            .arg(format!("--web.listen-address={}", addresses.1))
            .args(["--web.enable-remote-write-receiver", "--log.level=warn"]);
        group.spawn("prometheus", command)?;
        let mut command = Command::new(collector);
        command.arg("--config").arg(configuration);
        group.spawn("collector", command)?;
        wait_until_ready(&mut group, READY_WITHIN, || Ok(is_ready(port)? && receives(otlp)?))?;
        Ok(Self { group, otlp, prometheus: port })
    }

    /// Base URL of the Collector's OTLP receiver, over HTTP.
    pub fn otlp(&self) -> String {
        format!("http://127.0.0.1:{}", self.otlp)
    }

    /// URL of Prometheus.
    pub fn prometheus(&self) -> String {
        format!("http://127.0.0.1:{}", self.prometheus)
    }

    /// # Errors
    /// When one of them has ended by itself, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        fail_if_ended(&mut self.group)
    }
}

/// Copies a file into a folder, with other addresses in it.
fn configure(file: &Path, folder: &Path, changes: &[(&str, &str)]) -> Result<PathBuf> {
    let mut text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    for (from, to) in changes {
        ensure!(text.contains(from), "{} has no {from}", file.display());
        text = text.replace(from, to);
    }
    let copy = folder.join(file.file_name().context("the file has a name")?);
    fs::write(&copy, text).with_context(|| format!("cannot write {}", copy.display()))?;
    Ok(copy)
}

fn is_ready(port: u16) -> io::Result<bool> {
    Ok(prometheus::get(port, "/-/ready")?.starts_with("HTTP/1.0 200"))
}

/// True when the Collector takes an export, an empty one.
fn receives(port: u16) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    let head = "POST /v1/metrics HTTP/1.0\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(status.ends_with(b" 200"))
}
