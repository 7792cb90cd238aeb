//! Wall time for the whole of Tidemark: an epoch plus tokio's clock.
//!
//! Nothing else reads the time. Under tokio's paused clock the wall clock stands still and jumps with it, so that
//! tests and the simulator live through a day in seconds.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// A wall clock that moves with tokio's monotonic clock. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Timestamp,
    started: Instant,
}

impl Clock {
    /// A clock that shows the machine's present time and runs on from there.
    ///
    /// Must be called inside a tokio runtime.
    pub fn system() -> Self {
        Self::starting_at(Timestamp::now())
    }

    /// A clock that shows `epoch` now. Simulations and tests start from a fixed time.
    ///
    /// Must be called inside a tokio runtime.
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self { epoch, started: Instant::now() }
    }

    /// The present wall time.
    pub fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    /// The wall time at a monotonic instant. Instants before the clock's start give its epoch.
    pub fn at(&self, instant: Instant) -> Timestamp {
        let elapsed = instant.saturating_duration_since(self.started);
        self.epoch
            .checked_add(SignedDuration::try_from(elapsed).unwrap_or(SignedDuration::MAX))
            .unwrap_or(Timestamp::MAX)
    }

    /// The monotonic instant of a wall time; times before the clock's start give its start.
    pub fn instant(&self, time: Timestamp) -> Instant {
        let ahead = time.duration_since(self.epoch);
        self.started + std::time::Duration::try_from(ahead).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn wall_time_moves_with_the_paused_clock() {
        let epoch: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let clock = Clock::starting_at(epoch);
        tokio::time::advance(std::time::Duration::from_secs(3600)).await;
        assert_eq!(clock.now().to_string(), "2026-01-01T01:00:00Z");
        assert_eq!(clock.at(clock.instant(clock.now())), clock.now());
    }
}
