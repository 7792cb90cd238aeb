//! Why there are as many replicas as there are.

use super::{View, called};
use crate::report::{Hpa, HpaMetric, Step, Trigger};
use crate::words::{ago, ahead, and, capital, length, milli, number, replicas};

/// So many equal reads of nothing are worth a word.
const SUSPICIOUS: u64 = 3;

pub(super) fn because(view: &View<'_>) -> Vec<String> {
    if let Some(lines) = held(view) {
        return lines;
    }
    let mut lines: Vec<String> = view.report.triggers.iter().map(|trigger| trigger_line(view, trigger)).collect();
    if view.report.reasons.is_empty() {
        lines.push("Nothing has been decided yet".to_owned());
        return lines;
    }
    lines.extend(rules(view));
    let unread = view.hpa_condition("ScalingActive").filter(|active| active.reason.starts_with("FailedGet"));
    if view.is_left_to_hpa() && unread.is_some_and(|active| active.status == "False") {
        lines
            .push("The HPA lacks a value, and without it scales nothing in; without any it changes nothing".to_owned());
    }
    if view.is_left_to_hpa() && view.has("LeftToHpa") | view.has("Cooldown") | view.has("AtRest") {
        lines.extend(view.detail.hpa.iter().flat_map(|hpa| hpa_lines(view, hpa)));
    }
    let last = view.detail.decisions.last();
    lines.extend(
        last.and_then(|last| last.trace_id.as_ref()).map(|trace| format!("The trace of the last decision is {trace}")),
    );
    lines
}

/// Why nothing at all is done, if that is so.
fn held(view: &View<'_>) -> Option<Vec<String>> {
    let report = view.report;
    if view.detail.deleting {
        return Some(vec!["The ScaledObject is being deleted, and scales nothing any more".to_owned()]);
    }
    if view.detail.rival.is_some() {
        return Some(vec![
            "This object neither reads its triggers nor touches the workload while the other one is there".to_owned(),
        ]);
    }
    if report.paused {
        let count = view.detail.paused_replicas;
        return Some(vec![match count {
            Some(count) => format!(
                "The object is paused at {} by the annotation autoscaling.keda.sh/paused-replicas: no trigger is read, and \
                 there is no HPA",
                replicas(count)
            ),
            None => {
                "The object is paused by the annotation autoscaling.keda.sh/paused: no trigger is read, there is no \
                     HPA, and the replicas stay as they were"
                    .to_owned()
            }
        }]);
    }
    let not_ready = report.ready.as_ref().is_some_and(|ready| ready.status == "False");
    (report.reasons.is_empty() && report.triggers.is_empty()).then(|| match not_ready {
        true => vec!["Nothing is decided before the object is ready; the workload is left as it is".to_owned()],
        false => vec!["The object has not been checked yet".to_owned()],
    })
}

fn trigger_line(view: &View<'_>, trigger: &Trigger) -> String {
    let name = called(trigger);
    if trigger.error.is_some() {
        return format!("{name} is unknown: it cannot be {}", if trigger.metric.is_empty() { "built" } else { "read" });
    }
    if trigger.read_by_hpa {
        return format!("{name} is read by the HPA itself");
    }
    let (Some(value), Some(time)) = (trigger.value, trigger.time) else {
        return format!("{name} has not been read yet");
    };
    let activity = match trigger.active {
        Some(true) => "active",
        _ => "not active",
    };
    let scope = if trigger.per_replica { " per replica" } else { " in all" };
    let target = format!("{}{scope}", milli(trigger.target_milli));
    let wants = match trigger.wants {
        _ if view.detail.formula => String::new(),
        Some(wants) => format!("; for a target of {target} that asks for {}", replicas(wants)),
        None => format!("; the target is {target}"),
    };
    let mut line = format!("{name} reads {} ({}): {activity}{wants}", number(value), ago(view.now(), time));
    if let Some(same) = trigger.unchanged.as_ref().filter(|same| same.reads >= SUSPICIOUS) {
        line += &format!(
            ". It has read {} each of the last {} times, since {}",
            number(value),
            same.reads,
            view.clock(same.since)
        );
        if value == 0.0 && view.report.active == Some(false) {
            line += ": if there is work to do, the trigger does not see it, so check what it asks the source for \
                     (`tidemark probe -f FILE` asks once)";
        }
    }
    line
}

/// The rules of the last decision, in their order.
fn rules(view: &View<'_>) -> Vec<String> {
    let capital = |text: &str, about_metric: bool| if about_metric { text.to_owned() } else { capital(text) };
    let line = |step: &Step| rule(view, &step.rule, &step.text).map(|text| capital(&text, step.metric.is_some()));
    view.report.reasons.iter().filter_map(line).collect()
}

