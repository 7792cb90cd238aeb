//! The scale target: which resource it is, its replicas, its pod template, and how its replicas are written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::PodSpec;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersion;
use kube::discovery::pinned_group;
use serde::Deserialize;
use serde_json::{Map, Value};
use tidemark_api::ScaleTarget;
use tidemark_api::scaled_object::GroupVersionKindResource;

use crate::FIELD_MANAGER;
use crate::client;
use crate::texts::Text;

/// Times that a write of `/scale` is tried again after somebody else has written first.
const CONFLICTS: u32 = 5;

/// A kind of scale target, once for all of its objects.
#[derive(Debug, PartialEq)]
pub(crate) struct Resource {
    pub(crate) api: ApiResource,
    /// Group, version and kind as in `status.scaleTargetKind`: `apps/v1.Deployment`.
    pub(crate) kind_text: Text,
    pub(crate) gvkr: Arc<GroupVersionKindResource>,
}

impl From<ApiResource> for Resource {
    fn from(api: ApiResource) -> Self {
        let gvkr = GroupVersionKindResource {
            group: api.group.clone(),
            version: api.version.clone(),
            kind: api.kind.clone(),
            resource: api.plural.clone(),
            unknown: Default::default(),
        };
        let kind_text = format!("{}/{}.{}", api.group, api.version, api.kind);
        Self { api, kind_text: kind_text.into(), gvkr: Arc::new(gvkr) }
    }
}

/// Which object a scale target is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) resource: Arc<Resource>,
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

/// A scale target as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) replicas: i32,
    /// The object's generation; `None` where only its `/scale` was read.
    pub(crate) generation: Option<i64>,
    /// What triggers may need of `spec.template.spec`, where the object has one.
    pub(crate) template: Option<Template>,
}

/// The names and environments of a pod template's containers and its ServiceAccount, as JSON: a parsed PodSpec would
/// be the largest thing that an object at rest holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Box<str>);

impl Template {
    fn of(spec: &Value) -> Self {
        let containers = spec.get("containers").and_then(Value::as_array).into_iter().flatten();
        let containers: Vec<Value> =
            containers.map(|container| fields(container, &["name", "env", "envFrom"])).collect();
        let mut kept = fields(spec, &["serviceAccountName"]);
        kept["containers"] = Value::Array(containers);
        Self(kept.to_string().into())
    }

    /// The template as a PodSpec, everything else left out.
    pub(crate) fn pod_spec(&self) -> Option<PodSpec> {
        serde_json::from_str(&self.0).ok()
    }
}

fn fields(value: &Value, names: &[&str]) -> Value {
    names.iter().filter_map(|name| Some(((*name).to_owned(), value.get(name)?.clone()))).collect::<Map<_, _>>().into()
}

/// Why a scale target cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("the API server knows no kind {kind} in {api_version}")]
    UnknownKind { api_version: String, kind: String },
    #[error("{0}")]
    Missing(String),
    #[error("{0}")]
    NotScalable(String),
    #[error("{0}")]
    Unreadable(String),
}

/// Finds resources for kinds and remembers them.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    known: Mutex<BTreeMap<(String, String), Arc<Resource>>>,
}

impl Kinds {
    /// The target that a reference means. Deployments and StatefulSets are known, other kinds are asked for once.
    pub(crate) async fn resolve(
        &self,
        client: &Client,
        namespace: &str,
        reference: &ScaleTarget,
    ) -> Result<Target, TargetError> {
        let (api_version, kind) = (reference.api_version(), reference.kind());
        let resource = match self.known(api_version, kind) {
            Some(resource) => resource,
            None => self.discover(client, api_version, kind).await?,
        };
        Ok(Target { resource, namespace: namespace.into(), name: reference.name.as_str().into() })
    }

