//! Pods as processes of this machine, on the real clock.

mod life;
mod logs;
mod probes;
mod services;
mod sidecars;

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerState, Event, Pod, PodCondition, Secret};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use serde_json::{Value, json};
use tidemark_clock::Clock;
use tidemark_sandbox::process::{Settings, shim_main};
use tidemark_sandbox::{Options, Pods, Sandbox};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most pods of a test's machine.
const MOST: usize = 2;
/// Names the folder of the test that wants this binary to be `up`.
const UP: &str = "TIDEMARK_TEST_UP";

/// Runs only one "test" of this binary in a new process, which is how the tests get shims and an `up` to kill.
fn entry(test: &str) -> Vec<OsString> {
    // Quiet, or the name of the test would stand in the first line that a shim reports.
    ["--exact", test, "--nocapture", "--quiet"].map(OsString::from).into()
}

fn entered_as(test: &str) -> bool {
    std::env::args().any(|argument| argument == test)
}

#[test]
fn shim_entry() {
    if entered_as("process::shim_entry") {
        let code = shim_main([]);
        std::process::exit(i32::from(code != ExitCode::SUCCESS));
    }
}

/// A machine with a kubelet.
struct Machine {
    folder: PathBuf,
    client: Client,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Machine {
    fn new(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("process-{name}"));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Self::at(folder)
    }

    fn at(folder: PathBuf) -> Self {
        let mut settings = Settings::new(std::env::current_exe().unwrap(), folder.join("logs"), &folder);
        settings.shim_arguments = entry("process::shim_entry");
        settings.max_pods = MOST;
        let options = Options { pods: Pods::Processes(settings), ..Options::default() };
        let sandbox = Sandbox::new(Clock::system(), options);
        let stop = CancellationToken::new();
        let client = sandbox.client();
        let token = stop.clone();
        let running = tokio::spawn(async move { sandbox.run(token).await });
        Self { folder, client, stop, running }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create(&self, spec: Value) {
        self.create_named("pod", spec).await;
    }

    async fn create_named(&self, name: &str, spec: Value) {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "tier": "back" } }, "spec": spec });
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    }

    /// Waits until the pod is as wanted and returns it.
    async fn until(&self, wanted: impl Fn(&Pod) -> bool + Send) -> Pod {
        self.until_named("pod", wanted).await
    }

    async fn until_named(&self, name: &str, wanted: impl Fn(&Pod) -> bool + Send) -> Pod {
        let condition = |pod: Option<&Pod>| pod.is_some_and(&wanted);
        let found = tokio::time::timeout(PATIENCE, await_condition(self.pods(), name, condition)).await;
        match found {
            Ok(pod) => pod.unwrap().unwrap(),
            Err(_) => panic!("the pod never was as wanted: {:#?}", self.pods().get_opt(name).await),
        }
    }

    async fn until_gone(&self) {
        let gone = await_condition(self.pods(), "pod", |pod: Option<&Pod>| pod.is_none());
        tokio::time::timeout(PATIENCE, gone).await.expect("the pod goes").unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("logs/default/pod/main.log")).unwrap_or_default()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    async fn finish(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.running).await.expect("the controllers stop").unwrap();
    }
}

/// A pod that runs a script. In commands `$$` stands for `$`.
fn shell(script: &str) -> Value {
    json!({ "containers": [{ "name": "main", "image": "none", "command": ["sh", "-c", script] }] })
}

fn state(pod: &Pod) -> Option<&ContainerState> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()?.state.as_ref()
}

