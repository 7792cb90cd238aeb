//! What kubectl applies on its own side, and how it comes to apply on the server's.

use std::collections::BTreeSet;

use serde_json::Value;

use super::compare::{Comparison, named};
use crate::api::schema::Schema;

/// kubectl's field manager.
pub(in crate::api) const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The paths, as text, of what kubectl applied on its own side and nobody has changed since; none for anybody else. Its
/// first server-side apply may change them.
pub(in crate::api) fn applied_by_client(schema: &Schema, live: &Value, manager: &str) -> BTreeSet<String> {
    let text = live["metadata"]["annotations"][LAST_APPLIED].as_str().filter(|_| manager == KUBECTL);
    let Some(last) = text.and_then(|text| serde_json::from_str::<Value>(text).ok()) else { return BTreeSet::new() };
    let comparison = Comparison::of(schema, &last, live);
    named(schema, &last).without(&comparison.modified).without(&comparison.removed).paths().into_iter().collect()
}

/// Notes what was applied where kubectl looks before it applies on its own side, if it has ever done that.
pub(in crate::api) fn note_applied(next: &mut Value, config: &Value) {
    if next["metadata"]["annotations"][LAST_APPLIED].is_null() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.shift_remove(LAST_APPLIED);
    }
    config.sort_all_objects();
    next["metadata"]["annotations"][LAST_APPLIED] = format!("{config}\n").into();
}
