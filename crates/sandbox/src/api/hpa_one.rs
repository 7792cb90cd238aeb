//! `autoscaling/v1`: the older form of a HorizontalPodAutoscaler, which knows the processor only. The rest travels in
//! annotations.

use serde_json::{Map, Value, json};

const PREFIX: &str = "autoscaling.alpha.kubernetes.io/";

/// Names of a metric source's fields: of `autoscaling/v2`, of the target's value and of its average in `v1`.
const SOURCES: &[(&str, &str, &str, &str)] = &[
    ("resource", "", "", "targetAverageValue"),
    ("containerResource", "", "", "targetAverageValue"),
    ("pods", "metricName", "", "targetAverageValue"),
    ("object", "metricName", "targetValue", "averageValue"),
    ("external", "metricName", "targetValue", "targetAverageValue"),
];

fn is_processor(metric: &Value, utilization: &str) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && metric["resource"].pointer(utilization).is_some_and(Value::is_number)
}

/// The `autoscaling/v1` form of a stored HorizontalPodAutoscaler.
pub(super) fn shown(value: &Value) -> Value {
    let mut out = value.clone();
    out["apiVersion"] = "autoscaling/v1".into();
    let (spec, status) = (&value["spec"], &value["status"]);
    let mut notes = Map::new();
    let mut rest = Vec::new();
    let mut target = Value::Null;
    for metric in spec["metrics"].as_array().into_iter().flatten() {
        if target.is_null() && is_processor(metric, "/target/averageUtilization") {
            target = metric["resource"]["target"]["averageUtilization"].clone();
        } else {
            rest.push(older(metric, "target"));
        }
    }
    note(&mut notes, "metrics", rest.into());
    note(&mut notes, "behavior", spec["behavior"].clone());
    note(&mut notes, "conditions", status["conditions"].clone());
    let mut current = Vec::new();
    let mut utilization = Value::Null;
    for metric in status["currentMetrics"].as_array().into_iter().flatten() {
        if utilization.is_null() && is_processor(metric, "/current/averageUtilization") {
            utilization = metric["resource"]["current"]["averageUtilization"].clone();
        }
        current.push(older(metric, "current"));
    }
    note(&mut notes, "current-metrics", current.into());
    keep(&mut out["spec"], &["metrics", "behavior"], "targetCPUUtilizationPercentage", target);
    if out["status"].is_object() {
        keep(&mut out["status"], &["currentMetrics", "conditions"], "currentCPUUtilizationPercentage", utilization);
    }
    if !notes.is_empty() {
        let annotations = &mut out["metadata"]["annotations"];
        if !annotations.is_object() {
            *annotations = json!({});
        }
        notes.into_iter().for_each(|(name, text)| annotations[name] = text);
    }
    out
}

fn note(notes: &mut Map<String, Value>, name: &str, value: Value) {
    if !value.is_null() && value.as_array().is_none_or(|items| !items.is_empty()) {
        notes.insert(format!("{PREFIX}{name}"), value.to_string().into());
    }
}

/// Takes fields out and puts one in, if there is one.
fn keep(value: &mut Value, gone: &[&str], field: &str, new: Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|name, _| !gone.contains(&name.as_str()));
        if !new.is_null() {
            fields.insert(field.to_owned(), new);
        }
    }
}

/// A metric, or its present value, in the older form; `side` is `target` or `current`.
fn older(metric: &Value, side: &str) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (source, name, whole, average) in SOURCES {
        let from = &metric[source];
        if !from.is_object() {
            continue;
        }
        let (now, side_fields) = (side == "current", &from[side]);
        let renamed = |text: &str| if now { text.replacen("target", "current", 1) } else { text.to_owned() };
        let mut to = json!({});
        let mut put = |field: String, value: &Value| {
            if !value.is_null() && !field.is_empty() {
                to[field] = value.clone();
            }
        };
        put("name".to_owned(), &from["name"]);
        put("container".to_owned(), &from["container"]);
        put("target".to_owned(), &from["describedObject"]);
        put((*name).to_owned(), &from["metric"]["name"]);
        let selector = if *source == "external" { "metricSelector" } else { "selector" };
        put(selector.to_owned(), &from["metric"]["selector"]);
        put(renamed(if whole.is_empty() { "" } else { "targetValue" }), &side_fields["value"]);
        put(
            if *source == "object" { (*average).to_owned() } else { renamed("targetAverageValue") },
            &side_fields["averageValue"],
        );
        put(renamed("targetAverageUtilization"), &side_fields["averageUtilization"]);
        out[*source] = to;
    }
    out
}

