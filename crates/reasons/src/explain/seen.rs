//! What a user sees of a workload and a ScaledObject, taken from the objects as the API server gives them.

use serde_json::Value;

use super::{Workload, Writer};

impl Workload {
    /// From the workload and the ScaledObject; either may be missing (null).
    ///
    /// Pods are counted for kinds of the group `apps` only: what the status of others means nobody knows.
    pub fn seen(workload: &Value, scaled_object: &Value) -> Self {
        let count = |value: &Value| value.as_i64().and_then(|count| i32::try_from(count).ok());
        let status = &workload["status"];
        let has_pods = workload["apiVersion"].as_str().is_some_and(|version| version.starts_with("apps/"))
            && status["observedGeneration"].is_number();
        // A count of zero is left out.
        let pods = |name: &str| has_pods.then(|| count(&status[name]).unwrap_or(0));
        Self {
            replicas: count(&workload["spec"]["replicas"]),
            pods: pods("replicas"),
            ready: pods("readyReplicas"),
            writer: writer(workload),
            activations: activations(scaled_object),
        }
    }
}

/// Who wrote `spec.replicas` last.
fn writer(workload: &Value) -> Option<Writer> {
    let entries = workload["metadata"]["managedFields"].as_array()?.iter();
    let writers = entries.filter(|entry| entry.pointer("/fieldsV1/f:spec/f:replicas").is_some());
    let created = &workload["metadata"]["creationTimestamp"];
    let writer = |entry: &Value| Writer {
        manager: entry["manager"].as_str().unwrap_or_default().to_owned(),
        time: entry["time"].as_str().and_then(|time| time.parse().ok()),
        at_creation: entry["time"] == *created,
    };
    writers.map(writer).max_by_key(|writer| writer.time)
}

/// Every scaler calls its activation threshold `activation...`.
fn activations(scaled_object: &Value) -> std::collections::BTreeMap<usize, String> {
    let triggers = scaled_object["spec"]["triggers"].as_array().into_iter().flatten().enumerate();
    let threshold = |(index, trigger): (usize, &Value)| {
        let metadata = trigger["metadata"].as_object()?;
        let is_activation = |name: &str| name.to_ascii_lowercase().starts_with("activation");
        let (name, value) = metadata.iter().find(|(name, _)| is_activation(name))?;
        Some((index, format!("{name} is {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))))
    };
    triggers.filter_map(threshold).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_writer_of_the_replicas_is_named_and_no_other() {
        let entry = |manager: &str, time: &str, fields: Value| json!({"manager": manager, "operation": "Update", "time": time, "fieldsV1": fields});
        let replicas = json!({"f:spec": {"f:replicas": {}}});
        let workload = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"managedFields": [
                entry("kubectl-scale", "2026-01-05T08:00:05Z", replicas.clone()),
                entry("argocd", "2026-01-05T08:00:00Z", replicas),
                entry("deployer", "2026-01-05T08:00:09Z", json!({"f:spec": {"f:template": {}}})),
            ]},
            "spec": {"replicas": 3}, "status": {"observedGeneration": 2, "replicas": 2},
        });
        let object = json!({"spec": {"triggers": [
            {"type": "cron", "metadata": {}}, {"type": "x", "metadata": {"activationValue": "5"}},
        ]}});
        let seen = Workload::seen(&workload, &object);
        assert_eq!((seen.replicas, seen.pods, seen.ready), (Some(3), Some(2), Some(0)));
        let time = "2026-01-05T08:00:05Z".parse().ok();
        assert_eq!(seen.writer, Some(Writer { manager: "kubectl-scale".to_owned(), time, at_creation: false }));
        assert_eq!(seen.activations, [(1, "activationValue is 5".to_owned())].into());
        assert_eq!(Workload::seen(&Value::Null, &Value::Null), Workload::default());
    }
}
