//! One trigger of an object: how it is built from its parameters, and how it is fetched.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tidemark_api::{ScaleTriggers, ScaledObjectSpec};
use tidemark_trigger::{Connection, ErrorKind, ParseErrors, Reading, Secret, SourceError, Trigger, TriggerInput};
use tokio::time::Instant;

use crate::context::Context;
use crate::observation::{Asker, ObjectKey};
use crate::target::Template;

/// A trigger with parameters that are right; not necessarily connected.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) trigger: Arc<dyn Trigger>,
    /// Changes when a parameter from authentication or environment does.
    pub(crate) fingerprint: u64,
    /// Parameters that could not be had, for people: such as a Secret without the key.
    pub(crate) missing: Arc<[String]>,
}

/// A built trigger, or what is wrong with it: `trigger 0 (cron): ...`.
pub(crate) type BuildResult = Result<Built, Arc<str>>;

/// Where the parameters of an object's triggers come from.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) ctx: Arc<Context>,
    pub(crate) key: Arc<ObjectKey>,
    pub(crate) spec: Arc<ScaledObjectSpec>,
    pub(crate) template: Option<Template>,
    /// Parameters must be read now; what other objects have read lately will not do.
    pub(crate) fresh: bool,
}

/// Whether parameters of the trigger come from elsewhere than its metadata.
pub(crate) fn needs_resolution(trigger: &ScaleTriggers) -> bool {
    trigger.authentication_ref.is_some() || needs_environment(trigger)
}

fn needs_environment(trigger: &ScaleTriggers) -> bool {
    trigger.metadata.keys().any(|key| key.ends_with("FromEnv"))
}

impl Parts {
    /// Resolves authentication and environment and parses the trigger. Nothing outside the API server is contacted.
    pub(crate) async fn build(&self, index: usize) -> BuildResult {
        let trigger = &self.spec.triggers[index];
        let failure =
            |error: &dyn Display| -> Arc<str> { format!("trigger {index} ({}): {error}", trigger.type_).into() };
        let pod = self.template.as_ref().filter(|_| needs_resolution(trigger)).and_then(Template::pod_spec);
        let resolver = if self.fresh { &self.ctx.resolver } else { &self.ctx.refresher };
        let mut env = BTreeMap::new();
        if let (true, Some(pod)) = (needs_environment(trigger), &pod) {
            let container =
                self.spec.scale_target_ref.env_source_container_name.as_deref().filter(|name| !name.is_empty());
            let resolved = resolver.container_env(&self.key.namespace, pod, container).await;
            env = resolved.map_err(|error| failure(&error))?;
        }
        let mut auth = BTreeMap::new();
        let (mut pod_identity, mut missing) = (None, Vec::new());
        if let Some(reference) = &trigger.authentication_ref {
            let resolved = resolver.resolve(&self.key.namespace, reference, pod.as_ref()).await;
            let resolved = resolved.map_err(|error| failure(&error))?;
            (auth, pod_identity, missing) = (resolved.parameters, resolved.pod_identity, resolved.missing);
        }
        let fingerprint = fingerprint(&auth, &env, pod_identity.as_deref());
        let input = self.input(index, auth, env, pod_identity);
        match tidemark_triggers::parse(&input) {
            Ok(trigger) => Ok(Built { trigger, fingerprint, missing: missing.into() }),
            Err(errors) => Err(failure(&join(&errors, &missing))),
        }
    }

    fn input(
        &self,
        index: usize,
        auth: BTreeMap<String, Secret>,
        env: BTreeMap<String, Secret>,
        pod_identity: Option<String>,
    ) -> TriggerInput {
        let trigger = &self.spec.triggers[index];
        TriggerInput {
            index,
            trigger_type: trigger.type_.clone(),
            name: trigger.name.clone(),
            metadata: trigger.metadata.clone(),
            auth,
            env,
            pod_identity,
            metric_type: trigger.metric_type.clone(),
            as_metric_source: false,
            namespace: self.key.namespace.clone(),
            object: self.key.name.clone(),
        }
    }
}

