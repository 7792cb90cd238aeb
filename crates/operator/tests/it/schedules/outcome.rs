//! What must be left after the faults and a quiet time: the state that the engine wants.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::{Value, json};
use tidemark_api::{ScaledObject, annotations};
use tidemark_engine::activation::{self, Action, Controls, Decision, Memory, Outcome, TriggerState};
use tidemark_engine::composite::{self, Input, Modifiers};
use tidemark_engine::fallback::{self, Fallback, Health, Workload};
use tidemark_engine::verdict::Verdict;
use tidemark_engine::{hpa, metric, quantity};
use tidemark_trigger::{MetricSpec, MetricType, TriggerInput};

use super::script::Script;
use super::stage::{Record, hpa_name};

/// Failures in a row of a source that is down: more than any fallback of a script tolerates.
const MANY: u32 = 1000;

/// What is wrong with what was left; nothing if all is well.
pub fn complaints(script: &Script, record: &Record) -> Vec<String> {
    let mut all = Vec::new();
    for (index, name) in script.names.iter().enumerate() {
        let mut judge = Judge { script, record, name, all: &mut all };
        match &record.objects[index] {
            Some(object) if !record.lives[index].wanted => {
                judge.complain(format!("it is still there: {:?}", object.metadata));
            }
            Some(object) => judge.object(object, record.replicas[index]),
            None if record.lives[index].wanted => judge.complain("it is gone".to_owned()),
            None => judge.gone(),
        }
    }
    let known: Vec<&str> = record.snapshots.iter().map(|snapshot| snapshot.key.name.as_str()).collect();
    let there: Vec<&str> =
        script.names.iter().zip(&record.objects).filter(|(_, o)| o.is_some()).map(|(n, _)| n.as_str()).collect();
    if known != there {
        all.push(format!("snapshots of {known:?} instead of {there:?}"));
    }
    all
}

/// One metric of the object as the engine sees it in the end.
struct Expected {
    state: TriggerState,
    target: metric::Target,
    /// What the source says, and from where on that is active.
    value: Option<f64>,
    activation: f64,
}

struct Judge<'a> {
    script: &'a Script,
    record: &'a Record,
    name: &'a str,
    all: &'a mut Vec<String>,
}

