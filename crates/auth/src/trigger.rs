//! From the definition of a trigger to all that it is parsed from.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodSpec;
use tidemark_api::ScaleTriggers;
use tidemark_trigger::{Secret, TriggerInput};

use crate::{AuthError, Resolved, Resolver};

/// Where a trigger stands.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Namespace of the ScaledObject or ScaledJob.
    pub namespace: &'a str,
    /// Its name.
    pub object: &'a str,
    /// 0-based position in `spec.triggers`.
    pub index: usize,
    /// The object's triggers feed a formula.
    pub for_formula: bool,
}

impl Place<'_> {
    /// What a trigger here is parsed from, with what came from its authentication and its target's environment.
    pub fn input(
        self,
        trigger: &ScaleTriggers,
        auth: BTreeMap<String, Secret>,
        env: BTreeMap<String, Secret>,
        pod_identity: Option<String>,
    ) -> TriggerInput {
        TriggerInput {
            index: self.index,
            trigger_type: trigger.type_.clone(),
            name: trigger.name.clone(),
            metadata: trigger.metadata.clone(),
            auth,
            env,
            pod_identity,
            metric_type: trigger.metric_type.clone(),
            as_metric_source: self.for_formula,
            namespace: self.namespace.to_owned(),
            object: self.object.to_owned(),
        }
    }
}

/// Whether a parameter of the trigger is taken from the environment of the scale target.
pub fn needs_environment(trigger: &ScaleTriggers) -> bool {
    trigger.metadata.keys().any(|key| key.ends_with("FromEnv"))
}

impl Resolver {
    /// What a trigger is parsed from, read now, and what could not be found, as in [`Resolved::missing`]. `pod` is the
    /// scale target's pod template, and `container` the one of its containers that gives the environment: the first where
    /// it is unset.
    ///
    /// # Errors
    /// As [`Resolver::resolve`] and [`Resolver::container_env`].
    pub async fn trigger_input(
        &self,
        place: Place<'_>,
        trigger: &ScaleTriggers,
        pod: Option<&PodSpec>,
        container: Option<&str>,
    ) -> Result<(TriggerInput, Vec<String>), AuthError> {
        let env = match pod.filter(|_| needs_environment(trigger)) {
            Some(pod) => self.container_env(place.namespace, pod, container).await?,
            None => BTreeMap::new(),
        };
        let Resolved { parameters, pod_identity, missing } = match &trigger.authentication_ref {
            Some(reference) => self.resolve(place.namespace, reference, pod).await?,
            None => Resolved::default(),
        };
        Ok((place.input(trigger, parameters, env, pod_identity), missing))
    }
}
