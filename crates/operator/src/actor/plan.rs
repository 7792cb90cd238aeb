//! What is needed of a specification between two checks, in little room.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidemark_api::{ScaleTriggers, ScaledObjectSpec};
use tidemark_engine::activation::Policy;
use tidemark_engine::fallback::Fallback;

use super::trigger::needs_resolution;
use crate::texts::Text;

/// What an object's specification asks for.
pub(super) struct Plan {
    pub(super) policy: Policy,
    /// Time between two polls.
    pub(super) interval: Duration,
    /// A fallback that can be used.
    pub(super) fallback: Option<Fallback>,
    /// Kind and name of the target for people.
    pub(super) target: Text,
    /// The triggers whose parameters come from elsewhere than their metadata; the others have served their turn once
    /// they are built.
    pub(super) triggers: Arc<Definitions>,
}

/// Definitions of triggers, and what building them takes of the object.
#[derive(Debug)]
pub(crate) struct Definitions {
    /// The container whose environment counts; the first one without a name.
    pub(super) env_container: Option<Box<str>>,
    /// The triggers' values go into a formula.
    pub(super) for_formula: bool,
    /// By index.
    pub(super) triggers: Box<[Option<Box<ScaleTriggers>>]>,
}

impl Plan {
    pub(super) fn new(spec: &ScaledObjectSpec, created: Timestamp) -> Self {
        let target = format!("{}/{}", spec.scale_target_ref.kind(), spec.scale_target_ref.name);
        Self {
            policy: spec.policy(created),
            interval: spec.polling_interval(),
            fallback: spec.fallback(),
            target: target.into(),
            triggers: Arc::new(Definitions::of(spec, needs_resolution)),
        }
    }

    /// Whether the trigger's parameters come from elsewhere.
    pub(super) fn resolves(&self, index: usize) -> bool {
        self.triggers.triggers.get(index).is_some_and(Option::is_some)
    }
}

impl Definitions {
    /// All triggers of a specification.
    pub(super) fn all(spec: &ScaledObjectSpec) -> Self {
        Self::of(spec, |_| true)
    }

    fn of(spec: &ScaledObjectSpec, keep: impl Fn(&ScaleTriggers) -> bool) -> Self {
        let container = spec.scale_target_ref.env_source_container_name.as_deref().filter(|name| !name.is_empty());
        let kept = |trigger: &ScaleTriggers| keep(trigger).then(|| Box::new(trigger.clone()));
        Self {
            env_container: container.map(Into::into),
            for_formula: spec.modifiers().is_some_and(|modifiers| !modifiers.formula.is_empty()),
            triggers: spec.triggers.iter().map(kept).collect(),
        }
    }
}
