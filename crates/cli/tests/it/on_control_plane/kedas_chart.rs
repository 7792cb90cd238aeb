//! A release of KEDA's shape. Its chart is published nowhere as a Go module, so this is ours under KEDA's names, with KEDA's
//! own definitions, images and flags.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use xtask::services::keda::VERSION;

use super::release::{METRICS_SERVER, NAMESPACE, OPERATOR, WEBHOOKS};
use crate::with_keda::processes::{Part, definitions};

/// A ConfigMap that only KEDA's release has.
pub const ONLY_KEDAS: &str = "only-kedas";

/// Writes a chart that installs what KEDA's does, from the objects of ours: without what tells ours from KEDA's, and with
/// what only KEDA has.
pub fn write(folder: &Path, mut objects: Vec<Value>, keeps_definitions: bool) -> PathBuf {
    objects.retain(|object| object["metadata"]["annotations"]["helm.sh/hook"].is_null());
    objects.retain(|object| object["kind"] != "CustomResourceDefinition");
    for mut definition in definitions() {
        if keeps_definitions {
            definition["metadata"]["annotations"]["helm.sh/resource-policy"] = "keep".into();
        }
        objects.push(definition);
    }
    for object in &mut objects {
        object["metadata"]["labels"]["helm.sh/chart"] = format!("keda-{VERSION}").into();
        if object["kind"] == "Deployment" {
            as_kedas(object);
        }
    }
    objects.push(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": ONLY_KEDAS, "namespace": NAMESPACE},
    }));
    let chart = folder.join("keda-chart");
    std::fs::create_dir_all(chart.join("templates")).unwrap();
    let about = json!({"apiVersion": "v2", "name": "keda", "version": VERSION, "appVersion": VERSION});
    std::fs::write(chart.join("Chart.yaml"), about.to_string()).unwrap();
    let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
    std::fs::write(chart.join("all.yaml"), documents.join("\n---\n")).unwrap();
    // What stands in braces in a description is no template.
    std::fs::write(chart.join("templates/all.yaml"), "{{ .Files.Get \"all.yaml\" }}\n").unwrap();
    chart
}

fn as_kedas(deployment: &mut Value) {
    for labels in ["/metadata/labels", "/spec/template/metadata/labels"] {
        let labels = deployment.pointer_mut(labels).unwrap().as_object_mut().unwrap();
        labels.remove("tidemark.dev/component");
        labels.insert("app.kubernetes.io/version".to_owned(), VERSION.into());
    }
    let is_operator = deployment["metadata"]["name"] == OPERATOR;
    let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
    container["image"] = format!("ghcr.io/kedacore/keda:{VERSION}").into();
    let mut arguments = vec!["--zap-log-level=info", "--zap-encoder=console", "--cert-dir=/certs"];
    if is_operator {
        arguments.extend(["--leader-elect", "--enable-cert-rotation=true", "--cert-secret-name=kedaorg-certs"]);
    }
    container["args"] = arguments.into();
}

/// What KEDA's chart passes besides what KEDA's manifests do.
pub fn flags(part: Part, command: &mut Command) {
    if part == Part::Operator {
        command.arg("--leader-elect").args([
            format!("--operator-service-name={OPERATOR}"),
            format!("--metrics-server-service-name={METRICS_SERVER}"),
            format!("--webhooks-service-name={WEBHOOKS}"),
        ]);
    }
}
