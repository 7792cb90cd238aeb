//! Values as OTLP messages.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric as Told, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::attributes::{attribute, nanoseconds};
use crate::catalogue::{Instrument, Metric, OPERATOR, OtlpName, What};
use crate::series::{self, Page, Point, Snapshot, Subject, Value};

/// The scope under which KEDA tells its metrics.
const SCOPE: &str = "keda-open-telemetry-metrics";
/// Values in one request: so much is in memory at once, however many there are.
const POINTS: usize = 2000;

/// Whether a counter tells all since its begin, or what has come since the last export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Temporality {
    #[default]
    Cumulative,
    Delta,
}

/// What counters had reached at the last export.
#[derive(Debug, Default)]
pub struct Reached {
    time: Option<Timestamp>,
    values: HashMap<String, Total>,
}

#[derive(Clone, Debug, PartialEq)]
enum Total {
    Number(f64),
    Histogram(series::Histogram),
}

/// The requests of one export, made one by one.
pub struct Requests<'a> {
    snapshot: &'a Snapshot,
    now: Timestamp,
    resource: Resource,
    differences: Option<(&'a Reached, Reached)>,
    /// What has not been made into parts, or not wholly.
    names: VecDeque<(&'static Metric, &'static OtlpName, Page)>,
    /// Parts of metrics that have not been sent yet, with the number of their values.
    parts: VecDeque<(Told, usize)>,
}

impl<'a> Requests<'a> {
    /// The requests that tell `snapshot`, whose time is `now`. With `before`, counters tell what has come since.
    pub fn new(
        snapshot: &'a Snapshot,
        now: Timestamp,
        resource: impl IntoIterator<Item = (String, String)>,
        before: Option<&'a Reached>,
    ) -> Self {
        let attributes = resource.into_iter().map(|(key, value)| attribute(&key, value)).collect();
        let names = OPERATOR
            .iter()
            .flat_map(|metric| metric.otlp.iter().map(move |name| (*metric, name, Page::default())))
            .collect();
        let differences = before.map(|before| (before, Reached { time: Some(now), values: HashMap::new() }));
        let resource = Resource { attributes, ..Resource::default() };
        Self { snapshot, now, resource, differences, names, parts: VecDeque::new() }
    }

    /// What the counters have reached now, after the last request.
    pub fn reached(self) -> Option<Reached> {
        self.differences.map(|(_, reached)| reached)
    }

    /// Makes parts of the next values of a metric; false when there are none left.
    fn encode(&mut self, metric: &'static Metric, name: &'static OtlpName, page: &mut Page) -> bool {
        let delta =
            matches!(metric.instrument, Instrument::Counter | Instrument::Histogram) && self.differences.is_some();
        let mut numbers = Vec::new();
        let mut histograms = Vec::new();
        let told_before = &mut self.differences;
        let more = self.snapshot.page(metric, page, POINTS, &mut |point| {
            let attributes = attributes(metric, &point.subject);
            let total = match point.value {
                Value::Number(value) => Total::Number(value * name.factor),
                Value::Histogram(histogram) => Total::Histogram(histogram.clone()),
            };
            let (total, since) = match told_before.as_mut().filter(|_| delta) {
                Some((before, after)) => difference(name.name, &attributes, total, &point, before, after),
                None => (total, point.since),
            };
            let times = (nanoseconds(since), nanoseconds(self.now));
            match total {
                Total::Number(value) => numbers.push(number(value, metric.integer, times, attributes)),
                Total::Histogram(histogram) => histograms.push(distribution(&histogram, times, attributes)),
            }
        });
        let temporality = if delta { AggregationTemporality::Delta } else { AggregationTemporality::Cumulative } as i32;
        while !numbers.is_empty() {
            let rest = numbers.split_off(numbers.len().min(POINTS));
            let data_points = std::mem::replace(&mut numbers, rest);
            let points = data_points.len();
            let data = match metric.instrument {
                Instrument::Gauge | Instrument::Histogram => Data::Gauge(Gauge { data_points }),
                Instrument::Counter | Instrument::UpDownCounter => Data::Sum(Sum {
                    data_points,
                    aggregation_temporality: temporality,
                    is_monotonic: metric.instrument == Instrument::Counter,
                }),
            };
            self.parts.push_back((told(metric, name, data), points));
        }
        while !histograms.is_empty() {
            let rest = histograms.split_off(histograms.len().min(POINTS));
            let data_points = std::mem::replace(&mut histograms, rest);
            let points = data_points.len();
            let data = Histogram { data_points, aggregation_temporality: temporality };
            self.parts.push_back((told(metric, name, Data::Histogram(data)), points));
        }
        more.is_some()
    }
}

