//! The alert rules, the dashboard and their page: whether Prometheus takes them, whether they ask for what there is, and
//! whether the page says what the catalogue of metrics says. What only promtool can tell is skipped where there is none.

mod dashboard;
pub mod known;
mod page;
pub mod promql;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const FOLDER: &str = "../../observability";
const ALERTS: &str = "../../observability/alerts.yaml";

/// promtool; none where the machine has none, which is said past the harness's capture.
fn promtool() -> Option<PathBuf> {
    let found = xtask::services::prometheus::promtool().unwrap();
    if found.is_none() {
        let required = std::env::var("TIDEMARK_REQUIRE_SERVICES").is_ok_and(|value| value == "1");
        assert!(!required, "there is no promtool");
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        // A closed standard error is no reason to fail.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: there is no promtool; `cargo xtask test` provides it");
    }
    found
}

fn run(promtool: &Path, arguments: &[&str], folder: &Path) {
    let output = Command::new(promtool).args(arguments).current_dir(folder).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {arguments:?}:\n{}", String::from_utf8_lossy(&said));
}

/// An alert rule.
struct Alert {
    name: String,
    expression: String,
    severity: String,
    runbook: String,
    /// The texts that people read.
    texts: Vec<String>,
}

fn alerts() -> Vec<Alert> {
    let file: Value = serde_saphyr::from_str(&std::fs::read_to_string(ALERTS).unwrap()).unwrap();
    let groups = file["groups"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    groups
        .flat_map(|group| group["rules"].as_array().unwrap())
        .map(|rule| Alert {
            name: text(&rule["alert"]),
            expression: text(&rule["expr"]),
            severity: text(&rule["labels"]["severity"]),
            runbook: text(&rule["annotations"]["runbook_url"]),
            texts: ["summary", "description"].map(|key| text(&rule["annotations"][key])).to_vec(),
        })
        .collect()
}

#[test]
fn prometheus_takes_the_alert_rules() {
    let Some(promtool) = promtool() else { return };
    run(&promtool, &["check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml"], Path::new(FOLDER));
}

#[test]
fn the_alerts_come_and_go_as_their_cases_say() {
    let Some(promtool) = promtool() else { return };
    run(&promtool, &["test", "rules", "alerts-test.yaml"], Path::new(FOLDER));
}

#[test]
fn every_alert_has_a_case_in_which_it_comes() {
    let cases = std::fs::read_to_string(Path::new(FOLDER).join("alerts-test.yaml")).unwrap();
    for Alert { name, .. } in alerts() {
        let expected = [format!("alertname=\"{name}\""), format!("alertname: {name}\n")];
        assert!(expected.iter().any(|text| cases.contains(text)), "no case expects {name}");
    }
}

#[test]
fn every_alert_says_how_bad_it_is_and_where_to_read_on() {
    let headings = page::headings();
    for alert in alerts() {
        let name = &alert.name;
        assert!(["critical", "warning", "info"].contains(&alert.severity.as_str()), "{name}: {}", alert.severity);
        assert!(alert.texts.iter().all(|text| !text.is_empty()), "{name} lacks a text");
        assert_eq!(alert.runbook, format!("docs/observability.md#{}", name.to_lowercase()), "{name}");
        assert!(headings.contains(name), "docs/observability.md says nothing of {name}");
    }
}

#[test]
fn the_alerts_ask_for_metrics_and_labels_that_there_are() {
    for alert in alerts() {
        let query = promql::read(&alert.expression);
        let labels = known::check(&query).unwrap_or_else(|error| panic!("{}: {error}", alert.name));
        for label in alert.texts.iter().flat_map(|text| promql::labels_in_annotation(text)) {
            assert!(labels.contains(&label), "{}: {label} is no label of what it asks for", alert.name);
        }
    }
}
