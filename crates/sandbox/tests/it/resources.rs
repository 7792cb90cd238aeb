//! HorizontalPodAutoscalers over what simulated pods use of CPU and memory.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, MetricStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use tidemark_sandbox::{Load, Usage, simulated};

use crate::lab::{Lab, pass_seconds};

fn deployment(replicas: i32, requests: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "worker" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "worker" } },
            "template": {
                "metadata": { "labels": { "app": "worker" } },
                "spec": { "containers": [{ "name": "main", "image": "none", "resources": { "requests": requests } }] },
            },
        },
    })
}

fn hpa(metric: Value) -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": { "name": "worker" },
        "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "worker" },
            "minReplicas": 1, "maxReplicas": 10,
            "metrics": [metric],
        },
    })
}

fn cpu_utilization(percent: i32) -> Value {
    json!({ "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": percent } } })
}

async fn scaled(replicas: i32, requests: Value, metric: Value) -> Lab {
    let lab = Lab::new();
    lab.create::<Deployment>(deployment(replicas, requests)).await;
    lab.create::<HorizontalPodAutoscaler>(hpa(metric)).await;
    lab
}

fn load(lab: &Lab, load: Load) {
    lab.sandbox.set_load("default", [("app", "worker")], Some(load));
}

fn cores(cpu_milli: u64) -> Usage {
    Usage { cpu_milli, memory: 64 << 20 }
}

async fn current(lab: &Lab) -> MetricStatus {
    lab.hpa().await.status.unwrap().current_metrics.unwrap().remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_load_on_all_pods_brings_as_many_as_keep_each_at_its_target() {
    let lab = scaled(1, json!({ "cpu": "200m" }), cpu_utilization(50)).await;
    load(&lab, Load::Shared(cores(450)));
    pass_seconds(600).await;
    // 450m at half of 200m each.
    assert_eq!(lab.replicas("worker").await, 5);
    assert_eq!(lab.condition("ScalingActive").await.reason.as_deref(), Some("ValidMetricFound"));
    let current = current(&lab).await;
    assert_eq!(current.type_, "Resource");
    let value = current.resource.unwrap();
    assert_eq!((value.name.as_str(), value.current.average_utilization), ("cpu", Some(45)));
    assert_eq!(value.current.average_value.unwrap().0, "90m");

    load(&lab, Load::Shared(cores(90)));
    pass_seconds(280).await;
    assert_eq!(lab.replicas("worker").await, 5, "it waits for five minutes");
    pass_seconds(60).await;
    assert_eq!(lab.replicas("worker").await, 1);
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn memory_is_held_at_an_average_per_pod() {
    let target = json!({ "type": "AverageValue", "averageValue": "100Mi" });
    let metric = json!({ "type": "Resource", "resource": { "name": "memory", "target": target } });
    let lab = scaled(2, json!({}), metric).await;
    load(&lab, Load::EachPod(Usage { cpu_milli: 1, memory: 150 << 20 }));
    pass_seconds(20).await;
    assert_eq!(lab.replicas("worker").await, 3, "ceil(2 * 150 / 100)");
    let value = current(&lab).await.resource.unwrap().current;
    assert_eq!((value.average_value.unwrap().0.as_str(), value.average_utilization), ("157286400", None));
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn one_container_can_count_alone() {
    let target = json!({ "type": "AverageValue", "averageValue": "100m" });
    let metric = json!({ "type": "ContainerResource", "containerResource": { "name": "cpu", "container": "main", "target": target } });
    let lab = scaled(1, json!({}), metric).await;
    let template = json!({ "spec": { "template": {
        "metadata": { "annotations": { simulated::CPU: "main=300m,proxy=2" } },
        "spec": { "containers": [{ "name": "main", "image": "none" }, { "name": "proxy", "image": "none" }] },
    } } });
    lab.patch::<Deployment>("worker", template).await;
    pass_seconds(330).await;
    // Each pod uses 300m of 100m: three times as many, again and again, up to the most.
    assert_eq!(lab.replicas("worker").await, 10);
    let value = current(&lab).await.container_resource.unwrap();
    assert_eq!((value.container.as_str(), value.current.average_value.unwrap().0.as_str()), ("main", "300m"));
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_request_is_named_and_nothing_is_scaled() {
    let lab = scaled(2, json!({}), cpu_utilization(50)).await;
    load(&lab, Load::EachPod(cores(500)));
    pass_seconds(60).await;
    assert_eq!(lab.replicas("worker").await, 2);
    let condition = lab.condition("ScalingActive").await;
    assert_eq!((condition.status.as_str(), condition.reason.as_deref()), ("False", Some("FailedGetResourceMetric")));
    let message = condition.message.unwrap();
    assert!(message.contains("missing request for cpu in container main of Pod worker-"), "{message}");
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_which_nothing_is_said_have_no_metrics() {
    let lab = scaled(3, json!({ "cpu": "200m" }), cpu_utilization(50)).await;
    pass_seconds(900).await;
    assert_eq!(lab.replicas("worker").await, 3, "a reading that is not there is not zero");
    let condition = lab.condition("ScalingActive").await;
    assert_eq!(condition.reason.as_deref(), Some("FailedGetResourceMetric"));
    let message = condition.message.unwrap();
    assert!(message.contains("no metrics returned from resource metrics API"), "{message}");
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn pod_metrics_can_be_read_as_kubectl_top_reads_them() {
    let lab = scaled(1, json!({}), cpu_utilization(50)).await;
    load(&lab, Load::EachPod(cores(250)));
    pass_seconds(5).await;
    let get = |path: &str| {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        let client = lab.client.clone();
        async move { client.request::<Value>(request).await }
    };
    let base = "/apis/metrics.k8s.io/v1beta1";
    let list = get(&format!("{base}/namespaces/default/pods?labelSelector=app%3Dworker")).await.unwrap();
    assert_eq!(list["kind"], "PodMetricsList");
    let item = &list["items"][0];
    assert_eq!(item["containers"], json!([{ "name": "main", "usage": { "cpu": "250m", "memory": "67108864" } }]));
    assert_eq!(item["window"], "15s");
    let name = lab.list::<Pod>().await[0].name_any();
    assert_eq!(get(&format!("{base}/namespaces/default/pods/{name}")).await.unwrap()["metadata"]["name"], *name);
    let none = get(&format!("{base}/namespaces/default/pods?labelSelector=app%3Dnone")).await.unwrap();
    assert_eq!(none["items"], json!([]));
    assert!(get(&format!("{base}/namespaces/default/pods/none")).await.is_err());
    lab.finish().await;
}
