//! The present values of all metrics, in the shape in which they come and go: by object.
//!
//! A series is there for as long as its object is: gauges keep their last value, counters begin with the object, and
//! all go with it. Telling them takes a [`Snapshot`] first, so that recording never waits for a slow reader.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use jiff::Timestamp;
use tidemark_operator::ObjectKey;

use crate::catalogue::{DURATION_BOUNDS, Metric, Source, What};

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    ScaledObject,
    ScaledJob,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::ScaledObject => "scaledobject",
            Self::ScaledJob => "scaledjob",
        }
    }
}

/// What an object is, and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub kind: Kind,
    pub key: Arc<ObjectKey>,
}

/// What is told of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// When its counters began.
    pub since: Timestamp,
    /// Triggers that could not be built, and failed reads.
    pub errors: u64,
    /// In whole or in one direction.
    pub paused: bool,
    /// Seconds between the time when the last poll was due and its begin.
    pub lateness: Option<f64>,
    /// The types of its triggers.
    pub trigger_types: Arc<[Arc<str>]>,
    /// One for each metric of its triggers.
    pub scalers: Vec<Scaler>,
    /// What its triggers asked over HTTP.
    pub requests: Vec<Requests>,
}

impl Object {
    pub fn new(since: Timestamp) -> Self {
        Self {
            since,
            errors: 0,
            paused: false,
            lateness: None,
            trigger_types: Arc::default(),
            scalers: Vec::new(),
            requests: Vec::new(),
        }
    }

    /// Counts an HTTP request of a trigger.
    pub fn request(
        &mut self,
        index: usize,
        trigger_type: &Arc<str>,
        trigger_name: Option<&Arc<str>>,
        metric: Option<&Arc<str>>,
        status: Option<u16>,
    ) {
        let same = |known: &&mut Requests| {
            known.index == index && known.status == status && known.trigger_type == *trigger_type
        };
        match self.requests.iter_mut().find(same) {
            Some(known) => known.count += 1,
            None => self.requests.push(Requests {
                index,
                trigger_type: trigger_type.clone(),
                trigger_name: trigger_name.cloned().unwrap_or_default(),
                metric: metric.cloned().unwrap_or_default(),
                status,
                count: 1,
            }),
        }
    }

    /// The series of a metric of a trigger; made where there is none.
    pub fn scaler(&mut self, index: usize, name: &Arc<str>, metric: &Arc<str>) -> &mut Scaler {
        let found = self.scalers.iter().position(|scaler| scaler.index == index && scaler.metric == *metric);
        let at = found.unwrap_or_else(|| {
            let (name, metric) = (name.clone(), metric.clone());
            let new = Scaler { index, name, metric, active: None, value: None, latency: None, failures: Vec::new() };
            self.scalers.push(new);
            self.scalers.len() - 1
        });
        let scaler = &mut self.scalers[at];
        if scaler.name != *name {
            scaler.name = name.clone();
        }
        scaler
    }
}

/// What is told of one metric of one trigger.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaler {
    pub index: usize,
    /// `triggers[].name`, or KEDA's name of the trigger type's scaler.
    pub name: Arc<str>,
    pub metric: Arc<str>,
    pub active: Option<bool>,
    pub value: Option<f64>,
    /// Seconds.
    pub latency: Option<f64>,
    /// Failed reads by kind of error.
    failures: Vec<(&'static str, u64)>,
}

impl Scaler {
    /// Failed reads.
    pub fn errors(&self) -> u64 {
        self.failures.iter().map(|(_, count)| count).sum()
    }

    /// Counts a failed read.
    pub fn fail(&mut self, kind: &'static str) {
        match self.failures.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => self.failures.push((kind, 1)),
        }
    }
}

/// HTTP requests of one trigger that were answered alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Requests {
    /// 0-based position of the trigger.
    pub index: usize,
    pub trigger_type: Arc<str>,
    /// `triggers[].name`, empty where it has none.
    pub trigger_name: Arc<str>,
    pub metric: Arc<str>,
    /// The reply's status; none where none came.
    pub status: Option<u16>,
    pub count: u64,
}

/// A distribution over [`DURATION_BOUNDS`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// How many fell under each bound and over the one before it; the last one over all.
    pub buckets: [u64; DURATION_BOUNDS.len() + 1],
    pub sum: f64,
}

