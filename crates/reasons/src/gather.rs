//! A report from what the operator knows now and what the ring remembers.

use jiff::{SignedDuration, Timestamp};
use tidemark_api::Condition as Stated;
use tidemark_engine::activation::Action;
use tidemark_engine::metric;
use tidemark_engine::quantity;
use tidemark_engine::reason::Reason;
use tidemark_operator::{Detail as Known, HpaSeen, ScaleCause, Seen, Snapshot, TriggerView, Write};
use tidemark_trigger::MetricType;

use crate::past::{About, Fault, Kept, Past, Turn, Written};
use crate::report::{
    Author, Change, Condition, Decision, Detail, Failure, FallbackSeen, GROUP, Hpa, HpaMetric, KIND, Metadata,
    MetricSeen, Report, Step, Target, Trigger, Trouble, Unchanged, VERSION, WriteSeen,
};

/// Somebody who keeps changing the HPA is told of for so long after the last time.
const QUARREL: SignedDuration = SignedDuration::from_secs(600);

/// The trace of an evaluation.
type Trace<'a> = &'a dyn Fn(&str, u64) -> Option<String>;

/// An object's report as it stands in lists.
pub(crate) fn summary(snapshot: &Snapshot, past: Option<&Past>, now: Timestamp) -> Report {
    let (kind, name) = snapshot.target.split_once('/').unwrap_or(("", &snapshot.target));
    Report {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: KIND.to_owned(),
        metadata: Metadata {
            namespace: snapshot.key.namespace.clone(),
            name: snapshot.key.name.clone(),
            uid: snapshot.uid.clone(),
        },
        time: now,
        target: Target { kind: kind.to_owned(), name: name.to_owned() },
        replicas: snapshot.replicas,
        desired: snapshot.desired,
        min_replicas: snapshot.min,
        max_replicas: snapshot.max,
        ready: snapshot.ready.as_ref().map(condition),
        active: snapshot.active,
        paused: snapshot.paused,
        triggers: triggers(snapshot, past),
        reasons: snapshot.reasons.iter().map(step).collect(),
        next_poll: snapshot.next_poll,
        // The reason of the last decision stays until the next one.
        cooldown_until: snapshot.cooldown_until.filter(|until| *until >= now),
        errors: past.into_iter().flat_map(|past| &past.troubles).map(trouble).collect(),
        detail: None,
        explanation: None,
    }
}

/// An object's whole report, but for the explanation.
pub(crate) fn report(known: &Known, past: Option<&Past>, now: Timestamp, trace: Trace<'_>) -> Report {
    let mut report = summary(&known.snapshot, past, now);
    for error in &mut report.errors {
        let silent = now.duration_since(error.last);
        let interval = SignedDuration::try_from(known.interval).unwrap_or(SignedDuration::MAX);
        error.open &= match error.stage.as_str() {
            "PollOverdue" => silent <= interval.saturating_mul(3),
            "HpaContested" => silent < QUARREL,
            _ => true,
        };
    }
    report.detail = Some(detail(known, past, now, trace));
    report
}

fn detail(known: &Known, past: Option<&Past>, now: Timestamp, trace: Trace<'_>) -> Detail {
    let (policy, controls) = (&known.policy, known.controls);
    let all = |past: &Past| {
        (
            past.turns.iter().map(change).collect(),
            past.decisions.iter().map(|kept| decision(kept, &past.uid, trace)).collect(),
            past.written.iter().map(write).collect(),
        )
    };
    let (changes, decisions, writes) = past.map(all).unwrap_or_default();
    Detail {
        observed_since: past.map_or(now, |past| past.since),
        polling_interval_seconds: known.interval.as_secs(),
        cooldown_seconds: policy.cooldown.as_secs(),
        idle_replicas: policy.idle_replicas,
        fallback: known.fallback.as_ref().map(|fallback| FallbackSeen {
            failure_threshold: fallback.failure_threshold,
            replicas: fallback.replicas,
            behavior: fallback.behavior.as_str().to_owned(),
        }),
        formula: known.composite.is_some(),
        paused_scale_in: controls.scale_in_paused,
        paused_scale_out: controls.scale_out_paused,
        forced_active: controls.force_activation,
        paused_replicas: controls.paused_replicas,
        deleting: known.deleting,
        rival: known.rival.as_ref().map(ToString::to_string),
        conditions: known.conditions.iter().map(condition).collect(),
        last_active: known.last_active,
        late_seconds: past.and_then(|past| past.late).map(|late| late.as_secs_f64()),
        last_query: past.and_then(|past| past.queried),
        hpa_name: known.hpa.clone(),
        hpa: past.and_then(|past| past.hpa.as_deref()).map(hpa),
        changes,
        decisions,
        writes,
    }
}

