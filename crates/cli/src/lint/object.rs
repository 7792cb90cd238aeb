//! One object of the files, checked with all others in view.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidemark_admission::{Path, Request, Step, Target, View, Workload, review};
use tidemark_api::{EVENTING_GROUP, ScaleTriggers};
use tidemark_auth::{Resolver, Settings};

use super::definitions::{Definitions, Fault};
use super::document::{Node, Side};
use super::input::Object;
use super::kinds::{Standing, standing};
use super::objects::{Objects, reference};
use super::report::{Diagnostic, Document, Trigger, Unresolved};
use super::trigger::{self, Pod, Surroundings};
use super::{Rules, hints, references, scalar, workload};

/// What is found out about one object, before it is put in order.
pub struct Findings<'a> {
    node: &'a Node,
    errors: Vec<(Path, Diagnostic)>,
    warnings: Vec<(Path, Diagnostic)>,
    unresolved: Vec<Unresolved>,
    triggers: Vec<Trigger>,
}

impl<'a> Findings<'a> {
    fn new(node: &'a Node) -> Self {
        Self { node, errors: Vec::new(), warnings: Vec::new(), unresolved: Vec::new(), triggers: Vec::new() }
    }

    /// Something that makes the object invalid.
    pub fn error(&mut self, path: &Path, message: impl Into<String>) {
        let error = Diagnostic::new(self.node, path, Side::Value, message);
        self.errors.push((path.clone(), error));
    }

    /// Something that does not.
    pub fn warn(&mut self, path: &Path, side: Side, message: impl Into<String>) {
        let warning = Diagnostic::new(self.node, path, side, message);
        self.warnings.push((path.clone(), warning));
    }

    /// A reference to something that is not among the files.
    pub fn unresolved(&mut self, path: &Path, reference: String) {
        self.unresolved.push(Unresolved::new(self.node, path, reference));
    }

    fn faults(&mut self, faults: &[Fault]) {
        for fault in faults {
            self.error(&fault.path, fault.message.clone());
        }
    }

    /// Puts what was found about triggers to them, and judges.
    fn document(self, object: &Object, strict: bool) -> Document {
        let Self { errors, warnings, mut unresolved, mut triggers, .. } = self;
        let mut apart = |found: Vec<(Path, Diagnostic)>, of: fn(&mut Trigger) -> &mut Vec<Diagnostic>| {
            let mut rest = Vec::new();
            for (path, diagnostic) in found {
                match trigger_index(&path).and_then(|index| triggers.get_mut(index)) {
                    Some(trigger) => of(trigger).push(diagnostic),
                    None => rest.push(diagnostic),
                }
            }
            rest
        };
        let errors = apart(errors, |trigger| &mut trigger.errors);
        let warnings = apart(warnings, |trigger| &mut trigger.warnings);
        unresolved.dedup();
        for trigger in &mut triggers {
            let own = format!("spec.triggers[{}]", trigger.index);
            let missing = strict && unresolved.iter().any(|one| one.path.starts_with(&own));
            trigger.valid = trigger.errors.is_empty() && !missing;
        }
        let valid =
            errors.is_empty() && triggers.iter().all(|trigger| trigger.valid) && (unresolved.is_empty() || !strict);
        Document {
            kind: object.kind().to_owned(),
            namespace: object.namespace().map(str::to_owned),
            name: object.name().to_owned(),
            valid,
            errors,
            warnings,
            unresolved,
            triggers,
            file: object.file.clone(),
        }
    }
}

/// `i` of a path within `spec.triggers[i]`.
fn trigger_index(path: &Path) -> Option<usize> {
    match path.steps() {
        [Step::Key(spec), Step::Key(triggers), Step::Index(index), ..] if spec == "spec" && triggers == "triggers" => {
            Some(*index)
        }
        _ => None,
    }
}

/// What the admission rules look at in a namespace.
#[derive(Default)]
struct Neighbours {
    scaled_objects: Vec<Value>,
    autoscalers: Vec<Value>,
    limit_ranges: Vec<Value>,
}

impl Neighbours {
    /// By namespace.
    fn of(objects: &[Object]) -> BTreeMap<String, Self> {
        let mut all: BTreeMap<String, Self> = BTreeMap::new();
        for object in objects.iter().filter(|object| !object.name().is_empty()) {
            let group = object.api_version().split('/').next().unwrap_or_default();
            let list: fn(&mut Self) -> &mut Vec<Value> = match (group, object.kind()) {
                ("keda.sh", "ScaledObject") => |here| &mut here.scaled_objects,
                ("autoscaling", "HorizontalPodAutoscaler") => |here| &mut here.autoscalers,
                ("v1", "LimitRange") => |here| &mut here.limit_ranges,
                _ => continue,
            };
            list(all.entry(object.home().to_owned()).or_default()).push(object.value.clone());
        }
        all
    }
}

