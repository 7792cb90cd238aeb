//! What sources answer: whatever the bytes, a trigger reads a number or says what is wrong, twice the same, without a panic.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Response;
use tidemark_clock::Clock;
use tidemark_trigger::{Door, TriggerInput};

/// Trigger types with the parameters under which their replies are read in different ways.
const READERS: [(&str, &[(&str, &str)]); 8] = [
    ("metrics-api", &[("format", "json"), ("valueLocation", "a.b.#.c"), ("url", "http://s/"), ("targetValue", "5")]),
    (
        "metrics-api",
        &[
            ("format", "json"),
            ("valueLocation", "jobs.#(state==\"open\")#|#"),
            ("url", "http://s/"),
            ("targetValue", "5"),
        ],
    ),
    ("metrics-api", &[("format", "yaml"), ("valueLocation", "a.b"), ("url", "http://s/"), ("targetValue", "5")]),
    ("metrics-api", &[("format", "xml"), ("valueLocation", "a.b"), ("url", "http://s/"), ("targetValue", "5")]),
    (
        "metrics-api",
        &[("format", "prometheus"), ("valueLocation", "up{job=\"x\"}"), ("url", "http://s/"), ("targetValue", "5")],
    ),
    ("prometheus", &[("serverAddress", "http://s/"), ("query", "sum(up)"), ("threshold", "5")]),
    (
        "prometheus",
        &[("serverAddress", "http://s/"), ("query", "up"), ("threshold", "5"), ("ignoreNullValues", "false")],
    ),
    (
        "rabbitmq",
        &[
            ("protocol", "http"),
            ("host", "http://u:p@s/"),
            ("queueName", "q.*"),
            ("useRegex", "true"),
            ("mode", "QueueLength"),
            ("value", "5"),
        ],
    ),
];

/// The first byte picks the trigger, the rest is what its source answers to everything.
pub fn check(input: &[u8]) {
    let Some((first, reply)) = input.split_first() else { return };
    let (trigger_type, metadata) = READERS[usize::from(*first) % READERS.len()];
    let outcomes = [(); 2].map(|()| read(trigger_type, metadata, reply));
    assert_eq!(outcomes[0], outcomes[1], "{trigger_type}");
}

/// The values, or the error, as a text.
fn read(trigger_type: &str, metadata: &[(&str, &str)], reply: &[u8]) -> String {
    let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let input = input(trigger_type, metadata);
    let trigger = tidemark_triggers::parse(&input).expect("the parameters are right");
    let reply = Bytes::copy_from_slice(reply);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without sockets").block_on(async {
        let clock = Clock::starting_at("2026-01-05T08:00:00Z".parse().expect("a time"));
        let door = Door::in_process(clock, move |_| {
            let reply = Response::new(reply.clone());
            Box::pin(async { Ok(reply) })
        });
        let readings = match trigger.connect(&door).await {
            Ok(connection) => connection.read(&door).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &readings {
            assert!(!error.message.is_empty(), "{trigger_type}: an error without a word");
        }
        format!("{readings:?}")
    })
}

fn input(trigger_type: &str, metadata: BTreeMap<String, String>) -> TriggerInput {
    TriggerInput {
        index: 0,
        trigger_type: trigger_type.to_owned(),
        name: None,
        metadata,
        auth: BTreeMap::new(),
        env: BTreeMap::new(),
        pod_identity: None,
        metric_type: None,
        as_metric_source: false,
        namespace: "default".to_owned(),
        object: "object".to_owned(),
    }
}
