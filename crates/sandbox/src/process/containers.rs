//! The containers of a pod: who waits for whom, and who goes last.

use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Node;
use super::container::{Restart, Runner, Teller, View, stopped};
use super::journal::Journal;
use super::probe::SideLogs;

/// The containers of a pod, the ones that come first included. Numbers count through both lists.
pub(super) struct Containers<'a> {
    pub(super) node: &'a Node,
    pub(super) pod: &'a Pod,
    pub(super) address: &'a str,
    /// Goes with the last container, which ends the pod's reports.
    pub(super) teller: Teller,
    pub(super) stop: watch::Receiver<Option<Duration>>,
}

/// Whether a container of the first ones is a sidecar: it runs beside all that follow and ends after them.
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

impl Containers<'_> {
    /// Runs all until they are done for good or stopped.
    pub(super) async fn run(self) {
        let mut sidecars = Sidecars::new(self.stop.clone());
        self.run_beside(&mut sidecars).await;
        sidecars.finish(super::grace(self.pod)).await;
    }

    /// Runs all but the sidecars, which are started on the way.
    async fn run_beside<'a>(&'a self, sidecars: &mut Sidecars<'a>) {
        let Some(spec) = &self.pod.spec else { return };
        let policy = match spec.restart_policy.as_deref() {
            Some("Never") => Restart::Never,
            Some("OnFailure") => Restart::OnFailure,
            _ => Restart::Always,
        };
        let first = spec.init_containers.as_deref().unwrap_or_default();
        for (number, container) in first.iter().enumerate() {
            if is_sidecar(container) {
                if let Some(started) = sidecars.start(|stop| self.runner(number, container, Restart::Always, stop)) {
                    sidecars.beside(self.until_started(started)).await;
                }
                continue;
            }
            let until_done = if policy == Restart::Never { Restart::Never } else { Restart::OnFailure };
            let attempt = self.runner(number, container, until_done, self.stop.clone()).run();
            if sidecars.beside(attempt).await != Some(0) {
                // Stopped, or failed for good: what follows never starts.
                return;
            }
        }
        let main = spec.containers.iter().enumerate();
        let main = main
            .map(|(number, container)| self.runner(first.len() + number, container, policy, self.stop.clone()).run());
        let main: FuturesUnordered<_> = main.collect();
        sidecars.beside(main.for_each(|_| std::future::ready(()))).await;
    }

    /// Resolves when a sidecar has started, or never will because the pod ends.
    async fn until_started(&self, mut started: watch::Receiver<bool>) {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            _ = stop.wait_for(Option::is_some) => {}
            _ = started.wait_for(|started| *started) => {}
        }
    }

    fn runner<'a>(
        &'a self,
        number: usize,
        container: &'a Container,
        restart: Restart,
        stop: watch::Receiver<Option<Duration>>,
    ) -> Runner<'a> {
        Runner {
            node: self.node,
            pod: self.pod,
            address: self.address,
            container,
            restart,
            teller: self.teller.clone(),
            number,
            started: watch::Sender::new(false),
            stop,
            view: View::waiting("ContainerCreating"),
            log: self.log(container),
            side_logs: self.side_logs(container),
        }
    }

    fn log_file(&self, container: &Container) -> PathBuf {
        let namespace = self.pod.namespace().unwrap_or_default();
        let folder = self.node.settings.log_dir.join(namespace).join(self.pod.name_any());
        folder.join(format!("{}.log", container.name))
    }

    fn side_logs(&self, container: &Container) -> SideLogs {
        let log = |of: &str| Arc::new(Journal::new(self.log_file(container).with_extension(of)));
        SideLogs {
            startup: log("startup.log"),
            readiness: log("readiness.log"),
            liveness: log("liveness.log"),
            hook: log("hook.log"),
        }
    }

    /// The container's log, for all to read.
    fn log(&self, container: &Container) -> Arc<Journal> {
        let journal = Arc::new(Journal::new(self.log_file(container)));
        let (namespace, uid) = (self.pod.namespace().unwrap_or_default(), self.pod.uid().unwrap_or_default());
        self.node.logs.add([&namespace, &self.pod.name_any(), &container.name, &uid], journal.clone());
        journal
    }
}

/// The sidecars of a pod. They hear of the pod's end only when the other containers have ended.
struct Sidecars<'a> {
    running: FuturesUnordered<BoxFuture<'a, Option<i32>>>,
    /// Ends one each, in the order of their starts.
    orders: Vec<watch::Sender<Option<Duration>>>,
    /// The pod's end.
    stop: watch::Receiver<Option<Duration>>,
    /// When the pod's time to end is over, once it has been told to.
    end: Option<Instant>,
}

impl<'a> Sidecars<'a> {
    fn new(mut stop: watch::Receiver<Option<Duration>>) -> Self {
        let end = stop.borrow_and_update().map(|grace| Instant::now() + grace);
        Self { running: FuturesUnordered::new(), orders: Vec::new(), stop, end }
    }

    /// Starts one, unless the pod ends; what it gives becomes true once it has started.
    fn start(
        &mut self,
        runner: impl FnOnce(watch::Receiver<Option<Duration>>) -> Runner<'a>,
    ) -> Option<watch::Receiver<bool>> {
        if self.end.is_some() {
            return None;
        }
        let (order, ordered) = watch::channel(None);
        self.orders.push(order);
        let runner = runner(ordered);
        let started = runner.started.subscribe();
        self.running.push(Box::pin(runner.run()));
        Some(started)
    }

    /// Does `work` while the sidecars run.
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            if let Some(done) = self.step(work.as_mut()).await {
                return done;
            }
        }
    }

    /// Goes on with `work` until it is done or the time of the pod's end has changed.
    async fn step<T>(&mut self, mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        loop {
            tokio::select! {
                biased;
                grace = stopped(&mut self.stop) => {
                    let end = Instant::now() + grace;
                    self.end = Some(self.end.map_or(end, |known| known.min(end)));
                    return None;
                }
                done = work.as_mut() => return Some(done),
                Some(_) = self.running.next(), if !self.running.is_empty() => {}
            }
        }
    }

    /// Ends them, the last one first, in what is left of the pod's time, or in `time` when nobody has stopped the pod.
    async fn finish(mut self, time: Duration) {
        let latest = Instant::now() + time;
        for order in std::mem::take(&mut self.orders).into_iter().rev() {
            // The runner goes with its end, and its ear with it.
            let mut ended = pin!(order.closed());
            loop {
                let end = self.end.map_or(latest, |end| end.min(latest));
                order.send_replace(Some(end.saturating_duration_since(Instant::now())));
                if self.step(ended.as_mut()).await.is_some() {
                    break;
                }
            }
        }
    }
}
