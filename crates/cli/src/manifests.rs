//! Manifest files: from YAML or JSON on disk to objects, each with its place.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// One object of a manifest file.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Where it stands.
    pub place: Place,
    /// The object: a mapping with `apiVersion`, `kind` and `metadata.name`.
    pub object: Value,
}

/// A place in a file; prints as `file:line`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: PathBuf,
    /// Line of the document's first line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// What is wrong with a manifest file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: no manifest in it (files named *.yaml, *.yml or *.json)", .0.display())]
    Empty(PathBuf),
    #[error("{file}:{line}:{column}: not valid YAML: {message}", file = file.display())]
    Syntax { file: PathBuf, line: u64, column: u64, message: String },
    #[error("{place}: {message}")]
    Shape { place: Place, message: String },
}

impl Manifest {
    /// The object's kind.
    pub fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }

    /// `Kind namespace/name`, or `Kind name` where no namespace is given.
    pub fn title(&self) -> String {
        let name = self.object["metadata"]["name"].as_str().unwrap_or_default();
        match self.object["metadata"]["namespace"].as_str() {
            Some(namespace) => format!("{} {namespace}/{name}", self.kind()),
            None => format!("{} {name}", self.kind()),
        }
    }
}

/// What the files hold.
#[derive(Debug, Default)]
pub struct Contents {
    pub manifests: Vec<Manifest>,
    /// What could not be read; the rest is not affected.
    pub errors: Vec<Error>,
}

/// Reads files and folders (one level deep, in the order of their names), in the order in which they are given.
pub fn read(paths: &[PathBuf]) -> Contents {
    let mut contents = Contents::default();
    for path in paths {
        match files(path) {
            Err(error) => contents.errors.push(error),
            Ok(files) => files.into_iter().for_each(|file| match std::fs::read_to_string(&file) {
                Ok(text) => parse(&file, &text, &mut contents),
                Err(source) => contents.errors.push(Error::Read { path: file, source }),
            }),
        }
    }
    contents
}

/// The files of a path: itself, or those of a folder (one level deep, in the order of their names).
///
/// # Errors
/// It cannot be read, or is a folder without manifests.
pub(crate) fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let manifest = file.extension().and_then(|e| e.to_str()).is_some_and(|e| matches!(e, "yaml" | "yml" | "json"));
        if manifest && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(Error::Empty(path.to_owned()));
    }
    files.sort();
    Ok(files)
}

/// Puts first what others need in order to be accepted or to start; apart from that the order stays. A namespace must be
/// there before what is in it, a definition before its objects, and a pod starts as soon as its workload is there.
pub fn sort_by_need(manifests: &mut [Manifest]) {
    manifests.sort_by_key(|manifest| match manifest.kind() {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        "Secret" | "ConfigMap" | "ServiceAccount" => 2,
        _ => 3,
    });
}

/// Adds the manifests in a text; `file` is named in errors. Empty documents are skipped, lists are taken apart, and a
/// document that is wrong leaves the others alone.
pub fn parse(file: &Path, text: &str, contents: &mut Contents) {
    for (line, document) in documents(text) {
        let place = Place { file: file.to_owned(), line: first_line(line, &document) };
        let parsed = yaml(file, line, &document).and_then(|value| match value {
            Value::Null => Ok(()),
            value => flatten(place, value, &mut contents.manifests),
        });
        contents.errors.extend(parsed.err());
    }
}

/// The documents with the number of lines before each. A line that starts with `---` separates documents wherever it
/// stands: YAML allows it nowhere else in the first column.
pub(crate) fn documents(text: &str) -> Vec<(usize, String)> {
    let mut documents = vec![(0, String::new())];
    for (number, line) in text.lines().enumerate() {
        let rest = line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        if let Some(rest) = rest {
            documents.push((number, String::from("   ") + rest));
        } else if let Some((_, document)) = documents.last_mut() {
            document.push_str(line);
        }
        if let Some((_, document)) = documents.last_mut() {
            document.push('\n');
        }
    }
    documents
}

fn first_line(before: usize, document: &str) -> usize {
    let is_content = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    before + document.lines().position(is_content).unwrap_or(0) + 1
}

fn yaml(file: &Path, before: usize, document: &str) -> Result<Value, Error> {
    if document.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Value::Null);
    }
    // Blank lines in front keep the places in messages those of the file.
    let text = "\n".repeat(before) + document;
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    // Without this a namespace `n` would be `false`.
    options.strict_booleans = true;
    serde_saphyr::from_str_with_options(&text, options).map_err(|error| {
        let location = error.location();
        Error::Syntax {
            file: file.to_owned(),
            line: location.as_ref().map_or(before as u64 + 1, serde_saphyr::Location::line),
            column: location.as_ref().map_or(1, serde_saphyr::Location::column),
            message: message(&error),
        }
    })
}

/// The parser's sentence without the place that it repeats at its end.
fn message(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    match line.rfind(" at line ").or_else(|| line.rfind(" (line ")) {
        Some(end) => line[..end].to_owned(),
        None => line.to_owned(),
    }
}

