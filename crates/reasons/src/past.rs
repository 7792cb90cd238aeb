//! What is remembered of one object.

use std::collections::VecDeque;
use std::mem::discriminant;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tidemark_engine::activation::Action;
use tidemark_engine::reason::Reason;
use tidemark_operator::{HpaSeen, Life, Observation, ScaleCause, Seen, Stage, What, Write};
use tidemark_trigger::{Reading, SourceError};

use crate::report::Author;

/// Changes of the replicas, writes and kinds of trouble that are kept of an object.
const KEPT: usize = 8;
/// The longest message that is kept, in bytes.
const MESSAGE: usize = 1024;
/// The HPA controller writes the replicas, and a moment later when it did; the clocks of both processes differ.
const SLACK: SignedDuration = SignedDuration::from_secs(60);

/// One object's past.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    pub(crate) uid: Arc<str>,
    pub(crate) since: Timestamp,
    pub(crate) decisions: VecDeque<Kept>,
    pub(crate) turns: VecDeque<Turn>,
    pub(crate) written: VecDeque<Written>,
    pub(crate) troubles: Vec<Fault>,
    /// By the triggers' positions.
    pub(crate) reads: Vec<Read>,
    pub(crate) hpa: Option<Arc<HpaSeen>>,
    /// By how much the last poll was late.
    pub(crate) late: Option<Duration>,
    /// When the HPA last asked for a value.
    pub(crate) queried: Option<Timestamp>,
    /// The replicas as of the last decision, write or word of the HPA.
    replicas: Option<i32>,
}

/// A decision, and how often the same was decided.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    pub(crate) count: u64,
    pub(crate) evaluation: u64,
    pub(crate) active: bool,
    pub(crate) replicas: Option<i32>,
    pub(crate) action: Action,
    pub(crate) reasons: Arc<[Reason]>,
    pub(crate) metrics: Arc<[Seen]>,
}

/// A change of the replicas.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    pub(crate) time: Timestamp,
    pub(crate) from: Option<i32>,
    pub(crate) to: i32,
    pub(crate) by: Author,
    pub(crate) cause: Option<ScaleCause>,
    /// What had been decided last; what the HPA had to say of itself.
    pub(crate) decided: Option<Grounds>,
    pub(crate) hpa: Option<Arc<HpaSeen>>,
}

/// The reasons of a decision and what it rests on.
pub(crate) type Grounds = (Arc<[Reason]>, Arc<[Seen]>);

/// A write.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) time: Timestamp,
    pub(crate) write: Write,
    /// Nothing was sent.
    pub(crate) dry_run: bool,
    pub(crate) error: Option<Arc<str>>,
}

/// A kind of trouble.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) about: About,
    /// Of a trigger's error.
    pub(crate) kind: &'static str,
    pub(crate) message: Box<str>,
    pub(crate) count: u64,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    pub(crate) open: bool,
}

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    Trigger(usize),
    PollOverdue(usize),
    Check,
    TargetMissing,
    TargetUnscalable,
    StatusUpdate,
    HpaContested,
    Deletion,
    Scale,
    Hpa,
}

/// A trigger's reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Read {
    pub(crate) took: Option<Duration>,
    pub(crate) endpoint: Option<Arc<str>>,
    /// The value of each metric, since when it is the same, and how often it was read.
    pub(crate) values: Box<[(f64, Timestamp, u64)]>,
}

impl Past {
    pub(crate) fn new(uid: Arc<str>, since: Timestamp) -> Self {
        Self {
            uid,
            since,
            decisions: VecDeque::new(),
            turns: VecDeque::new(),
            written: VecDeque::new(),
            troubles: Vec::new(),
            reads: Vec::new(),
            hpa: None,
            late: None,
            queried: None,
            replicas: None,
        }
    }

    /// Takes something in that happened to the object; `room` is how many decisions may be kept.
    pub(crate) fn on(&mut self, observation: &Observation, room: usize) {
        let time = observation.time;
        match &observation.what {
            What::Defined { .. } => {
                self.reads.clear();
                self.troubles.retain(|fault| !matches!(fault.about, About::Trigger(_) | About::PollOverdue(_)));
            }
            What::Poll { late } => self.late = Some(*late),
            What::Fetch { trigger, took, endpoint, outcome, .. } => {
                self.on_fetch(time, *trigger, (*took, endpoint), outcome);
            }
            What::Decision { active, replicas, action, reasons, metrics } => {
                if let Some(replicas) = *replicas {
                    self.on_replicas(time, replicas);
                }
                let (active, replicas, action) = (*active, *replicas, *action);
                let (reasons, metrics, evaluation) = (reasons.clone(), metrics.clone(), observation.evaluation);
                let kept =
                    Kept { first: time, last: time, count: 1, evaluation, active, replicas, action, reasons, metrics };
                self.keep(kept, room);
            }
            What::Write { write, dry_run, error, .. } => self.on_write(time, (write, *dry_run), error.as_ref()),
            What::Hpa(seen) => self.on_hpa(time, seen),
            What::Error { stage, message } => self.fail(time, about(stage), kind_of(stage), message),
            What::Life(life) => self.on_life(life),
            What::Query { .. } => self.queried = Some(time),
            What::Pushed { .. } | What::Paused(_) | What::Checked { .. } => {}
            What::Gone | What::Resource { .. } => {}
        }
    }

