//! Manifest files: from YAML or JSON on disk to objects, each with its place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, io};

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
    Read { path: PathBuf, source: io::Error },
    #[error("{}: no manifest in it (files named *.yaml, *.yml or *.json)", .0.display())]
    Empty(PathBuf),
    #[error("{place}: {title} stands again in {again}, and that counts")]
    Repeated { place: Place, title: String, again: Place },
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

/// What makes an object one and the same, wherever it stands: API group, kind, namespace, name. An object whose name the API
/// server makes is told by all that it holds.
pub type Identity = [String; 4];

impl Manifest {
    /// Which object it is.
    pub fn identity(&self) -> Identity {
        let text = |path: &str| self.object.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty());
        let group = text("/apiVersion").and_then(|version| version.split_once('/')).map_or("", |(group, _)| group);
        let namespace = text("/metadata/namespace").unwrap_or("default");
        let name = text("/metadata/name").map_or_else(|| self.object.to_string(), str::to_owned);
        [group.to_owned(), self.kind().to_owned(), namespace.to_owned(), name]
    }
}

/// What the files hold.
#[derive(Debug, Default)]
pub struct Contents {
    pub manifests: Vec<Manifest>,
    /// What could not be read, or does not count; the rest is not affected.
    pub errors: Vec<Error>,
}

impl Contents {
    /// Of several manifests of one object only the last one stays.
    fn leave_out_repeated(&mut self) {
        let last: BTreeMap<Identity, usize> =
            self.manifests.iter().enumerate().map(|(index, manifest)| (manifest.identity(), index)).collect();
        let all = std::mem::take(&mut self.manifests);
        let places: Vec<Place> = all.iter().map(|manifest| manifest.place.clone()).collect();
        for (index, manifest) in all.into_iter().enumerate() {
            match last.get(&manifest.identity()) {
                Some(later) if *later != index => {
                    let (title, again) = (manifest.title(), places[*later].clone());
                    self.errors.push(Error::Repeated { place: manifest.place, title, again });
                }
                _ => self.manifests.push(manifest),
            }
        }
    }
}

/// Reads files and folders (one level deep, in the order of their names), in the order in which they are given.
pub fn read(paths: &[PathBuf]) -> Contents {
    let mut contents = Contents::default();
    for path in paths {
        match files(path) {
            Err(error) => contents.errors.push(error),
            Ok(files) => files.into_iter().for_each(|file| match std::fs::read_to_string(&file) {
                Ok(text) => parse(&file, &text, &mut contents),
                Err(source) => contents.errors.push(Error::Read { path: file, source: readable(source) }),
            }),
        }
    }
    contents.leave_out_repeated();
    contents
}

fn readable(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::InvalidData => io::Error::new(error.kind(), "it is not UTF-8 text"),
        _ => error,
    }
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
    manifests.sort_by_key(need);
}

