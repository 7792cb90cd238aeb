//! One trigger of an object at work: its connection, its last outcome, its timer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tidemark_api::ScaleTriggers;
use tidemark_engine::activation::Outcome;
use tidemark_engine::fallback::Health;
use tidemark_engine::metric::Target;
use tidemark_trigger::{Connection, ErrorKind, MetricSpec, MetricType, Reading, SourceError};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::trigger::{BuildResult, Built};
use crate::context::Context;
use crate::snapshot::TriggerView;
use crate::texts::Text;

pub(super) struct Slot {
    pub(super) trigger_type: Text,
    name: Option<Text>,
    pub(super) built: BuildResult,
    /// Counts what was put in place of [`Slot::built`]: a fetch that began before is out of date.
    pub(super) revision: u32,
    pub(super) connection: Option<Arc<dyn Connection>>,
    pub(super) last: Last,
    /// Failures in a row, where a fallback is configured: of all the trigger's metrics, for they are read together.
    pub(super) health: Health,
    /// When it is polled next.
    pub(super) due: Instant,
    pub(super) fetching: bool,
    /// The HPA is answered from the last poll.
    cached: bool,
    /// The source has told, unasked, that the trigger is active; the next decision rests on it.
    pub(super) announced: bool,
    /// Held while the source is listened to; dropping it ends that.
    pub(super) listener: Option<oneshot::Sender<Infallible>>,
}

/// The outcome of the last fetch.
pub(super) enum Last {
    Unread,
    Read { readings: Box<[Reading]>, ended: Instant },
    Failed { error: Box<SourceError>, ended: Instant },
}

/// What is known of one external metric.
pub(super) struct Metric {
    /// The trigger's type, where nobody knows the metric yet.
    pub(super) name: Text,
    pub(super) target: Option<Target>,
    /// As it was fetched, before any fallback.
    pub(super) fetched: Outcome,
}

impl Slot {
    pub(super) fn new(trigger: &ScaleTriggers, built: BuildResult, due: Instant, ctx: &Context) -> Self {
        Self {
            trigger_type: ctx.texts.share(&trigger.type_),
            name: trigger.name.as_deref().and_then(|name| ctx.texts.share_some(name)),
            built,
            revision: 0,
            connection: None,
            last: Last::Unread,
            health: Health::default(),
            due,
            fetching: false,
            cached: trigger.use_cached_metrics == Some(true),
            announced: false,
            listener: None,
        }
    }

    /// Whether there is anything to fetch, and nothing fetches it.
    pub(super) fn is_pollable(&self) -> bool {
        !self.fetching && self.built.as_ref().is_ok_and(|built| !built.is_resource())
    }

    /// Whether the HPA reads the trigger's metrics by itself.
    pub(super) fn is_resource(&self) -> bool {
        self.built.as_ref().is_ok_and(Built::is_resource)
    }

    pub(super) fn name(&self) -> Option<&Text> {
        self.name.as_ref()
    }

    pub(super) fn metrics(&self) -> &[MetricSpec] {
        self.built.as_ref().map(Built::metrics).unwrap_or_default()
    }

    /// The names of the metrics that are fetched, in the order of their readings.
    pub(super) fn external_names(&self) -> impl Iterator<Item = &Text> {
        self.metrics().iter().filter_map(MetricSpec::external_name)
    }

    /// Whether one of its metrics has this name, case apart. Before the source has named them, the place of the trigger
    /// in the name tells.
    pub(super) fn answers_to(&self, index: usize, metric: &str) -> bool {
        match &self.built {
            Ok(built) if built.is_unnamed() => {
                let lower = metric.to_ascii_lowercase();
                tidemark_trigger::metric::remove_index(&lower, index).is_some()
            }
            Ok(built) => {
                built.metrics().iter().filter_map(MetricSpec::external_name).any(|n| n.eq_ignore_ascii_case(metric))
            }
            Err(_) => false,
        }
    }

    /// Whether any metric was active at the last read.
    pub(super) fn was_active(&self) -> bool {
        matches!(&self.last, Last::Read { readings, .. } if readings.iter().any(|reading| reading.active))
    }

