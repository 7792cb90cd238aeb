//! The custom resources of `keda.sh/v1alpha1`: types, defaults, CustomResourceDefinitions, annotations, and the one
//! conversion into the engine's terms.

// Each print column is an attribute of the same name.
#![allow(clippy::duplicated_attributes)]

pub mod annotations;
pub mod authentication;
pub mod behavior;
mod crd;
pub mod scaled_object;

pub use authentication::{
    AuthenticationSpec, AuthenticationStatus, ClusterTriggerAuthentication, PodIdentity, TriggerAuthentication,
};
pub use behavior::HpaBehavior;
pub use crd::crds;
pub use scaled_object::{
    Advanced, AuthenticationKind, AuthenticationRef, Condition, Fallback, HpaConfig, ScaleTarget, ScaleTriggers,
    ScaledObject, ScaledObjectSpec, ScaledObjectStatus, ScalingModifiers,
};

/// API group of the scaling kinds.
pub const GROUP: &str = "keda.sh";
/// The only served version.
pub const VERSION: &str = "v1alpha1";
/// Finalizer that the operator puts on every kind of the group.
pub const FINALIZER: &str = "finalizer.keda.sh";
/// Label with the ScaledObject's name: on the ScaledObject, its HPA and in the selector of external metrics.
pub const SCALED_OBJECT_LABEL: &str = "scaledobject.keda.sh/name";
/// An HPA without a configured name is called this and the ScaledObject's name.
pub const DEFAULT_HPA_PREFIX: &str = "keda-hpa-";
