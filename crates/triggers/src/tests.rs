//! What the tests of all trigger types start from.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use tidemark_clock::Clock;
use tidemark_trigger::{Door, ErrorKind, SourceError, TriggerInput};

fn map<T: for<'a> From<&'a str>>(pairs: &[(&str, &str)]) -> BTreeMap<String, T> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), T::from(value))).collect()
}

/// The first trigger of `default/object`, with this metadata and authentication and nothing else.
pub fn trigger_input(trigger_type: &str, metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> TriggerInput {
    TriggerInput {
        index: 0,
        trigger_type: trigger_type.to_owned(),
        name: None,
        metadata: map(metadata),
        auth: map(auth),
        env: BTreeMap::new(),
        pod_identity: None,
        metric_type: None,
        as_metric_source: false,
        namespace: "default".to_owned(),
        object: "object".to_owned(),
    }
}

/// A clock that virtual time moves.
pub fn clock() -> Clock {
    Clock::starting_at("2026-01-05T08:00:00Z".parse().unwrap())
}

/// A door behind which a function answers.
pub fn door(
    handler: impl Fn(Request<Bytes>) -> BoxFuture<'static, Result<Response<Bytes>, SourceError>> + Send + Sync + 'static,
) -> Door {
    Door::in_process(clock(), handler)
}

/// A door behind which there is nothing.
pub fn no_network() -> Door {
    door(|_| async { Err(SourceError::new(ErrorKind::Unreachable, "there is no network here")) }.boxed())
}
