//! What the CustomResourceDefinitions say of an object. An API server in this process is asked, which answers as a real
//! one does.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::Client;
use serde_json::Value;
use tidemark_admission::Path;
use tidemark_clock::Clock;
use tidemark_sandbox::{Options, Sandbox};
use tidemark_trigger::nearest::nearest;

use super::document::Node;
use super::input::DEFAULT_NAMESPACE;

/// The fields of `metadata` that a manifest may have.
const METADATA: [&str; 16] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
    "clusterName",
];
/// The fields of `metadata` that say something about a new object.
const SENT: [&str; 4] = ["annotations", "generateName", "labels", "name"];

/// What to do with a number, flag or time where a text must be.
const QUOTES: &str = "it must be a text: put it in quotes";

/// Something that a definition says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub path: Path,
    pub message: String,
}

/// A field that no definition knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    pub path: Path,
    /// The field that may have been meant.
    pub nearest: Option<String>,
}

/// The definitions of our kinds.
pub struct Definitions {
    client: Client,
    crds: Vec<CustomResourceDefinition>,
}

impl Definitions {
    /// All of them. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// They are not sound, which tests of this program exclude.
    pub fn new() -> Result<Self, tidemark_sandbox::Error> {
        // The time plays no part.
        let sandbox = Sandbox::new(Clock::starting_at(jiff::Timestamp::UNIX_EPOCH), Options::default());
        let crds = tidemark_api::crds();
        sandbox.install_crds(&crds)?;
        Ok(Self { client: sandbox.client(), crds })
    }

    /// The definition of a kind.
    pub fn of(&self, group: &str, kind: &str) -> Option<&CustomResourceDefinition> {
        self.crds.iter().find(|crd| crd.spec.group == group && crd.spec.names.kind == kind)
    }

    /// The object as it would be stored: without unknown fields, with defaults.
    ///
    /// # Errors
    /// Why it is refused, each fault by itself.
    pub async fn store(
        &self,
        crd: &CustomResourceDefinition,
        object: &Value,
        node: &Node,
    ) -> Result<Value, Vec<Fault>> {
        let mut faults = metadata_faults(object);
        if !faults.is_empty() {
            // The server would tell of no more than the first of these.
            faults.extend(self.ask(crd, &sent(object, false), node).await.err().unwrap_or_default());
            return Err(faults);
        }
        let mut stored = self.ask(crd, &sent(object, true), node).await?;
        for field in ["namespace", "name"] {
            stored["metadata"][field] = object["metadata"][field].clone();
        }
        Ok(stored)
    }

    async fn ask(&self, crd: &CustomResourceDefinition, object: &Value, node: &Node) -> Result<Value, Vec<Fault>> {
        let spec = &crd.spec;
        let place = if spec.scope == "Namespaced" { format!("namespaces/{DEFAULT_NAMESPACE}/") } else { String::new() };
        let (group, plural) = (&spec.group, &spec.names.plural);
        let path = format!("/apis/{group}/{}/{place}{plural}?dryRun=All", tidemark_api::VERSION);
        let request = http::Request::post(path).header("Content-Type", "application/json");
        let whole = |message: String| vec![Fault { path: Path::default(), message }];
        let request = request.body(object.to_string().into_bytes()).map_err(|error| whole(error.to_string()))?;
        let status = match self.client.request(request).await {
            Ok(stored) => return Ok(stored),
            Err(kube::Error::Api(status)) => status,
            Err(error) => return Err(whole(error.to_string())),
        };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        let faults: Vec<_> = causes.filter_map(|cause| fault(&cause.field, &cause.message, node)).collect();
        if faults.is_empty() { Err(whole(status.message.clone())) } else { Err(faults) }
    }

