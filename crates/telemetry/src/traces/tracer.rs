//! From observations to spans.
//!
//! What has ended is told at once; only the roots of evaluations are held, until nothing more is to come. Ids need no
//! memory, so that what comes later still finds its place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use prost::Message;
use tidemark_clock::Clock;
use tidemark_engine::activation::Action;
use tidemark_operator::{Asker, Life, ObjectKey, Observation, What, Write};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::ids::{SpanId, TraceId};
use super::sampler::Sampler;
use super::spans::{self, Standing};
use crate::otlp::attributes::attribute;
use crate::otlp::{Batches, Item, Limits, Queue};

/// After a decision whose writes are done, an evaluation is told when nothing has come for this long.
const QUIET: SignedDuration = SignedDuration::from_secs(5);
/// One that waits for its decision or its write is told after this at the latest.
const STUCK: SignedDuration = SignedDuration::from_secs(60);
/// What comes after its root was told is known for what it is for so long.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(10);
/// How often that is looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// When the process ends, what the operator still tells is waited for: until it is silent, and so long at most.
const SILENCE: Duration = Duration::from_millis(200);
const LAST: Duration = Duration::from_secs(2);

/// Makes spans of what an operator observes.
pub struct Tracer {
    seed: u128,
    sampler: Sampler,
    limits: Limits,
    dry_run: bool,
    queue: Queue,
    /// The evaluation of each object that has not been told yet, by the object's uid.
    open: BTreeMap<Arc<str>, Evaluation>,
    /// The number of each object's evaluation whose root was told last, and when that ended.
    told: BTreeMap<Arc<str>, (u64, Timestamp)>,
    /// Spans so far, for their ids.
    spans: u64,
}

/// The root of a trace before it is told.
struct Evaluation {
    number: u64,
    trace: TraceId,
    object: Arc<ObjectKey>,
    begun: Timestamp,
    /// The end of the last thing that belongs to it.
    ended: Timestamp,
    begin: Begin,
    decision: Option<Decision>,
    /// The decision's write of the replicas has not ended.
    writing: bool,
    /// The first error's kind and message.
    error: Option<(Option<&'static str>, String)>,
    events: Vec<Event>,
    dropped_events: u32,
}

#[derive(Clone, Copy)]
enum Begin {
    Timer {
        late: Duration,
    },
    Push {
        trigger: usize,
    },
    /// A read for the HPA.
    Query,
    /// The beginning was lost.
    Unseen,
}

struct Decision {
    attributes: Vec<KeyValue>,
    changes: bool,
}

/// Tells what an operator observes, until the observations end or `shutdown` is cancelled; then what is left.
///
/// `seed` is the process', as for [`super::trace_id`]. Nothing that is observed waits for this.
pub fn run(
    settings: &Settings,
    seed: u128,
    clock: Clock,
    mut observations: broadcast::Receiver<Arc<Observation>>,
    (queue, batches): (Queue, Batches),
    shutdown: CancellationToken,
) -> BoxFuture<'static, ()> {
    let mut tracer = Tracer::new(settings, seed, queue);
    Box::pin(async move {
        let told = CancellationToken::new();
        let tracing = async {
            let mut sweep = tokio::time::interval(SWEEP);
            sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => break,
                    observation = observations.recv() => if !tracer.take(observation) { break },
                    _ = sweep.tick() => tracer.sweep(clock.now()),
                }
            }
            let rest = async {
                while let Ok(observation) = tokio::time::timeout(SILENCE, observations.recv()).await {
                    if !tracer.take(observation) {
                        break;
                    }
                }
            };
            let _ = tokio::time::timeout(LAST, rest).await;
            tracer.finish();
            told.cancel();
        };
        tokio::join!(tracing, batches.run(told.clone()));
    })
}

impl Tracer {
    /// A tracer whose spans go to a queue.
    pub fn new(settings: &Settings, seed: u128, queue: Queue) -> Self {
        let (sampler, limits, dry_run) = (settings.sampler, settings.limits, settings.dry_run);
        Self { seed, sampler, limits, dry_run, queue, open: BTreeMap::new(), told: BTreeMap::new(), spans: 0 }
    }

