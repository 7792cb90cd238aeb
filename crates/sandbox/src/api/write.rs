//! Creating and changing objects: from what is sent to what is stored.
//!
//! A write is prepared, which reads and checks, and then committed, which changes. In between an admission webhook may be
//! asked, while others go on: what was prepared on a state that is no more is not committed.

use std::sync::Arc;

use serde_json::{Value, json};

use super::admission::{HookOperation, Question};
use super::admit::{admit, admit_patched, refuse_others, settle};
use super::failure::{Cause, Failure};
use super::fields::{self, Managers, Operation, Writer};
use super::names::name_for;
use super::patch::Patch;
use super::resource::{Form, Generation, Resource};
use super::world::{Call, World};
use super::{cel, crd, delete, scale, seconds, validation};
use crate::store::Object;

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
    /// The replicas, through the scale.
    Scale,
}

impl Part {
    pub(crate) fn subresource(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Status => "status",
            Self::Scale => "scale",
        }
    }
}

/// A write that has been checked and not been made.
pub(crate) struct Prepared {
    /// The state that it starts from; `None` for a new object.
    pub old: Option<Arc<Object>>,
    /// The state after it.
    pub value: Value,
    pub warnings: Vec<String>,
    part: Part,
    made: Definition,
}

impl Prepared {
    /// Whether admission webhooks are asked: about writes of objects, not of their subresources.
    pub(crate) fn asks(&self) -> bool {
        self.part == Part::Whole
    }

    /// What they are asked.
    pub(crate) fn question(&self, resource: &Resource) -> Question<'_> {
        let old = self.old.as_ref().map(|old| resource.shown(old).into_owned());
        let new = Object::new(self.value.clone(), self.old.as_ref().map_or(0, |old| old.revision));
        let new = if self.old.is_some() { new } else { new.unstored() };
        Question {
            operation: if old.is_some() { HookOperation::Update } else { HookOperation::Create },
            name: self.value["metadata"]["name"].as_str().unwrap_or_default(),
            object: resource.shown(&new).into_owned(),
            old: old.unwrap_or_default(),
        }
    }
}

/// Makes a prepared write; `None`: the object has changed since.
pub(crate) fn commit(world: &mut World, call: &Call<'_>, prepared: Prepared) -> Result<Option<Written>, Failure> {
    let Prepared { old, value, warnings, made, .. } = prepared;
    let resource = call.resource;
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    let present = world.store.get(&resource.collection, call.namespace, name);
    let object = match &old {
        None if present.is_some() => return Err(Failure::already_exists(&resource.group, &resource.plural, name)),
        None => {
            ready_for_new(world, call, name)?;
            None
        }
        Some(old) if present.is_none_or(|present| present.revision != old.revision) => return Ok(None),
        Some(old) => Some(old),
    };
    if let Some(old) = object.filter(|old| old.value == value) {
        return Ok(Some(Written { object: old.clone(), warnings }));
    }
    if call.query.dry_run {
        let revision = object.map_or(0, |old| old.revision);
        let mut rehearsed = Object::new(value, revision);
        if object.is_none() {
            // What has not been stored has no version.
            rehearsed = rehearsed.unstored();
        }
        return Ok(Some(Written { object: Arc::new(rehearsed), warnings }));
    }
    made.serve(world);
    let stored = world.store.put(&resource.collection, value);
    if object.is_some() {
        delete::after_update(world, resource, &stored);
    }
    Ok(Some(Written { object: stored, warnings }))
}

/// Prepares the creation of an object.
pub(crate) fn create(world: &mut World, call: &Call<'_>, body: Value) -> Result<Prepared, Failure> {
    check_namespace(&body, call.namespace)?;
    let mut warnings = Vec::new();
    let value = admit(call, body, &mut warnings)?;
    if value["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
        return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
    }
    born(world, call, value, None, warnings)
}

