//! The memory of the API server: objects by resource, namespace and name, one revision counter, and a bounded history.
//!
//! A pure state machine: it knows nothing of HTTP, validation or time. Watchers do not subscribe to a copy of the
//! events; each keeps a cursor and reads the history from there, woken by a signal. One that falls behind the history
//! learns that it has expired, so that a slow watcher costs no memory.

mod object;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Notify;

pub(crate) use object::Object;

/// Name of a collection: the plural, and the group after a dot if there is one (`pods`, `deployments.apps`).
pub(crate) type Collection = Arc<str>;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

/// One step of a collection's history.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub kind: ChangeKind,
    /// The object after the change; for a deletion its last state, stamped with the deletion's revision.
    pub object: Arc<Object>,
    /// The object before the change.
    pub previous: Option<Arc<Object>>,
}

/// The history no longer reaches back to the asked revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    /// Changes up to and including this revision are forgotten.
    pub floor: u64,
}

/// Namespace and name; the namespace is empty for cluster-scoped objects.
type Key = (Arc<str>, Arc<str>);

/// The objects of one resource and their latest changes.
struct Shelf {
    objects: BTreeMap<Key, Arc<Object>>,
    history: VecDeque<Change>,
    /// The revision of the newest forgotten change.
    floor: u64,
    /// Wakes the watchers in the order in which they wait: a `watch` channel would draw lots, and two runs differ.
    signal: Arc<Notify>,
}

impl Shelf {
    fn new() -> Self {
        Self { objects: BTreeMap::new(), history: VecDeque::new(), floor: 0, signal: Arc::default() }
    }
}

/// All objects of the cluster.
pub(crate) struct Store {
    shelves: BTreeMap<Collection, Shelf>,
    revision: u64,
    identities: u64,
    history: usize,
}

impl Store {
    /// An empty store that remembers the last `history` changes of each resource, or as many as it has objects.
    pub(crate) fn new(history: usize) -> Self {
        Self { shelves: BTreeMap::new(), revision: 0, identities: 0, history: history.max(1) }
    }

    /// The revision of the latest change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// A number that was not given before, for UIDs and generated names.
    pub(crate) fn next_identity(&mut self) -> u64 {
        self.identities += 1;
        self.identities
    }

    /// The object of that name.
    pub(crate) fn get(&self, collection: &str, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        let shelf = self.shelves.get(collection)?;
        shelf.objects.get(&(Arc::from(namespace), Arc::from(name)))
    }

    /// The objects of a resource, of one namespace or of all, ordered by namespace and name.
    pub(crate) fn list<'a>(
        &'a self,
        collection: &str,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        let start: Key = (Arc::from(namespace.unwrap_or_default()), Arc::from(""));
        self.shelves
            .get(collection)
            .into_iter()
            .flat_map(move |shelf| shelf.objects.range(start.clone()..))
            .map(|(_, object)| object)
            .take_while(move |object| namespace.is_none_or(|wanted| &*object.namespace == wanted))
    }

    /// Names of all resources that have or had objects.
    pub(crate) fn collections(&self) -> impl Iterator<Item = &Collection> {
        self.shelves.keys()
    }

    /// Stores an object under the namespace and name of its metadata and stamps it with a new revision.
    pub(crate) fn put(&mut self, collection: &str, value: Value) -> Arc<Object> {
        self.revision += 1;
        let object = Arc::new(Object::new(value, self.revision));
        let shelf = self.shelf(collection);
        let previous = shelf.objects.insert((object.namespace.clone(), object.name.clone()), object.clone());
        let kind = if previous.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        self.record(collection, Change { kind, object: object.clone(), previous });
        object
    }

    /// Removes an object; what comes back carries the deletion's revision.
    pub(crate) fn remove(&mut self, collection: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let key = (Arc::from(namespace), Arc::from(name));
        let previous = self.shelves.get_mut(collection)?.objects.remove(&key)?;
        self.revision += 1;
        let object = Arc::new(previous.restamped(self.revision));
        self.record(collection, Change { kind: ChangeKind::Deleted, object: object.clone(), previous: Some(previous) });
        Some(object)
    }

    /// The changes of a resource after a revision, oldest first.
    pub(crate) fn changes_after(&self, collection: &str, revision: u64) -> Result<Vec<Change>, Expired> {
        let Some(shelf) = self.shelves.get(collection) else { return Ok(Vec::new()) };
        if revision < shelf.floor {
            return Err(Expired { floor: shelf.floor });
        }
        let first = shelf.history.partition_point(|change| change.object.revision <= revision);
        Ok(shelf.history.range(first..).cloned().collect())
    }

    /// Wakes at each change of a resource.
    pub(crate) fn signal(&mut self, collection: &str) -> Arc<Notify> {
        self.shelf(collection).signal.clone()
    }

    fn shelf(&mut self, collection: &str) -> &mut Shelf {
        self.shelves.entry(Arc::from(collection)).or_insert_with(Shelf::new)
    }

    fn record(&mut self, collection: &str, change: Change) {
        let limit = self.history;
        let shelf = self.shelf(collection);
        shelf.history.push_back(change);
        // To read so many changes costs a watcher that fell behind about what a new list would.
        let limit = limit.max(shelf.objects.len());
        while shelf.history.len() > limit {
            if let Some(forgotten) = shelf.history.pop_front() {
                shelf.floor = forgotten.object.revision;
            }
        }
        shelf.signal.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(namespace: &str, name: &str) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name}})
    }

    #[test]
    fn every_change_gets_the_next_revision_and_stamps_it() {
        let mut store = Store::new(10);
        let first = store.put("pods", pod("a", "x"));
        let second = store.put("pods", pod("a", "x"));
        let gone = store.remove("pods", "a", "x").unwrap();
        let revisions: Vec<_> =
            [first, second, gone].iter().map(|object| object.value["metadata"]["resourceVersion"].clone()).collect();
        assert_eq!(revisions, ["1", "2", "3"]);
        assert!(store.get("pods", "a", "x").is_none());
    }

    #[test]
    fn a_list_of_one_namespace_does_not_run_into_the_next() {
        let mut store = Store::new(10);
        for (namespace, name) in [("b", "y"), ("a", "z"), ("a", "x"), ("c", "w")] {
            store.put("pods", pod(namespace, name));
        }
        let names = |namespace| store.list("pods", namespace).map(|object| object.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(Some("a")), ["x", "z"]);
        assert_eq!(names(Some("b")), ["y"]);
        assert_eq!(names(None), ["x", "z", "y", "w"]);
    }

    #[test]
    fn a_cursor_older_than_the_history_has_expired() {
        let mut store = Store::new(2);
        for name in ["a", "b", "a", "b"] {
            store.put("pods", pod("n", name));
        }
        assert_eq!(store.changes_after("pods", 1).unwrap_err(), Expired { floor: 2 });
        let changes = store.changes_after("pods", 2).unwrap();
        assert_eq!(changes.iter().map(|change| &*change.object.name).collect::<Vec<_>>(), ["a", "b"]);
        assert!(store.changes_after("secrets", 0).unwrap().is_empty());
    }

    #[test]
    fn a_burst_of_new_objects_leaves_no_watcher_behind() {
        let mut store = Store::new(2);
        for number in 0..100 {
            store.put("pods", pod("n", &number.to_string()));
        }
        assert_eq!(store.changes_after("pods", 0).unwrap().len(), 100);
        for number in 0..100 {
            store.remove("pods", "n", &number.to_string());
        }
        assert!(store.changes_after("pods", 198).unwrap().len() == 2 && store.changes_after("pods", 197).is_err());
    }
}
