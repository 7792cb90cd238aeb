//! ScaledObjects as KEDA's operator leaves them: one that works, one with a formula, one at zero, one that is paused.

use serde_json::{Value, json};

use super::keda::{MANAGER, VERSION};
use super::release::Rest;

/// A ScaledObject as its user has written it, and what KEDA makes of it.
pub struct Left {
    pub name: &'static str,
    /// Labels, annotations and spec.
    pub written: Value,
    /// The HPA's name; empty where there is none.
    pub hpa: &'static str,
    /// Of the HPA; without the scale target, which is the object's.
    pub hpa_spec: Value,
    /// Of the object; without conditions, and what follows from the target.
    pub status: Value,
    /// Type, status, reason and message.
    pub conditions: Vec<[&'static str; 4]>,
    pub original_replicas: i32,
}

impl Left {
    pub fn path(&self) -> String {
        format!("/apis/keda.sh/v1alpha1/namespaces/default/scaledobjects/{}", self.name)
    }

    pub fn hpa_path(&self) -> String {
        format!("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/{}", self.hpa)
    }

    /// Kind, plural and name of the target.
    pub fn target(&self) -> (&str, &'static str, &str) {
        let target = &self.written["spec"]["scaleTargetRef"];
        let kind = target["kind"].as_str().unwrap_or("Deployment");
        let plural = if kind == "StatefulSet" { "statefulsets" } else { "deployments" };
        (kind, plural, target["name"].as_str().unwrap())
    }

    /// The user creates the object; KEDA marks it, makes its HPA and writes its status.
    pub async fn create(&self, rest: &Rest) {
        let mut object = json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject"});
        object["metadata"] = self.written["metadata"].clone();
        object["metadata"]["name"] = self.name.into();
        object["spec"] = self.written["spec"].clone();
        let applied = object.to_string();
        object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = applied.into();
        let path = self.path();
        let list = path.rsplit_once('/').unwrap().0;
        let mut object = rest.create(list, "kubectl-client-side-apply", &object).await;
        object["metadata"]["finalizers"] = json!(["finalizer.keda.sh"]);
        object["metadata"]["labels"]["scaledobject.keda.sh/name"] = self.name.into();
        let object = rest.put(&path, MANAGER, &object).await;
        let mut status = self.status.clone();
        if !self.hpa.is_empty() {
            let hpas = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
            rest.create(hpas, MANAGER, &self.wanted_hpa(&object)).await;
            status["hpaName"] = self.hpa.into();
        }
        let (kind, plural, _) = self.target();
        let gvkr = json!({"group": "apps", "version": "v1", "kind": kind, "resource": plural});
        status["scaleTargetGVKR"] = gvkr;
        status["scaleTargetKind"] = format!("apps/v1.{kind}").into();
        status["originalReplicaCount"] = self.original_replicas.into();
        let conditions = self.conditions.iter().map(|[kind, status, reason, message]| {
            json!({"type": kind, "status": status, "reason": reason, "message": message})
        });
        status["conditions"] = conditions.collect();
        rest.merge(&format!("{path}/status"), MANAGER, &json!({"status": status})).await;
    }

    /// The HPA that KEDA's operator asks for, given the object.
    pub fn wanted_hpa(&self, object: &Value) -> Value {
        let (kind, _, target) = self.target();
        let mut labels = json!({
            "app.kubernetes.io/name": self.hpa, "app.kubernetes.io/version": VERSION,
            "app.kubernetes.io/part-of": self.name, "app.kubernetes.io/managed-by": "keda-operator",
        });
        for (key, value) in object["metadata"]["labels"].as_object().unwrap() {
            labels[key] = value.clone();
        }
        let mut spec = self.hpa_spec.clone();
        spec["scaleTargetRef"] = json!({"apiVersion": "apps/v1", "kind": kind, "name": target});
        json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {
                "name": self.hpa, "namespace": "default", "labels": labels,
                "annotations": object["metadata"]["annotations"],
                "ownerReferences": [{
                    "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": self.name,
                    "uid": object["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "spec": spec,
        })
    }
}

/// A workload of group `apps`.
pub fn workload(kind: &str, name: &str, replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "serviceName": name, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "worker"}]},
            },
        },
    })
}

fn trigger(port: u16, value: &str) -> Value {
    json!({
        "type": "metrics-api", "authenticationRef": {"name": "source"},
        "metadata": {
            "url": format!("http://127.0.0.1:{port}/stats"), "valueLocation": format!("values.{value}"),
            "targetValue": "10", "authMode": "bearer",
        },
    })
}

fn external(name: &str, object: &str) -> Value {
    json!({"type": "External", "external": {
        "metric": {"name": name, "selector": {"matchLabels": {"scaledobject.keda.sh/name": object}}},
        "target": {"type": "AverageValue", "averageValue": "10"},
    }})
}

const READY: [&str; 4] =
    ["Ready", "True", "ScaledObjectReady", "ScaledObject is defined correctly and is ready for scaling"];
