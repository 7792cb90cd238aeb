//! A report in sentences: the causal chain from a trigger's value to the replicas.
//!
//! Nothing is decided here: the rules come with the report, from the engine and the HPA.

mod because;
mod checks;
mod last_change;
mod next;
mod problems;
mod seen;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::report::{Condition, Detail, Explanation, Report, Step, Trigger};
use crate::words::{clock, one_line, replicas};

/// What a user may see of the cluster besides the report; what is not known is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// The workload's `spec.replicas` as they are now.
    pub replicas: Option<i32>,
    /// Pods that there are, and those that are ready.
    pub pods: Option<i32>,
    pub ready: Option<i32>,
    /// Who wrote the replicas last.
    pub writer: Option<Writer>,
    /// Activation thresholds as the triggers set them, by the triggers' positions: such as `activationValue is 5`.
    pub activations: BTreeMap<usize, String>,
}

/// Who wrote a field last, by the managed fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writer {
    /// The name of the field manager, such as `kubectl-scale`.
    pub manager: String,
    pub time: Option<Timestamp>,
    /// The workload was created so.
    pub at_creation: bool,
}

/// Explains a report.
pub fn explain(report: &Report, workload: &Workload) -> Explanation {
    let view = View { report, workload, detail: report.detail.clone().unwrap_or_default() };
    let clean = |lines: Vec<String>| lines.iter().map(|line| one_line(line)).collect();
    let mut problems = problems::problems(&view);
    for problem in &mut problems {
        problem.text = one_line(&problem.text);
    }
    Explanation {
        headline: one_line(&view.headline()),
        problems,
        checks: clean(checks::checks(&view)),
        because: clean(because::because(&view)),
        last_change: clean(last_change::last_change(&view)),
        next: clean(next::next(&view)),
    }
}

/// What is explained.
struct View<'a> {
    report: &'a Report,
    workload: &'a Workload,
    detail: Detail,
}

impl View<'_> {
    fn now(&self) -> Timestamp {
        self.report.time
    }

    /// The replicas as they are now: the user's own look is the newest.
    fn replicas(&self) -> Option<i32> {
        self.workload.replicas.or(self.report.replicas)
    }

    fn headline(&self) -> String {
        let Report { metadata, target, min_replicas: min, max_replicas: max, .. } = self.report;
        let present = self.replicas().map_or("an unknown number of replicas".to_owned(), replicas);
        let wanted = self.report.desired.filter(|wanted| Some(*wanted) != self.replicas());
        let wanted = wanted.map(|wanted| format!(", {wanted} wanted")).unwrap_or_default();
        let idle = self.detail.idle_replicas.map(|idle| format!(", idle {idle}")).unwrap_or_default();
        let state = match (self.report.paused, self.report.active) {
            (true, _) => "paused",
            (false, Some(true)) => "active",
            (false, Some(false)) => "not active",
            (false, None) => "not decided on yet",
        };
        let workload = match target.name.is_empty() {
            true => "no workload yet".to_owned(),
            false => format!("{} {} has {present}{wanted}", target.kind, target.name),
        };
        format!("{}/{}: {workload} (minimum {min}, maximum {max}{idle}); {state}", metadata.namespace, metadata.name)
    }

    /// The first step of the last decision with that rule.
    fn step(&self, rule: &str) -> Option<&Step> {
        self.report.reasons.iter().find(|step| step.rule == rule)
    }

    fn has(&self, rule: &str) -> bool {
        self.step(rule).is_some()
    }

    /// A condition of the HPA.
    fn hpa_condition(&self, kind: &str) -> Option<&Condition> {
        self.detail.hpa.as_ref()?.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// What limits the HPA at present. One that computes nothing keeps the limit of its last computation.
    fn hpa_limit(&self) -> Option<&Condition> {
        let computes = self.hpa_condition("ScalingActive").is_none_or(|active| active.status != "False");
        self.hpa_condition("ScalingLimited").filter(|limited| computes && limited.status == "True")
    }

    /// The replicas of a workload on which no trigger is active.
    fn rest(&self) -> i32 {
        self.detail.idle_replicas.unwrap_or(self.report.min_replicas)
    }

    /// The HPA works on the workload: it is neither at zero nor held.
    fn is_left_to_hpa(&self) -> bool {
        self.replicas().is_some_and(|replicas| replicas > 0) && !self.report.paused && self.detail.rival.is_none()
    }

    fn clock(&self, time: Timestamp) -> String {
        clock(self.now(), time)
    }
}

/// How a trigger is called: by its metric, or by its place where it has none.
fn called(trigger: &Trigger) -> String {
    let name = trigger.name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
    match trigger.metric.is_empty() {
        true => format!("trigger {}{name} ({})", trigger.index, trigger.kind),
        false if trigger.read_by_hpa => format!("{} (trigger {}{name})", trigger.metric, trigger.index),
        false => format!("{} (trigger {}{name}, {})", trigger.metric, trigger.index, trigger.kind),
    }
}
