//! Spans and log records on their way out: a bounded queue that never makes anybody wait, and batches sent from it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attributes::attribute;
use super::settings::Batching;
use super::transport::{SetupError, Transport};

/// Bytes in one request: receivers refuse those above 4 MiB.
const REQUEST: usize = 2 << 20;
/// Losses are told together, this often at most.
const TELL_LOSSES: Duration = Duration::from_secs(60);

/// A span or a log record, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The name of its instrumentation scope.
    pub scope: &'static str,
    pub message: Vec<u8>,
}

/// What has become of the items of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken by the receiver.
    pub sent: u64,
    /// Lost because the queue was full.
    pub dropped: u64,
    /// Lost because they could not be sent in time, or the receiver did not take them.
    pub failed: u64,
}

/// Items that wait to be sent. Cheap to clone; clones are the same.
#[derive(Clone, Debug)]
pub struct Queue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    waiting: Mutex<VecDeque<Item>>,
    room: usize,
    batch: usize,
    /// Told when there is a whole batch.
    full: Notify,
    sent: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Queue {
    /// A queue for `room` items, of which a request takes `batch` at most.
    pub(crate) fn new(room: usize, batch: usize) -> Self {
        let (waiting, full) = (Mutex::default(), Notify::new());
        let (sent, dropped, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Inner { waiting, room, batch, full, sent, dropped, failed }))
    }

    /// Takes an item in; it never waits. Where there is no room, the item is lost and counted.
    pub fn push(&self, item: Item) {
        let mut waiting = self.waiting();
        if waiting.len() >= self.0.room {
            drop(waiting);
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.push_back(item);
        let full = waiting.len() >= self.0.batch;
        drop(waiting);
        if full {
            self.0.full.notify_one();
        }
    }

    /// What has become of the items so far.
    pub fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts { sent: of(&self.0.sent), dropped: of(&self.0.dropped), failed: of(&self.0.failed) }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Item>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out the items of the next request.
    pub(crate) fn take(&self) -> Vec<Item> {
        let mut waiting = self.waiting();
        let mut size = 0;
        let fits = |item: &&Item| {
            size += item.message.len();
            size <= REQUEST
        };
        // One that is too large by itself goes alone.
        let count = waiting.iter().take(self.0.batch).take_while(fits).count().max(1).min(waiting.len());
        waiting.drain(..count).collect()
    }

    fn has_batch(&self) -> bool {
        self.waiting().len() >= self.0.batch
    }
}

/// Sends what is in a [`Queue`].
pub struct Batches {
    settings: Batching,
    transport: Transport,
    queue: Queue,
}

/// What the log was told of losses.
struct Told {
    counts: Counts,
    at: Option<Instant>,
    failing: bool,
}

impl Batches {
    /// Makes ready to send; nothing is sent before [`Batches::run`].
    ///
    /// # Errors
    /// A file cannot be read, or endpoint, headers or certificates cannot be used. No value is named.
    pub fn new(settings: Batching) -> Result<(Queue, Self), SetupError> {
        let queue = Queue::new(settings.queue, settings.batch);
        let transport = Transport::new(settings.destination.clone())?;
        Ok((queue.clone(), Self { settings, transport, queue }))
    }

    /// Sends until `shutdown`, and then what is left, for which there is little time.
    ///
    /// A receiver that does not answer holds nothing up but this: items are lost then, and the log is told how many.
    pub fn run(self, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut told = Told { counts: Counts::default(), at: None, failing: false };
            loop {
                let due = Instant::now() + self.settings.delay;
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => break,
                    () = self.wait_for_batch() => {}
                    () = tokio::time::sleep_until(due) => {}
                }
                let items = self.queue.take();
                let count = items.len() as u64;
                if !self.export_unless(&shutdown, items, &mut told).await {
                    self.queue.0.failed.fetch_add(count, Ordering::Relaxed);
                    return self.give_up();
                }
                self.tell_losses(&mut told, false);
            }
            let end = Instant::now() + self.transport.last_words();
            loop {
                let items = self.queue.take();
                if items.is_empty() {
                    break;
                }
                self.export(items, end.saturating_duration_since(Instant::now()), &mut told).await;
            }
            self.tell_losses(&mut told, true);
        })
    }

    /// Resolves when there is a whole batch.
    async fn wait_for_batch(&self) {
        while !self.queue.has_batch() {
            self.queue.0.full.notified().await;
        }
    }

    /// Sends items; what is under way at `shutdown` has only a little longer. False where that was not enough.
    async fn export_unless(&self, shutdown: &CancellationToken, items: Vec<Item>, told: &mut Told) -> bool {
        let export = self.export(items, self.settings.export_timeout, told);
        tokio::pin!(export);
        let in_time = shutdown.run_until_cancelled(&mut export).await.is_some();
        in_time || tokio::time::timeout(self.transport.last_words(), export).await.is_ok()
    }

    async fn export(&self, items: Vec<Item>, within: Duration, told: &mut Told) {
        let count = items.len() as u64;
        if count == 0 {
            return;
        }
        let request = request(&self.settings.resource, items);
        let outcome = tokio::time::timeout(within, self.transport.send(request)).await;
        let what = self.settings.destination.signal.noun();
        let (sent, failed) = (&self.queue.0.sent, &self.queue.0.failed);
        match outcome.unwrap_or_else(|_| Err("not done in time".to_owned())) {
            Ok(rejected) => {
                let rejected = rejected.min(count);
                sent.fetch_add(count - rejected, Ordering::Relaxed);
                failed.fetch_add(rejected, Ordering::Relaxed);
                if std::mem::take(&mut told.failing) {
                    tracing::info!("{what} are sent again");
                }
            }
            Err(message) => {
                failed.fetch_add(count, Ordering::Relaxed);
                if !std::mem::replace(&mut told.failing, true) {
                    tracing::warn!("cannot send {what}, and goes on trying: {message}");
                }
            }
        }
    }

    fn tell_losses(&self, told: &mut Told, last: bool) {
        let (counts, now) = (self.queue.counts(), Instant::now());
        let (dropped, failed) = (counts.dropped - told.counts.dropped, counts.failed - told.counts.failed);
        let due = last || told.at.is_none_or(|at| now.duration_since(at) >= TELL_LOSSES);
        if due && (dropped > 0 || failed > 0) {
            let what = self.settings.destination.signal.noun();
            tracing::warn!(dropped, failed, "{what} were lost: the receiver does not take them, or too slowly");
            *told = Told { counts, at: Some(now), ..*told };
        }
    }

    /// Counts what nobody will send.
    fn give_up(&self) {
        let left = std::mem::take(&mut *self.queue.waiting()).len() as u64;
        self.queue.0.failed.fetch_add(left, Ordering::Relaxed);
        let (counts, what) = (self.queue.counts(), self.settings.destination.signal.noun());
        tracing::warn!(dropped = counts.dropped, failed = counts.failed, "{what} were lost: no receiver took them");
    }
}

