//! What a StatefulSet's pods need next: a pure step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::Value;

use super::super::dynamic::number;
use super::super::pods::{is_finished, phase, until_available};

/// The label with the version of a pod's template.
pub(super) const REVISION: &str = "controller-revision-hash";

/// `spec` of a StatefulSet, but for its template.
pub(super) struct Spec {
    pub(super) replicas: i32,
    /// The ordinal of the first pod.
    pub(super) start: i32,
    /// All pods at once instead of one after the other.
    pub(super) parallel: bool,
    pub(super) min_ready_seconds: i32,
    pub(super) update: Update,
    pub(super) history: usize,
}

/// When pods of an older template are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Update {
    /// When somebody deletes them.
    OnDelete,
    /// From the highest ordinal down to the partition, so many at a time.
    Rolling { partition: i32, unavailable: i32 },
}

impl Spec {
    pub(super) fn of(spec: &Value) -> Self {
        let rolling = &spec["updateStrategy"]["rollingUpdate"];
        let replicas = number(&spec["replicas"], 1).max(0);
        let update = if spec["updateStrategy"]["type"] == "OnDelete" {
            Update::OnDelete
        } else {
            let unavailable = match &rolling["maxUnavailable"] {
                Value::String(percent) => {
                    let percent: i64 = percent.trim_end_matches('%').parse().unwrap_or(0);
                    i32::try_from((percent.clamp(0, 100) * i64::from(replicas) + 99) / 100).unwrap_or(i32::MAX)
                }
                count => number(count, 1),
            };
            Update::Rolling { partition: number(&rolling["partition"], 0), unavailable: unavailable.max(1) }
        };
        Self {
            replicas,
            start: number(&spec["ordinals"]["start"], 0),
            parallel: spec["podManagementPolicy"] == "Parallel",
            min_ready_seconds: number(&spec["minReadySeconds"], 0),
            update,
            history: usize::try_from(number(&spec["revisionHistoryLimit"], 10)).unwrap_or_default(),
        }
    }

    /// Whether a pod that is missing is made of the version before the present one.
    pub(super) fn keeps_old_version(&self, ordinal: i32) -> bool {
        matches!(self.update, Update::Rolling { partition, .. } if ordinal < self.start.saturating_add(partition))
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Create(i32),
    Delete(Arc<Pod>),
    /// A pod that has ended is made anew.
    Replace(Arc<Pod>),
}

/// The next steps and, where they wait for a pod to become available by itself, how long.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) again: Option<Duration>,
}

/// The set's pods by ordinal.
pub(super) type Ordinals = BTreeMap<i32, Arc<Pod>>;

/// How a pod is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    Sound,
    /// Ready, and available after so long.
    Settling(Duration),
    Unwell,
}

fn health(pod: &Pod, spec: &Spec, now: Timestamp) -> Health {
    if pod.metadata.deletion_timestamp.is_some() || phase(pod) != "Running" {
        return Health::Unwell;
    }
    match until_available(pod, spec.min_ready_seconds, now) {
        Some(Duration::ZERO) => Health::Sound,
        Some(wait) => Health::Settling(wait),
        None => Health::Unwell,
    }
}

pub(super) fn plan(spec: &Spec, pods: &Ordinals, revision: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let wanted = spec.start..spec.start.saturating_add(spec.replicas);
    for ordinal in wanted.clone() {
        let step = match pods.get(&ordinal) {
            None => Some(Step::Create(ordinal)),
            Some(pod) if pod.metadata.deletion_timestamp.is_some() => None,
            Some(pod) if is_finished(pod) => Some(Step::Replace(pod.clone())),
            Some(pod) => match health(pod, spec, now) {
                Health::Sound => continue,
                Health::Settling(wait) => {
                    plan.wait(wait);
                    None
                }
                Health::Unwell => None,
            },
        };
        plan.steps.extend(step);
        if !spec.parallel {
            return plan;
        }
    }
    let condemned: Vec<_> = pods.iter().rev().filter(|(ordinal, _)| !wanted.contains(ordinal)).collect();
    let first_unwell =
        pods.iter().find(|(_, pod)| health(pod, spec, now) != Health::Sound).map(|(ordinal, _)| *ordinal);
    for (ordinal, pod) in &condemned {
        let ending = pod.metadata.deletion_timestamp.is_some();
        let health = health(pod, spec, now);
        if let Health::Settling(wait) = health {
            plan.wait(wait);
        }
        // One that is unwell goes only before its elders if it is the first that is.
        let held = !spec.parallel && health != Health::Sound && first_unwell != Some(**ordinal);
        if !ending && !held {
            plan.steps.push(Step::Delete((*pod).clone()));
        }
        if !spec.parallel {
            return plan;
        }
    }
    roll(spec, pods, revision, now, &mut plan);
    plan
}

