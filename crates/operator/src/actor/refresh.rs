//! Reading parameters again that come from elsewhere, because something has changed there, or because it is time.

use tokio::time::Instant;

use super::trigger::{BuildResult, Parts};
use super::{Actor, Done};

/// The repeated reading of parameters that come from elsewhere.
#[derive(Default)]
pub(super) struct Refresh {
    pub(super) due: Option<Instant>,
    running: bool,
    /// Parameters changed again while they were being read.
    again: bool,
}

impl Refresh {
    /// Whether parameters have changed at a time when nobody could read them; asked once.
    pub(super) fn take_missed(&mut self) -> bool {
        !self.running && std::mem::take(&mut self.again)
    }
}

impl Actor {
    /// Resolves the parameters again of all triggers that have some from elsewhere: because something has changed
    /// (`fresh`), or because it is time.
    pub(super) fn rebuild_triggers(&mut self, fresh: bool) {
        let indices: Vec<_> = (0..self.slots.len()).filter(|index| self.plan.resolves(*index)).collect();
        if self.refresh.running || (fresh && self.check.running) {
            self.refresh.again |= fresh;
            return;
        }
        if indices.is_empty() {
            return;
        }
        self.refresh.running = true;
        let (parts, epoch) = (Parts { fresh, ..self.parts() }, self.epoch);
        self.start(async move {
            let mut builds = Vec::new();
            for index in indices {
                builds.push((index, parts.build(index).await));
            }
            Done::Rebuilt { epoch, builds }
        });
    }

    pub(super) fn on_rebuilt(&mut self, epoch: u32, builds: Vec<(usize, BuildResult)>) {
        self.refresh.running = false;
        if std::mem::take(&mut self.refresh.again) {
            self.rebuild_triggers(true);
        }
        if epoch != self.epoch {
            return;
        }
        self.arm_auth_refresh();
        let mut check = false;
        for (index, build) in builds {
            match (build, &self.slots[index].built) {
                (Ok(new), Ok(old)) if new.fingerprint == old.fingerprint => {}
                (Ok(mut new), Ok(old)) => {
                    new.named = old.named.clone();
                    let slot = &mut self.slots[index];
                    check |= slot.replace(new);
                    slot.connection = None;
                    slot.due = Instant::now();
                    self.tell_built(index);
                    self.listen(index);
                }
                // It could not be built so far: the check puts it to work and completes the HPA.
                (Ok(_), Err(_)) => check = true,
                // What was built goes on with what it has, until a read fails.
                (Err(_), _) => {}
            }
        }
        if check {
            self.reconcile(None);
        }
    }

    /// It is time. A target that nobody watches is read again as well, for the environment of its containers.
    pub(super) fn refresh_triggers(&mut self) {
        let unwatched = self.workload.target.as_ref().is_some_and(|state| !state.target.is_watched());
        if unwatched && !self.check.running && !self.workload.reading {
            self.read_target();
        }
        self.rebuild_triggers(false);
    }

    pub(super) fn arm_auth_refresh(&mut self) {
        let needed = (0..self.slots.len()).any(|index| self.plan.resolves(index));
        let refresh = self.ctx.settings.auth_refresh;
        self.refresh.due = (needed && !refresh.is_zero()).then(|| Instant::now() + refresh);
    }
}
