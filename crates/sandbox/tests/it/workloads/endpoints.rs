//! EndpointSlices of Services.

use super::*;

fn service(spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "shop", "labels": { "team": "a" } }, "spec": spec })
}

fn slices(cluster: &Cluster) -> String {
    cluster.path("apis/discovery.k8s.io/v1", "endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dshop")
}

fn endpoints(slices: &Value) -> Vec<&Value> {
    let all = slices["items"].as_array().into_iter().flatten();
    all.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten()).collect()
}

pub async fn a_slice_lists_the_pods_of_a_service(cluster: &Cluster) {
    let spec = json!({
        "clusterIP": "None", "selector": { "app": "shop" },
        "ports": [{ "name": "web", "port": 80, "targetPort": "http" }, { "name": "admin", "port": 81, "targetPort": 9000 }],
    });
    cluster.create("api/v1", "services", &service(spec)).await;
    for (name, app) in [("a", "shop"), ("b", "shop"), ("c", "other")] {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": app } },
            "spec": {
                "hostname": name, "subdomain": "shop", "terminationGracePeriodSeconds": 0,
                "containers": [{ "name": "main", "image": "none", "ports": [{ "name": "http", "containerPort": 8080 }] }],
            },
        });
        cluster.create("api/v1", "pods", &pod).await;
    }
    let ready = |slices: &Value| {
        let all = endpoints(slices);
        all.len() == 2 && all.iter().all(|endpoint| endpoint["conditions"]["ready"] == true)
    };
    let found = cluster.until(&slices(cluster), ready).await;
    let slice = &found["items"][0];
    assert_eq!(slice["addressType"], "IPv4");
    assert!(slice["metadata"]["name"].as_str().unwrap().starts_with("shop-"));
    let labels = &slice["metadata"]["labels"];
    assert_eq!(
        *labels,
        json!({
            "team": "a", "kubernetes.io/service-name": "shop", "service.kubernetes.io/headless": "",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        })
    );
    let owner = &slice["metadata"]["ownerReferences"][0];
    assert_eq!(
        [&owner["kind"], &owner["name"], &owner["controller"]],
        [&json!("Service"), &json!("shop"), &json!(true)]
    );
    let mut ports = slice["ports"].as_array().unwrap().clone();
    ports.sort_by_key(|port| port["port"].as_i64());
    assert_eq!(
        ports,
        [
            json!({ "name": "web", "port": 8080, "protocol": "TCP" }),
            json!({ "name": "admin", "port": 9000, "protocol": "TCP" }),
        ]
    );
    let mut all = endpoints(&found);
    all.sort_by_key(|endpoint| endpoint["targetRef"]["name"].as_str());
    let pod = cluster.get(&cluster.path("api/v1", "pods/a")).await;
    assert_eq!(all[0]["addresses"], json!([pod["status"]["podIP"]]));
    assert_eq!(all[0]["conditions"], json!({ "ready": true, "serving": true, "terminating": false }));
    assert_eq!(all[0]["hostname"], "a");
    assert_eq!(all[0]["targetRef"]["uid"], pod["metadata"]["uid"]);

    cluster.merge(&cluster.path("api/v1", "pods/a"), &json!({ "metadata": { "labels": { "app": "other" } } })).await;
    let left = cluster.until(&slices(cluster), |slices| endpoints(slices).len() == 1).await;
    assert_eq!(endpoints(&left)[0]["targetRef"]["name"], "b");
    cluster.delete(&cluster.path("api/v1", "pods/b"), &json!({})).await;
    cluster.until(&slices(cluster), |slices| endpoints(slices).is_empty()).await;
}

pub async fn a_service_without_pods_has_an_empty_slice(cluster: &Cluster) {
    let spec = json!({ "selector": { "app": "shop" }, "ports": [{ "port": 80 }] });
    cluster.create("api/v1", "services", &service(spec)).await;
    let found =
        cluster.until(&slices(cluster), |slices| slices["items"].as_array().is_some_and(|all| !all.is_empty())).await;
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    assert!(endpoints(&found).is_empty());
}

pub async fn the_slices_of_a_deleted_service_go_too(cluster: &Cluster) {
    let spec = json!({ "selector": { "app": "shop" }, "ports": [{ "port": 80 }] });
    cluster.create("api/v1", "services", &service(spec)).await;
    cluster.until(&slices(cluster), |slices| slices["items"].as_array().is_some_and(|all| !all.is_empty())).await;
    cluster.delete(&cluster.path("api/v1", "services/shop"), &json!({})).await;
    cluster.until(&slices(cluster), |slices| slices["items"].as_array().is_some_and(Vec::is_empty)).await;
}
