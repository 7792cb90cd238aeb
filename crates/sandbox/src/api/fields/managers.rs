//! `metadata.managedFields`: who has written which fields, and how.

use serde_json::{Value, json};

use super::compare::Comparison;
use super::merge::Conflict;
use super::set::FieldSet;
use crate::api::schema::Schema;

/// Who owns what of an object that had no owners before its first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// How fields were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::api) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who writes now.
#[derive(Clone, Debug)]
pub(in crate::api) struct Writer<'a> {
    pub name: &'a str,
    pub operation: Operation,
    /// Of the form in which the object is written.
    pub api_version: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// The status is a subresource, so that only a writer of the status can own it.
    pub status_apart: bool,
    /// A writer of the status can own nothing else.
    pub status_alone: bool,
    /// When, as `metav1.Time` writes it.
    pub time: &'a str,
}

impl Writer<'_> {
    /// The part of a set that such a writer can own.
    pub(super) fn filtered(&self, mut set: FieldSet) -> FieldSet {
        set.drop_bookkeeping();
        if self.subresource == "status" {
            if self.status_alone {
                set.keep_field("status");
            }
            set.drop_field("spec");
        } else if self.status_apart {
            set.drop_field("status");
        }
        set
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    manager: String,
    operation: Operation,
    api_version: String,
    subresource: String,
    time: String,
    set: FieldSet,
}

impl Entry {
    fn read(value: &Value) -> Option<Self> {
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let operation = match value["operation"].as_str()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        Some(Self {
            manager: text("manager"),
            operation,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            set: FieldSet::read(&value["fieldsV1"]),
        })
    }

