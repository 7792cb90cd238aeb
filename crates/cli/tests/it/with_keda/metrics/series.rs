//! Series, and what is known to differ between KEDA's and ours.

use std::collections::{BTreeMap, BTreeSet};

use crate::metrics_table::pushed::Pushed;
use crate::metrics_table::scrape::{Sample, Scrape};
use crate::receiver::Told;

/// Differences as [`Series::differences`] tells them, each with its reason; what stands on both sides of ` .. ` is in them.
pub const SERIES_DIFFER: &[(&str, &str)] = &[
    ("KEDA alone: .. type=scaledjob", "the operator does not run ScaledJobs yet"),
    ("KEDA alone: keda_scaled_job_errors_total", "the operator does not run ScaledJobs yet"),
    ("KEDA alone: .. resourceType=ScaledJob", "the operator does not run ScaledJobs yet"),
    ("KEDA alone: .. scaled_resource=job", "the operator does not run ScaledJobs yet"),
    ("ours alone: keda_scaled_object_errors_total .. unbuilt", "KEDA does not count what it cannot even begin to poll"),
    ("ours alone: keda_scaled_object_errors_total .. resting", "counts from the begin of the object, be it paused"),
];

/// The same of what is pushed over OTLP.
pub const OTLP_DIFFERS: &[(&str, &str)] = &[
    ("KEDA alone: .. name=job", "the operator does not run ScaledJobs yet"),
    ("KEDA alone: .. scaledJob=job", "the operator does not run ScaledJobs yet"),
    ("KEDA alone: .. scaledResource=job", "the operator does not run ScaledJobs yet"),
    ("KEDA alone: .. scaled_resource=job", "the operator does not run ScaledJobs yet"),
    ("ours alone: keda.scaler.errors.total{", "the name of KEDA's documentation, which KEDA does not send"),
    ("ours alone: keda.scaled.object.errors{", "the name of KEDA's documentation, which KEDA does not send"),
    ("ours alone: keda.scaler.errors{", "begins at 0, and failed polls count"),
    ("ours alone: keda.scaledobject.errors{", "begins at 0"),
];

/// Begins of the names of metrics of the libraries that KEDA is made of, which ours does not tell.
pub const NOT_TOLD: &[(&str, &str)] = &[
    ("go_", "tells of Go's runtime"),
    ("certwatcher_", "tidemark_certificate_expiry_timestamp_seconds tells of certificates"),
    ("controller_runtime_active_workers", "there are no workers: each object has a task of its own"),
    ("controller_runtime_max_concurrent_reconciles", "there are no workers: each object has a task of its own"),
    ("controller_runtime_reconcile_panics_total", "a panic ends the process"),
    ("controller_runtime_reconcile_timeouts_total", "each request has a deadline, a check has none"),
    ("controller_runtime_terminal_reconcile_errors_total", "no check is given up for ever"),
    ("controller_runtime_webhook_", "tells of a library's webhooks; keda_webhook_... tell of ours"),
    ("controller_runtime_conversion_webhook_", "there are no conversions"),
    ("workqueue_", "there is no queue: each object has a task of its own"),
    ("aggregator_", "tells of API servers' discovery"),
    ("apiserver_", "tells of a library of API servers; apiserver_request_total is there"),
    ("authenticated_user_requests", "tells of a library of API servers"),
    ("authentication_", "tells of a library of API servers"),
    ("authorization_", "tells of a library of API servers"),
    ("cardinality_enforcement_", "tells of a library of metrics"),
    ("disabled_metrics_total", "tells of a library of metrics"),
    ("field_validation_", "tells of a library of API servers"),
    ("hidden_metrics_total", "tells of a library of metrics"),
    ("registered_metrics_total", "tells of a library of metrics"),
];

/// Metrics whose values are the same whenever they are looked at.
const SETTLED: [&str; 5] = [
    "keda_scaler_active",
    "keda_scaler_metrics_value",
    "keda_scaled_object_paused",
    "keda_resource_registered_total",
    "keda_trigger_registered_total",
];

