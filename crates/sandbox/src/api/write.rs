//! Creating and changing objects.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::crd;
use super::failure::{Cause, Failure};
use super::patch::Patch;
use super::query::FieldValidation;
use super::resource::{Form, Generation, Resource};
use super::scale;
use super::selector::plain_text;
use super::validation;
use super::world::{Call, World};
use super::{delete, seconds};
use crate::store::Object;

/// Characters of generated names: no vowels and nothing that looks like another.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Longest name to which a suffix is added.
const LONGEST_GENERATED: usize = 58;

/// The outcome of a write.
#[derive(Debug)]
pub(crate) struct Written {
    pub object: Arc<Object>,
    pub warnings: Vec<String>,
}

/// Which side of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but the status, where that is a subresource.
    Whole,
    Status,
}

/// Creates an object.
pub(crate) fn create(world: &mut World, call: &Call<'_>, body: Value) -> Result<Written, Failure> {
    let resource = call.resource;
    let mut warnings = Vec::new();
    check_namespace(&body, call.namespace)?;
    let mut value = admit(call, body, &mut warnings)?;
    if value["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
        return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let name = name_for(world, resource, call.namespace, &value)?;
    ready_for_new(world, call, &name)?;
    let identity = world.store.next_identity();
    let metadata = &mut value["metadata"];
    metadata["name"] = name.as_str().into();
    if resource.namespaced {
        metadata["namespace"] = call.namespace.into();
    }
    metadata["uid"] = format!("00000000-0000-4000-8000-{identity:012x}").into();
    metadata["creationTimestamp"] = seconds(call.now).into();
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        remove(metadata, field);
    }
    if resource.generation() != Some(Generation::Never) {
        metadata["generation"] = 1.into();
    }
    if resource.status {
        remove(&mut value, "status");
    }
    if let Form::Builtin(row) = &resource.form {
        (row.default)(&mut value);
        (row.birth)(&mut value, identity);
    }
    validate(resource, &value, None, &name)?;
    if world.store.get(&resource.collection, call.namespace, &name).is_some() {
        return Err(Failure::already_exists(&resource.group, &resource.plural, &name));
    }
    warn_of_finalizers(resource, &value, None, &mut warnings);
    let made = Definition::of(resource, &mut value, call, &mut warnings)?;
    if call.query.dry_run {
        return Ok(Written { object: Arc::new(Object::new(value, world.store.revision())), warnings });
    }
    made.serve(world);
    Ok(Written { object: world.store.put(&resource.collection, value), warnings })
}

/// Replaces an object, or its status, with what the client sent.
pub(crate) fn update(
    world: &mut World,
    call: &Call<'_>,
    name: &str,
    body: Value,
    part: Part,
) -> Result<Written, Failure> {
    let old = existing(world, call, name)?;
    check_namespace(&body, call.namespace)?;
    check_name(&body, name)?;
    let mut warnings = Vec::new();
    let value = admit(call, body, &mut warnings)?;
    check_version(call.resource, &old, &value)?;
    check_uid(call.resource, &old, &value)?;
    replace(world, call, &old, value, part, warnings)
}

/// Changes an object, or its status, by a patch.
pub(crate) fn patch(
    world: &mut World,
    call: &Call<'_>,
    name: &str,
    patch: &Patch,
    part: Part,
) -> Result<Written, Failure> {
    let old = existing(world, call, name)?;
    let patched = patch.applied(&call.resource.shown(&old))?;
    check_name(&patched, name)?;
    check_namespace(&patched, call.namespace)?;
    let mut warnings = Vec::new();
    let value = admit(call, patched, &mut warnings)?;
    check_version(call.resource, &old, &value)?;
    let uid = &value["metadata"]["uid"];
    // On a real server, too, a patch of a custom resource's status does not look at the identity.
    let looked_at = part == Part::Whole || matches!(call.resource.form, Form::Builtin(_));
    if looked_at && *uid != *old.uid() {
        return Err(call.resource.invalid(name, &[Cause::invalid("metadata.uid", uid, "field is immutable")]));
    }
    replace(world, call, &old, value, part, warnings)
}

