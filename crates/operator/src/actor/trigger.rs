//! One trigger of an object: how it is built from its parameters, and how it is fetched.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tidemark_api::ScaleTriggers;
use tidemark_auth::{Place, needs_environment};
use tidemark_trigger::door::{Hop, HttpRequests};
use tidemark_trigger::{Connection, Door, ErrorKind, MetricSpec, ParseErrors, Reading, Secret, SourceError, Trigger};
use tokio::time::Instant;

use super::plan::Definitions;
use crate::context::Context;
use crate::observation::{Asker, ObjectKey};
use crate::target::Template;
use crate::texts::Text;

/// A trigger with parameters that are right; not necessarily connected.
#[derive(Clone)]
pub(crate) struct Built {
    pub(crate) trigger: Arc<dyn Trigger>,
    /// Changes when a parameter from authentication or environment does.
    pub(crate) fingerprint: u64,
    /// Parameters that could not be had, for people: such as a Secret without the key.
    pub(crate) missing: Option<Arc<[String]>>,
    /// The metrics that the source has named, where the trigger has none of its own.
    pub(crate) named: Option<Arc<[MetricSpec]>>,
}

impl Built {
    /// The metrics that the trigger yields, as far as they are known.
    pub(crate) fn metrics(&self) -> &[MetricSpec] {
        match &self.named {
            Some(named) => named,
            None => self.trigger.metrics(),
        }
    }

    /// Whether only the source knows the metrics, and was not reached yet.
    pub(crate) fn is_unnamed(&self) -> bool {
        self.named.is_none() && self.trigger.metrics().is_empty()
    }

    /// Whether there is nothing to fetch, because the HPA reads the metrics by itself.
    pub(crate) fn is_resource(&self) -> bool {
        let metrics = self.metrics();
        !metrics.is_empty() && metrics.iter().all(|metric| metric.external_name().is_none())
    }

    pub(crate) fn notes(&self) -> impl Iterator<Item = &String> {
        self.trigger.notes().iter().chain(self.missing())
    }

    fn missing(&self) -> impl Iterator<Item = &String> {
        self.missing.iter().flat_map(|missing| missing.iter())
    }

    /// Opens a connection and asks it for the metrics, where only the source knows them.
    async fn connect(&mut self, door: &Door) -> Result<Arc<dyn Connection>, SourceError> {
        let connection = self.trigger.connect(door).await?;
        if let Some(named) = connection.metrics() {
            self.named = Some(named);
        }
        Ok(connection)
    }
}

/// A built trigger, or what is wrong with it: `trigger 0 (cron): ...`.
pub(crate) type BuildResult = Result<Built, Text>;

/// Where the parameters of an object's triggers come from.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) ctx: Arc<Context>,
    pub(crate) key: Arc<ObjectKey>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) template: Option<Template>,
    /// Parameters must be read now; what other objects have read lately will not do.
    pub(crate) fresh: bool,
}

/// Whether parameters of the trigger come from elsewhere than its metadata.
pub(crate) fn needs_resolution(trigger: &ScaleTriggers) -> bool {
    trigger.authentication_ref.is_some() || needs_environment(trigger)
}

impl Parts {
    /// Whether the trigger can be built again from what is here.
    fn defines(&self, index: usize) -> bool {
        self.definitions.triggers.get(index).is_some_and(Option::is_some)
    }

    /// Resolves authentication and environment and parses the trigger. Nothing outside the API server is contacted.
    pub(crate) async fn build(&self, index: usize) -> BuildResult {
        let Some(trigger) = self.definitions.triggers.get(index).and_then(Option::as_deref) else {
            return Err(format!("trigger {index} is not defined here").into());
        };
        let failure = |error: &dyn Display| -> Text { format!("trigger {index} ({}): {error}", trigger.type_).into() };
        let pod = self.template.as_ref().filter(|_| needs_resolution(trigger)).and_then(Template::pod_spec);
        let resolver = if self.fresh { &self.ctx.resolver } else { &self.ctx.refresher };
        let place = Place {
            namespace: &self.key.namespace,
            object: &self.key.name,
            index,
            for_formula: self.definitions.for_formula,
        };
        let container = self.definitions.env_container.as_deref();
        let resolved = resolver.trigger_input(place, trigger, pod.as_ref(), container).await;
        let (input, missing) = resolved.map_err(|error| failure(&error))?;
        let fingerprint = fingerprint(&input.auth, &input.env, input.pod_identity.as_deref());
        match (self.ctx.catalogue)(&input) {
            Ok(trigger) => {
                let missing = (!missing.is_empty()).then(|| missing.into());
                Ok(Built { trigger, fingerprint, missing, named: None })
            }
            Err(errors) => Err(failure(&join(&errors, &missing))),
        }
    }

