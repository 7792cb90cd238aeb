//! RabbitMQ with its plugins for management and for Prometheus, user `guest`, password `guest`.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Result, anyhow};

use super::{Running, debian, wait_until_ready};
use crate::network::free_ports;
use crate::process_group::ProcessGroup;

const READY_WITHIN: Duration = Duration::from_secs(120);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// URL of the broker.
pub(crate) const AMQP: &str = "TIDEMARK_TEST_RABBITMQ_AMQP";
/// Address of what Prometheus scrapes.
pub(crate) const METRICS: &str = "TIDEMARK_TEST_RABBITMQ_METRICS";

struct Ports {
    amqp: u16,
    http: u16,
    metrics: u16,
    distribution: u16,
    epmd: u16,
}

/// Starts a broker, installed first when the machine has none.
pub fn start() -> Result<Running> {
    let server = match find_server() {
        Some(server) => server,
        None => {
            let installed = debian::install("rabbitmq-server");
            // apt-get also fails when the system-wide service does not start; the program is there all the same.
            match find_server() {
                Some(server) => server,
                None => {
                    return Err(installed.err().unwrap_or_else(|| anyhow!("the package brought no rabbitmq-server")));
                }
            }
        }
    };
    let [amqp, http, metrics, distribution, epmd] = free_ports()?;
    let ports = Ports { amqp, http, metrics, distribution, epmd };
    let mut group = ProcessGroup::start("rabbitmq")?;
    write_configuration(group.directory(), &ports)?;
    // Erlang would start its port mapper as a daemon that leaves the process group and stays behind for ever.
    let mut mapper = Command::new("epmd");
    mapper.args(["-address", "127.0.0.1", "-port", &epmd.to_string()]);
    group.spawn("epmd", mapper)?;
    let command = server_command(&server, group.directory(), &ports);
    group.spawn("rabbitmq-server", command)?;
    wait_until_ready(&mut group, READY_WITHIN, || Ok(speaks_amqp(amqp)? && answers_http(http)?))?;
    let variables = vec![
        (AMQP, format!("amqp://guest:guest@127.0.0.1:{amqp}/")),
        ("TIDEMARK_TEST_RABBITMQ_HTTP", format!("http://guest:guest@127.0.0.1:{http}/")),
        (METRICS, format!("127.0.0.1:{metrics}")),
    ];
    Ok(Running { variables, group })
}

/// The broker's own start script. What Debian puts on the path is a wrapper that insists on its system-wide data.
fn find_server() -> Option<PathBuf> {
    let debian = PathBuf::from("/usr/lib/rabbitmq/bin/rabbitmq-server");
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path)
        .chain([PathBuf::from("/opt/homebrew/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|folder| folder.join("rabbitmq-server"));
    [debian].into_iter().chain(on_path).find(|candidate| candidate.is_file())
}

fn write_configuration(directory: &Path, ports: &Ports) -> io::Result<()> {
    let configuration = format!(
        "listeners.tcp.1 = 127.0.0.1:{}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {}\n\
         prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {}\n\
         disk_free_limit.absolute = 50MB\ncollect_statistics_interval = 1000\n",
        ports.amqp, ports.http, ports.metrics
    );
    fs::write(directory.join("rabbitmq.conf"), configuration)?;
    fs::write(directory.join("enabled_plugins"), "[rabbitmq_management, rabbitmq_prometheus].\n")?;
    // Empty, so that the system's file of that kind is not read.
    fs::write(directory.join("rabbitmq-env.conf"), "")
}

fn server_command(server: &Path, directory: &Path, ports: &Ports) -> Command {
    let mut command = Command::new(server);
    // A developer's own settings for another broker must not leak into this one.
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RABBITMQ_")) {
        command.env_remove(name);
    }
    command
        // The Erlang cookie is made in the home directory.
        .env("HOME", directory)
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("ERL_EPMD_PORT", ports.epmd.to_string())
        .env("RABBITMQ_NODENAME", "tidemark@localhost")
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", ports.amqp.to_string())
        .env("RABBITMQ_DIST_PORT", ports.distribution.to_string())
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false");
    for (variable, file) in [
        ("RABBITMQ_CONF_ENV_FILE", "rabbitmq-env.conf"),
        ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
        ("RABBITMQ_GENERATED_CONFIG_DIR", "generated"),
        ("RABBITMQ_LOG_BASE", "log"),
        ("RABBITMQ_MNESIA_BASE", "mnesia"),
        ("RABBITMQ_PID_FILE", "pid"),
    ] {
        command.env(variable, directory.join(file));
    }
    command
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    Ok(stream)
}

/// True when the broker opens the AMQP 0-9-1 handshake: it answers the protocol header with a method frame.
fn speaks_amqp(port: u16) -> io::Result<bool> {
    let mut stream = connect(port)?;
    stream.write_all(b"AMQP\x00\x00\x09\x01")?;
    let mut frame_type = [0];
    stream.read_exact(&mut frame_type)?;
    Ok(frame_type == [1])
}

/// True when the management plugin lets `guest` in.
fn answers_http(port: u16) -> io::Result<bool> {
    let mut stream = connect(port)?;
    // "guest:guest" in base64.
    stream.write_all(b"GET /api/overview HTTP/1.0\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(status.ends_with(b" 200"))
}
