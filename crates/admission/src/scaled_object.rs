//! The rules for ScaledObjects.

use serde_json::Value;
use tidemark_api::{DEFAULT_HPA_PREFIX, SCALED_OBJECT_LABEL, ScaledObjectSpec};
use tidemark_engine::fallback::Behavior;

use crate::triggers::{self, is_resource};
use crate::{Finding, NAME_LIMIT, Path, Request, Target, Verdict, View, Workload, autoscalers, name, resources};

pub(crate) fn review(request: &Request<'_>, spec: &ScaledObjectSpec, view: &View<'_>, verdict: &mut Verdict) {
    let object = request.object;
    if let Some(target) = Workload::scaled_by(object) {
        if let Target::UnknownKind(cause) = &view.target {
            verdict.refuse(Path::of(["spec", "scaleTargetRef"]), "", *cause);
        }
        neighbours(object, &target, view, verdict);
        modifiers(spec, verdict);
        if !request.dry_run {
            resources::review(spec, &target, view, verdict);
        }
        autoscalers::review(object, &target, view, verdict);
    }
    bounds(spec, verdict);
    fallback(spec, verdict);
    names(object, verdict);
    triggers::review("ScaledObject", &spec.triggers, verdict);
    without_effect(spec, verdict);
}

/// The HPA's name that the object asks for.
pub(crate) fn hpa_name(object: &Value) -> String {
    match configured_hpa_name(object) {
        Some(name) => name.to_owned(),
        None => format!("{DEFAULT_HPA_PREFIX}{}", name(object)),
    }
}

fn has_hpa(object: &Value, hpa: &str) -> bool {
    match configured_hpa_name(object) {
        Some(name) => name == hpa,
        None => hpa.strip_prefix(DEFAULT_HPA_PREFIX) == Some(name(object)),
    }
}

pub(crate) fn configured_hpa_name(object: &Value) -> Option<&str> {
    let config = &object["spec"]["advanced"]["horizontalPodAutoscalerConfig"];
    config["name"].as_str().filter(|name| !name.is_empty())
}

/// Two objects must not scale one workload, nor share an HPA.
fn neighbours(object: &Value, target: &Workload, view: &View<'_>, verdict: &mut Verdict) {
    let own = name(object);
    let others = || view.scaled_objects.iter().filter(|other| name(other) != own);
    for other in others().filter(|other| target.is_scaled_by(other)) {
        let text = format!(
            "the workload '{}' of type '{}' is already managed by the ScaledObject '{}'",
            target.name,
            target.type_name(),
            name(other)
        );
        verdict.refuse(Path::of(["spec", "scaleTargetRef", "name"]), "other-scaled-object", text);
    }
    let hpa = hpa_name(object);
    for other in others().filter(|other| has_hpa(other, &hpa)) {
        let text = format!("the HPA '{hpa}' is already managed by the ScaledObject '{}'", name(other));
        verdict.refuse(hpa_name_path(object), "other-scaled-object-hpa", text);
    }
}

/// Where the HPA's name comes from.
fn hpa_name_path(object: &Value) -> Path {
    match configured_hpa_name(object) {
        Some(_) => Path::of(["spec", "advanced", "horizontalPodAutoscalerConfig", "name"]),
        None => Path::of(["metadata", "name"]),
    }
}

fn modifiers(spec: &ScaledObjectSpec, verdict: &mut Verdict) {
    if let Some(Err(error)) = spec.compile_modifiers() {
        let path = Path::of(["spec", "advanced", "scalingModifiers"]).key(error.field());
        let (message, reason) = (error.to_string(), Some("scaling-modifiers"));
        verdict.errors.push(Finding { path, message, reason, offset: error.offset() });
    }
    let behavior = spec.fallback.as_ref().and_then(|fallback| fallback.behavior.as_deref()).unwrap_or_default();
    if behavior == Behavior::ScalingModifiers.as_str()
        && spec.modifiers().is_none_or(|source| source.formula.is_empty())
    {
        let text = "fallback.behavior scalingModifiers needs spec.advanced.scalingModifiers.formula";
        verdict.refuse(Path::of(["spec", "fallback", "behavior"]), "scaling-modifiers-fallback", text);
    }
}

