//! What the probes of a container make of it.

use tokio::time::Instant;

use super::container::View;
use super::probe::{Place, Prober, Probes};

/// What probes have found out.
pub(super) enum News {
    Better,
    /// The container is not ready.
    NotReady(String),
    /// The container has to be restarted. What is said of the probe, and of what follows.
    Failed(String, String),
}

/// The probes of a running container and what follows from them.
pub(super) struct Supervision<'a> {
    name: &'a str,
    place: &'a Place<'a>,
    probes: Probes,
}

impl<'a> Supervision<'a> {
    pub(super) fn new(name: &'a str, place: &'a Place<'a>, probes: Probes) -> Self {
        Self { name, place, probes }
    }

    /// The container runs from now on.
    pub(super) fn begin(&mut self, view: &mut View) {
        let now = Instant::now();
        view.started = self.probes.startup.is_none();
        view.ready = view.started && self.probes.readiness.is_none();
        match &mut self.probes.startup {
            Some(startup) => startup.begin(now),
            None => self.begin_the_others(now),
        }
    }

    fn begin_the_others(&mut self, now: Instant) {
        for prober in [&mut self.probes.readiness, &mut self.probes.liveness].into_iter().flatten() {
            prober.begin(now);
        }
    }

    /// Waits until a probe changes what is thought of the container. Cancel safe: a probe under way is done again.
    pub(super) async fn next(&mut self, view: &mut View) -> News {
        let Self { name, place, probes } = self;
        if let Some(startup) = probes.startup.as_mut().filter(|_| !view.started) {
            if let Err(cause) = startup.verdict(place).await {
                return failed(name, ["Startup", "startup"], &cause);
            }
            view.started = true;
            view.ready = probes.readiness.is_none();
            self.begin_the_others(Instant::now());
            return News::Better;
        }
        tokio::select! {
            biased;
            ready = verdict(&mut probes.readiness, place) => {
                view.ready = ready.is_ok();
                match ready {
                    Ok(()) => News::Better,
                    Err(cause) => News::NotReady(said(name, "Readiness", &cause)),
                }
            }
            alive = verdict(&mut probes.liveness, place) => match alive {
                Ok(()) => News::Better,
                Err(cause) => failed(name, ["Liveness", "liveness"], &cause),
            },
        }
    }
}

async fn verdict(prober: &mut Option<Prober>, place: &Place<'_>) -> Result<(), String> {
    match prober {
        Some(prober) => prober.verdict(place).await,
        None => std::future::pending().await,
    }
}

/// What is said of a probe that failed. The containers of a pod share its events, so the container is named.
fn said(container: &str, probe: &str, cause: &str) -> String {
    format!("{probe} probe failed: container {container}: {cause}")
}

fn failed(container: &str, probe: [&str; 2], cause: &str) -> News {
    let follows = format!("Container {container} failed {} probe, will be restarted", probe[1]);
    News::Failed(said(container, probe[0], cause), follows)
}
