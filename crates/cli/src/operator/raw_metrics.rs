//! Raw metrics: what the operator reads, to the subscribers of its metrics service.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use tidemark_engine::quantity;
use tidemark_operator::{Asker, Handle, ObjectKey, Observation, What};
use tidemark_serving::metrics_service::{RawMetrics, RawReading};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// Which reads are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    All,
    /// Those that an HPA asked for.
    Hpa,
    /// Those of the objects' own polls.
    Poll,
}

impl Mode {
    /// What `RAW_METRICS_GRPC_PROTOCOL` and `RAW_METRICS_MODE` say; none where raw metrics are off.
    pub fn from_environment() -> Option<Self> {
        let set = |name: &str| std::env::var(name).unwrap_or_default();
        Self::parse(&set("RAW_METRICS_GRPC_PROTOCOL"), &set("RAW_METRICS_MODE"))
    }

    fn parse(protocol: &str, mode: &str) -> Option<Self> {
        (protocol == "enabled").then(|| match mode.to_ascii_lowercase().as_str() {
            "hpa" => Self::Hpa,
            "pollinginterval" => Self::Poll,
            _ => Self::All,
        })
    }

    fn takes(self, asker: Asker) -> bool {
        match self {
            Self::All => true,
            Self::Hpa => asker == Asker::Hpa,
            Self::Poll => asker == Asker::Poll,
        }
    }
}

/// Tells the subscribers what the operator reads, until the shutdown.
pub fn feed(handle: &Handle, mode: Mode, raw: RawMetrics, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
    let mut observations = handle.observe();
    let mut feed = Feed { mode, raw, failed: BTreeMap::new() };
    let feeding = async move {
        loop {
            match observations.recv().await {
                Ok(observation) => feed.on(&observation),
                Err(RecvError::Lagged(lost)) => tracing::warn!(lost, "raw metrics are lost: too much is going on"),
                Err(RecvError::Closed) => return std::future::pending().await,
            }
        }
    };
    Box::pin(async move { shutdown.run_until_cancelled(feeding).await.unwrap_or_default() })
}

struct Feed {
    mode: Mode,
    raw: RawMetrics,
    /// The names of triggers whose last read failed: a fallback may stand in for them.
    failed: BTreeMap<(Arc<ObjectKey>, usize), Arc<str>>,
}

impl Feed {
    fn on(&mut self, observation: &Observation) {
        let Observation { object, time, what, .. } = observation;
        match what {
            What::Fetch { trigger, trigger_type, name, asked_by, outcome, .. } if self.mode.takes(*asked_by) => {
                let name = name.clone().unwrap_or_else(|| default_name(trigger_type));
                let key = (object.clone(), *trigger);
                match outcome {
                    Ok(readings) => {
                        self.failed.remove(&key);
                        // As the HPA is told it: three decimals, and nothing negative.
                        let values = readings.iter().map(|reading| thousandths(quantity::from_f64(reading.value)));
                        let active = readings.iter().any(|reading| reading.active);
                        self.tell(object, &name, values.collect(), active, *time);
                    }
                    Err(_) if self.raw.is_wanted(&object.namespace, &object.name, &name) => {
                        self.failed.insert(key, name);
                    }
                    Err(_) => {}
                }
            }
            What::Decision { metrics, .. } if !self.failed.is_empty() => {
                let mut stand_ins = BTreeMap::<usize, Vec<f64>>::new();
                for seen in metrics.iter().filter(|seen| seen.fallback) {
                    if let (Some(trigger), Some(milli)) = (seen.trigger, seen.milli) {
                        stand_ins.entry(trigger).or_default().push(thousandths(milli));
                    }
                }
                for (trigger, values) in stand_ins {
                    if let Some(name) = self.failed.remove(&(object.clone(), trigger)) {
                        // The source has not said that it is active.
                        self.tell(object, &name, values, false, *time);
                    }
                }
            }
            What::Gone | What::Defined { .. } if !self.failed.is_empty() => {
                self.failed.retain(|(failed, _), _| failed != object);
            }
            _ => {}
        }
    }

