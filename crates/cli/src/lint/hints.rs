//! Settings of ScaledObjects and ScaledJobs that do nothing, or that nobody refuses before they fail.

use serde_json::Value;
use tidemark_admission::Path;
use tidemark_api::annotations::{
    self, FORCE_ACTIVATION, HPA_EXCLUDED_LABELS, HPA_OWNERSHIP, JOB_EXCLUDED_LABELS, PAUSED, PAUSED_REPLICAS,
    PAUSED_SCALE_IN, PAUSED_SCALE_OUT, TRANSFER_HPA_OWNERSHIP,
};
use tidemark_trigger::nearest::nearest;

use super::document::Side;
use super::object::Findings;
use super::parameters::FROM_ENV;

/// The annotations that mean something, of which only the first means something on a ScaledJob too.
const ANNOTATIONS: [&str; 9] = [
    PAUSED,
    PAUSED_REPLICAS,
    PAUSED_SCALE_IN,
    PAUSED_SCALE_OUT,
    FORCE_ACTIVATION,
    TRANSFER_HPA_OWNERSHIP,
    HPA_EXCLUDED_LABELS,
    HPA_OWNERSHIP,
    JOB_EXCLUDED_LABELS,
];

/// Hints on a ScaledObject.
pub fn scaled_object(object: &Value, findings: &mut Findings<'_>) {
    let (spec, path) = (&object["spec"], Path::of(["spec"]));
    annotations_of(object, findings);
    let min = spec["minReplicaCount"].as_i64().unwrap_or(0);
    if min > 0 && spec["idleReplicaCount"].is_null() && !spec["initialCooldownPeriod"].is_null() {
        let message =
            format!("initialCooldownPeriod has no effect: with minReplicaCount={min} the target never goes to zero");
        findings.warn(&path.key("initialCooldownPeriod"), Side::Key, message);
    }
    unused_container(&spec["triggers"], &spec["scaleTargetRef"], &path.key("scaleTargetRef"), findings);
    let formula = spec["advanced"]["scalingModifiers"]["formula"].as_str().unwrap_or_default();
    for (index, trigger) in triggers(spec) {
        let named = trigger["name"].as_str().is_some_and(|name| !name.is_empty());
        let resource = matches!(trigger["type"].as_str(), Some("cpu" | "memory"));
        if !formula.is_empty() && !named && !resource {
            let message = "its value is not used: the formula knows triggers by their name, and this one has none";
            findings.warn(&path.key("triggers").index(index), Side::Value, message);
        }
    }
    autoscaler(&spec["advanced"]["horizontalPodAutoscalerConfig"], findings);
}

/// Hints on a ScaledJob.
pub fn scaled_job(object: &Value, findings: &mut Findings<'_>) {
    let (spec, path) = (&object["spec"], Path::of(["spec"]));
    annotations_of(object, findings);
    unused_container(&spec["triggers"], spec, &path, findings);
    if !spec["rolloutStrategy"].is_null() {
        let message = if spec["rollout"]["strategy"].is_null() {
            "rolloutStrategy is deprecated: write rollout.strategy"
        } else {
            "rolloutStrategy is deprecated, and comes before rollout.strategy: leave it out"
        };
        findings.warn(&path.key("rolloutStrategy"), Side::Key, message);
    }
    let (min, max) = (spec["minReplicaCount"].as_i64().unwrap_or(0), spec["maxReplicaCount"].as_i64().unwrap_or(100));
    if min > max {
        let message = format!("minReplicaCount={min} is greater than maxReplicaCount={max}, which counts instead");
        findings.warn(&path.key("minReplicaCount"), Side::Value, message);
    }
    let strategy = &spec["scalingStrategy"];
    if strategy["strategy"] != "custom" {
        for field in ["customScalingQueueLengthDeduction", "customScalingRunningJobPercentage"] {
            if !strategy[field].is_null() {
                let message = format!("{field} has no effect: scalingStrategy.strategy is not custom");
                findings.warn(&path.key("scalingStrategy").key(field), Side::Key, message);
            }
        }
    }
    for (index, trigger) in triggers(spec) {
        let at = path.key("triggers").index(index);
        let type_ = trigger["type"].as_str().unwrap_or_default();
        if matches!(type_, "cpu" | "memory") {
            findings.warn(&at, Side::Value, format!("a {type_} trigger has no effect in a ScaledJob"));
        } else if trigger["useCachedMetrics"] == true {
            let message = "useCachedMetrics has no effect in a ScaledJob";
            findings.warn(&at.key("useCachedMetrics"), Side::Key, message);
        }
    }
}

