//! What the API server refuses in objects of Kubernetes kinds.
//!
//! Not all of it: metadata, and of each kind what users and controllers get wrong.

use serde_json::{Value, json};

use super::failure::Cause;
use super::resource::Naming;
use super::selector::LabelSelector;
use super::selector::text_of;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
    and must start and end with an alphanumeric character";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
    and must start and end with an alphanumeric character";
const SERVICE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', \
    start with an alphabetic character, and end with an alphanumeric character";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', \
    and must start and end with an alphanumeric character";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
    and must start and end with an alphanumeric character";
const STANDARD_FINALIZERS: &[&str] = &["foregroundDeletion", "kubernetes", "orphan"];
/// Bytes of all values of a Secret or ConfigMap together.
const DATA_LIMIT: usize = 1024 * 1024;
const IMMUTABLE: &str = "field is immutable";

/// Checks what all kinds share, and what an update may not touch.
pub(super) fn metadata(naming: Naming, value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let metadata = &value["metadata"];
    let new_name = metadata["name"].as_str().filter(|_| old.is_none());
    if let Some(detail) = new_name.and_then(|name| misnamed(naming, name)) {
        causes.push(Cause::invalid("metadata.name", &metadata["name"], &detail));
    }
    for (key, label) in metadata["labels"].as_object().into_iter().flatten() {
        if !qualified(key) {
            causes.push(Cause::invalid("metadata.labels", &json!(key), QUALIFIED));
        }
        if !label.as_str().is_some_and(label_value) {
            causes.push(Cause::invalid("metadata.labels", label, LABEL_VALUE));
        }
    }
    for key in metadata["annotations"].as_object().into_iter().flatten().map(|(key, _)| key) {
        if !qualified(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &json!(key), QUALIFIED));
        }
    }
    owners(metadata, causes);
    let Some(old) = old else { return };
    if !metadata["deletionTimestamp"].is_null() {
        let before = old["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let added = metadata["finalizers"].as_array().into_iter().flatten().filter(|one| !before.contains(one));
        let added: Vec<_> = added.map(Value::to_string).collect();
        if !added.is_empty() {
            let detail = "no new finalizers can be added if the object is being deleted, found new finalizers";
            causes.push(Cause::forbidden("metadata.finalizers", &format!("{detail} [{}]", added.join(", "))));
        }
    }
}

/// Checks the names of finalizers. Those of custom resources alone need no domain.
pub(super) fn finalizers(value: &Value, custom: bool, causes: &mut Vec<Cause>) {
    for (index, finalizer) in value["metadata"]["finalizers"].as_array().into_iter().flatten().enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        let place = format!("metadata.finalizers[{index}]");
        if !qualified(name) {
            causes.push(Cause::invalid(place, finalizer, QUALIFIED));
        } else if !custom && !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            causes.push(Cause::invalid(place, finalizer, detail));
        }
    }
}

/// What is to be said of new finalizers that are allowed and not recommended.
pub(super) fn discouraged_finalizers(value: &Value, old: Option<&Value>) -> Vec<String> {
    let known = old.and_then(|old| old["metadata"]["finalizers"].as_array()).map_or(&[][..], Vec::as_slice);
    let new = value["metadata"]["finalizers"].as_array().into_iter().flatten().filter(|one| !known.contains(one));
    let plain = |name: &&str| !name.contains('/') && !STANDARD_FINALIZERS.contains(name);
    new.filter_map(Value::as_str)
        .filter(plain)
        .map(|name| {
            format!(
                "metadata.finalizers: {name:?}: prefer a domain-qualified finalizer name including a path (/) to avoid \
                 accidental conflicts with other finalizer writers"
            )
        })
        .collect()
}

fn owners(metadata: &Value, causes: &mut Vec<Cause>) {
    let mut controllers = 0;
    for (index, owner) in metadata["ownerReferences"].as_array().into_iter().flatten().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                let place = format!("metadata.ownerReferences[{index}].{field}");
                causes.push(Cause::invalid(place, &owner[field], "must not be empty"));
            }
        }
        controllers += i32::from(owner["controller"] == true);
    }
    if controllers > 1 {
        let detail = "Only one reference can have Controller set to true";
        causes.push(Cause::invalid("metadata.ownerReferences", &metadata["ownerReferences"], detail));
    }
}

