//! How long requests took, in the buckets of a histogram.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Upper bounds of the buckets in milliseconds, as OpenTelemetry's SDKs have them; the last bucket has none.
pub(super) const BOUNDS: [f64; 15] =
    [0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10_000.0];

/// What is told of a request besides its duration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) status: u16,
}

/// Durations of requests of one kind, since the program's begin.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Histogram {
    pub(super) count: u64,
    /// Milliseconds.
    pub(super) sum: f64,
    /// How many fell into each bucket.
    pub(super) buckets: [u64; BOUNDS.len() + 1],
}

/// All that has been measured.
#[derive(Debug, Default)]
pub(super) struct Durations(Mutex<BTreeMap<Request, Histogram>>);

impl Durations {
    pub(super) fn add(&self, request: Request, took: Duration) {
        let milliseconds = took.as_secs_f64() * 1000.0;
        let bucket = BOUNDS.iter().position(|bound| milliseconds <= *bound).unwrap_or(BOUNDS.len());
        let mut all = self.lock();
        let histogram = all.entry(request).or_default();
        histogram.count += 1;
        histogram.sum += milliseconds;
        histogram.buckets[bucket] += 1;
    }

    pub(super) fn all(&self) -> BTreeMap<Request, Histogram> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Request, Histogram>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_at_a_bound_falls_below_it() {
        let durations = Durations::default();
        let request = || Request { method: "GET", status: 200 };
        for milliseconds in [5, 6, 20_000] {
            durations.add(request(), Duration::from_millis(milliseconds));
        }
        let all = durations.all();
        let histogram = &all[&request()];
        assert_eq!((histogram.count, histogram.sum), (3, 20_011.0));
        let filled: Vec<_> = (0..16).filter(|bucket| histogram.buckets[*bucket] > 0).collect();
        assert_eq!(filled, [1, 2, 15]);
    }
}