const ACTIVE: [&str; 4] = ["Active", "True", "ScalerActive", "Scaling is performed because triggers are active"];
const INACTIVE: [&str; 4] =
    ["Active", "False", "ScalerNotActive", "Scaling is not performed because triggers are not active"];
const NO_FALLBACK: [&str; 4] =
    ["Fallback", "False", "NoFallbackFound", "No fallbacks are active on this scaled object"];
const NOT_PAUSED: [&str; 4] = ["Paused", "False", "", ""];

/// Works, with an HPA that would lower it at once.
pub fn orders(port: u16) -> Left {
    Left {
        name: "orders",
        written: json!({
            "metadata": {"labels": {"team": "shop"}, "annotations": {"owner": "shop@example.com"}},
            "spec": {
                "scaleTargetRef": {"name": "orders"}, "pollingInterval": 2, "maxReplicaCount": 20,
                "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}},
                "triggers": [trigger(port, "orders")],
            },
        }),
        hpa: "keda-hpa-orders",
        hpa_spec: json!({
            "minReplicas": 1, "maxReplicas": 20, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
            "metrics": [external("s0-metric-api-values-orders", "orders")],
        }),
        status: json!({
            "externalMetricNames": ["s0-metric-api-values-orders"], "lastActiveTime": "2026-01-05T08:00:00Z",
            "triggersTypes": "metrics-api", "authenticationsTypes": "source",
            "triggersActivity": {"s0-metric-api-values-orders": {"isActive": true}},
        }),
        conditions: vec![READY, ACTIVE, NO_FALLBACK, NOT_PAUSED],
        original_replicas: 1,
    }
}

/// A formula, and an HPA of another name.
pub fn reports(port: u16) -> Left {
    let named = |value: &str| {
        let mut trigger = trigger(port, value);
        trigger["name"] = value.into();
        trigger
    };
    Left {
        name: "reports",
        written: json!({
            "metadata": {"labels": {}, "annotations": {}},
            "spec": {
                "scaleTargetRef": {"kind": "StatefulSet", "name": "reports"}, "pollingInterval": 2,
                "minReplicaCount": 1, "maxReplicaCount": 9,
                "advanced": {
                    "horizontalPodAutoscalerConfig": {"name": "reports"},
                    "scalingModifiers": {"formula": "east + west", "target": "10"},
                },
                "triggers": [named("east"), named("west")],
            },
        }),
        hpa: "reports",
        hpa_spec: json!({
            "minReplicas": 1, "maxReplicas": 9, "metrics": [external("composite-metric", "reports")],
        }),
        status: json!({
            "externalMetricNames": ["s0-metric-api-values-east", "s1-metric-api-values-west"],
            "compositeScalerName": "composite-metric", "lastActiveTime": "2026-01-05T08:00:00Z",
            "triggersTypes": "metrics-api", "authenticationsTypes": "source",
        }),
        conditions: vec![READY, ACTIVE, NO_FALLBACK, NOT_PAUSED],
        original_replicas: 3,
    }
}

/// At zero.
pub fn nightly(port: u16) -> Left {
    Left {
        name: "nightly",
        written: json!({
            "metadata": {"labels": {}, "annotations": {}},
            "spec": {
                "scaleTargetRef": {"name": "nightly"}, "pollingInterval": 2, "triggers": [trigger(port, "nightly")],
            },
        }),
        hpa: "keda-hpa-nightly",
        hpa_spec: json!({
            "minReplicas": 1, "maxReplicas": 100, "metrics": [external("s0-metric-api-values-nightly", "nightly")],
        }),
        status: json!({
            "externalMetricNames": ["s0-metric-api-values-nightly"], "triggersTypes": "metrics-api",
            "authenticationsTypes": "source",
        }),
        conditions: vec![READY, INACTIVE, NO_FALLBACK, NOT_PAUSED],
        original_replicas: 1,
    }
}

/// Paused at a number of replicas: it has no HPA.
pub fn held(port: u16) -> Left {
    let mut trigger = trigger(port, "held");
    trigger.as_object_mut().unwrap().remove("authenticationRef");
    Left {
        name: "held",
        written: json!({
            "metadata": {"labels": {}, "annotations": {"autoscaling.keda.sh/paused-replicas": "2"}},
            "spec": {"scaleTargetRef": {"name": "held"}, "pollingInterval": 2, "triggers": [trigger]},
        }),
        hpa: "",
        hpa_spec: Value::Null,
        status: json!({"pausedReplicaCount": 2, "triggersTypes": "metrics-api"}),
        conditions: vec![
            ["Ready", "True", "ScaledObjectReady", "ScaledObject is paused"],
            ["Active", "Unknown", "", ""],
            NO_FALLBACK,
            ["Paused", "True", "ScaledObjectPaused", "ScaledObject is paused"],
        ],
        original_replicas: 2,
    }
}
