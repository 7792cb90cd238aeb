//! The committed description of the kinds of Kubernetes against a real API server's.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use tidemark_testkit::ControlPlane;

use super::*;

const FILE: &str = "src/api/kinds/openapi.json";
/// OpenAPI documents, and the kinds that the sandbox takes out of each.
const KINDS: &[(&str, &str, &[&str])] = &[
    (
        "api/v1",
        "io.k8s.api.core.v1",
        &["Namespace", "Pod", "Secret", "ConfigMap", "Service", "ServiceAccount", "Event"],
    ),
    ("apis/apps/v1", "io.k8s.api.apps.v1", &["Deployment", "ReplicaSet", "StatefulSet", "ControllerRevision"]),
    ("apis/apps/v1", "io.k8s.api.autoscaling.v1", &["Scale"]),
    ("apis/batch/v1", "io.k8s.api.batch.v1", &["Job"]),
    ("apis/autoscaling/v1", "io.k8s.api.autoscaling.v1", &["HorizontalPodAutoscaler"]),
    ("apis/autoscaling/v2", "io.k8s.api.autoscaling.v2", &["HorizontalPodAutoscaler"]),
    ("apis/coordination.k8s.io/v1", "io.k8s.api.coordination.v1", &["Lease"]),
    ("apis/discovery.k8s.io/v1", "io.k8s.api.discovery.v1", &["EndpointSlice"]),
    ("apis/events.k8s.io/v1", "io.k8s.api.events.v1", &["Event"]),
    (
        "apis/apiextensions.k8s.io/v1",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
        &["CustomResourceDefinition"],
    ),
    ("apis/apiregistration.k8s.io/v1", "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1", &["APIService"]),
    ("api/v1", "io.k8s.apimachinery.pkg.apis.meta.v1", &["DeleteOptions"]),
];

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, part) in fields {
                match part.as_str().and_then(|text| text.strip_prefix("#/components/schemas/")) {
                    Some(reference) if name == "$ref" => found.push(reference.to_owned()),
                    _ => references(part, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// With `TIDEMARK_UPDATE=1` the file is written anew.
#[tokio::test]
async fn the_kinds_are_described_as_a_real_api_server_describes_them() {
    let Some(plane) = ControlPlane::start_or_skip(tidemark_testkit::Options::default()).await else { return };
    let client = plane.client().await.unwrap();
    let mut described = BTreeMap::new();
    for (document, package, kinds) in KINDS {
        let document = get(&client, &format!("/openapi/v3/{document}"), "application/json").await;
        let mut wanted: Vec<_> = kinds.iter().map(|kind| format!("{package}.{kind}")).collect();
        while let Some(name) = wanted.pop() {
            let Entry::Vacant(vacant) = described.entry(name) else { continue };
            let mut schema = document["components"]["schemas"][vacant.key()].clone();
            assert!(schema.is_object(), "{}", vacant.key());
            references(&schema, &mut wanted);
            schema.sort_all_objects();
            vacant.insert(schema);
        }
    }
    let lines: Vec<_> = described.iter().map(|(name, schema)| format!("{}: {schema}", json!(name))).collect();
    let text = format!("{{\n{}\n}}\n", lines.join(",\n"));
    if std::env::var("TIDEMARK_UPDATE").is_ok_and(|value| value == "1") {
        std::fs::write(FILE, &text).unwrap();
    }
    let committed = std::fs::read_to_string(Path::new(FILE)).unwrap();
    let (committed, text): (Vec<_>, Vec<_>) = (committed.lines().collect(), text.lines().collect());
    for (ours, theirs) in committed.iter().zip(&text) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(committed.len(), text.len());
}
