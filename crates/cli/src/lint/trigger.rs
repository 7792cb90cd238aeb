//! One trigger: its parameters are resolved from the files and parsed by the operator's own code.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PodSpec;
use tidemark_admission::Path;
use tidemark_api::ScaleTriggers;
use tidemark_auth::{AuthError, Place, Resolver};
use tidemark_engine::quantity::format_milli;
use tidemark_trigger::parameters::Source;
use tidemark_trigger::{MetricSpec, ParseError, ResourceTarget, Secret, TriggerInput, TriggerType};

use super::document::{Node, Side};
use super::objects::Objects;
use super::parameters::{self, FROM_ENV};
use super::probing::{Doubt, Outcome};
use super::report::{Diagnostic, Metric, Trigger, Unresolved};

/// What a trigger's parameters may come from.
pub struct Surroundings<'a> {
    pub resolver: &'a Resolver,
    pub objects: &'a Objects,
    pub namespace: &'a str,
    pub object: &'a str,
    /// The object with its places.
    pub node: &'a Node,
    pub pod: Pod<'a>,
    /// `envSourceContainerName`, and the field that holds it.
    pub container: Option<&'a str>,
    pub container_path: Path,
    /// The triggers feed a formula.
    pub as_metric_source: bool,
}

/// The pod template of what is scaled.
#[derive(Clone, Copy)]
pub enum Pod<'a> {
    /// The workload is not among the files.
    Unknown,
    /// The workload has none.
    None,
    Known(&'a PodSpec),
}

/// A trigger's part of the report, and the references that it makes.
pub struct Checked {
    pub trigger: Trigger,
    pub unresolved: Vec<Unresolved>,
}

/// Checks a trigger of the catalogue or none. What depends on something that is not among the files is let pass.
pub async fn check(index: usize, trigger: &ScaleTriggers, around: &Surroundings<'_>) -> Checked {
    let path = Path::of(["spec", "triggers"]).index(index);
    let mut check = Check { path, around, errors: Vec::new(), warnings: Vec::new(), unresolved: Vec::new() };
    let mut metrics = Vec::new();
    match tidemark_triggers::find(&trigger.type_) {
        Err(error) => check.error("type", error.message),
        Ok(known) => {
            let mut doubt = Doubt::default();
            let (auth, pod_identity) = check.authentication(trigger, &mut doubt).await;
            let env = check.environment(trigger, &mut doubt).await;
            let Surroundings { namespace, object, as_metric_source: for_formula, .. } = *around;
            let input = Place { namespace, object, index, for_formula }.input(trigger, auth, env, pod_identity);
            metrics = check.parse(known, &input, &doubt);
        }
    }
    let Check { errors, warnings, unresolved, .. } = check;
    let type_ = trigger.type_.clone();
    Checked { trigger: Trigger { index, type_, valid: errors.is_empty(), errors, warnings, metrics }, unresolved }
}

struct Check<'a> {
    /// Of the trigger.
    path: Path,
    around: &'a Surroundings<'a>,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    unresolved: Vec<Unresolved>,
}

type Parameters = BTreeMap<String, Secret>;

