//! What a name in a formula stands for.

use super::error::CompileProblem;
use super::tree::Head;
use crate::nearest::nearest;

/// The names that are known at a place of the text, and which triggers were used so far.
pub(super) struct Names<'a> {
    triggers: &'a [&'a str],
    used: Vec<String>,
    locals: Vec<(String, usize)>,
    declared: usize,
}

impl<'a> Names<'a> {
    pub(super) fn new(triggers: &'a [&'a str]) -> Names<'a> {
        Names { triggers, used: Vec::new(), locals: Vec::new(), declared: 0 }
    }

    /// What a bare name stands for.
    pub(super) fn resolve(&mut self, name: &str) -> Result<Head, CompileProblem> {
        if let Some((_, number)) = self.locals.iter().rev().find(|(local, _)| local == name) {
            return Ok(Head::Local(*number));
        }
        let trigger = self.trigger(name);
        trigger.ok_or_else(|| {
            let locals = self.locals.iter().map(|(local, _)| local.as_str());
            let nearest = nearest(name, self.triggers.iter().copied().chain(locals));
            CompileProblem::UnknownName { name: name.to_owned(), nearest: nearest.map(str::to_owned) }
        })
    }

    /// The trigger of this name, as in `$env["name"]`.
    pub(super) fn trigger(&mut self, name: &str) -> Option<Head> {
        if !self.triggers.contains(&name) {
            return None;
        }
        let place = self.used.iter().position(|used| used == name).unwrap_or_else(|| {
            self.used.push(name.to_owned());
            self.used.len() - 1
        });
        Some(Head::Variable(place))
    }

    /// Whether the name stands for a value here.
    pub(super) fn is_value(&self, name: &str) -> bool {
        self.triggers.contains(&name) || self.locals.iter().any(|(local, _)| local == name)
    }

    /// All triggers count as used from here on.
    pub(super) fn use_all(&mut self) {
        for name in self.triggers {
            self.trigger(name);
        }
    }

    /// Declares a `let` and returns its number.
    pub(super) fn declare(&mut self, name: &str) -> usize {
        self.declared += 1;
        self.locals.push((name.to_owned(), self.declared - 1));
        self.declared - 1
    }

    /// How many `let`s can be seen here.
    pub(super) fn visible(&self) -> usize {
        self.locals.len()
    }

    /// Forgets the `let`s that a block declared.
    pub(super) fn forget(&mut self, visible_before: usize) {
        self.locals.truncate(visible_before);
    }

    /// The triggers used, and how many `let`s there are.
    pub(super) fn finish(self) -> (Vec<String>, usize) {
        (self.used, self.declared)
    }
}
