//! What tests against real sources start from.

use std::sync::Arc;

use tidemark_clock::Clock;
use tidemark_trigger::{Connection, Door, DoorSettings, Reading, SourceError, TriggerInput};

/// The URL of a service, or a visible skip.
pub fn service(variable: &str) -> Option<String> {
    let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        assert_ne!(std::env::var("TIDEMARK_REQUIRE_SERVICES").as_deref(), Ok("1"), "{variable} is not set");
        println!("SKIPPED: {variable} is not set");
    }
    url
}

/// A door to the real network.
pub fn door() -> Door {
    Door::new(Clock::system(), DoorSettings::default())
}

/// The first trigger of `it/object`, with this metadata and authentication and nothing else.
pub fn input(trigger_type: &str, metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> TriggerInput {
    TriggerInput {
        index: 0,
        trigger_type: trigger_type.to_owned(),
        name: None,
        metadata: metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        auth: auth.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect(),
        env: Default::default(),
        pod_identity: None,
        metric_type: None,
        as_metric_source: false,
        namespace: "it".to_owned(),
        object: "object".to_owned(),
    }
}

pub async fn connect(door: &Door, input: &TriggerInput) -> Result<Arc<dyn Connection>, SourceError> {
    let trigger = tidemark_triggers::parse(input).unwrap_or_else(|errors| panic!("{errors}"));
    trigger.connect(door).await
}

pub async fn read(door: &Door, input: &TriggerInput) -> Result<Reading, SourceError> {
    Ok(connect(door, input).await?.read(door).await?[0])
}
