//! What is served: one row for each kind of Kubernetes, and one made from each version of an installed CRD.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::crd::CustomForm;
use super::failure::{Cause, Failure};
use super::kinds;
use super::rows::ROWS;
use super::schema::Schema;
use crate::store::{Collection, Object};

/// When `metadata.generation` grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    /// The kind has none.
    Never,
    /// With the spec.
    Spec,
    /// With the spec or the annotations: a Deployment copies its annotations to its ReplicaSets.
    SpecOrAnnotations,
}

/// What a name must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// RFC 1123 subdomain, at most 253 characters.
    Subdomain,
    /// RFC 1123 label, at most 63 characters.
    Label,
    /// RFC 1035 label, at most 63 characters.
    Service,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub name: Cow<'static, str>,
    /// JSON type of the cells.
    pub kind: Cow<'static, str>,
    pub format: Cow<'static, str>,
    /// Columns above 0 show only in wide tables.
    pub priority: i32,
}

/// Columns and how to fill them.
pub(crate) struct Columns {
    /// Names; a leading `+` marks a column of wide tables.
    pub names: &'static [&'static str],
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

/// Translation between the stored form of an object and another group's form of it.
pub(crate) struct Exchange {
    /// Group of the stored form.
    pub group: &'static str,
    /// Description of the stored form.
    pub definition: &'static str,
    pub shown: fn(&Value) -> Value,
    pub stored: fn(Value) -> Value,
}

/// A kind of Kubernetes.
pub(crate) struct Row {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub status: bool,
    pub scale: bool,
    pub generation: Generation,
    /// An update without a resource version overwrites.
    pub unconditional: bool,
    pub naming: Naming,
    /// Fields that lists can be narrowed by, besides name and namespace.
    pub selectable: &'static [&'static str],
    /// Name of its description in [`kinds`].
    pub definition: &'static str,
    /// Fills what the API server fills; must not change its own result.
    pub default: fn(&mut Value),
    /// Fills what only a new object gets; the number is unique.
    pub birth: fn(&mut Value, u64),
    /// Checks a new state, against the old one in an update.
    pub validate: fn(&Value, Option<&Value>, &mut Vec<Cause>),
    pub columns: Columns,
    pub exchange: Option<Exchange>,
}

/// Where a scale's numbers are, as JSON pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScalePaths {
    pub replicas: String,
    pub status_replicas: String,
    /// Where the selector stands as text; `None`: it is the object `/spec/selector`.
    pub selector_text: Option<String>,
}

