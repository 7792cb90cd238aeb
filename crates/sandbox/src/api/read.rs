//! Reading objects: one, or a list.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};

use super::failure::Failure;
use super::negotiate::View;
use super::query::VersionMatch;
use super::resource::Resource;
use super::table;
use super::world::{Call, World};
use crate::store::Object;

/// The `PartialObjectMetadata` of an object.
pub(super) fn metadata_only(value: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": value["metadata"]})
}

/// One object in the wanted form, as JSON text.
pub(super) fn rendered(call: &Call<'_>, object: &Object, view: View) -> Bytes {
    match view {
        View::Table => {
            let metadata = json!({"resourceVersion": object.revision.to_string()});
            let include = call.query.include_object.as_deref();
            table::of(call.resource, &[object], metadata, include, call.now).to_string().into()
        }
        View::Metadata => metadata_only(&object.value).to_string().into(),
        View::Object | View::Discovery => shown(call.resource, object),
    }
}

/// The object as JSON text; shared if the stored form is the shown one.
fn shown(resource: &Resource, object: &Object) -> Bytes {
    match resource.shown(object) {
        std::borrow::Cow::Borrowed(_) => object.json().clone(),
        std::borrow::Cow::Owned(value) => value.to_string().into(),
    }
}

/// The object of that name.
pub(super) fn get(world: &World, call: &Call<'_>, name: &str, view: View) -> Result<Bytes, Failure> {
    let found = world.store.get(&call.resource.collection, call.namespace, name);
    let object = found.ok_or_else(|| call.resource.not_found(name))?;
    Ok(rendered(call, object, view))
}

/// The objects that match the selectors, of one namespace, or of all if it is empty.
pub(super) fn list(world: &World, call: &Call<'_>, view: View) -> Result<Bytes, Failure> {
    let latest = world.store.revision();
    match call.query.resource_version {
        Some(asked) if asked > latest => return Err(Failure::too_large_version(asked, latest)),
        Some(asked) if call.query.version_match == Some(VersionMatch::Exact) && asked != latest => {
            return Err(Failure::expired(asked, latest));
        }
        _ => {}
    }
    let objects = matching(world, call);
    let metadata = json!({"resourceVersion": latest.to_string()});
    if view == View::Table {
        let include = call.query.include_object.as_deref();
        return Ok(table::of(call.resource, &objects, metadata, include, call.now).to_string().into());
    }
    let (kind, version) = match view {
        View::Metadata => ("PartialObjectMetadataList", "meta.k8s.io/v1".to_owned()),
        _ => (&*call.resource.list_kind, call.resource.api_version()),
    };
    let mut body = BytesMut::new();
    let head = json!({"kind": kind, "apiVersion": version, "metadata": metadata}).to_string();
    body.put(head.trim_end_matches('}').as_bytes());
    body.put(&b"},\"items\":["[..]);
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            body.put_u8(b',');
        }
        body.put(rendered(call, object, view));
    }
    body.put(&b"]}"[..]);
    Ok(body.freeze())
}

/// The stored objects that a call's namespace and selectors leave.
pub(super) fn matching<'a>(world: &'a World, call: &'a Call<'_>) -> Vec<&'a Object> {
    let namespace = Some(call.namespace).filter(|namespace| !namespace.is_empty());
    let query = call.query;
    world
        .store
        .list(&call.resource.collection, namespace)
        .map(|object| &**object)
        .filter(|object| query.labels.matches(&object.value) && query.fields.matches(&object.value))
        .collect()
}
