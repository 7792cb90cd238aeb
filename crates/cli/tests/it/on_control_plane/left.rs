//! ScaledObjects, as users write them, that one operator leaves to the other: one that works, one with a formula, one at
//! zero, one that is paused.

use serde_json::{Value, json};

use super::release::Rest;

/// A ScaledObject as its user has written it.
pub struct Left {
    pub name: &'static str,
    pub namespace: &'static str,
    /// Labels, annotations and spec.
    pub written: Value,
    /// The HPA's name; empty where there is none.
    pub hpa: &'static str,
}

impl Left {
    pub fn path(&self) -> String {
        format!("/apis/keda.sh/v1alpha1/namespaces/{}/scaledobjects/{}", self.namespace, self.name)
    }

    pub fn hpa_path(&self) -> String {
        format!("/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers/{}", self.namespace, self.hpa)
    }

    pub fn workload_path(&self) -> String {
        let target = &self.written["spec"]["scaleTargetRef"];
        let plural = if target["kind"] == "StatefulSet" { "statefulsets" } else { "deployments" };
        format!("/apis/apps/v1/namespaces/{}/{plural}/{}", self.namespace, target["name"].as_str().unwrap())
    }

    /// The user creates the workload and the object, as kubectl does.
    pub async fn create(&self, rest: &Rest, replicas: i64) {
        let target = &self.written["spec"]["scaleTargetRef"];
        let workload = workload(target["kind"].as_str().unwrap_or("Deployment"), self.name, replicas);
        rest.create(list(&self.workload_path()), "kubectl-create", &workload).await;
        rest.create(list(&self.path()), "kubectl-client-side-apply", &self.applied()).await;
    }

    /// Whether an operator has taken an object on: there is its HPA, and all that is to be told of it is told.
    pub async fn is_worked_on(&self, rest: &Rest) -> Result<(), String> {
        let object = rest.get(&self.path()).await;
        let told = match self.hpa {
            "" => condition(&object, "Ready") == "True" && condition(&object, "Paused") == "True",
            _ => {
                let known = CONDITIONS.iter().all(|kind| matches!(condition(&object, kind), "True" | "False"));
                let works = ["Ready", "HPAActive"].iter().all(|kind| condition(&object, kind) == "True");
                known && works && rest.try_get(&self.hpa_path()).await.is_ok()
            }
        };
        if told { Ok(()) } else { Err(object["status"].to_string()) }
    }

    /// With the annotation by which kubectl tells later what it has applied.
    fn applied(&self) -> Value {
        let mut object = json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject"});
        object["metadata"] = self.written["metadata"].clone();
        object["metadata"]["name"] = self.name.into();
        object["spec"] = self.written["spec"].clone();
        let applied = object.to_string();
        object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = applied.into();
        object
    }
}

/// KEDA puts all conditions back to Unknown where one of these is missing.
pub const CONDITIONS: [&str; 4] = ["Ready", "Active", "Fallback", "Paused"];

/// The status of a condition; empty where there is none.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == kind);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or_default()
}

/// Path of the list that an object is in.
pub fn list(path: &str) -> &str {
    path.rsplit_once('/').unwrap().0
}

/// A workload of group `apps`.
fn workload(kind: &str, name: &str, replicas: i64) -> Value {
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

/// Works, with an HPA that would lower it at once.
pub fn orders(port: u16) -> Left {
    Left {
        name: "orders",
        namespace: "default",
        written: json!({
            "metadata": {"labels": {"team": "shop"}, "annotations": {"owner": "shop@example.com"}},
            "spec": {
                "scaleTargetRef": {"name": "orders"}, "pollingInterval": 2, "maxReplicaCount": 20,
                "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}},
                "triggers": [trigger(port, "orders")],
            },
        }),
        hpa: "keda-hpa-orders",
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
        namespace: "default",
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
    }
}

/// At zero.
pub fn nightly(port: u16) -> Left {
    Left {
        name: "nightly",
        namespace: "default",
        written: json!({
            "metadata": {"labels": {}, "annotations": {}},
            "spec": {
                "scaleTargetRef": {"name": "nightly"}, "pollingInterval": 2, "triggers": [trigger(port, "nightly")],
            },
        }),
        hpa: "keda-hpa-nightly",
    }
}

/// Paused at a number of replicas: it has no HPA.
pub fn held(port: u16) -> Left {
    Left {
        name: "held",
        namespace: "default",
        written: json!({
            "metadata": {"labels": {}, "annotations": {"autoscaling.keda.sh/paused-replicas": "2"}},
            "spec": {"scaleTargetRef": {"name": "held"}, "pollingInterval": 2, "triggers": [trigger(port, "held")]},
        }),
        hpa: "",
    }
}

/// Has events in one minute of the year only, and puts its workload back when it is deleted.
pub fn seasonal(name: &'static str, namespace: &'static str, hpa: &'static str) -> Left {
    Left {
        name,
        namespace,
        written: json!({
            "metadata": {"labels": {}, "annotations": {}},
            "spec": {
                "scaleTargetRef": {"name": name}, "pollingInterval": 2, "cooldownPeriod": 1,
                "advanced": {"restoreToOriginalReplicaCount": true},
                "triggers": [{"type": "cron", "metadata": {
                    "timezone": "UTC", "start": "59 23 31 12 *", "end": "0 0 1 1 *", "desiredReplicas": "1",
                }}],
            },
        }),
        hpa,
    }
}
