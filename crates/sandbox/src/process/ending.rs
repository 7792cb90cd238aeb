//! How a container is brought to its end: its hook, then SIGTERM, then SIGKILL.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::probe::{Check, Place};

/// A shim ends its group by itself at the end of the grace; after this much more it is ended from here.
const SHIM_LATE: Duration = Duration::from_secs(2);
/// What is left at least between SIGTERM and SIGKILL when a hook took its time.
const AFTER_HOOK: Duration = Duration::from_secs(2);

/// What is to be done now.
pub(super) enum Due {
    /// SIGTERM, and SIGKILL after the grace.
    Stop { grace: Duration },
    /// SIGKILL.
    Kill,
}

/// The way to the end of one run.
#[derive(Default)]
pub(super) struct Ending<'a> {
    /// What comes before SIGTERM.
    hook: Option<BoxFuture<'a, ()>>,
    hooked: bool,
    /// The end of the grace.
    end: Option<Instant>,
    kill: Option<Instant>,
}

impl<'a> Ending<'a> {
    /// Whether it has been ordered.
    pub(super) fn is_on(&self) -> bool {
        self.end.is_some()
    }

    /// Orders the end within the grace. A further order may shorten the time and never lengthens it.
    pub(super) fn order(&mut self, grace: Duration, hook: Option<(&'a Check, &'a Place<'a>)>) {
        let end = Instant::now() + grace;
        let first = self.end.is_none();
        self.end = Some(self.end.map_or(end, |known| known.min(end)));
        match hook.filter(|_| first && !grace.is_zero()) {
            Some((hook, place)) => {
                self.hooked = true;
                self.hook = Some(async move { drop(hook.run(place, place.log).await) }.boxed());
            }
            None if self.hook.is_none() || grace.is_zero() => self.hook = Some(std::future::ready(()).boxed()),
            None => {}
        }
    }

    /// Waits for the next thing to do. Cancel safe.
    pub(super) async fn next(&mut self) -> Due {
        let Some(end) = self.end else { return std::future::pending().await };
        let Some(hook) = &mut self.hook else {
            let Some(kill) = self.kill else { return std::future::pending().await };
            tokio::time::sleep_until(kill).await;
            self.kill = None;
            return Due::Kill;
        };
        tokio::select! {
            biased;
            () = hook => {}
            () = tokio::time::sleep_until(end) => {}
        }
        self.hook = None;
        let now = Instant::now();
        let least = if self.hooked { AFTER_HOOK } else { Duration::ZERO };
        let grace = end.saturating_duration_since(now).max(least);
        self.kill = Some(now + grace + SHIM_LATE);
        Due::Stop { grace }
    }
}
