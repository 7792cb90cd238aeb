//! The objects whose triggers are read, and the workloads that they scale.

use k8s_openapi::api::core::v1::PodSpec;
use kube::api::{Api, DynamicObject, GetParams, GroupVersionKind};
use kube::core::Request;
use serde_json::Value;
use tidemark_api::{ScaleTarget, ScaleTriggers, ScaledJob, ScaledObject};

use super::World;
use crate::lint::{Linter, Rules, input};

/// A ScaledObject or ScaledJob of the files.
pub(super) struct Object<'a> {
    pub(super) read: &'a input::Object,
    pub(super) scaled: Scaled,
}

/// What is scaled.
pub(super) enum Scaled {
    Workload(Box<ScaledObject>),
    Jobs(Box<ScaledJob>),
}

/// An object that the API server would refuse, by its index among those of the files.
pub(super) struct Invalid(usize);

/// What is known of the workload behind an object.
#[derive(Debug, Default)]
pub(super) struct Target {
    /// The replicas that it has; none where only the cluster could tell, and was not asked or does not know.
    pub(super) replicas: Option<i32>,
    pub(super) pod: Option<PodSpec>,
    /// Why it is not known.
    pub(super) missing: Option<String>,
}

/// Puts an object that names no namespace into one.
pub(super) fn give_namespace(object: &mut Value, namespace: Option<&str>) {
    let Some(namespace) = namespace else { return };
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if metadata.get("namespace").and_then(Value::as_str).is_none_or(str::is_empty) {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
}

/// The objects with triggers, and those that cannot be read as such.
pub(super) fn find(input: &input::Input) -> (Vec<Object<'_>>, Vec<Invalid>) {
    let (mut objects, mut invalid) = (Vec::new(), Vec::new());
    for (index, read) in input.objects.iter().enumerate() {
        if !read.api_version().starts_with("keda.sh/") {
            continue;
        }
        let value = || read.value.clone();
        let scaled = match read.kind() {
            "ScaledObject" => serde_json::from_value(value()).map(|object| Scaled::Workload(Box::new(object))),
            "ScaledJob" => serde_json::from_value(value()).map(|object| Scaled::Jobs(Box::new(object))),
            _ => continue,
        };
        match scaled {
            Ok(scaled) => objects.push(Object { read, scaled }),
            // The parser's own words quote values.
            Err(_) => invalid.push(Invalid(index)),
        }
    }
    (objects, invalid)
}

/// What is wrong with the invalid objects: the lines that `tidemark lint` has for them.
///
/// # Errors
/// Our own definitions are not sound, which tests of this program exclude.
pub(super) async fn explain(
    input: &input::Input,
    invalid: &[Invalid],
    cluster_object_namespace: &str,
) -> anyhow::Result<Vec<String>> {
    if invalid.is_empty() {
        return Ok(Vec::new());
    }
    let rules = Rules { strict: false, cluster_object_namespace: cluster_object_namespace.to_owned() };
    let found = Linter::new()?.check(input, &rules).await;
    let mut lines = Vec::new();
    for Invalid(index) in invalid {
        let object = &input.objects[*index];
        let same = found.documents.iter().filter(|document| {
            document.file == object.file && document.kind == object.kind() && document.name == object.name()
        });
        let errors = same.flat_map(|document| {
            document.errors.iter().chain(document.triggers.iter().flat_map(|trigger| &trigger.errors))
        });
        let told = lines.len();
        lines.extend(errors.map(|error| {
            format!("{}:{}:{}: error: {}: {}", object.file, error.line, error.column, error.path, error.message)
        }));
        if lines.len() == told {
            let (file, line, kind) = (&object.file, object.node.at.line, object.kind());
            lines.push(format!("{file}:{line}: error: the {kind} {} cannot be read", object.name()));
        }
    }
    Ok(lines)
}

impl Object<'_> {
    /// Its triggers, in their order.
    pub(super) fn triggers(&self) -> &[ScaleTriggers] {
        match &self.scaled {
            Scaled::Workload(object) => &object.spec.triggers,
            Scaled::Jobs(object) => &object.spec.triggers,
        }
    }

    /// The container whose environment counts; the first one without a name.
    pub(super) fn container(&self) -> Option<&str> {
        let name = match &self.scaled {
            Scaled::Workload(object) => &object.spec.scale_target_ref.env_source_container_name,
            Scaled::Jobs(object) => &object.spec.env_source_container_name,
        };
        name.as_deref().filter(|name| !name.is_empty())
    }

    /// Whether the triggers' values go into a formula.
    pub(super) fn for_formula(&self) -> bool {
        match &self.scaled {
            Scaled::Workload(object) => object.spec.modifiers().is_some_and(|source| !source.formula.is_empty()),
            Scaled::Jobs(_) => false,
        }
    }

    /// The workload, from the files or else from the cluster.
    pub(super) async fn target(&self, world: &World, input: &input::Input) -> Target {
        let object = match &self.scaled {
            Scaled::Jobs(object) => {
                return Target { pod: pod(&object.spec.job_target_ref), ..Target::default() };
            }
            Scaled::Workload(object) => object,
        };
        let reference = &object.spec.scale_target_ref;
        let namespace = self.read.home();
        let among_files = input.objects.iter().rev().find(|other| {
            other.api_version() == reference.api_version()
                && other.kind() == reference.kind()
                && other.name() == reference.name
                && other.home() == namespace
        });
        let title = format!("{} {namespace}/{}", reference.kind(), reference.name);
        if world.has_cluster {
            return match tokio::time::timeout(world.limit, read(world, reference, namespace)).await {
                // A file says what the pods will be; how many there are only the cluster knows.
                Ok(Ok(found)) => {
                    Target { pod: among_files.map_or(found.pod, |file| pod(&file.value["spec"])), ..found }
                }
                _ if among_files.is_some() => {
                    Target { pod: among_files.and_then(|file| pod(&file.value["spec"])), ..Target::default() }
                }
                Ok(Err(cause)) => Target { missing: Some(format!("{title}: {cause}")), ..Target::default() },
                Err(_) => Target { missing: Some(format!("{title}: no answer in time")), ..Target::default() },
            };
        }
        match among_files {
            Some(file) => Target { pod: pod(&file.value["spec"]), ..Target::default() },
            None => Target { missing: Some(format!("{title} is not among the files")), ..Target::default() },
        }
    }
}

