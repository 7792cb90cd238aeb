//! The manifests on disk, followed: what changes there is applied again.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::apply::{self, Applied};
use crate::manifests::{self, Contents, Error, Identity, Manifest};

/// Between two looks at the files. A change counts once two looks have seen the same: editors write in several steps.
const LOOK: Duration = Duration::from_millis(500);

/// What a file looks like from outside. The time is that of the last change of any kind: an editor that puts another file in
/// the place may keep the time of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    file: PathBuf,
    bytes: u64,
    inode: u64,
    changed: (i64, i64),
}

/// Files and folders as they were before they were read.
pub(super) struct Seen {
    /// Those that can be read again; a pipe cannot.
    paths: Vec<PathBuf>,
    looks: Vec<Look>,
}

/// A manifest that was applied.
struct Known {
    manifest: Manifest,
    applied: Applied,
}

/// Where what happens to the files is told.
pub(super) struct Teller {
    /// What is wrong with them at present.
    pub(super) problems: watch::Sender<Vec<String>>,
    /// What was done, one line each.
    pub(super) news: mpsc::UnboundedSender<String>,
}

/// Files and folders, and what of them is applied.
pub(super) struct Files {
    seen: Seen,
    known: BTreeMap<Identity, Known>,
    /// What is wrong with them, by object.
    refused: BTreeMap<Identity, String>,
    /// What is wrong with the files.
    broken: Vec<String>,
}

impl Seen {
    /// To be called before the files are read, or a change in between would go unseen.
    pub(super) fn now(paths: &[PathBuf]) -> Self {
        let followed = |path: &&PathBuf| std::fs::metadata(path).is_ok_and(|found| found.is_file() || found.is_dir());
        let paths: Vec<PathBuf> = paths.iter().filter(followed).cloned().collect();
        let looks = look(&paths);
        Self { paths, looks }
    }
}

impl Files {
    /// Files in which `errors` were found, with nothing applied of them yet.
    pub(super) fn new(seen: Seen, errors: &[Error]) -> Self {
        let broken = errors.iter().map(ToString::to_string).collect();
        Self { seen, known: BTreeMap::new(), refused: BTreeMap::new(), broken }
    }

    /// Applies manifests for the first time. Whether one of them was accepted.
    pub(super) async fn apply_first(&mut self, client: &Client, manifests: &[Manifest]) -> bool {
        for manifest in manifests {
            self.apply_one(client, manifest).await;
        }
        !self.known.is_empty()
    }

    /// What is wrong at present, for people.
    pub(super) fn problems(&self) -> Vec<String> {
        self.broken.iter().chain(self.refused.values()).cloned().collect()
    }

    /// Applies what changes, for as long as it is awaited.
    pub(super) async fn follow(mut self, client: Client, teller: Teller) {
        let mut before = self.seen.looks.clone();
        loop {
            sleep(LOOK).await;
            let now = look(&self.seen.paths);
            if now == before && now != self.seen.looks {
                self.seen.looks.clone_from(&now);
                let paths = self.seen.paths.clone();
                // Reading may take long, and must not hold others up.
                let Ok(contents) = tokio::task::spawn_blocking(move || manifests::read(&paths)).await else { return };
                self.apply(&client, contents, &teller).await;
                teller.problems.send_replace(self.problems());
            }
            before = now;
        }
    }

    /// Brings the API server to what the files hold now. A file that is broken is left as it was applied last.
    async fn apply(&mut self, client: &Client, mut contents: Contents, teller: &Teller) {
        manifests::sort_by_need(&mut contents.manifests);
        let broken: Vec<String> = contents.errors.iter().map(ToString::to_string).collect();
        for problem in broken.iter().filter(|problem| !self.broken.contains(problem)) {
            tracing::error!("{problem}");
        }
        self.broken = broken;
        let spared: BTreeSet<PathBuf> = contents.errors.iter().filter_map(spared).map(Path::to_owned).collect();
        let is_spared = |manifest: &Manifest| spared.iter().any(|path| manifest.place.file.starts_with(path));
        contents.manifests.retain(|manifest| !is_spared(manifest));
        let wanted: BTreeSet<Identity> = contents.manifests.iter().map(Manifest::identity).collect();
        let paths = &self.seen.paths;
        let read_again = |manifest: &Manifest| paths.iter().any(|path| manifest.place.file.starts_with(path));
        let is_gone = |identity: &Identity, known: &Known| {
            !wanted.contains(identity) && read_again(&known.manifest) && !is_spared(&known.manifest)
        };
        let mut gone: Vec<(Identity, Manifest)> = self
            .known
            .iter()
            .filter(|(identity, known)| is_gone(identity, known))
            .map(|(identity, known)| (identity.clone(), known.manifest.clone()))
            .collect();
        self.refused.retain(|identity, _| wanted.contains(identity));
        for manifest in &contents.manifests {
            if let Some(news) = self.apply_one(client, manifest).await {
                // Nobody listens when the end is near.
                let _ = teller.news.send(news);
            }
        }
        // Last what others need, as it was first to come.
        gone.sort_by_key(|(_, manifest)| std::cmp::Reverse(manifests::need(manifest)));
        for (identity, _) in &gone {
            if let Some(news) = self.delete(client, identity).await {
                let _ = teller.news.send(news);
            }
        }
    }

