//! What is told of one object.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::catalogue::DURATION_BOUNDS;

/// What is told of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// When its counters began.
    pub since: Timestamp,
    /// Triggers that could not be built, and failed reads.
    pub errors: u64,
    /// In whole or in one direction.
    pub paused: bool,
    /// The last decision rests on a fallback; none before the first one.
    pub fallback: Option<bool>,
    /// Polls that have begun, requests of the HPA that came before a poll was due, and times when a source told unasked.
    pub evaluations: u64,
    /// The number of the last one, as the operator has it.
    pub evaluation: u64,
    /// Seconds between the time when the last poll was due and its begin; 0 where the HPA's request came before it.
    pub lateness: Option<f64>,
    /// The types of its triggers.
    pub trigger_types: Arc<[Arc<str>]>,
    /// One for each metric of its triggers.
    pub scalers: Vec<Scaler>,
    /// What its triggers asked over HTTP.
    pub requests: Vec<Requests>,
    /// Its triggers' queries that yielded nothing.
    pub empties: Vec<Empties>,
}

impl Object {
    pub fn new(since: Timestamp) -> Self {
        Self {
            since,
            errors: 0,
            paused: false,
            fallback: None,
            evaluations: 0,
            evaluation: 0,
            lateness: None,
            trigger_types: Arc::default(),
            scalers: Vec::new(),
            requests: Vec::new(),
            empties: Vec::new(),
        }
    }

    /// Counts an HTTP request of a trigger. With `took`, its duration is kept for this trigger alone.
    pub fn request(&mut self, of: &Asked, trigger_type: &Arc<str>, status: Option<u16>, took: Option<Duration>) {
        let same = |known: &Requests| known.of == *of && known.status == status && known.trigger_type == *trigger_type;
        let at = self.requests.iter().position(same).unwrap_or_else(|| {
            let (of, trigger_type) = (of.clone(), trigger_type.clone());
            self.requests.push(Requests { of, trigger_type, status, count: 0, durations: None });
            self.requests.len() - 1
        });
        let requests = &mut self.requests[at];
        requests.count += 1;
        if let Some(took) = took {
            let durations = requests.durations.get_or_insert_with(|| Box::new(Histogram::over(DURATION_BOUNDS)));
            durations.add(took.as_secs_f64());
        }
    }

    /// Counts a query of a trigger that yielded nothing; `ignored` says whether that is taken for 0.
    pub fn empty(&mut self, of: &Asked, ignored: bool) {
        match self.empties.iter_mut().find(|known| known.of == *of && known.ignored == ignored) {
            Some(known) => known.count += 1,
            None => self.empties.push(Empties { of: of.clone(), ignored, count: 1 }),
        }
    }

    /// What was true of its triggers is known no longer: nothing is read until further notice. Counters stay.
    pub fn rest(&mut self) {
        (self.lateness, self.fallback) = (None, None);
        for scaler in &mut self.scalers {
            (scaler.active, scaler.value, scaler.latency) = (None, None, None);
        }
    }

    /// The series of a metric of a trigger; made where there is none.
    pub fn scaler(&mut self, index: usize, name: &Arc<str>, metric: &Arc<str>) -> &mut Scaler {
        let found = self.scalers.iter().position(|scaler| scaler.index == index && scaler.metric == *metric);
        let at = found.unwrap_or_else(|| {
            let (name, metric) = (name.clone(), metric.clone());
            let new = Scaler {
                index,
                name,
                metric,
                active: None,
                value: None,
                latency: None,
                read: false,
                failures: Vec::new(),
            };
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
    /// It has been read, well or not.
    pub read: bool,
    /// Failed reads by kind of error.
    pub(super) failures: Vec<(&'static str, u64)>,
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

/// Which trigger asked for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// 0-based position of the trigger.
    pub index: usize,
    /// `triggers[].name`, empty where it has none.
    pub trigger_name: Arc<str>,
    /// Empty where it has none, or is not known.
    pub metric: Arc<str>,
}

/// HTTP requests of one trigger that were answered alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Requests {
    pub of: Asked,
    pub trigger_type: Arc<str>,
    /// The reply's status; none where none came.
    pub status: Option<u16>,
    pub count: u64,
    /// How long they took, where that is kept by trigger.
    pub durations: Option<Box<Histogram>>,
}

/// Queries of one trigger that yielded nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Empties {
    pub of: Asked,
    /// Nothing is taken for 0.
    pub ignored: bool,
    pub count: u64,
}

/// A distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Upper bounds, ascending.
    pub bounds: &'static [f64],
    /// How many fell under each bound and over the one before it; the last one over all.
    pub buckets: Box<[u64]>,
    pub sum: f64,
}

impl Histogram {
    /// One of nothing yet.
    pub fn over(bounds: &'static [f64]) -> Self {
        Self { bounds, buckets: vec![0; bounds.len() + 1].into(), sum: 0.0 }
    }

    pub fn add(&mut self, value: f64) {
        self.buckets[self.bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum += value;
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}
