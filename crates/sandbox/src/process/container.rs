//! One container of a pod: started, probed, started again by the restart policy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::environment::{Obstacle, Source};
use super::group::Group;
use super::probe::{Prober, Probes};
use super::protocol::{Launch, Report};
use super::{Node, Settings};

/// The pause before the second restart; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A container that ran for so long has no history of failures any more.
const GOOD_RUN: Duration = Duration::from_secs(600);
/// The exit code of a container that could not be started.
const NOT_STARTED: i32 = 128;
/// A shim ends its group by itself at the end of the grace; after this much more it is ended from here.
const SHIM_LATE: Duration = Duration::from_secs(2);

/// When a container is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    Always,
    OnFailure,
    Never,
}

/// How a run of a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) signal: Option<i32>,
    pub(super) started: Timestamp,
    pub(super) finished: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Waiting { reason: &'static str, message: String },
    Running { since: Timestamp },
    Terminated(Ended),
}

/// What the pod's status says of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) state: State,
    pub(super) last: Option<Ended>,
    /// Runs that have been begun after the first.
    pub(super) restarts: i32,
    pub(super) started: bool,
    pub(super) ready: bool,
}

impl View {
    /// A container that has not been started yet; `reason` says why.
    pub(super) fn waiting(reason: &'static str) -> Self {
        let state = State::Waiting { reason, message: String::new() };
        Self { state, last: None, restarts: 0, started: false, ready: false }
    }
}

/// What a container tells its pod.
pub(super) enum Told {
    View(View),
    Event { warning: bool, reason: &'static str, message: String },
}

pub(super) type Teller = mpsc::UnboundedSender<(usize, Told)>;

/// A container with all it needs. It lives as long as the pod.
pub(super) struct Runner<'a> {
    pub(super) node: &'a Node,
    pub(super) pod: &'a Pod,
    pub(super) address: &'a str,
    pub(super) container: &'a Container,
    pub(super) restart: Restart,
    /// Tells the pod, with the container's number.
    pub(super) teller: Teller,
    pub(super) number: usize,
    pub(super) stop: watch::Receiver<Option<Duration>>,
    pub(super) view: View,
}

/// How an attempt to run the container ended.
enum Run {
    Ended(Ended),
    NotStarted(Obstacle),
}

impl Runner<'_> {
    /// Runs the container until it is done for good or stopped, and returns its last exit code.
    pub(super) async fn run(mut self) -> Option<i32> {
        let mut failures = 0;
        while self.stop.borrow().is_none() {
            let begun = Instant::now();
            let wait = match self.once().await {
                Run::Ended(ended) => {
                    let code = ended.code;
                    if self.done(ended) {
                        return Some(code);
                    }
                    failures = if begun.elapsed() >= GOOD_RUN { 1 } else { failures + 1 };
                    self.back_off(pause(failures - 1))
                }
                Run::NotStarted(obstacle) => {
                    if self.hindered(obstacle) {
                        return Some(NOT_STARTED);
                    }
                    // What is missing may come any time; the kubelet looks about as often.
                    FIRST_PAUSE
                }
            };
            // The order to stop may have been read already, by the run that has just ended.
            let _ = tokio::time::timeout(wait, self.stop.wait_for(Option::is_some)).await;
        }
        None
    }

    /// Enters the end of a run and says whether it was the last.
    fn done(&mut self, ended: Ended) -> bool {
        let done = match self.restart {
            Restart::Always => false,
            Restart::OnFailure => ended.code == 0,
            Restart::Never => true,
        };
        self.view.state = State::Terminated(ended.clone());
        (self.view.ready, self.view.started) = (false, false);
        self.tell();
        if done || self.stop.borrow().is_some() {
            return true;
        }
        self.view.last = Some(ended);
        false
    }

    /// Enters that the next run comes after a pause.
    fn back_off(&mut self, pause: Duration) -> Duration {
        if pause.is_zero() {
            return pause;
        }
        let (name, pod) = (&self.container.name, self.pod.name_any());
        let message = format!("back-off {} s restarting failed container={name} pod={pod}", pause.as_secs());
        self.event(true, "BackOff", format!("Back-off restarting failed container {name} in pod {pod}"));
        self.view.state = State::Waiting { reason: "CrashLoopBackOff", message };
        self.tell();
        pause
    }

    /// Enters that the container could not be started and says whether that is the end of it.
    fn hindered(&mut self, obstacle: Obstacle) -> bool {
        let failed = obstacle.reason == "RunContainerError";
        let event = if failed { "Failed" } else { obstacle.reason };
        self.event(true, event, format!("Error: {}", obstacle.message));
        let done = failed && self.restart == Restart::Never;
        self.view.state = if done {
            let now = self.node.clock.now();
            State::Terminated(Ended { code: NOT_STARTED, signal: None, started: now, finished: now })
        } else {
            State::Waiting { reason: obstacle.reason, message: obstacle.message }
        };
        self.tell();
        done
    }

    async fn once(&mut self) -> Run {
        let source =
            Source { client: &self.node.client, settings: &self.node.settings, pod: self.pod, address: self.address };
        let launch = match source.launch(self.container).await {
            Ok(launch) => launch,
            Err(obstacle) => return Run::NotStarted(obstacle),
        };
        let probes = match Probes::of(self.container, self.address) {
            Ok(probes) => probes,
            Err(message) => return Run::NotStarted(Obstacle { reason: "CreateContainerConfigError", message }),
        };
        let mut group = match Group::start(&self.node.settings, launch.clone(), &self.log()).await {
            Ok(group) => group,
            Err(error) => return Run::NotStarted(Obstacle::run(format!("the shim cannot be started: {error}"))),
        };
        let run = self.attend(&mut group, launch, probes).await;
        group.end().await;
        run
    }

    /// Stays with a started group until its container has ended.
    async fn attend(&mut self, group: &mut Group, launch: Launch, probes: Probes) -> Run {
        let mut started = self.node.clock.now();
        let mut supervision = Supervision::new(self, launch, probes);
        let mut deadline: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                report = group.report() => match report {
                    Some(Report::Started) => {
                        started = self.node.clock.now();
                        self.view.restarts += i32::from(self.view.last.is_some());
                        self.view.state = State::Running { since: started };
                        supervision.begin(&mut self.view);
                        self.event(false, "Started", format!("Started container {}", self.container.name));
                        self.tell();
                    }
                    Some(Report::Failed { message }) => return Run::NotStarted(Obstacle::run(message)),
                    Some(Report::Exited { code, signal }) => return Run::Ended(self.ended(started, code, signal)),
                    // The shim was ended with its group: the grace was over, or somebody did it by hand.
                    None => return Run::Ended(self.ended(started, 137, Some(9))),
                },
                grace = stopped(&mut self.stop) => {
                    if deadline.is_none() {
                        self.event(false, "Killing", format!("Stopping container {}", self.container.name));
                    }
                    // When the order does not arrive, the end of the deadline does the same.
                    let _ = group.stop(grace).await;
                    deadline = Some(Instant::now() + grace + SHIM_LATE);
                }
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    group.kill();
                    deadline = None;
                }
                failed = supervision.next(&self.node.settings, &mut self.view), if deadline.is_none() => {
                    if let Some((reason, message)) = failed {
                        self.event(true, reason, message);
                        let grace = super::grace(self.pod);
                        let _ = group.stop(grace).await;
                        deadline = Some(Instant::now() + grace + SHIM_LATE);
                    }
                    self.tell();
                }
            }
        }
    }

    fn ended(&self, started: Timestamp, code: i32, signal: Option<i32>) -> Ended {
        Ended { code, signal, started, finished: self.node.clock.now() }
    }

    fn log(&self) -> PathBuf {
        let namespace = self.pod.namespace().unwrap_or_default();
        let folder = self.node.settings.log_dir.join(namespace).join(self.pod.name_any());
        folder.join(format!("{}.log", self.container.name))
    }

    /// The pod listens as long as its containers run.
    fn tell(&self) {
        let _ = self.teller.send((self.number, Told::View(self.view.clone())));
    }

    fn event(&self, warning: bool, reason: &'static str, message: String) {
        let _ = self.teller.send((self.number, Told::Event { warning, reason, message }));
    }
}

