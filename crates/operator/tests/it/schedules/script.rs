//! What a seed makes up: a few ScaledObjects, what their sources say and when, and what people do to them meanwhile.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::draw::Draw;

/// The source answers within this, or it counts as failed.
pub const SOURCE_DEADLINE: u64 = 3;

/// A world's whole course.
#[derive(Debug)]
pub struct Script {
    pub seed: u64,
    /// Names of the objects, each with a workload of the same name.
    pub names: Vec<String>,
    /// What each path of the source says, from which second on.
    pub sources: BTreeMap<String, Vec<(u64, Says)>>,
    /// What is done at which second, in order. All of it is done while the API server fails.
    pub deeds: Vec<(u64, Deed)>,
    /// Seconds for which the API server fails and people meddle.
    pub trouble: u64,
}

/// What a path of the source says.
#[derive(Clone, Debug, PartialEq)]
pub enum Says {
    Value(f64),
    /// It takes so many seconds, then the value.
    Slow(u64, f64),
    Refused,
    Status(u16),
    Garbage,
}

impl Says {
    /// The value that a reader gets.
    pub fn value(&self) -> Option<f64> {
        match self {
            Self::Value(value) => Some(*value),
            Self::Slow(seconds, value) => (*seconds < SOURCE_DEADLINE).then_some(*value),
            Self::Refused | Self::Status(_) | Self::Garbage => None,
        }
    }
}

/// What somebody does.
#[derive(Clone, Debug)]
pub enum Deed {
    /// Creates the object with this spec, or replaces the spec that it has.
    Put(usize, Value),
    /// Sets the pause annotations to these.
    Annotate(usize, Value),
    Delete(usize),
    MakeWorkload(usize, u64),
    DeleteWorkload(usize),
    ScaleByHand(usize, u64),
    DeleteHpa(usize),
    SpoilHpa(usize),
    RotateToken(u64),
    /// The operator is away for so many seconds; killed, it cannot finish what it does.
    Restart {
        away: u64,
        killed: bool,
    },
}

/// Annotations by which scaling is steered.
const STEERING: [&str; 5] = [
    "autoscaling.keda.sh/paused",
    "autoscaling.keda.sh/paused-replicas",
    "autoscaling.keda.sh/paused-scale-in",
    "autoscaling.keda.sh/paused-scale-out",
    "autoscaling.keda.sh/force-activation",
];

/// The path of an object's trigger.
pub fn path(object: usize, trigger: usize) -> String {
    format!("w{object}/{trigger}")
}

impl Script {
    pub fn of(seed: u64) -> Self {
        let mut draw = Draw::new(seed);
        let count = draw.of(&[1, 1, 2, 2, 3, 3, 4, 5]);
        let trouble = draw.from(100, 200);
        let mut deeds = Vec::new();
        let mut sources = BTreeMap::new();
        for object in 0..count {
            deeds.push((0, Deed::MakeWorkload(object, draw.from(0, 4))));
            deeds.push((draw.from(0, 60), Deed::Put(object, spec(&mut draw, object))));
            for trigger in 0..3 {
                sources.insert(path(object, trigger), source(&mut draw, trouble));
            }
        }
        for _ in 0..draw.from(3, 6 + 2 * count as u64) {
            let at = draw.from(20, trouble - 10);
            let object = draw.from(0, count as u64 - 1) as usize;
            deeds.extend(deed(&mut draw, object, at, trouble));
        }
        deeds.sort_by_key(|(at, _)| *at);
        let names = (0..count).map(|object| format!("w{object}")).collect();
        Self { seed, names, sources, deeds, trouble }
    }

    /// What a path says at a second.
    pub fn says(&self, path: &str, second: u64) -> Says {
        let course = &self.sources[path];
        course.iter().rev().find(|(from, _)| *from <= second).map_or(Says::Refused, |(_, says)| says.clone())
    }

    /// Whether somebody scaled the object's workload by hand, or made it anew, after its annotations were set last.
    pub fn is_scaled_behind_a_pause(&self, object: usize) -> bool {
        let last = |wanted: &dyn Fn(&Deed) -> bool| self.deeds.iter().rposition(|(_, deed)| wanted(deed));
        let set = last(&|deed| matches!(deed, Deed::Annotate(which, _) | Deed::Put(which, _) if *which == object));
        let scaled = last(
            &|deed| matches!(deed, Deed::ScaleByHand(which, _) | Deed::MakeWorkload(which, _) if *which == object),
        );
        scaled > set
    }

    /// Whether at some time of a span (in seconds) a reader of the path got a value not above the threshold.
    pub fn was_quiet(&self, path: &str, from: u64, until: u64, threshold: f64) -> bool {
        (from..=until).any(|second| self.says(path, second).value().is_some_and(|value| value <= threshold))
    }
}

