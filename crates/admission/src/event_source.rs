//! The rules for CloudEventSources and ClusterCloudEventSources.

use tidemark_api::{CloudEventSourceSpec, EVENT_TYPES};

use crate::{Path, Verdict};

pub(crate) fn review(spec: &CloudEventSourceSpec, verdict: &mut Verdict) {
    let Some(subscription) = &spec.event_subscription else { return };
    let path = Path::of(["spec", "eventSubscription"]);
    let (included, excluded) = (&subscription.included_event_types, &subscription.excluded_event_types);
    if included.is_some() && excluded.is_some() {
        let text = "setting included types and excluded types at the same time is not supported: leave one list out";
        verdict.refuse(path.clone(), "", text);
    }
    for (field, types) in [("excludedEventTypes", excluded), ("includedEventTypes", included)] {
        for (index, event_type) in types.iter().flatten().enumerate() {
            if !EVENT_TYPES.contains(&event_type.as_str()) {
                let text = format!("unknown event type {event_type:?}: known are {}", EVENT_TYPES.join(", "));
                verdict.refuse(path.key(field).index(index), "", text);
            }
        }
    }
}
