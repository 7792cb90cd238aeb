//! The objects of the files as an API server would give them, for whoever reads parameters.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// What can be read: the kind, the plural in paths, and whether it is in a namespace.
const READABLE: [(&str, &str, bool); 4] = [
    ("Secret", "secrets", true),
    ("ConfigMap", "configmaps", true),
    ("TriggerAuthentication", "triggerauthentications", true),
    ("ClusterTriggerAuthentication", "clustertriggerauthentications", false),
];

/// Kind, namespace (empty for cluster-wide kinds) and name.
type Key = (&'static str, String, String);

/// Secrets, ConfigMaps and authentications by name, with a note of what was asked for and is not there.
#[derive(Clone, Default)]
pub struct Objects {
    objects: Arc<BTreeMap<Key, Value>>,
    missed: Arc<Mutex<Vec<String>>>,
}

impl Objects {
    /// An API with these objects; those of other kinds are left out. Of two with one name the last one counts.
    pub fn new<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Self {
        let known = objects.into_iter().filter_map(|object| {
            let (kind, _, namespaced) = READABLE.iter().find(|(kind, ..)| object["kind"] == **kind)?;
            let namespace = object["metadata"]["namespace"].as_str().filter(|namespace| !namespace.is_empty());
            let namespace = if *namespaced { namespace.unwrap_or(super::input::DEFAULT_NAMESPACE) } else { "" };
            let name = object["metadata"]["name"].as_str()?;
            Some(((*kind, namespace.to_owned(), name.to_owned()), stored(object.clone())))
        });
        Self { objects: Arc::new(known.collect()), missed: Arc::default() }
    }

    /// An object.
    pub fn get(&self, kind: &'static str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(kind, namespace.to_owned(), name.to_owned()))
    }

    /// A client that reads them. Must be called inside a tokio runtime.
    pub fn client(&self) -> Client {
        let objects = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let response = objects.answer(request.uri().path());
            async move { Ok::<_, Infallible>(response) }
        });
        Client::new(service, super::input::DEFAULT_NAMESPACE)
    }

    /// What was asked for since the last call and is not there, such as `Secret shop/broker`; each once, in the order of
    /// the questions.
    pub fn missed(&self) -> Vec<String> {
        std::mem::take(&mut *self.missed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer(&self, path: &str) -> Response<Body> {
        let found = key_of(path).and_then(|key| match self.objects.get(&key) {
            Some(object) => Some(object),
            None => {
                self.note(describe(&key));
                None
            }
        });
        match found {
            Some(object) => reply(StatusCode::OK, object),
            None => reply(
                StatusCode::NOT_FOUND,
                &json!({
                    "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404,
                    "message": "not found",
                }),
            ),
        }
    }

    fn note(&self, reference: String) {
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        if !missed.contains(&reference) {
            missed.push(reference);
        }
    }
}

/// `Secret shop/broker`, or `ClusterTriggerAuthentication vault`.
pub fn reference(kind: &str, namespace: &str, name: &str) -> String {
    if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
}

fn describe((kind, namespace, name): &Key) -> String {
    reference(kind, namespace, name)
}

/// The object that the path of a request names.
fn key_of(path: &str) -> Option<Key> {
    let steps: Vec<_> = path.split('/').filter(|step| !step.is_empty()).collect();
    let (kind, namespace, name) = match steps[..] {
        [.., "namespaces", namespace, plural, name] => (plural, namespace, name),
        [.., plural, name] => (plural, "", name),
        _ => return None,
    };
    let (kind, ..) = READABLE.iter().find(|(_, plural, _)| *plural == kind)?;
    Some((kind, namespace.to_owned(), name.to_owned()))
}

fn reply(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string().into_bytes()));
    *response.status_mut() = status;
    response
}

/// A Secret as the API server keeps it: `stringData` is for writing only.
fn stored(mut object: Value) -> Value {
    if object["kind"] == "Secret"
        && let Some(Value::Object(texts)) = object.as_object_mut().and_then(|fields| fields.remove("stringData"))
    {
        if !object["data"].is_object() {
            object["data"] = json!({});
        }
        for (key, text) in texts.iter().filter_map(|(key, text)| Some((key, text.as_str()?))) {
            object["data"][key] = STANDARD.encode(text).into();
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_data_is_stored_as_data_over_what_is_there() {
        let secret = json!({
            "kind": "Secret", "metadata": {"name": "a"}, "data": {"x": "b2xk", "y": "eQ=="}, "stringData": {"x": "new"},
        });
        let objects = Objects::new([&secret]);
        let stored = objects.get("Secret", "default", "a").unwrap();
        assert_eq!(stored["data"], json!({"x": "bmV3", "y": "eQ=="}));
        assert!(stored.get("stringData").is_none());
    }

    #[test]
    fn what_is_not_there_is_noted_once() {
        let objects = Objects::default();
        for path in [
            "/api/v1/namespaces/shop/secrets/broker",
            "/api/v1/namespaces/shop/secrets/broker",
            "/apis/keda.sh/v1alpha1/clustertriggerauthentications/vault",
        ] {
            assert_eq!(objects.answer(path).status(), StatusCode::NOT_FOUND);
        }
        assert_eq!(objects.missed(), ["Secret shop/broker", "ClusterTriggerAuthentication vault"]);
        assert!(objects.missed().is_empty());
    }
}