    fn on_fetch(
        &mut self,
        time: Timestamp,
        trigger: usize,
        (took, endpoint): (Duration, &Option<Arc<str>>),
        outcome: &Result<Vec<Reading>, SourceError>,
    ) {
        if self.reads.len() <= trigger {
            self.reads.resize_with(trigger + 1, Read::default);
        }
        let read = &mut self.reads[trigger];
        (read.took, read.endpoint) = (Some(took), endpoint.clone());
        match outcome {
            Ok(readings) => {
                read.take(time, readings);
                self.mend(|about| about == About::Trigger(trigger));
            }
            Err(error) => {
                read.values = Box::default();
                // Another kind of error than before: what was is over.
                let kind = error.kind.as_str();
                for fault in self.troubles.iter_mut().filter(|fault| fault.about == About::Trigger(trigger)) {
                    fault.open &= fault.kind == kind;
                }
                self.fail(time, About::Trigger(trigger), kind, &error.message);
            }
        }
    }

    /// The replicas are as many as a decision found.
    fn on_replicas(&mut self, time: Timestamp, replicas: i32) {
        let before = self.replicas.replace(replicas);
        if before.is_some_and(|before| before != replicas) {
            // Who it was turns out when the HPA says so.
            self.turn(Turn {
                time,
                from: before,
                to: replicas,
                by: Author::Other,
                cause: None,
                decided: self.decided(),
                hpa: None,
            });
        }
    }

    fn on_write(&mut self, time: Timestamp, (write, dry_run): (&Write, bool), error: Option<&Arc<str>>) {
        let about = match write {
            Write::Scale { .. } => About::Scale,
            Write::HpaCreated { .. } | Write::HpaUpdated { .. } | Write::HpaDeleted { .. } => About::Hpa,
            Write::Status => {
                return if error.is_none() {
                    self.mend(|about| about == About::StatusUpdate)
                };
            }
            // Where that fails, the check or the deletion does, and tells of it.
            Write::FinalizerAdded | Write::FinalizerRemoved => return,
        };
        match error {
            None => self.mend(|known| known == about),
            Some(error) => self.fail(time, about, "", error),
        }
        if let (Write::Scale { from, to, cause, .. }, None) = (write, error) {
            self.replicas = Some(*to);
            let (from, cause) = (Some(*from).filter(|from| *from >= 0), Some(cause.clone()));
            let decided = self.decided();
            let by = if dry_run { Author::DryRun } else { Author::Operator };
            self.turn(Turn { time, from, to: *to, by, cause, decided, hpa: None });
        }
        push(&mut self.written, Written { time, write: write.clone(), dry_run, error: error.cloned() });
    }

    fn on_hpa(&mut self, time: Timestamp, seen: &Arc<HpaSeen>) {
        let before = self.hpa.replace(seen.clone()).and_then(|before| before.last_scale);
        let (Some(at), Some(to)) = (seen.last_scale, seen.desired) else { return };
        if before == Some(at) {
            return;
        }
        // What was seen before anybody had said who it was.
        let alike =
            |turn: &&mut Turn| turn.by == Author::Other && turn.to == to && turn.time.duration_since(at).abs() < SLACK;
        if let Some(turn) = self.turns.back_mut().filter(alike) {
            (turn.by, turn.time, turn.hpa) = (Author::Hpa, at.min(turn.time), Some(seen.clone()));
            return;
        }
        // Before this operator's time it may have wanted another count than now.
        if before.is_none() && at < self.since {
            return;
        }
        let from = self.replicas.or(seen.current).filter(|from| *from != to);
        if time.duration_since(at) < SLACK {
            self.replicas = Some(to);
        }
        let decided = self.decided();
        self.turn(Turn { time: at, from, to, by: Author::Hpa, cause: None, decided, hpa: Some(seen.clone()) });
    }