fn flatten(place: Place, object: Value, manifests: &mut Vec<Manifest>) -> Result<(), Error> {
    let shape = |message: String| Error::Shape { place: place.clone(), message };
    if !object.is_object() {
        return Err(shape("a manifest is a mapping with apiVersion, kind and metadata".to_owned()));
    }
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty());
    let kind = text("/kind").ok_or_else(|| shape("kind is missing".to_owned()))?;
    if text("/apiVersion").is_none() {
        return Err(shape(format!("{kind}: apiVersion is missing")));
    }
    if let Some(items) = object.get("items").filter(|_| kind.ends_with("List")).and_then(Value::as_array) {
        for item in items {
            flatten(place.clone(), item.clone(), manifests)?;
        }
        return Ok(());
    }
    if text("/metadata/name").is_none() && text("/metadata/generateName").is_none() {
        return Err(shape(format!("{kind}: metadata.name is missing, or is no text")));
    }
    if object.pointer("/metadata/namespace").is_some_and(|namespace| !namespace.is_string() && !namespace.is_null()) {
        return Err(shape(format!("{kind}: metadata.namespace is no text: put it in quotes")));
    }
    manifests.push(Manifest { place, object });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<(String, usize)>, String> {
        let mut contents = Contents::default();
        parse(Path::new("f.yaml"), text, &mut contents);
        match contents.errors.first() {
            None => Ok(contents.manifests.iter().map(|m| (m.title(), m.place.line)).collect()),
            Some(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_broken_document_leaves_the_others_alone() {
        let mut contents = Contents::default();
        let text = "kind: A\napiVersion: v1\nmetadata: {name: a}\n---\nkind: [\n---\nkind: C\napiVersion: v1\n\
                    metadata: {name: c}\n";
        parse(Path::new("f.yaml"), text, &mut contents);
        assert_eq!(contents.manifests.iter().map(Manifest::title).collect::<Vec<_>>(), ["A a", "C c"]);
        assert_eq!(contents.errors.len(), 1);
    }

    #[test]
    fn each_document_knows_its_line() {
        let text = "# a comment\n\nkind: A\napiVersion: v1\nmetadata: {name: a}\n---\n# another\n---\n\nkind: B\n\
                    apiVersion: v1\nmetadata: {name: b, namespace: n}\n";
        assert_eq!(parsed(text).unwrap(), [("A a".to_owned(), 3), ("B n/b".to_owned(), 10)]);
    }

    #[test]
    fn a_list_is_taken_apart() {
        let text = "kind: List\napiVersion: v1\nitems:\n- {kind: A, apiVersion: v1, metadata: {name: a}}\n\
                    - {kind: B, apiVersion: v1, metadata: {name: b}}\n";
        assert_eq!(parsed(text).unwrap().len(), 2);
    }

    #[test]
    fn broken_yaml_is_reported_with_the_line_of_the_file() {
        let text = "kind: A\napiVersion: v1\nmetadata: {name: a}\n---\nkind: B\nmetadata:\n  name: [b\n";
        let error = parsed(text).unwrap_err();
        assert!(error.starts_with("f.yaml:7:") || error.starts_with("f.yaml:8:"), "{error}");
        assert!(error.contains("not valid YAML"), "{error}");
    }

    #[test]
    fn what_is_no_object_says_what_is_missing() {
        assert_eq!(
            parsed("- a\n").unwrap_err(),
            "f.yaml:1: a manifest is a mapping with apiVersion, kind and metadata"
        );
        assert_eq!(parsed("kind: A\n").unwrap_err(), "f.yaml:1: A: apiVersion is missing");
        assert_eq!(
            parsed("kind: A\napiVersion: v1\n").unwrap_err(),
            "f.yaml:1: A: metadata.name is missing, or is no text"
        );
    }

    #[test]
    fn a_namespace_that_is_a_number_is_refused_and_not_taken_for_the_default_one() {
        let error = parsed("kind: A\napiVersion: v1\nmetadata: {name: a, namespace: 5}\n").unwrap_err();
        assert_eq!(error, "f.yaml:1: A: metadata.namespace is no text: put it in quotes");
    }

    #[test]
    fn what_others_need_comes_first() {
        let mut contents = Contents::default();
        let text: String = ["ScaledObject", "Deployment", "Secret", "CustomResourceDefinition", "Pod", "Namespace"]
            .map(|kind| format!("---\nkind: {kind}\napiVersion: v1\nmetadata: {{name: x}}\n"))
            .concat();
        parse(Path::new("f.yaml"), &text, &mut contents);
        sort_by_need(&mut contents.manifests);
        let kinds: Vec<_> = contents.manifests.iter().map(Manifest::kind).collect();
        assert_eq!(kinds, ["Namespace", "CustomResourceDefinition", "Secret", "ScaledObject", "Deployment", "Pod"]);
    }

    #[test]
    fn a_key_given_twice_is_an_error() {
        let error = parsed("kind: A\napiVersion: v1\nkind: B\nmetadata: {name: a}\n").unwrap_err();
        assert!(error.starts_with("f.yaml:3:"), "{error}");
    }
}