    /// Fields that the server would drop without a word, or refuse where it is asked to be strict.
    pub fn unknown(&self, crd: &CustomResourceDefinition, object: &Value) -> Vec<Unknown> {
        let mut found = Vec::new();
        let schema = crd.spec.versions.first().and_then(|version| version.schema.as_ref());
        let Some(root) = schema.and_then(|schema| schema.open_api_v3_schema.as_ref()) else { return found };
        for (key, value) in object.as_object().into_iter().flatten() {
            let path = Path::of([key.as_str()]);
            match key.as_str() {
                "apiVersion" | "kind" | "status" => {}
                "metadata" => {
                    let fields = value.as_object().into_iter().flatten().map(|(field, _)| field);
                    let unknown = fields.filter(|field| !METADATA.contains(&field.as_str()));
                    found.extend(unknown.map(|field| Unknown {
                        path: path.key(field.as_str()),
                        nearest: nearest(field, METADATA).map(str::to_owned),
                    }));
                }
                _ => match root.properties.as_ref().and_then(|properties| properties.get(key)) {
                    Some(schema) => unknown_within(schema, value, &path, &mut found),
                    None => found.push(Unknown { path, nearest: nearest_of(root, key) }),
                },
            }
        }
        found
    }
}

fn unknown_within(schema: &JSONSchemaProps, value: &Value, path: &Path, found: &mut Vec<Unknown>) {
    match value {
        Value::Object(fields) => {
            let any = match &schema.additional_properties {
                Some(JSONSchemaPropsOrBool::Schema(schema)) => Some(Some(&**schema)),
                Some(JSONSchemaPropsOrBool::Bool(true)) => Some(None),
                _ => schema.x_kubernetes_preserve_unknown_fields.filter(|keeps| *keeps).map(|_| None),
            };
            for (key, value) in fields {
                let at = path.key(key.as_str());
                let known = schema.properties.as_ref().and_then(|properties| properties.get(key));
                match (known.map(Some).or(any), value) {
                    (Some(Some(schema)), value) => unknown_within(schema, value, &at, found),
                    (Some(None), _) | (None, Value::Null) => {}
                    (None, _) => found.push(Unknown { nearest: nearest_of(schema, key), path: at }),
                }
            }
        }
        Value::Array(items) => {
            if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    unknown_within(schema, item, &path.index(index), found);
                }
            }
        }
        _ => {}
    }
}

/// The known field that may have been meant: the one that is spelt most alike, or begins alike.
fn nearest_of(schema: &JSONSchemaProps, key: &str) -> Option<String> {
    let names = || schema.properties.iter().flat_map(|properties| properties.keys());
    let common = |name: &&String| name.chars().zip(key.chars()).take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count();
    let alike = || names().max_by_key(common).filter(|name| common(name) >= 4 && common(name) * 4 >= key.len() * 3);
    nearest(key, names()).or_else(alike).cloned()
}

/// The object as a new one. Files that come out of a cluster have parts that only the server writes.
fn sent(object: &Value, described: bool) -> Value {
    let mut sent = object.clone();
    let named = |field: &str| described || matches!(field, "name" | "generateName");
    let metadata = object["metadata"].as_object().into_iter().flatten();
    let metadata = metadata.filter(|(field, _)| SENT.contains(&field.as_str()) && named(field));
    let mut metadata: serde_json::Map<_, _> = metadata.map(|(field, value)| (field.clone(), value.clone())).collect();
    if !described && !metadata.get("name").is_some_and(Value::is_string) {
        metadata.insert("name".to_owned(), "unnamed".into());
    }
    if let Some(fields) = sent.as_object_mut() {
        fields.remove("status");
        fields.insert("metadata".to_owned(), Value::Object(metadata));
    }
    sent
}

/// What is wrong with the metadata, told better than by the server, which says no more than which field of which of its
/// types cannot be read.
fn metadata_faults(object: &Value) -> Vec<Fault> {
    let path = Path::of(["metadata"]);
    let fault = |path: Path, message: &str| Fault { path, message: message.to_owned() };
    let metadata = match &object["metadata"] {
        Value::Object(metadata) => metadata,
        Value::Null => return vec![fault(path.key("name"), "metadata.name is missing")],
        _ => return vec![fault(path, "metadata must be a mapping")],
    };
    let mut faults = Vec::new();
    let given = |field: &str| metadata.get(field).filter(|value| !value.is_null());
    let empty = |field: &str| given(field).is_none_or(|value| *value == "");
    if empty("name") && empty("generateName") {
        faults.push(fault(path.key("name"), "metadata.name is missing"));
    }
    for field in ["name", "namespace", "generateName"] {
        if given(field).is_some_and(|value| !value.is_string()) {
            faults.push(fault(path.key(field), QUOTES));
        }
    }
    for field in ["labels", "annotations"] {
        match given(field) {
            None => {}
            Some(Value::Object(texts)) => {
                for (key, _) in texts.iter().filter(|(_, value)| !value.is_string() && !value.is_null()) {
                    let at = path.key(field).key(key.as_str());
                    faults.push(fault(at, QUOTES));
                }
            }
            Some(_) => faults.push(fault(path.key(field), "it must be a mapping of texts")),
        }
    }
    faults
}

