//! What a Job asks for, and how far it is.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::super::dynamic::{number, put, seconds, time};
use super::failure_policy::Rule;

/// Fields that are not obeyed here: a Job that sets one fails and says so.
const UNSERVED: [&str; 3] = ["backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"];
/// The controller that a Job means unless it says otherwise.
const CONTROLLER: &str = "kubernetes.io/job-controller";
/// A Job has at most so many completions that are told apart.
const MOST_INDEXES: u32 = 100_000;

/// `spec` of a Job.
pub(super) struct Spec {
    pub(super) parallelism: i32,
    pub(super) completions: Option<i32>,
    pub(super) backoff_limit: i32,
    pub(super) deadline: Option<Duration>,
    pub(super) ttl: Option<Duration>,
    pub(super) suspend: bool,
    /// Completions are told apart by their index.
    pub(super) indexed: bool,
    /// A pod that is being deleted is replaced before it has ended.
    pub(super) replaces_ending: bool,
    pub(super) restarts_containers: bool,
    pub(super) failure_policy: Option<Vec<Rule>>,
    /// A field that is set and not obeyed here.
    pub(super) unserved: Option<&'static str>,
    /// Whether another controller looks after it.
    pub(super) foreign: bool,
}

impl Spec {
    pub(super) fn of(spec: &Value) -> Self {
        let duration = |field: &str| spec[field].as_u64().map(Duration::from_secs);
        let policy = &spec["podFailurePolicy"];
        Self {
            parallelism: number(&spec["parallelism"], 1),
            completions: (!spec["completions"].is_null()).then(|| number(&spec["completions"], 1)),
            backoff_limit: number(&spec["backoffLimit"], 6),
            deadline: duration("activeDeadlineSeconds"),
            ttl: duration("ttlSecondsAfterFinished"),
            suspend: spec["suspend"] == true,
            indexed: spec["completionMode"] == "Indexed",
            replaces_ending: spec["podReplacementPolicy"] != "Failed" && policy.is_null(),
            restarts_containers: spec["template"]["spec"]["restartPolicy"] == "OnFailure",
            failure_policy: (!policy.is_null()).then(|| Rule::all(&policy["rules"])),
            unserved: UNSERVED.into_iter().find(|field| !spec[*field].is_null()),
            foreign: spec["managedBy"].as_str().is_some_and(|by| by != CONTROLLER),
        }
    }

    /// How many pods are to run when so many have succeeded and so many run.
    pub(super) fn wanted(&self, succeeded: i32, active: i32) -> i32 {
        match self.completions {
            // Of a work queue that one pod has seen the end of no further pod is made.
            None if succeeded > 0 => active,
            None => self.parallelism,
            Some(completions) => completions.saturating_sub(succeeded).clamp(0, self.parallelism),
        }
    }

    pub(super) fn is_complete(&self, succeeded: i32, active: i32) -> bool {
        match self.completions {
            None => succeeded > 0 && active == 0,
            Some(completions) => succeeded >= completions,
        }
    }
}

/// `status` of a Job.
#[derive(Clone, Default)]
pub(super) struct Status {
    pub(super) active: i32,
    pub(super) ready: i32,
    pub(super) terminating: i32,
    pub(super) succeeded: i32,
    pub(super) failed: i32,
    pub(super) start: Option<Timestamp>,
    pub(super) completion: Option<Timestamp>,
    pub(super) completed: Option<Indexes>,
    /// Uids of pods that are counted as soon as their finalizer has gone.
    pub(super) uncounted_succeeded: BTreeSet<String>,
    pub(super) uncounted_failed: BTreeSet<String>,
    pub(super) conditions: Vec<Value>,
}

impl Status {
    pub(super) fn of(status: &Value, indexed: bool) -> Self {
        let uids = |field: &str| {
            let uids = status["uncountedTerminatedPods"][field].as_array().into_iter().flatten();
            uids.filter_map(|uid| uid.as_str().map(str::to_owned)).collect()
        };
        Self {
            active: number(&status["active"], 0),
            ready: number(&status["ready"], 0),
            terminating: number(&status["terminating"], 0),
            succeeded: number(&status["succeeded"], 0),
            failed: number(&status["failed"], 0),
            start: time(&status["startTime"]),
            completion: time(&status["completionTime"]),
            completed: indexed.then(|| Indexes::parse(status["completedIndexes"].as_str().unwrap_or_default())),
            uncounted_succeeded: uids("succeeded"),
            uncounted_failed: uids("failed"),
            conditions: status["conditions"].as_array().cloned().unwrap_or_default(),
        }
    }

