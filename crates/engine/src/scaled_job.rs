//! How many Jobs a ScaledJob starts, and which of its finished ones are cleared away.

mod jobs;
#[cfg(test)]
mod properties;
mod strategy;
#[cfg(test)]
mod tests;

use jiff::Timestamp;

use crate::activation::reason_of;
use crate::metric::Target;
use crate::outcome::{Outcome, TriggerState};
use crate::reason::Reason;
use crate::verdict::{Status, Verdict};

pub use jobs::{
    End, Finished, History, JOB_EXCLUDED_LABELS, JOB_GENERATION, JobPod, Metadata, SCALED_JOB_LABEL, clean_up, end,
    is_pending, metadata, restart_policy,
};
pub use strategy::{Counts, Strategy, Wish};

/// What a ScaledJob asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub bounds: Bounds,
    pub strategy: Strategy,
    pub calculation: Calculation,
}

/// The numbers of Jobs that are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Jobs that run whatever the triggers say, at least 0.
    pub minimum: i64,
    /// Jobs that may run besides.
    pub room: i64,
}

impl Bounds {
    /// The bounds of `minReplicaCount` and `maxReplicaCount`. A minimum above the maximum is lowered to it. The room is
    /// what the maximum leaves, but all of it where the minimum was lowered, and 100 without a maximum.
    pub fn new(min: Option<i32>, max: Option<i32>) -> Self {
        let (minimum, room) = match (min.unwrap_or(0), max) {
            (min, None) => (min, 100),
            (min, Some(max)) if min > max => (max, max),
            (min, Some(max)) => (min, max.saturating_sub(min)),
        };
        Self { minimum: i64::from(minimum.max(0)), room: i64::from(room.max(0)) }
    }
}

/// `multipleScalersCalculation`: how several triggers become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Calculation {
    /// The one with the longest queue, which must not be empty.
    #[default]
    Max,
    /// The one with the shortest queue that is not empty.
    Min,
    /// The mean of all.
    Avg,
    /// All together.
    Sum,
}

impl Calculation {
    /// The calculation of that word; an empty or unknown one is `max`.
    pub fn from_word(word: &str) -> Self {
        match word {
            "min" => Self::Min,
            "avg" => Self::Avg,
            "sum" => Self::Sum,
            _ => Self::Max,
        }
    }
}

/// One external metric of a trigger.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    pub state: TriggerState,
    pub target: Target,
}

/// One trigger's queue, as the calculation takes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    /// The length of the queue.
    pub queue: f64,
    /// The Jobs that it asks for, not rounded yet and at most the room.
    pub jobs: f64,
    pub active: bool,
}

impl Record {
    /// The record of a queue: so many entries for each Job. Without a target it asks for none.
    pub fn new(queue: f64, target: f64, active: bool, bounds: Bounds) -> Self {
        let jobs = if target == 0.0 { 0.0 } else { (queue / target).min(bounds.room as f64) };
        Self { queue, jobs, active }
    }
}

/// All triggers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    pub active: bool,
    /// The length of the queue, rounded up.
    pub queue: i64,
    /// The Jobs that it asks for, rounded up and at most the room.
    pub jobs: i64,
}

/// The outcome of [`decide`].
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Jobs to start now.
    pub start: i64,
    pub active: bool,
    pub ready_condition: Verdict,
    pub active_condition: Verdict,
    /// New `lastActiveTime` when the object is active now; `None` leaves it.
    pub last_active: Option<Timestamp>,
    /// The argument, in order.
    pub reasons: Vec<Reason>,
}

/// Decides how many Jobs to start at `now`. `triggers` holds the external metrics of each trigger; cpu and memory
/// triggers have none and count for nothing. `counts` is `None` when the Jobs could not be listed: then none is started.
pub fn decide(policy: &Policy, triggers: &[Vec<Metric>], counts: Option<Counts>, now: Timestamp) -> Decision {
    let metrics = || triggers.iter().flatten();
    let records: Vec<Record> = triggers.iter().flat_map(|metrics| records(metrics, policy.bounds)).collect();
    let demand = combine(&records, policy.calculation, policy.bounds);
    let mut reasons: Vec<Reason> = metrics().map(|metric| reason_of(&metric.state)).collect();
    let start = match counts {
        Some(counts) => start(policy, demand, counts, &mut reasons),
        None => {
            reasons.push(Reason::JobsNotCounted);
            0
        }
    };
    let failures: Vec<String> = metrics()
        .filter_map(|Metric { state, .. }| state.outcome.failure().map(|error| format!("{}: {error}", state.metric)))
        .collect();
    Decision {
        start,
        active: demand.active,
        ready_condition: ready_verdict(demand.active, &failures),
        active_condition: if demand.active {
            Verdict::new(Status::True, "ScalerActive", "jobs are started for the triggers, or to have the minimum")
        } else {
            Verdict::new(Status::False, "ScalerNotActive", "no trigger is active")
        },
        last_active: demand.active.then_some(now),
        reasons,
    }
}

