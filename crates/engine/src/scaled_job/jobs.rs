//! The Jobs themselves: which are pending, which have finished, which are cleared away, and what new ones carry.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::hpa::Phase;

/// On a Job: the annotation with the generation of the ScaledJob that made it.
pub const JOB_GENERATION: &str = "scaledjob.keda.sh/generation";
/// Label with the ScaledJob's name: on its Jobs and their pods, which are found by it.
pub const SCALED_JOB_LABEL: &str = "scaledjob.keda.sh/name";
/// Comma-separated label keys of a ScaledJob that are not copied to its Jobs; blanks are significant.
pub const JOB_EXCLUDED_LABELS: &str = "scaledjob.keda.sh/job-excluded-labels";

/// How a Job has finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Complete,
    Failed,
}

impl End {
    /// The type of the Job's condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "Complete",
            Self::Failed => "Failed",
        }
    }
}

/// How a Job with these conditions, as pairs of type and status, has finished; `None` when it has not.
pub fn end<'a>(conditions: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<End> {
    conditions.into_iter().find_map(|condition| match condition {
        ("Complete", "True") => Some(End::Complete),
        ("Failed", "True") => Some(End::Failed),
        _ => None,
    })
}

/// A pod of a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPod<'a> {
    pub phase: Phase,
    /// The types of its conditions that are true.
    pub true_conditions: Vec<&'a str>,
}

/// Whether a Job that has not finished is pending: no pod of it runs or has succeeded, or, where `conditions`
/// (`pendingPodConditions`) are asked for, no single pod has them all.
pub fn is_pending(pods: &[JobPod<'_>], conditions: &[&str]) -> bool {
    let at_work = |pod: &JobPod<'_>| match conditions {
        [] => matches!(pod.phase, Phase::Running | Phase::Succeeded),
        _ => conditions.iter().all(|condition| pod.true_conditions.contains(condition)),
    };
    !pods.iter().any(at_work)
}

/// A finished Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub name: String,
    pub end: End,
    /// When: the transition time of the condition that says so.
    pub time: Option<Timestamp>,
}

/// How many finished Jobs are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    pub successful: usize,
    pub failed: usize,
}

impl History {
    /// The limits of a spec: 100 each when unset, and none for a negative number.
    pub fn new(successful: Option<i32>, failed: Option<i32>) -> Self {
        let limit = |limit: Option<i32>| limit.map_or(100, |limit| usize::try_from(limit).unwrap_or(0));
        Self { successful: limit(successful), failed: limit(failed) }
    }
}

/// The names of the finished Jobs that are beyond the limits, the oldest first; those that do not tell their time count
/// as the oldest.
pub fn clean_up(jobs: &[Finished], history: History) -> Vec<&str> {
    let mut beyond = Vec::new();
    for (end, limit) in [(End::Complete, history.successful), (End::Failed, history.failed)] {
        let mut ended: Vec<&Finished> = jobs.iter().filter(|job| job.end == end).collect();
        ended.sort_by(|a, b| a.time.cmp(&b.time).then_with(|| a.name.cmp(&b.name)));
        let surplus = ended.len().saturating_sub(limit);
        beyond.extend(ended.into_iter().take(surplus).map(|job| job.name.as_str()));
    }
    beyond
}

/// What a Job made from a ScaledJob carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub generate_name: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// The metadata of the Jobs of a ScaledJob. The labels and annotations are the ScaledJob's, labels over ours but for those
/// that its annotation excludes. Neither the label by which the Jobs are found (without it none would ever be counted, and
/// each pass would start more) nor the generation can be overwritten. `version` is the operator's.
pub fn metadata(
    name: &str,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    generation: i64,
    version: &str,
) -> Metadata {
    let ours = [
        ("app.kubernetes.io/name", name),
        ("app.kubernetes.io/version", version),
        ("app.kubernetes.io/part-of", name),
        ("app.kubernetes.io/managed-by", "keda-operator"),
    ];
    let mut all: BTreeMap<String, String> = ours.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let excluded: Vec<&str> =
        annotations.get(JOB_EXCLUDED_LABELS).map_or_else(Vec::new, |keys| keys.split(',').collect());
    let taken = labels.iter().filter(|(key, _)| !excluded.contains(&key.as_str()));
    all.extend(taken.map(|(key, value)| (key.clone(), value.clone())));
    all.insert(SCALED_JOB_LABEL.to_owned(), name.to_owned());
    let mut annotations = annotations.clone();
    annotations.insert(JOB_GENERATION.to_owned(), generation.to_string());
    Metadata { generate_name: format!("{name}-"), labels: all, annotations }
}

/// The restart policy of a Job's pods, where the template may leave it out.
pub fn restart_policy(given: &str) -> &str {
    if given.is_empty() { "OnFailure" } else { given }
}