    fn on_life(&mut self, life: &Life) {
        match life {
            Life::Ready => self.mend(|about| {
                matches!(about, About::Check | About::TargetMissing | About::TargetUnscalable | About::Hpa)
            }),
            Life::Stopped => {
                self.mend(|about| matches!(about, About::Trigger(_) | About::PollOverdue(_)));
                self.reads.clear();
                self.late = None;
            }
            Life::TriggerBuilt { index, .. } => {
                // A read that failed fails until one succeeds.
                let unread = self.reads.get(*index).is_none_or(|read| read.took.is_none());
                if unread {
                    self.mend(|about| about == About::Trigger(*index));
                }
            }
            _ => {}
        }
    }

    fn keep(&mut self, kept: Kept, room: usize) {
        match self.decisions.back_mut().filter(|last| last.is_like(&kept)) {
            Some(last) => *last = Kept { first: last.first, count: last.count + 1, ..kept },
            None => self.decisions.push_back(kept),
        }
        while self.decisions.len() > room.max(1) {
            self.decisions.pop_front();
        }
    }

    fn decided(&self) -> Option<Grounds> {
        self.decisions.back().map(|last| (last.reasons.clone(), last.metrics.clone()))
    }

    fn turn(&mut self, turn: Turn) {
        push(&mut self.turns, turn);
    }

    fn fail(&mut self, time: Timestamp, about: About, kind: &'static str, message: &str) {
        let known = self.troubles.iter().position(|fault| fault.about == about && fault.kind == kind);
        let mut fault = match known {
            Some(at) => self.troubles.remove(at),
            None => Fault { about, kind, message: "".into(), count: 0, first: time, last: time, open: false },
        };
        if !fault.open {
            (fault.first, fault.count) = (time, 0);
        }
        if *fault.message != *message {
            fault.message = cut(message).into();
        }
        (fault.count, fault.last, fault.open) = (fault.count + 1, time, true);
        if self.troubles.len() >= KEPT {
            // What is over goes first.
            let at = self.troubles.iter().position(|fault| !fault.open).unwrap_or(0);
            self.troubles.remove(at);
        }
        self.troubles.push(fault);
    }

    fn mend(&mut self, which: impl Fn(About) -> bool) {
        self.troubles.iter_mut().filter(|fault| which(fault.about)).for_each(|fault| fault.open = false);
    }
}

impl Kept {
    /// Whether it was decided by the same rules and to the same end; values may differ.
    fn is_like(&self, other: &Self) -> bool {
        let rules = |kept: &Self| kept.reasons.iter().map(discriminant).collect::<Vec<_>>();
        (self.active, self.replicas, self.action) == (other.active, other.replicas, other.action)
            && self.reasons.len() == other.reasons.len()
            && rules(self) == rules(other)
    }
}

impl Read {
    fn take(&mut self, time: Timestamp, readings: &[Reading]) {
        let value = |(at, reading): (usize, &Reading)| match self.values.get(at) {
            Some((value, since, count)) if value.to_bits() == reading.value.to_bits() => {
                (reading.value, *since, count + 1)
            }
            _ => (reading.value, time, 1),
        };
        self.values = readings.iter().enumerate().map(value).collect();
    }
}

impl About {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Trigger(_) => "Trigger",
            Self::PollOverdue(_) => "PollOverdue",
            Self::Check => "Check",
            Self::TargetMissing => "TargetMissing",
            Self::TargetUnscalable => "TargetUnscalable",
            Self::StatusUpdate => "StatusUpdate",
            Self::HpaContested => "HpaContested",
            Self::Deletion => "Deletion",
            Self::Scale => "Scale",
            Self::Hpa => "Hpa",
        }
    }

    pub(crate) fn trigger(self) -> Option<usize> {
        match self {
            Self::Trigger(index) | Self::PollOverdue(index) => Some(index),
            _ => None,
        }
    }
}

fn about(stage: &Stage) -> About {
    match stage {
        Stage::Check => About::Check,
        Stage::TargetMissing => About::TargetMissing,
        Stage::TargetUnscalable => About::TargetUnscalable,
        Stage::StatusUpdate => About::StatusUpdate,
        Stage::Trigger { index, .. } => About::Trigger(*index),
        Stage::PollOverdue { index, .. } => About::PollOverdue(*index),
        Stage::HpaContested => About::HpaContested,
        Stage::Deletion => About::Deletion,
    }
}

/// A trigger of which an error is told by itself could not be built.
fn kind_of(stage: &Stage) -> &'static str {
    match stage {
        Stage::Trigger { .. } => tidemark_trigger::ErrorKind::Configuration.as_str(),
        _ => "",
    }
}

