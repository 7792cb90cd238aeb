//! Where a user sits: a folder of manifests, and the `tidemark` that is started from it. All of it is gone when the
//! test is over, however it ends.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tidemark_api::{Condition, ScaledObject};
use tokio::time::{Instant, sleep, timeout};
use xtask::process_group::ProcessGroup;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tidemark");
/// Between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(200);
/// Longest time of a command that is not meant to stay, and of `up` until it is ready.
const COMMAND: Duration = Duration::from_secs(60);
/// Longest time of a clean stop: pods have 5 s to end by themselves.
const STOP: Duration = Duration::from_secs(30);
const UP: &str = "up";

pub struct Desk {
    group: Mutex<ProcessGroup>,
    folder: PathBuf,
}

impl Desk {
    pub fn new() -> Self {
        let group = ProcessGroup::start("desk").unwrap();
        let folder = group.directory().to_owned();
        Self { group: Mutex::new(group), folder }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file below the folder.
    pub fn write(&self, file: &str, text: &str) {
        let path = self.folder.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Copies the manifests of an example into a folder of its name. Each pair is a text and what takes its place.
    pub fn copy_example(&self, example: &str, changes: &[(&str, &str)]) {
        let source = Path::new("../../examples").join(example);
        let mut all = String::new();
        for entry in std::fs::read_dir(source).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let text = std::fs::read_to_string(&path).unwrap();
                let changed = changes.iter().fold(text.clone(), |text, (from, to)| text.replace(from, to));
                self.write(&format!("{example}/{}", path.file_name().unwrap().display()), &changed);
                all += &text;
            }
        }
        for (from, _) in changes {
            assert!(all.contains(from), "the example {example} has no {from} any more");
        }
    }

    /// A command that runs in the folder. What it starts can be told by its environment.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
        let mut command = std::process::Command::new(program);
        command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .env("TMPDIR", &self.folder)
            .env("XDG_STATE_HOME", self.folder.join("state"));
        for variable in ["KUBECONFIG", "RUST_LOG", "TIDEMARK_PORT"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs a command to its end, which must come in time.
    pub async fn finish(&self, command: std::process::Command) -> Output {
        let title = format!("{command:?}");
        let mut command = tokio::process::Command::from(command);
        let output = timeout(COMMAND, command.kill_on_drop(true).output()).await;
        output.unwrap_or_else(|_| panic!("still running after {COMMAND:?}: {title}")).unwrap()
    }

    /// Runs `tidemark` to its end.
    pub async fn tidemark(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = self.command(PROGRAM);
        command.args(arguments).envs(environment.iter().copied());
        self.finish(command).await
    }

    /// Starts a `tidemark` that stays.
    pub fn spawn(&self, name: &str, arguments: &[&str], environment: &[(&str, &str)]) {
        let mut command = self.command(PROGRAM);
        command.args(arguments).envs(environment.iter().copied());
        self.group().spawn(name, command).unwrap();
    }

    /// All that a program that stays has written.
    pub fn log(&self, name: &str) -> String {
        self.group().log_tail(name, usize::MAX)
    }

    /// Waits for something, and panics with its name and with what `up` has written when it does not come in time, or
    /// when a program has ended meanwhile. `look` gives what was awaited, or what there is instead.
    pub async fn until<T>(&self, seconds: u64, what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let instead = match timeout(Duration::from_secs(10), look()).await {
                Ok(Ok(found)) => return found,
                Ok(Err(instead)) => instead,
                Err(_) => "no answer within 10 s".to_owned(),
            };
            let ended = self.group().ended().unwrap();
            if let Some((name, status)) = ended {
                self.give_up(&format!("waiting for: {what}\n{name} has ended ({status}); last seen: {instead}"));
            }
            if Instant::now() >= deadline {
                self.give_up(&format!("not within {seconds} s: {what}\nlast seen: {instead}"));
            }
            sleep(LOOK).await;
        }
    }

    fn give_up(&self, message: &str) -> ! {
        let processes: Vec<_> = self.processes("").into_iter().map(|(id, line)| format!("{id} {line}")).collect();
        panic!("{message}\n--- processes\n{}\n--- output of up\n{}", processes.join("\n"), self.log(UP))
    }

