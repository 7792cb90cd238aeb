//! A Redis stream: its length, or the pending entries or the lag of a consumer group.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use redis::Value;
use serde_json::Map;
use tidemark_trigger::{
    Connection, Door, ErrorKind, MetricSpec, Parameters, ParseErrors, Reading, ShowSecret, SourceError, Trigger,
    TriggerInput, TriggerType, metric,
};

use super::redis::client::{Client, Reply, Target, Topology};
use super::redis::failure::Failure;
use super::redis::parameters::{Server, show};

/// The trigger type `redis-streams`.
pub static TYPE: TriggerType = TriggerType {
    name: "redis-streams",
    scaler_name: "redisStreamsScaler",
    parameters: Declared::TABLE,
    cached_metrics: true,
    parse: |input| parse(input, Topology::Single),
    inspect,
};

/// The trigger type `redis-cluster-streams`.
pub static CLUSTER: TriggerType = TriggerType {
    name: "redis-cluster-streams",
    scaler_name: "redisStreamsScaler",
    parameters: Declared::TABLE,
    cached_metrics: true,
    parse: |input| parse(input, Topology::Cluster),
    inspect,
};

/// The trigger type `redis-sentinel-streams`.
pub static SENTINEL: TriggerType = TriggerType {
    name: "redis-sentinel-streams",
    scaler_name: "redisStreamsScaler",
    parameters: Declared::TABLE,
    cached_metrics: true,
    parse: |input| parse(input, Topology::Sentinel),
    inspect,
};

/// The first version of Redis whose servers know the lag of a group.
const LAG_SINCE: u32 = 7;

#[derive(Clone, Debug, Parameters)]
struct Declared {
    /// The key of the stream.
    #[param(from = "metadata")]
    stream: String,
    /// A consumer group: its lag is measured when there is a `lagCount`, else its pending entries. Without a group it is
    /// the stream's length.
    #[param(from = "metadata")]
    consumer_group: Option<String>,
    /// The target for pending entries: those delivered to a consumer of the group and not acknowledged. They cannot
    /// activate a workload from zero, for without a consumer nothing is delivered.
    #[param(from = "metadata", default = 5, unit = "entries per replica")]
    pending_entries_count: i64,
    /// The target for the stream's length.
    #[param(from = "metadata", default = 5, unit = "entries per replica")]
    stream_length: i64,
    /// The target for the group's lag: entries not yet delivered to it. Needs Redis 7. 0: the lag is not measured.
    #[param(from = "metadata", default = 0, unit = "entries per replica")]
    lag_count: i64,
    /// The trigger is active when what is measured is above this.
    #[param(from = "metadata", default = 0)]
    activation_lag_count: i64,
    #[param(group)]
    server: Server,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Measure {
    Length,
    Pending { group: Arc<str> },
    Lag { group: Arc<str> },
}

impl Declared {
    /// What is measured, and its target.
    fn measure(&self) -> (Measure, i64) {
        match self.consumer_group.as_deref() {
            None => (Measure::Length, self.stream_length),
            Some(group) if self.lag_count == 0 => {
                (Measure::Pending { group: group.into() }, self.pending_entries_count)
            }
            Some(group) => (Measure::Lag { group: group.into() }, self.lag_count),
        }
    }

