//! The controllers an autoscaler needs around it: Deployments, ReplicaSets, StatefulSets, Jobs, EndpointSlices, a kubelet,
//! garbage collection and the HorizontalPodAutoscaler.
//!
//! They are ordinary controllers over a [`kube::Client`] and know nothing of the store behind it. Each is one task that
//! owns a cache fed by watches and a queue of objects to look at; nothing else writes its state. All iteration is
//! ordered, so that under the paused clock the same input gives the same writes.

mod cache;
mod deployment;
mod dynamic;
mod endpoints;
mod events;
mod expiry;
mod garbage;
mod hpa;
mod job;
mod kubelet;
mod pods;
mod queue;
mod replica_set;
mod rollout;
mod stateful_set;

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tidemark_clock::Clock;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use cache::{Cache, uid as cache_uid};
pub(crate) use dynamic::watch_kind;
pub(crate) use endpoints::{SERVICE_NAME, service_kind, slice_kind};
pub(crate) use events::{Note, Recorder};
pub(crate) use kubelet::{remove, restart_pause};
pub(crate) use queue::Queue;

use crate::process::Books;
use crate::{Options, Pods, process};

/// The API server has this long to answer one request.
const PATIENCE: Duration = Duration::from_secs(10);
/// A watch that failed is opened again after this long.
const WATCH_AGAIN: Duration = Duration::from_secs(1);

/// A namespaced object's address within its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn of<K: Resource>(object: &K) -> Self {
        Self { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
    }
}

/// A request of a controller that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Api(#[from] Box<kube::Error>),
    #[error("the API server did not answer within {} s", PATIENCE.as_secs())]
    TimedOut,
}

impl Error {
    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api(error) => match error.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::TimedOut => None,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_not_found)
    }

    pub(crate) fn is_conflict(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_conflict)
    }

    /// Whether a patch meant an earlier object of the same name.
    pub(crate) fn is_other_object(&self) -> bool {
        let causes = self.status().and_then(|status| status.details.as_ref()).map(|details| details.causes.as_slice());
        causes.unwrap_or_default().iter().any(|cause| cause.field == "metadata.uid")
    }

    pub(crate) fn is_already_exists(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_already_exists)
    }

    /// The API server's own sentence where there is one.
    pub(crate) fn sentence(&self) -> String {
        self.status().map_or_else(|| self.to_string(), |status| status.message.clone())
    }
}

/// Awaits one request under the deadline every request has.
pub(crate) async fn ask<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(answer) => Ok(answer.map_err(Box::new)?),
        Err(_) => Err(Error::TimedOut),
    }
}

/// Runs all controllers until `shutdown`, then stops them, and the pods' processes with them, and returns when the last
/// of them has ended.
pub(crate) async fn run(client: Client, clock: Clock, options: Options, books: Books, shutdown: CancellationToken) {
    let mut tasks = JoinSet::new();
    let mut controllers: Vec<BoxFuture<'static, ()>> = vec![
        deployment::run(client.clone(), clock).boxed(),
        replica_set::run(client.clone(), clock).boxed(),
        stateful_set::run(client.clone(), clock).boxed(),
        job::run(client.clone(), clock).boxed(),
        endpoints::run(client.clone()).boxed(),
        garbage::run(client.clone()).boxed(),
        expiry::run(client.clone()).boxed(),
    ];
    let controls = hpa::Controls { decisions: options.hpa, sync_period: options.hpa_sync_period };
    controllers.push(hpa::run(client.clone(), clock, controls).boxed());
    match options.pods {
        Pods::Simulated => controllers.push(kubelet::run(client, clock, options.pod_startup).boxed()),
        Pods::Processes(settings) => {
            let shutdown = shutdown.clone();
            tasks.spawn(async move {
                process::run(client, clock, settings, books, shutdown).await;
                Some(())
            });
        }
    }
    for controller in controllers {
        tasks.spawn(shutdown.clone().run_until_cancelled_owned(controller));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a controller of the sandbox has broken down");
        }
    }
}