    /// Takes what the stream gives; false at its end.
    fn take(&mut self, observation: Result<Arc<Observation>, RecvError>) -> bool {
        match observation {
            Ok(observation) => self.on(&observation),
            Err(RecvError::Lagged(lost)) => tracing::warn!(lost, "observations were lost: traces have gaps"),
            Err(RecvError::Closed) => return false,
        }
        true
    }

    /// Takes one observation in.
    pub fn on(&mut self, observation: &Observation) {
        match &observation.what {
            What::Poll { late } => self.begin(observation, Begin::Timer { late: *late }),
            What::Pushed { trigger } => self.begin(observation, Begin::Push { trigger: *trigger }),
            What::Gone => {
                self.close(&observation.uid);
                self.told.remove(&observation.uid);
            }
            What::Fetch { asked_by, took, .. } => self.fetch(observation, *asked_by, *took),
            What::Query { took, .. } => self.query(observation, *took),
            What::Decision { active, replicas, action, .. } => {
                let decision = Decision {
                    attributes: spans::decision(*active, *replicas, *action),
                    changes: *action != Action::Nothing,
                };
                self.decide(observation, decision);
            }
            What::Write { write, took, error, .. } => self.write(observation, (write, *took), error.as_deref()),
            What::Error { .. } => self.fail(observation),
            What::Life(Life::FallbackActivated) => self.note(observation, "fallback activated"),
            What::Life(Life::FallbackDeactivated) => self.note(observation, "fallback deactivated"),
            What::Defined { .. } | What::Paused(_) | What::Hpa(_) | What::Resource { .. } | What::Life(_) => {}
            What::Checked { .. } => {}
        }
    }

    /// Tells the evaluations to which nothing more is to come.
    pub fn sweep(&mut self, now: Timestamp) {
        let done = |evaluation: &Evaluation| {
            let limit = if evaluation.decision.is_some() && !evaluation.writing { QUIET } else { STUCK };
            now.duration_since(evaluation.ended) >= limit
        };
        let done: Vec<_> = self.open.iter().filter(|(_, open)| done(open)).map(|(uid, _)| uid.clone()).collect();
        done.iter().for_each(|uid| self.close(uid));
        self.told.retain(|_, (_, ended)| now.duration_since(*ended) < REMEMBERED);
    }

    /// Tells all evaluations.
    pub fn finish(&mut self) {
        while let Some((uid, evaluation)) = self.open.pop_first() {
            self.root(&uid, evaluation);
        }
    }

    /// An evaluation has begun, or other triggers became due while the first ones were read.
    fn begin(&mut self, observation: &Observation, begin: Begin) {
        let known = self.is_open(observation);
        let most = self.limits.events;
        let Some(trace) = self.trace(observation) else { return };
        if let Some(open) = self.enter(observation, trace, observation.time, begin).filter(|_| known) {
            let name = match begin {
                Begin::Push { .. } => "push",
                _ => "poll",
            };
            open.add(name, observation.time, begin.attributes(), most);
        }
    }

    fn fetch(&mut self, observation: &Observation, asked_by: Asker, took: Duration) {
        let What::Fetch { outcome, .. } = &observation.what else { return };
        let Some(trace) = self.trace(observation) else { return };
        let mut start = earlier(observation.time, took);
        let begin = match asked_by {
            Asker::Hpa => Begin::Query,
            Asker::Poll => Begin::Unseen,
        };
        if let Some(open) = self.enter(observation, trace, start, begin) {
            start = start.max(open.begun);
            if let Err(error) = outcome {
                open.fail(Some(error.kind.as_str()), &error.message);
            }
        }
        let standing = self.below(trace);
        self.tell(spans::fetch(&observation.what, standing, (start, observation.time)));
    }

