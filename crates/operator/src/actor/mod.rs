//! One ScaledObject's life, in one task.
//!
//! Watch events, ticks, answers and requests of the metrics API are messages; what is read and written outside are
//! futures that the actor owns and whose results come back to it. So it can always answer, and nothing else ever
//! changes its state. What it knows is published as an immutable [`Snapshot`](crate::Snapshot).

mod delete;
mod metrics;
mod pause;
mod poll;
mod reconcile;
mod report;
mod slot;
mod trigger;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use kube::ResourceExt;
use tidemark_api::{ScaledObject, ScaledObjectSpec, ScaledObjectStatus};
use tidemark_engine::activation::Controls;
use tidemark_engine::controls;
use tidemark_engine::reason::Reason;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::hpa::HpaView;
use crate::observation::{Life, ObjectKey, Stage, What};
use crate::snapshot::Entry;
use crate::status::{self, Tracked, Written};
use crate::target::{Found, Scaled, Target, TargetError, Template};

pub(crate) use metrics::MetricRequest;
use reconcile::Reconciled;
use slot::Slot;
use trigger::{BuildResult, Fetched, needs_resolution};

/// Pause before the first repeat of what failed; it doubles.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The longest pause between repeats.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// What an actor is told. Small, because every mailbox holds room for some.
#[derive(Debug)]
pub(crate) enum Message {
    /// The object is new or has changed in what counts.
    Object(Box<ScaledObject>),
    /// The object is gone.
    Gone,
    /// The object's HPA has changed.
    Hpa(Box<HpaView>),
    /// A list of all HPAs has none of the object's: it was deleted while nobody watched.
    HpaUnlisted,
    /// The scale target has another generation; [`ANOTHER_TARGET`] where it is another object, or gone.
    Target { generation: i64 },
    /// An authentication object that the triggers use has changed.
    Authentication,
    /// The HPA wants to know a metric.
    Metric(Box<MetricRequest>),
}

/// No generation of any object.
pub(crate) const ANOTHER_TARGET: i64 = i64::MIN;

/// What came back from outside.
enum Done {
    Reconciled(Box<Reconciled>),
    Fetched(Box<Fetched>),
    /// The target's replicas, read because a decision needs them.
    Replicas(Result<i32, String>),
    /// The target, read because its generation changed.
    Target(Box<(Target, Result<Found, TargetError>)>),
    Scaled(Box<poll::ScaleDone>),
    Status(Box<(Written, ScaledObjectStatus)>),
    /// Triggers built again to see whether their parameters have changed.
    Rebuilt {
        epoch: u32,
        builds: Vec<(usize, BuildResult)>,
    },
    Finalized(Result<(), String>),
}

type Work = BoxFuture<'static, Done>;

/// The check of the object: one at a time.
#[derive(Default)]
struct Check {
    running: bool,
    /// Another one is wanted after what is under way; with the object where the watch brought it.
    next: Option<Option<Box<ScaledObject>>>,
    retry: Retry,
    /// Why the last one failed.
    failure: Option<Arc<str>>,
    /// Requests that came before the first one had built the triggers.
    early: Vec<MetricRequest>,
}

/// The scaled workload, and what is under way with it.
#[derive(Default)]
struct Workload {
    target: Option<TargetState>,
    replicas: Option<i32>,
    /// What the watch told of the target while it was being checked, read or scaled.
    event: Option<i64>,
    reading: bool,
    reading_replicas: bool,
    scaling: bool,
}

/// The repeated reading of parameters that come from elsewhere.
#[derive(Default)]
struct Refresh {
    due: Option<Instant>,
    running: bool,
    /// Parameters changed again while they were being read.
    again: bool,
}

/// The write of the status: one at a time.
#[derive(Default)]
struct StatusWrite {
    running: bool,
    retry: Retry,
}

/// The scale target as the actor knows it.
struct TargetState {
    target: Target,
    generation: Option<i64>,
    template: Option<Template>,
}

/// The HPA as the actor knows it.
struct HpaState {
    uid: Arc<str>,
    fingerprint: u64,
    desired: Option<i32>,
}

