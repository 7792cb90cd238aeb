//! Spans, and what they say. No value here comes from a parameter of a trigger: only what the operator shows anyway.

use jiff::Timestamp;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use tidemark_engine::activation::Action;
use tidemark_engine::reason::Reason;
use tidemark_operator::{Asker, MetricError, ObjectKey, Observation, ScaleCause, Seen, Stage, What, Write};
use tidemark_trigger::door::Hop;

use super::ids::{SpanId, TraceId};
use crate::otlp::attributes::{attribute, nanoseconds};

/// All the scopes' name.
pub(super) const SCOPE: &str = "tidemark";
/// The trace is told, and its parent is of this process.
const LOCAL: u32 = 0x100;
const SAMPLED: u32 = 1;

/// Where a span stands.
#[derive(Clone, Copy)]
pub(super) struct Standing {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) parent: Option<SpanId>,
}

/// A span without attributes.
pub(super) fn span(name: &str, standing: Standing, (start, end): (Timestamp, Timestamp)) -> Span {
    Span {
        trace_id: standing.trace.0.to_vec(),
        span_id: standing.span.0.to_vec(),
        parent_span_id: standing.parent.map(|parent| parent.0.to_vec()).unwrap_or_default(),
        flags: SAMPLED | LOCAL,
        name: name.to_owned(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: nanoseconds(start),
        end_time_unix_nano: nanoseconds(end.max(start)),
        ..Span::default()
    }
}

/// An event of a span.
pub(super) fn event(name: &str, time: Timestamp, attributes: Vec<KeyValue>) -> Event {
    Event { time_unix_nano: nanoseconds(time), name: name.to_owned(), attributes, ..Event::default() }
}

/// A link to an evaluation.
pub(super) fn link(to: TraceId, sampled: bool) -> Link {
    Link {
        trace_id: to.0.to_vec(),
        span_id: to.root().0.to_vec(),
        flags: LOCAL | if sampled { SAMPLED } else { 0 },
        ..Link::default()
    }
}

/// What an error is called where it has no kind.
const OTHER_ERROR: &str = "_OTHER";

/// Marks a span as failed. `kind` is an error's kind, which has few values.
pub(super) fn fail(span: &mut Span, kind: Option<&str>, message: &str) {
    span.attributes.push(attribute("error.type", kind.unwrap_or(OTHER_ERROR)));
    span.status = Some(Status { message: message.to_owned(), code: StatusCode::Error.into() });
}

/// Which object a span is about.
pub(super) fn object(key: &ObjectKey, uid: &str) -> Vec<KeyValue> {
    vec![
        attribute("k8s.namespace.name", key.namespace.as_str()),
        attribute("tidemark.object.kind", "ScaledObject"),
        attribute("tidemark.object.name", key.name.as_str()),
        attribute("tidemark.object.uid", uid),
    ]
}

/// Says which object the root of a trace is about; below an evaluation that says so, nothing.
pub(super) fn name_object(span: &mut Option<Span>, observation: &Observation, standing: Standing) {
    if let Some(span) = span.as_mut().filter(|_| standing.parent.is_none()) {
        span.attributes.splice(..0, object(&observation.object, &observation.uid));
    }
}

/// The span of a fetch, with its requests over HTTP as events; none for anything else.
pub(super) fn fetch(what: &What, standing: Standing, times: (Timestamp, Timestamp)) -> Option<Span> {
    let What::Fetch {
        trigger,
        trigger_type,
        name,
        asked_by,
        for_formula,
        endpoint,
        metrics,
        outcome,
        requests,
        empties,
        ..
    } = what
    else {
        return None;
    };
    let mut span = span("fetch", standing, times);
    span.kind = SpanKind::Client.into();
    let attributes = &mut span.attributes;
    attributes.push(attribute("tidemark.trigger.index", int(*trigger)));
    attributes.push(attribute("tidemark.trigger.type", &**trigger_type));
    if let Some(name) = name {
        attributes.push(attribute("tidemark.trigger.name", &**name));
    }
    let by = match asked_by {
        Asker::Poll => "poll",
        Asker::Hpa => "hpa",
    };
    attributes.push(attribute("tidemark.fetch.asked_by", by));
    attributes.push(attribute("tidemark.fetch.for_formula", *for_formula));
    let origin = endpoint.as_ref().or_else(|| requests.first().map(|hop| &hop.origin));
    if let Some(origin) = origin {
        attributes.push(attribute("tidemark.trigger.endpoint", &**origin));
        server(attributes, origin);
    }
    attributes.push(attribute("tidemark.metric.names", metrics.iter().map(|name| &**name).collect::<Vec<_>>()));
    if !empties.is_empty() {
        attributes.push(attribute("tidemark.fetch.empty_replies", int(empties.len())));
    }
    match outcome {
        Ok(readings) => {
            let values = readings.iter().map(|reading| reading.value).collect::<Vec<_>>();
            attributes.push(attribute("tidemark.metric.values", values));
            attributes.push(attribute("tidemark.trigger.active", readings.iter().any(|reading| reading.active)));
        }
        Err(error) => fail(&mut span, Some(error.kind.as_str()), &error.message),
    }
    span.events = requests.iter().map(|hop| request(hop, times.1)).collect();
    Some(span)
}

/// The span of a question of the HPA and its answer.
pub(super) fn query(what: &What, standing: Standing, times: (Timestamp, Timestamp)) -> Option<Span> {
    let What::Query { metric, outcome, .. } = what else { return None };
    let mut span = span("query", standing, times);
    span.kind = SpanKind::Server.into();
    span.attributes.push(attribute("tidemark.metric.name", &**metric));
    match outcome {
        Ok(values) => {
            let values = values.iter().map(|value| units(value.value_milli)).collect::<Vec<_>>();
            span.attributes.push(attribute("tidemark.metric.values", values));
        }
        Err(error) => {
            let kind = match error {
                MetricError::ObjectNotFound(_) => "object not found",
                MetricError::NoTriggers(_) => "no triggers",
                MetricError::NoSuchMetric(_) => "no such metric",
                MetricError::Failed { .. } => "failed",
            };
            fail(&mut span, Some(kind), &error.to_string());
        }
    }
    Some(span)
}

/// One request over HTTP. When it began is not known, so that it is an event at the end of the fetch.
fn request(hop: &Hop, time: Timestamp) -> Event {
    let mut attributes = vec![
        attribute("http.request.method", hop.method.as_str()),
        attribute("tidemark.http.request.duration", hop.took.as_secs_f64()),
    ];
    server(&mut attributes, &hop.origin);
    match hop.status {
        Some(status) => attributes.push(attribute("http.response.status_code", i64::from(status.as_u16()))),
        None => attributes.push(attribute("error.type", "no reply")),
    }
    event("http.request", time, attributes)
}

/// Host and port of an origin such as `https://broker:15672`.
fn server(attributes: &mut Vec<KeyValue>, origin: &str) {
    let Some((scheme, place)) = origin.split_once("://") else { return };
    let (host, port) = match place.rsplit_once(':') {
        // The colons of an address of IPv6 stand within brackets.
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (place, None),
    };
    attributes.push(attribute("server.address", host.trim_start_matches('[').trim_end_matches(']')));
    let known = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    if let Some(port) = port.or(known) {
        attributes.push(attribute("server.port", port));
    }
}

/// The span of a decision, with its reasons and what it rests on as events.
pub(super) fn decide(what: &What, standing: Standing, time: Timestamp) -> Option<Span> {
    let What::Decision { active, replicas, action, reasons, metrics } = what else { return None };
    let mut span = span("decide", standing, (time, time));
    span.attributes = decision(*active, *replicas, *action);
    let seen = metrics.iter().map(|seen| event("metric", time, metric(seen)));
    let reasons = reasons.iter().map(|reason| event("reason", time, said(reason)));
    span.events = reasons.chain(seen).collect();
    Some(span)
}

/// What was decided.
pub(super) fn decision(active: bool, replicas: Option<i32>, action: Action) -> Vec<KeyValue> {
    let (name, change) = match action {
        Action::Nothing => ("nothing", None),
        Action::Activate { from, to } => ("activate", Some((from, to))),
        Action::Deactivate { from, to } => ("deactivate", Some((from, to))),
        Action::RaiseToMinimum { from, to } => ("raise_to_minimum", Some((from, to))),
        Action::Pause { from, to } => ("pause", Some((from, to))),
    };
    let mut attributes = vec![attribute("tidemark.active", active), attribute("tidemark.action", name)];
    match (change, replicas) {
        (Some((from, to)), _) => {
            attributes.push(attribute("tidemark.replicas.from", i64::from(from)));
            attributes.push(attribute("tidemark.replicas.to", i64::from(to)));
        }
        (None, Some(replicas)) => attributes.push(attribute("tidemark.replicas.current", i64::from(replicas))),
        (None, None) => {}
    }
    attributes
}

fn said(reason: &Reason) -> Vec<KeyValue> {
    vec![attribute("tidemark.reason", reason.to_string())]
}

fn metric(seen: &Seen) -> Vec<KeyValue> {
    let mut attributes = vec![attribute("tidemark.metric.name", &*seen.metric)];
    attributes.extend(seen.trigger.map(|index| attribute("tidemark.trigger.index", int(index))));
    attributes.extend(seen.milli.map(|milli| attribute("tidemark.metric.value", units(milli))));
    attributes.extend(seen.target.map(|target| attribute("tidemark.metric.target", units(target.milli()))));
    attributes.extend(seen.active.map(|active| attribute("tidemark.trigger.active", active)));
    attributes.push(attribute("tidemark.metric.fallback", seen.fallback));
    attributes
}

/// The span of a write to the API server; of one that a dry run would have made, an instant.
pub(super) fn write(what: &What, standing: Standing, times: (Timestamp, Timestamp)) -> Option<Span> {
    let What::Write { write, dry_run, error, .. } = what else { return None };
    let (name, kind) = match dry_run {
        true => ("would write", SpanKind::Internal),
        false => ("write", SpanKind::Client),
    };
    let mut span = span(name, standing, times);
    span.kind = kind.into();
    let attributes = &mut span.attributes;
    attributes.push(attribute("tidemark.write.kind", write.kind()));
    attributes.push(attribute("tidemark.write.verb", write.verb()));
    let target = match write {
        Write::Scale { target, .. } => Some(target),
        Write::HpaCreated { name } | Write::HpaUpdated { name } | Write::HpaDeleted { name } => Some(name),
        Write::Status | Write::FinalizerAdded | Write::FinalizerRemoved => None,
    };
    attributes.extend(target.map(|target| attribute("tidemark.write.target", &**target)));
    if let Write::Scale { from, to, cause, .. } = write {
        attributes.push(attribute("tidemark.replicas.from", i64::from(*from)));
        attributes.push(attribute("tidemark.replicas.to", i64::from(*to)));
        attributes.push(attribute("tidemark.write.cause", self::cause(cause)));
    }
    if let Some(error) = error {
        fail(&mut span, None, error);
    }
    Some(span)
}

fn cause(cause: &ScaleCause) -> &'static str {
    match cause {
        ScaleCause::Activated { forced: true, .. } => "forced",
        ScaleCause::Activated { .. } => "activated",
        ScaleCause::Deactivated => "deactivated",
        ScaleCause::RaisedToMinimum => "raised_to_minimum",
        ScaleCause::Paused => "paused",
        ScaleCause::Restored => "restored",
    }
}

