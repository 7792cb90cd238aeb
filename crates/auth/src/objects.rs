//! The Secrets and ConfigMaps that one resolution needs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::GetParams;
use kube::{Api, Client};
use tidemark_trigger::Secret;

use crate::AuthError;

/// The kinds of objects that hold values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Secret,
    ConfigMap,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        })
    }
}

/// An object's values by key; `None` for one that is not text.
pub(crate) type Data = BTreeMap<String, Option<Secret>>;

/// Reads objects, each once.
pub(crate) struct Objects<'a> {
    client: &'a Client,
    timeout: Duration,
    /// What was read so far; `None` for an object that is not there.
    read: BTreeMap<(Kind, String, String), Option<Arc<Data>>>,
}

impl<'a> Objects<'a> {
    pub(crate) fn new(client: &'a Client, timeout: Duration) -> Self {
        Self { client, timeout, read: BTreeMap::new() }
    }

    /// An object's values, `None` when there is no such object.
    pub(crate) async fn data(
        &mut self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Data>>, AuthError> {
        let key = (kind, namespace.to_owned(), name.to_owned());
        if let Some(found) = self.read.get(&key) {
            return Ok(found.clone());
        }
        let object = describe(kind, namespace, name);
        let found = match kind {
            Kind::Secret => {
                let api = Api::<v1::Secret>::namespaced(self.client.clone(), namespace);
                get(self.client, &api, self.timeout, object, name).await?.map(|secret| {
                    let data = secret.data.unwrap_or_default().into_iter();
                    data.map(|(key, bytes)| (key, String::from_utf8(bytes.0).ok().map(Secret::from))).collect()
                })
            }
            Kind::ConfigMap => {
                let api = Api::<v1::ConfigMap>::namespaced(self.client.clone(), namespace);
                get(self.client, &api, self.timeout, object, name).await?.map(|map| {
                    let data = map.data.unwrap_or_default().into_iter();
                    data.map(|(key, text)| (key, Some(Secret::from(text)))).collect()
                })
            }
        };
        let found: Option<Arc<Data>> = found.map(|data: Data| Arc::new(data));
        self.read.insert(key, found.clone());
        Ok(found)
    }
}

/// An object in words.
pub(crate) fn describe(kind: impl fmt::Display, namespace: &str, name: &str) -> String {
    format!("{kind} {namespace}/{name}")
}

/// Reads an object under a deadline; `None` when there is none of that name.
///
/// Not through [`Api::get`]: it logs the whole answer, values included, when it cannot make sense of it.
pub(crate) async fn get<K: kube::Resource + DeserializeOwned>(
    client: &Client,
    api: &Api<K>,
    timeout: Duration,
    object: String,
    name: &str,
) -> Result<Option<K>, AuthError> {
    if !can_be_a_name(name) {
        return Ok(None);
    }
    let read = async {
        let request = kube::core::Request::new(api.resource_url()).get(name, &GetParams::default());
        let text = client.request_text(request.map_err(kube::Error::BuildRequest)?).await?;
        serde_json::from_str(&text).map_err(kube::Error::SerdeError)
    };
    let cause = match tokio::time::timeout(timeout, read).await {
        Ok(Ok(found)) => return Ok(Some(found)),
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() => return Ok(None),
        Ok(Err(error)) => cause(&error),
        Err(_) => format!("no answer within {} s", timeout.as_secs_f64()),
    };
    Err(AuthError::Unreadable { object, cause })
}

/// Whether an object may have this name. Any other text must not become part of a path, where `..` or `?` would ask
/// for something else.
fn can_be_a_name(name: &str) -> bool {
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    letters && name.bytes().any(|byte| byte.is_ascii_alphanumeric())
}

fn cause(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("the API server answered {} {}", status.code, status.reason),
        kube::Error::Service(inner) => inner.to_string(),
        // Its text quotes the answer, which may hold a secret.
        kube::Error::SerdeError(_) => "the API server's answer is not an object of this kind".to_owned(),
        other => other.to_string(),
    }
}
