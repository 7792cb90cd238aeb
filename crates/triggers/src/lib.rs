//! The catalogue of trigger types: one file or folder per type, grouped by what they speak to.

mod cache;
mod connect_failure;
mod external;
mod http;
mod kubernetes;
mod messaging;
mod private_key;
mod sql;
#[cfg(test)]
mod tests;
mod time;

use std::sync::Arc;

use tidemark_trigger::nearest::nearest;
use tidemark_trigger::{ParseError, ParseErrors, Trigger, TriggerInput, TriggerType};

/// All trigger types, by name.
pub static CATALOGUE: &[&TriggerType] = &[
    &kubernetes::cpu_memory::CPU,
    &time::cron::TYPE,
    &external::TYPE,
    &external::PUSH,
    &kubernetes::workload::TYPE,
    &kubernetes::cpu_memory::MEMORY,
    &http::metrics_api::TYPE,
    &sql::postgresql::TYPE,
    &http::prometheus::TYPE,
    &messaging::rabbitmq::TYPE,
    &cache::redis::TYPE,
    &cache::redis::CLUSTER,
    &cache::redis_streams::CLUSTER,
    &cache::redis::SENTINEL,
    &cache::redis_streams::SENTINEL,
    &cache::redis_streams::TYPE,
];

/// Trigger types that KEDA has and this catalogue has not yet.
const NOT_YET: &[&str] = &[
    "activemq",
    "apache-kafka",
    "arangodb",
    "artemis-queue",
    "aws-cloudwatch",
    "aws-dynamodb",
    "aws-dynamodb-streams",
    "aws-kinesis-stream",
    "aws-sqs-queue",
    "azure-app-insights",
    "azure-blob",
    "azure-data-explorer",
    "azure-eventhub",
    "azure-log-analytics",
    "azure-monitor",
    "azure-pipelines",
    "azure-queue",
    "azure-servicebus",
    "beanstalkd",
    "cassandra",
    "clickhouse",
    "couchdb",
    "datadog",
    "dynatrace",
    "elastic-forecast",
    "elasticsearch",
    "etcd",
    "forgejo-runner",
    "gcp-cloudtasks",
    "gcp-pubsub",
    "gcp-spanner",
    "gcp-stackdriver",
    "gcp-storage",
    "github-runner",
    "graphite",
    "huawei-cloudeye",
    "ibmmq",
    "influxdb",
    "kafka",
    "kubernetes-resource",
    "liiklus",
    "loki",
    "mongodb",
    "mssql",
    "mysql",
    "nats-jetstream",
    "new-relic",
    "nsq",
    "openstack-metric",
    "openstack-swift",
    "opensearch",
    "predictkube",
    "pulsar",
    "selenium-grid",
    "solace-direct-messaging",
    "solace-event-queue",
    "solarwinds",
    "solr",
    "splunk",
    "splunk-observability",
    "sumologic",
    "temporal",
];

/// The trigger type of a name.
///
/// # Errors
/// There is none; the message names the nearest one that there is.
pub fn find(name: &str) -> Result<&'static TriggerType, ParseError> {
    CATALOGUE.iter().find(|known| known.name == name).copied().ok_or_else(|| {
        if NOT_YET.contains(&name) {
            return ParseError::new("type", format!("trigger type {name} is not supported yet"));
        }
        let known = CATALOGUE.iter().map(|known| known.name).chain(NOT_YET.iter().copied());
        let hint = match nearest(name, known) {
            Some(near) if NOT_YET.contains(&near) => format!(", did you mean {near}, which is not supported yet?"),
            Some(near) => format!(", did you mean {near}?"),
            None => String::new(),
        };
        ParseError::new("type", format!("no scaler found for type: {name}{hint}"))
    })
}

/// Parses a trigger of any type of the catalogue.
///
/// # Errors
/// An unknown type (the message names the nearest known one), or what is wrong with the parameters.
pub fn parse(input: &TriggerInput) -> Result<Arc<dyn Trigger>, ParseErrors> {
    (find(&input.trigger_type)?.parse)(input)
}
