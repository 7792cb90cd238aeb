//! StatefulSets.

use super::*;

fn set(replicas: i32, spec: Value) -> Value {
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": { "name": "web" },
        "spec": {
            "replicas": replicas, "serviceName": "web",
            "selector": { "matchLabels": { "app": "web" } },
            "template": template("one"),
        },
    });
    for (field, value) in spec.as_object().unwrap() {
        set["spec"][field] = value.clone();
    }
    set
}

fn template(image: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": { "terminationGracePeriodSeconds": 0, "containers": [{ "name": "main", "image": image }] },
    })
}

/// A status without the names of revisions.
fn counts(set: &Value) -> Value {
    let mut status = set["status"].clone();
    for field in ["currentRevision", "updateRevision"] {
        status.as_object_mut().unwrap().remove(field);
    }
    status
}

fn settled(set: &Value, replicas: i32) -> bool {
    let status = &set["status"];
    status["observedGeneration"] == set["metadata"]["generation"]
        && status["replicas"] == replicas
        && status["readyReplicas"].as_i64().unwrap_or(0) == i64::from(replicas)
        && status["currentRevision"] == status["updateRevision"]
}

impl Cluster {
    async fn set(&self, replicas: i32, spec: Value) -> String {
        self.create("apis/apps/v1", "statefulsets", &set(replicas, spec)).await;
        self.path("apis/apps/v1", "statefulsets/web")
    }

    async fn images(&self) -> Vec<String> {
        let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
        self.all_pods().await.iter().map(image).collect()
    }
}

pub async fn pods_have_numbers_and_come_in_order(cluster: &Cluster) {
    let path = cluster.set(3, json!({})).await;
    let found = cluster.until(&path, |set| settled(set, 3)).await;
    let expected = json!({
        "availableReplicas": 3, "collisionCount": 0, "currentReplicas": 3, "observedGeneration": 1,
        "readyReplicas": 3, "replicas": 3, "updatedReplicas": 3,
    });
    assert_eq!(counts(&found), expected);
    let pods = cluster.all_pods().await;
    assert_eq!(pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["web-0", "web-1", "web-2"]);
    let made: Vec<_> = pods.iter().map(|pod| pod.metadata.creation_timestamp.clone().unwrap().0).collect();
    assert!(made.is_sorted(), "{made:?}");
    let labels = pods[1].labels();
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "web-1");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "1");
    assert_eq!(found["status"]["updateRevision"], *labels["controller-revision-hash"]);
    let spec = pods[1].spec.as_ref().unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-1"), Some("web")));
    cluster.has_event("StatefulSet", "web", "SuccessfulCreate", "Create Pod web-2 in StatefulSet web successful").await;
    let revisions = cluster.get(&cluster.path("apis/apps/v1", "controllerrevisions")).await;
    let revision = &revisions["items"][0];
    assert_eq!((&revision["metadata"]["name"], &revision["revision"]), (&found["status"]["updateRevision"], &json!(1)));
    assert_eq!(revision["data"]["spec"]["template"]["$patch"], "replace");
}

pub async fn a_set_shrinks_from_its_last_pod(cluster: &Cluster) {
    let path = cluster.set(3, json!({})).await;
    cluster.until(&path, |set| settled(set, 3)).await;
    let scale = format!("{path}/scale");
    cluster.merge(&scale, &json!({ "spec": { "replicas": 1 } })).await;
    cluster.until_pods(&["web-0"]).await;
    let found = cluster.until(&path, |set| settled(set, 1)).await;
    assert_eq!(found["status"]["currentReplicas"], 1);
    cluster.has_event("StatefulSet", "web", "SuccessfulDelete", "Delete Pod web-2 in StatefulSet web successful").await;
    cluster.merge(&scale, &json!({ "spec": { "replicas": 0 } })).await;
    cluster.until_pods(&[]).await;
    let found = cluster.until(&path, |set| settled(set, 0)).await;
    assert_eq!(
        counts(&found),
        json!({ "availableReplicas": 0, "collisionCount": 0, "observedGeneration": 3, "replicas": 0 })
    );
}

