//! All values at one time, and telling them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;

use super::{
    Answers, Asked, Build, Counted, Empties, Histogram, Kind, Labels, Object, Objects, Place, Requests, Scaler,
};
use crate::catalogue::{Metric, Source, What};
use crate::usage::Usage;

/// Objects that are looked up at once.
const AT_ONCE: usize = 128;

/// All values at one time; those of objects as they are when they are told.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the program began to count.
    pub since: Timestamp,
    pub(super) build: Build,
    pub(super) objects: Objects,
    /// How many custom resources there are, by kind and namespace. One that was there once stays, with zero.
    pub(super) resources: Arc<BTreeMap<(&'static str, Arc<str>), i64>>,
    /// How many triggers there are, by type.
    pub(super) triggers: Arc<BTreeMap<Arc<str>, i64>>,
    pub(super) durations: Arc<BTreeMap<Answers, Histogram>>,
    pub(super) counted: Arc<BTreeMap<&'static str, BTreeMap<Labels, Counted>>>,
    /// Durations of requests over HTTP are kept by trigger.
    pub(super) by_trigger: bool,
    pub(super) lost: u64,
    /// What the process uses; none before it was looked at.
    pub(super) usage: Option<Usage>,
}

/// Whom a value is told of. What does not apply is empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    place: Option<&'a Place>,
    scaler: Option<&'a Scaler>,
    requests: Option<&'a Requests>,
    empties: Option<&'a Empties>,
    build: Option<&'a Build>,
    counted: &'a [Box<str>],
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
        let build = self.build;
        let boolean = |truth: bool| if truth { "true" } else { "false" };
        match what {
            What::Namespace => to(place.map_or(self.namespace, |place| &place.key.namespace)),
            What::Object => to(place.map_or("", |place| &place.key.name)),
            What::Kind => to(place.map_or("", |place| place.kind.name())),
            What::ResourceType => to(place.map_or("", |place| place.kind.resource_type())),
            What::IsScaledObject => to(boolean(!self.is_job())),
            What::Scaler => to(scaler.map_or("", |scaler| &scaler.name)),
            What::Index => to(&scaler.map_or(0, |scaler| scaler.index).to_string()),
            What::Metric => {
                to(scaler.map(|scaler| &scaler.metric).or(self.asked().map(|of| &of.metric)).map_or("", |m| m))
            }
            What::TriggerName => to(self.asked().map_or("", |of| &of.trigger_name)),
            What::TriggerType => to(self.requests.map_or(self.name, |requests| &requests.trigger_type)),
            What::StatusCode => match self.requests.map(|requests| requests.status).or(self.status).flatten() {
                Some(status) => to(&status.to_string()),
                None => to("error"),
            },
            What::IgnoresNull => to(boolean(self.empties.is_some_and(|empties| empties.ignored))),
            What::Resource | What::ErrorKind => to(self.name),
            What::Version => to(build.map_or("", |build| build.version)),
            What::Commit => to(build.map_or("", |build| build.commit)),
            What::Toolchain => to(build.map_or("", |build| build.toolchain)),
            What::OperatingSystem => to(std::env::consts::OS),
            What::Architecture => to(std::env::consts::ARCH),
            What::At(place) => to(self.counted.get(place).map_or("", |value| value)),
        }
    }

    fn asked(&self) -> Option<&Asked> {
        self.requests.map(|requests| &requests.of).or(self.empties.map(|empties| &empties.of))
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

/// How far the values of a metric have been told.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The last object whose values were told.
    after: Option<Place>,
    done: bool,
}

