//! Wall time for the whole of Tidemark: an epoch plus tokio's clock.
//!
//! Nothing else reads the time. Under tokio's paused clock the wall clock stands still and jumps with it, so that
//! tests and the simulator live through a day in seconds.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// The machine's wall clock may be off by this much before ours follows. Small steps are left alone, so that the wall
/// time of an instant does not change with every look.
const TOLERANCE_NANOS: u64 = 1_000_000_000;

/// When this process first asked for the time.
static START: OnceLock<(Timestamp, Instant)> = OnceLock::new();
/// By how much the machine's wall clock has since run ahead of its monotonic clock, which stands still while the
/// machine sleeps and knows nothing of corrections.
static DRIFT_NANOS: AtomicI64 = AtomicI64::new(0);

/// A wall clock that moves with tokio's monotonic clock. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Timestamp,
    started: Instant,
    follows_machine: bool,
}

impl Clock {
    /// A clock that shows the machine's time, also after the machine has slept or its clock was set.
    ///
    /// Must be called inside a tokio runtime whose clock is not paused.
    pub fn system() -> Self {
        let (epoch, started) = *START.get_or_init(|| (Timestamp::now(), Instant::now()));
        Self { epoch, started, follows_machine: true }
    }

    /// A clock that shows `epoch` now and moves with tokio's clock alone. Simulations and tests start from a fixed time.
    ///
    /// Must be called inside a tokio runtime.
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self { epoch, started: Instant::now(), follows_machine: false }
    }

    /// The present wall time.
    pub fn now(&self) -> Timestamp {
        let instant = Instant::now();
        if self.follows_machine {
            let known = DRIFT_NANOS.load(Ordering::Relaxed);
            let undrifted = Self { follows_machine: false, ..*self }.at(instant);
            let drift = i64::try_from(Timestamp::now().duration_since(undrifted).as_nanos()).unwrap_or(known);
            if drift.abs_diff(known) > TOLERANCE_NANOS {
                // Whoever else sees the step at the same time stores the same.
                DRIFT_NANOS.store(drift, Ordering::Relaxed);
            }
        }
        self.at(instant)
    }

    /// The wall time at a monotonic instant. Instants before the clock's start give its epoch.
    pub fn at(&self, instant: Instant) -> Timestamp {
        let elapsed = SignedDuration::try_from(instant.saturating_duration_since(self.started));
        let elapsed = elapsed.unwrap_or(SignedDuration::MAX).saturating_add(self.drift());
        self.epoch.checked_add(elapsed).unwrap_or(Timestamp::MAX)
    }

    /// The monotonic instant of a wall time; times before the clock's start give its start.
    pub fn instant(&self, time: Timestamp) -> Instant {
        let ahead = time.duration_since(self.epoch).saturating_sub(self.drift());
        self.started + std::time::Duration::try_from(ahead).unwrap_or_default()
    }

    fn drift(&self) -> SignedDuration {
        match self.follows_machine {
            true => SignedDuration::from_nanos(DRIFT_NANOS.load(Ordering::Relaxed)),
            false => SignedDuration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn wall_time_moves_with_the_paused_clock() {
        let epoch: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let clock = Clock::starting_at(epoch);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(clock.now().to_string(), "2026-01-01T01:00:00Z");
        assert_eq!(clock.at(clock.instant(clock.now())), clock.now());
    }

    /// Seen from the paused clock, the machine's wall clock falls behind: the same as a sleep with the sign changed.
    #[tokio::test(start_paused = true)]
    async fn the_system_clock_follows_the_machine_when_the_monotonic_clock_does_not() {
        let clock = Clock::system();
        let before = clock.now();
        tokio::time::advance(Duration::from_secs(3600)).await;
        let after = clock.now();
        assert!(after.duration_since(before).abs() < SignedDuration::from_secs(60), "{before} {after}");
        assert_eq!(clock.at(clock.instant(after)), after);
    }
}
