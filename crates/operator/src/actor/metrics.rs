//! Requests of the external metrics API: answered from a reading that is fresh enough, from the running fetch, or from
//! one started for them.

use std::sync::Arc;
use std::time::Duration;

use tidemark_engine::composite::METRIC as COMPOSITE;
use tidemark_engine::fallback::Need;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Actor;
use crate::handle::{MetricError, MetricValue};
use crate::observation::{Asker, What};

/// A reading answers for this long at most.
const FRESH_AT_MOST: Duration = Duration::from_secs(2);

/// A question for a metric, with the way back.
#[derive(Debug)]
pub(crate) struct MetricRequest {
    pub(crate) metric: String,
    pub(crate) asked: Instant,
    pub(crate) reply: oneshot::Sender<Result<Vec<MetricValue>, MetricError>>,
}

/// Requests that wait for something.
#[derive(Default)]
pub(super) struct Questions {
    /// For fetches, of these triggers.
    fetches: Vec<(MetricRequest, Vec<usize>)>,
    /// For what a fallback must know of the target.
    target: Vec<MetricRequest>,
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
            return self.refuse(request, reason);
        }
        let wanted = self.triggers_of(&request.metric);
        if wanted.is_empty() {
            let broken = self.slots.iter().find_map(|slot| slot.built.as_ref().err());
            return match broken {
                Some(error) => self.refuse(request, error),
                None => {
                    let metric = request.metric.clone();
                    self.reply(request, Err(MetricError::NoSuchMetric(metric)));
                }
            };
        }
        let (age, now) = (FRESH_AT_MOST.min(self.plan.interval / 10), Instant::now());
        let stale = |index: &usize| {
            let slot = &self.slots[*index];
            slot.built.is_ok() && !slot.serves(age, now)
        };
        let missing: Vec<usize> = wanted.into_iter().filter(stale).collect();
        if missing.is_empty() {
            return self.answer(request);
        }
        for index in &missing {
            if !self.slots[*index].fetching {
                self.fetch(*index, Asker::Hpa);
            }
        }
        self.questions.get_or_insert_default().fetches.push((request, missing));
    }

    /// The triggers that must be read to answer for a metric. With scaling modifiers there is but the composite one, whatever
    /// the name that is asked for, and for it all must be that are read at all.
    fn triggers_of(&self, metric: &str) -> Vec<usize> {
        let slots = self.slots.iter().enumerate();
        match &self.modifiers {
            Some(_) => slots.filter(|(_, slot)| !slot.is_resource()).map(|(index, _)| index).collect(),
            None => {
                slots.filter(|(index, slot)| slot.answers_to(*index, metric)).map(|(index, _)| index).take(1).collect()
            }
        }
    }

    /// Whether somebody waits for a fetch of that trigger.
    pub(super) fn is_waited_for(&self, index: usize) -> bool {
        let fetches = self.questions.iter().flat_map(|questions| &questions.fetches);
        fetches.flat_map(|(_, missing)| missing).any(|missing| *missing == index)
    }

    /// Answers all who waited for the fetch that has just ended, and for no other.
    pub(super) fn answer_questions(&mut self, index: usize) {
        let Some(questions) = &mut self.questions else { return };
        for (_, missing) in &mut questions.fetches {
            missing.retain(|waited_for| *waited_for != index);
        }
        let answered: Vec<_> = questions.fetches.extract_if(.., |(_, missing)| missing.is_empty()).collect();
        for (request, _) in answered {
            self.answer(request);
        }
        self.forget_answered();
    }

    /// Asks again for all who wait: the triggers are others now.
    pub(super) fn ask_again(&mut self) {
        let Some(questions) = self.questions.take() else { return };
        let waiting = questions.fetches.into_iter().map(|(request, _)| request).chain(questions.target);
        for request in waiting {
            self.on_metric_request(request);
        }
    }

    pub(super) fn refuse_questions(&mut self, reason: &str) {
        let Some(questions) = self.questions.take() else { return };
        let waiting = questions.fetches.into_iter().map(|(request, _)| request).chain(questions.target);
        for request in waiting {
            self.refuse(request, reason);
        }
    }

    /// Answers from what was fetched; what the fallback needs of the target is read first.
    fn answer(&mut self, request: MetricRequest) {
        let asked = self.triggers_of(&request.metric);
        let asked = || asked.iter().map(|index| &self.slots[*index]);
        let unwatched = self.workload.target.as_ref().is_some_and(|state| !state.target.is_watched());
        let replicas = unwatched && self.need(asked()) >= Need::Replicas;
        let pods = self.needs_pods(asked());
        if !replicas && !pods {
            return self.answer_with(request, None);
        }
        self.questions.get_or_insert_default().target.push(request);
        self.read_workload(pods);
    }

    /// Whether somebody waits for the pods of the target to be counted.
    pub(super) fn pods_are_waited_for(&self) -> bool {
        let waiting = self.questions.iter().flat_map(|questions| &questions.target);
        let mut asked = waiting.flat_map(|request| self.triggers_of(&request.metric));
        asked.any(|index| self.needs_pods([&self.slots[index]]))
    }

    /// Answers all who waited for the target to be read.
    pub(super) fn answer_with_target(&mut self, ready_pods: Option<i32>) {
        let Some(questions) = &mut self.questions else { return };
        for request in std::mem::take(&mut questions.target) {
            self.answer_with(request, ready_pods);
        }
        self.forget_answered();
    }

    fn forget_answered(&mut self) {
        let empty = |questions: &mut Box<Questions>| questions.fetches.is_empty() && questions.target.is_empty();
        self.questions.take_if(empty);
    }

    fn answer_with(&self, request: MetricRequest, ready_pods: Option<i32>) {
        let result = match &self.modifiers {
            Some(modifiers) => {
                let asked = self.triggers_of(&request.metric);
                let read = asked.iter().filter_map(|index| self.slots[*index].ended()).min();
                let served = self.composite(modifiers, None, ready_pods).outcome.served();
                self.value(&request.metric, &COMPOSITE.into(), served, read).map(|value| vec![value])
            }
            None => self.values(&request.metric, ready_pods),
        };
        self.reply(request, result);
    }

    fn refuse(&self, request: MetricRequest, reason: &str) {
        self.reply(request, Err(MetricError::NoTriggers(reason.into())));
    }

    /// Answers; whoever asked may have gone away.
    fn reply(&self, request: MetricRequest, outcome: Result<Vec<MetricValue>, MetricError>) {
        let metric = self.ctx.texts.share(&request.metric);
        self.tell(What::Query { metric, took: request.asked.elapsed(), outcome: outcome.clone() });
        let _ = request.reply.send(outcome);
    }

    fn values(&self, metric: &str, ready_pods: Option<i32>) -> Result<Vec<MetricValue>, MetricError> {
        let asked = self.triggers_of(metric);
        let Some(slot) = asked.first().map(|index| &self.slots[*index]) else {
            // The trigger's parameters have changed, and with them its metrics.
            return Err(MetricError::NoSuchMetric(metric.to_owned()));
        };
        let unnamed = slot.external_names().next().is_none();
        let found = slot.fetched(None, Instant::now()).into_iter();
        let found = found.filter(|found| unnamed || found.name.eq_ignore_ascii_case(metric));
        found
            .map(|found| {
                let state = self.applied(slot, found, ready_pods);
                self.value(metric, &state.metric, state.outcome.served(), slot.ended())
            })
            .collect()
    }

    /// A value for the HPA. Its time is that of the fetch.
    fn value(
        &self,
        asked: &str,
        name: &Arc<str>,
        served: Result<i64, Arc<str>>,
        read: Option<Instant>,
    ) -> Result<MetricValue, MetricError> {
        let value_milli = served.map_err(|error| MetricError::Failed { metric: asked.to_owned(), error })?;
        let timestamp = read.map_or_else(|| self.ctx.clock.now(), |read| self.ctx.clock.at(read));
        Ok(MetricValue { metric: name.clone(), value_milli, timestamp })
    }
}
