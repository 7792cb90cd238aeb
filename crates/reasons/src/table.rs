//! All objects at a glance.

use jiff::{SignedDuration, Timestamp};

use crate::report::{Report, Trigger};
use crate::words::{ahead, length, milli, number, one_line};

const TITLES: [&str; 11] = [
    "NAMESPACE",
    "NAME",
    "READY",
    "ACTIVE",
    "REPLICAS",
    "DESIRED",
    "MIN-MAX",
    "TARGET",
    "TRIGGER",
    "LAST ERROR",
    "NEXT POLL",
];
/// The longest cells of free text, in characters.
const TRIGGER: usize = 40;
const ERROR: usize = 60;

/// The table, with a heading; each object on a line. It ends with a line break.
pub fn table(reports: &[Report], now: Timestamp) -> String {
    if reports.is_empty() {
        return "no ScaledObjects\n".to_owned();
    }
    let rows: Vec<[String; 11]> = reports.iter().map(|report| row(report, now)).collect();
    let mut widths = TITLES.map(|title| title.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; 11]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            line += &format!("{cell:<width$}   ");
        }
        line.trim_end().to_owned() + "\n"
    };
    let mut text = line(TITLES);
    for row in &rows {
        text += &line(row.each_ref().map(String::as_str));
    }
    text
}

fn row(report: &Report, now: Timestamp) -> [String; 11] {
    let count = |count: Option<i32>| count.map_or("?".to_owned(), |count| count.to_string());
    let ready = report.ready.as_ref().map_or("Unknown", |ready| &ready.status);
    let active = match (report.paused, report.active) {
        (true, _) => "Paused",
        (false, Some(true)) => "True",
        (false, Some(false)) => "False",
        (false, None) => "Unknown",
    };
    let poll = match report.next_poll {
        None => "-".to_owned(),
        Some(due) if now.duration_since(due) > SignedDuration::from_secs(5) => {
            format!("{} late", length(now.duration_since(due)))
        }
        Some(due) => ahead(now, due),
    };
    [
        one_line(&report.metadata.namespace),
        one_line(&report.metadata.name),
        ready.to_owned(),
        active.to_owned(),
        count(report.replicas),
        count(report.desired.or(report.replicas)),
        format!("{}-{}", report.min_replicas, report.max_replicas),
        one_line(&format!("{}/{}", report.target.kind, report.target.name)),
        worst(report).map_or("-".to_owned(), |trigger| shortened(&shown(trigger), TRIGGER)),
        shortened(&last_error(report).unwrap_or_else(|| "-".to_owned()), ERROR),
        poll,
    ]
}

/// The trigger that matters most: one that fails, else the one that asks for most.
fn worst(report: &Report) -> Option<&Trigger> {
    let failing = report.triggers.iter().find(|trigger| trigger.error.is_some());
    let weight = |trigger: &Trigger| {
        let ratio = trigger.value.unwrap_or(0.0) / (trigger.target_milli.max(1) as f64 / 1000.0);
        (trigger.active == Some(true), ratio)
    };
    let heaviest = || {
        let heavier = |a: &&Trigger, b: &&Trigger| {
            let (a, b) = (weight(a), weight(b));
            // Of equal ones the first.
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(std::cmp::Ordering::Greater)
        };
        report.triggers.iter().max_by(heavier)
    };
    failing.or_else(heaviest)
}

fn shown(trigger: &Trigger) -> String {
    let name =
        if trigger.metric.is_empty() { format!("{}:{}", trigger.index, trigger.kind) } else { trigger.metric.clone() };
    match (&trigger.error, trigger.value) {
        (Some(error), _) => format!("{name} {}", error.kind),
        (None, Some(value)) => format!("{name} {}/{}", number(value), milli(trigger.target_milli)),
        (None, None) if trigger.read_by_hpa => name,
        (None, None) => format!("{name} unread"),
    }
}

/// The latest thing that is wrong now.
fn last_error(report: &Report) -> Option<String> {
    let open = report.errors.iter().filter(|error| error.open).max_by_key(|error| error.last);
    let failed =
        || report.triggers.iter().find_map(|trigger| trigger.error.as_ref()).map(|error| error.message.clone());
    let unready = || report.ready.as_ref().filter(|ready| ready.status == "False").map(|ready| ready.message.clone());
    open.map(|error| error.message.clone()).or_else(failed).or_else(unready).map(|message| one_line(&message))
}

fn shortened(text: &str, longest: usize) -> String {
    match text.chars().count() > longest {
        true => text.chars().take(longest - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Condition, Failure, Metadata, Target};

    fn report(name: &str) -> Report {
        let trigger = |index, value: Option<f64>, error: Option<&str>| Trigger {
            index,
            kind: "rabbitmq".to_owned(),
            metric: format!("s{index}-rabbitmq-orders"),
            value,
            target_milli: 5000,
            active: value.map(|value| value > 0.0),
            error: error.map(|kind| Failure { kind: kind.to_owned(), message: "no connection\nto mq:5672".to_owned() }),
            ..Trigger::default()
        };
        Report {
            metadata: Metadata { namespace: "shop".to_owned(), name: name.to_owned(), ..Metadata::default() },
            target: Target { kind: "Deployment".to_owned(), name: name.to_owned() },
            replicas: Some(1),
            desired: Some(3),
            max_replicas: 10,
            ready: Some(Condition { status: "True".to_owned(), ..Condition::default() }),
            active: Some(true),
            triggers: vec![trigger(0, Some(0.0), None), trigger(1, Some(12.0), None)],
            next_poll: Some("2026-01-05T08:00:18Z".parse().unwrap()),
            ..Report::default()
        }
    }

    #[test]
    fn each_object_has_a_line_with_its_worst_trigger() {
        let mut failing = report("payments");
        failing.triggers[0].error =
            Some(Failure { kind: "unreachable".to_owned(), message: "no connection\nto mq:5672".to_owned() });
        failing.next_poll = Some("2026-01-05T07:59:20Z".parse().unwrap());
        let now = "2026-01-05T08:00:00Z".parse().unwrap();
        assert_eq!(
            table(&[report("orders"), failing], now),
            "\
NAMESPACE   NAME       READY   ACTIVE   REPLICAS   DESIRED   MIN-MAX   TARGET                TRIGGER                          LAST ERROR                 NEXT POLL
shop        orders     True    True     1          3         0-10      Deployment/orders     s1-rabbitmq-orders 12/5          -                          in 18 s
shop        payments   True    True     1          3         0-10      Deployment/payments   s0-rabbitmq-orders unreachable   no connection to mq:5672   40 s late
"
        );
        assert_eq!(table(&[], now), "no ScaledObjects\n");
    }

    #[test]
    fn what_is_too_long_is_cut_off() {
        assert_eq!(shortened("abcdef", 4), "abc…");
        assert_eq!(shortened("abcd", 4), "abcd");
    }
}
