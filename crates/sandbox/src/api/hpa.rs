//! Defaults and rules of HorizontalPodAutoscalers.
//!
//! An operator depends on them to the letter: a behavior is completed member by member, and what a trigger computes
//! badly (a target of zero, say) is refused here.

use serde_json::{Value, json};
use tidemark_engine::quantity::parse_milli;

use super::defaults::fill;
use super::failure::Cause;

/// Longest `stabilizationWindowSeconds`.
const MAX_WINDOW: i64 = 3600;
/// Longest `periodSeconds`.
const MAX_PERIOD: i64 = 1800;

pub(super) fn default(value: &mut Value) {
    let spec = &mut value["spec"];
    if !spec.is_object() {
        return;
    }
    fill(spec, "minReplicas", json!(1));
    if spec["metrics"].as_array().is_none_or(Vec::is_empty) {
        spec["metrics"] = json!([{
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
        }]);
    }
    let behavior = &mut spec["behavior"];
    if !behavior.is_object() {
        if let Some(fields) = spec.as_object_mut() {
            fields.shift_remove("behavior");
        }
        return;
    }
    fill(behavior, "scaleUp", json!({}));
    fill(behavior, "scaleDown", json!({}));
    let up = &mut behavior["scaleUp"];
    fill(up, "stabilizationWindowSeconds", json!(0));
    fill(up, "selectPolicy", json!("Max"));
    fill(
        up,
        "policies",
        json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]),
    );
    let down = &mut behavior["scaleDown"];
    fill(down, "selectPolicy", json!("Max"));
    fill(down, "policies", json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
}

pub(super) fn validate(value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &value["spec"];
    reference(&spec["scaleTargetRef"], "spec.scaleTargetRef", old, causes);
    let (min, max) = (spec["minReplicas"].as_i64().unwrap_or(1), spec["maxReplicas"].as_i64().unwrap_or(0));
    if min < 1 {
        causes.push(Cause::invalid("spec.minReplicas", &json!(min), "must be greater than or equal to 1"));
    }
    if max == 0 {
        causes.push(Cause::required("spec.maxReplicas", "must be set and greater than 0"));
    } else if max < 0 {
        causes.push(Cause::invalid("spec.maxReplicas", &json!(max), "must be greater than or equal to 1"));
    } else if max < min {
        causes.push(Cause::invalid("spec.maxReplicas", &json!(max), "must be greater than or equal to `minReplicas`"));
    }
    for (index, metric) in spec["metrics"].as_array().into_iter().flatten().enumerate() {
        metric_at(metric, &format!("spec.metrics[{index}]"), causes);
    }
    for direction in ["scaleUp", "scaleDown"] {
        let rules = &spec["behavior"][direction];
        if rules.is_object() {
            rules_at(rules, &format!("spec.behavior.{direction}"), causes);
        }
    }
}

fn reference(target: &Value, place: &str, old: Option<&Value>, causes: &mut Vec<Cause>) {
    for field in ["kind", "name"] {
        path_segment(&target[field], &format!("{place}.{field}"), "", causes);
    }
    let before = old.map(|old| &old["spec"]["scaleTargetRef"]);
    let same = before.is_some_and(|old| old["kind"] == target["kind"] && old["apiVersion"] == target["apiVersion"]);
    let version = target["apiVersion"].as_str().unwrap_or_default();
    let grouped = version.split_once('/').is_some_and(|(group, version)| !group.is_empty() && !version.contains('/'));
    if !grouped && !same && target["kind"] != "ReplicationController" {
        let detail = "apiVersion must specify API group";
        causes.push(Cause::invalid(format!("{place}.apiVersion"), &target["apiVersion"], detail));
    }
}

/// A text that stands in a path: not empty, no dots alone, no `/` and `%`.
fn path_segment(value: &Value, place: &str, detail: &str, causes: &mut Vec<Cause>) {
    let text = value.as_str().unwrap_or_default();
    if text.is_empty() {
        causes.push(Cause::required(place, detail));
    } else if matches!(text, "." | "..") {
        causes.push(Cause::invalid(place, value, &format!("may not be '{text}'")));
    }
    for bad in ['/', '%'].into_iter().filter(|bad| text.contains(*bad)) {
        causes.push(Cause::invalid(place, value, &format!("may not contain '{bad}'")));
    }
}

