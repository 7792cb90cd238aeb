//! Scenario files: manifests and steps, run alike on the sandbox and on a real control plane.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{GroupVersionKind, TypeMeta};
use serde::Deserialize;
use serde_json::Value;
use tidemark_cli::manifests::{Manifest, Place};
use tokio::time::{Instant, sleep};

use crate::world::World;

/// All scenarios, by the names of their files.
pub const ALL: [(&str, &str); 11] = [
    ("cpu-beside-external", include_str!("scenarios/cpu-beside-external.yaml")),
    ("custom-resource", include_str!("scenarios/custom-resource.yaml")),
    ("deletion-restores", include_str!("scenarios/deletion-restores.yaml")),
    ("fallback", include_str!("scenarios/fallback.yaml")),
    ("first-light", include_str!("scenarios/first-light.yaml")),
    ("formula", include_str!("scenarios/formula.yaml")),
    ("pause", include_str!("scenarios/pause.yaml")),
    ("prometheus", include_str!("scenarios/prometheus.yaml")),
    ("rabbitmq", include_str!("scenarios/rabbitmq.yaml")),
    ("target-later", include_str!("scenarios/target-later.yaml")),
    ("two-triggers", include_str!("scenarios/two-triggers.yaml")),
];

/// Between two looks at the cluster.
const LOOK: Duration = Duration::from_millis(200);
/// A kind that has just been defined is known after a while.
const KIND_KNOWN: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub name: String,
    manifests: Vec<Value>,
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Step {
    /// What the next steps are about.
    Say(String),
    Source(SourceChange),
    /// A queue of RabbitMQ holds so many messages.
    Queue {
        name: String,
        messages: u32,
    },
    /// Prometheus' series has this value.
    Series(u32),
    /// The pods with these labels use so many thousandths of a core together.
    Cpu {
        labels: BTreeMap<String, String>,
        milli: u64,
    },
    StartOperator,
    StopOperator,
    /// The condition comes true in time.
    Expect(Expect),
    ExpectEvent {
        within: u64,
        regarding: String,
        reason: String,
    },
    ExpectAbsent {
        within: u64,
        object: Reference,
    },
    /// The condition is true all the time.
    Hold(Hold),
    Apply(Value),
    Merge {
        object: Reference,
        patch: Value,
    },
    MergeStatus {
        object: Reference,
        patch: Value,
    },
    Delete(Reference),
}