/// A cause of the server's, with its place in the manifest.
fn fault(field: &str, message: &str, node: &Node) -> Option<Fault> {
    // The one tells that rules were not asked because of the other causes.
    if field == "<nil>" && message.contains("some validation rules were not checked") {
        return None;
    }
    if let Some((_, place)) = message.rsplit_once(" in ").filter(|_| field == "<nil>") {
        return Some(Fault { path: node.path(place), message: "it must be a whole number of 32 bits".to_owned() });
    }
    let path = if field == "<nil>" { Path::default() } else { node.path(field) };
    let message = reworded(field, message);
    Some(Fault { path: culprit(&path, &message, node).unwrap_or(path), message })
}

/// The most values that a message lists.
const LISTED: usize = 8;

/// The server's message on a field, without what the place beside it says already, and with a remedy where there is one.
fn reworded(field: &str, message: &str) -> String {
    if message == "Required value" {
        return "this field is missing".to_owned();
    }
    if let Some((given, supported)) =
        message.strip_prefix("Unsupported value: ").and_then(|told| told.split_once(": supported values: "))
    {
        let all: Vec<_> = supported.split(", ").map(|value| value.trim_matches('"')).collect();
        let hint = nearest(given.trim_matches('"'), &all).map(|near| format!(", did you mean {near}?"));
        return match hint {
            Some(hint) if all.len() > LISTED => format!("{given} is not supported{hint}"),
            hint => format!("{given} must be one of {}{}", all.join(", "), hint.unwrap_or_default()),
        };
    }
    let Some(told) = message.strip_prefix("Invalid value: ") else { return message.to_owned() };
    let Some((shown, detail)) = told.split_once(": ") else { return told.to_owned() };
    let detail = detail.strip_prefix(field).and_then(|detail| detail.strip_prefix(" in body ")).unwrap_or(detail);
    match detail.strip_prefix("must be of type ").and_then(|types| types.split_once(": ")) {
        Some(("int32", _)) => "it must be a whole number of 32 bits".to_owned(),
        Some(("string", "\"integer\"" | "\"number\"" | "\"boolean\"")) => QUOTES.to_owned(),
        Some((wanted, found)) => format!("it must be of type {wanted}, not {}", found.trim_matches('"')),
        None if matches!(shown, "\"object\"" | "\"array\"" | "\"string\"") => detail.to_owned(),
        None => format!("{shown}: {detail}"),
    }
}

/// A rule over several fields is told of the object that holds them. It is of more use beside the first field that the
/// rule's message names and the manifest sets.
fn culprit(path: &Path, message: &str, node: &Node) -> Option<Path> {
    let found = path.steps().iter().try_fold(node, |node, step| match step {
        tidemark_admission::Step::Key(key) => node.entry(key).map(|entry| &entry.value),
        tidemark_admission::Step::Index(index) => node.items()?.get(*index),
    })?;
    let words = message.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).find(|word| found.entry(word).is_some()).map(|word| path.key(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_words_are_put_short() {
        for (message, short) in [
            ("Required value", "this field is missing"),
            (
                "Invalid value: 0: a.b in body should be greater than or equal to 1",
                "0: should be greater than or equal to 1",
            ),
            (r#"Invalid value: "integer": a.b in body must be of type string: "integer""#, QUOTES),
            (
                r#"Invalid value: "string": a.b in body must be of type integer: "string""#,
                "it must be of type integer, not string",
            ),
            (r#"Invalid value: "object": this before that"#, "this before that"),
            (
                r#"Unsupported value: "Vlue": supported values: "AverageValue", "Value""#,
                r#""Vlue" must be one of AverageValue, Value, did you mean Value?"#,
            ),
            ("Forbidden: no", "Forbidden: no"),
        ] {
            assert_eq!(reworded("a.b", message), short);
        }
    }
}