/// Type, member, and the fields of the target of which one must be there; the second is for External alone exclusive.
const SOURCES: &[(&str, &str, &[&str])] = &[
    ("ContainerResource", "containerResource", &["averageUtilization", "averageValue"]),
    ("External", "external", &["averageValue", "value"]),
    ("Object", "object", &["averageValue", "value"]),
    ("Pods", "pods", &["averageValue"]),
    ("Resource", "resource", &["averageUtilization", "averageValue"]),
];

fn metric_at(metric: &Value, place: &str, causes: &mut Vec<Cause>) {
    let wanted = SOURCES.iter().find(|(name, _, _)| metric["type"] == **name);
    let Some((kind, member, targets)) = wanted else {
        if metric["type"].as_str().is_none_or(str::is_empty) {
            causes.push(Cause::required(format!("{place}.type"), "must specify a metric source type"));
        }
        let supported: Vec<_> = SOURCES.iter().map(|(name, _, _)| json!(name)).collect();
        return causes.push(Cause::unsupported(format!("{place}.type"), &metric["type"], &supported));
    };
    for (_, other, _) in SOURCES.iter().filter(|(_, other, _)| other != member && !metric[*other].is_null()) {
        causes.push(Cause::forbidden(format!("{place}.{other}"), "must populate the given metric source only"));
    }
    let source = &metric[*member];
    if source.is_null() {
        let detail = "must populate information for the given metric source";
        return causes.push(Cause::required(format!("{place}.{member}"), detail));
    }
    let place = format!("{place}.{member}");
    match *kind {
        "Resource" | "ContainerResource" => {
            if source["name"].as_str().is_none_or(str::is_empty) {
                causes.push(Cause::required(format!("{place}.name"), "must specify a resource name"));
            }
        }
        _ => path_segment(
            &source["metric"]["name"],
            &format!("{place}.metric.name"),
            "must specify a metric name",
            causes,
        ),
    }
    if *kind == "ContainerResource" && source["container"].as_str().is_none_or(str::is_empty) {
        causes.push(Cause::required(format!("{place}.container"), "must specify a container"));
    }
    if *kind == "Object" {
        for field in ["kind", "name"] {
            path_segment(&source["describedObject"][field], &format!("{place}.describedObject.{field}"), "", causes);
        }
    }
    target_at(&source["target"], &format!("{place}.target"), kind, targets, causes);
}

fn target_at(target: &Value, place: &str, kind: &str, fields: &[&str], causes: &mut Vec<Cause>) {
    let types = ["AverageValue", "Utilization", "Value"].map(Value::from);
    if target["type"].as_str().is_none_or(str::is_empty) {
        causes.push(Cause::required(format!("{place}.type"), "must specify a metric target type"));
    }
    if !types.contains(&target["type"]) {
        causes.push(Cause::unsupported(format!("{place}.type"), &target["type"], &types));
    }
    for field in ["value", "averageValue"] {
        let positive = |value: &Value| value.as_str().and_then(parse_milli).is_some_and(|milli| milli > 0);
        if !target[field].is_null() && !positive(&target[field]) {
            causes.push(Cause::invalid(format!("{place}.{field}"), &target[field], "must be positive"));
        }
    }
    let utilization = &target["averageUtilization"];
    if utilization.as_i64().is_some_and(|percent| percent < 1) {
        causes.push(Cause::invalid(format!("{place}.averageUtilization"), utilization, "must be greater than 0"));
    }
    if fields.iter().all(|field| target[*field].is_null()) {
        let detail = format!("must set one of {}", fields.join(" and "));
        causes.push(Cause::required(format!("{place}.{}", fields[0]), &detail));
    }
    let exclusive = kind != "Object" && fields.len() > 1;
    if exclusive && fields.iter().all(|field| !target[*field].is_null()) {
        let detail = format!("may not set both {} and {}", fields[0], fields[1]);
        causes.push(Cause::forbidden(format!("{place}.{}", fields[1]), &detail));
    }
}

