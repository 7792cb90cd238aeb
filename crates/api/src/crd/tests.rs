use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

/// The schemas by plural name.
fn schemas() -> BTreeMap<String, Value> {
    let schema = |crd: &CustomResourceDefinition| {
        let version = &crd.spec.versions[0];
        serde_json::to_value(version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap()).unwrap()
    };
    crds().iter().map(|crd| (crd.spec.names.plural.clone(), schema(crd))).collect()
}

/// Every level of a schema with its place.
fn levels<'a>(schema: &'a Value, place: String, found: &mut Vec<(String, &'a Value)>) {
    found.push((place.clone(), schema));
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        levels(property, format!("{place}.{name}"), found);
    }
    for (below, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[below].is_object() {
            levels(&schema[below], format!("{place}{mark}"), found);
        }
    }
}

/// What a keyword says, by place, where it says anything outside of the embedded Job.
fn said(keyword: &str) -> BTreeMap<String, Value> {
    let schemas = schemas();
    let mut found = Vec::new();
    for (plural, schema) in &schemas {
        levels(schema, plural.clone(), &mut found);
    }
    let ours = found.into_iter().filter(|(place, _)| !place.starts_with("scaledjobs.spec.jobTargetRef."));
    ours.filter(|(_, schema)| !schema[keyword].is_null())
        .map(|(place, schema)| (place, schema[keyword].clone()))
        .collect()
}

#[test]
fn names_scopes_and_short_names_are_those_of_keda() {
    let got: Vec<_> = crds()
        .into_iter()
        .map(|crd| {
            let names = crd.spec.names;
            (crd.metadata.name.unwrap(), names.kind, crd.spec.scope, names.short_names.unwrap_or_default().join(" "))
        })
        .collect();
    let wanted = [
        ("scaledobjects.keda.sh", "ScaledObject", "Namespaced", "so"),
        ("scaledjobs.keda.sh", "ScaledJob", "Namespaced", "sj"),
        ("triggerauthentications.keda.sh", "TriggerAuthentication", "Namespaced", "ta triggerauth"),
        ("clustertriggerauthentications.keda.sh", "ClusterTriggerAuthentication", "Cluster", "cta clustertriggerauth"),
        ("cloudeventsources.eventing.keda.sh", "CloudEventSource", "Namespaced", ""),
        ("clustercloudeventsources.eventing.keda.sh", "ClusterCloudEventSource", "Cluster", ""),
    ];
    let wanted = wanted.map(|(name, kind, scope, short)| (name.into(), kind.into(), scope.into(), short.into()));
    assert_eq!(got, wanted);
}

#[test]
fn every_kind_has_one_version_a_status_and_no_scale() {
    for crd in crds() {
        let [version] = &crd.spec.versions[..] else { panic!("{:?}", crd.metadata.name) };
        assert_eq!((&*version.name, version.served, version.storage), ("v1alpha1", true, true));
        let subresources = version.subresources.as_ref().unwrap();
        assert!(subresources.status.is_some() && subresources.scale.is_none(), "{:?}", crd.metadata.name);
        assert_eq!(crd.spec.names.categories.unwrap_or_default(), [""; 0]);
    }
}

#[test]
fn only_a_scaled_job_may_lack_its_spec() {
    for (plural, schema) in schemas() {
        let wanted = if plural == "scaledjobs" { Value::Null } else { json!(["spec"]) };
        assert_eq!(schema["required"], wanted, "{plural}");
    }
}

#[test]
fn no_field_accepts_null() {
    let text = serde_json::to_string(&crds()).unwrap();
    assert!(!text.contains("nullable"), "{text}");
}

#[test]
fn defaults_are_filled_in_for_two_fields_only() {
    let wanted = [
        ("clustertriggerauthentications.spec.oauth2.type", "clientCredentials"),
        ("scaledobjects.spec.fallback.behavior", "static"),
        ("triggerauthentications.spec.oauth2.type", "clientCredentials"),
    ];
    assert_eq!(said("default"), wanted.map(|(place, value)| (place.to_owned(), json!(value))).into());
}

