//! A real API server takes what the chart makes of many values.
//!
//! Objects of kinds that are not Kubernetes' own (cert-manager's, the Prometheus operator's, Cilium's) are left out: their
//! definitions are not there. What is in them is looked at in the tests that need no API server.

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use tidemark_testkit::{ControlPlane, Options};

use super::{apply, create_namespace, helm, objects, of_kind, rendered_with, template};

const FOREIGN: [&str; 3] = ["cert-manager.io/", "monitoring.coreos.com/", "cilium.io/"];

fn known(objects: Vec<Value>) -> Vec<Value> {
    let foreign =
        |object: &Value| FOREIGN.iter().any(|group| object["apiVersion"].as_str().unwrap().starts_with(group));
    objects.into_iter().filter(|object| !foreign(object)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_takes_what_the_chart_makes_of_many_values() {
    let Some(helm) = helm() else { return };
    let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let client = plane.client().await.unwrap();
    for namespace in ["tidemark", "one", "two", "control-plane"] {
        create_namespace(&client, namespace).await;
    }
    let mut kedas: Value = serde_saphyr::from_str(super::KEDA_VALUES).unwrap();
    for process in ["operator", "metricsServer", "webhooks"] {
        // Kubernetes has no pods in a user namespace of their own on the host's network.
        kedas[process]["useHostNetwork"] = false.into();
    }
    for values in [
        json!({}),
        json!({"kedaNames": true}),
        json!({"certificates": {"certManager": {"enabled": true}}}),
        json!({"networkPolicy": {"enabled": true, "flavor": "kubernetes"}}),
        json!({"metricsServer": {"enabled": false}, "webhooks": {"enabled": false}}),
        json!({"metricsServer": {"useHostNetwork": true}, "webhooks": {"useHostNetwork": true}, "operator": {"useHostNetwork": true}}),
        kedas,
    ] {
        apply(&client, &known(rendered_with(&helm, &values))).await;
    }
    let accounts = Api::<ServiceAccount>::namespaced(client, "tidemark").list(&ListParams::default()).await.unwrap();
    assert!(accounts.items.iter().any(|account| account.metadata.name.as_deref() == Some("north-a")));
}

#[test]
fn the_objects_of_the_oldest_and_the_newest_kubernetes_are_the_same() {
    let Some(helm) = helm() else { return };
    let [oldest, newest] = super::KUBERNETES.map(|version| template(&helm, version, &json!({})).unwrap());
    assert_eq!(oldest, newest);
    assert_eq!(of_kind(&objects(&newest), "Deployment").len(), 3);
}
