//! A scaler for the external triggers, written in Go with the gRPC library that most scalers use. It does what tests tell
//! it over HTTP; `xtask/external-scaler/main.go` says how.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::go_program::GoProgram;
use super::{Running, wait_until_ready};
use crate::network::free_ports;
use crate::process_group::ProcessGroup;

const READY_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const PROGRAM: GoProgram = GoProgram { name: "external-scaler", tags: "" };

/// Starts the scaler, built first when its sources are not built yet.
pub fn start() -> Result<Running> {
    let program = PROGRAM.provide()?;
    let [port] = free_ports()?;
    let mut group = ProcessGroup::start(PROGRAM.name)?;
    let mut command = Command::new(program);
    command.arg(format!("-control=127.0.0.1:{port}")).arg("-directory").arg(group.directory());
    group.spawn(PROGRAM.name, command)?;
    wait_until_ready(&mut group, READY_WITHIN, || answers(port))?;
    Ok(Running { variables: vec![("TIDEMARK_TEST_EXTERNAL_SCALER", format!("http://127.0.0.1:{port}"))], group })
}

/// True when the scaler says where it listens.
fn answers(port: u16) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(status.ends_with(b" 200"))
}
