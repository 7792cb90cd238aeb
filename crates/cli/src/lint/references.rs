//! References of authentications and event sources.

use std::collections::BTreeMap;

use serde_json::Value;
use tidemark_admission::Path;
use tidemark_trigger::nearest::nearest;

use super::document::Side;
use super::object::Findings;
use super::objects::{Objects, reference};

/// Checks what an authentication in `namespace` takes from Secrets and ConfigMaps.
pub fn authentication(spec: &Value, namespace: &str, objects: &Objects, findings: &mut Findings<'_>) {
    let path = Path::of(["spec"]);
    for (field, kind) in [("configMapTargetRef", "ConfigMap"), ("secretTargetRef", "Secret")] {
        for (index, entry) in items(&spec[field]) {
            entry_of(kind, namespace, entry, &path.key(field).index(index), objects, findings);
        }
    }
    secret_keys(spec, namespace, &path, objects, findings);
    overwritten(spec, findings);
}

/// Checks the authentication of an event source.
pub fn event_source(spec: &Value, namespace: &str, objects: &Objects, findings: &mut Findings<'_>) {
    let reference_to = &spec["authenticationRef"];
    let Some(name) = reference_to["name"].as_str() else { return };
    let (kind, namespace) = match reference_to["kind"].as_str() {
        Some("ClusterTriggerAuthentication") => ("ClusterTriggerAuthentication", ""),
        _ => ("TriggerAuthentication", namespace),
    };
    if objects.get(kind, namespace, name).is_none() {
        findings.unresolved(&Path::of(["spec", "authenticationRef"]), reference(kind, namespace, name));
    }
}

fn items(list: &Value) -> impl Iterator<Item = (usize, &Value)> {
    list.as_array().into_iter().flatten().enumerate()
}

/// An entry of an object: `name` and `key`.
fn entry_of(
    kind: &'static str,
    namespace: &str,
    entry: &Value,
    path: &Path,
    objects: &Objects,
    findings: &mut Findings<'_>,
) {
    let text = |field: &str| entry[field].as_str().filter(|text| !text.is_empty());
    let (Some(name), Some(key)) = (text("name"), text("key")) else { return };
    let Some(object) = objects.get(kind, namespace, name) else {
        findings.unresolved(path, reference(kind, namespace, name));
        return;
    };
    let keys = || ["data", "binaryData"].into_iter().flat_map(|field| object[field].as_object()).flatten();
    if keys().any(|(known, _)| known == key) {
        return;
    }
    let hint = nearest(key, keys().map(|(known, _)| known));
    let hint = hint.map(|near| format!(", did you mean {near}?")).unwrap_or_default();
    let message = format!("{} has no key \"{key}\"{hint} The parameter is empty", reference(kind, namespace, name));
    let message = if hint.is_empty() { message.replace(" The parameter", ": the parameter") } else { message };
    findings.warn(&path.key("key"), Side::Value, message);
}

/// `secretKeyRef` wherever it stands.
fn secret_keys(value: &Value, namespace: &str, path: &Path, objects: &Objects, findings: &mut Findings<'_>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let at = path.key(key.as_str());
                if key == "secretKeyRef" {
                    entry_of("Secret", namespace, value, &at, objects, findings);
                } else {
                    secret_keys(value, namespace, &at, objects, findings);
                }
            }
        }
        Value::Array(list) => {
            for (index, item) in list.iter().enumerate() {
                secret_keys(item, namespace, &path.index(index), objects, findings);
            }
        }
        _ => {}
    }
}

/// Later sources overwrite earlier ones, and a file all of them.
fn overwritten(spec: &Value, findings: &mut Findings<'_>) {
    let path = Path::of(["spec"]);
    let mut given: BTreeMap<&str, (Path, &str)> = BTreeMap::new();
    let file = spec["filePath"].as_str().is_some_and(|file| !file.is_empty());
    for field in ["env", "configMapTargetRef", "secretTargetRef"] {
        if file && spec[field].as_array().is_some_and(|list| !list.is_empty()) {
            findings.warn(&path.key(field), Side::Key, format!("{field} has no effect beside filePath"));
            continue;
        }
        for (index, entry) in items(&spec[field]) {
            let Some(parameter) = entry["parameter"].as_str() else { continue };
            let at = path.key(field).index(index).key("parameter");
            if let Some((earlier, _)) = given.insert(parameter, (at, field)) {
                let message = format!("parameter {parameter} is overwritten by a later entry of {field}");
                findings.warn(&earlier, Side::Value, message);
            }
        }
    }
}
