//! What the values that were read would mean for the object.

use jiff::Timestamp;
use tidemark_engine::activation::{Outcome as Known, TriggerState};
use tidemark_engine::composite::{Composite, Input, Modifiers};
use tidemark_engine::scaled_job::{self, Counts, Metric};
use tidemark_engine::{metric::Target, quantity};
use tidemark_trigger::{MetricSpec, MetricType};

use super::object::{Object, Scaled, Target as Workload};
use super::report::{Document, Outlook};
use super::trigger::{Outcome, Probed};

/// The document of an object whose triggers were read at `now`.
pub(super) fn document(object: &Object<'_>, target: &Workload, triggers: Vec<Probed>, now: Timestamp) -> Document {
    let outlook = match &object.scaled {
        Scaled::Workload(scaled) => outlook(scaled, &triggers, now),
        Scaled::Jobs(scaled) => jobs(scaled, &triggers, now),
    };
    Document {
        file: object.read.file.clone(),
        kind: object.read.kind().to_owned(),
        namespace: object.read.home().to_owned(),
        name: object.read.name().to_owned(),
        present: target.replicas,
        triggers,
        outlook,
    }
}

fn outlook(object: &tidemark_api::ScaledObject, triggers: &[Probed], now: Timestamp) -> Outlook {
    let policy = object.spec.policy(now);
    let inputs: Vec<Input> = triggers.iter().flat_map(inputs).collect();
    if let Some(source) = object.spec.modifiers() {
        let names: Vec<&str> = inputs.iter().filter_map(|input| input.name.as_deref()).collect();
        let modifiers = match Modifiers::build(source, &names) {
            Ok(modifiers) => modifiers,
            Err(error) => return Outlook::Unknown(format!("advanced.scalingModifiers: {error}")),
        };
        let composite = modifiers.evaluate(&inputs, None);
        return of_composite(&policy, &composite, modifiers.target());
    }
    let failed = triggers.iter().any(Probed::has_failed);
    if inputs.iter().any(|input| input.state.outcome.is_active()) {
        return Outlook::Active(replicas(&policy, triggers));
    }
    match (failed, inputs.is_empty()) {
        (true, _) => Outlook::Unknown("a trigger could not be read, and no other one is active".to_owned()),
        (false, true) => Outlook::Active(None),
        (false, false) => Outlook::Quiet(policy.rest_replicas()),
    }
}

/// The Jobs that would be started if none ran.
fn jobs(object: &tidemark_api::ScaledJob, triggers: &[Probed], now: Timestamp) -> Outlook {
    let metrics = |probed: &Probed| {
        let targets = probed.metrics.iter().filter_map(target);
        inputs(probed).into_iter().zip(targets).map(|(input, target)| Metric { state: input.state, target }).collect()
    };
    let metrics: Vec<Vec<Metric>> = triggers.iter().map(metrics).collect();
    let decision = scaled_job::decide(&object.spec.policy(), &metrics, Some(Counts { running: 0, pending: 0 }), now);
    if triggers.iter().any(Probed::has_failed) && !decision.active {
        return Outlook::Unknown("a trigger could not be read, and no other one is active".to_owned());
    }
    Outlook::Jobs { start: decision.start, active: decision.active }
}

fn target(metric: &MetricSpec) -> Option<Target> {
    match metric {
        MetricSpec::External { metric_type: MetricType::AverageValue, target_milli, .. } => {
            Some(Target::AverageValue(*target_milli))
        }
        MetricSpec::External { metric_type: MetricType::Value, target_milli, .. } => Some(Target::Value(*target_milli)),
        MetricSpec::Resource { .. } => None,
    }
}

/// What the formula of the scaling modifiers is given.
fn inputs(probed: &Probed) -> Vec<Input> {
    let names = probed.metrics.iter().filter_map(MetricSpec::external_name);
    let state = |at: usize, name: &std::sync::Arc<str>| {
        let outcome = match &probed.outcome {
            Outcome::Read { readings, .. } => match readings.get(at) {
                Some(reading) => Known::Read { value: reading.value, active: reading.active },
                None => Known::Unknown,
            },
            Outcome::Failed { error, .. } => Known::Failed { error: error.to_string().into() },
            Outcome::ByHpa => Known::Unknown,
        };
        Input { name: probed.name.clone(), state: TriggerState { metric: name.clone(), outcome } }
    };
    let known: Vec<Input> = names.enumerate().map(|(at, name)| state(at, name)).collect();
    match (&probed.outcome, known.is_empty()) {
        // It has not told its metrics, and is a failure all the same.
        (Outcome::Failed { error, .. }, true) => {
            let outcome = Known::Failed { error: error.to_string().into() };
            let metric = probed.type_.as_str().into();
            vec![Input { name: probed.name.clone(), state: TriggerState { metric, outcome } }]
        }
        _ => known,
    }
}

fn of_composite(policy: &tidemark_engine::activation::Policy, composite: &Composite, target: Target) -> Outlook {
    match &composite.outcome {
        Known::Failed { error } => Outlook::Unknown(error.to_string()),
        outcome if outcome.is_active() => {
            let wanted = match (outcome.served(), target) {
                (Ok(milli), Target::AverageValue(target)) => Some(bounded(policy, proposal(milli, target))),
                _ => None,
            };
            Outlook::Active(wanted)
        }
        Known::Read { .. } => Outlook::Quiet(policy.rest_replicas()),
        _ => Outlook::Unknown("not every trigger of the formula could be read".to_owned()),
    }
}

/// The replicas that the HPA would ask for in the end: the largest proposal of the metrics, within the bounds. `None` where
/// one of them depends on the replicas and pods that there are: a target of type `Value`, cpu, memory.
fn replicas(policy: &tidemark_engine::activation::Policy, triggers: &[Probed]) -> Option<i32> {
    let mut wanted = 0;
    for probed in triggers {
        let Outcome::Read { readings, .. } = &probed.outcome else { return None };
        for (metric, reading) in probed.metrics.iter().zip(readings) {
            let MetricSpec::External { metric_type: MetricType::AverageValue, target_milli, .. } = metric else {
                return None;
            };
            wanted = wanted.max(proposal(quantity::from_f64(reading.value), *target_milli));
        }
    }
    Some(bounded(policy, wanted))
}

/// Replicas for a value and a target per replica, both in thousandths, as the HPA counts: rounded up.
fn proposal(value: i64, target: i64) -> i32 {
    let (value, target) = (value.max(0), target.max(1));
    let rounded = value / target + i64::from(value % target != 0);
    i32::try_from(rounded).unwrap_or(i32::MAX)
}

fn bounded(policy: &tidemark_engine::activation::Policy, wanted: i32) -> i32 {
    let (min, max) = policy.hpa_bounds();
    wanted.min(max).max(min)
}
