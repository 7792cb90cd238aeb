//! A sandbox with its controllers running, in virtual time.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidemark_clock::Clock;
use tidemark_sandbox::{Options, Sandbox};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "default";

/// A sandbox with its controllers running.
pub struct Lab {
    pub sandbox: Sandbox,
    pub client: Client,
    pub stop: CancellationToken,
    pub controllers: JoinHandle<()>,
}

impl Lab {
    pub fn new() -> Self {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let sandbox = Sandbox::new(clock, Options::default());
        let stop = CancellationToken::new();
        let (running, token) = (sandbox.clone(), stop.clone());
        let controllers = tokio::spawn(async move { running.run(token).await });
        Self { client: sandbox.client(), sandbox, stop, controllers }
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub async fn create<K>(&self, object: Value) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }

    pub async fn patch<K>(&self, name: &str, patch: Value) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
    }

    pub async fn list<K>(&self) -> Vec<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        self.api::<K>().list(&ListParams::default()).await.unwrap().items
    }

    pub async fn pods(&self) -> Vec<String> {
        self.list::<Pod>().await.iter().map(ResourceExt::name_any).collect()
    }

    pub async fn deployment(&self, name: &str) -> Deployment {
        self.api().get(name).await.unwrap()
    }

    pub async fn replicas(&self, name: &str) -> i32 {
        self.deployment(name).await.spec.replicas.unwrap()
    }

    pub async fn hpa(&self) -> HorizontalPodAutoscaler {
        self.api().get("worker").await.unwrap()
    }

    pub async fn condition(&self, type_: &str) -> HorizontalPodAutoscalerCondition {
        let conditions = self.hpa().await.status.unwrap().conditions.unwrap();
        conditions.into_iter().find(|condition| condition.type_ == type_).unwrap()
    }

    pub async fn finish(self) {
        self.stop.cancel();
        self.controllers.await.unwrap();
    }
}

/// Lets virtual time pass.
pub async fn pass(duration: Duration) {
    tokio::time::sleep(duration).await;
}

pub async fn pass_seconds(seconds: u64) {
    pass(Duration::from_secs(seconds)).await;
}
