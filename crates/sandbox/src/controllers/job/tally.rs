//! What the pods of a Job have come to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::super::pods::{is_active, is_ending, phase};
use super::failure_policy::{self, Verdict};
use super::is_tracked;
use super::spec::{Spec, Status};

/// The pause after the first failure; each further one in a row doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// Annotation and label with the index of a completion.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// A Job's pods, sorted by what is to be done with them.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) active: Vec<Arc<Pod>>,
    /// Being deleted, and still there.
    pub(super) ending: usize,
    /// Succeeded and not counted yet.
    pub(super) succeeded: Vec<Arc<Pod>>,
    /// Failed and not counted yet.
    pub(super) failed: Vec<Arc<Pod>>,
    /// Ended, and not to be counted or already in the status: they only have to be let go.
    pub(super) spent: Vec<Arc<Pod>>,
    /// Why a failed pod ends the Job.
    pub(super) verdict: Option<String>,
}

impl Tally {
    /// Sorts the pods; `over` when the Job is about to end, so that what is deleted has failed.
    pub(super) fn of(spec: &Spec, status: &Status, pods: &[Arc<Pod>], over: bool) -> Self {
        let mut tally = Self::default();
        let mut completed = status.completed.clone().unwrap_or_default().0;
        for pod in pods {
            tally.ending += usize::from(is_ending(pod));
            if is_active(pod) {
                tally.active.push(pod.clone());
            } else if is_tracked(pod) && has_ended(spec, pod, over) {
                tally.enter(spec, status, pod, &mut completed);
            }
        }
        tally
    }

    /// Enters a pod that has ended and still bears its finalizer.
    fn enter(&mut self, spec: &Spec, status: &Status, pod: &Arc<Pod>, completed: &mut BTreeSet<u32>) {
        let uid = pod.uid().unwrap_or_default();
        let listed = status.uncounted_succeeded.contains(&uid) || status.uncounted_failed.contains(&uid);
        let index = index_of(pod);
        let valid = index.is_some_and(|index| spec.completions.is_none_or(|all| i64::from(index) < i64::from(all)));
        if listed || (spec.indexed && !valid) {
            return self.spent.push(pod.clone());
        }
        if phase(pod) == "Succeeded" {
            let new = !spec.indexed || index.is_some_and(|index| completed.insert(index));
            let list = if new { &mut self.succeeded } else { &mut self.spent };
            return list.push(pod.clone());
        }
        let rules = spec.failure_policy.as_deref().filter(|_| phase(pod) == "Failed");
        match rules.map_or(Verdict::Counts, |rules| failure_policy::judge(rules, pod)) {
            Verdict::Counts => self.failed.push(pod.clone()),
            Verdict::Ignored => self.spent.push(pod.clone()),
            Verdict::EndsJob(message) => {
                self.verdict.get_or_insert(message);
                self.failed.push(pod.clone());
            }
        }
    }

    /// How often containers were started again, of pods that may still be.
    pub(super) fn restarts(&self) -> i32 {
        let statuses = |pod: &Pod| {
            let status = pod.status.clone().unwrap_or_default();
            let all = [status.init_container_statuses, status.container_statuses];
            all.into_iter().flatten().flatten().map(|container| container.restart_count).sum::<i32>()
        };
        self.active.iter().map(|pod| statuses(pod)).sum()
    }
}

fn has_ended(spec: &Spec, pod: &Pod, over: bool) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
        || (pod.metadata.deletion_timestamp.is_some() && (spec.replaces_ending || over))
}

/// The index of the completion that a pod is for.
pub(super) fn index_of(pod: &Pod) -> Option<u32> {
    pod.annotations().get(INDEX).and_then(|index| index.parse().ok())
}

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Streak {
    failures: u32,
    last: Option<Timestamp>,
}

impl Streak {
    /// Enters ends of pods that are newly counted.
    pub(super) fn enter(&mut self, tally: &Tally, now: Timestamp) {
        let ended = |failed| move |pod: &Arc<Pod>| (end(pod).unwrap_or(now), failed);
        let mut ends: Vec<_> = tally.succeeded.iter().map(ended(false)).collect();
        ends.extend(tally.failed.iter().map(ended(true)));
        ends.sort_unstable();
        for (time, failed) in ends {
            *self = if failed {
                Self { failures: self.failures.saturating_add(1), last: Some(time) }
            } else {
                Self::default()
            };
        }
    }

    /// How long no new pod is made.
    pub(super) fn pause(self, now: Timestamp) -> Duration {
        let Some(last) = self.last.filter(|_| self.failures > 0) else { return Duration::ZERO };
        let pause = FIRST_PAUSE.saturating_mul(1 << (self.failures - 1).min(16)).min(LONGEST_PAUSE);
        pause.saturating_sub(Duration::try_from(now.duration_since(last)).unwrap_or_default())
    }
}

/// When the last container of a pod ended.
fn end(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.as_deref().unwrap_or_default();
    let ends =
        statuses.iter().filter_map(|container| container.state.as_ref()?.terminated.as_ref()?.finished_at.clone());
    ends.map(|time| time.0).max().or_else(|| pod.metadata.deletion_timestamp.as_ref().map(|time| time.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_make_the_pause_grow_and_a_success_ends_it() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let failed: Arc<Pod> = Arc::default();
        let failing = || Tally { failed: vec![failed.clone()], ..Tally::default() };
        let mut streak = Streak::default();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            pauses.push(streak.pause(now).as_secs());
            streak.enter(&failing(), now);
        }
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 320, 600]);
        streak.enter(&Tally { succeeded: vec![failed.clone()], ..Tally::default() }, now);
        assert_eq!(streak.pause(now), Duration::ZERO);
    }
}
