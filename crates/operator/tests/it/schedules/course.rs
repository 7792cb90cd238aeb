//! What must hold all along, whatever goes wrong.

use std::collections::BTreeMap;

use serde_json::Value;
use tidemark_engine::activation::Action;
use tidemark_operator::{Life, Observation, ScaleCause, What, Write};

use super::script::Script;
use super::stage::{Record, Sent};

/// Seconds that a decision may take to become a write: reads and writes that are repeated, and late news of an edit.
const LATENESS: u64 = 60;

/// When an object was active last, and what is known of that.
#[derive(Clone, Copy)]
struct Activity {
    last: u64,
    goes_on: bool,
    /// Whether its status was written since it became active.
    told: bool,
}

/// What was done that must never be done; nothing if all is well.
pub fn complaints(script: &Script, record: &Record) -> Vec<String> {
    let mut all = Vec::new();
    let mut activities: BTreeMap<&str, Activity> = BTreeMap::new();
    for observation in &record.observations {
        let second = record.second(observation.time);
        let Some(index) = script.names.iter().position(|name| *name == observation.object.name) else { continue };
        let judge = Judge { script, record, index, second };
        let known = activities.get(&*observation.uid).copied();
        let complaint = match &observation.what {
            What::Decision { action: Action::Deactivate { .. }, .. } => {
                known.and_then(|activity| judge.cooldown(observation, activity.last))
            }
            What::Write { write: Write::Scale { to, cause, .. }, .. } => judge.scale(*to, cause),
            _ => None,
        };
        all.extend(complaint.map(|text| format!("{} at {second} s: {text}", observation.object.name)));
        match after(known, observation, second) {
            Some(activity) => drop(activities.insert(&observation.uid, activity)),
            None => drop(activities.remove(&*observation.uid)),
        }
    }
    let autoscalers = record.writes.iter().filter_map(|write| autoscaler(script, record, write));
    all.extend(autoscalers);
    all
}

/// What is known of an object's activity after an observation.
fn after(known: Option<Activity>, observation: &Observation, second: u64) -> Option<Activity> {
    match &observation.what {
        What::Decision { active: true, .. } => {
            let told = known.is_some_and(|activity| activity.goes_on && activity.told);
            Some(Activity { last: second, goes_on: true, told })
        }
        What::Decision { .. } => known.map(|activity| Activity { goes_on: false, ..activity }),
        What::Write { write: Write::Status, error: None, .. } => {
            known.map(|activity| Activity { told: true, ..activity })
        }
        // What an operator could not write down, the next one cannot know.
        What::Life(Life::Started) => known.filter(|activity| activity.told),
        _ => known,
    }
}

struct Judge<'a> {
    script: &'a Script,
    record: &'a Record,
    index: usize,
    second: u64,
}

impl Judge<'_> {
    /// The specs that were in force at some time between two seconds.
    fn specs(&self, from: u64) -> Vec<&Value> {
        in_force(self.record, self.index, from, self.second)
    }

    /// Nothing may be deactivated before the cooldown since the last activity has ended.
    fn cooldown(&self, observation: &Observation, since: u64) -> Option<String> {
        let shortest = self.specs(since).iter().filter_map(|spec| spec["cooldownPeriod"].as_u64()).min()?;
        let passed = self.second - since;
        let reasons = &observation.what;
        (passed < shortest)
            .then(|| format!("deactivated {passed} s after it was active, not {shortest} s: {reasons:?}"))
    }

    fn scale(&self, to: i32, cause: &ScaleCause) -> Option<String> {
        let specs = self.specs(self.second.saturating_sub(LATENESS));
        let number = |spec: &&Value, field: &str| spec[field].as_i64().and_then(|number| i32::try_from(number).ok());
        let min = |spec: &&Value| number(spec, "minReplicaCount").unwrap_or(0);
        let allowed = match cause {
            ScaleCause::Activated { .. } => specs.iter().any(|spec| to == min(spec).max(1)),
            ScaleCause::RaisedToMinimum => specs.iter().any(|spec| to == min(spec)),
            ScaleCause::Deactivated => {
                if let Some(complaint) = self.deactivated() {
                    return Some(complaint);
                }
                specs.iter().any(|spec| to == number(spec, "idleReplicaCount").unwrap_or_else(|| min(spec)))
            }
            ScaleCause::Paused | ScaleCause::Restored => (0..=15).contains(&to),
        };
        (!allowed).then(|| format!("scaled to {to} ({cause:?}) under {specs:?}"))
    }

    /// To zero or idle only while every source was read lately and was quiet.
    fn deactivated(&self) -> Option<String> {
        let longest = self
            .specs(self.second.saturating_sub(LATENESS))
            .iter()
            .filter_map(|s| s["pollingInterval"].as_u64())
            .max()?;
        let from = self.second.saturating_sub(longest + LATENESS);
        let specs = self.specs(from);
        let modified = specs.iter().any(|spec| !spec["advanced"]["scalingModifiers"].is_null());
        let thresholds = |spec: &Value, url: &str| {
            let triggers = spec["triggers"].as_array().into_iter().flatten();
            let metadata = triggers.map(|trigger| &trigger["metadata"]).find(|metadata| metadata["url"] == url)?;
            metadata["activationTargetValue"].as_str()?.parse::<f64>().ok()
        };
        for trigger in 0..3 {
            let path = super::script::path(self.index, trigger);
            let url = format!("http://source/{path}");
            // Only what every spec of that time has.
            let highest: Option<Vec<f64>> = specs.iter().map(|spec| thresholds(spec, &url)).collect();
            let Some(highest) = highest.map(|all| all.into_iter().fold(0.0, f64::max)) else { continue };
            let threshold = if modified { f64::INFINITY } else { highest };
            if !self.script.was_quiet(&path, from, self.second, threshold) {
                return Some(format!("deactivated though {path} was not quiet since {from} s"));
            }
        }
        None
    }
}

/// The specs of an object that were in force at some time between two seconds, both included.
fn in_force(record: &Record, index: usize, from: u64, until: u64) -> Vec<&Value> {
    let specs = &record.lives[index].specs;
    let ends = specs.iter().skip(1).map(|(second, _)| *second).chain([u64::MAX]);
    specs
        .iter()
        .zip(ends)
        .filter(|((start, _), end)| *start <= until && from <= *end)
        .map(|((_, spec), _)| spec)
        .collect()
}

/// An HPA has the bounds of a spec that the object had.
fn autoscaler(script: &Script, record: &Record, write: &Sent) -> Option<String> {
    if !write.path.contains("/horizontalpodautoscalers") || !matches!(write.method.as_str(), "POST" | "PUT") {
        return None;
    }
    let body: Value = serde_json::from_str(&write.body).ok()?;
    let index = script.names.iter().position(|name| body["spec"]["scaleTargetRef"]["name"] == **name)?;
    let bounds =
        |spec: &&Value| (spec["minReplicaCount"].as_i64().map(|min| min.max(1)), spec["maxReplicaCount"].as_i64());
    let written = (body["spec"]["minReplicas"].as_i64(), body["spec"]["maxReplicas"].as_i64());
    let second = write.second;
    let known =
        in_force(record, index, second.saturating_sub(LATENESS), second).iter().any(|spec| bounds(spec) == written);
    (!known).then(|| format!("{} at {second} s: an HPA with bounds {written:?}", script.names[index]))
}
