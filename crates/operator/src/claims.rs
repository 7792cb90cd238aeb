//! Who may scale what: a target, and an HPA's name, belong to the object that claimed them first. Those that come later
//! are told so, and take over when it goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemark_api::{DEFAULT_HPA_PREFIX, ScaledObject};

use crate::observation::ObjectKey;
use crate::status;

/// Another object that has what this one wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rival {
    pub(crate) over: Contested,
    pub(crate) other: Arc<ObjectKey>,
}

/// What two objects want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contested {
    Target,
    Hpa,
}

/// When an object has claimed something, compared with others.
///
/// Objects found at the start have claimed theirs before all that come later; those that were ready before those that
/// were not, for that is how it was when the last operator stopped; and the older before the younger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(i64);

impl Rank {
    /// Of an object that has come or changed while this operator runs: behind all that are there.
    pub(crate) const LAST: Self = Self(i64::MAX);
    /// More seconds than an object's age has.
    const NOT_READY: i64 = 1 << 48;

    /// Of an object that was there before this operator.
    pub(crate) fn at_start(object: &ScaledObject) -> Self {
        let created = object.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        let conditions = object.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let is_ready = conditions.into_iter().any(|c| c.type_ == status::READY && c.status == "True");
        Self(if is_ready { created } else { created + Self::NOT_READY })
    }
}

/// Objects in the order of their claims.
#[derive(Debug, Default)]
pub(crate) struct Claimants(Vec<(Rank, Arc<ObjectKey>)>);

impl Claimants {
    pub(crate) fn add(&mut self, rank: Rank, object: &Arc<ObjectKey>) {
        let place = self.0.partition_point(|(other, _)| *other <= rank);
        self.0.reserve_exact(1);
        self.0.insert(place, (rank, object.clone()));
    }

    pub(crate) fn remove(&mut self, object: &ObjectKey) {
        self.0.retain(|(_, other)| **other != *object);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<ObjectKey>> {
        self.0.iter().map(|(_, object)| object)
    }

    /// When the object has claimed it.
    pub(crate) fn rank_of(&self, object: &ObjectKey) -> Option<Rank> {
        self.0.iter().find(|(_, other)| **other == *object).map(|(rank, _)| *rank)
    }

    /// Who has come before the object.
    pub(crate) fn before(&self, object: &ObjectKey) -> Option<&Arc<ObjectKey>> {
        self.iter().next().filter(|first| ***first != *object)
    }
}

/// Claims on HPAs that have a name of the user's choice, and those of others on the same name.
#[derive(Debug, Default)]
pub(crate) struct HpaClaims(BTreeMap<(String, String), Claimants>);

impl HpaClaims {
    /// Enters a claim. `by_default` is the object that has such an HPA without having named it, if there is one, and
    /// since when.
    pub(crate) fn add(
        &mut self,
        name: &str,
        rank: Rank,
        object: &Arc<ObjectKey>,
        by_default: Option<(Rank, Arc<ObjectKey>)>,
    ) {
        let claimants = self.0.entry((object.namespace.clone(), name.to_owned())).or_default();
        if let Some((rank, owner)) = by_default.filter(|_| claimants.is_empty()) {
            claimants.add(rank, &owner);
        }
        claimants.add(rank, object);
    }

    /// Enters the claim of an object that has not named its HPA, where another one has claimed that name.
    pub(crate) fn add_default(&mut self, rank: Rank, object: &Arc<ObjectKey>) {
        if let Some(claimants) = self.0.get_mut(&default_of(object)) {
            claimants.add(rank, object);
        }
    }

    pub(crate) fn remove(&mut self, name: Option<&str>, object: &ObjectKey) {
        let key = key_of(name, object);
        if let Some(claimants) = self.0.get_mut(&key) {
            claimants.remove(object);
            if claimants.is_empty() {
                self.0.remove(&key);
            }
        }
    }

    /// All who claim the HPA of an object that has named it so, or has not named it.
    pub(crate) fn of(&self, name: Option<&str>, object: &ObjectKey) -> Option<&Claimants> {
        // Most objects have no HPA of a contested name.
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&key_of(name, object))
    }
}

fn key_of(name: Option<&str>, object: &ObjectKey) -> (String, String) {
    match name {
        Some(name) => (object.namespace.clone(), name.to_owned()),
        None => default_of(object),
    }
}

fn default_of(object: &ObjectKey) -> (String, String) {
    (object.namespace.clone(), format!("{DEFAULT_HPA_PREFIX}{}", object.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Arc<ObjectKey> {
        Arc::new(ObjectKey::new("shop", name))
    }

    #[test]
    fn whoever_came_first_has_it_and_the_next_one_follows() {
        let mut claimants = Claimants::default();
        let (a, b, c) = (key("a"), key("b"), key("c"));
        claimants.add(Rank::LAST, &b);
        claimants.add(Rank::LAST, &a);
        claimants.add(Rank(5), &c);
        assert_eq!(claimants.before(&a), Some(&c), "what was there at the start goes before");
        claimants.remove(&c);
        assert_eq!(claimants.before(&a), Some(&b));
        assert_eq!(claimants.before(&b), None);
        claimants.remove(&b);
        assert_eq!(claimants.before(&a), None);
    }

    #[test]
    fn a_chosen_name_meets_the_default_one_of_another_object() {
        let (owner, other) = (key("workers"), key("other"));
        let mut claims = HpaClaims::default();
        claims.add("keda-hpa-workers", Rank::LAST, &other, Some((Rank::LAST, owner.clone())));
        let name = Some("keda-hpa-workers");
        assert_eq!(claims.of(name, &other).unwrap().before(&other), Some(&owner));
        assert_eq!(claims.of(None, &owner).unwrap().before(&owner), None);
        claims.remove(None, &owner);
        assert_eq!(claims.of(name, &other).unwrap().before(&other), None);
        claims.add_default(Rank::LAST, &owner);
        assert_eq!(claims.of(None, &owner).unwrap().before(&owner), Some(&other), "it came back later");
    }

    #[test]
    fn of_those_found_at_the_start_the_order_in_which_they_are_listed_decides_nothing() {
        let (owner, other) = (key("a"), key("b"));
        let (early, late) = (Rank(5), Rank(5 + Rank::NOT_READY));
        let mut claims = HpaClaims::default();
        claims.add("keda-hpa-a", early, &other, Some((late, owner.clone())));
        assert_eq!(claims.of(None, &owner).unwrap().before(&owner), Some(&other), "the other one was ready");
        let mut claims = HpaClaims::default();
        claims.add("keda-hpa-a", early, &other, None);
        claims.add_default(late, &owner);
        assert_eq!(claims.of(None, &owner).unwrap().before(&owner), Some(&other));
    }
}
