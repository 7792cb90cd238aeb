//! An actor's mailbox. Empty, it holds a few dozen bytes; a channel of tokio's holds 1,600 for messages of 16 bytes, once
//! some have gone through it, and that is a fifth of what an object at rest may take.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use futures::task::AtomicWaker;

/// A queue without a bound that any number of tasks write and one task reads.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    queue: Mutex<Queue<T>>,
    reader: AtomicWaker,
}

#[derive(Debug)]
struct Queue<T> {
    messages: VecDeque<T>,
    closed: bool,
}

/// Nobody reads the mailbox any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed;

impl<T> Mailbox<T> {
    pub(crate) fn new() -> Self {
        Self { queue: Mutex::new(Queue { messages: VecDeque::new(), closed: false }), reader: AtomicWaker::new() }
    }

    /// Puts a message in, behind those that are there.
    ///
    /// # Errors
    /// The mailbox was closed; the message is gone.
    pub(crate) fn send(&self, message: T) -> Result<(), Closed> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(Closed);
        }
        queue.messages.push_back(message);
        drop(queue);
        self.reader.wake();
        Ok(())
    }

    /// The oldest message, once there is one. To be called by one task at a time.
    pub(crate) async fn recv(&self) -> T {
        poll_fn(|context| {
            self.reader.register(context.waker());
            match self.take() {
                Some(message) => Poll::Ready(message),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn take(&self) -> Option<T> {
        let mut queue = self.lock();
        let message = queue.messages.pop_front()?;
        if queue.messages.is_empty() {
            queue.messages = VecDeque::new();
        }
        Some(message)
    }

    /// Refuses messages from now on, and drops those that nobody has read.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        let unread = std::mem::take(&mut queue.messages);
        drop(queue);
        drop(unread);
    }

    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn messages_are_read_in_their_order_and_wake_the_reader() {
        let mailbox = Arc::new(Mailbox::new());
        let reader = tokio::spawn({
            let mailbox = mailbox.clone();
            async move { [mailbox.recv().await, mailbox.recv().await, mailbox.recv().await] }
        });
        tokio::task::yield_now().await;
        for number in 1..=3 {
            mailbox.send(number).unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(reader.await.unwrap(), [1, 2, 3]);
    }

    #[test]
    fn a_closed_mailbox_takes_nothing_and_keeps_nothing() {
        let (mailbox, message) = (Mailbox::new(), Arc::new(()));
        mailbox.send(message.clone()).unwrap();
        mailbox.close();
        assert_eq!(Arc::strong_count(&message), 1);
        assert_eq!(mailbox.send(message), Err(Closed));
    }
}
