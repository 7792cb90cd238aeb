use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tidemark_engine::metric::Target;
use tidemark_engine::reason::Reason;
use tidemark_operator::{MetricError, ScaleCause, Seen, Stage};
use tidemark_trigger::door::Hop;
use tidemark_trigger::{ErrorKind, Reading, SourceError};

use super::*;
use crate::traces::trace_id;

const START: &str = "2026-01-01T00:00:00Z";
const SEED: u128 = 7;

struct Test {
    tracer: Tracer,
    queue: Queue,
}

impl Test {
    fn new(variables: &[(&str, &str)]) -> Self {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let settings = Settings::from_variables(find, "tidemark");
        assert_eq!(settings.warnings, [""; 0]);
        let queue = Queue::new(100_000, 100_000);
        Self { tracer: Tracer::new(&settings, SEED, queue.clone()), queue }
    }

    /// Something happens so many milliseconds after the start.
    fn at(&mut self, milliseconds: i64, evaluation: u64, what: What) {
        self.of("u", milliseconds, evaluation, what);
    }

    fn of(&mut self, uid: &str, milliseconds: i64, evaluation: u64, what: What) {
        let object = Arc::new(ObjectKey::new("shop", "workers"));
        let observation = Observation { time: time(milliseconds), object, uid: uid.into(), evaluation, what };
        self.tracer.on(&observation);
    }

    /// The spans so far, by name; of one name in the order in which they came.
    fn spans(&self) -> BTreeMap<String, Vec<Span>> {
        let mut spans: BTreeMap<String, Vec<Span>> = BTreeMap::new();
        for item in self.queue.take() {
            let span = Span::decode(&*item.message).unwrap();
            spans.entry(span.name.clone()).or_default().push(span);
        }
        spans
    }
}

fn time(milliseconds: i64) -> Timestamp {
    START.parse::<Timestamp>().unwrap() + SignedDuration::from_millis(milliseconds)
}

fn nanoseconds(milliseconds: i64) -> u64 {
    crate::otlp::attributes::nanoseconds(time(milliseconds))
}

fn poll() -> What {
    What::Poll { late: Duration::from_millis(3) }
}

fn fetch(asked_by: Asker, outcome: Result<f64, ErrorKind>) -> What {
    let outcome = match outcome {
        Ok(value) => Ok(vec![Reading { value, active: value > 0.0 }]),
        Err(kind) => Err(SourceError::new(kind, "GET http://source: 401")),
    };
    let hop = Hop {
        method: http::Method::GET,
        origin: "http://source:8080".into(),
        status: Some(http::StatusCode::OK),
        took: Duration::from_millis(10),
    };
    What::Fetch {
        trigger: 1,
        trigger_type: "metrics-api".into(),
        name: None,
        asked_by,
        for_formula: false,
        endpoint: None,
        took: Duration::from_millis(20),
        metrics: vec!["s1-queue".into()],
        outcome,
        requests: vec![hop],
        empties: Vec::new(),
    }
}

fn decision(action: Action) -> What {
    let reason = Reason::TriggerActive { metric: "s1-queue".into(), value: 4.0 };
    let seen = Seen {
        trigger: Some(1),
        metric: "s1-queue".into(),
        milli: Some(4000),
        target: Some(Target::AverageValue(5000)),
        active: Some(true),
        fallback: false,
    };
    let (reasons, metrics) = ([reason].into(), [seen].into());
    What::Decision { active: true, replicas: Some(0), action, reasons, metrics }
}

fn scaled(error: Option<&str>) -> What {
    let cause = ScaleCause::Activated { metrics: vec!["s1-queue".into()], forced: false };
    let write = Write::Scale { target: "apps/v1.Deployment shop/workers".into(), from: 0, to: 1, cause };
    What::Write { write, took: Duration::from_millis(12), dry_run: false, error: error.map(Into::into) }
}

/// The attributes as text.
fn said(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        Value::BoolValue(is) => is.to_string(),
        other => format!("{other:?}"),
    };
    let value = |attribute: &KeyValue| text(attribute.value.as_ref().unwrap().value.as_ref().unwrap());
    attributes.iter().map(|attribute| (attribute.key.clone(), value(attribute))).collect()
}

