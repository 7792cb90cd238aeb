//! The size of a Redis key: the length of a list, the number of members of a set, a sorted set or a hash.

pub mod address;
pub mod client;
pub mod failure;
mod link;
pub mod parameters;

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use redis::Value;
use serde_json::Map;
use tidemark_trigger::{
    Connection, Door, ErrorKind, MetricSpec, Parameters, ParseErrors, Reading, ShowSecret, SourceError, Trigger,
    TriggerInput, TriggerType, metric,
};

use client::{Client, Reply, Target, Topology};
use parameters::{Server, show};

/// The trigger type `redis`.
pub static TYPE: TriggerType = TriggerType {
    name: "redis",
    scaler_name: "redisScaler",
    parameters: Declared::TABLE,
    cached_metrics: true,
    parse: |input| parse(input, Topology::Single),
    inspect,
};

/// The trigger type `redis-cluster`.
pub static CLUSTER: TriggerType = TriggerType {
    name: "redis-cluster",
    scaler_name: "redisScaler",
    parameters: Declared::TABLE,
    cached_metrics: true,
    parse: |input| parse(input, Topology::Cluster),
    inspect,
};

/// The trigger type `redis-sentinel`.
pub static SENTINEL: TriggerType = TriggerType {
    name: "redis-sentinel",
    scaler_name: "redisScaler",
    parameters: Declared::TABLE,
    cached_metrics: true,
    parse: |input| parse(input, Topology::Sentinel),
    inspect,
};

/// The size of a key, or the name of its type when that has no size here. One script, so that type and size belong
/// together.
const SCRIPT: &str = "\
local kind = redis.call('type', KEYS[1])['ok']
if kind == 'list' or kind == 'none' then return redis.call('llen', KEYS[1]) end
if kind == 'set' then return redis.call('scard', KEYS[1]) end
if kind == 'zset' then return redis.call('zcard', KEYS[1]) end
if kind == 'hash' then return redis.call('hlen', KEYS[1]) end
return kind";

#[derive(Clone, Debug, Parameters)]
struct Declared {
    /// The key of a list, set, sorted set or hash. One that does not exist has the size 0.
    #[param(from = "metadata")]
    list_name: String,
    /// The target: elements per replica.
    #[param(from = "metadata", default = 5, unit = "elements per replica")]
    list_length: i64,
    /// The trigger is active when the key has more elements than this.
    #[param(from = "metadata", default = 0)]
    activation_list_length: i64,
    #[param(group)]
    server: Server,
}

/// A parsed trigger.
#[derive(Debug)]
struct KeySize {
    metrics: [MetricSpec; 1],
    notes: Box<[String]>,
    key: Arc<str>,
    activation: i64,
    target: Arc<Target>,
}

fn parse(input: &TriggerInput, topology: Topology) -> Result<Arc<dyn Trigger>, ParseErrors> {
    let declared = <Declared as Parameters>::parse(input)?;
    let metric_type = metric::metric_type(input)?;
    let target = declared.server.target(topology)?;
    let metric = MetricSpec::External {
        name: metric::external_name(input.index, &format!("redis-{}", declared.list_name)),
        metric_type,
        target_milli: metric::target_milli(declared.list_length as f64),
    };
    let mut notes = <Declared as Parameters>::notes(input).into_vec();
    if declared.list_length <= 0 {
        notes.push("listLength must be above 0: an HPA refuses such a target".to_owned());
    }
    notes.extend(declared.server.notes(&target));
    Ok(Arc::new(KeySize {
        metrics: [metric],
        notes: notes.into(),
        key: declared.list_name.as_str().into(),
        activation: declared.activation_list_length,
        target: Arc::new(target),
    }))
}

fn inspect(input: &TriggerInput, secret: ShowSecret) -> Result<Map<String, serde_json::Value>, ParseErrors> {
    let declared = <Declared as Parameters>::parse(input)?;
    Ok(show(&declared, &declared.server, secret))
}

impl Trigger for KeySize {
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
            let client = Client::connect(Arc::clone(&self.target), door).await?;
            let connected = Connected { key: Arc::clone(&self.key), activation: self.activation, client };
            Ok(Arc::new(connected) as Arc<dyn Connection>)
        }
        .boxed()
    }
}

/// A connected trigger.
#[derive(Debug)]
struct Connected {
    key: Arc<str>,
    activation: i64,
    client: Client,
}

impl Connection for Connected {
    fn read<'a>(&'a self, door: &'a Door) -> BoxFuture<'a, Result<Vec<Reading>, SourceError>> {
        async move {
            let mut command = redis::cmd("EVAL");
            command.arg(SCRIPT).arg(1).arg(&*self.key);
            let asked = format!("the size of the key `{}`", self.key);
            let reply = self.client.ask(door, &command).await.map_err(|failure| failure.into_error(&asked))?;
            let size = size(&reply, &asked)?;
            Ok(vec![Reading { value: size as f64, active: size > self.activation }])
        }
        .boxed()
    }
}

fn size(reply: &Reply, asked: &str) -> Result<i64, SourceError> {
    match &reply.value {
        Value::Int(size) if *size >= 0 => Ok(*size),
        Value::BulkString(kind) => {
            let kind: String = String::from_utf8_lossy(kind).chars().take(40).collect();
            let message = format!("{} cannot tell {asked}: it has the unsupported type {kind}", reply.endpoint);
            Err(SourceError::new(ErrorKind::Refused, message))
        }
        _ => Err(reply.bad(asked)),
    }
}

#[cfg(test)]
mod tests;