/// What is wrong with a name, if anything.
pub(super) fn misnamed(naming: Naming, name: &str) -> Option<String> {
    let edges = |text: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        edge(text.chars().next()) && edge(text.chars().next_back())
    };
    let inner = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let (sound, limit, rule) = match naming {
        Naming::Subdomain => (name.split('.').all(|part| edges(part) && inner(part)), 253, SUBDOMAIN),
        Naming::Label => (edges(name) && inner(name), 63, LABEL),
        Naming::Service => {
            (edges(name) && inner(name) && name.starts_with(|c: char| c.is_ascii_lowercase()), 63, SERVICE)
        }
    };
    if name.len() > limit {
        return Some(format!("must be no more than {limit} bytes"));
    }
    (!sound).then(|| rule.to_owned())
}

fn edged(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() <= 63 && edge(text.chars().next()) && edge(text.chars().next_back()) && text.chars().all(inner)
}

pub(super) fn qualified(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => misnamed(Naming::Subdomain, prefix).is_none() && edged(name),
        None => edged(key),
    }
}

pub(super) fn label_value(value: &str) -> bool {
    value.is_empty() || edged(value)
}

fn immutable(value: &Value, old: Option<&Value>, pointer: &str, causes: &mut Vec<Cause>) {
    let Some(old) = old else { return };
    let (now, before) = (value.pointer(pointer).unwrap_or(&Value::Null), old.pointer(pointer).unwrap_or(&Value::Null));
    if now != before {
        let place = pointer[1..].replace('/', ".");
        // A selector is shown whole.
        causes.push(match pointer.ends_with("selector") {
            true => Cause::invalid_text(place, &now.to_string(), IMMUTABLE),
            false => Cause::invalid(place, now, IMMUTABLE),
        });
    }
}

fn not_negative(value: &Value, pointer: &str, causes: &mut Vec<Cause>) {
    if let Some(number) = value.pointer(pointer).filter(|number| number.as_f64().is_some_and(|number| number < 0.0)) {
        causes.push(Cause::invalid(pointer[1..].replace('/', "."), number, "must be greater than or equal to 0"));
    }
}

/// Deployments, ReplicaSets and StatefulSets.
pub(super) fn workload(value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &value["spec"];
    not_negative(value, "/spec/replicas", causes);
    immutable(value, old, "/spec/selector", causes);
    if selects_nothing(&spec["selector"]) {
        causes.push(Cause::required("spec.selector", ""));
    } else {
        let labels = &spec["template"]["metadata"]["labels"];
        let selector = LabelSelector::parse(&text_of(&spec["selector"]));
        if !selector.is_ok_and(|selector| selector.matches(&spec["template"])) {
            let detail = "`selector` does not match template `labels`";
            causes.push(Cause::invalid_text("spec.template.metadata.labels", &labels.to_string(), detail));
        }
    }
    pod_spec(&spec["template"]["spec"], "spec.template.spec", &["Always"], causes);
    let rolling = &spec["strategy"]["rollingUpdate"];
    if spec["strategy"]["type"] == "Recreate" && !rolling.is_null() {
        let detail = "may not be specified when strategy `type` is 'Recreate'";
        causes.push(Cause::forbidden("spec.strategy.rollingUpdate", detail));
    }
    let nothing = |value: &Value| *value == 0 || *value == "0%";
    if nothing(&rolling["maxUnavailable"]) && nothing(&rolling["maxSurge"]) {
        let detail = "may not be 0 when `maxSurge` is 0";
        causes.push(Cause::invalid("spec.strategy.rollingUpdate.maxUnavailable", &rolling["maxUnavailable"], detail));
    }
}

fn selects_nothing(selector: &Value) -> bool {
    let empty = |part: &Value| match part {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    };
    empty(&selector["matchLabels"]) && empty(&selector["matchExpressions"])
}

