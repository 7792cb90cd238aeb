//! One container of a pod: started, probed, started again by the restart policy.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Node;
use super::ending::{Due, Ending};
use super::environment::{Obstacle, Source};
use super::group::Group;
use super::journal::Journal;
use super::probe::{Check, Place, Probes, SideLogs};
use super::protocol::{Launch, Report};
use super::supervision::{News, Supervision};
use crate::controllers::restart_pause;

/// What a container cannot start without is looked for again after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// A container that ran for so long has no history of failures any more.
const GOOD_RUN: Duration = Duration::from_secs(600);
/// Bytes of a log that make a termination message, as the kubelet has it.
const MESSAGE: u64 = 2048;
/// The exit code of a container that could not be started.
const NOT_STARTED: i32 = 128;

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
    /// What its container says of it, if it was asked to: the end of its log.
    pub(super) message: String,
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
    /// Becomes true when it has started, its startup probe included.
    pub(super) started: watch::Sender<bool>,
    pub(super) stop: watch::Receiver<Option<Duration>>,
    pub(super) view: View,
    /// Where its output goes.
    pub(super) log: Arc<Journal>,
    /// Where the output of its probes and hooks goes.
    pub(super) side_logs: SideLogs,
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
                    self.back_off(restart_pause(failures - 1))
                }
                Run::NotStarted(obstacle) => {
                    if self.hindered(obstacle) {
                        return Some(NOT_STARTED);
                    }
                    // What is missing may come any time; the kubelet looks about as often.
                    LOOK_AGAIN
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
        self.log.set_restarting(true);
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
        self.event(true, "Failed", format!("Error: {}", obstacle.message));
        let done = failed && self.restart == Restart::Never;
        self.view.state = if done {
            let now = self.node.clock.now();
            State::Terminated(Ended {
                code: NOT_STARTED,
                signal: None,
                started: now,
                finished: now,
                message: obstacle.message,
            })
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
        let config = |message| Run::NotStarted(Obstacle { reason: "CreateContainerConfigError", message });
        let probes = match Probes::of(self.container, self.address, &self.side_logs) {
            Ok(probes) => probes,
            Err(message) => return config(message),
        };
        let hook = self.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        let hook = match hook.map(|hook| Check::of_hook(hook, self.container, self.address)).transpose() {
            Ok(hook) => hook,
            Err(message) => return config(format!("preStop of container {}: {message}", self.container.name)),
        };
        let node = self.node;
        let mut group = match Group::start(&node.settings, node.clock, launch.clone(), &self.log).await {
            Ok(group) => group,
            Err(error) => return Run::NotStarted(Obstacle::run(format!("the shim cannot be started: {error}"))),
        };
        let measured = self.measured();
        let mut run = self.attend(&mut group, &launch, probes, hook.as_ref()).await;
        node.groups.remove(&measured);
        group.end().await;
        if let Run::Ended(ended) = &mut run {
            ended.message = self.termination_message(ended.code);
        }
        run
    }

    /// What the container says of its end. Files are not read: there is no `/dev/termination-log` for each container.
    fn termination_message(&self, code: i32) -> String {
        let wanted = self.container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        if wanted && code != 0 { self.log.last_words(MESSAGE) } else { String::new() }
    }

    /// The name under which the container's use of resources is measured.
    fn measured(&self) -> crate::usage::Place {
        (self.pod.namespace().unwrap_or_default(), self.pod.name_any(), self.container.name.clone())
    }

    /// Stays with a started group until its container has ended.
    async fn attend(&mut self, group: &mut Group, launch: &Launch, probes: Probes, hook: Option<&Check>) -> Run {
        let mut started = self.node.clock.now();
        let hook_log = self.side_logs.hook.clone();
        let place = Place { node: self.node, launch, log: &hook_log };
        let mut supervision = Supervision::new(&self.container.name, &place, probes);
        let mut ending = Ending::default();
        loop {
            tokio::select! {
                biased;
                report = group.report() => match report {
                    Some(Report::Started) => {
                        started = self.node.clock.now();
                        self.has_started(group, started, &mut supervision);
                    }
                    Some(Report::Failed { message }) => return Run::NotStarted(Obstacle::run(message)),
                    Some(Report::Exited { code, signal }) => return Run::Ended(self.ended(started, code, signal)),
                    // The shim was ended with its group: the grace was over, or somebody did it by hand.
                    None => return Run::Ended(self.ended(started, 137, Some(9))),
                },
                grace = stopped(&mut self.stop) => {
                    if !ending.is_on() {
                        self.event(false, "Killing", format!("Stopping container {}", self.container.name));
                    }
                    let hook = hook.filter(|_| matches!(self.view.state, State::Running { .. }));
                    ending.order(grace, hook.map(|hook| (hook, &place)));
                }
                due = ending.next() => match due {
                    // When the order does not arrive, the end of the time does the same.
                    Due::Stop { grace } => drop(group.stop(grace).await),
                    Due::Kill => group.kill(),
                },
                news = supervision.next(&mut self.view), if !ending.is_on() => {
                    match news {
                        News::Better => {}
                        News::NotReady(message) => self.event(true, "Unhealthy", message),
                        News::Failed(message, follows) => {
                            self.event(true, "Unhealthy", message);
                            self.event(false, "Killing", follows);
                            ending.order(super::grace(self.pod), hook.map(|hook| (hook, &place)));
                        }
                    }
                    self.tell();
                }
            }
        }
    }

    fn has_started(&mut self, group: &Group, started: Timestamp, supervision: &mut Supervision<'_>) {
        if let Some(id) = group.id() {
            self.node.groups.add(self.measured(), id);
        }
        self.view.restarts += i32::from(self.view.last.is_some());
        self.view.state = State::Running { since: started };
        supervision.begin(&mut self.view);
        self.event(false, "Started", format!("Started container {}", self.container.name));
        self.tell();
    }

    fn ended(&self, started: Timestamp, code: i32, signal: Option<i32>) -> Ended {
        Ended { code, signal, started, finished: self.node.clock.now(), message: String::new() }
    }

    /// The pod listens as long as its containers run.
    fn tell(&self) {
        if self.view.started {
            self.started.send_replace(true);
        }
        let _ = self.teller.send((self.number, Told::View(self.view.clone())));
    }

    fn event(&self, warning: bool, reason: &'static str, message: String) {
        let _ = self.teller.send((self.number, Told::Event { warning, reason, message }));
    }
}

/// The next order to stop. Cancel safe.
pub(super) async fn stopped(stop: &mut watch::Receiver<Option<Duration>>) -> Duration {
    loop {
        if stop.changed().await.is_err() {
            return std::future::pending().await;
        }
        if let Some(grace) = *stop.borrow_and_update() {
            return grace;
        }
    }
}
