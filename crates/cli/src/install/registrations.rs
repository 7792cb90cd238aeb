//! What is registered with the API server: the metrics server's APIs, and the webhooks.

use serde_json::{Value, json};
use tidemark_serving::admission_review::{WEBHOOKS, Webhook};

use super::manifests::Installation;
use super::rbac::API_SERVICES;

/// All of them. Without `caBundle`s: the operator writes those.
pub fn objects(installation: &Installation) -> Vec<Value> {
    let apis = API_SERVICES.iter().map(|(group, version)| api_service(installation, group, version));
    let mut objects: Vec<_> = apis.collect();
    objects.extend(installation.webhooks.then(|| webhooks(installation)));
    objects
}

fn api_service(installation: &Installation, group: &str, version: &str) -> Value {
    let names = &installation.names;
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": names.metadata(&format!("{version}.{group}"), None, names.metrics_server),
        "spec": {
            "group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": {"name": names.metrics_server, "namespace": installation.namespace, "port": 443},
        },
    })
}

fn webhooks(installation: &Installation) -> Value {
    let names = &installation.names;
    let webhook = |webhook: Webhook| {
        let service = json!({"name": names.webhooks, "namespace": installation.namespace, "path": webhook.path});
        json!({
            "name": webhook.name, "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "matchPolicy": "Equivalent", "failurePolicy": "Ignore", "timeoutSeconds": 10,
            "clientConfig": {"service": service},
            "rules": [{
                "apiGroups": [webhook.group], "apiVersions": ["v1alpha1"], "operations": ["CREATE", "UPDATE"],
                "resources": [webhook.resource],
            }],
        })
    };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": names.metadata(names.webhook_configuration, None, names.webhooks),
        "webhooks": WEBHOOKS.map(webhook),
    })
}
