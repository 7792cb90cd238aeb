//! Answers of the API server that are believed for a while.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Answers kept at once. When there are more, those that have run out go, and all if there are none.
const ANSWERS: usize = 16_384;

/// Answers by question, each with the time until which it is believed.
pub struct Beliefs<T>(Mutex<BTreeMap<String, (Instant, T)>>);

impl<T> Default for Beliefs<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Beliefs<T> {
    pub fn get(&self, question: &str) -> Option<T> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(question).filter(|(until, _)| Instant::now() < *until).map(|(_, answer)| answer.clone())
    }

    /// Enters an answer that is believed for so long.
    pub fn put(&self, question: String, answer: T, belief: Duration) {
        let now = Instant::now();
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= ANSWERS {
            answers.retain(|_, (until, _)| now < *until);
        }
        if answers.len() >= ANSWERS {
            answers.clear();
        }
        answers.insert(question, (now + belief, answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BELIEF: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_believed_for_as_long_as_was_said() {
        let beliefs = Beliefs::default();
        beliefs.put("may a?".to_owned(), true, BELIEF);
        beliefs.put("may c?".to_owned(), true, Duration::ZERO);
        assert_eq!(beliefs.get("may c?"), None);
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
            beliefs.put(number.to_string(), number, BELIEF);
        }
        assert!(beliefs.0.lock().unwrap().len() <= ANSWERS);
        assert_eq!(beliefs.get(&ANSWERS.to_string()), Some(ANSWERS));
    }
}