pub(super) fn job(value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    for field in ["parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"] {
        not_negative(value, &format!("/spec/{field}"), causes);
    }
    let spec = &value["spec"];
    if spec["selector"].is_null() {
        causes.push(Cause::required("spec.selector", ""));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    let selector = LabelSelector::parse(&text_of(&spec["selector"]));
    if spec["selector"].is_null() || !selector.is_ok_and(|selector| selector.matches(&spec["template"])) {
        let detail = "`selector` does not match template `labels`";
        causes.push(Cause::invalid_text("spec.template.metadata.labels", &labels.to_string(), detail));
    }
    immutable(value, old, "/spec/selector", causes);
    match old {
        // Where the pods of a Job that has not begun will run may still be said.
        Some(old) if old["spec"]["suspend"] == true && old["status"]["startTime"].is_null() => {
            immutable(&fixed_template(value), Some(&fixed_template(old)), "/spec/template", causes);
        }
        _ => immutable(value, old, "/spec/template", causes),
    }
    pod_spec(&spec["template"]["spec"], "spec.template.spec", &["OnFailure", "Never"], causes);
}

/// A Job with what cannot be changed of its template.
fn fixed_template(value: &Value) -> Value {
    let mut template = value["spec"]["template"].clone();
    for (part, fields) in [
        ("metadata", &["labels", "annotations"][..]),
        ("spec", &["nodeSelector", "affinity", "tolerations", "schedulingGates"]),
    ] {
        if let Some(part) = template.get_mut(part).and_then(Value::as_object_mut) {
            part.retain(|name, _| !fields.contains(&name.as_str()));
        }
    }
    if let Some(parts) = template.as_object_mut() {
        parts.retain(|_, part| part.as_object().is_none_or(|fields| !fields.is_empty()));
    }
    json!({"spec": {"template": template}})
}

pub(super) fn pod(value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &value["spec"];
    pod_spec(spec, "spec", &["Always", "OnFailure", "Never"], causes);
    let Some(old) = old else { return };
    let fixed = |spec: &Value| {
        let mut rest = spec.clone();
        for field in ["containers", "initContainers"] {
            for container in rest.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
                container["image"] = Value::Null;
            }
        }
        for field in ["activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations", "nodeName"] {
            rest[field] = Value::Null;
        }
        rest
    };
    let (node, before) = (&spec["nodeName"], &old["spec"]["nodeName"]);
    if fixed(spec) != fixed(&old["spec"]) || (!before.is_null() && node != before) {
        let detail = "pod updates may not change fields other than `spec.containers[*].image`, \
            `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations`, \
            `spec.terminationGracePeriodSeconds`";
        causes.push(Cause::forbidden("spec", detail));
    }
}

/// A pod's spec at `place`; `restarts` are the allowed restart policies.
fn pod_spec(spec: &Value, place: &str, restarts: &[&str], causes: &mut Vec<Cause>) {
    let restart = &spec["restartPolicy"];
    if !restarts.iter().any(|allowed| restart == allowed) {
        let supported: Vec<_> = restarts.iter().map(|policy| json!(policy)).collect();
        causes.push(Cause::unsupported(format!("{place}.restartPolicy"), restart, &supported));
    }
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required(format!("{place}.containers"), ""));
    }
    let mut names = Vec::new();
    for field in ["initContainers", "containers"] {
        for (index, container) in spec[field].as_array().into_iter().flatten().enumerate() {
            container_at(container, &format!("{place}.{field}[{index}]"), &mut names, causes);
        }
    }
}

