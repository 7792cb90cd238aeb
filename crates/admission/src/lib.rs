//! Which objects of ours are admitted: `(object, old object, dry run, a view of the cluster) -> verdict`. Pure, so that
//! the webhook, the sandbox and `lint` say the same.
//!
//! What the CustomResourceDefinitions refuse is not repeated here: the API server checks it before it asks. Nor is
//! anything about a trigger's parameters: an object whose triggers cannot be built is admitted and not ready, as with KEDA.

mod authentication;
mod autoscalers;
mod event_source;
mod neighbours;
mod path;
mod resources;
mod scaled_object;
mod triggers;
mod workload;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tidemark_api::{
    AuthenticationSpec, CloudEventSourceSpec, EVENTING_GROUP, GROUP, ScaledJobSpec, ScaledObjectSpec, VERSION,
    annotations,
};

pub use neighbours::{Near, Neighbour, Neighbours, reduced};
pub use path::{Path, Step};
pub use workload::Workload;

/// The kinds that are reviewed, with the group of each.
pub const KINDS: [(&str, &str); 6] = [
    (GROUP, "ScaledObject"),
    (GROUP, "ScaledJob"),
    (GROUP, "TriggerAuthentication"),
    (GROUP, "ClusterTriggerAuthentication"),
    (EVENTING_GROUP, "CloudEventSource"),
    (EVENTING_GROUP, "ClusterCloudEventSource"),
];

/// The longest name that a label can hold, in bytes.
const NAME_LIMIT: usize = 63;

/// One write of an object.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The object as it would be stored, defaults of its CustomResourceDefinition filled in.
    pub object: &'a Value,
    /// The object as it is stored; `None` for a creation.
    pub old: Option<&'a Value>,
    /// Nothing will be stored.
    pub dry_run: bool,
}

/// What the rules see of the cluster. Lists hold objects of the object's own namespace; those that have nothing to do
/// with it, and the object itself, may be among them.
#[derive(Clone, Copy, Debug, Default)]
pub struct View<'a> {
    /// What is known of a ScaledObject's target.
    pub target: Target<'a>,
    /// ScaledObjects.
    pub scaled_objects: &'a [Value],
    /// HorizontalPodAutoscalers.
    pub autoscalers: &'a [Value],
    /// LimitRanges.
    pub limit_ranges: &'a [Value],
}

/// What is known of a scale target.
#[derive(Clone, Copy, Debug, Default)]
pub enum Target<'a> {
    /// Nothing but that its kind exists. Rules about its pods are not applied.
    #[default]
    Unread,
    /// The cluster has no such kind; the text says so.
    UnknownKind(&'a str),
    /// It is not there, or could not be read; the text says so.
    Unreadable(&'a str),
    /// The workload.
    Found(&'a Value),
}

/// What must be read of the cluster before a review.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The scale target, whose kind must be resolved, unless it [is well known](Workload::is_well_known).
    pub target: Option<Workload>,
    /// [`View::target`] must hold the workload itself, and [`View::limit_ranges`] the namespace's.
    pub pods: bool,
    /// [`View::scaled_objects`] and [`View::autoscalers`] must be filled.
    pub neighbours: bool,
}

/// Something to say about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The field at fault.
    pub path: Path,
    /// What is wrong with it, and what would be right.
    pub message: String,
    /// The value of the metric label `reason`; none where KEDA has none.
    pub reason: Option<&'static str>,
    /// Where in the text of the field the mistake is, in bytes from its start; none where it has no place of its own.
    pub offset: Option<usize>,
}

/// The outcome of a review.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why the object is refused, in the order of the rules; empty when it is admitted.
    pub errors: Vec<Finding>,
    /// What the writer is to be told when it is admitted.
    pub warnings: Vec<Finding>,
}

impl Verdict {
    /// Whether the object may be stored.
    pub fn admitted(&self) -> bool {
        self.errors.is_empty()
    }

