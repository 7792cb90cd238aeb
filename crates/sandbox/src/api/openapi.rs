//! As much of `/openapi/v3` as kubectl needs: that writes take `fieldValidation`, so that it leaves the validation to the
//! server, and the schemas of all kinds, by which it merges what it applies and which `kubectl explain` shows.

use http::HeaderMap;
use http::header::ACCEPT;
use serde_json::{Map, Value, json};

use super::delete::DEFINITIONS;
use super::failure::Failure;
use super::kinds;
use super::resource::{Form, Resource, api_version};
use super::scale::SCALE;
use super::world::World;

const TITLE: &str = "Tidemark sandbox";

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
    let mut schemas = Map::new();
    let definitions = kinds::definitions();
    for resource in world.catalogue.of(group, version) {
        match &resource.form {
            Form::Builtin(row) => describe(&definitions, row.definition, &mut schemas),
            Form::Custom(_) => {
                describe(&definitions, kinds::METADATA, &mut schemas);
                schemas.extend(schema(world, resource));
            }
        }
        if resource.scale.is_some() {
            describe(&definitions, SCALE, &mut schemas);
        }
    }
    let info = json!({"title": TITLE, "version": api_version(group, version)});
    Ok(json!({"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}))
}

/// Adds a definition of Kubernetes and all that it refers to.
fn describe(definitions: &Value, name: &str, schemas: &mut Map<String, Value>) {
    if schemas.contains_key(name) || definitions[name].is_null() {
        return;
    }
    let definition = definitions[name].clone();
    let mut referred = Vec::new();
    references(&definition, &mut referred);
    schemas.insert(name.to_owned(), definition);
    for name in referred {
        describe(definitions, &name, schemas);
    }
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(kinds::referred(value).map(str::to_owned));
            fields.values().for_each(|part| references(part, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// The schema of a custom resource as its definition gives it, under its name.
fn schema(world: &World, resource: &Resource) -> Option<(String, Value)> {
    let definition = world.store.get(DEFINITIONS, "", &resource.collection)?;
    let mut versions = definition.value["spec"]["versions"].as_array()?.iter();
    let version = versions.find(|version| version["name"] == *resource.version)?;
    let mut schema = version["schema"]["openAPIV3Schema"].clone();
    let metadata = format!("{}{}", kinds::REFERENCE, kinds::METADATA);
    for (field, value) in [
        ("apiVersion", json!({"type": "string", "description": "Group and version of this form of the object."})),
        ("kind", json!({"type": "string", "description": "Kind of the object."})),
        ("metadata", json!({"allOf": [{"$ref": metadata}], "description": "Standard object's metadata."})),
    ] {
        schema["properties"][field] = value;
    }
    let (group, version, kind) = (&resource.group, &resource.version, &resource.kind);
    schema["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": version, "kind": kind}]);
    let domain: Vec<_> = group.rsplit('.').collect();
    Some((format!("{}.{version}.{kind}", domain.join(".")), schema))
}

/// `/openapi/v2` without any path: kubectl falls back to it for kinds that are not in `/openapi/v3`, and when they are not
/// here either it says that there is no such kind.
pub(super) fn second() -> Value {
    json!({"swagger": "2.0", "info": {"title": TITLE, "version": "v1.36"}, "paths": {}})
}

/// The same in the form that kubectl asks for.
pub(super) const SECOND_IN_PROTOBUF: &[u8] = b"\n\x032.0\x12\x19\n\x10Tidemark sandbox\x12\x05v1.36B\0";
/// Its media type.
pub(super) const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Whether a request asks for that form, for which there are two names.
pub(super) fn wants_protobuf(headers: &HeaderMap) -> bool {
    let ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    ranges.flat_map(|text| text.split(',')).any(|range| range.contains("com.github.proto-openapi.spec.v2"))
}

fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}