/// The common end of all creations; `owners` are known if the object is applied.
fn born(
    world: &mut World,
    call: &Call<'_>,
    mut value: Value,
    owners: Option<Managers>,
    mut warnings: Vec<String>,
) -> Result<Prepared, Failure> {
    let resource = call.resource;
    let name = name_for(world, resource, call.namespace, &value)?;
    ready_for_new(world, call, &name)?;
    let identity = world.store.next_identity();
    let given = Managers::before(&Value::Null, &value);
    let metadata = &mut value["metadata"];
    metadata["name"] = name.as_str().into();
    if resource.namespaced {
        metadata["namespace"] = call.namespace.into();
    }
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation", "managedFields"] {
        remove(metadata, field);
    }
    if resource.status {
        remove(&mut value, "status");
    }
    if let Form::Builtin(row) = &resource.form {
        (row.default)(&mut value);
    }
    let owners = match (owners, given) {
        (Some(owners), _) => Some(owners),
        (None, Some(mut owners)) => {
            let now = seconds(call.now);
            let skeleton = match resource.form {
                Form::Builtin(_) => resource.tree.skeleton(),
                Form::Custom(_) => json!({}),
            };
            owners.updated(&resource.tree, &skeleton, &value, &writer(call, Part::Whole, Operation::Update, &now));
            Some(owners)
        }
        (None, None) => None,
    };
    let metadata = &mut value["metadata"];
    metadata["uid"] = format!("00000000-0000-4000-8000-{identity:012x}").into();
    metadata["creationTimestamp"] = seconds(call.now).into();
    if resource.generation() != Some(Generation::Never) {
        metadata["generation"] = 1.into();
    }
    own(metadata, owners.as_ref());
    if let Form::Builtin(row) = &resource.form {
        (row.birth)(&mut value, identity);
        world.give_address(resource, &mut value, identity);
    }
    validate(resource, &value, None, &name, &mut warnings)?;
    if world.store.get(&resource.collection, call.namespace, &name).is_some() {
        return Err(Failure::already_exists(&resource.group, &resource.plural, &name));
    }
    warn_of_finalizers(resource, &value, None, &mut warnings);
    let made = Definition::of(resource, &mut value, call, &mut warnings)?;
    Ok(Prepared { old: None, value, warnings, part: Part::Whole, made })
}

/// Who writes.
fn writer<'a>(call: &'a Call<'_>, part: Part, operation: Operation, time: &'a str) -> Writer<'a> {
    Writer {
        name: call.writer,
        operation,
        api_version: call.api_version,
        subresource: part.subresource(),
        status_apart: call.resource.status,
        status_alone: matches!(call.resource.form, Form::Custom(_)),
        time,
    }
}

/// Notes the owners, of which there may be none.
fn own(metadata: &mut Value, owners: Option<&Managers>) {
    match owners.filter(|owners| !owners.is_empty()) {
        Some(owners) => metadata["managedFields"] = owners.written(),
        None => remove(metadata, "managedFields"),
    }
}

/// Prepares the replacement of an object, or of its status, by what the client sent.
pub(crate) fn update(
    world: &mut World,
    call: &Call<'_>,
    name: &str,
    body: Value,
    part: Part,
) -> Result<Prepared, Failure> {
    let old = existing(world, call, name)?;
    check_namespace(&body, call.namespace)?;
    check_name(&body, name)?;
    let mut warnings = Vec::new();
    let value = admit(call, body, &mut warnings)?;
    check_version(call.resource, &old, &value)?;
    check_uid(call.resource, &old, &value)?;
    replace(call, &old, value, part, None, warnings)
}

/// Prepares the change of an object, or of its status, by a patch.
pub(crate) fn patch(
    world: &mut World,
    call: &Call<'_>,
    name: &str,
    patch: &Patch,
    part: Part,
) -> Result<Prepared, Failure> {
    if let Patch::Apply(config) = patch {
        return apply(world, call, name, config, part);
    }
    let old = existing(world, call, name)?;
    let patched = patch.applied(&call.resource.shown(&old), call.resource.described().as_deref())?;
    check_name(&patched, name)?;
    check_namespace(&patched, call.namespace)?;
    let mut warnings = Vec::new();
    let value = admit_patched(call, patched, |patched| patch.shown(patched), &mut warnings)?;
    check_version(call.resource, &old, &value)?;
    let uid = &value["metadata"]["uid"];
    // On a real server, too, a patch of a custom resource's status does not look at the identity.
    let looked_at = part == Part::Whole || matches!(call.resource.form, Form::Builtin(_));
    if looked_at && *uid != *old.uid() {
        return Err(call.resource.invalid(name, &[Cause::invalid("metadata.uid", uid, "field is immutable")]));
    }
    replace(call, &old, value, part, None, warnings)
}

