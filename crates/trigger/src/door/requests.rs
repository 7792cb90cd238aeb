//! What went through the door over HTTP, for those who count it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::Instant;
use url::Url;

/// The most that is noted; more requests than that are not one read.
const MOST: usize = 256;

/// One HTTP request; a redirect makes another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    pub method: Method,
    /// Scheme, host and port.
    pub origin: Arc<str>,
    /// The status of the reply; none where no reply came.
    pub status: Option<StatusCode>,
    /// Until the head of the reply, or until it was given up.
    pub took: Duration,
}

/// The requests of one read. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct HttpRequests(Arc<Mutex<Notes>>);

#[derive(Debug, Default)]
struct Notes {
    hops: Vec<Hop>,
    empties: Vec<bool>,
}

impl HttpRequests {
    /// Takes out the requests that have been noted so far.
    pub fn take(&self) -> Vec<Hop> {
        std::mem::take(&mut self.notes().hops)
    }

    /// Takes out the replies that were noted for having nothing in them; each says whether that is taken for 0.
    pub fn take_empties(&self) -> Vec<bool> {
        std::mem::take(&mut self.notes().empties)
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, hop: Hop) {
        let mut notes = self.notes();
        if notes.hops.len() < MOST {
            notes.hops.push(hop);
        }
    }

    pub(super) fn add_empty(&self, ignored: bool) {
        let mut notes = self.notes();
        if notes.empties.len() < MOST {
            notes.empties.push(ignored);
        }
    }
}

/// A request under way. It is noted when it is answered, or given up: that includes a deadline.
pub(super) struct Noted<'a> {
    requests: Option<&'a HttpRequests>,
    method: &'a Method,
    url: &'a Url,
    began: Instant,
}

impl<'a> Noted<'a> {
    pub(super) fn begin(requests: Option<&'a HttpRequests>, method: &'a Method, url: &'a Url) -> Self {
        Self { requests, method, url, began: Instant::now() }
    }

    pub(super) fn answered(&mut self, status: StatusCode) {
        self.end(Some(status));
    }

    fn end(&mut self, status: Option<StatusCode>) {
        if let Some(requests) = self.requests.take() {
            let origin = self.url.origin().ascii_serialization().into();
            requests.add(Hop { method: self.method.clone(), origin, status, took: self.began.elapsed() });
        }
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.end(None);
    }
}