/// What is not named stays.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceChange {
    pub value: Option<f64>,
    /// By name; null takes the number away.
    #[serde(default)]
    pub values: BTreeMap<String, Option<f64>>,
    pub token: Option<String>,
    pub down: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    within: u64,
    object: Reference,
    #[serde(rename = "where")]
    conditions: BTreeMap<String, Wanted>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hold {
    #[serde(rename = "for")]
    duration: u64,
    object: Reference,
    #[serde(rename = "where")]
    conditions: BTreeMap<String, Wanted>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Reference {
    api_version: String,
    kind: String,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Wanted {
    AtLeast {
        #[serde(rename = "atLeast")]
        at_least: i64,
    },
    Contains {
        contains: String,
    },
    Equals(Value),
}

/// Base URLs of event sources, by the words that stand for them in scenarios.
pub struct Places<'a> {
    pub source: &'a str,
    pub rabbitmq: &'a str,
    pub prometheus: &'a str,
}

pub fn parse(text: &str, places: &Places<'_>) -> Scenario {
    let text = text.replace("SOURCE", places.source);
    let text = text.replace("RABBITMQ", places.rabbitmq).replace("PROMETHEUS", places.prometheus);
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs all steps. Panics with the step that failed and the object as it then was.
pub async fn run(scenario: Scenario, world: &mut World) {
    for object in scenario.manifests {
        apply(world, object).await.unwrap_or_else(|message| panic!("{}: {message}", scenario.name));
    }
    let started = Instant::now();
    let mut part = String::new();
    for step in scenario.steps {
        if let Step::Say(text) = &step {
            println!("{:>8.1} s  {}: {text}", started.elapsed().as_secs_f64(), scenario.name);
            part = text.clone();
            continue;
        }
        let description = format!("{step:?}");
        if let Err(message) = take(step, world).await {
            let at = started.elapsed().as_secs_f64();
            panic!("{}: {part}\n{description}\nfailed after {at:.1} s: {message}", scenario.name);
        }
    }
}

async fn take(step: Step, world: &mut World) -> Result<(), String> {
    match step {
        Step::Say(_) => Ok(()),
        Step::Source(change) => {
            world.source.change(change);
            Ok(())
        }
        Step::Queue { name, messages } => {
            world.surroundings.queue(&name, messages).await;
            Ok(())
        }
        Step::Series(value) => {
            world.surroundings.series(value).await;
            Ok(())
        }
        Step::Cpu { labels, milli } => {
            world.surroundings.cpu(world.client.default_namespace(), &labels, milli);
            Ok(())
        }
        Step::StartOperator => {
            world.start_operator().await;
            Ok(())
        }
        Step::StopOperator => {
            world.stop_operator().await;
            Ok(())
        }
        Step::Expect(expect) => expect_it(world, &expect).await,
        Step::ExpectEvent { within, regarding, reason } => expect_event(world, within, &regarding, &reason).await,
        Step::ExpectAbsent { within, object } => expect_absent(world, within, &object).await,
        Step::Hold(hold) => hold_it(world, &hold).await,
        Step::Apply(object) => apply(world, object).await,
        Step::MergeStatus { object, patch } => {
            let patch = Patch::Merge(&patch);
            let api = api(world, &object).await;
            api.patch_status(&object.name, &PatchParams::default(), &patch).await.map(|_| ()).map_err(|e| e.to_string())
        }
        Step::Merge { object, patch } => {
            let patch = Patch::Merge(&patch);
            let api = api(world, &object).await;
            api.patch(&object.name, &PatchParams::default(), &patch).await.map(|_| ()).map_err(|e| e.to_string())
        }
        Step::Delete(object) => {
            let api = api(world, &object).await;
            api.delete(&object.name, &DeleteParams::default()).await.map(|_| ()).map_err(|e| e.to_string())
        }
    }
}

/// Applies an object, in the scenario's namespace.
async fn apply(world: &World, mut object: Value) -> Result<(), String> {
    if object["kind"] != "CustomResourceDefinition" {
        object["metadata"]["namespace"] = world.client.default_namespace().into();
    }
    let manifest = Manifest { place: Place { file: "scenario".into(), line: 0 }, object };
    let deadline = Instant::now() + KIND_KNOWN;
    loop {
        match tidemark_cli::apply::apply(&world.client, &manifest).await {
            Err(error) if Instant::now() >= deadline => return Err(error.to_string()),
            Err(_) => sleep(LOOK).await,
            Ok(_) => return Ok(()),
        }
    }
}

async fn expect_it(world: &World, expect: &Expect) -> Result<(), String> {
    let api = api(world, &expect.object).await;
    let deadline = Instant::now() + Duration::from_secs(expect.within);
    loop {
        let found = read(&api, &expect.object.name).await?;
        match unmet(found.as_ref(), &expect.conditions) {
            None => return Ok(()),
            Some(unmet) if Instant::now() >= deadline => return Err(report(&unmet, found.as_ref())),
            Some(_) => sleep(LOOK).await,
        }
    }
}

async fn hold_it(world: &World, hold: &Hold) -> Result<(), String> {
    let api = api(world, &hold.object).await;
    let end = Instant::now() + Duration::from_secs(hold.duration);
    while Instant::now() < end {
        let found = read(&api, &hold.object.name).await?;
        if let Some(unmet) = unmet(found.as_ref(), &hold.conditions) {
            return Err(report(&unmet, found.as_ref()));
        }
        sleep(LOOK).await;
    }
    Ok(())
}

async fn expect_absent(world: &World, within: u64, object: &Reference) -> Result<(), String> {
    let api = api(world, object).await;
    let deadline = Instant::now() + Duration::from_secs(within);
    while let Some(found) = read(&api, &object.name).await? {
        if Instant::now() >= deadline {
            return Err(report("it is still there", Some(&found)));
        }
        sleep(LOOK).await;
    }
    Ok(())
}

async fn expect_event(world: &World, within: u64, regarding: &str, reason: &str) -> Result<(), String> {
    let api: Api<Event> = Api::default_namespaced(world.client.clone());
    let deadline = Instant::now() + Duration::from_secs(within);
    loop {
        let events = api.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
        let is_it = |event: &&Event| {
            let name = event.regarding.as_ref().and_then(|regarding| regarding.name.as_deref());
            name == Some(regarding) && event.reason.as_deref() == Some(reason)
        };
        if events.iter().any(|event| is_it(&event)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let reasons: Vec<_> = events.iter().filter_map(|event| event.reason.clone()).collect();
            return Err(format!("no such event, only {reasons:?}"));
        }
        sleep(LOOK).await;
    }
}

async fn api(world: &World, object: &Reference) -> Api<DynamicObject> {
    let types = TypeMeta { api_version: object.api_version.clone(), kind: object.kind.clone() };
    let kind = GroupVersionKind::try_from(&types).unwrap();
    let (resource, _) = kube::discovery::pinned_kind(&world.client, &kind).await.unwrap();
    Api::default_namespaced_with(world.client.clone(), &resource)
}

async fn read(api: &Api<DynamicObject>, name: &str) -> Result<Option<Value>, String> {
    let found = api.get_opt(name).await.map_err(|error| error.to_string())?;
    Ok(found.map(|object| serde_json::to_value(object).unwrap()))
}

fn report(message: &str, found: Option<&Value>) -> String {
    match found.cloned() {
        Some(mut object) => {
            object["metadata"].as_object_mut().map(|metadata| metadata.remove("managedFields"));
            format!("{message}\n{object:#}")
        }
        None => format!("{message}\nthe object does not exist"),
    }
}

/// The first condition that is not met, in words.
fn unmet(object: Option<&Value>, conditions: &BTreeMap<String, Wanted>) -> Option<String> {
    conditions.iter().find_map(|(path, wanted)| {
        let found = object.map_or(&Value::Null, |object| at(object, path));
        let met = match wanted {
            // The API server leaves zeros out.
            Wanted::Equals(Value::Number(zero)) if zero.as_i64() == Some(0) => found.as_i64().unwrap_or(0) == 0,
            Wanted::Equals(value) => found == value,
            Wanted::AtLeast { at_least } => found.as_i64().unwrap_or(0) >= *at_least,
            Wanted::Contains { contains } => found.as_str().is_some_and(|text| text.contains(contains)),
        };
        (!met).then(|| format!("{path} is {found}, wanted {wanted:?}"))
    })
}

/// `a.b`, `a.0` (an item), `a(X)` (the item of type X, or the key X).
fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    let mut found = object;
    let mut rest = path;
    while !rest.is_empty() {
        let (piece, selector, left) = match rest.find(['.', '(']) {
            Some(end) if rest[end..].starts_with('(') => {
                let close = rest.find(')').expect("a closing parenthesis");
                (&rest[..end], Some(&rest[end + 1..close]), rest[close + 1..].trim_start_matches('.'))
            }
            Some(end) => (&rest[..end], None, &rest[end + 1..]),
            None => (rest, None, ""),
        };
        found = match piece.parse::<usize>() {
            Ok(index) => &found[index],
            Err(_) => &found[piece],
        };
        if let Some(selector) = selector {
            found = match found.as_array() {
                Some(items) => items.iter().find(|item| item["type"] == selector).unwrap_or(&Value::Null),
                None => &found[selector],
            };
        }
        rest = left;
    }
    found
}
