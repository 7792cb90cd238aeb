//! A scaler for the external triggers, written in Go with the gRPC library that most scalers use. It does what tests tell
//! it over HTTP; `xtask/external-scaler/main.go` says how.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Running, wait_until_ready};
use crate::control_plane::{find_go, go_command, user_cache};
use crate::network::free_ports;
use crate::process_group::ProcessGroup;
use crate::test::workspace;

const READY_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const PROGRAM: &str = "external-scaler";

/// Starts the scaler, built first when its sources are not built yet.
pub fn start() -> Result<Running> {
    let program = provide(&workspace().join("xtask").join(PROGRAM))?;
    let [port] = free_ports()?;
    let mut group = ProcessGroup::start(PROGRAM)?;
    let mut command = Command::new(program);
    command.arg(format!("-control=127.0.0.1:{port}")).arg("-directory").arg(group.directory());
    group.spawn(PROGRAM, command)?;
    wait_until_ready(&mut group, READY_WITHIN, || answers(port))?;
    Ok(Running { variables: vec![("TIDEMARK_TEST_EXTERNAL_SCALER", format!("http://127.0.0.1:{port}"))], group })
}

/// The program of these sources, from the per-user cache or built into it. A second caller waits for the first.
fn provide(sources: &Path) -> Result<PathBuf> {
    let folder = user_cache()?.join(PROGRAM);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let program = folder.join(format!("{PROGRAM}-{:016x}", fingerprint(sources)?));
    let lock = File::create(folder.join("lock"))?;
    lock.lock().context("cannot lock the cache of the external scaler")?;
    if program.is_file() {
        return Ok(program);
    }
    let go = find_go().context("the external scaler for the tests is a Go program")?;
    let partial = program.with_added_extension("partial");
    let status = go_command(&go, sources)
        .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o"])
        .arg(&partial)
        .arg(".")
        .status()
        .with_context(|| format!("cannot run {}", go.display()))?;
    ensure!(status.success(), "go build of {} failed: {status}", sources.display());
    fs::rename(&partial, &program)?;
    // Those of older sources are of no use any more.
    for entry in fs::read_dir(&folder)?.flatten() {
        let path = entry.path();
        if path != program && entry.file_name().to_string_lossy().starts_with(PROGRAM) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(program)
}

/// Changes with every source file.
fn fingerprint(sources: &Path) -> Result<u64> {
    let read = || -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
        let paths: io::Result<Vec<_>> = fs::read_dir(sources)?.map(|entry| Ok(entry?.path())).collect();
        let mut paths = paths?;
        paths.sort();
        paths.into_iter().map(|path| Ok((path.clone(), fs::read(path)?))).collect()
    };
    let files = read().with_context(|| format!("cannot read {}", sources.display()))?;
    let mut hasher = DefaultHasher::new();
    for (path, content) in files {
        (path.file_name(), content).hash(&mut hasher);
    }
    Ok(hasher.finish())
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