    /// Notes on what is no error here but will not do what its author expects.
    fn notes(&self, input: &TriggerInput, target: i64) -> Vec<String> {
        let mut notes = Vec::new();
        if target <= 0 {
            notes.push("the target must be above 0: an HPA refuses such a target".to_owned());
        }
        if self.consumer_group.is_none() {
            let unused = ["lagCount", "pendingEntriesCount"].iter().filter(|name| input.metadata.contains_key(**name));
            notes
                .extend(unused.map(|name| {
                    format!("{name} has no effect without consumerGroup: the stream's length is measured")
                }));
        }
        notes
    }
}

/// A parsed trigger.
#[derive(Debug)]
struct RedisStream {
    metrics: [MetricSpec; 1],
    notes: Box<[String]>,
    stream: Arc<str>,
    measure: Measure,
    activation: i64,
    target: Arc<Target>,
}

fn parse(input: &TriggerInput, topology: Topology) -> Result<Arc<dyn Trigger>, ParseErrors> {
    let declared = <Declared as Parameters>::parse(input)?;
    let metric_type = metric::metric_type(input)?;
    let server = declared.server.target(topology)?;
    let (measure, target) = declared.measure();
    let metric = MetricSpec::External {
        name: metric::external_name(input.index, &format!("redis-streams-{}", declared.stream)),
        metric_type,
        target_milli: metric::target_milli(target as f64),
    };
    let mut notes = <Declared as Parameters>::notes(input).into_vec();
    notes.extend(declared.notes(input, target));
    notes.extend(declared.server.notes(&server));
    Ok(Arc::new(RedisStream {
        metrics: [metric],
        notes: notes.into(),
        stream: declared.stream.as_str().into(),
        measure,
        activation: declared.activation_lag_count,
        target: Arc::new(server),
    }))
}

fn inspect(input: &TriggerInput, secret: ShowSecret) -> Result<Map<String, serde_json::Value>, ParseErrors> {
    let mut declared = <Declared as Parameters>::parse(input)?;
    let (measure, _) = declared.measure();
    if measure != Measure::Length {
        declared.stream_length = 0;
    }
    if !matches!(measure, Measure::Pending { .. }) {
        declared.pending_entries_count = 0;
    }
    if !matches!(measure, Measure::Lag { .. }) {
        declared.lag_count = 0;
    }
    Ok(show(&declared, &declared.server, secret))
}

impl Trigger for RedisStream {
    fn metrics(&self) -> &[MetricSpec] {
        &self.metrics
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn endpoint(&self) -> Option<String> {
        self.target.endpoint()
    }

    fn connect<'a>(&'a self, door: &'a Door) -> BoxFuture<'a, Result<Arc<dyn Connection>, SourceError>> {
        async move {
            let connected = Connected {
                stream: Arc::clone(&self.stream),
                measure: self.measure.clone(),
                activation: self.activation,
                client: Client::connect(Arc::clone(&self.target), door).await?,
                knows_lag: AtomicBool::new(false),
                told: AtomicBool::new(false),
            };
            Ok(Arc::new(connected) as Arc<dyn Connection>)
        }
        .boxed()
    }
}

/// A connected trigger.
#[derive(Debug)]
struct Connected {
    stream: Arc<str>,
    measure: Measure,
    activation: i64,
    client: Client,
    /// The server's version has been asked, and is new enough.
    knows_lag: AtomicBool,
    /// The log says that the server cannot tell the lag.
    told: AtomicBool,
}

impl Connection for Connected {
    fn read<'a>(&'a self, door: &'a Door) -> BoxFuture<'a, Result<Vec<Reading>, SourceError>> {
        async move {
            let value = match &self.measure {
                Measure::Length => self.length(door).await?,
                Measure::Pending { group } => self.pending(door, group).await?,
                Measure::Lag { group } => self.lag(door, group).await?,
            };
            Ok(vec![Reading { value: value as f64, active: value > self.activation }])
        }
        .boxed()
    }
}

impl Connected {
    async fn length(&self, door: &Door) -> Result<i64, SourceError> {
        let asked = format!("the length of the stream `{}`", self.stream);
        let reply = self.ask(door, &["XLEN", &self.stream]).await.map_err(|failure| failure.into_error(&asked))?;
        match reply.value {
            Value::Int(length) if length >= 0 => Ok(length),
            _ => Err(reply.bad(&asked)),
        }
    }

    async fn pending(&self, door: &Door, group: &str) -> Result<i64, SourceError> {
        let asked = format!("the pending entries of the group `{group}` of the stream `{}`", self.stream);
        let reply = self.ask(door, &["XPENDING", &self.stream, group]).await;
        let reply = reply.map_err(|failure| failure.into_error(&asked))?;
        match &reply.value {
            Value::Array(summary) => match summary.first() {
                Some(Value::Int(pending)) if *pending >= 0 => Ok(*pending),
                _ => Err(reply.bad(&asked)),
            },
            _ => Err(reply.bad(&asked)),
        }
    }

    /// The lag of a group; of one that is not there the stream's length, which is what it would lag behind. -1 when the
    /// server cannot tell.
    async fn lag(&self, door: &Door, group: &str) -> Result<i64, SourceError> {
        if !self.knows_lag.load(Ordering::Relaxed) {
            self.check_version(door).await?;
            self.knows_lag.store(true, Ordering::Relaxed);
        }
        let asked = format!("the lag of the group `{group}` of the stream `{}`", self.stream);
        let reply = match self.ask(door, &["XINFO", "GROUPS", &self.stream]).await {
            Ok(reply) => reply,
            Err(Failure::Server { code, detail, .. }) if code == "ERR" && detail == "no such key" => return Ok(0),
            Err(failure) => return Err(failure.into_error(&asked)),
        };
        let lag = lag_of(&reply.value, group).map_err(|UnknownForm| reply.bad(&asked))?;
        match lag {
            Some(Lag::Entries(lag)) => Ok(lag),
            Some(Lag::Unknown) => {
                if !self.told.swap(true, Ordering::Relaxed) {
                    let (endpoint, stream) = (&reply.endpoint, &self.stream);
                    tracing::warn!(
                        %endpoint, %stream, group,
                        "Redis cannot tell the lag of the group, because entries of the stream were deleted; it counts as 0"
                    );
                }
                Ok(-1)
            }
            None => self.length(door).await,
        }
    }

