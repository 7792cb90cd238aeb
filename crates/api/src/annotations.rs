//! Annotations by which a user steers scaling, and those that the operator writes.

pub use tidemark_engine::controls::{
    BadAnnotation, FORCE_ACTIVATION, PAUSED, PAUSED_REPLICAS, PAUSED_SCALE_IN, PAUSED_SCALE_OUT, read as controls,
};
pub use tidemark_engine::scaled_job::{JOB_EXCLUDED_LABELS, JOB_GENERATION};

/// Comma-separated label keys that are not copied to the HPA; blanks are significant.
pub const HPA_EXCLUDED_LABELS: &str = "scaledobject.keda.sh/hpa-excluded-labels";
/// `"true"`: the webhook lets the ScaledObject take over an HPA that exists already.
pub const TRANSFER_HPA_OWNERSHIP: &str = "scaledobject.keda.sh/transfer-hpa-ownership";
/// On an HPA: `"false"` lets the webhook ignore that the HPA belongs to another ScaledObject.
pub const HPA_OWNERSHIP: &str = "validations.keda.sh/hpa-ownership";
