//! What is known of a trigger's metric.

use std::sync::Arc;

use crate::quantity;

/// The latest outcome of one trigger's metric.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerState {
    /// The external metric's name.
    pub metric: Arc<str>,
    pub outcome: Outcome,
}

/// What is known of a trigger's metric. A fetch gives one of the first three, a source that pushes also the fourth;
/// [`fallback::apply`](crate::fallback::apply) and [`composite`](crate::composite) make the others of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Not read yet.
    Unknown,
    /// Read; `active` is what the trigger type said of the value.
    Read { value: f64, active: bool },
    /// The last read failed. The text carries no secret.
    Failed { error: Arc<str> },
    /// The source told, unasked, that it is active, and no value has been read since.
    Announced,
    /// It could not be read more often than tolerated, and the fallback stands in. Never a reason to deactivate.
    Fallback {
        /// The replicas that the fallback asks for.
        replicas: i32,
        /// The value that asks the HPA for them, in thousandths; `None` when it cannot be computed, because the target
        /// is one for all replicas and no pod is ready to divide it by.
        milli: Option<i64>,
        active: bool,
        /// Failures in a row; 0 when it was not a read that failed but a formula that gave nil.
        failures: u32,
        error: Arc<str>,
    },
    /// It could not be read more often than tolerated, and the formula of the scaling modifiers is to see nil. Without
    /// a formula it is a failure like any other.
    Nil { failures: u32, error: Arc<str> },
    /// A composite value, computed without a trigger that fails. Never a reason to deactivate.
    Partial { value: f64, active: bool, error: Arc<str> },
}

impl Outcome {
    /// Whether it makes its object active.
    pub fn is_active(&self) -> bool {
        match self {
            Self::Read { active, .. } | Self::Fallback { active, .. } | Self::Partial { active, .. } => *active,
            Self::Announced => true,
            Self::Unknown | Self::Failed { .. } | Self::Nil { .. } => false,
        }
    }

    /// What the external metrics API answers, in thousandths.
    ///
    /// # Errors
    /// There is nothing to answer; the text says why.
    pub fn served(&self) -> Result<i64, Arc<str>> {
        match self {
            Self::Unknown | Self::Announced => Err("not read yet".into()),
            Self::Read { value, .. } | Self::Partial { value, .. } => Ok(quantity::from_f64(*value)),
            Self::Fallback { milli: Some(milli), .. } => Ok(*milli),
            Self::Fallback { milli: None, error, .. } => {
                Err(format!("{error}; and no pod is ready by which the fallback's value could be divided").into())
            }
            Self::Failed { error } | Self::Nil { error, .. } => Err(Arc::clone(error)),
        }
    }

    /// The error of a metric without a value.
    pub(crate) fn failure(&self) -> Option<&Arc<str>> {
        match self {
            Self::Failed { error } | Self::Nil { error, .. } => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fallback(milli: Option<i64>) -> Outcome {
        Outcome::Fallback { replicas: 6, milli, active: true, failures: 4, error: "the broker is down".into() }
    }

    #[test]
    fn a_value_is_served_and_the_lack_of_one_is_told() {
        assert_eq!(Outcome::Read { value: 2.5, active: false }.served(), Ok(2500));
        assert_eq!(Outcome::Partial { value: 1.0, active: false, error: "down".into() }.served(), Ok(1000));
        assert_eq!(fallback(Some(30_000)).served(), Ok(30_000));
        assert!(fallback(None).served().unwrap_err().contains("no pod is ready"));
        assert_eq!(Outcome::Failed { error: "down".into() }.served(), Err("down".into()));
        assert_eq!(Outcome::Nil { failures: 4, error: "down".into() }.served(), Err("down".into()));
        for outcome in [Outcome::Unknown, Outcome::Announced] {
            assert_eq!(outcome.served(), Err("not read yet".into()));
        }
    }

    #[test]
    fn what_has_no_value_is_not_active_but_a_fallback_is() {
        assert!(fallback(None).is_active() && Outcome::Announced.is_active());
        for outcome in [Outcome::Unknown, Outcome::Failed { error: "".into() }] {
            assert!(!outcome.is_active());
        }
    }
}
