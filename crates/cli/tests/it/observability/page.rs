//! The page `docs/observability.md`: its queries ask for what there is, and its tables are those of the catalogue. To write
//! the tables anew: `TIDEMARK_UPDATE=1 cargo test -p tidemark --test it observability`.

use std::fmt::Write;

use tidemark_telemetry::catalogue::{Instrument, Label, Metric, operator, services};

use super::{known, promql};

const PAGE: &str = "../../docs/observability.md";
const BEGIN: &str = "<!-- Generated from the catalogue of metrics: begin -->\n";
const END: &str = "<!-- Generated: end -->\n";

pub fn text() -> String {
    std::fs::read_to_string(PAGE).unwrap()
}

/// The headings of the page.
pub fn headings() -> Vec<String> {
    text()
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches(['#', ' ']).to_owned())
        .collect()
}

#[test]
fn its_queries_ask_for_metrics_and_labels_that_there_are() {
    let text = text();
    let fenced = text.split("```promql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let queries: Vec<&str> = fenced.flat_map(|fenced| fenced.split("\n\n")).collect();
    assert!(queries.len() > 5, "{queries:?}");
    for query in queries {
        let lines = query.lines().filter(|line| !line.starts_with('#'));
        let query = lines.collect::<Vec<_>>().join("\n");
        known::check(&promql::read(&query)).unwrap_or_else(|error| panic!("{query}: {error}"));
    }
}

#[test]
fn its_tables_are_those_of_the_catalogue() {
    let present = text();
    let (before, rest) = present.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = format!("{before}{BEGIN}{}{END}{after}", tables());
    if std::env::var("TIDEMARK_UPDATE").is_ok_and(|value| value == "1") {
        std::fs::write(PAGE, &wanted).unwrap();
    }
    assert!(text() == wanted, "{PAGE} is out of date: run this test with TIDEMARK_UPDATE=1");
}

fn tables() -> String {
    let mut page = String::new();
    let processes = [
        ("The operator, for Prometheus", operator::OPERATOR),
        ("The metrics server, for Prometheus", services::METRICS_SERVER),
        ("The webhooks, for Prometheus", services::WEBHOOKS),
    ];
    for (title, metrics) in processes {
        write!(page, "\n### {title}\n\n| metric | type | labels | |\n|---|---|---|---|\n").unwrap();
        for row in merged(metrics, |metric| metric.prometheus.is_some()) {
            let labels: Vec<_> = row.iter().map(|metric| names(metric.labels, |label| label.prometheus)).collect();
            let (metric, labels) = (row[0], labels.join("; or "));
            let name = metric.prometheus.unwrap_or_default();
            writeln!(page, "| `{name}` | {} | {labels} | {} |", metric.instrument.prometheus(), metric.help).unwrap();
        }
    }
    page.push_str("\n### The operator, over OTLP\n\n");
    page.push_str("| metric | instrument | unit | attributes | of a ScaledJob |\n|---|---|---|---|---|\n");
    for row in merged(operator::OPERATOR, |metric| !metric.otlp.is_empty()) {
        let metric = row[0];
        let attributes: Vec<_> = row.iter().map(|metric| names(metric.labels, |label| label.otlp)).collect();
        let of_job = names(metric.labels, |label| label.otlp_of_job);
        let of_job = if attributes[0] == of_job { "the same".to_owned() } else { of_job };
        for name in metric.otlp {
            let (instrument, attributes) = (instrument(metric), attributes.join("; or "));
            writeln!(page, "| `{}` | {instrument} | {} | {attributes} | {of_job} |", name.name, name.unit).unwrap();
        }
    }
    page.push('\n');
    page
}

/// The metrics that are wanted, those of one name together.
fn merged(metrics: &[&'static Metric], wanted: impl Fn(&Metric) -> bool) -> Vec<Vec<&'static Metric>> {
    let mut rows: Vec<Vec<&Metric>> = Vec::new();
    for metric in metrics.iter().copied().filter(|metric| wanted(metric)) {
        match rows.iter_mut().find(|row| row[0].prometheus == metric.prometheus) {
            Some(row) => row.push(metric),
            None => rows.push(vec![metric]),
        }
    }
    rows
}

fn names(labels: &[Label], name: impl Fn(&Label) -> Option<&'static str>) -> String {
    labels.iter().filter_map(name).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn instrument(metric: &Metric) -> &'static str {
    match metric.instrument {
        Instrument::Gauge => "gauge",
        Instrument::UpDownCounter => "up-down counter",
        Instrument::Counter => "counter",
        Instrument::Histogram => "histogram",
    }
}
