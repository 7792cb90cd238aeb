//! The last change of the replicas: what, when, by whom, why.

use jiff::SignedDuration;

use super::{View, Writer};
use crate::report::{Author, Change};
use crate::words::{ago, replicas};

/// Times of managed fields have whole seconds, and the clocks of the API server and the operator differ.
const SLACK: SignedDuration = SignedDuration::from_secs(5);

pub(super) fn last_change(view: &View<'_>) -> Vec<String> {
    if view.report.detail.is_none() {
        return Vec::new();
    }
    let last = view.detail.changes.last();
    let writer = view.workload.writer.as_ref();
    let Some(last) = last else {
        let since = view.detail.observed_since;
        let none =
            format!("None since the operator began to watch, {} ({})", view.clock(since), ago(view.now(), since));
        return [none].into_iter().chain(writer.map(|writer| before(view, writer))).collect();
    };
    let mut lines = Vec::new();
    let newer = writer.filter(|writer| writer.time.is_some_and(|time| time.duration_since(last.time) > SLACK));
    if let Some(writer) = newer {
        let count = view.replicas().map(replicas).unwrap_or_default();
        lines.push(format!("{}: to {count}, written by {}", when(view, writer), name(writer)));
        lines.push(format!("Before that, {}", what(view, last)));
    } else {
        lines.push(what(view, last));
    }
    lines.extend(last.reasons.iter().map(|reason| format!("Because {reason}")));
    if let Some(writer) = writer.filter(|_| newer.is_none() && matches!(last.by, Author::Other | Author::DryRun)) {
        lines.push(format!("By the workload's managed fields, {}", last_writer(view, last.by, writer)));
    }
    lines
}

fn what(view: &View<'_>, change: &Change) -> String {
    let counts = match change.from {
        Some(from) => format!("from {from} to {}", replicas(change.to)),
        None => format!("to {}", replicas(change.to)),
    };
    let author = match (change.by, &view.detail.hpa_name) {
        (Author::Operator, _) => "written by Tidemark's operator".to_owned(),
        (Author::DryRun, _) => "as a dry run of Tidemark's operator would have written; it writes nothing".to_owned(),
        (Author::Hpa, Some(name)) => format!("written by the HPA controller for {name}"),
        (Author::Hpa, None) => "written by the HPA controller".to_owned(),
        (Author::Other, _) => "seen then; neither the operator nor the HPA wrote it".to_owned(),
    };
    format!("{} ({}): {counts}, {author}", view.clock(change.time), ago(view.now(), change.time))
}

/// Who the managed fields say it was; after a dry run, who wrote last, be it the same or not.
fn last_writer(view: &View<'_>, by: Author, writer: &Writer) -> String {
    let (who, when) = (name(writer), when(view, writer));
    match by {
        Author::DryRun => format!("the last to write them was {who}, {when}"),
        _ => format!("it was {who}, {when}"),
    }
}

/// What the managed fields tell of the time before the operator's.
fn before(view: &View<'_>, writer: &Writer) -> String {
    let (when, name) = (when(view, writer), name(writer));
    match writer.at_creation {
        true => format!("The workload was created with as many, {when}, by {name}"),
        false => format!("The last to write them before that was {name}, {when}"),
    }
}

fn when(view: &View<'_>, writer: &Writer) -> String {
    match writer.time {
        Some(time) => format!("{} ({})", view.clock(time), ago(view.now(), time)),
        None => "at an unknown time".to_owned(),
    }
}

fn name(writer: &Writer) -> String {
    match writer.manager.as_str() {
        "" | "unknown" => "an unknown client".to_owned(),
        "tidemark" => "Tidemark's operator".to_owned(),
        "kube-controller-manager" => "the HPA controller (kube-controller-manager)".to_owned(),
        other => format!("{other} (its name as a field manager)"),
    }
}
