//! What a review reads of the cluster when it needs it: one object, one list, one kind.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use http::Request;
use kube::Client;
use serde_json::Value;
use tidemark_admission::{Neighbour, Workload};
use tidemark_operator::client;
use tokio::time::Instant;

/// One request may take this long; a review waits for several at most.
const REQUEST: Duration = Duration::from_secs(3);
/// A kind that exists is not asked for again for this long. One that does not may be installed in the next moment.
const KNOWN: Duration = Duration::from_secs(300);
/// Kinds that are remembered; a cluster has fewer that scale.
const KINDS: usize = 1000;

/// Reads from the API server.
pub struct Cluster {
    client: Client,
    kinds: Mutex<BTreeMap<(String, String), Instant>>,
}

impl Cluster {
    /// Reads through this client, which no other guard repeats the requests of.
    pub fn new(client: Client) -> Self {
        Self { client: client::guard(client, REQUEST), kinds: Mutex::default() }
    }

    /// Whether the cluster has the kind of a workload.
    ///
    /// # Errors
    /// It has not, or it cannot be asked; the text says so.
    pub async fn has_kind(&self, workload: &Workload) -> Result<(), String> {
        let Workload { api_version, kind, .. } = workload;
        let key = (api_version.clone(), kind.clone());
        let fresh = |seen: &Instant| seen.elapsed() < KNOWN;
        if workload.is_well_known() || self.kinds().get(&key).is_some_and(fresh) {
            return Ok(());
        }
        let unknown = || format!("no matches for kind {kind:?} in version {api_version:?}");
        let path = discovery(api_version).ok_or_else(unknown)?;
        let list = match self.get(&path).await {
            Ok(list) => list,
            Err(kube::Error::Api(status)) if status.code == 404 => return Err(unknown()),
            Err(error) => return Err(format!("cannot look {kind} of {api_version} up: {}", said(&error))),
        };
        let mut resources = list["resources"].as_array().into_iter().flatten();
        if !resources.any(|resource| is_kind(resource, kind) && !is_subresource(resource)) {
            return Err(unknown());
        }
        let mut kinds = self.kinds();
        kinds.retain(|_, seen| fresh(seen));
        if kinds.len() < KINDS {
            kinds.insert(key, Instant::now());
        }
        Ok(())
    }

    /// A Deployment or StatefulSet.
    ///
    /// # Errors
    /// It is not there, or cannot be read; the text says so.
    pub async fn workload(&self, namespace: &str, workload: &Workload) -> Result<Value, String> {
        let plural = if workload.kind == "StatefulSet" { "statefulsets" } else { "deployments" };
        let (namespace, name) = (segment(namespace), segment(&workload.name));
        let path = format!("/apis/apps/v1/namespaces/{namespace}/{plural}/{name}");
        self.get(&path).await.map_err(|error| said(&error))
    }

    /// The LimitRanges of a namespace; none where they cannot be read.
    pub async fn limit_ranges(&self, namespace: &str) -> Vec<Value> {
        match self.get(&format!("/api/v1/namespaces/{}/limitranges", segment(namespace))).await {
            Ok(mut list) => items(&mut list),
            // An API server without them, such as the sandbox.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 501) => Vec::new(),
            Err(error) => {
                tracing::warn!(namespace, "the LimitRanges cannot be read and count as none: {}", said(&error));
                Vec::new()
            }
        }
    }

    /// An object as it is stored now; none where it is not.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn present(&self, kind: Neighbour, namespace: &str, name: &str) -> kube::Result<Option<Value>> {
        let (group, plural) = match kind {
            Neighbour::ScaledObject => ("keda.sh/v1alpha1", "scaledobjects"),
            Neighbour::Autoscaler => ("autoscaling/v2", "horizontalpodautoscalers"),
        };
        // A list, because that is what the roles of KEDA's webhooks allow.
        let query: String = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("fieldSelector", &format!("metadata.name={name}"))
            .finish();
        let path = format!("/apis/{group}/namespaces/{}/{plural}?{query}", segment(namespace));
        Ok(items(&mut self.get(&path).await?).pop())
    }

    async fn get(&self, path: &str) -> kube::Result<Value> {
        self.client.request(Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?).await
    }

    fn kinds(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), Instant>> {
        // A map of times is never half written.
        self.kinds.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn items(list: &mut Value) -> Vec<Value> {
    match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// A name as part of a path: users write it, and it must not lead elsewhere.
fn segment(name: &str) -> String {
    let escaped: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
    // The dot alone is left as it is, and means something in a path where nothing else stands.
    if escaped.chars().all(|c| c == '.') { "%2E".repeat(escaped.len()) } else { escaped }
}

/// Where the API server lists the kinds of a group and version; none where there can be no such group.
fn discovery(api_version: &str) -> Option<String> {
    let label = |text: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        !text.is_empty() && text.chars().all(plain) && text.starts_with(|c: char| c.is_ascii_alphanumeric())
    };
    match api_version.split_once('/') {
        None => label(api_version).then(|| format!("/api/{api_version}")),
        Some((group, version)) => (label(group) && label(version)).then(|| format!("/apis/{api_version}")),
    }
}

/// API servers' clients, the HPA controller among them, know kinds in small letters too.
fn is_kind(resource: &Value, kind: &str) -> bool {
    resource["kind"].as_str().is_some_and(|known| known == kind || known.to_lowercase() == kind)
}

fn is_subresource(resource: &Value) -> bool {
    resource["name"].as_str().is_none_or(|name| name.contains('/'))
}

/// An error of the API server in words for people.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("the API server answered {} {}", status.code, status.reason),
        kube::Error::Service(inner) => inner.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_cannot_be_is_not_asked_for() {
        assert_eq!(discovery("v1").as_deref(), Some("/api/v1"));
        assert_eq!(discovery("argoproj.io/v1alpha1").as_deref(), Some("/apis/argoproj.io/v1alpha1"));
        for odd in ["", "/", "a/", "/v1", "a/b/c", "../v1", "apps/..", "a/v1?x=y", "Apps/v1", "a b/v1", "a/v1#"] {
            assert_eq!(discovery(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_kind_in_small_letters_is_the_kind() {
        let resource = serde_json::json!({"kind": "ReplicaSet", "name": "replicasets"});
        for (kind, known) in [("ReplicaSet", true), ("replicaset", true), ("Replicaset", false), ("replicasets", false)]
        {
            assert_eq!(is_kind(&resource, kind), known, "{kind}");
        }
    }

    #[test]
    fn a_name_never_leads_elsewhere() {
        assert_eq!(segment("web-1.x"), "web-1.x");
        assert_eq!(segment("../a?b"), "..%2Fa%3Fb");
        assert_eq!(segment(".."), "%2E%2E");
    }
}
