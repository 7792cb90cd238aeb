use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ApiResource;
use serde_json::json;
use tidemark_api::{Advanced, HpaConfig};

use super::*;
use crate::target;

fn object(edit: impl FnOnce(&mut ScaledObject)) -> ScaledObject {
    let mut object = ScaledObject::new("orders", Default::default());
    object.metadata.namespace = Some("shop".to_owned());
    object.metadata.uid = Some("u-1".to_owned());
    object.spec.scale_target_ref.name = "workers".to_owned();
    edit(&mut object);
    object
}

fn metrics() -> Vec<MetricSpec> {
    vec![
        MetricSpec::External { name: "s0-queue".into(), metric_type: MetricType::AverageValue, target_milli: 5000 },
        MetricSpec::External { name: "s1-lag".into(), metric_type: MetricType::Value, target_milli: 12500 },
    ]
}

fn wanted_by(object: &ScaledObject, controls: Controls) -> HorizontalPodAutoscaler {
    let resource = target::Resource::from(ApiResource::erase::<Deployment>(&()));
    let name = object.spec.scale_target_ref.name.as_str().into();
    let target = Target { resource: Arc::new(resource), namespace: "shop".into(), name };
    wanted(object, controls, &target, &metrics(), "1.2.3")
}

#[test]
fn the_hpa_looks_as_keda_would_make_it() {
    let hpa = wanted_by(&object(|o| drop(o.labels_mut().insert("team".into(), "a".into()))), Controls::default());
    assert_eq!(
        serde_json::to_value(&hpa).unwrap(),
        json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {
                "name": "keda-hpa-orders", "namespace": "shop",
                "labels": {
                    "app.kubernetes.io/name": "keda-hpa-orders", "app.kubernetes.io/version": "1.2.3",
                    "app.kubernetes.io/part-of": "orders", "app.kubernetes.io/managed-by": "keda-operator",
                    "scaledobject.keda.sh/name": "orders", "team": "a",
                },
                "ownerReferences": [{
                    "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "orders", "uid": "u-1",
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "workers"},
                "minReplicas": 1, "maxReplicas": 100,
                "metrics": [
                    {"type": "External", "external": {
                        "metric": {"name": "s0-queue", "selector": {"matchLabels": {"scaledobject.keda.sh/name": "orders"}}},
                        "target": {"type": "AverageValue", "averageValue": "5"},
                    }},
                    {"type": "External", "external": {
                        "metric": {"name": "s1-lag", "selector": {"matchLabels": {"scaledobject.keda.sh/name": "orders"}}},
                        "target": {"type": "Value", "value": "12500m"},
                    }},
                ],
            },
        })
    );
}

#[test]
fn excluded_labels_stay_away_and_labels_of_the_object_win() {
    let hpa = wanted_by(
        &object(|o| {
            o.labels_mut().insert("a".into(), "1".into());
            o.labels_mut().insert("b".into(), "2".into());
            o.labels_mut().insert("app.kubernetes.io/part-of".into(), "suite".into());
            o.annotations_mut().insert(annotations::HPA_EXCLUDED_LABELS.into(), "a, b".into());
        }),
        Controls::default(),
    );
    assert!(!hpa.labels().contains_key("a"));
    assert_eq!(hpa.labels()["b"], "2", "blanks in the list are significant");
    assert_eq!(hpa.labels()["app.kubernetes.io/part-of"], "suite");
}

#[test]
fn a_long_name_is_cut_for_the_label_and_ends_with_a_letter() {
    let long = format!("{}--{}", "a".repeat(61), "b".repeat(10));
    assert_eq!(label_value(&long), "a".repeat(61));
    assert_eq!(label_value("keda-hpa-x-"), "keda-hpa-x-");
}

#[test]
fn one_way_pauses_switch_a_direction_off_and_leave_the_rest() {
    let configured = object(|o| {
        let behavior = serde_json::from_value(json!({"scaleDown": {"stabilizationWindowSeconds": 60}})).unwrap();
        let config = HpaConfig { behavior: Some(behavior), ..HpaConfig::default() };
        o.spec.advanced = Some(Advanced { horizontal_pod_autoscaler_config: Some(config), ..Advanced::default() });
    });
    let controls = Controls { scale_in_paused: true, ..Controls::default() };
    let behavior = wanted_by(&configured, controls).spec.behavior.unwrap();
    assert_eq!(
        serde_json::to_value(behavior).unwrap(),
        json!({"scaleDown": {"stabilizationWindowSeconds": 60, "selectPolicy": "Disabled"}})
    );
    assert!(wanted_by(&object(|_| {}), Controls::default()).spec.behavior.is_none());
}

