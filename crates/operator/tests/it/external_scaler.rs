//! The operator with a scaler in another language over gRPC, in real time: `TIDEMARK_TEST_EXTERNAL_SCALER` names the
//! scaler's control (`cargo xtask services external-scaler`). Without it the test is skipped, visibly.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};
use tidemark_api::ScaledObject;
use tidemark_clock::Clock;
use tidemark_operator::{Operator, Settings};
use tidemark_sandbox::{Options, Sandbox};
use tidemark_trigger::{Door, DoorSettings, HttpProfile};
use tokio_util::sync::CancellationToken;

const VARIABLE: &str = "TIDEMARK_TEST_EXTERNAL_SCALER";
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

struct Scaler {
    control: String,
    door: Door,
}

impl Scaler {
    async fn ask(&self, method: Method, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder().method(method).uri(format!("{}/{path}", self.control)).body(body).unwrap();
        let reply = self.door.http(&HttpProfile::default(), request, Some(PATIENCE)).await.unwrap();
        assert!(reply.status().is_success(), "{:?}", reply.body());
        if reply.body().is_empty() { Value::Null } else { serde_json::from_slice(reply.body()).unwrap() }
    }
}

/// Waits until it is so.
async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn create(client: &Client, address: &str) {
    let deployment = json!({
        "metadata": {"name": "pushed"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "pushed"}}, "template": {
            "metadata": {"labels": {"app": "pushed"}}, "spec": {"containers": [{"name": "main", "image": "worker"}]}}},
    });
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    deployments.create(&PostParams::default(), &serde_json::from_value(deployment).unwrap()).await.unwrap();
    let object = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "pushed"},
        "spec": {"scaleTargetRef": {"name": "pushed"}, "pollingInterval": 600, "triggers": [
            {"type": "external-push", "metadata": {"scalerAddress": address}}]},
    });
    let objects: Api<ScaledObject> = Api::default_namespaced(client.clone());
    objects.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

/// Names and targets of the HPA's metrics.
async fn metrics(client: &Client) -> Vec<(String, String)> {
    let hpas: Api<HorizontalPodAutoscaler> = Api::default_namespaced(client.clone());
    let Some(hpa) = hpas.get_opt("keda-hpa-pushed").await.unwrap() else { return Vec::new() };
    let metrics = hpa.spec.metrics.unwrap().into_iter().filter_map(|metric| metric.external);
    metrics.map(|metric| (metric.metric.name, metric.target.average_value.unwrap().0)).collect()
}

#[tokio::test]
async fn a_scaler_in_another_language_names_metrics_wakes_the_workload_and_changes_its_targets() {
    let Ok(control) = std::env::var(VARIABLE) else {
        assert!(std::env::var("TIDEMARK_REQUIRE_SERVICES").as_deref() != Ok("1"), "{VARIABLE} is not set");
        eprintln!("SKIPPED: {VARIABLE} is not set");
        return;
    };
    let (clock, shutdown) = (Clock::system(), CancellationToken::new());
    let scaler = Scaler { control, door: Door::new(clock, DoorSettings::default()) };
    let address = scaler.ask(Method::GET, "", &Value::Null).await["plain"].as_str().unwrap().to_owned();
    let place = "objects/default/pushed";
    scaler.ask(Method::DELETE, place, &Value::Null).await;
    let answers = |metrics: Value| json!({"metrics": metrics, "values": {"jobs": [{"value": 0}]}, "active": false});
    scaler.ask(Method::PUT, place, &answers(json!([{"name": "jobs", "target": 5}]))).await;

    let sandbox = Sandbox::new(clock, Options::default());
    sandbox.install_crds(&tidemark_api::crds()).unwrap();
    let client = sandbox.client();
    let door = Door::new(clock, DoorSettings::default());
    let (operator, _handle) = Operator::new(client.clone(), door, Settings::default());
    let running = tokio::spawn(operator.run(shutdown.clone()));
    create(&client, &address).await;

    until("the HPA has the metrics that the scaler names", || async {
        metrics(&client).await == [("s0-jobs".to_owned(), "5".to_owned())]
    })
    .await;
    let both = json!({"StreamIsActive": 1, "StreamMetricSpec": 1});
    until("both streams are open", || async { scaler.ask(Method::GET, place, &Value::Null).await["streams"] == both })
        .await;
    scaler.ask(Method::POST, &format!("{place}/active"), &json!(true)).await;
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    until("the workload is awake", || async { deployments.get("pushed").await.unwrap().spec.replicas == Some(1) })
        .await;
    scaler.ask(Method::PUT, place, &answers(json!([{"name": "jobs", "target": 9}]))).await;
    scaler.ask(Method::POST, &format!("{place}/specs"), &Value::Null).await;
    until("the HPA has the new target", || async {
        metrics(&client).await == [("s0-jobs".to_owned(), "9".to_owned())]
    })
    .await;
    let objects: Api<ScaledObject> = Api::default_namespaced(client.clone());
    objects.delete("pushed", &DeleteParams::default()).await.unwrap();
    until("the streams are closed", || async {
        let open = scaler.ask(Method::GET, place, &Value::Null).await["streams"].clone();
        open.as_object().is_none_or(|open| open.values().all(|count| count == 0))
    })
    .await;
    shutdown.cancel();
    running.await.unwrap().unwrap();
}
