//! One trigger of an object at work: its connection, its last outcome, its timer, and who waits for it.

use std::sync::Arc;
use std::time::Duration;

use tidemark_api::ScaleTriggers;
use tidemark_engine::activation::{Outcome, TriggerState};
use tidemark_trigger::{Connection, ErrorKind, MetricSpec, MetricType, Reading, SourceError};
use tokio::time::Instant;

use super::metrics::MetricRequest;
use super::trigger::BuildResult;
use crate::context::Context;
use crate::snapshot::TriggerView;

pub(super) struct Slot {
    pub(super) trigger_type: Arc<str>,
    name: Option<Arc<str>>,
    pub(super) built: BuildResult,
    pub(super) connection: Option<Arc<dyn Connection>>,
    pub(super) last: Last,
    /// When it is polled next.
    pub(super) due: Instant,
    pub(super) fetching: bool,
    /// Requests that share the outcome of the running fetch.
    pub(super) waiting: Vec<MetricRequest>,
}

/// The outcome of the last fetch.
pub(super) enum Last {
    Unread,
    Read { readings: Box<[Reading]>, ended: Instant },
    Failed { error: Box<SourceError>, ended: Instant },
}

impl Slot {
    pub(super) fn new(trigger: &ScaleTriggers, built: BuildResult, due: Instant) -> Self {
        Self {
            trigger_type: trigger.type_.as_str().into(),
            name: trigger.name.as_deref().map(Into::into),
            built,
            connection: None,
            last: Last::Unread,
            due,
            fetching: false,
            waiting: Vec::new(),
        }
    }

    pub(super) fn is_pollable(&self) -> bool {
        self.built.is_ok() && !self.fetching
    }

    pub(super) fn metrics(&self) -> &[MetricSpec] {
        self.built.as_ref().map(|built| built.trigger.metrics()).unwrap_or_default()
    }

    /// Whether any metric was active at the last read.
    pub(super) fn was_active(&self) -> bool {
        matches!(&self.last, Last::Read { readings, .. } if readings.iter().any(|reading| reading.active))
    }

    /// The last readings, if they are not older than `age`.
    pub(super) fn fresh(&self, age: Duration, now: Instant) -> Option<(&[Reading], Instant)> {
        match &self.last {
            Last::Read { readings, ended } if now.duration_since(*ended) <= age => Some((readings, *ended)),
            _ => None,
        }
    }

    /// What the engine may know of the trigger's metrics: a reading counts for one polling interval.
    pub(super) fn states(&self, interval: Duration, now: Instant) -> Vec<TriggerState> {
        let built = match &self.built {
            Ok(built) => built,
            Err(error) => {
                let outcome = Outcome::Failed { error: error.clone() };
                return vec![TriggerState { metric: self.trigger_type.clone(), outcome }];
            }
        };
        let fresh = self.fresh(interval, now).map(|(readings, _)| readings);
        let outcome = |position: usize| match (&self.last, fresh) {
            (Last::Failed { error, .. }, _) => Outcome::Failed { error: error.to_string().into() },
            (_, Some(readings)) => readings
                .get(position)
                .map_or(Outcome::Unknown, |reading| Outcome::Read { value: reading.value, active: reading.active }),
            _ => Outcome::Unknown,
        };
        let metrics = built.trigger.metrics().iter().enumerate();
        metrics.map(|(at, metric)| TriggerState { metric: metric.name().clone(), outcome: outcome(at) }).collect()
    }

    /// What people may see of the trigger.
    pub(super) fn views(&self, index: usize, ctx: &Context) -> Vec<TriggerView> {
        let mut view = TriggerView {
            index,
            trigger_type: self.trigger_type.clone(),
            name: self.name.clone(),
            metric: "".into(),
            value: None,
            target_milli: 0,
            metric_type: MetricType::default(),
            active: None,
            error: None,
            time: None,
        };
        let built = match &self.built {
            Ok(built) => built,
            Err(error) => {
                view.error = Some((ErrorKind::Configuration, error.clone()));
                return vec![view];
            }
        };
        match &self.last {
            Last::Unread => {}
            Last::Read { ended, .. } => view.time = Some(ctx.clock.at(*ended)),
            Last::Failed { error, ended } => {
                view.error = Some((error.kind, error.message.as_str().into()));
                view.time = Some(ctx.clock.at(*ended));
            }
        }
        let reading = |at: usize| match &self.last {
            Last::Read { readings, .. } => readings.get(at),
            _ => None,
        };
        let metrics = built.trigger.metrics().iter().enumerate();
        metrics
            .map(|(at, MetricSpec::External { name, metric_type, target_milli })| TriggerView {
                metric: name.clone(),
                metric_type: *metric_type,
                target_milli: *target_milli,
                value: reading(at).map(|reading| reading.value),
                active: reading(at).map(|reading| reading.active),
                ..view.clone()
            })
            .collect()
    }
}
