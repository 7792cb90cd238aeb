//! Reports as the API server's tables, which is what kubectl asks for.

use serde_json::{Value, json};

/// Name, type, and whether it is shown only on request.
const COLUMNS: [(&str, &str, u8); 9] = [
    ("Name", "string", 0),
    ("Ready", "string", 0),
    ("Active", "string", 0),
    ("Replicas", "integer", 0),
    ("Desired", "integer", 0),
    ("Min", "integer", 0),
    ("Max", "integer", 0),
    ("Target", "string", 0),
    ("Last Error", "string", 1),
];

/// Whether a media type asks for a table.
pub(super) fn is_table(media_type: &str) -> bool {
    let parts: Vec<&str> = media_type.split(';').map(str::trim).collect();
    ["application/json", "as=Table", "v=v1", "g=meta.k8s.io"].iter().all(|wanted| parts.contains(wanted))
}

/// The table of a report or of a page of them; none of anything else.
pub(super) fn table(document: &Value) -> Option<Value> {
    let rows: Vec<Value> = match document["kind"].as_str()? {
        "ScaledObjectReasons" => vec![row(document)],
        "ScaledObjectReasonsList" => document["items"].as_array()?.iter().map(row).collect(),
        _ => return None,
    };
    let column = |(name, kind, priority): &(&str, &str, u8)| {
        let format = if *name == "Name" { "name" } else { "" };
        json!({"name": name, "type": kind, "format": format, "description": name, "priority": priority})
    };
    Some(json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"continue": document["metadata"]["continue"].as_str().unwrap_or_default()},
        "columnDefinitions": COLUMNS.iter().map(column).collect::<Vec<_>>(),
        "rows": rows,
    }))
}

fn row(report: &Value) -> Value {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let active = match (&report["paused"], &report["active"]) {
        (Value::Bool(true), _) => "Paused",
        (_, Value::Bool(true)) => "True",
        (_, Value::Bool(false)) => "False",
        _ => "Unknown",
    };
    let target = format!("{}/{}", text(&report["target"]["kind"]), text(&report["target"]["name"]));
    let mut errors = report["errors"].as_array().into_iter().flatten();
    let error = errors.rfind(|error| error["open"] == true).map(|error| text(&error["message"]));
    json!({
        "cells": [
            report["metadata"]["name"], report["ready"]["status"].as_str().unwrap_or("Unknown"), active,
            report["replicas"], report["desired"], report["minReplicas"], report["maxReplicas"], target,
            error.unwrap_or_default(),
        ],
        "object": {
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": {
                "name": report["metadata"]["name"], "namespace": report["metadata"]["namespace"],
                "uid": report["metadata"]["uid"],
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_becomes_a_table_with_a_row_for_each_object() {
        let report = json!({
            "kind": "ScaledObjectReasons", "metadata": {"namespace": "shop", "name": "orders", "uid": "1"},
            "ready": {"status": "True"}, "active": false, "paused": false, "replicas": 1, "minReplicas": 0,
            "maxReplicas": 10, "target": {"kind": "Deployment", "name": "orders"},
            "errors": [{"open": false, "message": "over"}, {"open": true, "message": "down"}],
        });
        let page = json!({
            "kind": "ScaledObjectReasonsList", "metadata": {"continue": "shop/orders"}, "items": [report],
        });
        let table = table(&page).unwrap();
        let cells = json!(["orders", "True", "False", 1, null, 0, 10, "Deployment/orders", "down"]);
        assert_eq!(table["rows"][0]["cells"], cells);
        assert_eq!(table["columnDefinitions"].as_array().unwrap().len(), 9);
        assert_eq!(table["metadata"]["continue"], "shop/orders");
        assert_eq!(super::table(&json!({"kind": "Status"})), None);
        assert!(is_table("application/json;as=Table;v=v1;g=meta.k8s.io") && !is_table("application/json"));
    }
}
