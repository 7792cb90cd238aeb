//! The operator's work in the log: what a user acts on, once, with the trace that it belongs to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidemark_operator::{Handle, Life, Observation, ScaleCause, Stage, What, Write};
use tidemark_telemetry::traces::TraceId;
use tidemark_trigger::ErrorKind;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tracing::Level;

/// Where the lines come from, for filters.
pub const TARGET: &str = "tidemark::narration";

/// What the operator still tells when the process ends is waited for until it is silent for so long.
const SILENCE: Duration = Duration::from_millis(200);

/// Logs what is observed from now on, until `shutdown`. Nothing is said of the writes of a dry run, which do not happen.
///
/// `seed` is the process', for the traces' ids.
pub fn run(handle: &Handle, seed: u128, shutdown: CancellationToken) -> impl Future<Output = ()> + use<> {
    let mut observations = handle.observe();
    let mut narrator = Narrator::default();
    async move {
        loop {
            match shutdown.run_until_cancelled(observations.recv()).await {
                Some(Ok(observation)) => {
                    if let Some(line) = narrator.on(&observation) {
                        log(&line, seed, &observation);
                    }
                }
                Some(Err(RecvError::Lagged(lost))) => tracing::warn!(lost, "too much is going on: the log has gaps"),
                Some(Err(RecvError::Closed)) | None => break,
            }
        }
        while let Ok(Ok(observation)) = tokio::time::timeout(SILENCE, observations.recv()).await {
            if let Some(line) = narrator.on(&observation) {
                log(&line, seed, &observation);
            }
        }
        shutdown.cancelled().await;
    }
}

/// A line of the log.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    level: Level,
    text: String,
    /// Index and type of the trigger that it is about.
    trigger: Option<(usize, Arc<str>)>,
    kind: Option<ErrorKind>,
}

impl Line {
    fn new(level: Level, text: impl Into<String>) -> Self {
        Self { level, text: text.into(), trigger: None, kind: None }
    }

    fn about(self, index: usize, trigger_type: &Arc<str>) -> Self {
        Self { trigger: Some((index, trigger_type.clone())), ..self }
    }
}

/// Writes a line, with the root of its trace: that is where a person begins to read.
fn log(line: &Line, seed: u128, observation: &Observation) {
    let (namespace, name) = (&*observation.object.namespace, &*observation.object.name);
    let trace = TraceId::of(seed, observation);
    let (trace_id, span_id) = (trace.to_string(), trace.root().to_string());
    let (trace_id, span_id) = (&*trace_id, &*span_id);
    let trigger = line.trigger.as_ref().map(|(index, _)| *index as u64);
    let trigger_type = line.trigger.as_ref().map(|(_, trigger_type)| &**trigger_type);
    let kind = line.kind.map(ErrorKind::as_str);
    macro_rules! write {
        ($level:ident) => {
            tracing::event!(
                target: TARGET, Level::$level, namespace, name, trigger, "type" = trigger_type, kind, trace_id, span_id,
                "{}", line.text
            )
        };
    }
    match line.level {
        Level::ERROR => write!(ERROR),
        Level::WARN => write!(WARN),
        Level::INFO => write!(INFO),
        _ => write!(DEBUG),
    }
}

/// What was said last of what goes on failing: only news is news.
#[derive(Default)]
struct Narrator {
    objects: BTreeMap<Arc<str>, Object>,
}

#[derive(Default)]
struct Object {
    /// Triggers that cannot be read: why, and how often in a row.
    failing: BTreeMap<usize, (ErrorKind, u32)>,
    /// The last message of each stage at which something went wrong, by the words for the stage.
    wrong: BTreeMap<&'static str, Arc<str>>,
}

impl Narrator {
    fn on(&mut self, observation: &Observation) -> Option<Line> {
        let uid = &observation.uid;
        match &observation.what {
            What::Fetch { trigger, trigger_type, outcome, .. } => {
                let outcome = outcome.as_ref().map(drop).map_err(|error| (error.kind, &*error.message));
                self.fetched(uid, *trigger, outcome).map(|line| line.about(*trigger, trigger_type))
            }
            What::Write { write, dry_run: false, error, .. } => written(write, error.as_deref()),
            What::Error { stage, message } => Some(self.wrong(uid, stage, message)),
            What::Life(life) => self.turned(uid, life),
            What::Gone => {
                self.objects.remove(uid);
                None
            }
            _ => None,
        }
    }