/// A repeat after failures.
#[derive(Default)]
struct Retry {
    failures: u32,
    at: Option<Instant>,
}

impl Retry {
    fn after_failure(&mut self) {
        let pause = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST_RETRY);
        self.failures += 1;
        self.at = Some(Instant::now() + pause);
    }

    fn settled(&mut self) {
        *self = Self::default();
    }

    /// Whether it is time; asked once.
    fn take(&mut self, now: Instant) -> bool {
        self.at.take_if(|at| *at <= now).is_some()
    }
}

pub(crate) struct Actor {
    ctx: Arc<Context>,
    key: Arc<ObjectKey>,
    entry: Arc<Entry>,
    work: FuturesUnordered<Work>,

    uid: Arc<str>,
    generation: i64,
    created: Timestamp,
    spec: Arc<ScaledObjectSpec>,
    controls: Controls,
    deleting: bool,
    delete_retry: Retry,

    status: Tracked,
    status_write: StatusWrite,
    check: Check,
    workload: Workload,
    hpa: Option<HpaState>,
    /// What the watch told of the HPA while a check was running.
    hpa_event: Option<Box<HpaView>>,

    /// The triggers; none before the first reconcile, while paused and while being deleted.
    slots: Vec<Slot>,
    /// The generation of the object that the triggers were built for.
    slots_generation: i64,
    /// Counts the sets of triggers.
    epoch: u32,
    /// How long the first poll is put off.
    first_poll: Duration,
    refresh: Refresh,

    active: Option<bool>,
    last_active: Option<Timestamp>,
    evaluated: Option<Instant>,
    desired: Option<i32>,
    reasons: Vec<Reason>,
    stopped: bool,
}

/// Lives an object's life until the object is gone or `shutdown` is cancelled.
pub(crate) async fn run(
    ctx: Arc<Context>,
    entry: Arc<Entry>,
    object: Box<ScaledObject>,
    first_poll: Duration,
    mut inbox: UnboundedReceiver<Message>,
    shutdown: CancellationToken,
) {
    let mut actor = Actor::new(ctx, entry, &object, first_poll);
    actor.on_object(object);
    let timer = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(timer);
    while !actor.stopped {
        actor.publish();
        let wake = actor.next_wake();
        if let Some(at) = wake {
            timer.as_mut().reset(at);
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            // Time and work come in portions; a mailbox that never runs dry must not hold them up.
            () = &mut timer, if wake.is_some() => actor.on_time(),
            Some(done) = actor.work.next(), if !actor.work.is_empty() => actor.on_done(done),
            message = inbox.recv() => match message {
                Some(message) => actor.on_message(message),
                None => break,
            },
        }
    }
}

impl Actor {
    fn new(ctx: Arc<Context>, entry: Arc<Entry>, object: &ScaledObject, first_poll: Duration) -> Self {
        let status = Tracked::new(object.status.clone().unwrap_or_default());
        let was_active = status::is_true(&status, status::ACTIVE);
        let was_quiet = status::condition(&status, status::ACTIVE).is_some_and(|active| active.status == "False");
        // An object that was active, or may have been, was so until just now: its cooldown begins anew rather than too
        // early.
        let last_active = match &status.last_active_time {
            Some(time) if was_quiet => Some(time.0),
            None if !was_active => None,
            _ => Some(ctx.clock.now()),
        };
        Self {
            key: entry.key.clone(),
            ctx,
            entry,
            work: FuturesUnordered::new(),
            uid: object.metadata.uid.clone().unwrap_or_default().into(),
            generation: i64::MIN,
            created: object.metadata.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default(),
            spec: Arc::default(),
            controls: Controls::default(),
            deleting: false,
            delete_retry: Retry::default(),
            status,
            status_write: StatusWrite::default(),
            check: Check::default(),
            workload: Workload::default(),
            hpa: None,
            hpa_event: None,
            slots: Vec::new(),
            slots_generation: i64::MIN,
            epoch: 0,
            first_poll,
            refresh: Refresh::default(),
            active: was_active.then_some(true),
            last_active,
            evaluated: None,
            desired: None,
            reasons: Vec::new(),
            stopped: false,
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Object(object) => self.on_object(object),
            Message::Gone => self.on_gone(),
            Message::Hpa(view) => self.on_hpa(view),
            Message::HpaUnlisted => {
                if self.hpa.take().is_some() {
                    self.reconcile(None);
                }
            }
            Message::Target { generation } => self.on_target_event(generation),
            Message::Authentication => self.rebuild_triggers(true),
            Message::Metric(request) => self.on_metric_request(*request),
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Reconciled(reconciled) => self.on_reconciled(*reconciled),
            Done::Fetched(fetched) => self.on_fetched(*fetched),
            Done::Replicas(replicas) => self.on_replicas(replicas),
            Done::Target(found) => self.on_target_read(*found),
            Done::Scaled(scaled) => self.on_scaled(*scaled),
            Done::Status(written) => self.on_status_written(*written),
            Done::Rebuilt { epoch, builds } => self.on_rebuilt(epoch, builds),
            Done::Finalized(result) => self.on_finalized(result),
        }
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        if self.check.retry.take(now) {
            self.reconcile(None);
        }
        if self.status_write.retry.take(now) {
            self.flush_status();
        }
        if self.delete_retry.take(now) {
            self.finalize(None);
        }
        if self.refresh.due.take_if(|at| *at <= now).is_some() {
            self.rebuild_triggers(false);
        }
        self.poll_due(now);
    }