    /// Whether the last outcome answers somebody who asks now: a reading not older than `age` while no newer one is on
    /// its way, and with cached metrics whatever the last poll has found.
    pub(super) fn serves(&self, age: Duration, now: Instant) -> bool {
        match &self.last {
            Last::Unread => false,
            _ if self.cached => true,
            Last::Read { ended, .. } => !self.fetching && now.duration_since(*ended) <= age,
            Last::Failed { .. } => false,
        }
    }

    /// When the last fetch ended.
    pub(super) fn ended(&self) -> Option<Instant> {
        match &self.last {
            Last::Unread => None,
            Last::Read { ended, .. } | Last::Failed { ended, .. } => Some(*ended),
        }
    }

    /// What the last fetch found of each external metric. With `age`, a reading older than that counts as none.
    pub(super) fn fetched(&self, age: Option<Duration>, now: Instant) -> Vec<Metric> {
        let without = |fetched| vec![Metric { name: self.trigger_type.clone(), target: None, fetched }];
        let built = match &self.built {
            Ok(built) => built,
            Err(error) => return without(Outcome::Failed { error: error.clone() }),
        };
        let in_time = |ended: &Instant| age.is_none_or(|age| now.duration_since(*ended) <= age);
        let outcome = |position: usize| match &self.last {
            Last::Failed { error, .. } => Outcome::Failed { error: error.to_string().into() },
            Last::Read { readings, ended } if in_time(ended) => readings
                .get(position)
                .map_or(Outcome::Unknown, |reading| Outcome::Read { value: reading.value, active: reading.active }),
            Last::Read { .. } | Last::Unread => Outcome::Unknown,
        };
        if built.is_unnamed() {
            return without(outcome(0));
        }
        let metrics = built.metrics().iter().filter_map(external).enumerate();
        metrics
            .map(|(at, (name, target))| Metric { name: name.clone(), target: Some(target), fetched: outcome(at) })
            .collect()
    }

    /// Puts another build of the trigger in place; whether its metrics are others than before.
    pub(super) fn replace(&mut self, built: Built) -> bool {
        let renamed = self.metrics() != built.metrics();
        self.built = Ok(built);
        self.revision = self.revision.wrapping_add(1);
        if renamed {
            self.last = Last::Unread;
        }
        renamed
    }

    /// What people may see of the trigger.
    pub(super) fn views(&self, index: usize, ctx: &Context) -> Vec<TriggerView> {
        let mut view = TriggerView {
            index,
            trigger_type: self.trigger_type.clone(),
            name: self.name.clone(),
            metric: ctx.texts.share(""),
            value: None,
            target_milli: 0,
            metric_type: MetricType::default(),
            active: None,
            error: None,
            time: self.ended().map(|ended| ctx.clock.at(ended)),
        };
        let built = match &self.built {
            Ok(built) => built,
            Err(error) => {
                view.error = Some((ErrorKind::Configuration, error.clone()));
                return vec![view];
            }
        };
        if let Last::Failed { error, .. } = &self.last {
            view.error = Some((error.kind, error.message.as_str().into()));
        }
        if built.is_unnamed() {
            return vec![view];
        }
        let reading = |at: usize| match &self.last {
            Last::Read { readings, .. } => readings.get(at),
            _ => None,
        };
        let metrics = built.metrics().iter().enumerate();
        metrics
            .map(|(at, metric)| match metric {
                MetricSpec::External { name, metric_type, target_milli } => TriggerView {
                    metric: name.clone(),
                    metric_type: *metric_type,
                    target_milli: *target_milli,
                    value: reading(at).map(|reading| reading.value),
                    active: reading(at).map(|reading| reading.active),
                    ..view.clone()
                },
                MetricSpec::Resource { resource, .. } => {
                    TriggerView { metric: ctx.texts.share(resource.as_str()), ..view.clone() }
                }
            })
            .collect()
    }
}

/// Name and target of an external metric.
fn external(metric: &MetricSpec) -> Option<(&Text, Target)> {
    match metric {
        MetricSpec::External { name, metric_type: MetricType::AverageValue, target_milli } => {
            Some((name, Target::AverageValue(*target_milli)))
        }
        MetricSpec::External { name, metric_type: MetricType::Value, target_milli } => {
            Some((name, Target::Value(*target_milli)))
        }
        MetricSpec::Resource { .. } => None,
    }
}
