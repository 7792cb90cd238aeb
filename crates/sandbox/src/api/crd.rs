//! CustomResourceDefinitions: their defaults and rules, and the resources that they make.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::defaults::fill;
use super::failure::{Cause, Failure};
use super::jsonpath::JsonPath;
use super::resource::{Column, Form, Naming, Resource, ScalePaths, collection};
use super::rows::ROWS;
use super::schema::{Schema, Type};
use super::validation::misnamed;
use super::{cel, kinds};

/// What a version of a custom resource is checked against and shown by.
#[derive(Debug)]
pub(crate) struct CustomForm {
    pub schema: Arc<Schema>,
    /// Some level of the schema has validation rules.
    pub has_rules: bool,
    pub columns: Vec<(Column, JsonPath)>,
    /// The version in which objects are stored.
    pub storage: String,
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

pub(super) fn default(value: &mut Value) {
    let spec = &mut value["spec"];
    let kind = text(&spec["names"], "kind");
    if let Some(names) = spec.get_mut("names").filter(|names| names.is_object()) {
        fill(names, "singular", kind.to_lowercase());
        fill(names, "listKind", format!("{kind}List"));
    }
    if spec.is_object() {
        fill(spec, "conversion", json!({"strategy": "None"}));
    }
}

pub(super) fn validate(value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &value["spec"];
    let (group, plural) = (text(spec, "group"), text(&spec["names"], "plural"));
    let wanted = format!("{plural}.{group}");
    if value["metadata"]["name"] != *wanted {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", &value["metadata"]["name"], detail));
    }
    for (field, value) in
        [("spec.group", &group), ("spec.names.plural", &plural), ("spec.names.kind", &text(&spec["names"], "kind"))]
    {
        if value.is_empty() {
            causes.push(Cause::required(field, ""));
        }
    }
    group_name(&group, &value["metadata"], causes);
    let scopes = ["Cluster", "Namespaced"].map(Value::from);
    if !scopes.contains(&spec["scope"]) {
        causes.push(Cause::unsupported("spec.scope", &spec["scope"], &scopes));
    }
    let versions = || spec["versions"].as_array().into_iter().flatten();
    if versions().filter(|version| version["storage"] == true).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &spec["versions"], detail));
    }
    let first = &spec["versions"][0]["schema"];
    // A schema that all versions share has its place above them.
    let shared = versions().all(|version| version["schema"] == *first);
    for (index, version) in versions().enumerate() {
        let place = match shared {
            true => "spec.validation.openAPIV3Schema".to_owned(),
            false => format!("spec.versions[{index}].schema.openAPIV3Schema"),
        };
        let schema = &version["schema"]["openAPIV3Schema"];
        if shared && index > 0 {
            // Has been read.
        } else if schema.is_null() {
            causes.push(Cause::required(
                format!("spec.versions[{index}].schema.openAPIV3Schema"),
                "schemas are required",
            ));
        } else if schema["type"] != "object" {
            causes.push(Cause::invalid(format!("{place}.type"), &schema["type"], "must be object at the root"));
        } else {
            Schema::read(schema, &place, causes);
        }
        scale(&version["subresources"]["scale"], &format!("spec.versions[{index}].subresources.scale"), causes);
    }
    if let Some(old) = old {
        for field in ["group", "scope"] {
            if old["spec"][field] != spec[field] {
                causes.push(Cause::invalid(format!("spec.{field}"), &spec[field], "field is immutable"));
            }
        }
    }
}

/// A group is a domain; those of Kubernetes are not for everyone.
fn group_name(group: &str, metadata: &Value, causes: &mut Vec<Cause>) {
    const APPROVAL: &str = "api-approved.kubernetes.io";
    if !group.is_empty() && (!group.contains('.') || misnamed(Naming::Subdomain, group).is_some()) {
        causes.push(Cause::invalid("spec.group", &json!(group), "should be a domain with at least one dot"));
    }
    let protected = [".k8s.io", ".kubernetes.io"].iter().any(|end| group.ends_with(end));
    if protected && metadata["annotations"][APPROVAL].is_null() {
        let detail = "protected groups must have approval annotation \"api-approved.kubernetes.io\"";
        causes.push(Cause::required(format!("metadata.annotations[{APPROVAL}]"), detail));
    }
}

fn scale(scale: &Value, place: &str, causes: &mut Vec<Cause>) {
    if !scale.is_object() {
        return;
    }
    let rules: [(&str, &[&str], bool); 3] = [
        ("specReplicasPath", &[".spec"], true),
        ("statusReplicasPath", &[".status"], true),
        ("labelSelectorPath", &[".spec", ".status"], false),
    ];
    for (field, tops, required) in rules {
        let path = scale[field].as_str().unwrap_or_default();
        if path.is_empty() {
            if required {
                causes.push(Cause::required(format!("{place}.{field}"), ""));
            }
            continue;
        }
        let under = |top: &&str| path.strip_prefix(*top).is_some_and(|rest| rest.starts_with('.'));
        let simple = path.split('.').skip(1).all(|name| !name.is_empty() && !name.contains(['[', ']', '\'', '"']));
        if !simple || !tops.iter().any(under) {
            let detail = format!("should be a simple json path under {}", tops.join(" or "));
            causes.push(Cause::invalid(format!("{place}.{field}"), &scale[field], &detail));
        }
    }
}