fn container_at<'a>(container: &'a Value, place: &str, names: &mut Vec<&'a Value>, causes: &mut Vec<Cause>) {
    let name = &container["name"];
    match name.as_str().unwrap_or_default() {
        "" => causes.push(Cause::required(format!("{place}.name"), "")),
        text => {
            if let Some(detail) = misnamed(Naming::Label, text) {
                causes.push(Cause::invalid(format!("{place}.name"), name, &detail));
            }
        }
    }
    if names.contains(&name) {
        causes.push(Cause::duplicate(format!("{place}.name"), name));
    }
    names.push(name);
    if container["image"].as_str().is_none_or(str::is_empty) {
        causes.push(Cause::required(format!("{place}.image"), ""));
    }
    for (index, variable) in container["env"].as_array().into_iter().flatten().enumerate() {
        if variable["name"].as_str().is_none_or(str::is_empty) {
            causes.push(Cause::required(format!("{place}.env[{index}].name"), ""));
        }
        let written = variable["value"].as_str().is_some_and(|text| !text.is_empty());
        if written && !variable["valueFrom"].is_null() {
            let detail = "may not be specified when `value` is not empty";
            causes.push(Cause::invalid(format!("{place}.env[{index}].valueFrom"), &json!(""), detail));
        }
    }
}

fn data_keys(value: &Value, field: &str, causes: &mut Vec<Cause>) {
    let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    for key in value[field].as_object().into_iter().flatten().map(|(key, _)| key) {
        if key.is_empty() || key.len() > 253 || !key.chars().all(sound) {
            let detail = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
            causes.push(Cause::invalid(format!("{field}[{key}]"), &json!(key), detail));
        }
    }
}

/// Checks the size of a Secret's or ConfigMap's values together.
fn data_size(value: &Value, place: &str, encoded: &[&str], plain: &[&str], causes: &mut Vec<Cause>) {
    let texts = |field: &&str| value[*field].as_object().into_iter().flatten().filter_map(|(_, text)| text.as_str());
    let decoded = |text: &str| text.trim_end_matches('=').len() * 3 / 4;
    let size = encoded.iter().flat_map(texts).map(decoded).sum::<usize>()
        + plain.iter().flat_map(texts).map(str::len).sum::<usize>();
    if size > DATA_LIMIT {
        causes.push(Cause::too_long(place, DATA_LIMIT));
    }
}

fn frozen(value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let Some(old) = old.filter(|old| old["immutable"] == true) else { return };
    for field in ["data", "binaryData", "immutable"] {
        if value[field] != old[field] {
            causes.push(Cause::forbidden(field, "field is immutable when `immutable` is set"));
        }
    }
}

pub(super) fn secret(value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    data_keys(value, "data", causes);
    data_size(value, "data", &["data"], &[], causes);
    frozen(value, old, causes);
    immutable(value, old, "/type", causes);
}

pub(super) fn config_map(value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    data_keys(value, "data", causes);
    data_keys(value, "binaryData", causes);
    // A real server gives no place but these brackets.
    data_size(value, "[]", &["binaryData"], &["data"], causes);
    frozen(value, old, causes);
}

pub(super) fn service(value: &Value, _: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &value["spec"];
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"].map(Value::from);
    if !types.contains(&spec["type"]) {
        causes.push(Cause::unsupported("spec.type", &spec["type"], &types));
    }
    if spec["type"] == "ExternalName" {
        if spec["externalName"].as_str().is_none_or(str::is_empty) {
            causes.push(Cause::required("spec.externalName", ""));
        }
        return;
    }
    if spec["ports"].as_array().is_none_or(Vec::is_empty) && spec["clusterIP"] != "None" {
        causes.push(Cause::required("spec.ports", ""));
    }
    for (index, port) in spec["ports"].as_array().into_iter().flatten().enumerate() {
        if !port["port"].as_i64().is_some_and(|port| (1..=65_535).contains(&port)) {
            let detail = "must be between 1 and 65535, inclusive";
            causes.push(Cause::invalid(format!("spec.ports[{index}].port"), &port["port"], detail));
        }
    }
}

pub(super) fn controller_revision(value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if value["data"].is_null() {
        causes.push(Cause::required("data", "data is mandatory"));
    }
    not_negative(value, "/revision", causes);
    immutable(value, old, "/data", causes);
}

