//! The dashboard.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{FOLDER, known, promql, promtool, run};

const DASHBOARD: &str = "../../observability/dashboard.json";
/// Columns that Grafana's grid has.
const COLUMNS: u64 = 24;

fn dashboard() -> Value {
    serde_json::from_str(&std::fs::read_to_string(DASHBOARD).unwrap()).unwrap()
}

/// The panels, also those of collapsed rows.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let outer = dashboard["panels"].as_array().unwrap();
    outer
        .iter()
        .flat_map(|panel| std::iter::once(panel).chain(panel["panels"].as_array().into_iter().flatten()))
        .collect()
}

/// A query as Grafana sends it, with everything chosen.
fn filled(query: &str) -> String {
    let values =
        [("${ns}", "namespace"), ("$namespace", ".*"), ("$object", ".*"), ("$job", ".*"), ("$__rate_interval", "5m")];
    let filled = values.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
    assert!(!filled.contains('$'), "{query} has an unknown variable");
    filled
}

/// All queries of the panels, each with its panel's title and its legend.
fn queries(dashboard: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut queries = Vec::new();
    for panel in panels(dashboard) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push((
                text(&panel["title"]),
                filled(target["expr"].as_str().unwrap()),
                text(&target["legendFormat"]),
            ));
        }
    }
    queries
}

#[test]
fn its_queries_ask_for_metrics_and_labels_that_there_are() {
    let dashboard = dashboard();
    for (title, query, legend) in queries(&dashboard) {
        let labels = known::check(&promql::read(&query)).unwrap_or_else(|error| panic!("{title}: {error}"));
        for label in promql::labels_in_legend(&legend) {
            assert!(labels.contains(&label), "{title}: {label} is no label of what it asks for");
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let Some(query) = variable["query"]["query"].as_str() else { continue };
        let inner = query.strip_prefix("label_values(").and_then(|query| query.strip_suffix(')')).unwrap();
        let (selector, label) = inner.rsplit_once(", ").unwrap();
        let labels = known::check(&promql::read(&filled(selector))).unwrap();
        assert!(labels.contains(&filled(label)), "{query}");
    }
}

#[test]
fn each_of_its_queries_finds_the_series_that_there_are() {
    let Some(promtool) = promtool() else { return };
    let found = |query: &str| json!({"expr": format!("count({query}) > bool 0"), "eval_time": "30m", "exp_samples": [{"labels": "{}", "value": 1}]});
    let cases: Vec<_> = queries(&dashboard()).iter().map(|(_, query, _)| found(query)).collect();
    let test = json!({"tests": [{"interval": "1m", "input_series": known::input(40), "promql_expr_test": cases}]});
    let folder = std::env::temp_dir().join(format!("tidemark-dashboard-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("test.yaml"), test.to_string()).unwrap();
    run(&promtool, &["test", "rules", "test.yaml"], &folder);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn its_panels_have_a_place_a_text_and_the_chosen_data_source() {
    let dashboard = dashboard();
    assert!(dashboard["id"].is_null(), "the number of somebody's own Grafana");
    let source = json!({"type": "prometheus", "uid": "${datasource}"});
    let mut ids = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's");
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"], source, "{title}");
        assert!(panel["targets"].as_array().unwrap().iter().all(|target| target["datasource"] == source), "{title}");
        assert!(
            panel["description"].as_str().is_some_and(|text| text.ends_with('.')),
            "{title} says nothing of itself"
        );
    }
    for panels in std::iter::once(&dashboard).chain(panels(&dashboard)).filter_map(|owner| owner["panels"].as_array()) {
        assert!(overlap(panels).is_none(), "{:?}", overlap(panels));
    }
}

/// Two panels of which one covers a part of the other, or one that leaves the grid.
fn overlap(panels: &[Value]) -> Option<(&Value, &Value)> {
    let place = |panel: &Value| ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
    for (at, panel) in panels.iter().enumerate() {
        let [x, y, w, h] = place(panel);
        if x + w > COLUMNS {
            return Some((panel, panel));
        }
        let covers = |other: &&Value| {
            let [ox, oy, ow, oh] = place(other);
            x < ox + ow && ox < x + w && y < oy + oh && oy < y + h
        };
        if let Some(other) = panels[at + 1..].iter().find(covers) {
            return Some((panel, other));
        }
    }
    None
}

#[test]
fn the_folder_holds_what_its_page_names() {
    let page = super::page::text();
    for entry in std::fs::read_dir(FOLDER).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(page.contains(&format!("observability/{name}")), "docs/observability.md does not name {name}");
    }
}
