//! The page `docs/observability.md`: its queries ask for what there is.

use serde_json::json;

use super::{known, promql, promtool, run};

const PAGE: &str = "../../docs/observability.md";

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

/// Its queries, without their comments.
fn queries() -> Vec<String> {
    let text = text();
    let fenced = text.split("```promql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let queries = fenced.flat_map(|fenced| fenced.split("\n\n"));
    queries.map(|query| query.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")).collect()
}

#[test]
fn its_queries_ask_for_metrics_and_labels_that_there_are() {
    let queries = queries();
    assert!(queries.len() > 5, "{queries:?}");
    for query in queries {
        known::check(&promql::read(&query)).unwrap_or_else(|error| panic!("{query}: {error}"));
    }
}

#[test]
fn its_queries_are_promql() {
    let Some(promtool) = promtool() else { return };
    let rules: Vec<_> =
        queries().iter().enumerate().map(|(at, query)| json!({"record": format!("q{at}"), "expr": query})).collect();
    let folder = std::env::temp_dir().join(format!("tidemark-page-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = json!({"groups": [{"name": "page", "rules": rules}]});
    std::fs::write(folder.join("rules.yaml"), file.to_string()).unwrap();
    run(&promtool, &["check", "rules", "rules.yaml"], &folder);
    std::fs::remove_dir_all(folder).unwrap();
}
