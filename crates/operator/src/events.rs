//! Kubernetes Events, made from the observations of all objects.
//!
//! An event that comes again within a while becomes a series of the first one. Events never hold anything up: when the
//! API server takes them more slowly than they come, they are lost.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client;
use crate::context::Context;
use crate::observation::{Life, ObjectKey, Observation, ScaleCause, Stage, What, Write};

/// KEDA's name, which tools match on.
const CONTROLLER: &str = "keda-operator";
/// The most bytes of a note that the API server takes.
const NOTE_LIMIT: usize = 1024;
/// The most bytes of a reporting instance.
const INSTANCE_LIMIT: usize = 128;
/// The longest name of an object.
const NAME_LIMIT: usize = 253;
/// Events that wait for the API server at most.
const QUEUE: usize = 1000;
/// A series ends when nothing was added to it for this long.
const SERIES_QUIET: Duration = Duration::from_secs(6 * 60);
/// A running series is written anew this often.
const SERIES_REFRESH: Duration = Duration::from_secs(30 * 60);
/// Attempts to write an event while the API server cannot be reached, and the pause between them.
const ATTEMPTS: u32 = 12;
const PAUSE: Duration = Duration::from_secs(10);
/// Lost events are told together, this often at most.
const TELL_LOSSES: Duration = Duration::from_secs(60);
/// Time for what is queued when the operator stops.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// An event before it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Draft {
    reason: &'static str,
    action: &'static str,
    warning: bool,
    note: String,
}

impl Draft {
    fn normal(reason: &'static str, note: impl Into<String>) -> Option<Self> {
        Some(Self { reason, action: reason, warning: false, note: note.into() })
    }

    fn warning(reason: &'static str, note: impl Into<String>) -> Option<Self> {
        Some(Self { reason, action: reason, warning: true, note: note.into() })
    }
}

/// What makes two events one series: a hash of object, reason and note. Thousands of series run after a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SeriesKey(u64);

impl SeriesKey {
    fn of(object: &str, draft: &Draft) -> Self {
        let mut hasher = DefaultHasher::new();
        (object, draft.reason, &draft.note).hash(&mut hasher);
        Self(hasher.finish())
    }
}

struct Series {
    object: Arc<ObjectKey>,
    reason: &'static str,
    /// Of the first event, for its name.
    stamp: i128,
    count: i32,
    last: Timestamp,
    last_seen: Instant,
    written: Instant,
    /// Counted, but not written yet.
    pending: bool,
}

/// A write that waits its turn.
struct Job {
    series: SeriesKey,
    reason: &'static str,
    object: Arc<ObjectKey>,
    what: JobKind,
}

enum JobKind {
    Create(Box<Event>),
    Count { event: String, count: i32, last: Timestamp },
}

struct Recorder {
    ctx: Arc<Context>,
    series: BTreeMap<SeriesKey, Series>,
    queue: VecDeque<Job>,
    /// Nanoseconds in the name of the last event: names are unique within a process.
    last_stamp: i128,
    losses: Losses,
}

/// Events that were lost, and when that was told last.
#[derive(Default)]
struct Losses {
    untold: u32,
    told: Option<Instant>,
}

/// Writes events until `stop` is cancelled; what is queued then is tried once, for a moment.
pub(crate) async fn run(
    ctx: Arc<Context>,
    mut observations: broadcast::Receiver<Arc<Observation>>,
    stop: CancellationToken,
) {
    let mut recorder = Recorder {
        ctx: ctx.clone(),
        series: BTreeMap::new(),
        queue: VecDeque::new(),
        last_stamp: 0,
        losses: Losses::default(),
    };
    let mut writing: Option<BoxFuture<'static, Result<(), Unwritten>>> = None;
    let mut sweep = tokio::time::interval(SERIES_QUIET / 6);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut open = true;
    let mut closing = Box::pin(tokio::time::sleep(Duration::ZERO));
    loop {
        if writing.is_none() {
            writing = recorder.queue.pop_front().map(|job| write(ctx.clone(), job, stop.clone()).boxed());
        }
        if !open && writing.is_none() {
            return;
        }
        tokio::select! {
            biased;
            Some(result) = async { Some(writing.as_mut()?.await) }, if writing.is_some() => {
                writing = None;
                if let Err(unwritten) = result {
                    recorder.lose(&unwritten);
                }
            }
            observation = observations.recv(), if open => match observation {
                Ok(observation) => recorder.on(&observation),
                Err(RecvError::Lagged(lost)) => tracing::warn!(lost, "observations were lost: events are missing"),
                Err(RecvError::Closed) => open = false,
            },
            () = stop.cancelled(), if open => {
                while let Ok(observation) = observations.try_recv() {
                    recorder.on(&observation);
                }
                recorder.finish();
                open = false;
                closing.as_mut().reset(Instant::now() + LAST_WORDS);
            }
            () = &mut closing, if !open => return,
            _ = sweep.tick() => recorder.sweep(),
        }
    }
}

