//! One control plane for all tests of this binary, a namespace for each.

use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;
use tidemark_testkit::{ControlPlane, Error, Kubelet, Options};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Never dropped: that its processes are cleared away when the test binary ends is part of what is tested.
static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();

pub struct Scenario {
    plane: &'static ControlPlane,
    client: Client,
    namespace: &'static str,
    stop: CancellationToken,
    kubelet: JoinHandle<Result<(), Error>>,
}

impl Scenario {
    pub async fn start(namespace: &'static str) -> Option<Self> {
        // A skip is not kept: each test says for itself that it was skipped.
        let start = async || ControlPlane::start_or_skip(Options::default()).await.ok_or(());
        let plane = SHARED.get_or_try_init(start).await.ok()?;
        let client = plane.client().await.unwrap();
        let object = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &object).await.unwrap();
        let stop = CancellationToken::new();
        let kubelet = tokio::spawn(Kubelet::run(client.clone(), stop.clone()));
        Some(Self { plane, client, namespace, stop, kubelet })
    }

    pub fn plane(&self) -> &'static ControlPlane {
        self.plane
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.kubelet.await.unwrap().unwrap();
    }
}

pub async fn create_deployment(deployments: &Api<Deployment>, name: &str, replicas: i32) {
    let deployment = json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "none"}]},
            },
        },
    });
    deployments.create(&PostParams::default(), &serde_json::from_value(deployment).unwrap()).await.unwrap();
}

/// Asks until the answer is yes, at most a minute.
pub async fn eventually(what: &str, check: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !check().await {
        assert!(Instant::now() < deadline, "not within 60 s: {what}");
        sleep(Duration::from_millis(100)).await;
    }
}
