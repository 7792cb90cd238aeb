//! One ScaledObject's life, in one task.
//!
//! Watch events, ticks, answers and requests of the metrics API are messages; what is read and written outside are
//! futures that the actor owns and whose results come back to it. So it can always answer, and nothing else ever
//! changes its state. What it knows is published as an immutable [`Snapshot`](crate::Snapshot).

mod check;
mod decide;
mod delete;
mod health;
mod metrics;
mod pause;
mod plan;
mod poll;
mod push;
mod reconcile;
mod refresh;
mod report;
mod slot;
mod trigger;
mod under_way;
mod workload;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use tidemark_api::{ScaleTriggers, ScaledObject, ScaledObjectSpec, ScaledObjectStatus};
use tidemark_engine::activation::Controls;
use tidemark_engine::composite::Modifiers;
use tidemark_engine::controls;
use tidemark_engine::reason::Reason;
use tidemark_trigger::Push;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::claims::Rival;
use crate::context::Context;
use crate::hpa::HpaView;
use crate::observation::{Definition, Life, Stage, What};
use crate::snapshot::{Detail, Entry};
use crate::status::{self, NewCondition, Tracked};
use crate::target::{Found, Scaled, Target, TargetError};

use check::Checked;
pub(crate) use metrics::MetricRequest;
use metrics::Questions;
use plan::Plan;
use push::Ear;
use reconcile::Check;
use refresh::Refresh;
use slot::Slot;
use trigger::{BuildResult, Fetched};
use under_way::UnderWay;
pub(crate) use workload::ANOTHER_TARGET;
use workload::{ScaleRead, Workload};

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
    /// Another object has the scale target or the HPA, or has it no longer.
    Rival(Option<Arc<Rival>>),
    /// The HPA wants to know a metric.
    Metric(Box<MetricRequest>),
    /// Somebody wants to know everything.
    Detail(Box<oneshot::Sender<Detail>>),
}

/// What came back from outside.
enum Done {
    Checked(Box<Checked>),
    Fetched(Box<Fetched>),
    /// What a source told unasked; none where it has ended, or nobody listens any more.
    Pushed(Option<(Box<Ear>, Push)>),
    /// The target's replicas and pods, read because a decision or an answer needs them.
    Scale(Box<ScaleRead>),
    /// The target, read because its generation changed.
    Target(Box<(Target, Result<Found, TargetError>)>),
    Scaled(Box<decide::ScaleDone>),
    Status(Box<report::StatusDone>),
    /// Triggers built again to see whether their parameters have changed.
    Rebuilt {
        epoch: u32,
        builds: Vec<(usize, BuildResult)>,
    },
    Finalized(Result<(), String>),
}

/// The write of the status: one at a time.
#[derive(Default)]
struct StatusWrite {
    running: bool,
    retry: Retry,
}

/// The HPA as the actor knows it.
struct HpaState {
    uid: Arc<str>,
    fingerprint: u64,
    desired: Option<i32>,
}

/// Which evaluation of the triggers is under way: what belongs to it is told with its number.
#[derive(Default)]
struct Evaluation {
    number: u64,
    /// It has not led to a decision yet.
    open: bool,
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
    entry: Arc<Entry>,
    work: UnderWay<Done>,

    generation: i64,
    plan: Plan,
    /// The scaling modifiers, ready for use; none while their triggers are not at work.
    modifiers: Option<Arc<Modifiers>>,
    controls: Controls,
    /// What was last told of whether the object is paused.
    told_paused: Option<bool>,
    /// Who has the target or the HPA in this object's place.
    rival: Option<Arc<Rival>>,
    deleting: bool,
    /// The write with which the finalizer goes is under way.
    finalizing: bool,
    delete_retry: Retry,

    status: Tracked,
    status_write: StatusWrite,
    check: Check,
    workload: Workload,
    hpa: Option<HpaState>,
    /// What the watch told of the HPA while a check was running.
    hpa_event: Option<Box<HpaView>>,
    /// When the HPA may be put right again after others have changed it.
    hpa_peace: Retry,

    /// The triggers; none before the first reconcile, while paused, beside a rival and while being deleted.
    slots: Vec<Slot>,
    /// The generation of the object that the triggers were built for.
    slots_generation: i64,
    /// Counts the sets of triggers.
    epoch: u32,
    /// How long the first poll is put off.
    first_poll: Duration,
    refresh: Refresh,
    questions: Option<Box<Questions>>,

    active: Option<bool>,
    last_active: Option<Timestamp>,
    evaluation: Evaluation,
    evaluated: Option<Instant>,
    desired: Option<i32>,
    reasons: Arc<[Reason]>,
    stopped: bool,
}

/// How an object's life begins.
pub(crate) struct Birth {
    pub(crate) entry: Arc<Entry>,
    pub(crate) object: Box<ScaledObject>,
    /// How long the first poll is put off.
    pub(crate) first_poll: Duration,
    pub(crate) rival: Option<Arc<Rival>>,
}

/// Closes an actor's mailbox when its life ends, however it ends.
struct Closing(Arc<Entry>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.mailbox.close();
    }
}

/// Lives an object's life until the object is gone or `shutdown` is cancelled.
pub(crate) async fn run(ctx: Arc<Context>, birth: Box<Birth>, shutdown: CancellationToken) {
    let mailbox = Closing(birth.entry.clone());
    let mut actor = Box::new(Actor::new(ctx, &birth));
    let Birth { object, .. } = *birth;
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
            done = actor.work.next() => actor.on_done(done),
            message = mailbox.0.mailbox.recv() => actor.on_message(message),
        }
    }
}