impl Judge<'_> {
    fn complain(&mut self, text: String) {
        self.all.push(format!("{}: {text}", self.name));
    }

    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: T, wanted: T) {
        if found != wanted {
            self.complain(format!("{what} is {found:?}, not {wanted:?}"));
        }
    }

    fn hpas(&self) -> Vec<HorizontalPodAutoscaler> {
        let name = hpa_name(self.name);
        self.record.hpas.iter().filter(|hpa| hpa.metadata.name.as_ref() == Some(&name)).cloned().collect()
    }

    /// Of an object that was deleted.
    fn gone(&mut self) {
        let hpas = self.hpas().len();
        self.equal("the number of HPAs", hpas, 0);
        let users = self.users();
        if users.iter().any(|user| user == self.name) {
            self.complain("the authentication still lists it".to_owned());
        }
    }

    fn users(&self) -> Vec<String> {
        let status = self.record.authentication.status.clone().unwrap_or_default();
        status.scaledobjects.unwrap_or_default().split(',').map(str::to_owned).collect()
    }

    fn object(&mut self, object: &ScaledObject, replicas: Option<i32>) {
        let finalizers = object.metadata.finalizers.clone().unwrap_or_default();
        self.equal("finalizers", finalizers, vec!["finalizer.keda.sh".to_owned()]);
        if object.metadata.deletion_timestamp.is_some() {
            return self.complain("it is being deleted".to_owned());
        }
        let annotations = object.metadata.annotations.clone().unwrap_or_default();
        let controls = annotations::controls(&annotations).unwrap();
        let pausing = controls.paused || controls.scale_in_paused || controls.scale_out_paused;
        let paused = if pausing { "True" } else { "False" };
        let found = self.condition(object, "Paused").0;
        self.equal("Paused", found.as_str(), paused);
        let kept = controls.paused_replicas;
        self.equal(
            "pausedReplicaCount",
            object.status.as_ref().and_then(|s| s.paused_replica_count),
            kept.filter(|_| replicas.is_some()),
        );
        if controls.paused {
            return self.paused(object, kept, replicas);
        }
        let Some(replicas) = replicas else {
            let ready = self.condition(object, "Ready");
            return self.equal("Ready", (ready.0.as_str(), ready.1.as_str()), ("False", "ScaledObjectCheckFailed"));
        };
        let label = object.metadata.labels.as_ref().and_then(|labels| labels.get("scaledobject.keda.sh/name"));
        self.equal("the label", label.map(String::as_str), Some(self.name));
        self.running(object, controls, replicas);
    }

    fn paused(&mut self, object: &ScaledObject, kept: Option<i32>, replicas: Option<i32>) {
        let hpas = self.hpas().len();
        self.equal("the number of HPAs while paused", hpas, 0);
        let index = self.script.names.iter().position(|name| name == self.name).unwrap();
        if let (Some(kept), Some(replicas)) = (kept, replicas)
            && !self.script.is_scaled_behind_a_pause(index)
        {
            self.equal("the paused replicas", replicas, kept);
        }
        let wanted = if kept.is_some() && replicas.is_none() { "False" } else { "True" };
        let ready = self.condition(object, "Ready");
        self.equal("Ready while paused", ready.0.as_str(), wanted);
    }

    fn running(&mut self, object: &ScaledObject, controls: Controls, replicas: i32) {
        let modifiers = modifiers(object);
        let metrics = self.expected(object, modifiers.as_ref(), replicas);
        self.status(object, &metrics);
        self.autoscaler(object, controls, modifiers.as_ref(), &metrics);
        let decision = self.decision(object, controls, modifiers.as_ref(), &metrics, replicas);
        if decision.action != Action::Nothing {
            self.complain(format!("at {replicas} replicas the engine wants {:?}", decision.action));
        }
        self.verdict(object, "Ready", decision.ready_condition.as_ref());
        self.verdict(object, "Active", decision.active_condition.as_ref());
        let fallback = object.spec.fallback();
        let healths = metrics.iter().map(|metric| (&*metric.state.metric, health(metric.value)));
        let verdict = fallback::condition(fallback.as_ref(), healths);
        self.verdict(object, "Fallback", Some(&verdict));
        let steady = self.steady(object, controls, modifiers.as_ref(), &metrics, replicas);
        self.equal("what the HPA wants at the replicas that there are", steady, replicas);
        if controls == Controls::default() && modifiers.is_none() {
            self.plainly(object, &metrics, replicas);
        }
        let snapshot = self.record.snapshots.iter().find(|snapshot| snapshot.key.name == self.name);
        self.equal("the snapshot's replicas", snapshot.and_then(|snapshot| snapshot.replicas), Some(replicas));
        let uses = object.spec.triggers.iter().any(|trigger| trigger.authentication_ref.is_some());
        let listed = self.users().iter().any(|user| user == self.name);
        self.equal("being listed by the authentication", listed, uses);
    }

    /// What every metric's state must be after so many polls of what its source says in the end.
    fn expected(&self, object: &ScaledObject, modifiers: Option<&Modifiers>, replicas: i32) -> Vec<Expected> {
        let fallback = object.spec.fallback();
        let end = self.record.second(self.record.end);
        let metric = |(index, trigger): (usize, &tidemark_api::ScaleTriggers)| {
            let spec = metric_of(self.name, index, trigger);
            let path = trigger.metadata["url"].trim_start_matches("http://source/");
            let activation: f64 = trigger.metadata["activationTargetValue"].parse().unwrap();
            let value = self.script.says(path, end).value();
            let fetched = match value {
                Some(value) => Outcome::Read { value, active: value > activation },
                None => Outcome::Failed { error: "down".into() },
            };
            let MetricSpec::External { name, metric_type, target_milli } = &spec else { panic!("{spec:?}") };
            let own = match metric_type {
                MetricType::AverageValue => metric::Target::AverageValue(*target_milli),
                MetricType::Value => metric::Target::Value(*target_milli),
            };
            let target = modifiers.map_or(own, Modifiers::target);
            let workload = Workload { replicas: Some(replicas), ready_pods: Some(replicas) };
            let outcome = fallback::apply(fallback.as_ref(), health(value), target, fetched, workload);
            let state = TriggerState { metric: name.clone(), outcome };
            Expected { state, target, value, activation }
        };
        object.spec.triggers.iter().enumerate().map(metric).collect()
    }

    fn status(&mut self, object: &ScaledObject, metrics: &[Expected]) {
        let status = object.status.clone().unwrap_or_default();
        let names: Vec<String> = metrics.iter().map(|metric| metric.state.metric.to_string()).collect();
        self.equal("externalMetricNames", status.external_metric_names, Some(names));
        self.equal("scaleTargetKind", status.scale_target_kind.as_deref(), Some("apps/v1.Deployment"));
        self.equal("hpaName", status.hpa_name, Some(hpa_name(self.name)));
        self.equal("triggersTypes", status.triggers_types.as_deref(), Some("metrics-api"));
        if status.original_replica_count.is_none() {
            self.complain("originalReplicaCount is missing".to_owned());
        }
        let activity: BTreeMap<String, bool> = status
            .triggers_activity
            .unwrap_or_default()
            .into_iter()
            .map(|(name, activity)| (name, activity.is_active))
            .collect();
        let wanted = metrics.iter().map(|m| (m.state.metric.to_string(), m.state.outcome.is_active())).collect();
        self.equal("triggersActivity", activity, wanted);
        let counted: Vec<String> = status.health.unwrap_or_default().into_keys().collect();
        let wanted = match object.spec.fallback() {
            Some(_) => metrics.iter().map(|metric| metric.state.metric.to_string()).collect(),
            None => Vec::new(),
        };
        if object.spec.fallback().is_some() {
            self.equal("the metrics with a health", counted, wanted);
        }
    }

    fn autoscaler(
        &mut self,
        object: &ScaledObject,
        controls: Controls,
        modifiers: Option<&Modifiers>,
        metrics: &[Expected],
    ) {
        let hpas = self.hpas();
        let [found] = hpas.as_slice() else { return self.complain(format!("it has {} HPAs", hpas.len())) };
        let owners = found.metadata.owner_references.clone().unwrap_or_default();
        let owner = owners.iter().map(|owner| Some(&owner.uid)).collect::<Vec<_>>();
        self.equal("the HPA's owner", owner, vec![object.metadata.uid.as_ref()]);
        let label = found.metadata.labels.as_ref().and_then(|labels| labels.get("scaledobject.keda.sh/name"));
        self.equal("the HPA's label", label.map(String::as_str), Some(self.name));
        let spec = serde_json::to_value(&found.spec).unwrap();
        self.equal("minReplicas", &spec["minReplicas"], &json!(object.spec.min_replicas().max(1)));
        self.equal("maxReplicas", &spec["maxReplicas"], &json!(object.spec.max_replicas()));
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": self.name});
        self.equal("scaleTargetRef", &spec["scaleTargetRef"], &target);
        let external: Vec<Value> = match modifiers {
            Some(modifiers) => vec![self.external(composite::METRIC, modifiers.target())],
            None => metrics.iter().map(|metric| self.external(&metric.state.metric, metric.target)).collect(),
        };
        self.equal("the HPA's metrics", &spec["metrics"], &Value::Array(external));
        let policy = |direction: &str| spec["behavior"][direction]["selectPolicy"].as_str() == Some("Disabled");
        self.equal("scaling up is disabled", policy("scaleUp"), controls.scale_out_paused);
        self.equal("scaling down is disabled", policy("scaleDown"), controls.scale_in_paused);
        let config = object.spec.advanced.as_ref().and_then(|a| a.horizontal_pod_autoscaler_config.as_ref());
        let window = config.map(|config| {
            serde_json::to_value(config).unwrap()["behavior"]["scaleDown"]["stabilizationWindowSeconds"].clone()
        });
        self.equal(
            "the window",
            spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"].clone(),
            window.unwrap_or_default(),
        );
    }

    fn external(&self, metric: &str, target: metric::Target) -> Value {
        let amount = quantity::format_milli(target.milli());
        let target = match target {
            metric::Target::AverageValue(_) => json!({"type": "AverageValue", "averageValue": amount}),
            metric::Target::Value(_) => json!({"type": "Value", "value": amount}),
        };
        let selector = json!({"matchLabels": {"scaledobject.keda.sh/name": self.name}});
        json!({"type": "External", "external": {"metric": {"name": metric, "selector": selector}, "target": target}})
    }

    fn decision(
        &self,
        object: &ScaledObject,
        controls: Controls,
        modifiers: Option<&Modifiers>,
        metrics: &[Expected],
        replicas: i32,
    ) -> Decision {
        let created = object.metadata.creation_timestamp.as_ref().unwrap().0;
        let policy = object.spec.policy(created);
        let last_active = object.status.as_ref().and_then(|status| status.last_active_time.as_ref()).map(|time| time.0);
        let (memory, now) = (Memory { last_active }, self.record.end);
        match modifiers {
            Some(modifiers) => {
                let composite = composite_of(modifiers, metrics, object.spec.fallback().as_ref());
                composite::decide(&policy, controls, &composite, 0, Some(replicas), memory, now)
            }
            None => {
                let states: Vec<TriggerState> = metrics.iter().map(|metric| metric.state.clone()).collect();
                activation::decide(&policy, controls, &states, 0, Some(replicas), memory, now)
            }
        }
    }

    /// What one pass of the HPA controller makes of the replicas that there are.
    fn steady(
        &self,
        object: &ScaledObject,
        controls: Controls,
        modifiers: Option<&Modifiers>,
        metrics: &[Expected],
        replicas: i32,
    ) -> i32 {
        let failure = |error: Arc<str>| hpa::Failure { reason: "FailedGetExternalMetric", message: error };
        let (targets, readings): (Vec<metric::Target>, Vec<hpa::Reading>) = match modifiers {
            Some(modifiers) => {
                let composite = composite_of(modifiers, metrics, object.spec.fallback().as_ref());
                (vec![modifiers.target()], vec![composite.outcome.served().map_err(failure)])
            }
            None => metrics.iter().map(|m| (m.target, m.state.outcome.served().map_err(failure))).unzip(),
        };
        let (min_replicas, max_replicas) = object.spec.policy(self.record.end).hpa_bounds();
        let behavior = (controls.scale_in_paused || controls.scale_out_paused).then(|| {
            let mut behavior = hpa::Behavior::default();
            let disable = |rules: &mut hpa::Rules, disabled: bool| {
                rules.select = if disabled { hpa::Select::Disabled } else { rules.select };
            };
            disable(&mut behavior.scale_up, controls.scale_out_paused);
            disable(&mut behavior.scale_down, controls.scale_in_paused);
            behavior
        });
        let metric = |target: metric::Target| hpa::Metric { name: "metric".into(), target: target.into() };
        let spec =
            hpa::Spec { min_replicas, max_replicas, metrics: targets.into_iter().map(metric).collect(), behavior };
        let observed =
            hpa::Observed { spec_replicas: replicas, status_replicas: replicas, ready_pods: replicas, pods: replicas };
        let settings = hpa::Controls { downscale_stabilization: std::time::Duration::ZERO, tolerance: 0.1 };
        hpa::decide(&spec, &settings, observed, &readings, &hpa::Memory::default(), self.record.end).desired
    }

    /// The same once more without the engine, where it is simple: all sources answer, targets are per replica.
    fn plainly(&mut self, object: &ScaledObject, metrics: &[Expected], replicas: i32) {
        let simple =
            |metric: &Expected| metric.value.is_some() && matches!(metric.target, metric::Target::AverageValue(_));
        if !metrics.iter().all(simple) {
            return;
        }
        let min = object.spec.min_replicas();
        let active = metrics.iter().any(|metric| metric.value.unwrap() > metric.activation);
        let idle = object.spec.idle_replica_count;
        if !active && (min == 0 || idle.is_some()) {
            return self.equal("the replicas of a quiet object", replicas, idle.unwrap_or(0));
        }
        let wish = |metric: &Expected| {
            let each = metric.target.milli() as f64 / 1000.0;
            let ratio = metric.value.unwrap() / (each * f64::from(replicas));
            if (ratio - 1.0).abs() <= 0.1 { replicas } else { (metric.value.unwrap() / each).ceil() as i32 }
        };
        let most = metrics.iter().map(wish).max().unwrap();
        self.equal("the replicas by hand", replicas, most.clamp(min.max(1), object.spec.max_replicas()));
    }

    fn condition(&self, object: &ScaledObject, kind: &str) -> (String, String) {
        let conditions = object.status.clone().unwrap_or_default().conditions.unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition.type_ == kind);
        found.map(|condition| (condition.status, condition.reason.unwrap_or_default())).unwrap_or_default()
    }

    fn verdict(&mut self, object: &ScaledObject, kind: &str, wanted: Option<&Verdict>) {
        let Some(wanted) = wanted else { return };
        let found = self.condition(object, kind);
        self.equal(kind, (found.0.as_str(), found.1.as_str()), (wanted.status.as_str(), wanted.reason));
    }
}

