//! What was pushed over OTLP.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, NumberDataPoint};

use super::table::Instrument;
use crate::receiver::Told;

/// A metric as it was pushed, in all exports together.
#[derive(Default)]
pub struct Metric {
    pub instruments: BTreeSet<String>,
    pub units: BTreeSet<String>,
    /// Names of attributes; those of booleans end with `?`.
    pub attributes: BTreeSet<BTreeSet<String>>,
    pub bounds: Vec<f64>,
}

/// One value: when it was exported, of what metric, with what attributes.
pub struct Point {
    pub time: u64,
    pub name: String,
    pub attributes: BTreeMap<String, String>,
}

pub struct Pushed {
    pub metrics: BTreeMap<String, Metric>,
    pub points: Vec<Point>,
}

impl Pushed {
    pub fn of(told: &Told) -> Self {
        let mut this = Self { metrics: BTreeMap::new(), points: Vec::new() };
        let resources = told.requests.iter().flat_map(|request| &request.resource_metrics);
        for scope in resources.flat_map(|resource| &resource.scope_metrics) {
            assert_eq!(scope.scope.as_ref().unwrap().name, "keda-open-telemetry-metrics");
            for metric in &scope.metrics {
                let entry = this.metrics.entry(metric.name.clone()).or_default();
                entry.units.insert(metric.unit.clone());
                let (instrument, points) = match metric.data.as_ref().unwrap() {
                    Data::Gauge(gauge) if is_whole(&gauge.data_points) => {
                        (Instrument::IntGauge, numbers(&gauge.data_points))
                    }
                    Data::Gauge(gauge) => (Instrument::Gauge, numbers(&gauge.data_points)),
                    Data::Sum(sum) => {
                        assert!(is_whole(&sum.data_points), "{} is not whole", metric.name);
                        assert_eq!(sum.aggregation_temporality, AggregationTemporality::Cumulative as i32);
                        let counter =
                            if sum.is_monotonic { Instrument::IntCounter } else { Instrument::IntUpDownCounter };
                        (counter, numbers(&sum.data_points))
                    }
                    Data::Histogram(histogram) => {
                        entry.bounds.clone_from(&histogram.data_points[0].explicit_bounds);
                        let points = histogram.data_points.iter();
                        (
                            Instrument::Histogram,
                            points.map(|point| (point.time_unix_nano, &*point.attributes)).collect(),
                        )
                    }
                    other => panic!("{other:?}"),
                };
                entry.instruments.insert(format!("{instrument:?}"));
                for (time, attributes) in points {
                    entry.attributes.insert(attributes.iter().map(name).collect());
                    let attributes = attributes.iter().map(|pair| (pair.key.clone(), text(pair))).collect();
                    this.points.push(Point { time, name: metric.name.clone(), attributes });
                }
            }
        }
        this
    }

    /// The times of the exports, in order.
    pub fn times(&self) -> BTreeSet<u64> {
        self.points.iter().map(|point| point.time).collect()
    }

    /// The times of the exports that tell a metric of an object.
    pub fn told(&self, metric: &str, object: &str) -> BTreeSet<u64> {
        let of =
            |point: &&Point| point.name == metric && point.attributes.get("scaledObject").is_some_and(|o| o == object);
        self.points.iter().filter(of).map(|point| point.time).collect()
    }
}

fn is_whole(points: &[NumberDataPoint]) -> bool {
    points.iter().all(|point| matches!(point.value, Some(Number::AsInt(_))))
}

fn numbers(points: &[NumberDataPoint]) -> Vec<(u64, &[KeyValue])> {
    points.iter().map(|point| (point.time_unix_nano, &*point.attributes)).collect()
}

fn name(pair: &KeyValue) -> String {
    match value(pair) {
        Value::BoolValue(_) => format!("{}?", pair.key),
        _ => pair.key.clone(),
    }
}

fn text(pair: &KeyValue) -> String {
    match value(pair) {
        Value::StringValue(text) => text.clone(),
        other => format!("{other:?}"),
    }
}

fn value(pair: &KeyValue) -> &Value {
    pair.value.as_ref().unwrap().value.as_ref().unwrap()
}
