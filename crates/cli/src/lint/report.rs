//! What was found: as text for people and as JSON for programs.

use std::fmt::Write;
use std::sync::Arc;

use serde::Serialize;
use tidemark_admission::Path;

use super::document::{Node, Side, Spot};

/// One thing to say about an object, with its place in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The field, such as `spec.triggers[0].metadata.value`.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
    /// From 1.
    pub line: u64,
    /// From 1, in characters.
    pub column: u64,
}

/// A reference to something that is not among the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unresolved {
    /// The field that refers.
    pub path: String,
    /// To what, such as `Secret shop/broker`.
    pub reference: String,
    #[serde(skip)]
    at: Spot,
}

/// A metric of a trigger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metric {
    /// The external metric's name, or the resource's.
    pub name: String,
    /// The target as a Kubernetes quantity; of `Utilization` the per cent.
    pub target: String,
    #[serde(rename = "metricType")]
    pub metric_type: String,
}

/// What was found out about a trigger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trigger {
    /// From 0.
    pub index: usize,
    #[serde(rename = "type")]
    pub type_: String,
    pub valid: bool,
    pub errors: Vec<Diagnostic>,
    pub warnings: Vec<Diagnostic>,
    /// Empty where only the source knows them, or what is missing among the files decides.
    pub metrics: Vec<Metric>,
}

/// What was found out about an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Document {
    pub kind: String,
    /// As written.
    pub namespace: Option<String>,
    pub name: String,
    pub valid: bool,
    /// Those of its triggers apart.
    pub errors: Vec<Diagnostic>,
    pub warnings: Vec<Diagnostic>,
    pub unresolved: Vec<Unresolved>,
    pub triggers: Vec<Trigger>,
    #[serde(skip)]
    pub file: Arc<str>,
}

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The objects of our kinds, in the order of the files.
    pub documents: Vec<Document>,
    #[serde(skip)]
    pub strict: bool,
}

impl Diagnostic {
    /// A message about a field of an object.
    pub fn new(node: &Node, path: &Path, side: Side, message: impl Into<String>) -> Self {
        Self::at(node.spot(path, side), path, message)
    }

    /// A message with a place of its own.
    pub fn at(spot: Spot, path: &Path, message: impl Into<String>) -> Self {
        Self { path: path.to_string(), message: message.into(), line: spot.line, column: spot.column }
    }
}

impl Unresolved {
    /// A reference that a field makes.
    pub fn new(node: &Node, path: &Path, reference: impl Into<String>) -> Self {
        Self { path: path.to_string(), reference: reference.into(), at: node.spot(path, Side::Value) }
    }
}

impl Report {
    /// Whether everything is valid.
    pub fn valid(&self) -> bool {
        self.documents.iter().all(|document| document.valid)
    }

    /// One JSON document.
    ///
    /// # Errors
    /// None that could occur: all keys are texts.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    /// One line for each thing to say, in the order of the lines of each object, and a line that sums up.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for document in &self.documents {
            let mut lines = document.lines(self.strict);
            // Stable: of one place what was found first comes first.
            lines.sort_by_key(|(spot, _)| *spot);
            for (spot, line) in lines {
                // Writing to a text cannot fail.
                let _ = writeln!(text, "{}:{}:{}: {}", document.file, spot.line, spot.column, plain(&line));
            }
        }
        let _ = writeln!(text, "{}", self.summary());
        text
    }

    fn summary(&self) -> String {
        let sum = |count: fn(&Document) -> usize| self.documents.iter().map(count).sum::<usize>();
        let invalid = self.documents.iter().filter(|document| !document.valid).count();
        let mut parts = vec![match invalid {
            0 => "all valid".to_owned(),
            invalid => format!("{invalid} not valid"),
        }];
        let unresolved = sum(|document| document.unresolved.len());
        let errors =
            sum(|document| document.all(|errors, _| errors).count()) + if self.strict { unresolved } else { 0 };
        for (count, noun) in
            [(errors, "error"), (sum(|document| document.all(|_, warnings| warnings).count()), "warning")]
        {
            if count > 0 {
                parts.push(counted(count, noun));
            }
        }
        if unresolved > 0 {
            parts.push(counted(unresolved, "unresolved reference"));
        }
        match self.documents.len() {
            0 => "no objects of keda.sh or eventing.keda.sh found".to_owned(),
            count => format!("{} checked: {}", counted(count, "object"), parts.join(", ")),
        }
    }
}

/// A message on one line, without what a terminal would obey.
fn plain(message: &str) -> String {
    let mut text = String::new();
    for c in message.chars() {
        match c {
            '\n' => text.push_str("; "),
            c if c.is_control() => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
    text
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

impl Document {
    fn all<'a>(
        &'a self,
        which: fn(&'a Vec<Diagnostic>, &'a Vec<Diagnostic>) -> &'a Vec<Diagnostic>,
    ) -> impl Iterator<Item = &'a Diagnostic> {
        let triggers = self.triggers.iter().flat_map(move |trigger| which(&trigger.errors, &trigger.warnings));
        which(&self.errors, &self.warnings).iter().chain(triggers)
    }

    fn lines(&self, strict: bool) -> Vec<(Spot, String)> {
        let line = |level: &str, diagnostic: &Diagnostic| {
            let spot = Spot { line: diagnostic.line, column: diagnostic.column };
            let place = if diagnostic.path.is_empty() { String::new() } else { format!("{}: ", diagnostic.path) };
            (spot, format!("{level}: {place}{}", diagnostic.message))
        };
        let unresolved = |one: &Unresolved| {
            let (level, remedy) = if strict { ("error", "") } else { ("note", "; what depends on it was not checked") };
            (one.at, format!("{level}: {}: {} is not among the files{remedy}", one.path, one.reference))
        };
        let errors = self.all(|errors, _| errors).map(|found| line("error", found));
        let warnings = self.all(|_, warnings| warnings).map(|found| line("warning", found));
        errors.chain(warnings).chain(self.unresolved.iter().map(unresolved)).collect()
    }
}
