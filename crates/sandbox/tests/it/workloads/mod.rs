//! Jobs, StatefulSets and Services: what a real control plane's controllers do, the sandbox's do.
//!
//! Each fact is tested on the sandbox in virtual time and on a real control plane, whose stand-in kubelet ends pods by
//! annotations as the sandbox's does.

mod endpoints;
mod jobs;
mod sets;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tidemark_sandbox::simulated;
use tidemark_testkit::{ControlPlane, EXIT_CODE_ANNOTATION, FINISH_AFTER_ANNOTATION, Kubelet};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::lab::Lab;

/// What anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster whose controllers and kubelet run, and a namespace of it.
struct Cluster {
    client: Client,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

/// One control plane for all tests. Never dropped: its processes end with the test binary.
static CONTROL_PLANE: OnceCell<ControlPlane> = OnceCell::const_new();

async fn create_namespace(client: &Client, name: &str) {
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
}

async fn on_sandbox(namespace: &str) -> Cluster {
    let Lab { sandbox, stop, controllers, .. } = Lab::new();
    let client = Client::new(sandbox.service(), namespace);
    create_namespace(&client, namespace).await;
    Cluster { client, stop, running: controllers }
}

async fn on_control_plane(namespace: &str) -> Option<Cluster> {
    // A skip is not kept: each test says for itself that it was skipped.
    let start = async || ControlPlane::start_or_skip(tidemark_testkit::Options::default()).await.ok_or(());
    let plane = CONTROL_PLANE.get_or_try_init(start).await.ok()?;
    let mut config = plane.config().await.unwrap();
    config.default_namespace = namespace.to_owned();
    let client = Client::try_from(config).unwrap();
    create_namespace(&client, namespace).await;
    let stop = CancellationToken::new();
    let kubelet = Kubelet::run(client.clone(), stop.clone());
    let running = tokio::spawn(async move { kubelet.await.unwrap() });
    Some(Cluster { client, stop, running })
}

impl Cluster {
    fn path(&self, group_version: &str, rest: &str) -> String {
        format!("/{group_version}/namespaces/{}/{rest}", self.client.default_namespace())
    }

    /// The answer to a request with a JSON body.
    async fn send(&self, method: &str, path: &str, media: &str, body: &Value) -> Value {
        let request = http::Request::builder().method(method).uri(path).header("Content-Type", media);
        self.client.request(request.body(body.to_string().into_bytes()).unwrap()).await.unwrap()
    }

    async fn create(&self, group_version: &str, plural: &str, object: &Value) -> Value {
        self.send("POST", &self.path(group_version, plural), "application/json", object).await
    }

    async fn merge(&self, path: &str, patch: &Value) -> Value {
        self.send("PATCH", path, "application/merge-patch+json", patch).await
    }

    async fn delete(&self, path: &str, options: &Value) {
        self.send("DELETE", path, "application/json", options).await;
    }

    /// The object there, null if there is none.
    async fn get(&self, path: &str) -> Value {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        match self.client.request(request).await {
            Ok(value) => value,
            Err(kube::Error::Api(status)) if status.code == 404 => Value::Null,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// Waits until what is there is as wanted, and returns it.
    async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.get(path).await;
                if wanted(&last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        if found.await.is_err() {
            panic!("never as wanted: {last:#}");
        }
        last
    }

    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    async fn all_pods(&self) -> Vec<Pod> {
        self.pods().list(&ListParams::default()).await.unwrap().items
    }

    async fn pod_names(&self) -> Vec<String> {
        self.all_pods().await.iter().map(ResourceExt::name_any).collect()
    }

    /// Waits until there are these pods and no others.
    async fn until_pods(&self, names: &[&str]) {
        let mut last = Vec::new();
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.pod_names().await;
                if last == names {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        assert!(found.await.is_ok(), "pods {last:?} instead of {names:?}");
    }

    /// Reasons and messages of the events about an object.
    async fn events(&self, kind: &str, name: &str) -> Vec<(String, String)> {
        let events: Api<Event> = Api::default_namespaced(self.client.clone());
        let about = |event: &Event| {
            event.involved_object.kind.as_deref() == Some(kind) && event.involved_object.name.as_deref() == Some(name)
        };
        let events = events.list(&ListParams::default()).await.unwrap().items.into_iter().filter(about);
        events.map(|event| (event.reason.unwrap_or_default(), event.message.unwrap_or_default())).collect()
    }

    async fn has_event(&self, kind: &str, name: &str, reason: &str, message: &str) {
        let found = tokio::time::timeout(PATIENCE, async {
            while !self.events(kind, name).await.iter().any(|(r, m)| r == reason && m.starts_with(message)) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        assert!(found.await.is_ok(), "no {reason} {message:?} in {:?}", self.events(kind, name).await);
    }

    async fn finish(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

/// Annotations that end pods so many seconds after their start with that code.
fn ends(seconds: u32, code: i32) -> Value {
    json!({
        simulated::RUN_SECONDS: seconds.to_string(), simulated::EXIT_CODE: code.to_string(),
        FINISH_AFTER_ANNOTATION: seconds.to_string(), EXIT_CODE_ANNOTATION: code.to_string(),
    })
}

/// A namespace's name from a test's.
fn label(test: &str) -> String {
    test.replace('_', "-").chars().take(60).collect::<String>().trim_end_matches('-').to_owned()
}

macro_rules! facts {
    ($($module:ident: $($fact:ident),+;)+) => {
        mod sandbox { $($(
            #[tokio::test(start_paused = true)]
            async fn $fact() {
                let cluster = super::on_sandbox(&super::label(stringify!($fact))).await;
                super::$module::$fact(&cluster).await;
                cluster.finish().await;
            }
        )+)+ }

        mod control_plane { $($(
            #[tokio::test]
            async fn $fact() {
                if let Some(cluster) = super::on_control_plane(&super::label(stringify!($fact))).await {
                    super::$module::$fact(&cluster).await;
                    cluster.finish().await;
                }
            }
        )+)+ }
    };
}

facts! {
    jobs:
        a_job_is_complete_when_enough_pods_have_succeeded,
        a_job_fails_beyond_its_backoff_limit,
        a_job_that_takes_too_long_fails_and_its_pods_go,
        a_suspended_job_has_no_pods_until_it_is_resumed,
        a_finished_job_goes_after_its_time_to_live,
        the_pods_of_a_deleted_job_go_too,
        a_namespace_goes_with_the_jobs_in_it,
        an_indexed_job_gives_each_pod_its_index,
        a_failure_policy_ends_a_job_or_overlooks_a_failure,
        a_work_queue_is_done_when_one_pod_has_succeeded_and_none_runs;
    sets:
        pods_have_numbers_and_come_in_order,
        a_set_shrinks_from_its_last_pod,
        a_new_template_is_rolled_out_from_the_last_pod,
        a_partition_keeps_the_pods_below_it,
        a_parallel_set_makes_all_pods_at_once,
        a_deleted_pod_comes_back_under_its_name;
    endpoints:
        a_slice_lists_the_pods_of_a_service,
        a_service_without_pods_has_an_empty_slice,
        the_slices_of_a_deleted_service_go_too;
}