/// Changes the replicas of an object through its scale; `change` makes the wanted Scale of the present one.
pub(crate) fn rescale(
    world: &mut World,
    call: &Call<'_>,
    name: &str,
    change: impl FnOnce(Value) -> Result<Value, Failure>,
) -> Result<Written, Failure> {
    let old = existing(world, call, name)?;
    let paths = call.resource.scale.as_ref().ok_or_else(Failure::no_such_path)?;
    let shown = call.resource.shown(&old);
    let wanted = change(scale::of(paths, &shown))?;
    let value = scale::applied(call.resource, paths, &shown, &wanted)?;
    check_version(call.resource, &old, &value)?;
    check_uid(call.resource, &old, &value)?;
    replace(world, call, &old, value, Part::Whole, Vec::new())
}

fn existing(world: &World, call: &Call<'_>, name: &str) -> Result<Arc<Object>, Failure> {
    let found = world.store.get(&call.resource.collection, call.namespace, name);
    found.cloned().ok_or_else(|| call.resource.not_found(name))
}

/// The common end of all changes of an existing object.
fn replace(
    world: &mut World,
    call: &Call<'_>,
    old: &Arc<Object>,
    value: Value,
    part: Part,
    mut warnings: Vec<String>,
) -> Result<Written, Failure> {
    let resource = call.resource;
    let mut next = match part {
        Part::Whole => {
            let mut next = value;
            carry(&mut next["metadata"], &old.value["metadata"]);
            if resource.status {
                copy_field(&mut next, &old.value, "status");
            }
            next
        }
        Part::Status => {
            let mut next = old.value.clone();
            copy_field(&mut next, &value, "status");
            next
        }
    };
    if let Form::Builtin(row) = &resource.form {
        (row.default)(&mut next);
    }
    validate(resource, &next, Some(&old.value), &old.name)?;
    warn_of_finalizers(resource, &next, Some(&old.value), &mut warnings);
    let made = Definition::of(resource, &mut next, call, &mut warnings)?;
    if let Some(generation) = old.value["metadata"]["generation"].as_i64() {
        let step = i64::from(new_generation(resource, &next, &old.value));
        next["metadata"]["generation"] = (generation + step).into();
    }
    next["metadata"]["resourceVersion"] = old.value["metadata"]["resourceVersion"].clone();
    if next == old.value {
        return Ok(Written { object: old.clone(), warnings });
    }
    if call.query.dry_run {
        return Ok(Written { object: Arc::new(Object::new(next, old.revision)), warnings });
    }
    made.serve(world);
    let object = world.store.put(&resource.collection, next);
    delete::after_update(world, resource, &object);
    Ok(Written { object, warnings })
}

/// Whoever names a version must mean the present one.
fn check_version(resource: &Resource, old: &Object, value: &Value) -> Result<(), Failure> {
    let metadata = &value["metadata"];
    match metadata["resourceVersion"].as_str().unwrap_or_default() {
        "" | "0" if resource.unconditional() => {}
        "" | "0" => {
            let cause = Cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
            return Err(resource.invalid(&old.name, &[cause]));
        }
        given if given != old.revision.to_string() => return Err(resource.stale(&old.name)),
        _ => {}
    }
    Ok(())
}

/// Whoever names an identity must mean the present object.
fn check_uid(resource: &Resource, old: &Object, value: &Value) -> Result<(), Failure> {
    match value["metadata"]["uid"].as_str().unwrap_or_default() {
        "" => Ok(()),
        given if given == old.uid() => Ok(()),
        given => {
            let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {}", old.uid());
            Err(Failure::conflict(&resource.group, &resource.plural, &old.name, &why))
        }
    }
}

/// What an update cannot change.
fn carry(metadata: &mut Value, old: &Value) {
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "generateName",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        copy_field(metadata, old, field);
    }
}

fn copy_field(value: &mut Value, from: &Value, field: &str) {
    match from.get(field) {
        Some(old) => value[field] = old.clone(),
        None => remove(value, field),
    }
}

fn remove(value: &mut Value, field: &str) {
    if let Some(fields) = value.as_object_mut() {
        fields.shift_remove(field);
    }
}

fn new_generation(resource: &Resource, next: &Value, old: &Value) -> bool {
    let kept = |name: &str| match name {
        "metadata" => false,
        "status" => !resource.status,
        _ => true,
    };
    let names = [next, old].into_iter().filter_map(Value::as_object).flat_map(serde_json::Map::keys);
    let changed = names.filter(|name| kept(name)).any(|name| next[name] != old[name]);
    let annotated = resource.generation() == Some(Generation::SpecOrAnnotations)
        && next["metadata"]["annotations"] != old["metadata"]["annotations"];
    changed || annotated
}

