//! What is served beside objects: discovery, tables, aggregated APIs, and the refusals of the rest.

use std::convert::Infallible;

use http::Response;
use k8s_openapi::api::core::v1::Node;
use kube::Discovery;
use kube::api::ListParams;
use kube::client::Body;

use super::*;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

fn cells(table: &Value) -> Vec<Vec<String>> {
    let row = |row: &Value| {
        let cells = row["cells"].as_array().unwrap().iter();
        cells.map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned)).collect()
    };
    table["rows"].as_array().unwrap().iter().map(row).collect()
}

fn columns(table: &Value) -> Vec<&str> {
    table["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn lists_come_as_the_tables_that_kubectl_prints() {
    let sandbox = sandbox(Options::default());
    sandbox.install_crds(&tidemark_api::crds()).unwrap();
    let client = sandbox.client();
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    api.create(&PostParams::default(), &deployment("web")).await.unwrap();
    tokio::time::advance(std::time::Duration::from_secs(90)).await;
    let table = get(&client, "/apis/apps/v1/namespaces/default/deployments", TABLE).await;
    assert_eq!(columns(&table)[..5], ["Name", "Ready", "Up-to-date", "Available", "Age"]);
    assert_eq!(cells(&table)[0], ["web", "0/1", "0", "0", "90s", "main", "nginx:1", "app=web"]);
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let object = json!({
        "metadata": {"name": "so"},
        "spec": {"scaleTargetRef": {"name": "web"}, "maxReplicaCount": 9, "triggers": [{"type": "cron", "metadata": {}}]},
    });
    send(&client, "POST", "/apis/keda.sh/v1alpha1/namespaces/default/scaledobjects", object).await.unwrap();
    let table = get(&client, "/apis/keda.sh/v1alpha1/scaledobjects", TABLE).await;
    assert_eq!(columns(&table)[..5], ["Name", "ScaleTargetKind", "ScaleTargetName", "Min", "Max"]);
    let cells = cells(&table);
    assert_eq!((&*cells[0][2], &*cells[0][4], &*cells[0][11]), ("web", "9", "0s"));
}

#[tokio::test(start_paused = true)]
async fn discovery_finds_every_kind_in_both_forms() {
    let sandbox = sandbox(Options::default());
    sandbox.install_crds(&tidemark_api::crds()).unwrap();
    let client = sandbox.client();
    let plain = Discovery::new(client.clone()).run().await.unwrap();
    let aggregated = Discovery::new(client.clone()).run_aggregated().await.unwrap();
    for discovery in [plain, aggregated] {
        for (group, version, kind) in [
            ("", "v1", "Pod"),
            ("apps", "v1", "Deployment"),
            ("autoscaling", "v2", "HorizontalPodAutoscaler"),
            ("keda.sh", "v1alpha1", "ScaledObject"),
        ] {
            let found = discovery.resolve_gvk(&kube::api::GroupVersionKind::gvk(group, version, kind));
            assert!(found.is_some(), "{group}/{version} {kind}");
        }
        let (_, capabilities) =
            discovery.resolve_gvk(&kube::api::GroupVersionKind::gvk("apps", "v1", "Deployment")).unwrap();
        assert!(capabilities.subresources.iter().any(|(part, _)| part.plural == "scale"));
    }
    assert_eq!(client.apiserver_version().await.unwrap().major, "1");
}

#[tokio::test(start_paused = true)]
async fn kubectl_learns_that_the_server_validates_fields() {
    let client = client();
    let root = get(&client, "/openapi/v3", "application/json").await;
    let address = root["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = get(&client, address, "application/json").await;
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    assert!(patch["parameters"].as_array().unwrap().iter().any(|one| one["name"] == "fieldValidation"));
}

#[tokio::test(start_paused = true)]
async fn kubectl_explains_custom_resources_and_learns_what_is_not_there() {
    let sandbox = sandbox(Options::default());
    sandbox.install_crds(&tidemark_api::crds()).unwrap();
    let client = sandbox.client();
    let document = get(&client, "/openapi/v3/apis/keda.sh/v1alpha1", "application/json").await;
    let schema = &document["components"]["schemas"]["sh.keda.v1alpha1.ScaledObject"];
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "ScaledObject");
    assert_eq!(schema["properties"]["spec"]["properties"]["triggers"]["type"], "array");
    let second = get(&client, "/openapi/v2", "application/json").await;
    assert_eq!((&second["swagger"], &second["paths"]), (&json!("2.0"), &json!({})));
    for name in ["spec.v2@v1.0+protobuf", "spec.v2.v1.0+protobuf"] {
        let accept = format!("application/com.github.proto-openapi.{name}");
        let request = Request::get("/openapi/v2").header("Accept", accept).body(Body::empty()).unwrap();
        let response = client.send(request).await.unwrap();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        assert!(body.starts_with(b"\n\x032.0"), "{body:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn values_of_more_than_a_mebibyte_are_refused() {
    let client = client();
    let text = |size: usize| "a".repeat(size);
    let cases = [
        ("configmaps", json!({"data": {"a": text(1 << 20)}}), None),
        ("configmaps", json!({"data": {"a": text(1 << 20), "b": "c"}}), Some("ConfigMap \"x\" is invalid: []: ")),
        ("secrets", json!({"stringData": {"a": text(1 << 20)}}), None),
        ("secrets", json!({"stringData": {"a": text((1 << 20) + 1)}}), Some("Secret \"x\" is invalid: data: ")),
    ];
    for (plural, mut body, refusal) in cases {
        body["metadata"] = json!({"name": "x"});
        let path = format!("/api/v1/namespaces/default/{plural}?dryRun=All");
        let outcome = send(&client, "POST", &path, body).await;
        let Some(start) = refusal else {
            outcome.unwrap();
            continue;
        };
        let status = refused(outcome);
        assert_eq!(status.code, 422);
        assert_eq!(status.message, format!("{start}Too long: may not be more than 1048576 bytes"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_done_is_named() {
    let client = client();
    let nodes: Api<Node> = Api::all(client.clone());
    let status = refused(nodes.list(&ListParams::default()).await);
    assert_eq!((status.code, &*status.reason), (501, "NotImplemented"));
    assert!(status.message.contains("resource nodes of v1"), "{}", status.message);
    let status = refused(send(&client, "POST", "/api/v1/namespaces/default/pods/x/exec", json!({})).await);
    assert!(status.code == 501 && status.message.contains("pods/exec"), "{}", status.message);
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    assert_eq!(refused(send(&client, "GET", roles, json!(null)).await).code, 501);
    assert_eq!(refused(send(&client, "GET", "/apis/unknown.example.com/v1/things", json!(null)).await).code, 404);
    assert_eq!(refused(send(&client, "POST", "/version", json!({})).await).code, 405);
    let protobuf = Request::get("/api/v1/pods").header("Accept", "application/vnd.kubernetes.protobuf");
    assert_eq!(refused(client.request::<Value>(protobuf.body(Vec::new()).unwrap()).await).code, 406);
    let yaml = Request::post("/api/v1/namespaces").header("Content-Type", "application/yaml");
    assert_eq!(refused(client.request::<Value>(yaml.body(b"a: b".to_vec()).unwrap()).await).code, 415);
}

#[tokio::test(start_paused = true)]
async fn an_oversized_or_broken_body_is_refused() {
    let client = client();
    let path = "/api/v1/namespaces/default/configmaps";
    let large = json!({"metadata": {"name": "x"}, "data": {"a": "b".repeat(4 << 20)}});
    assert_eq!(refused(send(&client, "POST", path, large).await).code, 413);
    let broken = Request::post(path).header("Content-Type", "application/json").body(b"{".to_vec()).unwrap();
    assert_eq!(refused(client.request::<Value>(broken).await).code, 400);
    assert_eq!(refused(send(&client, "POST", path, json!([1])).await).code, 400);
}

#[tokio::test(start_paused = true)]
async fn a_mounted_api_answers_for_its_group() {
    let sandbox = sandbox(Options::default());
    let echo = tower::service_fn(|request: Request<Body>| async move {
        let path = request.uri().path().to_owned();
        let body = match &*path {
            "/apis/external.metrics.k8s.io/v1beta1" => json!({
                "kind": "APIResourceList", "resources": [{"name": "externalmetrics", "singularName": "", "namespaced": true,
                    "kind": "ExternalMetricValueList", "verbs": ["get"]}],
            }),
            _ => json!({"path": path, "query": request.uri().query()}),
        };
        Ok::<_, Infallible>(Response::new(http_body_util::Full::new(bytes::Bytes::from(body.to_string()))))
    });
    sandbox.mount("external.metrics.k8s.io", "v1beta1", echo);
    let client = sandbox.client();
    let path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/s0-cron";
    let answer = get(&client, &format!("{path}?labelSelector=a%3Db"), "application/json").await;
    assert_eq!(answer, json!({"path": path, "query": "labelSelector=a%3Db"}));
    let groups = get(&client, "/apis", "application/json").await;
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "external.metrics.k8s.io"));
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let groups = get(&client, "/apis", accept).await;
    assert!(groups.to_string().contains("externalmetrics"), "{groups}");
    let table = get(&client, "/apis/apiregistration.k8s.io/v1/apiservices", TABLE).await;
    assert_eq!(cells(&table)[0][..3], ["v1beta1.external.metrics.k8s.io", "kube-system/in-process", "True"]);
}

#[tokio::test(start_paused = true)]
async fn an_aggregated_api_elsewhere_is_shown_as_not_served() {
    let client = client();
    let body = json!({
        "metadata": {"name": "v1.metrics.example.com"},
        "spec": {"group": "metrics.example.com", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
            "service": {"namespace": "default", "name": "metrics"}},
    });
    send(&client, "POST", "/apis/apiregistration.k8s.io/v1/apiservices", body).await.unwrap();
    let table = get(&client, "/apis/apiregistration.k8s.io/v1/apiservices", TABLE).await;
    assert_eq!(cells(&table)[0][2], "False (NotImplemented)");
}

#[tokio::test(start_paused = true)]
async fn an_aggregated_api_that_does_not_answer_does_not_hold_up_discovery() {
    let sandbox = sandbox(Options::default());
    let silent = tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
    sandbox.mount("silent.example.com", "v1", silent);
    let discovery = Discovery::new(sandbox.client()).run_aggregated();
    let discovery = tokio::time::timeout(std::time::Duration::from_secs(10), discovery).await.unwrap().unwrap();
    assert!(discovery.resolve_gvk(&kube::api::GroupVersionKind::gvk("apps", "v1", "Deployment")).is_some());
}
