//! Raw metrics: every value that a trigger gives, to whoever has subscribed to that trigger.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _, unfold};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::messages::{RawMetric, RawMetricsResponse, ScaledObjectRef, Time};

/// Messages that a subscriber may be behind by.
const BUFFER: usize = 4;
/// How long a message may wait for its place among these before the subscriber has lost its subscriptions.
const PATIENCE: Duration = Duration::from_secs(60);
/// Messages that wait at most, so that many triggers and one slow subscriber do not fill the memory.
const WAITING: usize = 1024;
/// Subscribers at once, and subscriptions of each.
const SUBSCRIBERS: usize = 1024;
const SUBSCRIPTIONS: usize = 65_536;

/// What one read of one trigger gave.
#[derive(Clone, Debug, PartialEq)]
pub struct RawReading<'a> {
    pub namespace: &'a str,
    /// The name of the ScaledObject or ScaledJob.
    pub object: &'a str,
    /// The trigger's name, given or default.
    pub trigger: &'a str,
    /// The value of each of its metrics.
    pub values: Vec<f64>,
    /// As the trigger says.
    pub active: bool,
    pub time: Timestamp,
}

/// The subscriptions, and what is on the way to the subscribers. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RawMetrics(Arc<Mutex<BTreeMap<String, Subscriber>>>);

#[derive(Debug)]
struct Subscriber {
    subjects: BTreeSet<ScaledObjectRef>,
    queue: VecDeque<(Instant, RawMetricsResponse)>,
    streams: usize,
    /// Changes with each message; closed when the subscriber is gone.
    bell: watch::Sender<()>,
}

impl Default for Subscriber {
    fn default() -> Self {
        Self { subjects: BTreeSet::new(), queue: VecDeque::new(), streams: 0, bell: watch::Sender::new(()) }
    }
}

impl Subscriber {
    /// Whether the bell is this subscriber's, and not that of an earlier one of the same name.
    fn is_heard_by(&self, bell: &watch::Receiver<()>) -> bool {
        self.bell.subscribe().same_channel(bell)
    }
}

impl RawMetrics {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Subscriber>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody would get a reading of that trigger.
    pub fn is_wanted(&self, namespace: &str, object: &str, trigger: &str) -> bool {
        let subscribers = self.lock();
        if subscribers.is_empty() {
            return false;
        }
        let subject = subject(namespace, object, trigger);
        subscribers.values().any(|subscriber| subscriber.subjects.contains(&subject))
    }

    /// Sends a reading to all who have subscribed to its trigger. It never waits.
    pub fn publish(&self, reading: &RawReading<'_>) {
        let subject = subject(reading.namespace, reading.object, reading.trigger);
        let now = Instant::now();
        self.lock().retain(|name, subscriber| {
            if !subscriber.subjects.contains(&subject) {
                return true;
            }
            let waits = subscriber.queue.get(BUFFER).map(|(since, _)| now.duration_since(*since));
            if waits.is_some_and(|waits| waits >= PATIENCE) || subscriber.queue.len() >= BUFFER + WAITING {
                tracing::warn!(subscriber = name, "a subscriber of raw metrics does not read and is forgotten");
                return false;
            }
            subscriber.queue.push_back((now, response(reading, &subject)));
            subscriber.bell.send_replace(());
            true
        });
    }

    /// Subscribes to a trigger; true when the subscriber had been subscribed already.
    pub fn subscribe(&self, subscriber: &str, namespace: &str, object: &str, trigger: &str) -> bool {
        self.enter(subscriber, Some(subject(namespace, object, trigger)))
    }

    /// The oldest message for a subscriber that has not been taken yet.
    pub fn take(&self, subscriber: &str) -> Option<RawMetricsResponse> {
        self.lock().get_mut(subscriber)?.queue.pop_front().map(|(_, message)| message)
    }

    /// Subscribes to a trigger; true when the subscriber had been subscribed already. Without a full name nothing
    /// happens.
    pub(super) fn enter(&self, name: &str, subject: Option<ScaledObjectRef>) -> bool {
        let Some(subject) = subject.filter(is_whole) else { return false };
        let mut subscribers = self.lock();
        if !subscribers.contains_key(name) && subscribers.len() >= SUBSCRIBERS {
            tracing::warn!(subscriber = name, "there are too many subscribers of raw metrics: this one gets none");
            return false;
        }
        let subscriber = subscribers.entry(name.to_owned()).or_default();
        if subscriber.subjects.contains(&subject) {
            return true;
        }
        if subscriber.subjects.len() < SUBSCRIPTIONS {
            subscriber.subjects.insert(subject);
        }
        false
    }

    /// Ends a subscription; true when there was one. After the last one the subscriber's streams end.
    pub(super) fn unsubscribe(&self, name: &str, subject: Option<ScaledObjectRef>) -> bool {
        let Some(subject) = subject else { return false };
        let mut subscribers = self.lock();
        let Some(subscriber) = subscribers.get_mut(name) else { return false };
        let was = subscriber.subjects.remove(&subject);
        if was && subscriber.subjects.is_empty() {
            subscribers.remove(name);
        }
        was
    }

    /// The messages for a subscriber. Streams of the same one share them. None when there are too many subscribers.
    pub(super) fn stream(&self, name: &str) -> Option<BoxStream<'static, RawMetricsResponse>> {
        let mut subscribers = self.lock();
        if !subscribers.contains_key(name) && subscribers.len() >= SUBSCRIBERS {
            return None;
        }
        let subscriber = subscribers.entry(name.to_owned()).or_default();
        subscriber.streams += 1;
        let mut bell = subscriber.bell.subscribe();
        bell.mark_changed();
        let open = Open { all: self.clone(), name: name.to_owned(), bell };
        Some(unfold(open, |mut open| async move { open.next().await.map(|message| (message, open)) }).boxed())
    }
}

