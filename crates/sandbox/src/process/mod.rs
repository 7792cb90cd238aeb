//! A kubelet whose pods are processes of this machine.
//!
//! Each container runs in a process group of its own under a shim, which ends the group when the kubelet lets go of it
//! or disappears: [`shim_main`]. A pod is one task here; it starts its containers again by the pod's restart policy,
//! probes them and writes the pod's status. Real processes know only the real clock: this is never used under the
//! paused one.

mod balancer;
mod container;
mod containers;
mod ending;
mod environment;
mod group;
mod ignored;
mod journal;
mod log;
mod meter;
mod pod;
mod probe;
mod protocol;
mod resources;
mod service_links;
mod shim;
mod status;
mod supervision;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::runtime::watcher::Event;
use tidemark_clock::Clock;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

pub(crate) use journal::{Logs, Silence};
pub use shim::shim_main;

use crate::controllers::{self, Cache, Key, cache_uid};
use crate::usage::Gauge;
use meter::Groups;

/// The name of the one node.
pub(crate) const NODE: &str = "sandbox";
/// What a container's environment has from the environment of `tidemark up`, if it is there. Nothing else is inherited,
/// so that a manifest works on the next machine as well.
const INHERITED: [&str; 14] = [
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LOGNAME",
    "PATH",
    "SHELL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_RUNTIME_DIR",
];

/// How pods become processes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program that calls [`shim_main`].
    pub exe: PathBuf,
    /// What to start it with.
    pub shim_arguments: Vec<OsString>,
    /// Folder that comes before all others in every container's `PATH`; empty for none.
    pub path_prefix: PathBuf,
    /// Output goes to `<log_dir>/<namespace>/<pod>/<container>.log`, both streams into one file. At 10 MiB it is put aside
    /// as `.log.1`, in place of an earlier one. The folder is its user's alone; that of a pod goes with the pod, unless the
    /// kubelet stops.
    pub log_dir: PathBuf,
    /// Containers without `workingDir` run here; relative ones are seen from here.
    pub working_dir: PathBuf,
    /// Every container's environment begins with these variables.
    pub environment: BTreeMap<String, String>,
    /// The longest time that pods have to end by themselves when the kubelet stops.
    pub shutdown_grace: Duration,
    /// The most pods that run at a time, not counting those that are done; the others wait, unschedulable. 110 unless set,
    /// as on a node of Kubernetes.
    pub max_pods: usize,
}

impl Settings {
    /// Pods of this machine: shims are `exe shim`, and of this process's environment a few variables are handed on, such
    /// as `PATH` and `HOME`.
    pub fn new(exe: impl Into<PathBuf>, log_dir: impl Into<PathBuf>, working_dir: impl Into<PathBuf>) -> Self {
        let inherited = INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
        Self {
            exe: exe.into(),
            shim_arguments: vec!["shim".into()],
            path_prefix: PathBuf::new(),
            log_dir: log_dir.into(),
            working_dir: working_dir.into(),
            environment: inherited.collect(),
            shutdown_grace: Duration::from_secs(5),
            max_pods: 110,
        }
    }
}

/// Runs pods until `shutdown`, then ends all their processes and returns when they have gone. Meanwhile it measures what
/// they use, keeps their logs and leads the connections to Services.
pub(crate) async fn run(client: Client, clock: Clock, settings: Settings, books: Books, shutdown: CancellationToken) {
    if let Err(error) = log::make_private(&settings.log_dir) {
        // Each container that cannot write says so as well.
        tracing::warn!(folder = %settings.log_dir.display(), %error, "the folder of the pods' logs is not as it should be");
    }
    let mut seen = controllers::watch::<Pod>(&client);
    let places = Semaphore::new(settings.max_pods.min(Semaphore::MAX_PERMITS));
    let mut kubelet = Kubelet {
        node: Arc::new(Node { client, clock, settings, places, groups: Groups::default(), logs: books.logs }),
        pods: Cache::default(),
        running: BTreeMap::new(),
        tasks: JoinSet::new(),
        addresses: Addresses::default(),
    };
    let node = kubelet.node.clone();
    {
        let mut meter = std::pin::pin!(meter::run(&node.groups, clock, &books.gauge));
        let mut balancer = std::pin::pin!(balancer::run(node.client.clone(), clock));
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(event) = seen.next() => kubelet.saw(event),
                Some(ended) = kubelet.tasks.join_next(), if !kubelet.tasks.is_empty() => {
                    if let Some(pod) = kubelet.ended(ended) {
                        kubelet.forget_logs(&pod);
                    }
                }
                () = &mut meter => {}
                () = &mut balancer => {}
            }
        }
    }
    kubelet.stop().await;
}

/// What is written down of pods, for others to read.
#[derive(Clone, Default)]
pub(crate) struct Books {
    pub(crate) gauge: Gauge,
    pub(crate) logs: Logs,
}

/// What all pods share.
struct Node {
    client: Client,
    clock: Clock,
    settings: Settings,
    /// A pod holds one while it runs. They are given in the order in which they are asked for.
    places: Semaphore,
    groups: Groups,
    logs: Logs,
}

