//! What would change the replicas next, and when.

use jiff::SignedDuration;
use tidemark_engine::quantity;

use super::View;
use crate::report::Trigger;
use crate::words::{ahead, capital, length, milli, replicas};

/// How often the HPA controller looks, unless the cluster says otherwise.
const HPA_PERIOD: &str = "about every 15 s";

pub(super) fn next(view: &View<'_>) -> Vec<String> {
    if let Some(line) = held(view) {
        return vec![line];
    }
    let mut lines = Vec::new();
    if let Some(poll) = view.report.next_poll {
        let interval = SignedDuration::from_secs(i64::try_from(view.detail.polling_interval_seconds).unwrap_or(0));
        let every = if interval.is_zero() { String::new() } else { format!(", as every {}", length(interval)) };
        let line = format!("{} ({}): the triggers are read again{every}", view.clock(poll), ahead(view.now(), poll));
        lines.push(line);
    }
    if let Some(until) = view.report.cooldown_until {
        lines.push(format!(
            "{} ({}): the cooldown ends; the first poll after it scales to {}, unless a trigger is active by then",
            view.clock(until),
            ahead(view.now(), until),
            replicas(view.rest())
        ));
    }
    lines.extend(activation(view));
    lines.extend(recovery(view));
    if view.is_left_to_hpa() && view.detail.hpa_name.is_some() {
        lines.extend(beyond_one(view));
    }
    lines
}

/// Why nothing comes by itself, if that is so.
fn held(view: &View<'_>) -> Option<String> {
    let metadata = &view.report.metadata;
    if view.detail.deleting {
        return Some("Nothing: the object is about to go".to_owned());
    }
    if view.detail.rival.is_some() {
        return Some("Nothing, until the other ScaledObject is gone or scales another workload".to_owned());
    }
    if view.report.paused {
        let annotation = if view.detail.paused_replicas.is_some() { "paused-replicas" } else { "paused" };
        return Some(format!(
            "Nothing, until the annotation is taken off: kubectl -n {} annotate scaledobject {} \
             autoscaling.keda.sh/{annotation}-",
            metadata.namespace, metadata.name
        ));
    }
    let idle = view.report.next_poll.is_none() && view.report.triggers.is_empty();
    (idle && view.report.ready.as_ref().is_some_and(|ready| ready.status == "False")).then(|| {
        "The object is checked again when it, its workload or what it refers to changes, and every now and then"
            .to_owned()
    })
}

/// What scales from rest.
fn activation(view: &View<'_>) -> Option<String> {
    let least = view.report.min_replicas.max(1);
    let rests = view.replicas().is_some_and(|replicas| replicas == 0 || view.detail.idle_replicas == Some(replicas));
    if !rests || view.detail.paused_scale_out {
        return None;
    }
    if view.detail.formula {
        return Some(format!("A result of the formula above activationTarget: scaled to {} at once", replicas(least)));
    }
    let quiet: Vec<&Trigger> =
        view.report.triggers.iter().filter(|trigger| !trigger.read_by_hpa && !trigger.metric.is_empty()).collect();
    let names: Vec<String> = quiet
        .iter()
        .map(|trigger| match view.workload.activations.get(&trigger.index) {
            Some(threshold) => format!("{} ({threshold})", trigger.metric),
            None => trigger.metric.clone(),
        })
        .collect();
    let which = match &*names {
        [] => return None,
        [one] => format!("A value of {one}"),
        several => format!("A value of any of {}", several.join(", ")),
    };
    Some(format!("{which} above its activation threshold: scaled to {} at once", replicas(least)))
}

/// What a failing trigger leads to.
fn recovery(view: &View<'_>) -> Option<String> {
    let failing = view.report.triggers.iter().find(|trigger| trigger.error.is_some())?;
    Some(match &view.detail.fallback {
        Some(fallback) if view.has("AwaitsFallback") => format!(
            "More than {} failures in a row: the fallback of {} stands in",
            fallback.failure_threshold,
            replicas(fallback.replicas)
        ),
        _ if failing.metric.is_empty() => {
            "The trigger corrected, or what it refers to there: the object is checked again at once".to_owned()
        }
        _ => "A read that succeeds again: it is decided anew on what it gives".to_owned(),
    })
}

/// At which values the HPA asks for more or for fewer.
fn beyond_one(view: &View<'_>) -> Vec<String> {
    // One that cannot read its metrics changes nothing.
    let stuck = view.hpa_condition("ScalingActive").is_some_and(|active| active.status == "False");
    let Some(present) = view.replicas().filter(|_| !stuck) else { return Vec::new() };
    if view.detail.formula {
        return vec![format!("{}: the HPA compares the formula's result with its target", capital(HPA_PERIOD))];
    }
    let external: Vec<&Trigger> =
        view.report.triggers.iter().filter(|trigger| trigger.target_milli > 0 && trigger.error.is_none()).collect();
    let (least, most) = (view.report.min_replicas.max(1), view.report.max_replicas);
    let mut lines = Vec::new();
    if present < most && !view.detail.paused_scale_out && !external.is_empty() {
        lines.push(more(&external, present));
    }
    // All must ask for fewer, also those of which nothing can be said here.
    if present > least && !view.detail.paused_scale_in && external.len() == view.report.triggers.len() {
        lines.extend(fewer(&external, present));
    }
    lines
}

fn more(external: &[&Trigger], present: i32) -> String {
    // A target for all replicas together is compared with the value as it is.
    let bound = |trigger: &Trigger| {
        let replicas = if trigger.per_replica { i128::from(present) } else { 1 };
        i64::try_from(i128::from(trigger.target_milli) * replicas * 11 / 10).unwrap_or(i64::MAX)
    };
    let above = |trigger: &&&Trigger| trigger.value.is_some_and(|value| quantity::from_f64(value) > bound(trigger));
    if let Some(trigger) = external.iter().find(above) {
        return format!(
            "{} is above {} already: at its next look ({HPA_PERIOD}) the HPA asks for more than {}",
            trigger.metric,
            milli(bound(trigger)),
            replicas(present)
        );
    }
    let bounds: Vec<String> =
        external.iter().map(|trigger| format!("{} above {}", trigger.metric, milli(bound(trigger)))).collect();
    format!("{}: the HPA, which looks {HPA_PERIOD}, asks for more than {}", bounds.join(", or "), replicas(present))
}

/// The values at which all metrics ask for fewer: a whole replica less, and the tolerance of a tenth below.
fn fewer(external: &[&Trigger], present: i32) -> Option<String> {
    const WINDOW: &str = "its stabilization window (5 min unless the object sets another)";
    let bound = |trigger: &Trigger| {
        let (target, present) = (i128::from(trigger.target_milli), i128::from(present));
        let all = (target * (present - 1)).min(target * present * 9 / 10);
        i64::try_from(if trigger.per_replica { all } else { all / present }).unwrap_or(i64::MAX)
    };
    let below = |trigger: &&Trigger| trigger.value.is_some_and(|value| quantity::from_f64(value) <= bound(trigger));
    if external.is_empty() {
        return None;
    }
    if external.iter().all(below) {
        return Some(format!("The values ask for fewer already: the HPA scales in when {WINDOW} lets it"));
    }
    let bounds: Vec<String> =
        external.iter().map(|trigger| format!("{} at {} or less", trigger.metric, milli(bound(trigger)))).collect();
    Some(format!("{}: the HPA asks for fewer, after {WINDOW}", bounds.join(", and ")))
}
