//! Opened connections that triggers with the same endpoint and credentials share.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::SourceError;

/// What is open, by key and type.
#[derive(Default)]
pub struct Table(Mutex<Slots>);

#[derive(Default)]
struct Slots {
    by_key: BTreeMap<(String, TypeId), Arc<Slot>>,
    /// The number of slots at which dead ones are looked for.
    sweep_at: usize,
}

/// One key's place.
#[derive(Default)]
struct Slot {
    /// The attempts to open that are over.
    attempts: AtomicU64,
    /// Held while opening: the failure of the latest attempt.
    latest: tokio::sync::Mutex<Option<Failure>>,
    /// The open value, readable without waiting for an attempt.
    open: Mutex<Option<Weak<dyn Any + Send + Sync>>>,
}

/// The number of an attempt, and why it failed.
type Failure = (u64, SourceError);

impl Slot {
    fn value<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref()?.upgrade()?.downcast().ok()
    }

    fn set(&self, value: Option<Weak<dyn Any + Send + Sync>>) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    fn alive(&self) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().is_some_and(|value| value.strong_count() > 0)
    }
}

impl Table {
    /// The value that is open under the key, or what `open` opens.
    pub async fn get<T: Send + Sync + 'static>(
        &self,
        key: &str,
        open: impl Future<Output = Result<T, SourceError>> + Send,
    ) -> Result<Arc<T>, SourceError> {
        let slot = self.slot::<T>(key);
        if let Some(value) = slot.value() {
            return Ok(value);
        }
        let seen = slot.attempts.load(Ordering::Acquire);
        let mut latest = slot.latest.lock().await;
        if let Some(value) = slot.value() {
            return Ok(value);
        }
        if let Some((number, failure)) = &*latest
            && *number > seen
        {
            return Err(failure.clone());
        }
        let outcome = open.await;
        let number = slot.attempts.fetch_add(1, Ordering::AcqRel) + 1;
        match outcome {
            Ok(value) => {
                let value = Arc::new(value);
                *latest = None;
                let weak: Weak<dyn Any + Send + Sync> = Arc::<T>::downgrade(&value);
                slot.set(Some(weak));
                Ok(value)
            }
            Err(failure) => {
                *latest = Some((number, failure.clone()));
                Err(failure)
            }
        }
    }

    /// Stops sharing `broken`.
    pub fn forget<T: Send + Sync + 'static>(&self, key: &str, broken: &Arc<T>) {
        let slot = self.slot::<T>(key);
        if slot.value::<T>().is_some_and(|value| Arc::ptr_eq(&value, broken)) {
            slot.set(None);
        }
    }

    fn slot<T: 'static>(&self, key: &str) -> Arc<Slot> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (key.to_owned(), TypeId::of::<T>());
        if let Some(slot) = slots.by_key.get(&key) {
            return slot.clone();
        }
        if slots.by_key.len() >= slots.sweep_at {
            slots.by_key.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.alive());
            slots.sweep_at = (slots.by_key.len() * 2).max(64);
        }
        slots.by_key.entry(key).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use futures::future::join_all;
    use tokio::time::sleep;

    use super::*;
    use crate::ErrorKind;

    fn refused() -> SourceError {
        SourceError::new(ErrorKind::Refused, "no")
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_who_ask_at_once_open_once() {
        let (table, opened) = (Table::default(), AtomicUsize::new(0));
        let open = async || {
            sleep(Duration::from_secs(1)).await;
            Ok(opened.fetch_add(1, Ordering::Relaxed))
        };
        let values = join_all((0..100).map(|_| table.get("k", open()))).await;
        let first = values[0].as_ref().unwrap();
        assert!(values.iter().all(|value| Arc::ptr_eq(value.as_ref().unwrap(), first)));
        assert_eq!(opened.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_share_the_failure_and_the_next_tries_anew() {
        let (table, tried) = (Table::default(), AtomicUsize::new(0));
        let open = async || {
            tried.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_secs(1)).await;
            Err::<(), _>(refused())
        };
        let values = join_all((0..10).map(|_| table.get("k", open()))).await;
        assert!(values.iter().all(|value| *value == Err(refused())));
        assert_eq!(tried.load(Ordering::Relaxed), 1);
        assert!(table.get("k", async { Ok(()) }).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_opener_is_dropped_another_opens() {
        let table = Table::default();
        let first = tokio::time::timeout(
            Duration::from_secs(1),
            table.get("k", std::future::pending::<Result<i32, SourceError>>()),
        );
        let second = table.get("k", async { Ok(7) });
        let (first, second) = tokio::join!(first, second);
        assert!(first.is_err());
        assert_eq!(*second.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_value_lives_as_long_as_somebody_holds_it() {
        let table = Table::default();
        let one = table.get("k", async { Ok(1) }).await.unwrap();
        assert_eq!(*table.get("k", async { Ok(2) }).await.unwrap(), 1);
        drop(one);
        assert_eq!(*table.get("k", async { Ok(3) }).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn forgetting_a_broken_value_spares_its_successor() {
        let table = Table::default();
        let one = table.get("k", async { Ok(1) }).await.unwrap();
        table.forget("k", &one);
        let two = table.get("k", async { Ok(2) }).await.unwrap();
        assert_eq!((*one, *two), (1, 2));
        table.forget("k", &one);
        assert!(Arc::ptr_eq(&two, &table.get("k", async { Ok(3) }).await.unwrap()));
    }

    #[tokio::test]
    async fn keys_and_types_are_kept_apart() {
        let table = Table::default();
        let number = table.get("k", async { Ok(1) }).await.unwrap();
        let text = table.get("k", async { Ok("one") }).await.unwrap();
        let other = table.get("l", async { Ok(2) }).await.unwrap();
        assert_eq!((*number, *text, *other), (1, "one", 2));
    }

    #[tokio::test]
    async fn slots_of_what_is_closed_do_not_pile_up() {
        let table = Table::default();
        for i in 0..1000 {
            drop(table.get(&i.to_string(), async { Ok(i) }).await);
        }
        assert!(table.0.lock().unwrap().by_key.len() <= 64);
    }
}