fn lasts(span: &Span) -> (u64, u64) {
    (span.start_time_unix_nano, span.end_time_unix_nano)
}

#[test]
fn an_evaluation_is_one_trace_with_its_fetches_its_decision_and_its_write() {
    let mut test = Test::new(&[]);
    test.at(0, 1, poll());
    test.at(25, 1, fetch(Asker::Poll, Ok(4.0)));
    test.at(25, 1, decision(Action::Activate { from: 0, to: 1 }));
    test.at(40, 1, scaled(None));
    test.tracer.sweep(time(5039));
    assert_eq!(test.tracer.open.len(), 1, "more may come");
    test.tracer.sweep(time(5040));
    let spans = test.spans();
    let root = &spans["evaluate"][0];
    assert_eq!(root.trace_id, trace_id(SEED, "u", 1));
    assert_eq!((root.parent_span_id.len(), lasts(root)), (0, (nanoseconds(0), nanoseconds(40))));
    let of_root = said(&root.attributes);
    assert_eq!((&*of_root["k8s.namespace.name"], &*of_root["tidemark.object.name"]), ("shop", "workers"));
    assert_eq!((&*of_root["tidemark.late"], &*of_root["tidemark.begun_by"]), ("0.003", "timer"));
    assert_eq!((&*of_root["tidemark.result"], &*of_root["tidemark.replicas.to"]), ("scaled", "1"));
    let below: Vec<_> = ["fetch", "decide", "write"].iter().map(|name| &spans[*name][0]).collect();
    for span in &below {
        assert_eq!((&span.trace_id, &span.parent_span_id), (&root.trace_id, &root.span_id), "{}", span.name);
        assert!(span.start_time_unix_nano >= root.start_time_unix_nano, "{}", span.name);
        assert!(span.end_time_unix_nano <= root.end_time_unix_nano, "{}", span.name);
        assert_eq!(span.flags, 0x101);
    }
    assert_eq!(lasts(below[0]), (nanoseconds(5), nanoseconds(25)));
    assert_eq!(lasts(below[2]), (nanoseconds(28), nanoseconds(40)), "as long as the write took");
    let of_fetch = said(&below[0].attributes);
    assert_eq!((&*of_fetch["server.address"], &*of_fetch["server.port"]), ("source", "8080"));
    assert_eq!((&*of_fetch["tidemark.trigger.type"], &*of_fetch["tidemark.trigger.index"]), ("metrics-api", "1"));
    assert_eq!(said(&below[0].events[0].attributes)["http.response.status_code"], "200");
    let events: Vec<_> = below[1].events.iter().map(|event| (&*event.name, said(&event.attributes))).collect();
    assert_eq!((events[0].0, &*events[0].1["tidemark.reason"]), ("reason", "s1-queue is active at 4"));
    assert_eq!((events[1].0, &*events[1].1["tidemark.metric.target"]), ("metric", "5"));
}

#[test]
fn a_dry_run_says_so_in_every_span_and_shows_no_write() {
    let mut test = Test::new(&[]);
    test.tracer.dry_run = true;
    test.at(0, 1, poll());
    test.at(25, 1, fetch(Asker::Poll, Ok(4.0)));
    test.at(25, 1, decision(Action::Activate { from: 0, to: 1 }));
    let What::Write { write, .. } = scaled(None) else { unreachable!() };
    test.at(40, 1, What::Write { write, took: Duration::ZERO, dry_run: true, error: None });
    test.tracer.finish();
    let spans = test.spans();
    assert_eq!(spans.keys().collect::<Vec<_>>(), ["decide", "evaluate", "fetch", "would write"]);
    for span in spans.values().flatten() {
        assert_eq!(said(&span.attributes)["tidemark.dry_run"], "true", "{}", span.name);
    }
    let would = &spans["would write"][0];
    assert_eq!((would.kind(), lasts(would)), (SpanKind::Internal, (nanoseconds(40), nanoseconds(40))));
    assert_eq!(said(&would.attributes)["tidemark.replicas.to"], "1");
    assert_eq!(said(&spans["evaluate"][0].attributes)["tidemark.result"], "would_scale");
}

