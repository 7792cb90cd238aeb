//! The state of all objects as text.

use std::sync::Arc;

use jiff::Timestamp;
use tidemark_engine::quantity;
use tidemark_engine::reason::Reason;
use tidemark_operator::{Snapshot, TriggerView};
use tidemark_trigger::MetricType;

/// The table of objects on at most `room` lines: a heading, and for each object a line, a line for each metric and one
/// for the reasons. Where not all objects have room, the last line says how many are missing.
pub fn table(snapshots: &[Arc<Snapshot>], now: Timestamp, room: usize) -> Vec<String> {
    if snapshots.is_empty() {
        return vec!["no ScaledObject yet".to_owned()];
    }
    let shown = &snapshots[..fitting(snapshots, room)];
    let missing = snapshots.len() - shown.len();
    let heads: Vec<[String; 6]> = shown.iter().map(|snapshot| head(snapshot)).collect();
    // What matters most comes first: a narrow screen cuts off the end.
    let titles = ["OBJECT", "STATE", "REPLICAS", "WANTED", "BOUNDS", "TARGET"].map(str::to_owned);
    let mut widths = [0; 6];
    for row in heads.iter().chain([&titles]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut lines = vec![row(&titles, &widths)];
    for (snapshot, head) in shown.iter().zip(&heads) {
        lines.push(row(head, &widths));
        lines.extend(snapshot.triggers.iter().map(|trigger| format!("  {}", metric(trigger, now))));
        lines.extend(Some(reasons(snapshot)).filter(|text| !text.is_empty()).map(|text| format!("  because {text}")));
        if let Some(problem) = problem(snapshot) {
            lines.push(format!("  not ready: {problem}"));
        }
    }
    // Even the first object may have too many triggers.
    lines.truncate(room.saturating_sub(usize::from(missing > 0)));
    if missing > 0 {
        lines.push(format!("and {missing} more: kubectl get scaledobjects --all-namespaces"));
    }
    lines
}

/// How many objects have room, one at least, with the heading and, where not all have, the line that says so.
fn fitting(snapshots: &[Arc<Snapshot>], room: usize) -> usize {
    let height = |snapshot: &Arc<Snapshot>| 2 + snapshot.triggers.len() + usize::from(problem(snapshot).is_some());
    let mut used = 1;
    let ends: Vec<usize> = snapshots
        .iter()
        .map(|snapshot| {
            used += height(snapshot);
            used
        })
        // What comes after the first that has no room is not looked at.
        .take_while(|end| *end <= room)
        .collect();
    if ends.len() == snapshots.len() { ends.len() } else { ends.iter().filter(|end| **end < room).count().max(1) }
}

/// One line about one object, for output that scrolls.
pub fn summary(snapshot: &Snapshot) -> String {
    let [name, state, replicas, wanted, _, target] = head(snapshot);
    let metrics: Vec<_> = snapshot.triggers.iter().map(value).collect();
    let mut line = format!("{name}: {target} {replicas} replicas, wanted {wanted}, {state}");
    if !metrics.is_empty() {
        line += &format!(" [{}]", metrics.join(", "));
    }
    let failures = snapshot.triggers.iter().filter_map(|trigger| trigger.error.as_ref());
    let told = problem(snapshot).map(|problem| format!("not ready: {problem}"));
    let told = told.or_else(|| failures.map(|(_, message)| message.to_string()).next());
    let told = told.unwrap_or_else(|| reasons(snapshot));
    if told.is_empty() { line } else { line + " - " + &told }
}

fn head(snapshot: &Snapshot) -> [String; 6] {
    let count = |count: Option<i32>| count.map_or("?".to_owned(), |count| count.to_string());
    let state = match (snapshot.paused, snapshot.active) {
        (true, _) => "paused",
        (false, Some(true)) => "active",
        (false, Some(false)) if snapshot.triggers.iter().any(|trigger| trigger.error.is_some()) => "failing",
        (false, Some(false)) if snapshot.cooldown_until.is_some() => "cooling down",
        (false, Some(false)) => "quiet",
        (false, None) => "starting",
    };
    [
        snapshot.key.to_string(),
        state.to_owned(),
        count(snapshot.replicas),
        count(snapshot.desired.or(snapshot.replicas)),
        format!("{}..{}", snapshot.min, snapshot.max),
        snapshot.target.clone(),
    ]
}

fn row(cells: &[String; 6], widths: &[usize; 6]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line += &format!("{cell:<width$}  ");
    }
    line.truncate(line.trim_end().len());
    line
}

/// `12 of 5 per replica`: a value against its target.
fn value(trigger: &TriggerView) -> String {
    let target = quantity::format_milli(trigger.target_milli);
    let per = match trigger.metric_type {
        MetricType::AverageValue => " per replica",
        MetricType::Value => "",
    };
    match (&trigger.error, trigger.value) {
        (Some((kind, _)), _) => format!("{}: {kind} error", name(trigger)),
        (None, Some(value)) => format!("{}: {} of {target}{per}", name(trigger), rounded(value)),
        (None, None) => format!("{}: not read yet", name(trigger)),
    }
}

/// At most three decimals, and no endless row of digits.
fn rounded(value: f64) -> String {
    if value.abs() < 1e15 { ((value * 1000.0).round() / 1000.0).to_string() } else { format!("{value:e}") }
}

