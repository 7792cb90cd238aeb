//! A source that names its metrics and pushes, scripted by the test: triggers of type `teller` read it.

use std::sync::{Arc, Mutex};

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, StreamExt};
use tidemark_operator::Catalogue;
use tidemark_trigger::{
    Connection, Door, ErrorKind, MetricSpec, MetricType, Push, Reading, SourceError, Trigger, TriggerInput, metric,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Cheap to clone; clones are the same source.
#[derive(Clone, Default)]
pub struct Teller(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    down: bool,
    /// Names and targets in thousandths.
    metrics: Vec<(&'static str, i64)>,
    value: f64,
    active: bool,
    connects: u32,
    listeners: Vec<(usize, UnboundedSender<Push>)>,
}

impl Teller {
    /// Is reached from now on, or not.
    pub fn is_down(&self, down: bool) {
        self.0.lock().unwrap().down = down;
    }

    /// Has these metrics from now on; nobody is told.
    pub fn has(&self, metrics: &[(&'static str, i64)]) {
        self.0.lock().unwrap().metrics = metrics.to_vec();
    }

    /// All its metrics have this value.
    pub fn reads(&self, value: f64, active: bool) {
        let mut state = self.0.lock().unwrap();
        (state.value, state.active) = (value, active);
    }

    /// Tells all who listen that their trigger is active.
    pub fn tells_activity(&self) {
        self.tell(|_, _| Push::Active);
    }

    /// Tells all who listen which metrics it has.
    pub fn tells_metrics(&self) {
        self.tell(|index, metrics| Push::Metrics(specs(index, metrics)));
    }

    fn tell(&self, push: impl Fn(usize, &[(&'static str, i64)]) -> Push) {
        let mut state = self.0.lock().unwrap();
        let State { metrics, listeners, .. } = &mut *state;
        listeners.retain(|(index, listener)| listener.send(push(*index, metrics)).is_ok());
    }

    /// Connections made so far.
    pub fn connects(&self) -> u32 {
        self.0.lock().unwrap().connects
    }

    /// Streams that are held.
    pub fn listeners(&self) -> usize {
        self.0.lock().unwrap().listeners.iter().filter(|(_, listener)| !listener.is_closed()).count()
    }

    pub fn beside_the_catalogue(&self) -> Catalogue {
        let teller = self.clone();
        Arc::new(move |input: &TriggerInput| match input.trigger_type.as_str() {
            "teller" => Ok(Arc::new(Told { teller: teller.clone(), index: input.index }) as Arc<dyn Trigger>),
            _ => tidemark_triggers::parse(input),
        })
    }
}

fn specs(index: usize, metrics: &[(&'static str, i64)]) -> Arc<[MetricSpec]> {
    let spec = |(name, target_milli): &(&str, i64)| MetricSpec::External {
        name: metric::external_name(index, name),
        metric_type: MetricType::AverageValue,
        target_milli: *target_milli,
    };
    metrics.iter().map(spec).collect()
}

struct Told {
    teller: Teller,
    index: usize,
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told")
    }
}

struct Connected {
    teller: Teller,
    metrics: Arc<[MetricSpec]>,
}

fn unreachable() -> SourceError {
    SourceError::new(ErrorKind::Unreachable, "teller: refused")
}

impl Trigger for Told {
    fn metrics(&self) -> &[MetricSpec] {
        &[]
    }

    fn connect<'a>(&'a self, _: &'a Door) -> BoxFuture<'a, Result<Arc<dyn Connection>, SourceError>> {
        async move {
            let mut state = self.teller.0.lock().unwrap();
            state.connects += 1;
            if state.down {
                return Err(unreachable());
            }
            let metrics = specs(self.index, &state.metrics);
            Ok(Arc::new(Connected { teller: self.teller.clone(), metrics }) as Arc<dyn Connection>)
        }
        .boxed()
    }

    fn pushes(&self, _: &Door) -> Option<BoxStream<'static, Push>> {
        let (sender, receiver) = unbounded_channel();
        self.teller.0.lock().unwrap().listeners.push((self.index, sender));
        let next = |mut receiver: tokio::sync::mpsc::UnboundedReceiver<Push>| async move {
            Some((receiver.recv().await?, receiver))
        };
        Some(futures::stream::unfold(receiver, next).boxed())
    }
}

impl Connection for Connected {
    fn metrics(&self) -> Option<Arc<[MetricSpec]>> {
        Some(self.metrics.clone())
    }

    fn read<'a>(&'a self, _: &'a Door) -> BoxFuture<'a, Result<Vec<Reading>, SourceError>> {
        async move {
            let state = self.teller.0.lock().unwrap();
            if state.down {
                return Err(unreachable());
            }
            Ok(self.metrics.iter().map(|_| Reading { value: state.value, active: state.active }).collect())
        }
        .boxed()
    }
}