    /// What the HPA asks for is a trace of its own.
    fn query(&mut self, observation: &Observation, took: Duration) {
        let Some(trace) = self.trace(observation) else { return };
        let times = (earlier(observation.time, took), observation.time);
        let standing = Standing { trace, span: trace.root(), parent: None };
        let mut span = spans::query(&observation.what, standing, times);
        spans::name_object(&mut span, observation, standing);
        if let Some(span) = span.as_mut().filter(|_| observation.evaluation > 0) {
            let latest = TraceId::of_evaluation(self.seed, &observation.uid, observation.evaluation);
            span.links = vec![spans::link(latest, self.sampler.takes(latest))];
        }
        self.tell(span);
    }

    fn decide(&mut self, observation: &Observation, decision: Decision) {
        let Some(trace) = self.trace(observation) else { return };
        if let Some(open) = self.enter(observation, trace, observation.time, Begin::Unseen) {
            open.writing = decision.changes;
            // One that scales says more of the evaluation than one that follows and finds nothing left to do.
            if decision.changes || !open.decision.as_ref().is_some_and(|before| before.changes) {
                open.decision = Some(decision);
            }
        }
        let standing = self.below(trace);
        self.tell(spans::decide(&observation.what, standing, observation.time));
    }

    fn write(&mut self, observation: &Observation, (write, took): (&Write, Duration), error: Option<&str>) {
        let Some(trace) = self.trace(observation) else { return };
        let start = earlier(observation.time, took);
        if let Some(open) = self.enter(observation, trace, start, Begin::Unseen) {
            if matches!(write, Write::Scale { .. }) {
                open.writing = false;
            }
            if let Some(error) = error {
                open.fail(None, error);
            }
        }
        let standing = self.within(observation, trace);
        let mut span = spans::write(&observation.what, standing, (start, observation.time));
        spans::name_object(&mut span, observation, standing);
        self.tell(span);
    }

    fn fail(&mut self, observation: &Observation) {
        let What::Error { stage, message } = &observation.what else { return };
        let Some(trace) = self.trace(observation) else { return };
        let most = self.limits.events;
        if let Some(open) = self.enter(observation, trace, observation.time, Begin::Unseen) {
            open.fail(None, message);
            open.push(spans::error(stage, message, observation.time), most);
            return;
        }
        let standing = self.within(observation, trace);
        let mut span = spans::mishap(observation, standing);
        spans::name_object(&mut span, observation, standing);
        self.tell(span);
    }

    fn note(&mut self, observation: &Observation, what: &str) {
        let most = self.limits.events;
        if let Some(trace) = self.trace(observation)
            && let Some(open) = self.enter(observation, trace, observation.time, Begin::Unseen)
        {
            open.add(what, observation.time, Vec::new(), most);
        }
    }

    /// The trace of an observation, if it is told.
    fn trace(&self, observation: &Observation) -> Option<TraceId> {
        Some(TraceId::of(self.seed, observation)).filter(|trace| self.sampler.takes(*trace))
    }

    fn is_open(&self, observation: &Observation) -> bool {
        self.open.get(&observation.uid).is_some_and(|open| open.number == observation.evaluation)
    }

    /// The evaluation that an observation belongs to, which it begins if it is the first to tell of it, at `start`. None
    /// for what comes after the root was told, which finds its place without it, and for what belongs to none.
    fn enter(
        &mut self,
        observation: &Observation,
        trace: TraceId,
        start: Timestamp,
        begin: Begin,
    ) -> Option<&mut Evaluation> {
        let number = observation.evaluation;
        if !self.is_open(observation) {
            let told = self.told.get(&observation.uid).map_or(0, |(told, _)| *told);
            let before = self.open.get(&observation.uid).map_or(0, |open| open.number);
            if number <= told.max(before) {
                return None;
            }
            self.close(&observation.uid);
            let evaluation = Evaluation::new(observation, trace, start, begin);
            self.open.insert(observation.uid.clone(), evaluation);
        }
        let open = self.open.get_mut(&observation.uid)?;
        open.ended = open.ended.max(observation.time);
        Some(open)
    }