fn triggers(snapshot: &Snapshot, past: Option<&Past>) -> Vec<Trigger> {
    let mut place = (usize::MAX, 0);
    let mut of = |view: &TriggerView| {
        place = if place.0 == view.index { (view.index, place.1 + 1) } else { (view.index, 0) };
        trigger(view, place.1, snapshot.replicas, past)
    };
    snapshot.triggers.iter().map(&mut of).collect()
}

/// The metric at a place among those of its trigger.
fn trigger(view: &TriggerView, place: usize, replicas: Option<i32>, past: Option<&Past>) -> Trigger {
    let read = past.and_then(|past| past.reads.get(view.index));
    let unchanged = read.and_then(|read| read.values.get(place)).filter(|_| view.value.is_some());
    let per_replica = view.metric_type == MetricType::AverageValue;
    Trigger {
        index: view.index,
        kind: view.trigger_type.to_string(),
        name: view.name.as_ref().map(ToString::to_string),
        metric: view.metric.to_string(),
        read_by_hpa: matches!(&*view.trigger_type, "cpu" | "memory") && view.error.is_none(),
        value: view.value,
        target_milli: view.target_milli,
        per_replica,
        active: view.active,
        wants: view.value.and_then(|value| wants(quantity::from_f64(value), view.target_milli, per_replica, replicas)),
        error: view
            .error
            .as_ref()
            .map(|(kind, message)| Failure { kind: kind.as_str().to_owned(), message: message.to_string() }),
        time: view.time,
        unchanged: unchanged.map(|(_, since, reads)| Unchanged { since: *since, reads: *reads }),
        took_seconds: read.and_then(|read| read.took).map(|took| took.as_secs_f64()),
        endpoint: read.and_then(|read| read.endpoint.as_ref()).map(ToString::to_string),
    }
}

/// The replicas that a value asks for by itself. One for all of them together is a ratio, and says nothing at zero.
fn wants(milli: i64, target_milli: i64, per_replica: bool, replicas: Option<i32>) -> Option<i64> {
    if target_milli <= 0 {
        return None;
    }
    let (value, target) = (i128::from(milli), i128::from(target_milli));
    let count = match per_replica {
        true => 1,
        false => i128::from(replicas.filter(|replicas| *replicas > 0)?),
    };
    // Neither is negative.
    i64::try_from((value * count + target - 1) / target).ok()
}

pub(crate) fn condition(stated: &Stated) -> Condition {
    Condition {
        kind: stated.type_.clone(),
        status: stated.status.clone(),
        reason: stated.reason.clone().unwrap_or_default(),
        message: stated.message.clone().unwrap_or_default(),
    }
}

/// A reason as a step; its rule is the name of the engine's reason.
pub(crate) fn step(reason: &Reason) -> Step {
    let shown = format!("{reason:?}");
    let end = shown.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(shown.len());
    let (metric, until) = match reason {
        Reason::TriggerActive { metric, .. }
        | Reason::TriggerInactive { metric, .. }
        | Reason::TriggerFailed { metric, .. }
        | Reason::TriggerUnknown { metric }
        | Reason::TriggerAnnounced { metric }
        | Reason::TriggerFallback { metric, .. }
        | Reason::TriggerValue { metric, .. }
        | Reason::TriggerNil { metric, .. } => (Some(metric.to_string()), None),
        Reason::Cooldown { until } | Reason::InitialCooldown { until } => (None, Some(*until)),
        _ => (None, None),
    };
    Step { rule: shown[..end].to_owned(), text: reason.to_string(), metric, until }
}

