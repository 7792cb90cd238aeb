//! The three questions that come first: is the scaler firing, are the metrics arriving, is the control loop on time.

use jiff::SignedDuration;

use super::View;
use crate::report::Trigger;
use crate::words::{ago, ahead, length};

/// Later than this is late.
const LATE: f64 = 1.0;

pub(super) fn checks(view: &View<'_>) -> Vec<String> {
    if view.report.paused || view.detail.rival.is_some() || view.detail.deleting || view.report.triggers.is_empty() {
        return Vec::new();
    }
    [firing(view), arriving(view), on_time(view)].into_iter().flatten().collect()
}

fn firing(view: &View<'_>) -> Option<String> {
    let read: Vec<&Trigger> = view.report.triggers.iter().filter(|trigger| !trigger.read_by_hpa).collect();
    if read.is_empty() {
        return Some("Is the scaler firing? cpu and memory are the HPA's to read".to_owned());
    }
    let well = read.iter().filter(|trigger| trigger.error.is_none() && trigger.value.is_some()).count();
    let last = read.iter().filter_map(|trigger| trigger.time).max();
    let last = last.map(|time| format!(", the last {}", ago(view.now(), time))).unwrap_or_default();
    let active = match view.report.active {
        Some(true) => "and the object is active",
        Some(false) => "and nothing is active",
        None => "and nothing is decided yet",
    };
    let all = read.len();
    let verdict = if well == all { "Yes" } else { "No" };
    Some(format!("Is the scaler firing? {verdict}: {well} of {all} values read{last}, {active}"))
}

fn arriving(view: &View<'_>) -> Option<String> {
    let hpa = view.detail.hpa.as_ref()?;
    let active = view.hpa_condition("ScalingActive");
    let fails = active.filter(|active| active.status == "False" && active.reason != "ScalingDisabled");
    let asked = view.detail.last_query.map(|time| format!("it asked {}", ago(view.now(), time)));
    let told = match (fails, view.is_left_to_hpa()) {
        (Some(fails), _) => format!("No: the HPA {} says {}", hpa.name, fails.reason),
        (None, false) => format!("The HPA {} asks for nothing while there are 0 replicas", hpa.name),
        (None, true) => {
            format!("Yes, at the HPA {}: {}", hpa.name, asked.unwrap_or_else(|| "it has not asked yet".to_owned()))
        }
    };
    Some(format!("Are the metrics arriving? {told}"))
}

fn on_time(view: &View<'_>) -> Option<String> {
    let due = view.report.next_poll?;
    let overdue = view.now().duration_since(due);
    if overdue > SignedDuration::from_secs(5) {
        return Some(format!("Is the control loop on time? No: a poll is due for {}", length(overdue)));
    }
    let late = view.detail.late_seconds.unwrap_or(0.0);
    let verdict = if late > LATE { "Not quite" } else { "Yes" };
    Some(format!(
        "Is the control loop on time? {verdict}: the last poll began {late:.1} s after it was due, the next is due {}",
        ahead(view.now(), due)
    ))
}
