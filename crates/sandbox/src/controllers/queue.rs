//! Which objects a controller is to look at, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// The first pause after a failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Keys with the time each is due; a key waits at most once, at its earliest time.
pub(crate) struct Queue<K> {
    by_key: BTreeMap<K, Instant>,
    by_time: BTreeSet<(Instant, K)>,
    failures: BTreeMap<K, u32>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), by_time: BTreeSet::new(), failures: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Queue<K> {
    /// Due now.
    pub(crate) fn push(&mut self, key: K) {
        self.push_at(key, Instant::now());
    }

    /// Due at `time`, or earlier if it was already.
    pub(crate) fn push_at(&mut self, key: K, time: Instant) {
        if let Some(&known) = self.by_key.get(&key) {
            if known <= time {
                return;
            }
            self.by_time.remove(&(known, key.clone()));
        }
        self.by_key.insert(key.clone(), time);
        self.by_time.insert((time, key));
    }

    /// No longer due.
    pub(crate) fn remove(&mut self, key: &K) {
        self.failures.remove(key);
        if let Some(time) = self.by_key.remove(key) {
            self.by_time.remove(&(time, key.clone()));
        }
    }

    /// Work on the key went well.
    pub(crate) fn succeeded(&mut self, key: &K) {
        self.failures.remove(key);
    }

    /// Work on the key failed: due again after a pause that grows with each failure in a row.
    pub(crate) fn failed(&mut self, key: K) {
        let failures = self.failures.entry(key.clone()).or_default();
        let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(16)).min(LONGEST_PAUSE);
        *failures += 1;
        self.push_at(key, Instant::now() + pause);
    }

    /// Waits for the next key that is due and takes it out. Cancel safe.
    pub(crate) async fn next(&mut self) -> K {
        let Some((time, key)) = self.by_time.first().cloned() else {
            return std::future::pending().await;
        };
        if time > Instant::now() {
            tokio::time::sleep_until(time).await;
        }
        self.by_time.remove(&(time, key.clone()));
        self.by_key.remove(&key);
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn keys_come_when_due_and_only_once() {
        let mut queue = Queue::default();
        let start = Instant::now();
        queue.push_at("late", start + Duration::from_secs(60));
        queue.push("b");
        queue.push("a");
        queue.push("b");
        assert_eq!(queue.next().await, "a");
        assert_eq!(queue.next().await, "b");
        assert_eq!(queue.next().await, "late");
        assert_eq!(start.elapsed(), Duration::from_secs(60));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_wait_longer_and_longer() {
        let mut queue = Queue::default();
        let start = Instant::now();
        for pause in [100, 300, 700] {
            queue.failed("a");
            queue.next().await;
            assert_eq!(start.elapsed(), Duration::from_millis(pause));
        }
    }
}