/// A pod with a task.
struct Running {
    uid: String,
    key: Key,
    /// Set once: the time that the pod has to end.
    stop: watch::Sender<Option<Duration>>,
    address: Ipv4Addr,
    task: AbortHandle,
}

struct Kubelet {
    node: Arc<Node>,
    pods: Cache<Pod>,
    /// By uid.
    running: BTreeMap<String, Running>,
    /// Each task gives the uid of its pod when it ends.
    tasks: JoinSet<String>,
    addresses: Addresses,
}

impl Kubelet {
    fn saw(&mut self, event: Event<Pod>) {
        for pod in self.pods.apply(event) {
            let uid = cache_uid(&*pod).to_owned();
            let there = self.pods.get(&Key::of(&*pod)).is_some_and(|known| cache_uid(&**known) == uid);
            let ending = !there || pod.metadata.deletion_timestamp.is_some();
            match self.running.get(&uid) {
                Some(running) if ending => {
                    running.stop.send_if_modified(|stop| {
                        let grace = grace(&pod);
                        // A second deletion may shorten the time and never lengthens it.
                        let shorter = stop.is_none_or(|known| grace < known);
                        if shorter {
                            *stop = Some(grace);
                        }
                        shorter
                    });
                }
                Some(_) => {}
                None if !there || is_finished(&pod) && !ending => {}
                None => self.start(uid, Arc::unwrap_or_clone(pod), ending),
            }
        }
    }

    fn start(&mut self, uid: String, pod: Pod, ending: bool) {
        let address = self.addresses.take();
        let key = Key::of(&pod);
        let (stop, stopped) = watch::channel(ending.then_some(Duration::ZERO));
        let node = self.node.clone();
        let name = uid.clone();
        let task = self.tasks.spawn(async move {
            pod::run(&node, pod, address, stopped).await;
            name
        });
        self.running.insert(uid.clone(), Running { uid, key, stop, address, task });
    }

    /// Gives the pod whose task has ended.
    fn ended(&mut self, ended: Result<String, tokio::task::JoinError>) -> Option<Running> {
        let uid = match ended {
            Ok(uid) => Some(uid),
            Err(error) => {
                tracing::error!(%error, "the task of a pod has broken down; its processes have been ended");
                let broken = self.running.iter().find(|(_, running)| running.task.id() == error.id());
                broken.map(|(uid, _)| uid.clone())
            }
        };
        let running = self.running.remove(&uid?)?;
        self.addresses.give_back(running.address);
        Some(running)
    }

    /// Removes the logs of a pod that has gone, unless there is another one of its name by now.
    fn forget_logs(&self, pod: &Running) {
        self.node.logs.forget(&pod.uid);
        if self.pods.get(&pod.key).is_some_and(|known| cache_uid(&**known) != pod.uid) {
            return;
        }
        let folder = self.node.settings.log_dir.join(&pod.key.namespace).join(&pod.key.name);
        // Here and at once: no pod of the name can start meanwhile.
        if let Err(error) = std::fs::remove_dir_all(&folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %folder.display(), %error, "the logs of a pod that has gone could not be removed");
        }
    }

    async fn stop(mut self) {
        for running in self.running.values() {
            running.stop.send_modify(|stop| {
                let longest = self.node.settings.shutdown_grace;
                *stop = Some(stop.map_or(longest, |known| known.min(longest)));
            });
        }
        while let Some(ended) = self.tasks.join_next().await {
            self.ended(ended);
        }
    }
}

/// The time that a pod's processes have between SIGTERM and SIGKILL.
fn grace(pod: &Pod) -> Duration {
    let asked = pod.metadata.deletion_grace_period_seconds;
    let configured = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    Duration::from_secs(asked.or(configured).and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(30))
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Loopback addresses for pods. Linux answers to all of 127.0.0.0/8; elsewhere there is only the one.
#[derive(Default)]
struct Addresses {
    taken: BTreeSet<u32>,
    last: u32,
}

impl Addresses {
    /// 127.1.0.0 and the size of what follows it.
    const FIRST: u32 = 0x7f01_0000;
    const SIZE: u32 = 0x00fd_0000;

    fn take(&mut self) -> Ipv4Addr {
        if !cfg!(target_os = "linux") {
            return Ipv4Addr::LOCALHOST;
        }
        // The least recently used ones come last: a client of a pod that has gone finds nobody there.
        loop {
            self.last = (self.last + 1) % Self::SIZE;
            let end = self.last & 0xff;
            if end != 0 && end != 255 && self.taken.insert(self.last) {
                return Ipv4Addr::from(Self::FIRST + self.last);
            }
        }
    }

    fn give_back(&mut self, address: Ipv4Addr) {
        self.taken.remove(&u32::from(address).wrapping_sub(Self::FIRST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn every_pod_has_a_loopback_address_of_its_own() {
        let mut addresses = Addresses::default();
        let first = addresses.take();
        assert_eq!(first, Ipv4Addr::new(127, 1, 0, 1));
        let all: BTreeSet<_> = (0..1000).map(|_| addresses.take()).collect();
        assert_eq!(all.len(), 1000);
        assert!(all.iter().all(|address| address.is_loopback() && address.octets()[3] != 0));
        addresses.give_back(first);
        assert_ne!(addresses.take(), first, "an address is not used again at once");
    }
}
