use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

/// Fields that this version does not know, such as those of a newer KEDA: kept as they are and never looked at, so that
/// an object that is read and written again loses nothing. Eight bytes where there are none, as in nearly all objects.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "BTreeMap<String, Value>")]
#[expect(clippy::box_collection, reason = "a map takes three words where there are none")]
pub struct UnknownFields(Option<Box<BTreeMap<String, Value>>>);

impl UnknownFields {
    /// Names and values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter().flat_map(|fields| fields.iter())
    }
}

impl From<BTreeMap<String, Value>> for UnknownFields {
    fn from(fields: BTreeMap<String, Value>) -> Self {
        Self((!fields.is_empty()).then(|| Box::new(fields)))
    }
}

impl Serialize for UnknownFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// Names only: nobody can tell whether a value is a secret.
impl fmt::Debug for UnknownFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_never_printed() {
        let fields = UnknownFields::from(BTreeMap::from([("token".to_owned(), Value::from("hunter2"))]));
        assert_eq!(format!("{fields:?}"), r#"{"token"}"#);
    }

    #[test]
    fn an_object_without_any_costs_a_word() {
        assert_eq!(size_of::<UnknownFields>(), size_of::<usize>());
        assert_eq!(UnknownFields::from(BTreeMap::new()), UnknownFields::default());
    }
}
