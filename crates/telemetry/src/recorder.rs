//! From observations to series.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidemark_api::AuthenticationKind;
use tidemark_engine::quantity;
use tidemark_operator::{Asker, Definition, Life, ObjectKey, Observation, ResourceKind, Seen, Snapshot, Stage, What};
use tidemark_trigger::door::Hop;
use tidemark_trigger::{Reading, SourceError};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::catalogue::operator::{CONTROLLER, RECONCILE_ERRORS, RECONCILE_SECONDS, RECONCILES};
use crate::series::{Asked, Kind, Object, Place, Series};

/// What the composite metric of scaling modifiers has in place of a scaler's name.
const COMPOSITE: &str = "composite-metric";

/// Enters what an operator observes into a [`Series`].
pub struct Recorder {
    series: Series,
    /// KEDA's name of the scaler of a trigger type.
    scaler_name: fn(&str) -> Option<&'static str>,
    /// The scalers' names of each object, in the order of its triggers.
    objects: HashMap<Arc<ObjectKey>, Arc<[Arc<str>]>>,
    /// The types of the triggers of each ScaledJob.
    jobs: HashMap<Arc<ObjectKey>, Arc<[Arc<str>]>>,
    /// Names of scalers that many objects share.
    names: HashMap<String, Arc<str>>,
}

impl Recorder {
    /// `scaler_name` gives KEDA's name of the scaler of a trigger type, for triggers without a name.
    pub fn new(series: Series, scaler_name: fn(&str) -> Option<&'static str>) -> Self {
        Self { series, scaler_name, objects: HashMap::new(), jobs: HashMap::new(), names: HashMap::new() }
    }