fn health(value: Option<f64>) -> Health {
    Health { failures: if value.is_some() { 0 } else { MANY } }
}

fn modifiers(object: &ScaledObject) -> Option<Modifiers> {
    let names: Vec<&str> = object.spec.triggers.iter().filter_map(|trigger| trigger.name.as_deref()).collect();
    object.spec.modifiers().map(|source| Modifiers::build(source, &names).unwrap())
}

fn composite_of(modifiers: &Modifiers, metrics: &[Expected], fallback: Option<&Fallback>) -> composite::Composite {
    let name = |index: usize| Some(format!("t{index}").into());
    let inputs =
        metrics.iter().enumerate().map(|(index, metric)| Input { name: name(index), state: metric.state.clone() });
    modifiers.evaluate(&inputs.collect::<Vec<_>>(), fallback)
}

/// The metric of a trigger by the catalogue's own parser.
fn metric_of(object: &str, index: usize, trigger: &tidemark_api::ScaleTriggers) -> MetricSpec {
    let auth = trigger.authentication_ref.iter().map(|_| ("token".to_owned(), "first".into())).collect();
    let input = TriggerInput {
        index,
        trigger_type: trigger.type_.clone(),
        name: trigger.name.clone(),
        metadata: trigger.metadata.clone().into_iter().collect(),
        auth,
        env: BTreeMap::new(),
        pod_identity: None,
        metric_type: trigger.metric_type.clone(),
        as_metric_source: false,
        namespace: "default".to_owned(),
        object: object.to_owned(),
    };
    tidemark_triggers::parse(&input).unwrap().metrics()[0].clone()
}
