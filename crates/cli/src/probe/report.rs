//! What was read, for people and for programs.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidemark_engine::quantity;
use tidemark_trigger::{MetricSpec, MetricType, Reading, ResourceTarget};

use super::trigger::{Outcome, Probed};

/// The outcome of one run.
pub(super) struct Report {
    /// In the order of the files.
    pub(super) documents: Vec<Document>,
}

/// An object and its triggers.
pub(super) struct Document {
    pub(super) file: Arc<str>,
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    /// The replicas that there are, where a cluster told.
    pub(super) present: Option<i32>,
    pub(super) triggers: Vec<Probed>,
    pub(super) outlook: Outlook,
}

/// What the values would mean for the object.
pub(super) enum Outlook {
    /// Active; with the replicas that the HPA would ask for, where they follow from the values alone.
    Active(Option<i32>),
    /// Nothing is active; the replicas at rest, after the cooldown.
    Quiet(i32),
    /// Of a ScaledJob: Jobs to start at once, if none runs.
    Jobs { start: i64, active: bool },
    /// It cannot be said, and why.
    Unknown(String),
}

impl Report {
    /// How many triggers could not be read.
    pub(super) fn failures(&self) -> usize {
        self.triggers().filter(|probed| probed.has_failed()).count()
    }

    fn triggers(&self) -> impl Iterator<Item = &Probed> {
        self.documents.iter().flat_map(|document| &document.triggers)
    }

    /// Lines for people; a summary ends them.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for document in &self.documents {
            document.write(&mut text);
        }
        if self.documents.is_empty() {
            return "no ScaledObject or ScaledJob found\n".to_owned();
        }
        let (objects, triggers, failed) = (self.documents.len(), self.triggers().count(), self.failures());
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let _ = writeln!(
            text,
            "{objects} object{}, {triggers} trigger{}: {failed} could not be read",
            plural(objects),
            plural(triggers)
        );
        text
    }

    /// One JSON document; targets and values are quantities as the HPA sees them.
    ///
    /// # Errors
    /// None that can happen: it consists of texts and numbers.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        let documents: Vec<Value> = self.documents.iter().map(Document::json).collect();
        serde_json::to_string_pretty(&json!({ "documents": documents })).map(|text| text + "\n")
    }
}

impl Document {
    fn write(&self, text: &mut String) {
        let _ = writeln!(text, "{}: {} {}/{}", self.file, self.kind, self.namespace, self.name);
        for probed in &self.triggers {
            probed.write(text);
        }
        let outlook = match &self.outlook {
            Outlook::Jobs { start, active } => {
                let activity = if *active { "active" } else { "nothing is active" };
                let _ = writeln!(text, "  jobs: {activity}: {start} would be started if none ran");
                return;
            }
            Outlook::Active(Some(replicas)) => format!("active: the HPA would come to {replicas}"),
            Outlook::Active(None) if self.triggers.iter().any(Probed::has_failed) => {
                "active; how many cannot be said while a trigger is not read".to_owned()
            }
            Outlook::Active(None) => "active; how many depends on the pods that there are".to_owned(),
            Outlook::Quiet(replicas) => format!("nothing is active: {replicas} after the cooldown"),
            Outlook::Unknown(why) => format!("cannot be said: {why}"),
        };
        let present = self.present.map(|present| format!(" (now {present})")).unwrap_or_default();
        let _ = writeln!(text, "  replicas: {outlook}{present}");
    }

    fn json(&self) -> Value {
        let (active, replicas, jobs, unknown) = match &self.outlook {
            Outlook::Active(replicas) => (Some(true), *replicas, None, None),
            Outlook::Quiet(replicas) => (Some(false), Some(*replicas), None, None),
            Outlook::Jobs { start, active } => (Some(*active), None, Some(*start), None),
            Outlook::Unknown(why) => (None, None, None, Some(why)),
        };
        json!({
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "active": active,
            "replicas": replicas,
            "jobs": jobs,
            "unknown": unknown,
            "presentReplicas": self.present,
            "triggers": self.triggers.iter().map(Probed::json).collect::<Vec<_>>(),
        })
    }
}

