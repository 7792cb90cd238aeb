//! Sources that tell unasked: that their trigger is active, or which metrics it yields.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};
use tidemark_trigger::{MetricSpec, Push};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::Instant;

use super::{Actor, Done};
use crate::observation::What;

/// The listening end of one trigger. It ends when the trigger's slot drops the other end of `silence`.
pub(super) struct Ear {
    index: usize,
    stream: BoxStream<'static, Push>,
    silence: oneshot::Receiver<Infallible>,
    /// It has just heard something.
    heard: bool,
}

/// Time before a source that has told something is listened to again: one that never stops must not take all of it.
const PAUSE: Duration = Duration::from_millis(100);

impl Actor {
    /// Listens to a trigger's source, if it tells anything; whoever listened to that trigger before stops.
    pub(super) fn listen(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.listener = None;
        let Ok(built) = &slot.built else { return };
        let Some(stream) = built.trigger.pushes(&self.ctx.door) else { return };
        let (listener, silence) = oneshot::channel();
        slot.listener = Some(listener);
        self.await_push(Box::new(Ear { index, stream, silence, heard: false }));
    }

    fn await_push(&mut self, mut ear: Box<Ear>) {
        self.start(async move {
            let next = async {
                if ear.heard {
                    tokio::time::sleep(PAUSE).await;
                }
                ear.stream.next().await
            };
            let push = tokio::select! {
                biased;
                _ = &mut ear.silence => None,
                push = next => push,
            };
            Done::Pushed(push.map(|push| (ear, push)))
        });
    }

    pub(super) fn on_pushed(&mut self, mut ear: Box<Ear>, push: Push) {
        // Another one listens by now, or nobody.
        if ear.silence.try_recv() == Err(TryRecvError::Closed) {
            return;
        }
        match push {
            Push::Active => self.on_announced(ear.index),
            Push::Metrics(metrics) => self.on_metrics(ear.index, metrics),
        }
        ear.heard = true;
        self.await_push(ear);
    }

    /// Acts at once on a trigger that is active. Without a metric in the HPA there would be nobody to scale further.
    fn on_announced(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        if slot.external_names().next().is_none() {
            return;
        }
        slot.announced = true;
        self.begin_evaluation();
        self.tell(What::Pushed { trigger: index });
        self.evaluate();
    }

    /// The trigger has other metrics from now on: its connection, made for the old ones, is given up.
    fn on_metrics(&mut self, index: usize, metrics: Arc<[MetricSpec]>) {
        let slot = &mut self.slots[index];
        let Ok(built) = &slot.built else { return };
        if !built.is_unnamed() && *built.metrics() == *metrics {
            return;
        }
        let mut built = built.clone();
        built.named = Some(metrics);
        slot.replace(built);
        slot.connection = None;
        slot.due = Instant::now();
        self.reconcile(None);
    }
}
