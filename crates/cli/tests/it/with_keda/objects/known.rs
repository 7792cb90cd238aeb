//! What is known not to be the same, and why.

use std::collections::BTreeSet;

use super::seen::{Difference, fits};

/// Differences of one reason.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    why: String,
    /// Patterns of the objects.
    #[serde(default)]
    objects: Vec<String>,
    /// Patterns of the paths.
    paths: Vec<String>,
    /// Patterns of the values; an absent one is empty.
    keda: Option<String>,
    tidemark: Option<String>,
    /// It depends on who is faster.
    #[serde(default)]
    sometimes: bool,
}

pub struct Known {
    entries: Vec<Entry>,
    /// Entry, and which of its patterns of objects and of paths.
    seen: BTreeSet<(usize, usize, usize)>,
}

impl Known {
    /// Reads the list in a file.
    pub fn read(file: &str) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let mut entries: Vec<Entry> = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        for entry in entries.iter_mut().filter(|entry| entry.objects.is_empty()) {
            entry.objects.push("*".to_owned());
        }
        Self { entries, seen: BTreeSet::new() }
    }

    /// Those that are not known.
    pub fn news<'a>(&self, differences: &'a [Difference]) -> Vec<&'a Difference> {
        differences.iter().filter(|difference| self.places(difference).next().is_none()).collect()
    }

    /// Remembers which ones were there.
    pub fn note(&mut self, differences: &[Difference]) {
        let places: Vec<_> = differences.iter().flat_map(|difference| self.places(difference)).collect();
        self.seen.extend(places);
    }

    /// Where a difference stands in the list.
    fn places<'a>(&'a self, difference: &'a Difference) -> impl Iterator<Item = (usize, usize, usize)> + 'a {
        let matching = |patterns: &'a [String], text: &'a str| {
            patterns.iter().enumerate().filter(|(_, pattern)| fits(pattern, text)).map(|(index, _)| index)
        };
        let says = |pattern: &Option<String>, value: &Option<String>| {
            pattern.as_deref().is_none_or(|pattern| fits(pattern, value.as_deref().unwrap_or_default()))
        };
        let entries = self.entries.iter().enumerate();
        let entries = entries.filter(move |(_, entry)| {
            says(&entry.keda, &difference.keda) && says(&entry.tidemark, &difference.tidemark)
        });
        entries.flat_map(move |(index, entry)| {
            let objects = matching(&entry.objects, &difference.object);
            objects
                .flat_map(move |object| matching(&entry.paths, &difference.path).map(move |path| (index, object, path)))
        })
    }

    /// Fails where something in the list is the same in truth.
    pub fn assert_all_seen(&self) {
        let mut gone = Vec::new();
        for (index, entry) in self.entries.iter().enumerate().filter(|(_, entry)| !entry.sometimes) {
            for (object, pattern) in entry.objects.iter().enumerate() {
                if !self.seen.iter().any(|seen| (seen.0, seen.1) == (index, object)) {
                    gone.push(format!("{pattern}: {}", entry.why));
                }
            }
            for (path, pattern) in entry.paths.iter().enumerate() {
                if !self.seen.iter().any(|seen| (seen.0, seen.2) == (index, path)) {
                    gone.push(format!("{pattern}: {}", entry.why));
                }
            }
        }
        assert!(gone.is_empty(), "no longer different:\n{}", gone.join("\n"));
    }
}

/// A difference for people.
pub fn shown(difference: &Difference) -> String {
    let value = |value: &Option<String>| value.as_deref().unwrap_or("(nothing)").to_owned();
    let (keda, tidemark) = (value(&difference.keda), value(&difference.tidemark));
    format!("{} {}\n    KEDA:     {keda}\n    Tidemark: {tidemark}", difference.object, difference.path)
}
