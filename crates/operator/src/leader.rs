//! Leader election over a Lease, and the fence that keeps a leader from writing when it may be one no longer.
//!
//! Fields, timings and rules are those of Kubernetes' own controllers and of KEDA, so that either can follow the other:
//! whoever sees a Lease unchanged for its duration, by its own clock, may take it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, PostParams};
use tidemark_clock::Clock;
use tokio::time::Instant;

use crate::{FIELD_MANAGER, client};

/// A Lease and how it is held. `Default` has KEDA's times.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    pub namespace: String,
    pub name: String,
    /// Who this process is; no other has the same.
    pub identity: String,
    /// How long others leave a Lease alone that nobody renews. 15 s.
    pub duration: Duration,
    /// How long a leader that cannot renew goes on. Shorter than the duration. 10 s.
    pub renew_deadline: Duration,
    /// Between two attempts. 2 s.
    pub retry_period: Duration,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self {
            namespace: "keda".to_owned(),
            name: "operator.keda.sh".to_owned(),
            identity: String::new(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Whether this process may write: the Lease was renewed, and that is not longer ago than the renew deadline. Cheap to
/// clone.
///
/// Both clocks must say so. The monotonic one goes on while the process is stopped, and cannot be set; it stands still
/// while the machine sleeps or its snapshot is on a shelf, which the wall clock tells afterwards.
#[derive(Clone, Debug)]
pub struct Fence {
    renewed: Arc<Mutex<Option<Moment>>>,
    deadline: Duration,
    clock: Clock,
}

/// A time by both clocks.
#[derive(Clone, Copy, Debug)]
struct Moment {
    instant: Instant,
    wall: Timestamp,
}

impl Moment {
    fn now(clock: Clock) -> Self {
        Self { instant: Instant::now(), wall: clock.now() }
    }

    /// How long ago it was, by the clock that says more.
    fn age(self, clock: Clock) -> Duration {
        let by_wall = Duration::try_from(clock.now().duration_since(self.wall)).unwrap_or_default();
        self.instant.elapsed().max(by_wall)
    }
}

impl Fence {
    /// Whether it may write now.
    pub fn is_open(&self) -> bool {
        let renewed = *self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        renewed.is_some_and(|at| at.age(self.clock) < self.deadline)
    }

    fn set(&self, renewed: Option<Moment>) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = renewed;
    }
}

/// Takes a Lease, and keeps it.
pub struct Elector {
    api: Api<Lease>,
    settings: LeaseSettings,
    clock: Clock,
    fence: Fence,
    /// What was last seen of the Lease, and when that was new.
    observed: Option<(LeaseSpec, Instant)>,
    leader: Option<String>,
}

/// Why the Lease is not held.
enum Unheld {
    /// Another one has it.
    Held,
    /// The API server did not do as asked.
    Failed(String),
}

impl Elector {
    /// An elector, and the fence that is open while it leads. The client needs no guard.
    pub fn new(client: Client, settings: LeaseSettings, clock: Clock) -> (Self, Fence) {
        let fence = Fence { renewed: Arc::default(), deadline: settings.renew_deadline, clock };
        let api = Api::namespaced(client, &settings.namespace);
        (Self { api, settings, clock, fence: fence.clone(), observed: None, leader: None }, fence)
    }

    /// Waits until this process leads.
    pub async fn acquire(&mut self) {
        let mut failing = false;
        loop {
            match self.attempt().await {
                Ok(()) => {
                    tracing::info!(lease = self.settings.name, "leading");
                    return;
                }
                Err(Unheld::Held) => failing = false,
                Err(Unheld::Failed(message)) => {
                    if !failing {
                        tracing::warn!(
                            lease = self.settings.name,
                            "cannot take the Lease, and goes on trying: {message}"
                        );
                    }
                    failing = true;
                }
            }
            // One that has come to its end is taken at once: then a dead leader's work goes on within the Lease's
            // duration and one retry period.
            let end = self.expiry().map(|end| end.saturating_duration_since(Instant::now()));
            let pause = end.filter(|end| !end.is_zero()).unwrap_or(self.settings.retry_period);
            tokio::time::sleep(pause.min(self.settings.retry_period)).await;
        }
    }

    /// Renews the Lease for as long as that works; says why it is lost in the end.
    pub async fn keep(&mut self) -> String {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.settings.retry_period).await;
            let until = renewed + self.settings.renew_deadline;
            let began = Instant::now();
            let lost = match tokio::time::timeout_at(until, self.attempt()).await {
                Ok(Ok(())) => {
                    renewed = began;
                    continue;
                }
                Ok(Err(Unheld::Held)) => {
                    let leader = self.leader.as_deref().unwrap_or("somebody else");
                    format!("{leader} has taken it")
                }
                Ok(Err(Unheld::Failed(message))) if Instant::now() < until => {
                    tracing::warn!(lease = self.settings.name, "cannot renew the Lease: {message}");
                    continue;
                }
                Ok(Err(Unheld::Failed(message))) => message,
                Err(_) => format!("not renewed within {} s", self.settings.renew_deadline.as_secs_f64()),
            };
            self.fence.set(None);
            return lost;
        }
    }

    /// Gives the Lease back, so that another one need not wait for its end.
    pub async fn release(&mut self) {
        self.fence.set(None);
        let released = async {
            let mut lease = self.api.get(&self.settings.name).await.ok()?;
            let spec =
                lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.settings.identity))?;
            let now = MicroTime(self.clock.now());
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            (spec.renew_time, spec.acquire_time) = (Some(now.clone()), Some(now));
            self.api.replace(&self.settings.name, &params(), &lease).await.ok()
        };
        if let Ok(Some(_)) = tokio::time::timeout(self.settings.retry_period, released).await {
            tracing::info!(lease = self.settings.name, "the Lease is given back");
        }
    }

    /// Takes or renews the Lease once.
    async fn attempt(&mut self) -> Result<(), Unheld> {
        let limit = self.settings.renew_deadline / 2;
        // The fence counts from before the request: nobody knows when the server has seen it.
        let began = Moment::now(self.clock);
        let outcome = tokio::time::timeout(limit, self.try_once()).await;
        match outcome.unwrap_or_else(|_| Err(Unheld::Failed("the API server did not answer in time".to_owned()))) {
            Ok(()) => {
                self.fence.set(Some(began));
                Ok(())
            }
            Err(why) => Err(why),
        }
    }

    async fn try_once(&mut self) -> Result<(), Unheld> {
        let failed = |error: kube::Error| Unheld::Failed(client::describe(&error));
        let Some(mut lease) = self.api.get_opt(&self.settings.name).await.map_err(failed)? else {
            let mut lease = Lease { spec: Some(self.held(None)), ..Lease::default() };
            lease.metadata.name = Some(self.settings.name.clone());
            let created = self.api.create(&params(), &lease).await.map_err(failed)?;
            self.observe(created.spec.unwrap_or_default());
            return Ok(());
        };
        let there = lease.spec.clone().unwrap_or_default();
        self.observe(there.clone());
        let holder = there.holder_identity.as_deref().unwrap_or_default();
        let is_own = holder == self.settings.identity;
        let has_expired = self.expiry().is_some_and(|end| Instant::now() >= end);
        if !is_own && !holder.is_empty() && !has_expired {
            return Err(Unheld::Held);
        }
        lease.spec = Some(self.held(Some(&there)));
        let written = self.api.replace(&self.settings.name, &params(), &lease).await.map_err(failed)?;
        self.observe(written.spec.unwrap_or_default());
        Ok(())
    }

    /// When the Lease comes to its end if nobody writes it, seen from here: clocks of others prove nothing.
    fn expiry(&self) -> Option<Instant> {
        let (spec, since) = self.observed.as_ref()?;
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Some(*since + seconds.map_or(self.settings.duration, Duration::from_secs))
    }

    fn observe(&mut self, spec: LeaseSpec) {
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        if holder != self.leader {
            if let Some(leader) = holder.as_ref().filter(|leader| **leader != self.settings.identity) {
                tracing::info!(lease = self.settings.name, leader, "standing by");
            }
            self.leader = holder;
        }
        if self.observed.as_ref().is_none_or(|(known, _)| *known != spec) {
            self.observed = Some((spec, Instant::now()));
        }
    }

    /// The Lease held by this process.
    fn held(&self, there: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(self.clock.now());
        let own = there.filter(|there| there.holder_identity.as_ref() == Some(&self.settings.identity));
        let transitions = there.and_then(|there| there.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: i32::try_from(self.settings.duration.as_secs()).ok(),
            acquire_time: own.and_then(|own| own.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions + i32::from(own.is_none() && there.is_some())),
            ..there.cloned().unwrap_or_default()
        }
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fence_closes_by_the_clock_that_says_more() {
        let clock = Clock::starting_at("2026-01-05T08:00:00Z".parse().unwrap());
        let fence = Fence { renewed: Arc::default(), deadline: Duration::from_secs(10), clock };
        assert!(!fence.is_open(), "never renewed");
        let now = Moment::now(clock);
        fence.set(Some(now));
        assert!(fence.is_open());
        fence.set(Some(Moment { wall: now.wall - SignedDuration::from_secs(3600), ..now }));
        assert!(!fence.is_open(), "the machine has slept");
        fence.set(Some(Moment { wall: now.wall + SignedDuration::from_secs(3600), ..now }));
        assert!(fence.is_open(), "the clock was set back");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!fence.is_open());
    }
}
