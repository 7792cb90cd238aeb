//! One stored state of an object, shared by everyone who looks at it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

/// An object as it was at one revision. Never changes; its JSON text is made once for all watchers.
#[derive(Debug)]
pub(crate) struct Object {
    /// Empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub revision: u64,
    pub value: Value,
    json: OnceLock<Bytes>,
}

impl Object {
    /// Reads namespace and name from the metadata and writes the revision into it.
    pub(crate) fn new(mut value: Value, revision: u64) -> Self {
        value["metadata"]["resourceVersion"] = Value::String(revision.to_string());
        let text = |field: &str| Arc::from(value["metadata"][field].as_str().unwrap_or_default());
        Self { namespace: text("namespace"), name: text("name"), revision, value, json: OnceLock::new() }
    }

    /// The same object without a revision, as one that is not stored.
    pub(crate) fn unstored(mut self) -> Self {
        if let Some(metadata) = self.value["metadata"].as_object_mut() {
            metadata.shift_remove("resourceVersion");
        }
        self
    }

    /// The same object at another revision.
    pub(crate) fn restamped(&self, revision: u64) -> Self {
        Self::new(self.value.clone(), revision)
    }

    /// The object as JSON text.
    pub(crate) fn json(&self) -> &Bytes {
        self.json.get_or_init(|| Bytes::from(self.value.to_string()))
    }

    /// The object's identity over its life.
    pub(crate) fn uid(&self) -> &str {
        self.value["metadata"]["uid"].as_str().unwrap_or_default()
    }
}