impl Recorder {
    fn on(&mut self, observation: &Observation) {
        let Some(mut draft) = draft(&observation.what) else { return };
        draft.note = shortened(draft.note);
        let now = Instant::now();
        let key = SeriesKey::of(&observation.uid, &draft);
        if let Some(series) = self.series.get_mut(&key) {
            series.count += 1;
            series.last = observation.time;
            series.last_seen = now;
            series.pending = true;
            // The first repeat is news; the others are counted, and written when the series is refreshed or ends.
            if series.count == 2 {
                self.write_count(key);
            }
            return;
        }
        let (object, reason) = (observation.object.clone(), draft.reason);
        let event = self.event(observation, draft);
        let series = Series {
            object: object.clone(),
            reason,
            stamp: self.last_stamp,
            count: 1,
            last: observation.time,
            last_seen: now,
            written: now,
            pending: false,
        };
        self.series.insert(key, series);
        self.enqueue(Job { series: key, reason, object, what: JobKind::Create(Box::new(event)) });
    }

    fn event(&mut self, observation: &Observation, draft: Draft) -> Event {
        let object = &observation.object;
        self.last_stamp = (self.last_stamp + 1).max(observation.time.as_nanosecond());
        Event {
            metadata: ObjectMeta {
                name: Some(event_name(&object.name, self.last_stamp)),
                namespace: Some(object.namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(observation.time)),
            type_: Some(if draft.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(draft.reason.to_owned()),
            action: Some(draft.action.to_owned()),
            note: Some(draft.note),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(instance(&self.ctx.settings.hostname)),
            regarding: Some(ObjectReference {
                api_version: Some(format!("{}/{}", tidemark_api::GROUP, tidemark_api::VERSION)),
                kind: Some("ScaledObject".to_owned()),
                namespace: Some(object.namespace.clone()),
                name: Some(object.name.clone()),
                uid: Some(observation.uid.to_string()),
                ..ObjectReference::default()
            }),
            ..Event::default()
        }
    }

    fn enqueue(&mut self, job: Job) {
        if self.queue.len() < QUEUE {
            self.queue.push_back(job);
        } else {
            let message = "the API server takes them too slowly".to_owned();
            self.lose(&Unwritten { series: job.series, reason: job.reason, message });
        }
    }

    /// An event that was not written begins no series: the next one of its kind is written as the first.
    fn lose(&mut self, Unwritten { series, reason, message }: &Unwritten) {
        self.series.remove(series);
        self.losses.untold += 1;
        let now = Instant::now();
        if self.losses.told.is_none_or(|told| now.duration_since(told) >= TELL_LOSSES) {
            tracing::warn!(count = self.losses.untold, reason, message, "events were lost");
            self.losses = Losses { untold: 0, told: Some(now) };
        }
    }

    fn write_count(&mut self, key: SeriesKey) {
        let Some(series) = self.series.get_mut(&key) else { return };
        series.pending = false;
        series.written = Instant::now();
        let object = series.object.clone();
        let event = event_name(&object.name, series.stamp);
        let what = JobKind::Count { event, count: series.count, last: series.last };
        let job = Job { series: key, reason: series.reason, object, what };
        self.enqueue(job);
    }

    /// Writes the counts that are due and forgets the series that have ended.
    fn sweep(&mut self) {
        let now = Instant::now();
        let ended = |series: &Series| now.duration_since(series.last_seen) >= SERIES_QUIET;
        let due = |series: &Series| ended(series) || now.duration_since(series.written) >= SERIES_REFRESH;
        let counts: Vec<_> = self.series.iter().filter(|(_, s)| s.pending && due(s)).map(|(key, _)| *key).collect();
        for key in counts {
            self.write_count(key);
        }
        self.series.retain(|_, series| !ended(series));
    }

    /// Writes all counts: nobody will add to them.
    fn finish(&mut self) {
        let pending: Vec<_> = self.series.iter().filter(|(_, s)| s.pending).map(|(key, _)| *key).collect();
        for key in pending {
            self.write_count(key);
        }
    }
}

/// An event that was not written, and why.
struct Unwritten {
    series: SeriesKey,
    reason: &'static str,
    message: String,
}

/// Writes one event. While the API server cannot be reached, it is tried again; what is refused is dropped. A repeated
/// create makes no second event: its name is given.
async fn write(ctx: Arc<Context>, job: Job, stop: CancellationToken) -> Result<(), Unwritten> {
    let api = Api::<Event>::namespaced(ctx.client.clone(), &job.object.namespace);
    let mut attempt = 1;
    loop {
        let result = match &job.what {
            JobKind::Create(event) => api.create(&PostParams::default(), event).await,
            JobKind::Count { event, count, last } => {
                let series = EventSeries { count: *count, last_observed_time: MicroTime(*last) };
                api.patch(event, &PatchParams::default(), &Patch::Merge(json!({"series": series}))).await
            }
        };
        let error = match result {
            Ok(_) => return Ok(()),
            Err(error) if client::is_conflict(&error) => return Ok(()),
            Err(error) => error,
        };
        if matches!(error, kube::Error::Api(_)) || attempt == ATTEMPTS || stop.is_cancelled() {
            return Err(Unwritten { series: job.series, reason: job.reason, message: client::describe(&error) });
        }
        attempt += 1;
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// A note that the API server takes: the rest of a longer one is left out.
fn shortened(mut note: String) -> String {
    const MORE: &str = "…";
    if note.len() > NOTE_LIMIT {
        note.truncate(note.floor_char_boundary(NOTE_LIMIT - MORE.len()));
        note.push_str(MORE);
    }
    note
}

/// Who reports, on which machine.
fn instance(hostname: &str) -> String {
    let mut instance = format!("{CONTROLLER}-{hostname}");
    instance.truncate(instance.floor_char_boundary(INSTANCE_LIMIT));
    instance
}

/// The object's name and the time, as long as a name may be.
fn event_name(object: &str, stamp: i128) -> String {
    let stamp = format!("{stamp:x}");
    let room = NAME_LIMIT - 1 - stamp.len();
    let cut: String = object.chars().take(room).collect();
    format!("{}.{stamp}", cut.trim_end_matches(['.', '-']))
}

/// The event for an observation, where there is one.
fn draft(what: &What) -> Option<Draft> {
    match what {
        What::Fetch { outcome: Err(error), for_formula: true, .. } => {
            Draft::warning("KEDAMetricSourceFailed", error.to_string())
        }
        What::Fetch { outcome: Err(error), .. } => Draft::warning("KEDAScalerFailed", error.to_string()),
        What::Fetch { .. } | What::Decision { .. } | What::Poll { .. } | What::Pushed { .. } | What::Hpa(_) => None,
        What::Query { .. } | What::Checked { .. } => None,
        What::Defined { .. } | What::Gone | What::Paused(_) | What::Resource { .. } => None,
        What::Write { write, error, .. } => draft_write(write, error.as_deref()),
        What::Error { stage, message } => draft_error(stage, message),
        What::Life(life) => draft_life(life),
    }
}

/// A failure's cause follows KEDA's words.
fn draft_write(write: &Write, error: Option<&str>) -> Option<Draft> {
    let Write::Scale { target, from, to, cause } = write else { return None };
    match (cause, error) {
        (ScaleCause::Activated { metrics, forced }, None) => {
            let cause = match forced {
                true => "caused by forced activation annotation".to_owned(),
                false => format!("triggered by {}", metrics.join(";")),
            };
            Draft::normal("KEDAScaleTargetActivated", format!("Scaled {target} from {from} to {to}, {cause}"))
        }
        (ScaleCause::Activated { .. }, Some(error)) => Draft::warning(
            "KEDAScaleTargetActivationFailed",
            format!("Failed to scale {target} from {from} to {to}: {error}"),
        ),
        (ScaleCause::Deactivated, None) => {
            Draft::normal("KEDAScaleTargetDeactivated", format!("Deactivated {target} from {from} to {to}"))
        }
        (ScaleCause::Deactivated, Some(error)) => Draft::warning(
            "KEDAScaleTargetDeactivationFailed",
            format!("Failed to deactivate {target} from {from} to {to}: {error}"),
        ),
        (ScaleCause::RaisedToMinimum | ScaleCause::Paused | ScaleCause::Restored, _) => None,
    }
}

fn draft_error(stage: &Stage, message: &str) -> Option<Draft> {
    match stage {
        Stage::Check => Draft::warning("ScaledObjectCheckFailed", message),
        Stage::TargetMissing => Draft::warning("ScaledObjectCheckFailed", "Target resource doesn't exist"),
        Stage::TargetUnscalable => {
            Draft::warning("ScaledObjectCheckFailed", "Target resource doesn't expose /scale subresource")
        }
        Stage::StatusUpdate => Draft::warning("ScaledObjectUpdateFailed", message),
        Stage::Trigger { .. } => Draft::warning("KEDAScalerFailed", message),
        Stage::HpaContested => Draft::warning("HPAContested", message),
        Stage::PollOverdue { .. } | Stage::Deletion => None,
    }
}

fn draft_life(life: &Life) -> Option<Draft> {
    match life {
        Life::Started => Some(Draft {
            reason: "KEDAScalersStarted",
            action: "ScalersWatchStarted",
            warning: false,
            note: "Started scalers watch".to_owned(),
        }),
        Life::Stopped => Draft::normal("KEDAScalersStopped", "Stopped scalers watch"),
        Life::TriggerBuilt { trigger_type, .. } => {
            Draft::normal("KEDAScalersStarted", format!("Scaler {trigger_type} is built"))
        }
        Life::TriggerNote { trigger_type, note, .. } => {
            Draft::normal("KEDAScalerInfo", format!("scaler {trigger_type} info: {note}"))
        }
        Life::Ready => Draft::normal("ScaledObjectReady", "ScaledObject is ready for scaling"),
        Life::Paused => Draft::normal("ScaledObjectPaused", "ScaledObject is paused"),
        Life::Unpaused => Draft::normal("ScaledObjectUnpaused", "pause annotation removed for ScaledObject"),
        Life::FallbackActivated => Draft::normal("ScaledObjectFallbackActivated", "ScaledObject fallback is active"),
        Life::FallbackDeactivated => {
            Draft::normal("ScaledObjectFallbackDeactivated", "ScaledObject fallback is no longer active")
        }
        Life::Deleted => Draft::warning("ScaledObjectDeleted", "ScaledObject was deleted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled(cause: ScaleCause, error: Option<&str>) -> Draft {
        let write = Write::Scale { target: "apps/v1.Deployment shop/workers".into(), from: 0, to: 1, cause };
        let (took, error) = (Duration::ZERO, error.map(Into::into));
        draft(&What::Write { write, took, dry_run: false, error }).unwrap()
    }

    #[test]
    fn an_activation_names_target_replicas_and_metrics() {
        let draft = scaled(ScaleCause::Activated { metrics: vec!["s0-a".into(), "s1-b".into()], forced: false }, None);
        assert_eq!(draft.reason, "KEDAScaleTargetActivated");
        assert_eq!(draft.note, "Scaled apps/v1.Deployment shop/workers from 0 to 1, triggered by s0-a;s1-b");
        let draft = scaled(ScaleCause::Activated { metrics: Vec::new(), forced: true }, None);
        assert!(draft.note.ends_with(", caused by forced activation annotation"));
    }

    #[test]
    fn failed_scaling_is_a_warning() {
        let draft = scaled(ScaleCause::Deactivated, Some("no"));
        assert!(draft.warning && draft.reason == "KEDAScaleTargetDeactivationFailed");
        assert_eq!(draft.note, "Failed to deactivate apps/v1.Deployment shop/workers from 0 to 1: no");
    }

    #[test]
    fn an_events_name_is_never_longer_than_a_name_may_be() {
        assert_eq!(event_name("workers", 0x17f), "workers.17f");
        let long = event_name(&format!("{}-{}", "a".repeat(236), "b".repeat(16)), 0x17ff_ffff_ffff_ffff);
        assert_eq!(long, format!("{}.17ffffffffffffff", "a".repeat(236)));
        assert!(long.len() <= 253);
    }

    #[test]
    fn a_note_has_no_more_bytes_than_the_api_server_takes() {
        assert_eq!(shortened("a".repeat(1024)), "a".repeat(1024));
        assert_eq!(shortened("a".repeat(1025)), format!("{}…", "a".repeat(1021)));
        let wide = shortened("ü".repeat(600));
        assert_eq!((wide.len(), wide.ends_with("ü…")), (1023, true));
        assert_eq!(instance(&"h".repeat(200)).len(), 128);
    }

    #[test]
    fn every_action_and_reason_is_short_enough_for_the_api() {
        let lives = [Life::Started, Life::Stopped, Life::Ready, Life::Paused, Life::Unpaused, Life::Deleted];
        for draft in lives.iter().filter_map(draft_life) {
            assert!(draft.action.len() <= 128 && draft.reason.len() <= 128 && !draft.action.is_empty());
        }
    }
}
