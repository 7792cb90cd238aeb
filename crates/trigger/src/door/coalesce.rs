//! Equal requests in flight share one reply.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use http::{Request, Response};

use super::HttpProfile;
use crate::SourceError;

type Reply = Result<Response<Bytes>, SourceError>;

/// What makes two requests equal. It holds secrets, and lives no longer than the request.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    profile: HttpProfile,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    timeout: Duration,
}

impl Key {
    /// The key of a request.
    pub fn of(profile: &HttpProfile, request: &Request<Bytes>, timeout: Duration) -> Self {
        let headers = request.headers().iter();
        let mut headers: Vec<_> =
            headers.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
        headers.sort();
        Self { profile: profile.clone(), url: request.uri().to_string(), headers, timeout }
    }
}

#[derive(Default)]
struct Entries {
    next: u64,
    by_key: BTreeMap<Key, (u64, WeakShared<BoxFuture<'static, Reply>>)>,
}

/// The requests in flight.
#[derive(Clone, Default)]
pub struct InFlight(Arc<Mutex<Entries>>);

impl InFlight {
    /// The outcome of `start`, or of an equal request that is in flight. When the caller that started is dropped, those
    /// that wait carry the request on; when all are dropped, so is the request.
    pub async fn join(&self, key: Key, start: impl FnOnce() -> BoxFuture<'static, Reply>) -> Reply {
        let request = self.request(key, start);
        request.await
    }

    fn request(
        &self,
        key: Key,
        start: impl FnOnce() -> BoxFuture<'static, Reply>,
    ) -> Shared<BoxFuture<'static, Reply>> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = entries.by_key.get(&key).and_then(|(_, request)| request.upgrade()) {
            return running;
        }
        let number = entries.next;
        entries.next += 1;
        let done = Done { table: self.clone(), key: key.clone(), number };
        let request = start();
        let request = async move {
            let _done = done;
            request.await
        };
        let request = request.boxed().shared();
        if let Some(weak) = request.downgrade() {
            entries.by_key.insert(key, (number, weak));
        }
        request
    }
}

/// Removes a request from the table when it is over or was given up.
struct Done {
    table: InFlight,
    key: Key,
    number: u64,
}

impl Drop for Done {
    fn drop(&mut self) {
        let mut entries = self.table.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.by_key.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            entries.by_key.remove(&self.key);
        }
    }
}
