//! From files to objects with places.

use std::io::Read;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tidemark_admission::Path;

use super::document::{self, Node, Spot};
use crate::manifests;

/// The namespace of objects that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// One object of a file.
#[derive(Clone, Debug)]
pub struct Object {
    /// The file's name for people.
    pub file: Arc<str>,
    /// The whole text of the file, to which the places belong.
    pub text: Arc<str>,
    pub node: Node,
    /// The object without places.
    pub value: Value,
}

impl Object {
    /// `apiVersion`, empty where there is none.
    pub fn api_version(&self) -> &str {
        self.value["apiVersion"].as_str().unwrap_or_default()
    }

    /// `kind`, empty where there is none.
    pub fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    /// `metadata.name`, empty where there is none.
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// `metadata.namespace` as written.
    pub fn namespace(&self) -> Option<&str> {
        self.value["metadata"]["namespace"].as_str().filter(|namespace| !namespace.is_empty())
    }

    /// The namespace in which the object would be.
    pub fn home(&self) -> &str {
        self.namespace().unwrap_or(DEFAULT_NAMESPACE)
    }
}

/// What makes a file unreadable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("{0}")]
    File(String),
    #[error("{file}:{}:{}: error: not valid YAML: {message}", at.line, at.column)]
    Yaml { file: Arc<str>, at: Spot, message: String },
}

/// What the files hold.
#[derive(Debug, Default)]
pub struct Input {
    /// In the order of the files; lists are taken apart.
    pub objects: Vec<Object>,
    pub unreadable: Vec<Unreadable>,
}

/// Reads files, folders (one level deep) and, for `-`, standard input.
pub fn read(paths: &[PathBuf]) -> Input {
    let mut input = Input::default();
    for path in paths {
        if path.as_os_str() == "-" {
            let mut bytes = Vec::new();
            match std::io::stdin().lock().read_to_end(&mut bytes) {
                Ok(_) => input.bytes("<stdin>", bytes),
                Err(error) => input.unreadable.push(Unreadable::File(format!("standard input: {error}"))),
            }
            continue;
        }
        match manifests::files(path) {
            Ok(files) => files.iter().for_each(|file| input.file(file)),
            Err(error) => input.unreadable.push(Unreadable::File(error.to_string())),
        }
    }
    input
}

impl Input {
    fn file(&mut self, file: &FilePath) {
        match std::fs::read(file) {
            Ok(bytes) => self.bytes(&file.display().to_string(), bytes),
            Err(error) => self.unreadable.push(Unreadable::File(format!("{}: {error}", file.display()))),
        }
    }

    fn bytes(&mut self, file: &str, bytes: Vec<u8>) {
        match String::from_utf8(bytes) {
            Ok(text) => self.text(file, &text),
            Err(error) => {
                let byte = error.utf8_error().valid_up_to();
                self.unreadable.push(Unreadable::File(format!("{file}: not UTF-8 text (byte {byte})")));
            }
        }
    }

    /// Adds the objects of a text; `file` is its name for people.
    pub fn text(&mut self, file: &str, text: &str) {
        let file: Arc<str> = file.into();
        let text: Arc<str> = text.strip_prefix('\u{feff}').unwrap_or(text).into();
        for (before, document) in manifests::documents(&text) {
            match document::parse(&document, before as u64) {
                Ok(Some(node)) => self.node(&file, &text, node),
                Ok(None) => {}
                Err(error) => {
                    let (file, at, message) = (file.clone(), error.at, error.message);
                    self.unreadable.push(Unreadable::Yaml { file, at, message });
                }
            }
        }
    }

    fn node(&mut self, file: &Arc<str>, text: &Arc<str>, node: Node) {
        let list = node.text("kind").is_some_and(|kind| kind.ends_with("List"));
        let items = node.entry("items").filter(|_| list).and_then(|entry| entry.value.items());
        match items {
            Some(items) => items.iter().for_each(|item| self.node(file, text, item.clone())),
            None => {
                let value = node.json();
                self.objects.push(Object { file: file.clone(), text: text.clone(), node, value });
            }
        }
    }
}

impl Object {
    /// What is wrong with a text as an object of Kubernetes at all.
    pub fn misshapen(&self) -> Option<(Path, String)> {
        let Value::Object(fields) = &self.value else {
            return Some((Path::default(), "a manifest is a mapping with apiVersion, kind and metadata".to_owned()));
        };
        for field in ["apiVersion", "kind"] {
            let path = Path::of([field]);
            match fields.get(field) {
                None | Some(Value::Null) => return Some((path, format!("{field} is missing"))),
                Some(Value::String(text)) if text.is_empty() => return Some((path, format!("{field} is empty"))),
                Some(Value::String(_)) => {}
                Some(_) => return Some((path, format!("{field} must be a text"))),
            }
        }
        None
    }
}