    fn refuse(&mut self, path: Path, reason: &'static str, message: impl Into<String>) {
        let reason = (!reason.is_empty()).then_some(reason);
        self.errors.push(Finding { path, message: message.into(), reason, offset: None });
    }

    fn warn(&mut self, path: Path, message: impl Into<String>) {
        self.warnings.push(Finding { path, message: message.into(), reason: None, offset: None });
    }
}

/// What a review of this write looks at.
pub fn needs(request: &Request<'_>) -> Needs {
    if kind(request.object) != Some("ScaledObject") || is_exempt(request) {
        return Needs::default();
    }
    let Some(target) = Workload::scaled_by(request.object) else { return Needs::default() };
    let types = request.object["spec"]["triggers"].as_array().into_iter().flatten();
    let mut resources = types.filter(|trigger| trigger["type"].as_str().is_some_and(triggers::is_resource));
    let pods = !request.dry_run && target.has_pods() && resources.next().is_some();
    Needs { target: Some(target), pods, neighbours: true }
}

/// Reviews a write. Objects of other kinds than [`KINDS`] are admitted unseen.
pub fn review(request: &Request<'_>, view: &View<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let Some(kind) = kind(request.object).filter(|_| !is_exempt(request)) else { return verdict };
    let object = request.object;
    match kind {
        "ScaledObject" => {
            if let Some(spec) = spec::<ScaledObjectSpec>(object, &mut verdict) {
                scaled_object::review(request, &spec, view, &mut verdict);
            }
        }
        // Its definition requires no spec.
        "ScaledJob" if object.get("spec").is_none() => triggers::review(kind, &[], &mut verdict),
        "ScaledJob" => {
            if let Some(spec) = spec::<ScaledJobSpec>(object, &mut verdict) {
                triggers::review(kind, &spec.triggers, &mut verdict);
                long_name(name(object), &mut verdict);
            }
        }
        "TriggerAuthentication" | "ClusterTriggerAuthentication" => {
            if let Some(spec) = spec::<AuthenticationSpec>(object, &mut verdict) {
                authentication::review(&spec, &mut verdict);
            }
        }
        _ => {
            if let Some(spec) = spec::<CloudEventSourceSpec>(object, &mut verdict) {
                event_source::review(&spec, &mut verdict);
            }
        }
    }
    verdict
}

/// The kind, where it is one of ours.
fn kind(object: &Value) -> Option<&'static str> {
    let (group, version) = object["apiVersion"].as_str()?.split_once('/')?;
    let kind = object["kind"].as_str()?;
    let known = KINDS.iter().find(|known| **known == (group, kind));
    known.filter(|_| version == VERSION).map(|(_, kind)| *kind)
}

/// Whether nothing has changed that a rule looks at. A label, or the operator's finalizer, must always be possible, be
/// the object right or wrong.
fn is_exempt(request: &Request<'_>) -> bool {
    let transfer = |object: &Value| object["metadata"]["annotations"][annotations::TRANSFER_HPA_OWNERSHIP].clone();
    request.old.is_some_and(|old| old["spec"] == request.object["spec"] && transfer(old) == transfer(request.object))
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Reads the specification. The cause of a failure is not told, since it quotes values.
fn spec<T: DeserializeOwned>(object: &Value, verdict: &mut Verdict) -> Option<T> {
    match serde_path_to_error::deserialize(&object["spec"]) {
        Ok(spec) => Some(spec),
        Err(error) => {
            let path = Path::of(["spec"]).joined(error.path());
            verdict.refuse(path, "", "this cannot be read: a field is missing or has another type than it must have");
            None
        }
    }
}

/// Nothing refuses a ScaledJob for its name, but a label with it cannot be written.
fn long_name(name: &str, verdict: &mut Verdict) {
    if name.len() > NAME_LIMIT {
        let text = format!(
            "the name has {} characters; its Jobs are labelled with it, and a label holds {NAME_LIMIT} at most",
            name.len()
        );
        verdict.warn(Path::of(["metadata", "name"]), text);
    }
}