/// Watches all objects of a kind. Broken watches are opened again; the stream never ends.
pub(crate) fn watch<K>(client: &Client) -> BoxStream<'static, watcher::Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let kind = K::kind(&()).into_owned();
    unbroken(kind, watcher(Api::<K>::all(client.clone()), watcher::Config::default()))
}

/// A watch of all objects of a kind that begins when it is first needed: each one that runs has every change read and
/// handed on once more.
pub(crate) struct LazyWatch<K>(Option<BoxStream<'static, watcher::Event<K>>>);

impl<K> LazyWatch<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    pub(crate) fn new() -> Self {
        Self(None)
    }

    /// Begins it if it has not begun.
    pub(crate) fn begin(&mut self, client: &Client) {
        self.0.get_or_insert_with(|| watch::<K>(client));
    }

    /// The next event; none ever before it has begun.
    pub(crate) async fn next(&mut self) -> Option<watcher::Event<K>> {
        match &mut self.0 {
            Some(events) => events.next().await,
            None => std::future::pending().await,
        }
    }
}

/// Reports and drops the errors of a watch, which opens itself again.
pub(crate) fn unbroken<K: Send + 'static>(
    kind: String,
    events: impl futures::Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
) -> BoxStream<'static, watcher::Event<K>> {
    events
        .backoff(Steady)
        .filter_map(move |event| {
            let event = event.inspect_err(|error| tracing::debug!(kind, %error, "a watch broke and is opened again"));
            std::future::ready(event.ok())
        })
        .boxed()
}

/// The same pause after every failure: the API server is in the same process.
struct Steady;

impl Iterator for Steady {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(WATCH_AGAIN)
    }
}

impl kube::runtime::utils::Backoff for Steady {
    fn reset(&mut self) {}
}

