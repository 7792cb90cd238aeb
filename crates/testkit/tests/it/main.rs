//! The harness against the real thing: skipped, visibly, where there is no control plane.

mod external_metrics;
mod machinery;
mod scenario;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tidemark_testkit::{ControlPlane, EXIT_CODE_ANNOTATION, FINISH_AFTER_ANNOTATION, Options};
use xtask::process_group::live_processes;

use scenario::{Scenario, create_deployment, eventually};

#[tokio::test]
async fn a_deployment_becomes_available_and_goes_again() {
    let Some(scenario) = Scenario::start("a-deployment").await else { return };
    let deployments: Api<Deployment> = scenario.api();
    create_deployment(&deployments, "worker", 2).await;
    eventually("both replicas are available", async || {
        let status = deployments.get("worker").await.unwrap().status.unwrap_or_default();
        status.available_replicas == Some(2)
    })
    .await;

    let pods: Api<Pod> = scenario.api();
    for pod in pods.list(&ListParams::default()).await.unwrap() {
        let status = pod.status.unwrap_or_default();
        assert_eq!(status.phase.as_deref(), Some("Running"));
        assert!(status.pod_ip.is_some() && status.start_time.is_some());
    }
    let none = json!({"spec": {"replicas": 0}});
    deployments.patch("worker", &PatchParams::default(), &Patch::Merge(none)).await.unwrap();
    eventually("all pods are gone", async || pods.list(&ListParams::default()).await.unwrap().items.is_empty()).await;
    scenario.stop().await;
}

#[tokio::test]
async fn job_pods_finish_as_annotated() {
    let Some(scenario) = Scenario::start("job-pods").await else { return };
    let jobs: Api<Job> = scenario.api();
    let job = |name: &str, exit_code: &str| {
        let job = json!({
            "metadata": {"name": name},
            "spec": {"backoffLimit": 0, "template": {
                "metadata": {"annotations": {FINISH_AFTER_ANNOTATION: "0", EXIT_CODE_ANNOTATION: exit_code}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]},
            }},
        });
        serde_json::from_value(job).unwrap()
    };
    jobs.create(&PostParams::default(), &job("good", "0")).await.unwrap();
    jobs.create(&PostParams::default(), &job("bad", "7")).await.unwrap();
    let condition = async |name: &str, kind: &str| {
        let status = jobs.get(name).await.unwrap().status.unwrap_or_default();
        status.conditions.unwrap_or_default().iter().any(|it| it.type_ == kind && it.status == "True")
    };
    eventually("one job completes", async || condition("good", "Complete").await).await;
    eventually("the other fails", async || condition("bad", "Failed").await).await;
    scenario.stop().await;
}

#[tokio::test]
async fn kubectl_reads_the_cluster_with_the_kubeconfig() {
    let Some(scenario) = Scenario::start("kubectl").await else { return };
    create_deployment(&scenario.api(), "worker", 0).await;
    let mut command = scenario.plane().kubectl();
    let kubectl = tokio::task::spawn_blocking(move || {
        command.args(["--namespace=kubectl", "get", "deployments", "--output=name"]).output()
    });
    let output = kubectl.await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "deployment.apps/worker\n", "{output:?}");
    scenario.stop().await;
}

#[tokio::test]
async fn an_hpa_scales_on_a_metric_served_behind_aggregation() {
    let Some(scenario) = Scenario::start("an-hpa").await else { return };
    let server = external_metrics::serve("queue-length", 30).await;
    scenario.plane().register_external_metrics(server.port, &server.ca_pem).await.unwrap();

    let deployments: Api<Deployment> = scenario.api();
    create_deployment(&deployments, "worker", 1).await;
    let hpas: Api<k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler> = scenario.api();
    let target = json!({"type": "AverageValue", "averageValue": "10"});
    let hpa = json!({
        "metadata": {"name": "worker"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "worker"},
            "maxReplicas": 10,
            "metrics": [{"type": "External", "external": {"metric": {"name": "queue-length"}, "target": target}}],
        },
    });
    hpas.create(&PostParams::default(), &serde_json::from_value(hpa).unwrap()).await.unwrap();
    eventually("30 messages at 10 each make 3 replicas", async || {
        deployments.get("worker").await.unwrap().spec.replicas == Some(3)
    })
    .await;
    scenario.stop().await;
}

#[tokio::test]
async fn nothing_is_left_after_drop_and_a_restarted_api_server_keeps_its_data() {
    let Some(mut plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let client = plane.client().await.unwrap();
    let deployments: Api<Deployment> = Api::default_namespaced(client);
    create_deployment(&deployments, "worker", 0).await;
    plane.restart_apiserver().await.unwrap();
    assert_eq!(deployments.get("worker").await.unwrap().name_any(), "worker");

    let (group, directory) = (plane.process_group(), plane.directory().to_owned());
    let servers = live_processes(group).unwrap();
    assert_eq!(servers.len(), 4, "three servers and the group's holder: {servers:?}");
    drop(plane);
    assert_eq!(live_processes(group).unwrap(), [""; 0]);
    assert!(!directory.exists());
}