pub async fn a_new_template_is_rolled_out_from_the_last_pod(cluster: &Cluster) {
    let path = cluster.set(3, json!({})).await;
    let first = cluster.until(&path, |set| settled(set, 3)).await;
    cluster.merge(&path, &json!({ "spec": { "template": template("two") } })).await;
    let old = first["status"]["currentRevision"].clone();
    let found = cluster.until(&path, |set| settled(set, 3) && set["status"]["currentRevision"] != old).await;
    assert_eq!((&found["status"]["currentReplicas"], &found["status"]["updatedReplicas"]), (&json!(3), &json!(3)));
    assert_eq!(cluster.images().await, ["two", "two", "two"]);
    let pods = cluster.all_pods().await;
    let made: Vec<_> = pods.iter().map(|pod| pod.metadata.creation_timestamp.clone().unwrap().0).collect();
    assert!(made.iter().rev().is_sorted(), "the last one is the oldest: {made:?}");

    // The first version again is the same revision under a new number.
    cluster.merge(&path, &json!({ "spec": { "template": template("one") } })).await;
    let same = first["status"]["updateRevision"].clone();
    cluster.until(&path, |set| settled(set, 3) && set["status"]["updateRevision"] == same).await;
    let revisions = cluster.get(&cluster.path("apis/apps/v1", "controllerrevisions")).await;
    let mut numbers: Vec<_> = revisions["items"].as_array().unwrap().iter().map(|r| r["revision"].as_i64()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [Some(2), Some(3)]);
}

pub async fn a_partition_keeps_the_pods_below_it(cluster: &Cluster) {
    let strategy = |partition: i32| json!({ "type": "RollingUpdate", "rollingUpdate": { "partition": partition } });
    let path = cluster.set(3, json!({ "updateStrategy": strategy(2) })).await;
    cluster.until(&path, |set| settled(set, 3)).await;
    cluster.merge(&path, &json!({ "spec": { "template": template("two") } })).await;
    let found =
        cluster.until(&path, |set| set["status"]["updatedReplicas"] == 1 && set["status"]["readyReplicas"] == 3).await;
    assert_eq!(cluster.images().await, ["one", "one", "two"]);
    assert_eq!(found["status"]["currentReplicas"], 2);
    // One below the partition comes back as it was.
    let old = found["status"]["currentRevision"].clone();
    let pod = cluster.path("api/v1", "pods/web-0");
    let uid = |pod: &Value| pod["metadata"]["uid"].clone();
    let gone = uid(&cluster.get(&pod).await);
    cluster.delete(&pod, &json!({})).await;
    let back =
        cluster.until(&pod, |pod| !pod.is_null() && pod["status"]["phase"] == "Running" && uid(pod) != gone).await;
    assert_eq!(back["metadata"]["labels"]["controller-revision-hash"], old);
    cluster.merge(&path, &json!({ "spec": { "updateStrategy": strategy(0) } })).await;
    cluster.until(&path, |set| settled(set, 3)).await;
    assert_eq!(cluster.images().await, ["two", "two", "two"]);
}

pub async fn a_parallel_set_makes_all_pods_at_once(cluster: &Cluster) {
    // No pod ever becomes ready here, and yet all are made.
    let mut spec = json!({ "podManagementPolicy": "Parallel", "ordinals": { "start": 5 }, "minReadySeconds": 600 });
    spec["template"] = template("one");
    let path = cluster.set(3, spec).await;
    cluster.until_pods(&["web-5", "web-6", "web-7"]).await;
    let found = cluster.until(&path, |set| set["status"]["readyReplicas"] == 3).await;
    assert_eq!(found["status"]["availableReplicas"], 0);
}

pub async fn a_deleted_pod_comes_back_under_its_name(cluster: &Cluster) {
    let path = cluster.set(2, json!({})).await;
    cluster.until(&path, |set| settled(set, 2)).await;
    let pod = cluster.path("api/v1", "pods/web-0");
    let old = cluster.get(&pod).await["metadata"]["uid"].clone();
    cluster.delete(&pod, &json!({})).await;
    cluster.until(&pod, |pod| !pod.is_null() && pod["metadata"]["uid"] != old).await;
    cluster.until(&path, |set| settled(set, 2)).await;
    cluster.delete(&path, &json!({ "propagationPolicy": "Foreground" })).await;
    cluster.until(&path, Value::is_null).await;
    cluster.until_pods(&[]).await;
}
