//! The life of a process: its parts, and the signals that end it.

mod parts;
mod signals;

use anyhow::anyhow;
use tokio_util::sync::CancellationToken;

pub use parts::Parts;
pub use signals::{Signals, again};

/// Tells all parts to stop and waits for them, unless a second signal comes first.
///
/// # Errors
/// That of `outcome`, or the second signal.
pub async fn stop(parts: &mut Parts, shutdown: &CancellationToken, outcome: anyhow::Result<()>) -> anyhow::Result<()> {
    tracing::info!("stopping");
    shutdown.cancel();
    tokio::select! {
        biased;
        () = async { while parts.join_one().await {} } => outcome,
        again = again() => again.and(Err(anyhow!("stopped at once by a second signal"))),
    }
}
