//! Scale targets among the files.

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::Value;
use tidemark_admission::Workload;
use tidemark_trigger::nearest::nearest;

use super::input::Object;

/// The kinds of Kubernetes' own groups that can be scaled, and those that cannot.
const KNOWN: [(&str, &[&str], &[&str]); 2] = [
    ("apps/v1", &["Deployment", "ReplicaSet", "StatefulSet"], &["ControllerRevision", "DaemonSet"]),
    ("v1", &["ReplicationController"], &["Pod", "Service"]),
];

/// The workload that a ScaledObject in `namespace` scales.
pub fn find<'a>(objects: &'a [Object], workload: &Workload, namespace: &str) -> Option<&'a Object> {
    objects.iter().rev().find(|object| {
        object.api_version() == workload.api_version
            && is_kind(object.kind(), &workload.kind)
            && object.name() == workload.name
            && object.home() == namespace
    })
}

/// Kinds in small letters are known, too, as the HPA controller does.
fn is_kind(known: &str, named: &str) -> bool {
    known == named || known.to_lowercase() == named
}

/// Why nothing of this kind can be scaled. Custom resources may be anything.
pub fn unscalable(workload: &Workload) -> Option<String> {
    let Workload { api_version, kind, .. } = workload;
    let (_, scalable, others) = KNOWN.iter().find(|(known, ..)| known == api_version)?;
    if scalable.iter().any(|known| is_kind(known, kind)) {
        return None;
    }
    if others.contains(&kind.as_str()) {
        return Some(format!("a {kind} has no replicas that could be scaled"));
    }
    let all = KNOWN.iter().flat_map(|(version, scalable, _)| scalable.iter().map(move |kind| (version, kind)));
    if let Some((version, _)) = all.clone().find(|(_, known)| *known == kind) {
        return Some(format!("there is no kind {kind} in {api_version}, did you mean apiVersion {version}?"));
    }
    let hint = nearest(kind, all.map(|(_, kind)| *kind)).map(|near| format!(", did you mean {near}?"));
    Some(format!("there is no kind {kind} in {api_version}{}", hint.unwrap_or_default()))
}

/// The specification of a pod template.
///
/// # Errors
/// There is one that cannot be read; the cause is not told, since it quotes values.
pub fn pod_spec(template: &Value) -> Result<Option<PodSpec>, ()> {
    match &template["spec"] {
        Value::Null => Ok(None),
        spec => serde_json::from_value(spec.clone()).map(Some).map_err(drop),
    }
}
