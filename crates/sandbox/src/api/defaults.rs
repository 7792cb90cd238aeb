//! What the API server fills in before it stores an object of a Kubernetes kind.
//!
//! Only what clients and controllers look at. Every function leaves its own result unchanged.

use base64::Engine;
use serde_json::{Map, Value, json};

/// Sets a field that is absent or null.
pub(super) fn fill(value: &mut Value, field: &str, default: impl Into<Value>) {
    if let Some(fields) = value.as_object_mut() {
        let entry = fields.entry(field).or_insert(Value::Null);
        if entry.is_null() {
            *entry = default.into();
        }
    }
}

/// The object in a field, made if absent.
fn inside<'a>(value: &'a mut Value, field: &str) -> &'a mut Value {
    fill(value, field, Map::new());
    &mut value[field]
}

fn each<'a>(value: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

pub(super) fn namespace(value: &mut Value) {
    let name = value["metadata"]["name"].clone();
    inside(inside(value, "metadata"), "labels")["kubernetes.io/metadata.name"] = name;
}

pub(super) fn new_namespace(value: &mut Value, _: u64) {
    value["spec"] = json!({"finalizers": ["kubernetes"]});
    value["status"] = json!({"phase": "Active"});
}

pub(super) fn secret(value: &mut Value) {
    fill(value, "type", "Opaque");
    let Some(texts) = value.as_object_mut().and_then(|fields| fields.shift_remove("stringData")) else { return };
    let data = inside(value, "data");
    for (key, text) in texts.as_object().into_iter().flatten() {
        let encoded = base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap_or_default());
        data[key] = encoded.into();
    }
}

pub(super) fn pod(value: &mut Value) {
    let spec = inside(value, "spec");
    pod_spec(spec, "Always");
    fill(spec, "enableServiceLinks", true);
    fill(spec, "preemptionPolicy", "PreemptLowerPriority");
    fill(spec, "priority", 0);
}

/// How long a pod stays on a node that is gone, where it does not say.
fn tolerate(spec: &mut Value) {
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let said = tolerations.iter().any(|toleration| {
            let effect = &toleration["effect"];
            (toleration["key"] == key || toleration["key"].is_null() && toleration["operator"] == "Exists")
                && (effect.is_null() || *effect == "NoExecute")
        });
        if !said {
            tolerations
                .push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        }
    }
    spec["tolerations"] = tolerations.into();
}

pub(super) fn new_pod(value: &mut Value, _: u64) {
    tolerate(&mut value["spec"]);
    value["status"] = json!({"phase": "Pending", "qosClass": quality(&value["spec"])});
}

/// The quality of service class: no requests and limits at all, or all limits equal to the requests, or between.
fn quality(spec: &Value) -> &'static str {
    let containers = || ["containers", "initContainers"].into_iter().flat_map(|field| spec[field].as_array()).flatten();
    let side = |container: &Value, side: &str| container["resources"][side].as_object().cloned().unwrap_or_default();
    if containers().all(|one| side(one, "limits").is_empty() && side(one, "requests").is_empty()) {
        return "BestEffort";
    }
    let guaranteed = containers().all(|one| {
        let (limits, requests) = (side(one, "limits"), side(one, "requests"));
        ["cpu", "memory"].iter().all(|name| limits.contains_key(*name))
            && requests.iter().all(|(name, wanted)| limits.get(name) == Some(wanted))
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

fn pod_spec(spec: &mut Value, restart: &str) {
    for field in ["initContainers", "containers"] {
        each(spec, field).for_each(container);
    }
    each(spec, "volumes").for_each(volume);
    fill(spec, "restartPolicy", restart);
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "securityContext", Map::new());
    fill(spec, "schedulerName", "default-scheduler");
}

fn container(container: &mut Value) {
    let image = container["image"].as_str().unwrap_or_default().to_owned();
    let last = image.rsplit('/').next().unwrap_or_default();
    let tag = last.split_once('@').map_or(last.rsplit_once(':').map(|(_, tag)| tag), |_| Some("digest"));
    fill(container, "imagePullPolicy", if tag.is_none_or(|tag| tag == "latest") { "Always" } else { "IfNotPresent" });
    fill(container, "resources", Map::new());
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    for port in each(container, "ports") {
        fill(port, "protocol", "TCP");
    }
    for variable in each(container, "env") {
        if let Some(reference) = variable.pointer_mut("/valueFrom/fieldRef") {
            fill(reference, "apiVersion", "v1");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(name) else { continue };
        for (field, default) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            fill(probe, field, default);
        }
        if let Some(get) = probe.get_mut("httpGet") {
            fill(get, "path", "/");
            fill(get, "scheme", "HTTP");
        }
    }
}

fn volume(volume: &mut Value) {
    let sourceless = volume.as_object().is_some_and(|fields| fields.keys().all(|key| key == "name"));
    if sourceless {
        fill(volume, "emptyDir", Map::new());
    }
    for source in ["secret", "configMap", "projected", "downwardAPI"] {
        if let Some(source) = volume.get_mut(source) {
            fill(source, "defaultMode", 0o644);
        }
    }
}

pub(super) fn deployment(value: &mut Value) {
    let spec = inside(value, "spec");
    fill(spec, "replicas", 1);
    let strategy = inside(spec, "strategy");
    fill(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = inside(strategy, "rollingUpdate");
        fill(rolling, "maxUnavailable", "25%");
        fill(rolling, "maxSurge", "25%");
    }
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "progressDeadlineSeconds", 600);
    pod_spec(inside(inside(spec, "template"), "spec"), "Always");
}