    /// The live processes that come from here, pods included, whose command line holds `words`.
    pub fn processes(&self, words: &str) -> Vec<(i32, String)> {
        let mark = format!("TMPDIR={}", self.folder.display());
        let mut processes = marked(&mark);
        processes.retain(|(_, line)| line.contains(words));
        processes
    }

    pub async fn until_no_process_is_left(&self) {
        self.until(15, "no process is left", async || match self.processes("") {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        })
        .await;
    }

    /// Kills a program that stays.
    pub fn kill(&self, name: &str) {
        self.group().kill(name).unwrap();
    }

    fn group(&self) -> MutexGuard<'_, ProcessGroup> {
        // After a panic in another use the group is only dropped.
        self.group.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // `up` first, since it starts what has ended again.
        let _ = self.group().kill(UP);
        for id in self.processes("").into_iter().filter_map(|(id, _)| Pid::from_raw(id)) {
            let _ = kill_process(id, Signal::KILL);
        }
    }
}

/// The live processes with a variable in their environment: number and command line.
#[cfg(target_os = "linux")]
fn marked(variable: &str) -> Vec<(i32, String)> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.ok()?.path();
        let id = path.file_name()?.to_str()?.parse().ok()?;
        // A process that ended meanwhile, a zombie included, has no environment any more.
        let environment = std::fs::read(path.join("environ")).ok()?;
        environment.split(|byte| *byte == 0).find(|entry| *entry == variable.as_bytes())?;
        let line = std::fs::read(path.join("cmdline")).ok()?;
        Some((id, String::from_utf8_lossy(&line).replace('\0', " ")))
    };
    processes.filter_map(read).collect()
}

/// The live processes with a variable in their environment: number and command line.
#[cfg(not(target_os = "linux"))]
fn marked(variable: &str) -> Vec<(i32, String)> {
    let output = std::process::Command::new("ps").args(["-A", "-E", "-ww", "-o", "pid=,command="]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter(|line| line.split(' ').any(|word| word == variable));
    lines
        .filter_map(|line| line.trim_start().split_once(' '))
        .filter_map(|(id, line)| Some((id.parse().ok()?, line.to_owned())))
        .collect()
}

/// A running `tidemark up`, and its cluster as its kubeconfig shows it.
pub struct Up<'a> {
    desk: &'a Desk,
    pub client: Client,
    pub kubeconfig: PathBuf,
}

impl<'a> Up<'a> {
    /// Starts `tidemark up` on a free port and waits until it says where its kubeconfig is.
    pub async fn start(desk: &'a Desk, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        desk.spawn(UP, &[&[UP, "--port", "0"], arguments].concat(), environment);
        let kubeconfig = desk
            .until(COMMAND.as_secs(), "up says where the kubeconfig is", async || {
                let log = desk.log(UP);
                let path = log.lines().find_map(|line| line.strip_prefix("export KUBECONFIG="));
                path.map(PathBuf::from).ok_or(log.clone())
            })
            .await;
        let client = Client::try_from(config(&kubeconfig).await).unwrap();
        Self { desk, client, kubeconfig }
    }

    /// All that it has written to standard output and standard error.
    pub fn log(&self) -> String {
        self.desk.log(UP)
    }

    /// Presses Ctrl-C and waits for the end.
    pub async fn interrupt(&self) -> ExitStatus {
        self.press_ctrl_c();
        self.ended(|| {}).await
    }

    /// Presses Ctrl-C again and again until it ends.
    pub async fn interrupt_again_and_again(&self) -> ExitStatus {
        self.ended(|| self.press_ctrl_c()).await
    }

    fn press_ctrl_c(&self) {
        let group = Pid::from_raw(self.desk.group().id().cast_signed()).unwrap();
        kill_process_group(group, Signal::INT).unwrap();
    }

    /// Waits for the end; `meanwhile` is done at each look.
    async fn ended(&self, meanwhile: impl Fn()) -> ExitStatus {
        let deadline = Instant::now() + STOP;
        let status = loop {
            if let Some((name, status)) = self.desk.group().ended().unwrap() {
                assert_eq!(name, UP);
                break status;
            }
            if Instant::now() >= deadline {
                self.desk.give_up(&format!("not within {STOP:?}: up ends upon Ctrl-C"));
            }
            meanwhile();
            sleep(LOOK).await;
        };
        self.desk.group().kill(UP).unwrap();
        status
    }

