//! A container's process group, seen from the kubelet: the other end of a shim's pipe.

use std::io;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tidemark_clock::Clock;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::Settings;
use super::journal::Journal;
use super::log::Flow;
use super::protocol::{Launch, Order, Report};

/// A shim reads its orders at once; one that does not within this time is not well.
const ORDER_PATIENCE: Duration = Duration::from_secs(10);

/// Where pipes cannot be made close-on-exec in one step (macOS), a shim spawned meanwhile by another thread would inherit
/// the pipe of this one and hold it open.
static SPAWNING: Mutex<()> = Mutex::new(());

/// A running shim. Dropping it closes the pipe, upon which the shim ends its group.
pub(super) struct Group {
    shim: Child,
    /// The leader's id is the group's.
    id: Option<Pid>,
    orders: ChildStdin,
    reports: Lines<BufReader<ChildStdout>>,
    output: Flow,
}

impl Group {
    /// Starts a shim and gives it its container, whose output is appended to `log`.
    pub(super) async fn start(
        settings: &Settings,
        clock: Clock,
        launch: Launch,
        log: &Arc<Journal>,
    ) -> io::Result<Self> {
        let mut command = Command::new(&settings.exe);
        command.args(&settings.shim_arguments).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let spawn = || {
            let mut shim = {
                let _alone = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
                command.spawn()?
            };
            Ok((shim.stderr.take().ok_or_else(broken)?, shim))
        };
        let (output, mut shim) = Flow::start(log, clock, spawn).await?;
        let id = shim.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let orders = shim.stdin.take().ok_or_else(broken)?;
        let reports = BufReader::new(shim.stdout.take().ok_or_else(broken)?).lines();
        let mut group = Self { shim, id, orders, reports, output };
        group.order(&Order::Start(launch)).await?;
        Ok(group)
    }

    /// The id of the process group, which is its leader's.
    pub(super) fn id(&self) -> Option<u32> {
        self.id.and_then(|id| u32::try_from(id.as_raw_nonzero().get()).ok())
    }

    /// Asks the container to end, and ends it after `grace`.
    pub(super) async fn stop(&mut self, grace: Duration) -> io::Result<()> {
        self.order(&Order::Stop { grace: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX) }).await
    }

    async fn order(&mut self, order: &Order) -> io::Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let orders = &mut self.orders;
        let written = tokio::time::timeout(ORDER_PATIENCE, async move {
            orders.write_all(&line).await?;
            orders.flush().await
        });
        written.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The shim's next report; `None` when the shim has gone. Cancel safe.
    pub(super) async fn report(&mut self) -> Option<Report> {
        loop {
            let line = self.reports.next_line().await.ok()??;
            // The shim shares its standard output with whatever starts it, so a stray line is no error.
            if let Ok(report) = serde_json::from_str(&line) {
                return Some(report);
            }
        }
    }

    /// Ends what is left of the group and returns when the shim has gone and its output is in the log.
    pub(super) async fn end(mut self) {
        // Before the shim is waited for: until then nobody else can get its id.
        self.kill();
        if let Err(error) = self.shim.wait().await {
            tracing::warn!(%error, "a shim could not be waited for");
        }
        self.output.end().await;
    }

    pub(super) fn kill(&self) {
        if let Some(id) = self.id {
            // It fails when the group has ended already.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}