/// The served versions of a definition that has passed [`validate`].
pub(super) fn resources(value: &Value) -> Result<Vec<Resource>, Failure> {
    let spec = &value["spec"];
    let (group, plural) = (&spec["group"], &spec["names"]["plural"]);
    if ROWS.iter().any(|row| *group == row.group && *plural == row.plural) {
        let name = text(&value["metadata"], "name");
        return Err(Failure::not_implemented(&format!(
            "a CustomResourceDefinition {name} in place of Kubernetes' own"
        )));
    }
    if spec["conversion"]["strategy"] == "Webhook" {
        return Err(Failure::not_implemented("conversion of custom resources by webhook"));
    }
    let versions = || spec["versions"].as_array().into_iter().flatten();
    let storage = versions().find(|version| version["storage"] == true).map(|version| text(version, "name"));
    let storage = storage.unwrap_or_default();
    versions().filter(|version| version["served"] == true).map(|version| resource(spec, version, &storage)).collect()
}

fn resource(spec: &Value, version: &Value, storage: &str) -> Result<Resource, Failure> {
    let names = &spec["names"];
    let texts = |field: &str| {
        names[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (group, plural) = (text(spec, "group"), text(names, "plural"));
    let subresources = &version["subresources"];
    let mut causes = Vec::new();
    let schema = Arc::new(Schema::read(&version["schema"]["openAPIV3Schema"], "", &mut causes));
    let mut tree = (*schema).clone();
    tree.properties.insert("metadata".to_owned(), kinds::metadata());
    for field in ["apiVersion", "kind"] {
        tree.properties.insert(field.to_owned(), Arc::new(Schema { kind: Some(Type::String), ..Schema::default() }));
    }
    Ok(Resource {
        version: text(version, "name"),
        kind: text(names, "kind"),
        list_kind: text(names, "listKind"),
        singular: text(names, "singular"),
        short_names: texts("shortNames"),
        categories: texts("categories"),
        namespaced: spec["scope"] == "Namespaced",
        status: subresources["status"].is_object(),
        scale: subresources.get("scale").filter(|scale| scale.is_object()).map(scale_paths),
        collection: collection(&group, &plural),
        tree: Arc::new(tree),
        form: Form::Custom(Arc::new(CustomForm {
            has_rules: cel::has_rules(&schema),
            schema,
            columns: columns(&version["additionalPrinterColumns"])?,
            storage: storage.to_owned(),
        })),
        group,
        plural,
    })
}

/// The paths of a scale subresource, from `.a.b` to `/a/b`.
fn scale_paths(scale: &Value) -> ScalePaths {
    let pointer = |field: &str| text(scale, field).replace('.', "/");
    ScalePaths {
        replicas: pointer("specReplicasPath"),
        status_replicas: pointer("statusReplicasPath"),
        selector_text: Some(pointer("labelSelectorPath")),
    }
}

fn columns(value: &Value) -> Result<Vec<(Column, JsonPath)>, Failure> {
    let column = |value: &Value| {
        let path = text(value, "jsonPath");
        let parsed = JsonPath::parse(&path)
            .ok_or_else(|| Failure::not_implemented(&format!("the JSONPath {path:?} of a printer column")))?;
        let column = Column {
            name: Cow::Owned(text(value, "name")),
            kind: Cow::Owned(text(value, "type")),
            format: Cow::Owned(text(value, "format")),
            priority: value["priority"].as_i64().and_then(|priority| i32::try_from(priority).ok()).unwrap_or(0),
        };
        Ok((column, parsed))
    };
    value.as_array().into_iter().flatten().map(column).collect()
}

/// The status of a definition whose resources are served.
pub(super) fn establish(value: &mut Value, now: Timestamp) {
    let names = value["spec"]["names"].clone();
    let storage: Vec<_> = value["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .collect();
    let since = value["status"]["conditions"][0]["lastTransitionTime"].as_str().map(str::to_owned);
    let since = since.unwrap_or_else(|| super::seconds(now));
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": since});
    value["status"] = json!({
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "acceptedNames": names,
        "storedVersions": storage,
    });
}

/// What a writer of a definition or of its objects must know.
pub(super) fn warnings(resources: &[Resource]) -> Vec<String> {
    let mut warnings = Vec::new();
    for resource in resources {
        let Form::Custom(form) = &resource.form else { continue };
        let mut found = Vec::new();
        form.schema.unchecked_formats(&mut found);
        warnings.extend(found.iter().map(|what| format!("{}: the sandbox does not check the {what}", resource.kind)));
    }
    warnings
}
