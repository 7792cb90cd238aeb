//! The manifests on disk, followed: what changes there is applied again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kube::Client;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::apply;
use crate::manifests::{self, Contents, Error, Manifest};

/// Between two looks at the files. A change counts once two looks have seen the same: editors write in several steps.
const LOOK: Duration = Duration::from_millis(500);

/// What makes an object one and the same: API version, kind, namespace, name.
type Key = [String; 4];

/// What a file looks like from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    file: PathBuf,
    bytes: u64,
    modified: Option<SystemTime>,
}

/// Files and folders, and what of them is applied.
pub(super) struct Files {
    /// Those that can be read again; a pipe cannot.
    paths: Vec<PathBuf>,
    /// The manifests as they were applied last.
    applied: BTreeMap<Key, Manifest>,
    /// What is wrong with them, by object.
    refused: BTreeMap<Key, String>,
    /// What is wrong with the files.
    broken: Vec<String>,
    looks: Vec<Look>,
}

impl Files {
    /// Files of which `contents` was read just now; `refused` are those of its manifests that the API server refused.
    pub(super) fn new(paths: &[PathBuf], contents: &Contents, refused: &[(usize, String)]) -> Self {
        let followed = |path: &&PathBuf| std::fs::metadata(path).is_ok_and(|found| found.is_file() || found.is_dir());
        let paths: Vec<PathBuf> = paths.iter().filter(followed).cloned().collect();
        let looks = look(&paths);
        let mut files = Self {
            paths,
            applied: BTreeMap::new(),
            refused: BTreeMap::new(),
            broken: contents.errors.iter().map(ToString::to_string).collect(),
            looks,
        };
        for (index, manifest) in contents.manifests.iter().enumerate() {
            match refused.iter().find(|(refused, _)| *refused == index) {
                Some((_, message)) => drop(files.refused.insert(key(manifest), message.clone())),
                None => drop(files.applied.insert(key(manifest), manifest.clone())),
            }
        }
        files
    }

    /// What is wrong at present, for people.
    pub(super) fn problems(&self) -> Vec<String> {
        self.broken.iter().chain(self.refused.values()).cloned().collect()
    }

    /// Applies what changes, for as long as it is awaited.
    pub(super) async fn follow(mut self, client: Client, problems: watch::Sender<Vec<String>>) {
        let mut before = self.looks.clone();
        loop {
            sleep(LOOK).await;
            let now = look(&self.paths);
            if now == before && now != self.looks {
                self.looks.clone_from(&now);
                self.apply(&client, manifests::read(&self.paths)).await;
                problems.send_replace(self.problems());
            }
            before = now;
        }
    }

    /// Brings the API server to what the files hold now. A file that is broken is left as it was applied last.
    async fn apply(&mut self, client: &Client, mut contents: Contents) {
        manifests::sort_by_need(&mut contents.manifests);
        let broken: Vec<String> = contents.errors.iter().map(ToString::to_string).collect();
        for problem in broken.iter().filter(|problem| !self.broken.contains(problem)) {
            tracing::error!("{problem}");
        }
        self.broken = broken;
        let spared: BTreeSet<PathBuf> = contents.errors.iter().filter_map(spared).map(Path::to_owned).collect();
        let is_spared = |manifest: &Manifest| spared.contains(&manifest.place.file);
        contents.manifests.retain(|manifest| !is_spared(manifest));
        let wanted: BTreeSet<Key> = contents.manifests.iter().map(key).collect();
        let read_again = |manifest: &Manifest| self.paths.iter().any(|path| manifest.place.file.starts_with(path));
        let gone: Vec<Manifest> = self
            .applied
            .iter()
            .filter(|(key, manifest)| !wanted.contains(*key) && read_again(manifest) && !is_spared(manifest))
            .map(|(_, manifest)| manifest.clone())
            .collect();
        self.refused.retain(|key, _| wanted.contains(key));
        for manifest in &contents.manifests {
            self.apply_one(client, manifest).await;
        }
        // Last what others need, as it was first to come.
        for manifest in gone.iter().rev() {
            self.delete(client, manifest).await;
        }
    }

    async fn apply_one(&mut self, client: &Client, manifest: &Manifest) {
        let key = key(manifest);
        let outcome = match self.applied.get(&key) {
            Some(applied) if applied.object == manifest.object => return,
            // Only what has changed in the file is written: what others have changed meanwhile stays theirs.
            Some(applied) => apply::change(client, manifest, &difference(&applied.object, &manifest.object)).await,
            None => apply::apply(client, manifest).await.map(drop),
        };
        match outcome {
            Ok(()) => {
                tracing::info!("{}: {} applied", manifest.place, manifest.title());
                self.refused.remove(&key);
                self.applied.insert(key, manifest.clone());
            }
            Err(error) => {
                tracing::error!("{error}");
                self.refused.insert(key, error.to_string());
            }
        }
    }

    async fn delete(&mut self, client: &Client, manifest: &Manifest) {
        let key = key(manifest);
        match apply::delete(client, manifest).await {
            Ok(()) => {
                tracing::info!("{} deleted: it is in no file any more", manifest.title());
                self.applied.remove(&key);
            }
            Err(error) => {
                tracing::error!("{error}");
                self.refused.insert(key, error.to_string());
            }
        }
    }
}

/// The file whose objects stay as they are, because nobody can say what it holds. A file that is gone holds nothing.
fn spared(error: &Error) -> Option<&Path> {
    match error {
        Error::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => None,
        Error::Read { path, .. } => Some(path),
        Error::Empty(_) => None,
        Error::Syntax { file, .. } => Some(file),
        Error::Shape { place, .. } => Some(&place.file),
    }
}

fn key(manifest: &Manifest) -> Key {
    let text = |path: &str| manifest.object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    [text("/apiVersion"), text("/kind"), text("/metadata/namespace"), text("/metadata/name")]
}

fn look(paths: &[PathBuf]) -> Vec<Look> {
    let files = paths.iter().filter_map(|path| manifests::files(path).ok()).flatten();
    let seen = files.filter_map(|file| {
        let found = std::fs::metadata(&file).ok()?;
        Some(Look { file, bytes: found.len(), modified: found.modified().ok() })
    });
    seen.collect()
}

/// The merge patch that turns what stands in one manifest into what stands in another.
fn difference(before: &Value, after: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (before, after) else { return after.clone() };
    let mut patch = Map::new();
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in after {
        match before.get(name) {
            Some(old) if old == value => {}
            Some(old @ Value::Object(_)) if value.is_object() => {
                patch.insert(name.clone(), difference(old, value));
            }
            _ => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_what_differs_and_what_is_gone() {
        let before = json!({"spec": {"a": 1, "b": {"c": 2, "d": 3}, "list": [1, 2]}, "data": {"x": "y"}});
        let after = json!({"spec": {"a": 1, "b": {"c": 4}, "list": [1]}});
        let expected = json!({"data": null, "spec": {"b": {"d": null, "c": 4}, "list": [1]}});
        assert_eq!(difference(&before, &after), expected);
        assert_eq!(difference(&before, &before), json!({}));
    }

    #[test]
    fn a_broken_file_is_spared_and_one_that_is_gone_is_not() {
        let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_eq!(spared(&Error::Read { path: "a.yaml".into(), source: gone }), None);
        let refused = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert_eq!(spared(&Error::Read { path: "a.yaml".into(), source: refused }), Some(Path::new("a.yaml")));
        let syntax = Error::Syntax { file: "b.yaml".into(), line: 1, column: 1, message: String::new() };
        assert_eq!(spared(&syntax), Some(Path::new("b.yaml")));
    }
}