/// The HPA as the API server would give it back.
fn stored(hpa: &HorizontalPodAutoscaler, edit: impl FnOnce(&mut serde_json::Value)) -> HorizontalPodAutoscaler {
    let mut value = serde_json::to_value(hpa).unwrap();
    value["metadata"]["uid"] = json!("h-1");
    value["metadata"]["resourceVersion"] = json!("7");
    edit(&mut value);
    serde_json::from_value(value).unwrap()
}

#[test]
fn defaults_of_the_api_server_are_no_difference() {
    let configured = object(|o| {
        let behavior = serde_json::from_value(json!({"scaleUp": {"stabilizationWindowSeconds": 10}})).unwrap();
        let config = HpaConfig { behavior: Some(behavior), ..HpaConfig::default() };
        o.spec.advanced = Some(Advanced { horizontal_pod_autoscaler_config: Some(config), ..Advanced::default() });
    });
    let wanted = wanted_by(&configured, Controls::default());
    let found = stored(&wanted, |value| {
        value["spec"]["behavior"] = json!({
            "scaleUp": {"stabilizationWindowSeconds": 10, "selectPolicy": "Max", "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]},
            "scaleDown": {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
        });
        value["spec"]["metrics"][0]["external"]["target"]["averageValue"] = json!("5000m");
        value["status"] = json!({"desiredReplicas": 3});
    });
    assert_eq!(update(&found, &wanted), None);
}

#[test]
fn an_edited_hpa_is_put_back_against_its_version() {
    let wanted = wanted_by(&object(|_| {}), Controls::default());
    let edits: [fn(&mut serde_json::Value); 4] = [
        |value| value["spec"]["maxReplicas"] = json!(3),
        |value| value["spec"]["behavior"] = json!({"scaleUp": {"selectPolicy": "Disabled"}}),
        |value| value["metadata"]["labels"]["app.kubernetes.io/part-of"] = json!("other"),
        |value| value["metadata"]["ownerReferences"] = json!([]),
    ];
    for edit in edits {
        let update = update(&stored(&wanted, edit), &wanted).unwrap();
        assert_eq!(update.spec, wanted.spec);
        assert_eq!(update.metadata.owner_references, wanted.metadata.owner_references);
        assert_eq!(update.metadata.labels, wanted.metadata.labels);
        assert_eq!(update.resource_version().as_deref(), Some("7"));
    }
}

#[test]
fn a_label_taken_off_the_object_leaves_the_hpa_and_a_foreign_one_stays() {
    let wanted = wanted_by(&object(|_| {}), Controls::default());
    let found = stored(&wanted, |value| {
        value["metadata"]["labels"]["ours"] = json!("x");
        value["metadata"]["labels"]["theirs"] = json!("y");
        let fields = |name: &str| json!({"f:metadata": {"f:labels": {name: {}}}});
        value["metadata"]["managedFields"] = json!([
            {"manager": "tidemark", "operation": "Update", "fieldsV1": fields("f:ours")},
            {"manager": "argocd", "operation": "Update", "fieldsV1": fields("f:theirs")},
        ]);
    });
    let update = update(&found, &wanted).unwrap();
    assert!(!update.labels().contains_key("ours"));
    assert_eq!(update.labels()["theirs"], "y");
}

#[test]
fn a_finalizer_of_others_stays_on_an_hpa_that_is_put_back() {
    let wanted = wanted_by(&object(|_| {}), Controls::default());
    let found = stored(&wanted, |value| {
        value["spec"]["maxReplicas"] = json!(3);
        value["metadata"]["finalizers"] = json!(["example.com/theirs"]);
    });
    assert_eq!(update(&found, &wanted).unwrap().finalizers(), ["example.com/theirs"]);
}

#[test]
fn a_foreign_hpa_of_the_same_name_is_taken_over() {
    let wanted = wanted_by(&object(|_| {}), Controls::default());
    let foreign = stored(&wanted, |value| {
        value["metadata"]["labels"] = json!({});
        value["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "y"}]);
    });
    let update = update(&foreign, &wanted).unwrap();
    assert_eq!(update.metadata.owner_references, wanted.metadata.owner_references);
}

#[test]
fn a_status_change_leaves_the_fingerprint_alone() {
    let hpa = stored(&wanted_by(&object(|_| {}), Controls::default()), |_| {});
    let scaled = stored(&hpa, |value| {
        value["status"] = json!({
            "desiredReplicas": 4,
            "conditions": [{"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound"}],
        });
    });
    let (before, after) = (HpaView::new(&hpa, false), HpaView::new(&scaled, false));
    assert_eq!(before.fingerprint, after.fingerprint);
    assert_eq!(after.desired, Some(4));
    assert_eq!(after.seen.conditions[0].reason, "ValidMetricFound");
    let edited = stored(&hpa, |value| value["spec"]["maxReplicas"] = json!(2));
    assert_ne!(before.fingerprint, HpaView::new(&edited, false).fingerprint);
}
