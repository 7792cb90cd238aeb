//! Ctrl-C and SIGTERM.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals by which the user or the system asks the process to stop. From the moment it is made, none of them ends
/// the process by itself.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens for signals that come from now on.
    ///
    /// # Errors
    /// The process cannot listen for signals.
    pub fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            hangup: signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?,
        })
    }

    /// Resolves when a stop is asked for.
    pub async fn stop(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Resolves when a stop is asked for once more. What comes within a second of the first time is the same request:
/// programs that pass signals on often send them twice.
///
/// # Errors
/// The process cannot listen for signals.
pub async fn again() -> anyhow::Result<()> {
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    Signals::listen()?.stop().await;
    Ok(())
}
