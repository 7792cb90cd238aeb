//! Requests to an HTTP service at an even rate, without end or in waves.

use std::time::Duration;

use anyhow::Context;
use reqwest::Response;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::output::{Troubles, say};
use crate::period::period;

/// Deadline of a request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Requests in flight; while there are so many, none is added.
const IN_FLIGHT: usize = 256;

/// Arguments of the load.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to request
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080/")]
    url: String,
    /// Requests in a second
    #[arg(long, value_name = "N", default_value_t = 4.5, value_parser = rate)]
    rate: f64,
    /// Time with requests, such as 90s
    #[arg(long, value_name = "PERIOD", default_value = "90s", value_parser = period)]
    busy: Duration,
    /// Time without requests after each busy one; 0s for an even load without end
    #[arg(long, value_name = "PERIOD", default_value = "0s", value_parser = period)]
    quiet: Duration,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "a number is wanted".to_owned())?;
    if (0.01..=1000.0).contains(&rate) { Ok(rate) } else { Err("from 0.01 to 1000 a second".to_owned()) }
}

pub(crate) async fn run(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    // Without a pool each request is a new connection: those who share the port all get their part. The service is on
    // this machine, so no proxy can help.
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(TIMEOUT).build()?;
    let mut load = Load { http, url: args.url.clone(), requests: JoinSet::new(), troubles: Troubles::default() };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = load.waves(&args) => {}
    }
    Ok(())
}

struct Load {
    http: reqwest::Client,
    url: String,
    requests: JoinSet<anyhow::Result<()>>,
    troubles: Troubles,
}

impl Load {
    async fn waves(&mut self, args: &Args) {
        loop {
            say(format_args!("{} requests a second", args.rate));
            let answered = self.wave(args.rate, args.busy).await;
            if args.quiet.is_zero() {
                say(format_args!("{answered} requests answered"));
                continue;
            }
            say(format_args!("{answered} requests answered; now silence for {} s", args.quiet.as_secs()));
            tokio::time::sleep(args.quiet).await;
        }
    }

    /// The number of requests that were answered well.
    async fn wave(&mut self, rate: f64, busy: Duration) -> u64 {
        let end = Instant::now() + busy;
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        // A machine that slept does not make up for it.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answered = 0;
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(end) => break,
                Some(outcome) = self.requests.join_next(), if !self.requests.is_empty() => {
                    answered += self.note(outcome.context("a request broke off").flatten());
                }
                _ = ticks.tick() => self.request(),
            }
        }
        while let Some(outcome) = self.requests.join_next().await {
            answered += self.note(outcome.context("a request broke off").flatten());
        }
        answered
    }

    fn request(&mut self) {
        if self.requests.len() < IN_FLIGHT {
            let request = self.http.get(&self.url).send();
            self.requests.spawn(async move {
                let answer = request.await.and_then(Response::error_for_status);
                // All of it, so that the service has done with it.
                answer.context("a request failed")?.bytes().await.context("an answer broke off")?;
                Ok(())
            });
        }
    }

    fn note(&mut self, outcome: anyhow::Result<()>) -> u64 {
        match outcome {
            Ok(()) => {
                self.troubles.over();
                1
            }
            Err(error) => {
                self.troubles.say(&error);
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_positive_number() {
        assert_eq!(rate("4.5"), Ok(4.5));
        assert!(rate("0").is_err() && rate("-1").is_err() && rate("NaN").is_err() && rate("fast").is_err());
    }
}