/// An open stream of a subscriber.
struct Open {
    all: RawMetrics,
    name: String,
    bell: watch::Receiver<()>,
}

impl Open {
    /// The next message; none when the subscriber has been forgotten.
    async fn next(&mut self) -> Option<RawMetricsResponse> {
        loop {
            self.bell.borrow_and_update();
            match self.all.lock().get_mut(&self.name).filter(|subscriber| subscriber.is_heard_by(&self.bell)) {
                None => return None,
                Some(subscriber) => {
                    if let Some((_, message)) = subscriber.queue.pop_front() {
                        return Some(message);
                    }
                }
            }
            self.bell.changed().await.ok()?;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut subscribers = self.all.lock();
        let own = subscribers.get_mut(&self.name).filter(|subscriber| subscriber.is_heard_by(&self.bell));
        let Some(subscriber) = own else { return };
        subscriber.streams -= 1;
        if subscriber.streams == 0 && subscriber.subjects.is_empty() {
            subscribers.remove(&self.name);
        }
    }
}

fn subject(namespace: &str, object: &str, trigger: &str) -> ScaledObjectRef {
    ScaledObjectRef { name: object.to_owned(), namespace: namespace.to_owned(), metric_name: trigger.to_owned() }
}

fn is_whole(subject: &ScaledObjectRef) -> bool {
    !subject.name.is_empty() && !subject.namespace.is_empty() && !subject.metric_name.is_empty()
}

fn response(reading: &RawReading<'_>, subject: &ScaledObjectRef) -> RawMetricsResponse {
    let timestamp = Time { seconds: reading.time.as_second(), nanos: reading.time.subsec_nanosecond() };
    let metric = |value: &f64| RawMetric {
        value: *value,
        timestamp: Some(timestamp),
        metadata: Some(subject.clone()),
        is_active: reading.active,
    };
    RawMetricsResponse { metrics: reading.values.iter().map(metric).collect() }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn reading(value: f64) -> RawReading<'static> {
        let time = "2026-01-01T00:00:00.5Z".parse().unwrap();
        RawReading { namespace: "shop", object: "orders", trigger: "queue", values: vec![value], active: true, time }
    }

    fn queue() -> Option<ScaledObjectRef> {
        Some(subject("shop", "orders", "queue"))
    }

    fn value(message: Option<RawMetricsResponse>) -> Option<f64> {
        Some(message?.metrics.first()?.value)
    }

    #[tokio::test]
    async fn a_subscriber_gets_what_it_subscribed_to_and_nothing_else() {
        let raw = RawMetrics::default();
        let mut early = raw.stream("dash").unwrap();
        assert!(!raw.is_wanted("shop", "orders", "queue"));
        assert!(!raw.enter("dash", queue()));
        assert!(raw.enter("dash", queue()));
        raw.publish(&reading(7.0));
        raw.publish(&RawReading { trigger: "other", ..reading(8.0) });
        let message = early.next().await.unwrap();
        let metric = &message.metrics[0];
        assert_eq!((metric.value, metric.is_active, metric.metadata.clone()), (7.0, true, queue()));
        assert_eq!(metric.timestamp, Some(Time { seconds: 1_767_225_600, nanos: 500_000_000 }));
        assert!(early.next().now_or_never().is_none());
        assert!(raw.unsubscribe("dash", queue()));
        assert!(!raw.unsubscribe("dash", queue()));
        assert!(early.next().await.is_none(), "the last subscription has ended");
    }

    #[tokio::test]
    async fn a_subscription_without_a_full_name_is_none() {
        let raw = RawMetrics::default();
        assert!(!raw.enter("dash", Some(subject("shop", "", "queue"))));
        assert!(!raw.enter("dash", None));
        assert!(raw.lock().is_empty());
    }

    #[tokio::test]
    async fn two_streams_of_a_subscriber_share_its_messages_and_one_that_is_gone_leaves_the_rest() {
        let raw = RawMetrics::default();
        raw.enter("dash", queue());
        let (mut first, mut second) = (raw.stream("dash").unwrap(), raw.stream("dash").unwrap());
        raw.publish(&reading(1.0));
        raw.publish(&reading(2.0));
        assert_eq!(value(first.next().await), Some(1.0));
        assert_eq!(value(second.next().await), Some(2.0));
        drop(first);
        raw.publish(&reading(3.0));
        assert_eq!(value(second.next().await), Some(3.0));
        drop(second);
        assert!(raw.is_wanted("shop", "orders", "queue"), "a subscription outlives its streams");
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_that_does_not_read_for_a_minute_is_forgotten() {
        let raw = RawMetrics::default();
        raw.enter("dash", queue());
        let mut stream = raw.stream("dash").unwrap();
        for _ in 0..=BUFFER {
            raw.publish(&reading(1.0));
        }
        tokio::time::advance(PATIENCE - Duration::from_secs(1)).await;
        raw.publish(&reading(2.0));
        assert!(raw.is_wanted("shop", "orders", "queue"));
        tokio::time::advance(Duration::from_secs(1)).await;
        raw.publish(&reading(3.0));
        assert!(!raw.is_wanted("shop", "orders", "queue"));
        assert!(stream.next().await.is_none());
    }
}