impl Histogram {
    pub fn add(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        self.buckets[DURATION_BOUNDS.partition_point(|bound| *bound < seconds)] += 1;
        self.sum += seconds;
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// A trigger type, and the status of the replies to its requests; none where no reply came.
type Answers = (Arc<str>, Option<u16>);

/// The program that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    pub version: &'static str,
    pub commit: &'static str,
    pub toolchain: &'static str,
}

/// Where values are recorded. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Series(Arc<RwLock<Snapshot>>);

/// All values at one time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the program began to count.
    pub since: Timestamp,
    build: Build,
    objects: Arc<BTreeMap<Place, Arc<Object>>>,
    /// How many custom resources there are, by kind and namespace. One that was there once stays, with zero.
    resources: Arc<BTreeMap<(&'static str, Arc<str>), i64>>,
    /// How many triggers there are, by type.
    triggers: Arc<BTreeMap<Arc<str>, i64>>,
    durations: Arc<BTreeMap<Answers, Histogram>>,
    lost: u64,
}

impl Series {
    pub fn new(build: Build, since: Timestamp) -> Self {
        Self(Arc::new(RwLock::new(Snapshot {
            since,
            build,
            objects: Arc::default(),
            resources: Arc::default(),
            triggers: Arc::default(),
            durations: Arc::default(),
            lost: 0,
        })))
    }

    /// All values as they are now.
    pub fn snapshot(&self) -> Snapshot {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Snapshot> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is told of an object, which begins `now` where nothing has been told of it.
    pub fn object(&self, place: &Place, now: Timestamp, change: impl FnOnce(&mut Object)) {
        let mut state = self.write();
        let objects = Arc::make_mut(&mut state.objects);
        match objects.get_mut(place) {
            Some(object) => change(Arc::make_mut(object)),
            None => {
                let mut object = Object::new(now);
                change(&mut object);
                objects.insert(place.clone(), Arc::new(object));
            }
        }
    }

    /// Enters the types of an object's triggers, in place of those that it had.
    pub fn set_triggers(&self, place: &Place, now: Timestamp, types: Arc<[Arc<str>]>) {
        let mut before = Arc::default();
        self.object(place, now, |object| {
            before = std::mem::replace(&mut object.trigger_types, types.clone());
            object.scalers.retain(|scaler| scaler.index < types.len());
            object.requests.retain(|requests| types.get(requests.index) == Some(&requests.trigger_type));
        });
        self.count_triggers(&before, &types);
    }

    /// Forgets an object and its series.
    pub fn remove(&self, place: &Place) {
        let removed = Arc::make_mut(&mut self.write().objects).remove(place);
        if let Some(object) = removed {
            self.count_triggers(&object.trigger_types, &[]);
        }
    }

    fn count_triggers(&self, before: &[Arc<str>], now: &[Arc<str>]) {
        if before == now {
            return;
        }
        let mut state = self.write();
        let triggers = Arc::make_mut(&mut state.triggers);
        for (types, by) in [(before, -1), (now, 1)] {
            for trigger_type in types {
                *triggers.entry(trigger_type.clone()).or_default() += by;
            }
        }
    }

    /// Counts a custom resource that has come (`by` 1) or gone (-1).
    pub fn count_resource(&self, resource: &'static str, namespace: &str, by: i64) {
        let namespace = if namespace.is_empty() { "default" } else { namespace };
        let mut state = self.write();
        *Arc::make_mut(&mut state.resources).entry((resource, namespace.into())).or_default() += by;
    }

    /// Counts an HTTP request of a trigger: to its reply's head, or to its failure.
    pub fn http(&self, trigger_type: &Arc<str>, status: Option<u16>, took: Duration) {
        let mut state = self.write();
        Arc::make_mut(&mut state.durations).entry((trigger_type.clone(), status)).or_default().add(took);
    }

    /// Counts observations that were missed.
    pub fn lose(&self, count: u64) {
        self.write().lost += count;
    }
}

/// Whom a value is told of. What does not apply is empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    place: Option<&'a Place>,
    scaler: Option<&'a Scaler>,
    requests: Option<&'a Requests>,
    build: Option<&'a Build>,
    /// The one value of a label that nothing above tells.
    name: &'a str,
    namespace: &'a str,
    status: Option<Option<u16>>,
}

impl Subject<'_> {
    /// Whether the value is of a ScaledJob.
    pub fn is_job(&self) -> bool {
        self.place.is_some_and(|place| place.kind == Kind::ScaledJob)
    }

