//! One trigger: built with the operator's parameters, and read once.

use std::sync::Arc;
use std::time::Duration;

use tidemark_api::ScaleTriggers;
use tidemark_auth::{AuthError, Place, needs_environment};
use tidemark_trigger::{ErrorKind, MetricSpec, Reading, SourceError, Trigger};
use tokio::time::{Instant, timeout, timeout_at};

use super::World;
use super::object::{Object, Target};

/// What came of a trigger.
pub(super) struct Probed {
    pub(super) index: usize,
    pub(super) type_: String,
    /// `name` of the trigger, for the formula.
    pub(super) name: Option<Arc<str>>,
    /// The metrics that it yields, as far as they are known.
    pub(super) metrics: Vec<MetricSpec>,
    /// What is no error, for people.
    pub(super) notes: Vec<String>,
    pub(super) outcome: Outcome,
}

/// How the read ended.
pub(super) enum Outcome {
    /// One reading for each metric.
    Read { readings: Vec<Reading>, latency: Duration },
    /// There is nothing to read: the HPA does.
    ByHpa,
    /// `latency` is that of the source; none where it was not asked.
    Failed { error: SourceError, remedy: String, latency: Option<Duration> },
}

/// A trigger with its parameters.
struct Built {
    trigger: Arc<dyn Trigger>,
    /// Parameters that could not be had.
    missing: Vec<String>,
}

/// Why a trigger could not be built.
struct Unbuilt {
    messages: Vec<String>,
    missing: Vec<String>,
}

/// Builds a trigger and reads it, all under one deadline.
pub(super) async fn probe(
    world: &World,
    object: &Object<'_>,
    target: &Target,
    index: usize,
    definition: &ScaleTriggers,
) -> Probed {
    let deadline = Instant::now() + world.limit;
    let name = definition.name.as_deref().filter(|name| !name.is_empty()).map(Arc::from);
    let mut probed = Probed {
        index,
        type_: definition.type_.clone(),
        name,
        metrics: Vec::new(),
        notes: Vec::new(),
        outcome: Outcome::ByHpa,
    };
    let built = match timeout_at(deadline, build(world, object, target, index, definition)).await {
        Ok(Ok(built)) => built,
        Ok(Err(unbuilt)) => {
            let remedy = unbuilt.remedy(world, target);
            let messages = unbuilt.messages.into_iter().chain(unbuilt.missing);
            let message = messages.collect::<Vec<_>>().join("; ");
            let error = SourceError::new(ErrorKind::Configuration, message);
            probed.outcome = Outcome::Failed { error, remedy, latency: None };
            return probed;
        }
        Err(_) => {
            let message = format!("its parameters were not read within {} s", world.limit.as_secs());
            let error = SourceError::new(ErrorKind::TimedOut, message);
            let remedy = "see whether the API server of the cluster answers, or give a longer --timeout".to_owned();
            probed.outcome = Outcome::Failed { error, remedy, latency: None };
            return probed;
        }
    };
    probed.metrics = built.trigger.metrics().to_vec();
    probed.notes = built.trigger.notes().to_vec();
    let by_hpa = |metrics: &[MetricSpec]| metrics.iter().all(|metric| metric.external_name().is_none());
    if probed.metrics.is_empty() || !by_hpa(&probed.metrics) {
        probed.outcome = read(world, definition, &built, &mut probed.metrics, deadline).await;
    }
    if !matches!(probed.outcome, Outcome::Failed { .. }) {
        probed.notes.extend(built.missing);
    }
    probed
}