    /// As the API shows it: counts of zero are left out, but for those that always stand there.
    pub(super) fn to_json(&self) -> Value {
        let mut fields = Map::new();
        let some = |count: i32| (count != 0).then_some(count);
        put(&mut fields, "active", some(self.active));
        put(&mut fields, "completedIndexes", self.completed.as_ref().map(Indexes::to_text).filter(|t| !t.is_empty()));
        put(&mut fields, "completionTime", self.completion.map(seconds));
        put(&mut fields, "conditions", (!self.conditions.is_empty()).then(|| self.conditions.clone()));
        put(&mut fields, "failed", some(self.failed));
        put(&mut fields, "ready", Some(self.ready));
        put(&mut fields, "startTime", self.start.map(seconds));
        put(&mut fields, "succeeded", some(self.succeeded));
        put(&mut fields, "terminating", Some(self.terminating));
        let mut uncounted = Map::new();
        for (field, uids) in [("failed", &self.uncounted_failed), ("succeeded", &self.uncounted_succeeded)] {
            put(&mut uncounted, field, (!uids.is_empty()).then(|| json!(uids)));
        }
        fields.insert("uncountedTerminatedPods".to_owned(), uncounted.into());
        fields.into()
    }

    /// A condition that holds.
    pub(super) fn holds(&self, type_: &str) -> Option<&Value> {
        self.conditions.iter().find(|condition| condition["type"] == type_ && condition["status"] == "True")
    }

    /// When the Job ended, if it has.
    pub(super) fn finished(&self) -> Option<Timestamp> {
        let over = self.holds("Complete").or_else(|| self.holds("Failed"))?;
        time(&over["lastTransitionTime"])
    }

    /// Sets a condition and says whether that changed it. One that does not hold is not made only to say so.
    pub(super) fn set(&mut self, type_: &str, holds: bool, reason: &str, message: &str, now: Timestamp) -> bool {
        let word = if holds { "True" } else { "False" };
        let known = self.conditions.iter_mut().find(|condition| condition["type"] == type_);
        if known.as_ref().is_some_and(|condition| condition["status"] == word) || (known.is_none() && !holds) {
            return false;
        }
        let now = seconds(now);
        let condition = json!({
            "type": type_, "status": word, "lastProbeTime": now, "lastTransitionTime": now,
            "reason": reason, "message": message,
        });
        match known {
            Some(known) => *known = condition,
            None => self.conditions.push(condition),
        }
        true
    }
}

/// Completions that are told apart, written as `0-2,5`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(pub(super) BTreeSet<u32>);

impl Indexes {
    fn parse(text: &str) -> Self {
        let mut all = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
                all.extend(first..=last.min(MOST_INDEXES));
            }
        }
        Self(all)
    }

    fn to_text(&self) -> String {
        let mut parts: Vec<(u32, u32)> = Vec::new();
        for index in &self.0 {
            match parts.last_mut() {
                Some((_, last)) if *last + 1 == *index => *last = *index,
                _ => parts.push((*index, *index)),
            }
        }
        let text = |(first, last): &(u32, u32)| match last - first {
            0 => first.to_string(),
            1 => format!("{first},{last}"),
            _ => format!("{first}-{last}"),
        };
        parts.iter().map(text).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_ranges() {
        for text in ["", "0", "0,1", "0-2", "1,3-5,7,8"] {
            assert_eq!(Indexes::parse(text).to_text(), text);
        }
    }

    #[test]
    fn no_more_pods_run_than_completions_are_missing() {
        let spec = |value| Spec::of(&value);
        let fixed = spec(json!({ "completions": 5, "parallelism": 3 }));
        assert_eq!([0, 3, 5, 9].map(|succeeded| fixed.wanted(succeeded, 0)), [3, 2, 0, 0]);
        let queue = spec(json!({ "parallelism": 3 }));
        assert_eq!((queue.wanted(0, 1), queue.wanted(1, 2)), (3, 2));
        assert!(queue.is_complete(1, 0) && !queue.is_complete(1, 2) && !queue.is_complete(0, 0));
    }
}