fn trouble(fault: &Fault) -> Trouble {
    Trouble {
        stage: fault.about.as_str().to_owned(),
        trigger: fault.about.trigger(),
        kind: fault.kind.to_owned(),
        message: fault.message.to_string(),
        count: fault.count,
        first: fault.first,
        last: fault.last,
        open: fault.open && !matches!(fault.about, About::Deletion),
    }
}

fn decision(kept: &Kept, uid: &str, trace: Trace<'_>) -> Decision {
    Decision {
        first: kept.first,
        last: kept.last,
        count: kept.count,
        evaluation: kept.evaluation,
        trace_id: trace(uid, kept.evaluation),
        active: kept.active,
        replicas: kept.replicas,
        wanted: match kept.action {
            Action::Nothing => None,
            action => action.target(),
        },
        reasons: kept.reasons.iter().map(step).collect(),
        metrics: kept.metrics.iter().map(metric_seen).collect(),
    }
}

fn metric_seen(seen: &Seen) -> MetricSeen {
    MetricSeen {
        trigger: seen.trigger,
        metric: seen.metric.to_string(),
        milli: seen.milli,
        target_milli: seen.target.map(metric::Target::milli),
        per_replica: matches!(seen.target, Some(metric::Target::AverageValue(_))),
        active: seen.active,
        fallback: seen.fallback,
    }
}

fn change(turn: &Turn) -> Change {
    let reasons = match (turn.by, &turn.cause) {
        (Author::Operator | Author::DryRun, Some(cause)) => why_written(cause, turn),
        (Author::Hpa, _) => why_by_hpa(turn),
        _ => Vec::new(),
    };
    Change { time: turn.time, from: turn.from, to: turn.to, by: turn.by, reasons }
}

fn why_written(cause: &ScaleCause, turn: &Turn) -> Vec<String> {
    let rules = turn.decided.iter().flat_map(|(reasons, _)| reasons.iter());
    let texts = |which: fn(&Reason) -> bool| rules.clone().filter(move |r| which(r)).map(ToString::to_string);
    match cause {
        ScaleCause::Activated { forced: true, .. } => {
            vec!["activation is forced by the annotation autoscaling.keda.sh/force-activation".to_owned()]
        }
        ScaleCause::Activated { .. } => texts(|reason| {
            matches!(
                reason,
                Reason::TriggerActive { .. }
                    | Reason::TriggerAnnounced { .. }
                    | Reason::TriggerFallback { .. }
                    | Reason::CompositeValue { .. }
                    | Reason::CompositeFallback { .. }
                    | Reason::ResourceTriggersOnly
            )
        })
        .collect(),
        ScaleCause::Deactivated => {
            let quiet =
                |reason: &Reason| matches!(reason, Reason::TriggerInactive { .. } | Reason::CompositeValue { .. });
            texts(quiet).chain(["the cooldown was over".to_owned()]).collect()
        }
        ScaleCause::RaisedToMinimum => vec!["there were fewer than the minimum".to_owned()],
        ScaleCause::Paused => {
            vec!["the annotation autoscaling.keda.sh/paused-replicas asks for this count".to_owned()]
        }
        ScaleCause::Restored => {
            vec!["the ScaledObject was deleted, and the workload got back what it had at first".to_owned()]
        }
    }
}

/// What the HPA read and what it says of itself.
fn why_by_hpa(turn: &Turn) -> Vec<String> {
    let Some(hpa) = &turn.hpa else { return Vec::new() };
    let seen = turn.decided.iter().flat_map(|(_, seen)| seen.iter());
    let metrics = hpa.metrics.iter().filter_map(|metric| {
        let target = seen.clone().find(|seen| *seen.metric == *metric.name).and_then(|seen| seen.target);
        hpa_metric_text(&metric.name, metric.value.as_deref(), metric.average_value.as_deref(), target)
            .or_else(|| Some(format!("{} was {} % of the requests", metric.name, metric.average_utilization?)))
    });
    let limits = hpa.conditions.iter().filter(|condition| match condition.kind.as_str() {
        "ScalingLimited" => condition.status == "True",
        "AbleToScale" => condition.reason.ends_with("Stabilized"),
        _ => false,
    });
    metrics.chain(limits.map(|condition| format!("{}: {}", condition.reason, condition.message))).collect()
}