/// A request as the services of spans and of log records take it: both have this shape. An encoded message stands in its
/// place as bytes, which look the same on the wire.
#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(message, optional, tag = "1")]
    told: Option<OfResource>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OfResource {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<OfScope>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OfScope {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    messages: Vec<Vec<u8>>,
}

fn request(resource: &BTreeMap<String, String>, items: Vec<Item>) -> Bytes {
    let mut scopes: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
    for item in items {
        scopes.entry(item.scope).or_default().push(item.message);
    }
    let scopes = scopes.into_iter().map(|(name, messages)| {
        let (name, version) = (name.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        OfScope { scope: Some(InstrumentationScope { name, version, ..InstrumentationScope::default() }), messages }
    });
    let attributes = resource.iter().map(|(key, value)| attribute(key, value.as_str())).collect();
    let resource = Some(Resource { attributes, ..Resource::default() });
    Request { told: Some(OfResource { resource, scopes: scopes.collect() }) }.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::logs::v1::LogRecord;
    use opentelemetry_proto::tonic::trace::v1::Span;

    use super::*;

    #[test]
    fn a_request_is_what_the_services_of_spans_and_of_log_records_take() {
        let resource = BTreeMap::from([("service.name".to_owned(), "tidemark".to_owned())]);
        let span = Span { name: "fetch".to_owned(), ..Span::default() };
        let item = Item { scope: "spans", message: span.encode_to_vec() };
        let told = ExportTraceServiceRequest::decode(request(&resource, vec![item])).unwrap();
        let told = &told.resource_spans[0];
        assert_eq!(told.resource.as_ref().unwrap().attributes[0].key, "service.name");
        assert_eq!(told.scope_spans[0].scope.as_ref().unwrap().name, "spans");
        assert_eq!(told.scope_spans[0].spans, [span]);
        let record = |text: &str| LogRecord { severity_text: text.to_owned(), ..LogRecord::default() };
        let item = |scope, text| Item { scope, message: record(text).encode_to_vec() };
        let items = vec![item("b", "1"), item("a", "2"), item("b", "3")];
        let told = ExportLogsServiceRequest::decode(request(&resource, items)).unwrap();
        let scopes = &told.resource_logs[0].scope_logs;
        assert_eq!(scopes.len(), 2);
        assert_eq!(scopes[1].log_records, [record("1"), record("3")]);
    }

    #[test]
    fn a_full_queue_drops_what_comes_and_counts_it() {
        let queue = Queue::new(2, 2);
        let item = |text: &str| Item { scope: "s", message: text.into() };
        for text in ["1", "2", "3"] {
            queue.push(item(text));
        }
        assert_eq!(queue.counts(), Counts { dropped: 1, ..Counts::default() });
        assert_eq!(queue.take(), [item("1"), item("2")]);
        assert_eq!(queue.take(), []);
    }

    #[test]
    fn no_request_is_larger_than_receivers_take() {
        let queue = Queue::new(10, 10);
        let sizes = [REQUEST / 2, REQUEST / 2, 1, REQUEST * 2, 1];
        for size in sizes {
            queue.push(Item { scope: "s", message: vec![0; size] });
        }
        let mut taken = Vec::new();
        loop {
            let items = queue.take();
            if items.is_empty() {
                break;
            }
            taken.push(items.iter().map(|item| item.message.len()).collect::<Vec<_>>());
        }
        assert_eq!(taken, [vec![REQUEST / 2; 2], vec![1], vec![REQUEST * 2], vec![1]]);
    }
}