pub(super) fn lease(value: &Value, _: Option<&Value>, causes: &mut Vec<Cause>) {
    for field in ["leaseDurationSeconds", "leaseTransitions"] {
        not_negative(value, &format!("/spec/{field}"), causes);
    }
    if value["spec"]["leaseDurationSeconds"] == 0 {
        causes.push(Cause::invalid("spec.leaseDurationSeconds", &json!(0), "must be greater than 0"));
    }
}

pub(super) fn endpoint_slice(value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    immutable(value, old, "/addressType", causes);
    let types = ["FQDN", "IPv4", "IPv6"].map(Value::from);
    if !types.contains(&value["addressType"]) {
        causes.push(Cause::unsupported("addressType", &value["addressType"], &types));
    }
}

pub(super) fn api_service(value: &Value, _: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &value["spec"];
    let text = |field: &str| spec[field].as_str().unwrap_or_default();
    let wanted = format!("{}.{}", text("version"), text("group"));
    if value["metadata"]["name"] != *wanted {
        let detail = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        causes.push(Cause::invalid("metadata.name", &value["metadata"]["name"], &detail));
    }
    for field in ["groupPriorityMinimum", "versionPriority"] {
        if spec[field].as_i64().is_none_or(|number| number <= 0) {
            causes.push(Cause::invalid(format!("spec.{field}"), &spec[field], "must be positive"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals(check: impl Fn(&mut Vec<Cause>)) -> String {
        let mut causes = Vec::new();
        check(&mut causes);
        format!("{causes:?}")
    }

    #[test]
    fn names_follow_their_rule() {
        for name in ["a", "a-b", "a.b-c.9"] {
            assert_eq!(misnamed(Naming::Subdomain, name), None, "{name}");
        }
        for name in ["", "A", "a_b", "-a", "a-", "a..b", ".a"] {
            assert!(misnamed(Naming::Subdomain, name).is_some(), "{name}");
        }
        assert!(misnamed(Naming::Label, "a.b").is_some());
        assert!(misnamed(Naming::Service, "9a").is_some());
        assert!(misnamed(Naming::Label, &"a".repeat(64)).unwrap().contains("63"));
    }

    #[test]
    fn a_selector_must_match_its_template() {
        let deployment = |label: &str| {
            json!({"spec": {"selector": {"matchLabels": {"app": "a"}}, "template": {
                "metadata": {"labels": {"app": label}},
                "spec": {"restartPolicy": "Always", "containers": [{"name": "c", "image": "i"}]},
            }}})
        };
        assert_eq!(refusals(|causes| workload(&deployment("a"), None, causes)), "[]");
        assert!(refusals(|causes| workload(&deployment("b"), None, causes)).contains("does not match template"));
        let changed = json!({"spec": {"selector": {"matchLabels": {"app": "b"}}}});
        assert!(refusals(|causes| workload(&deployment("a"), Some(&changed), causes)).contains("immutable"));
    }

    #[test]
    fn a_pod_keeps_its_node_and_its_command() {
        let pod_with = |node: Value, command: &str| {
            json!({"spec": {"restartPolicy": "Always", "nodeName": node,
                "containers": [{"name": "c", "image": "i", "command": [command]}]}})
        };
        let old = pod_with(Value::Null, "a");
        assert_eq!(refusals(|causes| pod(&pod_with(json!("n"), "a"), Some(&old), causes)), "[]");
        assert!(refusals(|causes| pod(&pod_with(Value::Null, "b"), Some(&old), causes)).contains("may not change"));
        let placed = pod_with(json!("n"), "a");
        assert!(refusals(|causes| pod(&pod_with(json!("m"), "a"), Some(&placed), causes)).contains("may not change"));
    }

    #[test]
    fn finalizers_cannot_be_added_to_the_dying() {
        let dying = json!({"metadata": {"name": "x", "deletionTimestamp": "t", "finalizers": ["a/b"]}});
        let more = json!({"metadata": {"name": "x", "deletionTimestamp": "t", "finalizers": ["a/b", "c/d"]}});
        let check = |new: &Value| refusals(|causes| metadata(Naming::Subdomain, new, Some(&dying), causes));
        assert_eq!(check(&dying), "[]");
        assert!(check(&more).contains("no new finalizers"));
    }
}
