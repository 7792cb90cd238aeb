//! A pod's status, from what its containers tell.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use serde_json::{Value, json};

use super::container::{Ended, State, View};
use super::containers::is_sidecar;

/// The times of Kubernetes objects are whole seconds.
pub(super) fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The containers of a pod with what is known of each.
#[derive(Clone, Copy)]
pub(super) struct Views<'a> {
    /// Those that come first, sidecars included.
    pub(super) first: (&'a [Container], &'a [View]),
    pub(super) main: (&'a [Container], &'a [View]),
}

impl<'a> Views<'a> {
    fn first(self) -> impl Iterator<Item = (&'a Container, &'a View)> {
        self.first.0.iter().zip(self.first.1)
    }

    fn main(self) -> impl Iterator<Item = (&'a Container, &'a View)> {
        self.main.0.iter().zip(self.main.1)
    }

    /// The names of those that the others wait for.
    pub(super) fn incomplete(self) -> Vec<&'a str> {
        // Once the others have started, no crash of a sidecar takes that back.
        if self.main().any(|(_, view)| !is_new(view)) {
            return Vec::new();
        }
        let waited_for = |(container, view): &(&Container, &View)| match &view.state {
            State::Terminated(ended) => is_sidecar(container) || ended.code != 0,
            _ => !(is_sidecar(container) && view.started),
        };
        self.first().filter(waited_for).map(|(container, _)| container.name.as_str()).collect()
    }

    /// The names of those that have to be ready for the pod to be, and are not.
    pub(super) fn unready(self) -> Vec<&'a str> {
        let sidecars = self.first().filter(|(container, _)| is_sidecar(container));
        let unready = sidecars.chain(self.main()).filter(|(_, view)| !view.ready);
        unready.map(|(container, _)| container.name.as_str()).collect()
    }

    /// The pod's phase. How sidecars end does not count, but that they have ended.
    pub(super) fn phase(self, policy: Option<&str>) -> &'static str {
        let restarts = !matches!(policy, Some("Never" | "OnFailure"));
        let codes = |(_, view): (&Container, &View)| exit_code(view);
        let mut firsts = self.first().filter(|(container, _)| !is_sidecar(container)).filter_map(codes);
        let failed_first = policy == Some("Never") && firsts.any(|code| code != 0);
        let busy =
            self.first().any(|(container, view)| is_sidecar(container) && matches!(view.state, State::Running { .. }));
        let codes: Vec<_> = self.main().filter_map(codes).collect();
        let done = !restarts && codes.len() == self.main.0.len();
        if failed_first && !busy {
            "Failed"
        } else if done && !busy && codes.iter().all(|code| *code == 0) {
            "Succeeded"
        } else if done && !busy && policy == Some("Never") {
            "Failed"
        } else if self.main().all(|(_, view)| is_new(view)) {
            "Pending"
        } else {
            "Running"
        }
    }
}

/// Whether the container has never been started.
fn is_new(view: &View) -> bool {
    matches!(view.state, State::Waiting { .. }) && view.last.is_none()
}

fn exit_code(view: &View) -> Option<i32> {
    match &view.state {
        State::Terminated(ended) => Some(ended.code),
        _ => None,
    }
}

/// A pod's condition: type, whether it holds, and where it does not, reason and message.
pub(super) type Condition = (&'static str, bool, &'static str, String);

