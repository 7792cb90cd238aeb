//! PostgreSQL with the user `tidemark`, password `secret`, who may do everything, and a database of that name.

use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{Running, debian, wait_until_ready};
use crate::network::free_ports;
use crate::process_group::ProcessGroup;

const READY_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// One user for each older way to prove a password, the newest one for all others.
const ACCESS: &str = "\
host all tidemark_md5 127.0.0.1/32 md5
host all tidemark_plain 127.0.0.1/32 password
host all all 127.0.0.1/32 scram-sha-256
";

/// Whom the server runs as.
type Account = Option<(u32, u32)>;

/// Starts a server, installed first when the machine has none.
pub fn start() -> Result<Running> {
    let programs = match find_programs() {
        Some(programs) => programs,
        None => {
            let installed = debian::install("postgresql");
            match find_programs() {
                Some(programs) => programs,
                None => return Err(installed.err().unwrap_or_else(|| anyhow!("the package brought no initdb"))),
            }
        }
    };
    let account = account()?;
    let [port] = free_ports()?;
    let mut group = ProcessGroup::start("postgresql")?;
    let data = group.directory().join("data");
    initialize(&programs, group.directory(), &data, account)?;
    let mut server = command(&programs.join("postgres"), group.directory(), account);
    server.arg("-D").arg(&data).args(["-p", &port.to_string()]);
    for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"] {
        server.args(["-c", setting]);
    }
    group.spawn("postgres", server)?;
    wait_until_ready(&mut group, READY_WITHIN, || asks_for_password(port))?;
    let url = format!("postgres://tidemark:secret@127.0.0.1:{port}/tidemark");
    Ok(Running { variables: vec![("TIDEMARK_TEST_POSTGRESQL", url)], group })
}

/// The folder of `initdb` and `postgres`, which Debian keeps off the path; the newest version of several.
fn find_programs() -> Option<PathBuf> {
    let mut debian: Vec<_> = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().collect();
    debian.sort_by_key(|entry| entry.file_name().to_string_lossy().parse::<u32>().unwrap_or_default());
    let debian = debian.iter().rev().map(|entry| entry.path().join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let complete = |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    debian.chain(env::split_paths(&path)).find(complete)
}

/// The server refuses to run as root: then it runs as the package's own user, or as nobody.
fn account() -> Result<Account> {
    let id = |arguments: &[&str]| -> Option<u32> {
        let output = Command::new("id").args(arguments).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    if id(&["-u"]) != Some(0) {
        return Ok(None);
    }
    for user in ["postgres", "nobody"] {
        if let (Some(uid), Some(gid)) = (id(&["-u", user]), id(&["-g", user])) {
            return Ok(Some((uid, gid)));
        }
    }
    bail!("there is neither a user postgres nor a user nobody to run the server as");
}

fn command(program: &Path, directory: &Path, account: Account) -> Command {
    let mut command = Command::new(program);
    // A developer's own settings for another server must not leak into this one.
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command.current_dir(directory).env("HOME", directory).env("LC_ALL", "C");
    if let Some((uid, gid)) = account {
        command.uid(uid).gid(gid);
    }
    command
}

/// Makes the data directory, with the user and the database.
fn initialize(programs: &Path, directory: &Path, data: &Path, account: Account) -> Result<()> {
    let password = directory.join("password");
    fs::write(&password, "secret\n")?;
    fs::set_permissions(&password, Permissions::from_mode(0o600))?;
    if let Some((uid, gid)) = account {
        for path in [directory, &password] {
            chown(path, Some(uid), Some(gid))?;
        }
    }
    let mut initdb = command(&programs.join("initdb"), directory, account);
    initdb.arg("-D").arg(data).arg("--pwfile").arg(&password);
    initdb.args(["-U", "tidemark", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync"]);
    finish(initdb, "")?;
    let mut single = command(&programs.join("postgres"), directory, account);
    single.arg("--single").arg("-D").arg(data).arg("postgres");
    finish(single, "CREATE DATABASE tidemark;\n")?;
    fs::write(data.join("pg_hba.conf"), ACCESS)?;
    Ok(())
}

/// Runs a command to its end.
fn finish(mut command: Command, input: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().with_context(|| format!("cannot start {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    // In its single-user mode the server reports a failed statement and ends well.
    ensure!(output.status.success() && !errors.contains("ERROR"), "{program} failed: {errors}");
    Ok(())
}

/// True when the server answers the start of a session with the question for a password; while it starts up, with an
/// error.
fn asks_for_password(port: u16) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    let parameters = b"user\0tidemark\0database\0tidemark\0\0";
    let length = (parameters.len() + 8) as u32;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&[0, 3, 0, 0])?;
    stream.write_all(parameters)?;
    let mut tag = [0];
    stream.read_exact(&mut tag)?;
    Ok(tag == *b"R")
}