#[test]
fn failures_are_told_by_kind_in_their_span_and_in_the_root() {
    let mut test = Test::new(&[]);
    test.at(0, 1, poll());
    test.at(25, 1, fetch(Asker::Poll, Err(ErrorKind::Authentication)));
    test.at(25, 1, decision(Action::Activate { from: 0, to: 1 }));
    test.at(40, 1, scaled(Some("forbidden")));
    test.tracer.finish();
    let spans = test.spans();
    for (name, kind, message) in [
        ("fetch", "authentication", "GET http://source: 401"),
        ("write", "_OTHER", "forbidden"),
        ("evaluate", "authentication", "GET http://source: 401"),
    ] {
        let span = &spans[name][0];
        let status = span.status.as_ref().unwrap();
        assert_eq!((status.code(), &*status.message), (StatusCode::Error, message), "{name}");
        assert_eq!(said(&span.attributes)["error.type"], kind, "{name}");
    }
    assert_eq!(said(&spans["evaluate"][0].attributes)["tidemark.result"], "failed");
    assert!(spans["decide"][0].status.is_none());
}

#[test]
fn a_question_of_the_hpa_is_a_trace_of_its_own_with_a_link_to_the_latest_evaluation() {
    let mut test = Test::new(&[]);
    let query = |outcome| What::Query { metric: "s1-queue".into(), took: Duration::from_millis(30), outcome };
    test.at(10, 0, query(Err(MetricError::NoTriggers("not built yet".into()))));
    test.at(1025, 3, fetch(Asker::Hpa, Ok(4.0)));
    test.at(1026, 3, decision(Action::Nothing));
    test.at(1030, 3, query(Ok(Vec::new())));
    test.tracer.finish();
    let spans = test.spans();
    let [first, second] = &spans["query"][..] else { panic!("{spans:?}") };
    assert_ne!(first.trace_id, second.trace_id);
    assert_eq!((first.links.len(), said(&first.attributes)["error.type"].as_str()), (0, "no triggers"));
    assert_eq!(lasts(second), (nanoseconds(1000), nanoseconds(1030)));
    let (link, evaluation) = (&second.links[0], &spans["evaluate"][0]);
    assert_eq!((&link.trace_id, &link.span_id), (&evaluation.trace_id, &evaluation.span_id));
    assert_eq!(evaluation.trace_id, trace_id(SEED, "u", 3));
    // The read for it is an evaluation like any other.
    assert_eq!(said(&evaluation.attributes)["tidemark.begun_by"], "hpa");
    assert_eq!(spans["fetch"][0].trace_id, evaluation.trace_id);
    assert_eq!(lasts(evaluation), (nanoseconds(1005), nanoseconds(1026)));
}

#[test]
fn what_comes_late_finds_its_place_and_makes_no_second_root() {
    let mut test = Test::new(&[]);
    test.at(0, 1, poll());
    test.at(1, 1, decision(Action::Nothing));
    test.at(1000, 2, poll());
    // A slow trigger of the first evaluation, and of the second one after that was told.
    test.at(1500, 1, fetch(Asker::Poll, Ok(1.0)));
    test.at(1600, 2, decision(Action::Nothing));
    test.tracer.sweep(time(10_000));
    test.at(11_000, 2, fetch(Asker::Poll, Ok(1.0)));
    test.tracer.sweep(time(20_000));
    test.tracer.finish();
    let spans = test.spans();
    assert_eq!((spans["evaluate"].len(), spans["fetch"].len()), (2, 2));
    for (fetch, root) in spans["fetch"].iter().zip(&spans["evaluate"]) {
        assert_eq!((&fetch.trace_id, &fetch.parent_span_id), (&root.trace_id, &root.span_id));
    }
    let ids: std::collections::BTreeSet<_> = spans.values().flatten().map(|span| &span.span_id).collect();
    assert_eq!(ids.len(), spans.values().flatten().count());
}

