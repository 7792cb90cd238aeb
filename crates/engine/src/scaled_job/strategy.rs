//! From what the triggers ask for and the Jobs that there are to a number of Jobs to start.

use super::{Demand, Policy};

/// `scalingStrategy`: what running and pending Jobs take away from those that are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Strategy {
    /// Running Jobs are taken away.
    #[default]
    Default,
    /// A fixed number and a share of the running Jobs are taken away.
    Custom {
        /// `customScalingQueueLengthDeduction`.
        deduction: i32,
        /// `customScalingRunningJobPercentage`, where 1 is all.
        running_share: f64,
    },
    /// Pending Jobs are taken away: for queues whose entries stay until they are done.
    Accurate,
    /// As many as there is room for.
    Eager,
}

impl Strategy {
    /// The strategy of these settings. An unknown word is the default one, and so is `custom` without a readable share.
    pub fn choose(word: &str, deduction: Option<i32>, running_share: Option<&str>) -> Self {
        match word {
            "custom" => match running_share.and_then(|text| text.parse().ok()) {
                Some(running_share) => Self::Custom { deduction: deduction.unwrap_or(0), running_share },
                None => Self::Default,
            },
            "accurate" => Self::Accurate,
            "eager" => Self::Eager,
            _ => Self::Default,
        }
    }

    /// The word in the spec.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Custom { .. } => "custom",
            Self::Accurate => "accurate",
            Self::Eager => "eager",
        }
    }

    /// What the strategy makes of a demand, `room` being the Jobs allowed besides the minimum, and `counts.running`
    /// those that run besides it.
    pub fn wish(self, demand: Demand, counts: Counts, room: i64) -> Wish {
        let Counts { running, pending } = counts;
        let (jobs, queue) = (demand.jobs, demand.queue);
        match self {
            Self::Default => Wish { limit: jobs.saturating_sub(running), scale_to: queue },
            Self::Custom { deduction, running_share } => {
                let share = (running as f64 * running_share) as i64;
                let limit = jobs.saturating_sub(i64::from(deduction)).saturating_sub(share).min(room);
                Wish { limit, scale_to: queue }
            }
            Self::Accurate => {
                let all = jobs.saturating_add(running).saturating_sub(pending);
                let limit = if all > room { room.saturating_sub(running) } else { jobs.saturating_sub(pending) };
                Wish { limit, scale_to: queue }
            }
            Self::Eager => {
                let free = room.saturating_sub(running).saturating_sub(pending);
                Wish { limit: free.min(jobs), scale_to: room }
            }
        }
    }
}

/// The Jobs of a ScaledJob that have not finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub running: i64,
    /// Those of which no pod has come to work yet.
    pub pending: i64,
}

/// Two numbers of Jobs, of which the smaller one is started, if it is above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The Jobs that may be started.
    pub limit: i64,
    /// The Jobs that there is work for.
    pub scale_to: i64,
}

impl Policy {
    /// The Jobs to start for a demand. Below the minimum only the minimum counts; the queue follows in the next pass.
    pub fn wish(&self, demand: Demand, counts: Counts) -> Wish {
        let minimum = self.bounds.minimum;
        if counts.running < minimum {
            let missing = minimum.saturating_sub(counts.running);
            return Wish { limit: missing, scale_to: missing };
        }
        let besides = Counts { running: counts.running.saturating_sub(minimum), ..counts };
        let wish = self.strategy.wish(demand, besides, self.bounds.room);
        Wish { limit: wish.limit.max(0), ..wish }
    }
}