    fn known(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(resource) = known.get(&key) {
            return Some(resource.clone());
        }
        let plural = match kind {
            "Deployment" => "deployments",
            "StatefulSet" => "statefulsets",
            _ => return None,
        };
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = Arc::new(Resource::from(ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        }));
        known.insert(key, resource.clone());
        Some(resource)
    }

    async fn discover(&self, client: &Client, api_version: &str, kind: &str) -> Result<Arc<Resource>, TargetError> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let unknown = || TargetError::UnknownKind { api_version: api_version.to_owned(), kind: kind.to_owned() };
        let served = pinned_group(client, &GroupVersion::gv(group, version)).await.map_err(|error| {
            // The group is served in other versions, or not at all.
            if matches!(error, kube::Error::Discovery(_)) || client::is_absent(&error) {
                unknown()
            } else {
                TargetError::Unreadable(client::describe(&error))
            }
        })?;
        // The HPA controller takes kinds in small letters, too.
        let mut resources = served.versioned_resources(version).into_iter().map(|(resource, _)| resource);
        let found = resources.find(|known| known.kind == kind || known.kind.to_lowercase() == kind);
        let resource = Arc::new(Resource::from(found.ok_or_else(unknown)?));
        let key = (api_version.to_owned(), kind.to_owned());
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, resource.clone());
        Ok(resource)
    }

    /// Asks again next time: a kind whose requests find nothing may be served elsewhere now.
    fn forget(&self, resource: &ApiResource) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, known| known.api != *resource);
    }
}

impl Target {
    fn api(&self, client: &Client) -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), &self.namespace, &self.resource.api)
    }

    /// Whether its generation is watched, so that the replicas need not be read before each decision.
    pub(crate) fn is_watched(&self) -> bool {
        self.resource.api.api_version == "apps/v1"
            && matches!(self.resource.api.kind.as_str(), "Deployment" | "StatefulSet")
    }

    /// Whether `spec.replicas` of the object is what `/scale` would say.
    fn has_plain_replicas(&self) -> bool {
        self.resource.api.group == "apps"
            && matches!(self.resource.api.kind.as_str(), "Deployment" | "StatefulSet" | "ReplicaSet")
    }

    /// Kind and full name for people: `apps/v1.Deployment shop/workers`.
    pub(crate) fn describe(&self) -> Arc<str> {
        format!("{} {}/{}", self.resource.kind_text, self.namespace, self.name).into()
    }

    /// Reads replicas and pod template.
    pub(crate) async fn read(&self, client: &Client, kinds: &Kinds) -> Result<Found, TargetError> {
        let api = self.api(client);
        if self.has_plain_replicas() {
            let object = api.get(&self.name).await.map_err(|error| self.read_error(&error, kinds))?;
            let replicas = object.data.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
            return Ok(found(object, i32::try_from(replicas).unwrap_or(i32::MAX)));
        }
        let scale = api.get_scale(&self.name).await;
        let object = api.get(&self.name).await.map_err(|error| self.read_error(&error, kinds))?;
        let scale = scale.map_err(|error| match client::is_absent(&error) {
            true => TargetError::NotScalable(client::describe(&error)),
            false => TargetError::Unreadable(client::describe(&error)),
        })?;
        Ok(found(object, spec_replicas(&scale)))
    }

    /// Reads the replicas that are wanted, and the selector of the pods where `/scale` tells it.
    pub(crate) async fn replicas_and_selector(&self, client: &Client) -> Result<(i32, Option<String>), String> {
        let scale = self.api(client).get_scale(&self.name).await.map_err(|error| client::describe(&error))?;
        let selector = scale.status.as_ref().and_then(|status| status.selector.clone());
        Ok((spec_replicas(&scale), selector.filter(|selector| !selector.is_empty())))
    }

    /// Counts the pods of a selector that run and are ready.
    pub(crate) async fn ready_pods(&self, client: &Client, selector: &str) -> Result<i32, String> {
        let pods = kube::core::Request::new(format!("/api/v1/namespaces/{}/pods", self.namespace));
        let mut parameters = ListParams::default().labels(selector).limit(PODS_AT_ONCE);
        let mut ready = 0;
        loop {
            let request = pods.list(&parameters).map_err(|error| error.to_string())?;
            // Not kube's own parsing: on a failure it would log the whole list, environments of pods included.
            let text = client.request_text(request).await.map_err(|error| client::describe(&error))?;
            let page: Pods = serde_json::from_str(&text).map_err(|_| "the API server's answer is no list of pods")?;
            ready += page.items.iter().filter(|pod| pod.is_ready()).count();
            match page.metadata.next.filter(|more| !more.is_empty()) {
                Some(more) => parameters = parameters.continue_token(&more),
                None => return Ok(i32::try_from(ready).unwrap_or(i32::MAX)),
            }
        }
    }

    fn read_error(&self, error: &kube::Error, kinds: &Kinds) -> TargetError {
        let message = client::describe(error);
        if !client::is_absent(error) {
            return TargetError::Unreadable(message);
        }
        if !self.is_watched() {
            kinds.forget(&self.resource.api);
        }
        TargetError::Missing(message)
    }

    /// Writes the replicas through `/scale`, against the version just read.
    ///
    /// With `expected`, nothing is written when the replicas are others by now: somebody else has scaled, and the
    /// decision must be taken anew.
    pub(crate) async fn scale(&self, client: &Client, expected: Option<i32>, to: i32) -> Scaled {
        let api = self.api(client);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let mut from = expected.unwrap_or(-1);
        let mut conflicts = 0;
        loop {
            let mut scale = match api.get_scale(&self.name).await {
                Ok(scale) => scale,
                Err(error) => return Scaled::Failed { from: -1, message: client::describe(&error) },
            };
            let present = spec_replicas(&scale);
            if expected.is_some_and(|expected| expected != present) {
                return Scaled::Moved { replicas: present };
            }
            from = if expected.is_some() { from } else { present };
            if present == to {
                return Scaled::Done { from, written: false };
            }
            scale.spec.get_or_insert_default().replicas = Some(to);
            match api.replace_scale(&self.name, &params, &scale).await {
                Ok(_) => return Scaled::Done { from, written: true },
                Err(error) if client::is_conflict(&error) && conflicts < CONFLICTS => conflicts += 1,
                Err(error) => return Scaled::Failed { from, message: client::describe(&error) },
            }
        }
    }
}