#[test]
fn nothing_that_is_lost_or_gone_is_held_for_ever() {
    let mut test = Test::new(&[]);
    for object in 0..1000 {
        let uid = format!("u{object}");
        test.of(&uid, 0, 1, poll());
        if object % 2 == 0 {
            // Its decision is lost.
            test.of(&uid, 1, 1, What::Gone);
        }
    }
    assert_eq!((test.tracer.open.len(), test.tracer.told.len()), (500, 0));
    test.tracer.sweep(time(60_000));
    assert_eq!((test.tracer.open.len(), test.tracer.told.len()), (0, 500));
    let spans = test.spans();
    assert_eq!(spans["evaluate"].len(), 1000);
    assert_eq!(said(&spans["evaluate"][0].attributes)["tidemark.result"], "undecided");
    test.tracer.sweep(time(700_000));
    assert_eq!(test.tracer.told.len(), 0);
}

#[test]
fn a_trace_is_told_whole_or_not_at_all_and_nothing_is_held_of_one_that_is_not() {
    let ratio = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.5")];
    let mut test = Test::new(&ratio);
    for evaluation in 1..=200 {
        let at = i64::try_from(evaluation).unwrap() * 1000;
        test.at(at, evaluation, poll());
        test.at(at + 1, evaluation, fetch(Asker::Poll, Ok(1.0)));
        test.at(at + 1, evaluation, decision(Action::Nothing));
    }
    test.tracer.finish();
    let spans = test.spans();
    let told = |name: &str| spans[name].iter().map(|span| span.trace_id.clone()).collect::<Vec<_>>();
    assert!((70..130).contains(&told("evaluate").len()), "{}", told("evaluate").len());
    assert_eq!((told("evaluate"), told("evaluate")), (told("fetch"), told("decide")));
    let mut test = Test::new(&[("OTEL_TRACES_SAMPLER", "always_off")]);
    test.at(0, 1, poll());
    test.at(1, 1, decision(Action::Nothing));
    assert!(test.tracer.open.is_empty() && test.spans().is_empty());
}

#[test]
fn what_happens_beside_evaluations_has_traces_of_its_own_that_name_the_object() {
    let mut test = Test::new(&[]);
    let created = Write::HpaCreated { name: "keda-hpa-workers".into() };
    for write in [created, Write::FinalizerAdded] {
        test.at(0, 0, What::Write { write, took: Duration::from_millis(2), dry_run: false, error: None });
    }
    test.at(5, 0, What::Error { stage: Stage::Check, message: "no such target".into() });
    test.at(10, 1, poll());
    test.at(11, 1, What::Error { stage: Stage::StatusUpdate, message: "conflict".into() });
    test.tracer.finish();
    let spans = test.spans();
    let (write, error, root) = (&spans["write"][0], &spans["error"][0], &spans["evaluate"][0]);
    for span in [write, error] {
        assert!(span.parent_span_id.is_empty());
        assert_eq!(said(&span.attributes)["tidemark.object.name"], "workers");
    }
    assert_ne!(write.trace_id, error.trace_id);
    assert_eq!(lasts(write), (nanoseconds(-2), nanoseconds(0)));
    assert_ne!(write.trace_id, spans["write"][1].trace_id, "two that end at once are two");
    assert_eq!(said(&error.attributes)["tidemark.error.stage"], "check");
    let event = &root.events[0];
    assert_eq!((&*event.name, said(&event.attributes)["tidemark.error.stage"].as_str()), ("error", "status_update"));
}

#[test]
fn limits_are_those_of_the_variables() {
    let mut test = Test::new(&[("OTEL_SPAN_EVENT_COUNT_LIMIT", "1"), ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "4")]);
    test.at(0, 1, poll());
    test.at(1, 1, decision(Action::Nothing));
    test.tracer.finish();
    let spans = test.spans();
    let decide = &spans["decide"][0];
    assert_eq!((decide.events.len(), decide.dropped_events_count), (1, 1));
    assert_eq!(said(&decide.events[0].attributes)["tidemark.reason"], "s1-q");
}

#[test]
fn the_same_run_gives_the_same_spans() {
    let run = || {
        let mut test = Test::new(&[]);
        for evaluation in 1..10 {
            test.at(1000, evaluation, poll());
            test.at(1000, evaluation, fetch(Asker::Poll, Ok(1.0)));
            test.at(1000, evaluation, decision(Action::Nothing));
        }
        test.tracer.finish();
        test.queue.take()
    };
    assert_eq!(run(), run());
}