    /// Asks the source for the metrics that only it knows.
    ///
    /// # Errors
    /// It was not reached, in the time that a fetch may take.
    pub(crate) async fn name(&self, index: usize, built: &mut Built) -> Result<Arc<dyn Connection>, Text> {
        let limit = self.ctx.settings.fetch_timeout;
        let connected = tokio::time::timeout(limit, built.connect(&self.ctx.door)).await;
        let error = match connected.unwrap_or_else(|_| Err(timed_out(limit))) {
            Ok(connection) if !built.is_unnamed() => return Ok(connection),
            Ok(_) => SourceError::new(ErrorKind::BadReply, "it names none"),
            Err(error) => error,
        };
        let kind = self.definitions.triggers.get(index).and_then(Option::as_ref).map_or("", |trigger| &trigger.type_);
        let error = with_notes(error, built);
        Err(format!("trigger {index} ({kind}): its source could not be asked for its metrics: {error}").into())
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
    /// Which set of triggers, and which build of this one, it belongs to: the outcome of an older one is dropped.
    pub(crate) epoch: u32,
    pub(crate) revision: u32,
    pub(crate) evaluation: u64,
    pub(crate) asked_by: Asker,
    /// What is asked over HTTP.
    pub(crate) requests: HttpRequests,
}

/// How a fetch ended.
pub(crate) struct Fetched {
    pub(crate) index: usize,
    pub(crate) epoch: u32,
    pub(crate) revision: u32,
    pub(crate) evaluation: u64,
    pub(crate) asked_by: Asker,
    /// Where the source is.
    pub(crate) endpoint: Option<Arc<str>>,
    pub(crate) started: Instant,
    pub(crate) outcome: Result<Vec<Reading>, SourceError>,
    pub(crate) requests: Vec<Hop>,
    pub(crate) empties: Vec<bool>,
    /// The connection to go on with; none after a failure.
    pub(crate) connection: Option<Arc<dyn Connection>>,
    /// The trigger with the parameters and metrics that it has now.
    pub(crate) built: Built,
}

impl Fetch {
    pub(crate) async fn run(mut self) -> Fetched {
        let started = Instant::now();
        let limit = self.parts.ctx.settings.fetch_timeout;
        let outcome = tokio::time::timeout(limit, self.attempts()).await.unwrap_or_else(|_| Err(timed_out(limit)));
        let outcome = outcome.map_err(|error| with_notes(error, &self.built));
        let connection = self.connection.filter(|_| outcome.is_ok());
        let (index, epoch, revision, asked_by) = (self.index, self.epoch, self.revision, self.asked_by);
        let (requests, empties, evaluation) = (self.requests.take(), self.requests.take_empties(), self.evaluation);
        let endpoint = self.built.trigger.endpoint().map(|endpoint| self.parts.ctx.texts.share(&endpoint));
        Fetched {
            index,
            epoch,
            revision,
            evaluation,
            asked_by,
            endpoint,
            started,
            outcome,
            requests,
            empties,
            connection,
            built: self.built,
        }
    }

    /// The read, and after a failure the second one: with parameters resolved again, over a new connection.
    async fn attempts(&mut self) -> Result<Vec<Reading>, SourceError> {
        let first = match self.attempt().await {
            Ok(readings) => return Ok(readings),
            Err(error) => error,
        };
        self.connection = None;
        if self.parts.defines(self.index) {
            let mut built = self.parts.build(self.index).await.map_err(|failure| {
                SourceError::new(first.kind, format!("{}; built again: {failure}", first.message))
            })?;
            // The same trigger stays, with what it has learnt from its source.
            if built.fingerprint != self.built.fingerprint {
                built.named = self.built.named.take();
                self.built = built;
            }
        }
        self.attempt().await
    }

    async fn attempt(&mut self) -> Result<Vec<Reading>, SourceError> {
        let door = &self.parts.ctx.door;
        let noting = door.noting(self.requests.clone());
        let connection = match &self.connection {
            Some(connection) => connection,
            None => self.connection.insert(self.built.connect(door).await?),
        };
        let readings = connection.read(&noting).await?;
        if self.built.is_unnamed() {
            return Err(SourceError::new(ErrorKind::BadReply, "the source names no metrics"));
        }
        let wanted = self.built.metrics().len();
        if readings.len() == wanted {
            return Ok(readings);
        }
        let message = format!("{} values were read where {wanted} are expected", readings.len());
        Err(SourceError::new(ErrorKind::BadReply, message))
    }
}

fn timed_out(limit: Duration) -> SourceError {
    SourceError::new(ErrorKind::TimedOut, format!("not read within {} s", limit.as_secs_f64()))
}

fn with_notes(mut error: SourceError, built: &Built) -> SourceError {
    for note in built.missing() {
        error.message.push_str("; ");
        error.message.push_str(note);
    }
    error
}