fn join(errors: &ParseErrors, missing: &[String]) -> String {
    let errors = errors.0.iter().map(|error| error.message.as_str());
    errors.chain(missing.iter().map(String::as_str)).collect::<Vec<_>>().join("; ")
}

fn fingerprint(auth: &BTreeMap<String, Secret>, env: &BTreeMap<String, Secret>, identity: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (auth, env, identity).hash(&mut hasher);
    hasher.finish()
}

/// One fetch: one read of one trigger, its one rebuild and second read included, under one deadline.
pub(crate) struct Fetch {
    pub(crate) parts: Parts,
    pub(crate) index: usize,
    pub(crate) built: Built,
    pub(crate) connection: Option<Arc<dyn Connection>>,
    /// Which set of triggers it belongs to: the outcome of an older set is dropped.
    pub(crate) epoch: u32,
    pub(crate) asked_by: Asker,
}

/// How a fetch ended.
pub(crate) struct Fetched {
    pub(crate) index: usize,
    pub(crate) epoch: u32,
    pub(crate) asked_by: Asker,
    /// Of the trigger that the fetch began with.
    pub(crate) fingerprint: u64,
    pub(crate) started: Instant,
    pub(crate) outcome: Result<Vec<Reading>, SourceError>,
    /// The connection to go on with; none after a failure.
    pub(crate) connection: Option<Arc<dyn Connection>>,
    /// The trigger as it was built anew with other parameters.
    pub(crate) rebuilt: Option<Built>,
}

impl Fetch {
    pub(crate) async fn run(mut self) -> Fetched {
        let started = Instant::now();
        let limit = self.parts.ctx.settings.fetch_timeout;
        let fingerprint = self.built.fingerprint;
        let outcome = tokio::time::timeout(limit, self.attempts()).await.unwrap_or_else(|_| {
            Err(SourceError::new(ErrorKind::TimedOut, format!("not read within {} s", limit.as_secs_f64())))
        });
        let outcome = outcome.map_err(|error| with_notes(error, &self.built.missing));
        let connection = self.connection.filter(|_| outcome.is_ok());
        let rebuilt = (self.built.fingerprint != fingerprint).then_some(self.built);
        let (index, epoch, asked_by) = (self.index, self.epoch, self.asked_by);
        Fetched { index, epoch, asked_by, fingerprint, started, outcome, connection, rebuilt }
    }

    /// The read, and after a failure the second one: with parameters resolved again, over a new connection.
    async fn attempts(&mut self) -> Result<Vec<Reading>, SourceError> {
        let first = match self.attempt().await {
            Ok(readings) => return Ok(readings),
            Err(error) => error,
        };
        self.connection = None;
        if needs_resolution(&self.parts.spec.triggers[self.index]) {
            self.built = self.parts.build(self.index).await.map_err(|failure| {
                SourceError::new(first.kind, format!("{}; built again: {failure}", first.message))
            })?;
        }
        self.attempt().await
    }

    async fn attempt(&mut self) -> Result<Vec<Reading>, SourceError> {
        let door = &self.parts.ctx.door;
        let connection = match &self.connection {
            Some(connection) => connection,
            None => self.connection.insert(self.built.trigger.connect(door).await?),
        };
        let readings = connection.read(door).await?;
        let wanted = self.built.trigger.metrics().len();
        if readings.len() == wanted {
            return Ok(readings);
        }
        let message = format!("{} values were read where {wanted} are expected", readings.len());
        Err(SourceError::new(ErrorKind::BadReply, message))
    }
}

fn with_notes(mut error: SourceError, missing: &[String]) -> SourceError {
    for note in missing {
        error.message.push_str("; ");
        error.message.push_str(note);
    }
    error
}
