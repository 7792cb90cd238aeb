//! Load on the job queue: waves of jobs with silence in between, or one heap of them.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::output::{Troubles, say};
use crate::period::period;
use crate::worker::Queue;

/// Between two portions of a wave, and between two attempts to reach the queue.
const STEP: Duration = Duration::from_secs(1);
/// The part of a wave's period in which jobs are added: one in this many.
const BUSY_PART: u64 = 4;

/// Arguments of the load.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Base URL of the queue
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7070")]
    queue: String,
    /// Jobs in a wave
    #[arg(long, value_name = "N", default_value_t = 120)]
    jobs: u32,
    /// Work in a job, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    work: u64,
    /// All jobs at once, and then end
    #[arg(long, conflicts_with = "wave")]
    once: bool,
    /// Time from the beginning of a wave to that of the next, such as 90s; the jobs come in its first quarter
    #[arg(long, value_name = "PERIOD", default_value = "90s", value_parser = wave)]
    wave: Duration,
}

/// A period of at least 4 seconds and at most a day.
fn wave(text: &str) -> Result<Duration, String> {
    let wave = period(text)?;
    if wave < Duration::from_secs(BUSY_PART) { Err("a wave takes at least 4s".to_owned()) } else { Ok(wave) }
}

pub(crate) async fn run(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    let queue = Queue::new(&args.queue)?;
    if args.once {
        queue.add(args.jobs, args.work).await?;
        say(format_args!("{} jobs of {} ms added", args.jobs, args.work));
        return Ok(());
    }
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = waves(&queue, &args) => {}
    }
    Ok(())
}

async fn waves(queue: &Queue, args: &Args) {
    let steps = (args.wave.as_secs() / BUSY_PART).max(1);
    let mut start = Instant::now();
    loop {
        say(format_args!("a wave of {} jobs of {} ms comes", args.jobs, args.work));
        for step in 0..steps {
            add(queue, portion(args.jobs, step, steps), args.work).await;
            tokio::time::sleep(STEP).await;
        }
        // A wave that was held up by an absent queue does not run into the next one.
        start = (start + args.wave).max(Instant::now());
        tokio::time::sleep_until(start).await;
    }
}

/// The jobs of one of a wave's steps; those of all steps make up the whole.
fn portion(jobs: u32, step: u64, steps: u64) -> u32 {
    let until = |step: u64| u64::from(jobs) * step / steps;
    // Not more than `jobs`, which fits.
    u32::try_from(until(step + 1) - until(step)).unwrap_or(jobs)
}

/// Adds jobs as soon as the queue takes them.
async fn add(queue: &Queue, jobs: u32, work: u64) {
    let mut troubles = Troubles::default();
    while let Err(error) = queue.add(jobs, work).await {
        troubles.say(&error);
        tokio::time::sleep(STEP).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_portions_of_a_wave_make_up_the_whole() {
        for (jobs, steps) in [(120, 22), (1, 22), (0, 1), (u32::MAX, 7)] {
            let portions: Vec<_> = (0..steps).map(|step| portion(jobs, step, steps)).collect();
            assert_eq!(portions.iter().map(|jobs| u64::from(*jobs)).sum::<u64>(), u64::from(jobs));
            let (min, max) = (portions.iter().min().unwrap(), portions.iter().max().unwrap());
            assert!(max - min <= 1, "{portions:?}");
        }
    }

    #[test]
    fn a_wave_has_room_for_its_steps() {
        assert_eq!(wave("90s"), Ok(Duration::from_secs(90)));
        assert!(wave("3s").is_err());
    }
}
