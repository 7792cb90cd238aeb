//! Puts manifests on an API server.

use std::time::Duration;

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, GetParams, Patch, PatchParams, ValidationDirective};
use kube::core::{GroupVersionKind, TypeMeta};
use kube::discovery::{ApiResource, Scope};
use serde_json::Value;

use crate::manifests::{Manifest, Place};
use crate::merge;

/// The API server has this long for one manifest.
const PATIENCE: Duration = Duration::from_secs(30);
/// Times that a change is made again after somebody else has written first.
const CONFLICTS: u32 = 5;

/// A manifest was refused; prints as `file:line: Kind namespace/name: what the API server said`.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {title}: {message}")]
pub struct Error {
    place: String,
    title: String,
    message: String,
}

/// An object as it is after a manifest was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its name, which the API server may have made.
    pub name: String,
    /// It was not there before.
    pub created: bool,
}

/// Creates the manifest's object, or merges the manifest into the one that is there.
///
/// # Errors
/// The API server does not know the kind, refuses the object, or does not answer within 30 s.
pub async fn apply(client: &Client, manifest: &Manifest) -> Result<Applied, Error> {
    within(manifest, put(client, manifest.object.clone())).await
}

/// Brings what has changed in a manifest since `before` to its object: nothing else is written, so that what others have
/// changed there stays. Creates the object where it is not there.
///
/// # Errors
/// Those of [`apply`].
pub async fn change(client: &Client, before: &Value, manifest: &Manifest) -> Result<Applied, Error> {
    let changed = async {
        let mut object = manifest.object.clone();
        let api = locate(client, &mut object).await?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let mut conflicts = 0;
        loop {
            let present = match read(client, &api, name).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => return put(client, object).await,
                found => found.map_err(|error| sentence(&error))?,
            };
            let mut patch = merge::patch(before, &manifest.object, &present);
            if patch.as_object().is_some_and(|fields| !fields.is_empty()) {
                // Lists are written as a whole, and were merged with those that were read.
                patch["metadata"]["resourceVersion"] = present["metadata"]["resourceVersion"].clone();
                match api.patch(name, &strict(), &Patch::Merge(&patch)).await {
                    Err(kube::Error::Api(status)) if status.is_conflict() && conflicts < CONFLICTS => {
                        conflicts += 1;
                        continue;
                    }
                    outcome => drop(outcome.map_err(|error| sentence(&error))?),
                }
            }
            return Ok(Applied { name: name.to_owned(), created: false });
        }
    };
    within(manifest, changed).await
}

/// Deletes a manifest's object of that name, and what belongs to it; one that is not there is no error.
///
/// # Errors
/// The API server refuses, or does not answer within 30 s.
pub async fn delete(client: &Client, manifest: &Manifest, name: &str) -> Result<(), Error> {
    let deleted = async {
        let mut object = manifest.object.clone();
        let api = locate(client, &mut object).await?;
        match api.delete(name, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            outcome => outcome.map(drop).map_err(|error| sentence(&error)),
        }
    };
    within(manifest, deleted).await
}

async fn within<T>(manifest: &Manifest, work: impl Future<Output = Result<T, String>>) -> Result<T, Error> {
    let failed = |message: String| Error { place: manifest.place.to_string(), title: manifest.title(), message };
    let outcome = tokio::time::timeout(PATIENCE, work).await;
    outcome.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs()))).map_err(failed)
}

/// Makes a namespace, unless it is there.
///
/// # Errors
/// The name is no namespace's.
pub async fn namespace(client: &Client, name: &str) -> Result<(), Error> {
    let object = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let place = Place { file: "--cluster-object-namespace".into(), line: 1 };
    apply(client, &Manifest { place, object }).await.map(drop)
}

async fn put(client: &Client, mut object: Value) -> Result<Applied, String> {
    let api = locate(client, &mut object).await?;
    let given = object["metadata"]["name"].as_str().unwrap_or_default();
    match create(client, &api, &object).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let patched = api.patch(given, &strict(), &Patch::Merge(&object)).await;
            patched.map_err(|error| sentence(&error))?;
            Ok(Applied { name: given.to_owned(), created: false })
        }
        created => {
            let created = created.map_err(|error| sentence(&error))?;
            Ok(Applied { name: created["metadata"]["name"].as_str().unwrap_or(given).to_owned(), created: true })
        }
    }
}

/// The object as it is.
async fn read(client: &Client, api: &Api<DynamicObject>, name: &str) -> kube::Result<Value> {
    let request = kube::core::Request::new(api.resource_url()).get(name, &GetParams::default());
    let request = request.map_err(kube::Error::BuildRequest)?;
    // Not kube's own parsing: it logs the whole object when it fails.
    let text = client.request_text(request).await?;
    serde_json::from_str(&text).map_err(kube::Error::SerdeError)
}

/// A misspelt field must not be dropped without a word.
fn strict() -> PatchParams {
    PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::default() }
}

/// Where objects of a manifest's kind and namespace are; an object without a namespace that needs one gets the default one.
async fn locate(client: &Client, object: &mut Value) -> Result<Api<DynamicObject>, String> {
    let types: TypeMeta = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let kind = GroupVersionKind::try_from(&types).map_err(|error| error.to_string())?;
    let (resource, capabilities) =
        kube::discovery::pinned_kind(client, &kind).await.map_err(|error| match is_unknown(&error) {
            true => format!("no kind {} in {} is served here", kind.kind, types.api_version),
            false => sentence(&error),
        })?;
    Ok(api(client, &resource, capabilities.scope == Scope::Namespaced, object))
}

/// `Api::create` with strict validation of fields, which kube's parameters of a creation do not offer.
async fn create(client: &Client, api: &Api<DynamicObject>, object: &Value) -> kube::Result<Value> {
    let request = http::Request::post(format!("{}?fieldValidation=Strict", api.resource_url()))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(object.to_string().into_bytes())
        .map_err(kube::core::request::Error::BuildRequest)
        .map_err(kube::Error::BuildRequest)?;
    client.request(request).await
}

/// Whether discovery has found that there is no such kind, group or version.
fn is_unknown(error: &kube::Error) -> bool {
    match error {
        kube::Error::Discovery(_) => true,
        kube::Error::Api(status) => status.is_not_found(),
        _ => false,
    }
}

fn api(client: &Client, resource: &ApiResource, namespaced: bool, object: &mut Value) -> Api<DynamicObject> {
    if !namespaced {
        return Api::all_with(client.clone(), resource);
    }
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
    object["metadata"]["namespace"] = namespace.clone().into();
    Api::namespaced_with(client.clone(), &namespace, resource)
}

/// What the API server said, without the client library's wrapping.
pub fn sentence(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