/// Whether a kind comes with Kubernetes or from a CRD.
pub(crate) enum Form {
    Builtin(&'static Row),
    Custom(Arc<CustomForm>),
}

/// One version of one resource.
pub(crate) struct Resource {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub list_kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub status: bool,
    pub scale: Option<ScalePaths>,
    pub collection: Collection,
    /// What the stored form looks like, and which of its fields can be owned.
    pub tree: Arc<Schema>,
    pub form: Form,
}

impl Resource {
    fn of_row(row: &'static Row) -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let scale = row.scale.then(|| ScalePaths {
            replicas: "/spec/replicas".to_owned(),
            status_replicas: "/status/replicas".to_owned(),
            selector_text: None,
        });
        let stored = row.exchange.as_ref().map_or((row.group, row.definition), |other| (other.group, other.definition));
        Self {
            group: row.group.to_owned(),
            version: row.version.to_owned(),
            kind: row.kind.to_owned(),
            list_kind: format!("{}List", row.kind),
            plural: row.plural.to_owned(),
            singular: row.kind.to_lowercase(),
            short_names: owned(row.short_names),
            categories: owned(row.categories),
            namespaced: row.namespaced,
            status: row.status,
            scale,
            collection: collection(stored.0, row.plural),
            tree: kinds::schema(stored.1),
            form: Form::Builtin(row),
        }
    }

    /// `GROUP/VERSION`, or `VERSION` of the core group.
    pub(crate) fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// An object in the form of this version.
    pub(crate) fn shown<'a>(&self, object: &'a Object) -> Cow<'a, Value> {
        match &self.form {
            Form::Builtin(row) => match &row.exchange {
                Some(exchange) => Cow::Owned((exchange.shown)(&object.value)),
                None => Cow::Borrowed(&object.value),
            },
            Form::Custom(_) => {
                let wanted = self.api_version();
                if object.value["apiVersion"] == *wanted {
                    return Cow::Borrowed(&object.value);
                }
                let mut value = object.value.clone();
                value["apiVersion"] = wanted.into();
                Cow::Owned(value)
            }
        }
    }

    /// The description of the form of this version, where it is not the stored one.
    pub(crate) fn described(&self) -> Option<Arc<Schema>> {
        match &self.form {
            Form::Builtin(row) => Some(kinds::schema(row.definition)),
            Form::Custom(_) => None,
        }
    }

    /// When the generation grows. Custom resources have their own rule.
    pub(crate) fn generation(&self) -> Option<Generation> {
        match &self.form {
            Form::Builtin(row) => Some(row.generation),
            Form::Custom(_) => None,
        }
    }

    pub(crate) fn unconditional(&self) -> bool {
        matches!(&self.form, Form::Builtin(row) if row.unconditional)
    }

    pub(crate) fn naming(&self) -> Naming {
        match &self.form {
            Form::Builtin(row) => row.naming,
            Form::Custom(_) => Naming::Subdomain,
        }
    }

    pub(crate) fn selectable(&self) -> &'static [&'static str] {
        match &self.form {
            Form::Builtin(row) => row.selectable,
            Form::Custom(_) => &[],
        }
    }

    /// How a list by a field is refused. Kinds of Kubernetes have three ways to say it.
    pub(crate) fn unselectable(&self, field: &str) -> String {
        let old = ["events", "namespaces", "pods", "secrets", "services"].contains(&&*self.plural);
        match &self.form {
            Form::Builtin(_) if &*self.collection == "jobs.batch" => {
                format!("field label {field:?} not supported for Job")
            }
            Form::Builtin(_) if !old => {
                let known = "only \"metadata.name\", \"metadata.namespace\"";
                format!("{field:?} is not a known field selector: {known}")
            }
            _ => format!("field label not supported: {field}"),
        }
    }

    pub(crate) fn not_found(&self, name: &str) -> Failure {
        Failure::not_found(&self.group, &self.plural, name)
    }

    pub(crate) fn stale(&self, name: &str) -> Failure {
        Failure::stale(&self.group, &self.plural, name)
    }

    pub(crate) fn invalid(&self, name: &str, causes: &[Cause]) -> Failure {
        Failure::invalid(&self.group, &self.kind, name, causes)
    }
}

/// The name under which a resource is stored.
pub(crate) fn collection(group: &str, plural: &str) -> Collection {
    if group.is_empty() { Arc::from(plural) } else { Arc::from(format!("{plural}.{group}")) }
}

/// `GROUP/VERSION`, or `VERSION` of the core group.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// All resources, ordered by group, version and plural.
pub(crate) struct Catalogue {
    resources: BTreeMap<(String, String, String), Arc<Resource>>,
}

impl Catalogue {
    /// The kinds of Kubernetes.
    pub(crate) fn new() -> Self {
        let mut catalogue = Self { resources: BTreeMap::new() };
        for row in ROWS {
            catalogue.add(Resource::of_row(row));
        }
        catalogue
    }

    pub(crate) fn add(&mut self, resource: Resource) {
        let key = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
        self.resources.insert(key, Arc::new(resource));
    }

    /// Takes a custom resource out, all its versions.
    pub(crate) fn forget(&mut self, group: &str, plural: &str) {
        self.resources.retain(|(of_group, _, of_plural), _| of_group != group || of_plural != plural);
    }

    pub(crate) fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// One resource of each collection, for work on everything that is stored.
    pub(crate) fn by_collection(&self, collection: &str) -> Option<&Arc<Resource>> {
        self.resources.values().find(|resource| &*resource.collection == collection)
    }

    /// Every resource, ordered by group, version and plural.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// The resources of one version of a group.
    pub(crate) fn of(&self, group: &str, version: &str) -> impl Iterator<Item = &Arc<Resource>> {
        self.all().filter(move |resource| resource.group == group && resource.version == version)
    }
}
