//! The reads and writes of an actor that are under way.

use std::future::poll_fn;
use std::task::Poll;

use futures::FutureExt;
use futures::future::BoxFuture;

/// Futures that run together in one task. There are few at a time, and mostly none: then they take no room but this.
pub(super) struct UnderWay<T>(Vec<BoxFuture<'static, T>>);

impl<T> Default for UnderWay<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> UnderWay<T> {
    pub(super) fn add(&mut self, work: impl Future<Output = T> + Send + 'static) {
        self.0.push(work.boxed());
    }

    /// What ends first, of those that end together what began first; never where there is nothing.
    pub(super) async fn next(&mut self) -> T {
        poll_fn(|context| {
            for index in 0..self.0.len() {
                if let Poll::Ready(done) = self.0[index].poll_unpin(context) {
                    drop(self.0.remove(index));
                    if self.0.is_empty() {
                        self.0 = Vec::new();
                    }
                    return Poll::Ready(done);
                }
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_ends_first_comes_first_and_nothing_is_lost() {
        let mut work = UnderWay::default();
        for seconds in [3, 1, 2, 1] {
            work.add(async move {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                seconds
            });
        }
        let ended = [work.next().await, work.next().await, work.next().await, work.next().await];
        assert_eq!(ended, [1, 1, 2, 3]);
        assert_eq!(work.0.capacity(), 0);
        assert!(
            tokio::time::timeout(Duration::from_secs(60), work.next()).await.is_err(),
            "there is nothing to wait for"
        );
    }
}
