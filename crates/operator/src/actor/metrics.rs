//! Requests of the external metrics API: answered from a reading that is fresh enough, from the running fetch, or from
//! one started for them.

use std::sync::Arc;
use std::time::Duration;

use tidemark_engine::quantity;
use tidemark_trigger::{MetricSpec, Reading};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Actor;
use super::slot::{Last, Slot};
use crate::context::Context;
use crate::handle::{MetricError, MetricValue};
use crate::observation::Asker;

/// A reading answers for this long at most.
const FRESH_AT_MOST: Duration = Duration::from_secs(2);

/// A question for a metric, with the way back.
#[derive(Debug)]
pub(crate) struct MetricRequest {
    pub(crate) metric: String,
    pub(crate) reply: oneshot::Sender<Result<Vec<MetricValue>, MetricError>>,
}

impl MetricRequest {
    /// Answers; whoever asked may have gone away.
    pub(super) fn answer(self, result: Result<Vec<MetricValue>, MetricError>) {
        let _ = self.reply.send(result);
    }

    pub(super) fn refuse(self, reason: &str) {
        self.answer(Err(MetricError::NoTriggers(reason.into())));
    }
}

impl Actor {
    pub(super) fn on_metric_request(&mut self, request: MetricRequest) {
        let first_check = self.check.running && self.check.failure.is_none();
        if self.slots.is_empty() && first_check && !self.controls.paused && !self.deleting {
            // The HPA may ask before the triggers are built, after a start of the operator.
            return self.check.early.push(request);
        }
        if self.slots.is_empty() {
            let reason = match &self.check.failure {
                _ if self.deleting => "the ScaledObject is being deleted",
                _ if self.controls.paused => "the ScaledObject is paused",
                Some(failure) => failure,
                None => "the ScaledObject's triggers are not built yet",
            };
            return request.refuse(reason);
        }
        let named = |slot: &Slot| slot.metrics().iter().any(|metric| is_named(metric, &request.metric));
        let Some(index) = self.slots.iter().position(named) else {
            let broken = self.slots.iter().find_map(|slot| slot.built.as_ref().err());
            return match broken {
                Some(error) => request.refuse(error),
                None => {
                    let metric = request.metric.clone();
                    request.answer(Err(MetricError::NoSuchMetric(metric)));
                }
            };
        };
        let age = FRESH_AT_MOST.min(self.spec.polling_interval() / 10);
        let slot = &mut self.slots[index];
        if !slot.fetching && slot.fresh(age, Instant::now()).is_some() {
            let answer = answer(slot, &request.metric, &self.ctx);
            return request.answer(answer);
        }
        slot.waiting.push(request);
        if !slot.fetching {
            self.fetch(index, Asker::Hpa);
        }
    }

    /// Answers all who waited for the fetch that has just ended.
    pub(super) fn answer_waiting(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        for request in std::mem::take(&mut slot.waiting) {
            let answer = answer(slot, &request.metric, &self.ctx);
            request.answer(answer);
        }
    }
}

fn is_named(metric: &MetricSpec, name: &str) -> bool {
    metric.name().eq_ignore_ascii_case(name)
}

fn answer(slot: &Slot, metric: &str, ctx: &Context) -> Result<Vec<MetricValue>, MetricError> {
    let failed = |error: Arc<str>| MetricError::Failed { metric: metric.to_owned(), error };
    let (readings, ended) = match &slot.last {
        Last::Read { readings, ended } => (readings, *ended),
        Last::Failed { error, .. } => return Err(failed(error.to_string().into())),
        Last::Unread => return Err(failed("not read yet".into())),
    };
    let timestamp = ctx.clock.at(ended);
    let value = |(spec, reading): (&MetricSpec, &Reading)| MetricValue {
        metric: spec.name().clone(),
        value_milli: quantity::from_f64(reading.value),
        timestamp,
    };
    let matching = slot.metrics().iter().zip(readings.iter()).filter(|(spec, _)| is_named(spec, metric));
    match matching.map(value).collect::<Vec<_>>() {
        // The trigger's parameters have changed, and with them its metrics.
        values if values.is_empty() => Err(MetricError::NoSuchMetric(metric.to_owned())),
        values => Ok(values),
    }
}
