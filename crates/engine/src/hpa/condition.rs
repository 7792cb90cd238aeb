//! What the HPA's own condition means for the object that it belongs to.

use crate::verdict::Status;

/// The HPAActive condition of a ScaledObject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub status: Status,
    /// One word: `HPAActive`, `ScalingDisabled`, or the HPA's own.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// Turns the HPA's `ScalingActive` condition into HPAActive. An HPA that rests at zero replicas is healthy.
///
/// Without such a condition nothing is known, and the object's condition stays as it is.
pub fn hpa_health(status: Status, reason: &str, message: &str) -> Health {
    let (status, reason, message) = match (status, reason) {
        (Status::True, _) => (Status::True, "HPAActive", "the HPA reads its metrics"),
        (_, "ScalingDisabled") => (Status::True, reason, message),
        (_, "") => (Status::False, "HPAMetricsUnavailable", message),
        _ => (Status::False, reason, message),
    };
    Health { status, reason: reason.to_owned(), message: message.to_owned() }
}