/// All objects of the files.
pub struct Files<'a> {
    definitions: &'a Definitions,
    objects: &'a [Object],
    rules: &'a Rules,
    standings: Vec<Standing>,
    /// Of the objects of our kinds: as they would be stored, or why they are refused.
    stored: BTreeMap<usize, Result<Value, Vec<Fault>>>,
    neighbours: BTreeMap<String, Neighbours>,
    readable: Objects,
    resolver: Resolver,
}

impl<'a> Files<'a> {
    /// Asks the definitions about every object of our kinds.
    pub async fn new(definitions: &'a Definitions, objects: &'a [Object], rules: &'a Rules) -> Self {
        let mut standings = Vec::new();
        let mut stored = BTreeMap::new();
        for (index, object) in objects.iter().enumerate() {
            let standing = standing(object.api_version(), object.kind());
            if let Standing::Ours { group, kind } = &standing
                && let Some(crd) = definitions.of(group, kind)
            {
                stored.insert(index, definitions.store(crd, &object.value, &object.node).await);
            }
            standings.push(standing);
        }
        let readable = Objects::new(objects.iter().enumerate().map(|(index, object)| match stored.get(&index) {
            Some(Ok(stored)) => stored,
            _ => &object.value,
        }));
        let settings =
            Settings { cluster_object_namespace: Some(rules.cluster_object_namespace.clone()), ..Settings::default() };
        let resolver = Resolver::new(readable.client(), settings);
        Self { definitions, objects, rules, standings, stored, neighbours: Neighbours::of(objects), readable, resolver }
    }

    /// Checks an object; `None` where it is of no concern.
    pub async fn check(&self, index: usize) -> Option<Document> {
        let object = &self.objects[index];
        let mut findings = Findings::new(&object.node);
        if let Some((path, message)) = object.misshapen() {
            findings.error(&path, message);
            return Some(findings.document(object, self.rules.strict));
        }
        match &self.standings[index] {
            Standing::Other => return None,
            Standing::Mistaken(path, message) => findings.error(path, message.clone()),
            Standing::Ours { group, kind } => self.ours(index, group, kind, &mut findings).await,
        }
        Some(findings.document(object, self.rules.strict))
    }

    async fn ours(&self, index: usize, group: &str, kind: &str, findings: &mut Findings<'_>) {
        let object = &self.objects[index];
        self.whole(index, findings);
        if let Some(crd) = self.definitions.of(group, kind) {
            for unknown in self.definitions.unknown(crd, &object.value) {
                let field = unknown.path.steps().last().map(ToOwned::to_owned);
                let Some(Step::Key(field)) = field else { continue };
                let hint = unknown.nearest.map(|near| format!(", did you mean {near}?")).unwrap_or_default();
                let message = match field.as_str() {
                    "metricType" if kind == "ScaledJob" => "metricType has no effect in a ScaledJob".to_owned(),
                    field => format!("unknown field {field}{hint}"),
                };
                findings.warn(&unknown.path, Side::Key, message);
            }
        }
        let value = match self.stored.get(&index) {
            Some(Ok(stored)) => stored,
            Some(Err(faults)) => {
                findings.faults(faults);
                &object.value
            }
            None => &object.value,
        };
        if let Some(Ok(stored)) = self.stored.get(&index) {
            self.admission(index, stored, findings);
        }
        let spec = &value["spec"];
        match kind {
            "ScaledObject" => self.scaled_object(object, value, findings).await,
            "ScaledJob" => self.scaled_job(object, value, findings).await,
            _ => {
                let cluster_wide = kind.starts_with("Cluster");
                let namespace = if cluster_wide { self.rules.cluster_object_namespace.as_str() } else { object.home() };
                match group == EVENTING_GROUP {
                    true => references::event_source(spec, namespace, &self.readable, findings),
                    false => references::authentication(spec, namespace, &self.readable, findings),
                }
            }
        }
    }

    /// What can be said of an object of any kind.
    fn whole(&self, index: usize, findings: &mut Findings<'_>) {
        let object = &self.objects[index];
        let mut duplicates = Vec::new();
        object.node.duplicates(&Path::default(), &mut duplicates);
        for duplicate in duplicates {
            let message = format!("this key is there already, in line {}", duplicate.first.line);
            findings.errors.push((duplicate.path.clone(), Diagnostic::at(duplicate.at, &duplicate.path, message)));
        }
        let same = |other: &&Object| {
            other.kind() == object.kind()
                && other.api_version() == object.api_version()
                && other.name() == object.name()
                && other.home() == object.home()
        };
        let path = Path::of(["metadata", "name"]);
        if let Some(first) = self.objects[..index].iter().find(same).filter(|_| !object.name().is_empty()) {
            let line = first.node.spot(&path, Side::Value).line;
            let message = format!("{} {} is there already, in {}:{line}", object.kind(), object.name(), first.file);
            findings.warn(&path, Side::Value, message);
        }
    }

