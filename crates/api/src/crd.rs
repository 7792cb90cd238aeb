//! The CustomResourceDefinitions, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use crate::{ClusterTriggerAuthentication, ScaledObject, TriggerAuthentication};

/// All CustomResourceDefinitions, ready to be applied.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![ScaledObject::crd(), TriggerAuthentication::crd(), ClusterTriggerAuthentication::crd()];
    for crd in &mut crds {
        for version in &mut crd.spec.versions {
            if let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
                refuse_null(root);
            }
        }
    }
    crds
}

/// Rust's `Option` becomes `nullable`; Kubernetes means by optional only that a field may be absent.
fn refuse_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    for property in schema.properties.iter_mut().flat_map(|map| map.values_mut()) {
        refuse_null(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        refuse_null(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(additional)) = &mut schema.additional_properties {
        refuse_null(additional);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec_of(plural: &str) -> JSONSchemaProps {
        let crd = crds().into_iter().find(|crd| crd.spec.names.plural == plural).unwrap();
        let root = crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
        assert_eq!(root.required, Some(vec!["spec".to_owned()]));
        root.properties.unwrap()["spec"].clone()
    }

    #[test]
    fn a_scaled_object_needs_a_target_and_a_trigger() {
        let spec = spec_of("scaledobjects");
        assert_eq!(spec.required, Some(vec!["scaleTargetRef".to_owned(), "triggers".to_owned()]));
        let properties = spec.properties.unwrap();
        assert_eq!(properties["triggers"].min_items, Some(1));
        assert_eq!(properties["pollingInterval"].minimum, Some(1.0));
        assert_eq!(properties["minReplicaCount"].minimum, Some(0.0));
        assert_eq!(properties["scaleTargetRef"].properties.as_ref().unwrap()["name"].min_length, Some(1));
        assert_eq!(spec.x_kubernetes_validations.unwrap().len(), 1);
    }

    #[test]
    fn no_field_accepts_null() {
        let text = serde_json::to_string(&crds()).unwrap();
        assert!(!text.contains("nullable"), "{text}");
    }

    #[test]
    fn names_scopes_and_short_names_are_those_of_keda() {
        let got: Vec<_> = crds()
            .into_iter()
            .map(|crd| (crd.metadata.name.unwrap(), crd.spec.scope, crd.spec.names.short_names.unwrap_or_default()))
            .collect();
        let words = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            got,
            [
                ("scaledobjects.keda.sh".to_owned(), "Namespaced".to_owned(), words(&["so"])),
                ("triggerauthentications.keda.sh".to_owned(), "Namespaced".to_owned(), words(&["ta", "triggerauth"])),
                (
                    "clustertriggerauthentications.keda.sh".to_owned(),
                    "Cluster".to_owned(),
                    words(&["cta", "clustertriggerauth"])
                ),
            ]
        );
    }

    #[test]
    fn enums_and_patterns_reach_the_schema() {
        let authentication = spec_of("triggerauthentications").properties.unwrap();
        let provider = &authentication["podIdentity"].properties.as_ref().unwrap()["provider"];
        assert_eq!(provider.enum_.as_ref().unwrap().len(), 5);
        let object = spec_of("scaledobjects").properties.unwrap();
        let advanced = object["advanced"].properties.as_ref().unwrap();
        let config = advanced["horizontalPodAutoscalerConfig"].properties.as_ref().unwrap();
        let rules = config["behavior"].properties.as_ref().unwrap()["scaleDown"].properties.as_ref().unwrap();
        assert_eq!(rules["tolerance"].x_kubernetes_int_or_string, Some(true));
        assert_eq!(rules["stabilizationWindowSeconds"].maximum, Some(3600.0));
        assert_eq!(rules["policies"].x_kubernetes_list_type.as_deref(), Some("atomic"));
    }
}
