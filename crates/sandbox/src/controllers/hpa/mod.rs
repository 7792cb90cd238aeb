//! The HorizontalPodAutoscaler controller: reads what the pure algorithm of `tidemark_engine::hpa` needs and does what
//! it decides.

mod convert;
mod pass;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::runtime::watcher::Event;
use kube::{Client, ResourceExt};
use tidemark_clock::Clock;
use tidemark_engine::hpa::Memory;
use tokio::time::Instant;

use super::{Cache, Key, Queue, Recorder, cache, watch};
use pass::{Outcome, Pass};

/// So many HPAs are worked on at once, as in kube-controller-manager.
const CONCURRENT: usize = 5;

/// Settings of the controller.
#[derive(Clone, Debug)]
pub(super) struct Controls {
    pub(super) decisions: tidemark_engine::hpa::Controls,
    /// Time between two passes over one HPA, and before its first.
    pub(super) sync_period: Duration,
}

/// Runs for ever; dropping the future stops the controller.
pub(super) async fn run(client: Client, clock: Clock, controls: Controls) {
    let mut seen = watch::<HorizontalPodAutoscaler>(&client);
    let mut passes = FuturesUnordered::<BoxFuture<'static, Outcome>>::new();
    let mut controller = Controller {
        recorder: Recorder::new(client.clone(), clock, "horizontal-pod-autoscaler"),
        client,
        clock,
        controls,
        hpas: Cache::default(),
        queue: Queue::default(),
        known: BTreeMap::new(),
        running: BTreeSet::new(),
    };
    loop {
        let may_start = controller.hpas.synced() && passes.len() < CONCURRENT;
        tokio::select! {
            biased;
            Some(event) = seen.next() => controller.saw(event),
            Some(outcome) = passes.next() => controller.ended(outcome).await,
            key = controller.queue.next(), if may_start => {
                if let Some(pass) = controller.begin(key) {
                    passes.push(Box::pin(pass.run()));
                }
            }
        }
    }
}

/// What lasts between two passes over one HPA.
#[derive(Default)]
struct Known {
    uid: String,
    memory: Memory,
    /// Uids of the pods that the target's selector matched at the last pass.
    pods: BTreeSet<String>,
}

struct Controller {
    client: Client,
    clock: Clock,
    controls: Controls,
    hpas: Cache<HorizontalPodAutoscaler>,
    queue: Queue<Key>,
    known: BTreeMap<Key, Known>,
    running: BTreeSet<Key>,
    recorder: Recorder,
}

impl Controller {
    /// Changes never bring a pass forward: an HPA is looked at once per period and not more often.
    fn saw(&mut self, event: Event<HorizontalPodAutoscaler>) {
        for hpa in self.hpas.apply(event) {
            let key = Key::of(&*hpa);
            if self.hpas.get(&key).is_none() {
                self.queue.remove(&key);
                self.known.remove(&key);
            } else if !self.running.contains(&key) {
                self.queue.push_at(key, Instant::now() + self.controls.sync_period);
            }
        }
    }

    fn begin(&mut self, key: Key) -> Option<Pass> {
        let hpa = self.hpas.get(&key)?.clone();
        let known = self.known.entry(key.clone()).or_default();
        if known.uid != cache::uid(&*hpa) {
            *known = Known { uid: cache::uid(&*hpa).to_owned(), ..Known::default() };
        }
        let memory = known.memory.clone();
        let rivals = self.known.iter().filter(|(other, _)| other.namespace == key.namespace && **other != key);
        let rivals = rivals.map(|(other, known)| (other.name.clone(), known.pods.clone())).collect();
        self.running.insert(key.clone());
        Some(Pass {
            client: self.client.clone(),
            clock: self.clock,
            controls: self.controls.decisions,
            hpa: Arc::unwrap_or_clone(hpa),
            key,
            memory,
            rivals,
        })
    }

    async fn ended(&mut self, outcome: Outcome) {
        self.running.remove(&outcome.key);
        if let Some(written) = outcome.written {
            self.hpas.written(written);
        }
        for note in outcome.notes {
            self.recorder.record(note).await;
        }
        let Some(hpa) = self.hpas.get(&outcome.key) else { return };
        if hpa.uid().as_deref() == Some(&outcome.uid)
            && let Some(known) = self.known.get_mut(&outcome.key)
        {
            known.memory = outcome.memory;
            if let Some(pods) = outcome.pods {
                known.pods = pods;
            }
        }
        self.queue.push_at(outcome.key, outcome.started + self.controls.sync_period);
    }
}