    fn written(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager, "operation": self.operation.name(), "apiVersion": self.api_version,
        });
        if !self.time.is_empty() {
            entry["time"] = self.time.as_str().into();
        }
        entry["fieldsType"] = "FieldsV1".into();
        entry["fieldsV1"] = self.set.written();
        if !self.subresource.is_empty() {
            entry["subresource"] = self.subresource.as_str().into();
        }
        entry
    }

    /// Whether the writer goes on with this entry. An applier has one entry, whatever form it writes.
    fn is_of(&self, writer: &Writer<'_>) -> bool {
        self.manager == writer.name
            && self.operation == writer.operation
            && self.subresource == writer.subresource
            && (self.operation == Operation::Apply || self.api_version == writer.api_version)
    }

    /// The owner as messages name it.
    fn told(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// All entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::api) struct Managers(Vec<Entry>);

impl Managers {
    /// The entries of an object.
    pub(in crate::api) fn of(object: &Value) -> Self {
        let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
        Self(entries.filter_map(Entry::read).collect())
    }

    /// The entries after which an update of `live` by `sent` goes on: those that were sent, if any. `None`: the writer
    /// wishes that there be none.
    pub(in crate::api) fn before(live: &Value, sent: &Value) -> Option<Self> {
        let entries = sent["metadata"]["managedFields"].as_array();
        let reset = |entries: &Vec<Value>| match &entries[..] {
            [] => !live["metadata"]["managedFields"].is_null(),
            [only] => only.as_object().is_some_and(serde_json::Map::is_empty),
            _ => false,
        };
        if entries.is_some_and(reset) {
            return None;
        }
        let given = Self::of(sent);
        Some(if given.0.is_empty() { Self::of(live) } else { given })
    }

    pub(in crate::api) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As `managedFields`.
    pub(in crate::api) fn written(&self) -> Value {
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_by(|a, b| {
            let key = |entry: &Entry| (entry.operation, entry.time.clone(), entry.manager.clone());
            let rest = |entry: &Entry| (entry.api_version.clone(), entry.subresource.clone());
            (key(a), rest(a)).cmp(&(key(b), rest(b)))
        });
        entries.into_iter().map(Entry::written).collect()
    }

    /// Whether both say the same, whenever it was written.
    pub(in crate::api) fn same_but_for_times(&self, other: &Self) -> bool {
        let timeless = |entries: &[Entry]| -> Vec<Entry> {
            let mut entries: Vec<_> =
                entries.iter().map(|entry| Entry { time: String::new(), ..entry.clone() }).collect();
            entries.sort_by_key(|entry| (entry.operation, entry.manager.clone(), entry.subresource.clone()));
            entries
        };
        timeless(&self.0) == timeless(&other.0)
    }

    /// An object without owners that is applied for the first time belongs to whoever was before.
    pub(in crate::api) fn adopt(&mut self, schema: &Schema, live: &Value, writer: &Writer<'_>) {
        let writer = Writer { name: BEFORE_FIRST_APPLY, operation: Operation::Update, ..writer.clone() };
        let comparison = Comparison::of(schema, &schema.skeleton(), live);
        self.put(&writer, writer.filtered(comparison.added.union(comparison.modified)));
    }

    pub(super) fn set_of(&self, writer: &Writer<'_>) -> Option<&FieldSet> {
        self.0.iter().find(|entry| entry.is_of(writer)).map(|entry| &entry.set)
    }

    /// When the writer last wrote; empty if never.
    pub(super) fn time_of(&self, writer: &Writer<'_>) -> String {
        self.0.iter().find(|entry| entry.is_of(writer)).map(|entry| entry.time.clone()).unwrap_or_default()
    }

    /// Sets when the writer has last written.
    pub(super) fn date(&mut self, writer: &Writer<'_>, time: String) {
        self.0.iter_mut().filter(|entry| entry.is_of(writer)).for_each(|entry| entry.time.clone_from(&time));
    }

    /// Gives the writer exactly these fields.
    pub(super) fn put(&mut self, writer: &Writer<'_>, set: FieldSet) {
        self.0.retain(|entry| !entry.is_of(writer));
        self.0.push(Entry {
            manager: writer.name.to_owned(),
            operation: writer.operation,
            api_version: writer.api_version.to_owned(),
            subresource: writer.subresource.to_owned(),
            time: writer.time.to_owned(),
            set,
        });
    }

    /// What anyone owns.
    pub(super) fn all(&self) -> FieldSet {
        self.0.iter().fold(FieldSet::default(), |all, entry| all.union(entry.set.clone()))
    }

    /// Takes from the others what an apply changes, or refuses to. Says whether it changes anything.
    pub(super) fn settle(
        &mut self,
        schema: &Schema,
        live: &Value,
        next: &Value,
        writer: &Writer<'_>,
        force: bool,
    ) -> Result<bool, Vec<Conflict>> {
        let Comparison { added, modified, mut removed } = Comparison::of(schema, live, next);
        let mut taken = modified.union(added);
        taken.drop_bookkeeping();
        removed.drop_bookkeeping();
        let changes = !taken.is_empty() || !removed.is_empty();
        if !force {
            let mut conflicts = Vec::new();
            for entry in self.0.iter().filter(|entry| !entry.is_of(writer)) {
                let manager = entry.told();
                let paths = entry.set.common(&taken).paths();
                conflicts.extend(paths.into_iter().map(|path| Conflict { manager: manager.clone(), path }));
            }
            if !conflicts.is_empty() {
                return Err(conflicts);
            }
        }
        for entry in self.0.iter_mut().filter(|entry| !entry.is_of(writer)) {
            entry.set = std::mem::take(&mut entry.set).without(&taken).without(&removed);
        }
        self.0.retain(|entry| !entry.set.is_empty());
        Ok(changes)
    }

    /// Gives the writer of an update what it has changed.
    pub(in crate::api) fn updated(&mut self, schema: &Schema, live: &Value, next: &Value, writer: &Writer<'_>) {
        let comparison = Comparison::of(schema, live, next);
        let taken = comparison.modified.union(comparison.added);
        for entry in &mut self.0 {
            entry.set = std::mem::take(&mut entry.set).without(&taken).without(&comparison.removed);
        }
        let taken = writer.filtered(taken);
        if !taken.is_empty() {
            let before = self.set_of(writer).cloned().unwrap_or_default();
            self.put(writer, before.union(taken));
        }
        self.0.retain(|entry| !entry.set.is_empty());
    }
}