/// Reads a body as an object of the resource, in the stored form.
fn admit(call: &Call<'_>, mut value: Value, warnings: &mut Vec<String>) -> Result<Value, Failure> {
    let resource = call.resource;
    check_kind(&mut value, &resource.api_version(), &resource.kind)?;
    let mut unknown = Vec::new();
    let cannot = |error: String| {
        let (version, kind) = (&resource.version, &resource.kind);
        Failure::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {error}"))
    };
    let mut value = match &resource.form {
        Form::Builtin(row) => {
            let decoded = (row.decode)(value.clone()).map_err(cannot)?;
            lost(&value, &decoded, "", &mut unknown);
            match &row.exchange {
                Some(exchange) => (exchange.stored)(decoded),
                None => decoded,
            }
        }
        Form::Custom(form) => {
            form.schema.prune(&mut value, true, "", &mut unknown);
            let metadata = value["metadata"].take();
            let read: ObjectMeta =
                serde_path_to_error::deserialize(&metadata).map_err(|error| cannot(format!("metadata.{error}")))?;
            value["metadata"] = serde_json::to_value(read).map_err(|error| cannot(error.to_string()))?;
            lost(&metadata, &value["metadata"], "metadata", &mut unknown);
            form.schema.fill(&mut value);
            value["apiVersion"] = super::resource::api_version(&resource.group, &form.storage).into();
            value
        }
    };
    for field in ["managedFields", "selfLink"] {
        remove(&mut value["metadata"], field);
    }
    let lines: Vec<_> = unknown.iter().map(|field| format!("unknown field {field:?}")).collect();
    match call.query.field_validation {
        FieldValidation::Strict if !lines.is_empty() => {
            Err(cannot(format!("strict decoding error: {}", lines.join(", "))))
        }
        FieldValidation::Warn => {
            warnings.extend(lines);
            Ok(value)
        }
        _ => Ok(value),
    }
}

/// Fills in `apiVersion` and `kind`, or refuses others.
pub(super) fn check_kind(value: &mut Value, api_version: &str, kind: &str) -> Result<(), Failure> {
    if !value.is_object() {
        return Err(Failure::bad_request("the body of the request must be an object"));
    }
    for (field, wanted) in [("apiVersion", api_version), ("kind", kind)] {
        match &value[field] {
            Value::Null => value[field] = wanted.into(),
            Value::String(given) if given.is_empty() => value[field] = wanted.into(),
            given if given == wanted => {}
            given => {
                let given = plain_text(given);
                let message = format!("the {field} in the data ({given}) does not match the expected one ({wanted})");
                return Err(Failure::bad_request(message));
            }
        }
    }
    match &value["metadata"] {
        Value::Object(_) => Ok(()),
        Value::Null => {
            value["metadata"] = json!({});
            Ok(())
        }
        other => Err(Failure::bad_request(format!("{kind} cannot be handled: {other} is no metadata"))),
    }
}

/// The object that is sent to an object's path must have its name.
pub(super) fn check_name(value: &Value, name: &str) -> Result<(), Failure> {
    let message = match value["metadata"]["name"].as_str().unwrap_or_default() {
        given if given == name => return Ok(()),
        "" => format!("the name of the object ({name} based on URL) was undeterminable: name must be provided"),
        given => format!("the name of the object ({given}) does not match the name on the URL ({name})"),
    };
    Err(Failure::bad_request(message))
}