/// What went wrong: the stage, which has few values, and the trigger.
pub(super) fn stage(stage: &Stage) -> Vec<KeyValue> {
    let (name, trigger) = match stage {
        Stage::Check => ("check", None),
        Stage::TargetMissing => ("target_missing", None),
        Stage::TargetUnscalable => ("target_unscalable", None),
        Stage::StatusUpdate => ("status_update", None),
        Stage::Trigger { index, trigger_type } => ("trigger", Some((index, trigger_type))),
        Stage::PollOverdue { index, trigger_type } => ("poll_overdue", Some((index, trigger_type))),
        Stage::HpaContested => ("hpa_contested", None),
        Stage::Deletion => ("deletion", None),
    };
    let mut attributes = vec![attribute("tidemark.error.stage", name)];
    if let Some((index, trigger_type)) = trigger {
        attributes.push(attribute("tidemark.trigger.index", int(*index)));
        attributes.push(attribute("tidemark.trigger.type", &**trigger_type));
    }
    attributes
}

/// The event of something that went wrong.
pub(super) fn error(stage: &Stage, message: &str, time: Timestamp) -> Event {
    let mut attributes = self::stage(stage);
    attributes.push(attribute("tidemark.error.message", message));
    event("error", time, attributes)
}

/// The span of something that went wrong outside of an evaluation that is still open.
pub(super) fn mishap(observation: &Observation, standing: Standing) -> Option<Span> {
    let What::Error { stage, message } = &observation.what else { return None };
    let mut span = span("error", standing, (observation.time, observation.time));
    span.attributes = self::stage(stage);
    fail(&mut span, None, message);
    Some(span)
}

fn units(milli: i64) -> f64 {
    milli as f64 / 1000.0
}

fn int(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_host_and_port() {
        let of = |origin: &str| {
            let mut attributes = Vec::new();
            server(&mut attributes, origin);
            attributes
        };
        let both = |host: &str, port: i64| vec![attribute("server.address", host), attribute("server.port", port)];
        assert_eq!(of("https://broker"), both("broker", 443));
        assert_eq!(of("amqp://broker:5672"), both("broker", 5672));
        assert_eq!(of("http://[::1]:8080"), both("::1", 8080));
        assert_eq!(of("http://[::1]"), both("::1", 80));
        assert_eq!(of("redis://cache"), [attribute("server.address", "cache")]);
        assert_eq!(of("nothing"), []);
    }
}
