//! The process that stands between the kubelet and a container, so that no process outlives its pod.
//!
//! A shim leads the process group its container lives in, children and grandchildren included, and reads a pipe whose
//! only other end is in `tidemark up`. When that end closes, for whatever reason, SIGKILL of `up` included, the shim
//! ends the group. (Parent-death signals would follow the thread that spawned the process and miss grandchildren.) The
//! standard library opens pipes close-on-exec, so no other child of `up` holds the writing end open.

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Signal, getpgrp, getpid, kill_current_process_group};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

use super::protocol::{Launch, Order, Report};

/// The time that the group has to end by itself when `up` has gone.
const LAST_GRACE: Duration = Duration::from_secs(2);

/// The shim's `main`. Orders come on standard input, reports leave on standard output; the container's output goes to
/// standard error. It takes no arguments.
///
/// Returns only when there is no group to end: a shim that ran a container ends with it.
pub fn shim_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    if arguments.into_iter().next().is_some() || getpgrp() != getpid() {
        // Ending the group would end whoever started this by hand.
        eprintln!("`shim` is started by `tidemark up` alone: it takes no arguments and leads its own process group");
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            report(&Report::Failed { message: format!("the shim cannot start: {error}") });
            return ExitCode::FAILURE;
        }
    };
    if let Err(message) = runtime.block_on(run()) {
        report(&Report::Failed { message });
    }
    // Whatever the container has left behind goes now, and the shim with it.
    let _ = kill_current_process_group(Signal::KILL);
    ExitCode::FAILURE
}

async fn run() -> Result<(), String> {
    // SIGTERM to the group is meant for the container; with these handlers it passes the shim by.
    let mut passed_by = Vec::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()] {
        passed_by.push(signal(kind).map_err(|error| format!("the shim cannot handle signals: {error}"))?);
    }
    let mut orders = orders();
    let launch = match orders.recv().await {
        Some(Order::Start(launch)) => launch,
        _ => return Ok(()),
    };
    let child = start(&launch).map_err(|error| format!("exec {}: {error}", launch.program.display()))?;
    report(&Report::Started);
    if let Some(status) = attend(child, orders).await {
        report(&exited(status));
    }
    Ok(())
}

fn start(launch: &Launch) -> std::io::Result<Child> {
    let output = || std::io::stderr().as_fd().try_clone_to_owned().map(Stdio::from);
    let (name, arguments) = launch.arguments.split_first().map_or(("", &[][..]), |(name, rest)| (name, rest));
    Command::new(&launch.program)
        .arg0(name)
        .args(arguments)
        .env_clear()
        .envs(&launch.environment)
        .current_dir(&launch.working_dir)
        .stdin(Stdio::null())
        .stdout(output()?)
        .stderr(output()?)
        .spawn()
}

/// Waits for the end of the container's main process; `None` when it outstayed its grace.
async fn attend(mut child: Child, mut orders: UnboundedReceiver<Order>) -> Option<ExitStatus> {
    let mut deadline: Option<Instant> = None;
    let mut listening = true;
    loop {
        tokio::select! {
            biased;
            status = child.wait() => return status.ok(),
            order = orders.recv(), if listening => {
                let grace = match order {
                    Some(Order::Stop { grace }) => Duration::from_millis(grace),
                    _ => {
                        listening = false;
                        LAST_GRACE
                    }
                };
                let end = Instant::now() + grace;
                if deadline.is_none() {
                    // The group holds at least the shim; there is nothing to do about a failure but to go on.
                    let _ = kill_current_process_group(Signal::TERM);
                }
                deadline = Some(deadline.map_or(end, |known| known.min(end)));
            }
            () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => return None,
        }
    }
}

/// The orders from standard input; the channel closes at its end, or at a line that is no order.
fn orders() -> UnboundedReceiver<Order> {
    let (sender, receiver) = unbounded_channel();
    // A thread that blocks: it lives as long as the pipe, and ends with the process.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Some(order) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { break };
            if sender.send(order).is_err() {
                break;
            }
        }
    });
    receiver
}

fn exited(status: ExitStatus) -> Report {
    let signal = status.signal();
    Report::Exited { code: status.code().unwrap_or_else(|| 128 + signal.unwrap_or_default()), signal }
}

/// Nobody listening is not the shim's concern: then its input has ended as well.
fn report(report: &Report) {
    if let Ok(mut line) = serde_json::to_string(report) {
        line.push('\n');
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}
