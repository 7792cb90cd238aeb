//! The parts of a running process: tasks that stay until they are told to stop.

use anyhow::anyhow;
use tokio::task::{JoinError, JoinSet};

use super::signals::Signals;

/// Tasks, each with its name for the user.
#[derive(Default)]
pub struct Parts(JoinSet<(&'static str, Result<(), String>)>);

impl Parts {
    /// Starts a part that cannot fail.
    pub fn start(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(async move {
            part.await;
            (name, Ok(()))
        });
    }

    /// Starts a part that may fail.
    pub fn start_fallible<E: std::fmt::Display>(
        &mut self,
        name: &'static str,
        part: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.0.spawn(async move { (name, part.await.map_err(|error| error.to_string())) });
    }

    /// How many have not been joined yet.
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// Waits until one more part has ended; false when none is left. What it failed of is logged.
    pub async fn join_one(&mut self) -> bool {
        match self.0.join_next().await {
            None => false,
            Some(ended) => {
                if let Err(error) = outcome(ended) {
                    tracing::error!("{error}");
                }
                true
            }
        }
    }

    /// Does `work` while all parts run. None when a signal came first.
    ///
    /// # Errors
    /// Those of `work`, or a part has ended though nobody has told it to.
    pub async fn do_while_they_run<T>(
        &mut self,
        signals: &mut Signals,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<Option<T>> {
        tokio::select! {
            biased;
            () = signals.stop() => Ok(None),
            Some(ended) = self.0.join_next() => {
                let name = outcome(ended)?;
                Err(anyhow!("{name} has ended before its time"))
            }
            done = work => done.map(Some),
        }
    }
}

/// The name of a part that has ended as it should.
fn outcome(ended: Result<(&'static str, Result<(), String>), JoinError>) -> anyhow::Result<&'static str> {
    match ended {
        Ok((name, Ok(()))) => Ok(name),
        Ok((name, Err(error))) => Err(anyhow!("{name} failed: {error}")),
        Err(error) => Err(anyhow!("a part of the program broke down: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    async fn watched(parts: &mut Parts) -> String {
        let mut signals = Signals::listen().unwrap();
        let nothing_else = pending::<anyhow::Result<()>>();
        parts.do_while_they_run(&mut signals, nothing_else).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn a_part_that_ends_by_itself_ends_the_work_and_says_why() {
        let mut parts = Parts::default();
        parts.start("the watcher", pending());
        parts.start("the server", async {});
        assert_eq!(watched(&mut parts).await, "the server has ended before its time");
        parts.start_fallible("the operator", async { Err("no watch") });
        assert_eq!(watched(&mut parts).await, "the operator failed: no watch");
        parts.start("the sandbox", async { panic!("a bug") });
        let error = watched(&mut parts).await;
        assert!(error.starts_with("a part of the program broke down: ") && error.contains("a bug"), "{error}");
        assert_eq!(parts.left(), 1);
    }

    #[tokio::test]
    async fn work_that_is_done_leaves_the_parts_running() {
        let mut parts = Parts::default();
        parts.start("the watcher", pending());
        let mut signals = Signals::listen().unwrap();
        assert_eq!(parts.do_while_they_run(&mut signals, async { Ok(7) }).await.unwrap(), Some(7));
        assert_eq!(parts.left(), 1);
    }
}
