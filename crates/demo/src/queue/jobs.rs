//! The queue's content: jobs that wait, jobs on lease, workers that were heard of.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A job's worker has the time of the work and this much more.
const GRACE: Duration = Duration::from_secs(10);
/// A worker without a job that was not heard of for so long is gone.
const SILENCE: Duration = Duration::from_secs(2);
/// The most jobs that may wait.
const MAX_WAITING: usize = 1_000_000;

/// A job as its worker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: u64,
    /// Milliseconds.
    pub(crate) work: u64,
}

/// What is in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stats {
    pub(crate) waiting: usize,
    pub(crate) running: usize,
    /// Both together: what is not done yet.
    pub(crate) open: usize,
    pub(crate) done: u64,
    /// Workers that have a job or ask for one.
    pub(crate) workers: usize,
}

#[derive(Debug)]
struct Lease {
    job: Job,
    worker: String,
    end: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Jobs {
    next: u64,
    waiting: VecDeque<Job>,
    leased: BTreeMap<u64, Lease>,
    done: u64,
    /// When each worker was last heard of.
    heard: BTreeMap<String, Instant>,
}

/// The queue takes no more jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Jobs {
    /// Adds jobs, all or none.
    pub(super) fn add(&mut self, count: u32, work: u64) -> Result<(), Full> {
        if self.waiting.len() + count as usize > MAX_WAITING {
            return Err(Full);
        }
        for _ in 0..count {
            self.waiting.push_back(Job { id: self.next, work });
            self.next += 1;
        }
        Ok(())
    }

    /// Leases the job that waits longest to a worker.
    pub(super) fn take(&mut self, worker: String, now: Instant) -> Option<Job> {
        self.expire(now);
        self.heard.insert(worker.clone(), now);
        let job = self.waiting.pop_front()?;
        let lease = Duration::from_millis(job.work).saturating_add(GRACE);
        // An end beyond what the clock can express is as good as a year.
        let end = now.checked_add(lease).unwrap_or(now + Duration::from_secs(365 * 24 * 3600));
        self.leased.insert(job.id, Lease { job, worker, end });
        Some(job)
    }

    /// Ends a job. False when nobody has it on lease: it was done before, or given back.
    pub(super) fn finish(&mut self, id: u64, now: Instant) -> bool {
        self.expire(now);
        let Some(lease) = self.leased.remove(&id) else { return false };
        self.heard.insert(lease.worker, now);
        self.done += 1;
        true
    }

    pub(super) fn stats(&mut self, now: Instant) -> Stats {
        self.expire(now);
        let (waiting, running) = (self.waiting.len(), self.leased.len());
        let mut workers: Vec<&str> = self.heard.keys().map(String::as_str).collect();
        workers.extend(self.leased.values().map(|lease| lease.worker.as_str()));
        workers.sort_unstable();
        workers.dedup();
        Stats { waiting, running, open: waiting + running, done: self.done, workers: workers.len() }
    }

    /// Puts jobs whose lease is over back to the front, and forgets workers that are gone.
    fn expire(&mut self, now: Instant) {
        let late: Vec<u64> = self.leased.iter().filter(|(_, lease)| lease.end <= now).map(|(id, _)| *id).collect();
        for lease in late.iter().rev().filter_map(|id| self.leased.remove(id)) {
            self.waiting.push_front(lease.job);
        }
        self.heard.retain(|_, last| now.saturating_duration_since(*last) < SILENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_job_whose_worker_died_is_given_to_another() {
        let mut jobs = Jobs::default();
        jobs.add(2, 1000).unwrap();
        let job = jobs.take("a".to_owned(), Instant::now()).unwrap();
        let stats = jobs.stats(Instant::now());
        assert_eq!(stats, Stats { waiting: 1, running: 1, open: 2, done: 0, workers: 1 });
        tokio::time::advance(Duration::from_secs(12)).await;
        assert_eq!(jobs.take("b".to_owned(), Instant::now()), Some(job));
        assert!(jobs.finish(job.id, Instant::now()));
        assert!(!jobs.finish(job.id, Instant::now()), "a job ends once");
        let stats = jobs.stats(Instant::now());
        assert_eq!(stats, Stats { waiting: 1, running: 0, open: 1, done: 1, workers: 1 });
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_given_back_keep_their_order() {
        let mut jobs = Jobs::default();
        jobs.add(3, 0).unwrap();
        let take = |jobs: &mut Jobs| jobs.take("a".to_owned(), Instant::now()).map(|job| job.id);
        assert_eq!([take(&mut jobs), take(&mut jobs)], [Some(0), Some(1)]);
        tokio::time::advance(GRACE).await;
        assert_eq!(
            [take(&mut jobs), take(&mut jobs), take(&mut jobs), take(&mut jobs)],
            [Some(0), Some(1), Some(2), None]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_worker_is_no_longer_counted_unless_it_has_a_job() {
        let mut jobs = Jobs::default();
        jobs.add(1, 5000).unwrap();
        jobs.take("busy".to_owned(), Instant::now());
        jobs.take("idle".to_owned(), Instant::now());
        assert_eq!(jobs.stats(Instant::now()).workers, 2);
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(jobs.stats(Instant::now()).workers, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn extreme_jobs_do_no_harm() {
        let mut jobs = Jobs::default();
        assert_eq!(jobs.add(u32::MAX, 1), Err(Full));
        jobs.add(1, u64::MAX).unwrap();
        assert!(jobs.take("a".to_owned(), Instant::now()).is_some());
        assert_eq!(jobs.stats(Instant::now()).running, 1);
    }
}
