//! What many objects have alike, such as the reasons of conditions: held once for all of them.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::status::Kept;

/// A text that may be shared by many.
pub(crate) type Text = Arc<str>;

/// Values at most before those that nobody holds any more are looked for.
const FIRST_SWEEP: usize = 256;

/// The shared texts and conditions.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    texts: Mutex<Table<str>>,
    conditions: Mutex<Table<Kept>>,
}

#[derive(Debug)]
struct Table<T: ?Sized> {
    values: BTreeSet<Arc<T>>,
    sweep_at: usize,
}

impl<T: Ord + ?Sized> Default for Table<T> {
    fn default() -> Self {
        Self { values: BTreeSet::new(), sweep_at: FIRST_SWEEP }
    }
}

impl<T: Ord + ?Sized> Table<T> {
    fn share<V>(&mut self, value: V) -> Arc<T>
    where
        V: Borrow<T> + Into<Arc<T>>,
    {
        if let Some(known) = self.values.get(value.borrow()) {
            return known.clone();
        }
        if self.values.len() >= self.sweep_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = FIRST_SWEEP.max(self.values.len() * 2);
        }
        let value = value.into();
        self.values.insert(value.clone());
        value
    }
}

impl Texts {
    /// The text, shared with all who have asked for the same one and hold it still.
    pub(crate) fn share(&self, text: &str) -> Text {
        let mut table = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = table.values.get(text) {
            return known.clone();
        }
        table.share(Text::from(text))
    }

    /// As [`Texts::share`]; an empty text is none.
    pub(crate) fn share_some(&self, text: &str) -> Option<Text> {
        (!text.is_empty()).then(|| self.share(text))
    }

    /// The condition, shared with all objects that have the same one.
    pub(crate) fn share_condition(&self, condition: Kept) -> Arc<Kept> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner).share(condition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_and_those_that_nobody_holds_go() {
        let texts = Texts::default();
        let kept = texts.share("kept");
        assert!(Arc::ptr_eq(&kept, &texts.share("kept")));
        for number in 0..10_000 {
            texts.share(&number.to_string());
        }
        assert!(texts.texts.lock().unwrap().values.len() <= FIRST_SWEEP);
        assert!(Arc::ptr_eq(&kept, &texts.share("kept")));
    }
}
