//! The present values of all metrics, in the shape in which they come and go: by object.
//!
//! A series is there for as long as its object is: gauges keep their last value, counters begin with the object, and
//! all go with it. They are told from a [`Snapshot`], a few objects at a time, so that recording never waits for a slow
//! reader, and nothing is kept twice for one.

mod object;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use jiff::Timestamp;
use tidemark_operator::ObjectKey;

use crate::catalogue::{DURATION_BOUNDS, Instrument, Metric};
pub use object::{Asked, Empties, Histogram, Object, Requests, Scaler};
pub use snapshot::{Page, Point, Snapshot, Subject, Value};

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

    fn resource_type(self) -> &'static str {
        match self {
            Self::ScaledObject => "ScaledObject",
            Self::ScaledJob => "ScaledJob",
        }
    }
}

/// What an object is, and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub kind: Kind,
    pub key: Arc<ObjectKey>,
}

/// Something that is counted under a metric's name and the values of its labels.
#[derive(Clone, Debug)]
enum Counted {
    Number(f64),
    Histogram(Histogram),
}

/// The values of a metric's labels, in the order in which it declares them.
type Labels = Box<[Box<str>]>;

/// A trigger type, and the status of the replies to its requests; none where no reply came.
type Answers = (Arc<str>, Option<u16>);

/// The program that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    pub version: &'static str,
    pub commit: &'static str,
    pub toolchain: &'static str,
}

/// What is told of each object.
type Objects = Arc<RwLock<BTreeMap<Place, Arc<Object>>>>;

/// Where values are recorded. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Series {
    objects: Objects,
    rest: Arc<RwLock<Snapshot>>,
}

impl Series {
    pub fn new(build: Build, since: Timestamp) -> Self {
        let objects = Objects::default();
        let rest = Snapshot {
            since,
            build,
            objects: objects.clone(),
            resources: Arc::default(),
            triggers: Arc::default(),
            durations: Arc::default(),
            counted: Arc::default(),
            by_trigger: false,
            lost: 0,
            usage: None,
        };
        Self { objects, rest: Arc::new(RwLock::new(rest)) }
    }

    /// The same, but durations of requests over HTTP are told by trigger instead of by trigger type.
    #[must_use]
    pub fn with_durations_by_trigger(self) -> Self {
        self.write().by_trigger = true;
        self
    }

    /// Whether durations of requests over HTTP are told by trigger.
    pub fn has_durations_by_trigger(&self) -> bool {
        self.read().by_trigger
    }

    /// All values as they are now.
    pub fn snapshot(&self) -> Snapshot {
        self.read().clone()
    }

    fn read(&self) -> RwLockReadGuard<'_, Snapshot> {
        self.rest.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Snapshot> {
        self.rest.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn objects(&self) -> RwLockWriteGuard<'_, BTreeMap<Place, Arc<Object>>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is told of an object, which begins `now` where nothing has been told of it.
    pub fn object(&self, place: &Place, now: Timestamp, change: impl FnOnce(&mut Object)) {
        let mut objects = self.objects();
        match objects.get_mut(place) {
            // A copy, where it is just being told.
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
            object.requests.retain(|requests| types.get(requests.of.index) == Some(&requests.trigger_type));
            object.empties.retain(|empties| empties.of.index < types.len());
        });
        self.count_triggers(&before, &types);
    }

    /// Forgets an object and its series.
    pub fn remove(&self, place: &Place) {
        let removed = self.objects().remove(place);
        if let Some(object) = removed {
            self.count_triggers(&object.trigger_types, &[]);
        }
    }

    /// Counts triggers of these types in place of those, of an object of which nothing else is told.
    pub fn count_triggers(&self, before: &[Arc<str>], now: &[Arc<str>]) {
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

    /// Adds the duration of an HTTP request of a trigger: to its reply's head, or to its failure.
    pub fn http(&self, trigger_type: &Arc<str>, status: Option<u16>, took: Duration) {
        let mut state = self.write();
        let durations = Arc::make_mut(&mut state.durations).entry((trigger_type.clone(), status));
        durations.or_insert_with(|| Histogram::over(DURATION_BOUNDS)).add(took.as_secs_f64());
    }

    /// Adds 1 to a counter that has these values of its labels, in the order in which it declares them.
    pub fn count(&self, metric: &'static Metric, labels: &[&str]) {
        self.change(metric, labels, |counted| {
            if let Counted::Number(number) = counted {
                *number += 1.0;
            }
        });
    }

    /// Sets a gauge.
    pub fn set(&self, metric: &'static Metric, labels: &[&str], value: f64) {
        self.change(metric, labels, |counted| *counted = Counted::Number(value));
    }

    /// Adds a value, such as a duration in seconds, to a distribution.
    pub fn add(&self, metric: &'static Metric, labels: &[&str], value: f64) {
        self.change(metric, labels, |counted| {
            if let Counted::Histogram(histogram) = counted {
                histogram.add(value);
            }
        });
    }

    fn change(&self, metric: &'static Metric, labels: &[&str], change: impl FnOnce(&mut Counted)) {
        debug_assert_eq!(labels.len(), metric.labels.len(), "{:?}", metric.prometheus);
        let Some(name) = metric.prometheus else { return };
        let labels: Labels = labels.iter().map(|label| Box::from(*label)).collect();
        let mut state = self.write();
        let all = Arc::make_mut(&mut state.counted).entry(name).or_default();
        change(all.entry(labels).or_insert_with(|| match metric.instrument {
            Instrument::Histogram => Counted::Histogram(Histogram::over(metric.bounds)),
            _ => Counted::Number(0.0),
        }));
    }

    /// Counts observations that were missed.
    pub fn lose(&self, count: u64) {
        self.write().lost += count;
    }
}
