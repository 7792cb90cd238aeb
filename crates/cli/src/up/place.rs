//! Where a run has its port, its kubeconfig and its logs.

use std::fs::{self, DirBuilder, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use tokio::net::TcpListener;

use super::Places;
use crate::kubeconfig;

/// In a run's folder, locked for as long as the run lives.
const LOCK: &str = "lock";
/// Folders of runs at other ports that have ended and are kept, the latest ones: somebody may still want to read their logs.
const KEPT: usize = 3;

/// Says that a run is alive, for as long as it is held.
pub(super) struct Alive {
    _lock: Option<File>,
}

/// Takes a port (0: any free one) and makes the folder that belongs to it.
///
/// # Errors
/// The port is taken, or the folder cannot be made.
pub(super) async fn find(port: u16, kubeconfig: Option<&Path>) -> anyhow::Result<(TcpListener, Places, Alive)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.with_context(|| {
        format!("cannot listen on port {port} of 127.0.0.1: if another `tidemark up` runs, give --port 0")
    })?;
    let port = listener.local_addr()?.port();
    let state = kubeconfig::state_folder()?;
    let folder = state.join(port.to_string());
    // Absolute, so that what is printed works from any folder.
    let kubeconfig = kubeconfig.map_or_else(|| folder.join("kubeconfig"), Path::to_owned);
    let kubeconfig = std::path::absolute(kubeconfig).context("cannot find the working directory")?;
    let logs = folder.join("logs");
    // The logs of the last run at this port; pods of other names would otherwise pile up.
    let _ = fs::remove_dir_all(&logs);
    // What pods write is their user's alone.
    let mut private = DirBuilder::new();
    private.recursive(true).mode(0o700);
    private.create(&logs).with_context(|| format!("cannot make the folder {}", logs.display()))?;
    // Where files cannot be locked, no folder is ever taken for that of a run that has ended.
    let lock = File::create(folder.join(LOCK)).ok().filter(|lock| lock.try_lock().is_ok());
    clean(&state, &folder);
    let places = Places { server: format!("https://127.0.0.1:{port}"), kubeconfig, logs };
    Ok((listener, places, Alive { _lock: lock }))
}

/// Removes the folders of runs that have ended, but for the latest ones and `own`.
fn clean(state: &Path, own: &Path) {
    let mut ended: Vec<(SystemTime, PathBuf)> = fs::read_dir(state)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|folder| folder != own && is_of_a_port(folder))
        .filter_map(|folder| Some((ended(&folder)?, folder)))
        .collect();
    ended.sort();
    for (_, folder) in ended.iter().rev().skip(KEPT) {
        // It is in nobody's way but in that of the next look.
        let _ = fs::remove_dir_all(folder);
    }
}

fn is_of_a_port(folder: &Path) -> bool {
    folder.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<u16>().is_ok())
}

/// When the run of a folder began, if it has ended: then nobody holds its lock.
fn ended(folder: &Path) -> Option<SystemTime> {
    let lock = File::open(folder.join(LOCK)).ok()?;
    lock.try_lock().ok()?;
    lock.metadata().and_then(|lock| lock.modified()).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_folders_of_older_runs_that_have_ended_are_removed() {
        let state = std::env::temp_dir().join(format!("tidemark-place-{}", std::process::id()));
        let run = |name: &str, age: u64| {
            let folder = state.join(name);
            fs::create_dir_all(folder.join("logs")).unwrap();
            let lock = File::create(folder.join(LOCK)).unwrap();
            lock.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - age)).unwrap();
            lock
        };
        let alive = run("4000", 90);
        alive.try_lock().unwrap();
        for (name, age) in [("4001", 50), ("4002", 10), ("4003", 20), ("4004", 30), ("4005", 40), ("own", 99)] {
            drop(run(name, age));
        }
        fs::create_dir_all(state.join("4006/logs")).unwrap();
        clean(&state, &state.join("4004"));
        let mut left: Vec<_> =
            fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        fs::remove_dir_all(&state).unwrap();
        left.sort();
        assert_eq!(left, ["4000", "4002", "4003", "4004", "4005", "4006", "own"], "4006 has no lock: who knows");
    }
}
