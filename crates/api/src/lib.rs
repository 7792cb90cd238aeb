//! The custom resources of `keda.sh/v1alpha1` and `eventing.keda.sh/v1alpha1`: types, defaults,
//! CustomResourceDefinitions, annotations, and the one conversion into the engine's terms.
//!
//! The types hold whatever KEDA writes: fields that are not known here are kept ([`UnknownFields`]), so that reading an
//! object and writing it again loses nothing. Enumerations are texts, since a newer KEDA may know more words; what a word means is decided
//! where it is used. Only the kind of an authentication reference is an enumeration: what is of another kind cannot be
//! looked up.

// Each print column is an attribute of the same name.
#![allow(clippy::duplicated_attributes)]

pub mod annotations;
pub mod authentication;
pub mod behavior;
pub mod cloud_event_source;
mod core_schema;
mod crd;
mod scale_trigger;
pub mod scaled_job;
pub mod scaled_object;
mod status;
mod unknown;

pub use authentication::{
    AuthenticationSpec, AuthenticationStatus, ClusterTriggerAuthentication, PodIdentity, TriggerAuthentication,
};
pub use behavior::HpaBehavior;
pub use cloud_event_source::{
    CloudEventSource, CloudEventSourceSpec, CloudEventSourceStatus, ClusterCloudEventSource, Destination, EVENT_TYPES,
    EventSubscription,
};
pub use crd::crds;
pub use scale_trigger::{AuthenticationKind, AuthenticationRef, ScaleTriggers};
pub use scaled_job::{Rollout, ScaledJob, ScaledJobSpec, ScaledJobStatus, ScalingStrategy};
pub use scaled_object::{
    Advanced, Fallback, HpaConfig, ScaleTarget, ScaledObject, ScaledObjectSpec, ScaledObjectStatus, ScalingModifiers,
};
pub use status::{Condition, TriggerActivity};
pub use tidemark_engine::scaled_job::SCALED_JOB_LABEL;
pub use unknown::UnknownFields;

/// API group of the scaling kinds.
pub const GROUP: &str = "keda.sh";
/// API group of the event sources.
pub const EVENTING_GROUP: &str = "eventing.keda.sh";
/// The only served version of both groups.
pub const VERSION: &str = "v1alpha1";
/// Finalizer that the operator puts on every kind of both groups.
pub const FINALIZER: &str = "finalizer.keda.sh";
/// Label with the ScaledObject's name: on the ScaledObject, its HPA and in the selector of external metrics.
pub const SCALED_OBJECT_LABEL: &str = "scaledobject.keda.sh/name";
/// An HPA without a configured name is called this and the ScaledObject's name.
pub const DEFAULT_HPA_PREFIX: &str = "keda-hpa-";