async fn read(
    world: &World,
    definition: &ScaleTriggers,
    built: &Built,
    metrics: &mut Vec<MetricSpec>,
    deadline: Instant,
) -> Outcome {
    let started = Instant::now();
    let attempt = async {
        let connection = built.trigger.connect(&world.door).await?;
        if let Some(named) = connection.metrics() {
            *metrics = named.to_vec();
        }
        let readings = connection.read(&world.door).await?;
        if readings.is_empty() || readings.len() != metrics.len() {
            let message = format!("{} values were read where {} are expected", readings.len(), metrics.len());
            return Err(SourceError::new(ErrorKind::BadReply, message));
        }
        Ok(readings)
    };
    let outcome = timeout(deadline.saturating_duration_since(started), attempt).await;
    let latency = started.elapsed();
    let mut error = match outcome {
        Ok(Ok(readings)) => return Outcome::Read { readings, latency },
        Ok(Err(error)) => error,
        Err(_) => SourceError::new(ErrorKind::TimedOut, format!("not read within {} s", world.limit.as_secs())),
    };
    for missing in &built.missing {
        error.message = format!("{}; {missing}", error.message);
    }
    let remedy = remedy(error.kind, definition, world, &built.missing);
    Outcome::Failed { error, remedy, latency: Some(latency) }
}

/// Resolves authentication and environment and parses the trigger, as the operator does.
async fn build(
    world: &World,
    object: &Object<'_>,
    target: &Target,
    index: usize,
    definition: &ScaleTriggers,
) -> Result<Built, Unbuilt> {
    let place =
        Place { namespace: object.read.home(), object: object.read.name(), index, for_formula: object.for_formula() };
    let pod = target.pod.as_ref();
    let resolved = world.resolver.trigger_input(place, definition, pod, object.container()).await;
    let failed = |error: AuthError| Unbuilt { messages: vec![error.to_string()], missing: Vec::new() };
    let (input, mut missing) = resolved.map_err(failed)?;
    if needs_environment(definition) && pod.is_none() {
        missing.extend(target.missing.iter().map(|why| format!("the environment is not known: {why}")));
    }
    match tidemark_triggers::parse(&input) {
        Ok(trigger) => Ok(Built { trigger, missing }),
        Err(errors) => Err(Unbuilt { messages: errors.0.into_iter().map(|error| error.message).collect(), missing }),
    }
}

impl Unbuilt {
    fn remedy(&self, world: &World, target: &Target) -> String {
        if !world.has_cluster && (!self.missing.is_empty() || target.missing.is_some() && self.speaks_of_target()) {
            return ELSEWHERE.to_owned();
        }
        match self.missing.is_empty() {
            true => "correct the trigger; `tidemark lint` shows the place".to_owned(),
            false => "create what is missing, or correct its name".to_owned(),
        }
    }

    fn speaks_of_target(&self) -> bool {
        self.messages.iter().any(|message| message.contains("scale target"))
    }
}

const ELSEWHERE: &str = "add what is missing to the files, or name a cluster that has it by --context or --kubeconfig";

/// What a person does about a failed read.
fn remedy(kind: ErrorKind, definition: &ScaleTriggers, world: &World, missing: &[String]) -> String {
    if !missing.is_empty() {
        let create = "create what is missing, or correct its name";
        return if world.has_cluster { create } else { ELSEWHERE }.to_owned();
    }
    let credentials = match &definition.authentication_ref {
        Some(reference) => format!("check what {} gives, and what it may do at the source", reference.name),
        None => "give the trigger credentials by authenticationRef, or check those in its metadata".to_owned(),
    };
    match kind {
        ErrorKind::Authentication => credentials,
        ErrorKind::Configuration if !world.has_cluster => {
            "correct the trigger, or name its cluster by --context or --kubeconfig if it asks the cluster".to_owned()
        }
        ErrorKind::Configuration => "correct the trigger; `tidemark lint` shows the place".to_owned(),
        ErrorKind::Unreachable => {
            "check host, port and TLS settings, and whether this machine gets there at all: names of \
                                   a cluster's Services are known only inside of it (kubectl port-forward leads in)"
                .to_owned()
        }
        ErrorKind::Refused => "see why the source refuses: the request may be wrong, or the source not well".to_owned(),
        ErrorKind::BadReply => {
            "look at what the source answers, and whether the trigger's parameters fit it".to_owned()
        }
        ErrorKind::MissingResource => "create what is asked for, or correct its name in the trigger".to_owned(),
        ErrorKind::TimedOut => {
            "see whether something on the way drops packets or the source is slow; --timeout gives it \
                                more time"
                .to_owned()
        }
    }
}
