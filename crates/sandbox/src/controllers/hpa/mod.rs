//! The HorizontalPodAutoscaler controller: reads what the pure algorithm of `tidemark_engine::hpa` needs and does what
//! it decides.

mod convert;
mod pass;
mod resource;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Client;
use kube::runtime::watcher::Event;
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
        for note in outcome.notes {
            self.recorder.record(note).await;
        }
        let Some(hpa) = self.hpas.get(&outcome.key) else { return };
        // The HPA may have gone during the pass: what the pass wrote must not bring it back.
        if cache::uid(&**hpa) == outcome.uid {
            if let Some(written) = outcome.written {
                self.hpas.written(written);
            }
            if let Some(known) = self.known.get_mut(&outcome.key) {
                known.memory = outcome.memory;
                known.pods = outcome.pods.unwrap_or_else(|| std::mem::take(&mut known.pods));
            }
        }
        self.queue.push_at(outcome.key, outcome.started + self.controls.sync_period);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_hpa_that_was_deleted_during_a_pass_stays_deleted() {
        let clock = Clock::starting_at(jiff::Timestamp::UNIX_EPOCH);
        let sandbox = crate::Sandbox::new(clock, crate::Options::default());
        let client = sandbox.client();
        let decisions = crate::Options::default().hpa;
        let mut controller = Controller {
            recorder: Recorder::new(client.clone(), clock, "test"),
            client,
            clock,
            controls: Controls { decisions, sync_period: Duration::from_secs(15) },
            hpas: Cache::default(),
            queue: Queue::default(),
            known: BTreeMap::new(),
            running: BTreeSet::new(),
        };
        let hpa: HorizontalPodAutoscaler = serde_json::from_value(json!({
            "metadata": { "name": "worker", "namespace": "default", "uid": "1", "resourceVersion": "1" },
            "spec": { "maxReplicas": 3, "scaleTargetRef": { "kind": "Deployment", "name": "worker" } },
        }))
        .unwrap();
        controller.saw(Event::Apply(hpa.clone()));
        let key = Key::of(&hpa);
        let pass = controller.begin(key.clone()).unwrap();
        controller.queue.remove(&key);
        controller.saw(Event::Delete(hpa.clone()));
        let outcome = Outcome {
            key: key.clone(),
            uid: "1".to_owned(),
            started: Instant::now(),
            memory: pass.memory,
            pods: None,
            written: Some(hpa),
            notes: Vec::new(),
        };
        controller.ended(outcome).await;
        assert!(controller.hpas.get(&key).is_none());
        let next = tokio::time::timeout(Duration::from_secs(60), controller.queue.next()).await;
        assert!(next.is_err(), "no further pass");
    }
}