fn bounds(spec: &ScaledObjectSpec, verdict: &mut Verdict) {
    const REASON: &str = "incorrect-replicas";
    let min = spec.min_replica_count.map_or(0, |min| min.max(1));
    let max = spec.max_replicas();
    if min > max {
        let text = format!("MinReplicaCount={min} must be less than or equal to MaxReplicaCount={max}");
        verdict.refuse(Path::of(["spec", "minReplicaCount"]), REASON, text);
    }
    if let Some(idle) = spec.idle_replica_count.filter(|idle| *idle >= min) {
        let hint = if spec.min_replica_count.is_none() { ": set minReplicaCount, which is 0 when unset" } else { "" };
        let text = format!("IdleReplicaCount={idle} must be less than MinReplicaCount={min}{hint}");
        verdict.refuse(Path::of(["spec", "idleReplicaCount"]), REASON, text);
    }
}

fn fallback(spec: &ScaledObjectSpec, verdict: &mut Verdict) {
    const REASON: &str = "incorrect-fallback";
    let Some(fallback) = &spec.fallback else { return };
    let path = Path::of(["spec", "fallback"]);
    for (field, number) in [("failureThreshold", fallback.failure_threshold), ("replicas", fallback.replicas)] {
        if number < 0 {
            verdict.refuse(path.key(field), REASON, format!("{field}={number} must not be negative"));
        }
    }
    if spec.modifiers().is_none() && spec.triggers.iter().all(|trigger| is_resource(&trigger.type_)) {
        let text = "type is AverageValue required for fallback, and cpu and memory triggers alone yield no metric that it \
                    could stand in for: add another trigger, or leave the fallback out";
        verdict.refuse(path, REASON, text);
    }
}

fn names(object: &Value, verdict: &mut Verdict) {
    let own = name(object);
    if own.len() > NAME_LIMIT {
        let text = format!(
            "ScaledObject name \"{own}\" exceeds maximum length of {NAME_LIMIT} characters (it has {}), which the label \
             \"{SCALED_OBJECT_LABEL}\" holds",
            own.len()
        );
        verdict.refuse(Path::of(["metadata", "name"]), "name-too-long", text);
    }
    let hpa = hpa_name(object);
    if hpa.len() > NAME_LIMIT {
        let room = NAME_LIMIT - DEFAULT_HPA_PREFIX.len();
        let remedy = match configured_hpa_name(object) {
            Some(_) => String::new(),
            None => format!(
                "; give the object a name of at most {room} characters, or set \
                 spec.advanced.horizontalPodAutoscalerConfig.name"
            ),
        };
        let text = format!(
            "HPA name \"{hpa}\" exceeds maximum length of {NAME_LIMIT} characters (it has {}){remedy}",
            hpa.len()
        );
        verdict.refuse(hpa_name_path(object), "hpa-name-too-long", text);
    }
}

/// Settings that do nothing, because the object never goes to zero.
fn without_effect(spec: &ScaledObjectSpec, verdict: &mut Verdict) {
    let min = spec.min_replica_count.unwrap_or(0);
    if min <= 0 || spec.idle_replica_count.is_some() {
        return;
    }
    let cached = spec.triggers.iter().any(|trigger| trigger.use_cached_metrics == Some(true));
    if spec.polling_interval.is_some() && !cached {
        let text = format!(
            "PollingInterval is configured but is not relevant: with minReplicaCount={min} the target never goes to zero, \
             and the HPA asks by itself"
        );
        verdict.warn(Path::of(["spec", "pollingInterval"]), text);
    }
    if spec.cooldown_period.is_some() {
        let text = format!(
            "CooldownPeriod is configured but is not relevant: with minReplicaCount={min} the target never goes to zero"
        );
        verdict.warn(Path::of(["spec", "cooldownPeriod"]), text);
    }
}