    /// Applies what is new in a manifest; what was done, if anything.
    async fn apply_one(&mut self, client: &Client, manifest: &Manifest) -> Option<String> {
        let identity = manifest.identity();
        let known = self.known.get(&identity);
        let outcome = match known {
            Some(known) if known.manifest.object == manifest.object => {
                // It may stand elsewhere now, or have been refused in another form meanwhile.
                self.refused.remove(&identity);
                let known = self.known.get_mut(&identity)?;
                known.manifest.place = manifest.place.clone();
                return None;
            }
            // Only what has changed in the file is written: what others have changed meanwhile stays theirs.
            Some(known) => apply::change(client, &known.manifest.object, manifest).await,
            None => apply::apply(client, manifest).await,
        };
        match outcome {
            Ok(applied) => {
                let done = if applied.created { "created" } else { "changed" };
                let news = format!("{} {done}, from {}", manifest.title(), manifest.place);
                let created = applied.created || known.is_some_and(|known| known.applied.created);
                let applied = Applied { created, ..applied };
                self.refused.remove(&identity);
                self.known.insert(identity, Known { manifest: manifest.clone(), applied });
                Some(news)
            }
            Err(error) => {
                let text = error.to_string();
                if self.refused.get(&identity) != Some(&text) {
                    tracing::error!("{text}");
                }
                self.refused.insert(identity, text);
                None
            }
        }
    }

    /// Deletes the object of a manifest that is gone, if it is there because of it; what was done, if anything.
    async fn delete(&mut self, client: &Client, identity: &Identity) -> Option<String> {
        let Known { manifest, applied } = self.known.get(identity)?;
        let title = manifest.title();
        if !applied.created {
            self.known.remove(identity);
            return Some(format!("{title} is in no file any more; it stays, for it was there before"));
        }
        match apply::delete(client, manifest, &applied.name).await {
            Ok(()) => {
                self.known.remove(identity);
                Some(format!("{title} deleted: it is in no file any more"))
            }
            Err(error) => {
                tracing::error!("{error}");
                self.refused.insert(identity.clone(), error.to_string());
                None
            }
        }
    }
}

/// The file or folder whose objects stay as they are, because nobody can say what it holds. One that is gone holds nothing.
fn spared(error: &Error) -> Option<&Path> {
    match error {
        Error::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => None,
        Error::Read { path, .. } => Some(path),
        Error::Empty(_) | Error::Repeated { .. } => None,
        Error::Syntax { file, .. } => Some(file),
        Error::Shape { place, .. } => Some(&place.file),
    }
}

fn look(paths: &[PathBuf]) -> Vec<Look> {
    let files = paths.iter().filter_map(|path| manifests::files(path).ok()).flatten();
    let seen = files.filter_map(|file| {
        let found = std::fs::metadata(&file).ok()?;
        let changed = (found.ctime(), found.ctime_nsec());
        Some(Look { file, bytes: found.len(), inode: found.ino(), changed })
    });
    seen.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_is_spared_and_one_that_is_gone_is_not() {
        let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_eq!(spared(&Error::Read { path: "a.yaml".into(), source: gone }), None);
        let refused = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert_eq!(spared(&Error::Read { path: "a.yaml".into(), source: refused }), Some(Path::new("a.yaml")));
        let syntax = Error::Syntax { file: "b.yaml".into(), line: 1, column: 1, message: String::new() };
        assert_eq!(spared(&syntax), Some(Path::new("b.yaml")));
    }

    #[test]
    fn a_file_in_the_place_of_another_looks_different_though_its_time_and_length_are_the_same() {
        let folder = std::env::temp_dir().join(format!("tidemark-look-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let [file, other] = ["a.yaml", "b"].map(|name| folder.join(name));
        for path in [&file, &other] {
            std::fs::write(path, "same").unwrap();
        }
        let time = std::fs::metadata(&file).unwrap().modified().unwrap();
        std::fs::File::options().write(true).open(&other).unwrap().set_modified(time).unwrap();
        let paths = [folder.clone()];
        let before = look(&paths);
        assert_eq!(look(&paths), before);
        std::fs::rename(&other, &file).unwrap();
        let after = look(&paths);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_ne!(after, before);
    }
}