fn start(policy: &Policy, demand: Demand, counts: Counts, reasons: &mut Vec<Reason>) -> i64 {
    let minimum = policy.bounds.minimum;
    let wish = policy.wish(demand, counts);
    let start = if demand.active { wish.scale_to.min(wish.limit).max(0) } else { 0 };
    reasons.push(if counts.running < minimum {
        Reason::JobsBelowMinimum { running: counts.running, minimum, start }
    } else if demand.active {
        let Counts { running, pending } = counts;
        Reason::JobsWanted { queue: demand.queue, jobs: demand.jobs, running, pending, start }
    } else {
        Reason::JobsNotWanted
    });
    start
}

fn ready_verdict(active: bool, failures: &[String]) -> Verdict {
    match (failures.is_empty(), active) {
        (true, _) => Verdict::new(Status::True, "ScaledJobReady", "the triggers are read and scaled on"),
        (false, true) => {
            let message = format!("scaled on what is known, for these could not be read: {}", failures.join("; "));
            Verdict::new(Status::Unknown, "PartialTriggerError", message)
        }
        (false, false) => {
            let message = format!("no trigger is active, and these could not be read: {}", failures.join("; "));
            Verdict::new(Status::False, "TriggerError", message)
        }
    }
}

/// One record for each metric that was read. They all tell the first metric's queue, and once one is active, so are those
/// after it: so a trigger with several metrics counts as often in a sum.
fn records(metrics: &[Metric], bounds: Bounds) -> Vec<Record> {
    let Some(first) = metrics.first() else { return Vec::new() };
    let target = target_average(metrics.iter().map(|metric| metric.target));
    let queue = match first.state.outcome {
        Outcome::Read { .. } => first.state.outcome.served().map_or(0.0, |milli| milli as f64 / 1000.0),
        _ => 0.0,
    };
    let mut active = false;
    let read = metrics.iter().filter(|metric| matches!(metric.state.outcome, Outcome::Read { .. }));
    read.map(|metric| {
        active |= metric.state.outcome.is_active();
        Record::new(queue, target, active, bounds)
    })
    .collect()
}

/// The mean of a trigger's targets per Job; a target in all counts as 0.
pub fn target_average(targets: impl IntoIterator<Item = Target>) -> f64 {
    let (mut sum, mut count) = (0.0, 0u32);
    for target in targets {
        count += 1;
        sum += match target {
            Target::AverageValue(milli) => milli as f64 / 1000.0,
            Target::Value(_) => 0.0,
        };
    }
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}

/// All triggers together; only active ones count. A minimum above 0 makes the object active.
pub fn combine(records: &[Record], calculation: Calculation, bounds: Bounds) -> Demand {
    let active = || records.iter().filter(|record| record.active);
    let sum = || active().fold((0.0, 0.0), |(queue, jobs), record| (queue + record.queue, jobs + record.jobs));
    let (queue, jobs) = match calculation {
        Calculation::Max => longest(active()),
        Calculation::Min => shortest(active()),
        Calculation::Sum => sum(),
        Calculation::Avg => {
            let ((queue, jobs), count) = (sum(), active().count().max(1) as f64);
            (queue / count, jobs / count)
        }
    };
    let by_trigger = match calculation {
        Calculation::Max => active().any(|record| record.queue > 0.0),
        _ => active().next().is_some(),
    };
    Demand {
        active: by_trigger || bounds.minimum > 0,
        queue: queue.ceil() as i64,
        jobs: jobs.min(bounds.room as f64).ceil() as i64,
    }
}

fn longest<'a>(records: impl Iterator<Item = &'a Record>) -> (f64, f64) {
    records.fold((0.0, 0.0), |best, record| if record.queue > best.0 { (record.queue, record.jobs) } else { best })
}

/// An empty queue so far gives way to the next one.
fn shortest<'a>(records: impl Iterator<Item = &'a Record>) -> (f64, f64) {
    records.fold(
        (0.0, 0.0),
        |best, record| {
            if best.0 == 0.0 || record.queue < best.0 { (record.queue, record.jobs) } else { best }
        },
    )
}