    /// Hands over what a label says.
    pub fn tell<T>(&self, what: What, to: impl FnOnce(&str) -> T) -> T {
        let place = self.place;
        let scaler = self.scaler;
        let requests = self.requests;
        let build = self.build;
        match what {
            What::Namespace => to(place.map_or(self.namespace, |place| &place.key.namespace)),
            What::Object => to(place.map_or("", |place| &place.key.name)),
            What::Kind => to(place.map_or("", |place| place.kind.name())),
            What::Scaler => to(scaler.map_or("", |scaler| &scaler.name)),
            What::Index => to(&scaler.map_or(0, |scaler| scaler.index).to_string()),
            What::Metric => to(scaler.map(|scaler| &scaler.metric).or(requests.map(|r| &r.metric)).map_or("", |m| m)),
            What::TriggerName => to(requests.map_or("", |requests| &requests.trigger_name)),
            What::TriggerType => to(requests.map_or(self.name, |requests| &requests.trigger_type)),
            What::StatusCode => match requests.map(|requests| requests.status).or(self.status).flatten() {
                Some(status) => to(&status.to_string()),
                None => to("error"),
            },
            What::Resource | What::ErrorKind => to(self.name),
            What::Version => to(build.map_or("", |build| build.version)),
            What::Commit => to(build.map_or("", |build| build.commit)),
            What::Toolchain => to(build.map_or("", |build| build.toolchain)),
            What::OperatingSystem => to(std::env::consts::OS),
            What::Architecture => to(std::env::consts::ARCH),
        }
    }
}

/// A value of a series.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    Number(f64),
    Histogram(&'a Histogram),
}

/// One value.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    pub subject: Subject<'a>,
    pub value: Value<'a>,
    /// When the series began.
    pub since: Timestamp,
}

impl Snapshot {
    /// How many objects there are.
    pub fn objects(&self) -> usize {
        self.objects.len()
    }

    /// Hands over every value of a metric.
    pub fn each(&self, metric: &Metric, mut tell: impl FnMut(Point<'_>)) {
        let since = self.since;
        match metric.source {
            Source::Build => tell(number(Subject { build: Some(&self.build), ..Subject::default() }, 1.0, since)),
            Source::Lost => tell(number(Subject::default(), self.lost as f64, since)),
            Source::Resources => {
                for ((name, namespace), count) in &*self.resources {
                    tell(number(Subject { name, namespace, ..Subject::default() }, *count as f64, since));
                }
            }
            Source::Triggers => {
                for (name, count) in &*self.triggers {
                    tell(number(Subject { name, ..Subject::default() }, *count as f64, since));
                }
            }
            Source::HttpDurations => {
                for ((name, status), durations) in &*self.durations {
                    let subject = Subject { name, status: Some(*status), ..Subject::default() };
                    tell(Point { subject, value: Value::Histogram(durations), since });
                }
            }
            Source::Object(..) | Source::Scaler(_) | Source::ErrorKinds | Source::HttpRequests => {
                for (place, object) in &*self.objects {
                    each_of_object(metric.source, place, object, |subject, value| {
                        tell(number(subject, value, object.since));
                    });
                }
            }
        }
    }
}

fn number(subject: Subject<'_>, value: f64, since: Timestamp) -> Point<'_> {
    Point { subject, value: Value::Number(value), since }
}

fn each_of_object(source: Source, place: &Place, object: &Object, mut tell: impl FnMut(Subject<'_>, f64)) {
    let subject = Subject { place: Some(place), ..Subject::default() };
    let of = |scaler| Subject { scaler: Some(scaler), ..subject };
    match source {
        Source::Object(kind, value) if kind.is_none_or(|kind| kind == place.kind) => {
            if let Some(value) = value(object) {
                tell(subject, value);
            }
        }
        Source::Scaler(value) => {
            for scaler in &object.scalers {
                if let Some(value) = value(scaler) {
                    tell(of(scaler), value);
                }
            }
        }
        Source::ErrorKinds => {
            for scaler in &object.scalers {
                for (name, count) in &scaler.failures {
                    tell(Subject { name, ..of(scaler) }, *count as f64);
                }
            }
        }
        Source::HttpRequests => {
            for requests in &object.requests {
                tell(Subject { requests: Some(requests), ..subject }, requests.count as f64);
            }
        }
        _ => {}
    }
}