impl Actor {
    fn new(ctx: Arc<Context>, birth: &Birth) -> Self {
        let object = &birth.object;
        let status = Tracked::new(&ctx.texts, object.status.as_ref().unwrap_or(&ScaledObjectStatus::default()));
        let was_active = status.is_true(status::ACTIVE);
        let was_quiet = status.condition(status::ACTIVE).is_some_and(|active| &*active.status == "False");
        // An object that was active, or may have been, was so until just now: its cooldown begins anew rather than too
        // early.
        let last_active = match status.last_active {
            Some(time) if was_quiet => Some(time),
            None if !was_active => None,
            _ => Some(ctx.clock.now()),
        };
        let created = object.metadata.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default();
        Self {
            ctx,
            entry: birth.entry.clone(),
            work: UnderWay::default(),
            generation: i64::MIN,
            plan: Plan::new(&ScaledObjectSpec::default(), created),
            modifiers: None,
            controls: Controls::default(),
            told_paused: None,
            rival: birth.rival.clone(),
            deleting: false,
            finalizing: false,
            delete_retry: Retry::default(),
            status,
            status_write: StatusWrite::default(),
            check: Check::default(),
            workload: Workload::default(),
            hpa: None,
            hpa_event: None,
            hpa_peace: Retry::default(),
            slots: Vec::new(),
            slots_generation: i64::MIN,
            epoch: 0,
            first_poll: birth.first_poll,
            refresh: Refresh::default(),
            questions: None,
            active: was_active.then_some(true),
            last_active,
            evaluation: Evaluation::default(),
            evaluated: None,
            desired: None,
            reasons: Arc::default(),
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
                    self.put_hpa_right();
                }
            }
            Message::Target { generation } => self.on_target_event(generation),
            Message::Authentication => self.rebuild_triggers(true),
            Message::Rival(rival) => self.on_rival(rival),
            Message::Metric(request) => self.on_metric_request(*request),
            Message::Detail(reply) => {
                let _ = reply.send(self.detail());
            }
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Checked(checked) => self.on_checked(*checked),
            Done::Fetched(fetched) => self.on_fetched(*fetched),
            Done::Pushed(Some((ear, push))) => self.on_pushed(ear, push),
            Done::Pushed(None) => {}
            Done::Scale(read) => self.on_scale_read(*read),
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
            self.refresh_triggers();
        }
        self.poll_due(now);
    }

    /// When something is to be done without anybody asking.
    fn next_wake(&self) -> Option<Instant> {
        let others = [self.check.retry.at, self.status_write.retry.at, self.delete_retry.at, self.refresh.due];
        self.next_poll().into_iter().chain(others.into_iter().flatten()).min()
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
        self.status.seen(&self.ctx.texts, object.metadata.resource_version.as_deref(), there);
        let generation = object.metadata.generation.unwrap_or_default();
        if generation != self.generation {
            self.generation = generation;
            self.plan = Plan::new(&object.spec, self.plan.policy.created);
            self.tell_definitions(&object.spec.triggers);
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
        // One that a check without an outcome has left over is older than this one.
        self.hpa_event = None;
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
            self.tell(What::Hpa(view.seen.clone()));
            self.report_hpa(&view);
        }
        if changed {
            self.put_hpa_right();
        }
    }

    fn on_gone(&mut self) {
        self.stop_polling("the ScaledObject is gone");
        // The watch may be faster than the answer to the write.
        if self.finalizing {
            self.tell_life(Life::Deleted);
        }
        self.tell(What::Gone);
        self.stopped = true;
    }

    /// Changes a condition of the status, if it is another one.
    fn set_condition(&mut self, condition: NewCondition<'_>) {
        self.status.set(&self.ctx.texts, condition);
    }

    fn start(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        self.work.add(work);
    }

    fn tell(&self, what: What) {
        self.tell_of(self.evaluation.number, what);
    }

    /// Tells of something that belongs to an earlier evaluation.
    fn tell_of(&self, evaluation: u64, what: What) {
        self.ctx.observer.tell(&self.entry.key, &self.entry.uid, evaluation, what);
    }

    fn tell_definitions(&self, triggers: &[ScaleTriggers]) {
        let texts = &self.ctx.texts;
        let definition = |trigger: &ScaleTriggers| Definition {
            trigger_type: texts.share(&trigger.type_),
            name: trigger.name.as_deref().and_then(|name| texts.share_some(name)),
        };
        self.tell(What::Defined { triggers: triggers.iter().map(definition).collect() });
    }

    fn tell_life(&self, life: Life) {
        self.tell(What::Life(life));
    }

    fn tell_error(&self, stage: Stage, message: impl Into<Arc<str>>) {
        self.tell(What::Error { stage, message: message.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_size<F>(_: impl FnOnce(Arc<Context>, Box<Birth>, CancellationToken) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_object_at_rest_is_small() {
        assert!(size_of::<Message>() <= 16, "{} bytes", size_of::<Message>());
        assert!(future_size(run) <= 384, "{} bytes", future_size(run));
        assert!(size_of::<Actor>() <= 1024, "{} bytes", size_of::<Actor>());
        assert!(size_of::<Slot>() <= 192, "{} bytes", size_of::<Slot>());
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