fn rules_at(rules: &Value, place: &str, causes: &mut Vec<Cause>) {
    let window = &rules["stabilizationWindowSeconds"];
    if window.as_i64().is_some_and(|seconds| seconds < 0) {
        let detail = "must be greater than or equal to zero";
        causes.push(Cause::invalid(format!("{place}.stabilizationWindowSeconds"), window, detail));
    }
    if window.as_i64().is_some_and(|seconds| seconds > MAX_WINDOW) {
        let detail = format!("must be less than or equal to {MAX_WINDOW}");
        causes.push(Cause::invalid(format!("{place}.stabilizationWindowSeconds"), window, &detail));
    }
    let selects = ["Disabled", "Max", "Min"].map(Value::from);
    if !rules["selectPolicy"].is_null() && !selects.contains(&rules["selectPolicy"]) {
        causes.push(Cause::unsupported(format!("{place}.selectPolicy"), &rules["selectPolicy"], &selects));
    }
    if rules["policies"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required(format!("{place}.policies"), "must specify at least one Policy"));
    }
    for (index, policy) in rules["policies"].as_array().into_iter().flatten().enumerate() {
        policy_at(policy, &format!("{place}.policies[{index}]"), causes);
    }
    let tolerance = &rules["tolerance"];
    if tolerance.as_str().is_some_and(|text| parse_milli(text).is_none_or(|milli| milli < 0)) {
        causes.push(Cause::invalid(format!("{place}.tolerance"), tolerance, "must be greater than or equal to 0"));
    }
}

fn policy_at(policy: &Value, place: &str, causes: &mut Vec<Cause>) {
    let types = ["Percent", "Pods"].map(Value::from);
    if !types.contains(&policy["type"]) {
        causes.push(Cause::unsupported(format!("{place}.type"), &policy["type"], &types));
    }
    for field in ["value", "periodSeconds"] {
        if policy[field].as_i64().unwrap_or(0) <= 0 {
            causes.push(Cause::invalid(format!("{place}.{field}"), &policy[field], "must be greater than zero"));
        }
    }
    if policy["periodSeconds"].as_i64().is_some_and(|seconds| seconds > MAX_PERIOD) {
        let detail = format!("must be less than or equal to {MAX_PERIOD}");
        causes.push(Cause::invalid(format!("{place}.periodSeconds"), &policy["periodSeconds"], &detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn autoscaler() -> Value {
        json!({"spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1, "maxReplicas": 10,
            "metrics": [{"type": "External", "external": {
                "metric": {"name": "s0-cron"}, "target": {"type": "AverageValue", "averageValue": "5"},
            }}],
        }})
    }

    fn refusals(change: impl FnOnce(&mut Value)) -> String {
        let mut value = autoscaler();
        change(&mut value["spec"]);
        default(&mut value);
        let mut causes = Vec::new();
        validate(&value, None, &mut causes);
        format!("{causes:?}")
    }

    #[test]
    fn a_behavior_is_completed_member_by_member_and_an_absent_one_stays_absent() {
        let mut value = autoscaler();
        default(&mut value);
        assert!(value["spec"].get("behavior").is_none());
        value["spec"]["behavior"] = json!({"scaleDown": {"stabilizationWindowSeconds": 60}});
        default(&mut value);
        let behavior = &value["spec"]["behavior"];
        assert_eq!(
            behavior["scaleDown"],
            json!({
                "stabilizationWindowSeconds": 60, "selectPolicy": "Max",
                "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
            })
        );
        assert_eq!(behavior["scaleUp"]["stabilizationWindowSeconds"], 0);
        assert_eq!(behavior["scaleUp"]["policies"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_sound_autoscaler_passes() {
        assert_eq!(refusals(|_| ()), "[]");
        assert_eq!(refusals(|spec| spec["metrics"] = json!([])), "[]");
    }

    #[test]
    fn what_a_trigger_computes_badly_is_refused() {
        let target = |value: Value| refusals(move |spec| spec["metrics"][0]["external"]["target"] = value);
        assert!(target(json!({"type": "AverageValue", "averageValue": "0"})).contains("must be positive"));
        assert!(target(json!({"type": "AverageValue"})).contains("must set one of"));
        assert!(target(json!({"type": "Value", "value": "1", "averageValue": "1"})).contains("may not set both"));
        assert!(
            refusals(|spec| spec["metrics"][0]["external"]["metric"]["name"] = json!("a/b"))
                .contains("may not contain")
        );
        assert!(refusals(|spec| spec["maxReplicas"] = json!(0)).contains("must be set and greater than 0"));
        assert!(refusals(|spec| spec["minReplicas"] = json!(11)).contains("`minReplicas`"));
        assert!(refusals(|spec| spec["minReplicas"] = json!(0)).contains("or equal to 1"));
        assert!(
            refusals(|spec| spec["behavior"] = json!({"scaleUp": {"policies": []}})).contains("at least one Policy")
        );
        let window = json!({"scaleDown": {"stabilizationWindowSeconds": 3601}});
        assert!(refusals(|spec| spec["behavior"] = window).contains("3600"));
        assert!(refusals(|spec| spec["scaleTargetRef"]["apiVersion"] = json!("v1")).contains("API group"));
    }
}
