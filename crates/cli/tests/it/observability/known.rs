//! The metrics that there are, with their labels.

use std::collections::{BTreeMap, BTreeSet};

use tidemark_telemetry::catalogue::{Instrument, Metric, operator, services};

use super::promql::Query;

/// What a scrape adds to each series, and where it moves a `namespace` that it finds there.
const SCRAPE: [&str; 3] = ["job", "instance", "exported_namespace"];

/// Metrics of others: of the API server, and of kube-state-metrics.
const OTHERS: [(&str, &[&str]); 5] = [
    ("aggregator_unavailable_apiservice", &["name"]),
    ("kube_horizontalpodautoscaler_status_current_replicas", &["namespace", "horizontalpodautoscaler"]),
    ("kube_horizontalpodautoscaler_status_desired_replicas", &["namespace", "horizontalpodautoscaler"]),
    ("kube_horizontalpodautoscaler_spec_max_replicas", &["namespace", "horizontalpodautoscaler"]),
    ("kube_horizontalpodautoscaler_status_condition", &["namespace", "horizontalpodautoscaler", "condition", "status"]),
];

/// All that the processes of an installation tell.
pub fn own() -> impl Iterator<Item = &'static Metric> {
    [operator::OPERATOR, services::METRICS_SERVER, services::WEBHOOKS].into_iter().flatten().copied()
}

/// The labels of every series, by the name under which a query finds it.
pub fn series() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut series = BTreeMap::<String, BTreeSet<&str>>::new();
    for metric in own() {
        let Some(name) = metric.prometheus else { continue };
        let labels = metric.labels.iter().filter_map(|label| label.prometheus);
        let suffixes: &[&str] = match metric.instrument {
            Instrument::Histogram => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        for suffix in suffixes {
            let known = series.entry(format!("{name}{suffix}")).or_default();
            known.extend(labels.clone());
            known.extend((*suffix == "_bucket").then_some("le"));
        }
    }
    series.extend(OTHERS.map(|(name, labels)| (name.to_owned(), labels.iter().copied().collect())));
    series
}

/// The labels that the result of a query may have.
///
/// # Errors
/// It names a metric that nobody has, or a label that none of its metrics has.
pub fn check(query: &Query) -> Result<BTreeSet<String>, String> {
    let series = series();
    if query.metrics.is_empty() {
        return Err("it asks for no metric".into());
    }
    let mut labels: BTreeSet<&str> = SCRAPE.into();
    for (name, matched) in &query.metrics {
        let known = series.get(name).ok_or_else(|| format!("there is no metric {name}"))?;
        let unknown = matched.iter().find(|label| !known.contains(label.as_str()) && !SCRAPE.contains(&label.as_str()));
        if let Some(label) = unknown {
            return Err(format!("{name} has no label {label}"));
        }
        labels.extend(known);
    }
    if let Some(label) = query.kept.iter().chain(&query.other).find(|label| !labels.contains(label.as_str())) {
        return Err(format!("no metric of it has the label {label}"));
    }
    let mut result: BTreeSet<String> = labels.into_iter().map(str::to_owned).collect();
    if !query.kept.is_empty() {
        result.retain(|label| query.kept.contains(label) || label == "exported_namespace");
    }
    Ok(result)
}

/// A series of each kind, as a case of promtool has them: each with all its labels, growing by one a minute.
pub fn input(minutes: usize) -> Vec<serde_json::Value> {
    let mut input = Vec::new();
    for (name, labels) in series() {
        let value = |label: &str| match (name.as_str(), label) {
            ("leader_election_master_status", "name") => "operator.keda.sh",
            ("aggregator_unavailable_apiservice", "name") => "v1beta1.external.metrics.k8s.io",
            ("keda_resource_registered_total", "type") => "scaled_object",
            ("kube_horizontalpodautoscaler_status_condition", "condition") => "ScalingActive",
            ("kube_horizontalpodautoscaler_status_condition", "status") => "false",
            (_, "horizontalpodautoscaler") => "keda-hpa-orders",
            (_, "group") => "external.metrics.k8s.io",
            (_, "le") => "+Inf",
            _ => "x",
        };
        let pairs = labels.iter().map(|label| format!("{label}=\"{}\"", value(label)));
        let pairs: Vec<_> = pairs.chain(["job=\"j\"".into(), "instance=\"i\"".into()]).collect();
        let series = format!("{name}{{{}}}", pairs.join(", "));
        input.push(serde_json::json!({"series": series, "values": format!("1+1x{minutes}")}));
        if name == "kube_horizontalpodautoscaler_status_condition" {
            let limited = series.replace("ScalingActive", "ScalingLimited").replace("false", "true");
            input.push(serde_json::json!({"series": limited, "values": format!("1x{minutes}")}));
        }
    }
    input
}
