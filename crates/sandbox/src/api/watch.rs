//! Watches: a cursor over the history of one resource.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use http_body::Frame;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::failure::Failure;
use super::negotiate::View;
use super::query::Query;
use super::read::{matching, rendered};
use super::resource::Resource;
use super::world::{Call, Shared, World};
use crate::store::{Change, ChangeKind, Object};

/// A quiet watch hears of the present revision this often.
const BOOKMARK: Duration = Duration::from_secs(60);
/// How long a watch lasts if the client does not say.
const LONGEST: Duration = Duration::from_secs(1800);
/// Tells the client of a streaming list that it has seen everything.
const END_OF_LIST: &str = "k8s.io/initial-events-end";

/// One running watch.
struct Watch {
    shared: Arc<Shared>,
    resource: Arc<Resource>,
    namespace: String,
    query: Query,
    view: View,
    /// Changes up to this revision have been told.
    cursor: u64,
    signal: Arc<Notify>,
    ready: VecDeque<Bytes>,
    end: Instant,
    next_bookmark: Instant,
    ended: bool,
}

/// Starts a watch. The stream holds no lock and no copy of the events between two polls.
pub(super) fn start(
    shared: Arc<Shared>,
    world: &mut World,
    resource: Arc<Resource>,
    namespace: &str,
    query: Query,
    view: View,
) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + use<> {
    let now = Instant::now();
    let mut watch = Watch {
        signal: world.store.signal(&resource.collection),
        cursor: query.resource_version.unwrap_or(0),
        end: query.timeout.and_then(|timeout| now.checked_add(timeout)).unwrap_or(now + LONGEST),
        next_bookmark: now + BOOKMARK,
        ready: VecDeque::new(),
        ended: false,
        namespace: namespace.to_owned(),
        shared,
        resource,
        query,
        view,
    };
    watch.begin(world);
    futures::stream::unfold(watch, |mut watch| async move {
        let bytes = watch.next().await?;
        Some((Ok(Frame::data(bytes)), watch))
    })
}

impl Watch {
    /// Without a version to go on from, the watch begins with the present state as if it had just been created.
    fn begin(&mut self, world: &World) {
        let latest = world.store.revision();
        if self.cursor > latest {
            return self.fail(&Failure::too_large_version(self.cursor, latest));
        }
        if self.cursor != 0 && !self.query.initial_events {
            return;
        }
        let call = self.call();
        let events: Vec<_> = matching(world, &call)
            .into_iter()
            .map(|object| event("ADDED", &rendered(&call, object, self.view)))
            .collect();
        self.ready.extend(events);
        self.cursor = latest;
        if self.query.initial_events && self.query.bookmarks {
            self.bookmark(true);
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.gathered() {
                return Some(bytes);
            }
            if self.ended {
                return None;
            }
            let signal = self.signal.clone();
            let mut changed = std::pin::pin!(signal.notified());
            // Before looking, so that no change in between is missed.
            changed.as_mut().enable();
            self.catch_up();
            // Also with changes at hand: a watch of a busy resource ends in time, too.
            self.tick();
            if self.ended || !self.ready.is_empty() {
                continue;
            }
            let wake = self.next_bookmark.min(self.end);
            tokio::select! {
                biased;
                () = changed => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Everything that is ready, in one piece.
    fn gathered(&mut self) -> Option<Bytes> {
        if self.ready.len() < 2 {
            return self.ready.pop_front();
        }
        let mut bytes = BytesMut::with_capacity(self.ready.iter().map(Bytes::len).sum());
        self.ready.drain(..).for_each(|event| bytes.put(event));
        Some(bytes.freeze())
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.ended || now >= self.end {
            self.ended = true;
        } else if now >= self.next_bookmark {
            self.next_bookmark = now + BOOKMARK;
            if self.query.bookmarks {
                self.bookmark(false);
            }
        }
    }

    fn catch_up(&mut self) {
        let shared = self.shared.clone();
        let world = shared.world();
        match world.store.changes_after(&self.resource.collection, self.cursor) {
            Err(expired) => {
                drop(world);
                self.fail(&Failure::expired(self.cursor, expired.floor));
            }
            Ok(changes) => {
                // Nothing of this resource lies between: bookmarks may name the latest revision of all.
                self.cursor = world.store.revision();
                drop(world);
                let events: Vec<_> = changes.iter().filter_map(|change| self.told(change)).collect();
                self.ready.extend(events);
            }
        }
    }

    /// The event for a change: what enters the selection is added, what leaves it is deleted.
    fn told(&self, change: &Change) -> Option<Bytes> {
        let before = change.previous.as_ref().is_some_and(|object| self.selects(object));
        let after = change.kind != ChangeKind::Deleted && self.selects(&change.object);
        let call = self.call();
        match (before, after) {
            (false, false) => None,
            (false, true) => Some(event("ADDED", &rendered(&call, &change.object, self.view))),
            (true, true) => Some(event("MODIFIED", &rendered(&call, &change.object, self.view))),
            (true, false) if change.kind == ChangeKind::Deleted => {
                Some(event("DELETED", &rendered(&call, &change.object, self.view)))
            }
            (true, false) => {
                let last = change.previous.as_ref()?.restamped(change.object.revision);
                Some(event("DELETED", &rendered(&call, &last, self.view)))
            }
        }
    }

    fn selects(&self, object: &Object) -> bool {
        let here = self.namespace.is_empty() || *object.namespace == *self.namespace;
        here && self.query.labels.matches(&object.value) && self.query.fields.matches(&object.value)
    }

    fn call(&self) -> Call<'_> {
        Call {
            resource: &self.resource,
            namespace: &self.namespace,
            query: &self.query,
            now: self.shared.clock.now(),
            writer: "",
            api_version: "",
        }
    }

    fn bookmark(&mut self, end_of_list: bool) {
        let mut metadata = json!({"resourceVersion": self.cursor.to_string(), "creationTimestamp": null});
        if end_of_list {
            metadata["annotations"] = json!({END_OF_LIST: "true"});
        }
        let object = match self.view {
            View::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            View::Table => json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": null,
                "rows": [],
            }),
            _ => json!({
                "kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata,
            }),
        };
        self.ready.push_back(event("BOOKMARK", object.to_string().as_bytes()));
    }

    fn fail(&mut self, failure: &Failure) {
        self.ready.push_back(event("ERROR", failure.status().to_string().as_bytes()));
        self.ended = true;
    }
}

fn event(kind: &str, object: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(object.len() + 32);
    line.put(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
    line.put(object);
    line.put(&b"}\n"[..]);
    line.freeze()
}