impl Iterator for Requests<'_> {
    type Item = ExportMetricsServiceRequest;

    fn next(&mut self) -> Option<Self::Item> {
        let mut metrics = Vec::new();
        let mut room = POINTS;
        loop {
            match self.parts.pop_front() {
                Some((part, points)) if points <= room => {
                    room -= points;
                    metrics.push(part);
                }
                Some(part) => {
                    self.parts.push_front(part);
                    break;
                }
                None => match self.names.pop_front() {
                    Some((metric, name, mut page)) => {
                        if self.encode(metric, name, &mut page) {
                            self.names.push_front((metric, name, page));
                        }
                    }
                    None => break,
                },
            }
        }
        if metrics.is_empty() {
            return None;
        }
        let scope = InstrumentationScope { name: SCOPE.to_owned(), ..InstrumentationScope::default() };
        let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics, schema_url: String::new() }];
        let resource = Some(self.resource.clone());
        Some(ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics { resource, scope_metrics, schema_url: String::new() }],
        })
    }
}

fn told(metric: &Metric, name: &OtlpName, data: Data) -> Told {
    Told {
        name: name.name.to_owned(),
        description: metric.help.to_owned(),
        unit: name.unit.to_owned(),
        metadata: Vec::new(),
        data: Some(data),
    }
}

/// What has come since the last export, and when that was.
fn difference(
    name: &str,
    attributes: &[KeyValue],
    total: Total,
    point: &Point<'_>,
    before: &Reached,
    after: &mut Reached,
) -> (Total, Timestamp) {
    let key = key(name, attributes);
    let known = before.values.get(&key);
    after.values.insert(key, total.clone());
    // A series that has begun anew counts from zero.
    let since = match (known, before.time) {
        (Some(_), Some(time)) => time.max(point.since),
        _ => point.since,
    };
    let difference = match (total, known) {
        (Total::Number(value), Some(Total::Number(known))) if value >= *known => Total::Number(value - known),
        (Total::Histogram(mut histogram), Some(Total::Histogram(known))) if histogram.count() >= known.count() => {
            for (count, known) in histogram.buckets.iter_mut().zip(&known.buckets) {
                *count = count.saturating_sub(*known);
            }
            histogram.sum -= known.sum;
            Total::Histogram(histogram)
        }
        (total, _) => total,
    };
    (difference, since)
}

fn key(name: &str, attributes: &[KeyValue]) -> String {
    let mut key = name.to_owned();
    for attribute in attributes {
        key.push('\0');
        match attribute.value.as_ref().and_then(|any| any.value.as_ref()) {
            Some(AnyValue::StringValue(value)) => key.push_str(value),
            Some(AnyValue::BoolValue(truth)) => key.push(if *truth { '1' } else { '0' }),
            _ => {}
        }
    }
    key
}

fn attributes(metric: &Metric, subject: &Subject<'_>) -> Vec<KeyValue> {
    let names = metric.labels.iter().filter_map(|label| {
        let name = if subject.is_job() { label.otlp_of_job } else { label.otlp };
        Some((name?, label.what))
    });
    let told = |(name, what): (&str, What)| match what.is_boolean() {
        true => attribute(name, subject.tell(what, |text| text == "true")),
        false => attribute(name, subject.tell(what, str::to_owned)),
    };
    names.map(told).collect()
}

fn number(value: f64, integer: bool, (since, now): (u64, u64), attributes: Vec<KeyValue>) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        start_time_unix_nano: since,
        time_unix_nano: now,
        exemplars: Vec::new(),
        flags: 0,
        value: Some(if integer { Number::AsInt(value as i64) } else { Number::AsDouble(value) }),
    }
}