    /// When something is to be done without anybody asking.
    fn next_wake(&self) -> Option<Instant> {
        let polls = self.slots.iter().filter(|slot| slot.is_pollable()).map(|slot| slot.due);
        let others = [self.check.retry.at, self.status_write.retry.at, self.delete_retry.at, self.refresh.due];
        polls.chain(others.into_iter().flatten()).min()
    }

    /// Takes over an object as the API server has it now, and checks it.
    fn on_object(&mut self, object: Box<ScaledObject>) {
        // A check may have read a newer one; the watch will come to it.
        let is_old = object.metadata.generation.unwrap_or_default() < self.generation;
        if self.deleting || is_old {
            return;
        }
        self.adopt(&object);
        if object.metadata.deletion_timestamp.is_some() {
            self.begin_deletion(object);
            return;
        }
        self.apply_controls(&object);
        self.reconcile(Some(object));
    }

    /// Remembers of an object what is needed between two reconciles.
    fn adopt(&mut self, object: &ScaledObject) {
        let there = object.status.clone().unwrap_or_default();
        self.status.seen(object.metadata.resource_version.as_deref(), there);
        let generation = object.metadata.generation.unwrap_or_default();
        if generation != self.generation {
            self.generation = generation;
            self.spec = Arc::new(kept_of(&object.spec));
        }
        let annotations = object.annotations();
        // A count that cannot be read pauses all the same; the reconcile reports it.
        self.controls = controls::read(annotations)
            .unwrap_or_else(|_| Controls { paused: controls::needs_pause(annotations), ..Controls::default() });
    }

    fn on_hpa(&mut self, view: Box<HpaView>) {
        if self.check.running {
            self.hpa_event = Some(view);
            return;
        }
        if self.deleting || self.status.hpa_name.as_deref() != Some(&*view.name) {
            return;
        }
        let known = self.hpa.as_mut().filter(|hpa| hpa.uid == view.uid);
        let changed = match known {
            Some(_) if view.deleted => {
                self.hpa = None;
                true
            }
            Some(hpa) => {
                hpa.desired = view.desired;
                std::mem::replace(&mut hpa.fingerprint, view.fingerprint) != view.fingerprint
            }
            None => !view.deleted && !self.controls.paused,
        };
        if !view.deleted {
            self.report_hpa(&view);
        }
        if changed {
            self.reconcile(None);
        }
    }

    fn on_target_event(&mut self, generation: i64) {
        if self.deleting {
            return;
        }
        if self.check.running || self.workload.reading || self.workload.scaling {
            self.put_off_target_event(generation);
        } else if self.check.failure.is_some() {
            // What a failed check was waiting for may be there now.
            self.reconcile(None);
        } else if self.is_news(generation) {
            self.read_target();
        }
    }