    /// Records until the observations end or `shutdown` is cancelled. What comes too fast is counted as lost, and
    /// `present`, which gives all objects as they are, then says what there is.
    pub async fn run(
        mut self,
        mut observations: broadcast::Receiver<Arc<Observation>>,
        present: impl Fn() -> Vec<Arc<Snapshot>> + Send,
        shutdown: CancellationToken,
    ) {
        let mut behind = false;
        loop {
            let observation = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                observation = observations.recv() => observation,
            };
            match observation {
                Ok(observation) => {
                    if std::mem::take(&mut behind) {
                        self.catch_up(&present(), observation.time);
                    }
                    self.record(&observation);
                }
                Err(RecvError::Lagged(count)) => {
                    self.series.lose(count);
                    behind = true;
                }
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
                self.series.object(&place, now, |object| {
                    object.lateness = Some(late.as_secs_f64());
                    (object.evaluation, object.evaluations) = (observation.evaluation, object.evaluations + 1);
                });
            }
            What::Pushed { .. } => self.series.object(&place, now, |object| {
                (object.evaluation, object.evaluations) = (observation.evaluation, object.evaluations + 1);
            }),
            What::Resource { kind: ResourceKind::ScaledJob, here, triggers } => {
                self.count_job(&place.key, here.then(|| triggers.clone()));
            }
            What::Resource { kind, here, .. } => {
                let by = if *here { 1 } else { -1 };
                self.series.count_resource(resource(*kind), &observation.object.namespace, by);
            }
            What::Fetch {
                asked_by,
                trigger,
                trigger_type,
                name: given,
                metrics,
                outcome,
                took,
                requests,
                empties,
                ..
            } => {
                if *asked_by == Asker::Hpa {
                    self.ask(&place, now, observation.evaluation);
                }
                let name = self.scaler(&place.key, *trigger);
                let of = Asked {
                    index: *trigger,
                    trigger_name: given.clone().unwrap_or_default(),
                    metric: metrics.first().cloned().unwrap_or_default(),
                };
                let by_trigger = self.series.has_durations_by_trigger();
                if !by_trigger {
                    for hop in requests {
                        self.series.http(trigger_type, status(hop), hop.took);
                    }
                }
                self.series.object(&place, now, |object| {
                    object.errors += u64::from(outcome.is_err());
                    for hop in requests {
                        object.request(&of, trigger_type, status(hop), by_trigger.then_some(hop.took));
                    }
                    for ignored in empties {
                        object.empty(&of, *ignored);
                    }
                    for (at, metric) in metrics.iter().enumerate() {
                        let scaler = object.scaler(*trigger, &name, metric);
                        (scaler.latency, scaler.read) = (Some(took.as_secs_f64()), true);
                        fetched(scaler, outcome, at);
                    }
                });
            }
            What::Decision { metrics, .. } => self.decide(&place, now, metrics),
            What::Error { stage: Stage::Trigger { .. }, .. } => {
                self.series.object(&place, now, |object| object.errors += 1);
            }
            What::Life(Life::Stopped) => {
                // Of an object that is just going nothing is known.
                if self.objects.contains_key(&place.key) {
                    self.series.object(&place, now, Object::rest);
                }
            }
            What::Checked { took, failed } => self.check(*took, *failed),
            What::Error { .. } | What::Write { .. } | What::Life(_) | What::Hpa(_) | What::Query { .. } => {}
        }
    }

    /// Counts a request of the HPA with which an evaluation has begun, before the poll that was to begin it.
    fn ask(&self, place: &Place, now: Timestamp, evaluation: u64) {
        self.series.object(place, now, |object| {
            if object.evaluation < evaluation {
                (object.evaluation, object.evaluations) = (evaluation, object.evaluations + 1);
                object.lateness = Some(0.0);
            }
        });
    }

    /// Counts a check under the names that programs for Kubernetes have for it.
    fn check(&self, took: Duration, failed: bool) {
        let result = if failed { "error" } else { "success" };
        self.series.count(&RECONCILES, &[CONTROLLER, result]);
        if failed {
            self.series.count(&RECONCILE_ERRORS, &[CONTROLLER]);
        }
        self.series.add(&RECONCILE_SECONDS, &[CONTROLLER], took.as_secs_f64());
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

    /// Counts a ScaledJob and its triggers; none where it is gone. Nothing else is told of one on which nothing acts.
    fn count_job(&mut self, key: &Arc<ObjectKey>, types: Option<Arc<[Arc<str>]>>) {
        let before = match &types {
            Some(types) => self.jobs.insert(key.clone(), types.clone()),
            None => self.jobs.remove(key),
        };
        let by = i64::from(types.is_some()) - i64::from(before.is_some());
        if by != 0 {
            self.series.count_resource(resource(ResourceKind::ScaledJob), &key.namespace, by);
        }
        self.series.count_triggers(&before.unwrap_or_default(), &types.unwrap_or_default());
    }

    /// Enters what there is, after observations were missed: objects that came, those that changed and those that went.
    fn catch_up(&mut self, present: &[Arc<Snapshot>], now: Timestamp) {
        let gone: Vec<_> = self
            .objects
            .keys()
            .filter(|key| present.binary_search_by(|one| one.key.cmp(key)).is_err())
            .cloned()
            .collect();
        for key in gone {
            self.forget(&Place { kind: Kind::ScaledObject, key });
        }
        for snapshot in present {
            let place = Place { kind: Kind::ScaledObject, key: snapshot.key.clone() };
            let mut triggers: Vec<Definition> = Vec::new();
            for view in &snapshot.triggers {
                // One trigger may have several metrics.
                if view.index == triggers.len() {
                    triggers.push(Definition { trigger_type: view.trigger_type.clone(), name: view.name.clone() });
                }
            }
            // An object whose triggers nobody has looked at yet shows none.
            if !triggers.is_empty() || !self.objects.contains_key(&place.key) {
                self.define(&place, now, &triggers);
            }
            self.series.object(&place, now, |object| object.paused = snapshot.paused);
        }
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
            object.fallback = Some(metrics.iter().any(|seen| seen.fallback));
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

fn status(hop: &Hop) -> Option<u16> {
    hop.status.map(|status| status.as_u16())
}

fn resource(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Authentication(AuthenticationKind::TriggerAuthentication) => "trigger_authentication",
        ResourceKind::Authentication(AuthenticationKind::ClusterTriggerAuthentication) => {
            "cluster_trigger_authentication"
        }
        ResourceKind::ScaledJob => "scaled_job",
        ResourceKind::CloudEventSource | ResourceKind::ClusterCloudEventSource => "cloudevent_source",
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};
    use tidemark_engine::activation::Action;
    use tidemark_operator::TriggerView;
    use tidemark_trigger::door::Hop;
    use tidemark_trigger::{ErrorKind, MetricType};

    use super::*;
    use crate::catalogue::OPERATOR;
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
            self.0.record(&Observation { time: START.parse().unwrap(), object, uid: "u".into(), evaluation: 0, what });
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
                endpoint: None,
                took: Duration::from_millis(250),
                metrics: vec!["s0-cron".into()],
                outcome,
                requests: vec![Hop {
                    method: Method::GET,
                    origin: "http://source:80".into(),
                    status: Some(StatusCode::OK),
                    took: Duration::from_millis(7),
                }],
                empties: vec![true],
            });
        }

        fn decide(&mut self, seen: Seen) {
            let (reasons, metrics) = (Arc::default(), Arc::from([seen]));
            self.tell(What::Decision { active: true, replicas: None, action: Action::Nothing, reasons, metrics });
        }

        /// The values of a metric, each after what is left of its labels without the object's own.
        fn values(&self, metric: &str) -> Vec<String> {
            let text: Vec<_> = prometheus::pieces(OPERATOR, self.0.series.snapshot()).flatten().collect();
            let text = String::from_utf8(text).unwrap();
            let own = r#"namespace="shop","#;
            let lines = text.lines().filter_map(|line| line.strip_prefix(metric)).filter(|rest| rest.starts_with('{'));
            lines.map(|line| line.replace(own, "").replace(r#"scaledObject="workers""#, "_")).collect()
        }
    }

    fn seen(trigger: Option<usize>, metric: &str, milli: i64, fallback: bool) -> Seen {
        Seen { trigger, metric: metric.into(), milli: Some(milli), target: None, active: Some(true), fallback }
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
        let empties = r#"{scaledResource="workers",triggerName="",metricName="s0-cron",resourceType="ScaledObject",ignoreNullValues="true"} 2"#;
        assert_eq!(test.values("keda_scaler_empty_upstream_responses_total"), [empties]);
    }

    #[test]
    fn a_scaled_job_and_its_triggers_are_counted_and_nothing_else_is_told_of_it() {
        let mut test = Test::new();
        let mut job = |here, types: &[&str]| {
            let triggers = types.iter().map(|kind| Arc::from(*kind)).collect();
            test.tell(What::Resource { kind: ResourceKind::ScaledJob, here, triggers });
            let text: Vec<_> = prometheus::pieces(OPERATOR, test.0.series.snapshot()).flatten().collect();
            let text = String::from_utf8(text).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with('#') && line.contains("registered_total"));
            assert!(!text.contains("workers"), "{text}");
            lines.map(|line| line.split_once('{').unwrap().1.to_owned()).collect::<Vec<_>>()
        };
        let counts = |objects, crons, queues: Option<u8>| {
            let mut lines = vec![format!(r#"type="scaled_job",namespace="shop"}} {objects}"#)];
            lines.push(format!(r#"type="cron"}} {crons}"#));
            lines.extend(queues.map(|queues| format!(r#"type="rabbitmq"}} {queues}"#)));
            lines
        };
        assert_eq!(job(true, &["cron", "cron"]), counts(1, 2, None));
        assert_eq!(job(true, &["cron", "rabbitmq"]), counts(1, 1, Some(1)));
        assert_eq!(job(false, &[]), counts(0, 0, Some(0)));
    }

    #[test]
    fn an_evaluation_that_the_hpa_begins_counts_once_and_is_not_late() {
        let mut test = Test::new();
        test.define(&[("cron", None)]);
        let place = Place { kind: Kind::ScaledObject, key: Arc::new(ObjectKey::new("shop", "workers")) };
        for evaluation in [1, 1, 2] {
            test.0.ask(&place, START.parse().unwrap(), evaluation);
        }
        assert_eq!(test.values("tidemark_evaluations_total")[0].split(' ').next_back(), Some("2"));
        assert_eq!(test.values("keda_internal_scale_loop_latency_seconds")[0].split(' ').next_back(), Some("0"));
    }

    #[test]
    fn checks_count_by_their_end_and_by_how_long_they_took() {
        let mut test = Test::new();
        for failed in [false, true, false] {
            test.tell(What::Checked { took: Duration::from_millis(500), failed });
        }
        let text: Vec<_> = prometheus::pieces(OPERATOR, test.0.series.snapshot()).flatten().collect();
        let text = String::from_utf8(text).unwrap();
        for line in [
            "controller_runtime_reconcile_total{controller=\"scaledobject\",result=\"success\"} 2\n",
            "controller_runtime_reconcile_total{controller=\"scaledobject\",result=\"error\"} 1\n",
            "controller_runtime_reconcile_errors_total{controller=\"scaledobject\"} 1\n",
            "controller_runtime_reconcile_time_seconds_sum{controller=\"scaledobject\"} 1.5\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
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
        assert_eq!(test.values("tidemark_scaled_object_fallback"), ["{_} 1"]);
        test.decide(seen(Some(0), "s0-cron", 1000, false));
        assert_eq!(test.values("tidemark_scaled_object_fallback"), ["{_} 0"]);
    }

    #[test]
    fn polls_and_pushes_are_evaluations() {
        let mut test = Test::new();
        test.define(&[("cron", None)]);
        let labels = r#"{type="scaledobject",resource="workers"}"#;
        assert_eq!(test.values("tidemark_evaluations_total"), [format!("{labels} 0")]);
        test.tell(What::Poll { late: Duration::ZERO });
        test.tell(What::Pushed { trigger: 0 });
        assert_eq!(test.values("tidemark_evaluations_total"), [format!("{labels} 2")]);
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
    #[test]
    fn what_was_read_before_a_pause_is_told_no_longer_and_what_was_counted_is() {
        let mut test = Test::new();
        test.define(&[("cron", None)]);
        test.tell(What::Poll { late: Duration::from_millis(2) });
        test.fetch(Ok(vec![Reading { value: 1.0, active: true }]));
        test.decide(seen(Some(0), "s0-cron", 1000, false));
        test.tell(What::Life(Life::Stopped));
        test.tell(What::Paused(true));
        for gauge in ["keda_scaler_active", "keda_scaler_metrics_value", "keda_scaler_metrics_latency_seconds"] {
            assert_eq!(test.values(gauge), [""; 0], "{gauge}");
        }
        assert_eq!(test.values("keda_internal_scale_loop_latency_seconds"), [""; 0]);
        assert_eq!(test.values("keda_scaler_detail_errors_total").len(), 1);
        test.fetch(Ok(vec![Reading { value: 2.0, active: true }]));
        assert_eq!(test.values("keda_scaler_metrics_value").len(), 1, "it goes on");
        test.tell(What::Gone);
        test.tell(What::Life(Life::Stopped));
        assert_eq!(test.values("keda_scaled_object_paused"), [""; 0], "it is gone for good");
    }

    #[tokio::test]
    async fn what_was_missed_is_caught_up_with_by_what_there_is() {
        let mut test = Test::new();
        test.define(&[("cron", None)]);
        test.fetch(Ok(vec![Reading { value: 1.0, active: true }]));
        let (sender, observations) = broadcast::channel(1);
        let other = Arc::new(ObjectKey::new("shop", "others"));
        for name in ["lost", "seen"] {
            let object = Arc::new(ObjectKey::new("shop", name));
            let what = What::Paused(false);
            let time = START.parse().unwrap();
            sender.send(Arc::new(Observation { time, object, uid: "u".into(), evaluation: 0, what })).unwrap();
        }
        drop(sender);
        let trigger = |index: usize, metric: &str| TriggerView {
            index,
            trigger_type: "cron".into(),
            name: None,
            metric: metric.into(),
            value: None,
            target_milli: 1000,
            metric_type: MetricType::AverageValue,
            active: None,
            error: None,
            time: None,
        };
        let triggers = vec![trigger(0, "a"), trigger(0, "b"), trigger(1, "c")];
        let snapshot = Arc::new(Snapshot { key: other, triggers, paused: true, ..Snapshot::default() });
        let series = test.0.series.clone();
        test.0.run(observations, || vec![snapshot.clone()], CancellationToken::new()).await;
        let text: Vec<u8> = prometheus::pieces(OPERATOR, series.snapshot()).flatten().collect();
        let text = String::from_utf8(text).unwrap();
        assert!(!text.contains("workers"), "it is gone, though nobody was told: {text}");
        assert!(text.contains(r#"keda_scaled_object_paused{namespace="shop",scaledObject="others"} 1"#), "{text}");
        assert!(text.contains(r#"keda_resource_registered_total{type="scaled_object",namespace="shop"} 1"#), "{text}");
        assert!(text.contains(r#"keda_trigger_registered_total{type="cron"} 2"#), "{text}");
        assert!(text.contains("tidemark_telemetry_lost_observations_total 1"), "{text}");
    }
}