/// A workload of the cluster.
async fn read(world: &World, reference: &ScaleTarget, namespace: &str) -> Result<Target, String> {
    let (group, version) = reference.api_version().split_once('/').unwrap_or(("", reference.api_version()));
    let kind = GroupVersionKind::gvk(group, version, reference.kind());
    let failed = |error: kube::Error| crate::apply::sentence(&error);
    let (resource, _) = kube::discovery::pinned_kind(&world.client, &kind).await.map_err(failed)?;
    let api = Api::<DynamicObject>::namespaced_with(world.client.clone(), namespace, &resource);
    let request = Request::new(api.resource_url()).get(&reference.name, &GetParams::default());
    let request = request.map_err(|error| error.to_string())?;
    // Not kube's own parsing: on a failure it would log the whole object, environments included.
    let text = world.client.request_text(request).await.map_err(failed)?;
    let object: Value = serde_json::from_str(&text).map_err(|_| "the answer is no object".to_owned())?;
    let replicas = object.pointer("/spec/replicas").and_then(Value::as_i64).and_then(|count| i32::try_from(count).ok());
    Ok(Target { replicas, pod: pod(&object["spec"]), missing: None })
}

/// The pod template of a workload's specification.
fn pod(spec: &Value) -> Option<PodSpec> {
    serde_json::from_value(spec.pointer("/template/spec")?.clone()).ok()
}