/// The reference to the object's controller, if it is of the given kind.
pub(crate) fn controller_of<'a, K: Resource>(object: &'a K, kind: &str) -> Option<&'a str> {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true) && owner.kind == kind).map(|owner| owner.name.as_str())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::Pod;
    use kube::api::{ListParams, Patch, PatchParams, PostParams};
    use kube::core::{ApiResource, DynamicObject};
    use serde_json::json;

    use super::*;
    use crate::{Faults, Sandbox, simulated};

    /// Workloads of each kind, made and changed while the controllers' requests fail, as they are in the end.
    async fn workloads_in_a_bad_time(seed: u64) -> String {
        let clock = Clock::starting_at(jiff::Timestamp::UNIX_EPOCH);
        let sandbox = Sandbox::new(clock, Options::default());
        let layer = Faults::bad_time(seed, Duration::from_secs(200)).layer();
        let shutdown = CancellationToken::new();
        let faulty = sandbox.faulty_client(&layer);
        let running = run(faulty, clock, Options::default(), Books::default(), shutdown.clone());
        let running = tokio::spawn(running);
        let client = sandbox.client();
        let template = |name: &str, policy: &str, annotations: serde_json::Value| {
            json!({
                "metadata": { "labels": { "app": name }, "annotations": annotations },
                "spec": { "restartPolicy": policy, "containers": [{ "name": "main", "image": "one" }] },
            })
        };
        let selector = |name: &str| json!({ "matchLabels": { "app": name } });
        let (web, db) = (template("web", "Always", json!({})), template("db", "Always", json!({})));
        let work = template("work", "Never", json!({ simulated::RUN_SECONDS: "7" }));
        for (kind, name, spec) in [
            (
                dynamic::kind("apps", "v1", "Deployment", "deployments"),
                "web",
                json!({ "replicas": 3, "selector": selector("web"), "template": web }),
            ),
            (
                dynamic::kind("apps", "v1", "StatefulSet", "statefulsets"),
                "db",
                json!({ "replicas": 3, "serviceName": "db", "selector": selector("db"), "template": db }),
            ),
            (
                dynamic::kind("batch", "v1", "Job", "jobs"),
                "work",
                json!({ "completions": 12, "parallelism": 3, "template": work }),
            ),
            (service_kind(), "web", json!({ "selector": { "app": "web" }, "ports": [{ "port": 80 }] })),
        ] {
            let object = DynamicObject::new(name, &kind).data(json!({ "spec": spec }));
            dynamic::api(&client, &kind, Some("default")).create(&PostParams::default(), &object).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        let image = json!({ "spec": { "replicas": 5, "template": { "spec": { "containers": [{ "name": "main", "image": "two" }] } } } });
        let sets = dynamic::kind("apps", "v1", "StatefulSet", "statefulsets");
        let merge = |patch| Patch::Merge(patch);
        let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
        deployments.patch("web", &PatchParams::default(), &merge(image.clone())).await.unwrap();
        let sets = dynamic::api(&client, &sets, Some("default"));
        sets.patch("db", &PatchParams::default(), &merge(image)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(900)).await;
        let state = state(&client).await;
        shutdown.cancel();
        running.await.unwrap();
        format!("{}\n{state}", layer.log().join("\n"))
    }

    /// What there is, in words that do not depend on the way there.
    async fn state(client: &Client) -> String {
        let pods: Api<Pod> = Api::default_namespaced(client.clone());
        let pods = pods.list(&ListParams::default()).await.unwrap().items;
        let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
        let word = |pod: &Pod| {
            let held = if pod.finalizers().is_empty() { "" } else { " held" };
            format!("{} {} {}{held}", pod.labels()["app"], image(pod), pods::phase(pod))
        };
        let mut words: Vec<_> = pods.iter().map(word).collect();
        words.sort();
        let of = async |kind: ApiResource, name: &str| {
            dynamic::api(client, &kind, Some("default")).get(name).await.unwrap().data["status"].clone()
        };
        let job = of(dynamic::kind("batch", "v1", "Job", "jobs"), "work").await;
        let set = of(dynamic::kind("apps", "v1", "StatefulSet", "statefulsets"), "db").await;
        let web = of(dynamic::kind("apps", "v1", "Deployment", "deployments"), "web").await;
        let slices = dynamic::api(client, &slice_kind(), Some("default")).list(&ListParams::default()).await.unwrap();
        let endpoints = slices.items.iter().map(|slice| slice.data["endpoints"].as_array().unwrap().len());
        words.push(format!("job {} {}", job["succeeded"], job["failed"]));
        words.push(format!("set {} {}", set["readyReplicas"], set["updatedReplicas"]));
        words.push(format!("deployment {} {}", web["readyReplicas"], web["updatedReplicas"]));
        words.push(format!("endpoints {:?}", endpoints.collect::<Vec<_>>()));
        words.join("\n")
    }

    #[test]
    fn controllers_reach_the_same_end_through_a_bad_time_and_each_seed_is_one_way_there() {
        let run = |seed| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
            runtime.block_on(workloads_in_a_bad_time(seed))
        };
        let mut expected = vec!["db two Running"; 5];
        expected.extend(["web two Running"; 5]);
        expected.extend(["work one Succeeded"; 12]);
        expected.extend(["job 12 null", "set 5 5", "deployment 5 5", "endpoints [5]"]);
        let expected = expected.join("\n");
        for seed in 0..12 {
            let outcome = run(seed);
            assert!(outcome.ends_with(&format!("\n{expected}")), "seed {seed}: {outcome}");
            if seed < 4 {
                let again = run(seed);
                let differs = outcome.lines().zip(again.lines()).enumerate().find(|(_, (one, other))| one != other);
                assert!(outcome == again, "seed {seed} has two outcomes: {differs:?}");
            }
        }
    }
}
