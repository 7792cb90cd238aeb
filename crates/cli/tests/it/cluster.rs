//! What triggers ask of the cluster, on the sandbox and on a real API server.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tidemark_clock::Clock;
use tidemark_operator::KubeCluster;
use tidemark_sandbox::Sandbox;
use tidemark_testkit::{ControlPlane, Options};
use tidemark_trigger::ErrorKind;
use tidemark_trigger::door::Cluster;

/// How long the API server's cache may take to show what was written.
const PATIENCE: Duration = Duration::from_secs(20);

fn cluster(client: &Client) -> KubeCluster {
    KubeCluster::new(client.clone(), Duration::from_secs(10))
}

async fn pod(client: &Client, name: &str, node: Option<&str>, phase: &str) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let pod = json!({
        "metadata": {"name": name, "labels": {"app": "loose"}},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "x"}]},
    });
    let pod = pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let phase = Patch::Merge(json!({"status": {"phase": phase}}));
    pods.patch_status(&pod.name_any(), &PatchParams::default(), &phase).await.unwrap();
}

async fn slice(client: &Client, name: &str, port: u16, endpoints: Value) {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    let slice = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": port}], "endpoints": endpoints,
    });
    slices.create(&PostParams::default(), &serde_json::from_value(slice).unwrap()).await.unwrap();
}

/// The answers of a cluster with pods and slices in it.
async fn questions_are_answered(client: &Client) {
    pod(client, "a", Some("n1"), "Running").await;
    pod(client, "b", Some("n1"), "Pending").await;
    pod(client, "c", Some("n2"), "Succeeded").await;
    pod(client, "d", Some("n3"), "Failed").await;
    pod(client, "e", None, "Unknown").await;
    slice(client, "web-1", 8080, json!([{"addresses": ["10.0.0.1"]}])).await;
    slice(client, "web-2", 9090, json!([{"addresses": ["10.0.0.2"], "conditions": {"ready": false}}])).await;
    let cluster = cluster(client);
    let shown = async {
        while cluster.service_endpoints("default", "web").await.unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        while cluster.live_pods("default", "app in (loose, other),!absent").await != Ok(3) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, shown).await.expect("3 pods and 2 endpoints in time");
    let nodes = cluster.nodes_of_live_pods("default", "app=loose").await.unwrap();
    assert_eq!(nodes.iter().map(|node| &**node).collect::<Vec<_>>(), ["n1"]);
    assert_eq!(cluster.live_pods("default", "app!=loose,app").await, Ok(0));
    assert_eq!(cluster.live_pods("none", "app=loose").await, Ok(0));
    let endpoints = cluster.service_endpoints("default", "web").await.unwrap();
    let seen: Vec<_> = endpoints.iter().map(|e| (&*e.address, e.ready, &*e.ports)).collect();
    assert_eq!(seen, [("10.0.0.1", true, &[8080][..]), ("10.0.0.2", false, &[9090][..])]);
    assert_eq!(cluster.service_endpoints("default", "none").await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn the_sandbox_answers_what_triggers_ask() {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let sandbox = Sandbox::new(clock, tidemark_sandbox::Options::default());
    questions_are_answered(&sandbox.client()).await;
}

#[tokio::test]
async fn a_real_api_server_answers_what_triggers_ask_and_refuses_who_may_not() {
    let Some(control_plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    questions_are_answered(&control_plane.client().await.unwrap()).await;

    let mut config = control_plane.config().await.unwrap();
    config.auth_info.impersonate = Some("somebody".to_owned());
    let stranger = cluster(&tidemark_operator::client::build(config).unwrap());
    let error = stranger.live_pods("default", "app=loose").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Authentication, "{error}");
    assert!(error.message.contains("pods is forbidden: User \"somebody\" cannot list resource \"pods\""), "{error}");
    assert!(error.message.ends_with("the verb list on pods in namespace default"), "{error}");
}