#[test]
fn one_rule_is_written_in_cel() {
    let rules = said("x-kubernetes-validations");
    assert_eq!(rules.keys().collect::<Vec<_>>(), ["scaledobjects.spec"]);
    assert_eq!(rules["scaledobjects.spec"].as_array().unwrap().len(), 1);
}

#[test]
fn bounds_are_those_of_keda() {
    let window = "scaledobjects.spec.advanced.horizontalPodAutoscalerConfig.behavior";
    let mut wanted: BTreeMap<String, Value> = [
        ("scaledjobs.spec.failedJobsHistoryLimit", 0.0),
        ("scaledjobs.spec.maxReplicaCount", 1.0),
        ("scaledjobs.spec.minReplicaCount", 0.0),
        ("scaledjobs.spec.pollingInterval", 1.0),
        ("scaledjobs.spec.successfulJobsHistoryLimit", 0.0),
        ("scaledobjects.spec.cooldownPeriod", 0.0),
        ("scaledobjects.spec.fallback.failureThreshold", 0.0),
        ("scaledobjects.spec.fallback.replicas", 0.0),
        ("scaledobjects.spec.idleReplicaCount", 0.0),
        ("scaledobjects.spec.initialCooldownPeriod", 0.0),
        ("scaledobjects.spec.maxReplicaCount", 1.0),
        ("scaledobjects.spec.minReplicaCount", 0.0),
        ("scaledobjects.spec.pollingInterval", 1.0),
    ]
    .map(|(place, bound)| (place.to_owned(), json!(bound)))
    .into();
    let windows = ["scaleDown", "scaleUp"].map(|way| format!("{window}.{way}.stabilizationWindowSeconds"));
    wanted.extend(windows.clone().map(|place| (place, json!(0.0))));
    assert_eq!(said("minimum"), wanted);
    assert_eq!(said("maximum"), windows.map(|place| (place, json!(3600.0))).into());
}

#[test]
fn a_trigger_of_a_scaled_job_has_no_metric_type() {
    let has = |plural: &str| {
        let schemas = schemas();
        let trigger = &schemas[plural]["properties"]["spec"]["properties"]["triggers"]["items"];
        assert!(trigger["properties"]["useCachedMetrics"].is_object(), "{trigger}");
        trigger["properties"]["metricType"].is_object()
    };
    assert!(has("scaledobjects") && !has("scaledjobs"));
}

#[test]
fn embedded_types_are_those_of_the_api_server() {
    let schemas = schemas();
    let spec = |plural: &str| schemas[plural]["properties"]["spec"]["properties"].clone();
    let behavior =
        &spec("scaledobjects")["advanced"]["properties"]["horizontalPodAutoscalerConfig"]["properties"]["behavior"];
    let rules = &behavior["properties"]["scaleDown"]["properties"];
    assert_eq!(rules["tolerance"]["x-kubernetes-int-or-string"], true);
    assert_eq!(rules["policies"]["x-kubernetes-list-type"], "atomic");
    assert!(rules["policies"]["items"]["properties"]["periodSeconds"]["description"].is_string(), "{rules}");
    assert_eq!(rules["selectPolicy"]["enum"], Value::Null);
    let job = &spec("scaledjobs")["jobTargetRef"];
    assert_eq!(job["required"], json!(["template"]));
    let template = &job["properties"]["template"]["properties"];
    assert_eq!(template["metadata"]["x-kubernetes-preserve-unknown-fields"], true);
    let containers = &template["spec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    let ports = &containers["items"]["properties"]["ports"]["items"]["properties"];
    assert_eq!(ports["protocol"], json!({"type": "string", "default": "TCP"}));
}

/// `kubectl apply` keeps the whole object in an annotation, and all annotations together may have 256 KiB.
#[test]
fn a_definition_can_be_applied_by_the_client() {
    for crd in crds() {
        let size = serde_json::to_string(&crd).unwrap().len();
        assert!(size < 200 << 10, "{:?} has {size} bytes", crd.metadata.name);
    }
}