impl Probed {
    pub(super) fn has_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed { .. })
    }

    fn write(&self, text: &mut String) {
        let name = self.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        let head = format!("  trigger {} ({}){name}", self.index, self.type_);
        match &self.outcome {
            Outcome::Read { readings, latency } => {
                for (metric, reading) in self.metrics.iter().zip(readings) {
                    let active = if reading.active { "active" } else { "not active" };
                    let (value, metric) = (shown(reading), described(metric));
                    let _ = writeln!(text, "{head}: {value}, {metric}, {active}, {}", milliseconds(*latency));
                }
            }
            Outcome::ByHpa => {
                for metric in &self.metrics {
                    let _ = writeln!(text, "{head}: {}, read by the HPA", described(metric));
                }
            }
            Outcome::Failed { error, remedy, latency } => {
                let took = latency.map(|latency| format!(", after {}", milliseconds(latency))).unwrap_or_default();
                let _ = writeln!(text, "{head}: error ({}{took}): {}", error.kind, error.message);
                let _ = writeln!(text, "    {remedy}");
            }
        }
        for note in &self.notes {
            let _ = writeln!(text, "    note: {note}");
        }
    }

    fn json(&self) -> Value {
        let (readings, latency, error): (&[Reading], _, _) = match &self.outcome {
            Outcome::Read { readings, latency } => (readings, Some(*latency), Value::Null),
            Outcome::ByHpa => (&[], None, Value::Null),
            Outcome::Failed { error, remedy, latency } => {
                let error = json!({"kind": error.kind.as_str(), "message": error.message, "remedy": remedy});
                (&[], *latency, error)
            }
        };
        let metrics = self.metrics.iter().enumerate().map(|(at, metric)| metric_json(metric, readings.get(at)));
        json!({
            "index": self.index,
            "type": self.type_,
            "name": self.name,
            "readByHpa": matches!(self.outcome, Outcome::ByHpa),
            "latencyMilliseconds": latency.map(|latency| (latency.as_secs_f64() * 1e6).round() / 1e3),
            "error": error,
            "metrics": metrics.collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}

fn metric_json(metric: &MetricSpec, reading: Option<&Reading>) -> Value {
    let (name, target, metric_type) = match metric {
        MetricSpec::External { name, metric_type, target_milli } => {
            (name.to_string(), quantity::format_milli(*target_milli), metric_type.as_str())
        }
        MetricSpec::Resource { resource, target, .. } => match target {
            ResourceTarget::Utilization(percent) => (resource.as_str().to_owned(), percent.to_string(), "Utilization"),
            ResourceTarget::AverageValue(amount) => (resource.as_str().to_owned(), amount.to_string(), "AverageValue"),
        },
    };
    json!({
        "name": name,
        "target": target,
        "metricType": metric_type,
        "value": reading.map(shown),
        "active": reading.map(|reading| reading.active),
    })
}

/// A value as the HPA is told it.
fn shown(reading: &Reading) -> String {
    quantity::format_milli(quantity::from_f64(reading.value))
}

fn described(metric: &MetricSpec) -> String {
    match metric {
        MetricSpec::External { name, metric_type, target_milli } => {
            let scope = match metric_type {
                MetricType::AverageValue => "per replica",
                MetricType::Value => "in all",
            };
            format!("target {} {scope} ({name})", quantity::format_milli(*target_milli))
        }
        MetricSpec::Resource { resource, container, target } => {
            let of = container.as_ref().map(|name| format!(" of container {name}")).unwrap_or_default();
            match target {
                ResourceTarget::Utilization(percent) => {
                    format!("target {percent} % of the requested {}{of}", resource.as_str())
                }
                ResourceTarget::AverageValue(amount) => format!("target {amount} of {}{of} per pod", resource.as_str()),
            }
        }
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
