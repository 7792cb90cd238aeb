//! Whether another HorizontalPodAutoscaler scales the target already.

use serde_json::Value;
use tidemark_api::annotations::{HPA_OWNERSHIP, TRANSFER_HPA_OWNERSHIP};

use crate::scaled_object::configured_hpa_name;
use crate::{Path, Verdict, View, Workload, name};

pub(crate) fn review(object: &Value, target: &Workload, view: &View<'_>, verdict: &mut Verdict) {
    let annotation = |object: &Value, key: &str, value: &str| object["metadata"]["annotations"][key] == value;
    let transfers = annotation(object, TRANSFER_HPA_OWNERSHIP, "true");
    for hpa in view.autoscalers {
        let ignored = annotation(hpa, HPA_OWNERSHIP, "false");
        if ignored || !target.is_scaled_by(hpa) || is_owned(hpa, &object["kind"], &object["metadata"]["name"]) {
            continue;
        }
        // That one was named already, and taking its HPA from it is no remedy.
        let mut others = view.scaled_objects.iter().filter(|other| target.is_scaled_by(other));
        if others.any(|other| is_owned(hpa, &object["kind"], &other["metadata"]["name"])) {
            continue;
        }
        let hpa = name(hpa);
        if !transfers {
            let text = format!(
                "the workload '{}' of type '{}' is already managed by the hpa '{hpa}'; to take it over set the annotation \
                 {TRANSFER_HPA_OWNERSHIP}: \"true\" and spec.advanced.horizontalPodAutoscalerConfig.name: {hpa}",
                target.name,
                target.type_name()
            );
            verdict.refuse(Path::of(["spec", "scaleTargetRef", "name"]), "other-hpa", text);
        } else if configured_hpa_name(object) != Some(hpa) {
            let text = format!(
                "to transfer the ownership of the existing HPA of the workload '{}' of type '{}', \
                 spec.advanced.horizontalPodAutoscalerConfig.name must be its name, '{hpa}'",
                target.name,
                target.type_name()
            );
            let path = Path::of(["spec", "advanced", "horizontalPodAutoscalerConfig", "name"]);
            verdict.refuse(path, "transfer-ownership-missing-hpa-name", text);
        }
    }
}

/// By kind and name, as KEDA judges: an object that was made anew keeps its HPA.
fn is_owned(hpa: &Value, kind: &Value, name: &Value) -> bool {
    let mut owners = hpa["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    owners.any(|owner| owner["kind"] == *kind && owner["name"] == *name)
}
