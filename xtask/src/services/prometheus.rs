//! Prometheus, which scrapes itself: one that lets everybody in, and one that wants user `tidemark`, password `s3cret`.
//! Its package also brings promtool, which checks rules and queries.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, anyhow, ensure};

use super::{Running, debian, wait_until_ready};
use crate::network::free_ports;
use crate::process_group::ProcessGroup;

const READY_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const PROMTOOL: &str = "TIDEMARK_TEST_PROMTOOL";

/// The password as bcrypt of the lowest cost: it is checked on every request.
const USERS: &str = "basic_auth_users:\n  tidemark: \"$2b$04$abcdefghijklmnopqrstuuLZYjhNQAOdpbzt4WxWlUHjv1wsyH5DG\"\n";

/// Starts both, installed first when the machine has none.
pub fn start() -> Result<Running> {
    let server = server()?;
    let [open, closed] = free_ports()?;
    let mut group = ProcessGroup::start("prometheus")?;
    for (name, port, web) in [("open", open, "{}\n"), ("closed", closed, USERS)] {
        let directory = group.directory().join(name);
        write_configuration(&directory, port, web)?;
        group.spawn(name, server_command(&server, &directory, port))?;
    }
    wait_until_ready(&mut group, READY_WITHIN, || Ok(has_scraped(open)? && wants_login(closed)?))?;
    let promtool = promtool()?.context("prometheus is there, but not promtool, which comes with it")?;
    let variables = vec![
        (PROMTOOL, promtool.display().to_string()),
        ("TIDEMARK_TEST_PROMETHEUS", format!("http://127.0.0.1:{open}")),
        ("TIDEMARK_TEST_PROMETHEUS_LOGIN", format!("http://tidemark:s3cret@127.0.0.1:{closed}")),
    ];
    Ok(Running { variables, group })
}

/// The server's program, installed first when the machine has none.
pub(super) fn server() -> Result<PathBuf> {
    if let Some(server) = find_server() {
        return Ok(server);
    }
    let installed = debian::install("prometheus");
    // apt-get also fails when the system-wide service does not start; the program is there all the same.
    match find_server() {
        Some(server) => Ok(server),
        None => Err(installed.err().unwrap_or_else(|| anyhow!("the package brought no prometheus"))),
    }
}

/// The promtool to use, when there is one: the one that `TIDEMARK_TEST_PROMTOOL` names, else the machine's.
///
/// # Errors
/// When the variable names no file.
pub fn promtool() -> Result<Option<PathBuf>> {
    if let Some(named) = env::var_os(PROMTOOL).filter(|named| !named.is_empty()) {
        let program = PathBuf::from(named);
        ensure!(program.is_file(), "{PROMTOOL} is set to {}, which is no file", program.display());
        return Ok(Some(program));
    }
    Ok(find("promtool"))
}

fn find_server() -> Option<PathBuf> {
    find("prometheus")
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from("/opt/homebrew/bin"), PathBuf::from("/usr/local/bin")]);
    folders.map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

fn write_configuration(directory: &Path, port: u16, web: &str) -> io::Result<()> {
    let scrape = format!(
        "global:\n  scrape_interval: 1s\nscrape_configs:\n- job_name: prometheus\n  static_configs:\n  - targets: \
         [\"127.0.0.1:{port}\"]\n"
    );
    fs::create_dir(directory)?;
    fs::write(directory.join("prometheus.yml"), scrape)?;
    fs::write(directory.join("web.yml"), web)
}

fn server_command(server: &Path, directory: &Path, port: u16) -> Command {
    let mut command = Command::new(server);
    command
        .arg(format!("--config.file={}", directory.join("prometheus.yml").display()))
        .arg(format!("--web.config.file={}", directory.join("web.yml").display()))
        .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--log.level=warn");
    command
}

/// True when the server knows its own `up`.
fn has_scraped(port: u16) -> io::Result<bool> {
    let reply = get(port, "/api/v1/query?query=up")?;
    Ok(reply.starts_with("HTTP/1.0 200") && reply.contains(r#""value":["#))
}

/// True when the server is up and lets nobody in without a login.
fn wants_login(port: u16) -> io::Result<bool> {
    Ok(get(port, "/-/ready")?.starts_with("HTTP/1.0 401"))
}

/// The whole answer, head included.
pub(crate) fn get(port: u16, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
    let mut reply = String::new();
    stream.take(1 << 20).read_to_string(&mut reply)?;
    Ok(reply)
}
