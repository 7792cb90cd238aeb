//! Redis three times, each with the password `s3cret`: a server, a cluster of three nodes, and a master with a sentinel.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Result, anyhow};

use super::{Running, debian, wait_until_ready};
use crate::network::free_ports;
use crate::process_group::ProcessGroup;

const READY_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const PASSWORD: &str = "s3cret";
const MASTER: &str = "tidemark";
/// The slots of each node of the cluster: all 16384.
const SLOTS: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

/// Starts all of them, installed first when the machine has no Redis. The cluster needs version 7.
pub fn start() -> Result<Running> {
    let server = match find_server() {
        Some(server) => server,
        None => {
            let installed = debian::install("redis-server");
            // apt-get also fails when the system-wide service does not start; the program is there all the same.
            match find_server() {
                Some(server) => server,
                None => return Err(installed.err().unwrap_or_else(|| anyhow!("the package brought no redis-server"))),
            }
        }
    };
    let [single, master, sentinel] = free_ports()?;
    let mut group = ProcessGroup::start("redis")?;
    spawn(&mut group, &server, "single", single, "")?;
    spawn(&mut group, &server, "master", master, "")?;
    spawn_sentinel(&mut group, &server, sentinel, master)?;
    let nodes = spawn_cluster(&mut group, &server)?;
    wait_until_ready(&mut group, READY_WITHIN, || {
        let watches = format!("SENTINEL get-master-addr-by-name {MASTER}");
        Ok(ask(single, "PING")?.contains("PONG") && ask(sentinel, &watches)?.contains(&master.to_string()))
    })?;
    wait_until_ready(&mut group, READY_WITHIN, || {
        for (node, _) in nodes {
            if !ask(node, "CLUSTER INFO")?.contains("cluster_state:ok") {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    let nodes = nodes.map(|(port, _)| format!("127.0.0.1:{port}")).join(",");
    let login = format!("default:{PASSWORD}");
    let variables = vec![
        ("TIDEMARK_TEST_REDIS", format!("redis://{login}@127.0.0.1:{single}")),
        ("TIDEMARK_TEST_REDIS_CLUSTER", format!("redis://{login}@{nodes}")),
        ("TIDEMARK_TEST_REDIS_SENTINEL", format!("redis://{login}@127.0.0.1:{sentinel}/{MASTER}")),
    ];
    Ok(Running { variables, group })
}

fn find_server() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from("/opt/homebrew/bin"), PathBuf::from("/usr/local/bin")]);
    folders.map(|folder| folder.join("redis-server")).find(|candidate| candidate.is_file())
}

/// Starts a server that keeps nothing, in a directory of its own.
fn spawn(group: &mut ProcessGroup, server: &Path, name: &str, port: u16, more: &str) -> Result<()> {
    let configuration = format!("save \"\"\nappendonly no\nmasterauth {PASSWORD}\n{more}");
    let file = write_configuration(group, name, port, &configuration)?;
    let mut command = Command::new(server);
    command.arg(file);
    Ok(group.spawn(name, command)?)
}

fn spawn_sentinel(group: &mut ProcessGroup, server: &Path, port: u16, master: u16) -> Result<()> {
    let configuration =
        format!("sentinel monitor {MASTER} 127.0.0.1 {master} 1\nsentinel auth-pass {MASTER} {PASSWORD}\n");
    let file = write_configuration(group, "sentinel", port, &configuration)?;
    let mut command = Command::new(server);
    command.arg(file).arg("--sentinel");
    Ok(group.spawn("sentinel", command)?)
}

fn write_configuration(group: &ProcessGroup, name: &str, port: u16, more: &str) -> io::Result<PathBuf> {
    let directory = group.directory().join(name);
    fs::create_dir(&directory)?;
    let configuration = format!(
        "bind 127.0.0.1\nport {port}\ndaemonize no\nlogfile \"\"\ndir \"{}\"\nrequirepass {PASSWORD}\n{more}",
        directory.display()
    );
    let file = directory.join("redis.conf");
    fs::write(&file, configuration)?;
    Ok(file)
}

/// Starts the nodes, hands out the slots and introduces the nodes to the first one. Gives each node's ports: that of
/// clients and that of the other nodes.
fn spawn_cluster(group: &mut ProcessGroup, server: &Path) -> Result<[(u16, u16); 3]> {
    let [a, b, c, bus_a, bus_b, bus_c] = free_ports()?;
    let nodes = [(a, bus_a), (b, bus_b), (c, bus_c)];
    for (i, (port, bus)) in nodes.into_iter().enumerate() {
        let more = format!("cluster-enabled yes\ncluster-port {bus}\ncluster-node-timeout 5000\n");
        spawn(group, server, &format!("node{i}"), port, &more)?;
    }
    for ((port, _), (first, last)) in nodes.into_iter().zip(SLOTS) {
        wait_until_ready(group, READY_WITHIN, || Ok(ask(port, "PING")?.contains("PONG")))?;
        expect_ok(port, &format!("CLUSTER ADDSLOTSRANGE {first} {last}"))?;
    }
    for (port, bus) in &nodes[1..] {
        expect_ok(a, &format!("CLUSTER MEET 127.0.0.1 {port} {bus}"))?;
    }
    Ok(nodes)
}

fn expect_ok(port: u16, command: &str) -> Result<()> {
    let reply = ask(port, command)?;
    match reply.starts_with("+OK") {
        true => Ok(()),
        false => Err(anyhow!("{command}: {}", reply.trim_end())),
    }
}

/// What a server answers to a command, after the login.
fn ask(port: u16, command: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(format!("AUTH {PASSWORD}\r\n{command}\r\n").as_bytes())?;
    // A server answers what it has read before it closes too. A sentinel knows no QUIT.
    stream.shutdown(Shutdown::Write)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    // The first line answers AUTH.
    Ok(reply.split_once("\r\n").map_or(String::new(), |(_, rest)| rest.to_owned()))
}