pub(super) fn replica_set(value: &mut Value) {
    let spec = inside(value, "spec");
    fill(spec, "replicas", 1);
    pod_spec(inside(inside(spec, "template"), "spec"), "Always");
}

pub(super) fn stateful_set(value: &mut Value) {
    let spec = inside(value, "spec");
    fill(spec, "replicas", 1);
    fill(spec, "podManagementPolicy", "OrderedReady");
    fill(spec, "revisionHistoryLimit", 10);
    let strategy = inside(spec, "updateStrategy");
    fill(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        fill(inside(strategy, "rollingUpdate"), "partition", 0);
    }
    let claims = inside(spec, "persistentVolumeClaimRetentionPolicy");
    fill(claims, "whenDeleted", "Retain");
    fill(claims, "whenScaled", "Retain");
    pod_spec(inside(inside(spec, "template"), "spec"), "Always");
}

pub(super) fn job(value: &mut Value) {
    let spec = inside(value, "spec");
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        fill(spec, "completions", 1);
    }
    fill(spec, "parallelism", 1);
    fill(spec, "backoffLimit", 6);
    fill(spec, "completionMode", "NonIndexed");
    fill(spec, "suspend", false);
    fill(spec, "manualSelector", false);
    fill(spec, "podReplacementPolicy", "TerminatingOrFailed");
    // Always is refused afterwards: a Job must say what it wants.
    pod_spec(inside(inside(spec, "template"), "spec"), "Always");
    take_labels(value);
}

/// A Job without labels has those of its pods.
fn take_labels(value: &mut Value) {
    let labels = &value["spec"]["template"]["metadata"]["labels"];
    if labels.as_object().is_some_and(|labels| !labels.is_empty()) && value["metadata"]["labels"].is_null() {
        value["metadata"]["labels"] = labels.clone();
    }
}

/// A Job selects its pods by its own UID, unless the user chose the selector.
pub(super) fn new_job(value: &mut Value, _: u64) {
    let (uid, name) = (value["metadata"]["uid"].clone(), value["metadata"]["name"].clone());
    let spec = &mut value["spec"];
    if spec["manualSelector"] == true {
        return;
    }
    let labels = inside(inside(inside(spec, "template"), "metadata"), "labels");
    for prefix in ["", "batch.kubernetes.io/"] {
        labels[format!("{prefix}controller-uid")] = uid.clone();
        labels[format!("{prefix}job-name")] = name.clone();
    }
    spec["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    take_labels(value);
}

pub(super) fn new_service(value: &mut Value, _: u64) {
    value["status"] = json!({"loadBalancer": {}});
}

pub(super) fn new_autoscaler(value: &mut Value, _: u64) {
    value["status"] = json!({"currentMetrics": null, "desiredReplicas": 0});
}

pub(super) fn service(value: &mut Value) {
    let spec = inside(value, "spec");
    fill(spec, "type", "ClusterIP");
    fill(spec, "sessionAffinity", "None");
    if spec["type"] == "ExternalName" {
        return;
    }
    fill(spec, "internalTrafficPolicy", "Cluster");
    fill(spec, "ipFamilies", json!(["IPv4"]));
    fill(spec, "ipFamilyPolicy", "SingleStack");
    for port in each(spec, "ports") {
        fill(port, "protocol", "TCP");
        let number = port["port"].clone();
        fill(port, "targetPort", number);
    }
}

pub(super) fn endpoint_slice(value: &mut Value) {
    for port in each(value, "ports") {
        fill(port, "name", "");
        fill(port, "protocol", "TCP");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment_of(image: &str) -> Value {
        let mut value = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
        deployment(&mut value);
        value
    }

    #[test]
    fn defaults_are_stable() {
        let once = deployment_of("nginx");
        let mut twice = once.clone();
        deployment(&mut twice);
        assert_eq!(once, twice);
        assert_eq!(once["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
        assert_eq!(once["spec"]["template"]["spec"]["restartPolicy"], "Always");
    }

    #[test]
    fn only_the_latest_image_is_always_pulled() {
        let policy =
            |image: &str| deployment_of(image)["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"].clone();
        assert_eq!(policy("nginx"), "Always");
        assert_eq!(policy("host:5000/nginx"), "Always");
        assert_eq!(policy("nginx:latest"), "Always");
        assert_eq!(policy("nginx:1.29"), "IfNotPresent");
        assert_eq!(policy("nginx@sha256:abc"), "IfNotPresent");
    }

    #[test]
    fn plain_text_of_a_secret_becomes_data() {
        let mut value = json!({"data": {"a": "eA=="}, "stringData": {"b": "y"}});
        secret(&mut value);
        assert_eq!(value, json!({"data": {"a": "eA==", "b": "eQ=="}, "type": "Opaque"}));
    }
}