fn waits_for(pod: &Pod, reason: &str) -> bool {
    state(pod).and_then(|state| state.waiting.as_ref()).is_some_and(|waiting| waiting.reason.as_deref() == Some(reason))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Waits for something outside the API.
async fn eventually(what: &str, check: impl Fn() -> bool) {
    let checked = tokio::time::timeout(PATIENCE, async {
        let mut beat = tokio::time::interval(Duration::from_millis(20));
        while !check() {
            beat.tick().await;
        }
    });
    checked.await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// The process id that a script wrote into a file.
async fn id_in(file: &Path) -> u32 {
    eventually(&format!("a process id in {}", file.display()), || {
        std::fs::read_to_string(file).is_ok_and(|text| text.ends_with('\n'))
    })
    .await;
    std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

/// Whether a process runs. One that is dead but that nobody has waited for does not.
#[cfg(target_os = "linux")]
fn runs(id: u32) -> bool {
    // `ID (NAME) STATE ...`; the name may hold anything.
    let line = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    line.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Whether a process runs. One that is dead but that nobody has waited for does not.
#[cfg(not(target_os = "linux"))]
fn runs(id: u32) -> bool {
    let state = Command::new("ps").args(["-o", "stat=", "-p", &id.to_string()]).output().unwrap();
    let state = String::from_utf8(state.stdout).unwrap();
    !state.trim().is_empty() && !state.trim().starts_with('Z')
}

#[tokio::test]
async fn a_pod_is_a_process_with_its_environment() {
    let machine = Machine::new("environment");
    let secret = json!({ "metadata": { "name": "login" }, "stringData": { "password": "hidden", "user": "ann" } });
    let secrets = Api::<Secret>::namespaced(machine.client.clone(), "default");
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let script = r#"echo "$GREETING|$0|$POD_NAME|$POD_IP|$TIER|$PASSWORD|$LOGIN_user|$(pwd)|${HOSTNAME}|${CARGO:-none}"; exec sleep 1000"#;
    let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    machine
        .create(json!({ "containers": [{
            "name": "main",
            "image": "none",
            "command": ["sh", "-c"],
            "args": [script, "$(WHO)"],
            "envFrom": [{ "prefix": "LOGIN_", "secretRef": { "name": "login" } }],
            "env": [
                { "name": "WHO", "value": "world" },
                { "name": "GREETING", "value": "hello $(WHO)" },
                { "name": "POD_NAME", "valueFrom": field("metadata.name") },
                { "name": "POD_IP", "valueFrom": field("status.podIP") },
                { "name": "TIER", "valueFrom": field("metadata.labels['tier']") },
                { "name": "PASSWORD", "valueFrom": { "secretKeyRef": { "name": "login", "key": "password" } } },
                { "name": "ABSENT", "valueFrom": { "secretKeyRef": { "name": "none", "key": "x", "optional": true } } },
            ],
        }] }))
        .await;
    let pod = machine.until(is_ready).await;
    let status = pod.status.unwrap();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let address = status.pod_ip.unwrap();
    assert!(address.parse::<std::net::IpAddr>().unwrap().is_loopback());
    eventually("a line in the log", || machine.log().ends_with('\n')).await;
    let folder = machine.folder.canonicalize().unwrap();
    let expected = format!("hello world|world|pod|{address}|back|hidden|ann|{}|pod|none\n", folder.display());
    assert_eq!(machine.log(), expected);
    machine.finish().await;
}

#[tokio::test]
async fn a_container_without_a_command_says_so() {
    let machine = Machine::new("no-command");
    machine.create(json!({ "containers": [{ "name": "main", "image": "busybox" }] })).await;
    let pod = machine.until(|pod| waits_for(pod, "CreateContainerConfigError")).await;
    let message = state(&pod).unwrap().waiting.as_ref().unwrap().message.clone().unwrap();
    assert!(message.contains("container main has no command"), "{message}");
    assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Pending"));
    let events = Api::<Event>::namespaced(machine.client.clone(), "default");
    eventually_event(&events, "Failed").await;
    machine.finish().await;
}

async fn eventually_event(events: &Api<Event>, reason: &str) {
    let found = tokio::time::timeout(PATIENCE, async {
        let mut beat = tokio::time::interval(Duration::from_millis(20));
        loop {
            beat.tick().await;
            let list = events.list(&ListParams::default()).await.unwrap();
            if list.items.iter().any(|event| event.reason.as_deref() == Some(reason)) {
                break;
            }
        }
    });
    found.await.unwrap_or_else(|_| panic!("no event {reason}"));
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let machine = Machine::new("no-program");
    machine
        .create(json!({ "containers": [{ "name": "main", "image": "none", "command": ["no-such-program"] }] }))
        .await;
    let pod = machine.until(|pod| waits_for(pod, "RunContainerError")).await;
    let message = state(&pod).unwrap().waiting.as_ref().unwrap().message.clone().unwrap();
    assert_eq!(message, "exec: \"no-such-program\": executable file not found in $PATH");
    machine.finish().await;
}

#[tokio::test]
async fn a_log_that_cannot_be_written_is_named() {
    let machine = Machine::new("no-log");
    std::fs::write(machine.file("logs"), "").unwrap();
    machine.create(shell("exec sleep 1000")).await;
    let pod = machine.until(|pod| waits_for(pod, "RunContainerError")).await;
    let message = state(&pod).unwrap().waiting.as_ref().unwrap().message.clone().unwrap();
    assert!(message.contains("logs/default/pod/main.log"), "{message}");
    machine.finish().await;
}

#[tokio::test]
async fn a_pod_that_cannot_start_and_is_never_restarted_has_failed() {
    let machine = Machine::new("never-started");
    let containers = json!([{ "name": "main", "image": "none", "command": ["no-such-program"] }]);
    machine.create(json!({ "restartPolicy": "Never", "containers": containers })).await;
    let pod = machine.until(|pod| pod.status.as_ref().unwrap().phase.as_deref() == Some("Failed")).await;
    assert_eq!(state(&pod).unwrap().terminated.as_ref().unwrap().exit_code, 128);
    machine.finish().await;
}

#[tokio::test]
async fn a_missing_secret_keeps_the_container_from_starting() {
    let machine = Machine::new("no-secret");
    let variable = json!({ "name": "X", "valueFrom": { "secretKeyRef": { "name": "login", "key": "x" } } });
    machine
        .create(json!({ "containers": [{ "name": "main", "image": "none", "command": ["true"], "env": [variable] }] }))
        .await;
    let pod = machine.until(|pod| waits_for(pod, "CreateContainerConfigError")).await;
    let message = state(&pod).unwrap().waiting.as_ref().unwrap().message.clone().unwrap();
    assert_eq!(message, "secret \"login\" not found");
    machine.finish().await;
}

#[tokio::test]
async fn a_crashing_container_is_restarted_and_then_waits() {
    let machine = Machine::new("crash");
    machine.create(shell("echo again; exit 3")).await;
    let pod = machine.until(|pod| waits_for(pod, "CrashLoopBackOff")).await;
    let status = &pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0];
    assert_eq!(status.restart_count, 1, "the first restart comes at once, the second has not come yet");
    assert_eq!(status.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 3);
    assert_eq!(machine.log(), "again\nagain\n");
    machine.finish().await;
}

#[tokio::test]
async fn a_pod_that_is_never_restarted_ends_with_its_containers() {
    let machine = Machine::new("once");
    let mut spec = shell("exit 0");
    spec["restartPolicy"] = "Never".into();
    spec["initContainers"] = json!([{ "name": "first", "image": "none", "command": ["sh", "-c", "touch ready"] }]);
    machine.create(spec).await;
    let pod = machine.until(|pod| pod.status.as_ref().unwrap().phase.as_deref() == Some("Succeeded")).await;
    assert!(machine.file("ready").exists(), "the init container ran first");
    assert_eq!(state(&pod).unwrap().terminated.as_ref().unwrap().reason.as_deref(), Some("Completed"));
    machine.finish().await;
}

#[tokio::test]
async fn deleting_a_pod_lets_its_process_end_by_itself() {
    let machine = Machine::new("graceful");
    machine.create(shell("trap 'touch bye; exit 0' TERM; echo $$$$ > id; while :; do sleep 0.05; done")).await;
    machine.until(is_ready).await;
    let id = id_in(&machine.file("id")).await;
    let ending = machine.pods().delete("pod", &DeleteParams::default()).await.unwrap().left();
    assert!(ending.is_some_and(|pod| pod.metadata.deletion_timestamp.is_some()));
    machine.until_gone().await;
    assert!(!runs(id));
    assert!(machine.file("bye").exists());
    let folder = machine.file("logs/default/pod");
    eventually("the log goes with its pod", || !folder.exists()).await;
    machine.finish().await;
}

fn is_unschedulable(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let unplaced = |one: &PodCondition| one.type_ == "PodScheduled" && one.reason.as_deref() == Some("Unschedulable");
    conditions.iter().any(|condition| unplaced(condition) && condition.status == "False")
}

#[tokio::test]
async fn more_pods_than_the_machine_takes_wait_for_a_place() {
    let machine = Machine::new("full");
    machine.create_named("first", shell("exec sleep 1000")).await;
    machine.until_named("first", is_ready).await;
    let mut once = shell("while ! test -e done; do sleep 0.05; done");
    once["restartPolicy"] = "Never".into();
    machine.create_named("second", once).await;
    machine.until_named("second", is_ready).await;
    for name in ["third", "fourth"] {
        machine.create_named(name, shell("exec sleep 1000")).await;
        let pod = machine.until_named(name, is_unschedulable).await;
        assert_eq!((pod.status.unwrap().phase.as_deref(), pod.spec.unwrap().node_name), (Some("Pending"), None));
    }
    eventually_event(&Api::namespaced(machine.client.clone(), "default"), "FailedScheduling").await;
    machine.pods().delete("first", &DeleteParams::default()).await.unwrap();
    machine.until_named("third", is_ready).await;
    assert!(is_unschedulable(&machine.pods().get("fourth").await.unwrap()));
    std::fs::write(machine.file("done"), "").unwrap();
    machine.until_named("fourth", is_ready).await;
    machine.finish().await;
}

#[tokio::test]
async fn a_log_is_bounded_and_private() {
    let machine = Machine::new("long-log");
    machine.create(shell("yes 0123456789 | head -c 25000000; echo end; touch written; exec sleep 1000")).await;
    eventually("the end of the output", || machine.file("written").exists() && machine.log().ends_with("end\n")).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = machine.file("logs/default/pod");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap()).collect();
    files.sort_by_key(std::fs::DirEntry::file_name);
    assert_eq!(files.iter().map(std::fs::DirEntry::file_name).collect::<Vec<_>>(), ["main.log", "main.log.1"]);
    for file in files {
        assert!(file.metadata().unwrap().len() <= 10 * 1024 * 1024);
        assert_eq!(mode(&file.path()), 0o600);
    }
    let older = std::fs::read_to_string(folder.join("main.log.1")).unwrap();
    assert!(older.starts_with("0123456789\n") && older.ends_with("0123456789\n"), "it is cut between lines");
    assert_eq!((mode(&machine.file("logs")), mode(&folder)), (0o700, 0o700));
    let log = folder.join("main.log");
    machine.finish().await;
    assert!(log.exists(), "logs outlive the kubelet");
}

#[tokio::test]
async fn a_failing_init_container_waits_and_the_pod_stays_pending() {
    let machine = Machine::new("init-crash");
    let mut spec = shell("exec sleep 1000");
    spec["initContainers"] = json!([{ "name": "first", "image": "none", "command": ["false"] }]);
    machine.create(spec).await;
    let waiting = |pod: &Pod| {
        let statuses = pod.status.as_ref().and_then(|status| status.init_container_statuses.as_deref());
        let state = statuses.and_then(|statuses| statuses.first()?.state.as_ref()?.waiting.as_ref());
        state.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
    };
    let pod = machine.until(waiting).await;
    assert!(waits_for(&pod, "PodInitializing"), "{:?}", pod.status);
    assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Pending"));
    machine.finish().await;
}

#[tokio::test]
async fn a_process_that_will_not_end_is_killed_after_its_grace() {
    let machine = Machine::new("stubborn");
    let mut spec = shell("trap '' TERM; echo $$$$ > id; while :; do sleep 0.05; done");
    spec["terminationGracePeriodSeconds"] = 1.into();
    machine.create(spec).await;
    machine.until(is_ready).await;
    let id = id_in(&machine.file("id")).await;
    machine.pods().delete("pod", &DeleteParams::default()).await.unwrap();
    machine.until_gone().await;
    assert!(!runs(id));
    machine.finish().await;
}

#[tokio::test]
async fn what_a_container_leaves_behind_goes_before_it_is_restarted() {
    let machine = Machine::new("leftover");
    machine.create(shell("sleep 1000 & echo $! >> left; exit 1")).await;
    machine.until(|pod| waits_for(pod, "CrashLoopBackOff")).await;
    let left = std::fs::read_to_string(machine.file("left")).unwrap();
    let left: Vec<u32> = left.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(left.len(), 2);
    eventually("both background processes ended", || left.iter().all(|id| !runs(*id))).await;
    machine.finish().await;
}

#[tokio::test]
async fn a_container_is_ready_when_its_probe_says_so() {
    let machine = Machine::new("probe");
    let mut spec = shell("exec sleep 1000");
    spec["containers"][0]["readinessProbe"] =
        json!({ "exec": { "command": ["test", "-e", "open"] }, "periodSeconds": 1, "failureThreshold": 1 });
    machine.create(spec).await;
    let pod = machine.until(|pod| state(pod).is_some_and(|state| state.running.is_some())).await;
    assert!(!is_ready(&pod));
    eventually_event(&Api::namespaced(machine.client.clone(), "default"), "Unhealthy").await;
    std::fs::write(machine.file("open"), "").unwrap();
    machine.until(is_ready).await;
    machine.finish().await;
}

#[tokio::test]
async fn stopping_the_kubelet_ends_all_processes() {
    let machine = Machine::new("stop");
    machine.create(shell("sleep 1000 & echo $! > grandchild; echo $$$$ > child; wait")).await;
    let (child, grandchild) = (id_in(&machine.file("child")).await, id_in(&machine.file("grandchild")).await);
    assert!(runs(child) && runs(grandchild));
    machine.finish().await;
    eventually("child and grandchild ended", || !runs(child) && !runs(grandchild)).await;
}

/// Plays `tidemark up` in a process of its own until it is killed.
#[test]
fn up_entry() {
    let Some(folder) = std::env::var_os(UP).filter(|_| entered_as("process::up_entry")) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let machine = Machine::at(folder.into());
        // The shell and its child ignore SIGTERM: only SIGKILL ends them.
        machine
            .create(shell(
                "trap '' TERM; sleep 1000 & echo $! > grandchild; echo $PPID > shim; echo $$$$ > child; wait",
            ))
            .await;
        std::future::pending::<()>().await;
    });
}

/// A process that a failing test does not leave behind.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[tokio::test]
async fn no_process_is_left_when_up_is_killed() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("process-killed");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let mut up = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args(entry("process::up_entry"))
            .env(UP, &folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut processes = Vec::new();
    for file in ["child", "grandchild", "shim"] {
        processes.push(id_in(&folder.join(file)).await);
    }
    assert!(processes.iter().all(|id| runs(*id)));
    up.0.kill().unwrap();
    up.0.wait().unwrap();
    eventually("shim, child and grandchild ended", || processes.iter().all(|id| !runs(*id))).await;
}
