//! A worker of the job queue, and the queue as its clients see it.

use std::time::Duration;

use anyhow::Context;
use reqwest::{Response, StatusCode};
use tokio_util::sync::CancellationToken;

use crate::output::{Troubles, say, summary};
use crate::queue::Job;

/// Between two looks at an empty queue.
const IDLE: Duration = Duration::from_millis(200);
/// Between two attempts to reach a queue that does not answer.
const RETRY: Duration = Duration::from_secs(1);
/// Deadline of a request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Attempts to report a job as done; after them the lease runs out and another worker does it again.
const REPORTS: u32 = 3;

/// Arguments of the worker.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Base URL of the queue
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7070")]
    pub(crate) queue: String,
}

/// Works until it is told to stop; the job in hand is finished then.
pub(crate) async fn run(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    let queue = Queue::new(&args.queue)?;
    let name = format!("worker-{}", std::process::id());
    let mut troubles = Troubles::default();
    say(format_args!("{name} takes jobs from {}", args.queue));
    while !stop.is_cancelled() {
        let pause = match queue.take(&name).await {
            Ok(Some(job)) => {
                troubles.over();
                work(&queue, job).await;
                continue;
            }
            Ok(None) => {
                troubles.over();
                IDLE
            }
            Err(error) => {
                troubles.say(&error);
                RETRY
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    say(format_args!("{name} stops"));
    Ok(())
}

async fn work(queue: &Queue, job: Job) {
    tokio::time::sleep(Duration::from_millis(job.work)).await;
    for attempt in 1..=REPORTS {
        match queue.done(job).await {
            Ok(true) => return say(format_args!("job {} done in {} ms", job.id, job.work)),
            Ok(false) => return say(format_args!("job {} was given to another worker meanwhile", job.id)),
            Err(error) => say(format_args!("job {} is done, but {}", job.id, summary(&error))),
        }
        if attempt < REPORTS {
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// The queue as its clients see it.
pub(crate) struct Queue {
    http: reqwest::Client,
    base: String,
}

impl Queue {
    pub(crate) fn new(base: &str) -> anyhow::Result<Self> {
        // The queue is on this machine: no proxy can help.
        let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().context("no HTTP client")?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned() })
    }

    async fn post(&self, path: &str) -> anyhow::Result<Response> {
        let url = format!("{}{path}", self.base);
        self.http.post(&url).send().await.with_context(|| format!("the queue at {} does not answer", self.base))
    }

    /// Adds jobs of some milliseconds of work each.
    pub(crate) async fn add(&self, count: u32, work: u64) -> anyhow::Result<()> {
        let response = self.post(&format!("/jobs?count={count}&work={work}")).await?;
        response.error_for_status().context("the queue refused the jobs").map(drop)
    }

    async fn take(&self, worker: &str) -> anyhow::Result<Option<Job>> {
        let response = self.post(&format!("/take?worker={worker}")).await?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(None),
            _ => Ok(Some(response.error_for_status()?.json().await?)),
        }
    }

    /// Whether the queue counted the job as done.
    async fn done(&self, job: Job) -> anyhow::Result<bool> {
        let response = self.post(&format!("/done/{}", job.id)).await?;
        match response.status() {
            StatusCode::GONE => Ok(false),
            _ => Ok(response.error_for_status().map(|_| true)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::queue::{self, Stats};

    /// Waits until the counts are as wanted; each look is a request, so other tasks run in between.
    async fn until(queue: &Queue, wanted: impl Fn(&Stats) -> bool) -> Stats {
        let watch = async {
            loop {
                let response = queue.http.get(format!("{}/stats", queue.base)).send().await.unwrap();
                let stats: Stats = response.json().await.unwrap();
                if wanted(&stats) {
                    return stats;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), watch).await.unwrap()
    }

    #[tokio::test]
    async fn a_worker_that_is_told_to_stop_finishes_its_job_and_takes_no_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop_queue, stop_worker) = (CancellationToken::new(), CancellationToken::new());
        let server = queue::serve(listener, stop_queue.clone());
        let worker = run(Args { queue: base.clone() }, stop_worker.clone());
        let observer = async {
            let queue = Queue::new(&base).unwrap();
            queue.add(2, 1).await.unwrap();
            until(&queue, |stats| stats.done == 2).await;
            queue.add(5, 300).await.unwrap();
            until(&queue, |stats| stats.running == 1).await;
            stop_worker.cancel();
            let stats = until(&queue, |stats| stats.running == 0).await;
            assert_eq!((stats.waiting, stats.done), (4, 3));
            stop_queue.cancel();
        };
        let (server, worker, ()) = tokio::join!(server, worker, observer);
        server.unwrap();
        worker.unwrap();
    }
}