/// A scrape.
pub struct Series(Scrape);

impl Series {
    pub async fn of(port: u16) -> Self {
        Self(Scrape::of(port).await)
    }

    pub async fn of_all(ports: [u16; 3]) -> [Self; 3] {
        let [first, second, third] = ports;
        [Self::of(first).await, Self::of(second).await, Self::of(third).await]
    }

    pub fn values(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        self.0.values(name, labels)
    }

    /// Names and types.
    pub fn families(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.0.iter().map(|(name, family)| (name.as_str(), family.kind.as_str()))
    }

    /// The type of a metric.
    pub fn family(&self, name: &str) -> Option<&str> {
        self.0.0.get(name).map(|family| family.kind.as_str())
    }

    /// The names of all labels of a metric.
    pub fn labels(&self, name: &str) -> BTreeSet<&str> {
        self.0.label_sets(name).into_iter().flatten().collect()
    }

    /// Each series of KEDA's own metrics, with its value where that is settled. Of the build only the labels' names.
    fn all(&self) -> BTreeMap<String, Option<f64>> {
        let own = self.0.0.iter().filter(|(name, _)| name.starts_with("keda_"));
        let told = own.flat_map(|(name, family)| {
            family.samples.iter().map(move |sample| {
                let value = SETTLED.contains(&name.as_str()).then_some(sample.value);
                (format!("{} {}", written(sample, name == "keda_build_info"), family.kind), value)
            })
        });
        told.collect()
    }

    /// What one of the two tells alone, or otherwise.
    pub fn differences(&self, ours: &Self) -> Vec<String> {
        differences(&self.all(), &ours.all())
    }
}

fn differences(theirs: &BTreeMap<String, Option<f64>>, ours: &BTreeMap<String, Option<f64>>) -> Vec<String> {
    let mut differences = Vec::new();
    for (series, value) in theirs {
        match ours.get(series) {
            None => differences.push(format!("KEDA alone: {series}")),
            Some(own) if own != value => differences.push(format!("values: {series}: {value:?}, ours {own:?}")),
            Some(_) => {}
        }
    }
    let alone = ours.keys().filter(|series| !theirs.contains_key(*series));
    differences.extend(alone.map(|series| format!("ours alone: {series}")));
    differences
}

fn written(sample: &Sample, only_names: bool) -> String {
    let labels = sample.labels.iter().map(|(name, value)| match (only_names, name.as_str()) {
        (true, _) => name.clone(),
        // A number may be written in several ways.
        (false, "le") => format!("le={}", value.parse::<f64>().unwrap()),
        (false, _) => format!("{name}={value}"),
    });
    format!("{}{{{}}}", sample.name, labels.collect::<Vec<_>>().join(","))
}

/// What was pushed over OTLP.
pub struct Otlp(Pushed);

impl Otlp {
    pub fn of(told: &Told) -> Self {
        Self(Pushed::of(told))
    }

    /// Whether a metric was told of an object.
    pub fn has(&self, metric: &str, object: &str) -> bool {
        !self.0.told(metric, object).is_empty()
    }

    /// Each series with its instrument and unit.
    fn all(&self) -> BTreeMap<String, Option<f64>> {
        let points = self.0.points.iter().filter(|point| point.name.starts_with("keda."));
        let told = points.map(|point| {
            let metric = &self.0.metrics[&point.name];
            let labels = point.attributes.iter().map(|(name, value)| match &*point.name {
                "keda.build.info" => name.clone(),
                _ => format!("{name}={value}"),
            });
            let labels = labels.collect::<Vec<_>>().join(",");
            (format!("{}{{{labels}}} {:?} {:?}", point.name, metric.instruments, metric.units), None)
        });
        told.collect()
    }

    pub fn differences(&self, ours: &Self) -> Vec<String> {
        differences(&self.all(), &ours.all())
    }
}
