//! As much of `/openapi/v3` as kubectl needs before it applies or creates: that writes take `fieldValidation`, so that
//! it leaves the validation to the server.

use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::resource::api_version;
use super::world::World;

/// `/openapi/v3`
pub(super) fn root(world: &World) -> Value {
    let mut paths = Map::new();
    for resource in world.catalogue.all() {
        let path = prefix(&resource.group, &resource.version);
        // The hash lets clients keep what they have fetched; what is here changes with the resources only.
        let address = format!("/openapi/v3/{path}");
        paths.insert(path, json!({"serverRelativeURL": address}));
    }
    json!({"paths": paths})
}

/// `/openapi/v3/apis/GROUP/VERSION`
pub(super) fn document(world: &World, group: &str, version: &str) -> Result<Value, Failure> {
    let mut paths = Map::new();
    for resource in world.catalogue.of(group, version) {
        let kind = json!({"group": group, "version": version, "kind": resource.kind});
        let operation = |action: &str| {
            json!({
                "x-kubernetes-action": action, "x-kubernetes-group-version-kind": kind,
                "parameters": [
                    {"name": "dryRun", "in": "query", "schema": {"type": "string"}},
                    {"name": "fieldManager", "in": "query", "schema": {"type": "string"}},
                    {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}},
                ],
                "responses": {"200": {"description": "OK"}},
            })
        };
        let space = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
        let path = format!("/{}{space}/{}", prefix(group, version), resource.plural);
        paths.insert(format!("{path}/{{name}}"), json!({"put": operation("put"), "patch": operation("patch")}));
        paths.insert(path, json!({"post": operation("post")}));
    }
    if paths.is_empty() {
        return Err(Failure::no_such_path());
    }
    let info = json!({"title": "Tidemark sandbox", "version": api_version(group, version)});
    Ok(json!({"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}}))
}

fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}