    async fn check_version(&self, door: &Door) -> Result<(), SourceError> {
        let asked = "its version";
        let reply = self.ask(door, &["INFO", "server"]).await.map_err(|failure| failure.into_error(asked))?;
        let text = match &reply.value {
            Value::BulkString(text) => String::from_utf8_lossy(text).into_owned(),
            Value::VerbatimString { text, .. } | Value::SimpleString(text) => text.clone(),
            _ => return Err(reply.bad(asked)),
        };
        let version = text.lines().find_map(|line| line.trim().strip_prefix("redis_version:"));
        let major = version.and_then(|version| version.split('.').next()?.trim().parse::<u32>().ok());
        match major {
            None => Err(reply.bad(asked)),
            Some(major) if major < LAG_SINCE => {
                let message =
                    format!("redis version {LAG_SINCE}+ required for lag, {} has version {major}", reply.endpoint);
                Err(SourceError::new(ErrorKind::Configuration, message))
            }
            Some(_) => Ok(()),
        }
    }

    async fn ask(&self, door: &Door, words: &[&str]) -> Result<Reply, Failure> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        self.client.ask(door, &command).await
    }
}

/// What a server says of a group's lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lag {
    Entries(i64),
    /// The server cannot tell, after deletions in the middle of the stream.
    Unknown,
}

/// A reply is not what the server's documentation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct UnknownForm;

/// The lag of a group in the reply of `XINFO GROUPS`; `None` when the group is not in it.
fn lag_of(reply: &Value, group: &str) -> Result<Option<Lag>, UnknownForm> {
    let Value::Array(groups) = reply else { return Err(UnknownForm) };
    for entry in groups {
        let fields: Vec<(&Value, &Value)> = entry.as_map_iter().ok_or(UnknownForm)?.collect();
        let field = |name: &str| fields.iter().find(|(key, _)| is_text(key, name)).map(|(_, value)| *value);
        if !field("name").is_some_and(|name| is_text(name, group)) {
            continue;
        }
        return match field("lag") {
            Some(Value::Int(lag)) => Ok(Some(Lag::Entries(*lag))),
            Some(Value::Nil) => Ok(Some(Lag::Unknown)),
            _ => Err(UnknownForm),
        };
    }
    Ok(None)
}

fn is_text(value: &Value, text: &str) -> bool {
    match value {
        Value::BulkString(bytes) => bytes == text.as_bytes(),
        Value::SimpleString(other) => other == text,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::trigger_input;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn group(name: &str, lag: Value) -> Value {
        Value::Array(vec![text("name"), text(name), text("pending"), Value::Int(1), text("lag"), lag])
    }

    #[test]
    fn the_lag_of_a_group_is_found_by_its_name() {
        let reply = Value::Array(vec![group("a", Value::Int(3)), group("b", Value::Nil)]);
        assert_eq!(lag_of(&reply, "a"), Ok(Some(Lag::Entries(3))));
        assert_eq!(lag_of(&reply, "b"), Ok(Some(Lag::Unknown)));
        assert_eq!(lag_of(&reply, "c"), Ok(None));
    }

    #[test]
    fn a_reply_of_another_form_is_no_lag() {
        assert_eq!(lag_of(&Value::Okay, "a"), Err(UnknownForm));
        assert_eq!(lag_of(&Value::Array(vec![Value::Int(1)]), "a"), Err(UnknownForm));
        let without = Value::Array(vec![Value::Array(vec![text("name"), text("a")])]);
        assert_eq!(lag_of(&without, "a"), Err(UnknownForm));
    }

    #[test]
    fn a_target_that_is_not_measured_is_noted() {
        let metadata = [("stream", "s"), ("address", "redis:6379"), ("lagCount", "5"), ("streamLength", "0")];
        let input = trigger_input("redis-streams", &metadata, &[]);
        let trigger = (TYPE.parse)(&input).unwrap();
        let expected = [
            "the target must be above 0: an HPA refuses such a target",
            "lagCount has no effect without consumerGroup: the stream's length is measured",
        ];
        assert_eq!(trigger.notes(), expected);
        assert_eq!(&**trigger.metrics()[0].external_name().unwrap(), "s0-redis-streams-s");
    }
}
