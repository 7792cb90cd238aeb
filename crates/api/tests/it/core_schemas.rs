//! The committed schemas of Kubernetes' own types.

use std::io::Write;

use serde_json::Value;
use tidemark_testkit::{ControlPlane, Options};

const FILE: &str = "schemas/core.json";

#[tokio::test]
async fn core_schemas_are_those_of_the_api_server() {
    let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let client = plane.client().await.unwrap();
    let version = client.apiserver_version().await.unwrap().git_version;
    let version = version.trim_start_matches('v');
    if version != xtask::control_plane::KUBERNETES_VERSION {
        let ours = xtask::control_plane::KUBERNETES_VERSION;
        writeln!(std::io::stderr(), "SKIPPED: core_schemas: the API server is of {version}, not of {ours}").unwrap();
        return;
    }
    let mut documents = Vec::new();
    for (document, _) in xtask::schemas::ROOTS {
        let request = http::Request::get(format!("/openapi/v3/{document}")).body(Vec::new()).unwrap();
        documents.push(client.request::<Value>(request).await.unwrap());
    }
    let current = xtask::schemas::distill(version, &documents).unwrap();
    if std::env::var("TIDEMARK_UPDATE").is_ok_and(|value| value == "1") {
        std::fs::write(FILE, current).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(FILE).unwrap();
    let changed = current.lines().zip(committed.lines()).find(|(current, committed)| current != committed);
    assert_eq!(changed, None, "the API server has other schemas: run cargo xtask schemas");
    assert_eq!(current.len(), committed.len(), "the API server has other schemas: run cargo xtask schemas");
}