fn hpa_metric_text(
    name: &str,
    value: Option<&str>,
    average: Option<&str>,
    target: Option<metric::Target>,
) -> Option<String> {
    let shown = |quantity: &str| quantity::parse_milli(quantity).map(crate::words::milli);
    let target = |scope: &str| match target {
        Some(target) => format!(", for a target of {}{scope}", crate::words::milli(target.milli())),
        None => String::new(),
    };
    match (average, value) {
        (Some(average), _) => Some(format!("{name} was {} per replica{}", shown(average)?, target(""))),
        (None, Some(value)) => Some(format!("{name} was {} in all{}", shown(value)?, target(""))),
        (None, None) => None,
    }
}

fn write(written: &Written) -> WriteSeen {
    let what = match &written.write {
        Write::Scale { target, from, to, .. } if *from < 0 => format!("{target}: to {to}"),
        Write::Scale { target, from, to, .. } => format!("{target}: from {from} to {to}"),
        Write::HpaCreated { name } => format!("HPA {name} created"),
        Write::HpaUpdated { name } => format!("HPA {name} updated"),
        Write::HpaDeleted { name } => format!("HPA {name} deleted"),
        Write::Status => "the status".to_owned(),
        Write::FinalizerAdded | Write::FinalizerRemoved => "the finalizer".to_owned(),
    };
    let error = written.error.as_ref().map(ToString::to_string);
    WriteSeen { time: written.time, what, dry_run: written.dry_run, error }
}

fn hpa(seen: &HpaSeen) -> Hpa {
    Hpa {
        name: seen.name.to_string(),
        min_replicas: seen.min,
        max_replicas: seen.max,
        current: seen.current,
        desired: seen.desired,
        last_scale: seen.last_scale,
        conditions: seen
            .conditions
            .iter()
            .map(|condition| Condition {
                kind: condition.kind.clone(),
                status: condition.status.clone(),
                reason: condition.reason.clone(),
                message: condition.message.clone(),
            })
            .collect(),
        metrics: seen
            .metrics
            .iter()
            .map(|metric| HpaMetric {
                name: metric.name.clone(),
                value: metric.value.clone(),
                average_value: metric.average_value.clone(),
                average_utilization: metric.average_utilization,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_has_the_name_of_the_engines_reason_and_its_sentence() {
        let told = step(&Reason::TriggerInactive { metric: "s0-q".into(), value: 0.0 });
        assert_eq!(
            (&*told.rule, &*told.text, told.metric.as_deref()),
            ("TriggerInactive", "s0-q is quiet at 0", Some("s0-q"))
        );
        assert_eq!(step(&Reason::HpaNoMetric).rule, "HpaNoMetric");
        let until: Timestamp = "2026-01-05T08:00:00Z".parse().unwrap();
        assert_eq!(step(&Reason::Cooldown { until }).until, Some(until));
    }

    #[test]
    fn a_value_asks_for_as_many_replicas_as_the_hpa_would_count() {
        assert_eq!(wants(12_000, 5_000, true, Some(1)), Some(3));
        assert_eq!(wants(40_000, 100_000, true, Some(1)), Some(1));
        assert_eq!(wants(0, 5_000, true, None), Some(0));
        assert_eq!(wants(12_000, 5_000, false, Some(2)), Some(5));
        assert_eq!(wants(12_000, 5_000, false, Some(0)), None, "a ratio of nothing");
        assert_eq!(wants(i64::MAX, 1, true, None), Some(i64::MAX));
        assert_eq!(wants(1, 0, true, None), None);
    }
}