fn rule(view: &View<'_>, rule: &str, text: &str) -> Option<String> {
    let until = |rule: &str| {
        let until = view.step(rule).and_then(|step| step.until)?;
        Some(format!("{} ({})", view.clock(until), ahead(view.now(), until)))
    };
    let rest = replicas(view.rest());
    Some(match rule {
        // They have lines of their own.
        "TriggerActive" | "TriggerInactive" | "TriggerFailed" | "TriggerUnknown" => return None,
        "AtRest" => {
            let what = if view.detail.idle_replicas.is_some() { "idle count" } else { "minimum" };
            let known = if unknown(view).is_empty() { "" } else { "known to be " };
            format!("No trigger is {known}active, so the workload rests at its {what}, {rest}")
        }
        "LeftToHpa" => hpa_decides(view),
        "Cooldown" => {
            let cooldown = length(jiff::SignedDuration::from_secs(i64::try_from(view.detail.cooldown_seconds).ok()?));
            format!(
                "No trigger is active any more, but the cooldown of {cooldown} runs until {}, and only then may the \
                 workload go to {rest}",
                until(rule)?
            )
        }
        "InitialCooldown" => format!(
            "No trigger has been active yet, and the initial cooldown runs until {}: only then may the workload go to {rest}",
            until(rule)?
        ),
        "DeactivationNeedsEveryTrigger" => format!(
            "No trigger is known to be active, but {}: the workload goes to {rest} only when every trigger has been read and \
             is quiet",
            unsure(view)
        ),
        "AwaitsFallback" => {
            let threshold = view.detail.fallback.as_ref().map_or(0, |fallback| fallback.failure_threshold);
            format!(
                "Nothing is changed while a trigger fails; the fallback stands in after more than {threshold} failures in a \
                 row"
            )
        }
        "Forced" => "Activation is forced by the annotation autoscaling.keda.sh/force-activation".to_owned(),
        "ScaleOutPaused" => "Scaling out from zero is paused by annotation".to_owned(),
        "ScaleInPaused" => format!("Scaling in to {rest} is paused by annotation"),
        "ResourceTriggersOnly" => "All triggers are cpu or memory, which the HPA alone decides on".to_owned(),
        _ => text.to_owned(),
    })
}

/// The triggers of which nothing is known.
fn unknown(view: &View<'_>) -> Vec<String> {
    let unread = |trigger: &&Trigger| !trigger.read_by_hpa && (trigger.error.is_some() || trigger.value.is_none());
    view.report.triggers.iter().filter(unread).map(called).collect()
}

/// Which triggers are not known to be quiet.
fn unsure(view: &View<'_>) -> String {
    match &*unknown(view) {
        [] => "not every trigger has been read lately".to_owned(),
        [one] => format!("{one} is unknown"),
        several => format!("{} are unknown", and(several)),
    }
}

fn hpa_decides(view: &View<'_>) -> String {
    if view.detail.hpa_name.is_none() && view.detail.hpa.is_none() {
        return "Above its minimum the workload would be scaled by an HPA, but there is none".to_owned();
    }
    let name = view.detail.hpa_name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    let least = view.report.min_replicas.max(1);
    let by = if view.detail.formula { "the formula's result" } else { "the same values" };
    format!("From {least} to {} the HPA{name} decides, by {by}", replicas(view.report.max_replicas))
}

/// What the HPA says of itself.
fn hpa_lines(view: &View<'_>, hpa: &Hpa) -> Vec<String> {
    let mut lines = Vec::new();
    let active = view.hpa_condition("ScalingActive");
    if active.is_some_and(|condition| condition.status == "False" && condition.reason == "ScalingDisabled") {
        return lines;
    }
    let read: Vec<String> = hpa.metrics.iter().filter_map(|metric| metric_line(view, metric)).collect();
    if let Some(desired) = hpa.desired.filter(|desired| *desired > 0) {
        let read = if read.is_empty() { String::new() } else { format!(": it last read {}", and(&read)) };
        lines.push(format!("The HPA wants {}{read}", replicas(desired)));
    }
    if let Some(able) = view.hpa_condition("AbleToScale") {
        match able.reason.as_str() {
            // At the minimum it makes no difference.
            "ScaleDownStabilized" if view.replicas() > Some(view.report.min_replicas.max(1)) => lines.push(
                "The HPA would want fewer, but more were wanted within its stabilization window (5 min unless the object \
                 sets another), and it takes the highest"
                    .to_owned(),
            ),
            "ScaleUpStabilized" => lines.push(
                "The HPA would want more, but fewer were wanted within its stabilization window, and it takes the lowest"
                    .to_owned(),
            ),
            _ => {}
        }
    }
    lines.extend(view.hpa_limit().and_then(|limited| match limited.reason.as_str() {
        "TooManyReplicas" => Some(format!("The HPA would want more than the maximum of {}", view.report.max_replicas)),
        "TooFewReplicas" => {
            Some(format!("The values ask for fewer than the HPA's minimum of {}", view.report.min_replicas.max(1)))
        }
        "ScaleUpLimit" => Some("The HPA wants more, but may not add them faster (behavior.scaleUp)".to_owned()),
        "ScaleDownLimit" => Some("The HPA wants fewer, but may not remove them faster (behavior.scaleDown)".to_owned()),
        _ => None,
    }));
    lines
}

fn metric_line(view: &View<'_>, metric: &HpaMetric) -> Option<String> {
    let quantity = |text: &String| tidemark_engine::quantity::parse_milli(text).map_or(text.clone(), milli);
    // Also of the metric of a formula, which is no trigger's.
    let decided = view.detail.decisions.iter().rev().flat_map(|decision| &decision.metrics);
    let target = decided.filter(|seen| seen.metric == metric.name).find_map(|seen| seen.target_milli);
    let target = target.map(|target| format!(" (target {})", milli(target))).unwrap_or_default();
    match (&metric.average_utilization, &metric.average_value, &metric.value) {
        (Some(percent), _, _) => Some(format!("{} as {percent} % of the requests", metric.name)),
        (None, Some(average), _) => Some(format!("{} as {} per replica{target}", metric.name, quantity(average))),
        (None, None, Some(value)) => Some(format!("{} as {} in all{target}", metric.name, quantity(value))),
        (None, None, None) => None,
    }
}
