//! Values of the wrong type are refused before anything is installed, with a message that names them.

use serde_json::{Value, json};

use super::{CHART, helm, template};

#[test]
fn values_of_the_wrong_type_are_refused_by_name() {
    let Some(helm) = helm() else { return };
    for (values, place) in [
        (json!({"operator": {"replicaCount": "two"}}), "/operator/replicaCount"),
        (json!({"operator": {"replicaCount": -1}}), "/operator/replicaCount"),
        (json!({"watchNamespace": ["a", "b"]}), "/watchNamespace"),
        (json!({"env": {"A": "b"}}), "/env"),
        (json!({"env": [{"value": "b"}]}), "/env/0"),
        (json!({"webhooks": {"failurePolicy": "fail"}}), "/webhooks/failurePolicy"),
        (json!({"webhooks": {"timeoutSeconds": 31}}), "/webhooks/timeoutSeconds"),
        (json!({"prometheus": {"operator": {"port": "http"}}}), "/prometheus/operator/port"),
        (json!({"prometheus": {"operator": {"enabled": "yes"}}}), "/prometheus/operator/enabled"),
        (json!({"http": {"idleConnTimeout": 90}}), "/http/idleConnTimeout"),
        (json!({"logging": {"operator": {"level": "warn"}}}), "/logging/operator/level"),
        (json!({"networkPolicy": {"flavor": "calico"}}), "/networkPolicy/flavor"),
        (json!({"podLabels": {"keda": {"a": true}}}), "/podLabels/keda/a"),
        (json!({"rbac": {"scaledRefKinds": [{"kind": "Rollout"}]}}), "/rbac/scaledRefKinds/0"),
        (json!({"certificates": {"certManager": {"duration": "1 year"}}}), "/certificates/certManager/duration"),
        (json!({"certificates": {"mountPath": "certs"}}), "/certificates/mountPath"),
        (json!({"certificates": null}), ""),
    ] {
        let refused = template(&helm, "1.36.0", &values).unwrap_err();
        assert!(refused.contains(&format!("'{place}'")), "{values}: {refused}");
    }
}

#[test]
fn what_helm_and_kedas_users_write_is_taken() {
    let Some(helm) = helm() else { return };
    for values in [
        json!({"webhooks": {"port": "9444"}, "prometheus": {"operator": {"enabled": true, "port": "8081"}}}),
        json!({"global": {"image": {"registry": null}}, "operator": {"hostUsers": null, "affinity": null}}),
        json!({"watchNamespace": null, "podLabels": null, "env": null, "extraObjects": null, "nodeSelector": null}),
        json!({"extraArgs": null, "volumes": null, "podDisruptionBudget": null, "resources": null, "profiling": null}),
        json!({"logging": {"operator": {"level": 2}, "metricServer": {"level": "4"}}, "http": {"timeout": "5000"}}),
        json!({"somethingOfAnotherVersion": {"a": 1}}),
    ] {
        template(&helm, "1.36.0", &values).unwrap_or_else(|error| panic!("{values}: {error}"));
    }
}

/// Walks values and their schema alike.
fn unknown(values: &Value, schema: &Value, root: &Value, place: &str, found: &mut Vec<String>) {
    let reference = schema["$ref"].as_str().map(|reference| reference.trim_start_matches('#'));
    let schema = reference.map_or(schema, |reference| root.pointer(reference).unwrap());
    let Some(properties) = schema["properties"].as_object() else { return };
    for (key, value) in values.as_object().into_iter().flatten() {
        let place = format!("{place}.{key}");
        match properties.get(key) {
            Some(schema) => unknown(value, schema, root, &place, found),
            None => found.push(place),
        }
    }
}

#[test]
fn the_schema_knows_every_value() {
    let read = |file: &str| std::fs::read_to_string(format!("{CHART}/{file}")).unwrap();
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let defaults: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
    let kedas: Value = serde_saphyr::from_str(super::KEDA_VALUES).unwrap();
    let mut found = Vec::new();
    for values in [defaults, kedas] {
        unknown(&values, &schema, &schema, "", &mut found);
    }
    assert!(found.is_empty(), "{found:?}");
}
