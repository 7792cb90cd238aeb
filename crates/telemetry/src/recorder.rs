//! From observations to series.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use tidemark_api::AuthenticationKind;
use tidemark_engine::quantity;
use tidemark_operator::{Definition, ObjectKey, Observation, Seen, Stage, What};
use tidemark_trigger::{Reading, SourceError};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::series::{Kind, Place, Series};

/// What the composite metric of scaling modifiers has in place of a scaler's name.
const COMPOSITE: &str = "composite-metric";

/// Enters what an operator observes into a [`Series`].
pub struct Recorder {
    series: Series,
    /// KEDA's name of the scaler of a trigger type.
    scaler_name: fn(&str) -> Option<&'static str>,
    /// The scalers' names of each object, in the order of its triggers.
    objects: HashMap<Arc<ObjectKey>, Arc<[Arc<str>]>>,
    /// Names of scalers that many objects share.
    names: HashMap<String, Arc<str>>,
}

impl Recorder {
    /// `scaler_name` gives KEDA's name of the scaler of a trigger type, for triggers without a name.
    pub fn new(series: Series, scaler_name: fn(&str) -> Option<&'static str>) -> Self {
        Self { series, scaler_name, objects: HashMap::new(), names: HashMap::new() }
    }

    /// Records until the observations end or `shutdown` is cancelled. What comes too fast is counted as lost.
    pub async fn run(mut self, mut observations: broadcast::Receiver<Arc<Observation>>, shutdown: CancellationToken) {
        loop {
            let observation = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                observation = observations.recv() => observation,
            };
            match observation {
                Ok(observation) => self.record(&observation),
                Err(RecvError::Lagged(count)) => self.series.lose(count),
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Records one observation.
    pub fn record(&mut self, observation: &Observation) {
        let now = observation.time;
        let place = Place { kind: Kind::ScaledObject, key: observation.object.clone() };
        match &observation.what {
            What::Defined { triggers } => self.define(&place, now, triggers),
            What::Gone => self.forget(&place),
            What::Paused(paused) => self.series.object(&place, now, |object| object.paused = *paused),
            What::Poll { late } => {
                self.series.object(&place, now, |object| object.lateness = Some(late.as_secs_f64()));
            }
            What::Resource { kind, here } => {
                let by = if *here { 1 } else { -1 };
                self.series.count_resource(resource(*kind), &observation.object.namespace, by);
            }
            What::Fetch { trigger, trigger_type, name: given, metrics, outcome, took, requests, .. } => {
                let name = self.scaler(&place.key, *trigger);
                for hop in requests {
                    self.series.http(trigger_type, hop.status.map(|status| status.as_u16()), hop.took);
                }
                self.series.object(&place, now, |object| {
                    object.errors += u64::from(outcome.is_err());
                    for hop in requests {
                        let status = hop.status.map(|status| status.as_u16());
                        object.request(*trigger, trigger_type, given.as_ref(), metrics.first(), status);
                    }
                    for (at, metric) in metrics.iter().enumerate() {
                        let scaler = object.scaler(*trigger, &name, metric);
                        scaler.latency = Some(took.as_secs_f64());
                        fetched(scaler, outcome, at);
                    }
                });
            }
            What::Decision { metrics, .. } => self.decide(&place, now, metrics),
            What::Error { stage: Stage::Trigger { .. }, .. } => {
                self.series.object(&place, now, |object| object.errors += 1);
            }
            What::Error { .. } | What::Write { .. } | What::Life(_) => {}
        }
    }

    fn define(&mut self, place: &Place, now: Timestamp, triggers: &[Definition]) {
        let names = triggers.iter().map(|trigger| match &trigger.name {
            Some(name) => name.clone(),
            None => {
                let known = (self.scaler_name)(&trigger.trigger_type).unwrap_or(&trigger.trigger_type);
                self.names.entry(known.to_owned()).or_insert_with(|| known.into()).clone()
            }
        });
        if self.objects.insert(place.key.clone(), names.collect()).is_none() {
            self.series.count_resource("scaled_object", &place.key.namespace, 1);
        }
        let types = triggers.iter().map(|trigger| trigger.trigger_type.clone()).collect();
        self.series.set_triggers(place, now, types);
    }

    fn forget(&mut self, place: &Place) {
        if self.objects.remove(&place.key).is_some() {
            self.series.count_resource("scaled_object", &place.key.namespace, -1);
        }
        self.series.remove(place);
    }

    fn scaler(&mut self, object: &ObjectKey, trigger: usize) -> Arc<str> {
        let known = self.objects.get(object).and_then(|names| names.get(trigger));
        known.cloned().unwrap_or_else(|| self.names.entry(String::new()).or_default().clone())
    }

    fn decide(&mut self, place: &Place, now: Timestamp, metrics: &[Seen]) {
        let composite = self.names.entry(COMPOSITE.to_owned()).or_insert_with(|| COMPOSITE.into()).clone();
        let names: Vec<_> = metrics.iter().map(|seen| seen.trigger.map(|at| self.scaler(&place.key, at))).collect();
        self.series.object(place, now, |object| {
            for (seen, name) in metrics.iter().zip(names) {
                let name = name.as_ref().unwrap_or(&composite);
                let scaler = object.scaler(seen.trigger.unwrap_or(0), name, &seen.metric);
                if seen.active.is_some() {
                    scaler.active = seen.active;
                }
                // What was read says more than the thousandths that are left of it, and a fallback was not read.
                if let Some(milli) = seen.milli.filter(|_| seen.fallback || seen.trigger.is_none()) {
                    scaler.value = Some(milli as f64 / 1000.0);
                }
            }
        });
    }
}

fn fetched(scaler: &mut crate::series::Scaler, outcome: &Result<Vec<Reading>, SourceError>, at: usize) {
    match outcome {
        Ok(readings) => {
            if let Some(reading) = readings.get(at) {
                scaler.value = Some(quantity::from_f64(reading.value) as f64 / 1000.0);
            }
        }
        Err(error) => scaler.fail(error.kind.as_str()),
    }
}

fn resource(kind: AuthenticationKind) -> &'static str {
    match kind {
        AuthenticationKind::TriggerAuthentication => "trigger_authentication",
        AuthenticationKind::ClusterTriggerAuthentication => "cluster_trigger_authentication",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;
    use tidemark_engine::activation::Action;
    use tidemark_operator::Asker;
    use tidemark_trigger::ErrorKind;
    use tidemark_trigger::door::Hop;

    use super::*;
    use crate::prometheus;
    use crate::series::Build;

    const START: &str = "2026-01-01T00:00:00Z";

    struct Test(Recorder);

    impl Test {
        fn new() -> Self {
            let build = Build { version: "1", commit: "c", toolchain: "t" };
            let scaler_name = |kind: &str| (kind == "cron").then_some("cronScaler");
            Self(Recorder::new(Series::new(build, START.parse().unwrap()), scaler_name))
        }

        fn tell(&mut self, what: What) {
            let object = Arc::new(ObjectKey::new("shop", "workers"));
            self.0.record(&Observation { time: START.parse().unwrap(), object, uid: "u".into(), what });
        }

        fn define(&mut self, triggers: &[(&str, Option<&str>)]) {
            let triggers = triggers
                .iter()
                .map(|(kind, name)| Definition { trigger_type: (*kind).into(), name: name.map(Into::into) });
            self.tell(What::Defined { triggers: triggers.collect() });
        }

        fn fetch(&mut self, outcome: Result<Vec<Reading>, SourceError>) {
            self.tell(What::Fetch {
                trigger: 0,
                trigger_type: "cron".into(),
                name: None,
                asked_by: Asker::Poll,
                for_formula: false,
                took: Duration::from_millis(250),
                metrics: vec!["s0-cron".into()],
                outcome,
                requests: vec![Hop { status: Some(StatusCode::OK), took: Duration::from_millis(7) }],
            });
        }

        fn decide(&mut self, seen: Seen) {
            let (reasons, metrics) = (Arc::default(), Arc::from([seen]));
            self.tell(What::Decision { active: true, replicas: None, action: Action::Nothing, reasons, metrics });
        }

        /// The values of a metric, each after what is left of its labels without the object's own.
        fn values(&self, metric: &str) -> Vec<String> {
            let text: Vec<_> = prometheus::pieces(self.0.series.snapshot()).flatten().collect();
            let text = String::from_utf8(text).unwrap();
            let own = r#"namespace="shop","#;
            let lines = text.lines().filter_map(|line| line.strip_prefix(metric)).filter(|rest| rest.starts_with('{'));
            lines.map(|line| line.replace(own, "").replace(r#"scaledObject="workers""#, "_")).collect()
        }
    }

    fn seen(trigger: Option<usize>, metric: &str, milli: i64, fallback: bool) -> Seen {
        Seen { trigger, metric: metric.into(), milli: Some(milli), active: Some(true), fallback }
    }

    #[test]
    fn a_read_tells_value_and_latency_and_a_failed_one_counts_by_kind() {
        let mut test = Test::new();
        test.define(&[("cron", None)]);
        test.fetch(Ok(vec![Reading { value: 2.0 / 3.0, active: true }]));
        test.fetch(Err(SourceError::new(ErrorKind::Authentication, "no")));
        let labels = r#"{metric="s0-cron",_,scaler="cronScaler",triggerIndex="0",type="scaledobject""#;
        assert_eq!(test.values("keda_scaler_metrics_value"), [format!("{labels}}} 0.667")]);
        assert_eq!(test.values("keda_scaler_metrics_latency_seconds"), [format!("{labels}}} 0.25")]);
        assert_eq!(test.values("keda_scaler_detail_errors_total"), [format!("{labels}}} 1")]);
        assert_eq!(test.values("tidemark_scaler_errors_total"), [format!("{labels},kind=\"authentication\"}} 1")]);
        assert_eq!(test.values("keda_scaled_object_errors_total"), ["{_} 1"]);
        let requests =
            r#"{scaled_resource="workers",scaler="cron",trigger_name="",metric_name="s0-cron",status_code="200"} 2"#;
        assert_eq!(test.values("keda_scaler_http_requests_total"), [requests]);
    }

    #[test]
    fn a_fallback_is_told_in_place_of_what_was_read() {
        let mut test = Test::new();
        test.define(&[("cron", Some("hours"))]);
        test.fetch(Ok(vec![Reading { value: 1.0, active: true }]));
        test.decide(seen(Some(0), "s0-cron", 1000, false));
        test.decide(seen(Some(0), "s0-cron", 30_000, true));
        let labels = r#"{metric="s0-cron",_,scaler="hours",triggerIndex="0",type="scaledobject"}"#;
        assert_eq!(test.values("keda_scaler_metrics_value"), [format!("{labels} 30")]);
        assert_eq!(test.values("keda_scaler_active"), [format!("{labels} 1")]);
    }

    #[test]
    fn the_composite_metric_has_a_series_of_its_own() {
        let mut test = Test::new();
        test.define(&[("cron", Some("a"))]);
        test.decide(seen(None, "composite-metric", 2500, false));
        let labels = r#"{metric="composite-metric",_,scaler="composite-metric",triggerIndex="0",type="scaledobject"}"#;
        assert_eq!(test.values("keda_scaler_metrics_value"), [format!("{labels} 2.5")]);
    }

    #[test]
    fn what_is_gone_leaves_the_counts_of_what_there_is() {
        let mut test = Test::new();
        test.define(&[("cron", None), ("redis", None)]);
        test.fetch(Ok(vec![Reading { value: 1.0, active: true }]));
        test.tell(What::Paused(true));
        assert_eq!(test.values("keda_scaled_object_paused"), ["{_} 1"]);
        let objects = |count| format!(r#"{{type="scaled_object",namespace="shop"}} {count}"#);
        assert_eq!(test.values("keda_resource_registered_total"), [objects(1)]);
        test.tell(What::Gone);
        assert_eq!(test.values("keda_resource_registered_total"), [objects(0)]);
        assert_eq!(test.values("keda_trigger_registered_total"), [r#"{type="cron"} 0"#, r#"{type="redis"} 0"#]);
        assert_eq!(test.values("keda_scaler_metrics_value"), [""; 0]);
        assert_eq!(test.values("keda_scaled_object_paused"), [""; 0]);
    }
}