/// What a source says over time: the last that it says, it says for ever.
fn source(draw: &mut Draw, trouble: u64) -> Vec<(u64, Says)> {
    let mut course = Vec::new();
    let mut at = 0;
    while at < trouble {
        let value = if draw.chance(55) { 0.0 } else { draw.of(&[1.0, 2.0, 5.0, 8.0, 12.5, 23.0, 40.0, 60.0]) };
        let says = match draw.from(1, 100) {
            1..=55 => Says::Value(value),
            // Not as long as the deadline to the moment: either may come first.
            56..=65 => Says::Slow(draw.of(&[1, 2, 4, 5]), value),
            66..=85 => Says::Refused,
            86..=94 => Says::Status(draw.of(&[401, 404, 429, 500, 503])),
            _ => Says::Garbage,
        };
        course.push((at, says));
        at += draw.from(15, 160);
    }
    course
}

fn deed(draw: &mut Draw, object: usize, at: u64, trouble: u64) -> Vec<(u64, Deed)> {
    let later = |draw: &mut Draw| draw.from(at, trouble);
    match draw.from(1, 100) {
        1..=20 => vec![(at, Deed::Put(object, spec(draw, object)))],
        21..=40 => {
            let annotations = annotations(draw);
            let mut deeds = vec![(at, Deed::Annotate(object, annotations))];
            if draw.chance(60) {
                deeds.push((later(draw), Deed::Annotate(object, steering())));
            }
            deeds
        }
        41..=50 => {
            let mut deeds = vec![(at, Deed::Delete(object))];
            if draw.chance(60) {
                deeds.push((later(draw), Deed::Put(object, spec(draw, object))));
            }
            deeds
        }
        51..=60 => vec![(at, Deed::DeleteHpa(object))],
        61..=68 => vec![(at, Deed::SpoilHpa(object))],
        69..=80 => vec![(at, Deed::ScaleByHand(object, draw.from(0, 15)))],
        81..=86 => {
            let mut deeds = vec![(at, Deed::DeleteWorkload(object))];
            if draw.chance(75) {
                deeds.push((later(draw), Deed::MakeWorkload(object, draw.from(0, 4))));
            }
            deeds
        }
        87..=92 => vec![(at, Deed::RotateToken(at))],
        _ => vec![(at, Deed::Restart { away: draw.from(0, 40), killed: draw.chance(50) })],
    }
}

/// No steering annotation at all.
fn steering() -> Value {
    Value::Object(STEERING.iter().map(|name| ((*name).to_owned(), Value::Null)).collect())
}

fn annotations(draw: &mut Draw) -> Value {
    let mut annotations = steering();
    let name = draw.of(&STEERING);
    let value = if name == STEERING[1] { draw.from(0, 6).to_string() } else { "true".to_owned() };
    annotations[name] = json!(value);
    annotations
}

fn spec(draw: &mut Draw, object: usize) -> Value {
    let min = draw.of(&[0, 0, 0, 1, 2]);
    let mut spec = json!({
        "scaleTargetRef": {"name": format!("w{object}")},
        "minReplicaCount": min,
        "maxReplicaCount": min.max(1) + draw.from(1, 8),
        "pollingInterval": draw.from(5, 30),
        "cooldownPeriod": draw.from(15, 60),
        "advanced": {"restoreToOriginalReplicaCount": draw.chance(20)},
    });
    if min > 0 && draw.chance(40) {
        spec["idleReplicaCount"] = json!(0);
    }
    if draw.chance(20) {
        spec["initialCooldownPeriod"] = json!(draw.from(1, 100));
    }
    if draw.chance(30) {
        spec["advanced"]["horizontalPodAutoscalerConfig"] =
            json!({"behavior": {"scaleDown": {"stabilizationWindowSeconds": draw.from(0, 30)}}});
    }
    let triggers = draw.from(1, 3) as usize;
    let modified = draw.chance(15);
    spec["triggers"] = (0..triggers).map(|index| trigger(draw, object, index, modified)).collect();
    if draw.chance(30) {
        let behaviors: &[&str] = match modified {
            true => &["static", "scalingModifiers"],
            false => &["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"],
        };
        spec["fallback"] = json!({
            "failureThreshold": draw.from(0, 3), "replicas": draw.from(0, 5), "behavior": draw.of(behaviors),
        });
    }
    if modified {
        let names: Vec<String> = (0..triggers).map(|index| format!("t{index}")).collect();
        let formula = draw.of(&[names.join(" + "), format!("max({})", names.join(", ")), names[0].clone()]);
        spec["advanced"]["scalingModifiers"] = json!({"formula": formula, "target": draw.of(&["5", "2.5"])});
    }
    spec
}

fn trigger(draw: &mut Draw, object: usize, index: usize, modified: bool) -> Value {
    let mut trigger = json!({
        "type": "metrics-api", "name": format!("t{index}"),
        "metadata": {
            "url": format!("http://source/{}", path(object, index)), "valueLocation": "value",
            "targetValue": draw.from(1, 10).to_string(), "activationTargetValue": draw.of(&["0", "0", "2"]),
        },
    });
    if draw.chance(15) {
        trigger["useCachedMetrics"] = json!(true);
    }
    if !modified && draw.chance(15) {
        trigger["metricType"] = json!("Value");
    }
    if draw.chance(30) {
        trigger["metadata"]["authMode"] = json!("bearer");
        trigger["authenticationRef"] = json!({"name": "auth"});
    }
    trigger
}