/// Prepares a server-side apply, which creates what is not there.
fn apply(world: &mut World, call: &Call<'_>, name: &str, config: &Value, part: Part) -> Result<Prepared, Failure> {
    let resource = call.resource;
    let old = world.store.get(&resource.collection, call.namespace, name).cloned();
    let mut config = config.clone();
    if !config["metadata"]["managedFields"].is_null() {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    check_name(&config, name)?;
    check_namespace(&config, call.namespace)?;
    refuse_others(call, &mut config)?;
    match part {
        Part::Status => {
            config = json!({
                    "apiVersion": config["apiVersion"], "kind": config["kind"], "metadata": {"name": name}, "status": config["status"],
            })
        }
        _ if resource.status => remove(&mut config, "status"),
        _ => {}
    }
    let now = seconds(call.now);
    let writer = writer(call, part, Operation::Apply, &now);
    let Some(old) = old else {
        if part != Part::Whole {
            return Err(resource.not_found(name));
        }
        let applied = fields::applied(&resource.tree, &json!({}), &config, &Managers::default(), &writer, true);
        let (_, owners) = applied.map_err(|_| resource.stale(name))?;
        settle(resource, &mut config);
        return born(world, call, config, Some(owners), Vec::new());
    };
    let mut owners = Managers::of(&old.value);
    if owners.is_empty() {
        owners.adopt(&resource.tree, &old.value, &writer);
    }
    let applied = |force: bool| fields::applied(&resource.tree, &old.value, &config, &owners, &writer, force);
    let outcome = match applied(call.query.force) {
        Err(conflicts) => {
            // What kubectl applied on its own side and nobody has changed since is its own.
            let own = fields::applied_by_client(&resource.tree, &old.value, call.writer);
            let others: Vec<_> = conflicts.into_iter().filter(|conflict| !own.contains(&conflict.path)).collect();
            if others.is_empty() { applied(true) } else { Err(others) }
        }
        sound => sound,
    };
    let (mut next, owners) = outcome.map_err(|conflicts| {
        let pairs: Vec<_> = conflicts.into_iter().map(|conflict| (conflict.manager, conflict.path)).collect();
        Failure::apply_conflict(&pairs)
    })?;
    if call.writer == fields::KUBECTL {
        fields::note_applied(&mut next, &config);
    }
    settle(resource, &mut next);
    check_version(resource, &old, &next)?;
    check_uid(resource, &old, &next)?;
    replace(call, &old, next, part, Some(owners), Vec::new())
}

/// Prepares a change of an object's replicas through its scale; `change` makes the wanted Scale of the present one.
pub(crate) fn rescale(
    world: &mut World,
    call: &Call<'_>,
    name: &str,
    change: &dyn Fn(Value) -> Result<Value, Failure>,
) -> Result<Prepared, Failure> {
    let old = existing(world, call, name)?;
    let paths = call.resource.scale.as_ref().ok_or_else(Failure::no_such_path)?;
    let shown = call.resource.shown(&old);
    let wanted = change(scale::of(paths, &shown))?;
    let value = scale::applied(call.resource, paths, &shown, &wanted)?;
    check_version(call.resource, &old, &value)?;
    check_uid(call.resource, &old, &value)?;
    replace(call, &old, value, Part::Scale, None, Vec::new())
}

fn existing(world: &World, call: &Call<'_>, name: &str) -> Result<Arc<Object>, Failure> {
    let found = world.store.get(&call.resource.collection, call.namespace, name);
    found.cloned().ok_or_else(|| call.resource.not_found(name))
}

/// The common end of all changes of an existing object; `owners` are known if it is applied.
fn replace(
    call: &Call<'_>,
    old: &Arc<Object>,
    value: Value,
    part: Part,
    owners: Option<Managers>,
    mut warnings: Vec<String>,
) -> Result<Prepared, Failure> {
    let resource = call.resource;
    let before = match part {
        Part::Whole => Managers::before(&old.value, &value),
        Part::Status | Part::Scale => Some(Managers::of(&old.value)),
    };
    let mut next = match part {
        Part::Whole | Part::Scale => {
            let mut next = value;
            carry(&mut next["metadata"], &old.value["metadata"]);
            if resource.status {
                copy_field(&mut next, &old.value, "status");
            }
            next
        }
        Part::Status => with_status(resource, value, &old.value),
    };
    if let Form::Builtin(row) = &resource.form {
        (row.default)(&mut next);
    }
    next["metadata"]["resourceVersion"] = old.value["metadata"]["resourceVersion"].clone();
    let owners = owners.or_else(|| {
        // Whoever wished for no owners gets none until the first apply.
        let mut owners = before.filter(|before| !before.is_empty())?;
        let now = seconds(call.now);
        owners.updated(&resource.tree, &old.value, &next, &writer(call, part, Operation::Update, &now));
        Some(owners)
    });
    let same = owners.as_ref().is_some_and(|owners| owners.same_but_for_times(&Managers::of(&old.value)));
    if same {
        copy_field(&mut next["metadata"], &old.value["metadata"], "managedFields");
    } else {
        own(&mut next["metadata"], owners.as_ref());
    }
    validate(resource, &next, Some(&old.value), &old.name, &mut warnings)?;
    warn_of_finalizers(resource, &next, Some(&old.value), &mut warnings);
    let made = Definition::of(resource, &mut next, call, &mut warnings)?;
    if let Some(generation) = old.value["metadata"]["generation"].as_i64() {
        let step = i64::from(part != Part::Status && new_generation(resource, &next, &old.value));
        next["metadata"]["generation"] = (generation + step).into();
    }
    Ok(Prepared { old: Some(old.clone()), value: next, warnings, part, made })
}

/// An object with another status. Of a kind of Kubernetes, but for a Deployment's labels, metadata come along.
fn with_status(resource: &Resource, value: Value, old: &Value) -> Value {
    let mut next = old.clone();
    copy_field(&mut next, &value, "status");
    if let Form::Builtin(_) = resource.form {
        let mut metadata = value["metadata"].clone();
        carry(&mut metadata, &old["metadata"]);
        if &*resource.collection == "deployments.apps" {
            copy_field(&mut metadata, &old["metadata"], "labels");
        }
        next["metadata"] = metadata;
    }
    next
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

/// The object that is sent to an object's path must have its name.
pub(super) fn check_name(value: &Value, name: &str) -> Result<(), Failure> {
    let message = match value["metadata"]["name"].as_str().unwrap_or_default() {
        given if given == name => return Ok(()),
        "" => format!("the name of the object ({name} based on URL) was undeterminable: name must be provided"),
        given => format!("the name of the object ({given}) does not match the name on the URL ({name})"),
    };
    Err(Failure::bad_request(message))
}

pub(super) fn check_namespace(value: &Value, namespace: &str) -> Result<(), Failure> {
    let given = value["metadata"]["namespace"].as_str().unwrap_or_default();
    if given.is_empty() || given == namespace {
        return Ok(());
    }
    let message = "the namespace of the provided object does not match the namespace sent on the request";
    Err(Failure::bad_request(message))
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

fn validate(
    resource: &Resource,
    value: &Value,
    old: Option<&Value>,
    name: &str,
    warnings: &mut Vec<String>,
) -> Result<(), Failure> {
    let mut causes = Vec::new();
    validation::metadata(resource.naming(), value, old, &mut causes);
    validation::finalizers(value, matches!(resource.form, Form::Custom(_)), &mut causes);
    match &resource.form {
        Form::Builtin(row) => (row.validate)(value, old, &mut causes),
        Form::Custom(form) => {
            form.schema.check(value, old, "", &mut causes);
            if form.has_rules && causes.iter().any(Cause::is_blocking) {
                let detail = "some validation rules were not checked because the object was invalid; correct the \
                    existing errors to complete validation";
                causes.push(Cause::invalid_text("<nil>", "null", detail));
            } else if form.has_rules {
                cel::check(&form.schema, value, old, &mut causes, warnings);
            }
        }
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