fn push<T>(kept: &mut VecDeque<T>, new: T) {
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(new);
}

fn cut(message: &str) -> &str {
    &message[..message.floor_char_boundary(MESSAGE)]
}

#[cfg(test)]
mod tests {
    use tidemark_operator::ObjectKey;

    use super::*;

    fn at(time: &str) -> Timestamp {
        format!("2026-01-05T{time}Z").parse().unwrap()
    }

    fn told(time: &str, what: What) -> Observation {
        let object = Arc::new(ObjectKey::new("shop", "orders"));
        Observation { time: at(time), object, uid: "1".into(), evaluation: 1, what }
    }

    fn hpa(last_scale: Option<&str>, desired: i32) -> What {
        What::Hpa(Arc::new(HpaSeen {
            last_scale: last_scale.map(at),
            current: Some(1),
            desired: Some(desired),
            ..HpaSeen::default()
        }))
    }

    fn decided(replicas: i32) -> What {
        let reasons = vec![Reason::LeftToHpa { replicas }].into();
        What::Decision {
            active: true,
            replicas: Some(replicas),
            action: Action::Nothing,
            reasons,
            metrics: Arc::default(),
        }
    }

    fn turns(observations: &[Observation]) -> Vec<(String, Option<i32>, i32, Author)> {
        let mut past = Past::new("1".into(), at("08:00:00"));
        observations.iter().for_each(|observation| past.on(observation, 8));
        past.turns.iter().map(|turn| (turn.time.to_string(), turn.from, turn.to, turn.by)).collect()
    }

    #[test]
    fn a_change_is_the_hpas_whether_it_says_so_before_or_after_it_is_seen() {
        let by_hpa = vec![("2026-01-05T08:01:00Z".to_owned(), Some(1), 3, Author::Hpa)];
        let first = [told("08:00:00", decided(1)), told("08:00:01", hpa(None, 1))];
        let before = [told("08:01:00.5", hpa(Some("08:01:00"), 3)), told("08:01:10", decided(3))];
        assert_eq!(turns(&[&first[..], &before].concat()), by_hpa);
        let after = [told("08:01:00.2", decided(3)), told("08:01:00.5", hpa(Some("08:01:00"), 3))];
        assert_eq!(turns(&[&first[..], &after].concat()), by_hpa);
    }

    #[test]
    fn a_change_that_the_hpa_did_not_make_is_somebody_elses() {
        let told = [
            told("08:00:00", decided(1)),
            told("08:00:01", hpa(Some("07:00:00"), 1)),
            told("08:05:00", decided(4)),
            told("08:05:01", hpa(Some("07:00:00"), 4)),
        ];
        assert_eq!(turns(&told), [("2026-01-05T08:05:00Z".to_owned(), Some(1), 4, Author::Other)]);
    }

    #[test]
    fn what_a_dry_run_would_have_changed_is_nobodys_change() {
        let cause = ScaleCause::Activated { metrics: vec!["s0-q".into()], forced: false };
        let write = Write::Scale { target: "apps/v1.Deployment shop/orders".into(), from: 0, to: 1, cause };
        let would = What::Write { write, took: Duration::ZERO, dry_run: true, error: None };
        let status = What::Write { write: Write::Status, took: Duration::ZERO, dry_run: true, error: None };
        // The operator goes on as if it were so.
        let told = [decided(0), would, status, decided(1)];
        let observations = told.map(|what| super::tests::told("08:00:00", what));
        assert_eq!(turns(&observations), [("2026-01-05T08:00:00Z".to_owned(), Some(0), 1, Author::DryRun)]);
        let mut past = Past::new("1".into(), at("08:00:00"));
        observations.iter().for_each(|observation| past.on(observation, 8));
        assert_eq!(past.written.iter().map(|written| written.dry_run).collect::<Vec<_>>(), [true]);
    }

    #[test]
    fn what_fails_is_counted_by_kind_until_it_works_again() {
        let mut past = Past::new("1".into(), at("08:00:00"));
        let mut fail = |time, kind| past.fail(at(time), About::Trigger(0), kind, "m");
        fail("08:00:01", "refused");
        fail("08:00:02", "refused");
        fail("08:00:03", "timed out");
        past.mend(|about| about == About::Trigger(0));
        past.fail(at("08:00:09"), About::Trigger(0), "refused", "again");
        let runs: Vec<_> = past.troubles.iter().map(|fault| (fault.kind, fault.count, fault.open)).collect();
        assert_eq!(runs, [("timed out", 1, false), ("refused", 1, true)]);
        assert_eq!(past.troubles[1].first, at("08:00:09"));
    }
}
