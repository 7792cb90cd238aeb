//! What went through the door over HTTP, for those who count it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

/// The most that is noted; more requests than that are not one read.
const MOST: usize = 256;

/// One HTTP request; a redirect makes another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The status of the reply; none where no reply came.
    pub status: Option<StatusCode>,
    /// Until the head of the reply, or until it was given up.
    pub took: Duration,
}

/// The requests of one read. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct HttpRequests(Arc<Mutex<Vec<Hop>>>);

impl HttpRequests {
    /// Takes out what has been noted so far.
    pub fn take(&self) -> Vec<Hop> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, hop: Hop) {
        let mut hops = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if hops.len() < MOST {
            hops.push(hop);
        }
    }
}

/// A request under way. It is noted when it is answered, or given up: that includes a deadline.
pub(super) struct Noted<'a> {
    requests: Option<&'a HttpRequests>,
    began: Instant,
}

impl<'a> Noted<'a> {
    pub(super) fn begin(requests: Option<&'a HttpRequests>) -> Self {
        Self { requests, began: Instant::now() }
    }

    pub(super) fn answered(&mut self, status: StatusCode) {
        self.end(Some(status));
    }

    fn end(&mut self, status: Option<StatusCode>) {
        if let Some(requests) = self.requests.take() {
            requests.add(Hop { status, took: self.began.elapsed() });
        }
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.end(None);
    }
}
