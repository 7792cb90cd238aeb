//! What a request asks for, as access is judged by.

use http::Method;
use k8s_openapi::api::authorization::v1::{NonResourceAttributes, ResourceAttributes, SubjectAccessReviewSpec};

use crate::external_metrics::{GROUP, VERSION, metric_path};

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attributes {
    Resource { verb: &'static str, namespace: String, resource: String },
    Path { verb: String, path: String },
}

impl Attributes {
    /// A request without an object's name is a list, also where only `get` is served.
    pub fn of(method: &Method, path: &str) -> Self {
        let Some((namespace, resource)) = metric_path(path) else {
            return Self::Path { verb: method.as_str().to_ascii_lowercase(), path: path.to_owned() };
        };
        let verb = match method.as_str() {
            "GET" | "HEAD" => "list",
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "deletecollection",
            _ => "unknown",
        };
        Self::Resource { verb, namespace, resource }
    }

    /// Makes this the question of a review.
    pub fn enter(&self, spec: &mut SubjectAccessReviewSpec) {
        match self {
            Self::Resource { verb, namespace, resource } => {
                spec.resource_attributes = Some(ResourceAttributes {
                    verb: Some((*verb).to_owned()),
                    group: Some(GROUP.to_owned()),
                    version: Some(VERSION.to_owned()),
                    namespace: Some(namespace.clone()),
                    resource: Some(resource.clone()),
                    ..Default::default()
                });
            }
            Self::Path { verb, path } => {
                spec.non_resource_attributes =
                    Some(NonResourceAttributes { verb: Some(verb.clone()), path: Some(path.clone()) });
            }
        }
    }

    /// What a user is told who may not.
    pub fn refusal(&self, user: &str) -> String {
        match self {
            Self::Resource { verb, namespace, resource } => format!(
                "{resource}.external.metrics.k8s.io is forbidden: User \"{user}\" cannot {verb} resource \
                 \"{resource}\" in API group \"external.metrics.k8s.io\" in the namespace \"{namespace}\""
            ),
            Self::Path { verb, path } => format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_a_resource_of_its_name_that_is_listed_however_the_path_is_written() {
        for name in ["shop/s0-x", "sho%70/s0%2Dx"] {
            let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{name}");
            let metric =
                Attributes::Resource { verb: "list", namespace: "shop".to_owned(), resource: "s0-x".to_owned() };
            assert_eq!(Attributes::of(&Method::GET, &path), metric);
        }
        let path = |verb: &str| Attributes::Path { verb: verb.to_owned(), path: "/apis".to_owned() };
        assert_eq!(Attributes::of(&Method::GET, "/apis"), path("get"));
        assert_eq!(Attributes::of(&Method::POST, "/apis"), path("post"));
    }
}
