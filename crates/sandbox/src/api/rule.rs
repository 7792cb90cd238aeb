//! Validation rules in CEL. There is no CEL here: the rules of our own CRDs are known by their text, every other rule is
//! reported as not evaluated.

use serde_json::Value;

/// A rule of `x-kubernetes-validations`.
#[derive(Debug)]
pub(crate) struct Rule {
    pub text: String,
    pub message: String,
    check: Option<Check>,
}

/// Whether a value obeys.
type Check = fn(&Value) -> bool;

/// `maxReplicaCount` when unset.
const DEFAULT_MAX_REPLICAS: i64 = 100;

/// Rules and what they mean.
const KNOWN: &[(&str, Check)] = &[(
    "!has(self.minReplicaCount) || self.minReplicaCount <= (has(self.maxReplicaCount) ? self.maxReplicaCount : 100)",
    |spec| {
        let max = spec["maxReplicaCount"].as_i64().unwrap_or(DEFAULT_MAX_REPLICAS);
        spec["minReplicaCount"].as_i64().is_none_or(|min| min <= max)
    },
)];

impl Rule {
    /// The rules of a schema level.
    pub(crate) fn read_all(value: &Value) -> Vec<Self> {
        value.as_array().into_iter().flatten().map(Self::read).collect()
    }

    fn read(value: &Value) -> Self {
        let text = value["rule"].as_str().unwrap_or_default().to_owned();
        let message = value["message"].as_str().map_or_else(|| format!("failed rule: {text}"), str::to_owned);
        let check = KNOWN.iter().find(|(known, _)| *known == text).map(|(_, check)| *check);
        Self { text, message, check }
    }

    /// Whether the rule can be evaluated here.
    pub(crate) fn is_known(&self) -> bool {
        self.check.is_some()
    }

    /// Whether the value obeys; an unknown rule refuses nothing.
    pub(crate) fn holds(&self, value: &Value) -> bool {
        self.check.is_none_or(|check| check(value))
    }
}
