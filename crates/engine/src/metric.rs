//! External metrics as the HorizontalPodAutoscaler sees them.

/// An external metric's target in thousandths, above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Per replica.
    AverageValue(i64),
    /// In all.
    Value(i64),
}

impl Target {
    /// The target in thousandths, whatever it is meant for.
    pub fn milli(self) -> i64 {
        match self {
            Self::AverageValue(milli) | Self::Value(milli) => milli,
        }
    }
}