    /// Whether a generation of the target is one that has not been read yet.
    fn is_news(&self, generation: i64) -> bool {
        self.workload.target.as_ref().is_some_and(|state| {
            generation == ANOTHER_TARGET || state.generation.is_none_or(|known| generation > known)
        })
    }

    fn read_target(&mut self) {
        let Some(state) = &self.workload.target else { return };
        self.workload.reading = true;
        let (ctx, target) = (self.ctx.clone(), state.target.clone());
        self.start(async move {
            let found = target.read(&ctx.client, &ctx.kinds).await;
            Done::Target(Box::new((target, found)))
        });
    }

    fn on_target_read(&mut self, (target, found): (Target, Result<Found, TargetError>)) {
        self.workload.reading = false;
        match found {
            // The object scales another one by now.
            _ if self.workload.target.as_ref().is_none_or(|state| state.target != target) => {}
            Ok(found) => self.take_target(found),
            // The check says what is wrong, and repeats.
            Err(_) => {
                self.workload.replicas = None;
                self.reconcile(None);
            }
        }
        self.catch_up_with_target();
    }

    fn take_target(&mut self, found: Found) {
        self.take_replicas(found.replicas);
        let Some(state) = &mut self.workload.target else { return };
        state.generation = found.generation;
        if state.template != found.template {
            state.template = found.template;
            self.rebuild_triggers(true);
        }
    }

    /// Takes over replicas that were read, unless a write of ours is under way: then nobody knows which was earlier, and
    /// they are read again.
    fn take_replicas(&mut self, replicas: i32) {
        if self.workload.scaling {
            self.put_off_target_event(ANOTHER_TARGET);
        } else {
            self.workload.replicas = Some(replicas);
        }
    }

    /// Keeps what the watch told of the target for later. That it is another object is not forgotten over a generation.
    fn put_off_target_event(&mut self, generation: i64) {
        if self.workload.event != Some(ANOTHER_TARGET) {
            self.workload.event = Some(generation);
        }
    }

    /// Goes after what the watch told of the target while it was being read or scaled.
    fn catch_up_with_target(&mut self) {
        if let Some(generation) = self.workload.event.take() {
            self.on_target_event(generation);
        }
    }

    fn on_gone(&mut self) {
        self.stop_polling("the ScaledObject is gone");
        self.stopped = true;
    }

    fn start(&self, work: impl Future<Output = Done> + Send + 'static) {
        self.work.push(Box::pin(work));
    }

    fn tell(&self, what: What) {
        self.ctx.observer.tell(&self.key, &self.uid, what);
    }

    fn tell_life(&self, life: Life) {
        self.tell(What::Life(life));
    }

    fn tell_error(&self, stage: Stage, message: impl Into<Arc<str>>) {
        self.tell(What::Error { stage, message: message.into() });
    }
}

/// What is needed of a specification between two checks: the metadata of a trigger that draws all its parameters from
/// there has served its turn once the trigger is built.
fn kept_of(spec: &ScaledObjectSpec) -> ScaledObjectSpec {
    let mut kept = ScaledObjectSpec { advanced: None, ..spec.clone() };
    for trigger in kept.triggers.iter_mut().filter(|trigger| !needs_resolution(trigger)) {
        trigger.metadata.clear();
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_size<F>(
        _: impl FnOnce(
            Arc<Context>,
            Arc<Entry>,
            Box<ScaledObject>,
            Duration,
            UnboundedReceiver<Message>,
            CancellationToken,
        ) -> F,
    ) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_object_at_rest_is_small() {
        assert!(size_of::<Message>() <= 16, "{} bytes", size_of::<Message>());
        assert!(future_size(run) <= 3072, "{} bytes", future_size(run));
        assert!(size_of::<Slot>() <= 256, "{} bytes", size_of::<Slot>());
    }

    #[test]
    fn repeats_come_ever_later_up_to_a_minute() {
        let mut retry = Retry::default();
        for _ in 0..40 {
            retry.after_failure();
        }
        assert!(retry.at.unwrap() <= Instant::now() + LONGEST_RETRY);
        retry.settled();
        retry.after_failure();
        assert!(retry.at.unwrap() <= Instant::now() + FIRST_RETRY);
    }
}
