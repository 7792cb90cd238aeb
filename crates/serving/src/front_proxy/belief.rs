//! Answers of the API server that are believed for a while.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// For so long.
const BELIEF: Duration = Duration::from_secs(10);
/// Answers kept at once. When there are more, those that have run out go, and all if there are none.
const ANSWERS: usize = 16_384;

/// Answers by question.
pub struct Beliefs<T>(Mutex<BTreeMap<String, (Instant, T)>>);

impl<T> Default for Beliefs<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Beliefs<T> {
    pub fn get(&self, question: &str) -> Option<T> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(question).filter(|(asked, _)| asked.elapsed() < BELIEF).map(|(_, answer)| answer.clone())
    }

    pub fn put(&self, question: String, answer: T) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= ANSWERS {
            answers.retain(|_, (asked, _)| asked.elapsed() < BELIEF);
        }
        if answers.len() >= ANSWERS {
            answers.clear();
        }
        answers.insert(question, (Instant::now(), answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_believed_for_ten_seconds() {
        let beliefs = Beliefs::default();
        beliefs.put("may a?".to_owned(), true);
        tokio::time::advance(BELIEF - Duration::from_millis(1)).await;
        assert_eq!(beliefs.get("may a?"), Some(true));
        assert_eq!(beliefs.get("may b?"), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(beliefs.get("may a?"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_room_for_answers_has_an_end() {
        let beliefs = Beliefs::default();
        for number in 0..=ANSWERS {
            beliefs.put(number.to_string(), number);
        }
        assert!(beliefs.0.lock().unwrap().len() <= ANSWERS);
        assert_eq!(beliefs.get(&ANSWERS.to_string()), Some(ANSWERS));
    }
}