    /// A place for a span below the root.
    fn below(&mut self, trace: TraceId) -> Standing {
        Standing { trace, span: self.next(trace), parent: Some(trace.root()) }
    }

    /// A place below the evaluation, or that of a root where there is none.
    fn within(&mut self, observation: &Observation, trace: TraceId) -> Standing {
        match observation.evaluation {
            0 => Standing { trace, span: trace.root(), parent: None },
            _ => self.below(trace),
        }
    }

    fn next(&mut self, trace: TraceId) -> SpanId {
        self.spans += 1;
        trace.span(self.spans)
    }

    fn close(&mut self, uid: &Arc<str>) {
        if let Some(evaluation) = self.open.remove(uid) {
            self.told.insert(uid.clone(), (evaluation.number, evaluation.ended));
            self.root(uid, evaluation);
        }
    }

    fn root(&self, uid: &str, evaluation: Evaluation) {
        let Evaluation { trace, begun, ended, .. } = evaluation;
        let standing = Standing { trace, span: trace.root(), parent: None };
        let mut span = spans::span("evaluate", standing, (begun, ended));
        span.attributes = spans::object(&evaluation.object, uid);
        span.attributes.push(attribute("tidemark.evaluation", i64::try_from(evaluation.number).unwrap_or(i64::MAX)));
        span.attributes.extend(evaluation.begin.attributes());
        let changes = evaluation.decision.as_ref().map(|decision| decision.changes);
        let result = match (&evaluation.error, changes) {
            (Some(_), _) => "failed",
            (None, Some(true)) if self.dry_run => "would_scale",
            (None, Some(true)) => "scaled",
            (None, Some(false)) => "unchanged",
            (None, None) => "undecided",
        };
        span.attributes.push(attribute("tidemark.result", result));
        span.attributes.extend(evaluation.decision.into_iter().flat_map(|decision| decision.attributes));
        if let Some((kind, message)) = &evaluation.error {
            spans::fail(&mut span, *kind, message);
        }
        (span.events, span.dropped_events_count) = (evaluation.events, evaluation.dropped_events);
        self.tell(Some(span));
    }

    fn tell(&self, span: Option<Span>) {
        if let Some(mut span) = span {
            if self.dry_run {
                span.attributes.push(attribute("tidemark.dry_run", true));
            }
            self.limits.cut(&mut span);
            self.queue.push(Item { scope: spans::SCOPE, message: span.encode_to_vec() });
        }
    }
}

impl Begin {
    fn attributes(self) -> Vec<KeyValue> {
        match self {
            Self::Timer { late } => {
                vec![attribute("tidemark.begun_by", "timer"), attribute("tidemark.late", late.as_secs_f64())]
            }
            Self::Push { trigger } => {
                let trigger = i64::try_from(trigger).unwrap_or(i64::MAX);
                vec![attribute("tidemark.begun_by", "push"), attribute("tidemark.trigger.index", trigger)]
            }
            Self::Query => vec![attribute("tidemark.begun_by", "hpa")],
            Self::Unseen => Vec::new(),
        }
    }
}

impl Evaluation {
    fn new(observation: &Observation, trace: TraceId, begun: Timestamp, begin: Begin) -> Self {
        Self {
            number: observation.evaluation,
            trace,
            object: observation.object.clone(),
            begun,
            ended: observation.time,
            begin,
            decision: None,
            writing: false,
            error: None,
            events: Vec::new(),
            dropped_events: 0,
        }
    }

    fn fail(&mut self, kind: Option<&'static str>, message: &str) {
        self.error.get_or_insert_with(|| (kind, message.to_owned()));
    }

    fn add(&mut self, name: &str, time: Timestamp, attributes: Vec<KeyValue>, most: usize) {
        self.push(spans::event(name, time, attributes), most);
    }

    fn push(&mut self, event: Event, most: usize) {
        match self.events.len() < most {
            true => self.events.push(event),
            false => self.dropped_events += 1,
        }
    }
}

fn earlier(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_sub(by).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests;