    /// SIGKILL, which nothing can prepare for.
    pub fn kill(&self) {
        self.desk.group().kill(UP).unwrap();
    }

    pub async fn deployment(&self, name: &str) -> Result<Deployment, String> {
        let api: Api<Deployment> = Api::default_namespaced(self.client.clone());
        api.get(name).await.map_err(|error| error.to_string())
    }

    /// Waits until so many replicas are wanted and ready.
    pub async fn until_replicas(&self, seconds: u64, deployment: &str, wanted: std::ops::RangeInclusive<i32>) {
        let what = format!("{deployment} has {wanted:?} replicas, all ready");
        let look = async || {
            let found = self.deployment(deployment).await?;
            let replicas = found.spec.replicas.unwrap_or(1);
            let status = found.status.unwrap_or_default();
            let ready = status.ready_replicas.unwrap_or(0);
            let all = ready == replicas && status.replicas.unwrap_or(0) == replicas;
            let told = format!("{replicas} wanted, {ready} ready");
            if all && wanted.contains(&replicas) { Ok(()) } else { Err(told) }
        };
        self.desk.until(seconds, &what, look).await;
    }

    pub async fn scaled_object(&self, name: &str) -> Result<ScaledObject, String> {
        let api: Api<ScaledObject> = Api::default_namespaced(self.client.clone());
        api.get(name).await.map_err(|error| error.to_string())
    }

    /// Waits until the object's condition Ready has the status and its message holds all texts.
    pub async fn until_ready_is(&self, name: &str, status: &str, texts: &[&str]) {
        let what = format!("{name} has Ready={status} with {texts:?}");
        let look = async || {
            let ready = ready(&self.scaled_object(name).await?);
            let message = ready.message.as_deref().unwrap_or_default();
            let is_it = ready.status == status && texts.iter().all(|text| message.contains(text));
            if is_it { Ok(()) } else { Err(format!("{ready:?}")) }
        };
        self.desk.until(30, &what, look).await;
    }

    pub async fn events(&self) -> Vec<Event> {
        let api: Api<Event> = Api::all(self.client.clone());
        timeout(COMMAND, api.list(&ListParams::default())).await.unwrap().unwrap().items
    }

    /// Waits for an event about an object whose note holds the text.
    pub async fn until_event(&self, regarding: &str, reason: &str, text: &str) {
        let look = async || {
            let events = self.events().await;
            let notes: Vec<_> = events
                .iter()
                .filter(|event| event.regarding.as_ref().and_then(|it| it.name.as_deref()) == Some(regarding))
                .map(|event| (event.reason.as_deref().unwrap_or_default(), event.note.as_deref().unwrap_or_default()))
                .collect();
            let found = notes.iter().any(|(its_reason, note)| *its_reason == reason && note.contains(text));
            if found { Ok(()) } else { Err(format!("{notes:?}")) }
        };
        self.desk.until(15, &format!("an event {reason} about {regarding} with {text:?}"), look).await;
    }
}

/// The client configuration in a kubeconfig.
pub async fn config(kubeconfig: &Path) -> Config {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    config
}

/// The condition Ready; an empty one where there is none.
pub fn ready(object: &ScaledObject) -> Condition {
    let conditions = object.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let found = conditions.iter().find(|condition| condition.type_ == "Ready");
    found.cloned().unwrap_or_default()
}

/// A trigger that is active all the year.
pub const CRON: &str =
    "{type: cron, metadata: {timezone: UTC, start: '0 0 1 1 *', end: '59 23 31 12 *', desiredReplicas: '1'}}";

/// A Deployment without replicas, and a ScaledObject of the same name that looks every second. `spec` are further lines
/// of its spec, `trigger` is its trigger in YAML's flow style.
pub fn workload(name: &str, spec: &str, trigger: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 0
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {{containers: [{{name: main, image: worker, command: [sleep, '600']}}]}}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {{name: {name}}}
spec:
  scaleTargetRef: {{name: {name}}}
  pollingInterval: 1
  {spec}
  triggers:
    - {trigger}
"
    )
}

/// Says past the test harness's capture that a test did not run; panics where the variable says that it must.
pub fn skip(required: &str, reason: &str) {
    assert_ne!(std::env::var(required).as_deref(), Ok("1"), "{reason}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}
