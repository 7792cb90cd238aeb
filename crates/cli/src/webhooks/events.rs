//! Events `KEDAScalerInfo`: what the writer of an admitted object was told is also told to those who look at the object.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use http::Request;
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tidemark_clock::Clock;
use tidemark_operator::client;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::judge::{Judged, Listener};

/// KEDA's name, which tools match on.
const CONTROLLER: &str = "keda-admission";
const REASON: &str = "KEDAScalerInfo";
/// The API server may take this long for an event.
const REQUEST: Duration = Duration::from_secs(10);
/// Events that wait for the API server at most; further ones are lost.
const QUEUE: usize = 1000;
/// The same event of the same object within this time is counted instead of written.
const SERIES: Duration = Duration::from_secs(6 * 60);
/// Series that are counted at most.
const SERIES_LIMIT: usize = 1000;
/// The most bytes of an event's note and of the reporting instance, and the longest name of an object.
const NOTE_LIMIT: usize = 1024;
const INSTANCE_LIMIT: usize = 128;
const NAME_LIMIT: usize = 253;

/// An event before it is written.
struct Told {
    object: Value,
    note: String,
    time: Timestamp,
}

/// A listener that notes warnings, and the future that writes them as events. The future ends when the listener is
/// dropped.
pub fn recorder(client: Client, clock: Clock, hostname: &str) -> (Listener, BoxFuture<'static, ()>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let listener = move |judged: Judged<'_>| {
        if judged.question.dry_run || !judged.verdict.admitted() {
            return;
        }
        for warning in &judged.verdict.warnings {
            let object = regarding(&judged.question.object);
            let told = Told { object, note: shortened(&warning.message, NOTE_LIMIT), time: clock.now() };
            if sender.try_send(told).is_err() {
                tracing::warn!(note = warning.message, "an event was lost: the API server takes them too slowly");
            }
        }
    };
    let instance = shortened(&format!("{CONTROLLER}-{hostname}"), INSTANCE_LIMIT);
    let writer = Writer { client: client::guard(client, REQUEST), instance, series: BTreeMap::new(), last_stamp: 0 };
    (Box::new(listener), Box::pin(writer.run(receiver)))
}

fn regarding(object: &Value) -> Value {
    let metadata = &object["metadata"];
    json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"], "namespace": metadata["namespace"],
        "name": metadata["name"], "uid": metadata["uid"],
    })
}

struct Series {
    event: String,
    count: u32,
    last: Instant,
}

struct Writer {
    client: Client,
    instance: String,
    /// By the object's uid and the note.
    series: BTreeMap<(String, String), Series>,
    /// Nanoseconds in the name of the last event: names are unique within a process.
    last_stamp: i128,
}

impl Writer {
    async fn run(mut self, mut told: mpsc::Receiver<Told>) {
        while let Some(event) = told.recv().await {
            if let Err(error) = self.write(event).await {
                tracing::warn!("an event was lost: {error}");
            }
        }
    }

    async fn write(&mut self, Told { object, note, time }: Told) -> kube::Result<()> {
        let namespace = object["namespace"].as_str().unwrap_or("default").to_owned();
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        self.series.retain(|_, series| series.last.elapsed() < SERIES);
        let key = (object["uid"].as_str().unwrap_or_default().to_owned(), note.clone());
        let now = Instant::now();
        if let Some(series) = self.series.get_mut(&key) {
            series.count += 1;
            series.last = now;
            let body = json!({"series": {"count": series.count, "lastObservedTime": micro(time)}});
            let request = Request::patch(format!("{path}/{}", series.event))
                .header("Content-Type", "application/merge-patch+json")
                .body(body.to_string().into_bytes());
            let patched = self.client.request::<Value>(request.map_err(kube::Error::HttpError)?).await;
            return patched.map(drop).inspect_err(|_| drop(self.series.remove(&key)));
        }
        self.last_stamp = (self.last_stamp + 1).max(time.as_nanosecond());
        let name = event_name(object["name"].as_str().unwrap_or_default(), self.last_stamp);
        let body = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": name, "namespace": namespace},
            "eventTime": micro(time), "type": "Normal", "reason": REASON, "action": REASON, "note": note,
            "reportingController": CONTROLLER, "reportingInstance": self.instance, "regarding": object,
        });
        let request =
            Request::post(path).header("Content-Type", "application/json").body(body.to_string().into_bytes());
        self.client.request::<Value>(request.map_err(kube::Error::HttpError)?).await?;
        if self.series.len() < SERIES_LIMIT {
            self.series.insert(key, Series { event: name, count: 1, last: now });
        }
        Ok(())
    }
}

/// The time as the API server reads it, in microseconds.
fn micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn shortened(text: &str, limit: usize) -> String {
    text[..text.floor_char_boundary(limit)].to_owned()
}

/// The object's name and the time, as long as a name may be.
fn event_name(object: &str, stamp: i128) -> String {
    let stamp = format!("{stamp:x}");
    let cut = shortened(object, NAME_LIMIT - 1 - stamp.len());
    format!("{}.{stamp}", cut.trim_end_matches(['.', '-']))
}