impl Check<'_> {
    fn error(&mut self, field: &str, message: impl Into<String>) {
        let path = self.path.key(field);
        self.errors.push(Diagnostic::new(self.around.node, &path, Side::Value, message));
    }

    fn warn(&mut self, path: &Path, side: Side, message: impl Into<String>) {
        self.warnings.push(Diagnostic::new(self.around.node, path, side, message));
    }

    fn misses(&mut self, path: &Path, references: Vec<String>) {
        let node = self.around.node;
        self.unresolved.extend(references.into_iter().map(|reference| Unresolved::new(node, path, reference)));
    }

    /// The parameters of the referenced authentication, and the pod identity.
    async fn authentication(&mut self, trigger: &ScaleTriggers, doubt: &mut Doubt) -> (Parameters, Option<String>) {
        let Some(reference) = &trigger.authentication_ref else { return Default::default() };
        let around = self.around;
        let (path, pod) = (self.path.key("authenticationRef"), around.pod.known());
        around.objects.missed();
        let resolved = around.resolver.resolve(around.namespace, reference, pod).await;
        let missed = around.objects.missed();
        let resolved = match resolved {
            Ok(resolved) => resolved,
            Err(error) => {
                doubt.all_auth = true;
                match error {
                    // The operator's own files are not here.
                    AuthError::File { path: file, .. } => self.misses(&path, vec![format!("file {file}")]),
                    error => self.error("authenticationRef", error.to_string()),
                }
                return Default::default();
            }
        };
        // Variables of a workload that is not here are as unknown as its Secrets.
        let unknown_pod = matches!(around.pod, Pod::Unknown);
        let explained = |note: &String| {
            missed.iter().any(|reference| note.contains(reference.as_str()))
                || (unknown_pod && note.contains("the target has no pod template"))
        };
        let (absent, told): (Vec<_>, Vec<_>) = resolved.missing.iter().partition(|note| explained(note));
        doubt.all_auth = missed.iter().any(|reference| reference.contains("TriggerAuthentication "));
        if !absent.is_empty() {
            let empty = resolved.parameters.iter().filter(|(_, value)| value.expose().is_empty());
            doubt.auth.extend(empty.map(|(name, _)| name.clone()));
        }
        for note in told {
            self.warn(&path, Side::Value, note.clone());
        }
        self.misses(&path, missed);
        (resolved.parameters, resolved.pod_identity)
    }

    /// The environment of the target's container, where a parameter is taken from it.
    async fn environment(&mut self, trigger: &ScaleTriggers, doubt: &mut Doubt) -> Parameters {
        let variables = trigger.metadata.iter().filter(|(key, _)| key.ends_with(FROM_ENV));
        let variables: BTreeSet<_> = variables.map(|(_, variable)| variable.trim().to_owned()).collect();
        let around = self.around;
        let pod = match around.pod {
            _ if variables.is_empty() => return Parameters::new(),
            Pod::None => return Parameters::new(),
            Pod::Unknown => {
                doubt.env = variables;
                return Parameters::new();
            }
            Pod::Known(pod) => pod,
        };
        around.objects.missed();
        let resolved = around.resolver.container_env(around.namespace, pod, around.container).await;
        let missed = around.objects.missed();
        match resolved {
            Ok(env) => {
                // An optional Secret that is not here may give a variable that nothing else gives.
                if !missed.is_empty() {
                    doubt.env = variables.into_iter().filter(|variable| !env.contains_key(variable)).collect();
                    self.misses(&self.path.key("metadata"), missed);
                }
                env
            }
            Err(error) => {
                doubt.env = variables;
                match error {
                    AuthError::MissingForContainer { .. } => self.misses(&self.path.key("metadata"), missed),
                    error => {
                        let path = around.container_path.clone();
                        self.errors.push(Diagnostic::new(around.node, &path, Side::Value, error.to_string()));
                    }
                }
                Parameters::new()
            }
        }
    }

    fn parse(&mut self, known: &TriggerType, input: &TriggerInput, doubt: &Doubt) -> Vec<Metric> {
        let Outcome { errors, notes, metrics } = doubt.parse(known, input);
        for error in &errors {
            let (path, side) = self.place(known, input, error);
            self.errors.push(Diagnostic::new(self.around.node, &path, side, error.message.clone()));
        }
        let metadata = self.path.key("metadata");
        let mut noted = BTreeSet::new();
        for note in &notes {
            let key = parameters::key_in(note, input);
            let path = key.map_or_else(|| metadata.clone(), |key| metadata.key(key));
            noted.extend(key.map(str::to_owned));
            self.warn(&path, Side::Key, note.clone());
        }
        for (key, message) in parameters::without_effect(known, input, doubt, !errors.is_empty()) {
            if noted.insert(key.clone()) {
                self.warn(&metadata.key(key), Side::Key, message);
            }
        }
        for message in parameters::misspelt_authentication(known, input) {
            self.warn(&self.path.key("authenticationRef"), Side::Value, message);
        }
        metrics.iter().map(metric).collect()
    }

    /// The field to blame for an error.
    fn place(&self, known: &TriggerType, input: &TriggerInput, error: &ParseError) -> (Path, Side) {
        let metadata = self.path.key("metadata");
        let Some(name) = error.parameter.as_deref() else { return (metadata, Side::Key) };
        let Some(parameter) = known.parameters.iter().find(|parameter| parameter.names.contains(&name)) else {
            // `metricType` stands beside the metadata.
            let field = if name == "metricType" { self.path.key(name) } else { metadata.key(name) };
            return (field, Side::Value);
        };
        for source in parameter.sources {
            for name in parameter.names {
                let (path, given) = match source {
                    Source::Metadata => (metadata.key(*name), input.metadata.contains_key(*name)),
                    Source::Env => {
                        let key = format!("{name}{FROM_ENV}");
                        let given = input.metadata.contains_key(&key);
                        (metadata.key(key), given)
                    }
                    Source::Auth => (self.path.key("authenticationRef"), input.auth.contains_key(*name)),
                };
                if given {
                    return (path, Side::Value);
                }
            }
        }
        (metadata.key(name), Side::Value)
    }
}

impl<'a> Pod<'a> {
    fn known(self) -> Option<&'a PodSpec> {
        match self {
            Self::Known(pod) => Some(pod),
            Self::Unknown | Self::None => None,
        }
    }
}

fn metric(metric: &MetricSpec) -> Metric {
    match metric {
        MetricSpec::External { name, metric_type, target_milli } => Metric {
            name: name.to_string(),
            target: format_milli(*target_milli),
            metric_type: metric_type.as_str().to_owned(),
        },
        MetricSpec::Resource { resource, target, .. } => {
            let (target, metric_type) = match target {
                ResourceTarget::Utilization(percent) => (percent.to_string(), "Utilization"),
                ResourceTarget::AverageValue(quantity) => (quantity.to_string(), "AverageValue"),
            };
            Metric { name: resource.as_str().to_owned(), target, metric_type: metric_type.to_owned() }
        }
    }
}
