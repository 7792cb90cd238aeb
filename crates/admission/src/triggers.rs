//! The list of triggers, of ScaledObjects and ScaledJobs alike.

use std::collections::BTreeMap;

use tidemark_api::ScaleTriggers;

use crate::{Path, Verdict};

const REASON: &str = "incorrect-triggers";

/// Whether triggers of the type scale on a resource of the target's own pods.
pub(crate) fn is_resource(trigger_type: &str) -> bool {
    matches!(trigger_type, "cpu" | "memory")
}

pub(crate) fn review(kind: &str, triggers: &[ScaleTriggers], verdict: &mut Verdict) {
    let list = Path::of(["spec", "triggers"]);
    if triggers.is_empty() {
        verdict.refuse(list, REASON, format!("no triggers defined in the {kind}: it needs at least one"));
        return;
    }
    let mut names = BTreeMap::new();
    for (index, trigger) in triggers.iter().enumerate() {
        let (at, type_) = (list.index(index), &trigger.type_);
        if trigger.use_cached_metrics == Some(true) && (is_resource(type_) || type_ == "cron") {
            let text = format!("property \"useCachedMetrics\" is not supported for {type_:?} scaler: leave it out");
            verdict.refuse(at.key("useCachedMetrics"), REASON, text);
        }
        let Some(name) = trigger.name.as_deref().filter(|name| !name.is_empty()) else { continue };
        if let Some(first) = names.insert(name, index) {
            let text = format!(
                "triggerName {name:?} is defined multiple times, but it must be unique (trigger {first} has it too)"
            );
            verdict.refuse(at.key("name"), REASON, text);
        }
    }
}