fn triggers(spec: &Value) -> impl Iterator<Item = (usize, &Value)> {
    spec["triggers"].as_array().into_iter().flatten().enumerate()
}

fn unused_container(triggers: &Value, holder: &Value, path: &Path, findings: &mut Findings<'_>) {
    const FIELD: &str = "envSourceContainerName";
    let mut keys = triggers.as_array().into_iter().flatten().filter_map(|trigger| trigger["metadata"].as_object());
    let used = keys.any(|metadata| metadata.keys().any(|key| key.ends_with(FROM_ENV)));
    if !used && holder[FIELD].as_str().is_some_and(|name| !name.is_empty()) {
        let message = format!("{FIELD} has no effect: no trigger has a parameter that ends in {FROM_ENV}");
        findings.warn(&path.key(FIELD), Side::Key, message);
    }
}

fn annotations_of(object: &Value, findings: &mut Findings<'_>) {
    let path = Path::of(["metadata", "annotations"]);
    let given = object["metadata"]["annotations"].as_object();
    for (key, _) in given.into_iter().flatten() {
        let ours = key.split_once('/').is_some_and(|(domain, _)| domain.ends_with("keda.sh"));
        if let Some(near) = nearest(key, ANNOTATIONS).filter(|near| ours && near != key) {
            if ANNOTATIONS.contains(&key.as_str()) {
                continue;
            }
            let message = format!("unknown annotation {key}, did you mean {near}?");
            findings.warn(&path.key(key.as_str()), Side::Key, message);
        }
    }
    let texts = given.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    if let (Err(error), "ScaledObject") =
        (annotations::controls(&texts.collect()), object["kind"].as_str().unwrap_or_default())
    {
        findings.error(&path.key(error.annotation), error.to_string());
    }
}

/// What the definition lets pass and an HPA cannot have.
fn autoscaler(config: &Value, findings: &mut Findings<'_>) {
    let path = Path::of(["spec", "advanced", "horizontalPodAutoscalerConfig"]);
    if let Some(name) = config["name"].as_str().filter(|name| !name.is_empty() && !is_subdomain(name)) {
        let message = format!(
            "{name:?} cannot be the name of an HPA: lower case letters, digits, '-' and '.', with a letter or digit at both \
             ends"
        );
        findings.error(&path.key("name"), message);
    }
    for direction in ["scaleUp", "scaleDown"] {
        let (rules, at) = (&config["behavior"][direction], path.key("behavior").key(direction));
        word(&rules["selectPolicy"], &["Max", "Min", "Disabled"], &at.key("selectPolicy"), findings);
        for (index, policy) in rules["policies"].as_array().into_iter().flatten().enumerate() {
            let at = at.key("policies").index(index);
            word(&policy["type"], &["Pods", "Percent"], &at.key("type"), findings);
            for (field, most) in [("value", i64::from(i32::MAX)), ("periodSeconds", 1800)] {
                if policy[field].as_i64().is_some_and(|number| number < 1 || number > most) {
                    findings.error(&at.key(field), format!("{field} must be from 1 to {most}"));
                }
            }
        }
    }
}

fn word(value: &Value, allowed: &[&str], path: &Path, findings: &mut Findings<'_>) {
    if let Some(given) = value.as_str().filter(|given| !allowed.contains(given)) {
        let hint = nearest(given, allowed).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        findings.error(path, format!("{given:?} must be one of {}{hint}", allowed.join(", ")));
    }
}

fn is_subdomain(name: &str) -> bool {
    let letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        matches!((bytes.first(), bytes.last()), (Some(first), Some(last)) if letter(*first) && letter(*last))
            && bytes.iter().all(|byte| letter(*byte) || *byte == b'-')
    };
    name.split('.').all(label)
}