    fn fetched(&mut self, uid: &Arc<str>, index: usize, outcome: Result<(), (ErrorKind, &str)>) -> Option<Line> {
        let Err((kind, message)) = outcome else {
            let object = self.objects.get_mut(uid)?;
            let (_, failures) = object.failing.remove(&index)?;
            let times = if failures == 1 { "time" } else { "times" };
            let text = format!("the trigger is read again, after it had failed {failures} {times}");
            self.forget_well(uid);
            return Some(Line::new(Level::INFO, text));
        };
        let failing = &mut self.objects.entry(uid.clone()).or_default().failing;
        let before = failing.get(&index).copied();
        failing.insert(index, (kind, before.map_or(1, |(_, failures)| failures.saturating_add(1))));
        // The same as before is known.
        let level = if before.is_some_and(|(before, _)| before == kind) { Level::DEBUG } else { Level::WARN };
        Some(Line { kind: Some(kind), ..Line::new(level, format!("the trigger cannot be read: {message}")) })
    }

    fn wrong(&mut self, uid: &Arc<str>, stage: &Stage, message: &Arc<str>) -> Line {
        let (words, trigger) = match stage {
            Stage::Check => ("the check failed", None),
            Stage::TargetMissing => ("the scale target is not there", None),
            Stage::TargetUnscalable => ("the scale target cannot be scaled", None),
            Stage::StatusUpdate => ("the status cannot be written", None),
            Stage::Trigger { index, trigger_type } => ("the trigger does not work", Some((*index, trigger_type))),
            Stage::PollOverdue { index, trigger_type } => ("a poll is overdue", Some((*index, trigger_type))),
            Stage::HpaContested => ("the HPA is contested", None),
            Stage::Deletion => ("the deletion cannot be finished", None),
        };
        let wrong = &mut self.objects.entry(uid.clone()).or_default().wrong;
        let level = if wrong.get(words) == Some(message) { Level::DEBUG } else { Level::WARN };
        wrong.insert(words, message.clone());
        let line = Line::new(level, format!("{words}: {message}"));
        match trigger {
            Some((index, trigger_type)) => line.about(index, trigger_type),
            None => line,
        }
    }

    fn turned(&mut self, uid: &Arc<str>, life: &Life) -> Option<Line> {
        let said = |level, text: &str| Some(Line::new(level, text));
        match life {
            Life::Ready => {
                let was_wrong = self.objects.get_mut(uid).is_some_and(|object| !object.wrong.is_empty());
                if let Some(object) = self.objects.get_mut(uid) {
                    object.wrong.clear();
                }
                self.forget_well(uid);
                // Thousands become ready when the operator starts.
                said(if was_wrong { Level::INFO } else { Level::DEBUG }, "ready for scaling")
            }
            Life::FallbackActivated => said(Level::WARN, "triggers fail too often: the fallback stands in"),
            Life::FallbackDeactivated => said(Level::INFO, "the fallback is needed no longer"),
            Life::Paused => said(Level::INFO, "paused"),
            Life::Unpaused => said(Level::INFO, "no longer paused"),
            Life::Deleted => said(Level::INFO, "deleted"),
            Life::TriggerNote { index, trigger_type, note } => {
                Some(Line::new(Level::INFO, &**note).about(*index, trigger_type))
            }
            Life::TriggerBuilt { index, trigger_type } => {
                Some(Line::new(Level::DEBUG, "the trigger is built").about(*index, trigger_type))
            }
            Life::Started => said(Level::DEBUG, "polling has begun"),
            Life::Stopped => said(Level::DEBUG, "polling has ended"),
        }
    }

    /// An object that is well takes no room.
    fn forget_well(&mut self, uid: &Arc<str>) {
        if self.objects.get(uid).is_some_and(|object| object.failing.is_empty() && object.wrong.is_empty()) {
            self.objects.remove(uid);
        }
    }
}

fn written(write: &Write, error: Option<&str>) -> Option<Line> {
    let (done, what) = match write {
        Write::Scale { target, from, to, cause } => {
            ("scaled", format!("{target} from {from} to {to}: {}", self::cause(cause)))
        }
        Write::HpaCreated { name } => ("created", format!("the HPA {name}")),
        Write::HpaUpdated { name } => ("changed", format!("the HPA {name}")),
        Write::HpaDeleted { name } => ("deleted", format!("the HPA {name}")),
        // Thousands of them succeed when an operator starts; of those that fail, the step they are part of tells.
        Write::Status | Write::FinalizerAdded | Write::FinalizerRemoved => return None,
    };
    Some(match error {
        Some(error) => Line::new(Level::WARN, format!("not {done}, {what}: {error}")),
        None => Line::new(Level::INFO, format!("{done} {what}")),
    })
}

