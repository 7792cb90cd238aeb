//! What is served: groups, versions and resources, in the plain and in the aggregated form.

use std::collections::{BTreeMap, BTreeSet};

use kube::core::Version;
use serde_json::{Value, json};

use super::failure::Failure;
use super::resource::{Resource, api_version};
use super::world::World;

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const PART_VERBS: &[&str] = &["get", "patch", "update"];

/// `/version`: the API level of the kinds, and that this is no ordinary server.
pub(super) fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": "v1.36.0+tidemark-sandbox", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// `/api`
pub(super) fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// Versions by group, without the core group; the most stable and latest first.
fn groups(world: &World) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let resources = world.catalogue.all().map(|resource| (&resource.group, &resource.version));
    let mounts = world.mounts.keys().map(|(group, version)| (group, version));
    for (group, version) in resources.chain(mounts).filter(|(group, _)| !group.is_empty()) {
        groups.entry(group.clone()).or_default().insert(version.clone());
    }
    let ordered = |versions: BTreeSet<String>| {
        let mut versions: Vec<_> = versions.into_iter().collect();
        versions.sort_by_cached_key(|version| std::cmp::Reverse(Version::parse(version).priority()));
        versions
    };
    groups.into_iter().map(|(group, versions)| (group, ordered(versions))).collect()
}

fn group(name: &str, versions: &[String]) -> Value {
    let version = |version: &String| json!({"groupVersion": api_version(name, version), "version": version});
    json!({
        "name": name,
        "versions": versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(version),
    })
}

/// `/apis`
pub(super) fn all_groups(world: &World) -> Value {
    let groups: Vec<_> = groups(world).iter().map(|(name, versions)| group(name, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`
pub(super) fn one_group(world: &World, name: &str) -> Result<Value, Failure> {
    let versions = groups(world).remove(name).ok_or_else(Failure::no_such_path)?;
    let mut value = group(name, &versions);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Ok(value)
}

/// `/api/v1`, `/apis/GROUP/VERSION`
pub(super) fn resources(world: &World, group: &str, version: &str) -> Result<Value, Failure> {
    let mut list = Vec::new();
    for resource in world.catalogue.of(group, version) {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": VERBS,
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        list.push(entry);
        for part in parts(resource) {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, part.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": part.kind, "verbs": part.verbs,
            });
            if part.name == "scale" {
                entry["group"] = "autoscaling".into();
                entry["version"] = "v1".into();
            }
            list.push(entry);
        }
    }
    if list.is_empty() {
        return Err(Failure::no_such_path());
    }
    let version = api_version(group, version);
    Ok(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": list}))
}

/// A subresource.
struct ServedPart {
    name: &'static str,
    kind: String,
    verbs: &'static [&'static str],
}

fn parts(resource: &Resource) -> Vec<ServedPart> {
    let mut parts = Vec::new();
    let kind = || resource.kind.clone();
    if &*resource.collection == "pods" {
        parts.push(ServedPart { name: "log", kind: kind(), verbs: &["get"] });
    }
    if resource.scale.is_some() {
        parts.push(ServedPart { name: "scale", kind: "Scale".to_owned(), verbs: PART_VERBS });
    }
    if resource.status {
        parts.push(ServedPart { name: "status", kind: kind(), verbs: PART_VERBS });
    }
    parts
}

/// Aggregated discovery of the core group (`/api`) or of all others (`/apis`). The resources of mounted APIs are in
/// `mounted`, by group and version.
pub(super) fn aggregated(world: &World, core: bool, mounted: &BTreeMap<(String, String), Value>) -> Value {
    let groups = if core { BTreeMap::from([(String::new(), vec!["v1".to_owned()])]) } else { groups(world) };
    let items: Vec<_> = groups
        .iter()
        .map(|(name, versions)| {
            let versions: Vec<_> =
                versions.iter().map(|version| aggregated_version(world, name, version, mounted)).collect();
            let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    })
}

fn aggregated_version(world: &World, group: &str, version: &str, mounted: &BTreeMap<(String, String), Value>) -> Value {
    let mut resources: Vec<_> = world.catalogue.of(group, version).map(|resource| discovered(resource)).collect();
    if let Some(list) = mounted.get(&(group.to_owned(), version.to_owned())) {
        resources.extend(
            list["resources"].as_array().into_iter().flatten().filter_map(|entry| foreign(entry, group, version)),
        );
    }
    json!({"version": version, "freshness": "Current", "resources": resources})
}

fn discovered(resource: &Resource) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let own = |name: &str| kind(&resource.group, &resource.version, name);
    let mut value = json!({
        "resource": resource.plural, "responseKind": own(&resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": VERBS,
    });
    if !resource.short_names.is_empty() {
        value["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        value["categories"] = json!(resource.categories);
    }
    let parts: Vec<_> = parts(resource)
        .into_iter()
        .map(|part| {
            let answer = if part.name == "scale" { kind("autoscaling", "v1", "Scale") } else { own(&part.kind) };
            json!({"subresource": part.name, "responseKind": answer, "verbs": part.verbs})
        })
        .collect();
    if !parts.is_empty() {
        value["subresources"] = parts.into();
    }
    value
}

/// An entry of a mounted API's resource list in the aggregated form; its subresources are left out.
fn foreign(entry: &Value, group: &str, version: &str) -> Option<Value> {
    let name = entry["name"].as_str().filter(|name| !name.contains('/'))?;
    Some(json!({
        "resource": name, "responseKind": {"group": group, "version": version, "kind": entry["kind"]},
        "scope": if entry["namespaced"] == true { "Namespaced" } else { "Cluster" },
        "singularResource": entry["singularName"], "verbs": entry["verbs"],
    }))
}