    fn admission(&self, index: usize, stored: &Value, findings: &mut Findings<'_>) {
        let object = &self.objects[index];
        let request = Request { object: stored, old: None, dry_run: false };
        let target =
            Workload::scaled_by(stored).and_then(|target| workload::find(self.objects, &target, object.home()));
        let neighbours = self.neighbours.get(object.home());
        let list = |list: fn(&Neighbours) -> &Vec<Value>| neighbours.map(list).map_or(&[][..], Vec::as_slice);
        let view = View {
            target: target.map_or(Target::Unread, |target| Target::Found(&target.value)),
            scaled_objects: list(|neighbours| &neighbours.scaled_objects),
            autoscalers: list(|neighbours| &neighbours.autoscalers),
            limit_ranges: list(|neighbours| &neighbours.limit_ranges),
        };
        let verdict = review(&request, &view);
        for error in verdict.errors {
            let spot = object.node.spot(&error.path, Side::Value);
            // Only a formula has places of its own.
            let text = stored.pointer("/spec/advanced/scalingModifiers/formula").and_then(Value::as_str);
            let within = |(text, at)| scalar::within(&object.text, spot, text, at);
            let spot = text.zip(error.offset).and_then(within).unwrap_or(spot);
            let diagnostic = Diagnostic::at(spot, &error.path, error.message);
            findings.errors.push((error.path, diagnostic));
        }
        for warning in verdict.warnings {
            findings.warn(&warning.path, Side::Key, warning.message);
        }
    }

    async fn scaled_object(&self, object: &Object, value: &Value, findings: &mut Findings<'_>) {
        hints::scaled_object(value, findings);
        let path = Path::of(["spec", "scaleTargetRef"]);
        let target = Workload::scaled_by(value);
        let found = target.as_ref().and_then(|target| workload::find(self.objects, target, object.home()));
        match (target.as_ref().and_then(workload::unscalable), &target, found) {
            (Some(message), ..) => findings.error(&path.key("kind"), message),
            (None, Some(target), None) => {
                findings.unresolved(&path, reference(&target.kind, object.home(), &target.name));
            }
            _ => {}
        }
        let spec = &value["spec"];
        let formula = spec["advanced"]["scalingModifiers"]["formula"].as_str().unwrap_or_default();
        let template = found.map(|found| &found.value["spec"]["template"]);
        let container = spec["scaleTargetRef"]["envSourceContainerName"].as_str();
        let container_path = path.key("envSourceContainerName");
        self.triggers(object, value, (template, container, container_path, !formula.is_empty()), findings).await;
    }

    async fn scaled_job(&self, object: &Object, value: &Value, findings: &mut Findings<'_>) {
        hints::scaled_job(value, findings);
        let spec = &value["spec"];
        let template = Some(&spec["jobTargetRef"]["template"]);
        let container = spec["envSourceContainerName"].as_str();
        let container_path = Path::of(["spec", "envSourceContainerName"]);
        self.triggers(object, value, (template, container, container_path, false), findings).await;
    }

    /// Checks the triggers; `(pod template, container of the environment, the field that names it, for a formula)`.
    async fn triggers(
        &self,
        object: &Object,
        value: &Value,
        (template, container, container_path, as_metric_source): (Option<&Value>, Option<&str>, Path, bool),
        findings: &mut Findings<'_>,
    ) {
        let spec = template.map(workload::pod_spec);
        let pod = match &spec {
            None => Pod::Unknown,
            Some(Ok(None)) => Pod::None,
            Some(Ok(Some(pod))) => Pod::Known(pod),
            Some(Err(())) => {
                let path = if object.kind() == "ScaledJob" {
                    Path::of(["spec", "jobTargetRef", "template"])
                } else {
                    Path::of(["spec", "scaleTargetRef"])
                };
                let message = "the pod template cannot be read, so that its environment is not known";
                findings.warn(&path, Side::Value, message);
                Pod::Unknown
            }
        };
        let around = Surroundings {
            resolver: &self.resolver,
            objects: &self.readable,
            namespace: object.home(),
            object: object.name(),
            node: &object.node,
            pod,
            container: container.filter(|name| !name.is_empty()),
            container_path,
            as_metric_source,
        };
        for (index, trigger) in value["spec"]["triggers"].as_array().into_iter().flatten().enumerate() {
            let Some(trigger) = lenient(trigger) else {
                let type_ = trigger["type"].as_str().unwrap_or_default().to_owned();
                findings.triggers.push(Trigger {
                    index,
                    type_,
                    valid: false,
                    errors: Vec::new(),
                    warnings: Vec::new(),
                    metrics: Vec::new(),
                });
                continue;
            };
            let checked = trigger::check(index, &trigger, &around).await;
            findings.unresolved.extend(checked.unresolved);
            findings.triggers.push(checked.trigger);
        }
    }
}

/// The trigger, be it that numbers and flags stand where texts must: that has been told, and the rest is worth a look.
fn lenient(trigger: &Value) -> Option<ScaleTriggers> {
    let mut trigger = trigger.clone();
    let fields = trigger.as_object_mut()?;
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    for value in metadata.as_object_mut()?.values_mut() {
        match value {
            Value::Number(number) => *value = number.to_string().into(),
            Value::Bool(flag) => *value = flag.to_string().into(),
            _ => {}
        }
    }
    serde_json::from_value(trigger).ok()
}