    fn tell(&self, object: &ObjectKey, trigger: &str, values: Vec<f64>, active: bool, time: Timestamp) {
        if self.raw.is_wanted(&object.namespace, &object.name, trigger) {
            let (namespace, object) = (&*object.namespace, &*object.name);
            self.raw.publish(&RawReading { namespace, object, trigger, values, active, time });
        }
    }
}

fn thousandths(milli: i64) -> f64 {
    milli as f64 / 1000.0
}

/// What a trigger without a name is called.
fn default_name(trigger_type: &Arc<str>) -> Arc<str> {
    tidemark_triggers::find(trigger_type).map_or_else(|_| trigger_type.clone(), |known| known.scaler_name.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidemark_engine::activation::Action;
    use tidemark_operator::Seen;
    use tidemark_trigger::{ErrorKind, Reading, SourceError};

    use super::*;

    #[test]
    fn the_variables_of_keda_say_which_reads_are_told() {
        assert_eq!(Mode::parse("", "all"), None);
        assert_eq!(Mode::parse("Enabled", ""), None);
        for (mode, expected) in [
            ("", Mode::All),
            ("ALL", Mode::All),
            ("Hpa", Mode::Hpa),
            ("pollingInterval", Mode::Poll),
            ("other", Mode::All),
        ] {
            assert_eq!(Mode::parse("enabled", mode), Some(expected), "{mode}");
        }
    }

    fn observed(what: What) -> Observation {
        let object = Arc::new(ObjectKey::new("shop", "orders"));
        Observation { time: "2026-01-01T00:00:00Z".parse().unwrap(), object, uid: "1".into(), evaluation: 0, what }
    }

    fn fetch(asked_by: Asker, outcome: Result<f64, ()>) -> Observation {
        let reading = |value| vec![Reading { value, active: true }];
        observed(What::Fetch {
            trigger: 0,
            trigger_type: "cron".into(),
            name: None,
            asked_by,
            for_formula: false,
            endpoint: None,
            took: Duration::ZERO,
            metrics: Vec::new(),
            outcome: outcome.map(reading).map_err(|()| SourceError::new(ErrorKind::Unreachable, "down")),
            requests: Vec::new(),
            empties: Vec::new(),
        })
    }

    fn decision(fallback: bool) -> Observation {
        let seen = Seen {
            trigger: Some(0),
            metric: "m".into(),
            milli: Some(2500),
            target: None,
            active: Some(true),
            fallback,
        };
        observed(What::Decision {
            active: true,
            replicas: Some(1),
            action: Action::Nothing,
            reasons: [].into(),
            metrics: [seen].into(),
        })
    }

    /// What is told of some observations to a subscriber of an unnamed cron trigger.
    fn told(mode: Mode, observations: &[Observation]) -> Vec<f64> {
        let raw = RawMetrics::default();
        assert!(!raw.subscribe("dash", "shop", "orders", "cronScaler"));
        let mut feed = Feed { mode, raw: raw.clone(), failed: BTreeMap::new() };
        for observation in observations {
            feed.on(observation);
        }
        std::iter::from_fn(|| raw.take("dash")).flat_map(|message| message.metrics).map(|metric| metric.value).collect()
    }

    #[test]
    fn a_read_is_told_under_the_triggers_name_rounded_as_for_the_hpa() {
        let reads = [fetch(Asker::Poll, Ok(1.23456)), fetch(Asker::Hpa, Ok(-3.0))];
        assert_eq!(told(Mode::All, &reads), [1.235, 0.0]);
        assert_eq!(told(Mode::Hpa, &reads), [0.0]);
        assert_eq!(told(Mode::Poll, &reads), [1.235]);
    }

    #[test]
    fn a_failed_read_is_told_only_when_a_fallback_stands_in() {
        let failed = || fetch(Asker::Poll, Err(()));
        assert!(told(Mode::All, &[failed(), decision(false)]).is_empty());
        assert_eq!(told(Mode::All, &[failed(), decision(true), decision(true)]), [2.5]);
        assert!(told(Mode::All, &[failed(), fetch(Asker::Poll, Ok(1.0)), decision(true)]) == [1.0]);
    }
}