/// The stored form of an `autoscaling/v1` HorizontalPodAutoscaler.
pub(super) fn stored(mut value: Value) -> Value {
    value["apiVersion"] = "autoscaling/v2".into();
    let noted = |value: &Value, name: &str| -> Value {
        let text = value["metadata"]["annotations"][format!("{PREFIX}{name}")].as_str();
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    };
    let mut metrics = Vec::new();
    if let Some(percentage) = value["spec"]["targetCPUUtilizationPercentage"].as_i64() {
        metrics.push(json!({"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": percentage},
        }}));
    }
    metrics.extend(noted(&value, "metrics").as_array().into_iter().flatten().map(newer));
    let behavior = noted(&value, "behavior");
    let (conditions, current) = (noted(&value, "conditions"), noted(&value, "current-metrics"));
    keep(&mut value["spec"], &["targetCPUUtilizationPercentage"], "behavior", behavior);
    if !metrics.is_empty() && value["spec"].is_object() {
        value["spec"]["metrics"] = metrics.into();
    }
    if value["status"].is_object() {
        keep(&mut value["status"], &["currentCPUUtilizationPercentage"], "conditions", conditions);
        let current: Vec<_> = current.as_array().into_iter().flatten().map(newer).collect();
        if !current.is_empty() {
            value["status"]["currentMetrics"] = current.into();
        }
    }
    if let Some(annotations) = value["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|name, _| !name.starts_with(PREFIX));
    }
    value
}

/// A metric in the newer form.
fn newer(metric: &Value) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (source, ..) in SOURCES {
        let from = &metric[source];
        if !from.is_object() {
            continue;
        }
        let first = |names: &[&str]| names.iter().map(|name| from[*name].clone()).find(|value| !value.is_null());
        let whole = first(&["targetValue", "currentValue"]);
        let average = first(&["targetAverageValue", "currentAverageValue", "averageValue"]);
        let utilization = first(&["targetAverageUtilization", "currentAverageUtilization"]);
        let now = from.as_object().is_some_and(|fields| fields.keys().any(|name| name.starts_with("current")));
        let mut side = json!({});
        if !now {
            let kind = match (&utilization, &average) {
                (Some(_), _) => "Utilization",
                (None, Some(_)) => "AverageValue",
                _ => "Value",
            };
            side["type"] = kind.into();
        }
        for (field, value) in [("value", whole), ("averageValue", average), ("averageUtilization", utilization)] {
            if let Some(value) = value {
                side[field] = value;
            }
        }
        let mut to = json!({});
        to[if now { "current" } else { "target" }] = side;
        for field in ["name", "container"] {
            if !from[field].is_null() {
                to[field] = from[field].clone();
            }
        }
        if !from["target"].is_null() && *source == "object" {
            to["describedObject"] = from["target"].clone();
        }
        if let Some(name) = from["metricName"].as_str() {
            to["metric"] = json!({"name": name});
            if let Some(selector) = first(&["metricSelector", "selector"]) {
                to["metric"]["selector"] = selector;
            }
        }
        out[*source] = to;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let object = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {"maxReplicas": 3, "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                {"type": "External", "external": {
                    "metric": {"name": "s0", "selector": {"matchLabels": {"a": "b"}}},
                    "target": {"type": "AverageValue", "averageValue": "5"},
                }},
            ]},
        });
        let one = shown(&object);
        assert_eq!(one["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
        let noted: Value = serde_json::from_str(
            one["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"].as_str().unwrap(),
        )
        .unwrap();
        assert_eq!(
            noted[0]["external"],
            json!({
                "metricName": "s0", "metricSelector": {"matchLabels": {"a": "b"}}, "targetAverageValue": "5",
            })
        );
        let back = stored(one);
        assert_eq!(back["spec"], object["spec"]);
    }
}
