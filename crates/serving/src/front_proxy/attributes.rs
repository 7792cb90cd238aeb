//! What a request asks for, as access is judged by.

use http::Method;
use k8s_openapi::api::authorization::v1::{NonResourceAttributes, ResourceAttributes, SubjectAccessReviewSpec};

use serde_json::{Value, json};

use crate::external_metrics::{self, metric_path};
use crate::reasons_api::{self, reasons_path};

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attributes {
    Resource(Resource),
    Path { verb: String, path: String },
}

/// A resource of an API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub verb: &'static str,
    pub group: &'static str,
    pub version: &'static str,
    /// None where those of all namespaces are asked for.
    pub namespace: Option<String>,
    pub resource: String,
    pub name: Option<String>,
}

impl Attributes {
    pub fn of(method: &Method, path: &str) -> Self {
        // A metric is a resource, and a request without an object's name is a list, also where only `get` is served.
        if let Some((namespace, resource)) = metric_path(path) {
            let (group, version) = (external_metrics::GROUP, external_metrics::VERSION);
            let (verb, namespace) = (verb(method, false), Some(namespace));
            return Self::Resource(Resource { verb, group, version, namespace, resource, name: None });
        }
        if let Some((namespace, name)) = reasons_path(path) {
            let (group, version) = (reasons_api::GROUP, reasons_api::VERSION);
            let (verb, resource) = (verb(method, name.is_some()), reasons_api::PLURAL.to_owned());
            return Self::Resource(Resource { verb, group, version, namespace, resource, name });
        }
        Self::Path { verb: method.as_str().to_ascii_lowercase(), path: path.to_owned() }
    }

    /// Makes this the question of a review.
    pub fn enter(&self, spec: &mut SubjectAccessReviewSpec) {
        match self {
            Self::Resource(asked) => {
                spec.resource_attributes = Some(ResourceAttributes {
                    verb: Some(asked.verb.to_owned()),
                    group: Some(asked.group.to_owned()),
                    version: Some(asked.version.to_owned()),
                    namespace: asked.namespace.clone(),
                    resource: Some(asked.resource.clone()),
                    name: asked.name.clone(),
                    ..Default::default()
                });
            }
            Self::Path { verb, path } => {
                spec.non_resource_attributes =
                    Some(NonResourceAttributes { verb: Some(verb.clone()), path: Some(path.clone()) });
            }
        }
    }

    /// What was asked for, for the `details` of a refusal.
    pub fn details(&self) -> Value {
        match self {
            Self::Resource(Resource { group, resource, name: Some(name), .. }) => {
                json!({"name": name, "group": group, "kind": resource})
            }
            Self::Resource(Resource { group, resource, .. }) => json!({"group": group, "kind": resource}),
            Self::Path { .. } => json!({}),
        }
    }

    /// What a user is told who may not.
    pub fn refusal(&self, user: &str) -> String {
        match self {
            Self::Resource(Resource { verb, group, namespace, resource, name, .. }) => {
                let name = name.as_ref().map(|name| format!(" \"{name}\"")).unwrap_or_default();
                let place = match namespace {
                    Some(namespace) => format!("in the namespace \"{namespace}\""),
                    None => "at the cluster scope".to_owned(),
                };
                format!(
                    "{resource}.{group}{name} is forbidden: User \"{user}\" cannot {verb} resource \"{resource}\" in API \
                     group \"{group}\" {place}"
                )
            }
            Self::Path { verb, path } => format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\""),
        }
    }
}

fn verb(method: &Method, is_named: bool) -> &'static str {
    match (method.as_str(), is_named) {
        ("GET" | "HEAD", true) => "get",
        ("GET" | "HEAD", false) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_a_resource_of_its_name_that_is_listed_however_the_path_is_written() {
        for name in ["shop/s0-x", "sho%70/s0%2Dx"] {
            let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{name}");
            let metric = Resource {
                verb: "list",
                group: "external.metrics.k8s.io",
                version: "v1beta1",
                namespace: Some("shop".to_owned()),
                resource: "s0-x".to_owned(),
                name: None,
            };
            assert_eq!(Attributes::of(&Method::GET, &path), Attributes::Resource(metric));
        }
        let path = |verb: &str| Attributes::Path { verb: verb.to_owned(), path: "/apis".to_owned() };
        assert_eq!(Attributes::of(&Method::GET, "/apis"), path("get"));
        assert_eq!(Attributes::of(&Method::POST, "/apis"), path("post"));
    }

    #[test]
    fn reasons_are_read_by_name_or_listed_in_a_namespace_or_everywhere() {
        let refusal = |method: &Method, path: &str| {
            Attributes::of(method, &format!("/apis/reasons.tidemark.dev/v1alpha1{path}")).refusal("ann")
        };
        let told = |name: &str, verb: &str, place: &str| {
            format!(
                "scaledobjects.reasons.tidemark.dev{name} is forbidden: User \"ann\" cannot {verb} resource \
                 \"scaledobjects\" in API group \"reasons.tidemark.dev\" {place}"
            )
        };
        let shop = "in the namespace \"shop\"";
        let one = "/namespaces/shop/scaledobjects/orders";
        assert_eq!(refusal(&Method::GET, one), told(" \"orders\"", "get", shop));
        assert_eq!(refusal(&Method::DELETE, one), told(" \"orders\"", "delete", shop));
        assert_eq!(refusal(&Method::GET, "/namespaces/shop/scaledobjects"), told("", "list", shop));
        assert_eq!(refusal(&Method::GET, "/scaledobjects"), told("", "list", "at the cluster scope"));
    }
}