/// The place of a manifest's kind in the order in which kinds need each other, from 0.
pub(crate) fn need(manifest: &Manifest) -> u8 {
    match manifest.kind() {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        "Secret" | "ConfigMap" | "ServiceAccount" => 2,
        _ => 3,
    }
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

/// The documents with the number of lines before each. A line that starts with `---` or `...` separates documents wherever it
/// stands: YAML allows neither elsewhere in the first column. Directives before a document (`%YAML 1.2`) say nothing that
/// counts here; their lines are blank.
pub(crate) fn documents(text: &str) -> Vec<(usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = vec![(0, String::new())];
    let mut begun = false;
    for (number, line) in text.lines().enumerate() {
        let marker = |marker: &str| {
            line.strip_prefix(marker).filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t'])).map(str::to_owned)
        };
        if let Some(rest) = marker("---") {
            documents.push((number, String::from("   ") + &rest));
            begun = true;
        } else if let Some(rest) = marker("...") {
            documents.push((number, String::from("   ") + &rest));
            begun = false;
        } else if let Some((_, document)) = documents.last_mut().filter(|_| begun || !line.starts_with('%')) {
            document.push_str(line);
            begun |= !is_blank(line);
        }
        if let Some((_, document)) = documents.last_mut() {
            document.push('\n');
        }
    }
    documents
}

/// Whether there is nothing on a line but a comment.
fn is_blank(line: &str) -> bool {
    line.trim().is_empty() || line.trim_start().starts_with('#')
}

fn first_line(before: usize, document: &str) -> usize {
    before + document.lines().position(|line| !is_blank(line)).unwrap_or(0) + 1
}

fn yaml(file: &Path, before: usize, document: &str) -> Result<Value, Error> {
    if document.lines().all(is_blank) {
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

/// What is wrong with a text as YAML, in the user's terms: without the place, which the parser repeats at the end, and without
/// advice for programmers.
pub(crate) fn message(error: &serde_saphyr::Error) -> String {
    let error = error.without_snippet();
    match error {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            return format!("the key {key} is there twice");
        }
        serde_saphyr::Error::NonFiniteFloat { value, .. } => {
            return format!("{value} is no number that JSON has: put it in quotes if it is a text");
        }
        _ => {}
    }
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let end = [" at line ", " (line "].iter().filter_map(|mark| line.rfind(mark)).min().unwrap_or(line.len());
    let line = &line[..end];
    let end = [", set ", "; use ", " by configured policy"].iter().filter_map(|mark| line.find(mark)).min();
    let words = &line[..end.unwrap_or(line.len())];
    match words {
        "expected string scalar" => "a key must be a plain text".to_owned(),
        other => other.to_owned(),
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
    fn messages_speak_of_the_text_and_not_of_the_program() {
        let object = |rest: &str| format!("apiVersion: v1\nkind: A\n{rest}\n");
        for (text, message) in [
            (object("kind: B"), "f.yaml:3:1: not valid YAML: the key kind is there twice"),
            (
                object("metadata: {name: .inf}"),
                "f.yaml:3:18: not valid YAML: .inf is no number that JSON has: put it in quotes if it is a text",
            ),
            (object("? [a]\n: b"), "f.yaml:3:3: not valid YAML: a key must be a plain text"),
            (object("metadata: *gone"), "f.yaml:3:11: not valid YAML: alias references unknown anchor"),
        ] {
            assert_eq!(parsed(&text).unwrap_err(), message);
        }
    }

    #[test]
    fn directives_and_ends_of_documents_are_what_yaml_says() {
        let object = |name: &str| format!("kind: A\napiVersion: v1\nmetadata: {{name: {name}}}\n");
        let text = format!(
            "\u{feff}# first\n%YAML 1.2\n---\n{}...\n%YAML 1.1\n%TAG ! tag:example.com,2026:\n---\n{}...\n{}",
            object("a"),
            object("b"),
            object("c")
        );
        let found = [("A a".to_owned(), 4), ("A b".to_owned(), 11), ("A c".to_owned(), 15)];
        assert_eq!(parsed(&text).unwrap(), found);
        let percent = "kind: A\napiVersion: v1\nmetadata: {name: a}\n%no: directive\n";
        assert!(parsed(percent).unwrap_err().starts_with("f.yaml:4:"), "only before a document");
        assert_eq!(parsed("# nothing\n\n---\n# at all\n").unwrap(), []);
    }

    #[test]
    fn of_two_manifests_of_one_object_the_last_one_counts() {
        let mut contents = Contents::default();
        for (file, version) in [("a.yaml", "apps/v1beta1"), ("b.yaml", "apps/v1")] {
            let text = format!("kind: Deployment\napiVersion: {version}\nmetadata: {{name: web}}\n");
            parse(Path::new(file), &text, &mut contents);
        }
        parse(Path::new("b.yaml"), "kind: Deployment\napiVersion: x/v1\nmetadata: {name: web}\n", &mut contents);
        contents.leave_out_repeated();
        assert_eq!(contents.manifests.len(), 2);
        assert_eq!(
            contents.errors[0].to_string(),
            "a.yaml:1: Deployment web stands again in b.yaml:1, and that counts"
        );
    }
}