/// The first restart comes at once, the further ones after 10 s, 20 s and so on up to 300 s.
fn pause(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => FIRST_PAUSE.saturating_mul(1 << (n - 1).min(8)).min(LONGEST_PAUSE),
    }
}

/// The next order to stop. Cancel safe.
async fn stopped(stop: &mut watch::Receiver<Option<Duration>>) -> Duration {
    loop {
        if stop.changed().await.is_err() {
            return std::future::pending().await;
        }
        if let Some(grace) = *stop.borrow_and_update() {
            return grace;
        }
    }
}

/// The probes of a running container and what follows from them.
struct Supervision {
    name: String,
    log: PathBuf,
    launch: Launch,
    probes: Probes,
}

impl Supervision {
    fn new(runner: &Runner<'_>, launch: Launch, probes: Probes) -> Self {
        let log = runner.log().with_extension("probe.log");
        Self { name: runner.container.name.clone(), log, launch, probes }
    }

    fn begin(&mut self, view: &mut View) {
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

    /// Waits until a probe changes what is thought of the container. Gives the reason of an event and its message when
    /// the container has to be restarted. Cancel safe: a probe under way is done again.
    async fn next(&mut self, settings: &Settings, view: &mut View) -> Option<(&'static str, String)> {
        let Self { name, log, launch, probes } = self;
        if let Some(startup) = probes.startup.as_mut().filter(|_| !view.started) {
            if !startup.verdict(settings, launch, log).await {
                return Some(("Unhealthy", format!("Startup probe failed: container {name} will be restarted")));
            }
            view.started = true;
            view.ready = probes.readiness.is_none();
            self.begin_the_others(Instant::now());
            return None;
        }
        tokio::select! {
            biased;
            ready = verdict(&mut probes.readiness, settings, launch, log) => view.ready = ready,
            alive = verdict(&mut probes.liveness, settings, launch, log) => if !alive {
                return Some(("Unhealthy", format!("Liveness probe failed: container {name} will be restarted")));
            },
        }
        None
    }
}

async fn verdict(prober: &mut Option<Prober>, settings: &Settings, launch: &Launch, log: &Path) -> bool {
    match prober {
        Some(prober) => prober.verdict(settings, launch, log).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_comes_at_once_and_later_ones_ever_later() {
        let pauses: Vec<_> = (0..8).map(|failures| pause(failures).as_secs()).collect();
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