/// How a write of the replicas ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scaled {
    /// The replicas are as wanted; `written` is false where they were so before.
    Done { from: i32, written: bool },
    /// Somebody else has scaled since; nothing was written.
    Moved { replicas: i32 },
    /// `from` is -1 where the replicas could not be read.
    Failed { from: i32, message: String },
}

/// Pods asked for in one request.
const PODS_AT_ONCE: u32 = 500;

/// A list of pods, as far as their readiness goes.
#[derive(Deserialize)]
struct Pods {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<Pod>,
}

#[derive(Default, Deserialize)]
struct ListMeta {
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Pod {
    status: Option<PodStatus>,
}

#[derive(Deserialize)]
struct PodStatus {
    phase: Option<String>,
    conditions: Option<Vec<PodCondition>>,
}

#[derive(Deserialize)]
struct PodCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Pod {
    fn is_ready(&self) -> bool {
        let Some(status) = &self.status else { return false };
        let mut conditions = status.conditions.iter().flatten();
        status.phase.as_deref() == Some("Running") && conditions.any(|c| c.kind == "Ready" && c.status == "True")
    }
}

fn spec_replicas(scale: &Scale) -> i32 {
    scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0)
}

fn found(object: DynamicObject, replicas: i32) -> Found {
    Found {
        replicas,
        generation: object.metadata.generation,
        template: object.data.pointer("/spec/template/spec").map(Template::of),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_template_keeps_environments_and_nothing_else() {
        let spec = json!({
            "serviceAccountName": "sa",
            "volumes": [{"name": "v"}],
            "containers": [{"name": "a", "image": "x", "env": [{"name": "HOST", "value": "h"}]}, {"name": "b", "image": "y"}],
        });
        let template = Template::of(&spec);
        let mut other_image = spec.clone();
        other_image["containers"][0]["image"] = json!("z");
        assert_eq!(template, Template::of(&other_image));
        let pod = template.pod_spec().unwrap();
        assert_eq!(pod.service_account_name.as_deref(), Some("sa"));
        assert_eq!(pod.containers[0].env.as_ref().unwrap()[0].value.as_deref(), Some("h"));
        assert_eq!(pod.containers[1].name, "b");
        assert!(pod.volumes.is_none());
    }

    #[test]
    fn deployments_are_known_without_asking_the_api_server() {
        let kinds = Kinds::default();
        let resource = kinds.known("apps/v1", "Deployment").unwrap();
        assert_eq!(resource.api.plural, "deployments");
        let target = Target { resource, namespace: "shop".into(), name: "workers".into() };
        assert!(target.is_watched());
        assert_eq!(&*target.resource.kind_text, "apps/v1.Deployment");
        assert_eq!(target.describe().as_ref(), "apps/v1.Deployment shop/workers");
        assert!(kinds.known("example.com/v1", "Thing").is_none());
    }
}