/// Collects what was sent and is not in the decoded object.
fn lost(sent: &Value, decoded: &Value, place: &str, unknown: &mut Vec<String>) {
    match (sent, decoded) {
        (Value::Object(sent), Value::Object(decoded)) => {
            for (name, value) in sent.iter().filter(|(_, value)| !value.is_null()) {
                let at = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
                match decoded.get(name) {
                    Some(kept) => lost(value, kept, &at, unknown),
                    None => unknown.push(at),
                }
            }
        }
        (Value::Array(sent), Value::Array(decoded)) => {
            for (index, (sent, decoded)) in sent.iter().zip(decoded).enumerate() {
                lost(sent, decoded, &format!("{place}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

pub(super) fn check_namespace(value: &Value, namespace: &str) -> Result<(), Failure> {
    let given = value["metadata"]["namespace"].as_str().unwrap_or_default();
    if given.is_empty() || given == namespace {
        return Ok(());
    }
    let message = "the namespace of the provided object does not match the namespace sent on the request";
    Err(Failure::bad_request(message))
}

/// The name of a new object, generated where asked.
fn name_for(world: &mut World, resource: &Resource, namespace: &str, value: &Value) -> Result<String, Failure> {
    let metadata = &value["metadata"];
    if let Some(name) = metadata["name"].as_str().filter(|name| !name.is_empty()) {
        return Ok(name.to_owned());
    }
    let Some(prefix) = metadata["generateName"].as_str().filter(|prefix| !prefix.is_empty()) else {
        let cause = Cause::required("metadata.name", "name or generateName is required");
        return Err(resource.invalid("", &[cause]));
    };
    let prefix = match prefix.char_indices().nth(LONGEST_GENERATED) {
        Some((end, _)) => &prefix[..end],
        None => prefix,
    };
    loop {
        let name = format!("{prefix}{}", suffix(world.store.next_identity()));
        if world.store.get(&resource.collection, namespace, &name).is_none() {
            return Ok(name);
        }
    }
}

/// Five characters that look random and follow from the number alone.
fn suffix(number: u64) -> String {
    // The finalizer of SplitMix64: neighbours come out far apart.
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let base = ALPHABET.len() as u64;
    (0..5)
        .map(|_| {
            let index = (mixed % base) as usize;
            mixed /= base;
            char::from(ALPHABET[index])
        })
        .collect()
}

/// New objects need a living namespace and, if custom, a living definition.
fn ready_for_new(world: &World, call: &Call<'_>, name: &str) -> Result<(), Failure> {
    let resource = call.resource;
    if resource.namespaced {
        let namespace = world.store.get("namespaces", "", call.namespace);
        let namespace = namespace.ok_or_else(|| Failure::not_found("", "namespaces", call.namespace))?;
        if !namespace.value["metadata"]["deletionTimestamp"].is_null() {
            return Err(Failure::terminating(&resource.group, &resource.plural, name, call.namespace));
        }
    }
    let definition = world.store.get(delete::DEFINITIONS, "", &resource.collection);
    if definition.is_some_and(|definition| !definition.value["metadata"]["deletionTimestamp"].is_null()) {
        return Err(Failure::method_not_allowed());
    }
    Ok(())
}

fn validate(resource: &Resource, value: &Value, old: Option<&Value>, name: &str) -> Result<(), Failure> {
    let mut causes = Vec::new();
    validation::metadata(resource.naming(), value, old, &mut causes);
    validation::finalizers(value, matches!(resource.form, Form::Custom(_)), &mut causes);
    match &resource.form {
        Form::Builtin(row) => (row.validate)(value, old, &mut causes),
        Form::Custom(form) => form.schema.check(value, "", &mut causes),
    }
    if causes.is_empty() { Ok(()) } else { Err(resource.invalid(name, &causes)) }
}

/// Only custom resources may have finalizers without a domain, of which the writer of a new one is told.
fn warn_of_finalizers(resource: &Resource, value: &Value, old: Option<&Value>, warnings: &mut Vec<String>) {
    if let Form::Custom(_) = &resource.form {
        warnings.extend(validation::discouraged_finalizers(value, old));
    }
}

/// The resources that a CustomResourceDefinition makes; none for any other object.
struct Definition(Vec<Resource>);

impl Definition {
    fn of(
        resource: &Resource,
        value: &mut Value,
        call: &Call<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Failure> {
        if let Form::Custom(_) = &resource.form {
            warnings.extend(crd::warnings(std::slice::from_ref(resource)));
        }
        if &*resource.collection != delete::DEFINITIONS {
            return Ok(Self(Vec::new()));
        }
        let resources = crd::resources(value)?;
        crd::establish(value, call.now);
        warnings.extend(crd::warnings(&resources));
        Ok(Self(resources))
    }

    fn serve(self, world: &mut World) {
        if let Some(first) = self.0.first() {
            world.catalogue.forget(&first.group, &first.plural);
        }
        for resource in self.0 {
            world.catalogue.add(resource);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_suffixes_are_five_of_the_alphabet_and_differ() {
        let all: std::collections::BTreeSet<_> = (1..2000).map(suffix).collect();
        assert_eq!(all.len(), 1999);
        assert!(all.iter().all(|text| text.len() == 5 && text.bytes().all(|byte| ALPHABET.contains(&byte))));
    }

    #[test]
    fn lost_fields_are_named_by_their_place() {
        let mut unknown = Vec::new();
        let sent = json!({"a": {"b": 1, "x": 2, "n": null}, "l": [{"y": 1}]});
        lost(&sent, &json!({"a": {"b": 1}, "l": [{}]}), "", &mut unknown);
        assert_eq!(unknown, ["a.x", "l[0].y"]);
    }
}