fn cause(cause: &ScaleCause) -> String {
    match cause {
        ScaleCause::Activated { forced: true, .. } => "activation is forced by annotation".to_owned(),
        ScaleCause::Activated { metrics, .. } => format!("active by {}", metrics.join(", ")),
        ScaleCause::Deactivated => "nothing is active".to_owned(),
        ScaleCause::RaisedToMinimum => "the minimum".to_owned(),
        ScaleCause::Paused => "paused at that count".to_owned(),
        ScaleCause::Restored => "the count that it had at first".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tidemark_operator::{Asker, ObjectKey};
    use tidemark_trigger::{Reading, SourceError};

    use super::*;

    fn said(narrator: &mut Narrator, what: What) -> Option<(Level, String)> {
        let (time, object) = ("2026-01-01T00:00:00Z".parse().unwrap(), Arc::new(ObjectKey::new("shop", "orders")));
        let line = narrator.on(&Observation { time, object, uid: "1".into(), evaluation: 1, what })?;
        Some((line.level, line.text))
    }

    fn fetch(outcome: Result<f64, ErrorKind>) -> What {
        What::Fetch {
            trigger: 0,
            trigger_type: "cron".into(),
            name: None,
            asked_by: Asker::Poll,
            for_formula: false,
            endpoint: None,
            took: Duration::ZERO,
            metrics: Vec::new(),
            outcome: outcome
                .map(|value| vec![Reading { value, active: true }])
                .map_err(|kind| SourceError::new(kind, "no")),
            requests: Vec::new(),
            empties: Vec::new(),
        }
    }

    #[test]
    fn a_failing_trigger_is_news_once_for_each_kind_and_again_when_it_is_well() {
        let mut narrator = Narrator::default();
        let mut levels = Vec::new();
        for kind in [ErrorKind::Unreachable, ErrorKind::Unreachable, ErrorKind::Authentication] {
            levels.push(said(&mut narrator, fetch(Err(kind))).unwrap().0);
        }
        assert_eq!(levels, [Level::WARN, Level::DEBUG, Level::WARN]);
        let (level, text) = said(&mut narrator, fetch(Ok(1.0))).unwrap();
        assert_eq!((level, &*text), (Level::INFO, "the trigger is read again, after it had failed 3 times"));
        assert_eq!(said(&mut narrator, fetch(Ok(1.0))), None);
        assert!(narrator.objects.is_empty());
    }

    #[test]
    fn a_scaling_says_why_and_a_dry_run_says_nothing_of_it() {
        let told = |write, dry_run, error: Option<&str>| What::Write {
            write,
            took: Duration::ZERO,
            dry_run,
            error: error.map(Into::into),
        };
        let scale = |dry_run, error| {
            let cause = ScaleCause::Activated { metrics: vec!["s0-cron".into()], forced: false };
            let write = Write::Scale { target: "apps/v1.Deployment shop/orders".into(), from: 0, to: 1, cause };
            told(write, dry_run, error)
        };
        let mut narrator = Narrator::default();
        let text = "scaled apps/v1.Deployment shop/orders from 0 to 1: active by s0-cron";
        assert_eq!(said(&mut narrator, scale(false, None)), Some((Level::INFO, text.to_owned())));
        assert_eq!(said(&mut narrator, scale(false, Some("forbidden"))).unwrap().0, Level::WARN);
        for write in [Write::Status, Write::FinalizerAdded] {
            assert_eq!(said(&mut narrator, told(write.clone(), false, None)), None);
            assert_eq!(said(&mut narrator, told(write, false, Some("conflict"))), None);
        }
        assert_eq!(said(&mut narrator, scale(true, None)), None);
    }

    #[test]
    fn what_goes_wrong_alike_again_is_no_news_until_the_object_was_ready() {
        let mut narrator = Narrator::default();
        let wrong = || What::Error { stage: Stage::Check, message: "no".into() };
        let level = |told: Option<(Level, String)>| told.unwrap().0;
        assert_eq!(level(said(&mut narrator, wrong())), Level::WARN);
        assert_eq!(level(said(&mut narrator, wrong())), Level::DEBUG);
        assert_eq!(level(said(&mut narrator, What::Life(Life::Ready))), Level::INFO);
        assert_eq!(level(said(&mut narrator, What::Life(Life::Ready))), Level::DEBUG);
        assert_eq!(level(said(&mut narrator, wrong())), Level::WARN);
        said(&mut narrator, What::Gone);
        assert!(narrator.objects.is_empty());
    }
}
