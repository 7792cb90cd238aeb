//! Addresses of brokers: any text is an address or an error, without a panic, and no error shows the password in it.
//!
//! AMQP's frames are read by a library; what of a broker is read by our own code is its address and the replies of its
//! management API (target `replies`).

use std::collections::BTreeMap;

use tidemark_trigger::{Secret, TriggerInput};

/// A password that no message may hold.
const CANARY: &str = "c4n4ry-p4ssw0rd";

/// The input is what follows the password in the address.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for host in [text.to_owned(), format!("amqp://user:{CANARY}@{text}"), format!("http://user:{CANARY}{text}")] {
        for protocol in ["auto", "amqp", "http"] {
            parse(&host, protocol);
        }
    }
}

fn parse(host: &str, protocol: &str) {
    let metadata = [("protocol", protocol), ("queueName", "q"), ("mode", "QueueLength"), ("value", "5")];
    let input = TriggerInput {
        index: 0,
        trigger_type: "rabbitmq".to_owned(),
        name: None,
        metadata: metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        auth: BTreeMap::from([("host".to_owned(), Secret::from(host))]),
        env: BTreeMap::new(),
        pod_identity: None,
        metric_type: None,
        as_metric_source: false,
        namespace: "default".to_owned(),
        object: "object".to_owned(),
    };
    let shown = format!("{:?}", tidemark_triggers::parse(&input));
    assert!(!shown.contains(CANARY), "{shown}");
}
