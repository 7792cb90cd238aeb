//! What a controller knows of the objects of one kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};

use super::Key;

/// The objects of one kind as last seen by the watch or by an own write, whichever is newer.
///
/// Own writes are entered at once: a controller that waited for the watch to tell of them would do its work twice.
pub(crate) struct Cache<K> {
    objects: BTreeMap<Key, Arc<K>>,
    /// Keys of the objects by the uid of each of their owners.
    owned: BTreeMap<String, BTreeSet<Key>>,
    /// Uids of objects this controller saw the end of before the watch did.
    gone: BTreeSet<String>,
    /// The objects so far of a listing under way.
    listing: Option<BTreeSet<Key>>,
    synced: bool,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), owned: BTreeMap::new(), gone: BTreeSet::new(), listing: None, synced: false }
    }
}

impl<K: Resource> Cache<K> {
    /// Whether the first listing is complete.
    pub(crate) fn synced(&self) -> bool {
        self.synced
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Enters a watch event and returns the objects it touched, in order.
    pub(crate) fn apply(&mut self, event: Event<K>) -> Vec<Arc<K>> {
        match event {
            Event::Apply(object) => self.enter(object),
            Event::Delete(object) => {
                let object = Arc::new(object);
                self.drop_object(&object);
                self.gone.remove(uid(&*object));
                vec![object]
            }
            Event::Init => {
                self.listing = Some(BTreeSet::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listing.get_or_insert_default().insert(Key::of(&object));
                self.enter(object)
            }
            Event::InitDone => {
                self.synced = true;
                self.gone.clear();
                let listing = self.listing.take().unwrap_or_default();
                let lost: Vec<_> =
                    self.objects.iter().filter(|(key, _)| !listing.contains(key)).map(|(_, o)| o.clone()).collect();
                for object in &lost {
                    self.drop_object(object);
                }
                lost
            }
        }
    }

    /// Enters what the API server answered to an own write.
    pub(crate) fn written(&mut self, object: K) {
        if let Some(listing) = &mut self.listing {
            listing.insert(Key::of(&object));
        }
        self.enter(object);
    }

    /// Forgets an object that an own request has removed.
    pub(crate) fn removed(&mut self, object: &K) {
        self.gone.insert(uid(object).to_owned());
        self.drop_object(object);
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<K>> {
        self.objects.get(key)
    }

    /// The objects that name the uid among their owners, by namespace and name.
    pub(crate) fn owned_by(&self, uid: &str) -> impl Iterator<Item = &Arc<K>> {
        self.owned.get(uid).into_iter().flatten().filter_map(|key| self.objects.get(key))
    }

    /// Gives the objects this touched: one of the same name, whose end a gap in the watch has hidden, goes.
    fn enter(&mut self, object: K) -> Vec<Arc<K>> {
        let key = Key::of(&object);
        let older = self.objects.get(&key).is_some_and(|known| version(&**known) > version(&object));
        if older || self.gone.contains(uid(&object)) {
            return Vec::new();
        }
        let mut touched = Vec::new();
        if let Some(known) = self.objects.remove(&key) {
            self.unlink(&key, &known);
            if uid(&*known) != uid(&object) {
                touched.push(known);
            }
        }
        let object = Arc::new(object);
        for owner in object.owner_references() {
            self.owned.entry(owner.uid.clone()).or_default().insert(key.clone());
        }
        self.objects.insert(key, object.clone());
        touched.push(object);
        touched
    }

    fn drop_object(&mut self, object: &K) {
        let key = Key::of(object);
        if self.objects.get(&key).is_some_and(|known| uid(&**known) == uid(object))
            && let Some(known) = self.objects.remove(&key)
        {
            self.unlink(&key, &known);
        }
    }

    fn unlink(&mut self, key: &Key, object: &K) {
        for owner in object.owner_references() {
            if let Some(keys) = self.owned.get_mut(&owner.uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.owned.remove(&owner.uid);
                }
            }
        }
    }
}

pub(crate) fn uid<K: Resource>(object: &K) -> &str {
    object.meta().uid.as_deref().unwrap_or_default()
}

/// Resource versions of one object are decimal numbers that grow.
fn version<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

    use super::*;

    fn pod(name: &str, uid: &str, version: u64, owner: &str) -> Pod {
        let owner = OwnerReference { uid: owner.to_owned(), ..Default::default() };
        Pod {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some("shop".to_owned()),
                uid: Some(uid.to_owned()),
                resource_version: Some(version.to_string()),
                owner_references: Some(vec![owner]),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn names(cache: &Cache<Pod>, owner: &str) -> Vec<String> {
        cache.owned_by(owner).map(|pod| pod.name_any()).collect()
    }

    #[test]
    fn an_own_write_is_not_undone_by_an_older_watch_event() {
        let mut cache = Cache::default();
        cache.written(pod("a", "1", 9, "x"));
        assert!(cache.apply(Event::Apply(pod("a", "1", 8, "y"))).is_empty());
        assert_eq!(names(&cache, "x"), ["a"]);
        assert!(names(&cache, "y").is_empty());
    }

    #[test]
    fn a_removed_object_does_not_come_back_by_a_late_watch_event() {
        let mut cache = Cache::default();
        let gone = pod("a", "1", 8, "x");
        cache.written(gone.clone());
        cache.removed(&gone);
        cache.apply(Event::Apply(pod("a", "1", 9, "x")));
        assert!(names(&cache, "x").is_empty());
        cache.apply(Event::Delete(pod("a", "1", 10, "x")));
        cache.apply(Event::Apply(pod("a", "2", 11, "x")));
        assert_eq!(names(&cache, "x"), ["a"]);
    }

    #[test]
    fn a_new_listing_drops_what_it_does_not_name() {
        let mut cache = Cache::default();
        cache.apply(Event::Apply(pod("a", "1", 1, "x")));
        cache.apply(Event::Init);
        cache.apply(Event::InitApply(pod("b", "2", 2, "x")));
        let lost = cache.apply(Event::InitDone);
        assert_eq!(lost.len(), 1);
        assert_eq!(names(&cache, "x"), ["b"]);
    }

    #[test]
    fn an_own_write_during_a_new_listing_is_not_dropped() {
        let mut cache = Cache::default();
        cache.apply(Event::Init);
        cache.written(pod("a", "1", 9, "x"));
        cache.apply(Event::InitApply(pod("b", "2", 2, "x")));
        assert!(cache.apply(Event::InitDone).is_empty());
        assert_eq!(names(&cache, "x"), ["a", "b"]);
    }

    #[test]
    fn an_object_whose_name_another_one_has_taken_is_told_to_be_gone() {
        let mut cache = Cache::default();
        cache.apply(Event::Apply(pod("a", "1", 1, "x")));
        let touched = cache.apply(Event::InitApply(pod("a", "2", 5, "y")));
        assert_eq!(touched.iter().map(|pod| uid(&**pod)).collect::<Vec<_>>(), ["1", "2"]);
        assert!(names(&cache, "x").is_empty());
    }
}
