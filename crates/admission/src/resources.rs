//! What triggers on cpu and memory need of the target's pods.

use serde_json::Value;
use tidemark_api::{ScaleTriggers, ScaledObjectSpec};
use tidemark_engine::quantity;

use crate::triggers::is_resource;
use crate::{Path, Target, Verdict, View, Workload};

pub(crate) fn review(spec: &ScaledObjectSpec, target: &Workload, view: &View<'_>, verdict: &mut Verdict) {
    let triggers = spec.triggers.iter().enumerate().filter(|(_, trigger)| is_resource(&trigger.type_));
    let triggers: Vec<_> = triggers.collect();
    if triggers.is_empty() || !target.has_pods() {
        return;
    }
    match &view.target {
        Target::Unreadable(cause) => {
            let path = Path::of(["spec", "scaleTargetRef", "name"]);
            verdict.refuse(path, "", format!("cpu and memory triggers need the pods of {target}: {cause}"));
        }
        Target::Found(workload) => {
            for (index, trigger) in &triggers {
                requests(*index, trigger, workload, view, verdict);
            }
        }
        Target::Unread | Target::UnknownKind(_) => {}
    }
    if triggers.len() == spec.triggers.len() && spec.min_replica_count.unwrap_or(0) == 0 {
        let text = "scaling to zero is not possible with cpu and memory triggers only: set minReplicaCount to 1 or more, \
                    or add another trigger";
        let path = match spec.min_replica_count {
            Some(_) => Path::of(["spec", "minReplicaCount"]),
            None => Path::of(["spec", "triggers"]),
        };
        verdict.refuse(path, "scale-to-zero-requirements-not-met", text);
    }
}

/// Utilization is a share of what is requested, so every container must request something.
fn requests(index: usize, trigger: &ScaleTriggers, workload: &Value, view: &View<'_>, verdict: &mut Verdict) {
    let resource = trigger.type_.as_str();
    if view.limit_ranges.iter().any(|range| range_gives(range, resource)) {
        return;
    }
    let wanted = trigger.metadata.get("containerName").map(String::as_str).filter(|name| !name.is_empty());
    let pod = &workload["spec"]["template"]["spec"];
    // What the pod as a whole requests is no container's.
    if wanted.is_none() && asks(&pod["resources"], resource) {
        return;
    }
    for container in pod["containers"].as_array().into_iter().flatten() {
        let name = container["name"].as_str().unwrap_or_default();
        if wanted.is_some_and(|wanted| wanted != name) {
            continue;
        }
        if !asks(&container["resources"], resource) {
            let text = format!(
                "the scaledobject has a {resource} trigger but the container {name} doesn't have the {resource} request \
                 defined: set resources.requests.{resource} of the container"
            );
            verdict.refuse(Path::of(["spec", "triggers"]).index(index), "missing-requests", text);
        }
    }
}

/// Whether resources, of a container or of a pod, hold a request. A limit is one where nothing else is requested.
fn asks(resources: &Value, resource: &str) -> bool {
    ["requests", "limits"].iter().any(|field| is_positive(&resources[*field][resource]))
}

/// Whether a LimitRange gives containers the resource that do not ask for any.
fn range_gives(range: &Value, resource: &str) -> bool {
    let items = range["spec"]["limits"].as_array().into_iter().flatten();
    let mut items = items.filter(|item| item["type"] == "Container");
    items.any(|item| ["default", "defaultRequest"].iter().any(|field| is_positive(&item[*field][resource])))
}

/// Quantities may be written as numbers.
fn is_positive(amount: &Value) -> bool {
    match amount {
        Value::String(text) => quantity::parse(text).is_ok_and(|quantity| quantity > quantity::Quantity::default()),
        Value::Number(number) => number.as_f64().is_some_and(|number| number > 0.0),
        _ => false,
    }
}
