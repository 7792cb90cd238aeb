//! The controllers over the sandbox's own API, in virtual time.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::ResourceExt;
use kube::api::DeleteParams;
use kube::client::Body;
use serde_json::{Value, json};
use tidemark_sandbox::Sandbox;

use crate::lab::{Lab, pass, pass_seconds};

fn deployment(name: &str, replicas: i32, strategy: Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "strategy": strategy,
            "template": template(name, "one"),
        },
    })
}

fn template(name: &str, image: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": name } },
        "spec": { "containers": [{ "name": "main", "image": image }] },
    })
}

#[tokio::test(start_paused = true)]
async fn a_replica_set_tells_of_the_pods_it_makes_and_deletes() {
    let lab = Lab::new();
    lab.create::<Deployment>(deployment("worker", 2, json!({}))).await;
    pass_seconds(2).await;
    lab.patch::<Deployment>("worker", json!({ "spec": { "replicas": 1 } })).await;
    pass_seconds(2).await;
    let events = lab.list::<Event>().await;
    let told = |reason: &str| {
        let of_set = |event: &&Event| event.involved_object.kind.as_deref() == Some("ReplicaSet");
        let events = events.iter().filter(of_set).filter(|event| event.reason.as_deref() == Some(reason));
        events.filter_map(|event| event.message.clone()).collect::<Vec<_>>()
    };
    let left = lab.list::<Pod>().await.remove(0).name_any();
    let created = told("SuccessfulCreate");
    assert!(created.len() == 2 && created.contains(&format!("Created pod: {left}")), "{created:?}");
    let deleted = told("SuccessfulDelete");
    assert!(deleted.len() == 1 && created.contains(&deleted[0].replace("Deleted", "Created")), "{deleted:?}");
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_deployment_has_the_pods_it_asks_for() {
    let lab = Lab::new();
    lab.create::<Deployment>(deployment("worker", 3, json!({}))).await;
    pass(Duration::from_millis(900)).await;
    let status = lab.deployment("worker").await.status.unwrap();
    assert_eq!((status.replicas, status.ready_replicas.unwrap_or(0)), (Some(3), 0));
    pass_seconds(1).await;
    let found = lab.deployment("worker").await;
    let status = found.status.unwrap();
    assert_eq!(status.observed_generation, found.metadata.generation);
    assert_eq!(
        (status.ready_replicas, status.available_replicas, status.updated_replicas),
        (Some(3), Some(3), Some(3))
    );
    let conditions: BTreeMap<_, _> = status
        .conditions
        .unwrap()
        .into_iter()
        .map(|c| (c.type_.unwrap(), (c.status.unwrap(), c.reason.unwrap())))
        .collect();
    assert_eq!(conditions["Available"], ("True".to_owned(), "MinimumReplicasAvailable".to_owned()));
    assert_eq!(conditions["Progressing"], ("True".to_owned(), "NewReplicaSetAvailable".to_owned()));
    let pods = lab.list::<Pod>().await;
    let addresses: Vec<_> = pods.iter().map(|pod| pod.status.clone().unwrap().pod_ip.unwrap()).collect();
    assert_eq!(addresses.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{addresses:?}");
    assert!(pods.iter().all(|pod| pod.labels().contains_key("pod-template-hash")));
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn scaling_down_takes_young_pods_and_spares_old_ones() {
    let lab = Lab::new();
    lab.create::<Deployment>(deployment("worker", 2, json!({}))).await;
    pass_seconds(60).await;
    let old = lab.pods().await;
    lab.patch::<Deployment>("worker", json!({ "spec": { "replicas": 6 } })).await;
    pass_seconds(60).await;
    assert_eq!(lab.pods().await.len(), 6);
    lab.patch::<Deployment>("worker", json!({ "spec": { "replicas": 2 } })).await;
    pass_seconds(1).await;
    assert_eq!(lab.pods().await, old);
    lab.patch::<Deployment>("worker", json!({ "spec": { "replicas": 0 } })).await;
    pass_seconds(1).await;
    assert!(lab.pods().await.is_empty());
    assert_eq!(lab.deployment("worker").await.status.unwrap().replicas.unwrap_or(0), 0);
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_great_scale_up_is_given_up_when_the_wish_changes() {
    let lab = Lab::new();
    lab.create::<Deployment>(deployment("worker", 0, json!({}))).await;
    lab.create::<Deployment>(deployment("other", 0, json!({}))).await;
    pass_seconds(5).await;
    lab.patch::<Deployment>("worker", json!({ "spec": { "replicas": 600 } })).await;
    // The wish changes while the controllers are at it: no virtual time passes meanwhile.
    while lab.pods().await.is_empty() {
        tokio::task::yield_now().await;
    }
    lab.patch::<Deployment>("worker", json!({ "spec": { "replicas": 0 } })).await;
    lab.patch::<Deployment>("other", json!({ "spec": { "replicas": 1 } })).await;
    let mut most = 0;
    loop {
        let pods = lab.pods().await;
        most = most.max(pods.len());
        if pods.len() == 1 && pods[0].starts_with("other-") {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(most < 200, "{most} pods");
    lab.patch::<Deployment>("worker", json!({ "spec": { "replicas": 600 } })).await;
    pass_seconds(5).await;
    assert_eq!(lab.deployment("worker").await.status.unwrap().ready_replicas, Some(600));
    lab.patch::<Deployment>("worker", json!({ "spec": { "replicas": 1 } })).await;
    pass_seconds(5).await;
    assert_eq!(lab.pods().await.len(), 2);
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_is_replaced() {
    let lab = Lab::new();
    lab.create::<Deployment>(deployment("worker", 2, json!({}))).await;
    pass_seconds(5).await;
    let before = lab.pods().await;
    lab.api::<Pod>().delete(&before[0], &DeleteParams::default()).await.unwrap();
    pass_seconds(5).await;
    let after = lab.pods().await;
    assert_eq!(after.len(), 2);
    assert!(!after.contains(&before[0]) && after.contains(&before[1]));
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_template_is_rolled_out_within_its_bounds() {
    let lab = Lab::new();
    let strategy = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 1 } });
    lab.create::<Deployment>(deployment("worker", 4, strategy)).await;
    pass_seconds(5).await;
    lab.patch::<Deployment>("worker", json!({ "spec": { "template": template("worker", "two") } })).await;
    for _ in 0..100 {
        pass(Duration::from_millis(100)).await;
        let pods = lab.list::<Pod>().await;
        let running =
            pods.iter().filter(|pod| pod.status.as_ref().unwrap().phase.as_deref() == Some("Running")).count();
        assert!((3..=5).contains(&running) && pods.len() <= 5, "{running} of {} run", pods.len());
    }
    let pods = lab.list::<Pod>().await;
    assert_eq!(pods.len(), 4);
    assert!(pods.iter().all(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("two")));
    let found = lab.deployment("worker").await;
    assert_eq!(found.annotations()["deployment.kubernetes.io/revision"], "2");
    assert_eq!(found.status.unwrap().updated_replicas, Some(4));
    let sets = lab.list::<ReplicaSet>().await;
    let mut replicas: Vec<_> = sets.iter().map(|set| set.spec.replicas.unwrap()).collect();
    replicas.sort_unstable();
    assert_eq!(replicas, [0, 4], "the old ReplicaSet stays for a rollback");

    lab.patch::<Deployment>("worker", json!({ "spec": { "template": template("worker", "one") } })).await;
    pass_seconds(20).await;
    assert_eq!(lab.list::<ReplicaSet>().await.len(), 2, "a rollback takes the old ReplicaSet again");
    assert_eq!(lab.deployment("worker").await.annotations()["deployment.kubernetes.io/revision"], "3");
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn recreate_never_mixes_old_and_new_pods() {
    let lab = Lab::new();
    lab.create::<Deployment>(deployment("worker", 3, json!({ "type": "Recreate" }))).await;
    pass_seconds(5).await;
    lab.patch::<Deployment>("worker", json!({ "spec": { "template": template("worker", "two") } })).await;
    for _ in 0..30 {
        pass(Duration::from_millis(100)).await;
        let pods = lab.list::<Pod>().await;
        let images: std::collections::BTreeSet<_> =
            pods.iter().map(|pod| pod.spec.as_ref().unwrap().containers[0].image.clone()).collect();
        assert!(images.len() <= 1, "{images:?}");
    }
    assert_eq!(lab.deployment("worker").await.status.unwrap().updated_replicas, Some(3));
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn deleting_a_deployment_deletes_what_it_made() {
    let lab = Lab::new();
    for how in [DeleteParams::background(), DeleteParams::foreground()] {
        lab.create::<Deployment>(deployment("worker", 2, json!({}))).await;
        pass_seconds(5).await;
        lab.api::<Deployment>().delete("worker", &how).await.unwrap();
        pass_seconds(5).await;
        assert!(lab.pods().await.is_empty(), "{how:?}");
        assert!(lab.list::<ReplicaSet>().await.is_empty(), "{how:?}");
        assert!(lab.api::<Deployment>().get_opt("worker").await.unwrap().is_none(), "{how:?}");
    }
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn orphaned_pods_outlive_their_deployment() {
    let lab = Lab::new();
    lab.create::<Deployment>(deployment("worker", 2, json!({}))).await;
    pass_seconds(5).await;
    lab.api::<Deployment>().delete("worker", &DeleteParams::orphan()).await.unwrap();
    pass_seconds(5).await;
    assert!(lab.api::<Deployment>().get_opt("worker").await.unwrap().is_none());
    let sets = lab.list::<ReplicaSet>().await;
    assert_eq!((sets.len(), lab.pods().await.len()), (1, 2));
    assert!(sets[0].owner_references().is_empty());
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_goes_with_its_last_owner() {
    let lab = Lab::new();
    let map = |name: &str, owners: Vec<&ConfigMap>| {
        let owner = |owner: &&ConfigMap| json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": owner.name_any(), "uid": owner.uid() });
        let owners: Vec<_> = owners.iter().map(owner).collect();
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "ownerReferences": owners } })
    };
    let first = lab.create::<ConfigMap>(map("first", vec![])).await;
    let second = lab.create::<ConfigMap>(map("second", vec![])).await;
    lab.create::<ConfigMap>(map("child", vec![&first, &second])).await;
    pass_seconds(1).await;
    let maps = lab.api::<ConfigMap>();
    maps.delete("first", &DeleteParams::default()).await.unwrap();
    pass_seconds(1).await;
    let child = maps.get("child").await.unwrap();
    assert_eq!(child.owner_references().iter().map(|owner| owner.name.as_str()).collect::<Vec<_>>(), ["second"]);
    maps.delete("second", &DeleteParams::default()).await.unwrap();
    pass_seconds(1).await;
    assert!(maps.get_opt("child").await.unwrap().is_none());

    let mut stranger = second.clone();
    stranger.metadata.uid = Some("00000000-0000-0000-0000-000000000000".to_owned());
    lab.create::<ConfigMap>(map("late", vec![&stranger])).await;
    pass_seconds(1).await;
    assert!(maps.get_opt("late").await.unwrap().is_none(), "its owner never was");
    lab.finish().await;
}

/// An external metrics API whose one metric the test sets; `None` answers with an error.
#[derive(Clone, Default)]
struct Metric {
    values: Arc<Mutex<Option<Vec<&'static str>>>>,
    /// Metrics that were asked for; discovery does not count.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Metric {
    fn set(&self, values: &[&'static str]) {
        *self.values.lock().unwrap() = Some(values.to_vec());
    }

    fn fail(&self) {
        *self.values.lock().unwrap() = None;
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn answer(&self, request: &Request<Body>) -> Response<Full<Bytes>> {
        if request.uri().path().contains("/namespaces/") {
            self.asked.lock().unwrap().push(request.uri().to_string());
        }
        let (status, body) = match &*self.values.lock().unwrap() {
            Some(values) => {
                let item = |value: &&str| json!({ "metricName": "s0-queue", "value": value, "timestamp": null });
                let items: Vec<_> = values.iter().map(item).collect();
                let kind = "ExternalMetricValueList";
                (200, json!({ "kind": kind, "apiVersion": "external.metrics.k8s.io/v1beta1", "items": items }))
            }
            None => {
                let message = "the queue cannot be reached";
                (
                    500,
                    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500, "message": message }),
                )
            }
        };
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
        response
    }

    fn mount(&self, sandbox: &Sandbox) {
        let metric = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let response = metric.answer(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        sandbox.mount("external.metrics.k8s.io", "v1beta1", service);
    }
}

fn hpa(behavior: Value) -> Value {
    json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": { "name": "worker" },
        "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "worker" },
            "minReplicas": 1,
            "maxReplicas": 10,
            "behavior": behavior,
            "metrics": [{
                "type": "External",
                "external": {
                    "metric": { "name": "s0-queue", "selector": { "matchLabels": { "scaledobject.keda.sh/name": "worker" } } },
                    "target": { "type": "AverageValue", "averageValue": "5" },
                },
            }],
        },
    })
}

async fn autoscaled(replicas: i32, behavior: Value) -> (Lab, Metric) {
    let lab = Lab::new();
    let metric = Metric::default();
    metric.mount(&lab.sandbox);
    lab.create::<Deployment>(deployment("worker", replicas, json!({}))).await;
    pass_seconds(5).await;
    lab.create::<HorizontalPodAutoscaler>(hpa(behavior)).await;
    (lab, metric)
}

#[tokio::test(start_paused = true)]
async fn the_hpa_scales_up_one_period_after_its_creation() {
    let (lab, metric) = autoscaled(1, Value::Null).await;
    metric.set(&["12", "7500m"]);
    pass_seconds(14).await;
    assert_eq!((lab.replicas("worker").await, metric.asked()), (1, 0));
    pass_seconds(2).await;
    assert_eq!(lab.replicas("worker").await, 4, "ceil(19.5 / 5)");
    let asked = metric.asked.lock().unwrap()[0].clone();
    assert!(asked.starts_with("/apis/external.metrics.k8s.io/v1beta1/namespaces/default/s0-queue?"), "{asked}");
    assert!(asked.contains("scaledobject.keda.sh%2Fname%3Dworker"), "{asked}");
    let status = lab.hpa().await.status.unwrap();
    assert_eq!((status.current_replicas, status.desired_replicas), (Some(1), 4));
    assert_eq!(status.last_scale_time.unwrap().0.to_string(), "2026-01-01T00:00:20Z");
    assert_eq!(lab.condition("AbleToScale").await.reason.as_deref(), Some("SucceededRescale"));
    assert_eq!(lab.condition("ScalingActive").await.reason.as_deref(), Some("ValidMetricFound"));
    let current = status.current_metrics.unwrap()[0].external.clone().unwrap().current;
    assert_eq!(current.average_value.unwrap().0, "19500m");
    let events = lab.list::<Event>().await;
    let rescale = events.iter().find(|event| event.reason.as_deref() == Some("SuccessfulRescale")).unwrap();
    assert!(rescale.message.as_ref().unwrap().starts_with("New size: 4; reason: "), "{:?}", rescale.message);
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_hpa_scales_down_only_after_the_stabilization_window() {
    let (lab, metric) = autoscaled(1, Value::Null).await;
    metric.set(&["20"]);
    pass_seconds(20).await;
    assert_eq!(lab.replicas("worker").await, 4);
    metric.set(&["1"]);
    pass_seconds(295).await;
    assert_eq!(lab.replicas("worker").await, 4);
    assert_eq!(lab.condition("AbleToScale").await.reason.as_deref(), Some("ScaleDownStabilized"));
    pass_seconds(30).await;
    assert_eq!(lab.replicas("worker").await, 1);
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn behavior_limits_each_period() {
    let up = json!({ "policies": [{ "type": "Pods", "value": 1, "periodSeconds": 60 }] });
    let (lab, metric) = autoscaled(1, json!({ "scaleUp": up })).await;
    metric.set(&["50"]);
    pass_seconds(20).await;
    assert_eq!(lab.replicas("worker").await, 2);
    pass_seconds(45).await;
    assert_eq!(lab.replicas("worker").await, 2);
    assert_eq!(lab.condition("ScalingLimited").await.reason.as_deref(), Some("ScaleUpLimit"));
    pass_seconds(30).await;
    assert_eq!(lab.replicas("worker").await, 3);
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_hpa_rests_at_zero_replicas_and_asks_for_nothing() {
    let (lab, metric) = autoscaled(0, Value::Null).await;
    metric.set(&["50"]);
    pass_seconds(60).await;
    assert_eq!((lab.replicas("worker").await, metric.asked()), (0, 0));
    let condition = lab.condition("ScalingActive").await;
    assert_eq!((condition.status.as_str(), condition.reason.as_deref()), ("False", Some("ScalingDisabled")));
    lab.patch::<Deployment>("worker", json!({ "spec": { "replicas": 1 } })).await;
    pass_seconds(16).await;
    assert_eq!(lab.replicas("worker").await, 4, "twice the replicas, or four");
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_metric_that_cannot_be_read_changes_no_replicas() {
    let (lab, metric) = autoscaled(3, Value::Null).await;
    metric.fail();
    pass_seconds(3600).await;
    assert_eq!(lab.replicas("worker").await, 3);
    let condition = lab.condition("ScalingActive").await;
    assert_eq!((condition.status.as_str(), condition.reason.as_deref()), ("False", Some("FailedGetExternalMetric")));
    assert!(condition.message.unwrap().contains("the queue cannot be reached"));
    let events = lab.list::<Event>().await;
    let failed: Vec<_> = events.iter().filter(|e| e.reason.as_deref() == Some("FailedGetExternalMetric")).collect();
    assert_eq!(failed.len(), 1, "repetitions are counted");
    assert!(failed[0].count > Some(200));
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_settled_hpa_writes_nothing() {
    let (lab, metric) = autoscaled(2, Value::Null).await;
    metric.set(&["10"]);
    pass_seconds(60).await;
    let before = lab.hpa().await.resource_version();
    pass_seconds(600).await;
    assert_eq!(lab.hpa().await.resource_version(), before);
    assert!(metric.asked() > 40);
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn two_hpas_over_the_same_pods_scale_nothing() {
    let (lab, metric) = autoscaled(1, Value::Null).await;
    metric.set(&["50"]);
    let mut other = hpa(Value::Null);
    other["metadata"]["name"] = "rival".into();
    lab.create::<HorizontalPodAutoscaler>(other).await;
    pass_seconds(120).await;
    let rival: HorizontalPodAutoscaler = lab.api().get("rival").await.unwrap();
    let conditions = rival.status.unwrap().conditions.unwrap();
    assert!(
        conditions.iter().any(|condition| condition.reason.as_deref() == Some("AmbiguousSelector")),
        "{conditions:?}"
    );
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_target_is_named() {
    let (lab, _metric) = autoscaled(1, Value::Null).await;
    lab.api::<Deployment>().delete("worker", &DeleteParams::default()).await.unwrap();
    pass_seconds(20).await;
    let condition = lab.condition("AbleToScale").await;
    assert_eq!((condition.status.as_str(), condition.reason.as_deref()), ("False", Some("FailedGetScale")));
    assert!(condition.message.unwrap().contains("worker"));
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_is_kept_for_an_hour() {
    let lab = Lab::new();
    lab.create::<Deployment>(deployment("worker", 1, json!({}))).await;
    pass_seconds(3590).await;
    assert_eq!(lab.list::<Event>().await.len(), 2, "one of the Deployment and one of its ReplicaSet");
    pass_seconds(20).await;
    assert!(lab.list::<Event>().await.is_empty());
    lab.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_log_of_a_simulated_pod_is_empty() {
    let lab = Lab::new();
    lab.create::<Deployment>(deployment("worker", 1, json!({}))).await;
    pass_seconds(5).await;
    let pod = lab.pods().await.remove(0);
    assert_eq!(lab.api::<Pod>().logs(&pod, &kube::api::LogParams::default()).await.unwrap(), "");
    lab.finish().await;
}

/// Everything there is after a busy hour, as text.
async fn a_busy_hour() -> String {
    let (lab, metric) = autoscaled(1, Value::Null).await;
    for round in 0..12 {
        metric.set([&["3"], &["40"], &["11"]][round % 3]);
        if round % 4 == 1 {
            let image = format!("version-{round}");
            lab.patch::<Deployment>("worker", json!({ "spec": { "template": template("worker", &image) } })).await;
        }
        pass_seconds(300).await;
    }
    let mut all = String::new();
    all += &serde_json::to_string(&lab.list::<Deployment>().await).unwrap();
    all += &serde_json::to_string(&lab.list::<ReplicaSet>().await).unwrap();
    all += &serde_json::to_string(&lab.list::<Pod>().await).unwrap();
    all += &serde_json::to_string(&lab.list::<HorizontalPodAutoscaler>().await).unwrap();
    all += &serde_json::to_string(&lab.list::<Event>().await).unwrap();
    lab.finish().await;
    all
}

#[test]
fn the_same_input_gives_the_same_objects() {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(a_busy_hour())
    };
    let first = run();
    assert!(first.contains("version-9"));
    assert_eq!(first, run());
}
