//! The CustomResourceDefinitions, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use crate::core_schema::{self, BEHAVIOR, JOB_SPEC};
use crate::{
    CloudEventSource, ClusterCloudEventSource, ClusterTriggerAuthentication, ScaledJob, ScaledObject,
    TriggerAuthentication,
};

#[cfg(test)]
mod tests;

/// All CustomResourceDefinitions, ready to be applied, always in the same order.
///
/// They accept and refuse what KEDA's do. Two differences: they keep all metadata of a Job's volume claim templates, and
/// know the fields of the Kubernetes release that `cargo xtask schemas` has asked.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        definition(ScaledObject::crd(), scaled_object),
        definition(ScaledJob::crd(), scaled_job),
        definition(TriggerAuthentication::crd(), |_| ()),
        definition(ClusterTriggerAuthentication::crd(), |_| ()),
        definition(CloudEventSource::crd(), |_| ()),
        definition(ClusterCloudEventSource::crd(), |_| ()),
    ]
}

/// Completes what is derived from the types.
fn definition(mut crd: CustomResourceDefinition, complete: fn(&mut JSONSchemaProps)) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        if let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            tidy(root);
            complete(root);
        }
    }
    crd
}

fn scaled_object(root: &mut JSONSchemaProps) {
    let place = ["spec", "advanced", "horizontalPodAutoscalerConfig", "behavior"];
    let Some(behavior) = at(root, &place) else { return };
    put(behavior, core_schema::schema(BEHAVIOR));
    for direction in ["scaleUp", "scaleDown"] {
        // OpenAPI does not tell these bounds; Kubernetes checks them in code.
        if let Some(window) = at(behavior, &[direction, "stabilizationWindowSeconds"]) {
            (window.minimum, window.maximum) = (Some(0.0), Some(3600.0));
        }
    }
}

fn scaled_job(root: &mut JSONSchemaProps) {
    // An object without a spec is accepted, and told so by its status.
    root.required = None;
    if let Some(job) = at(root, &["spec", "jobTargetRef"]) {
        put(job, core_schema::schema(JOB_SPEC));
    }
    let triggers = at(root, &["spec", "triggers"]);
    if let Some(JSONSchemaPropsOrArray::Schema(trigger)) = triggers.and_then(|triggers| triggers.items.as_mut())
        && let Some(properties) = &mut trigger.properties
    {
        properties.remove("metricType");
    }
}

/// The schema of a field.
fn at<'a>(schema: &'a mut JSONSchemaProps, path: &[&str]) -> Option<&'a mut JSONSchemaProps> {
    path.iter().try_fold(schema, |schema, name| schema.properties.as_mut()?.get_mut(*name))
}

/// Puts a schema in another's place, whose descriptions stay.
fn put(place: &mut JSONSchemaProps, mut schema: JSONSchemaProps) {
    describe(&mut schema, place);
    *place = schema;
}

fn describe(schema: &mut JSONSchemaProps, from: &JSONSchemaProps) {
    schema.description.clone_from(&from.description);
    for (name, property) in schema.properties.iter_mut().flatten() {
        if let Some(from) = from.properties.as_ref().and_then(|properties| properties.get(name)) {
            describe(property, from);
        }
    }
    if let (Some(JSONSchemaPropsOrArray::Schema(items)), Some(JSONSchemaPropsOrArray::Schema(from))) =
        (&mut schema.items, &from.items)
    {
        describe(items, from);
    }
}

/// Takes out what the derivation says too much. Rust's `Option` becomes `nullable`, while Kubernetes means by optional
/// only that a field may be absent; and what our types take for an absent field is not for the API server to fill in.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.enum_.iter_mut().for_each(|values| values.retain(|value| !value.0.is_null()));
    schema.default.take_if(|default| default.0 == false);
    for property in schema.properties.iter_mut().flat_map(|map| map.values_mut()) {
        tidy(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(additional)) = &mut schema.additional_properties {
        tidy(additional);
    }
}