fn distribution(
    histogram: &series::Histogram,
    (since, now): (u64, u64),
    attributes: Vec<KeyValue>,
) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes,
        start_time_unix_nano: since,
        time_unix_nano: now,
        count: histogram.count(),
        sum: Some(histogram.sum),
        bucket_counts: histogram.buckets.to_vec(),
        explicit_bounds: histogram.bounds.to_vec(),
        ..HistogramDataPoint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use tidemark_operator::ObjectKey;

    use super::*;
    use crate::series::{Build, Kind, Place, Series};

    const START: &str = "2026-01-01T00:00:00Z";

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn series() -> Series {
        Series::new(Build { version: "1", commit: "c", toolchain: "t" }, time(START))
    }

    fn record(series: &Series, kind: Kind, name: &str) {
        let place = Place { kind, key: Arc::new(ObjectKey::new("shop", name)) };
        series.object(&place, time(START), |object| {
            let scaler = object.scaler(1, &Arc::from("rabbitMQScaler"), &Arc::from("s1-rabbitmq"));
            scaler.value = Some(3.0);
            scaler.latency = Some(0.25);
            scaler.read = true;
            scaler.fail("unreachable");
            object.errors += 1;
        });
    }

    /// Every value by name and attributes, as `name{key=value,...}`.
    fn told(requests: impl Iterator<Item = ExportMetricsServiceRequest>) -> BTreeMap<String, f64> {
        let mut told = BTreeMap::new();
        for metric in requests.flat_map(|request| request.resource_metrics[0].scope_metrics[0].metrics.clone()) {
            let points = match metric.data.unwrap() {
                Data::Gauge(gauge) => gauge.data_points,
                Data::Sum(sum) => sum.data_points,
                _ => continue,
            };
            for point in points {
                let text = |pair: &KeyValue| match pair.value.as_ref().unwrap().value.as_ref().unwrap() {
                    AnyValue::StringValue(value) => format!("{}={value}", pair.key),
                    other => panic!("{other:?}"),
                };
                let attributes: Vec<_> = point.attributes.iter().map(text).collect();
                let value = match point.value.unwrap() {
                    Number::AsInt(value) => value as f64,
                    Number::AsDouble(value) => value,
                };
                assert_eq!(told.insert(format!("{}{{{}}}", metric.name, attributes.join(",")), value), None);
            }
        }
        told
    }

    #[test]
    fn objects_and_jobs_have_the_attributes_that_keda_gives_them() {
        let series = series();
        record(&series, Kind::ScaledObject, "workers");
        record(&series, Kind::ScaledJob, "jobs");
        let snapshot = series.snapshot();
        let told = told(Requests::new(&snapshot, time(START), [], None));
        let of = |object: &str, index: &str| {
            format!("{{namespace=shop,metric=s1-rabbitmq,{object},scaler=rabbitMQScaler,{index}=1}}")
        };
        let (object, job) = (of("scaledObject=workers", "scalerIndex"), of("scaledJob=jobs", "triggerIndex"));
        for labels in [&object, &job] {
            assert_eq!(told[&format!("keda.scaler.metrics.value{labels}")], 3.0);
            assert_eq!(told[&format!("keda.scaler.metrics.latency{labels}")], 250.0);
            assert_eq!(told[&format!("keda.scaler.metrics.latency.seconds{labels}")], 0.25);
            assert_eq!(told[&format!("keda.scaler.errors{labels}")], 1.0);
            assert_eq!(told[&format!("keda.scaler.errors.total{labels}")], 1.0);
        }
        assert_eq!(told["keda.scaledobject.errors{namespace=shop,scaledObject=workers}"], 1.0);
        assert_eq!(told["keda.scaled.object.errors{namespace=shop,scaledObject=workers}"], 1.0);
        assert_eq!(told["keda.scaledjob.errors{namespace=shop,scaledJob=jobs}"], 1.0);
    }

    #[test]
    fn no_series_is_dropped_and_no_request_is_large() {
        let series = series();
        for number in 0..10_000 {
            record(&series, Kind::ScaledObject, &format!("object-{number}"));
        }
        let snapshot = series.snapshot();
        let requests: Vec<_> = Requests::new(&snapshot, time(START), [], None).collect();
        let told = told(requests.iter().cloned());
        let values = told.keys().filter(|name| name.starts_with("keda.scaler.metrics.value{")).count();
        assert_eq!(values, 10_000);
        assert!(requests.iter().all(|request| prost::Message::encoded_len(request) < 1_000_000));
    }

    #[test]
    fn differences_tell_what_has_come_since() {
        let series = series();
        record(&series, Kind::ScaledObject, "workers");
        let name = "keda.scaledobject.errors{namespace=shop,scaledObject=workers}";
        let mut reached = Reached::default();
        let mut export = |now: &str| {
            let snapshot = series.snapshot();
            let mut requests = Requests::new(&snapshot, time(now), [], Some(&reached));
            let told = told(&mut requests);
            let after = requests.reached().unwrap();
            reached = after;
            told[name]
        };
        assert_eq!(export("2026-01-01T00:01:00Z"), 1.0);
        assert_eq!(export("2026-01-01T00:02:00Z"), 0.0);
        record(&series, Kind::ScaledObject, "workers");
        record(&series, Kind::ScaledObject, "workers");
        assert_eq!(export("2026-01-01T00:03:00Z"), 2.0);
    }
}