fn metric(trigger: &TriggerView, now: Timestamp) -> String {
    if let Some((_, message)) = &trigger.error {
        let name = name(trigger);
        return if message.starts_with(&name) { message.to_string() } else { format!("{name}: {message}") };
    }
    let activity = match trigger.active {
        Some(true) => ", active",
        Some(false) => ", quiet",
        None => "",
    };
    let age = trigger
        .time
        .map_or(String::new(), |time| format!(", read {} s ago", now.duration_since(time).as_secs().max(0)));
    format!("{}{activity}{age}", value(trigger))
}

fn name(trigger: &TriggerView) -> String {
    if trigger.metric.is_empty() {
        format!("trigger {} ({})", trigger.index, trigger.trigger_type)
    } else {
        trigger.metric.to_string()
    }
}

fn reasons(snapshot: &Snapshot) -> String {
    if snapshot.reasons.is_empty() {
        return "nothing is decided yet".to_owned();
    }
    // What a trigger could not do stands on its own line.
    let others = snapshot.reasons.iter().filter(|reason| !matches!(reason, Reason::TriggerFailed { .. }));
    others.map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Why the object is not ready, unless a trigger's line tells it already.
fn problem(snapshot: &Snapshot) -> Option<String> {
    let ready = snapshot.ready.as_ref().filter(|ready| ready.status != "True")?;
    let text = ready.message.clone().or_else(|| ready.reason.clone()).filter(|text| !text.is_empty())?;
    let mut errors = snapshot.triggers.iter().filter_map(|trigger| trigger.error.as_ref());
    (!errors.any(|(_, error)| text.contains(&**error))).then_some(text)
}

#[cfg(test)]
mod tests {
    use tidemark_api::Condition;
    use tidemark_operator::ObjectKey;
    use tidemark_trigger::ErrorKind;

    use super::*;

    const NOW: &str = "2026-01-01T00:00:05Z";

    fn snapshot() -> Snapshot {
        Snapshot {
            key: Arc::new(ObjectKey::new("shop", "orders")),
            target: "Deployment/orders".to_owned(),
            triggers: vec![TriggerView {
                index: 0,
                trigger_type: "rabbitmq".into(),
                name: None,
                metric: "s0-rabbitmq-orders".into(),
                value: Some(12.0),
                target_milli: 5000,
                metric_type: MetricType::AverageValue,
                active: Some(true),
                error: None,
                time: Some("2026-01-01T00:00:03Z".parse().unwrap()),
            }],
            active: Some(true),
            replicas: Some(1),
            desired: Some(3),
            max: 10,
            reasons: vec![Reason::LeftToHpa { replicas: 1 }],
            ..Snapshot::default()
        }
    }

    #[test]
    fn an_object_shows_values_against_targets_replicas_and_reasons() {
        let lines = table(&[Arc::new(snapshot())], NOW.parse().unwrap(), 100);
        assert_eq!(
            lines,
            [
                "OBJECT       STATE   REPLICAS  WANTED  BOUNDS  TARGET",
                "shop/orders  active  1         3       0..10   Deployment/orders",
                "  s0-rabbitmq-orders: 12 of 5 per replica, active, read 2 s ago",
                "  because at 1 replica the HPA decides",
            ]
        );
    }

    #[test]
    fn a_failing_trigger_shows_its_error_instead_of_a_value() {
        let mut snapshot = snapshot();
        snapshot.triggers[0].error = Some((ErrorKind::Unreachable, "no connection to mq:5672 (unreachable)".into()));
        let condition =
            Condition { status: "False".to_owned(), message: Some("broken".to_owned()), ..Default::default() };
        snapshot.ready = Some(condition);
        let lines = table(&[Arc::new(snapshot.clone())], NOW.parse().unwrap(), 100).join("\n");
        assert!(lines.contains("s0-rabbitmq-orders: no connection to mq:5672 (unreachable)"), "{lines}");
        assert!(lines.contains("not ready: broken"), "{lines}");
        assert!(!lines.contains("12 of 5"), "{lines}");
        snapshot.ready.as_mut().unwrap().message = Some("no: no connection to mq:5672 (unreachable)".to_owned());
        snapshot.active = Some(false);
        let lines = table(&[Arc::new(snapshot.clone())], NOW.parse().unwrap(), 100).join("\n");
        assert!(!lines.contains("not ready"), "the cause is told once: {lines}");
        assert!(lines.contains("failing"), "{lines}");
        assert!(summary(&snapshot).contains("unreachable error"), "{}", summary(&snapshot));
    }

    #[test]
    fn objects_that_have_no_room_are_counted() {
        let five: Vec<_> = (0..5).map(|_| Arc::new(snapshot())).collect();
        let lines = |room| table(&five, NOW.parse().unwrap(), room);
        assert_eq!(lines(16).len(), 16);
        assert_eq!(lines(15).len(), 14);
        assert_eq!(lines(15)[13], "and 1 more: kubectl get scaledobjects --all-namespaces");
        assert_eq!(lines(3).len(), 3);
        assert_eq!(lines(3)[2], "and 4 more: kubectl get scaledobjects --all-namespaces");
    }

    #[test]
    fn values_are_shown_with_three_decimals_at_most() {
        assert_eq!([rounded(100.0 / 3.0), rounded(12.0), rounded(0.1 + 0.2)], ["33.333", "12", "0.3"]);
        assert_eq!([rounded(1e300), rounded(f64::NAN)], ["1e300", "NaN"]);
    }
}