/// Deletes pods of older versions, the last one first.
fn roll(spec: &Spec, pods: &Ordinals, revision: &str, now: Timestamp, plan: &mut Plan) {
    let Update::Rolling { partition, unavailable } = spec.update else { return };
    let range = spec.start.saturating_add(partition)..spec.start.saturating_add(spec.replicas);
    let mut room = unavailable;
    for (_, pod) in pods.iter().rev().filter(|(ordinal, _)| range.contains(ordinal)) {
        let outdated = pod.labels().get(REVISION).is_none_or(|known| known != revision);
        if outdated && pod.metadata.deletion_timestamp.is_none() {
            plan.steps.push(Step::Delete(pod.clone()));
            room -= 1;
        } else {
            match health(pod, spec, now) {
                Health::Sound => {}
                Health::Settling(wait) => {
                    plan.wait(wait);
                    room -= 1;
                }
                Health::Unwell => room -= 1,
            }
        }
        if room <= 0 {
            return;
        }
    }
}

impl Plan {
    fn wait(&mut self, wait: Duration) {
        self.again = Some(self.again.map_or(wait, |known| known.min(wait)));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-01-01T00:10:00Z";

    fn pod(ordinal: i32, revision: &str, ready: bool) -> (i32, Arc<Pod>) {
        let status = if ready { "True" } else { "False" };
        let pod = json!({
            "metadata": { "name": format!("web-{ordinal}"), "labels": { REVISION: revision } },
            "status": { "phase": "Running", "conditions": [
                { "type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z" },
            ] },
        });
        (ordinal, Arc::new(serde_json::from_value(pod).unwrap()))
    }

    fn steps(spec: Value, pods: impl IntoIterator<Item = (i32, Arc<Pod>)>) -> Vec<String> {
        let plan = plan(&Spec::of(&spec), &pods.into_iter().collect(), "new", NOW.parse().unwrap());
        let word = |step: &Step| match step {
            Step::Create(ordinal) => format!("create {ordinal}"),
            Step::Delete(pod) => format!("delete {}", pod.name_any()),
            Step::Replace(pod) => format!("replace {}", pod.name_any()),
        };
        plan.steps.iter().map(word).collect()
    }

    #[test]
    fn pods_come_in_order_and_each_waits_for_the_one_before() {
        let spec = json!({ "replicas": 3 });
        assert_eq!(steps(spec.clone(), []), ["create 0"]);
        assert_eq!(steps(spec.clone(), [pod(0, "new", false)]), [""; 0]);
        assert_eq!(steps(spec, [pod(0, "new", true)]), ["create 1"]);
        let parallel = json!({ "replicas": 3, "podManagementPolicy": "Parallel", "ordinals": { "start": 5 } });
        assert_eq!(steps(parallel, [pod(6, "new", false)]), ["create 5", "create 7"]);
    }

    #[test]
    fn the_last_pod_goes_first_and_only_when_all_before_it_are_well() {
        let all = |ready| [pod(0, "new", ready), pod(1, "new", true), pod(2, "new", true)];
        assert_eq!(steps(json!({ "replicas": 1 }), all(true)), ["delete web-2"]);
        assert_eq!(steps(json!({ "replicas": 1 }), all(false)), [""; 0]);
        assert_eq!(
            steps(json!({ "replicas": 1, "podManagementPolicy": "Parallel" }), all(false)),
            ["delete web-2", "delete web-1"]
        );
    }

    #[test]
    fn a_new_version_comes_from_the_last_pod_down_to_the_partition() {
        let strategy =
            |partition| json!({ "replicas": 3, "updateStrategy": { "rollingUpdate": { "partition": partition } } });
        let pods = |last| [pod(0, "old", true), pod(1, "old", true), pod(2, last, true)];
        assert_eq!(steps(strategy(0), pods("old")), ["delete web-2"]);
        assert_eq!(steps(strategy(0), pods("new")), ["delete web-1"]);
        assert_eq!(steps(strategy(2), pods("new")), [""; 0]);
        let unwell = [pod(0, "old", true), pod(1, "old", true), pod(2, "new", false)];
        let parallel = json!({ "replicas": 3, "podManagementPolicy": "Parallel" });
        assert_eq!(steps(parallel, unwell.clone()), [""; 0]);
        let two = json!({ "replicas": 3, "podManagementPolicy": "Parallel",
            "updateStrategy": { "rollingUpdate": { "maxUnavailable": 2 } } });
        assert_eq!(steps(two, unwell), ["delete web-1"]);
        assert_eq!(steps(json!({ "replicas": 3, "updateStrategy": { "type": "OnDelete" } }), pods("old")), [""; 0]);
    }
}