impl Snapshot {
    /// How many objects there are.
    pub fn objects(&self) -> usize {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The same, with what the process uses now.
    #[must_use]
    pub fn with_usage(self) -> Self {
        Self { usage: Some(Usage::now()), ..self }
    }

    /// Hands over every value of a metric.
    pub fn each(&self, metric: &Metric, mut tell: impl FnMut(Point<'_>)) {
        let mut page = Page::default();
        while self.page(metric, &mut page, usize::MAX, &mut tell).is_some() {}
    }

    /// Hands over the next values of a metric, about `most` of them: the last objects' are told whole. Gives how many
    /// there were; none after the last ones.
    pub fn page(
        &self,
        metric: &Metric,
        page: &mut Page,
        most: usize,
        tell: &mut impl FnMut(Point<'_>),
    ) -> Option<usize> {
        if page.done {
            return None;
        }
        let of_objects = matches!(
            metric.source,
            Source::Object(..)
                | Source::Scaler(_)
                | Source::ErrorKinds
                | Source::HttpRequests
                | Source::HttpDurationsByTrigger
                | Source::EmptyResponses
        );
        let mut count = 0;
        if of_objects {
            while count < most {
                let some = self.some_objects(page.after.as_ref());
                let Some((last, _)) = some.last() else {
                    page.done = true;
                    break;
                };
                page.after = Some(last.clone());
                for (place, object) in &some {
                    each_of_object(metric.source, place, object, |subject, value| {
                        count += 1;
                        tell(Point { subject, value, since: object.since });
                    });
                }
            }
        } else {
            self.each_of_process(metric, |subject, value| {
                count += 1;
                tell(Point { subject, value, since: self.since });
            });
            page.done = true;
        }
        Some(count)
    }

    /// The next objects after one. Whoever records waits while they are looked up, not while they are told.
    fn some_objects(&self, after: Option<&Place>) -> Vec<(Place, Arc<Object>)> {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let next = objects.range((begin, Bound::Unbounded)).take(AT_ONCE);
        next.map(|(place, object)| (place.clone(), object.clone())).collect()
    }

    /// Hands over the values of a metric that is of no object in particular.
    fn each_of_process(&self, metric: &Metric, mut tell: impl FnMut(Subject<'_>, Value<'_>)) {
        let nothing = Subject::default();
        match metric.source {
            Source::Build => tell(Subject { build: Some(&self.build), ..nothing }, Value::Number(1.0)),
            Source::Lost => tell(nothing, Value::Number(self.lost as f64)),
            Source::Resources => {
                for ((name, namespace), count) in &*self.resources {
                    tell(Subject { name, namespace, ..nothing }, Value::Number(*count as f64));
                }
            }
            Source::Triggers => {
                for (name, count) in &*self.triggers {
                    tell(Subject { name, ..nothing }, Value::Number(*count as f64));
                }
            }
            Source::HttpDurations => {
                for ((name, status), durations) in &*self.durations {
                    tell(Subject { name, status: Some(*status), ..nothing }, Value::Histogram(durations));
                }
            }
            Source::Usage(value) => {
                if let Some(value) = self.usage.as_ref().and_then(value) {
                    tell(nothing, Value::Number(value));
                }
            }
            Source::Counted => {
                for (labels, counted) in metric.prometheus.and_then(|name| self.counted.get(name)).into_iter().flatten()
                {
                    let value = match counted {
                        Counted::Number(number) => Value::Number(*number),
                        Counted::Histogram(histogram) => Value::Histogram(histogram),
                    };
                    tell(Subject { counted: labels, ..nothing }, value);
                }
            }
            _ => {}
        }
    }
}

fn each_of_object(source: Source, place: &Place, object: &Object, mut tell: impl FnMut(Subject<'_>, Value<'_>)) {
    let subject = Subject { place: Some(place), ..Subject::default() };
    let of = |scaler| Subject { scaler: Some(scaler), ..subject };
    match source {
        Source::Object(kind, value) if kind.is_none_or(|kind| kind == place.kind) => {
            if let Some(value) = value(object) {
                tell(subject, Value::Number(value));
            }
        }
        Source::Scaler(value) => {
            for scaler in &object.scalers {
                if let Some(value) = value(scaler) {
                    tell(of(scaler), Value::Number(value));
                }
            }
        }
        Source::ErrorKinds => {
            for scaler in &object.scalers {
                for (name, count) in &scaler.failures {
                    tell(Subject { name, ..of(scaler) }, Value::Number(*count as f64));
                }
            }
        }
        Source::HttpRequests => {
            for requests in &object.requests {
                tell(Subject { requests: Some(requests), ..subject }, Value::Number(requests.count as f64));
            }
        }
        Source::HttpDurationsByTrigger => {
            for requests in &object.requests {
                if let Some(durations) = &requests.durations {
                    tell(Subject { requests: Some(requests), ..subject }, Value::Histogram(durations));
                }
            }
        }
        Source::EmptyResponses => {
            for empties in &object.empties {
                tell(Subject { empties: Some(empties), ..subject }, Value::Number(empties.count as f64));
            }
        }
        _ => {}
    }
}