/// The conditions of a pod of a phase.
pub(super) fn conditions(views: Views<'_>, phase: &str) -> [Condition; 4] {
    let (incomplete, unready) = (views.incomplete(), views.unready());
    let ready = unready.is_empty() && !views.main.0.is_empty();
    let (reason, message) = match phase {
        "Succeeded" => ("PodCompleted", String::new()),
        "Failed" => ("PodFailed", String::new()),
        _ => ("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))),
    };
    let initialized = incomplete.is_empty();
    let waits = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    [
        ("PodScheduled", true, "", String::new()),
        ("Initialized", initialized, "ContainersNotInitialized", waits),
        ("ContainersReady", ready, reason, message.clone()),
        ("Ready", ready, reason, message),
    ]
}

/// The status of a container. One that comes before the others is ready when it has done its work.
pub(super) fn of_container(container: &Container, view: &View, comes_first: bool) -> Value {
    let terminated = |ended: &Ended| {
        let reason = if ended.code == 0 { "Completed" } else { "Error" };
        let mut state = json!({
            "exitCode": ended.code,
            "reason": reason,
            "startedAt": whole(ended.started),
            "finishedAt": whole(ended.finished),
        });
        if !ended.message.is_empty() {
            state["message"] = ended.message.clone().into();
        }
        if let Some(signal) = ended.signal {
            state["signal"] = signal.into();
        }
        json!({ "terminated": state })
    };
    let state = match &view.state {
        State::Waiting { reason, message } if message.is_empty() => json!({ "waiting": { "reason": reason } }),
        State::Waiting { reason, message } => json!({ "waiting": { "reason": reason, "message": message } }),
        State::Running { since } => json!({ "running": { "startedAt": whole(*since) } }),
        State::Terminated(ended) => terminated(ended),
    };
    let done = matches!(&view.state, State::Terminated(ended) if ended.code == 0);
    json!({
        "name": container.name,
        "image": container.image.clone().unwrap_or_default(),
        "imageID": "",
        "state": state,
        "lastState": view.last.as_ref().map_or_else(|| json!({}), terminated),
        "restartCount": view.restarts,
        "started": view.started,
        "ready": view.ready || comes_first && !is_sidecar(container) && done,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(state: State) -> View {
        View { state, ..View::waiting("ContainerCreating") }
    }

    fn running() -> View {
        view(State::Running { since: Timestamp::UNIX_EPOCH })
    }

    fn ended(code: i32) -> View {
        let time = Timestamp::UNIX_EPOCH;
        view(State::Terminated(Ended { code, signal: None, started: time, finished: time, message: String::new() }))
    }

    fn container(name: &str, sidecar: bool) -> Container {
        let restart_policy = sidecar.then(|| "Always".to_owned());
        Container { name: name.to_owned(), restart_policy, ..Default::default() }
    }

    /// The phase of a pod with a sidecar for each of `beside`.
    fn phase(first: &[View], beside: &[View], main: &[View], policy: Option<&str>) -> &'static str {
        let names = |sidecar: bool, views: &[View]| views.iter().map(|_| container("c", sidecar)).collect::<Vec<_>>();
        let firsts = [names(false, first), names(true, beside)].concat();
        let first = [first, beside].concat();
        Views { first: (&firsts, &first), main: (&names(false, main), main) }.phase(policy)
    }

    #[test]
    fn the_phase_follows_the_containers_and_the_restart_policy() {
        let new = || View::waiting("ContainerCreating");
        assert_eq!(phase(&[], &[], &[new()], None), "Pending");
        assert_eq!(phase(&[], &[], &[running(), new()], None), "Running");
        assert_eq!(phase(&[], &[], &[ended(1)], None), "Running");
        assert_eq!(phase(&[], &[], &[ended(0), ended(0)], Some("Never")), "Succeeded");
        assert_eq!(phase(&[], &[], &[ended(0), ended(1)], Some("Never")), "Failed");
        assert_eq!(phase(&[], &[], &[ended(1)], Some("OnFailure")), "Running");
        assert_eq!(phase(&[ended(1)], &[], &[new()], Some("Never")), "Failed");
    }

    #[test]
    fn a_pod_is_done_when_its_sidecars_have_ended_and_not_how() {
        assert_eq!(phase(&[], &[running()], &[ended(0)], Some("Never")), "Running");
        assert_eq!(phase(&[], &[ended(143)], &[ended(0)], Some("Never")), "Succeeded");
        assert_eq!(phase(&[ended(1)], &[running()], &[View::waiting("PodInitializing")], Some("Never")), "Pending");
    }

    #[test]
    fn conditions_name_the_containers_they_wait_for() {
        let containers = [container("web", false), container("log", false)];
        let setup = [container("setup", false)];
        let views = [View { ready: true, started: true, ..running() }, running()];
        let said = |first: &[View], main: &[View]| {
            let views = Views { first: (&setup, first), main: (&containers, main) };
            conditions(views, "Running").map(|(_, holds, _, message)| if holds { String::new() } else { message })
        };
        assert_eq!(
            said(&[ended(0)], &views),
            ["", "", "containers with unready status: [log]", "containers with unready status: [log]"]
        );
        let new = [View::waiting("PodInitializing"), View::waiting("PodInitializing")];
        assert_eq!(said(&[running()], &new)[1], "containers with incomplete status: [setup]");
    }

    #[test]
    fn an_init_container_is_ready_when_it_has_done_its_work() {
        let ready = |sidecar, view: &View| of_container(&container("c", sidecar), view, true)["ready"] == true;
        assert!(ready(false, &ended(0)));
        assert!(!ready(false, &ended(1)) && !ready(false, &running()) && !ready(true, &ended(0)));
    }

    #[test]
    fn times_are_whole_seconds() {
        let since: Timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
        let status = of_container(&container("c", false), &view(State::Running { since }), false);
        assert_eq!(status["state"]["running"]["startedAt"], "2026-01-02T03:04:05Z");
    }
}
